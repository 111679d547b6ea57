-- Tests sql/templates/submit.sql.
-- Requests to Meta's review, and what its answers mean.
BEGIN;
SELECT plan(29);
SELECT adopt_wa_database();
SELECT register_wa_phone_number('100', '+1 555 123 4567', '200');
SELECT register_wa_phone_number('101', '+1 555 123 4568', '201');

INSERT INTO wa_templates (name, category, language, header_text, body_text, footer_text, buttons, parameters)
VALUES (
    'PAYMENT_Reminder', 'TRANSACTIONAL', 'en-US', 'For {{1}}', 'Hi {{ 1 }}, please pay {{2}} for {{1}} soon.',
    'Bye',
    '[{"type": "url", "text": "Pay", "url": "https://a.de/{{4}}"}, {"type": "quick_reply", "text": "No"},
        {"type": "copy_code"}]',
    '[{"name": "who", "example": "Ann"}, {"name": "amount"}, {"name": "title", "example": "Mrs A"},
        {"name": "path", "example": "b77"}]'
);
SELECT is(request, '{
    "name": "payment_reminder", "language": "en_US", "category": "UTILITY", "parameter_format": "positional",
    "components": [
        {"type": "HEADER", "format": "TEXT", "text": "For {{1}}", "example": {"header_text": ["Mrs A"]}},
        {"type": "BODY", "text": "Hi {{1}}, please pay {{2}} for {{1}} soon.",
            "example": {"body_text": [["Ann", "amount"]]}},
        {"type": "FOOTER", "text": "Bye"},
        {"type": "BUTTONS", "buttons": [
            {"type": "URL", "text": "Pay", "url": "https://a.de/{{1}}", "example": ["https://a.de/b77"]},
            {"type": "QUICK_REPLY", "text": "No"}, {"type": "COPY_CODE", "example": "sample"}]}
    ]}', 'the request has the name in small letters and an example for every variable')
FROM get_wa_template_submissions('200');
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, header_text, body_text) VALUES
('named', 'UTILITY', 'For {{first_name}}', 'Hi {{first_name}}, your code {{code}} is here.');
SELECT results_eq(
    $$ SELECT request ->> 'parameter_format', request #> '{components,0,example}',
        request #> '{components,1,example}' FROM get_wa_template_submissions('200') $$,
    $$ VALUES ('named',
        '{"header_text_named_params": [{"param_name": "first_name", "example": "first name"}]}'::jsonb,
        '{"body_text_named_params": [{"param_name": "first_name", "example": "first name"},
            {"param_name": "code", "example": "code"}]}'::jsonb) $$,
    'named variables have examples by name');
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, body_text) VALUES ('login', 'AUTHENTICATION', '{{1}} is your code');
SELECT is(request -> 'components', '[{"type": "BODY", "add_security_recommendation": true},
    {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE"}]}]',
    'an authentication template is handed in without words') FROM get_wa_template_submissions('200');
UPDATE wa_templates SET components = '[{"type": "BODY", "add_security_recommendation": false},
    {"type": "FOOTER", "code_expiration_minutes": 5},
    {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "ONE_TAP"}]}]';
SELECT is(request -> 'components', '[{"type": "BODY", "add_security_recommendation": false},
    {"type": "FOOTER", "code_expiration_minutes": 5},
    {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "ONE_TAP"}]}]',
    'its own components are kept') FROM get_wa_template_submissions('200');
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, body_text, header_format, components) VALUES
('picture', 'UTILITY', '', NULL,
    '[{"type": "header", "format": "IMAGE", "example": {"header_handle": ["4::a"]}},
    {"type": "body", "text": "Look."}]');
SELECT is(request #>> '{components,0,example,header_handle,0}', '4::a', 'an example that is given is kept')
FROM get_wa_template_submissions('200');

-- which ones
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, status, waba_id, provider_template_id, body_text, buttons) VALUES
('draft', 'UTILITY', 'PENDING', NULL, NULL, 'a', '[]'),
('here', 'UTILITY', 'PENDING', '200', NULL, 'a', '[]'),
('there', 'UTILITY', 'PENDING', '201', NULL, 'a', '[]'),
('both', 'UTILITY', 'PENDING', NULL, NULL, 'a', '[]'), ('both', 'UTILITY', 'APPROVED', '200', '1', 'a', '[]'),
('waiting', 'UTILITY', 'PENDING', '200', '2', 'a', '[]'),
('rejected', 'UTILITY', 'REJECTED', '200', '3', 'a', '[]'),
('refused', 'UTILITY', 'REJECTED', NULL, NULL, 'a', '[]'),
('link', 'UTILITY', 'PENDING', NULL, NULL, 'a',
    '[{"type": "URL", "text": "Go", "url": "https://example.com/{{1}}"}]');
SELECT results_eq($$ SELECT name FROM get_wa_template_submissions('200') ORDER BY 1 $$,
    $$ VALUES ('draft'), ('here'), ('link') $$,
    'all drafts of the account; one of no account goes to that of the default number, unless it has its own');
SELECT results_eq($$ SELECT name FROM get_wa_template_submissions('201') $$, $$ VALUES ('there') $$,
    'the other account gets its own');
SELECT results_eq(
    $$ SELECT name, provider_template_id FROM get_wa_template_submissions('200',
        ARRAY['REJECTED', 'Refused', 'waiting', 'nothing']) ORDER BY 1 $$,
    $$ VALUES ('refused', NULL), ('rejected', '3') $$,
    'by name also rejected ones, but not one that is under review');
SELECT results_eq($$ SELECT name FROM get_wa_template_submissions('200') WHERE problem IS NOT NULL $$,
    $$ VALUES ('link') $$, 'one that leads to example.com is held back');

-- answers
CREATE FUNCTION pg_temp.answer(p_name text, p_status integer, p_answer jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT record_wa_template_submission(t.id, '200', p_status, p_answer) FROM wa_templates t
    WHERE t.name = p_name
$$;
INSERT INTO wa_templates (name, category, body_text) VALUES
('ORDER', 'UTILITY', 'a'), ('FAST', 'UTILITY', 'a'), ('bad', 'UTILITY', 'a');
SELECT is(pg_temp.answer('ORDER', 200, '{"id": "77", "status": "PENDING", "category": "MARKETING"}'),
    'submitted', 'a template that Meta takes is submitted');
SELECT results_eq(
    $$ SELECT name, waba_id, provider_template_id, status, approval_status, category, previous_category
        FROM wa_templates WHERE provider_template_id = '77' $$,
    $$ VALUES ('order', '200', '77', 'PENDING', 'pending', 'MARKETING', 'UTILITY') $$,
    'its row has Meta''s name, id, state and category');
SELECT is(pg_temp.answer('bad', 400, '{"error": {"code": 100, "error_subcode": 2388299,
    "message": "(#100) Invalid",
    "error_data": {"details": "Variables at the end"}}}'), 'refused', 'one that Meta refuses is refused');
SELECT results_eq($$ SELECT approval_status, rejected_reason FROM wa_templates WHERE name = 'bad' $$,
    $$ VALUES ('rejected', '100/2388299: Variables at the end') $$, 'with the reason in its row');
UPDATE wa_templates SET body_text = 'better', approval_status = 'pending' WHERE name = 'bad';
SELECT ok(EXISTS (SELECT FROM get_wa_template_submissions('200') WHERE name = 'bad'),
    'made better and pending again, it is a draft again');
SELECT is(pg_temp.answer('bad', 400, '{"error": {"code": 100, "error_subcode": 2388024}}'), 'exists',
    'one that exists is told from a refusal');
SELECT is(pg_temp.answer('bad', 400, '{"error": {"code": 100, "error_subcode": 33}}'), 'failed',
    'an account that the token cannot see is not the template''s fault');
SELECT is(pg_temp.answer('bad', 401, '{"error": {"code": 190}}'), 'failed', 'nor is the token');
SELECT is(pg_temp.answer('bad', 0, '{}'), 'failed', 'nor silence');
SELECT is(status, 'PENDING', 'and its row is as it was') FROM wa_templates WHERE name = 'bad';
UPDATE wa_templates SET provider_template_id = '78', status = 'APPROVED' WHERE name = 'FAST';
SELECT is(pg_temp.answer('FAST', 200, '{"id": "78", "status": "PENDING", "category": "UTILITY"}'),
    'submitted', 'the webhook may be faster than the answer');
SELECT is(status, 'APPROVED', 'then its word stands') FROM wa_templates WHERE provider_template_id = '78';

-- the query of the first document
DELETE FROM wa_templates;
INSERT INTO wa_templates (name, category, body_text, approval_status, provider_template_id) VALUES
('a', 'UTILITY', 'x', 'pending', NULL), ('b', 'UTILITY', 'x', 'rejected', NULL),
('c', 'UTILITY', 'x', 'approved', NULL), ('d', 'UTILITY', 'x', 'approved', '5');
SELECT results_eq($$
    SELECT
        name,
        approval_status,
        provider_template_id,
        CASE
            WHEN approval_status = 'pending' THEN 'Awaiting WhatsApp approval'
            WHEN approval_status = 'rejected' THEN 'Template rejected - review content'
            WHEN approval_status = 'approved' AND provider_template_id IS NULL THEN 'Missing provider ID'
            ELSE 'Ready for use'
        END as action_needed
    FROM wa_templates
    WHERE approval_status != 'approved' OR provider_template_id IS NULL
$$, $$ VALUES ('a', 'pending', NULL, 'Awaiting WhatsApp approval'),
    ('b', 'rejected', NULL, 'Template rejected - review content'),
    ('c', 'approved', NULL, 'Missing provider ID') $$, 'what is to be done is told');

-- sync
SELECT is(begin_wa_template_sync('200'), NULL, 'a sync begins');
UPDATE wa_template_syncs SET started_at = clock_timestamp() + interval '1 second';
UPDATE wa_templates SET waba_id = '200';
SELECT is(finish_wa_template_sync('200'), 2, 'what Meta should have and has not is missing');
SELECT results_eq($$ SELECT name, status FROM wa_templates ORDER BY name $$,
    $$ VALUES ('a', 'PENDING'), ('b', 'REJECTED'), ('c', 'MISSING'), ('d', 'MISSING') $$,
    'drafts are not: they never were there');
SELECT is(upsert_wa_templates('200', '[{"id": "5", "name": "d", "language": "en", "status": "APPROVED",
    "category": "MARKETING", "components": []}]'), 1, 'a template changed its category meanwhile');
SELECT results_eq($$ SELECT category, previous_category FROM wa_templates WHERE name = 'd' $$,
    $$ VALUES ('MARKETING', 'UTILITY') $$, 'Meta decides, and what it was is kept');
SELECT set_eq($$ SELECT has_function_privilege(r, 'get_wa_template_submissions(text, text[])', 'EXECUTE')
    FROM unnest(ARRAY['wa_dispatcher', 'wa_receiver', 'wa_analyst']) r $$, ARRAY[false],
    'only who may write templates may submit them');
UPDATE wa_installations SET timeline_id = 99;
SELECT throws_ok($$ SELECT get_wa_template_submissions('200') $$, 'WA401', NULL, 'a copy hands in nothing');
SELECT * FROM finish();
ROLLBACK;
