-- Tests sql/organizations/organizations.sql.
BEGIN;
SELECT plan(17);
\ir ../world.psql
-- Who may see what is in tenancy.sql; here two organizations send side by side, to the same customer.
SELECT create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001', 'mx');
SELECT is(default_region, 'MX', 'a region may be given in small letters') FROM wa_organizations
    WHERE name = 'away';
CREATE ROLE wa_home_app IN ROLE wa_app;
CREATE ROLE wa_away_app IN ROLE wa_app;
SELECT add_wa_organization_role((SELECT id FROM wa_organizations WHERE is_default), 'wa_home_app');
SELECT add_wa_organization_role('0b0b0b0b-0000-4000-8000-000000000001', 'wa_away_app');
GRANT USAGE ON SCHEMA world TO PUBLIC;
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000001';
SELECT register_wa_phone_number('900', '+1 555 123 9000', '900');
INSERT INTO wa_templates (name, category, status, body_text) VALUES ('hello', 'UTILITY', 'APPROVED', 'Hola');
RESET wa.organization_id;

SET LOCAL ROLE wa_home_app;
SELECT lives_ok($$ SELECT world.queue(1) $$, 'one queues');
SET LOCAL ROLE wa_away_app;
SELECT lives_ok($$ SELECT world.queue(1) $$, 'the other too, under the same reference');
SELECT is((SELECT count(*) FROM wa_outbound_queue), 1::bigint, 'it sees its own');
SELECT is(cancel_wa_messages(phone => world.customer(99)), 0,
    'a phone that only the other knows is a stranger');
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('55 1234 5678', 'hello');
SELECT is((SELECT max(phone) FROM wa_outbound_queue WHERE phone LIKE '+52%'), '+525512345678',
    'national forms are read by its own region');
SELECT throws_ok($$ SELECT world.queue(1, 'order', '["a", "b"]') $$, 'WA002', NULL,
    'a template of the other is unknown');
SELECT throws_ok($$ SELECT world.queue(1, p_number => '100') $$, 'WA010', NULL, 'so is its number');
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (organization_id, phone, template_name)
    SELECT r.organization_id, '+5491140000001', 'hello'
        FROM (VALUES ('00000000-0000-4000-8000-000000000001'::uuid)) r (organization_id) $$,
    '42501', NULL, 'nothing can be queued for another');
RESET ROLE;
SELECT results_eq('SELECT number, count(*) FROM world.claim() GROUP BY 1 ORDER BY 1',
    $$ VALUES ('100', 1::bigint), ('900', 2) $$, 'each goes out from its own number');
SELECT is((SELECT count(DISTINCT organization_id) FROM wa_contacts WHERE phone_e164 = world.customer(1)),
    2::bigint, 'the customer is a contact of each')
FROM set_config('wa.organization_id', (SELECT id::text FROM wa_organizations WHERE is_default), true);

-- one's trouble is not the other's
SELECT opt_out_wa_contact(world.customer(1), 'all');
SELECT throws_ok($$ SELECT world.queue(1) $$, 'WA102', NULL, 'an opt-out is one from an organization');
SELECT trigger_wa_panic('trouble', current_wa_organization());
SELECT world.queue(2);
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000001';
SELECT lives_ok($$ SELECT world.queue(1) $$, 'the other may still write');
UPDATE wa_phone_numbers SET throughput = 1000 WHERE phone_number_id = '900';
INSERT INTO wa_outbound_queue (phone, template_name) SELECT world.customer(n), 'hello'
    FROM generate_series(100, 199) n;
SELECT is((SELECT string_agg(DISTINCT number, ',') FROM world.claim()), '900', 'its panic stops only itself');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE status = 'sending'
    AND organization_id = current_wa_organization()), 50::bigint,
    'an organization made later has fifty messages a minute');
SELECT resolve_wa_panic((SELECT id FROM wa_organizations WHERE is_default));
SELECT world.later('1 second');
SELECT is((SELECT string_agg(number, ',') FROM world.claim()), '100', 'which do not count for the other');
SELECT throws_ok($$ UPDATE wa_organizations SET on_refusal = 'ignore' $$, '23514', NULL,
    'a setting has its known values');

SELECT * FROM finish();
ROLLBACK;
