-- Tests sql/jobs/jobs.sql, sql/jobs/schedule.sql, sql/jobs/pg_cron.sql.
BEGIN;
SELECT plan(39);
\ir ../world.psql

-- schedules: the words of cron, in pg_cron's zone
SELECT results_eq($$
    SELECT _wa_next_job_time(s, '2026-11-21 11:45:30+00') AT TIME ZONE 'UTC' FROM unnest(ARRAY[
        '* * * * *', '*/5 * * * *', '45 11 * * *', '1-3,50 * * * *', '0 3 1 * mon', '0 0 29 2 *',
        '30 4 * jan-mar sun', '59 23 31 12 7', '10-40/15 0-6/3 * * *', '10 seconds'
    ]) s
$$, $$
    SELECT t::timestamp FROM unnest(ARRAY[
        '2026-11-21 11:46', '2026-11-21 11:50', '2026-11-22 11:45', '2026-11-21 11:50', '2026-11-23 03:00',
        '2028-02-29', '2027-01-03 04:30', '2026-12-06 23:59', '2026-11-22 00:10', '2026-11-21 11:45:40'
    ]) t
$$, 'the next time that a schedule names');
CREATE FUNCTION world.is_refused(p_schedule text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM _wa_next_job_time(p_schedule, now());
    RETURN false;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN true;
END
$$;
SELECT is_empty($$
    SELECT s FROM unnest(ARRAY['* * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * * 13 *', '* * * * 8',
        '*/0 * * * *', '5/10 * * * *', '7-3 * * * *', 'x * * * *', '* * * foo *', '', '* * * * * *', '0 seconds',
        '60 seconds', '@daily', '1,,2 * * * *', '* * 30 2 *']) s
    WHERE NOT world.is_refused(s)
$$, 'what is no schedule, or never comes, is refused');
SELECT set_config('cron.timezone', 'Europe/Berlin', true);
SELECT results_eq($$
    SELECT _wa_next_job_time('30 2 * * *', '2026-03-28 20:00+00'), _wa_next_job_time('30 2 * * *',
        '2026-10-24 20:00+00'), _wa_next_job_time('30 2 * * *', '2026-07-01 20:00+00')
$$, $$ VALUES ('2026-03-29 01:30+00'::timestamptz, '2026-10-25 01:30+00'::timestamptz,
    '2026-07-02 00:30+00'::timestamptz) $$, 'where pg_cron has a zone of its own, that one, over changes of the clock');
SELECT set_config('cron.timezone', '', true);

-- nothing runs by itself before it was scheduled
SELECT set_eq('SELECT name FROM wa_jobs', ARRAY['audit', 'audit_check', 'cleanup', 'conversations', 'erasures',
    'event_tasks', 'flows', 'rate_windows', 'retention', 'roll_ups'], 'the list');
SELECT is((SELECT count(*) FROM wa_jobs WHERE next_run_at IS NOT NULL), 0::bigint, 'nothing is due at first');
SELECT results_eq('SELECT job, next_due_at FROM run_due_wa_job()', 'SELECT NULL::text, NULL::timestamptz',
    'nothing to run');
SELECT is((SELECT status FROM run_wa_job('retention', p_only_if_due => true)), 'not scheduled', 'and that is said');
SELECT results_eq($$ SELECT name, runs_by, time_zone FROM schedule_wa_jobs() WHERE name = 'retention' $$,
    $$ VALUES ('retention', 'bin/wa dispatch', 'GMT') $$, 'scheduled, for dispatchers where pg_cron is not');
SELECT is((SELECT count(*) FROM wa_jobs WHERE next_run_at > clock_timestamp()
    AND next_run_at <= clock_timestamp() + interval '1 day'), 9::bigint, 'each has its time');
SELECT matches((SELECT note FROM schedule_wa_jobs() WHERE name = 'event_tasks'), 'install_wa_pack\(''events''\)',
    'that of a pack waits for the pack');

-- changes stay
CREATE ROLE wa_jobs_admin IN ROLE wa_admin;
CREATE ROLE wa_jobs_app IN ROLE wa_app;
CREATE ROLE wa_jobs_dispatcher IN ROLE wa_dispatcher;
SET LOCAL ROLE wa_jobs_admin;
UPDATE wa_jobs SET schedule = '30 3 * * *', description = 'Ours' WHERE name = 'retention';
UPDATE wa_jobs SET is_enabled = false WHERE name = 'roll_ups';
SELECT throws_ok($$ UPDATE wa_jobs SET schedule = 'at night' WHERE name = 'retention' $$, '22023', NULL,
    'no schedule');
SELECT throws_ok($$ UPDATE wa_jobs SET function_name = 'adopt_wa_database' $$, '42501', NULL,
    'what a job does is not for administrators to say');
SELECT throws_ok($$ INSERT INTO wa_jobs (name, function_name, schedule, description)
    VALUES ('x', 'x', '* * * * *', '') $$, '42501', NULL, 'nor which jobs there are');
SELECT results_eq($$ SELECT name, schedule, runs_by, note FROM schedule_wa_jobs()
    WHERE name IN ('retention', 'roll_ups') $$,
    $$ VALUES ('retention', '30 3 * * *', 'bin/wa dispatch', NULL),
    ('roll_ups', '*/5 * * * *', 'nobody', 'switched off in wa_jobs') $$, 'a repeat keeps what was changed');
SELECT set_eq($$ SELECT name, next_run_at FROM wa_jobs WHERE name IN ('retention', 'roll_ups') $$,
    $$ SELECT * FROM (VALUES ('retention', _wa_next_job_time('30 3 * * *', now())), ('roll_ups', NULL)) v $$,
    'and the change holds at once');
RESET ROLE;
SET LOCAL ROLE wa_jobs_app;
SELECT throws_ok('SELECT schedule_wa_jobs()', '42501', NULL, 'not for applications');
SELECT throws_ok('SELECT * FROM wa_jobs', '42501', NULL, 'nor to be seen by them');
RESET ROLE;

-- running
CREATE FUNCTION count_ten(p_step integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 10';
CREATE FUNCTION go_wrong() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM wa_templates;
    RAISE EXCEPTION USING ERRCODE = 'WA999', MESSAGE = 'wrong', HINT = 'put it right';
END
$$;
DELETE FROM wa_jobs;
INSERT INTO wa_jobs (name, function_name, schedule, batch_rows, description) VALUES
('ten', 'count_ten', '*/5 * * * *', NULL, ''), ('more', 'count_ten', '*/5 * * * *', 10, ''),
('wrong', 'go_wrong', '*/5 * * * *', NULL, ''), ('gone', 'is_not_there', '*/5 * * * *', NULL, '');
SELECT schedule_wa_jobs();
SELECT results_eq($$ SELECT status, row_count, error FROM run_wa_job('ten') $$,
    $$ VALUES ('done', 10::bigint, NULL::text) $$, 'by hand at any time');
SELECT is((SELECT status FROM run_wa_job('ten', p_only_if_due => true)), 'not due', 'else when it is due');
SELECT throws_ok($$ SELECT run_wa_job('eleven') $$, '22023', 'there is no job "eleven"', 'no such job');
SELECT results_eq($$ SELECT status, row_count, error FROM run_wa_job('wrong') $$,
    $$ VALUES ('failed', NULL::bigint, 'WA999: wrong (put it right)') $$, 'an error is told');
SELECT is((SELECT count(*) FROM wa_templates), 5::bigint, 'its work is undone');
SELECT results_eq($$ SELECT status, left(error, 37) FROM run_wa_job('gone') $$,
    $$ VALUES ('failed', '42883: the function is_not_there() is') $$, 'a function that is not there');
SELECT results_eq('SELECT job, row_count, error IS NULL, ran_by = session_user FROM wa_job_runs ORDER BY id',
    $$ VALUES ('ten', 10::bigint, true, true), ('wrong', NULL, false, true), ('gone', NULL, false, true) $$, 'all of it is kept');
UPDATE wa_jobs SET next_run_at = now() - interval '1 second' * length(name);
SET LOCAL ROLE wa_jobs_dispatcher;
CREATE TEMPORARY TABLE ran AS
SELECT n, (r).job, (r).status FROM (SELECT n, run_due_wa_job() AS r FROM generate_series(1, 5) n OFFSET 0) r;
SELECT results_eq(
    'SELECT job, status FROM ran ORDER BY n',
    $$ VALUES ('wrong', 'failed'), ('gone', 'failed'), ('more', 'done'), ('ten', 'done'), ('more', 'done') $$,
    'a dispatcher runs what is due, longest first; a full batch comes again, but after the others');
RESET ROLE;
SELECT is((SELECT count(*) FROM wa_jobs WHERE next_run_at > clock_timestamp()), 3::bigint,
    'the others have their next time');

-- making room for messages
UPDATE wa_jobs SET rest = 1000000 WHERE name = 'more';
SELECT run_wa_job('more');
SELECT ok(next_run_at <= clock_timestamp(), 'a full batch comes again at once while nothing is sent') FROM wa_jobs
WHERE name = 'more';
SELECT world.queue(1);
SELECT world.accept(queue_id) FROM world.claim(1);
SELECT run_wa_job('more');
SELECT ok(next_run_at > clock_timestamp() + interval '5 seconds', 'else it rests, for as long as it took, times rest')
FROM wa_jobs WHERE name = 'more';

INSERT INTO wa_job_runs (job, started_at, duration) SELECT 'ten', now(), '1 second' FROM generate_series(1, 200);
SELECT run_wa_job('ten');
SELECT is((SELECT count(*) FROM wa_job_runs WHERE job = 'ten'), 100::bigint, 'history is bounded');
INSERT INTO wa_job_runs (job, started_at, duration, error)
SELECT 'more', now(), '1 second', 'WA999: again' FROM generate_series(1, 200);
UPDATE wa_jobs SET function_name = 'is_not_there' WHERE name = 'more';
SELECT run_wa_job('more');
SELECT ok(last_success_at IS NOT NULL, 'but keeps the last success') FROM wa_job_health WHERE name = 'more';

-- health
SELECT results_eq($$ SELECT last_row_count, last_error, last_success_at IS NOT NULL, is_overdue FROM wa_job_health
    WHERE name IN ('ten', 'wrong') ORDER BY name $$, $$ VALUES (10::bigint, NULL::text, true, false),
    (NULL, 'WA999: wrong (put it right)', false, false) $$, 'the last run of each');
SELECT is((SELECT overdue_jobs FROM wa_queue_health), '{}'::text[], 'nothing is overdue');
UPDATE wa_jobs SET next_run_at = clock_timestamp() - interval '14 minutes';
SELECT is((SELECT overdue_jobs FROM wa_queue_health), '{}'::text[], 'not within three intervals');
UPDATE wa_jobs SET next_run_at = clock_timestamp() - interval '16 minutes' WHERE name IN ('ten', 'gone');
SET LOCAL ROLE wa_jobs_app;
SELECT is((SELECT overdue_jobs FROM wa_queue_health), '{gone,ten}'::text[],
    'after them, for applications to see too');
RESET ROLE;
SET LOCAL ROLE wa_jobs_admin;
SELECT set_eq('SELECT name FROM wa_job_health WHERE is_overdue', ARRAY['gone', 'ten'], 'and for administrators');
SELECT results_eq('SELECT name FROM unschedule_wa_jobs()', ARRAY['gone', 'more', 'ten', 'wrong'],
    'unscheduled');
SELECT is((SELECT overdue_jobs FROM wa_queue_health), '{}'::text[], 'what is not scheduled is not overdue');
RESET ROLE;
SELECT results_eq('SELECT job, next_due_at FROM run_due_wa_job()', 'SELECT NULL::text, NULL::timestamptz',
    'nor due');
UPDATE wa_installations SET timeline_id = 99;
SELECT throws_ok($$ SELECT run_wa_job('ten') $$, 'WA401', NULL, 'a copy of the database runs no jobs');

SELECT * FROM finish();
ROLLBACK;
