-- Tests sql/organizations/audit_changes.sql.
BEGIN;
SELECT plan(27);

CREATE FUNCTION pg_temp.last(p_entity text) RETURNS TABLE (event text, entity_id text, meta jsonb) LANGUAGE sql AS $$
    SELECT a.event, a.entity_id, a.meta FROM audit_log a WHERE a.entity = p_entity AND a.event LIKE 'setting%'
    ORDER BY a.id DESC LIMIT 1
$$;
UPDATE wa_organizations SET rate_limit_per_minute = 50;
UPDATE wa_organizations SET rate_limit_per_minute = 60;
SELECT results_eq($$ SELECT event, entity_id, meta FROM pg_temp.last('wa_organizations') $$,
    $$ SELECT 'setting_changed', id::text,
        '{"old": {"rate_limit_per_minute": 50}, "new": {"rate_limit_per_minute": 60}}'::jsonb
    FROM wa_organizations $$, 'a limit: old and new');
CREATE TEMP TABLE counted AS SELECT count(*) AS n FROM audit_log;
UPDATE wa_organizations SET rate_limit_per_minute = 60;
SELECT is((SELECT count(*) FROM audit_log), (SELECT n FROM counted), 'what stays the same leaves no row');

SELECT register_wa_phone_number('100', '+1 555 123 4567', '200');
SELECT is((SELECT event || ' ' || entity_id FROM pg_temp.last('wa_phone_numbers')), 'setting_added 100', 'a number');
UPDATE wa_phone_numbers SET throughput = 20;
SELECT is((SELECT meta FROM pg_temp.last('wa_phone_numbers')),
    '{"old": {"throughput": 80}, "new": {"throughput": 20}}', 'its setting');
TRUNCATE counted;
INSERT INTO counted SELECT count(*) FROM audit_log;
UPDATE wa_phone_numbers SET last_webhook_at = now();
SELECT is((SELECT count(*) FROM audit_log), (SELECT n FROM counted), 'not what changes with the traffic');

INSERT INTO wa_templates (name, category, status, body_text) VALUES ('hello', 'UTILITY', 'APPROVED', 'Hello');
UPDATE wa_templates SET body_text = 'Hi';
SELECT is((SELECT meta -> 'new' ->> 'body_text' FROM pg_temp.last('wa_templates')), 'Hi', 'a template');
DELETE FROM wa_templates;
SELECT is((SELECT event || (meta -> 'old' ->> 'body_text') FROM pg_temp.last('wa_templates')), 'setting_removedHi',
    'that is deleted');

SELECT set_wa_secret('access_token', NULL, repeat('a', 40)::bytea, 'key', 'print');
SELECT results_eq($$ SELECT meta -> 'new' ->> 'fingerprint', meta::text LIKE '%6161%' OR meta ? 'ciphertext'
    OR meta -> 'new' ? 'ciphertext' FROM pg_temp.last('wa_secrets') $$, $$ VALUES ('print', false) $$,
    'a secret by its fingerprint only');
UPDATE wa_secrets SET is_active = false;
SELECT is((SELECT meta FROM pg_temp.last('wa_secrets')), '{"old": {"is_active": true}, "new": {"is_active": false}}',
    'retired');

CREATE ROLE of_app IN ROLE wa_app;
SELECT add_wa_organization_role(current_wa_organization(), 'of_app');
SELECT is((SELECT event || ' ' || entity_id FROM pg_temp.last('wa_organization_roles')), 'setting_added of_app',
    'a membership');
SELECT create_wa_api_key('shop', 'of_app', '{send}');
SELECT is((SELECT meta -> 'new' ? 'secret_hash' FROM pg_temp.last('wa_api_keys')), false, 'a key, without its hash');
UPDATE wa_jobs SET schedule = '7 * * * *' WHERE name = 'retention';
SELECT is((SELECT entity_id || (meta -> 'new')::text FROM pg_temp.last('wa_jobs')),
    'retention{"schedule": "7 * * * *"}', 'a job');
SELECT schedule_wa_jobs();
SELECT is((SELECT entity_id FROM pg_temp.last('wa_jobs')), 'retention', 'not that it has run');
UPDATE wa_installations SET webhook_log_retention = '30 days';
SELECT is((SELECT meta -> 'new' ->> 'webhook_log_retention' FROM pg_temp.last('wa_installations')), '30 days',
    'the installation');

-- rules of hours, caps, words, roles
INSERT INTO wa_quiet_hours (from_time, to_time) VALUES ('21:00', '08:00');
UPDATE wa_quiet_hours SET to_time = '09:00';
SELECT is((SELECT meta FROM pg_temp.last('wa_quiet_hours')),
    '{"old": {"to_time": "08:00:00"}, "new": {"to_time": "09:00:00"}}', 'a rule of hours: old and new');
INSERT INTO wa_contact_caps (purpose, messages, days) VALUES ('marketing', 2, 7);
DELETE FROM wa_contact_caps;
SELECT is((SELECT event || ' ' || (meta -> 'old' ->> 'messages') FROM pg_temp.last('wa_contact_caps')),
    'setting_removed 2', 'a cap that is gone');
INSERT INTO wa_keywords (word, meaning) VALUES ('basta ya', 'stop');
SELECT is((SELECT meta -> 'new' ->> 'meaning' FROM pg_temp.last('wa_keywords')), 'stop', 'a word');
SELECT set_wa_role_permission('sales', 'broadcast', true);
SELECT is((SELECT event || ' ' || entity_id || (meta -> 'new' ->> 'is_allowed') FROM pg_temp.last('wa_role_overrides')),
    'setting_added sales broadcasttrue', 'what a role may');
UPDATE wa_error_rules SET max_retries = 4 WHERE code = 1;
SELECT is((SELECT entity_id || (meta -> 'new')::text FROM pg_temp.last('wa_error_rules')), 'meta 1 0{"max_retries": 4}',
    'what an error means');

-- a person
INSERT INTO wa_users (display_name, role, phone_e164) VALUES ('Ann', 'manager', '+16505550150');
UPDATE wa_users SET phone_e164 = '+16505550199', role = 'sales';
SELECT results_eq($$ SELECT meta -> 'old' ->> 'phone_e164', meta -> 'new' ->> 'phone_e164', meta -> 'new' ->> 'role'
    FROM pg_temp.last('wa_users') $$,
    $$ SELECT get_wa_audit_digest('+16505550150'), get_wa_audit_digest('+16505550199'), 'sales' $$,
    'a person''s number is there by its digest, the role as it is');
SELECT is((SELECT count(*) FROM audit_log WHERE meta::text ~ '650555|Ann'), 0::bigint, 'not in words');
SELECT ok(get_wa_audit_digest('+16505550150') <> 'sha256:' || encode(sha256('+16505550150'), 'hex'),
    'nor as a digest that anybody could make');
SELECT ok(NOT has_table_privilege('wa_admin', 'wa_audit_heads', 'SELECT'), 'for nobody reads the salt');

-- by whom
SET LOCAL ROLE of_app;
INSERT INTO wa_templates (name, category, status, body_text) VALUES ('mine', 'UTILITY', 'APPROVED', 'Mine');
RESET ROLE;
SELECT is((SELECT database_role FROM audit_log ORDER BY id DESC LIMIT 1), 'of_app', 'as which role');

-- an organization goes
SELECT create_wa_organization('north', '0b0b0b0b-0000-4000-8000-000000000002');
INSERT INTO wa_templates (organization_id, name, category, status, body_text)
VALUES ('0b0b0b0b-0000-4000-8000-000000000002', 'hello', 'UTILITY', 'APPROVED', 'Hello');
SELECT lives_ok($$ DELETE FROM wa_organizations WHERE name = 'north' $$, 'an organization goes with all that it has');
SELECT set_config('wa.organization_id', (SELECT id::text FROM wa_organizations), true);
SELECT is((SELECT entity_id FROM pg_temp.last('wa_organizations') WHERE event = 'setting_removed'),
    '0b0b0b0b-0000-4000-8000-000000000002', 'which the default one knows');
SELECT ok(has_function_privilege('wa_app', 'tg_audit_change()', 'EXECUTE') IS FALSE, 'nobody calls it by hand');

SELECT * FROM finish();
ROLLBACK;
