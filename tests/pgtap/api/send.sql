-- Tests sql/api/send.sql.
BEGIN;
SELECT plan(34);
\ir ../world.psql
CREATE ROLE wa_send_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT world.wrote(1);
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true);
SET LOCAL ROLE wa_send_app;

-- one
SELECT results_eq($$ SELECT m ->> 'status', m ->> 'type', m ->> 'text_body', m ->> 'phone'
    FROM send_wa_message('{"phone": "+5491140000001", "message": "Hi"}') m $$,
    $$ VALUES ('pending', 'text', 'Hi', '+5491140000001') $$, 'a text is queued');
SELECT results_eq($$ SELECT m ->> 'template_name', m -> 'template_params', m ->> 'priority', m ->> 'reference'
    FROM send_wa_message('{"phone": "+5491140000002", "template_name": "order", "template_params": ["Ann", "7"],
        "priority": "high", "reference": "r"}') m $$,
    $$ VALUES ('order', '["Ann", "7"]'::jsonb, 'high', 'r') $$, 'so is a template with all that a row may have');
SELECT is(send_wa_message('{"phone": "+5491140000001", "type": "image", "content": {"id": "9"}}') ->> 'type', 'image',
    'and any other type');
SELECT throws_ok($$ SELECT send_wa_message('{"phone": "+5491140000001", "massage": "Hi"}') $$, '22023',
    'a message has no massage', 'a field that there is not is refused by name');
SELECT throws_ok($$ SELECT send_wa_message('{"phone": "+5491140000001", "message": "a", "text_body": "b"}') $$, '22023',
    NULL, 'the text has one name at a time');
SELECT throws_ok($$ SELECT send_wa_message('[]') $$, '22023', 'a message is a JSON object, not array', 'and is an object');
SELECT throws_ok($$ SELECT send_wa_message('{"phone": "+5491140000003", "message": "Hi"}') $$, 'WA101', NULL,
    'the queue''s rules hold');

-- what may go instead
SELECT results_eq($$ SELECT o ->> 'last_customer_message_at', jsonb_array_length(o -> 'templates')
    FROM get_wa_send_options('+5491140000003') o $$, $$ VALUES (NULL, 4) $$, 'templates may: those that can be sent');
SELECT is((get_wa_send_options('+5491140000001') ->> 'window_closed_at')::timestamptz > now() + interval '23 hours', true,
    'when the window closes is told');
SELECT is(get_wa_send_options('+5491140000001', '101') ->> 'window_closed_at', NULL, 'for a business number, too');

-- again
SELECT send_wa_message('{"phone": "+5491140000001", "message": "Once"}', 'key') ->> 'id' AS id \gset
SELECT results_eq($$ SELECT m ->> 'id' FROM send_wa_message('{"message": "Once", "phone": "+5491140000001"}', 'key') m $$,
    format('VALUES (%L)', :'id'), 'the same request finds its message, however its fields are ordered');
SELECT cancel_wa_messages(ids => ARRAY[:'id'::uuid]);
SELECT is(send_wa_message('{"phone": "+5491140000001", "message": "Once"}', 'key') ->> 'status', 'cancelled',
    'as it is now');
SELECT throws_ok($$ SELECT send_wa_message('{"phone": "+5491140000001", "message": "Twice"}', 'key') $$, 'WA606', NULL,
    'another one under the key is refused');
SELECT throws_ok($$ SELECT send_wa_message('{"phone": "+5491140000003", "message": "Hi"}', 'refused') $$, 'WA101', NULL,
    'what was refused');
SELECT is(send_wa_message('{"phone": "+5491140000001", "message": "Hi"}', 'refused') ->> 'status', 'pending',
    'leaves the key for another try');

-- many
SELECT is(send_wa_messages('[{"phone": "+5491140000001", "message": "a"}, {"phone": "x", "message": "b"}, 7,
    {"phone": "+5491140000002", "template_name": "hello"}, {"phone": "+5491140000001", "text": "c"}]') - 'messages',
    '{"queued": 2, "refused": 3}', 'a batch has verdicts');
SELECT results_eq($$ SELECT v ->> 'n', v ->> 'status', v ->> 'error_sqlstate'
    FROM jsonb_array_elements(send_wa_messages('[{"phone": "+5491140000001", "message": "a"},
    {"phone": "x", "message": "b"}, 7]') -> 'messages') v $$,
    $$ VALUES ('1', 'pending', NULL), ('2', 'refused', 'WA001'), ('3', 'refused', '22023') $$, 'in their order');
SELECT throws_ok($$ SELECT send_wa_messages('[]') $$, '22023', NULL, 'an empty one is none');
SELECT throws_ok($$ SELECT send_wa_messages('{}') $$, '22023', NULL, 'nor is an object');
SELECT throws_ok($$ SELECT send_wa_messages((SELECT jsonb_agg(n) FROM generate_series(1, 10001) n)) $$, '22023', NULL,
    'nor more than ten thousand');
SELECT send_wa_messages('[{"phone": "+5491140000001", "message": "z"}, {"phone": "x"}]', 'batch') AS first \gset
SELECT is(send_wa_messages('[{"phone": "+5491140000001", "message": "z"}, {"phone": "x"}]', 'batch'), :'first'::jsonb,
    'a batch that comes again is the same');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE text_body = 'z'), 1::bigint, 'and queues nothing more');

-- a test key
SELECT set_config('wa.is_test_only', 'true', true);
SELECT throws_ok($$ SELECT send_wa_message('{"phone": "+5491140000001", "message": "Hi"}') $$, 'WA605', NULL,
    'a test key reaches no real number');
SELECT throws_ok($$ SELECT send_wa_messages('[{"phone": "+5491140000001", "message": "Hi"}]') $$, 'WA605', NULL,
    'nor with a batch');
SELECT is(send_wa_message('{"phone": "+5491140000001", "template_name": "hello", "phone_number_id": "101"}') ->> 'status',
    'pending', 'but a test number');
SELECT lives_ok($$ SELECT send_wa_messages('[{"phone": "+5491140000001", "template_name": "hello",
    "phone_number_id": "101"}]') $$, 'also with a batch');
RESET ROLE;
SELECT is((SELECT count(*) FROM wa_idempotent_requests WHERE result IS NULL), 0::bigint, 'no request is left half done');

-- what goes where WhatsApp cannot
SELECT set_config('wa.is_test_only', 'false', true);
SELECT is(send_wa_message('{"phone": "+5491140000001", "message": "Ready", "sms_fallback_text": "By SMS"}')
    ->> 'sms_fallback_text', 'By SMS', 'a text for an SMS comes along');
SELECT count(*) FROM enqueue_wa_messages('[
    {"phone": "+5491140000001", "text_body": "1", "sms_fallback_text": "SMS 1"},
    {"phone": "+5491140000001", "text_body": "2", "sms_fallback_text": "SMS 2"}]');
SELECT results_eq($$ SELECT text_body, sms_fallback_text FROM wa_outbound_queue WHERE sms_fallback_text LIKE 'SMS%'
    ORDER BY id $$, $$ VALUES ('1', 'SMS 1'), ('2', 'SMS 2') $$, 'with many, too');

-- how a number is read
UPDATE wa_organizations SET default_region = 'AR', default_area_code = '11';
SET ROLE wa_send_app;
SELECT is(read_wa_phone_number('4000-0001') ->> 'phone', '+5491140000001', 'a local form is the organization''s');
SELECT is(read_wa_phone_number('400-0001', 'ar', '351') ->> 'phone', '+5493514000001', 'or of the area that is given');
SELECT is(read_wa_phone_number('555-0101', 'US', p_or_null => true) ->> 'phone', NULL, 'its area code is no other region''s');
SELECT is(read_wa_phone_number('no number', p_or_null => true), '{"phone": null}'::jsonb, 'what is no number is null');
SELECT throws_ok($$ SELECT read_wa_phone_number('no number') $$, '22023', NULL, 'or an error');
RESET ROLE;

SELECT * FROM finish();
