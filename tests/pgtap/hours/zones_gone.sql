-- Tests sql/organizations/time_zones.sql, sql/hours/zones.sql.
-- Zones that the server had when they were set, and has no more: after an update of its time zone data, or in a
-- restore on another machine. Mars/Phobos is one of them here.
BEGIN;
SELECT plan(27);
\ir ../world.psql
\ir ../customers.psql
UPDATE wa_organizations SET rate_limit_per_minute = NULL;
SELECT install_wa_pack('events') \g /dev/null

-- what is set is asked for
SELECT throws_ok(statement, 'WA061', 'no time zone of the name "Mars/Phobos"', 'none of that name: ' || statement)
FROM unnest(ARRAY[$$ UPDATE wa_organizations SET time_zone = 'Mars/Phobos' $$,
    $$ INSERT INTO wa_zone_prefixes (prefix, time_zone) VALUES ('+54', 'Mars/Phobos') $$,
    $$ INSERT INTO wa_contacts (phone_e164, time_zone) VALUES ('+5491149990000', 'Mars/Phobos') $$,
    $$ UPDATE wa_phone_numbers SET account_time_zone = 'Mars/Phobos' $$]) statement;

SELECT world.writes(n, 'hello') FROM generate_series(1, 3) n \g /dev/null
SELECT world.queue(1) \g /dev/null
SELECT world.claimed() \g /dev/null
SELECT world.accept_all() \g /dev/null
INSERT INTO ai_events (name, start_date, time_zone, reminders) VALUES
('Lost', now() + interval '2 days', 'UTC', '{}'), ('Fair', now() + interval '2 days', 'UTC', '{}');
INSERT INTO ai_tasks (event_id, task_type, scheduled_for, template_name, metadata)
SELECT e.id, 'send_reminder', now() - interval '1 second', 'hello', '{"reminder_days": 2}' FROM ai_events e;

SET LOCAL session_replication_role = replica;
UPDATE wa_organizations SET time_zone = 'Mars/Phobos';
UPDATE wa_phone_numbers SET account_time_zone = 'Mars/Phobos';
UPDATE wa_contacts SET time_zone = 'Mars/Phobos' WHERE id IN (world.found(1), world.found(2));
INSERT INTO wa_zone_prefixes (prefix, time_zone) VALUES ('+54911', 'Mars/Phobos'), ('+549', 'Asia/Tokyo');
UPDATE wa_phone_zones SET zones = '{Mars/Phobos}' WHERE prefix LIKE '+34%';
UPDATE wa_phone_zones SET zones = '{Mars/Phobos,Asia/Tokyo}' WHERE prefix LIKE '+81%';
UPDATE ai_events SET time_zone = 'Mars/Phobos' WHERE name = 'Lost';
RESET session_replication_role;

-- hours: the next that is known counts
INSERT INTO wa_quiet_hours (from_time, to_time) SELECT date_trunc('minute', l - interval '1 hour')::time,
    date_trunc('minute', l + interval '2 hours')::time FROM (SELECT clock_timestamp() AT TIME ZONE 'Asia/Tokyo') c (l);
SELECT is(((p).zones, (p).zones_from, (p).is_quiet)::text, '({Asia/Tokyo},prefix,t)', 'the prefix in place of the contact''s')
FROM preview_wa_quiet_hours(world.customer(1)) p;
DELETE FROM wa_zone_prefixes WHERE time_zone = 'Asia/Tokyo';
SELECT is((p).zones_from, 'number', 'all of the number in place of the prefix')
FROM preview_wa_quiet_hours(world.customer(2)) p;
SELECT is((p).is_quiet, true, 'those that are left of a number''s') FROM preview_wa_quiet_hours('+81312345678') p;
SELECT lives_ok($$ SELECT preview_wa_quiet_hours('+34600000001') $$, 'or none of them');
SELECT lives_ok($$ SELECT preview_wa_quiet_hours('+870773111632') $$, 'nor the organization''s');
SELECT world.queue(n) FROM generate_series(1, 3) n \g /dev/null
INSERT INTO wa_outbound_queue (phone, template_name) SELECT u, 'hello'
FROM unnest('{+34600000001,+81312345678,+870773111632}'::text[]) u;
SELECT is(world.claimed(), 5 - (SELECT count(*)::integer FROM preview_wa_quiet_hours('+870773111632') WHERE is_quiet)
    - (SELECT count(*)::integer FROM preview_wa_quiet_hours('+34600000001') WHERE is_quiet), 'claims go on');
SELECT is((SELECT array_agg(q.phone) FROM wa_queue_due d JOIN wa_outbound_queue q ON q.id = d.queue_id
    WHERE d.hold_reason = 'quiet_hours' AND q.phone LIKE '+81%'), '{+81312345678}', 'and hold what has to wait');
SELECT world.accept_all() \g /dev/null
SELECT lives_ok('SELECT world.maintain()', 'heartbeats, too');
SELECT lives_ok(format('SELECT * FROM explain_wa_message(%L)', id), 'and explanations')
FROM wa_outbound_queue WHERE phone = '+81312345678';

-- their rows can be changed in other ways
SELECT lives_ok($$ SELECT world.writes(1, 'again', 'AR.7700000001', 5) $$, 'a contact writes');
SELECT is((SELECT count(*) FROM wa_webhook_errors), 0::bigint, 'and is heard');
SELECT world.told(NULL, 'AR.7700000002', 6, '{"type": "text", "text": {"body": "by id"}}') \g /dev/null
SELECT is(world.found('AR.7700000002') IS NOT NULL, true, 'another is known by a user id');
SELECT world.writes(2, 'it is me', 'AR.7700000002', 7) \g /dev/null
SELECT is(world.found('AR.7700000002'), world.found(2), 'and turns out to be one with such a zone');
SELECT lives_ok('UPDATE wa_organizations SET rate_limit_per_minute = 100', 'settings of the organization');
SELECT lives_ok('UPDATE wa_phone_numbers SET throughput = 90000', 'and of the number');
SELECT lives_ok($$ SELECT register_wa_phone_number('101', '+1 555 123 4568', '200') $$, 'another one of the account');

-- jobs and figures
SELECT schedule_wa_jobs() \g /dev/null
UPDATE wa_jobs SET next_run_at = now();
CREATE TEMPORARY TABLE ran AS SELECT (r).* FROM (
    SELECT run_due_wa_job() AS r FROM generate_series(1, (SELECT count(*) FROM wa_jobs))) r;
SELECT results_eq('SELECT job, status, error FROM ran ORDER BY job',
    $$ SELECT name, 'done', NULL::text FROM wa_jobs ORDER BY name $$, 'every job runs');
SELECT is((SELECT string_agg(e.name || ' ' || t.status, ', ' ORDER BY e.name) FROM ai_tasks t JOIN ai_events e ON e.id = t.event_id),
    'Fair completed, Lost failed', 'a task that cannot tell the time fails, and no other');
SELECT lives_ok(format('SELECT * FROM %I', v), 'figures: ' || v)
FROM unnest('{wa_daily_messages,wa_daily_costs,wa_daily_response_times,wa_metrics}'::text[]) v;
SELECT lives_ok('SELECT get_wa_metrics()', 'and metrics');

SELECT * FROM finish();
ROLLBACK;
