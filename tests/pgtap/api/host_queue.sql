-- Tests sql/api/host_queue.sql.
BEGIN;
SELECT plan(10);
\ir ../world.psql
UPDATE wa_templates SET parameters = '[{"name": "customer", "type": "text"}, {"name": "order", "type": "text"}]'
WHERE name = 'order';
CREATE ROLE wa_host_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SET LOCAL ROLE wa_host_app;
SELECT queue_wa_recipients('{"eventId": "event-uuid", "recipients": ["+5491140000001", "+0987654321"],
    "templateName": "order", "variables": {"customer": "Ann", "order": "7"},
    "scheduledFor": "2100-03-14T10:00:00Z"}') AS done \gset
SELECT is((:'done'::jsonb ->> 'queued')::integer, 1, 'a bad recipient stops no good one');
SELECT results_eq(format($$ SELECT v ->> 'recipient', v ->> 'error_sqlstate' FROM jsonb_array_elements(%L::jsonb -> 'verdicts') v $$,
    :'done'), $$ VALUES ('+5491140000001', NULL), ('+0987654321', 'WA001') $$, 'each has a verdict, in order');
SELECT results_eq(format($$ SELECT m ->> 'recipient_phone', m ->> 'status', m -> 'template_variables'
    FROM jsonb_array_elements(%L::jsonb -> 'messages') m $$, :'done'),
    $$ VALUES ('+5491140000001', 'queued', '{"customer": "Ann", "order": "7"}'::jsonb) $$, 'the rows are as whatsapp_queue shows them');
SELECT is((SELECT reference FROM wa_outbound_queue), 'event:event-uuid', 'they are found by their event');
SELECT is((SELECT scheduled_at FROM wa_outbound_queue), '2100-03-14 10:00:00+00', 'and go at their time');
SELECT is((queue_wa_recipients('{"recipients": ["+5491140000002"], "templateName": "order",
    "variables": {"1": "Ann", "2": "7"}}') ->> 'queued')::integer, 1, 'values by number do, too');
SELECT throws_ok($$ SELECT queue_wa_recipients('{"recipients": "+5491140000002", "templateName": "order"}') $$, '22023', NULL,
    'recipients are a list');
SELECT throws_ok($$ SELECT queue_wa_recipients('{"recipients": [], "templateName": "order", "when": 1}') $$, '22023',
    'the request has no "when"', 'unknown fields are refused by name');
SELECT throws_ok($$ SELECT queue_wa_recipients('[]') $$, '22023', NULL, 'and it is an object');
SELECT is(process_wa_queue(), '{"processed": 0, "sent": 0, "failed": 0}', 'what was sent lately is told');

SELECT * FROM finish();
