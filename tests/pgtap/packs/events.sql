-- Tests sql/packs/events/tasks.sql, sql/packs/events/schedule.sql.
BEGIN;
SELECT plan(90);
\ir ../world.psql
\ir ../customers.psql
SELECT count(*) FROM install_wa_pack('events');
UPDATE wa_phone_numbers SET throughput = 1000;
INSERT INTO wa_templates (name, category, status, body_text, parameters) VALUES
('event_reminder_24h', 'UTILITY', 'APPROVED', 'Hi {{1}}! Your event ''{{2}}'' starts tomorrow at {{3}}. Bye!',
    '["attendee_name", "event_name", "event_time"]'),
('check_in_instructions', 'UTILITY', 'APPROVED', 'Welcome to {{1}}! Show this QR code: {{2}}.',
    '["event_name", "qr_code_url"]'),
('event_update', 'UTILITY', 'APPROVED', 'Update for {{1}}: {{2}}.', '["event_name", "update_message"]'),
('undeclared', 'UTILITY', 'APPROVED', 'Hi {{1}}, {{2}} at {{3}}.', '[]'),
('plain', 'UTILITY', 'APPROVED', 'See you there.', '[]'),
('off', 'UTILITY', 'APPROVED', 'Off.', '[]');
UPDATE wa_templates SET is_enabled = false WHERE name = 'off';

CREATE FUNCTION pg_temp.event(
    p_name text, p_start text, p_zone text DEFAULT 'UTC', p_status text DEFAULT 'published'
) RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO ai_events (name, start_date, time_zone, status)
    VALUES (p_name, p_start::timestamp AT TIME ZONE p_zone, p_zone, p_status) RETURNING id
$$;
CREATE FUNCTION pg_temp.ticket(p_event uuid, p_info jsonb, p_type text DEFAULT NULL) RETURNS uuid
LANGUAGE sql AS $$
    WITH o AS (INSERT INTO orders (event_id) VALUES (p_event) RETURNING id)
    INSERT INTO attendees (order_id, attendee_info, ticket_type) SELECT id, p_info, p_type FROM o RETURNING id
$$;
CREATE FUNCTION pg_temp.guest(p_event uuid, p_n integer) RETURNS uuid LANGUAGE sql AS $$
    SELECT pg_temp.ticket(p_event, jsonb_build_object('name', 'Guest ' || p_n, 'phone', world.customer(p_n)))
$$;
CREATE FUNCTION pg_temp.task(
    p_event uuid, p_template text, p_type text DEFAULT 'send_update', p_filter jsonb DEFAULT NULL,
    p_metadata jsonb DEFAULT '{}', p_at timestamptz DEFAULT clock_timestamp()
) RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO ai_tasks (event_id, task_type, scheduled_for, template_name, recipient_filter, metadata)
    VALUES (p_event, p_type, p_at, p_template, p_filter, p_metadata) RETURNING id
$$;
-- Makes a task, executes it, and answers with it.
CREATE FUNCTION pg_temp.executed(
    p_event uuid, p_template text, p_filter jsonb DEFAULT NULL, p_metadata jsonb DEFAULT '{}'
) RETURNS ai_tasks LANGUAGE plpgsql AS $$
DECLARE
    v_task ai_tasks;
BEGIN
    v_task.id := pg_temp.task(p_event, p_template, 'send_update', p_filter, p_metadata);
    UPDATE ai_tasks SET status = 'executing' WHERE id = v_task.id;
    SELECT * INTO v_task FROM ai_tasks WHERE id = v_task.id;
    RETURN v_task;
END
$$;
CREATE FUNCTION pg_temp.result(p_task ai_tasks, p_field text) RETURNS text LANGUAGE sql AS $$
    SELECT p_task.metadata -> 'result' ->> p_field
$$;
CREATE FUNCTION pg_temp.phones(p_task uuid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(right(phone, 2), ' ' ORDER BY phone) FROM wa_outbound_queue
    WHERE metadata ->> 'task_id' = p_task::text AND status <> 'cancelled'
$$;
-- The planned reminders of an event: local time and template.
CREATE FUNCTION pg_temp.plan(p_event uuid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(
        to_char(t.scheduled_for AT TIME ZONE e.time_zone, 'YYYY-MM-DD HH24:MI ') || t.template_name,
        ', ' ORDER BY t.scheduled_for
    )
    FROM ai_tasks t JOIN ai_events e ON e.id = t.event_id WHERE t.event_id = p_event AND t.status = 'pending'
$$;
CREATE FUNCTION pg_temp.reminder(p_event uuid, p_days integer) RETURNS ai_tasks LANGUAGE sql AS $$
    SELECT t.* FROM ai_tasks t WHERE t.event_id = p_event AND t.metadata ->> 'reminder_days' = p_days::text
    ORDER BY t.status = 'pending' DESC, t.metadata ? 'replaces' DESC LIMIT 1
$$;
-- Local time of an event so many days and hours from now.
CREATE FUNCTION pg_temp.ahead(p_by interval, p_zone text DEFAULT 'UTC') RETURNS text LANGUAGE sql AS $$
    SELECT to_char((clock_timestamp() AT TIME ZONE p_zone) + p_by, 'YYYY-MM-DD HH24:MI:SS')
$$;

-- executing a task
SELECT pg_temp.event('Tech Summit 2025', '2025-03-15 10:00', 'America/New_York') AS event \gset
SELECT is((SELECT count(*) FROM ai_tasks), 0::bigint, 'an event of the past gets no reminders');
SELECT pg_temp.guest(:'event', 1) AS guest \gset
SELECT pg_temp.guest(:'event', 2);
SELECT id AS task, status, metadata AS meta FROM pg_temp.executed(:'event', 'event_reminder_24h') \gset
SELECT is(:'status'::text, 'completed', 'an executed task is completed');
SELECT is(:'meta'::jsonb -> 'result', '{"tickets": 2, "people": 2, "queued": 2, "refused": 0, "invalid_phones": 0,
    "missing_values": 0, "problems": []}'::jsonb, 'and says what it did');
SELECT results_eq(format($$
    SELECT phone, template_name, template_params, reference, metadata, idempotency_key, status
    FROM wa_outbound_queue WHERE metadata ->> 'attendee_id' = %L
$$, :'guest'), format($$ VALUES (
    '+5491140000001', 'event_reminder_24h',
    '["Guest 1", "Tech Summit 2025", "2025-03-15 10:00 AM"]'::jsonb,
    'event:%1$s:%2$s', '{"event_id": "%1$s", "task_id": "%2$s", "attendee_id": "%3$s"}'::jsonb,
    '%2$s:%3$s', 'pending') $$, :'event', :'task', :'guest'),
    'each attendee gets a message, in the time of the event''s place');
SELECT is((SELECT count(*) FROM world.claim()), 2::bigint, 'which is sent');
UPDATE ai_tasks SET status = 'pending' WHERE id = :'task';
UPDATE ai_tasks SET status = 'executing' WHERE id = :'task';
SELECT is((SELECT count(*) FROM wa_outbound_queue), 2::bigint, 'once, however often it is executed');
UPDATE ai_tasks SET status = 'executing' WHERE id = :'task';
SELECT is((SELECT count(*) FROM wa_outbound_queue), 2::bigint, 'only pending tasks are');
SELECT id AS task FROM pg_temp.executed(:'event', 'undeclared') \gset
SELECT is((SELECT template_params FROM wa_outbound_queue WHERE idempotency_key = :'task' || ':' || :'guest'),
    '["Guest 1", "Tech Summit 2025", "2025-03-15 10:00 AM"]'::jsonb, 'a template without declared names takes the three in their order');
SELECT is(pg_temp.result(t, 'queued'), '2', 'one without placeholders none')
FROM pg_temp.executed(:'event', 'plain') t;
SELECT is(pg_temp.result(t, 'queued'), '2', 'fields of the task fill variables')
FROM pg_temp.executed(:'event', 'event_update', p_metadata => '{"update_message": "Doors\n open at 9"}') t;
SELECT is(template_params ->> 1, 'Doors open at 9', 'as one line')
FROM wa_outbound_queue WHERE template_name = 'event_update' LIMIT 1;

-- who gets it
SELECT pg_temp.event('Party', '2025-06-01 20:00') AS event \gset
SELECT pg_temp.ticket(:'event', '{"name": "Ann", "phone": "+54 9 11 4000-0011"}', 'VIP');
SELECT pg_temp.ticket(:'event', '{"name": "Ann", "phone": "+5491140000011"}', 'standard');
SELECT pg_temp.ticket(:'event', '{"name": "Bob", "phone": "+5491140000012", "ticket_type": "VIP", "city": "X"}');
SELECT pg_temp.ticket(:'event', '{"name": "Cid", "phone": "call me"}', 'VIP') AS bad \gset
SELECT pg_temp.ticket(:'event', '{"name": "Dan"}', 'VIP');
SELECT pg_temp.ticket(:'event', '{"phone": "+5491140000015"}') AS nameless \gset
SELECT pg_temp.ticket(:'event', '{"name": "Eve", "phone": "AR.4711"}');
SELECT id AS task, metadata AS meta FROM pg_temp.executed(:'event', 'event_reminder_24h') \gset
SELECT is(:'meta'::jsonb -> 'result', jsonb_build_object('tickets', 6, 'people', 4, 'queued', 3, 'refused', 0,
    'invalid_phones', 1, 'missing_values', 1, 'problems', (
        SELECT jsonb_agg(jsonb_build_object('attendee_id', x.id, 'problem', x.problem) ORDER BY x.id)
        FROM (VALUES (:'bad'::uuid, 'not a phone number'), (:'nameless', 'no attendee_name')) x (id, problem)
    )), 'who cannot be reached is recorded and stops nobody');
SELECT is(pg_temp.phones(:'task'), '11 12 11', 'a person with two tickets gets one message');
SELECT is(pg_temp.result(t, 'queued'), '4', 'a task can give what attendees lack')
FROM pg_temp.executed(:'event', 'event_reminder_24h', p_metadata => '{"attendee_name": "friend"}') t;
SELECT is(pg_temp.phones(t.id), '11 12', 'a filter looks at ticket and info')
FROM pg_temp.executed(:'event', 'plain', '{"ticket_type": "VIP"}') t;
SELECT is(pg_temp.phones(t.id), '12', 'at all its fields')
FROM pg_temp.executed(:'event', 'plain', '{"ticket_type": "VIP", "city": "X"}') t;
SELECT is(t.status || pg_temp.result(t, 'queued'), 'completed0', 'and may leave nobody')
FROM pg_temp.executed(:'event', 'plain', '{"ticket_type": "press"}') t;
SELECT is(pg_temp.result(t, 'missing_values'), '4', 'values that attendees bring')
FROM pg_temp.executed(:'event', 'check_in_instructions') t;
UPDATE attendees SET attendee_info = attendee_info || '{"qr_code_url": "https://example.org/1"}'
WHERE attendee_info ->> 'name' = 'Bob';
SELECT is(pg_temp.phones(t.id), '12', 'fill variables too')
FROM pg_temp.executed(:'event', 'check_in_instructions') t;
UPDATE orders SET status = 'refunded' WHERE id = (SELECT order_id FROM attendees
    WHERE attendee_info ->> 'name' = 'Bob');
SELECT is(pg_temp.phones(t.id), '11 15 11', 'a refunded ticket gets nothing')
FROM pg_temp.executed(:'event', 'plain') t;
SELECT opt_out_wa_contact('+5491140000011', 'all');
SELECT is(concat_ws('/', pg_temp.result(t, 'queued'), pg_temp.result(t, 'refused')), '2/1',
    'who opted out is refused and recorded')
FROM pg_temp.executed(:'event', 'plain') t;
UPDATE wa_organizations SET default_region = 'AR', default_area_code = '11';
SELECT pg_temp.ticket(:'event', '{"name": "Fay", "phone": "011 15 4000-0016"}');
SELECT matches(pg_temp.phones(t.id), '16', 'national numbers are read by the organization''s region')
FROM pg_temp.executed(:'event', 'plain', '{"name": "Fay"}') t;

-- what cannot be carried out
SELECT results_eq(format($$
    SELECT t.status, substring(pg_temp.result(t, 'error') FROM '[^;]+$')
    FROM (VALUES (1, 'nothing', NULL), (2, 'off', NULL), (3, 'draft', NULL), (4, 'order', NULL),
        (5, 'plain', '"VIP"'::jsonb)) x (n, template, filter)
    CROSS JOIN LATERAL pg_temp.executed(%L, template, filter) t ORDER BY n
$$, :'event'), $$ VALUES
    ('failed', 'no template "nothing"'), ('failed', 'template "off" is switched off for automation'),
    ('failed', 'template "draft" (en) is PENDING, not APPROVED'),
    ('failed', 'template "order" does not declare the names of its values'),
    ('failed', 'recipient_filter is not a JSON object')
$$, 'a task that cannot be carried out says why');
UPDATE wa_templates SET parameters = '["attendee_name", "seat"]' WHERE name = 'order';
SELECT is(t.status || ': ' || pg_temp.result(t, 'error'), 'failed: nobody can be written to',
    'values that nobody brings fail it')
FROM pg_temp.executed(:'event', 'order') t;
UPDATE wa_templates SET variable_mapping = '{"seat": "task.row.seat", "attendee_name": "attendee.name"}'
WHERE name = 'order';
SELECT is(t.status, 'completed', 'the template''s mapping finds them')
FROM pg_temp.executed(:'event', 'order', p_metadata => '{"row": {"seat": 7}}') t;
INSERT INTO wa_templates (name, category, status, body_text, header_text, header_format, parameters,
    buttons) VALUES ('rich', 'UTILITY', 'APPROVED', 'For {{1}} only.', 'At {{1}}', 'TEXT',
    '["attendee_name", "event_location", "qr_code"]',
    '[{"type": "URL", "text": "Open", "url": "https://example.org/{{1}}"}]');
UPDATE ai_events SET location = 'Salta' WHERE id = :'event';
SELECT is(t.status, 'completed', 'header and buttons take values too')
FROM pg_temp.executed(:'event', 'rich', p_metadata => '{"qr_code": "q1"}') t;
SELECT is(template_params, '{"header": ["Salta"], "body": ["Ann"], "buttons": {"0": "q1"}}'::jsonb, 'in their places')
FROM wa_outbound_queue WHERE template_name = 'rich' AND phone = '+5491140000011';
SELECT pg_temp.task(:'event', 'nothing') AS poor \gset
SELECT pg_temp.task(:'event', 'plain') AS good \gset
UPDATE ai_tasks SET status = 'executing' WHERE id IN (:'poor', :'good');
SELECT results_eq(format('SELECT status FROM ai_tasks WHERE id IN (%L, %L) ORDER BY status', :'poor', :'good'),
    $$ VALUES ('completed'), ('failed') $$, 'and leaves the others of a statement alone');
SELECT throws_ok(format($$ SELECT pg_temp.task(%L, 'plain', 'call_them') $$, :'event'), '23514', NULL,
    'only the documented types of tasks');
SELECT throws_ok($$ INSERT INTO ai_events (name, start_date, reminders) VALUES ('x', now(), '{"soon": "plain"}') $$,
    '23514', NULL, 'reminders name days');
SELECT throws_ok($$ INSERT INTO ai_events (name, start_date, time_zone) VALUES ('x', now(), 'Mars/Olympus') $$,
    '22023', 'time zone "Mars/Olympus" not recognized', 'a time zone must be known');

-- the plan: calendar days of the event's place
SELECT is(pg_temp.plan(pg_temp.event('Trek', '2037-11-20 18:30', 'Asia/Kathmandu')),
    '2037-11-13 18:30 event_update, 2037-11-19 18:30 event_reminder_24h, 2037-11-20 08:00 event_update',
    '7 days before, 1 day before, the day itself');
SELECT is((SELECT min(scheduled_for) FROM ai_tasks t JOIN ai_events e ON e.id = event_id WHERE name = 'Trek'),
    '2037-11-13 12:45Z'::timestamptz, 'by the clocks there');
UPDATE wa_organizations SET time_zone = 'Asia/Kathmandu';
INSERT INTO ai_events (name, start_date) VALUES ('Home', '2037-11-20 12:45Z') RETURNING id AS event \gset
SELECT alike(pg_temp.plan(:'event'), '2037-11-13 18:30 %, 2037-11-20 08:00 %',
    'an event without a time zone takes place in its organizer''s');
UPDATE wa_organizations SET time_zone = 'UTC';
-- The clocks of New York go forward on 2037-03-08 and back on 2037-11-01.
SELECT is(pg_temp.plan(pg_temp.event('Spring', '2037-03-10 19:00', 'America/New_York')),
    '2037-03-03 19:00 event_update, 2037-03-09 19:00 event_reminder_24h, 2037-03-10 08:00 event_update',
    'the hour stays when clocks go forward');
SELECT is((SELECT max(scheduled_for) - min(scheduled_for) FROM ai_tasks t JOIN ai_events e ON e.id = event_id
    WHERE name = 'Spring'), '6 days 12:00'::interval, 'which makes that week an hour shorter');
SELECT is(pg_temp.plan(pg_temp.event('Autumn', '2037-11-01 19:00', 'America/New_York')),
    '2037-10-25 19:00 event_update, 2037-10-31 19:00 event_reminder_24h, 2037-11-01 08:00 event_update',
    'and when they go back');
SELECT is(pg_temp.plan(pg_temp.event('Dawn', '2037-06-01 05:00')),
    '2037-05-25 05:00 event_update, 2037-05-31 05:00 event_reminder_24h, 2037-06-01 03:00 event_update',
    'before an early event it is two hours');
INSERT INTO ai_events (name, start_date, reminders) VALUES
('Own', '2037-06-01 12:00Z', '{"3": "plain"}'), ('None', '2037-06-01 12:00Z', '{}');
SELECT is((SELECT string_agg(e.name || pg_temp.plan(e.id), ' ') FROM ai_events e WHERE name IN ('Own', 'None')),
    'Own2037-05-29 12:00 plain', 'an event may have other reminders, or none');
SELECT pg_temp.event('Late', pg_temp.ahead('3 days'), 'Asia/Kathmandu') AS event \gset
SELECT is((SELECT string_agg(metadata ->> 'reminder_days', ' ' ORDER BY scheduled_for) FROM ai_tasks
    WHERE event_id = :'event'), '1 0', 'reminders whose time has passed are not made');
SELECT pg_temp.event('Draft', '2037-06-01 12:00', p_status => 'draft') AS event \gset
SELECT is(pg_temp.plan(:'event'), NULL, 'a draft has none');
UPDATE ai_events SET status = 'published' WHERE id = :'event';
SELECT is(array_length(string_to_array(pg_temp.plan(:'event'), ','), 1), 3, 'until it is published');

-- moving
UPDATE ai_events SET start_date = '2037-06-08 12:00Z' WHERE id = :'event';
SELECT is(pg_temp.plan(:'event'),
    '2037-06-01 12:00 event_update, 2037-06-07 12:00 event_reminder_24h, 2037-06-08 08:00 event_update',
    'reminders move with their event');
UPDATE ai_events SET time_zone = 'Asia/Kathmandu' WHERE id = :'event';
SELECT is(pg_temp.plan(:'event'),
    '2037-06-01 17:45 event_update, 2037-06-07 17:45 event_reminder_24h, 2037-06-08 08:00 event_update',
    'and with its time zone');
SELECT is((SELECT count(*) FROM ai_tasks WHERE event_id = :'event'), 3::bigint, 'they stay the same tasks');
UPDATE ai_tasks SET status = 'cancelled' WHERE id = (pg_temp.reminder(:'event', 7)).id;
UPDATE ai_events SET start_date = '2037-06-01 12:00Z', time_zone = 'UTC', reminders = reminders || '{"0": "plain"}'
WHERE id = :'event';
SELECT is(pg_temp.plan(:'event'), '2037-05-31 12:00 event_reminder_24h, 2037-06-01 08:00 plain',
    'what a person cancelled stays so; other templates are taken over');
SELECT pg_temp.task(:'event', 'plain', 'check_in_prep', p_at => '2037-06-01 10:00Z') AS prep \gset
SELECT pg_temp.task(:'event', 'plain', 'send_update', p_at => '2037-06-01 10:00Z') AS news \gset
UPDATE ai_events SET start_date = '2037-06-03 15:00Z', reminders = '{}' WHERE id = :'event';
SELECT is(pg_temp.plan(:'event'), '2037-06-01 10:00 plain, 2037-06-03 13:00 plain',
    'a task made by hand keeps its distance, an update its time');
SELECT is((SELECT array_agg(DISTINCT metadata ->> 'reason') FROM ai_tasks
    WHERE event_id = :'event' AND metadata ->> 'reminder_days' IN ('1', '0')), ARRAY['no longer planned'],
    'reminders taken away are cancelled');
UPDATE ai_events SET start_date = clock_timestamp() - interval '3 days' WHERE id = :'event';
SELECT is((SELECT status || (metadata ->> 'reason') FROM ai_tasks WHERE id = :'prep'),
    'cancelledtoo late to be sent', 'what a move puts into the past is cancelled');

-- what waits when the event moves; in a zone where it is noon, so that today is neither young nor old
UPDATE wa_outbound_queue SET status = 'cancelled' WHERE status = 'pending';
SELECT CASE WHEN o > 0 THEN 'Etc/GMT-' || o WHEN o < 0 THEN 'Etc/GMT+' || -o ELSE 'UTC' END AS noon
FROM (SELECT 12 - extract(hour FROM clock_timestamp() AT TIME ZONE 'UTC')::integer) x (o) \gset
CREATE FUNCTION pg_temp.day(p_zone text, p_days integer, p_time text) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT (date_trunc('day', clock_timestamp() AT TIME ZONE p_zone) + make_interval(days => p_days)
        + p_time::interval) AT TIME ZONE p_zone
$$;
-- Sends one of a task's messages and says whose.
CREATE FUNCTION pg_temp.send_one() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := (SELECT queue_id FROM world.claim(1));
BEGIN
    PERFORM world.accept_all();
    RETURN (SELECT right(phone, 2) FROM wa_outbound_queue WHERE id = v_id);
END
$$;
INSERT INTO ai_events (name, start_date, time_zone)
VALUES ('Gala', pg_temp.day(:'noon', 7, '14:00'), :'noon') RETURNING id AS event \gset
SELECT pg_temp.guest(:'event', 21);
SELECT pg_temp.guest(:'event', 22);
SELECT is(run_wa_event_tasks(), 0, 'nothing is executed before it is due');
UPDATE ai_tasks SET scheduled_for = clock_timestamp()
WHERE event_id = :'event' AND metadata ->> 'reminder_days' = '7' RETURNING id AS first \gset
SELECT is(run_wa_event_tasks(), 1, 'what is due is executed');
SELECT is(pg_temp.phones(:'first'), '21 22', 'which queues the reminder');
SELECT is(max(expires_at), pg_temp.day(:'noon', 1, '00:00'), 'that goes on its own day or not at all')
FROM wa_outbound_queue WHERE status = 'pending';
SELECT pg_temp.send_one() AS told \gset
UPDATE ai_events SET start_date = pg_temp.day(:'noon', 7, '13:30') WHERE id = :'event';
SELECT is(pg_temp.phones(:'first'), :'told'::text, 'what waits with an old time is taken back');
SELECT id AS second, scheduled_for AS second_at FROM pg_temp.reminder(:'event', 7) \gset
SELECT is(:'second_at'::timestamptz, pg_temp.day(:'noon', 0, '13:30'), 'the reminder is planned again');
UPDATE ai_events SET start_date = pg_temp.day(:'noon', 7, '11:00') WHERE id = :'event';
SELECT is(run_wa_event_tasks(), 1, 'one whose hour has just passed is due at once');
SELECT is(pg_temp.phones(:'second'), '21 22', 'and for everyone, as the event has another time');
SELECT pg_temp.send_one() AS told \gset
UPDATE ai_events SET start_date = pg_temp.day(:'noon', 7, '10:30') WHERE id = :'event';
SELECT is(pg_temp.phones(:'second'), :'told'::text, 'what waits is taken back again');
UPDATE ai_events SET start_date = pg_temp.day(:'noon', 7, '10:00') WHERE id = :'event';
SELECT is(run_wa_event_tasks(), 1, 'and replaced at once, however often the event moves');
SELECT is(pg_temp.phones((pg_temp.reminder(:'event', 7)).id), CASE :'told' WHEN '21' THEN '22' ELSE '21' END,
    'for those that were not written to');
SELECT is(template_params ->> 1, format('starts at %s 10:00 AM',
    to_char(pg_temp.day(:'noon', 7, '10:00') AT TIME ZONE :'noon', 'YYYY-MM-DD')), 'with the new time')
FROM wa_outbound_queue WHERE status = 'pending';
UPDATE ai_events SET start_date = pg_temp.day(:'noon', 5, '10:00') WHERE id = :'event';
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE status = 'pending'), 0::bigint,
    'a reminder whose day is over is not replaced');
SELECT is((SELECT string_agg(metadata ->> 'reminder_days', ' ' ORDER BY scheduled_for) FROM ai_tasks
    WHERE event_id = :'event' AND status = 'pending'), '1 0', 'only those to come');

INSERT INTO ai_events (name, start_date, time_zone)
VALUES ('Ball', pg_temp.day(:'noon', 3, '12:00'), :'noon') RETURNING id AS event \gset
SELECT pg_temp.guest(:'event', 31);
SELECT pg_temp.task(:'event', 'plain', 'check_in_prep') AS prep \gset
SELECT pg_temp.task(:'event', 'plain', 'send_update') AS news \gset
SELECT run_wa_event_tasks();
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at, reference)
SELECT world.customer(n), 'plain', pg_temp.day(:'noon', n - 30, '10:00'), 'event:' || :'event'
FROM generate_series(31, 32) n;
UPDATE ai_events SET start_date = start_date + interval '2 days 1 hour' WHERE id = :'event';
SELECT is(pg_temp.phones(:'news'), '31', 'an update that waits is not taken back');
SELECT is(pg_temp.phones(:'prep'), NULL, 'a message by hand that names the time is');
SELECT is((SELECT scheduled_for > pg_temp.day(:'noon', 2, '12:00') FROM ai_tasks
    WHERE event_id = :'event' AND metadata -> 'replaces' = jsonb_build_array(:'prep')), true,
    'and comes again at its new time');
SELECT results_eq(format($$ SELECT scheduled_at FROM wa_outbound_queue WHERE reference = 'event:%s'
    ORDER BY scheduled_at $$, :'event'),
    ARRAY[pg_temp.day(:'noon', 3, '11:00'), pg_temp.day(:'noon', 4, '11:00')],
    'messages scheduled for the event without a task move along');
SELECT opt_out_wa_contact(world.customer(33), 'all');
UPDATE ai_events SET start_date = pg_temp.day(:'noon', 2, '12:00') WHERE id = :'event';
SELECT is((SELECT array_agg(status ORDER BY phone) FROM wa_outbound_queue
    WHERE reference = 'event:' || :'event'), ARRAY['cancelled', 'pending'],
    'one that would have had to go already is cancelled');

-- cancelling and deleting
UPDATE ai_events SET status = 'cancelled' WHERE id = :'event';
SELECT is((SELECT array_agg(DISTINCT status) FROM wa_outbound_queue
    WHERE reference LIKE 'event:' || :'event' || '%'), ARRAY['cancelled'],
    'when an event is cancelled nothing of it waits');
SELECT is((SELECT count(*) FROM ai_tasks WHERE event_id = :'event' AND status = 'pending'), 0::bigint,
    'nor do its tasks');
UPDATE ai_tasks SET status = 'pending', scheduled_for = clock_timestamp() WHERE id = :'prep';
SELECT pg_temp.task(:'event', 'plain', 'send_update') AS news \gset
SELECT run_wa_event_tasks();
SELECT is((SELECT metadata -> 'result' ->> 'error' FROM ai_tasks WHERE id = :'prep'),
    'the event is cancelled', 'it has no reminders any more');
SELECT is(pg_temp.phones(:'news'), '31', 'but people can be told');
UPDATE ai_tasks SET status = 'cancelled' WHERE id = :'news';
SELECT is(pg_temp.phones(:'news'), NULL, 'a cancelled task takes back what waits');
UPDATE ai_events SET status = 'published' WHERE id = :'event';
SELECT is((SELECT count(*) FROM ai_tasks WHERE event_id = :'event' AND status = 'pending'), 2::bigint,
    'an event that takes place after all has reminders again');
SELECT pg_temp.task(:'event', 'plain', 'send_update') AS news \gset
SELECT run_wa_event_tasks();
INSERT INTO wa_outbound_queue (phone, template_name, reference)
VALUES (world.customer(31), 'plain', 'event:' || :'event');
DELETE FROM ai_events WHERE id = :'event';
SELECT is((SELECT count(*) FROM wa_outbound_queue
    WHERE reference LIKE 'event:' || :'event' || '%' AND status = 'pending'), 0::bigint,
    'nothing of a deleted event waits');

-- a guest's number changes before the reminder goes
SELECT pg_temp.event('Bazaar', pg_temp.ahead('3 days')) AS bazaar \gset
SELECT pg_temp.guest(:'bazaar', 41), world.writes(41);
SELECT id AS told FROM pg_temp.executed(:'bazaar', 'plain') \gset
SELECT world.moves(41, 42, 700), world.claimed(10000) \g /dev/null
SELECT is(pg_temp.result(t, 'queued'), '0', 'a guest who has another number by now was reached all the same')
FROM pg_temp.executed(:'bazaar', 'plain', p_metadata => jsonb_build_object('replaces',
    jsonb_build_array(:'told'))) t;

-- what the runner leaves out
INSERT INTO ai_events (name, start_date, time_zone, status)
VALUES ('Fair', pg_temp.day(:'noon', 2, '12:00'), :'noon', 'published') RETURNING id AS event \gset
SELECT pg_temp.guest(:'event', 41);
UPDATE ai_tasks SET scheduled_for = pg_temp.day(:'noon', -1, '23:59')
WHERE event_id = :'event' AND metadata ->> 'reminder_days' = '1';
SELECT is(run_wa_event_tasks(), 0, 'a reminder that was not run on its day');
SELECT is((SELECT status || ': ' || (metadata ->> 'reason') FROM ai_tasks
    WHERE event_id = :'event' AND status <> 'pending'), 'cancelled: too late to be sent', 'comes no more');
UPDATE ai_events SET status = 'draft' WHERE id = :'event';
SELECT pg_temp.task(:'event', 'plain') AS news \gset
SELECT is(run_wa_event_tasks(), 0, 'nothing is sent for a draft');
UPDATE ai_events SET status = 'published' WHERE id = :'event';
SELECT pg_temp.task(:'event', 'plain', p_at => clock_timestamp() - interval '1 hour');
SELECT is(run_wa_event_tasks(1), 1, 'a limit is kept');
SELECT is((SELECT status FROM ai_tasks WHERE id = :'news'), 'pending', 'what was due first goes first');
SELECT is(run_wa_event_tasks(), 1, 'the rest comes next');

-- tenants
CREATE ROLE wa_pack_app IN ROLE wa_app;
CREATE ROLE wa_pack_other IN ROLE wa_app;
SELECT add_wa_organization_role(current_wa_organization(), 'wa_pack_app');
SELECT create_wa_organization('other', '0b0b0b0b-0000-4000-8000-000000000002') AS other \gset
SELECT add_wa_organization_role(:'other', 'wa_pack_other');
GRANT ALL ON SCHEMA world TO PUBLIC;
SET LOCAL ROLE wa_pack_other;
SELECT is((SELECT count(*) FROM ai_events) + (SELECT count(*) FROM orders) + (SELECT count(*) FROM attendees)
    + (SELECT count(*) FROM ai_tasks), 0::bigint, 'an organizer sees nothing of another');
SELECT throws_ok(format($$ INSERT INTO orders (event_id) VALUES (%L) $$, :'event'), '23503', NULL,
    'and can hang nothing on what is another''s');
SELECT throws_ok(format($$ INSERT INTO ai_events (organizer_id, name, start_date)
    SELECT organization_id, 'x', now() FROM (SELECT current_wa_organization()) c (mine),
    LATERAL (SELECT '00000000-0000-4000-8000-000000000000'::uuid) o (organization_id) $$), '42501', NULL,
    'nor hold an event in another''s name');
INSERT INTO ai_events (name, start_date) VALUES ('Theirs', '2037-01-08 12:00Z') RETURNING id AS theirs \gset
SELECT is((SELECT array_agg(DISTINCT organizer_id) FROM ai_tasks WHERE event_id = :'theirs'),
    ARRAY[:'other'::uuid], 'its reminders are its own');
SET LOCAL ROLE wa_pack_app;
SELECT pg_temp.task(:'event', 'plain') AS news \gset
UPDATE ai_tasks SET status = 'executing' WHERE id = :'news';
SELECT is((SELECT status FROM ai_tasks WHERE id = :'news'), 'completed', 'an application executes its own');
SELECT throws_ok('SELECT run_wa_event_tasks()', '42501', NULL, 'the runner is not for applications');
SELECT lives_ok($$ DELETE FROM ai_events WHERE name = 'Fair' $$, 'it deletes its own');
RESET ROLE;
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE metadata ->> 'task_id' = :'news'
    AND status = 'cancelled'), 1::bigint, 'with what waits');

SELECT * FROM finish();
ROLLBACK;
