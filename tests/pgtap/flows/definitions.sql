-- Tests sql/flows/structure.sql, sql/flows/definitions.sql, sql/flows/defaults.sql.
BEGIN;
\ir ../world.psql
SELECT plan(58);

CREATE FUNCTION pg_temp.problem(p_definition jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
    v_message text;
BEGIN
    PERFORM store_wa_flow('{"name": "f"}' || p_definition);
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    RETURN v_state || ' ' || v_message;
END
$$;
CREATE FUNCTION pg_temp.steps(p_steps text) RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.problem(jsonb_build_object('steps', p_steps::jsonb))
$$;

-- what is no definition: the step is named, and what is wrong with it
SELECT is(pg_temp.steps(s.steps), s.problem, s.problem) FROM (
    VALUES
    ('[]', 'WA701 flow "f": steps are a list of 1 to 200 objects'),
    ('[1]', 'WA701 flow "f", step number 1: a step is an object'),
    ('[{"name": "A b", "type": "end"}]',
        'WA701 flow "f", step A b: the name of a step is a word of small letters, digits and _, and not "end"'),
    ('[{"name": "a", "type": "sing"}]',
        'WA701 flow "f", step a: there is no type "sing": send, wait, branch, set, notify, call, goto, end'),
    ('[{"name": "a", "type": "goto"}]', 'WA701 flow "f", step a: a step of type goto needs "next"'),
    ('[{"name": "a", "type": "end", "text_body": "x"}]',
        'WA701 flow "f", step a: a step of type end has no "text_body", but name, type, note, outcome'),
    ('[{"name": "a", "type": "end"}, {"name": "a", "type": "end"}]',
        'WA701 flow "f", step a: there are two steps of this name'),
    ('[{"name": "a", "type": "goto", "next": "b"}]', 'WA701 flow "f", step a: next names "b", which is no step'),
    ('[{"name": "a", "type": "send"}]',
        'WA701 flow "f", step a: a send has a text_body, a template_name, or both (text inside the window, '
        'template outside), or content with its message_type'),
    ('[{"name": "a", "type": "send", "content": {}}]',
        'WA701 flow "f", step a: content goes with a message_type, and with no text_body'),
    ('[{"name": "a", "type": "send", "text_body": ""}]',
        'WA701 flow "f", step a: text_body, template_name and what else is a word are texts that are not empty'),
    ('[{"name": "a", "type": "send", "text_body": "x", "template_params": []}]',
        'WA701 flow "f", step a: template_language and template_params go with a template_name'),
    ('[{"name": "a", "type": "send", "text_body": "x", "priority": "urgent"}]',
        'WA701 flow "f", step a: priority is high, normal or low'),
    ('[{"name": "a", "type": "send", "text_body": "x", "on_refused": "b"}]',
        'WA701 flow "f", step a: on_refused names "b", which is no step'),
    ('[{"name": "a", "type": "wait"}]', 'WA701 flow "f", step a: a wait has one of interval, at, until and for'),
    ('[{"name": "a", "type": "wait", "interval": "soon"}]',
        'WA701 flow "f", step a: interval is a time of a second or more, such as "2 hours"'),
    ('[{"name": "a", "type": "wait", "interval": "0"}]',
        'WA701 flow "f", step a: interval is a time of a second or more, such as "2 hours"'),
    ('[{"name": "a", "type": "wait", "at": "25:00"}]',
        'WA701 flow "f", step a: at is a time of day, such as "09:00"'),
    ('[{"name": "a", "type": "wait", "at": "09:00", "weekdays": [0]}]',
        'WA701 flow "f", step a: weekdays go with at, and are numbers from 1 (Monday) to 7'),
    ('[{"name": "a", "type": "wait", "for": "rain", "timeout": "1 day"}]',
        'WA701 flow "f", step a: for is reply, button, status, payment or event'),
    ('[{"name": "a", "type": "wait", "for": "reply"}]',
        'WA701 flow "f", step a: a wait for something has a timeout of a second or more, such as "24 hours"'),
    ('[{"name": "a", "type": "wait", "for": "event", "timeout": "1 day"}]',
        'WA701 flow "f", step a: a wait for an event, and no other, names it as event'),
    ('[{"name": "a", "type": "wait", "for": "status", "status": ["lost"], "timeout": "1 day"}]',
        'WA701 flow "f", step a: status goes with a wait for one, as a list of accepted, sent, delivered, read, '
        'played, failed'),
    ('[{"name": "a", "type": "branch", "cases": [{"when": {"path": "x", "is": 1}}]}]',
        'WA701 flow "f", step a: a case has when and goto'),
    ('[{"name": "a", "type": "branch", "cases": [{"when": {"path": "x", "like": 1}, "goto": "end"}]}]',
        'WA701 flow "f", step a: a condition knows no "like"'),
    ('[{"name": "a", "type": "branch", "cases": [{"when": {"all": []}, "goto": "end"}]}]',
        'WA701 flow "f", step a: all and any stand alone, with a list of conditions'),
    ('[{"name": "a", "type": "branch", "cases": [{"when": {"not": {"is": 1}}, "goto": "end"}]}]',
        'WA701 flow "f", step a: a condition needs a path, such as reply.text'),
    ('[{"name": "a", "type": "set", "values": {"contact": 1}}]',
        'WA701 flow "f", step a: contact, conversation, reply, outcome, event and run are not for being set'),
    ('[{"name": "a", "type": "end"}, {"name": "b", "type": "end"}]',
        'WA701 flow "f", step b: no step leads here'),
    ('[{"name": "a", "type": "goto", "next": "a"}]', 'WA701 flow "f", step a: from here it goes round without a wait'),
    ('[{"name": "a", "type": "set", "values": {}}, {"name": "b", "type": "send", "text_body": "x", "next": "a"}]',
        'WA701 flow "f", step a: from here it goes round without a wait'),
    ('[{"name": "a", "type": "wait", "interval": "1 day"}, {"name": "b", "type": "set", "values": {}}, '
        '{"name": "c", "type": "branch", "cases": [{"when": {"path": "x", "is": 1}, "goto": "b"}], "else": "a"}]',
        'WA701 flow "f", step b: from here it goes round without a wait')
) s (steps, problem);
SELECT is(pg_temp.problem(d.definition::jsonb), d.problem, d.problem) FROM (
    VALUES
    ('{"name": "a b", "steps": []}', 'WA701 flow "a b": name is a word of letters, digits and _ . -'),
    ('{"steps": [], "on": {}}', 'WA701 flow "f": a definition has no "on", but name, description, category, trigger, '
        'key, interrupts, limits, steps, version, state'),
    ('{"steps": [], "category": "spam"}', 'WA701 flow "f": category is utility, marketing or authentication'),
    ('{"steps": [], "trigger": {"sound": 1}}',
        'WA701 flow "f": trigger is {"text": ["hello"]}, {"message": "first"}, {"message": "any"} or '
        '{"event": "name"}'),
    ('{"steps": [], "limits": {"visits": 0}}',
        'WA701 flow "f": limits are visits and sends_per_hour, numbers from 1 to 9999, and age, such as "90 days"'),
    ('{"steps": [{"name": "a", "type": "end"}], "interrupts": {"rain": "a"}}',
        'WA701 flow "f": rain leads to events of the names reply, payment and event:NAME only'),
    ('{"steps": [{"name": "a", "type": "end"}], "interrupts": {"reply": "b"}}',
        'WA701 flow "f": interrupts name "b", which is no step')
) d (definition, problem);
SELECT is(pg_temp.steps(
    '[{"name": "a", "type": "wait", "interval": "1 day"}, {"name": "b", "type": "goto", "next": "a"}]'), 'none',
    'a loop with a wait in it may go round');
SELECT is(pg_temp.problem('{"steps": [{"name": "a", "type": "end"}, {"name": "b", "type": "end"}],
    "interrupts": {"reply": "b"}}'), 'none', 'what an interrupt leads to is reached');

-- versions
SELECT is((store_wa_flow('{"name": "v", "steps": [{"name": "a", "type": "send", "template_name": "hello"}]}')).state,
    'active', 'a definition whose templates are approved is active at once');
SELECT is((store_wa_flow('{"name": "v", "steps": [{"name": "a", "type": "send", "template_name": "hello"}]}')).version,
    1, 'what is stored again unchanged is no new version');
SELECT is((store_wa_flow('{"name": "v", "steps": [{"name": "a", "type": "send", "template_name": "draft"}]}')).state,
    'draft', 'one with a template that is not approved stays a draft');
SELECT is(state_reason, 'template "draft" (en) is PENDING, not APPROVED', 'and says so')
FROM wa_flow_definitions WHERE name = 'v' AND version = 2;
SELECT throws_ok($$ SELECT activate_wa_flow('v') $$, 'WA801', NULL, 'nor is it activated by hand');
SELECT is(state, 'active', 'the former one stays in use') FROM wa_flow_definitions WHERE name = 'v' AND version = 1;
UPDATE wa_templates SET status = 'APPROVED' WHERE name = 'draft';
SELECT is((activate_wa_flow('v')).version, 2, 'once it is approved it may be');
SELECT is(string_agg(version || ' ' || state, ', ' ORDER BY version), '1 retired, 2 active', 'in place of the former one')
FROM wa_flow_definitions WHERE name = 'v';
SELECT throws_ok($$ UPDATE wa_flow_definitions SET steps = '[]' WHERE name = 'v' $$, 'WA803', NULL,
    'a version does not change');
SELECT throws_ok($$ SELECT start_wa_flow('nothing', '+5491140000001') $$, 'WA702', NULL, 'a name must be known');
SELECT is(export_wa_flow('v', 1), '{"name": "v", "category": "utility",
    "steps": [{"name": "a", "type": "send", "template_name": "hello"}]}'::jsonb, 'a version can be exported');
SELECT is(retire_wa_flow('v'), 0, 'a flow may be retired');
SELECT throws_ok($$ SELECT start_wa_flow('v', '+5491140000001') $$, 'WA802', NULL, 'then no run is started');

-- those to begin with
SELECT is(string_agg(name, ' ' ORDER BY name), 'appointment_reminder order_confirmation payment_link re_engagement '
    'satisfaction_question welcome', 'six flows to begin with') FROM install_wa_default_flows() WHERE is_new;
SELECT ok(NOT bool_or(is_new) AND bool_and(state = 'draft'), 'as drafts, once') FROM install_wa_default_flows();
SELECT is((
    SELECT count(*) FROM wa_flow_definitions d CROSS JOIN jsonb_array_elements(d.steps) s
    WHERE s ? 'template_name' AND NOT EXISTS (SELECT FROM wa_templates t WHERE t.name = s ->> 'template_name')
), 0::bigint, 'with their templates');
UPDATE wa_templates SET status = 'APPROVED';
SELECT is((SELECT count(*) FROM (SELECT activate_wa_flow(name) FROM wa_flow_definitions WHERE state = 'draft'
    AND name <> 'f') a), 6::bigint, 'which may be activated once Meta has approved them');

SELECT * FROM finish();
ROLLBACK;
