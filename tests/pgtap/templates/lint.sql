-- Tests sql/templates/lint.sql, sql/templates/defaults.sql.
-- What may be stored, and what the review would say of it.
BEGIN;
SELECT plan(59);

CREATE FUNCTION pg_temp.refused(p_columns text, p_values text, p_pattern text, p_name text)
RETURNS text LANGUAGE sql AS $$
    SELECT throws_matching(
        format('INSERT INTO wa_templates (name, category, %s) VALUES (''t'', ''UTILITY'', %s)', p_columns,
            p_values),
        p_pattern, p_name)
$$;

-- structure
SELECT throws_ok($$ INSERT INTO wa_templates (name, category, body_text) VALUES ('t', 'UTILITY', ' ') $$,
    'WA020', 'template "t" (en): body_text is empty', 'an empty body is refused with its own SQLSTATE');
SELECT pg_temp.refused('body_text', $$ 'Hi {{1}, thanks' $$, 'not closed', 'a placeholder must be closed');
SELECT pg_temp.refused('body_text', $$ 'Hi {{first name}}' $$, 'not closed', 'and hold one word');
SELECT pg_temp.refused('body_text', $$ 'Hi {{First}} there' $$, 'small letters', 'in small letters');
SELECT pg_temp.refused('body_text', $$ 'Hi {{1}} and {{name}}' $$, 'not both',
    'numbers and names do not mix');
SELECT pg_temp.refused('body_text', $$ 'Hi {{1}} and {{3}}' $$, 'numbered from 1 to 2',
    'numbers have no gap');
SELECT pg_temp.refused('body_text, footer_text', $$ 'Hi', 'For {{1}}' $$, 'footer', 'the footer has none');
SELECT pg_temp.refused('body_text, header_text', $$ 'Hi', '{{1}} {{2}}' $$, 'one placeholder',
    'the header at most one');
SELECT pg_temp.refused('body_text, header_format', $$ 'Hi', 'POSTER' $$, '"POSTER" is not',
    'the kind of header must be one');
SELECT pg_temp.refused('body_text, header_format', $$ 'Hi', 'TEXT' $$, 'needs header_text',
    'a text header needs its text');
SELECT pg_temp.refused('body_text, parameters', $$ 'Hi {{1}}, {{2}}', '["name"]' $$, '1 names, the body 2',
    'numbered placeholders are declared all or not at all');
SELECT pg_temp.refused('body_text, parameters', $$ 'Hi {{1}}, {{2}}', '["a", {"name": "a"}]' $$, 'twice',
    'names are declared once');
SELECT pg_temp.refused('body_text, parameters', $$ 'Hi {{1}}', '[{"type": "text"}]' $$, 'object with a name',
    'each with a name');
SELECT pg_temp.refused('body_text, buttons', $$ 'Hi', '{"type": "URL"}' $$, 'JSON arrays',
    'buttons are an array');
SELECT pg_temp.refused('body_text, buttons', $$ 'Hi', '[{"text": "Go"}]' $$, 'button 0 has no type',
    'a button has a type');
SELECT pg_temp.refused('body_text, buttons',
    $$ 'Hi', '[{"type": "QUICK_REPLY", "text": "A"}, {"type": "url", "text": "Go"}]' $$,
    'button 1 has no url', 'a link its url');
SELECT pg_temp.refused('body_text, buttons',
    $$ 'Hi', '[{"type": "URL", "text": "Go", "url": "https://a.de/{{1}}/{{2}}"}]' $$,
    'more than one placeholder', 'with one placeholder');
SELECT pg_temp.refused('body_text, buttons', $$ 'Hi', '[{"type": "PHONE_NUMBER", "text": "Call"}]' $$,
    'no phone_number', 'a call its number');
SELECT pg_temp.refused('body_text, variable_mapping', $$ 'Hi', '[]' $$, 'variable_mapping',
    'a mapping is an object');
SELECT lives_ok($$ INSERT INTO wa_templates (name, category, body_text, provider_template_id)
    VALUES ('odd', 'UTILITY', 'Hi {{1}} and {{3}}', '1') $$, 'what Meta has taken is not questioned');
INSERT INTO wa_templates (name, category, body_text) VALUES ('draft', 'UTILITY', 'Hi {{1}}, welcome.');
SELECT throws_ok($$ UPDATE wa_templates SET body_text = 'Hi {{2}}, welcome.' WHERE name = 'draft' $$, 'WA020',
    NULL, 'a change is checked, too');
SELECT lives_ok($$ UPDATE wa_templates SET is_enabled = false, body_text = body_text $$,
    'one that leaves the text alone is not');

-- categories of the documents
INSERT INTO wa_templates (name, category, language, header_text, body_text, footer_text, buttons) VALUES (
    'payment_reminder', 'TRANSACTIONAL', 'en', 'Payment Reminder',
    'Hi {{1}}, your booking {{2}} has a pending payment of {{3}}. Pay now: {{4}}', 'Travel Management System',
    '[{"type": "url", "text": "Pay Now", "url": "{{5}}"}]');
SELECT results_eq(
    $$ SELECT category, button_parameters FROM wa_templates WHERE name = 'payment_reminder' $$,
    $$ VALUES ('UTILITY', '[{"index": 0, "sub_type": "url"}]'::jsonb) $$,
    'TRANSACTIONAL is today''s UTILITY; a button in small letters is one');
SELECT throws_ok($$ INSERT INTO wa_templates (name, category, body_text) VALUES ('t', 'NEWS', 'Hi') $$,
    '23514', NULL, 'a category that does not exist is refused');

-- the review
CREATE FUNCTION pg_temp.rules(p_name text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(rule || CASE severity WHEN 'notice' THEN '?' ELSE '' END, ' '
        ORDER BY severity DESC, rule)
    FROM lint_wa_template(p_name)
$$;
CREATE FUNCTION pg_temp.linted(p_body text, p_category text DEFAULT 'UTILITY', p_more jsonb DEFAULT '{}')
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM wa_templates WHERE name = 'x';
    INSERT INTO wa_templates (name, category, body_text, header_text, footer_text, buttons, parameters)
    VALUES ('x', p_category, p_body, p_more ->> 'header', p_more ->> 'footer',
        coalesce(p_more -> 'buttons', '[]'),
        coalesce(p_more -> 'parameters', '[{"name": "a", "example": "A"}, {"name": "b", "example": "B"},
            {"name": "c", "example": "C"}]'));
    RETURN (SELECT string_agg(rule, ' ' ORDER BY rule) FROM lint_wa_template('x') WHERE severity = 'warning');
END
$$;
INSERT INTO wa_templates (name, category, language, body_text, parameters) VALUES (
    'ORDER_CONFIRMATION', 'UTILITY', 'en',
    'Hi {{1}}, your order {{2}} has been confirmed. We will contact you shortly to schedule your reading. '
    'Order details: {{3}}',
    '[{"name": "customer_name", "type": "text"}, {"name": "order_id", "type": "text"},
        {"name": "order_details", "type": "text"}]');
SELECT is(pg_temp.rules('order_confirmation'), 'variable_at_end example? name_case?',
    'the first document''s template ends on a variable and has capitals in its name');
SELECT is(pg_temp.rules('payment_reminder'), 'button_url variable_at_end example?',
    'the second''s has a link that is nothing but a variable');
SELECT ok(bool_and(message <> '' AND hint <> ''), 'each finding has its reason and a way out')
FROM wa_templates t CROSS JOIN lint_wa_template(t.id);
SELECT is(pg_temp.linted('Hello {{1}}, your parcel {{2}} is on its way to you.'), NULL,
    'a good one has none');
SELECT is(pg_temp.linted('{{1}}, your parcel {{2}} is on its way to you.'), 'variable_at_start',
    'a first word');
SELECT is(pg_temp.linted('Hello, your parcel is on its way to you, {{1}}.'), 'variable_at_end',
    'a full stop is no word');
SELECT is(pg_temp.linted('Your parcel {{1}} {{2}} is on its way to you now.'), 'adjacent_variables',
    'variables side by side');
SELECT is(pg_temp.linted('Hi {{1}}: {{2}}, bye.'), 'variable_ratio', 'more variables than words');
SELECT is(pg_temp.linted('New shoes are here, have a look.', 'MARKETING'), 'opt_out_hint',
    'marketing without a way out');
SELECT is(pg_temp.linted('New shoes are here.', 'MARKETING', '{"footer": "Reply STOP to unsubscribe"}'), NULL,
    'the footer may show it');
SELECT is(pg_temp.linted('Hay zapatos nuevos.', 'MARKETING',
    '{"buttons": [{"type": "QUICK_REPLY", "text": "Baja"}]}'), NULL, 'or a button, in other languages too');
SELECT is(pg_temp.linted('Your parcel came. Use 20% off next time!'), 'promotional_words',
    'advertising in a utility template');
SELECT is(pg_temp.linted('The wholesaler dealt with your parcel.'), NULL, 'words are whole words');
SELECT is(pg_temp.linted(repeat('word ', 205) || 'end', 'UTILITY', jsonb_build_object(
    'header', repeat('h', 61), 'footer', repeat('f', 61),
    'buttons', jsonb_build_array(jsonb_build_object('type', 'QUICK_REPLY', 'text', repeat('b', 26)))
)), 'length length length length', 'lengths of header, body, footer and buttons');
SELECT is(pg_temp.linted(E'Hello.\n\n\nBye.', 'UTILITY', '{"header": "*News*"}'), 'header_format whitespace',
    'white space, and emphasis in the header');
SELECT is(pg_temp.linted('Hello there.', 'UTILITY', '{"buttons": [
    {"type": "URL", "text": "A", "url": "https://a.de/"}, {"type": "URL", "text": "B", "url": "https://a.de"},
    {"type": "URL", "url": "https://shop.example.com/{{1}}"}]}'), 'button_count button_text example_url',
    'buttons: too many links, one without a text, one that leads nowhere');
SELECT results_eq(
    $$ SELECT t.name, l.rule FROM wa_templates t CROSS JOIN lint_wa_template(t.id) l
        WHERE t.name = 'ORDER_CONFIRMATION' AND l.severity = 'warning' $$,
    $$ VALUES ('ORDER_CONFIRMATION', 'variable_at_end') $$, 'all templates can be looked at in one query');
SELECT throws_ok($$ SELECT lint_wa_template('nothing') $$, 'WA002', 'template "nothing" is not known',
    'an unknown template is told');
UPDATE wa_templates SET provider_template_id = '2' WHERE name = 'payment_reminder';
SELECT is(pg_temp.rules('payment_reminder'), 'button_url variable_at_end',
    'what Meta has needs no examples any more');
UPDATE wa_templates SET category = 'AUTHENTICATION', body_text = '{{1}} is your code' WHERE name = 'draft';
SELECT is(pg_temp.rules('draft'), 'authentication_text?', 'the words of an authentication template are Meta''s');
UPDATE wa_templates SET category = 'AUTHENTICATION', body_text = '' WHERE name = 'x';
SELECT is(pg_temp.rules('x'),
    'authentication_button button_count button_text example_url authentication_text? unused_parameter?',
    'an authentication template needs no words of ours, and one button');

-- Authentication: what Meta takes beside its own words
CREATE FUNCTION pg_temp.code_rules(p_footer jsonb, p_button jsonb, p_body jsonb DEFAULT '{}') RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM wa_templates WHERE name = 'code';
    INSERT INTO wa_templates (name, category, body_text, components) VALUES ('code', 'AUTHENTICATION', '',
        jsonb_build_array(p_body || '{"type": "BODY"}', p_footer || '{"type": "FOOTER"}') || CASE
            WHEN p_button IS NULL THEN '[]'
            ELSE jsonb_build_object('type', 'BUTTONS', 'buttons', jsonb_build_array(p_button)) END);
    RETURN (SELECT string_agg(l.rule, ' ' ORDER BY l.severity = 'notice', l.rule)
        FROM lint_wa_template('code') l WHERE l.rule <> 'authentication_text');
END
$$;
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 10}', '{"type": "OTP", "otp_type": "COPY_CODE",
    "text": "Copy code"}', '{"add_security_recommendation": true}'), NULL, 'Meta''s own example is fine');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 10}', NULL), NULL, 'so is one without a button');
SELECT is(pg_temp.code_rules('{"text": "This code expires in 10 minutes."}', NULL), 'authentication_footer',
    'the text of a footer is left out, which is said');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 91}', NULL), 'code_expiration',
    'a code expires within 90 minutes');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": "10"}', NULL), 'code_expiration',
    'and their number is one');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 1}', NULL, '{"add_security_recommendation": "yes"}'),
    'security_recommendation', 'the warning is asked for with true');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 1}', '{"type": "URL", "text": "Go",
    "url": "https://a.de/"}'), 'authentication_button', 'another button is none');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 1}', '{"type": "OTP"}'), 'otp_type',
    'the button says how it takes the code');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 1}', '{"type": "OTP", "otp_type": "ZERO_TAP"}'),
    'otp_apps otp_terms', 'filling in needs an app, and consent where nothing is tapped');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 1}', '{"type": "OTP", "otp_type": "ONE_TAP",
    "supported_apps": [{"package_name": "a.b", "signature_hash": "short"}]}'), 'otp_apps',
    'an app is known by its signature');
SELECT is(pg_temp.code_rules('{"code_expiration_minutes": 1}', jsonb_build_object('type', 'OTP', 'otp_type',
    'ONE_TAP', 'text', repeat('x', 26), 'autofill_text', repeat('x', 26), 'package_name', 'a.b',
    'signature_hash', 'K8a/AINcGX7')), 'length length', 'both labels have 25 characters');
UPDATE wa_templates SET provider_template_id = '3', components = '[
    {"type": "BODY", "text": "*{{1}}* is your verification code. For your security, do not share this code."},
    {"type": "FOOTER", "text": "This code expires in 10 minutes.", "code_expiration_minutes": 10},
    {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Copy code",
        "url": "https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}"}]}]' WHERE name = 'code';
SELECT is(pg_temp.rules('code'), NULL, 'nothing is said of what Meta made of it');
SELECT is(pg_temp.linted('Use this code now and here.', 'UTILITY', '{"buttons": [{"type": "COPY_CODE",
    "text": "Copy code", "example": "A"}]}'), NULL, 'a coupon is no objection');
SELECT is(string_agg(l.rule, ' '), 'button_label', 'but its label is WhatsApp''s')
FROM lint_wa_template('x') l WHERE l.rule LIKE 'button%';
SELECT * FROM finish();
ROLLBACK;
