-- Tests sql/people/roles.sql, sql/people/users.sql.
BEGIN;
SELECT plan(53);

-- the matrix
SELECT ok(bool_and(is_allowed AND is_default), 'every role may what it may by default')
    FROM wa_role_permissions;
SELECT is(array_agg(DISTINCT role ORDER BY role), '{customer,field_staff,manager,operations,sales}',
    'five roles')
FROM wa_role_permissions;
SELECT is(array_agg(permission ORDER BY permission), e::text[], r || ' may what the matrix says')
FROM (VALUES ('customer', '{check_status,enquire,pay}'),
    ('sales', '{convert_bookings,create_leads,media,read,send,send_quotes}'),
    ('operations', '{assign_staff,broadcast,manage_inventory,media,metrics,read,send,templates}'),
    ('field_staff', '{check_in,media,read,report_issues,upload_media}')) v (r, e)
JOIN wa_role_permissions p ON p.role = v.r GROUP BY r, e ORDER BY r;
SELECT is(array_agg(permission), NULL, 'a manager lacks nothing that anybody may') FROM wa_role_permissions p
WHERE NOT EXISTS (SELECT FROM wa_role_permissions m WHERE m.role = 'manager' AND m.permission = p.permission);

-- people, by whatever names them
CREATE ROLE shop_ann;
INSERT INTO wa_users (display_name, role, phone_e164, external_id, role_name) VALUES
('Ann', 'sales', '+54 9 11 4000-0001', 'ann@shop', 'shop_ann'), ('Bob', 'field_staff', '+5491140000002', NULL,
    NULL);
INSERT INTO wa_users (display_name, role, external_id) VALUES ('Cy', 'manager', 'shop_ann');
SELECT is(phone_e164, '+5491140000001', 'a number is stored in E.164') FROM wa_users
    WHERE display_name = 'Ann';
SELECT ok(has_wa_permission(who, 'send_quotes'), 'found as ' || who)
FROM (VALUES ('ann@shop'), ('+54 9 11 4000 0001')) v (who);
SELECT ok(has_wa_permission(upper(id::text), 'send'), 'or by the id') FROM wa_users
    WHERE display_name = 'Ann';
SELECT ok(has_wa_permission('shop_ann', 'approve'),
    'an id that the organization gave counts before a database role');
DELETE FROM wa_users WHERE display_name = 'Cy';
SELECT is(has_wa_permission('shop_ann', 'approve'), false, 'which names her once it is nobody''s id');
SELECT is(has_wa_permission('+5491140000002', 'send'), false, 'what the role does not permit');
SELECT is(has_wa_permission('nobody', 'read'), false, 'whom nothing names may nothing');
SELECT is(has_wa_permission(NULL, 'read'), false, 'nor may no name');
SELECT is(has_wa_permission('ann@shop', 'fly'), false, 'a permission that is none is nobody''s');
SELECT throws_ok($$ INSERT INTO wa_users (display_name, role, external_id) VALUES ('Di', 'pilot', 'di') $$,
    'WA062',
    'no role "pilot"', 'a role that is none');
SELECT throws_ok($$ INSERT INTO wa_users (display_name, role) VALUES ('Di', 'sales') $$, '23514', NULL,
    'somebody by whom nothing is known');

-- another role of the same name is nobody
SELECT ok(has_wa_permission('shop_ann', 'send_quotes'), 'a database role');
SELECT throws_ok('DROP ROLE shop_ann', '2BP01', NULL, 'cannot be dropped unnoticed');
DROP OWNED BY shop_ann;
DROP ROLE shop_ann;
SELECT is(has_wa_permission('shop_ann', 'send_quotes'), false, 'one that is gone may nothing');
CREATE ROLE shop_ann;
SELECT is(has_wa_permission('shop_ann', 'send_quotes'), false, 'nor may one that took its name');
SELECT ok(has_wa_permission('ann@shop', 'send_quotes'), 'the person may, by what else is known');
UPDATE wa_users SET role_name = role_name WHERE external_id = 'ann@shop';
SELECT ok(has_wa_permission('shop_ann', 'send_quotes'), 'until it is written again');
DROP OWNED BY shop_ann;
DROP ROLE shop_ann;
CREATE ROLE shop_ann;
SAVEPOINT alone;
SELECT set_config('wa.organization_id', current_wa_organization()::text, true) \g /dev/null
SELECT create_wa_organization('north', '0b0b0b0b-0000-4000-8000-000000000002') \g /dev/null
INSERT INTO wa_users (organization_id, display_name, role, role_name)
VALUES ('0b0b0b0b-0000-4000-8000-000000000002', 'Another', 'manager', 'shop_ann');
SELECT is(has_wa_permission('shop_ann', 'send_quotes'), false, 'for another organization it is its own alone');
SELECT is((SELECT is_active FROM wa_users WHERE external_id = 'ann@shop'), false, 'and whom it meant before has left');
ROLLBACK TO alone;
UPDATE wa_users SET is_active = false WHERE external_id = 'ann@shop';
UPDATE wa_users SET is_active = true WHERE external_id = 'ann@shop';
SELECT ok(has_wa_permission('shop_ann', 'send_quotes'), 'who comes back has it again');
UPDATE wa_users SET is_active = false WHERE external_id = 'ann@shop';
SELECT lives_ok('DROP ROLE shop_ann', 'where nobody active has it, it can be dropped');
UPDATE wa_users SET is_active = true WHERE external_id = 'ann@shop';

-- the organization says otherwise
SELECT ok(set_wa_role_permission('field_staff', 'send', true), 'a role gets a permission');
SELECT ok(has_wa_permission('+5491140000002', 'send'), 'and has it');
SELECT is(set_wa_role_permission('field_staff', 'send', true), false, 'which is no news then');
SELECT ok(set_wa_role_permission('field_staff', 'send', false), 'and loses it');
SELECT is(count(*), 0::bigint, 'what is as by default is said by the defaults') FROM wa_role_overrides;
SELECT ok(set_wa_role_permission('sales', 'media', false), 'a default is taken away');
SELECT is(has_wa_permission('ann@shop', 'media'), false, 'and gone');
SELECT is((is_allowed, is_default)::text, '(f,t)', 'the view tells both') FROM wa_role_permissions
WHERE role = 'sales' AND permission = 'media';
SELECT ok(set_wa_role_permission('pilot', 'fly', true), 'a role is made by its first permission');
INSERT INTO wa_users (display_name, role, external_id) VALUES ('Di', 'pilot', 'di');
SELECT ok(has_wa_permission('di', 'fly'), 'and people have it');
SELECT throws_ok($$ SELECT set_wa_role_permission('Sales', 'send', true) $$, '22023', NULL,
    'words of small letters');
UPDATE wa_users SET is_active = false WHERE external_id = 'di';
SELECT is(has_wa_permission('di', 'fly'), false, 'who left may nothing');
SELECT is(array_agg(DISTINCT entity || ' ' || event ORDER BY entity || ' ' || event),
    '{wa_role_overrides setting_added,wa_role_overrides setting_removed,wa_users setting_added,'
    'wa_users setting_changed,wa_users setting_removed}',
    'all of that is in the audit log') FROM audit_log WHERE entity IN ('wa_users', 'wa_role_overrides');
SELECT is(count(*), 0::bigint, 'without names') FROM audit_log WHERE meta::text ~ 'Ann|Bob|91140000';

-- what people do by hand
SELECT set_config('wa.acting_user', '+5491140000002', true);
INSERT INTO wa_broadcast_lists (name) VALUES ('guests');
SELECT throws_ok($$ SELECT add_wa_broadcast_members('guests', '{+16505550100}') $$, 'WA621',
    'the role field_staff does not permit "broadcast"', 'a list is filled by whom the role lets broadcast');
SELECT set_config('wa.acting_user', 'somebody', true);
SELECT is(add_wa_broadcast_members('guests', '{+16505550100}'), 1, 'a name that is nobody''s is let through');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'unknown_user' AND entity_id = 'somebody'), 1::bigint,
    'and noted');
SELECT count(add_wa_broadcast_members('guests', '{+16505550100}')) FROM (
    SELECT set_config('wa.acting_user', 'somebody ' || n, true) FROM generate_series(1, 1000) n) x \g /dev/null
SELECT _wa_close_audit_counts(clock_timestamp() + interval '1 minute', 10) \g /dev/null
-- A minute may have ended in between.
SELECT cmp_ok((SELECT count(*) FROM audit_log WHERE event = 'unknown_user'), '<', 6::bigint,
    'a thousand names are no thousand rows');
SELECT is((SELECT sum((meta -> 'count')::integer) FROM audit_log WHERE event = 'unknown_user'), 1001::bigint, 'but counted');
SELECT is((SELECT get_wa_rejections(now() - interval '1 hour')), 0::bigint, 'and no refused webhooks');
UPDATE wa_organizations SET unknown_users = 'refuse';
SELECT throws_ok($$ SELECT hold_wa_contact('+16505550100', 'case 1') $$, 'WA622', NULL, 'or refused');
SELECT set_config('wa.acting_user', '+5491140000002', true);
SELECT throws_ok($$ SELECT erase_wa_contact('+16505550100', 'asked') $$, 'WA621', NULL, 'persons are erased by an admin');
SELECT throws_ok($$ SELECT set_wa_role_permission('sales', 'broadcast', true) $$, 'WA621', NULL, 'who says who may what');
SELECT set_config('wa.acting_user', '', true);
SELECT is(add_wa_broadcast_members('guests', '{+16505550101}'), 1, 'without a name it is the database role alone');

SELECT * FROM finish();
ROLLBACK;
