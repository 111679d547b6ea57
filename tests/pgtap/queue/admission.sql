-- Tests sql/queue/admission.sql, sql/queue/refusals.sql, sql/extension/content.sql,
-- sql/extension/interactive.sql.
BEGIN;
SELECT plan(99);
\ir ../world.psql
CREATE ROLE wa_queue_app IN ROLE wa_app;
UPDATE wa_organizations SET default_region = 'AR', default_area_code = '11';
UPDATE wa_phone_numbers SET throughput = 1000;
GRANT USAGE ON SCHEMA world TO PUBLIC;

CREATE FUNCTION pg_temp.code(p_statement text, OUT code text, OUT message text, OUT detail text,
    OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE p_statement;
    code := 'fine';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT;
END
$$;
CREATE FUNCTION pg_temp.content(p_type text, p_content jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT code FROM pg_temp.code(format(
        'INSERT INTO wa_outbound_queue (phone, type, content) VALUES (world.customer(1), %L, %L)', p_type,
        p_content))
$$;

-- as little as possible
SET LOCAL ROLE wa_queue_app;
INSERT INTO wa_outbound_queue (phone, template_name, template_params) VALUES ('+54 9 11 4000-0001', 'order',
    '["Ana", 42]');
SELECT results_eq('SELECT phone, type, priority, status, retry_count, organization_id FROM wa_outbound_queue',
    $$ SELECT '+5491140000001', 'template', 'normal', 'pending', 0, current_wa_organization() $$,
    'a template needs phone, name and values');
RESET ROLE;
SELECT world.wrote(1);
SET LOCAL ROLE wa_queue_app;
INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('11 4000 0001', 'Hello');
SELECT results_eq($$ SELECT phone, type FROM wa_outbound_queue WHERE text_body = 'Hello' $$,
    $$ VALUES ('+5491140000001', 'text') $$, 'a text needs phone and body; national forms are understood');
RESET ROLE;
PREPARE returning_insert AS INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+54 9 11 4000-0001',
    'x')
RETURNING id IS NOT NULL, phone, type, status;
SELECT results_eq('returning_insert', $$ VALUES (true, '+5491140000001', 'text', 'pending') $$,
    'RETURNING gives id, phone and type');
INSERT INTO wa_outbound_queue (phone, template_name) SELECT world.customer(n), 'hello'
    FROM generate_series(100, 599) n;
SELECT is((SELECT count(*) FROM wa_queue_due d JOIN wa_outbound_queue q ON q.id = d.queue_id
    WHERE q.template_name = 'hello'),
    500::bigint, 'many rows in a statement');
SELECT is((SELECT count(*) FROM (SELECT id <= lag(id) OVER (ORDER BY created_at, id) AS back
    FROM wa_outbound_queue) x WHERE back),
    0::bigint, 'ids are in the order of time');
INSERT INTO wa_outbound_queue (phone, template_name, status, attempt, wa_message_id, error_code)
VALUES (world.customer(700), 'hello', 'sent', 7, 'wamid.fake', 'x');
SELECT results_eq($$ SELECT status, attempt, wa_message_id, error_code FROM wa_outbound_queue
    WHERE phone = world.customer(700) $$,
    $$ VALUES ('pending', 0, NULL, NULL) $$, 'what only sending may say is not taken from the insert');
INSERT INTO wa_outbound_queue (phone, template_name) VALUES (world.customer(701), 'HeLLo');
SELECT is((SELECT body #>> '{template,name}' FROM world.claim() WHERE body ->> 'to' = world.customer(701)),
    'hello',
    'template names match without regard to case');

-- once
SELECT is(code, 'fine', 'a key is given') FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, template_name, idempotency_key) VALUES (world.customer(2),
    ''hello'', ''k'')');
SELECT is(code, '23505', 'the same key again is refused') FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, template_name, idempotency_key) VALUES (world.customer(2),
    ''hello'', ''k'')');
INSERT INTO wa_outbound_queue (phone, template_name, idempotency_key)
VALUES (world.customer(2), 'hello', 'k'), (world.customer(2), 'hello', 'l')
ON CONFLICT (organization_id, idempotency_key) DO NOTHING;
SELECT is((SELECT count(*) FROM wa_outbound_queue q JOIN wa_queue_due d ON d.queue_id = q.id
    WHERE q.phone = world.customer(2)), 2::bigint,
    'or skipped, while the new one is queued');

-- expiry
CREATE FUNCTION pg_temp.lives(p_phone text) RETURNS interval LANGUAGE sql AS $$
    SELECT date_trunc('minute', expires_at - scheduled_at + interval '30 seconds') FROM wa_outbound_queue
        WHERE phone = p_phone
$$;
SELECT world.queue(3, 'code', '["1"]'), world.queue(4);
SELECT is(pg_temp.lives(world.customer(3)), interval '10 minutes',
    'an authentication message lives ten minutes');
SELECT is(pg_temp.lives(world.customer(4)), interval '24 hours', 'another template a day');
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at) VALUES (world.customer(5), 'hello',
    now() + interval '3 days');
SELECT is(pg_temp.lives(world.customer(5)), interval '24 hours', 'after it is due');
INSERT INTO wa_outbound_queue (phone, template_name, expires_at) VALUES (world.customer(6), 'hello',
    'infinity');
SELECT is(expires_at, 'infinity', 'infinity is explicit') FROM wa_outbound_queue
    WHERE phone = world.customer(6);

-- what is malformed is raised, each with its code: a recipient who is none in any case
UPDATE wa_organizations SET on_refusal = 'record';
SELECT results_eq($$ SELECT code, message, detail, hint <> '' FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, template_name) VALUES (''nobody'', ''hello'')') $$,
    $$ VALUES ('WA001', 'not a phone number or business-scoped user id',
        'Recipient: ''nobody''.', true) $$,
        'a bad phone: its value stands in the detail');
SELECT is(code, 'WA001', 'no phone')
    FROM pg_temp.code('INSERT INTO wa_outbound_queue (template_name) VALUES (''hello'')');
UPDATE wa_organizations SET on_refusal = 'raise';
SELECT is(code, 'WA002', 'an unknown template') FROM pg_temp.code('SELECT world.queue(1, ''nothing'')');
SELECT is(code, 'WA003', 'too few values') FROM pg_temp.code('SELECT world.queue(1, ''order'', ''["a"]'')');
SELECT is(code, 'WA004', 'too many')
    FROM pg_temp.code('SELECT world.queue(1, ''order'', ''["a", "b", "c"]'')');
SELECT is(code, 'WA005', 'names where none are declared')
    FROM pg_temp.code('SELECT world.queue(1, ''order'', ''{"a": "b", "c": "d"}'')');
SELECT is(code, 'WA006', 'a line break in a value')
    FROM pg_temp.code($$ SELECT world.queue(1, 'order', '["a\nb", "c"]') $$);
UPDATE wa_organizations SET on_refusal = 'record';
SELECT is(code, 'WA007', 'a text over 4096 characters')
    FROM pg_temp.code($$ SELECT world.say(1, repeat('x', 4097)) $$);
SELECT is(code, 'fine', 'but not at 4096') FROM pg_temp.code($$ SELECT world.say(1, repeat('x', 4096)) $$);
SELECT is(code, 'fine', 'counted in characters, not bytes')
    FROM pg_temp.code($$ SELECT world.say(1, repeat('é', 4096)) $$);
SELECT is(code, 'WA008', 'an empty text') FROM pg_temp.code($$ SELECT world.say(1, E' \n') $$);
SELECT is(code, 'WA009', 'no content at all')
    FROM pg_temp.code('INSERT INTO wa_outbound_queue (phone) VALUES (world.customer(1))');
SELECT is(pg_temp.content('telegram', '{}'), 'WA009', 'an unknown type');
SELECT is(code, 'WA010', 'an unknown business number')
    FROM pg_temp.code('SELECT world.queue(1, p_number => ''999'')');
SELECT is(code, '23514', 'an unknown priority')
    FROM pg_temp.code('SELECT world.queue(1, p_priority => ''urgent'')');
SELECT results_eq($$ SELECT code, message, detail
    FROM pg_temp.code('INSERT INTO wa_outbound_queue (phone, template_name)
    SELECT CASE WHEN n % 2 = 0 THEN ''bad'' || n ELSE world.customer(n) END, ''hello''
        FROM generate_series(1, 50) n') $$,
    $$ SELECT 'WA001', '25 of 50 messages refused; the first: not a phone number or business-scoped user id',
        string_agg(quote_literal('bad' || 2 * n) || ': not a phone number or business-scoped user id', E'\n' ORDER BY n)
            FROM generate_series(1, 10) n $$,
    'a bulk statement names the count and the first ten');

-- every other type
SELECT is(pg_temp.content('image', '{"id": "1", "caption": "c"}'), 'fine', 'an image by id');
SELECT is(pg_temp.content('image', '{"link": "https://x.example/a.jpg"}'), 'fine', 'by link');
SELECT is(pg_temp.content('document', '{"id": "1", "filename": "a.pdf"}'), 'fine', 'a document');
SELECT is(pg_temp.content('audio', '{"id": "1"}'), 'fine', 'audio');
SELECT is(pg_temp.content('video', '{"link": "https://x.example/a.mp4"}'), 'fine', 'video');
SELECT is(pg_temp.content('sticker', '{"id": "1"}'), 'fine', 'a sticker');
SELECT is(pg_temp.content('location', '{"latitude": 1.5, "longitude": -58}'), 'fine', 'a location');
SELECT is(pg_temp.content('contacts', '[{"name": {"formatted_name": "Eva M", "first_name": "Eva"}}]'), 'fine',
    'contacts');
SELECT is(pg_temp.content('reaction', '{"message_id": "wamid.x", "emoji": "😀"}'), 'fine', 'a reaction');
SELECT is(pg_temp.content('interactive', '{"type": "button", "body": {"text": "?"},
    "action": {"buttons": [{"type": "reply", "reply": {"id": "y", "title": "Yes"}}]}}'), 'fine', 'buttons');
SELECT is(pg_temp.content('interactive', '{"type": "list", "body": {"text": "?"},
    "action": {"button": "Choose",
    "sections": [{"rows": [{"id": "1", "title": "One"}]}]}}'), 'fine', 'a list');
SELECT is(pg_temp.content('interactive',
    '{"type": "cta_url", "body": {"text": "?"}, "action": {"name": "cta_url",
    "parameters": {"display_text": "Open", "url": "https://x.example"}}}'), 'fine', 'a link');
SELECT is(pg_temp.content('interactive', '{"type": "location_request_message", "body": {"text": "?"},
    "action": {"name": "send_location"}}'), 'fine', 'a location request');
SELECT is(pg_temp.content('interactive',
    '{"type": "product", "action": {"catalog_id": "1", "product_retailer_id": "s"}}'), 'fine', 'a product');
SELECT is(pg_temp.content('text', '{"body": "see https://x.example", "preview_url": true}'), 'fine',
    'a text given as content');
SELECT is(pg_temp.content('image', '{"caption": "no image"}'), 'WA008', 'an image without an image');
SELECT is(pg_temp.content('image', NULL), 'WA008', 'nothing');
SELECT is(pg_temp.content('reaction', '{"emoji": "😀"}'), 'WA008', 'a reaction to nothing');
SELECT isnt(pg_temp.content('interactive',
    '{"type": "button", "body": {"text": "?"}, "action": {"buttons": []}}'), 'fine', 'no buttons');
SELECT isnt(pg_temp.content('interactive', jsonb_build_object('type', 'button', 'body',
    jsonb_build_object('text', repeat('x', 1025)),
    'action', '{"buttons": [{"type": "reply", "reply": {"id": "y", "title": "Yes"}}]}'::jsonb)), 'fine',
    'too long a body');

-- refusals
UPDATE wa_organizations SET on_refusal = 'raise';
SELECT results_eq($$ SELECT code, message, detail, hint <> '' FROM pg_temp.code('SELECT world.say(50)') $$,
    $$ VALUES ('WA101', 'more than 24 hours since the customer''s last message: only templates may be sent',
    'Recipient: ''+5491140000050''.',
    true) $$,
    'free-form outside the window');
SELECT is(code, 'WA103', 'a template that is not approved')
    FROM pg_temp.code('SELECT world.queue(1, ''draft'')');
SELECT opt_out_wa_contact(world.customer(51));
SELECT is(code, 'WA102', 'marketing to who opted out of it')
    FROM pg_temp.code('SELECT world.queue(51, ''sale'')');
SELECT is(code, 'fine', 'other templates may go') FROM pg_temp.code('SELECT world.queue(51)');
SELECT opt_out_wa_contact(world.customer(51), 'all');
SELECT is(code, 'WA102', 'unless it was of everything') FROM pg_temp.code('SELECT world.queue(51)');
SELECT is(code, 'fine', 'free-form for later may be queued: the window may be open then') FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, text_body, scheduled_at) VALUES (world.customer(50), ''later'',
    now() + interval ''1 hour'')');
SELECT is(code, 'fine', 'so may one that has a template to fall back on') FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, text_body, fallback_template_name) VALUES (world.customer(50),
    ''fall'', ''hello'')');
SELECT is(code, 'WA002', 'which must exist') FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, text_body, fallback_template_name) VALUES (world.customer(50),
    ''fall'', ''nothing'')');
SELECT matches(message, '^2 of 3 messages refused', 'a refused bulk statement counts') FROM pg_temp.code($$
    INSERT INTO wa_outbound_queue (phone, text_body) VALUES (world.customer(1), 'a'),
        (world.customer(52), 'b'), (world.customer(53), 'c') $$);
INSERT INTO wa_outbound_queue (phone, text_body, on_refusal) VALUES (world.customer(54), 'x', 'record');
SELECT is(world.outcome(id), 'failed window_closed', 'or it is recorded where the row says so')
    FROM wa_outbound_queue WHERE phone = world.customer(54);
SELECT matches(last_error, '24 hours', 'with the reason') FROM wa_outbound_queue
    WHERE phone = world.customer(54);
SELECT is((SELECT count(*) FROM wa_messages WHERE phone_e164 = world.customer(54) AND status = 'failed'),
    1::bigint, 'in the ledger too');
UPDATE wa_organizations SET on_refusal = 'record';
INSERT INTO wa_outbound_queue (phone, template_name) VALUES (world.customer(55), 'draft'),
    (world.customer(56), 'hello');
SELECT results_eq($$ SELECT world.outcome(id) FROM wa_outbound_queue WHERE phone IN (world.customer(55),
    world.customer(56)) ORDER BY phone $$,
    $$ VALUES ('failed template_unavailable'), ('pending') $$, 'or the organization; the others are queued');
SELECT is(code, 'WA101', 'a row may still ask for an error') FROM pg_temp.code(
    'INSERT INTO wa_outbound_queue (phone, text_body, on_refusal) VALUES (world.customer(57), ''x'',
    ''raise'')');
UPDATE wa_organizations SET on_refusal = 'raise';

-- one statement, every kind of row
SELECT world.wrote(58);
INSERT INTO wa_outbound_queue (phone, text_body, template_name, on_refusal, reference) VALUES
    (world.customer(58), 'Hello', NULL, NULL, 'mixed 1 known'),
    (world.customer(902), NULL, 'hello', NULL, 'mixed 2 new'),
    (world.customer(902), NULL, 'hello', NULL, 'mixed 3 new again'),
    ('US.13491208655309', NULL, 'hello', NULL, 'mixed 4 new by user id'),
    (world.customer(51), NULL, 'hello', 'record', 'mixed 5 opted out');
SELECT results_eq($$ SELECT q.reference, q.status, q.error_code, d.contact_id IS NOT NULL
    FROM wa_outbound_queue q LEFT JOIN wa_queue_due d ON d.queue_id = q.id
    WHERE q.reference LIKE 'mixed %' ORDER BY q.reference $$,
    $$ VALUES ('mixed 1 known', 'pending', NULL, true), ('mixed 2 new', 'pending', NULL, true),
        ('mixed 3 new again', 'pending', NULL, true), ('mixed 4 new by user id', 'pending', NULL, true),
        ('mixed 5 opted out', 'failed', 'opted_out', false) $$,
    'known, new and refused recipients in one statement');
SELECT results_eq($$ SELECT code, message, detail FROM pg_temp.code(
        'INSERT INTO wa_outbound_queue (phone, text_body, template_name) VALUES
        (world.customer(58), ''x'', NULL), (world.customer(903), NULL, ''hello''), (world.customer(904), '' '', NULL)') $$,
    format($$ VALUES ('WA008', '1 of 3 messages refused; the first: text_body is empty', %L) $$,
        quote_literal(world.customer(904)) || ': text_body is empty'),
    'one that is malformed refuses them all');

-- no number yet
DELETE FROM wa_outbound_queue WHERE status = 'pending';
SELECT world.accept_all();
UPDATE wa_organizations SET default_number_id = NULL;
SELECT world.queue(60);
SELECT is(world.reason(id), 'no_number', 'without a business number a row waits') FROM wa_outbound_queue
    WHERE reference = '60';
SELECT is((SELECT due::integer FROM wa_queue_health WHERE phone_number_id IS NULL), 1,
    'and is shown in wa_queue_health');
SELECT register_wa_phone_number('105', '+1 555 123 0105', '200');
SELECT is((SELECT number FROM world.claim()), '105', 'until there is one');
SELECT world.accept_all();
SELECT world.wrote(61, p_number => '100'), world.say(61);
SELECT is((SELECT number FROM world.claim()), '100',
    'a reply goes out from the number that the customer wrote to');
SELECT world.accept_all();
SELECT world.queue(61, p_number => '105');
SELECT is((SELECT number FROM world.claim()), '105', 'unless the row names another');

-- plain updates
SELECT world.later('1 minute');
SELECT world.queue(70), world.queue(71), world.queue(72);
SET LOCAL ROLE wa_queue_app;
UPDATE wa_outbound_queue SET scheduled_at = now() + interval '1 day' WHERE reference = '70';
UPDATE wa_outbound_queue SET priority = 'high' WHERE reference = '71';
UPDATE wa_outbound_queue SET status = 'cancelled' WHERE reference = '72';
RESET ROLE;
SELECT is((SELECT string_agg(q.reference, ',') FROM world.claim() JOIN wa_outbound_queue q
    ON q.id = queue_id), '71', 'a pending row may be moved, hurried, cancelled');
SELECT is(world.outcome(id), 'cancelled', 'a cancelled row says so') FROM wa_outbound_queue
    WHERE reference = '72';
UPDATE wa_outbound_queue SET scheduled_at = clock_timestamp() WHERE reference = '70';
SELECT is((SELECT string_agg(q.reference, ',') FROM world.claim() JOIN wa_outbound_queue q
    ON q.id = queue_id), '70', 'and moved back');
SELECT is(code, 'WA201', 'a row that is being sent may not be moved')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET scheduled_at = now() WHERE reference = ''70''');
SELECT is(code, 'WA201', 'nor cancelled')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET status = ''cancelled'' WHERE reference = ''70''');
SELECT is(code, 'fine', 'its metadata are the application''s')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET metadata = ''{"a": 1}'' WHERE reference = ''70''');
SELECT is(code, 'WA201', 'a row that ended neither')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET priority = ''low'' WHERE reference = ''72''');
SELECT world.queue(73);
SELECT is(code, 'WA202', 'what a message says may not be changed')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET template_name = ''sale'' WHERE reference = ''73''');
SELECT is(code, 'WA202', 'nor to whom it goes')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET phone = world.customer(1) WHERE reference = ''73''');
SELECT is(code, 'WA202', 'nor may it be declared sent')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET status = ''sent'' WHERE reference = ''73''');
SELECT is(code, 'fine', 'writing the same value is no change')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET phone = phone, status = status WHERE reference = ''70''');
SELECT world.wrote(74);
INSERT INTO wa_outbound_queue (phone, text_body, scheduled_at, expires_at, reference)
VALUES (world.customer(74), 'x', now() + interval '30 hours', 'infinity', '74');
UPDATE wa_conversation_windows SET last_customer_message_at = now() - interval '2 days'
    WHERE contact_id = world.contact(world.customer(74));
SELECT is(code, 'WA101', 'a moved row is checked again')
    FROM pg_temp.code('UPDATE wa_outbound_queue SET scheduled_at = now() WHERE reference = ''74''');
SELECT is(code, '42501', 'an application may not write what sending writes') FROM pg_temp.code(
    'SET LOCAL ROLE wa_queue_app;
    UPDATE wa_outbound_queue SET wa_message_id = ''x'' WHERE reference = ''74''');

-- deleting
SELECT is(code, 'WA201', 'a row that is being sent cannot be deleted')
    FROM pg_temp.code('DELETE FROM wa_outbound_queue WHERE reference = ''70''');
DELETE FROM wa_outbound_queue WHERE reference IN ('73', '74');
SELECT is(world.claimed(), 0, 'a deleted row is not sent');
SELECT is((SELECT count(*) FROM wa_queue_due d WHERE NOT EXISTS (SELECT FROM wa_outbound_queue q
    WHERE q.id = d.queue_id)),
    0::bigint, 'and leaves nothing behind');

-- times that nobody means
SELECT is((pg_temp.code(format($$ INSERT INTO wa_outbound_queue (phone, template_name, %s)
    VALUES (world.customer(1), 'hello', %s) $$, t.columns, t.given))).code, t.code, t.columns || ' ' || t.given)
FROM (VALUES
    ('scheduled_at', '''infinity''', 'WA011'), ('scheduled_at', '''-infinity''', 'WA011'),
    ('created_at', '''-infinity''', 'WA011'), ('created_at', '''infinity''', 'WA011'),
    ('expires_at', 'now() - interval ''1 hour''', 'WA011'), ('expires_at', '''-infinity''', 'WA011'),
    ('scheduled_at, expires_at', 'now() + interval ''2 hours'', now() + interval ''1 hour''', 'WA011'),
    ('expires_at', '''infinity''', 'fine'), ('scheduled_at', 'now() - interval ''1 year''', 'fine')
) t (columns, given, code);
SELECT is((pg_temp.code($$ UPDATE wa_outbound_queue SET scheduled_at = 'infinity'
    WHERE status = 'pending' $$)).code, 'WA011', 'nor by a change');
SELECT is((pg_temp.code($$ UPDATE wa_organizations SET order_wait = '-1 second' $$)).code, '23514',
    'no wait is negative');
SELECT is((pg_temp.code($$ UPDATE wa_portfolios SET tier_limit = -2147483648 $$)).code, '23514',
    'nor a limit');

SELECT * FROM finish();
ROLLBACK;
