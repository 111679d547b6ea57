-- Tests sql/provider/seam.sql, sql/provider/meta.sql, sql/provider/d360.sql, sql/provider/audited.sql.
BEGIN;
SELECT plan(40);

SELECT results_eq(
    $$ SELECT r.* FROM wa_error_rules r ORDER BY provider, code, subcode $$,
    $$ SELECT c.* FROM wa_error_rules r
       CROSS JOIN LATERAL classify_wa_error(r.code, r.http_status, r.subcode, r.provider) c
       ORDER BY r.provider, r.code, r.subcode $$,
    'a code that is in the table is classified by the table'
);
SELECT is((classify_wa_error(131026, 500)).action, 'fail_recipient', 'whatever the HTTP status');

-- what the table does not know
CREATE FUNCTION pg_temp.action(p_code integer, p_status integer) RETURNS text LANGUAGE sql AS $$
    SELECT (classify_wa_error(p_code, p_status)).action
$$;
SELECT is(pg_temp.action(999999, 400), 'fail', 'an unknown code of a 400 fails');
SELECT is(pg_temp.action(NULL, 404), 'fail', 'so does a 404 without a code');
SELECT is(pg_temp.action(NULL, 413), 'fail', 'and any other 4xx');
SELECT is(pg_temp.action(999999, 401), 'pause_token', '401 is about the token');
SELECT is(pg_temp.action(NULL, 403), 'pause_token', '403 too');
SELECT is(pg_temp.action(200, 400), 'pause_token', 'as are the codes 200 to 299');
SELECT is(pg_temp.action(299, 400), 'pause_token', 'to the last');
SELECT is(pg_temp.action(300, 400), 'fail', 'but not 300');
SELECT is(pg_temp.action(NULL, 429), 'wait_number', '429 waits');
SELECT is(pg_temp.action(999999, 429), 'wait_number', 'with a code too');
SELECT is(pg_temp.action(999999, 500), 'retry', 'a 5xx with a code says that nothing was accepted');
SELECT is((classify_wa_error(20502, 502, NULL, 'twilio')).action, 'unknown', 'of Meta, that is: Twilio does not say so');
SELECT is((classify_wa_error(999999, 500, NULL, '360dialog')).action, 'retry', '360dialog hands on what Meta says');
SELECT is(pg_temp.action(NULL, 500), 'unknown',
    'one without a code comes from a proxy: the message may have gone');
SELECT is(pg_temp.action(NULL, 502), 'unknown', 'as with 502');
SELECT is(pg_temp.action(NULL, 504), 'unknown', 'and 504');
SELECT is(pg_temp.action(NULL, 408), 'unknown', 'and 408');
SELECT is(pg_temp.action(NULL, 200), 'unknown', 'and a 200 that shows no message');
SELECT is(pg_temp.action(NULL, 302), 'unknown', 'and a redirect');

-- subcodes
SELECT is((classify_wa_error(100, 400, 33)).action, 'pause_number', 'a subcode may change what a code means');
SELECT is((classify_wa_error(100, 400, 34)).action, 'fail', 'or not');
SELECT is((classify_wa_error(100, 400)).subcode, 0, 'without one the rule of the code counts');
SELECT results_eq($$ SELECT code, subcode, error FROM _wa_answer_error('{"error": {"code": "100", "error_subcode": "33",
    "message": "gone"}}') $$, $$ VALUES (100, 33, 'gone') $$, 'relays write both as text');
INSERT INTO wa_error_rules (code, subcode, title, action) VALUES (190, 463, 'Expired', 'retry');
SELECT is((classify_wa_error(190, 401, 463)).action || (classify_wa_error(190, 401, 460)).action,
    'retrypause_token', 'an operator may give a rule to any subcode');

-- the operator's own
UPDATE wa_error_rules SET action = 'retry', max_retries = 2 WHERE code = 131026;
SELECT is(pg_temp.action(131026, 400), 'retry', 'a changed rule holds at once');
INSERT INTO wa_error_rules (code, title, action) VALUES (999999, 'Ours', 'opt_out');
SELECT is(pg_temp.action(999999, 400), 'opt_out', 'so does a rule of one''s own');
SELECT throws_ok($$ UPDATE wa_error_rules SET action = 'panic' WHERE code = 1 $$, '23514', NULL,
    'an action that does not exist cannot be written');

-- whose codes they are
SELECT is((classify_wa_error(190, 401, NULL, '360dialog')).action, 'pause_token', '360dialog has Meta''s errors');
INSERT INTO wa_error_rules (provider, code, title, action) VALUES ('360dialog', 190, 'Ours', 'fail');
SELECT is((classify_wa_error(190, 401, NULL, '360dialog')).action, 'fail', 'its own rule goes before them');
SELECT is((classify_wa_error(190, 401)).action, 'pause_token', 'and counts for it alone');
SELECT is((classify_wa_error(131026, 400, NULL, 'twilio')).title, 'Error 131026', 'Twilio has its own only');

-- paths
SELECT is(_wa_request_path('meta', '100', '200'), '/100/messages', 'the path to send by names the number');
SELECT is(_wa_request_path('360dialog', '100', '200'), '/messages', 'or the key does');
SELECT is(_wa_request_path('twilio', '+1', 'AC1'), '/2010-04-01/Accounts/AC1/Messages.json', 'or the account');
SELECT is(_wa_media_path('twilio', '+1', 'AC1', 'MM1:ME2'), '/2010-04-01/Accounts/AC1/Messages/MM1/Media/ME2',
    'a file may be a part of a message');

-- a translation that raises loses nothing
CREATE FUNCTION _wa_raise(p_answer jsonb) RETURNS jsonb LANGUAGE sql RETURN (1 / 0)::text::jsonb;
INSERT INTO wa_providers (name, send_path, answer_function) VALUES ('broken', '/', '_wa_raise');
SELECT is(_wa_translate_answers('[{"provider": "broken", "answer": {}}, {"provider": "twilio",
    "answer": {"code": 21211, "message": "No"}}]') #>> '{1,answer,error,code}', '21211',
    'the answers of others are read');
SELECT is(_wa_translate_answers('[{"provider": "broken", "answer": {"a": 1}}]') #>> '{0,answer,a}', '1',
    'and its own stays as it came');
CREATE FUNCTION _wa_raise_for_two(p_request jsonb, p_number wa_phone_numbers) RETURNS jsonb LANGUAGE sql
RETURN CASE WHEN p_request ->> 'n' <> '3' THEN to_jsonb(1 / (2 - (p_request ->> 'n')::integer)) END;
UPDATE wa_providers SET request_function = '_wa_raise_for_two' WHERE name = 'broken';
SELECT register_wa_phone_number('100', '+1 555 123 4567', '200', 'broken');
SELECT is(_wa_translate_requests(n, ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3, "type": "text"}']::jsonb[])::text,
    ARRAY['1', '{"problem": "division by zero"}',
        '{"problem": "provider \"broken\" cannot send a message of type text"}']::jsonb[]::text,
    'of several requests the one that it raises for has a problem, and one that it does not know')
FROM wa_phone_numbers n;

SELECT * FROM finish();
ROLLBACK;
