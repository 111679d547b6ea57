-- Tests sql/subscriptions/delivering.sql.
BEGIN;
SELECT plan(44);
\ir subscribers.psql
CREATE ROLE wa_push_dispatcher IN ROLE wa_dispatcher;
SELECT world.subscribe();

-- what is handed out
SELECT world.happen(1, 'received', 'Grüße "in" a text');
CREATE TEMPORARY TABLE handed AS SELECT * FROM _wa_claim_event_deliveries(10, 100, '{key}', world.at());
SELECT results_eq('SELECT url, attempt, timeout_s, ciphertexts, key_ids FROM handed',
    $$ VALUES ('https://a.example/hook', 1, 15::double precision, ARRAY[decode(repeat('ab', 40), 'hex')], '{key}'::text[]) $$,
    'where to, with what to sign');
SELECT is((SELECT body::jsonb - 'data' FROM handed), jsonb_build_object('type', 'message.received',
    'timestamp', '2026-11-30T12:00:00.500000Z', 'organization_id', world.org()), 'what happened, when, to whom');
SELECT is(
    (SELECT array_agg(k ORDER BY k) FROM handed, jsonb_object_keys(body::jsonb -> 'data') k),
    (SELECT array_agg(a.name ORDER BY a.name) FROM pg_proc p, unnest(p.proargnames[3:]) a (name)
        WHERE p.oid = 'read_wa_events(text, integer)'::regprocedure AND a.name <> 'occurred_at'),
    'with all that read_wa_events() tells');
SELECT is((SELECT body::jsonb #>> '{data,content_text}' FROM handed), 'Grüße "in" a text', 'as it was said');
SELECT matches((SELECT webhook_id FROM handed), '^evt_[0-9a-f]{32}$', 'under an id');
SELECT is(world.claim(), '{}', 'nobody else gets it');
SELECT is(world.claim('44 seconds'), '{}', 'for as long as it may take');
SELECT is((SELECT webhook_id FROM _wa_claim_event_deliveries(10, 100, '{key}', world.at('46 seconds'))), (SELECT webhook_id FROM handed),
    'what nobody answered for is handed out again, under the same id');
SELECT is((SELECT attempts FROM wa_event_deliveries), 2, 'as another attempt');
SELECT world.good('46 seconds');
SELECT is((SELECT concat_ws(' ', state, http_status, duration_ms) FROM wa_event_deliveries), 'delivered 204 12', 'until it arrives');

-- order: one after the other in a conversation, conversations side by side
SELECT world.happen(c, 'received', n::text) FROM generate_series(1, 3) n, generate_series(1, 2) c \g /dev/null
SELECT is(world.claim(), '{1:1,2:1}', 'the first of each conversation');
SELECT world.good(p_n => 1);
SELECT is(world.claim(), '{1:2}', 'the next when the one before has arrived');
SELECT world.bad(p_n => 2);
SELECT world.good(p_n => 1);
SELECT is(world.claim('1 second'), '{1:3}', 'what fails holds up its own conversation only');
SELECT is(world.claim('5 seconds'), '{2:1}', 'and is tried again');
SELECT world.good('5 seconds');
SELECT is(world.claim('5 seconds'), '{2:2}', 'before what follows');
SELECT world.happen(2, 'received', '4');
SELECT is(world.claim('6 seconds'), '{}', 'what comes while it is under way lines up');
SELECT world.good('6 seconds');
SELECT is(world.claim('6 seconds'), '{2:3}', 'behind what waits');
SELECT world.good('6 seconds');
SELECT is(world.claim('6 seconds'), '{2:4}', 'to the last');
SELECT world.good('6 seconds');

-- what is sent again goes in order, too
SELECT resend_wa_event_deliveries(world.id(), (SELECT array_agg(event_id) FROM wa_event_deliveries WHERE order_key LIKE 'contact:2:%'));
SELECT is(world.claim('6 seconds'), '{2:1}', 'again from the first');
SELECT world.happen(2, 'received', '5');
SELECT world.good('6 seconds');
SELECT is(world.claim('6 seconds'), '{2:2}', 'one');
SELECT world.good('6 seconds'), world.claim('6 seconds'), world.good('6 seconds'), world.claim('6 seconds'), world.good('6 seconds');
SELECT is(world.claim('6 seconds'), '{2:5}', 'by one');
SELECT world.good('6 seconds');
SELECT world.happen(2, 'received', '6');
SELECT world.claim('6 seconds');
SELECT resend_wa_event_deliveries(world.id(), (SELECT ARRAY[min(event_id)] FROM wa_event_deliveries
    WHERE order_key LIKE 'contact:2:%'));
SELECT is(world.claim('6 seconds'), '{}', 'never beside one that is under way');
SELECT world.good('6 seconds');
SELECT is(array_length(world.claim('6 seconds'), 1), 1, 'but after it');
SELECT world.good('6 seconds');

-- how many at once
SELECT world.happen(n, 'received', 'x') FROM generate_series(101, 140) n \g /dev/null
SELECT is(cardinality(world.claim('7 seconds', p_free => 3)), 3, 'no more than there are places for');
SELECT is(cardinality(world.claim('7 seconds')), 7, 'ten of a subscription');
SELECT is(cardinality(world.claim('7 seconds')), 0, 'at most');
SELECT world.subscribe('b'), world.subscribe('c');
SELECT world.happen(n, 'received', 'x') FROM generate_series(201, 240) n \g /dev/null
SELECT is(cardinality(world.claim('7 seconds', p_free => 50)), 10, 'twenty of an organization together');
SELECT is(cardinality(world.claim('7 seconds')), 1, 'and where there is room one of each that had none');
SELECT is(world.claim('7 seconds'), '{}', 'no more');
SELECT delete_wa_event_subscription(world.id('b')), delete_wa_event_subscription(world.id('c'));
SELECT world.good('8 seconds');
SELECT is(cardinality(world.claim('8 seconds')), 10, 'there is room again');
SELECT world.good('8 seconds');

-- a receiver that fails gets one at a time, and only where there is room for it
DO $$ BEGIN FOR i IN 1 .. 4 LOOP PERFORM world.claim('9 seconds'); PERFORM world.good('9 seconds'); END LOOP; END $$;
SELECT is(cardinality(world.claim('9 seconds')), 10, 'still ten');
SELECT world.bad('9 seconds');
SELECT is((SELECT failures FROM wa_event_subscriptions), 10, 'all of them fail');
SELECT is(world.claim('9 seconds'), '{}', 'then it is left alone for a while');
SELECT is(world.claim('20 minutes', p_free => 50), '{}', 'half of the places are not for those that fail');
SELECT is(cardinality(world.claim('20 minutes', p_free => 51)), 1, 'one at a time');
SELECT is((SELECT attempts FROM wa_event_deliveries WHERE state = 'sending'), 1, 'rather one that was not tried before');
SELECT is(world.claim('20 minutes'), '{}', 'and no other beside it');
SELECT world.good('20 minutes');
SELECT is(cardinality(world.claim('20 minutes')), 10, 'as soon as it gets through, all go on');

-- whoever holds the feed delays nobody, and copies push nothing
SELECT delete_wa_event_subscription(world.id()), world.subscribe(), test_wa_event_subscription(world.id());
SET LOCAL ROLE wa_push_dispatcher;
SELECT ok(has_wa_event_subscriptions('{key}') AND is_wa_event_delivery_due('{key}'), 'dispatchers ask whether there is something to do');
SELECT ok(NOT has_wa_event_subscriptions('{other}') AND NOT is_wa_event_delivery_due('{other}'), 'for who has the key');
SELECT is((SELECT count(*) FROM claim_wa_event_deliveries(100, 100, '{other}', (SELECT schema_version FROM wa_version()))), 0::bigint,
    'nobody else gets anything');
SELECT is((SELECT count(*) FROM claim_wa_event_deliveries(100, 100, '{key}', (SELECT schema_version FROM wa_version()))), 1::bigint,
    'they claim');
SELECT throws_ok($$ SELECT claim_wa_event_deliveries(100, 100, '{key}', '0.0.1') $$, 'WA402', NULL, 'of this release');
RESET ROLE;
UPDATE wa_installations SET system_identifier = '1';
SELECT throws_ok($$ SELECT claim_wa_event_deliveries(100, 100, '{key}', (SELECT schema_version FROM wa_version())) $$, 'WA401', NULL,
    'a copy pushes nothing');

SELECT * FROM finish();
ROLLBACK;
