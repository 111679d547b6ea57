-- Tests sql/api/lists.sql.
BEGIN;
SELECT plan(26);
\ir ../world.psql
CREATE ROLE wa_lists_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SET LOCAL ROLE wa_lists_app;

-- templates
CREATE FUNCTION pg_temp.names(p jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(t ->> 'name', ' ' ORDER BY n) FROM jsonb_array_elements(p -> 'templates') WITH ORDINALITY x (t, n)
$$;
SELECT is(pg_temp.names(list_wa_templates()), 'code draft hello order sale', 'templates by name');
SELECT is(pg_temp.names(list_wa_templates(p_name => 'HELLO')), 'hello', 'one by its name');
SELECT is(list_wa_templates(p_name => 'hello') #>> '{templates,0,is_sendable}', 'true', 'whether it may go is told');
SELECT is(pg_temp.names(list_wa_templates(p_approval_status => 'approved')), 'code hello order sale', 'those that were approved');
SELECT is(pg_temp.names(list_wa_templates(p_limit => 2, p_cursor => list_wa_templates(p_limit => 2) ->> 'next')), 'hello order',
    'page by page');
SELECT is(list_wa_templates(p_limit => 5) ->> 'next', NULL, 'to the end');
SELECT list_wa_templates(p_limit => 2) ->> 'next' AS after_draft \gset
SAVEPOINT gone;
RESET ROLE;
DELETE FROM wa_templates WHERE name IN ('code', 'draft');
SELECT is(pg_temp.names(list_wa_templates(p_limit => 2, p_cursor => :'after_draft')), 'hello order',
    'none is passed over when those before it go meanwhile');
ROLLBACK TO gone;
SELECT throws_ok($$ SELECT list_wa_templates(p_cursor => _wa_write_cursor('7')) $$, '22023', 'that is no cursor of ours',
    'the cursor of another list is none');
SELECT throws_ok($$ SELECT list_wa_templates(p_approval_status => 'maybe') $$, '22023', NULL, 'a status is a known one');
SELECT throws_ok($$ SELECT list_wa_templates(p_limit => 501) $$, '22023', NULL, 'a page has a size');
SELECT create_wa_template('{"name": "new", "category": "utility", "body_text": "Hi {{1}}",
    "parameters": [{"name": "who", "type": "text"}]}', 'key') AS made \gset
SELECT results_eq(format($$ SELECT m ->> 'name', m ->> 'category', m ->> 'approval_status', m ->> 'language'
    FROM (SELECT %L::jsonb AS m) x $$, :'made'), $$ VALUES ('new', 'UTILITY', 'pending', 'en') $$, 'a draft is made');
SELECT is(create_wa_template('{"name": "new", "category": "utility", "body_text": "Hi {{1}}",
    "parameters": [{"name": "who", "type": "text"}]}', 'key') ->> 'id', :'made'::jsonb ->> 'id', 'once');
SELECT throws_ok($$ SELECT create_wa_template('{"name": "NEW", "body_text": "x"}') $$, '23505', NULL, 'a name is there once');
SELECT throws_ok($$ SELECT create_wa_template('{"name": "x", "body_text": "x", "status": "APPROVED"}') $$, '22023',
    'a template has no status', 'nobody approves by writing so');
SELECT throws_ok($$ SELECT create_wa_template('{"name": "x", "body_text": "x", "category": "FUN"}') $$, '22023', NULL,
    'a category is one of Meta''s');
SELECT throws_ok($$ SELECT create_wa_template('{"name": " ", "body_text": "x"}') $$, '22023', NULL, 'a name is needed');

-- consent
SELECT opt_out_wa_contact(world.customer(n), CASE n WHEN 1 THEN 'all' ELSE 'marketing' END, 'asked') FROM generate_series(1, 3) n;
SELECT is((SELECT string_agg(o ->> 'phone', ' ' ORDER BY n) FROM jsonb_array_elements(list_wa_opt_outs(2) -> 'opt_outs')
    WITH ORDINALITY x (o, n)), '+5491140000003 +5491140000002', 'opt-outs, the latest first');
SELECT is(list_wa_opt_outs(2, list_wa_opt_outs(2) ->> 'next') #>> '{opt_outs,0,phone}', '+5491140000001', 'page by page');
SELECT is(get_wa_consent('+5491140000002') - 'opt_outs', '{"is_opted_out": false, "is_opted_out_of_marketing": true}',
    'what somebody asked for');
SELECT is(get_wa_consent('+5491140000001') #>> '{opt_outs,0,reason}', 'asked', 'and why');
SELECT is(get_wa_consent('+5491140000099'), '{"opt_outs": [], "is_opted_out": false, "is_opted_out_of_marketing": false}',
    'who is not known asked for nothing');

-- a test key
RESET ROLE;
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true);
SELECT world.wrote(1), world.wrote(2, p_number => '101'), world.wrote(3), world.wrote(3, p_number => '101');
SELECT set_config('wa.is_test_only', 'true', true);
SET LOCAL ROLE wa_lists_app;
SELECT is((SELECT string_agg(o ->> 'phone', ' ') FROM jsonb_array_elements(list_wa_opt_outs() -> 'opt_outs') o),
    '+5491140000002', 'a test key sees the consent of those who are known at test numbers only');
SELECT throws_ok($$ SELECT get_wa_consent('+5491140000003') $$, 'WA605', NULL, 'not of one who is known at others, too');
SELECT throws_ok($$ SELECT opt_in_wa_contact('+5491140000001', 'all') $$, 'WA605', NULL, 'and lifts no opt-out');
SELECT throws_ok($$ SELECT opt_out_wa_contact('+5491140000099') $$, 'WA605', NULL, 'nor records one of a stranger');
SELECT ok(opt_in_wa_contact('+5491140000002', 'all'), 'but those of its own');

SELECT * FROM finish();
