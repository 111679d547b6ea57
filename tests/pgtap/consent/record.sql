-- Tests sql/consent/record.sql, sql/consent/consent.sql, sql/queue/policy.sql.
BEGIN;
SELECT plan(25);
\ir ../world.psql

-- Every way of changing consent leaves its row.
SELECT set_config('wa.acting_user', 'ann', false) \g /dev/null
SELECT opt_out_wa_contact(world.customer(1), 'marketing', 'asked', 'desk',
    '{"text": "No more offers, please", "language": "en"}') \g /dev/null
SELECT opt_in_wa_contact(world.customer(1), 'marketing', 'form', '{"text": "Offers?", "language": "en", "form": 7}')
\g /dev/null
INSERT INTO wa_opt_outs (contact_id, scope, source) VALUES (world.contact(world.customer(2)), 'utility', 'psql');
UPDATE wa_opt_outs SET scope = 'all' WHERE source = 'psql';
UPDATE wa_opt_outs SET revoked_at = now(), revoked_source = 'psql' WHERE source = 'psql';
UPDATE wa_opt_outs SET revoked_at = NULL WHERE source = 'psql';
INSERT INTO wa_opt_ins (contact_id, scope, source) VALUES (world.contact(world.customer(2)), 'all', 'psql');
SELECT request_wa_opt_in(world.customer(3), 'marketing', 'shop', '{"text": "Offers?"}') \g /dev/null
SELECT results_eq(
    $$ SELECT event, scope, source, text_shown, language, acting_user, actor = session_user
        FROM wa_consent_events ORDER BY id $$,
    $$ VALUES ('opt_out', 'marketing', 'desk', 'No more offers, please', 'en', 'ann', true),
        ('opt_in', 'marketing', 'form', 'Offers?', 'en', 'ann', true), ('lifted', 'marketing', 'form', NULL, NULL, 'ann', true),
        ('opt_out', 'utility', 'psql', NULL, NULL, 'ann', true), ('lifted', 'utility', 'unknown', NULL, NULL, 'ann', true),
        ('opt_out', 'all', 'psql', NULL, NULL, 'ann', true), ('lifted', 'all', 'psql', NULL, NULL, 'ann', true),
        ('opt_out', 'all', 'psql', NULL, NULL, 'ann', true), ('opt_in', 'all', 'psql', NULL, NULL, 'ann', true),
        ('requested', 'marketing', 'shop', 'Offers?', NULL, 'ann', true) $$,
    'who, what, how, the text and its language'
);

-- And nobody takes one away.
CREATE ROLE consent_admin IN ROLE wa_admin;
GRANT INSERT, UPDATE, DELETE, TRUNCATE ON wa_consent_events TO consent_admin;
SET LOCAL ROLE consent_admin;
SELECT throws_ok('UPDATE wa_consent_events SET scope = ''utility''', 'WA121', NULL, 'no change');
SELECT throws_ok('DELETE FROM wa_consent_events', 'WA121', NULL, 'no deletion');
SELECT throws_ok('TRUNCATE wa_consent_events', 'WA121', NULL, 'no truncation, whatever was granted');
RESET ROLE;
SELECT ok(NOT has_table_privilege(r, 'wa_consent_events', 'INSERT, UPDATE, DELETE, TRUNCATE'), r || ' may only read')
FROM unnest('{wa_admin,wa_app,wa_dispatcher,wa_receiver,wa_analyst,wa_api}'::text[]) r;

-- Scopes.
SELECT throws_ok($$ SELECT opt_out_wa_contact(world.customer(4), 'service') $$, '22023', NULL, 'of five scopes');
SELECT throws_ok($$ SELECT opt_out_wa_contact(world.customer(4), p_proof => '[]') $$, '22023', NULL, 'a proof is an object');
SELECT opt_out_wa_contact(world.customer(4), 'authentication') \g /dev/null
SELECT throws_ok($$ SELECT world.queue(4, 'code', '["1"]') $$, 'WA102', NULL, 'authentication stops codes');
SELECT lives_ok($$ SELECT world.queue(4, 'hello') $$, 'and nothing else');
SELECT opt_out_wa_contact(world.customer(4), 'utility') \g /dev/null
SELECT is(world.claimed(), 0, 'an opt-out cancels what waits');
SELECT ok(NOT is_wa_opted_out(world.customer(4), 'all'), 'two categories are not all');
SELECT opt_out_wa_contact(world.customer(4)) \g /dev/null
SELECT ok(is_wa_opted_out(world.customer(4), 'all'), 'three are');

-- Opt-ins that are required, at INSERT and at the claim.
UPDATE wa_organizations SET require_opt_in = '{marketing}';
SELECT throws_ok($$ SELECT world.queue(5, 'sale') $$, 'WA120', NULL, 'an offer needs an opt-in');
SELECT lives_ok($$ SELECT world.queue(5, 'hello') $$, 'a reminder does not');
SELECT opt_in_wa_contact(world.customer(5), 'utility') \g /dev/null
SELECT throws_ok($$ SELECT world.queue(5, 'sale') $$, 'WA120', NULL, 'one to reminders is none to offers');
SELECT opt_in_wa_contact(world.customer(5), 'all') \g /dev/null
SELECT lives_ok($$ SELECT world.queue(5, 'sale') $$, 'one to all is');
SELECT is((SELECT count(*) FROM world.claim()), 2::bigint, 'both are sent');
UPDATE wa_organizations SET require_opt_in = '{}';
SELECT world.queue(6, 'sale') AS id \gset
UPDATE wa_organizations SET require_opt_in = '{marketing,utility}';
SELECT is((SELECT reason FROM explain_wa_message(:'id')), 'no_opt_in', 'explained before');
SELECT is((SELECT count(*) FROM world.claim()), 0::bigint, 'what was queued before it was required is judged again');
SELECT is(world.outcome(:'id'), 'failed no_opt_in', 'and fails');

SELECT * FROM finish();
ROLLBACK;
