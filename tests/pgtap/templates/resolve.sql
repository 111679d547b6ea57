-- Tests sql/templates/resolve.sql.
-- Default templates, values from a context, preview, languages.
BEGIN;
SELECT plan(37);

-- defaults
INSERT INTO wa_templates (name, category, language, body_text) VALUES ('Welcome', 'MARKETING', 'es', 'Hola');
SELECT results_eq(
    $$ SELECT name, language, is_new FROM install_wa_default_templates() ORDER BY name $$,
    $$ VALUES ('appointment_reminder', 'en', true), ('check_in_instructions', 'en', true),
        ('event_reminder_24h', 'en', true),
        ('event_update', 'en', true), ('invoice_ready', 'en', true), ('job_scheduled', 'en', true),
        ('order_confirmed', 'en', true), ('payment_confirmed', 'en', true), ('payment_link', 'en', true),
        ('payment_reminder', 'en', true), ('satisfaction_question', 'en', true), ('welcome', 'en', false) $$,
    'default templates are installed, but not over one of yours'
);
SELECT is(body_text, 'Hola', 'which is as it was') FROM wa_templates WHERE lower(name) = 'welcome';
SELECT lives_ok($$ INSERT INTO wa_templates (name, category, language, body_text) VALUES ('ORDER_CONFIRMATION',
    'UTILITY', 'en', 'Hi {{1}}, your order {{2}} has been confirmed. Order details: {{3}}') $$,
    'the name of a template that a document inserts is left free');
UPDATE wa_templates SET body_text = 'Mine now, {{1}} and {{2}} as well.' WHERE name = 'event_update';
SELECT is(count(*), 0::bigint, 'repeating it adds nothing') FROM install_wa_default_templates() WHERE is_new;
SELECT is(count(*), 1::bigint, 'and changes nothing') FROM wa_templates WHERE body_text LIKE 'Mine now%';
SELECT results_eq(
    $$ SELECT name, ARRAY(SELECT p ->> 'name' FROM jsonb_array_elements(parameters) p) FROM wa_templates
        WHERE name LIKE '%event%' OR name = 'check_in_instructions' ORDER BY name $$,
    $$ VALUES ('check_in_instructions', '{event_name,qr_code_url}'::text[]),
        ('event_reminder_24h', '{attendee_name,event_name,event_time}'::text[]),
        ('event_update', '{event_name,update_message}'::text[]) $$,
    'those for events take the documented variables'
);
SELECT is_empty($$ SELECT t.name, l.* FROM wa_templates t CROSS JOIN lint_wa_template(t.id) l
    WHERE t.created_by = 'pg_whatsapp' AND l.rule <> 'example_url' AND t.name <> 'event_update' $$,
    'the review has nothing against them, but for the address that is yours to give');
SELECT ok(bool_and(preview_wa_template(t.name) !~ '\{\{'), 'all can be previewed with their examples')
FROM wa_templates t WHERE t.created_by = 'pg_whatsapp' AND t.name <> 'event_update';

-- resolving
SELECT is(resolve_wa_template_params('event_reminder_24h',
    '{"attendee": {"name": "Ann"}, "event": {"name": "Fair", "time": 19, "place": "Hall"}}'),
    '["Ann", "Fair", 19]', 'values are found by the declared mapping');
SELECT is(resolve_wa_template_params('EVENT_reminder_24h',
    '{"attendee.name": "Ann", "event": {"name": "Fair", "time": "19:00"}}'), '["Ann", "Fair", "19:00"]',
    'a key may be spelled with its dots');
SELECT throws_ok($$ SELECT resolve_wa_template_params('event_reminder_24h',
    '{"attendee": {"name": null}, "event": {"name": "Fair"}}') $$, 'WA021',
    'template "event_reminder_24h" (en): the context has no value for attendee_name, event_time',
    'what is missing or null is named');
SELECT throws_ok($$ SELECT resolve_wa_template_params('event_reminder_24h', '[]') $$, 'WA021',
    'template "event_reminder_24h" (en): the context is not a JSON object', 'a context is an object');
SELECT throws_ok($$ SELECT resolve_wa_template_params('event_reminder_24h',
    '{"attendee": {"name": "Ann\nBen"}, "event": {"name": "Fair", "time": 19}}') $$, 'WA006', NULL,
    'what Meta would not take is refused as in the queue');
SELECT throws_ok($$ SELECT resolve_wa_template_params('event_reminder_24h',
    '{"attendee": {"name": {"first": "Ann"}}, "event": {"name": "Fair", "time": 19}}') $$, 'WA008', NULL,
    'an object is no text');
SELECT throws_ok($$ SELECT resolve_wa_template_params('nothing', '{}') $$, 'WA002', NULL,
    'an unknown template is told');
SELECT is(resolve_wa_template_params('invoice_ready', '{"customer": {"name": "Ann"}, "invoice": {
    "number": "A-1", "amount": "$9", "due_date": "May 1", "path": "a-1"}}'),
    '{"body": ["Ann", "A-1", "$9", "May 1"], "buttons": {"0": "a-1"}}',
    'the value of a button goes to the button');
INSERT INTO wa_templates (name, category, status, body_text, header_text, variable_mapping) VALUES
('named', 'UTILITY', 'APPROVED', 'Hi {{first_name}}, {{city}} is fine, {{first_name}}.',
    'For {{first_name}}', '{"city": "places.1.name"}'),
('numbered', 'UTILITY', 'APPROVED', 'Hi {{1}}, order {{2}} is fine.', NULL, '{"1": "customer.name"}');
SELECT is(resolve_wa_template_params('named',
    '{"first_name": "Ann", "places": [{"name": "Bonn"}, {"name": "Köln"}]}'),
    '{"header": ["Ann"], "body": ["Ann", "Köln"]}',
    'names without a mapping are looked for as they are; a path may go into an array');
SELECT is(resolve_wa_template_params('numbered', '{"customer": {"name": "Ann"}, "2": "A-1"}'),
    '["Ann", "A-1"]', 'placeholders without names go by number');
INSERT INTO wa_templates (name, category, body_text, header_format, parameters) VALUES
('picture', 'UTILITY', 'Look, {{1}}, here it is.', 'IMAGE', '["who", "photo"]');
SELECT is(resolve_wa_template_params('picture', '{"who": "Ann", "photo": "https://a.de/p.jpg"}'),
    '{"header": ["https://a.de/p.jpg"], "body": ["Ann"]}', 'a picture is a value, too');

-- the queue takes what resolving gives, and names for the whole template
SELECT register_wa_phone_number('100', '+1 555 123 4567', '200');
UPDATE wa_templates SET status = 'APPROVED' WHERE created_by = 'pg_whatsapp';
CREATE FUNCTION pg_temp.components(p_template text, p_params jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid;
BEGIN
    INSERT INTO wa_outbound_queue (phone, template_name, template_params)
    VALUES ('+16505550101', p_template, p_params) RETURNING id INTO v_id;
    RETURN (
        SELECT string_agg((c ->> 'type') || '=' || (
            SELECT string_agg(coalesce(p ->> 'text', p #>> '{image,link}'), ',')
            FROM jsonb_array_elements(c -> 'parameters') p
        ), ' ')
        FROM jsonb_array_elements(preview_wa_request(v_id) #> '{template,components}') c
    );
END
$$;
SELECT is(pg_temp.components('invoice_ready', resolve_wa_template_params('invoice_ready',
    '{"customer": {"name": "Ann"}, "invoice": {"number": "A-1", "amount": "$9", "due_date": "May 1",
        "path": "a-1"}}')), 'body=Ann,A-1,$9,May 1 button=a-1', 'what was resolved is sent');
SELECT is(pg_temp.components('payment_reminder', '{"customer_name": "Ann", "booking_id": "B", "amount": "$9",
    "payment_url": "https://a.de/b", "payment_path": "b"}'), 'body=Ann,B,$9,https://a.de/b button=b',
    'declared names reach the button');
SELECT is(pg_temp.components('payment_reminder', '["Ann", "B", "$9", "https://a.de/b", "b"]'),
    'body=Ann,B,$9,https://a.de/b button=b', 'so does an array that runs on');
SELECT is(pg_temp.components('named', '{"first_name": "Ann", "city": "Bonn"}'), 'header=Ann body=Ann,Bonn',
    'one name serves header and body');
SELECT is(pg_temp.components('named', '["Ann", "Bonn", "Eve"]'), 'header=Eve body=Ann,Bonn',
    'in an array the header comes after the body');
SELECT throws_ok($$ SELECT pg_temp.components('payment_reminder', '["Ann", "B", "$9", "u", "b", "c"]') $$,
    'WA004', NULL, 'too many values are refused');
SELECT throws_ok($$ SELECT pg_temp.components('payment_reminder', '{"customer_name": "Ann", "booking_id": "B",
    "amount": "$9", "payment_url": "u"}') $$, 'WA003', NULL, 'a name less, too');

-- preview
SELECT is(preview_wa_template('payment_reminder', '["Ann {{2}}", "B", "$9", "https://a.de/b", "b\\1"]'),
    E'Payment reminder\n\nHello Ann {{2}}, for your booking B a payment of $9 is still open. '
    'You can pay at https://a.de/b or with the button below.\n\n[Pay now] https://example.com/pay/b\\1',
    'a preview shows header, body and button; values are not looked at again');
SELECT matches(preview_wa_template('payment_reminder'), 'Hello Ann, for your booking B-77',
    'without values it shows the examples');
SELECT is(preview_wa_template('named', '{"first_name": "Ann", "city": "Bonn"}'),
    E'For Ann\n\nHi Ann, Bonn is fine, Ann.', 'named ones by name');
SELECT throws_ok($$ SELECT preview_wa_template('named', '{"first_name": "Ann"}') $$, 'WA003', NULL,
    'a missing value is told');
INSERT INTO wa_templates (name, category, body_text, buttons, footer_text) VALUES
('code', 'AUTHENTICATION', '', '[]', NULL),
('call', 'UTILITY', 'Ring us.', '[{"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100"},
    {"type": "QUICK_REPLY", "text": "No"}]', 'Bye');
SELECT is(preview_wa_template('code', '["123456"]'), '123456',
    'of an authentication template the code is sure');
SELECT is(preview_wa_template('call'), E'Ring us.\n\nBye\n\n[Call] +15550100\n[No]', 'footer and buttons');

-- languages
INSERT INTO wa_templates (name, category, status, language, body_text) VALUES
('hi', 'UTILITY', 'APPROVED', 'en', 'en'), ('hi', 'UTILITY', 'APPROVED', 'es_AR', 'es_AR'),
('hi', 'UTILITY', 'APPROVED', 'es', 'es'), ('hi', 'UTILITY', 'APPROVED', 'pt_BR', 'pt_BR');
SELECT results_eq(
    $$ SELECT l, preview_wa_template('hi', NULL, l) FROM unnest(ARRAY['es_AR', 'es_MX', 'pt', 'EN-us']) l $$,
    $$ VALUES ('es_AR', 'es_AR'), ('es_MX', 'es'), ('pt', 'pt_BR'), ('EN-us', 'en') $$,
    'the exact language, else the one without a region, or of any where none was asked for');
SELECT throws_ok($$ SELECT preview_wa_template('hi', NULL, 'fr') $$, 'WA002',
    'template "hi" is not known in language "fr"', 'a foreign one is not taken unless you say which');
UPDATE wa_organizations SET default_language = 'pt_BR';
SELECT is(preview_wa_template('hi', NULL, 'fr'), 'pt_BR', 'the default language of the organization is');
SELECT is(preview_wa_template('hi'), 'pt_BR', 'also where none is asked for');
SELECT throws_ok($$ UPDATE wa_organizations SET default_language = 'Portuguese' $$, '23514', NULL,
    'it has the form of Meta''s languages');
SELECT * FROM finish();
ROLLBACK;
