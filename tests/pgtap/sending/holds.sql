-- Tests sql/sending/holds.sql.
-- What rows wait for stands aside, costs those that can go nothing, and goes on when the cause is gone.
BEGIN;
SELECT plan(70);
\ir ../world.psql

-- What a claim hands out, and how many rows of the line it has left to look at.
CREATE FUNCTION pg_temp.goes() RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(q.reference, ' ' ORDER BY c.n), '')
    FROM world.claim() c JOIN wa_outbound_queue q ON q.id = c.queue_id
$$;
CREATE FUNCTION pg_temp.in_line() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM wa_queue_due WHERE hold_id IS NULL AND due_at <= clock_timestamp()
$$;
CREATE FUNCTION pg_temp.reasons() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(DISTINCT e.reason, ' ' ORDER BY e.reason)
    FROM wa_outbound_queue q, explain_wa_message(q.id) e WHERE q.status = 'pending'
$$;
CREATE FUNCTION pg_temp.clear() RETURNS void LANGUAGE sql AS $$
    SELECT world.accept_all();
    DELETE FROM wa_outbound_queue WHERE status = 'pending';
    SELECT world.later('25 hours');
$$;
UPDATE wa_organizations SET rate_limit_per_minute = NULL;
SELECT world.wrote(900), world.wrote(901);

-- the messaging limit
UPDATE wa_portfolios SET tier_limit = 2;
SELECT count(world.queue(n)) FROM generate_series(1, 30) n;
UPDATE wa_outbound_queue SET expires_at = 'infinity';
SELECT world.say(900);
SELECT is(pg_temp.goes(), '1 2 900', 'two recipients and an answer go in one claim');
SELECT is(pg_temp.in_line(), 0::bigint, 'the others are out of the line');
SELECT is((SELECT count(*) FROM wa_queue_holds), 1::bigint, 'in one hold');
SELECT is(pg_temp.reasons(), 'messaging_limit', 'and say why');
SELECT is(pg_temp.goes(), '', 'no claim looks at them');
SELECT ok(NOT is_contended AND next_due_at > clock_timestamp() + interval '23 hours',
    'and no dispatcher is told to ask before a recipient counts no more')
FROM get_wa_next_due();
SELECT world.wrote(7);
SELECT _wa_release_from_limit(current_wa_organization(), ARRAY[world.contact(world.customer(7))]);
SELECT is(pg_temp.goes(), '7', 'who writes meanwhile waits no longer');
SELECT cancel_wa_messages(reference => '8');
SELECT is((SELECT count(*) FROM wa_queue_due), 26::bigint, 'what waits can be cancelled');
SELECT opt_out_wa_contact(world.customer(9), 'all');
SELECT is(world.outcome(id), 'cancelled opted_out', 'an opt-out reaches what waits')
FROM wa_outbound_queue WHERE reference = '9';
UPDATE wa_outbound_queue SET expires_at = clock_timestamp() - interval '1 second' WHERE reference = '10';
SELECT is(world.reason(id), 'expired', 'what expires says so') FROM wa_outbound_queue WHERE reference = '10';
SELECT is(world.maintain() ->> 'expired', '1', 'and fails');
SELECT is(world.outcome(id), 'failed expired', 'on time') FROM wa_outbound_queue WHERE reference = '10';
UPDATE wa_portfolios SET tier_limit = 4;
SELECT is(pg_temp.goes(), '3 4', 'a higher limit opens the hold at once, for as many as there are places');
SELECT is(pg_temp.goes(), '', 'and no more');
SELECT world.later('24 hours 1 minute');
SELECT is(concat_ws(' ', pg_temp.goes(), nullif(pg_temp.goes(), '')), '5 6 11 12',
    'when recipients stop counting, the next go, in their order');
SELECT is(pg_temp.goes(), '', 'and no more');
UPDATE wa_portfolios SET tier_limit = NULL;
SELECT is(pg_temp.goes(), (SELECT string_agg(n::text, ' ') FROM generate_series(13, 30) n),
    'without a limit all of them');
SELECT is(pg_temp.goes(), '', 'and the claim after');
SELECT is((SELECT count(*) FROM wa_queue_holds), 0::bigint, 'leaves no hold behind');
SELECT pg_temp.clear();

-- what ends the wait for the limit besides
UPDATE wa_portfolios SET tier_limit = 1;
SELECT count(world.queue(n)) FROM generate_series(41, 45) n;
SELECT is(pg_temp.goes(), '41', 'one place');
SELECT world.wrote(942);
SELECT _wa_merge_contacts(current_wa_organization(), world.contact(world.customer(942)),
    world.contact(world.customer(42)));
SELECT is(pg_temp.goes(), '42', 'who turns out to be somebody with an open window needs none');
INSERT INTO wa_portfolios (portfolio_id, tier_limit) VALUES ('other', 1);
UPDATE wa_phone_numbers SET portfolio_id = 'other';
SELECT is(pg_temp.goes(), '43', 'a number that moves to another portfolio has its places');
SELECT is(pg_temp.goes(), '', 'and no more');
SELECT is((
    SELECT w.weighed FROM wa_organizations o, wa_phone_numbers n, wa_queue_due d, _wa_weigh_due(
        o, n, '00000000-0000-0000-0000-000000000001', ARRAY[d.queue_id], ARRAY[d.contact_id + 1],
        ARRAY[d.template_id], ARRAY[d.class], 3, clock_timestamp()) w
    WHERE d.contact_id = world.contact(world.customer(44))
), '{}'::uuid[], 'a row that became another contact''s since it was picked is not judged');
UPDATE wa_portfolios SET tier_limit = NULL;
SELECT pg_temp.clear();

-- a recipient
SELECT world.wrote(900), world.wrote(901);
SELECT count(world.say(901, n::text)) FROM generate_series(1, 60) n;
SELECT world.say(900);
SELECT is(length(replace(pg_temp.goes(), '901 ', '')), 3, 'behind a burst to one recipient another gets its own');
SELECT is(pg_temp.in_line(), 0::bigint, 'what is over the pair rate is out of the line');
SELECT world.accept_all();
INSERT INTO wa_outbound_queue (phone, text_body, reference, priority)
VALUES (world.customer(901), 'urgent', 'urgent', 'high');
SELECT is(pg_temp.goes(), '', 'nothing overtakes the pair rate');
SELECT ok(world.held_for(id) > 200, 'nor does one that is queued behind it shorten the wait')
FROM wa_outbound_queue WHERE reference = 'urgent';
SELECT world.later('4 minutes 31 seconds');
SELECT is(pg_temp.goes(), 'urgent', 'when the debt is paid, one goes: the urgent one');
SELECT world.accept_all();
SELECT world.later('6.3 seconds');
SELECT is((SELECT body #>> '{text,body}' FROM world.claim()), '46', 'then the next');
SELECT world.accept_all();
SELECT world.later('1 minute');
SELECT is((SELECT string_agg(body #>> '{text,body}', ' ') FROM world.claim()),
    '47 48 49 50 51 52 53 54 55', 'those whose time has passed go together');
SELECT pg_temp.clear();

-- a restriction of Meta's
SELECT world.wrote(900), world.wrote(901);
UPDATE wa_phone_numbers SET templates_blocked_until = clock_timestamp() + interval '1 hour';
SELECT count(world.queue(n)) FROM generate_series(1, 5) n;
SELECT world.say(900);
SELECT is(pg_temp.goes(), '900', 'while templates are restricted answers go');
SELECT is(pg_temp.in_line(), 0::bigint, 'the templates are out of the line');
SELECT is(pg_temp.reasons(), 'restricted', 'and say why');
UPDATE wa_phone_numbers SET templates_blocked_until = NULL, replies_blocked_until = clock_timestamp() + interval
    '1 hour';
SELECT world.say(901);
SELECT is(pg_temp.goes(), '1 2 3 4 5', 'when it is lifted by hand they go, and answers wait');
SELECT is(pg_temp.in_line(), 0::bigint, 'out of the line');
SELECT world.later('1 hour');
SELECT is(pg_temp.goes(), '901', 'until their time has come');
SELECT pg_temp.clear();

-- a line full of rows that fail is passed over, and cleared a few at a time
SELECT world.wrote(n) FROM generate_series(1001, 2200) n;
SELECT count(world.say(n)) FROM generate_series(1001, 2200) n;
UPDATE wa_conversation_windows SET window_denied_at = clock_timestamp();
UPDATE wa_conversation_windows SET window_denied_at = NULL
WHERE contact_id = world.contact(world.customer(2200));
SELECT is((SELECT count(*) FROM world.claim(10)), 1::bigint, 'behind 1199 whose window is closed one goes');
SELECT ok((SELECT is_skipping FROM wa_lane_states), 'by passing over them');
SELECT ok((SELECT is_sifting FROM get_wa_next_due()), 'a dispatcher is told that rows are being set aside');
DO $$
BEGIN
    FOR i IN 1 .. 200 LOOP
        PERFORM world.claimed(100);
        EXIT WHEN (SELECT count(*) FROM wa_queue_due) = 0;
    END LOOP;
END
$$;
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE error_code = 'window_closed'), 1199::bigint,
    'all of them fail in the end');
SELECT world.later('2 seconds');
SELECT is(world.claimed(), 0, 'and then');
SELECT ok(NOT (SELECT is_skipping FROM wa_lane_states), 'the line is read as usual');
SELECT pg_temp.clear();

-- what became due again stands before what is behind it, however it waited
SELECT world.wrote(900);
SELECT world.say(900, 'first');
SELECT is(world.claimed(), 1, 'the first is in flight');
SELECT world.say(900, 'second');
SELECT is((SELECT count(*) FROM world.claim(p_dispatcher => '00000000-0000-0000-0000-000000000002')),
    0::bigint, 'another dispatcher leaves the second alone');
SELECT is(pg_temp.reasons(), 'in_order', 'which says why');
SELECT world.accept_all();
SELECT is((SELECT body #>> '{text,body}' FROM world.claim()), 'second', 'an answer lets go of it at once');

SELECT world.accept_all();

-- one after the other, each when the one before was delivered
SELECT world.wrote(901);
UPDATE wa_organizations SET order_mode = 'delivered', order_wait = '1 hour';
SELECT count(world.say(901, n::text)) FROM generate_series(1, 60) n;
SELECT is(pg_temp.goes(), '901', 'one goes');
SELECT world.accept_all();
CREATE FUNCTION pg_temp.delivered() RETURNS void LANGUAGE sql AS $$
    WITH told AS (UPDATE wa_messages SET state = 'delivered' WHERE state = 'accepted' RETURNING organization_id, id)
    SELECT _wa_release_after_status(t.organization_id, array_agg(t.id)) FROM told t GROUP BY t.organization_id;
$$;
SELECT is(pg_temp.goes(), '', 'the next waits for its delivery');
SELECT pg_temp.delivered();
SELECT is((SELECT body #>> '{text,body}' FROM world.claim()), '2', 'which lets go of it');
SELECT is(pg_temp.goes(), '', 'but of no other');
SELECT world.accept_all();
SELECT pg_temp.delivered();
SELECT is((SELECT body #>> '{text,body}' FROM world.claim()), '3', 'and so on, at once each time');
SELECT world.accept_all();
CREATE FUNCTION pg_temp.read(p_text text) RETURNS void LANGUAGE sql AS $$
    WITH told AS (
        UPDATE wa_messages SET state = 'read' WHERE id = (
            SELECT max(m.id) FROM wa_messages m WHERE m.content_text = p_text
        ) RETURNING organization_id, id
    )
    SELECT _wa_release_after_status(t.organization_id, array_agg(t.id)) FROM told t GROUP BY t.organization_id;
$$;
SELECT pg_temp.read('2');
SELECT is((SELECT string_agg(state, ' ' ORDER BY id) FROM wa_messages WHERE id > (SELECT max(id) - 2 FROM wa_messages)),
    'read accepted', 'an older message is read');
SELECT is(pg_temp.goes(), '', 'which is no delivery of the last');
SELECT pg_temp.read('3');
SELECT is((SELECT body #>> '{text,body}' FROM world.claim()), '4', 'its own reading is');
SELECT world.accept_all();
UPDATE wa_organizations SET order_mode = 'accepted';
SELECT is((SELECT count(*) FROM world.claim()), 41::bigint,
    'when that is not wanted any more, as many go as the pair rate allows');
SELECT pg_temp.clear();

-- a status may bring the callback data before the answer, and a dispatcher may die
UPDATE wa_organizations SET order_mode = 'delivered', order_wait = '1 hour';
SELECT world.wrote(921), world.wrote(922);
SELECT world.say(n, 'first') FROM generate_series(921, 922) n;
SELECT world.say(n, 'second') FROM generate_series(921, 922) n;
SELECT is(world.claimed(), 2, 'the first go');
SELECT _wa_settle_callbacks(organization_id, ARRAY[jsonb_populate_record(
    NULL::_wa_webhook_atoms, jsonb_build_object('kind', 'status', 'payload', jsonb_build_object('id', 'wamid.921',
    'status', 'sent', 'biz_opaque_callback_data', 'q:' || id || ':1')))])
FROM wa_outbound_queue WHERE reference = '921' AND text_body = 'first';
SELECT is(world.claimed(), 0, 'what a callback settled is not delivered yet');
SELECT pg_temp.delivered();
SELECT is(pg_temp.goes(), '921', 'then the next goes');
UPDATE wa_queue_inflight SET deadline_at = clock_timestamp() WHERE contact_id = world.contact(world.customer(922));
SELECT is(world.maintain() ->> 'lost', '1', 'a dispatcher died');
SELECT is(pg_temp.goes(), '922', 'and keeps the next for no longer than its lease');
UPDATE wa_organizations SET order_mode = 'accepted';
SELECT pg_temp.clear();

-- a number that is deleted takes nothing with it
SELECT world.queue(1);
SELECT throws_ok($$ DELETE FROM wa_phone_numbers $$, 'WA204', NULL, 'not while messages wait');
SELECT is(pg_temp.goes(), '1', 'they go');
SELECT throws_ok($$ DELETE FROM wa_phone_numbers $$, 'WA204', NULL, 'nor while one is being sent');
SELECT pg_temp.clear();

-- a claim closes only the holds that it took from
UPDATE wa_organizations SET order_mode = 'delivered', order_wait = '1 hour';
SELECT world.wrote(n) FROM generate_series(931, 933) n;
SELECT count(world.say(n, 'first')) FROM generate_series(931, 933) n;
SELECT is(world.claimed(), 3, 'the first of three recipients go');
SELECT world.accept_all();
SELECT count(world.say(n, 'second')) FROM generate_series(931, 933) n;
SELECT is(world.claimed(), 0, 'the second wait');
SELECT pg_temp.delivered();
SELECT is(world.claimed(1), 1, 'all are delivered, and one is asked for');
SELECT is(world.claimed(), 2, 'the others go next, not when order_wait is over');
SELECT pg_temp.clear();

-- those that can give nothing hide no others
UPDATE wa_organizations SET order_mode = 'accepted', rate_limit_per_minute = 1;
SELECT world.later('2 minutes');
INSERT INTO wa_queue_holds (organization_id, number_id, kind, contact_id, reason, opens_at)
SELECT current_wa_organization(), n.id, 'recipient', world.contact(world.customer(5000 + g)), 'in_order',
    clock_timestamp() - interval '1 second'
FROM wa_phone_numbers n, generate_series(1, 210) g;
SELECT count(world.queue(5000 + g)) FROM generate_series(1, 210) g;
UPDATE wa_queue_due d SET hold_id = h.id, hold_reason = 'recipient'
FROM wa_queue_holds h WHERE h.contact_id = d.contact_id;
SELECT world.wrote(900);
SELECT world.say(900);
INSERT INTO wa_queue_holds (organization_id, number_id, kind, contact_id, reason, opens_at)
SELECT current_wa_organization(), n.id, 'recipient', world.contact(world.customer(900)), 'in_order',
    clock_timestamp()
FROM wa_phone_numbers n;
UPDATE wa_queue_due d SET hold_id = h.id, hold_reason = 'recipient'
FROM wa_queue_holds h WHERE h.contact_id = d.contact_id AND d.hold_id IS NULL;
SELECT ok('900' = ANY (string_to_array(concat_ws(' ', pg_temp.goes(), pg_temp.goes(), pg_temp.goes()), ' ')),
    'an answer goes, however many templates before it wait for the minute');
SELECT pg_temp.clear();
SELECT world.maintain();
SELECT is((SELECT count(*) FROM wa_queue_due WHERE hold_id IS NOT NULL), 0::bigint, 'nothing is left behind');
SELECT * FROM finish();
ROLLBACK;
