-- Tests sql/organizations/installation.sql, sql/organizations/gate.sql, sql/sending/adopt.sql,
-- sql/sending/dispatchers.sql.
BEGIN;
SELECT plan(23);
\ir ../world.psql

CREATE FUNCTION pg_temp.claim_error() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM world.claim();
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;

-- The recorded identity is that of this database: it sends.
SELECT is((SELECT action FROM adopt_wa_database()), 'nothing to do: this database is the one that sends',
    'the database that was adopted sends');
SELECT is(pg_temp.claim_error(), 'none', 'and claims');

-- Another system, database or timeline: this is a copy, and sends nothing.
SELECT world.queue(n) FROM generate_series(1, 3) n;
CREATE TEMPORARY TABLE flying AS SELECT queue_id AS id FROM world.claim(1);
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at, reference)
VALUES (world.customer(9), 'hello', clock_timestamp() + interval '1 hour', 'later');
SAVEPOINT identity;
UPDATE wa_installations SET timeline_id = timeline_id + 1;
SELECT is(pg_temp.claim_error(), 'WA401', 'a promoted standby claims nothing');
ROLLBACK TO identity;
UPDATE wa_installations SET database_oid = 1;
SELECT is(pg_temp.claim_error(), 'WA401', 'nor does a clone in the same server');
ROLLBACK TO identity;
UPDATE wa_installations SET system_identifier = '1';
SELECT is(pg_temp.claim_error(), 'WA401', 'nor a restored dump');
SELECT throws_ok($$ SELECT start_wa_dispatcher(gen_random_uuid(), 'here', 2,
    (SELECT schema_version FROM wa_version())) $$, 'WA401', NULL,
    'a dispatcher does not even start');
SELECT throws_ok($$ SELECT maintain_wa_dispatch(gen_random_uuid()) $$, 'WA401', NULL,
    'one that runs gives up');
SELECT lives_ok('SELECT world.queue(4)', 'applications may queue');
SELECT ok(count(*) = 1, 'webhooks may settle what was in flight')
FROM (SELECT _wa_settle_from_callback(current_wa_organization(), ARRAY[id], ARRAY[1], ARRAY['wamid.1'])
    FROM flying OFFSET 0) x;
ROLLBACK TO identity;

-- adopting it
UPDATE wa_installations SET system_identifier = '1';
SAVEPOINT copy;
SELECT results_eq('SELECT messages FROM adopt_wa_database()', 'VALUES (1::bigint), (2::bigint)',
    'adopting names what was in flight and what was due');
SELECT is(pg_temp.claim_error(), 'none', 'from then on it sends');
SELECT is(world.claimed(), 0, 'but not what the original may have sent');
SELECT is(world.reason(id), 'outcome_unknown', 'what was in flight waits for its callback data') FROM flying;
SELECT is((SELECT string_agg(DISTINCT error_code, ',') FROM wa_outbound_queue WHERE status = 'failed'),
    'in_doubt', 'what was due is in doubt');
SELECT is((SELECT status FROM wa_outbound_queue WHERE reference = 'later'), 'pending',
    'what is due later is not');
SELECT _wa_settle_from_callback(current_wa_organization(), ARRAY[id], ARRAY[1], ARRAY['wamid.2'])
    FROM wa_outbound_queue WHERE reference = '2';
SELECT is(retry_wa_messages(ids => (SELECT array_agg(id) FROM wa_outbound_queue
    WHERE error_code = 'in_doubt')), 2, 'a person decides to send it again');
SELECT is(world.claimed(), 2, 'and it is sent');
ROLLBACK TO copy;
SELECT count(*) FROM adopt_wa_database('keep');
SELECT is(world.claimed(), 2, 'unless it is known that the original had stopped before');
SELECT throws_ok($$ SELECT adopt_wa_database('perhaps') $$, '22023', NULL, 'fail or keep');

-- rights
CREATE ROLE wa_installation_app IN ROLE wa_app;
SET LOCAL ROLE wa_installation_app;
SELECT throws_ok('SELECT adopt_wa_database()', '42501', NULL, 'applications adopt nothing');
SELECT throws_ok('SELECT set_wa_sending(false)', '42501', NULL, 'and throw no switch');
RESET ROLE;
CREATE ROLE wa_installation_dispatcher IN ROLE wa_dispatcher;
SET LOCAL ROLE wa_installation_dispatcher;
SELECT is(start_wa_dispatcher('00000000-0000-0000-0000-000000000005', 'here', 3,
    (SELECT schema_version FROM wa_version())) ->> 'wake_channel',
    'wa_queue', 'a dispatcher is told its settings');
SELECT lives_ok($$ SELECT stop_wa_dispatcher('00000000-0000-0000-0000-000000000005') $$, 'and says good-bye');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
