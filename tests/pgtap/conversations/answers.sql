-- Tests sql/conversations/conversations.sql, sql/queue/settling.sql, sql/webhooks/app_messages.sql.
-- What the business sends does the same to a conversation, whether the queue sent it or an echo tells it.
BEGIN;
SELECT plan(11);
\ir ../world.psql

CREATE FUNCTION pg_temp.post(p_array text, p_n integer, p_id text, p_message jsonb) RETURNS void
LANGUAGE sql AS $$
    SELECT ingest_wa_webhook(convert_to(jsonb_build_object(
        'metadata', '{"phone_number_id": "100", "display_phone_number": "15551234567"}'::jsonb,
        p_array, jsonb_build_array(p_message || jsonb_build_object(
            'id', p_id, 'timestamp', floor(extract(epoch FROM clock_timestamp()))::text,
            CASE p_array WHEN 'messages' THEN 'from' ELSE 'to' END, ltrim(world.customer(p_n), '+')
        ))
    )::text, 'UTF8'));
    SELECT process_wa_webhooks();
$$;
CREATE FUNCTION pg_temp.conversation(p_n integer) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', c.unread_count, 'unread',
        CASE WHEN c.last_business_message_at IS NOT NULL THEN 'answered' END,
        CASE WHEN c.entry_point_expires_at IS NOT NULL THEN 'free' END)
    FROM wa_conversations c WHERE c.phone_e164 = world.customer(p_n)
$$;
CREATE FUNCTION pg_temp.send() RETURNS void LANGUAGE sql AS $$
    SELECT world.later('1 minute');
    SELECT world.claimed();
    SELECT world.accept_all();
$$;

-- Customers 1 and 2 wrote after a click on an advertisement; the queue answers 1, the app answers 2.
SELECT pg_temp.post('messages', n, 'wamid.in' || n, '{"type": "text", "text": {"body": "Is it free?"},
    "referral": {"source_type": "ad"}}') FROM generate_series(1, 2) n;
SELECT is(pg_temp.conversation(n), '1 unread', 'a customer waits for an answer') FROM generate_series(1, 2) n;

INSERT INTO wa_outbound_queue (phone, type, content)
VALUES (world.customer(1), 'reaction', '{"message_id": "wamid.in1", "emoji": "x"}');
SELECT pg_temp.send();
SELECT is(
    (SELECT string_agg(status, ' ') FROM wa_messages WHERE message_type = 'reaction'), 'sent',
    'a reaction is sent'
);
SELECT pg_temp.post('message_echoes', 2, 'wamid.echo1',
    '{"type": "reaction", "reaction": {"message_id": "wamid.in2", "emoji": "x"}}');
SELECT is(pg_temp.conversation(1), '1 unread', 'a reaction from the queue is no answer');
SELECT is(pg_temp.conversation(2), '1 unread', 'one from the app is none either');

SELECT world.say(1);
SELECT pg_temp.send();
SELECT pg_temp.post('message_echoes', 2, 'wamid.echo2', '{"type": "text", "text": {"body": "Yes"}}');
SELECT is(pg_temp.conversation(1), '0 unread answered free', 'a text from the queue is');
SELECT is(pg_temp.conversation(2), '0 unread answered free', 'one from the app, too');

SELECT world.later('1 minute');
SELECT pg_temp.post('messages', 1, 'wamid.in3', '{"type": "text", "text": {"body": "Thanks"}}');
SELECT is(pg_temp.conversation(1), '1 unread answered free', 'who writes again waits again');
SELECT world.queue(1, 'hello');
SELECT world.claimed();
SELECT world.complete(queue_id, '{"outcome": "answered", "status": 400,
    "answer": {"error": {"code": 131026, "message": "undeliverable"}}}') FROM wa_queue_inflight;
SELECT is(pg_temp.conversation(1), '1 unread answered free', 'a message that fails is no answer');

-- The free time of customer 1 runs on after retention has deleted the answer that began it.
SELECT entry_point_expires_at AS free_until FROM wa_conversations WHERE phone_e164 = world.customer(1) \gset
DELETE FROM wa_messages m WHERE m.direction = 'outbound';
SELECT world.later('1 minute');
SELECT world.say(1);
SELECT pg_temp.send();
SELECT is(
    (SELECT entry_point_expires_at FROM wa_conversations WHERE phone_e164 = world.customer(1)),
    :'free_until'::timestamptz, 'one more answer does not change it'
);
SELECT pg_temp.post('messages', 1, 'wamid.in4', '{"type": "text", "text": {"body": "Bye"}}');
SELECT is(
    (SELECT entry_point_expires_at FROM wa_conversations WHERE phone_e164 = world.customer(1)),
    :'free_until'::timestamptz, 'nor does a message of the customer'
);

SELECT * FROM finish();
ROLLBACK;
