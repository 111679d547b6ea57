-- Tests sql/queue/enqueue.sql.
BEGIN;
SELECT plan(22);
\ir ../world.psql
CREATE ROLE wa_enqueue_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT world.wrote(1);
SET LOCAL ROLE wa_enqueue_app;

-- one
SELECT results_eq($$ SELECT phone, type, template_params, priority, status, reference, metadata
    FROM enqueue_wa_message(
    '+54 9 11 4000-0001', template_name => 'order', template_params => '["Ana", 1]', priority => 'high',
    reference => 'r',
    metadata => '{"a": 1}') $$,
    $$ VALUES ('+5491140000001', 'template', '["Ana", 1]'::jsonb, 'high', 'pending', 'r',
        '{"a": 1}'::jsonb) $$,
    'a message is queued by named arguments, and its row comes back');
SELECT results_eq($$ SELECT type, text_body, priority, expires_at IS NULL
    FROM enqueue_wa_message('+5491140000001', 'Hello') $$,
    $$ VALUES ('text', 'Hello', 'normal', true) $$, 'phone and text suffice');
SELECT results_eq($$ SELECT type, content ->> 'id' FROM enqueue_wa_message('+5491140000001', type => 'image',
    content => '{"id": "7"}') $$,
    $$ VALUES ('image', '7') $$, 'any other type by its content');
SELECT throws_ok($$ SELECT enqueue_wa_message('nobody', 'x') $$, 'WA001', NULL,
    'what is malformed is raised');
SELECT throws_ok($$ SELECT enqueue_wa_message('+5491140000002', 'x') $$, 'WA101', NULL, 'so is a refusal');
SELECT results_eq($$ SELECT status, error_code, last_error FROM enqueue_wa_message('+5491140000002', 'x',
    on_refusal => 'record') $$,
    $$ VALUES ('failed', 'window_closed',
        'more than 24 hours since the customer''s last message: only templates may be sent') $$,
    'or recorded: the row that comes back says so');
CREATE TEMPORARY TABLE first AS SELECT id FROM enqueue_wa_message('+5491140000001', 'Hello',
    idempotency_key => 'k');
SELECT is((SELECT id FROM enqueue_wa_message('+5491140000001', 'Hello', idempotency_key => 'k')), id,
    'a repeated call gives the same row') FROM first;
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE idempotency_key = 'k'), 1::bigint,
    'and queues it once');

-- several
CREATE TEMPORARY TABLE verdicts AS SELECT * FROM enqueue_wa_messages('[
    {"phone": "+5491140000001", "text_body": "good", "reference": "batch"},
    {"phone": "nobody", "text_body": "bad"},
    {"phone": "+5491140000003", "template_name": "order", "template_params": ["a"]},
    {"phone": "+5491140000003", "text_body": "closed"},
    {"phone": "+5491140000003", "text_body": "recorded", "on_refusal": "record"},
    {"phone": "+5491140000001", "priority": "urgent", "text_body": "x"},
    {"phone": "+5491140000001", "scheduled_at": "tomorrow-ish", "text_body": "x"},
    7,
    {"phone": "+5491140000004", "template_name": "hello", "reference": "batch",
    "scheduled_at": "2099-01-01T00:00:00Z"}
]');
SELECT results_eq('SELECT n, status, error_sqlstate FROM verdicts ORDER BY n', $$ VALUES
    (1, 'pending', NULL), (2, 'refused', 'WA001'), (3, 'refused', 'WA003'), (4, 'refused', 'WA101'),
        (5, 'failed', NULL),
    (6, 'refused', '23514'), (7, 'refused', '22007'), (8, 'refused', '22023'), (9, 'pending', NULL) $$,
    'a verdict for each; bad ones do not stop good ones');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE reference = 'batch'), 2::bigint,
    'the good ones are queued');
SELECT is((SELECT count(*) FROM verdicts v JOIN wa_outbound_queue q ON q.id = v.id), 3::bigint,
    'with their ids');
SELECT is((SELECT count(*) FROM verdicts WHERE status = 'refused' AND error_sqlstate LIKE 'WA%'
    AND hint <> ''), 3::bigint, 'each of ours has a hint');
SELECT matches(error, '24 hours', 'a recorded one its reason') FROM verdicts WHERE n = 5;
SELECT is((SELECT count(*) FROM enqueue_wa_messages('[]')), 0::bigint, 'none are none');
SELECT results_eq(
    $$ SELECT status, error_sqlstate, error, hint LIKE '%scheduled_at%' FROM enqueue_wa_messages('[
        {"phone": "+5491140000001", "template_name": "hello", "shedule_at": "2030-01-01"}]') $$,
    $$ VALUES ('refused', '22023', 'a message has no shedule_at', true) $$,
    'a misspelt key is no message that goes at once');
SELECT throws_ok($$ SELECT * FROM enqueue_wa_messages('{"phone": "+5491140000001"}') $$, '22023', NULL,
    'it takes an array');
SELECT throws_ok($$ SELECT * FROM enqueue_wa_messages(NULL) $$, '22023', NULL, 'not nothing');
RESET ROLE;

-- rights
CREATE ROLE wa_enqueue_analyst IN ROLE wa_analyst;
SET LOCAL ROLE wa_enqueue_analyst;
SELECT throws_ok($$ SELECT enqueue_wa_message('+5491140000001', 'Hello') $$, '42501', NULL,
    'an analyst queues nothing');
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+5491140000001', 'x') $$,
    '42501', NULL, 'in no way');
RESET ROLE;

-- COPY, as the server's owner does it
CREATE TEMPORARY TABLE before AS SELECT count(*) AS n FROM wa_outbound_queue;
COPY wa_outbound_queue (phone, template_name, template_params, reference) FROM STDIN WITH (FORMAT csv);
+54 9 11 4000-0010,order,"[""Ana"", 1]",copied
+54 9 11 4000-0011,hello,,copied
\.
SELECT results_eq($$ SELECT phone, status FROM wa_outbound_queue WHERE reference = 'copied' ORDER BY id $$,
    $$ VALUES ('+5491140000010', 'pending'), ('+5491140000011', 'pending') $$, 'COPY queues rows too');
SELECT is((SELECT count(*) FROM world.claim() c JOIN wa_outbound_queue q ON q.id = c.queue_id
    WHERE q.reference = 'copied'),
    2::bigint, 'which are sent');
SELECT is((SELECT count(*) FROM wa_outbound_queue) - n, 2::bigint, 'nothing else was queued') FROM before;

SELECT * FROM finish();
ROLLBACK;
