-- Tests sql/organizations/secrets.sql.
BEGIN;
SELECT plan(29);

SELECT register_wa_phone_number('100', '+1 555 123 4567', '200');
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200');

SELECT ok(set_wa_secret('access_token', NULL, repeat('a', 40)::bytea, 'k1', 'f1') IS NOT NULL,
    'a secret is stored');
SELECT ok(set_wa_secret('access_token', '100', repeat('b', 40)::bytea, 'k1', 'f2') IS NOT NULL,
    'one number has its own');
SELECT ok(set_wa_secret('app_secret', NULL, repeat('c', 40)::bytea, 'k1', 'f3') IS NOT NULL, 'another kind');
SELECT results_eq(
    'SELECT phone_number_id, waba_id, provider, encode(ciphertext, ''escape'') FROM get_wa_credentials()',
    $$ VALUES ('100', '200', 'meta', repeat('a', 40)), ('101', '200', 'meta', repeat('a', 40)),
    ('100', '200', 'meta', repeat('b', 40)) $$,
    'the dispatcher gets the token of all numbers and that of one'
);
SELECT results_eq('SELECT name, encode(ciphertext, ''escape'') FROM get_wa_webhook_secrets()',
    $$ VALUES ('app_secret', repeat('c', 40)) $$, 'the receiver gets only what it needs');

SELECT set_wa_secret('app_secret', NULL, repeat('d', 40)::bytea, 'k1', 'f4', true);
SELECT is((SELECT count(*) FROM get_wa_webhook_secrets()), 2::bigint,
    'while a change is under way both are valid');
SELECT set_wa_secret('app_secret', NULL, repeat('e', 40)::bytea, 'k1', 'f5');
SELECT results_eq('SELECT encode(ciphertext, ''escape'') FROM get_wa_webhook_secrets()',
    $$ VALUES (repeat('e', 40)) $$,
    'the next one retires them');
SELECT set_wa_secret('access_token', NULL, repeat('f', 40)::bytea, 'k2', 'f6', true);
SELECT is((SELECT count(*) FROM get_wa_credentials() WHERE key_id = 'k1'
    AND ciphertext = repeat('a', 40)::bytea), 0::bigint,
    'of two valid tokens the newest is used');
SELECT is((SELECT count(*) FROM list_wa_secrets()), 6::bigint, 'the list shows all, also retired ones');
SELECT is((SELECT count(*) FROM list_wa_secrets() l WHERE l::text ~ 'a{20}|b{20}|c{20}|(61){20}|(62){20}|(63){20}'), 0::bigint,
    'but no value');

SELECT throws_ok($$ SELECT set_wa_secret('access_token', NULL, 'plain', 'k1', 'f') $$, '22023', NULL,
    'a plain value is refused');
SELECT throws_ok($$ SELECT set_wa_secret('password', NULL, repeat('a', 40)::bytea, 'k1', 'f') $$, '23514',
    NULL,
    'so is an unknown kind');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'secret_set'), 6::bigint, 'each change is audited');
SELECT is((SELECT count(*) FROM audit_log WHERE meta::text ~ 'a{20}|(61){20}'), 0::bigint, 'without the value');

CREATE ROLE wa_secret_admin IN ROLE wa_admin;
CREATE ROLE wa_secret_app IN ROLE wa_app;
CREATE ROLE wa_secret_dispatcher IN ROLE wa_dispatcher;
CREATE ROLE wa_secret_receiver IN ROLE wa_receiver;
SET LOCAL ROLE wa_secret_admin;
SELECT ok((SELECT count(*) FROM list_wa_secrets()) > 0, 'an admin can list');
SELECT throws_ok('SELECT ciphertext FROM wa_secrets', '42501', NULL, 'but not read a ciphertext of just any');
SELECT lives_ok('SELECT * FROM get_wa_credentials()', 'only sealed tokens, for the templates'' commands');
SELECT throws_ok('SELECT * FROM get_wa_webhook_secrets()', '42501', NULL, 'and nothing that signs webhooks');
SET LOCAL ROLE wa_secret_app;
SELECT throws_ok('SELECT id FROM wa_secrets', '42501', NULL, 'an application sees no secrets');
SELECT throws_ok($$ SELECT set_wa_secret('access_token', NULL, repeat('a', 40)::bytea, 'k1', 'f') $$, '42501',
    NULL,
    'and sets none');
SET LOCAL ROLE wa_secret_dispatcher;
SELECT throws_ok('SELECT * FROM get_wa_webhook_secrets()', '42501', NULL,
    'the dispatcher gets no app secrets');
SET LOCAL ROLE wa_secret_receiver;
SELECT throws_ok('SELECT * FROM get_wa_credentials()', '42501', NULL, 'the receiver no tokens');
RESET ROLE;
SELECT is((SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind = 'v' AND a.attname = 'ciphertext' AND c.relnamespace = current_schema()::regnamespace),
    0::bigint,
    'no view shows a ciphertext');

-- sealing anew
SELECT is((SELECT count(*) FROM get_wa_sealed_secrets('k9', 97)), (SELECT count(*) FROM wa_secrets),
    'what another key has sealed, retired ones, too');
SELECT is((SELECT count(*) FROM get_wa_sealed_secrets('k1', 97)),
    (SELECT count(*) FROM wa_secrets WHERE key_id <> 'k1' OR get_byte(ciphertext, 0) <> 97),
    'or what has another form');
CREATE TEMP TABLE one AS SELECT * FROM get_wa_sealed_secrets('k9', 2) LIMIT 1;
SELECT ok(reseal_wa_secret(organization_id, secret_id, ciphertext, repeat('n', 40)::bytea, 'k9', 'f9'), 'sealed anew')
FROM one;
SELECT ok(NOT reseal_wa_secret(organization_id, secret_id, ciphertext, repeat('o', 40)::bytea, 'k8', 'f8'),
    'not where something else is there now') FROM one;
SELECT results_eq($$ SELECT s.key_id, s.fingerprint FROM wa_secrets s JOIN one o ON o.secret_id = s.id $$,
    $$ VALUES ('k9', 'f9') $$, 'what was set meanwhile stays');
SELECT is((SELECT meta -> 'new' ->> 'fingerprint' FROM audit_log WHERE event = 'setting_changed'
    AND entity = 'wa_secrets' ORDER BY id DESC LIMIT 1), 'f9', 'and the audit log has its fingerprint');

SELECT * FROM finish();
ROLLBACK;
