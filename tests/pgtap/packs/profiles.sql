-- Tests sql/packs/profiles/tables.sql.
BEGIN;
SELECT plan(7);

SELECT is((SELECT array_agg(DISTINCT action) FROM install_wa_pack('profiles')), ARRAY['create'],
    'the pack is installed');
CREATE ROLE wa_profiles_app IN ROLE wa_app;
CREATE ROLE wa_profiles_other IN ROLE wa_app;
CREATE ROLE wa_profiles_analyst IN ROLE wa_analyst;
SELECT current_wa_organization() AS home \gset
SELECT create_wa_organization('away') AS away \gset
SELECT add_wa_organization_role(:'home', 'wa_profiles_app'),
    add_wa_organization_role(:'away', 'wa_profiles_other');

SET LOCAL ROLE wa_profiles_app;
INSERT INTO profiles (role_id, full_name) VALUES ('admin', 'Ana'), ('user', 'Bob');
SELECT lives_ok($$
    INSERT INTO wa_templates (name, category, language, body_text, parameters, created_by) VALUES (
        'ORDER_CONFIRMATION', 'UTILITY', 'en', 'Hi {{1}}, your order {{2}} is confirmed. Details: {{3}}',
        '[{"name": "customer_name", "type": "text"}, {"name": "order_id", "type": "text"},
            {"name": "order_details", "type": "text"}]'::jsonb,
        (SELECT id FROM profiles WHERE role_id = 'admin' LIMIT 1)
    )
$$, 'a profile stands for who made a template');
SELECT is(p.full_name, 'Ana', 'who is found again')
FROM wa_templates t JOIN profiles p ON p.id::text = t.created_by;
SELECT throws_ok($$ INSERT INTO profiles (role_id) VALUES ('') $$, '23514', NULL, 'a role is a word');
SET LOCAL ROLE wa_profiles_other;
SELECT is_empty('SELECT 1 FROM profiles', 'another organization sees none of them');
SELECT throws_ok(format('INSERT INTO profiles (organization_id) VALUES (%L)', :'home'), '42501', NULL,
    'nor adds one');
SET LOCAL ROLE wa_profiles_analyst;
SELECT throws_ok('SELECT 1 FROM profiles', '42501', NULL, 'analysts see no names');

SELECT * FROM finish();
ROLLBACK;
