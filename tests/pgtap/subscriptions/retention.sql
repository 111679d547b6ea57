-- Tests sql/subscriptions/retention.sql.
BEGIN;
SELECT plan(15);
\ir subscribers.psql
SELECT world.subscribe();
UPDATE wa_organizations SET message_retention = interval '90 days';

-- Everything so long ago.
CREATE FUNCTION world.age(p_by interval) RETURNS void LANGUAGE sql AS $$
    UPDATE wa_event_deliveries SET created_at = created_at - p_by, ended_at = ended_at - p_by;
    UPDATE wa_event_secrets SET valid_until = valid_until - p_by;
$$;

SELECT world.happen(n) FROM generate_series(1, 3) n \g /dev/null
SELECT world.happen(1, 'received', 'behind');
SELECT world.claim();
SELECT world.good(p_n => 2);
SELECT world.bad(p_n => 1);
SELECT is(world.count(), 'delivered 1, sending 1, waiting 2', 'what there is');
UPDATE wa_event_deliveries SET ended_at = clock_timestamp() WHERE state = 'delivered';
SELECT is(run_wa_retention(), 0, 'nothing is old enough');
SELECT world.age('6 days');
SELECT is(run_wa_retention(), 0, 'nor after six days');
UPDATE wa_organizations SET event_delivery_retention = NULL;
SELECT world.age('2 days');
SELECT is(run_wa_retention(), 0, 'nor where everything is kept');
UPDATE wa_organizations SET event_delivery_retention = '7 days';
SELECT is(run_wa_retention(), 1, 'then what has ended goes');
SELECT is(world.count(), 'sending 1, waiting 2', 'and nothing else');
SELECT world.age('90 days');
SELECT is(run_wa_retention(), 0, 'what waits stays while it is tried');
SELECT pause_wa_event_subscription(world.id());
UPDATE wa_event_deliveries SET created_at = clock_timestamp() WHERE order_key LIKE 'contact:1:%' AND position > 1;
SELECT is(run_wa_retention(), 1, 'where nothing is pushed any more it goes with its messages');
SELECT is(world.count(), 'sending 1, waiting 1', 'but for what is under way');
SELECT resume_wa_event_subscription(world.id());
SELECT is(world.claim('1 day'), '{3:Hello,1:behind}', 'what waited behind it waits for nothing more');

SELECT world.good('1 day');
UPDATE wa_event_deliveries SET ended_at = clock_timestamp() - interval '8 days';
SELECT is(run_wa_retention(1), 1, 'as many at a time as it is told');
SELECT is(run_wa_retention(1), 1, 'one after the other');

SELECT rotate_wa_event_secret(world.id(), decode(repeat('cd', 40), 'hex'), 'key 2', 'print 2');
SELECT world.age('23 hours');
SELECT run_wa_retention();
SELECT is((SELECT count(*) FROM wa_event_secrets), 2::bigint, 'a former secret stays while it signs');
SELECT world.age('2 hours');
SELECT run_wa_retention();
SELECT is((SELECT array_agg(key_id) FROM wa_event_secrets), '{key 2}', 'and goes then');
SELECT throws_ok($$ UPDATE wa_organizations SET event_delivery_retention = '1 minute' $$, '23514', NULL, 'an hour at least');

SELECT * FROM finish();
ROLLBACK;
