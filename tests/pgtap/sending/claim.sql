-- Tests sql/sending/claim.sql, sql/sending/lane.sql, sql/sending/pick.sql, sql/sending/weigh.sql,
-- sql/sending/grant.sql, sql/sending/providers.sql, sql/queue/moves.sql, sql/queue/classes.sql.
BEGIN;
SELECT plan(61);
\ir ../world.psql

-- the request
SELECT world.queue(1, 'order', '["Ana", 42]');
CREATE TEMPORARY TABLE sent AS SELECT * FROM world.claim();
SELECT is(path, '/100/messages', 'the path names the business number') FROM sent;
SELECT is(body - 'biz_opaque_callback_data', jsonb_build_object(
    'messaging_product', 'whatsapp', 'recipient_type', 'individual', 'to', world.customer(1), 'type',
    'template',
    'template', jsonb_build_object('name', 'order', 'language', '{"code": "en"}'::jsonb, 'components',
        jsonb_build_array(
        jsonb_build_object('type', 'body', 'parameters',
            '[{"type": "text", "text": "Ana"}, {"type": "text", "text": "42"}]'::jsonb)))
), 'the body is ready to post') FROM sent;
SELECT is(body ->> 'biz_opaque_callback_data', 'q:' || queue_id || ':1',
    'its callback data tell the row and the attempt') FROM sent;
SELECT is(world.outcome(queue_id), 'sending', 'the row is being sent') FROM sent;
SELECT is(world.reason(queue_id), 'sending', 'as explain_wa_message() says') FROM sent;
SELECT is(world.claimed(), 0, 'nothing is handed out twice');
SELECT is(world.accept(queue_id), 1, 'it is accepted') FROM sent;
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('AR.1234567890abc', 'hello');
SELECT results_eq($$ SELECT body ->> 'recipient', body ? 'to' FROM world.claim() $$,
    $$ VALUES ('AR.1234567890abc', false) $$, 'a user id stands under recipient');
SELECT world.accept_all();

-- when
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at)
VALUES (world.customer(2), 'hello', now() + interval '1 hour');
SELECT is(world.claimed(), 0, 'a scheduled row waits');
SELECT is((SELECT next_due_at FROM get_wa_next_due()),
    (SELECT scheduled_at FROM wa_outbound_queue WHERE status = 'pending'), 'a dispatcher is told until when');
SELECT world.later('1 hour');
SELECT is(world.claimed(), 1, 'and goes at its time');
INSERT INTO wa_outbound_queue (phone, template_name, expires_at)
VALUES (world.customer(3), 'hello', clock_timestamp() + interval '10 minutes');
SELECT world.later('10 minutes');
SELECT is(world.claimed(), 0, 'an expired row is not sent');
SELECT is(world.reason(id), 'expired', 'and says so at once') FROM wa_outbound_queue
    WHERE phone = world.customer(3);
SELECT world.maintain();
SELECT is(world.outcome(id), 'failed expired', 'it fails with that reason') FROM wa_outbound_queue
    WHERE phone = world.customer(3);
SELECT results_eq($$ SELECT status, state, error_title, error_message FROM wa_messages
    WHERE phone_e164 = world.customer(3) $$,
    $$ VALUES ('failed', 'failed', 'expired', 'not sent before it expired') $$,
    'and stands in the ledger as failed');

-- policy is checked again
SELECT world.wrote(4), world.wrote(5), world.wrote(6);
INSERT INTO wa_outbound_queue (phone, text_body, expires_at) VALUES (world.customer(4), 'late', 'infinity');
UPDATE wa_conversation_windows SET last_customer_message_at = clock_timestamp() - interval '25 hours'
WHERE contact_id = world.contact(world.customer(4));
SELECT is(world.claimed(), 0, 'a window that has closed meanwhile stops a free-form message');
SELECT is(world.outcome(id), 'failed window_closed', 'which fails with the reason') FROM wa_outbound_queue
    WHERE text_body = 'late';
INSERT INTO wa_outbound_queue (phone, text_body, expires_at, fallback_template_name, fallback_template_params,
    priority)
VALUES (world.customer(5), 'late too', 'infinity', 'order', '["Eva", "x"]', 'high');
UPDATE wa_conversation_windows SET last_customer_message_at = clock_timestamp() - interval '25 hours'
WHERE contact_id = world.contact(world.customer(5));
SELECT is(world.claimed(), 0, 'one with a fall-back');
SELECT is((SELECT body #>> '{template,name}' FROM world.claim()), 'order', 'is sent as its template');
SELECT is(preview_wa_request(id) #>> '{template,components,0,parameters,0,text}', 'Eva',
    'with the template''s own values')
FROM wa_outbound_queue WHERE text_body = 'late too';
SELECT world.accept(id) FROM wa_outbound_queue WHERE text_body = 'late too';
SELECT results_eq($$ SELECT message_type, template_name, content_text, is_within_24h_at_claim FROM wa_messages
    WHERE phone_e164 = world.customer(5) $$, $$ VALUES ('template', 'order', NULL, false) $$,
        'and recorded as such');
SELECT world.queue(6);
UPDATE wa_templates SET status = 'PAUSED' WHERE name = 'hello';
SELECT is(world.claimed(), 0, 'a template that was paused meanwhile is not sent');
SELECT is(world.outcome(id), 'failed template_unavailable', 'the message fails') FROM wa_outbound_queue
    WHERE reference = '6';
UPDATE wa_templates SET status = 'APPROVED' WHERE name = 'hello';
SELECT world.queue(7, 'sale');
ALTER TABLE wa_opt_outs DISABLE TRIGGER USER;
INSERT INTO wa_opt_outs (contact_id, scope) VALUES (world.contact(world.customer(7)), 'marketing');
ALTER TABLE wa_opt_outs ENABLE TRIGGER USER;
SELECT is(world.claimed(), 0, 'an opt-out is read again');
SELECT is(world.outcome(id), 'failed opted_out', 'whatever did not cancel the row') FROM wa_outbound_queue
    WHERE reference = '7';

-- what stops a whole number
SELECT world.queue(8);
SELECT set_wa_sending(false, 'maintenance');
SELECT is(world.claimed(), 0, 'the kill switch stops everything');
SELECT is(world.reason(id), 'sending_disabled', 'and is named') FROM wa_outbound_queue WHERE reference = '8';
SELECT set_wa_sending(true);
SELECT trigger_wa_panic('wrong text');
SELECT is(world.claimed(), 0, 'so does panic');
SELECT is(world.reason(id), 'panic', 'named as well') FROM wa_outbound_queue WHERE reference = '8';
SELECT matches(explanation, 'wrong text', 'with its reason')
FROM explain_wa_message((SELECT id FROM wa_outbound_queue WHERE reference = '8'));
SELECT is((SELECT hold_reason FROM wa_queue_health), 'panic', 'wa_queue_health names it');
SELECT resolve_wa_panic();
UPDATE wa_phone_numbers SET status = 'FLAGGED';
SELECT world.later('1 second');
SELECT is(world.claimed(), 0, 'a number that is not connected does not send');
SELECT is(world.reason(id), 'number_state', 'and says so') FROM wa_outbound_queue WHERE reference = '8';
UPDATE wa_phone_numbers SET status = 'CONNECTED';
SELECT _wa_pause_number(organization_id, id, 'number', 'spam', clock_timestamp() + interval '1 hour')
    FROM wa_phone_numbers;
SELECT world.later('1 second');
SELECT is(world.claimed(), 0, 'a paused number does not send');
SELECT is(world.reason(id), 'paused', 'and says so') FROM wa_outbound_queue WHERE reference = '8';
SELECT ok(world.held_for(id) BETWEEN 3580 AND 3600, 'until when') FROM wa_outbound_queue WHERE reference = '8';
SELECT world.later('1 hour');
SELECT is(world.claimed(), 1, 'when it is over the row goes');
SELECT world.accept_all();

-- order
SELECT world.wrote(10);
SELECT world.later('2 seconds');
CREATE TEMPORARY TABLE said AS
SELECT n, world.say(10, 'part ' || n) AS id FROM generate_series(1, 9) n;
CREATE TEMPORARY TABLE got AS SELECT * FROM world.claim(3);
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM got ORDER BY n',
    'SELECT ''part '' || n FROM generate_series(1, 3) n',
    'messages to a recipient come in the order in which they were queued');
SELECT is((SELECT count(DISTINCT order_key) FROM got), 1::bigint, 'under one key');
SELECT world.later('2 seconds');
SELECT is((SELECT count(*) FROM world.claim(p_dispatcher => '00000000-0000-0000-0000-000000000002')),
    0::bigint,
    'while they are in flight nobody gets the next');
SELECT is(world.reason(id), 'in_order', 'which says so') FROM said WHERE n = 5;
SELECT world.complete(queue_id, '{"outcome": "not_started"}') FROM got WHERE n > 1;
SELECT world.accept(queue_id) FROM got WHERE n = 1;
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE retry_count = 0 AND status = 'pending'), 8::bigint,
    'what is handed back is not a retry');
SELECT world.later('1 second');
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM world.claim() ORDER BY n',
    'SELECT ''part '' || n FROM generate_series(2, 9) n',
    'and keeps its place');
SELECT is((SELECT max(attempt) FROM wa_outbound_queue WHERE reference = '10'), 2, 'under a new attempt');
SELECT world.accept_all();
SELECT world.later('10 minutes');
SELECT world.wrote(12);
SELECT world.say(12, 'part ' || n) FROM generate_series(1, 9) n;
SELECT is((SELECT count(*) FROM world.claim(3)), 3::bigint, 'three of nine');
SELECT world.later('1 second');
SELECT is((SELECT count(*) FROM world.claim(3, '00000000-0000-0000-0000-000000000002')), 0::bigint,
    'another asks for the next three');
SELECT world.accept_all();
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM world.claim() ORDER BY n',
    'SELECT ''part '' || n FROM generate_series(4, 9) n',
    'those that waited for them go before those that did not');
SELECT world.accept_all();
UPDATE wa_organizations SET order_mode = 'delivered';
SELECT world.later('10 minutes');
SELECT world.wrote(11);
SELECT world.say(11, 'first'), world.say(11, 'second'), world.say(11, 'third');
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM world.claim()', $$ VALUES ('first') $$,
    'where wanted, one at a time');
SELECT world.accept_all();
SELECT is(world.claimed(), 0, 'the next waits for the delivery');
SELECT is(world.reason(id), 'in_order', 'and says so') FROM wa_outbound_queue WHERE text_body = 'second';
UPDATE wa_messages SET state = 'delivered' WHERE content_text = 'first';
SELECT _wa_release_after_status(organization_id, ARRAY[id]) FROM wa_messages WHERE content_text = 'first';
SELECT world.later('1 second');
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM world.claim()', $$ VALUES ('second') $$,
    'after which it goes');
SELECT world.accept_all();
SELECT is(world.claimed(), 0, 'the third waits again');
SELECT world.later('31 seconds');
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM world.claim()', $$ VALUES ('third') $$,
    'but not for ever');
UPDATE wa_organizations SET order_mode = 'accepted';
SELECT world.accept_all();

-- where places are scarce, a recipient takes three: they go one after the other
SELECT world.later('10 minutes');
SELECT world.wrote(n) FROM generate_series(20, 80) n;
SELECT world.say(r, 'part ' || n) FROM generate_series(20, 24) r, generate_series(1, 40) n;
SELECT world.say(r) FROM generate_series(31, 80) r;
CREATE TEMPORARY TABLE scarce AS SELECT c.n, q.reference::integer AS r
FROM world.claim(60) c JOIN wa_outbound_queue q ON q.id = c.queue_id;
SELECT results_eq('SELECT count(*) FILTER (WHERE r < 30), count(*) FILTER (WHERE r > 30) FROM scarce',
    $$ VALUES (15::bigint, 45::bigint) $$, 'behind five recipients with forty each most of a claim goes to others');
SELECT is((SELECT count(*) FROM world.claim(5)), 5::bigint, 'the rest of them');
SELECT world.accept(i.queue_id) FROM wa_queue_inflight i JOIN wa_outbound_queue q ON q.id = i.queue_id
WHERE q.reference = '20' ORDER BY q.id;
SELECT results_eq('SELECT body #>> ''{text,body}'' FROM world.claim(1)', $$ VALUES ('part 4') $$,
    'answers let the next go');
SELECT world.accept_all();
DELETE FROM wa_outbound_queue WHERE status = 'pending';

-- shares
SELECT world.later('1 minute');
SELECT world.queue(100 + n, p_priority => 'low') FROM generate_series(1, 100) n;
SELECT world.queue(300 + n, p_priority => 'normal') FROM generate_series(1, 100) n;
SELECT world.queue(500 + n, p_priority => 'high') FROM generate_series(1, 100) n;
UPDATE wa_phone_numbers SET throughput = 1000;
CREATE TEMPORARY TABLE shared AS SELECT c.n, q.priority FROM world.claim(50) c JOIN wa_outbound_queue q
    ON q.id = c.queue_id;
SELECT ok(count(*) FILTER (WHERE priority = 'high') BETWEEN 34 AND 36
    AND count(*) FILTER (WHERE priority = 'normal') BETWEEN 9 AND 11, 'high, normal and low share 7 : 2 : 1')
        FROM shared;
SELECT ok(count(*) BETWEEN 1 AND 2, 'evenly: low has its turn in the first dozen')
FROM shared WHERE n <= 12 AND priority = 'low';
SELECT world.claimed(1) FROM generate_series(1, 50);
SELECT ok(count(*) FILTER (WHERE priority = 'high') BETWEEN 69 AND 71
    AND count(*) FILTER (WHERE priority = 'normal') BETWEEN 19 AND 21, 'also when they are taken one by one')
FROM wa_outbound_queue WHERE status = 'sending';
DELETE FROM wa_outbound_queue WHERE status = 'pending' AND priority = 'high';
SELECT world.later('1 second');
SELECT results_eq($$ SELECT q.priority, count(*) FROM world.claim(30) c JOIN wa_outbound_queue q
    ON q.id = c.queue_id
    GROUP BY 1 ORDER BY 1 $$, $$ VALUES ('low', 10::bigint), ('normal', 20) $$,
    'what one leaves the others get');
DELETE FROM wa_outbound_queue WHERE status = 'pending';
SELECT world.accept_all();

-- lanes
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200');
SELECT world.later('1 minute');
SELECT world.queue(1000 + n, p_number => '100') FROM generate_series(1, 60) n;
SELECT world.queue(2000 + n, p_number => '101') FROM generate_series(1, 60) n;
SELECT results_eq('SELECT number, count(*) FROM world.claim(40) GROUP BY number ORDER BY number',
    $$ VALUES ('100', 20::bigint), ('101', 20) $$, 'numbers take turns');

SELECT * FROM finish();
ROLLBACK;
