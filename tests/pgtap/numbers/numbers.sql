-- Tests sql/numbers/numbers.sql.
BEGIN;
SELECT plan(32);

SELECT is((SELECT default_number_id FROM wa_organizations), NULL, 'there is no number at first');
SAVEPOINT none;
SELECT throws_ok($$ SELECT register_wa_first_number('100', '', '') $$, '22023', NULL,
    'the first number of an environment needs its account');
SELECT ok(register_wa_first_number('100', '+1 555 123 4567', '200', 'meta', false, false, 90),
    'the first number of an environment is registered');
SELECT results_eq('SELECT media_contact_quota, sends_templates, message_retention FROM wa_organizations',
    $$ VALUES (0::bigint, false, interval '90 days') $$, 'with what the environment sets');
SELECT ok(NOT register_wa_first_number('101', '+1 555 123 4568', '200', 'meta', true, true, 30),
    'but only where there is none');
SELECT results_eq('SELECT count(*), min(message_retention) FROM wa_phone_numbers, wa_organizations',
    $$ VALUES (1::bigint, interval '90 days') $$, 'and nothing else is set then');
SELECT is(nullif(current_setting('wa.organization_id', true), ''), NULL, 'nobody''s organization changes by it');
ROLLBACK TO none;
SELECT ok(register_wa_first_number('100', '+1 555 123 4567', '200') AND register_wa_first_number('1', '', '2')
    IS FALSE, 'without settings, too');
SELECT results_eq('SELECT media_contact_quota, sends_templates, message_retention FROM wa_organizations',
    $$ VALUES (1073741824::bigint, true, interval '1 year') $$, 'it leaves what the organization has');
ROLLBACK TO none;
CREATE TEMPORARY TABLE first AS SELECT register_wa_phone_number('100', '+1 555 123 4567', '200') AS id;
SELECT results_eq('SELECT phone_number_id, display_phone, phone_e164, waba_id, portfolio_id, provider,
    throughput, is_test, status
    FROM wa_phone_numbers', $$ VALUES ('100', '+1 555 123 4567', '+15551234567', '200', '200', 'meta', 80,
    false, 'CONNECTED') $$,
    'a number is registered with the usual settings');
SELECT is((SELECT default_number_id FROM wa_organizations), id, 'the first one is the default') FROM first;
SELECT is(register_wa_phone_number('100', '+1 555 123 4567', '200', throughput => 20, is_test => true), id,
    'registering it again changes it')
FROM first;
SELECT results_eq('SELECT throughput, is_test FROM wa_phone_numbers', 'VALUES (20, true)', 'as given');
SELECT isnt(register_wa_phone_number('101', '15551234568', '200', '360dialog'), id, 'a second one')
    FROM first;
SELECT is((SELECT phone_e164 FROM wa_phone_numbers WHERE phone_number_id = '101'), '+15551234568',
    'its + may be missing');
SELECT is((SELECT default_number_id FROM wa_organizations), id, 'the default stays') FROM first;
SELECT is((SELECT count(*) FROM wa_portfolios), 1::bigint, 'numbers of one account share a portfolio');
SELECT throws_ok($$ SELECT register_wa_phone_number('', '1', '200') $$, '22023', NULL, 'an id is needed');
SELECT throws_ok($$ SELECT register_wa_phone_number('100', '1', 'AC/../../x?y=#z') $$, '22023', NULL,
    'and one that is no path');
SELECT throws_ok($$ SELECT register_wa_phone_number('102', '1', NULL) $$, '22023', NULL, 'and the account');
SELECT throws_ok($$ SELECT register_wa_phone_number('102', '1', '200', 'pigeon') $$, '0A000', NULL,
    'a provider that this release cannot do is refused');
SELECT throws_ok($$ SELECT register_wa_phone_number('102', '1', '200', throughput => 0) $$, '23514', NULL,
    'a throughput is a number above 0');

-- requests of another provider
SELECT adopt_wa_database('keep');
INSERT INTO wa_templates (name, category, status, body_text) VALUES ('hello', 'UTILITY', 'APPROVED', 'Hello');
INSERT INTO wa_outbound_queue (phone, template_name, phone_number_id) VALUES ('+5491140000001', 'hello',
    '101'), ('+5491140000001', 'hello', '100');
SELECT results_eq('SELECT phone_number_id, provider, path FROM claim_wa_messages(gen_random_uuid(),
    10) ORDER BY 1',
    $$ VALUES ('100', 'meta', '/100/messages'), ('101', '360dialog', '/messages') $$,
    'each provider has its path');

INSERT INTO wa_phone_numbers (phone_number_id, display_phone, waba_id, portfolio_id)
VALUES ('102', '+1 555 123 4570', '200', '200');
INSERT INTO wa_outbound_queue (phone, template_name, phone_number_id) VALUES ('+5491140000001', 'hello', '102');
SELECT is((SELECT count(*) FROM claim_wa_messages(gen_random_uuid(), 10) WHERE phone_number_id = '102'),
    1::bigint, 'a number that was inserted by hand sends, too');

-- one owner
SELECT create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001');
SELECT is((SELECT rate_limit_per_minute FROM wa_organizations WHERE name = 'away'), 50,
    'an organization made later has a rate limit');
SELECT throws_ok($$ SELECT register_wa_phone_number('103', '1', '200') $$, 'WA301', NULL,
    'with several organizations one must be chosen');
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000001';
SELECT throws_ok($$ SELECT register_wa_phone_number('100', '+15551234567', '200') $$, '23505', NULL,
    'a number belongs to one organization');
SELECT lives_ok($$ SELECT register_wa_phone_number('103', '+15551234569', '203') $$, 'another one is free');
SELECT is((SELECT count(*) FROM wa_phone_numbers WHERE organization_id = current_wa_organization()),
    1::bigint, 'and is its own');
RESET wa.organization_id;

-- rights
CREATE ROLE wa_numbers_app IN ROLE wa_app;
SELECT add_wa_organization_role((SELECT id FROM wa_organizations WHERE is_default), 'wa_numbers_app');
SET LOCAL ROLE wa_numbers_app;
SELECT throws_ok($$ SELECT register_wa_phone_number('104', '1', '200') $$, '42501', NULL,
    'applications register none');
SELECT throws_ok($$ SELECT resume_wa_number('100') $$, '42501', NULL, 'nor resume any');
SELECT throws_ok($$ UPDATE wa_phone_numbers SET throughput = 1000 $$, '42501', NULL, 'nor change them');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
