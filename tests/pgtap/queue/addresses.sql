-- Tests sql/queue/addresses.sql, sql/sending/grant.sql.
BEGIN;
SELECT plan(28);
\ir ../world.psql
\ir ../customers.psql

-- Whom the requests of a claim go to.
CREATE FUNCTION pg_temp.sent_to() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT coalesce(c.body ->> 'to', c.body ->> 'recipient') FROM world.claim() c
$$;

-- Queued to the old number, then the customer changes it.
UPDATE wa_organizations SET confirms_opt_outs = false;
SELECT world.writes(1, 'Hello');
SELECT world.say(1) AS text_id \gset
SELECT world.moves(1, 2);
SELECT is(preview_wa_request(:'text_id') ->> 'to', world.customer(2), 'the preview shows the new number');
SELECT world.writes(1, 'STOP', NULL, 200);
SELECT is(pg_temp.sent_to(), world.customer(2),
    'a row goes to the new number, not to the new owner of the old one');
SELECT is(phone, world.customer(2), 'which it tells from then on') FROM wa_outbound_queue WHERE id = :'text_id';
SELECT world.accept(:'text_id') \g /dev/null
SELECT is(phone_e164, world.customer(2), 'and the ledger, too') FROM wa_messages WHERE queue_id = :'text_id';
SELECT throws_ok($$ SELECT world.queue(1) $$, 'WA102', NULL, 'who has the old number now has opted out');

-- Scheduled for later, and held back.
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at)
VALUES (world.customer(11), 'hello', now() + interval '1 hour');
SELECT world.moves(11, 12);
SELECT world.later('1 hour');
SELECT is(pg_temp.sent_to(), world.customer(12), 'a scheduled row goes to the new number');
SELECT world.accept_all();
SELECT world.queue(13) FROM generate_series(1, 50) \g /dev/null
SELECT is((SELECT DISTINCT sent_to FROM pg_temp.sent_to()), world.customer(13), 'before, to the old number');
SELECT world.accept_all();
SELECT world.moves(13, 14);
SELECT world.later('10 minutes');
SELECT is((SELECT DISTINCT sent_to FROM pg_temp.sent_to()), world.customer(14),
    'what the pair rate held goes to the new one');
SELECT world.accept_all();

-- In flight while the number changes, then tried again.
SELECT world.queue(21) AS flown_id \gset
SELECT is(pg_temp.sent_to(), world.customer(21), 'in flight to the old number');
SELECT world.moves(21, 22);
SELECT world.writes(21, 'Who is this?', NULL, 200);
SELECT is(phone, world.customer(21), 'which the row still tells') FROM wa_outbound_queue WHERE id = :'flown_id';
SELECT world.refuse(:'flown_id', 131000, 500) \g /dev/null
SELECT world.later('10 minutes');
SELECT is(pg_temp.sent_to(), world.customer(22), 'tried again, it goes to the new number');
SELECT world.refuse(:'flown_id', 131026) \g /dev/null
SELECT is(world.outcome(:'flown_id'), 'failed 131026', 'where it fails');

-- retry_wa_messages(): failed before the change, and cancelled before it was ever claimed.
SELECT world.moves(22, 23);
SELECT world.writes(22, 'STOP', NULL, 200);
SELECT world.queue(24) AS cancelled_id \gset
UPDATE wa_outbound_queue SET status = 'cancelled' WHERE id = :'cancelled_id';
SELECT world.moves(24, 25);
SELECT world.writes(24, 'STOP', NULL, 200);
SELECT is(retry_wa_messages(ARRAY[:'flown_id', :'cancelled_id']::uuid[]), 2, 'both are queued again');
SELECT bag_eq('SELECT pg_temp.sent_to()', ARRAY[world.customer(23), world.customer(25)],
    'to the customers that they were for');
SELECT world.accept_all();
SELECT is(phone_e164, world.customer(23), 'the ledger knows where it went at last') FROM wa_messages
WHERE queue_id = :'flown_id';
SELECT world.queue(26) AS lost_id \gset
UPDATE wa_outbound_queue SET status = 'cancelled' WHERE id = :'lost_id';
UPDATE wa_outbound_queue SET contact_id = NULL, change_no = change_no + 1 WHERE id = :'lost_id';
SELECT world.moves(26, 27, 700);
SELECT is(retry_wa_messages(ARRAY[:'lost_id']::uuid[]), 1, 'so is one that does not tell its contact');
SELECT is(pg_temp.sent_to(), world.customer(27), 'and goes to who had the number when it was queued');
SELECT world.accept_all();

-- By the number that they were queued to, too, until they go.
SELECT world.queue(28), world.queue(29) \g /dev/null
SELECT world.moves(28, 29);
SELECT world.queue(28) \g /dev/null
SELECT is(cancel_wa_messages(phone => world.customer(28)), 2, 'what was queued to a former number is cancelled by it');
SELECT is(world.claimed(), 0, 'what was queued to another contact fails, nothing is left');

-- User ids.
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('US.200', 'hello');
SELECT world.told(NULL, NULL, 100, '{"type": "system", "system":
    {"type": "user_changed_user_id", "user_id": "US.201", "previous_user_id": "US.200"}}');
SELECT is(pg_temp.sent_to(), 'US.201', 'a row to a user id that was replaced goes to the new one');
SELECT world.accept_all();
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('US.200', 'hello');
SELECT is(pg_temp.sent_to(), 'US.201', 'also when it is queued afterwards');
SELECT world.accept_all();

-- Whose number has gone to somebody else is written to by user id, if it is known.
SELECT world.writes(31, 'Hello', 'US.31'), world.writes(32, 'Hello', 'US.32');
SELECT world.queue(32) \g /dev/null
SELECT world.moves(31, 32, 100, '{"user_id": "US.33", "previous_user_id": "US.31"}');
SELECT is(pg_temp.sent_to(), 'US.32', 'a row follows its contact, not the number');
SELECT world.accept_all();
SELECT world.writes(41, 'Hello'), world.writes(42, 'Hello');
SELECT world.queue(42) AS stray_id \gset
SELECT world.moves(41, 42);
SELECT is(world.reason(:'stray_id'), 'recipient_changed', 'without one there is no way to the contact');
SELECT is(world.claimed(), 0, 'nothing is sent');
SELECT is(world.outcome(:'stray_id'), 'failed recipient_changed', 'the row fails and says so');
SELECT is(state, 'failed', 'so does its entry in the ledger') FROM wa_messages WHERE queue_id = :'stray_id';
SELECT is((SELECT count(*) FROM wa_queue_inflight WHERE queue_id = :'stray_id'), 0::bigint,
    'it is not in flight');

-- Other spellings of one number stay as they were given.
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('+541140000050', 'hello'), ('+5491140000050', 'hello');
SELECT bag_eq('SELECT pg_temp.sent_to()', ARRAY['+541140000050', '+5491140000050'],
    'both spellings of a number are its contact''s');

SELECT * FROM finish();
ROLLBACK;
