-- Tests sql/access/requests.sql.
BEGIN;
SELECT plan(44);
\ir ../world.psql
CREATE ROLE wa_requests_shop IN ROLE wa_app;
CREATE ROLE wa_requests_web IN ROLE wa_api, wa_requests_shop;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT id AS key, sha256(convert_to(api_key, 'UTF8')) AS hash
FROM create_wa_api_key('shop', 'wa_requests_shop', '{send,read}', p_requests_per_minute => 2) \gset
SELECT current_wa_organization() AS org \gset

-- a key
SELECT throws_ok($$ SELECT open_wa_api_request(sha256('wrong'), 'send') $$, 'WA601', 'the API key is unknown',
    'a wrong key opens nothing');
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''media'')', :'hash'), 'WA602', NULL,
    'nor one without the scope');
SAVEPOINT closed;
SET LOCAL ROLE wa_requests_web;
SELECT open_wa_api_request(:'hash', 'send', 'ann');
SELECT is(current_user::text, 'wa_requests_shop', 'the request runs as the role of the key');
SELECT is(current_wa_organization()::text, :'org', 'for its organization');
SELECT throws_ok('SELECT * FROM wa_api_keys', '42501', NULL, 'with no more rights than that role has');
INSERT INTO audit_log (event, entity) VALUES ('looked', 'x');
SELECT results_eq($$ SELECT meta ->> 'acting_user', meta ->> 'caller' FROM audit_log WHERE event = 'looked' $$,
    format('VALUES (''ann'', ''key:%s'')', :'key'), 'the audit log tells who acted, and through which key');
ROLLBACK TO closed;
SELECT is((SELECT last_used_at FROM wa_api_keys), NULL, 'what was rolled back was no use');
SELECT role_name FROM _wa_find_api_key(:'hash', 'send');
SELECT is((SELECT last_used_at FROM wa_api_keys), date_trunc('minute', now()), 'last use is known to the minute');
UPDATE wa_api_keys SET last_used_at = now() - interval '30 seconds';
SELECT role_name FROM _wa_find_api_key(:'hash', 'send');
SELECT is((SELECT last_used_at FROM wa_api_keys), now() - interval '30 seconds', 'and not written each time');
-- whom the request names
SELECT lives_ok(format('SELECT _wa_require_user(%L, ''nobody'', ''send'')', :'org'), 'an organization without users knows nobody');
INSERT INTO wa_users (display_name, role, external_id) VALUES ('Ann', 'sales', 'ann'), ('Bob', 'field_staff', 'bob');
SAVEPOINT named;
SET LOCAL ROLE wa_requests_web;
SELECT lives_ok(format('SELECT open_wa_api_request(%L, ''send'', ''ann'')', :'hash'), 'somebody whose role permits it');
ROLLBACK TO named;
SET LOCAL ROLE wa_requests_web;
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''send'', ''bob'')', :'hash'), 'WA621',
    'the role field_staff does not permit "send"', 'the name restricts');
SELECT throws_ok(format('SELECT open_wa_api_token(''bob'', %L, ''wa_requests_shop'', ''{send}'', ''send'')', :'org'), 'WA621',
    NULL, 'and so does the subject of a token');
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''media'', ''ann'')', :'hash'), 'WA602', NULL,
    'it grants nothing that the key has not');
SELECT open_wa_api_request(:'hash', 'read', 'stranger');
SET LOCAL ROLE wa_requests_web;
SELECT open_wa_api_request(:'hash', 'read', 'stranger');
RESET ROLE;
SELECT is(array_agg(entity_id), '{stranger}', 'strangers are let through, and remembered once a minute')
FROM audit_log WHERE event = 'unknown_user';
UPDATE wa_users SET is_active = false WHERE external_id = 'ann';
UPDATE wa_organizations SET unknown_users = 'refuse';
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''send'', ''ann'')', :'hash'), 'WA621', 'the user is no longer active',
    'who left does nothing any more');
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''read'', ''stranger'')', :'hash'), 'WA622', NULL,
    'or strangers are refused, where the organization wants it');
SELECT lives_ok(format('SELECT _wa_find_api_key(%L, ''read'')', :'hash'), 'a request that names nobody is its key''s');
ROLLBACK TO named;
UPDATE wa_api_keys SET expires_at = clock_timestamp();
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''send'')', :'hash'), 'WA601', 'the API key has expired',
    'a key ends by time');
UPDATE wa_api_keys SET expires_at = NULL, revoked_at = now();
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''send'')', :'hash'), 'WA601', 'the API key was revoked',
    'and when it is revoked');
UPDATE wa_api_keys SET revoked_at = NULL;
ALTER ROLE wa_requests_shop BYPASSRLS;
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''send'')', :'hash'), 'WA603', NULL,
    'its role is looked at each time');
ALTER ROLE wa_requests_shop NOBYPASSRLS;
DELETE FROM wa_organization_roles;
SELECT throws_ok(format('SELECT open_wa_api_request(%L, ''send'')', :'hash'), 'WA603', NULL,
    'so is that it belongs to the organization');
SELECT add_wa_organization_role(:'org', 'wa_requests_shop');

-- limits
SELECT results_eq(format('SELECT quota, remaining, reset_s BETWEEN 0 AND 60 FROM count_wa_api_request(%L)', :'hash'),
    'VALUES (2, 1, true)', 'requests are counted');
SELECT is((SELECT remaining FROM count_wa_api_request(:'hash')), 0, 'down to none');
SELECT is((SELECT remaining FROM count_wa_api_request(:'hash')), -1, 'and one is too many');
UPDATE wa_api_key_uses SET minute = minute - interval '1 minute';
SELECT is((SELECT remaining FROM count_wa_api_request(:'hash')), 1, 'the next minute begins anew');
UPDATE wa_api_key_uses SET minute = date_trunc('minute', clock_timestamp()) + interval '1 minute', requests = 2;
SELECT is((SELECT remaining FROM count_wa_api_request(:'hash')), -1,
    'who began in the minute before counts in the one that others have begun');
SELECT is((SELECT requests FROM wa_api_key_uses WHERE minute > clock_timestamp()), 3, 'and does not begin his own anew');
UPDATE wa_api_key_uses SET minute = minute + interval '1 hour', requests = 2;
SELECT is((SELECT remaining FROM count_wa_api_request(:'hash')), 1, 'a clock that was set back locks nobody out');
UPDATE wa_api_keys SET requests_per_minute = NULL;
SELECT is_empty(format('SELECT FROM count_wa_api_request(%L)', :'hash'), 'a key without a limit is not counted');
SELECT record_wa_api_rejection('198.51.100.7', 'the API key is unknown') FROM generate_series(1, 3);
SELECT is(get_wa_rejections(now() - interval '1 hour'), 3::bigint, 'wrong keys are counted');

-- a token
SAVEPOINT token;
SELECT open_wa_api_token('user-1', NULL, 'wa_requests_shop', '{read}', 'read');
SELECT is(current_user::text, 'wa_requests_shop', 'a token''s role is taken');
ROLLBACK TO token;
SELECT throws_ok($$ SELECT open_wa_api_token('u', NULL, 'wa_requests_shop', '{read}', 'send') $$, 'WA602', NULL,
    'it has the scopes that it names');
SELECT throws_ok($$ SELECT open_wa_api_token('u', gen_random_uuid()::text, 'wa_requests_shop', '{read}', 'read') $$,
    'WA601', NULL, 'and an organization of this database');
SELECT throws_ok(format('SELECT open_wa_api_token(''u'', NULL, %L, ''{read}'', ''read'')', current_user), 'WA603', NULL,
    'no token speaks for a superuser');

-- repetitions
SELECT is(begin_wa_idempotent_request('k', 'send', sha256('a')), NULL, 'the first request with a key is new');
SELECT end_wa_idempotent_request('k', 'send', '{"id": 1}');
SELECT is(begin_wa_idempotent_request('k', 'send', sha256('a')), '{"id": 1}', 'the second finds what it did');
SELECT throws_ok($$ SELECT begin_wa_idempotent_request('k', 'send', sha256('b')) $$, 'WA606', NULL,
    'another body under the same key is refused');
SELECT is(begin_wa_idempotent_request('k', 'batch', sha256('b')), NULL, 'another operation has keys of its own');
SELECT set_config('wa.caller', 'key:other', true);
SELECT is(begin_wa_idempotent_request('k', 'send', sha256('b')), NULL, 'so has another caller');
SELECT throws_ok($$ SELECT begin_wa_idempotent_request(repeat('k', 256), 'send', sha256('a')) $$, '22023', NULL,
    'a key has a length');
SELECT throws_ok($$ SELECT begin_wa_idempotent_request('', 'send', sha256('a')) $$, '22023', NULL, 'and is one');
SELECT is(_wa_delete_idempotent_requests(clock_timestamp(), 10), 0, 'they are kept');
SELECT is(_wa_delete_idempotent_requests(clock_timestamp() + interval '73 hours', 10), 3, 'for three days');

SELECT * FROM finish();
