-- Tests sql/organizations/organizations.sql.
BEGIN;
SELECT plan(44);

CREATE ROLE wa_tenancy_app IN ROLE wa_app;
CREATE ROLE wa_tenancy_other IN ROLE wa_app;
CREATE ROLE wa_tenancy_both IN ROLE wa_app;
CREATE ROLE wa_tenancy_none IN ROLE wa_app;
CREATE ROLE wa_tenancy_admin IN ROLE wa_admin;
CREATE ROLE wa_tenancy_member IN ROLE wa_tenancy_app;

-- one organization
SELECT is((SELECT count(*) FROM wa_organizations WHERE is_default), 1::bigint,
    'there is a default organization from the start');
SELECT is((SELECT rate_limit_per_minute FROM wa_organizations), NULL, 'which has no rate limit');
SELECT is(current_wa_organization(), (SELECT id FROM wa_organizations), 'it needs no setting');
SET LOCAL ROLE wa_tenancy_app;
SELECT isnt(current_wa_organization(), NULL, 'nor membership');
SELECT lives_ok($$ SET LOCAL wa.organization_id = '' $$, 'an empty setting');
SELECT isnt(current_wa_organization(), NULL, 'is none');
RESET ROLE;

-- several
CREATE TEMPORARY TABLE ids AS
SELECT current_wa_organization() AS home, '0b0b0b0b-0000-4000-8000-000000000001'::uuid AS away;
GRANT SELECT ON ids TO PUBLIC;
SET LOCAL ROLE wa_tenancy_admin;
SELECT is(create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001'), (SELECT away FROM ids),
    'a second organization takes the host''s own id');
SELECT is((SELECT rate_limit_per_minute FROM wa_organizations WHERE id = (SELECT away FROM ids)), 50,
    'and has the rate limit of organizations made later');
SELECT add_wa_organization_role((SELECT home FROM ids), 'wa_tenancy_app');
SELECT add_wa_organization_role((SELECT away FROM ids), 'wa_tenancy_other');
SELECT add_wa_organization_role((SELECT home FROM ids), 'wa_tenancy_both');
SELECT add_wa_organization_role((SELECT away FROM ids), 'wa_tenancy_both');
SELECT throws_ok($$ SELECT add_wa_organization_role((SELECT home FROM ids), 'nobody at all') $$, '42704',
    NULL,
    'only a role that exists can be added');
SELECT throws_ok('SELECT current_wa_organization()', 'WA301', NULL,
    'an admin of several must choose what to write to');
SELECT is((SELECT count(*) FROM wa_organizations), 2::bigint, 'but sees all of them');

SET LOCAL ROLE wa_tenancy_none;
SELECT throws_ok('SELECT current_wa_organization()', 'WA302', NULL, 'a role of none is told so');
SELECT throws_ok('SELECT * FROM wa_contacts', 'WA302', NULL, 'it gets an error, never an empty result');
SET LOCAL ROLE wa_tenancy_app;
SELECT is(current_wa_organization(), (SELECT home FROM ids), 'a role of one needs no setting');
SET LOCAL ROLE wa_tenancy_member;
SELECT is(current_wa_organization(), (SELECT home FROM ids), 'nor does a member of that role');
SELECT results_eq('SELECT role_name::text COLLATE "default" FROM wa_organization_roles',
    $$ VALUES ('wa_tenancy_app') $$,
    'it sees its own membership only');
SET LOCAL ROLE wa_tenancy_both;
SELECT throws_ok('SELECT current_wa_organization()', 'WA301', NULL, 'a role of two must choose');
SELECT throws_ok('SELECT * FROM wa_templates', 'WA301', NULL, 'before it reads anything');
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000001';
SELECT is(current_wa_organization(), (SELECT away FROM ids), 'and chooses by the setting');
SET LOCAL wa.organization_id = 'nonsense';
SELECT throws_ok('SELECT current_wa_organization()', 'WA303', NULL, 'which must be a UUID');
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000001';
SET LOCAL ROLE wa_tenancy_app;
SELECT throws_ok('SELECT current_wa_organization()', 'WA302', NULL, 'a setting is no authentication');
SELECT throws_ok('SELECT * FROM wa_contacts', 'WA302', NULL, 'it opens no table');
SELECT throws_ok($$ SELECT opt_out_wa_contact('+15551234567') $$, 'WA302', NULL, 'nor a definer function');
RESET wa.organization_id;

-- writing
SELECT lives_ok($$ INSERT INTO wa_templates (name, category, body_text) VALUES ('ours', 'UTILITY', 'x') $$,
    'a row without an organization goes to one''s own');
SELECT is((SELECT organization_id FROM wa_templates), (SELECT home FROM ids), 'as its default says');
SELECT throws_ok($$
    INSERT INTO wa_templates (organization_id, name, category, body_text) VALUES ((SELECT away FROM ids), 'x',
        'UTILITY', 'x')
$$, '42501', NULL, 'a row for another organization is refused');
SELECT throws_ok($$ UPDATE wa_templates SET organization_id = (SELECT away FROM ids) $$, '42501', NULL,
    'a row cannot be moved to one');
SET LOCAL ROLE wa_tenancy_other;
SELECT is((SELECT count(*) FROM wa_templates), 0::bigint, 'the other organization does not see it');
SELECT lives_ok($$ INSERT INTO wa_templates (name, category, body_text) VALUES ('ours', 'UTILITY', 'y') $$,
    'and may use the same name');

-- panic
SELECT throws_ok($$ SELECT trigger_wa_panic('x', (SELECT home FROM ids)) $$, 'WA302', NULL,
    'a panic of another organization is refused');
SELECT is(trigger_wa_panic('x'), 1, 'one''s own is stopped');
SET LOCAL ROLE wa_tenancy_app;
SELECT is((SELECT count(*) FROM wa_panic_modes), 0::bigint, 'which the other does not see');
SELECT is(resolve_wa_panic(), 0, 'nor can end');
SET LOCAL ROLE wa_tenancy_admin;
SELECT is(trigger_wa_panic('everything'), 2, 'an admin stops every organization by default');
SELECT is(resolve_wa_panic((SELECT away FROM ids)), 2, 'or resumes one of them');
RESET ROLE;
SELECT is((SELECT count(*) FROM wa_panic_modes WHERE active), 1::bigint, 'and leaves the other stopped');

-- a role that takes the name of one that is gone
SELECT throws_ok('DROP ROLE wa_tenancy_other', '2BP01', NULL, 'a role of an organization is not dropped unnoticed');
DROP OWNED BY wa_tenancy_other;
DROP ROLE wa_tenancy_other;
CREATE ROLE wa_tenancy_other IN ROLE wa_app;
SET LOCAL ROLE wa_tenancy_other;
SELECT throws_ok('SELECT current_wa_organization()', 'WA302', NULL, 'who takes its name belongs to nothing');
SELECT throws_ok('SELECT * FROM wa_templates', 'WA302', NULL, 'and reads nothing');
SELECT throws_ok($$ SELECT opt_out_wa_contact('+16505550101', 'x') $$, 'WA302', NULL, 'nor does anything');
RESET ROLE;
SELECT add_wa_organization_role((SELECT home FROM ids), 'wa_tenancy_other');
SET LOCAL ROLE wa_tenancy_other;
SELECT is(current_wa_organization(), (SELECT home FROM ids), 'until it is added itself, to that one only');
RESET ROLE;
INSERT INTO wa_organization_roles (organization_id, role_name) SELECT away, 'wa_tenancy_none' FROM ids
UNION ALL SELECT home, 'wa_tenancy_none' FROM ids;
SELECT is((SELECT count(*) FROM wa_organization_roles WHERE role_name = 'wa_tenancy_none'), 2::bigint,
    'a plain INSERT adds one to several');
DELETE FROM wa_organization_roles WHERE role_name = 'wa_tenancy_none';
SELECT lives_ok('DROP ROLE wa_tenancy_none', 'one that was taken out can be dropped');
SELECT lives_ok($$ INSERT INTO wa_organization_roles (organization_id, role_name)
    SELECT away, 'wa_tenancy_none' FROM ids $$, 'a name without a role can be there, as after a restore');

SELECT * FROM finish();
ROLLBACK;
