-- Tests sql/analytics/analytics.sql, sql/analytics/countries.sql, sql/analytics/rates.sql.
-- Figures by day, their roll-ups and costs.
BEGIN;
SELECT plan(50);
\ir ../world.psql

-- One message, at a moment; everything else by default.
CREATE FUNCTION world.message(
    p_at timestamptz, p_direction text DEFAULT 'outbound', p_n integer DEFAULT 1, p_state text DEFAULT 'sent',
    p_template text DEFAULT NULL, p_pricing jsonb DEFAULT NULL, p_role text DEFAULT NULL
) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO wa_messages (number_id, phone_number_id, contact_id, phone_e164, wa_message_id, direction,
        message_type, template_name, status, state, pricing, metadata, queued_at, sent_at, created_at)
    SELECT n.id, '100', world.contact(world.customer(p_n)), world.customer(p_n),
        'wamid.' || gen_random_uuid(), p_direction,
        CASE WHEN p_template IS NULL THEN 'text' ELSE 'template' END, p_template,
        CASE WHEN p_direction = 'inbound' THEN 'received' WHEN p_state = 'failed' THEN 'failed' ELSE 'sent' END,
        CASE WHEN p_direction = 'inbound' THEN 'received' ELSE p_state END, p_pricing,
        jsonb_strip_nulls(jsonb_build_object('role', p_role)),
        CASE WHEN p_direction = 'outbound' THEN p_at - interval '4 seconds' END,
        CASE WHEN p_direction = 'outbound' AND p_state <> 'failed' THEN p_at END, p_at
    FROM wa_phone_numbers n WHERE n.phone_number_id = '100'
    RETURNING id
$$;
CREATE FUNCTION world.days() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(d.day || ' ' || d.messages, ', ' ORDER BY d.day)
    FROM (SELECT day, sum(messages) AS messages FROM wa_daily_messages GROUP BY day) d
$$;

-- Time zones.
SELECT throws_ok($$ UPDATE wa_organizations SET time_zone = 'Mars/Olympus' $$, 'WA061', NULL,
    'a time zone that nobody knows is refused');
SELECT throws_ok($$ UPDATE wa_organizations SET time_zone = 'UTC+0:07' $$, 'WA061', NULL,
    'and one that is made up of an offset');
SELECT lives_ok(format('UPDATE wa_organizations SET time_zone = %L', z), z)
FROM unnest(ARRAY['America/Argentina/Buenos_Aires', 'America/Port-au-Prince', 'Etc/GMT+12', 'UTC']) z;
UPDATE wa_organizations SET time_zone = 'Asia/Kathmandu';
SELECT world.message('2026-03-01 18:14:59.999+00');
SELECT world.message('2026-03-01 18:15+00');
SELECT is(world.days(), '2026-03-01 1, 2026-03-02 1', 'Kathmandu''s day begins at 18:15 UTC');
SELECT is(roll_up_wa_analytics(), 2, 'two quarter hours are rolled up');
SELECT is(world.days(), '2026-03-01 1, 2026-03-02 1', 'with the same figures');
SELECT is_empty('SELECT * FROM wa_rollup_marks', 'nothing is left to roll up');
UPDATE wa_organizations SET time_zone = 'UTC';
SELECT is(world.days(), '2026-03-01 2', 'another time zone cuts what was rolled up anew');

DELETE FROM wa_messages;
UPDATE wa_organizations SET time_zone = 'Europe/Berlin';
SELECT is(world.days(), NULL, 'what is deleted is gone from the figures');
-- The 25th of October 2026 has 25 hours, the 29th of March 23.
SELECT world.message(t) FROM generate_series(timestamptz '2026-10-24 21:00+00', '2026-10-26 01:00+00', '1 hour') t;
SELECT is(world.days(), '2026-10-24 1, 2026-10-25 25, 2026-10-26 3', 'a day of 25 hours');
SELECT roll_up_wa_analytics();
SELECT is(world.days(), '2026-10-24 1, 2026-10-25 25, 2026-10-26 3', 'rolled up, too');
DELETE FROM wa_messages;
SELECT world.message(t) FROM generate_series(timestamptz '2026-03-28 22:00+00', '2026-03-29 22:00+00', '1 hour') t;
SELECT is(world.days(), '2026-03-28 1, 2026-03-29 23, 2026-03-30 1', 'a day of 23 hours');
SELECT roll_up_wa_analytics();
SELECT is(world.days(), '2026-03-28 1, 2026-03-29 23, 2026-03-30 1', 'rolled up, too');
DELETE FROM wa_messages;
UPDATE wa_organizations SET time_zone = 'UTC';

-- Delivery.
SELECT world.message('2026-03-01 10:00+00', p_state => s, p_template => 'hello')
FROM unnest(ARRAY['sent', 'sent', 'delivered', 'read', 'failed']) s;
SELECT world.message('2026-03-01 10:00+00', 'inbound');
SELECT results_eq(
    'SELECT template_name, messages, sent, failed, delivered, seen, delivery_rate, read_rate, avg_queue_seconds
    FROM wa_daily_delivery',
    $$ VALUES ('hello', 5::bigint, 4::bigint, 1::bigint, 2::bigint, 1::bigint, 50.00, 50.00, 4.000) $$,
    'a day''s delivery'
);
SELECT roll_up_wa_analytics();
UPDATE wa_messages SET state = 'played' WHERE state = 'sent';
SELECT results_eq('SELECT delivered, seen, delivery_rate FROM wa_daily_delivery',
    $$ VALUES (4::bigint, 3::bigint, 100.00) $$, 'late statuses count at once');
SELECT results_eq(
    'SELECT direction, status, messages FROM wa_daily_messages ORDER BY 1, 2',
    $$ VALUES ('inbound', 'received', 1::bigint), ('outbound', 'failed', 1), ('outbound', 'sent', 4) $$,
    'by direction and status'
);
UPDATE wa_messages SET created_at = created_at + interval '1 day' WHERE direction = 'inbound';
SELECT is(world.days(), '2026-03-01 5, 2026-03-02 1', 'a message that is moved leaves its old place');
SELECT roll_up_wa_analytics();
TRUNCATE wa_messages;
SELECT is(world.days(), NULL, 'an emptied ledger leaves nothing');
SELECT roll_up_wa_analytics();
SELECT is(world.days(), NULL, 'nor after the roll-up');

-- The quarter hour that runs.
SELECT world.message(clock_timestamp()) FROM generate_series(1, 3);
SELECT is((SELECT sum(messages) FROM wa_daily_messages), 3::numeric, 'what has just been sent counts');
SELECT roll_up_wa_analytics();
SELECT cmp_ok((SELECT count(*) FROM wa_rollup_marks), '<=', 1::bigint, 'its marks become one');
SELECT is((SELECT sum(messages) FROM wa_daily_messages), 3::numeric, 'and it still counts');
TRUNCATE wa_messages;

-- Answers.
SELECT world.message('2026-03-01 10:00+00', 'inbound', 1);
SELECT world.message('2026-03-01 10:05+00', 'inbound', 1);
SELECT world.message('2026-03-01 10:10+00', 'outbound', 1, p_role => 'Sales');
SELECT world.message('2026-03-01 10:11+00', 'outbound', 1, p_role => 'Sales');
SELECT world.message('2026-03-01 11:00+00', 'inbound', 2);
SELECT world.message('2026-03-01 11:01+00', 'outbound', 2, p_template => 'sale');
SELECT world.message('2026-03-01 11:30+00', 'outbound', 2);
SELECT world.message('2026-03-01 12:00+00', 'inbound', 3);
SELECT world.message('2026-03-02 12:01+00', 'outbound', 3, p_role => 'Sales');
SELECT set_eq('SELECT day, role, responses, avg_response_seconds, longest_response_seconds
    FROM wa_daily_response_times',
    $$ VALUES (date '2026-03-01', 'Sales', 1::bigint, 600.000, 600.000),
        ('2026-03-01', NULL, 1, 1800.000, 1800.000) $$,
    'the first free-form answer counts, from the first message that waited, within 24 hours');
SELECT roll_up_wa_analytics();
SELECT is((SELECT sum(responses) FROM wa_daily_response_times), 2::numeric, 'rolled up the same');
DELETE FROM wa_messages WHERE created_at = '2026-03-01 10:00+00';
SELECT is((SELECT avg_response_seconds FROM wa_daily_response_times WHERE role = 'Sales'), 300.000,
    'an answer follows the messages before it, also those of another quarter hour');
SELECT roll_up_wa_analytics();
SELECT is((SELECT avg_response_seconds FROM wa_daily_response_times WHERE role = 'Sales'), 300.000,
    'as its roll-up does');
DELETE FROM wa_messages;
SELECT roll_up_wa_analytics();

-- Costs.
SELECT is(array_agg(_wa_country(p.phone, p.user_id) ORDER BY p.n), ARRAY['US', 'CA', 'DO', 'RU', 'KZ', 'BR', 'NP',
    'GB', 'IN', NULL, NULL], 'countries of numbers and ids')
FROM (VALUES (1, '+16505550100', NULL), (2, '+14165550100', NULL), (3, '+18095550100', NULL),
    (4, '+79161234567', NULL), (5, '+77011234567', NULL), (6, '+5511987654321', NULL), (7, '+9779841234567', NULL),
    (8, '+447400123456', NULL), (9, NULL, 'IN.1349'), (10, NULL, 'x'), (11, '+80012345678', NULL)) p (n, phone,
    user_id);
SELECT is(load_wa_rates(E'country,category,currency,valid_from,rate\r\nar,MARKETING,usd,2026-01-01,0.05\r\n'
    'AR,marketing,USD,2026-04-01,0.06\r\n\r\n"AR","authentication-international","USD","2026-01-01","0.02"\r\n'),
    3, 'a rate card is loaded');
SELECT is(load_wa_rates(E'rate,valid_from,country,category,currency\n0.07,2026-04-01,AR,marketing,EUR'), 1,
    'columns in any order; the same day again replaces');
SELECT results_eq('SELECT country, category, valid_from, currency, rate FROM wa_rates ORDER BY 2, 3',
    $$ VALUES ('AR', 'authentication_international', date '2026-01-01', 'USD', 0.02),
        ('AR', 'marketing', '2026-01-01', 'USD', 0.05), ('AR', 'marketing', '2026-04-01', 'EUR', 0.07) $$,
    'in one spelling');
SELECT throws_like($$ SELECT load_wa_rates(E'country,category,currency,valid_from,rate\nAR,utility,USD,soon,1') $$,
    'line 2 is no rate: "AR,utility,USD,soon,1"', 'a wrong line is named');
SELECT throws_ok($$ SELECT load_wa_rates('AR,utility,USD,2026-01-01,0.1') $$, 'WA032', NULL,
    'a card without its first line is refused');
SELECT throws_ok($$ SELECT load_wa_rates(NULL) $$, 'WA032', NULL, 'and so is none');

CREATE FUNCTION world.priced(p_at timestamptz, p_category text, p_more jsonb DEFAULT '{}',
    p_state text DEFAULT 'delivered')
RETURNS bigint LANGUAGE sql AS $$
    SELECT world.message(p_at, p_state => p_state, p_template => 'sale', p_pricing => jsonb_build_object(
        'billable', true, 'pricing_model', 'PMP', 'type', 'regular', 'category', p_category) || p_more)
$$;
SELECT world.priced('2025-12-31 10:00+00', 'marketing');
SELECT world.priced('2026-03-31 10:00+00', 'marketing') FROM generate_series(1, 3);
SELECT world.priced('2026-03-31 10:00+00', 'marketing', p_state => 'sent');
SELECT world.priced('2026-04-01 10:00+00', 'marketing');
SELECT world.priced('2026-04-01 10:00+00', 'utility');
SELECT world.priced('2026-04-01 10:00+00', 'service', '{"billable": false, "type": "free_customer_service"}');
SELECT world.priced('2026-04-01 10:00+00', 'business_initiated', '{"pricing_model": "CBP"}');
SELECT world.message('2026-04-01 10:01+00', 'inbound');
SELECT world.priced('2026-04-02 10:00+00', 'authentication-international', '{"billable": null}');
SELECT world.message('2026-04-02 10:00+00');
PREPARE costs AS SELECT day, category, country, charge, messages, delivered, currency, cost FROM wa_daily_costs
ORDER BY day, category;
PREPARE expected AS VALUES
(date '2025-12-31', 'marketing', 'AR', 'paid', 1::bigint, 1::bigint, NULL, NULL::numeric),
('2026-03-31', 'marketing', 'AR', 'paid', 4, 3, 'USD', 0.15),
('2026-04-01', 'business_initiated', 'AR', 'unknown', 1, 1, NULL, NULL),
('2026-04-01', 'marketing', 'AR', 'paid', 1, 1, 'EUR', 0.07),
('2026-04-01', 'service', 'AR', 'free', 1, 1, NULL, 0),
('2026-04-01', 'utility', 'AR', 'paid', 1, 1, NULL, NULL),
('2026-04-02', 'authentication_international', 'AR', 'paid', 1, 1, 'USD', 0.02);
SELECT results_eq('costs', 'expected', 'what was delivered costs the rate of its day; without a rate it is not known');
SELECT roll_up_wa_analytics();
SELECT results_eq('costs', 'expected', 'rolled up the same');

-- Retention.
SELECT throws_ok($$ SELECT delete_wa_messages_before(clock_timestamp() - interval '47 hours') $$, '22023', NULL,
    'young messages are not deleted');
INSERT INTO wa_message_statuses (wa_message_id, status, occurred_at)
SELECT wa_message_id, 'sent', created_at FROM wa_messages;
CREATE TEMPORARY TABLE figures AS SELECT * FROM wa_daily_messages;
SELECT is(delete_wa_messages_before('2026-04-01 10:14+00'), 5, 'whole quarter hours before the time go');
SELECT is((SELECT count(*) FROM wa_message_statuses), 7::bigint, 'with their statuses');
SELECT is(delete_wa_messages_before('2026-04-01 10:15+00', 3), 3, 'so many at once');
SELECT is(delete_wa_messages_before('2026-04-01 10:15+00', 3), 2, 'and the rest');
SELECT set_eq('SELECT * FROM wa_daily_messages', 'SELECT * FROM figures', 'the figures stay');
SELECT roll_up_wa_analytics();
SELECT set_eq('SELECT * FROM wa_daily_messages', 'SELECT * FROM figures', 'whatever is rolled up later');
DELETE FROM wa_messages;
SELECT is(world.days(), '2025-12-31 1, 2026-03-31 4, 2026-04-01 5', 'a plain DELETE lowers them');

-- Compliance, unread.
TRUNCATE wa_messages;
SELECT world.wrote(1), world.wrote(2, '25 hours');
SELECT world.message(clock_timestamp(), p_n => n) FROM generate_series(1, 2) n;
UPDATE wa_messages SET is_within_24h_at_claim = (contact_id = world.contact(world.customer(2)));
SELECT world.message(clock_timestamp(), p_template => 'hello'), world.message(clock_timestamp(), p_state => 'failed');
SELECT set_eq(
    'SELECT is_within_24h_at_claim, is_within_24h_now, template_name, compliance_status FROM wa_message_compliance',
    $$ VALUES (false, true, NULL, 'VIOLATION'), (true, false, NULL, 'COMPLIANT'), (NULL, true, 'hello', 'COMPLIANT'),
        (NULL, true, NULL, 'NOT_SENT') $$,
    'the window at the claim decides, whatever it is now'
);
UPDATE wa_conversation_windows SET unread_count = 2;
SELECT results_eq('SELECT phone_number_id, conversations, messages FROM wa_unread_counts',
    $$ VALUES ('100', 2::bigint, 4::bigint) $$, 'unread messages by number');

SELECT results_eq('SELECT conversations, active, completion_rate FROM wa_conversation_metrics',
    $$ VALUES (2::bigint, 2::bigint, NULL::numeric) $$, 'nothing has ended yet');
UPDATE wa_conversation_windows
SET state = CASE WHEN contact_id = world.contact(world.customer(1)) THEN 'completed' ELSE 'expired' END;
UPDATE wa_conversation_windows SET opened_at = '2026-03-01 10:00+00', state_changed_at = '2026-03-01 11:00+00';
SELECT results_eq('SELECT active, completed, expired, completion_rate, avg_duration_seconds
    FROM wa_conversation_metrics',
    $$ VALUES (0::bigint, 1::bigint, 1::bigint, 50.00, 3600.000) $$, 'how conversations ended');

SELECT * FROM finish();
ROLLBACK;
