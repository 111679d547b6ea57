-- Tests sql/queue/refusals.sql, sql/queue/control.sql.
BEGIN;
SELECT plan(27);
\ir ../world.psql
UPDATE wa_organizations SET on_refusal = 'record';
CREATE FUNCTION pg_temp.outcome(p_reference text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', q.status, q.error_code, q.last_error) FROM wa_outbound_queue q
    WHERE q.reference = p_reference
$$;

SELECT world.queue(1, 'nothing') \g /dev/null
SELECT is(pg_temp.outcome('1'), 'failed WA002 template "nothing" is not known', 'an unknown template is recorded');
SELECT results_eq(
    $$ SELECT status, state, error_title, error_message FROM wa_messages WHERE reference = '1' $$,
    $$ VALUES ('failed', 'failed', 'WA002', 'template "nothing" is not known') $$, 'in the ledger too'
);
SELECT is((SELECT status FROM read_wa_events('recorded', 1)), 'failed', 'which tells the application');
SELECT is((SELECT count(*) FROM wa_queue_due), 0::bigint, 'nothing waits');
SELECT is(world.claimed(), 0, 'nothing is sent');

INSERT INTO wa_outbound_queue (phone, template_name, template_params, reference)
SELECT world.customer(10 + x.n), x.name, x.params::jsonb, x.reference
FROM (
    VALUES (1, 'hello', NULL, 'good'), (2, 'order', '["Ann"]', 'few'), (3, 'order', '["Ann", "1", "2"]', 'many'),
    (4, 'order', '{"a": "Ann", "c": "1"}', 'names'), (5, 'order', E'["A\\nnn", "1"]', 'break'),
    (6, 'order', '["Ann", "1"]', 'good too'),
    (7, 'order', jsonb_build_array(repeat('x', 1025), '1')::text, 'long')
) x (n, name, params, reference);
SELECT is(
    (SELECT string_agg(concat_ws(' ', q.reference, q.status, q.error_code), ', ' ORDER BY q.reference)
        FROM wa_outbound_queue q WHERE q.reference <> '1'),
    'break failed WA006, few failed WA003, good pending, good too pending, long failed WA007, many failed WA004, '
    'names failed WA005',
    'wrong values are recorded, each with its code; the others of the statement are queued'
);
SELECT is((SELECT count(*) FROM wa_queue_due), 2::bigint, 'and wait');

INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at, reference)
VALUES (world.customer(20), 'nothing', now() + interval '1 day', 'later');
SELECT matches(pg_temp.outcome('later'), '^failed WA002', 'also what is for later');
SELECT world.wrote(21);
INSERT INTO wa_outbound_queue (phone, text_body, fallback_template_name, reference)
VALUES (world.customer(21), 'Hello', 'nothing', 'fall back');
SELECT is(pg_temp.outcome('fall back'), 'failed WA002 fall-back: template "nothing" is not known',
    'also a template to fall back on');
SELECT is((SELECT status FROM enqueue_wa_message(world.customer(22), template_name => 'nothing')), 'failed',
    'by function');
SELECT results_eq(
    $$ SELECT status, error_sqlstate, error FROM enqueue_wa_messages(jsonb_build_array(
        jsonb_build_object('phone', world.customer(23), 'template_name', 'nothing'),
        jsonb_build_object('phone', 'nobody', 'template_name', 'hello'))) $$,
    $$ VALUES ('failed', NULL, 'template "nothing" is not known'),
    ('refused', 'WA001', 'not a phone number or business-scoped user id') $$,
    'in JSON; a bad phone is refused there'
);
INSERT INTO whatsapp_queue (recipient_phone, template_name) VALUES (world.customer(24), 'nothing');
SELECT results_eq(
    $$ SELECT status, error_message FROM whatsapp_queue WHERE recipient_phone = world.customer(24) $$,
    $$ VALUES ('failed', 'template "nothing" is not known') $$, 'by the view'
);
COPY wa_outbound_queue (phone, template_name, reference) FROM STDIN WITH (FORMAT csv);
+5491140000025,hello,copied
+5491140000026,nothing,copied and wrong
\.
SELECT is(pg_temp.outcome('copied'), 'pending', 'by COPY a good one');
SELECT matches(pg_temp.outcome('copied and wrong'), '^failed WA002', 'and a bad one');

-- what is the program's own fault raises
SELECT throws_ok(
    $$ INSERT INTO wa_outbound_queue (phone, template_name, reference)
    VALUES (world.customer(30), 'hello', 'mixed'), (world.customer(31), 'nothing', 'mixed'), ('nobody', 'hello', 'mixed') $$,
    'WA001', '1 of 3 messages refused; the first: not a phone number or business-scoped user id',
    'a recipient who is none raises, and is the only one named'
);
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE reference = 'mixed'), 0::bigint, 'with the whole statement');
SELECT throws_ok($$ SELECT world.queue(32, 'hello', p_number => '999') $$, 'WA010', NULL, 'a number that is not ours');
SELECT throws_ok($$ SELECT world.say(21, ' ') $$, 'WA008', NULL, 'an empty text');
SELECT throws_ok(
    $$ INSERT INTO wa_outbound_queue (phone, type, on_refusal) VALUES (world.customer(21), 'template', 'record') $$,
    'WA009', NULL, 'a template without a name'
);
SELECT throws_ok(
    $$ INSERT INTO wa_outbound_queue (phone, template_name, on_refusal)
    VALUES (world.customer(33), 'nothing', 'raise') $$,
    'WA002', 'template "nothing" is not known', 'a row may still ask for an error'
);
UPDATE wa_organizations SET on_refusal = 'raise';
SELECT throws_ok($$ SELECT world.queue(33, 'nothing') $$, 'WA002', NULL, 'as may the organization');
INSERT INTO wa_outbound_queue (phone, template_name, on_refusal, reference)
VALUES (world.customer(33), 'nothing', 'record', 'own'), (world.customer(34), 'hello', NULL, 'neighbour');
SELECT is(concat_ws(', ', pg_temp.outcome('own'), pg_temp.outcome('neighbour')),
    'failed WA002 template "nothing" is not known, pending', 'or a row asks for the record');

-- trying again is as queueing again
SELECT is(retry_wa_messages(reference => 'own'), 1, 'tried again');
SELECT matches(pg_temp.outcome('own'), '^failed WA002', 'it fails again: nothing of it is sent');
SELECT throws_ok($$ SELECT retry_wa_messages(reference => 'few') $$, 'WA003', NULL, 'or raises');
INSERT INTO wa_templates (name, category, status, body_text) VALUES ('nothing', 'UTILITY', 'APPROVED', 'Something');
SELECT retry_wa_messages(reference => 'own') \g /dev/null
SELECT is(pg_temp.outcome('own'), 'pending', 'once the template is there it goes');
SELECT is(
    (SELECT c.body #>> '{template,name}' FROM world.claim() c WHERE c.body ->> 'to' = world.customer(33)), 'nothing',
    'with it'
);

SELECT * FROM finish();
ROLLBACK;
