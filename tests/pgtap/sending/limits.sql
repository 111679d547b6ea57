-- Tests sql/sending/limits.sql, sql/sending/pace.sql.
BEGIN;
SELECT plan(50);
\ir ../world.psql

-- an organization's sliding minute
UPDATE wa_organizations SET rate_limit_per_minute = 50;
SELECT world.queue(n) FROM generate_series(1, 60) n;
SELECT is(world.claimed(), 50, 'fifty templates a minute are granted');
SELECT is(world.claimed(), 0, 'and no more at once');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE status = 'pending'), 10::bigint,
    'none is failed for being early');
CREATE TEMPORARY TABLE held AS SELECT id FROM wa_outbound_queue WHERE status = 'pending' ORDER BY id LIMIT 1;
SELECT is(world.reason(id), 'organization_rate', 'a held row says why') FROM held;
SELECT ok(world.held_for(id) BETWEEN 55 AND 60, 'and until when') FROM held;
SELECT is((SELECT hold_reason FROM wa_queue_health), 'organization_rate',
    'so does the number''s line of wa_queue_health');
SELECT world.accept_all();
SELECT world.wrote(1);
SELECT world.say(1), world.queue(2, 'code', '["123"]');
SELECT is(world.claimed(), 2, 'authentication and replies inside a window never wait for it');
SELECT world.later('45 seconds');
SELECT is(world.claimed(), 0, 'the window slides: before a minute is over it stays full');
SELECT world.later('16 seconds');
SELECT is(world.claimed(), 10, 'after it the rest goes');
SELECT world.queue(n) FROM generate_series(101, 160) n;
SELECT is(world.claimed(), 40, 'what went just now counts');
SELECT is(world.claimed(), 0, 'so that the minute is full again');
SELECT ok(next_due_at > clock_timestamp() AND NOT is_contended,
    'a dispatcher is told to come back later, not at once')
FROM get_wa_next_due();
UPDATE wa_organizations SET rate_limit_per_minute = NULL;
SELECT world.later('1 minute');
SELECT is(world.claimed(), 20, 'without a limit nothing waits');

-- Five minutes in steps of odd length, always with more to send than may go.
UPDATE wa_organizations SET rate_limit_per_minute = 50;
DELETE FROM wa_outbound_queue WHERE status = 'pending';
SELECT world.later('2 minutes');
CREATE FUNCTION pg_temp.run(p_steps integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM world.queue(1000 + n) FROM generate_series(1, 400) n;
    FOR v_step IN 1 .. p_steps LOOP
        PERFORM world.claimed(1 + (v_step * 7) % 23);
        PERFORM world.later(make_interval(secs => 0.3 + (v_step * 13 % 31) / 5.0));
    END LOOP;
END
$$;
SELECT pg_temp.run(85);
SELECT is((
    SELECT max(n) FROM (
        SELECT count(*) OVER (ORDER BY claimed_at RANGE BETWEEN interval '60 seconds' PRECEDING
            AND CURRENT ROW) AS n
        FROM wa_outbound_queue WHERE reference::integer > 1000 AND status = 'sending'
    ) w
), 50::bigint, 'in every sliding minute at most fifty, and that many');
SELECT ok(count(*) >= 240, 'over five minutes nearly all that is allowed is used')
FROM wa_outbound_queue WHERE reference::integer > 1000 AND status = 'sending';
UPDATE wa_organizations SET rate_limit_per_minute = NULL;
DELETE FROM wa_outbound_queue WHERE status = 'pending';

-- a number's throughput: evenly, and never more than a moment ahead
UPDATE wa_phone_numbers SET throughput = 10;
SELECT world.queue(n) FROM generate_series(2001, 2030) n;
SELECT world.later('1 minute');
SELECT is(world.claimed(2), 2, 'no more than asked for is taken');
UPDATE wa_lane_states SET next_slot_at = clock_timestamp() - interval '1 minute';
CREATE TEMPORARY TABLE paced AS
SELECT c.queue_id, c.start_in_s FROM claim_wa_messages('00000000-0000-0000-0000-000000000001', 100) c;
SELECT is(count(*), 6::bigint, 'a number is handed out what it may send in the next 0.6 seconds') FROM paced;
SELECT is(array_agg(DISTINCT round(p.gap::numeric, 4)), ARRAY[round(1 / 9.74, 4)], 'evenly spread')
FROM (SELECT start_in_s - lag(start_in_s) OVER (ORDER BY queue_id) AS gap FROM paced OFFSET 1) p;
-- Its moment is a quarter of a second away at most, and may have come.
UPDATE wa_lane_states SET held_until = clock_timestamp() + interval '1 minute' WHERE held_until IS NOT NULL;
SELECT is((SELECT hold_reason FROM wa_queue_health), 'throughput', 'then it waits');
UPDATE wa_lane_states SET next_slot_at = clock_timestamp() + interval '1 minute', held_until = NULL;
SELECT is(world.claimed(), 0, 'for its next slot');
SELECT world.later('1 minute');
SELECT is(world.claimed(), 6, 'and goes on, with no more at once for having waited');
SELECT results_eq(
    $$ SELECT _wa_free_slots('2030-01-01 10:00:00', 80, t::timestamptz)
       FROM unnest('{2030-01-01 09:59:59,2030-01-01 09:59:59.4,2030-01-01 10:00,2030-01-01 11:00}'::text[]) t $$,
    'VALUES (0), (1), (49), (49)', 'slots are free as far ahead as panic mode may be late'
);
-- refused by the provider all the same
SELECT world.refuse(queue_id, 130429) FROM paced;
SELECT is((SELECT share FROM wa_lane_slowdowns), 0.8::double precision,
    'after 130429 it sends a fifth slower, however many refusals tell it');
SELECT results_eq(
    $$ SELECT round(_wa_pace_of(100, 0.8, '2030-01-01 10:00:00', t::timestamptz)::numeric, 3)
       FROM unnest('{2030-01-01 10:00:00,2030-01-01 10:00:10,2030-01-01 10:01}'::text[]) t $$,
    'VALUES (77.92), (87.66), (97.4)', 'and gets faster again'
);
UPDATE wa_phone_numbers SET throughput = 100000;
SELECT world.later('1 minute');
SELECT ok(world.claimed() > 6, 'another throughput holds at once');
SELECT world.accept_all();
DELETE FROM wa_outbound_queue WHERE status = 'pending';

-- Meta's pair rate
SELECT world.later('1 second');
SELECT world.wrote(1);
SELECT world.say(1, 'part ' || n) FROM generate_series(1, 48) n;
SELECT world.later('1 second');
SELECT world.queue(3001);
SELECT is((SELECT count(*) FROM world.claim() WHERE order_key LIKE '%:' || world.contact(world.customer(1))
    || ':_'),
    45::bigint, 'a recipient may get a burst of 45');
SELECT results_eq(
    $$ SELECT world.reason(id), ceil(world.held_for(id) / 6) FROM wa_outbound_queue
       WHERE reference = '1' AND status = 'pending' ORDER BY id $$,
    $$ VALUES ('recipient_rate', 45::numeric), ('recipient_rate', 45), ('recipient_rate', 45) $$,
    'then the debt of six seconds each comes first'
);
SELECT is((SELECT status FROM wa_outbound_queue WHERE reference = '3001'), 'sending',
    'other recipients do not wait for it');
SELECT world.accept_all();
-- By what is left, however long the statements before took.
CREATE FUNCTION pg_temp.later_by_hold(p_more numeric) RETURNS void LANGUAGE sql AS $$
    SELECT world.later(make_interval(secs => (h.least + p_more)::double precision)) FROM (
        SELECT min(world.held_for(id)) AS least FROM wa_outbound_queue
        WHERE reference = '1' AND status = 'pending'
    ) h
$$;
SELECT pg_temp.later_by_hold(-20);
SELECT is(world.claimed(), 0, 'early is early');
SELECT pg_temp.later_by_hold(1);
SELECT is(world.claimed(), 1, 'after the debt they go');
SELECT world.accept_all();
SELECT pg_temp.later_by_hold(3);
SELECT is(world.claimed(), 1, 'six seconds apart');
SELECT world.wrote(2);
SELECT world.say(2, 'part ' || n) FROM generate_series(1, 10) n;
SELECT is(world.claimed(), 10, 'a small burst');
SELECT world.accept_all();
SELECT world.say(2, 'more') FROM generate_series(1, 40) n;
SELECT is((SELECT count(*) FROM world.claim() WHERE order_key LIKE '%:' || world.contact(world.customer(2))
    || ':_'),
    35::bigint, 'may be filled up to 45 for a few seconds');
SELECT world.wrote(3);
SELECT world.say(3, 'part ' || n) FROM generate_series(1, 10) n;
SELECT is((SELECT count(*) FROM world.claim() WHERE order_key LIKE '%:' || world.contact(world.customer(3))
    || ':_'),
    10::bigint, 'ten to another');
SELECT world.accept_all();
SELECT world.say(3, 'more');
SELECT world.later('7 seconds');
SELECT is((SELECT count(*) FROM world.claim() WHERE order_key LIKE '%:' || world.contact(world.customer(3))
    || ':_'),
    0::bigint, 'a later one is no longer part of the burst');
SELECT is(world.reason(id), 'recipient_rate', 'and waits') FROM wa_outbound_queue WHERE text_body = 'more'
    AND reference = '3';
SELECT ok(world.held_for(id) BETWEEN 40 AND 54, 'for what the burst borrowed')
FROM wa_outbound_queue WHERE text_body = 'more' AND reference = '3';
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200');
SELECT world.wrote(3, p_number => '101');
INSERT INTO wa_outbound_queue (phone, text_body, phone_number_id) VALUES (world.customer(3), 'from the other',
    '101');
SELECT is((SELECT count(*) FROM world.claim() WHERE number = '101'), 1::bigint,
    'the rate is one of a pair: another number may write');
DELETE FROM wa_outbound_queue WHERE status = 'pending';

-- the messaging limit of a portfolio
SELECT world.later('25 hours');
UPDATE wa_portfolios SET tier_limit = 3;
SELECT world.wrote(4000);
SELECT world.queue(4000 + n, p_number => (100 + n % 2)::text) FROM generate_series(0, 5) n;
UPDATE wa_outbound_queue SET expires_at = 'infinity' WHERE status = 'pending';
SELECT is(world.claimed(), 4, 'three recipients outside their window, and one inside it that does not count');
SELECT is((SELECT count(DISTINCT phone_number_id) FROM wa_queue_inflight i JOIN wa_phone_numbers n
    ON n.id = i.number_id
    WHERE i.claimed_at > clock_timestamp() - interval '1 minute'), 2::bigint, 'counted over both numbers');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE status = 'pending'
    AND world.reason(id) = 'messaging_limit'), 2::bigint,
    'the others are held for it');
SELECT ok(world.held_for(id) BETWEEN 24 * 3600 - 10 AND 24 * 3600, 'until the oldest is a day ago')
FROM wa_outbound_queue WHERE status = 'pending' LIMIT 1;
-- Recorded first: what is in flight for half a second holds up the next to its recipient.
SELECT id AS counted, reference AS who FROM wa_outbound_queue
WHERE status = 'sending' AND reference::integer BETWEEN 4001 AND 4005 ORDER BY id LIMIT 1 \gset
SELECT world.accept(:'counted');
SELECT world.queue(:who, p_number => '101');
SELECT is(world.claimed(), 1, 'a recipient who is counted may get another');
SELECT world.wrote(n::integer) FROM generate_series(4000, 4005) n;
SELECT world.say(4005);
SELECT is(world.claimed(), 1, 'a reply inside a window is not limited');
SELECT world.later('24 hours 1 second');
SELECT is(world.claimed(), 2, 'after a day the held ones go');
UPDATE wa_portfolios SET tier_limit = 100;
SELECT world.queue(4100 + n) FROM generate_series(0, 2) n;
SELECT is(world.claimed(), 3, 'far from a limit all go');
UPDATE wa_portfolios SET tier_limit = NULL;
SELECT world.queue(4110 + n) FROM generate_series(0, 3) n;
SELECT is(world.claimed(), 4, 'without one, too');
UPDATE wa_portfolios SET tier_limit = 10;
SELECT world.queue(4120 + n) FROM generate_series(0, 3) n;
SELECT is(world.claimed(), 1, 'and they count under the next: 2, 3 and 4 of 10 were used');
DELETE FROM wa_outbound_queue WHERE status = 'pending';

-- a restriction of Meta
UPDATE wa_phone_numbers SET templates_blocked_until = clock_timestamp() + interval '2 hours';
SELECT world.wrote(5001), world.queue(5001), world.say(5001);
SELECT is((SELECT string_agg(body ->> 'type', ',') FROM world.claim()), 'text',
    'a restriction of templates leaves replies');
SELECT is(world.reason(id), 'restricted', 'and holds the template') FROM wa_outbound_queue
    WHERE reference = '5001' AND type = 'template';

SELECT * FROM finish();
ROLLBACK;
