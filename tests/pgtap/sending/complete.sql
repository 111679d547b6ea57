-- Tests sql/sending/complete.sql, sql/sending/order.sql.
BEGIN;
SELECT plan(34);
\ir ../world.psql

-- accepted
CREATE TEMPORARY TABLE one AS SELECT world.queue(1, 'order', '["Ana", "x"]') AS id;
UPDATE wa_outbound_queue SET metadata = '{"order": 7}', customer_id = 'c-1';
SELECT world.claimed();
SELECT is(world.complete(id, '{"outcome": "answered", "status": 200, "answer": {
    "messages": [{"id": "wamid.1", "message_status": "accepted"}], "contacts": [{"input": "+5491140000001",
        "wa_id": "541140000001"}]}}'),
    1, 'an answer is recorded') FROM one;
SELECT results_eq('SELECT status, wa_message_id, error_code, retry_count, processed_at IS NOT NULL
    FROM wa_outbound_queue',
    $$ VALUES ('sent', 'wamid.1', NULL, 0, true) $$, 'in the queue''s row');
SELECT results_eq('SELECT direction, message_type, status, state, wa_message_id, template_name,
    template_category, content,
    phone_e164, phone_number_id, reference, metadata, customer_id, is_within_24h_at_claim FROM wa_messages',
    $$ VALUES ('outbound', 'template', 'sent', 'accepted', 'wamid.1', 'order', 'UTILITY',
        '{"params": ["Ana", "x"]}'::jsonb,
        '+5491140000001', '100', '1', '{"order": 7}'::jsonb, 'c-1', false) $$, 'in the ledger');
SELECT results_eq($$ SELECT kind, status FROM wa_events $$, $$ VALUES ('status', 'accepted') $$,
    'as an event');
SELECT ok(last_business_message_at IS NOT NULL, 'and in the conversation') FROM wa_conversations;
SELECT is(world.contact('+541140000001'), world.contact('+5491140000001'),
    'the id that the provider answered finds the same contact');
SELECT is((SELECT wa_id FROM wa_contacts), '541140000001', 'and is kept');
SELECT is(world.accept(id, 'wamid.1'), 0, 'a repeated result is passed over') FROM one;
SELECT is(world.accept(id, 'wamid.2'), 0, 'so is another one') FROM one;
SELECT is(world.refuse(id, 131026), 0, 'and an error that comes after it') FROM one;
SELECT is((SELECT count(*) || wa_message_id FROM wa_messages GROUP BY wa_message_id), '1wamid.1',
    'the ledger has it once');
SELECT results_eq('SELECT status, reason FROM one, explain_wa_message(id)', $$ VALUES ('sent', 'sent') $$,
    'explained as sent');
SELECT is(complete_wa_messages('00000000-0000-0000-0000-000000000001', '[]'), 0, 'no results are no work');
SELECT is(complete_wa_messages('00000000-0000-0000-0000-000000000001', jsonb_build_array(jsonb_build_object(
    'id', gen_random_uuid(), 'org', current_wa_organization(), 'attempt', 1, 'outcome', 'not_started'))), 0,
    'a result of a row that is gone is passed over');
SELECT is(complete_wa_messages('00000000-0000-0000-0000-000000000001', jsonb_build_array(jsonb_build_object(
    'id', id, 'org', gen_random_uuid(), 'attempt', 1, 'outcome', 'not_started'))), 0,
    'so is one of another organization') FROM one;

-- held for review
CREATE TEMPORARY TABLE held AS SELECT world.queue(2) AS id;
SELECT world.claimed();
SELECT world.complete(id, '{"outcome": "answered", "status": 200,
    "answer": {"messages": [{"id": "wamid.held",
        "message_status": "held_for_quality_assessment"}]}}') FROM held;
SELECT results_eq('SELECT m.status, m.state FROM wa_messages m JOIN held ON m.queue_id = held.id',
    $$ VALUES ('sent', 'held') $$, 'a held message is accepted, and held');

-- another attempt
CREATE TEMPORARY TABLE three AS SELECT world.queue(3) AS id;
SELECT world.claimed();
SELECT world.refuse(id, 131000, 500) FROM three;
SELECT world.later('1 minute');
SELECT is(world.claimed(), 1, 'a second attempt');
SELECT is(world.complete(id,
    '{"outcome": "answered", "status": 200, "answer": {"messages": [{"id": "wamid.old"}]}}', 1), 0,
    'a result of the first is passed over') FROM three;
SELECT is(world.complete(id, '{"outcome": "not_started"}', 1), 0, 'also when nothing was started') FROM three;
SELECT is(world.complete(id,
    '{"outcome": "answered", "status": 200, "answer": {"messages": [{"id": "wamid.new"}]}}', 2), 1,
    'that of the second counts') FROM three;
SELECT results_eq('SELECT retry_count, attempt, wa_message_id FROM wa_outbound_queue JOIN three USING (id)',
    $$ VALUES (1, 2, 'wamid.new') $$, 'the row says how often it was tried');

-- a batch
SELECT world.queue(10 + n) FROM generate_series(1, 4) n;
SELECT world.claimed();
SELECT is(complete_wa_messages('00000000-0000-0000-0000-000000000001', (
    SELECT jsonb_agg(jsonb_build_object('id', id, 'org', organization_id, 'attempt', attempt)
        || CASE reference
        WHEN '11' THEN '{"outcome": "answered", "status": 200, "answer": {"messages": [{"id": "wamid.b1"}]}}'
        WHEN '12' THEN '{"outcome": "answered", "status": 400, "answer": {"error": {"code": 131026,
        "message": "no"}}}'
        WHEN '13' THEN '{"outcome": "not_started"}'
            ELSE '{"outcome": "unknown", "error": "ReadTimeout"}' END::jsonb)
    FROM wa_outbound_queue WHERE status = 'sending')), 4, 'results come in batches');
SELECT results_eq($$ SELECT reference, world.outcome(id), world.reason(id) FROM wa_outbound_queue
    WHERE reference::integer > 10 ORDER BY reference $$, $$ VALUES ('11', 'sent', 'sent'),
        ('12', 'failed 131026', '131026'),
    ('13', 'pending', 'waiting'), ('14', 'sending', 'outcome_unknown') $$, 'each with its own end');
SELECT matches(explanation, 'ReadTimeout', 'an unknown outcome says what happened')
FROM wa_outbound_queue q, explain_wa_message(q.id) WHERE reference = '14';

-- handed back: nothing is used up
DELETE FROM wa_outbound_queue WHERE status = 'pending';
SELECT world.wrote(20);
SELECT world.say(20, 'part ' || n) FROM generate_series(1, 45) n;
SELECT is((SELECT sum(world.complete(queue_id, '{"outcome": "not_started"}')) FROM world.claim()), 45::bigint,
    'all handed back');
SELECT world.later('2 seconds');
SELECT is(world.claimed(), 45, 'the recipient''s rate was not used by what was handed back');
SELECT world.accept_all();

-- answers that are none
SELECT world.queue(30 + n) FROM generate_series(1, 5) n;
SELECT world.claimed();
SELECT world.complete(id, CASE reference
    WHEN '31' THEN '{"outcome": "answered", "status": 200, "answer": {"messages": []}}'
    WHEN '32' THEN '{"outcome": "answered", "status": 200, "answer": null}'
    WHEN '33' THEN '{"outcome": "answered", "status": 502, "answer": null}'
    WHEN '34' THEN '{"outcome": "answered", "status": 400, "answer": {"error": {"code": "text",
    "message": "odd"}}}'
    ELSE '{"outcome": "answered", "status": 400, "answer": {"error": "just words"}}' END::jsonb)
FROM wa_outbound_queue WHERE status = 'sending' AND reference::integer > 30;
SELECT results_eq($$ SELECT reference, world.reason(id) FROM wa_outbound_queue WHERE reference::integer > 30
    ORDER BY reference $$,
    $$ VALUES ('31', 'outcome_unknown'), ('32', 'outcome_unknown'), ('33', 'outcome_unknown'),
    ('34', 'refused'), ('35', 'refused') $$,
    'what may have been accepted is not sent again; a plain refusal fails');

-- learning, early statuses
SELECT world.queue(40);
SELECT world.claimed();
INSERT INTO wa_message_statuses (wa_message_id, status, occurred_at) VALUES ('wamid.early', 'delivered',
    clock_timestamp());
SELECT world.accept(id, 'wamid.early') FROM wa_outbound_queue WHERE reference = '40';
SELECT is((SELECT state FROM wa_messages WHERE wa_message_id = 'wamid.early'), 'delivered',
    'a status that came before the answer is applied with it');

-- one answer twice in a batch
SELECT world.queue(41);
SELECT world.claimed();
SELECT lives_ok($$ SELECT complete_wa_messages('00000000-0000-0000-0000-000000000001', jsonb_agg(
    jsonb_build_object('id', q.id, 'org', q.organization_id, 'attempt', q.attempt, 'outcome', 'answered',
        'status', 200, 'answer', jsonb_build_object('messages', jsonb_build_array(
            jsonb_build_object('id', 'wamid.twice'))))))
    FROM wa_outbound_queue q CROSS JOIN generate_series(1, 2) WHERE q.reference = '41' $$,
    'an answer may come twice in one batch');
SELECT is((SELECT count(*) FROM wa_messages WHERE wa_message_id = 'wamid.twice'), 1::bigint,
    'and is recorded once');

-- by whom
SELECT is((SELECT count(*) FROM wa_dispatchers WHERE seen_at > clock_timestamp() - interval '10 seconds'),
    1::bigint, 'a dispatcher is alive');
UPDATE wa_dispatchers SET seen_at = clock_timestamp() - interval '20 seconds';
SELECT complete_wa_messages('00000000-0000-0000-0000-000000000001', '[]');
SELECT ok(seen_at > clock_timestamp() - interval '10 seconds', 'a report is a sign of life')
    FROM wa_dispatchers;
SET LOCAL ROLE wa_app;
SELECT throws_ok($$ SELECT complete_wa_messages('00000000-0000-0000-0000-000000000001', '[]') $$, '42501',
    NULL, 'applications may not report');
SELECT throws_ok($$ SELECT * FROM claim_wa_messages('00000000-0000-0000-0000-000000000001', 1) $$, '42501',
    NULL, 'nor claim');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
