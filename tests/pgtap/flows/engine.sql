-- Tests sql/flows/engine.sql, sql/flows/values.sql, sql/flows/events.sql, sql/flows/metrics.sql.
BEGIN;
\ir ../world.psql
\ir ../customers.psql
SELECT plan(73);
UPDATE wa_organizations SET rate_limit_per_minute = NULL, time_zone = 'UTC';

CREATE FUNCTION pg_temp.define(p_name text, p_steps text, p_rest jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT (store_wa_flow(jsonb_build_object('name', p_name, 'steps', p_steps::jsonb) || p_rest)).state
$$;
CREATE FUNCTION pg_temp.start(
    p_name text, p_n integer, p_context jsonb DEFAULT '{}', p_key text DEFAULT NULL
) RETURNS uuid LANGUAGE sql AS $$
    SELECT (start_wa_flow(p_name, world.customer(p_n), p_context, p_key)).id
$$;
-- So much later than now.
CREATE FUNCTION pg_temp.go(p_later interval DEFAULT '0') RETURNS integer LANGUAGE sql AS $$
    SELECT process_wa_flows(500, clock_timestamp() + p_later)
$$;
CREATE FUNCTION pg_temp.did(p_id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(step || ' ' || outcome, ', ' ORDER BY step_no) FROM wa_flow_steps WHERE flow_id = p_id
$$;
CREATE FUNCTION pg_temp.stands(p_id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, current_step, outcome) FROM wa_automation_flows WHERE id = p_id
$$;
CREATE FUNCTION pg_temp.queued(p_id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(coalesce(text_body, template_name || coalesce(' ' || template_params::text, '')) || ' '
        || concat_ws(' ', status, error_code), ', ' ORDER BY id)
    FROM wa_outbound_queue WHERE reference = 'flow:' || p_id
$$;

-- values
SELECT is(filled, f.expected::jsonb, f.given) FROM (
    VALUES
    ('["{{name}}", "{{ n }}", "{{n}} of {{name}}"]', '["Ann", 5, "5 of Ann"]'),
    ('{"a": "{{quoted}}", "b": "so {{quoted}}!"}', '{"a": "a \"b\" \\ c\nd", "b": "so a \"b\" \\ c\nd!"}'),
    ('"{{order.id}}"', '"O1"'), ('"{{nothing|there}}"', '"there"'), ('"a {{nothing|}}b"', '"a b"'),
    ('{"lat": "{{place.lat}}"}', '{"lat": 1.5}'), ('"{{all}}"', '[1, 2]'), ('"no placeholder"', '"no placeholder"'),
    ('"an open {{ brace"', '"an open {{ brace"')
) f (given, expected)
CROSS JOIN _wa_fill_flow(f.given::jsonb, '{"name": "Ann", "n": 5, "quoted": "a \"b\" \\ c\nd", "order": {"id": "O1"},
    "place": {"lat": 1.5}, "all": [1, 2]}');
SELECT is(missing, 'x, y.z', 'what has no value is named') FROM _wa_fill_flow('["{{x}}", "{{y.z}}"]', '{}');
SELECT is(_wa_flow_holds(c.condition::jsonb, '{"a": "Yes ", "n": 5, "t": "2031-01-01T00:00:00Z", "o": null}'), c.holds,
    c.condition)
FROM (
    VALUES
    ('{"path": "a", "is": "yes"}', true), ('{"path": "a", "is": "no"}', false), ('{"path": "n", "is": 5}', true),
    ('{"path": "a", "in": ["no", "YES"]}', true), ('{"path": "a", "contains": "es"}', true),
    ('{"path": "n", "above": 4}', true), ('{"path": "n", "at_most": "4.9"}', false),
    ('{"path": "x", "below": 4}', false), ('{"path": "t", "above": "2030-01-01"}', true),
    ('{"path": "o", "exists": true}', false), ('{"path": "o", "is": null}', true),
    ('{"not": {"path": "x", "exists": true}}', true),
    ('{"all": [{"path": "a", "is": "yes"}, {"path": "n", "above": 5}]}', false),
    ('{"any": [{"path": "a", "is": "no"}, {"path": "n", "above": 4}]}', true)
) c (condition, holds);

-- time of day by the customer's clock (UTC-3), also on the days that are named
SELECT world.contact(world.customer(1)) AS one \gset
SELECT is(_wa_flow_next_time(current_wa_organization(), :one, '09:00', w.days, w.now),
    w.at, w.what)
FROM (
    VALUES
    (NULL::jsonb, timestamptz '2031-03-03 11:59+00', timestamptz '2031-03-03 12:00+00', 'a minute before nine'),
    (NULL, '2031-03-03 12:00+00', '2031-03-04 12:00+00', 'at nine it is tomorrow'),
    ('[6]', '2031-03-03 12:00+00', '2031-03-08 12:00+00', 'on Saturday')
) w (days, now, at, what);

-- send, text inside the window and template outside, as one step
SELECT pg_temp.define('both', '[{"name": "s", "type": "send", "text_body": "Hi {{name}}", "template_name": "order",
    "template_params": ["{{name}}", "x"]}]');
SELECT world.wrote(1);
SELECT pg_temp.start('both', 1, '{"name": "Ann"}') AS open, pg_temp.start('both', 2, '{"name": "Bob"}') AS closed \gset
SELECT is(pg_temp.go(), 2, 'two runs are due');
SELECT is(pg_temp.stands(:'open'), 'completed s end', 'a run ends behind its last step');
SELECT is(pg_temp.did(:'open'), 's queued', 'and has done that');
SELECT is(idempotency_key || ' ' || (metadata ->> 'flow'), 'flow:' || :'open' || ':s:1 both',
    'its message has the key of run, step and visit')
FROM wa_outbound_queue WHERE reference = 'flow:' || :'open';
SELECT is(world.claimed() + world.claimed(), 2, 'both can be sent');
SELECT is(string_agg(i.is_within_24h || ' ' || (i.template_id IS NULL), ', ' ORDER BY i.is_within_24h),
    'false false, true true', 'the one in the open window as text, the other as template') FROM wa_queue_inflight i;

-- a refusal is an outcome
SELECT pg_temp.define('text', '[{"name": "s", "type": "send", "text_body": "Hi"}]');
SELECT pg_temp.define('handled', '[{"name": "s", "type": "send", "text_body": "Hi", "on_refused": "b"},
    {"name": "c", "type": "end", "outcome": "sent"},
    {"name": "b", "type": "branch", "cases": [{"when": {"path": "outcome.code", "is": "window_closed"}, "goto": "t"}]},
    {"name": "d", "type": "end", "outcome": "other"},
    {"name": "t", "type": "send", "template_name": "hello"}]');
SELECT pg_temp.start('text', 3) AS text, pg_temp.start('handled', 3) AS handled \gset
SELECT pg_temp.go();
SELECT is(pg_temp.stands(:'text'), 'failed s window_closed', 'one that is not handled fails the run, with its reason');
SELECT is(pg_temp.did(:'handled'), 's refused, b t, t queued', 'one that is handled leads on');
SELECT pg_temp.define('value', '[{"name": "s", "type": "send", "template_name": "order",
    "template_params": ["{{name}}", "{{what}}"]}]');
SELECT pg_temp.start('value', 4, '{"name": "Ann"}') AS value \gset
SELECT pg_temp.go();
SELECT is(last_error, 'no value for what', 'a value that is not there is a refusal, too') FROM wa_automation_flows
WHERE id = :'value';

-- waits
SELECT pg_temp.define('wait', '[{"name": "w", "type": "wait", "for": "reply", "timeout": "1 day", "on_timeout": "late"},
    {"name": "b", "type": "branch", "cases": [{"when": {"path": "reply.text", "is": "yes"}, "goto": "good"}]},
    {"name": "bad", "type": "end", "outcome": "no"}, {"name": "good", "type": "end", "outcome": "yes"},
    {"name": "late", "type": "end", "outcome": "late"}]');
SELECT pg_temp.start('wait', 5) AS replied, pg_temp.start('wait', 6) AS silent \gset
SELECT pg_temp.go();
SELECT is((e).explanation ~ '^waits for a reply until ', true, 'explain says what a run waits for')
FROM (SELECT explain_wa_flow(:'silent') AS e) e;
SELECT is(pg_temp.go(), 0, 'what waits is not due');
SELECT world.writes(5, 'Yes');
SELECT is(pg_temp.go(), 1, 'a reply makes it due');
SELECT is(pg_temp.stands(:'replied'), 'completed good yes', 'and can be told from another');
SELECT is(pg_temp.stands(:'silent'), 'active w', 'nobody else''s run goes on');
SELECT pg_temp.go('1 day 1 second');
SELECT is(pg_temp.stands(:'silent'), 'completed late late', 'in the end it times out');

-- who is asked may say CANCEL
SELECT pg_temp.start('wait', 40) AS asked \gset
SELECT pg_temp.go();
SELECT world.writes(40, 'Cancel');
SELECT is(is_wa_opted_out(world.customer(40)), false, 'a word that is an answer opts nobody out');
SELECT world.writes(41, 'Cancel');
SELECT is(is_wa_opted_out(world.customer(41)), true, 'as it does where nothing was asked');

-- what came before the wait, behind the start, counts; what came before the start does not
SELECT pg_temp.define('early', '[{"name": "i", "type": "wait", "interval": "1 hour"},
    {"name": "w", "type": "wait", "for": "event", "event": "shipped", "timeout": "1 day", "on_timeout": "late"},
    {"name": "x", "type": "wait", "for": "event", "event": "shipped", "timeout": "1 day"},
    {"name": "late", "type": "end"}]', '{"key": "order"}');
SELECT add_wa_flow_event('shipped', 'O1') AS before \gset
SELECT pg_temp.start('early', 7, '{"order": "O1"}') AS early \gset
SELECT pg_temp.go();
SELECT isnt(add_wa_flow_event('shipped', 'O1', p_data => '{"by": "UPS"}', p_event_id => 'e1'), NULL, 'an event counts');
SELECT is(add_wa_flow_event('shipped', 'O1', p_event_id => 'e1'), NULL, 'once');
SELECT pg_temp.go('1 hour 1 second');
SELECT is(pg_temp.did(:'early'), 'i time, w event:shipped', 'an event that came before the wait is found, and used up');
SELECT is(variables #>> '{event,by}', 'UPS', 'the run knows what it said') FROM wa_automation_flows WHERE id = :'early';
SELECT add_wa_flow_event('shipped', 'O2');
SELECT is(pg_temp.go(), 0, 'one of another key is nothing to it');

-- delivery states, of the message that was sent last
SELECT pg_temp.define('state', '[{"name": "s", "type": "send", "template_name": "hello"},
    {"name": "w", "type": "wait", "for": "status", "status": ["failed"], "timeout": "1 day", "on_timeout": "fine"},
    {"name": "bad", "type": "end", "outcome": "not delivered"}, {"name": "fine", "type": "end"}]');
SELECT pg_temp.start('state', 8) AS state \gset
SELECT pg_temp.go();
SELECT count(*) FROM world.claim();
SELECT world.refuse(last_queue_id, 131026) FROM wa_automation_flows WHERE id = :'state';
SELECT pg_temp.go();
SELECT is(pg_temp.did(:'state'), 's queued, w status, bad not delivered', 'what the provider refused is an event');

-- interrupts, at whatever step
SELECT pg_temp.define('pay', '[{"name": "s", "type": "send", "template_name": "hello"},
    {"name": "w", "type": "wait", "interval": "1 day"}, {"name": "r", "type": "send", "template_name": "hello"},
    {"name": "x", "type": "wait", "interval": "1 day"}, {"name": "u", "type": "end", "outcome": "unpaid"},
    {"name": "paid", "type": "end", "outcome": "paid"}]',
    '{"key": "order", "interrupts": {"payment": "paid", "reply": "end"}}');
SELECT pg_temp.start('pay', 9, '{"order": "P1"}') AS pay, pg_temp.start('pay', 10, '{"order": "P2"}') AS talk \gset
SELECT pg_temp.go();
SELECT is(_wa_add_flow_event(current_wa_organization(), 'payment', 'P1', NULL, '{}', 'p1') > 0, true, 'it is paid');
SELECT is(pg_temp.queued(:'pay'), 'hello cancelled', 'what waits is taken back in the same transaction');
SELECT pg_temp.go();
SELECT is(pg_temp.stands(:'pay'), 'completed paid paid', 'the run ends where the payment leads');
SELECT pg_temp.go('1 day 1 second');
SELECT is(pg_temp.did(:'talk'), 's queued, w time, r queued', 'the other one goes on');
SELECT world.writes(10, 'What?');
SELECT pg_temp.go();
SELECT is(pg_temp.stands(:'talk'), 'completed x reply', 'a reply may end one');

-- set, notify, call
CREATE FUNCTION pg_temp_double(p_context jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT to_jsonb((p_context ->> 'n')::integer * 2)
$$;
SELECT list_wa_flow_function('double', 'pg_temp_double(jsonb)');
INSERT INTO siren_templates (name) VALUES ('OPERATOR');
SELECT pg_temp.define('other', '[{"name": "a", "type": "set", "values": {"n": 21}},
    {"name": "b", "type": "call", "function": "double", "into": "twice"},
    {"name": "c", "type": "notify", "template": "OPERATOR", "context": {"n": "{{twice}}"}},
    {"name": "d", "type": "branch", "cases": [{"when": {"path": "twice", "is": 42}, "goto": "e"}], "else": "f"},
    {"name": "e", "type": "goto", "next": "end"}, {"name": "f", "type": "end"}]');
SELECT pg_temp.start('other', 11) AS other \gset
SELECT pg_temp.go();
SELECT is(pg_temp.did(:'other'), 'a set, b called, c planned, d e, e end', 'the other steps');
SELECT is(context ->> 'n', '42', 'a notification has its context') FROM siren_events;
CREATE ROLE wa_flow_stranger;
ALTER FUNCTION pg_temp_double(jsonb) OWNER TO wa_flow_stranger;
SELECT throws_ok($$ SELECT list_wa_flow_function('double', 'pg_temp_double(jsonb)') $$, 'WA704', NULL,
    'what a stranger may replace is not called');
SELECT pg_temp.start('other', 12) AS other \gset
SELECT pg_temp.go();
SELECT is(pg_temp.stands(:'other'), 'failed a error', 'nor where it was listed before');

-- what raises harms no other, is tried again, and fails with the reason
ALTER FUNCTION pg_temp_double(jsonb) OWNER TO CURRENT_USER;
CREATE OR REPLACE FUNCTION pg_temp_double(p_context jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1 / 0) $$;
SELECT pg_temp.start('other', n) FROM generate_series(13, 14) n;
SELECT pg_temp.start('both', n, '{"name": "Cid"}') FROM generate_series(15, 20) n;
SELECT is(pg_temp.go(), 8, 'eight are due, of which two raise');
SELECT is((SELECT count(*) FROM wa_automation_flows WHERE flow_type = 'both' AND status = 'completed'), 8::bigint,
    'the others go on');
SELECT is(string_agg(concat_ws(' ', status, retry_count, last_error), ', '),
    'active 1 22012: division by zero, active 1 22012: division by zero', 'those that raise are tried again later')
FROM wa_automation_flows WHERE flow_type = 'other' AND contact_id IN (world.found(13), world.found(14));
SELECT pg_temp.go(n * interval '1 day') FROM generate_series(1, 5) n;
SELECT is(string_agg(concat_ws(' ', status, retry_count, outcome), ', '), 'failed 5 error, failed 5 error', 'five times')
FROM wa_automation_flows WHERE flow_type = 'other' AND contact_id IN (world.found(13), world.found(14));

-- guards
SELECT pg_temp.define('loop', '[{"name": "w", "type": "wait", "interval": "1 hour"},
    {"name": "s", "type": "set", "values": {}, "next": "w"}]', '{"limits": {"visits": 3, "age": "10 days"}}');
SELECT pg_temp.start('loop', 21) AS loop, pg_temp.start('loop', 22) AS old \gset
UPDATE wa_automation_flows SET created_at = created_at - interval '11 days' WHERE id = :'old';
SELECT pg_temp.go(n * interval '61 minutes') FROM generate_series(0, 5) n;
SELECT is(pg_temp.stands(:'loop'), 'paused w visits', 'who goes round too often is paused');
SELECT is(pg_temp.stands(:'old'), 'paused w age', 'and who is too old');
SELECT is(string_agg(meta ->> 'guard', ' ' ORDER BY meta ->> 'guard'), 'age visits', 'which the audit log says')
FROM audit_log WHERE event = 'flow_paused';
SELECT pg_temp.define('many', '[{"name": "s", "type": "send", "template_name": "hello"},
    {"name": "t", "type": "send", "template_name": "hello"}, {"name": "u", "type": "send", "template_name": "hello"}]',
    '{"limits": {"sends_per_hour": 2}}');
SELECT pg_temp.start('many', 23) AS many \gset
SELECT pg_temp.go();
SELECT is(pg_temp.stands(:'many'), 'paused u sends_per_hour', 'so is who is sent too much');

-- triggers
SELECT pg_temp.define('word', '[{"name": "w", "type": "wait", "for": "reply", "timeout": "1 day"}]',
    '{"trigger": {"text": ["Start me"]}}');
SELECT pg_temp.define('first', '[{"name": "w", "type": "wait", "interval": "1 day"}]', '{"trigger": {"message": "first"}}');
SELECT pg_temp.define('placed', '[{"name": "w", "type": "wait", "interval": "1 day"}]', '{"trigger": {"event": "placed"}}');
SELECT world.writes(30, 'start me ');
SELECT world.writes(30, 'Start me', NULL, 1);
SELECT is((SELECT string_agg(flow_type, ' ' ORDER BY flow_type) FROM wa_automation_flows
    WHERE contact_id = world.found(30)), 'first word', 'a message starts flows, two quick ones each once');
SELECT add_wa_flow_event('placed', 'K1', world.customer(31), '{"x": 1}'), add_wa_flow_event('placed', 'K1', world.customer(31));
SELECT is(string_agg(concat_ws(' ', run_key, trigger_data), ', '), 'K1 {"x": 1}', 'so does an event, once a key')
FROM wa_automation_flows WHERE flow_type = 'placed';

-- an opt-out ends what it forbids
SELECT pg_temp.define('ad', '[{"name": "w", "type": "wait", "interval": "1 day"}]', '{"category": "marketing"}');
SELECT pg_temp.start('ad', 32) AS ad, pg_temp.start('loop', 32) AS loop \gset
SELECT opt_out_wa_contact(world.customer(32), 'marketing', 'asked');
SELECT is(pg_temp.stands(:'ad') || ', ' || pg_temp.stands(:'loop'), 'cancelled w opted_out, active w',
    'an opt-out of marketing ends marketing flows');
SELECT opt_out_wa_contact(world.customer(32), 'all', 'asked');
SELECT is(pg_temp.stands(:'loop'), 'cancelled w opted_out', 'one of everything all');

SELECT is(concat_ws(' ', started, completed, failed), '2 2 0', 'figures by version')
FROM wa_flow_metrics WHERE flow = 'pay' AND step IS NULL;
SELECT is(concat_ws(' ', started, queued, refused), '1 0 1', 'and by step')
FROM wa_flow_metrics WHERE flow = 'handled' AND step = 's';

SELECT * FROM finish();
ROLLBACK;
