-- Tests sql/access/keys.sql.
BEGIN;
SELECT plan(31);
\ir ../world.psql
CREATE ROLE wa_keys_shop IN ROLE wa_app;
CREATE ROLE wa_keys_maker IN ROLE wa_keys_shop;
CREATE ROLE wa_keys_other IN ROLE wa_app;
CREATE ROLE wa_keys_admin IN ROLE wa_admin;
CREATE ROLE wa_keys_super SUPERUSER;
CREATE ROLE wa_keys_near_super IN ROLE wa_keys_super;
CREATE ROLE wa_keys_bypass BYPASSRLS;
CREATE ROLE wa_keys_maker_of_roles CREATEROLE;
GRANT USAGE ON SCHEMA world TO PUBLIC;

-- as whom
SELECT is(_wa_api_role_problem('wa_keys_shop'), NULL, 'a role of an application will do');
SELECT is(_wa_api_role_problem('wa_keys_super'), 'it is a superuser', 'a superuser will not');
SELECT is(_wa_api_role_problem('wa_keys_near_super'), 'it is a member of "wa_keys_super", which is a superuser',
    'nor who may become one');
SELECT is(_wa_api_role_problem('wa_keys_bypass'), 'it bypasses row security', 'nor who is outside of row security');
SELECT is(_wa_api_role_problem('wa_keys_maker_of_roles'), 'it may make roles', 'nor who can make others');
SELECT is(_wa_api_role_problem('wa_keys_admin'), 'it is a member of "wa_admin", which serves every organization',
    'nor an administrator');
SELECT is(_wa_api_role_problem('nobody'), 'it does not exist', 'nor one that is not there');
SELECT is(_wa_api_role_problem(current_user::name), 'it is a superuser', 'nor the owner');

-- making
SET LOCAL ROLE wa_keys_maker;
SELECT id AS key, api_key, prefix FROM create_wa_api_key('shop', 'wa_keys_shop', '{send,read,send}') \gset
SELECT matches(:'api_key'::text, '^wa_live_[A-Za-z0-9_-]{43}$', 'a key has 256 bits');
SELECT is(:'prefix'::text, left(:'api_key', 12), 'a person knows it by its beginning');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_other') $$, '42501', NULL,
    'who is no member of the role makes no key for it');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'nobody') $$, '42704', NULL, 'the role must be there');
SELECT throws_ok($$ SELECT create_wa_api_key(' ', 'wa_keys_shop') $$, '22023', NULL, 'and the key have a name');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_shop', '{send,fly}') $$, '22023',
    'no such scopes of an API key', 'scopes are known ones');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_shop', '{}') $$, '22023', NULL, 'and at least one');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_shop', p_expires_at => now()) $$, '22023', NULL,
    'a key that has ended is none');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_shop', p_requests_per_minute => 0) $$, '22023', NULL,
    'nor one that may ask nothing');
SELECT throws_ok('SELECT * FROM wa_api_keys', '42501', NULL, 'hashes are nobody''s to read');
SELECT results_eq($$ SELECT name, prefix, role_name::text COLLATE "default", array_to_string(scopes, ' '), state, created_by
    FROM list_wa_api_keys() $$,
    format($$ VALUES ('shop', %L, 'wa_keys_shop', 'read send', 'valid', 'wa_keys_maker') $$, :'prefix'),
    'they are listed without them');
RESET ROLE;
SELECT is((SELECT secret_hash FROM wa_api_keys), sha256(convert_to(:'api_key', 'UTF8')), 'stored is the hash');
SELECT ok(NOT EXISTS (SELECT FROM wa_api_keys k WHERE k::text LIKE '%' || substr(:'api_key', 13) || '%')
    AND NOT EXISTS (SELECT FROM audit_log a WHERE a::text LIKE '%' || substr(:'api_key', 13) || '%'),
    'and the key nowhere');
SELECT results_eq($$ SELECT meta ->> 'name', meta ->> 'by' FROM audit_log WHERE event = 'api_key_created' $$,
    $$ VALUES ('shop', 'wa_keys_maker') $$, 'it is known who made it');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_super') $$, 'WA603', NULL,
    'not even the owner makes a key for a superuser');
SELECT ok(EXISTS (SELECT FROM wa_organization_roles WHERE role_name = 'wa_keys_shop'),
    'the role belongs to the organization from now on');

-- a role that changed since, and another organization
GRANT wa_admin TO wa_keys_shop;
SELECT is((SELECT state FROM list_wa_api_keys()), 'role refused', 'a role that became too strong is refused');
REVOKE wa_admin FROM wa_keys_shop;
SELECT create_wa_organization('other') AS other \gset
SELECT add_wa_organization_role(:'other', 'wa_keys_other');
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_other') $$, 'WA301', NULL,
    'with several organizations one must be chosen');
SELECT set_config('wa.organization_id', (SELECT id::text FROM wa_organizations WHERE is_default), true);
SELECT throws_ok($$ SELECT create_wa_api_key('x', 'wa_keys_other') $$, 'WA302', NULL,
    'a role of another organization gets no key of this one');

-- ending
SET LOCAL ROLE wa_keys_other;
SELECT set_config('wa.organization_id', :'other', true);
SELECT is(revoke_wa_api_key(:'key'), false, 'a stranger ends nothing');
RESET ROLE;
SELECT set_config('wa.organization_id', (SELECT id::text FROM wa_organizations WHERE is_default), true);
SET LOCAL ROLE wa_keys_maker;
SELECT results_eq(format('SELECT revoke_wa_api_key(%L), (SELECT state FROM list_wa_api_keys())', :'key'),
    $$ VALUES (true, 'valid') $$, 'a member of its role ends it');
SELECT is((SELECT state FROM list_wa_api_keys()), 'revoked', 'which shows');
SELECT is(revoke_wa_api_key(:'key'), false, 'once');

SELECT * FROM finish();
