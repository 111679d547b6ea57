-- Plans and times of the analytics views on a million messages of a year. In an empty database with the schema:
--   psql -d DATABASE -f tests/bench/analytics.sql
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SELECT register_wa_phone_number('100', '+1 555 123 4567', '200');
UPDATE wa_organizations SET time_zone = 'Asia/Kathmandu';
INSERT INTO wa_contacts (phone_e164, phone_key)
SELECT '+' || (ARRAY['1650', '55', '91', '44', '49', '977'])[1 + n % 6] || 100000000 + n, 'k' || n
FROM generate_series(1, 20000) n;
INSERT INTO wa_conversation_windows (contact_id, number_id, last_customer_message_at, unread_count)
SELECT c.id, n.id, now() - random() * interval '3 days', (random() * 2)::integer
FROM wa_contacts c CROSS JOIN wa_phone_numbers n;
\timing on
\echo a million messages, a third of them inbound, a third templates
INSERT INTO wa_messages (
    organization_id, number_id, phone_number_id, contact_id, phone_e164, wa_message_id, direction, message_type,
    template_name, status, state, is_within_24h_at_claim, pricing, metadata, queued_at, sent_at, created_at
)
SELECT
    c.organization_id, w.id, '100', c.id, c.phone_e164, 'w' || n,
    CASE n % 3 WHEN 0 THEN 'inbound' ELSE 'outbound' END, CASE n % 3 WHEN 1 THEN 'template' ELSE 'text' END,
    CASE n % 3 WHEN 1 THEN (ARRAY['hello', 'sale', 'order', 'code'])[1 + n % 4] END,
    CASE WHEN n % 3 = 0 THEN 'received' WHEN n % 50 = 0 THEN 'failed' ELSE 'sent' END,
    CASE WHEN n % 3 = 0 THEN 'received' WHEN n % 50 = 0 THEN 'failed'
        ELSE (ARRAY['accepted', 'sent', 'delivered', 'read'])[1 + n % 4] END,
    true,
    CASE WHEN n % 3 = 1 AND n % 50 > 0 THEN jsonb_build_object('billable', true, 'type', 'regular', 'category',
        CASE n % 2 WHEN 0 THEN 'marketing' ELSE 'utility' END) END,
    CASE WHEN n % 3 > 0 THEN jsonb_build_object('role', (ARRAY['sales', 'operations'])[1 + n % 2]) ELSE '{}' END,
    CASE WHEN n % 3 > 0 THEN t.at - interval '3 s' END, CASE WHEN n % 3 > 0 AND n % 50 > 0 THEN t.at END, t.at
FROM generate_series(1, 1000000) n
CROSS JOIN LATERAL (SELECT clock_timestamp() - interval '365 days' * (1 - n / 1000000.0) AS at) t
CROSS JOIN wa_phone_numbers w
JOIN wa_contacts c ON c.organization_id = w.organization_id AND c.id = 1 + n / 3 * 7 % 20000;
\echo the first roll-up of all
DO $$ BEGIN WHILE roll_up_wa_analytics(5000) > 0 LOOP NULL; END LOOP; END $$;
VACUUM ANALYZE;
\echo a hundred late statuses
UPDATE wa_messages SET state = 'read' WHERE wa_message_id = ANY (ARRAY(
    SELECT 'w' || 500000 + n * 1000 FROM generate_series(1, 100) n));
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM wa_daily_messages WHERE day > current_date - 30;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM wa_daily_delivery WHERE day > current_date - 30;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM wa_daily_delivery;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM wa_daily_costs WHERE day > current_date - 30;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM wa_daily_response_times WHERE day > current_date - 30;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)
SELECT * FROM wa_message_compliance WHERE created_at > now() - interval '24 hours';
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT * FROM wa_unread_counts;
\echo the roll-up after them
SELECT roll_up_wa_analytics();
