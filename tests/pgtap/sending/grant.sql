-- Tests sql/sending/grant.sql.
-- A template that was changed while messages with it waited: those whose values fit no more end with the reason,
-- all others go.
BEGIN;
SELECT plan(10);
\ir ../world.psql
INSERT INTO wa_templates (name, category, status, body_text, header_format) VALUES
('picture', 'UTILITY', 'APPROVED', 'Hi {{1}}', 'IMAGE');
INSERT INTO wa_templates (name, category, status, body_text, components) VALUES
('cards', 'MARKETING', 'APPROVED', '', '[{"type": "BODY", "text": "Look"}, {"type": "CAROUSEL", "cards": [
    {"components": [{"type": "HEADER", "format": "IMAGE"}]}, {"components": [{"type": "HEADER", "format": "IMAGE"}]}
]}]');
INSERT INTO wa_outbound_queue (phone, type, template_name, template_params, content, reference) VALUES
(world.customer(1), 'template', 'picture', '{"header": {"id": "5"}, "body": ["Ann"]}', NULL, 'short'),
(world.customer(2), 'template', 'picture', NULL, '{"components": [
    {"type": "header", "parameters": [{"type": "image", "image": {"id": "55"}}]},
    {"type": "body", "parameters": [{"type": "text", "text": "Ann"}]}]}', 'ready'),
(world.customer(3), 'template', 'order', '["Ann", "A-1"]', NULL, 'plain'),
(world.customer(4), 'template', 'cards', '{"cards": [{"header": "1"}, {"header": "2"}]}', NULL, 'cards'),
(world.customer(5), 'template', 'hello', NULL, NULL, 'unchanged');
-- To a customer whose earlier message fails: its turn comes with the same claim or the next.
INSERT INTO wa_outbound_queue (phone, template_name, reference) VALUES (world.customer(1), 'hello', 'next');

UPDATE wa_templates SET header_format = 'TEXT', header_text = 'For {{1}}' WHERE name = 'picture';
UPDATE wa_templates SET body_text = 'Hi {{1}}, {{2}} and {{3}}' WHERE name = 'order';
UPDATE wa_templates SET components = '[{"type": "BODY", "text": "Look"}]' WHERE name = 'cards';

SELECT results_eq(
    $$ SELECT q.reference, e.reason, substring(e.explanation FROM 'it will fail: (.*)')
        FROM wa_outbound_queue q, explain_wa_message(q.id) e
        WHERE q.reference IN ('plain', 'unchanged') ORDER BY 1 $$,
    $$ VALUES ('plain', 'waiting', 'the body takes 3 values, 2 given'), ('unchanged', 'waiting', NULL) $$,
    'what will fail is foretold'
);
CREATE TABLE world.first AS SELECT c.*, q.reference FROM world.claim() c
JOIN wa_outbound_queue q ON q.id = c.queue_id;
SELECT results_eq($$ SELECT reference FROM world.first WHERE reference <> 'next' $$, $$ VALUES ('unchanged') $$,
    'a claim goes on, and hands out what fits');
SELECT results_eq(
    $$ SELECT reference, error_code, substring(last_error FROM 'the values do not fit .* any more: (.*)')
        FROM wa_outbound_queue WHERE status = 'failed' ORDER BY 1 $$,
    $$ VALUES ('cards', 'template_changed', 'cards are given, but the template has no carousel'),
        ('plain', 'template_changed', 'the body takes 3 values, 2 given'),
        ('ready', 'template_changed',
            'header value 1: an object must be a text, currency or date_time parameter'),
        ('short', 'template_changed', 'the header takes a text') $$,
    'what does not ends with the reason'
);
SELECT results_eq($$ SELECT state, error_message IS NOT NULL FROM wa_messages $$,
    $$ SELECT 'failed', true FROM generate_series(1, 4) $$, 'the ledger has it, too');
SELECT is(count(*), 0::bigint, 'nothing of it is in flight or due') FROM (
    SELECT queue_id FROM wa_queue_inflight UNION ALL SELECT queue_id FROM wa_queue_due
) d JOIN wa_outbound_queue q ON q.id = d.queue_id WHERE q.status = 'failed';
SELECT is(world.reason(id), 'template_changed', 'explain_wa_message() says it') FROM wa_outbound_queue
WHERE reference = 'plain';

-- What waits behind one of them
SELECT world.accept_all();
SELECT world.later('10 seconds');
SELECT is((SELECT count(*) FROM world.claim() c JOIN wa_outbound_queue q ON q.id = c.queue_id
    WHERE q.reference = 'next') + (SELECT count(*) FROM world.first WHERE reference = 'next'), 1::bigint,
    'the next message to that customer goes, once');

-- A fall-back whose values do not fit, and a change that the values outlive
SELECT world.accept_all();
SELECT world.wrote(6, '23:50');
INSERT INTO wa_outbound_queue (phone, text_body, fallback_template_name, fallback_template_params, reference)
VALUES (world.customer(6), 'Hello', 'picture', '{"header": "A-1", "body": ["Ann"]}', 'fall-back');
SELECT world.queue(7, 'order', '["Ann", "A-1", "red"]');
UPDATE wa_templates SET header_format = 'PRODUCT', header_text = NULL WHERE name = 'picture';
UPDATE wa_templates SET body_text = 'Dear {{1}}: {{2}}, {{3}}.' WHERE name = 'order';
SELECT world.later('1 hour');
SELECT results_eq($$ SELECT c.body #>> '{template,name}' FROM world.claim() c $$, $$ VALUES ('order') $$,
    'changed words take the same values');
SELECT world.later('10 seconds');
SELECT lives_ok('SELECT world.claim()', 'a claim that turns a message into its fall-back goes on');
SELECT is(world.outcome(id), 'failed template_changed', 'which ends where its values do not fit')
FROM wa_outbound_queue WHERE reference = 'fall-back';
SELECT * FROM finish();
ROLLBACK;
