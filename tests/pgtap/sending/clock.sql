-- Tests sql/sending/clock.sql, sql/queue/moves.sql, sql/numbers/numbers.sql.
-- The server's clock is set back: what was written before lies in the future, and nothing waits for that.
BEGIN;
SELECT plan(19);
\ir ../world.psql

-- The clock goes back by so much: all that was stored is that much further ahead.
CREATE FUNCTION pg_temp.clock_back(p_by interval) RETURNS void LANGUAGE sql AS $$
    SELECT world.later(-p_by);
    UPDATE wa_outbound_queue SET created_at = created_at + p_by, change_no = change_no + 1;
    UPDATE wa_dispatchers SET seen_at = seen_at + p_by;
$$;

UPDATE wa_organizations SET rate_limit_per_minute = 5;
SELECT world.wrote(n) FROM generate_series(1, 9) n;
SELECT count(world.queue(n)) FROM generate_series(101, 110) n;
SELECT is(world.claimed(), 5, 'the minute is used up');
SELECT world.accept_all();
SELECT world.say(1, n::text) FROM generate_series(1, 50) n;
SELECT is(world.claimed(), 45, 'and a recipient''s burst');
SELECT world.accept_all();
SELECT world.say(2) AS failing \gset
SELECT is(world.claimed(), 1, 'another goes');
SELECT world.refuse(:'failing', 131000, 500);
SELECT is(world.reason(:'failing'), 'retry', 'and waits for its next try');
SELECT world.say(3);
INSERT INTO wa_outbound_queue (phone, text_body, scheduled_at, reference)
VALUES (world.customer(4), 'Later', clock_timestamp() + interval '30 minutes', 'later');

SELECT pg_temp.clock_back('1 hour');
SELECT is(world.claimed(), 0, 'an hour back, nothing is due');
SELECT ok((world.maintain() ->> 'lost') IS NOT NULL, 'a dispatcher looks after it');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'clock_set_back'), 1::bigint, 'which is noted, once');
SELECT ok((world.maintain() ->> 'lost') IS NOT NULL, 'the next one has nothing to do');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'clock_set_back'), 1::bigint, 'and says nothing');
SELECT world.later('1 second');
SELECT is((SELECT string_agg(q.text_body, ' ') FROM world.claim() c JOIN wa_outbound_queue q ON q.id = c.queue_id),
    'Hello', 'what was due at once goes after the second that may have been used');
SELECT is(world.reason(id), 'scheduled', 'what is for later waits for its time by the calendar')
FROM wa_outbound_queue WHERE reference = 'later';
SELECT ok((SELECT held_until < clock_timestamp() + interval '2 minutes' FROM explain_wa_message(:'failing')),
    'a next try comes when it would have come');
SELECT world.later('2 minutes');
SELECT cmp_ok(world.claimed(), '>=', 6, 'limits let go after their own time');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE phone = world.customer(1) AND status = 'pending'),
    5::bigint, 'a recipient waits for the debt of its burst');
SELECT world.later('5 minutes');
SELECT is((SELECT count(*) FROM world.claim() c JOIN wa_outbound_queue q ON q.id = c.queue_id
    WHERE q.phone = world.customer(1)), 5::bigint, 'and no longer');
-- What was queued long ago and is due by what was done of late.
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at, reference)
VALUES (world.customer(201), 'hello', clock_timestamp() - interval '2 hours', 'again');
SELECT pg_temp.clock_back('1 hour');
UPDATE wa_outbound_queue SET created_at = created_at - interval '3 hours', change_no = change_no + 1
WHERE reference = 'again';
SELECT ok((world.maintain() ->> 'lost') IS NOT NULL, 'the clock goes back once more');
SELECT ok(due_at <= clock_timestamp(), 'what has come due by the calendar is due')
FROM wa_queue_due d JOIN wa_outbound_queue q ON q.id = d.queue_id WHERE q.reference = 'again';
SELECT pg_temp.clock_back('3 seconds');
SELECT ok((world.maintain() ->> 'lost') IS NOT NULL, 'a few seconds are over by themselves');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'clock_set_back'), 2::bigint, 'and are no news');

SELECT * FROM finish();
ROLLBACK;
