-- Tests sql/privacy/compliance.sql.
BEGIN;
\ir ../world.psql
SELECT plan(8);

SELECT opt_in_wa_contact(world.customer(1), 'marketing', 'form');
SELECT opt_out_wa_contact(world.customer(2), 'marketing', NULL, 'desk');
SELECT hold_wa_contact(world.customer(1), 'case 1');
SELECT erase_wa_contact(world.customer(2), 'request 1');
INSERT INTO wa_messages (direction, message_type, status, state, is_within_24h_at_claim, template_name,
    template_category)
VALUES ('outbound', 'template', 'sent', 'sent', false, 'sale', 'MARKETING'),
('outbound', 'text', 'sent', 'sent', true, NULL, NULL),
-- An SMS: it has a category, and no template.
('outbound', 'text', 'sent', 'sent', false, NULL, 'MARKETING');
CREATE FUNCTION pg_temp.rows(p_topic text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(item || ' ' || row_count, ', ' ORDER BY item)
    FROM report_wa_compliance(now() - interval '1 hour', clock_timestamp()) WHERE topic = p_topic
$$;
SELECT is(pg_temp.rows('opt_in'), 'marketing by form 1', 'who opted in, and how');
SELECT is(pg_temp.rows('opt_out'), 'all by erasure 1, marketing by desk 1', 'and who opted out');
SELECT is(pg_temp.rows('erasure'), 'done 1', 'erasures');
SELECT is(pg_temp.rows('hold'), 'in force 1', 'holds');
SELECT is(pg_temp.rows('template_sent'), 'MARKETING 1', 'templates by category');
SELECT is(pg_temp.rows('window'), 'broken 0, kept 1', 'no window was broken, by SMS none can be, and that is said');
UPDATE wa_messages SET is_within_24h_at_claim = false WHERE num_nulls(template_name, template_category) = 2;
SELECT is(pg_temp.rows('window'), 'broken 1', 'one was');
SELECT throws_ok('SELECT * FROM report_wa_compliance(now(), now() - interval ''1 day'')', '22023', NULL,
    'a time ends after it begins');

SELECT * FROM finish();
ROLLBACK;
