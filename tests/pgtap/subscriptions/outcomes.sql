-- Tests sql/subscriptions/outcomes.sql.
BEGIN;
SELECT plan(39);
\ir subscribers.psql
CREATE ROLE wa_push_app IN ROLE wa_app;
CREATE ROLE wa_push_dispatcher IN ROLE wa_dispatcher;
SELECT world.subscribe();

SELECT is((SELECT array_agg(round(extract(epoch FROM _wa_event_backoff(n, 1))) ORDER BY n) FROM generate_series(0, 9) n),
    '{5,5,25,125,625,3125,15625,28800,28800,28800}', 'later each time, up to eight hours');
SELECT is(_wa_event_backoff(3, 0) * 2, _wa_event_backoff(3, 1), 'half of it by chance');
SELECT is((SELECT array_agg(round(extract(epoch FROM _wa_event_pause(n, 1))) ORDER BY n) FROM generate_series(2, 12) n),
    '{5,5,10,20,40,80,160,320,600,600,600}', 'a subscription is tried every ten minutes at least');

-- a failure and its retry
SELECT world.happen(1);
SELECT world.claim();
SELECT world.bad();
SELECT results_eq('SELECT state, http_status, answer, error, attempts FROM wa_event_deliveries',
    $$ VALUES ('waiting', 500, 'Oops', 'HTTP 500', 1) $$, 'what it answered');
SELECT results_eq('SELECT failures, failing_since, last_error FROM wa_event_subscriptions',
    $$ VALUES (1, world.at(), 'HTTP 500') $$, 'and that it fails');
SELECT is(world.claim('2 seconds'), '{}', 'not at once');
SELECT is(cardinality(world.claim('5 seconds')), 1, 'but soon');
SELECT world.answer('{"outcome": "no_answer", "error": "no answer in time"}', '5 seconds');
SELECT results_eq('SELECT state, http_status, answer, error FROM wa_event_deliveries',
    $$ VALUES ('waiting', NULL::integer, NULL::text, 'no answer in time') $$, 'no answer is a failure');
SELECT world.claim('30 seconds');
SELECT world.good('30 seconds');
SELECT results_eq('SELECT failures, failing_since, last_error, retry_at, last_success_at FROM wa_event_subscriptions',
    $$ VALUES (0, NULL::timestamptz, NULL::text, NULL::timestamptz, world.at('30 seconds')) $$, 'all is well again');
SELECT results_eq('SELECT state, ended_at, error, attempts FROM wa_event_deliveries',
    $$ VALUES ('delivered', world.at('30 seconds'), NULL::text, 3) $$, 'it arrived');

-- a wish for a later time
SELECT world.happen(2);
SELECT world.claim('1 minute');
SELECT world.answer('{"outcome": "answered", "status": 429, "retry_after": 3600}', '1 minute');
SELECT is(world.claim('59 minutes'), '{}', 'Retry-After is respected');
SELECT is(cardinality(world.claim('61 minutes')), 1, 'and over then');
SELECT world.answer('{"outcome": "answered", "status": 503, "retry_after": 9e5}', '61 minutes');
SELECT ok(next_attempt_at <= world.at('26 hours'), 'within reason') FROM wa_event_deliveries WHERE state = 'waiting';
SELECT world.claim('26 hours');
SELECT world.good('26 hours');

-- redirects, refusals
SELECT world.happen(n) FROM generate_series(1, 4) n \g /dev/null
SELECT world.claim('27 hours');
SELECT world.bad('27 hours', p_n => n, p_status => s) FROM unnest('{1,2,3,4}'::int[], '{301,404,100,299}'::int[]) x (n, s);
SELECT is(world.count(), 'delivered 3, waiting 3', 'only 2xx is a success');
SELECT world.claim('28 hours'), world.good('28 hours');

-- a late answer
UPDATE wa_event_subscriptions SET retry_at = NULL;
SELECT world.claim('29 hours'), world.good('29 hours');
SELECT world.happen(5);
SELECT world.claim('30 hours');
CREATE TEMPORARY TABLE first_try AS SELECT jsonb_build_array(jsonb_build_object('org', organization_id, 'subscription', subscription_id,
    'event', event_id, 'attempt', attempts, 'outcome', 'answered', 'status', 500)) AS result
    FROM wa_event_deliveries WHERE state = 'sending';
SELECT world.claim('31 hours');
SELECT _wa_complete_event_deliveries(result, world.at('31 hours')) FROM first_try;
SELECT is((SELECT attempts FROM wa_event_deliveries WHERE state = 'sending'), 2, 'a failure of an attempt that was given up counts no more');
SELECT _wa_complete_event_deliveries(jsonb_set(result, '{0,status}', '200'), world.at('31 hours')) FROM first_try;
SELECT is(world.count(), 'delivered 7', 'a success does');
SELECT _wa_complete_event_deliveries(jsonb_set(result, '{0,attempt}', '2'), world.at('31 hours')) FROM first_try;
SELECT is(world.count(), 'delivered 7', 'what follows changes nothing');

-- one event that its receiver never takes
SELECT world.happen(1, 'received', 'poison'), world.happen(1, 'received', 'behind');
SELECT is(world.claim('2 days'), '{1:poison}', 'an event');
SELECT world.bad('2 days');
DO $$ BEGIN FOR h IN 49 .. 119 LOOP
    PERFORM world.happen(2, 'received', 'other');
    PERFORM world.claim(make_interval(hours => h));
    PERFORM world.bad(make_interval(hours => h), p_n => 1);
    PERFORM world.good(make_interval(hours => h));
END LOOP; END $$;
SELECT is(world.count(), 'delivered 78, waiting 2', 'that fails for three days while others get through');
SELECT world.claim('128 hours'), world.bad('128 hours', p_n => 1);
SELECT is(world.count(), 'delivered 78, failed 1, waiting 1', 'is given up');
SELECT is(world.claim('128 hours'), '{1:behind}', 'and its conversation goes on');
SELECT world.good('128 hours');
SELECT is(world.state(), 'active', 'the subscription stays');

-- nothing gets through
SELECT world.happen(n) FROM generate_series(1, 50) n \g /dev/null
DO $$ BEGIN FOR h IN 200 .. 319 LOOP
    PERFORM world.claim(make_interval(hours => h));
    PERFORM world.bad(make_interval(hours => h));
END LOOP; END $$;
SELECT is(world.state(), 'active', 'four days and 23 hours');
SELECT ok(world.count() LIKE '%failed 1, waiting 50', 'nothing is given up for it');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'event_subscription_failing'), 0::bigint, 'nobody is told yet');
SELECT world.claim('320 hours'), world.bad('320 hours');
SELECT is(world.state(), 'disabled failing', 'after five days it is disabled');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'event_subscription_failing'), 1::bigint, 'which is told');
SELECT is(world.claim('400 hours'), '{}', 'and nothing is tried any more');
SELECT resume_wa_event_subscription(world.id());
SELECT is(cardinality(world.claim('400 hours')), 10, 'until it is resumed: then all goes on');
SELECT world.good('400 hours');

-- gone
SELECT is(cardinality(world.claim('401 hours')), 10, 'ten under way');
SELECT world.bad('401 hours', p_status => 410);
SELECT is(world.state(), 'gone gone', '410 ends it');
SELECT is(world.claim('402 hours'), '{}', 'for good');
SELECT resume_wa_event_subscription(world.id());
SELECT is(world.state(), 'active', 'unless somebody resumes it');

-- no key at hand
SELECT world.claim('403 hours'), world.good('403 hours');
SELECT world.happen(9, 'received', 'unsigned');
DO $$ BEGIN FOR i IN 1 .. 5 LOOP PERFORM world.claim('404 hours'); PERFORM world.good('404 hours', p_n => i); END LOOP; END $$;
UPDATE wa_event_subscriptions SET retry_at = NULL;
SELECT world.claim('405 hours');
SELECT set_config('world.failures', (SELECT failures::text FROM wa_event_subscriptions), true);
SELECT world.answer('{"outcome": "not_signed", "error": "no key"}', '405 hours');
SELECT results_eq('SELECT failures, last_error, retry_at FROM wa_event_subscriptions',
    $$ VALUES (current_setting('world.failures')::integer, 'no key', world.at('405 hours 1 minute')) $$,
    'what cannot be signed is no failure of the receiver');
SELECT is((SELECT count(*) FROM wa_event_deliveries WHERE state = 'sending'), 0::bigint, 'it waits');

-- whoever holds the row
SELECT is(_wa_complete_event_deliveries(jsonb_build_array(jsonb_build_object('org', world.org(), 'subscription', gen_random_uuid(),
    'event', 1, 'attempt', 1, 'outcome', 'answered', 'status', 200)), world.at()), '[]', 'of a subscription that is gone nothing is left to tell');
SELECT is(_wa_complete_event_deliveries('[]', world.at()), '[]', 'nothing is nothing');
SET LOCAL ROLE wa_push_dispatcher;
SELECT is(complete_wa_event_deliveries('[]'), '[]', 'dispatchers report');
RESET ROLE;
SET LOCAL ROLE wa_push_app;
SELECT throws_ok($$ SELECT complete_wa_event_deliveries('[]') $$, '42501', NULL, 'nobody else');

SELECT * FROM finish();
ROLLBACK;
