-- Tests sql/templates/params.sql, sql/templates/build.sql, sql/templates/buttons.sql.
-- Templates of every kind are in tests/integration/test_template_values.py.
BEGIN;
SELECT plan(70);

INSERT INTO wa_templates (name, category, language, body_text, status, parameters) VALUES
('order', 'UTILITY', 'en', 'Hi {{1}}, order {{2}}: {{3}}', 'APPROVED',
    '[{"name": "customer_name", "type": "text"}, {"name": "order_id"}, "details"]'),
('undeclared', 'UTILITY', 'en', 'Hi {{1}}', 'APPROVED', '[]'),
('plain', 'UTILITY', 'en', 'Hello', 'APPROVED', '[]');
INSERT INTO wa_templates (name, category, language, body_text, status, components) VALUES
('named', 'UTILITY', 'en', '', 'APPROVED',
    '[{"type": "HEADER", "format": "TEXT", "text": "For {{first_name}}"},
    {"type": "BODY", "text": "Hi {{first_name}}, order {{order_id}}"}]'),
('header', 'UTILITY', 'en', '', 'APPROVED',
    '[{"type": "HEADER", "format": "TEXT", "text": "No. {{1}}"}, {"type": "BODY", "text": "Hi {{1}}"}]'),
('image', 'MARKETING', 'en', '', 'APPROVED',
    '[{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Hi {{1}}"}]'),
('document', 'UTILITY', 'en', '', 'APPROVED',
    '[{"type": "HEADER", "format": "DOCUMENT"}, {"type": "BODY", "text": "Your invoice"}]'),
('place', 'UTILITY', 'en', '', 'APPROVED',
    '[{"type": "HEADER", "format": "LOCATION"}, {"type": "BODY", "text": "Come"}]'),
('buttons', 'MARKETING', 'en', '', 'APPROVED',
    '[{"type": "BODY", "text": "Hi {{1}}"}, {"type": "BUTTONS", "buttons": [
    {"type": "QUICK_REPLY", "text": "Stop"}, {"type": "URL", "url": "https://example.com/{{1}}"},
    {"type": "COPY_CODE"}, {"type": "PHONE_NUMBER", "phone_number": "+15551234567"}, {"type": "FLOW"},
    {"type": "CATALOG"}]}]'),
('synced_code', 'AUTHENTICATION', 'en', '', 'APPROVED', '[{"type": "BODY", "text": "*{{1}}* is your code."},
    {"type": "BUTTONS",
    "buttons": [{"type": "URL", "text": "Copy",
        "url": "https://www.whatsapp.com/otp/code/?code=otp{{1}}"}]}]'),
('code', 'AUTHENTICATION', 'en', 'Your code is {{1}}', 'APPROVED', '[]'),
('carousel', 'MARKETING', 'en', '', 'APPROVED',
    '[{"type": "BODY", "text": "Hi {{1}}"}, {"type": "CAROUSEL", "cards": [{"components": [
        {"type": "HEADER", "format": "IMAGE"}]}]}]');

CREATE FUNCTION pg_temp.components(p_name text, p_params jsonb) RETURNS jsonb LANGUAGE sql AS
$$ SELECT _wa_template_components(t, p_params) FROM wa_templates t WHERE name = p_name $$;
CREATE FUNCTION pg_temp.code(p_name text, p_params jsonb) RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(sqlstate, 'fine')
    FROM _wa_check_template_params(current_wa_organization(), p_name, NULL, NULL, p_params) $$;
CREATE FUNCTION pg_temp.problem(p_name text, p_params jsonb) RETURNS text LANGUAGE sql AS
$$ SELECT problem FROM _wa_check_template_params(current_wa_organization(), p_name, NULL, NULL, p_params) $$;
CREATE FUNCTION pg_temp.body(VARIADIC p_texts text[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('type', 'body', 'parameters',
        jsonb_agg(jsonb_build_object('type', 'text', 'text', v)))
    FROM unnest(p_texts) v
$$;

-- body: by place and by name
SELECT is(pg_temp.components('order', '["Ana", 42, 3.50]'),
    jsonb_build_array(pg_temp.body('Ana', '42', '3.50')),
    'an array gives the values in order; numbers keep their digits');
SELECT is(pg_temp.components('order', '{"order_id": 42, "details": "x", "customer_name": "Ana"}'),
    jsonb_build_array(pg_temp.body('Ana', '42', 'x')), 'an object is bound by the declared names');
SELECT is(pg_temp.components('order', '{"body": ["Ana", 42, "x"]}'),
    jsonb_build_array(pg_temp.body('Ana', '42', 'x')),
    'the component form takes an array');
SELECT is(pg_temp.components('order', '{"body": {"order_id": 42, "details": "x", "customer_name": "Ana"}}'),
    jsonb_build_array(pg_temp.body('Ana', '42', 'x')), 'or an object');
SELECT is(pg_temp.components('plain', NULL), '[]', 'a template without placeholders needs nothing');
SELECT is(pg_temp.components('plain', '[]'), '[]', 'an empty array is nothing');
SELECT is(pg_temp.components('plain', '{}'), '[]', 'so is an empty object');
SELECT is(pg_temp.components('plain', 'null'), '[]', 'and a JSON null');
SELECT is(pg_temp.components('order', '["a"]'), NULL, 'values that do not fit make no request');

SELECT is(pg_temp.code('order', '["a", "b", "c"]'), 'fine', 'three values for three placeholders are fine');
SELECT is(pg_temp.code('order', '["a", "b"]'), 'WA003', 'too few');
SELECT is(pg_temp.problem('order', '["a", "b"]'), 'template "order" (en): the body takes 3 values, 2 given',
    'says how many');
SELECT is(pg_temp.code('order', NULL), 'WA003', 'none at all');
SELECT is(pg_temp.code('order', '["a", "b", "c", "d"]'), 'WA004', 'too many');
SELECT is(pg_temp.code('plain', '["a"]'), 'WA004', 'any is too many where none is taken');
SELECT is(pg_temp.code('undeclared', '{"name": "Ana"}'), 'WA005', 'names that were never declared');
SELECT is(pg_temp.code('order', '{"customer_name": "a", "order_id": 1, "details": "x", "colour": "red"}'),
    'WA005',
    'a name too many');
SELECT is(pg_temp.code('order', '{"customer_name": "a", "order_id": 1}'), 'WA003', 'a name missing');
SELECT matches(pg_temp.problem('order', '{"customer_name": "a", "order_id": 1}'), 'missing: details$',
    'is named');
SELECT is(pg_temp.code('order', '"Ana"'), 'WA005', 'a bare string is neither array nor object');
SELECT is(pg_temp.code('order', '["a", "b", null]'), 'WA003', 'null is no value');
SELECT is(pg_temp.code('order', '["a", "b", ["c"]]'), 'WA008', 'an array is no value');
SELECT is(pg_temp.code('order', '["a", "b", ""]'), 'WA008', 'an empty string is refused');
SELECT is(pg_temp.code('order', '["a", "b", "c\nd"]'), 'WA006', 'a line break is forbidden white space');
SELECT is(pg_temp.code('order', '["a", "b", "c\td"]'), 'WA006', 'so is a tab');
SELECT is(pg_temp.code('order', '["a", "b", "c     d"]'), 'WA006', 'and five spaces');
SELECT is(pg_temp.code('order', '["a", "b", "c    d"]'), 'fine', 'four are allowed');
SELECT is(pg_temp.code('order', jsonb_build_array('a', 'b', repeat('x', 1025))), 'WA007',
    'over 1024 characters');
SELECT is(pg_temp.code('order', jsonb_build_array('a', 'b', repeat('ü', 1024))), 'fine',
    'characters count, not bytes');
SELECT is(pg_temp.code('order', '["a", "b", "c \"quoted\" \\ {brace} 日本"]'), 'fine',
    'other characters are fine');
SELECT is(pg_temp.code('order', '[true, -1.5e3, "c"]'), 'fine', 'booleans and numbers are fine');
SELECT unalike(pg_temp.problem('order', '["secret-value\n", "b", "c"]'), '%secret-value%',
    'a message never repeats a value');
SELECT is(pg_temp.code('nothing', '[]'), 'WA002', 'an unknown template');
SELECT is(
    (SELECT hint FROM _wa_check_template_params(current_wa_organization(), 'order', 'de', NULL, NULL)),
    'It exists in: en. Ask for one of these, or choose one for all with wa_organizations.default_language.',
    'a template is not sent in another language'
);

-- parameter objects
SELECT is(
    pg_temp.components('undeclared',
        '[{"type": "currency", "currency": {"fallback_value": "$1", "code": "USD", "amount_1000": 1000}}]')
    #>> '{0,parameters,0,currency,code}', 'USD', 'a parameter object of the API goes through as it is'
);
SELECT is(pg_temp.code('undeclared', '[{"type": "currency", "currency": {}}]'), 'WA008',
    'an incomplete one does not');
SELECT is(pg_temp.code('undeclared', '[{"type": "image", "image": {"id": "1"}}]'), 'WA008',
    'a body takes no files');
SELECT is(pg_temp.code('undeclared', '[{"type": "text", "text": "a\nb"}]'), 'WA006',
    'text in an object is checked too');

-- named placeholders
SELECT is(pg_temp.components('named', '{"first_name": "Ana", "order_id": 7}'),
    '[{"type": "header", "parameters": [{"type": "text", "text": "Ana", "parameter_name": "first_name"}]},
      {"type": "body", "parameters": [{"type": "text", "text": "Ana", "parameter_name": "first_name"},
        {"type": "text", "text": "7", "parameter_name": "order_id"}]}]'::jsonb,
    'named placeholders carry their names; one object serves header and body');
SELECT is(pg_temp.components('named', '{"header": ["Ana"], "body": ["Ana", 7]}'),
    pg_temp.components('named', '{"first_name": "Ana", "order_id": 7}'), 'values in order get their names');
SELECT is(pg_temp.code('named', '{"first_name": "Ana"}'), 'WA003', 'a missing name');
SELECT is(pg_temp.code('named', '{"first_name": "Ana", "order_id": 7, "x": 1}'), 'WA005', 'an unknown name');

-- headers
SELECT is(pg_temp.components('header', '{"header": 7, "body": ["Ana"]}'),
    jsonb_build_array('{"type": "header", "parameters": [{"type": "text", "text": "7"}]}'::jsonb,
        pg_temp.body('Ana')),
    'a text header takes its value');
SELECT is(pg_temp.code('header', '["Ana"]'), 'WA003', 'and is missed when it is not given');
SELECT is(pg_temp.code('order', '{"header": "x", "body": ["a", "b", "c"]}'), 'WA004',
    'a header that takes none');
SELECT is(pg_temp.components('image',
    '{"header": {"link": "https://example.com/a.jpg"}, "body": ["Ana"]}') -> 0,
    '{"type": "header",
      "parameters": [{"type": "image", "image": {"link": "https://example.com/a.jpg"}}]}'::jsonb,
    'a media header takes a link');
SELECT is(pg_temp.components('image', '{"header": "https://example.com/a.jpg", "body": ["Ana"]}'),
    pg_temp.components('image',
        '{"header": {"type": "image", "image": {"link": "https://example.com/a.jpg"}}, "body": ["Ana"]}'),
    'given short or as the API has it');
SELECT is(pg_temp.components('document', '{"header": {"id": "55", "filename": "invoice.pdf"}}')
    #>> '{0,parameters,0,document,filename}', 'invoice.pdf', 'a document keeps its file name');
SELECT is(pg_temp.components('document', '{"header": "55"}') #>> '{0,parameters,0,document,id}', '55',
    'a string is a media id');
SELECT is(pg_temp.code('image', '["Ana"]'), 'WA003', 'a media header is missed');
SELECT is(pg_temp.code('image', '{"header": {"link": "ftp://x"}, "body": ["a"]}'), 'WA008',
    'a link must be http or https');
SELECT is(pg_temp.code('image', '{"header": {"link": "https://x", "id": "1"}, "body": ["a"]}'), 'WA008',
    'not both');
SELECT is(pg_temp.components('place',
    '{"header": {"latitude": -34.6, "longitude": -58.4, "name": "Here", "address": "There"}}')
    #>> '{0,parameters,0,location,name}', 'Here', 'a place');
SELECT is(pg_temp.code('place', '{"header": {"latitude": -34.6}}'), 'WA008', 'an incomplete place');

-- buttons
SELECT is(pg_temp.components('buttons', '{"body": ["Ana"], "buttons": ["track/1", "SAVE10"]}'),
    jsonb_build_array(pg_temp.body('Ana'),
        '{"type": "button", "sub_type": "url", "index": "1",
          "parameters": [{"type": "text", "text": "track/1"}]}'::jsonb,
        '{"type": "button", "sub_type": "copy_code", "index": "2",
          "parameters": [{"type": "coupon_code", "coupon_code": "SAVE10"}]}'::jsonb,
        '{"type": "button", "sub_type": "flow", "index": "4",
          "parameters": [{"type": "action", "action": {"flow_token": "unused"}}]}'::jsonb),
    'plain values fill the buttons that need one, in order; a flow has its own');
SELECT is(
    pg_temp.components('buttons',
        '{"body": ["Ana"], "buttons": {"0": "STOP_42", "1": "track/1", "2": "SAVE10",
        "4": "token", "5": {"thumbnail_product_retailer_id": "sku"}}}'),
    jsonb_build_array(pg_temp.body('Ana'),
        '{"type": "button", "sub_type": "quick_reply", "index": "0",
          "parameters": [{"type": "payload", "payload": "STOP_42"}]}'::jsonb,
        '{"type": "button", "sub_type": "url", "index": "1",
          "parameters": [{"type": "text", "text": "track/1"}]}'::jsonb,
        '{"type": "button", "sub_type": "copy_code", "index": "2",
          "parameters": [{"type": "coupon_code", "coupon_code": "SAVE10"}]}'::jsonb,
        '{"type": "button", "sub_type": "flow", "index": "4",
          "parameters": [{"type": "action", "action": {"flow_token": "token"}}]}'::jsonb,
        '{"type": "button", "sub_type": "catalog", "index": "5",
          "parameters": [{"type": "action", "action": {"thumbnail_product_retailer_id": "sku"}}]}'::jsonb),
    'by index any button can be given its value'
);
SELECT is(pg_temp.components('buttons',
    '{"body": ["Ana"], "buttons": [{"index": 1, "text": "t"}, {"index": 2, "coupon_code": "C"}]}'),
    pg_temp.components('buttons', '{"body": ["Ana"], "buttons": ["t", "C"]}'),
    'or with the index in each element');
SELECT is(pg_temp.code('buttons', '["Ana"]'), 'WA003', 'a button that needs a value is missed');
SELECT is(pg_temp.code('buttons', '{"body": ["Ana"], "buttons": ["t"]}'), 'WA003',
    'also when only one of two is given');
SELECT is(pg_temp.code('buttons', '{"body": ["Ana"], "buttons": ["t", "c", "d"]}'), 'WA004',
    'a value too many');
SELECT is(pg_temp.code('buttons', '{"body": ["Ana"], "buttons": {"1": "t", "2": "c", "9": "d"}}'), 'WA004',
    'no such button');
SELECT is(pg_temp.code('buttons',
    jsonb_build_object('body', '["Ana"]'::jsonb, 'buttons', jsonb_build_array('t', repeat('c', 21)))),
    'WA007', 'a coupon code has up to 20 characters');

-- authentication
SELECT is(pg_temp.components('synced_code', '["123456"]'),
    jsonb_build_array(pg_temp.body('123456'),
        '{"type": "button", "sub_type": "url", "index": "0",
          "parameters": [{"type": "text", "text": "123456"}]}'::jsonb),
    'the code goes into the body and the button');
SELECT is(pg_temp.components('code', '[123456]'), pg_temp.components('synced_code', '["123456"]'),
    'also where the template was never synced; a number will do');
SELECT is(pg_temp.code('code', '["1234567890123456"]'), 'WA007', 'a code has up to 15 characters');
SELECT is(pg_temp.code('code', '[]'), 'WA003', 'the code is needed');

-- the components array of the API
SELECT is(pg_temp.components('carousel', '[{"type": "body", "parameters": [{"type": "text", "text": "Ana"}]},
    {"type": "carousel", "cards": [{"card_index": 0, "components": [
        {"type": "header", "parameters": [{"type": "image", "image": {"id": "55"}}]}]}]}]')
        #>> '{1,cards,0,card_index}', '0', 'ready components go through');
SELECT is(pg_temp.code('carousel', '[{"type": "body", "parameters": []}, {"type": "carousel", "cards": []}]'),
    'WA003',
    'their body is counted');
SELECT is(pg_temp.code('carousel', '[{"type": "body", "parameters": [{"type": "text", "text": "a\nb"}]}]'),
    'WA006',
    'and its text checked');

-- the short cut decides as the long way
SELECT is_empty($$
    SELECT v FROM unnest(ARRAY['a', 'a b', ' a', 'a ', '     a', 'a     b', E'a\nb', '', ' ', '"', '\', 'ü',
        '1', '-', ',', '", "',
        '[', ']', '{}', 'null', E'\u2028', E'\u00a0']) v
    WHERE _wa_are_plain_params(jsonb_build_array(v, 1), 2)
        AND _wa_template_value_problem(to_jsonb(v), 'x') IS NOT NULL
$$, 'what the short cut lets through is fine by the rules');

SELECT * FROM finish();
ROLLBACK;
