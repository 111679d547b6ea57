-- Tests sql/templates/templates.sql, sql/templates/structure.sql, sql/templates/sync.sql.
BEGIN;
SELECT plan(84);

-- The statement of the first requirement document, word for word but for the host's table.
CREATE TEMPORARY TABLE profiles (id uuid, role_id text);
INSERT INTO profiles VALUES (gen_random_uuid(), 'admin');
SELECT lives_ok($$
    INSERT INTO wa_templates (
        name, category, language, body_text, parameters, created_by
    ) VALUES (
        'ORDER_CONFIRMATION',
        'UTILITY',
        'en',
        'Hi {{1}}, your order {{2}} has been confirmed. Order details: {{3}}',
        '[{"name": "customer_name", "type": "text"}, {"name": "order_id", "type": "text"},
          {"name": "order_details", "type": "text"}]'::jsonb,
        (SELECT id FROM profiles WHERE role_id = 'admin' LIMIT 1)
    )
$$, 'a template can be inserted with its text and declared parameters');

SELECT results_eq(
    $$ SELECT approval_status, status, body_placeholders, parameter_format, components #>> '{0,type}'
        FROM wa_templates $$,
    $$ VALUES ('pending', 'PENDING', '{1,2,3}'::text[], 'POSITIONAL', 'BODY') $$,
    'it waits for approval; placeholders and components follow from the text'
);
SELECT is(
    _wa_template_problem(t, now()), 'template "ORDER_CONFIRMATION" (en) is PENDING, not APPROVED',
    'a pending template may not be sent'
) FROM wa_templates t;
SELECT throws_ok($$
    INSERT INTO wa_templates (name, category, language, body_text) VALUES ('order_confirmation', 'UTILITY',
        'en', 'x')
$$, '23505', NULL, 'names match without regard to case, so a second spelling is refused');

-- status and approval_status, whichever is written
UPDATE wa_templates SET approval_status = 'approved';
SELECT results_eq('SELECT status, approval_status FROM wa_templates', $$ VALUES ('APPROVED', 'approved') $$,
    'approval_status sets status');
SELECT is(_wa_template_problem(t, now()), NULL, 'an approved template may be sent') FROM wa_templates t;
UPDATE wa_templates SET status = 'paused';
SELECT results_eq('SELECT status, approval_status FROM wa_templates', $$ VALUES ('PAUSED', 'pending') $$,
    'status sets approval_status: a paused template does not count as approved');
UPDATE wa_templates SET status = 'REJECTED';
SELECT results_eq('SELECT status, approval_status FROM wa_templates', $$ VALUES ('REJECTED', 'rejected') $$,
    'so does a rejection');
UPDATE wa_templates SET footer_text = 'bye';
SELECT is(status, 'REJECTED', 'another change leaves the status alone') FROM wa_templates;
INSERT INTO wa_templates (name, category, body_text, approval_status) VALUES ('t2', 'utility', 'x',
    'approved');
SELECT results_eq($$ SELECT status, category FROM wa_templates WHERE name = 't2' $$,
    $$ VALUES ('APPROVED', 'UTILITY') $$,
    'a template can be inserted as approved; its category is written in capitals');
INSERT INTO wa_templates (name, category, body_text, status) VALUES ('t3', 'UTILITY', 'x', 'SOMETHING_NEW');
SELECT results_eq(
    $$ SELECT approval_status, _wa_template_problem(t, now()) IS NULL FROM wa_templates t
        WHERE name = 't3' $$,
    $$ VALUES ('pending', false) $$, 'a state that is not known yet is kept and not sendable'
);

-- blocks
UPDATE wa_templates SET blocked_at = now(), blocked_reason = '132015: paused',
    blocked_until = now() + interval '1 hour'
WHERE name = 't2';
SELECT matches(_wa_template_problem(t, now()),
    '^template "t2" \(en\) is stopped until .* UTC: 132015: paused$',
    'a blocked template may not be sent, and says why') FROM wa_templates t WHERE name = 't2';
SELECT is(_wa_template_problem(t, now() + interval '1 hour'), NULL, 'a block with an end ends')
FROM wa_templates t WHERE name = 't2';
UPDATE wa_templates SET blocked_until = NULL WHERE name = 't2';
SELECT isnt(_wa_template_problem(t, now() + interval '10 years'), NULL, 'one without an end does not')
FROM wa_templates t WHERE name = 't2';
UPDATE wa_templates SET status = 'PAUSED' WHERE name = 't2';
UPDATE wa_templates SET status = 'APPROVED' WHERE name = 't2';
SELECT is(_wa_template_problem(t, now()), NULL, 'an approval lifts the block') FROM wa_templates t
WHERE name = 't2';

-- text and components, both ways
INSERT INTO wa_templates (name, category, body_text, components) VALUES ('t4', 'MARKETING', '', '[
    {"type": "HEADER", "format": "TEXT", "text": "News for {{first_name}}"},
    {"type": "BODY", "text": "Hi {{first_name}}, use {{code}} today, {{first_name}}"},
    {"type": "FOOTER", "text": "Bye"},
    {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "Stop"},
        {"type": "URL", "text": "Open", "url": "https://example.com/{{1}}"}, {"type": "URL",
        "url": "https://example.com"},
        {"type": "COPY_CODE", "example": "A"}]},
    {"type": "LIMITED_TIME_OFFER", "limited_time_offer": {"text": "Soon"}}
]');
SELECT results_eq(
    $$ SELECT body_text, header_text, header_format, footer_text, jsonb_array_length(buttons),
    parameter_format,
        body_placeholders, header_placeholders FROM wa_templates WHERE name = 't4' $$,
    $$ VALUES ('Hi {{first_name}}, use {{code}} today, {{first_name}}', 'News for {{first_name}}', 'TEXT',
        'Bye', 4, 'NAMED',
        '{first_name,code}'::text[], '{first_name}'::text[]) $$,
    'components fill the text columns'
);
SELECT is(button_parameters,
    '[{"index": 1, "sub_type": "url"}, {"index": 3, "sub_type": "copy_code"}]'::jsonb,
    'only buttons that cannot go without a value are listed') FROM wa_templates WHERE name = 't4';
UPDATE wa_templates SET body_text = 'Hi {{first_name}}', footer_text = NULL WHERE name = 't4';
SELECT results_eq(
    $$ SELECT c ->> 'type', c ->> 'text' FROM wa_templates, jsonb_array_elements(components) c
        WHERE name = 't4' $$,
    $$ VALUES ('HEADER', 'News for {{first_name}}'), ('BODY', 'Hi {{first_name}}'), ('BUTTONS', NULL),
        ('LIMITED_TIME_OFFER', NULL) $$,
    'a changed text changes the components; parts without a column stay'
);
SELECT is(body_placeholders, '{first_name}', 'and the placeholders') FROM wa_templates WHERE name = 't4';
UPDATE wa_templates SET components = '[{"type": "body", "text": "Plain"}]' WHERE name = 't4';
SELECT results_eq(
    $$ SELECT body_text, header_text, header_format, buttons, parameter_format FROM wa_templates
        WHERE name = 't4' $$,
    $$ VALUES ('Plain', NULL, NULL, '[]'::jsonb, 'POSITIONAL') $$, 'changed components change the columns'
);
INSERT INTO wa_templates (name, category, body_text, header_format) VALUES ('t5', 'UTILITY',
    '{{2}} for {{1}}', 'image');
SELECT results_eq(
    $$ SELECT header_format, components #>> '{0,format}', body_placeholders FROM wa_templates
        WHERE name = 't5' $$,
    $$ VALUES ('IMAGE', 'IMAGE', '{1,2}'::text[]) $$,
    'a media header needs only its format; numbered placeholders go by number'
);
INSERT INTO wa_templates (name, category, body_text) VALUES ('t6', 'AUTHENTICATION', 'Your code');
SELECT is(body_placeholders, '{1}', 'an authentication template always takes its code') FROM wa_templates
WHERE name = 't6';

-- what a part has beside its text
INSERT INTO wa_templates (name, category, body_text, components) VALUES
('t7', 'MARKETING', '', '[{"type": "HEADER", "format": "IMAGE", "example": {"header_handle": ["4::a"]}},
    {"type": "BODY", "text": "Hi"}]'),
('t8', 'AUTHENTICATION', '', '[{"type": "BODY", "add_security_recommendation": false},
    {"type": "FOOTER", "code_expiration_minutes": 5}]');
UPDATE wa_templates SET body_text = 'Hello' WHERE name = 't7';
UPDATE wa_templates SET buttons = '[{"type": "OTP", "otp_type": "COPY_CODE"}]' WHERE name = 't8';
SELECT is(components #>> '{0,example,header_handle,0}', '4::a', 'a changed text leaves the sample file')
FROM wa_templates WHERE name = 't7';
SELECT results_eq(
    $$ SELECT components #>> '{0,add_security_recommendation}', components #>> '{1,code_expiration_minutes}'
        FROM wa_templates WHERE name = 't8' $$,
    $$ VALUES ('false', '5') $$, 'and what an authentication template says beside Meta''s words'
);
UPDATE wa_templates SET header_format = 'VIDEO' WHERE name = 't7';
SELECT is(components #> '{0,example}', NULL, 'another kind of header needs another sample')
FROM wa_templates WHERE name = 't7';

-- which template a name means
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, language, body_text, status, waba_id) VALUES
('hello', 'UTILITY', 'es_AR', 'a', 'APPROVED', NULL), ('hello', 'UTILITY', 'es_ES', 'b', 'PENDING', NULL),
('hello', 'UTILITY', 'en_US', 'c', 'APPROVED', NULL), ('hello', 'UTILITY', 'pt_BR', 'd', 'APPROVED', '1'),
('only', 'UTILITY', 'fr', 'e', 'PENDING', NULL),
('Both', 'UTILITY', 'de', 'all accounts', 'APPROVED', NULL),
('Both', 'UTILITY', 'de', 'this account', 'PAUSED', '1'),
('none_in_english', 'UTILITY', 'it', 'f', 'PENDING', NULL),
('none_in_english', 'UTILITY', 'es', 'g', 'APPROVED', NULL);
CREATE FUNCTION pg_temp.picked(p_name text, p_language text, p_waba_id text DEFAULT NULL)
RETURNS text LANGUAGE sql AS
$$ SELECT language || ':' || body_text
    FROM _wa_pick_template(current_wa_organization(), p_name, p_language, p_waba_id) $$;
SELECT is(pg_temp.picked('hello', 'es_ES'), 'es_ES:b', 'the exact language goes first, approved or not');
SELECT is(pg_temp.picked('HELLO', 'ES-es'), 'es_ES:b', 'without regard to case, with either separator');
SELECT is(pg_temp.picked('hello', 'es'), 'es_AR:a', 'who asks for no region gets the only one that is approved');
SELECT is(pg_temp.picked('hello', 'es_MX'), NULL, 'but nobody gets the language of another country');
SELECT is(pg_temp.picked('hello', 'fr'), NULL, 'nor a foreign one');
SELECT is(pg_temp.picked('only', 'en'), NULL, 'not even where it is the only one');
SELECT is(pg_temp.picked('hello', 'pt_PT', '1'), NULL, 'Portugal does not get the Portuguese of Brazil');
SELECT is(
    (SELECT problem || ': ' || hint FROM _wa_check_template_params(
        current_wa_organization(), 'hello', 'pt_PT', '1', NULL)),
    'template "hello" is not known in language "pt_PT": It exists in: en_US, es_AR, es_ES, pt_BR. Ask for one '
    'of these, or choose one for all with wa_organizations.default_language.',
    'it is told what there is, and the ways out'
);
INSERT INTO wa_templates (name, category, language, body_text, status) VALUES
('both_regions', 'UTILITY', 'en_GB', 'a', 'APPROVED'), ('both_regions', 'UTILITY', 'en_US', 'b', 'APPROVED'),
('chinese', 'UTILITY', 'zh_CN', 'simplified', 'APPROVED'),
('chinese', 'UTILITY', 'zh_HK', 'traditional', 'PENDING'),
('mandarin', 'UTILITY', 'zh_CN', 'simplified', 'APPROVED'),
('general', 'UTILITY', 'zh', 'simplified', 'APPROVED'),
('general', 'UTILITY', 'de', 'deutsch', 'PENDING');
SELECT is(pg_temp.picked('both_regions', 'en'), NULL, 'of two regions none is chosen for who names neither');
SELECT is(pg_temp.picked('mandarin', 'zh_HK'), NULL, 'who reads traditional characters gets no simplified ones');
SELECT is(pg_temp.picked('mandarin', 'zh-TW'), NULL, 'in Taiwan neither');
SELECT is(pg_temp.picked('general', 'zh_HK'), NULL, 'also where the template names no region');
SELECT is(pg_temp.picked('general', 'zh_SG'), 'zh:simplified', 'which serves the regions of that script');
SELECT is(pg_temp.picked('general', 'de_AT'), 'de:deutsch', 'as German serves Austria, approved or not');
SELECT is(pg_temp.picked('chinese', 'zh'), 'zh_CN:simplified', 'Chinese means the simplified script');
UPDATE wa_organizations SET default_language = 'en_GB';
SELECT is(pg_temp.picked('both_regions', 'en'), 'en_GB:a', 'the default language decides between two regions');
SELECT is(pg_temp.picked('both_regions', 'fr_CA'), 'en_GB:a', 'and is taken where the one asked for is missing');
SELECT is(pg_temp.picked('hello', 'fr_CA'), NULL, 'but it has no other regions either');
UPDATE wa_organizations SET default_language = 'en';
SELECT is(pg_temp.picked('hello', 'fr_CA'), 'en_US:c', 'unless it names none and there is one');
SELECT is(pg_temp.picked('both_regions', 'fr_CA'), NULL, 'and one only');
UPDATE wa_organizations SET default_language = NULL;
SELECT is(pg_temp.picked('hello', NULL), 'en_US:c', 'English is preferred where none is asked for');
SELECT is(pg_temp.picked('none_in_english', NULL), 'es:g', 'else one that is approved');
SELECT is(pg_temp.picked('hello', 'pt_BR', '2'), NULL, 'a template of another account does not count');
SELECT is(pg_temp.picked('hello', 'pt_BR', '1'), 'pt_BR:d', 'one of the account does');
SELECT is(pg_temp.picked('both', 'de', '1'), 'de:this account',
    'the account''s own row goes before the one of all accounts');
SELECT is(pg_temp.picked('both', 'de', '2'), 'de:all accounts', 'which serves the other accounts');
SELECT is(pg_temp.picked('nothing', 'de'), NULL, 'an unknown name gives nothing');
SELECT is(
    (SELECT count(*) FROM _wa_pick_template(gen_random_uuid(), 'hello', NULL, NULL)), 0::bigint,
    'templates of another organization are not found'
);

-- sync
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, language, body_text, parameters) VALUES
('ORDER_CONFIRMATION', 'UTILITY', 'en', 'Hi {{1}}', '[{"name": "who"}]');
SELECT is(begin_wa_template_sync('100'), NULL, 'a sync starts at the first page');
SELECT is(upsert_wa_templates('100', '[
    {"id": "9", "name": "order_confirmation", "language": "en", "status": "APPROVED", "category": "UTILITY",
     "components": [{"type": "BODY", "text": "Hello {{1}}"}], "quality_score": {"score": "GREEN"}},
    {"id": "10", "name": "sale", "language": "es", "status": "PAUSED", "category": "MARKETING",
    "components": []},
    {"id": "11", "name": "new_kind", "language": "es", "status": "APPROVED", "category": "SOMETHING",
    "components": []},
    {"id": "12", "status": "APPROVED"}
]'), 3, 'a page is stored; an entry without a name is passed over');
SELECT results_eq(
    $$ SELECT name, waba_id, provider_template_id, meta_template_id, approval_status, body_text,
    quality_score,
        parameters #>> '{0,name}' FROM wa_templates WHERE provider_template_id = '9' $$,
    $$ VALUES ('ORDER_CONFIRMATION', '100', '9', '9', 'approved', 'Hello {{1}}', 'GREEN', 'who') $$,
    'a template made here is recognised and keeps its name and declared parameters'
);
SELECT is(category, 'MARKETING', 'an unknown category counts as marketing') FROM wa_templates
WHERE name = 'new_kind';
SELECT lives_ok($$ SELECT advance_wa_template_sync('100', 'abc', 3) $$, 'progress is recorded');
SELECT is(begin_wa_template_sync('100'), 'abc', 'a sync that broke off goes on where it was');
SELECT is(finish_wa_template_sync('100'), 0, 'templates that were seen stay');
UPDATE wa_templates SET synced_at = now() - interval '1 day', created_at = now() - interval '2 days'
    WHERE name = 'sale';
SELECT is(begin_wa_template_sync('100'), NULL, 'after a finished one the next starts anew');
SELECT is(upsert_wa_templates('100', '[
    {"id": "9", "name": "order_confirmation", "language": "en", "status": "APPROVED", "category": "UTILITY"},
    {"id": "11", "name": "new_kind", "language": "es", "status": "APPROVED", "category": "UTILITY"}
]'), 2, 'the second sync brings two');
SELECT is(finish_wa_template_sync('100'), 1, 'what was not seen is counted');
SELECT results_eq($$ SELECT status, approval_status FROM wa_templates WHERE name = 'sale' $$,
    $$ VALUES ('MISSING', 'rejected') $$, 'and not sent any more');

-- several contents of one name and language
CREATE FUNCTION pg_temp.synced(VARIADIC p_contents text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM begin_wa_template_sync('100');
    PERFORM upsert_wa_templates('100', (
        SELECT jsonb_agg(jsonb_build_object('id', split_part(c, ' ', 1), 'name', 'twice', 'language', 'en',
            'status', split_part(c, ' ', 2), 'category', 'UTILITY') ORDER BY n)
        FROM unnest(p_contents) WITH ORDINALITY u (c, n)));
    PERFORM finish_wa_template_sync('100');
    RETURN (SELECT string_agg(provider_template_id || ' ' || status, ', ') FROM wa_templates WHERE name = 'twice');
END
$$;
SELECT is(pg_temp.synced('20 PENDING', '21 APPROVED'), '21 APPROVED', 'of contents with one name the approved one counts');
SELECT is(pg_temp.synced('21 APPROVED', '20 PENDING'), '21 APPROVED', 'in any order');
SELECT is(pg_temp.synced('20 PENDING', '21 APPROVED'), '21 APPROVED', 'and again');
SELECT is(pg_temp.synced('22 APPROVED', '21 APPROVED'), '22 APPROVED', 'of two that are the first');
SELECT is(pg_temp.synced('22 APPROVED', '21 APPROVED'), '22 APPROVED', 'which stays');
SELECT is(pg_temp.synced('22 PAUSED', '20 PENDING', '21 APPROVED'), '21 APPROVED', 'while it is approved');
SELECT is(pg_temp.synced('23 PENDING'), '21 MISSING', 'what is gone is missing');
SELECT is(pg_temp.synced('23 PENDING'), '23 PENDING', 'and another takes its place');
SELECT is(upsert_wa_templates('100', '[
    {"id": "30", "name": null, "language": "en", "status": "PENDING", "category": "UTILITY"},
    {"id": "31", "name": "", "language": "en", "status": "PENDING", "category": "UTILITY"},
    {"id": "32", "name": "x", "language": null, "status": "PENDING", "category": "UTILITY"},
    {"id": "33", "name": "named", "language": "en", "status": "PENDING", "category": "UTILITY"}
]'), 1, 'what has no name yet is passed over');

-- webhooks
CREATE FUNCTION pg_temp.event(p_at timestamptz, p_value jsonb) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wa_account_events (field, payload, dedupe_key, occurred_at)
    VALUES ('message_template_status_update', p_value, gen_random_uuid()::text, p_at);
    RETURN _wa_apply_template_events(current_wa_organization(), '100', ARRAY[p_at], ARRAY[p_value]);
END
$$;
SELECT is(pg_temp.event(now() + interval '2 minutes',
    '{"event": "PAUSED", "message_template_id": 9, "message_template_name": "order_confirmation",
      "message_template_language": "en", "reason": "NONE"}'), 1, 'a status event finds its template');
SELECT is(pg_temp.event(now() + interval '1 minute',
    '{"event": "APPROVED", "message_template_id": 9, "message_template_name": "order_confirmation",
      "message_template_language": "en",
      "reason": "NONE"}'), 0, 'an older one that comes late changes nothing');
SELECT is(pg_temp.event(now() + interval '3 minutes',
    '{"new_category": "MARKETING", "previous_category": "UTILITY", "message_template_id": 9,
      "message_template_name": "order_confirmation", "message_template_language": "en"}')
    + pg_temp.event(now() + interval '1 minute',
    '{"new_quality_score": "RED", "previous_quality_score": "GREEN", "message_template_id": 9,
      "message_template_name": "order_confirmation", "message_template_language": "en"}'), 2,
    'events of other kinds have an order of their own');
SELECT results_eq(
    $$ SELECT status, category, previous_category, quality_score FROM wa_templates
        WHERE provider_template_id = '9' $$,
    $$ VALUES ('PAUSED', 'MARKETING', 'UTILITY', 'RED') $$, 'each changes what it is about'
);

SELECT is(pg_temp.event(now() + interval '4 minutes',
    '{"message_template_id": 9, "message_template_name": "order_confirmation",
      "message_template_language": "en",
      "message_template_title": "News", "message_template_element": "Dear {{1}}",
      "message_template_footer": "Bye",
      "message_template_buttons": [{"message_template_button_type": "URL",
          "message_template_button_text": "Go",
        "message_template_button_url": "https://example.com/{{1}}"}]}'), 1, 'a changed text is taken over');
SELECT results_eq(
    $$ SELECT header_text, body_text, footer_text, button_parameters #>> '{0,sub_type}' FROM wa_templates
        WHERE provider_template_id = '9' $$,
    $$ VALUES ('News', 'Dear {{1}}', 'Bye', 'url') $$, 'with what follows from it'
);
SELECT is(pg_temp.event(now(), '{"event": "APPROVED", "message_template_id": 77, "message_template_name": "x",
    "message_template_language": "en"}'), 0, 'an unknown template waits for the next sync');

SELECT is(pg_temp.event(now() + interval '5 minutes',
    '{"event": "REJECTED", "message_template_id": 9, "message_template_name": "order_confirmation",
      "message_template_language": "en", "reason": "INVALID_FORMAT",
      "rejection_info": {"reason": "A variable ends it.", "recommendation": "Add words."}}'), 1,
    'a rejection arrives');
SELECT results_eq(
    $$ SELECT approval_status, rejected_reason FROM wa_templates WHERE provider_template_id = '9' $$,
    $$ VALUES ('rejected', 'INVALID_FORMAT: A variable ends it.: Add words.') $$,
    'with all that Meta says of it'
);
SELECT is(upsert_wa_templates('100', '[{"id": "9", "name": "order_confirmation", "language": "en",
    "status": "REJECTED", "category": "UTILITY", "rejected_reason": "INVALID_FORMAT"}]'), 1,
    'a sync says less');
SELECT is(rejected_reason, 'INVALID_FORMAT: A variable ends it.: Add words.', 'and does not shorten it')
FROM wa_templates WHERE provider_template_id = '9';

SELECT * FROM finish();
ROLLBACK;
