-- Tests sql/organizations/audit.sql.
BEGIN;
SELECT plan(21);

SET LOCAL TimeZone = 'UTC';
CREATE ROLE of_app IN ROLE wa_app;
CREATE ROLE of_admin IN ROLE wa_admin;
CREATE FUNCTION pg_temp.last() RETURNS audit_log LANGUAGE sql AS $$
    SELECT a FROM audit_log a ORDER BY a.id DESC LIMIT 1
$$;

-- who
INSERT INTO audit_log (actor, event, entity, entity_id, meta)
VALUES ('compliance_officer', 'whatsapp_policy_violation', 'compliance', 'wa_24h_rule', '{"reason": "x"}');
SELECT results_eq('SELECT actor, session_role, database_role FROM pg_temp.last()',
    $$ VALUES ('compliance_officer', session_user::text COLLATE "default", session_user::text COLLATE "default") $$,
    'the actor that was given stays, the login stands beside it');
SELECT ok(
    (pg_temp.last()).client_address IS NOT DISTINCT FROM host(inet_client_addr()), 'and from where it came');
SET LOCAL ROLE of_app;
INSERT INTO audit_log (actor, event, session_role, database_role, client_address, created_at)
VALUES ('somebody', 'x', 'me', 'me', '192.0.2.1', '2000-01-01');
RESET ROLE;
SELECT results_eq('SELECT actor, session_role, database_role, created_at > now() - interval ''1 minute''
    FROM pg_temp.last()', $$ VALUES ('somebody', session_user::text COLLATE "default", 'of_app', true) $$,
    'what a row says of its writer and its time is not what counts');
SELECT isnt((pg_temp.last()).client_address, '192.0.2.1', 'nor of where he was');

-- never changed
SET LOCAL ROLE of_app;
SELECT throws_ok('UPDATE audit_log SET event = ''y''', '42501', NULL, 'an application changes nothing');
SELECT throws_ok('DELETE FROM audit_log', '42501', NULL, 'nor deletes');
SELECT throws_ok('TRUNCATE audit_log', '42501', NULL, 'nor empties');
RESET ROLE;
GRANT UPDATE, DELETE, TRUNCATE ON audit_log TO of_admin;
SET LOCAL ROLE of_admin;
SELECT throws_ok('UPDATE audit_log SET event = ''y''', 'WA080', NULL, 'not with a grant either: no change');
SELECT throws_ok('DELETE FROM audit_log', 'WA080', NULL, 'no deletion');
SELECT throws_ok('TRUNCATE audit_log', 'WA080', NULL, 'no emptying');
SELECT throws_ok('DELETE FROM whatsapp_audit_logs', NULL, NULL, 'and not through the view');
RESET ROLE;

-- floods
SELECT _wa_audit_rejection(current_wa_organization(), '192.0.2.1', 'wrong signature', 1) FROM generate_series(1, 5);
SELECT _wa_audit_rejection(current_wa_organization(), '192.0.2.2', 'no signature', 3);
CREATE FUNCTION pg_temp.rejected() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', a.meta ->> 'source', a.meta ->> 'reason', a.meta ->> 'count'), ', ' ORDER BY a.id)
    FROM audit_log a WHERE a.event = 'webhook_rejected'
$$;
SELECT is(pg_temp.rejected(), '192.0.2.1 wrong signature 1, 192.0.2.2 no signature 3',
    'the first refusal of a source in a minute is a row');
SELECT is(get_wa_rejections(now() - interval '1 hour'), 8::bigint, 'the further ones are counted');
SELECT is(_wa_close_audit_counts(clock_timestamp() - interval '2 minutes', 10), 0,
    'a minute that is not over stays open');
SELECT is(_wa_close_audit_counts(clock_timestamp() + interval '2 minutes', 10), 1, 'then they become a row');
SELECT is(pg_temp.rejected(),
    '192.0.2.1 wrong signature 1, 192.0.2.2 no signature 3, 192.0.2.1 wrong signature 4', 'one for all');
SELECT is(get_wa_rejections(now() - interval '1 hour'), 8::bigint, 'nothing is counted twice');
SELECT is((SELECT count(*) FROM wa_audit_counts), 0::bigint, 'and nothing is left');
SELECT _wa_audit_rejection(current_wa_organization(), NULL, 'by hand', 2);
SELECT is(get_wa_rejections(now() - interval '1 hour'), 10::bigint, 'what has no source is counted, too');
INSERT INTO audit_log (event, meta) VALUES ('webhook_rejected', '{"count": "many"}');
SELECT is(get_wa_rejections(now() - interval '1 hour'), 11::bigint, 'a row that somebody made up does no harm');
INSERT INTO audit_log (event, meta) VALUES ('webhook_rejected', '{"count": 1e300}'), ('webhook_rejected', '{"count": -1e300}');
SELECT is(get_wa_rejections(now() - interval '1 hour'), 1000000012::bigint, 'whatever number is in it');

SELECT * FROM finish();
ROLLBACK;
