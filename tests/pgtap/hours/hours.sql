-- Tests sql/hours/zones.sql, sql/hours/waits.sql, sql/hours/rules.sql, sql/contacts/time_zones.sql.
BEGIN;
SELECT plan(72);
\ir ../world.psql
UPDATE wa_organizations SET rate_limit_per_minute = NULL, time_zone = 'UTC';

-- Quiet from so many hours before now to so many after, by the clock of a zone; customers are Argentines.
CREATE FUNCTION pg_temp.quiet(
    p_before numeric, p_after numeric, p_purpose text DEFAULT 'all', p_number text DEFAULT NULL,
    p_zone text DEFAULT 'America/Argentina/Buenos_Aires'
) RETURNS void LANGUAGE sql AS $$
    DELETE FROM wa_quiet_hours;
    INSERT INTO wa_quiet_hours (from_time, to_time, purpose, phone_number_id)
    SELECT date_trunc('minute', l - p_before * interval '1 hour')::time,
        date_trunc('minute', l + p_after * interval '1 hour')::time, p_purpose, p_number
    FROM (SELECT clock_timestamp() AT TIME ZONE p_zone) c (l)
$$;
CREATE FUNCTION pg_temp.due_in(p_id uuid) RETURNS numeric LANGUAGE sql AS $$
    SELECT round(extract(epoch FROM due_at - clock_timestamp()) / 3600, 1) FROM wa_queue_due
        WHERE queue_id = p_id
$$;
CREATE TEMPORARY TABLE sent (name text, id uuid);

-- nothing is ruled: nothing waits
SELECT is((p).is_quiet, false, 'without rules no hour is quiet')
    FROM preview_wa_quiet_hours('+5491140000001') p;

-- at the door
SELECT pg_temp.quiet(1, 2);
INSERT INTO sent VALUES ('sale', world.queue(1, 'sale')), ('hello', world.queue(2)), ('code', world.queue(3,
    'code', '["1"]'));
SELECT world.wrote(4);
INSERT INTO sent VALUES ('answer', world.say(4));
SELECT ok(pg_temp.due_in(id) BETWEEN 1.9 AND 2, 'marketing is due when the hours are over') FROM sent
    WHERE name = 'sale';
SELECT ok(pg_temp.due_in(id) BETWEEN 1.9 AND 2, 'so is utility') FROM sent WHERE name = 'hello';
SELECT is(array_agg(s.name ORDER BY s.name), '{answer,code}', 'a code and an answer go at once')
FROM world.claim() c JOIN sent s ON s.id = c.queue_id;
SELECT is(world.reason(id), 'quiet_hours', 'the others say for what they wait') FROM sent WHERE name = 'sale';
SELECT ok(world.held_for(id) BETWEEN 2 * 3600 - 60 AND 2 * 3600, 'and until when') FROM sent
    WHERE name = 'sale';
SELECT alike(explanation, 'quiet hours by the clock of America/%', 'and by whose clock')
FROM sent, explain_wa_message(id) WHERE name = 'sale';
SELECT results_eq($$ SELECT held, hold_reason FROM wa_queue_health $$, $$ VALUES (2::bigint,
    'quiet_hours') $$,
    'the line of the number in wa_queue_health, too');
SELECT world.later('1 hour');
SELECT is(world.claimed(), 0, 'before that none goes');
SELECT world.later('1 hour');
SELECT is(world.claimed(), 0, 'and what comes early is judged anew: by the wall it is quiet still');
SELECT ok(bool_and(pg_temp.due_in(id) BETWEEN 1.9 AND 2), 'it waits as before') FROM sent
    WHERE name IN ('sale', 'hello');

-- hours that go by while messages wait; none is lost, none goes twice
SELECT pg_temp.quiet(3, -1);
SELECT is(world.claimed(), 0, 'a change of the rules is not noticed by claims');
SELECT world.maintain();
SELECT is(world.claimed(), 2, 'but by the next heartbeat: what waited by the old ones goes');
SELECT is(count(*), 0::bigint, 'and that is remembered no longer') FROM wa_wait_rechecks;
SELECT world.accept_all();

-- what is in the line when the hours begin
INSERT INTO sent VALUES ('late', world.queue(5, 'sale'));
SELECT pg_temp.quiet(0.1, 3);
SELECT is(world.claimed(), 0, 'what was due before them and not sent waits, too');
SELECT ok(pg_temp.due_in(id) BETWEEN 2.9 AND 3, 'out of the way of claims') FROM sent WHERE name = 'late';

-- what becomes stale
UPDATE wa_outbound_queue SET expires_at = clock_timestamp() + interval '1 hour' WHERE id = (SELECT id
    FROM sent WHERE name = 'late');
SELECT alike(explanation, '%it expires before, at %', 'a message says when it expires before its hour')
FROM sent, explain_wa_message(id) WHERE name = 'late';
SELECT world.later('61 minutes');
SELECT world.maintain();
SELECT is(world.outcome(id), 'failed expired', 'and does so') FROM sent WHERE name = 'late';

-- purposes, numbers, days
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200');
UPDATE wa_phone_numbers SET throughput = 100000;
SELECT pg_temp.quiet(1, 2, 'marketing');
INSERT INTO sent VALUES ('b1', world.queue(11, 'sale')), ('b2', world.queue(12));
SELECT is(array_agg(s.name), '{b2}', 'hours for marketing hold no utility back')
FROM world.claim() c JOIN sent s ON s.id = c.queue_id;
SELECT pg_temp.quiet(1, 2, 'all', '101');
SELECT world.maintain();
INSERT INTO sent VALUES ('c1', world.queue(13, 'sale', p_number => '101')), ('c2', world.queue(14, 'sale',
    p_number => '100'));
SELECT is(array_agg(s.name ORDER BY s.name), '{b1,c2}', 'hours of one number hold others'' messages not back')
FROM world.claim() c JOIN sent s ON s.id = c.queue_id;
SELECT is(world.reason(id), 'quiet_hours', 'only its own') FROM sent WHERE name = 'c1';
DELETE FROM wa_quiet_hours;
INSERT INTO wa_quiet_days (day, purpose, name)
SELECT (clock_timestamp() AT TIME ZONE 'America/Argentina/Buenos_Aires')::date, 'marketing', 'today';
INSERT INTO sent VALUES ('d1', world.queue(15, 'sale')), ('d2', world.queue(16));
SELECT is(world.reason(id), 'quiet_hours', 'a day is quiet by the recipient''s calendar') FROM sent
    WHERE name = 'd1';
SELECT is(array_agg(s.name), '{d2}', 'for its purpose') FROM world.claim() c JOIN sent s ON s.id = c.queue_id;
DELETE FROM wa_quiet_days;
SELECT world.maintain();
SELECT is(world.claimed(), 2, 'without the rules all go');
SELECT world.accept_all();

-- whose clock: the contact's, the organization's word for the prefix, all that the number may lie in, nothing
SELECT pg_temp.quiet(1, 2, p_zone => 'Asia/Tokyo');
SELECT is((p).zones_from, 'number', 'by the number') FROM preview_wa_quiet_hours(world.customer(1)) p;
SELECT is((p).is_quiet, false, 'it is no such hour in Argentina')
    FROM preview_wa_quiet_hours(world.customer(1)) p;
INSERT INTO wa_zone_prefixes (prefix, time_zone) VALUES ('+549', 'Asia/Kolkata'), ('+54911', 'Asia/Tokyo');
SELECT is(((p).is_quiet, (p).zones_from)::text, '(t,prefix)',
    'by word of the organization, the longest prefix')
FROM preview_wa_quiet_hours(world.customer(1)) p;
SELECT ok(set_wa_contact_time_zone(world.customer(1), 'America/Bogota'), 'a contact''s own zone');
SELECT is(((p).is_quiet, (p).zones_from)::text, '(f,contact)', 'counts before both')
    FROM preview_wa_quiet_hours(world.customer(1)) p;
SELECT is(set_wa_contact_time_zone(world.customer(1), 'America/Bogota'), false, 'which is no news then');
INSERT INTO sent VALUES ('e1', world.queue(2, 'sale'));
SELECT is(world.reason(id), 'quiet_hours', 'by the prefix it waits') FROM sent WHERE name = 'e1';
SELECT set_wa_contact_time_zone(world.customer(2), 'America/Bogota');
SELECT is(world.claimed(), 1, 'and goes as soon as somebody says where the contact lives');
SELECT throws_ok($$ SELECT set_wa_contact_time_zone(world.customer(1), 'Mars/Phobos') $$, 'WA061',
    'no time zone of the name "Mars/Phobos"', 'the error names it');
SELECT throws_ok($$ SELECT set_wa_contact_time_zone(world.customer(1), 'Etc/GMT+99') $$, 'WA061', NULL,
    'no distance that no place has');
SELECT throws_ok($$ SELECT set_wa_contact_time_zone(world.customer(1), 'CET') $$, 'WA061', NULL,
    'an abbreviation knows no change of the clock');
SELECT throws_ok($$ SELECT set_wa_contact_time_zone('+5491149999999', 'UTC') $$, 'P0002', NULL,
    'nobody we know');
DELETE FROM wa_zone_prefixes;
SELECT is(((p).zones, (p).zones_from)::text, '({UTC},unknown)',
    'a satellite telephone may be anywhere: the organization''s clock')
FROM preview_wa_quiet_hours('+870773111632') p;
SELECT pg_temp.quiet(-1, 2, p_zone => 'UTC');
SELECT is((p).is_quiet, true, 'and what it shows hours later') FROM preview_wa_quiet_hours('+870773111632') p;
SELECT ok((p).allowed_from > clock_timestamp() + interval '4 hours 58 minutes', 'until that is over, too')
FROM preview_wa_quiet_hours('+870773111632') p;
SELECT ok((p).zones @> '{Europe/Madrid,Atlantic/Canary}', 'a user id tells the region')
    FROM preview_wa_quiet_hours('ES.1349') p;
SELECT ok((p).zones @> '{Europe/Madrid,Atlantic/Canary}', 'a mobile does not tell where in its country it is')
FROM preview_wa_quiet_hours('+34600000001') p;
SELECT is((p).is_quiet, true, 'SMS rests from 21 to 8 in any case')
FROM preview_wa_quiet_hours('+34600000001', '2026-06-01 21:00 Europe/Madrid', p_channel => 'sms') p;
SELECT is((p).is_quiet, false, 'and not in between')
FROM preview_wa_quiet_hours('+34600000001', '2026-06-01 20:30 Europe/Madrid', p_channel => 'sms') p;
SELECT throws_ok($$ SELECT preview_wa_quiet_hours('+34600000001', p_purpose => 'fun') $$, '22023', NULL,
    'no such purpose');
SELECT is(refresh_wa_phone_zones(), 0, 'what the library knows is there, and no news');
SET LOCAL ROLE wa_admin;
SELECT is(refresh_wa_phone_zones(), 0, 'as an administrator is told, too');
RESET ROLE;
DELETE FROM wa_quiet_hours;
SELECT world.maintain();
SELECT world.claimed();
SELECT world.accept_all();

-- the edge: what a claim hands out within the last seconds would arrive inside
INSERT INTO wa_quiet_hours (from_time, to_time) VALUES ('21:00', '08:00');
SELECT is(_wa_quiet_until(current_wa_organization(), NULL, 'whatsapp', 'utility', '{UTC}', 0,
    '2026-06-01 20:59:57+00'),
    NULL, 'three seconds before it may go');
SELECT is(_wa_quiet_until(current_wa_organization(), NULL, 'whatsapp', 'utility', '{UTC}', 0,
    '2026-06-01 20:59:59+00'),
    '2026-06-02 08:00+00', 'one second before it may not');
INSERT INTO wa_quiet_hours (from_time, to_time) VALUES ('08:00', '21:00');
SELECT is(_wa_quiet_until(current_wa_organization(), NULL, 'whatsapp', 'utility', '{UTC}', 0,
    '2026-06-01 12:00+00'),
    '2026-06-08 12:00+00', 'where no hour is left it is asked again in a week, never sent anyway');
DELETE FROM wa_quiet_hours;

-- caps
INSERT INTO wa_contact_caps (purpose, messages, days) VALUES ('marketing', 2, 7);
INSERT INTO sent SELECT 'k' || n, world.queue(21, 'sale') FROM generate_series(1, 3) n;
INSERT INTO sent VALUES ('k4', world.queue(21)), ('k5', world.queue(22, 'sale'));
SELECT is(array_agg(s.name ORDER BY s.name), '{k1,k2,k4,k5}', 'two of a purpose go, whatever else goes')
FROM world.claim() c JOIN sent s ON s.id = c.queue_id;
SELECT is(world.reason(id), 'contact_cap', 'the third waits') FROM sent WHERE name = 'k3';
SELECT ok(world.held_for(id) <= 60, 'for a minute, as those on their way may fail') FROM sent
    WHERE name = 'k3';
UPDATE wa_outbound_queue SET expires_at = clock_timestamp() + interval '10 days' WHERE id = (SELECT id
    FROM sent WHERE name = 'k3');
SELECT world.accept_all();
SELECT world.later('61 seconds');
SELECT is(world.claimed(), 0, 'they did not');
SELECT ok(world.held_for(id) BETWEEN 6.9 * 86400 AND 7 * 86400,
    'so it waits until the first of them is seven days old')
FROM sent WHERE name = 'k3';
SELECT throws_ok($$ SELECT world.queue(21, 'sale') $$, 'WA131', NULL,
    'what would expire before is refused at the door');
UPDATE wa_organizations SET on_refusal = 'record';
INSERT INTO sent VALUES ('k6', world.queue(21, 'sale'));
SELECT is(world.outcome(id), 'failed contact_cap', 'or recorded') FROM sent WHERE name = 'k6';
SELECT _wa_apply_error_actions(current_wa_organization(), ARRAY[ROW('fail', NULL,
    world.contact(world.customer(21)), NULL,
    131026, 'lost', now(), NULL)::_wa_met_errors]);
SELECT ok(due_at <= clock_timestamp(), 'a failure has it looked at again')
FROM wa_queue_due d JOIN sent s ON s.id = d.queue_id WHERE s.name = 'k3';
UPDATE wa_messages SET state = 'failed' WHERE queue_id = (SELECT id FROM sent WHERE name = 'k1');
SELECT is(world.claimed(), 1, 'since what did not arrive counts for nothing');
SELECT world.accept_all();
UPDATE wa_contact_caps SET messages = 3, purpose = 'all';
SELECT world.queue(22), world.queue(22, 'code', '["1"]'), world.queue(22, 'sale');
SELECT is(world.claimed(), 3, 'all counts marketing and utility together, no codes');
SELECT world.accept_all();
UPDATE wa_contact_caps SET on_full = 'refuse';
UPDATE wa_organizations SET on_refusal = 'raise';
SELECT throws_ok($$ SELECT world.queue(22) $$, 'WA131', NULL,
    'a cap that refuses does so, however long it would wait');
INSERT INTO sent SELECT 'r' || n, world.queue(23) FROM generate_series(1, 3) n;
UPDATE wa_contact_caps SET messages = 1;
SELECT world.claimed(), world.accept_all(), world.later('61 seconds');
SELECT world.claimed();
SELECT is(array_agg(world.outcome(id) ORDER BY name), '{sent,failed contact_cap,failed contact_cap}',
    'also what is in the queue already, once it is certain') FROM sent WHERE name LIKE 'r_';
SELECT throws_ok($$ UPDATE wa_contact_caps SET days = 90; UPDATE wa_organizations SET message_retention = '30 days';
    UPDATE wa_contact_caps SET days = 31 $$, 'WA060', NULL,
        'a cap counts no further back than messages are kept');
DELETE FROM wa_contact_caps;
SELECT world.maintain();
SELECT world.claimed(), world.accept_all();

-- 131049
INSERT INTO sent VALUES ('m1', world.queue(31, 'sale'));
SELECT world.claimed();
SELECT world.refuse(id, 131049) FROM sent WHERE name = 'm1';
SELECT is(world.outcome(id), 'failed 131049', 'marketing that Meta holds back has failed') FROM sent
    WHERE name = 'm1';
INSERT INTO sent VALUES ('m2', world.queue(31, 'sale')), ('m3', world.queue(31));
SELECT is(array_agg(s.name), '{m3}', 'its recipient gets utility')
    FROM world.claim() c JOIN sent s ON s.id = c.queue_id;
SELECT world.accept_all();
SELECT is(world.reason(id), 'cool_off', 'and no marketing') FROM sent WHERE name = 'm2';
SELECT ok(world.held_for(id) BETWEEN 86000 AND 86400, 'for a day') FROM sent WHERE name = 'm2';
UPDATE wa_outbound_queue SET expires_at = clock_timestamp() + interval '20 hours' WHERE id = (SELECT id
    FROM sent WHERE name = 'm2');
SELECT world.later('1 hour');
SELECT _wa_postpone_due(current_wa_organization(), ARRAY[id], ARRAY[clock_timestamp()], NULL) FROM sent
    WHERE name = 'm2';
SELECT is(world.claimed(), 0, 'what would expire within it');
SELECT is(world.outcome(id), 'failed cool_off', 'fails with its code') FROM sent WHERE name = 'm2';
UPDATE wa_contact_cool_offs SET until = clock_timestamp();
SELECT world.queue(31, 'sale');
SELECT is(world.claimed(), 1, 'after it marketing goes again');
SELECT _wa_merge_hours_of(organization_id, contact_id, contact_id) FROM wa_contact_cool_offs;
SELECT is(count(*), 1::bigint, 'one cool-off a contact') FROM wa_contact_cool_offs;

-- WhatsApp and SMS in one statement, at night: each by the hours of its own way, whichever comes first.
SELECT register_wa_phone_number('+14155238886', '+14155238886', 'AC1', 'twilio');
UPDATE wa_organizations SET sms_requires_opt_in = false;
INSERT INTO wa_contact_caps (purpose, messages, days) VALUES ('marketing', 100, 1);
CREATE FUNCTION pg_temp.mixed(p_first integer, p_step integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM world.contact(world.customer(p_first + n)), set_wa_contact_time_zone(world.customer(p_first + n), (
        SELECT 'Etc/GMT' || CASE WHEN h > 12 THEN '-' || 24 - h ELSE '+' || h END
        FROM (SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::integer AS h) x
    )) FROM generate_series(0, 2) n;
    INSERT INTO wa_outbound_queue (phone, phone_number_id, text_body, template_name, on_refusal, reference)
    SELECT world.customer(p_first + u.n), u.number, u.body, u.template, 'record', u.reference
    FROM (VALUES (0, '100', 'Hi', NULL, 'text'), (1, '+14155238886', 'Hi', NULL, 'sms'),
        (2, '100', NULL, 'hello', 'template')) u (n, number, body, template, reference)
    ORDER BY u.n * p_step;
    RETURN string_agg(concat_ws(' ', q.reference, q.error_code,
            CASE WHEN d.due_at > clock_timestamp() + interval '1 hour' THEN 'waits' END), ', ' ORDER BY q.reference)
        FROM wa_outbound_queue q LEFT JOIN wa_queue_due d ON d.queue_id = q.id
        WHERE q.phone BETWEEN world.customer(p_first) AND world.customer(p_first + 2);
END
$$;
SELECT is(pg_temp.mixed(41, 1), 'sms waits, template, text window_closed',
    'in one statement an SMS rests at night, and WhatsApp does not');
SELECT is(pg_temp.mixed(51, -1), 'sms waits, template, text window_closed', 'in the other order, too');

SELECT * FROM finish();
ROLLBACK;
