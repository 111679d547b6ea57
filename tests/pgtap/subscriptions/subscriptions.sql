-- Tests sql/subscriptions/subscriptions.sql.
BEGIN;
SELECT plan(52);
\ir subscribers.psql
CREATE ROLE wa_push_app IN ROLE wa_app;

-- making
SELECT world.happen(1, 'received', 'before');
SET LOCAL ROLE wa_push_app;
SELECT is(create_wa_event_subscription(world.id('a'), 'https://a.example/hook', '{message,status.failed}',
    decode(repeat('ab', 40), 'hex'), 'key', 'print'), world.id('a'), 'an application subscribes');
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://10.0.0.1/', '{message}', '\x00', 'k', 'p') $$,
    'WA041', NULL, 'not to an address inside');
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://b.example/', '{nonsense}', '\x00', 'k', 'p') $$,
    '22023', NULL, 'not to what does not exist');
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://b.example/', '{message,NULL}', '\x00', 'k', 'p') $$,
    '22023', NULL, 'nor to nothing among others');
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://b.example/', '{}', '\x00', 'k', 'p') $$,
    '22023', NULL, 'nor to nothing at all');
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://b.example/', '{message}', 'whsec_plain', 'k', 'p') $$,
    '22023', NULL, 'a secret that is not sealed is refused');
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://b.example/', '{message}', NULL, 'k', 'p') $$,
    '22023', NULL, 'and so is none');
SET LOCAL wa.is_test_only = true;
SELECT throws_ok($$ SELECT create_wa_event_subscription(gen_random_uuid(), 'https://b.example/', '{message}', '\x00', 'k', 'p') $$,
    'WA605', NULL, 'a test key has nothing pushed');
SELECT throws_ok($$ SELECT pause_wa_event_subscription(world.id('a')) $$, 'WA605', NULL, 'and keeps nothing from others');
SET LOCAL wa.is_test_only = false;
SELECT throws_ok('SELECT ciphertext FROM wa_event_secrets', '42501', NULL, 'nobody reads a secret');
SELECT results_eq('SELECT url, kinds, state, waiting, failing_since FROM wa_event_subscription_health',
    $$ VALUES ('https://a.example/hook', '{message,status.failed}'::text[], 'active', 0::bigint, NULL::timestamptz) $$,
    'how it stands');
RESET ROLE;
SELECT results_eq($$ SELECT event, entity_id, meta FROM audit_log WHERE event LIKE 'event_%' $$,
    $$ VALUES ('event_subscription_created', world.id('a')::text,
        '{"kinds": ["message", "status.failed"], "key_id": "key"}'::jsonb) $$, 'it leaves a trace');

-- what is wanted
SELECT world.happen(1, 'received', 'in'), world.happen(2, 'delivered', 'delivered'), world.happen(3, 'failed', 'failed'),
    world.happen(4, 'sent', 'sent');
SELECT is(world.claim(), '{1:in,3:failed}', 'what happened since, of the kinds that were asked for');
SELECT is(_wa_event_type(k, s), t, format('%s of %s is %s', s, k, t)) FROM (VALUES ('message', 'received', 'message.received'),
    ('message', 'sent', 'message.echo'), ('status', 'sent', 'status.sent')) x (k, s, t);
SELECT results_eq('SELECT last_error, waiting, oldest_due_at, oldest_unread_at FROM wa_event_subscription_health',
    $$ VALUES (NULL::text, 2::bigint, NULL::timestamptz, NULL::timestamptz) $$, 'what is under way counts as waiting');
SELECT world.happen(5, 'sent', 'unread');
SELECT is(oldest_unread_at, (SELECT max(created_at) FROM wa_events), 'what nobody has looked at tells its age')
FROM wa_event_subscription_health;

-- changing
SET LOCAL ROLE wa_push_app;
SELECT lives_ok($$ SELECT change_wa_event_subscription(world.id('a'), p_kinds => '{status}') $$, 'kinds can be changed');
SELECT lives_ok($$ SELECT change_wa_event_subscription(world.id('a'), 'https://c.example/') $$, 'and the URL');
SELECT throws_ok($$ SELECT change_wa_event_subscription(world.id('a'), 'gopher://c.example/') $$, 'WA041', NULL, 'not to any');
SELECT throws_ok($$ SELECT change_wa_event_subscription(world.id('a'), p_kinds => '{x}') $$, '22023', NULL, 'nor to any kind');
SELECT results_eq('SELECT url, kinds FROM wa_event_subscriptions', $$ VALUES ('https://c.example/', '{status}'::text[]) $$,
    'so it stands');
SELECT throws_ok(format(call, gen_random_uuid()), 'WA040', NULL, call) FROM unnest(ARRAY[
    'SELECT change_wa_event_subscription(%L)', 'SELECT pause_wa_event_subscription(%L)', 'SELECT resume_wa_event_subscription(%L)',
    'SELECT delete_wa_event_subscription(%L)', 'SELECT test_wa_event_subscription(%L)', 'SELECT resend_wa_event_deliveries(%L)',
    $$ SELECT rotate_wa_event_secret(%L, '\x00', 'k', 'p') $$]) call;

-- secrets
SELECT ok(until BETWEEN clock_timestamp() + interval '23 hours' AND clock_timestamp() + interval '25 hours',
    'a secret is changed')
FROM rotate_wa_event_secret(world.id('a'), decode(repeat('cd', 40), 'hex'), 'key 2', 'print 2') until;
SELECT throws_ok($$ SELECT rotate_wa_event_secret(world.id('a'), '\x00', 'k', 'p', '31 days') $$, '22023', NULL,
    'the former one does not stay for long');
SELECT throws_ok($$ SELECT rotate_wa_event_secret(world.id('a'), '\x00', 'k', 'p', '-1 day') $$, '22023', NULL,
    'nor less than not at all');
RESET ROLE;
SELECT world.good();
SELECT world.happen(5, 'failed', 'x');
SELECT is((SELECT DISTINCT key_ids FROM _wa_claim_event_deliveries(10, 10, '{key,key 2,key 3}', clock_timestamp())), '{key 2,key}'::text[],
    'both sign, the new one first');
SELECT rotate_wa_event_secret(world.id('a'), decode(repeat('ef', 40), 'hex'), 'key 3', 'print 3', '0');
SELECT is((SELECT array_agg(key_id ORDER BY created_at) FROM wa_event_secrets), '{key 2,key 3}', 'never more than two');
SELECT world.good('1 day');
SELECT world.happen(6, 'failed', 'x');
SELECT is((SELECT DISTINCT key_ids FROM _wa_claim_event_deliveries(10, 10, '{key,key 2,key 3}', clock_timestamp() + interval '2 days')), '{key 3}'::text[],
    'the former one only as long as it may');

-- pausing
SELECT world.good('2 days');
SELECT pause_wa_event_subscription(world.id('a'));
SELECT is(world.state(), 'disabled paused', 'paused');
SELECT world.happen(1, 'read', 'meanwhile'), world.happen(1, 'read', 'then');
SELECT is(world.claim('3 days'), '{}', 'nothing is pushed');
SELECT throws_ok($$ SELECT test_wa_event_subscription(world.id('a')) $$, 'WA240', NULL, 'no test either');
SELECT throws_ok($$ SELECT resend_wa_event_deliveries(world.id('a')) $$, 'WA240', NULL, 'nor anything again');
SELECT resume_wa_event_subscription(world.id('a'));
SELECT is(world.claim('3 days'), '{1:meanwhile}', 'resumed, it gets what happened meanwhile');
SELECT pause_wa_event_subscription(world.id('a'));
SELECT world.good('3 days');
SELECT world.happen(7, 'read', 'unread');
SELECT resume_wa_event_subscription(world.id('a'), p_from_now => true);
SELECT is(world.claim('4 days'), '{}', 'or, if asked for, none of it');
SELECT is((SELECT error FROM wa_event_deliveries WHERE state = 'failed'), 'passed over when the subscription was resumed',
    'which the list tells');
SELECT world.happen(7, 'read', 'now');
SELECT is(world.claim('4 days'), '{7:now}', 'only what happens from now on');
SELECT world.good('4 days');

-- a test
SELECT is(test_wa_event_subscription(world.id('a')), -1::bigint, 'a test event');
SELECT is(test_wa_event_subscription(world.id('a')), -2::bigint, 'and another');
SELECT is(world.claim('4 days'), '{test,test}', 'are pushed');
SELECT world.good('4 days');

-- again
SELECT is(resend_wa_event_deliveries(world.id('a')), 1, 'what failed is pushed again');
SELECT is(world.claim('4 days'), '{1:then}', 'at once');
SELECT world.good('4 days');
SELECT is(resend_wa_event_deliveries(world.id('a'), ARRAY[-1::bigint]), 1, 'or what is named');

-- the end
SELECT delete_wa_event_subscription(world.id('a'));
SELECT is((SELECT count(*) FROM wa_event_deliveries) + (SELECT count(*) FROM wa_event_secrets), 0::bigint, 'nothing is left');

SELECT world.subscribe(n::text) FROM generate_series(10, 59) n \g /dev/null
SELECT throws_ok($$ SELECT world.subscribe('60') $$, 'WA241', NULL, 'there is an end to how many');

SELECT * FROM finish();
ROLLBACK;
