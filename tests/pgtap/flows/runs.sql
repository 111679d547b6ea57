-- Tests sql/flows/runs.sql, sql/flows/preview.sql, sql/flows/erase.sql.
BEGIN;
\ir ../world.psql
\ir ../customers.psql
SELECT plan(51);
UPDATE wa_organizations SET rate_limit_per_minute = NULL, time_zone = 'UTC';

SELECT store_wa_flow('{"name": "f", "key": "order", "steps": [
    {"name": "a", "type": "send", "template_name": "order", "template_params": ["{{name|there}}", "first"]},
    {"name": "w", "type": "wait", "for": "event", "event": "x", "timeout": "1 day"},
    {"name": "b", "type": "send", "template_name": "order", "template_params": ["{{name|there}}", "second"]}]}');
CREATE FUNCTION pg_temp.start(p_n integer, p_context jsonb DEFAULT '{}') RETURNS uuid LANGUAGE sql AS $$
    SELECT (start_wa_flow('f', world.customer(p_n), p_context)).id
$$;
CREATE FUNCTION pg_temp.stands(p_id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, current_step, outcome) FROM wa_automation_flows WHERE id = p_id
$$;
CREATE FUNCTION pg_temp.queued(p_id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg((template_params ->> 1) || ' ' || status, ', ' ORDER BY id)
    FROM wa_outbound_queue WHERE reference = 'flow:' || p_id
$$;
CREATE FUNCTION pg_temp.did(p_id uuid) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(step || ' ' || outcome, ', ' ORDER BY step_no) FROM wa_flow_steps WHERE flow_id = p_id
$$;

-- start
SELECT pg_temp.start(1) AS one, pg_temp.start(2) AS two, pg_temp.start(3, '{"order": "O3"}') AS three \gset
SELECT is(pg_temp.start(1), :'one', 'a customer has one run of a flow at a time');
SELECT is((start_wa_flow('f', world.customer(9), '{}', 'O3')).id, :'three', 'a key starts one run ever');
SELECT is((start_wa_flow('f', '+54 9 11 4000-0001')).id, :'one', 'however the number is written');
SELECT throws_ok($$ SELECT start_wa_flow('f', 'nobody') $$, '22023', NULL, 'it must be one');
SELECT throws_ok($$ SELECT start_wa_flow('f', world.customer(1), '[]') $$, '22023', NULL, 'a context is an object');
INSERT INTO wa_automation_flows (phone_e164, flow_type) VALUES (world.customer(4), 'f'), (world.customer(4), 'unknown');
SELECT is(string_agg(concat_ws(' ', flow_type, definition_version, current_step), ', ' ORDER BY flow_type),
    'f 1 a, unknown start', 'what is inserted is a run where there is a definition')
FROM wa_automation_flows WHERE phone_e164 = world.customer(4);
SELECT throws_ok($$ INSERT INTO wa_automation_flows (phone_e164, flow_type) VALUES (world.customer(4), 'f') $$, '23505',
    NULL, 'a second one is refused');
SELECT throws_ok($$ INSERT INTO wa_automation_flows (phone_e164, flow_type, current_step)
    VALUES (world.customer(5), 'f', 'z') $$, 'WA702', NULL, 'so is a step that it has not');
SELECT is(process_wa_flows(), 4, 'the engine leaves those of the host alone');
SELECT is((e).state, 'host', 'and says so') FROM (
    SELECT explain_wa_flow(id) AS e FROM wa_automation_flows WHERE flow_type = 'unknown') x;

-- pause and resume
SELECT is((pause_wa_flow(:'one', 'rang')).status, 'paused', 'a run is paused');
SELECT is(pg_temp.queued(:'one'), 'first cancelled', 'what it has waiting is taken back');
SELECT is(process_wa_flows(500, clock_timestamp() + interval '2 days'), 3, 'it does nothing meanwhile');
SELECT is(pg_temp.did(:'one'), 'a queued, w paused', 'which its log says');
SELECT throws_ok(format('SELECT pause_wa_flow(%L)', :'one'), 'WA802', NULL, 'it is paused once');
SELECT add_wa_flow_event('x', NULL, world.customer(1));
SELECT is((resume_wa_flow(:'one')).status, 'active', 'it goes on');
SELECT is(pg_temp.queued(:'one'), 'first pending', 'what was taken back is queued again');
SELECT is(process_wa_flows(), 1, 'and it looks at what came meanwhile');
SELECT is(pg_temp.queued(:'one') || '; ' || pg_temp.stands(:'one'), 'first pending, second pending; completed b end',
    'to which it goes on');
SELECT throws_ok(format('SELECT resume_wa_flow(%L)', :'one'), 'WA802', NULL, 'what has ended does not');
SELECT throws_ok('SELECT cancel_wa_flow(gen_random_uuid())', 'WA703', NULL, 'a run must be one');

-- the emergency statement: what a dispatcher has already is said to be past recall
SELECT pg_temp.start(6) AS six, pg_temp.start(7) AS seven \gset
SELECT process_wa_flows();
SELECT count(*) FROM world.claim();
SELECT pg_temp.start(8) AS eight \gset
SELECT process_wa_flows();
UPDATE wa_automation_flows SET status = 'cancelled' WHERE status = 'active';
SELECT is(pg_temp.queued(:'eight'), 'first cancelled', 'what waits is cancelled with its run');
SELECT is(detail, '{"recalled": 1}', 'and counted') FROM wa_flow_steps WHERE flow_id = :'eight' AND type = 'state';
SELECT is(pg_temp.queued(:'six'), 'first sending', 'what is with a dispatcher goes');
SELECT is(detail, jsonb_build_object('recalled', 0, 'past_recall', (
    SELECT jsonb_agg(id) FROM wa_outbound_queue WHERE reference = 'flow:' || :'six')), 'and is named')
FROM wa_flow_steps WHERE flow_id = :'six' AND type = 'state';
SELECT is((SELECT count(*) FROM wa_automation_flows WHERE status = 'active'), 0::bigint, 'all are stopped');
SELECT is(process_wa_flows(500, clock_timestamp() + interval '90 days'), 0, 'and do nothing more');

-- paused by hand in the middle, deleted
SELECT pg_temp.start(10) AS ten, pg_temp.start(11) AS eleven \gset
SELECT process_wa_flows();
UPDATE wa_automation_flows SET status = 'paused' WHERE id = :'ten';
SELECT is(pg_temp.queued(:'ten'), 'first cancelled', 'a plain UPDATE pauses as well');
UPDATE wa_automation_flows SET status = 'active' WHERE id = :'ten';
SELECT is(pg_temp.queued(:'ten'), 'first pending', 'and resumes');
DELETE FROM wa_automation_flows WHERE id = :'eleven';
SELECT is(pg_temp.queued(:'eleven'), 'first cancelled', 'a run that is deleted sends nothing more');

-- by hand
SELECT is((advance_wa_flow(:'ten', 'b')).current_step, 'b', 'a run is moved by hand');
SELECT process_wa_flows();
SELECT is(pg_temp.did(:'ten'), 'a queued, w paused, w resumed, w advanced, b queued', 'which its log says');
SELECT throws_ok(format('SELECT advance_wa_flow(%L, %L)', :'ten', 'a'), 'WA802', NULL, 'not once it has ended');
SELECT throws_ok(format('SELECT advance_wa_flow(%L, %L)', pg_temp.start(12), 'z'), 'WA702', NULL,
    'and to a step that it has');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'flow_advanced'), 1::bigint, 'it is audited');
SELECT pg_temp.start(13) AS thirteen \gset
UPDATE wa_automation_flows SET current_step = 'b' WHERE id = :'thirteen';
SELECT process_wa_flows();
SELECT is(pg_temp.stands(:'thirteen'), 'completed b end', 'a plain UPDATE of the step does, too');

-- a tenant with very many delays nobody
SELECT create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001', 'AR') AS away \gset
UPDATE wa_automation_flows SET status = 'cancelled';
SELECT o.id AS home FROM wa_organizations o WHERE o.is_default \gset
INSERT INTO wa_automation_flows (organization_id, phone_e164, flow_type, next_action_at)
SELECT :'home', world.customer(n), 'f', now() - interval '1 day' FROM generate_series(100, 139) n;
SELECT set_config('wa.organization_id', :'away', true);
SELECT store_wa_flow('{"name": "f", "steps": [{"name": "w", "type": "wait", "interval": "1 day"}]}');
INSERT INTO wa_automation_flows (phone_e164, flow_type) SELECT world.customer(n), 'f' FROM generate_series(1, 2) n;
SELECT set_config('wa.organization_id', '', true);
SELECT is(process_wa_flows(10), 7, 'a batch takes the same of each organization');
SELECT is((SELECT count(*) FROM wa_automation_flows WHERE organization_id = :'away' AND wait IS NOT NULL), 2::bigint,
    'those of the one with few have had their turn');
SELECT set_config('wa.organization_id', :'home', true);
SELECT is(process_wa_flows(100), 35, 'who names an organization has its flows only');

-- preview
SELECT is(string_agg(concat_ws(' ', step, what, why), '; ' ORDER BY n),
    'a template order ["Ann", "first"]; w waits for x until 2031-01-02 00:00:00+00 it does not come; '
    'b template order ["Ann", "second"]', 'what a flow would do')
FROM preview_wa_flow('f', '{"name": "Ann"}', world.customer(1), p_now => '2031-01-01');
SELECT is(at, timestamptz '2031-01-01', 'and when, if what it waits for comes')
FROM preview_wa_flow('f', '{}', world.customer(1), '{"w": {"by": "UPS"}}', '2031-01-01') WHERE step = 'b';
INSERT INTO wa_rates (country, category, valid_from, currency, rate) VALUES ('AR', 'utility', '2030-01-01', 'USD', 0.034);
SELECT is(sum(cost) || ' ' || min(currency), '0.068 USD', 'with its cost by the rate card')
FROM preview_wa_flow('f', '{}', world.customer(1), p_now => '2031-01-01');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE created_at > '2031-01-01'), 0::bigint, 'nothing is sent');

-- a number that changes hands, two contacts that are one, a person who is erased
UPDATE wa_automation_flows SET status = 'cancelled' WHERE status = 'active';
SELECT pg_temp.start(20) AS twenty \gset
SELECT world.writes(20, 'Hi');
SELECT world.moves(20, 21);
SELECT is(phone_e164, world.customer(21), 'a run goes along with a number that changes') FROM wa_automation_flows
WHERE id = :'twenty';
SELECT process_wa_flows();
SELECT is((SELECT phone FROM wa_outbound_queue WHERE reference = 'flow:' || :'twenty'), world.customer(21),
    'and sends to the present one');
SELECT pg_temp.start(30, '{"name": "Ann"}') AS thirty \gset
SELECT process_wa_flows();
SELECT world.writes(30, 'secret words');
SELECT is((SELECT count(*) FROM wa_flow_events WHERE data::text LIKE '%secret words%'), 1::bigint, 'what was said is kept');
SELECT is(export_wa_contact(world.customer(30)) #>> '{flow_events,0,data,text}', 'secret words', 'and exported');
SELECT is((erase_wa_contact(world.customer(30), 'asked')).state, 'done', 'until the person is erased');
SELECT is(pg_temp.stands(:'thirty'), 'cancelled w opted_out', 'whose runs end');
SELECT is((SELECT count(*) FROM wa_flow_events WHERE data::text LIKE '%secret%'), 0::bigint, 'and say nothing any more');
SELECT is((SELECT trigger_data || variables FROM wa_automation_flows WHERE id = :'thirty'), '{}', 'nor have a context');

SELECT * FROM finish();
ROLLBACK;
