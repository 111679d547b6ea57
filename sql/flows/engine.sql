-- The engine. The row is the run: whoever has its lock reads it, carries its steps out up to the next wait,
-- and writes message, log and next step in one transaction. Nothing is replayed, nothing outside is called.
-- A batch goes in rounds: each run as far as its next message, all messages in one insert, then on with
-- what the queue said of them.

-- Only its row type is used: a run in the hands of the engine.
CREATE OR REPLACE VIEW _wa_flow_turns AS
SELECT
    NULL::uuid AS organization_id, NULL::uuid AS id, NULL::integer AS plan_no, NULL::text AS flow_type,
    NULL::integer AS version, NULL::bigint AS contact_id, NULL::text AS phone, NULL::text AS run_key,
    NULL::timestamptz AS started_at, NULL::jsonb AS context, NULL::jsonb AS variables, NULL::jsonb AS visits,
    NULL::jsonb AS seen_events, NULL::text AS step, NULL::timestamptz AS entered_at, NULL::integer AS step_no,
    NULL::jsonb AS wait, NULL::timestamptz AS next_at, NULL::text AS status, NULL::text AS outcome,
    NULL::text AS error, NULL::uuid AS last_queue_id, NULL::jsonb AS message, NULL::uuid AS queue_id,
    NULL::jsonb AS log, NULL::boolean AS is_resting
WHERE false;

COMMENT ON VIEW _wa_flow_turns IS
'Internal: the shape of a run while the engine carries its steps out. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_flow_log(
    p_step_no integer, p_step text, p_visits jsonb, p_type text, p_outcome text, p_entered_at timestamptz,
    p_detail jsonb, p_queue_id uuid
) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_build_object(
    'step_no', p_step_no, 'step', p_step, 'visit', coalesce(p_visits -> p_step, '1'), 'type', p_type,
    'outcome', p_outcome, 'entered_at', p_entered_at, 'detail', p_detail, 'queue_id', p_queue_id
);

COMMENT ON FUNCTION _wa_flow_log(integer, text, jsonb, text, text, timestamptz, jsonb, uuid) IS
'Internal: what became of a step, as it will stand in wa_flow_steps.';

CREATE OR REPLACE FUNCTION _wa_stop_flow(p_turn _wa_flow_turns, p_status text, p_outcome text, p_reason text)
RETURNS _wa_flow_turns
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    p_turn.status := p_status;
    p_turn.outcome := p_outcome;
    p_turn.error := p_reason;
    p_turn.message := NULL;
    p_turn.is_resting := true;
    IF p_status = 'paused' THEN
        PERFORM _wa_audit(p_turn.organization_id, 'flow_paused', 'wa_automation_flows', p_turn.id::text,
            jsonb_build_object('flow', p_turn.flow_type, 'version', p_turn.version, 'step', p_turn.step,
                'guard', p_outcome, 'reason', p_reason));
    END IF;
    RETURN p_turn;
END
$$;

COMMENT ON FUNCTION _wa_stop_flow(_wa_flow_turns, text, text, text) IS
'Internal: a turn that ends as failed, or that a guard pauses, which the audit log says.';

CREATE OR REPLACE FUNCTION _wa_next_flow_event(
    p_turn _wa_flow_turns, p_wait jsonb, p_interrupts jsonb
) RETURNS wa_flow_events
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_event wa_flow_events;
BEGIN
    SELECT e.* INTO v_event
    FROM _wa_flow_events_of(p_turn.organization_id, p_turn.contact_id, p_turn.run_key, p_turn.started_at) e
    WHERE e.id > coalesce((p_turn.seen_events ->> e.kind)::bigint, 0) AND (
        p_interrupts ? e.kind OR _wa_flow_event_fits(p_wait, p_turn.last_queue_id, e.kind, e.key, e.data)
    )
    ORDER BY e.id LIMIT 1;
    RETURN v_event;
END
$$;

COMMENT ON FUNCTION _wa_next_flow_event(_wa_flow_turns, jsonb, jsonb) IS
'Internal: the first event since a run began that it has not heeded and that it waits for, or that '
'interrupts it.';

CREATE OR REPLACE FUNCTION _wa_flow_sends(p_org uuid, p_contact_id bigint, p_now timestamptz) RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT count(*) FROM (
        -- OFFSET: no other index may serve, also in a plan made while there was no row.
        SELECT s.organization_id FROM wa_flow_steps s
        WHERE s.contact_id = p_contact_id AND s.queue_id IS NOT NULL
            AND s.ended_at > p_now - interval '1 hour'
        OFFSET 0
    ) s
    WHERE s.organization_id = p_org;
END;

COMMENT ON FUNCTION _wa_flow_sends(uuid, bigint, timestamptz) IS
'Internal: how many messages flows have queued for a contact within the hour.';

CREATE OR REPLACE FUNCTION _wa_call_flow_function(p_org uuid, p_name text, p_context jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_oid oid := (
        SELECT to_regprocedure(f.function_name || '(jsonb)') FROM wa_flow_functions f
        WHERE f.organization_id = p_org AND f.name = p_name
    );
    v_function record;
    v_result jsonb;
BEGIN
    PERFORM _wa_require_flow_function(v_oid);
    SELECT n.nspname, p.proname INTO v_function
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = v_oid;
    EXECUTE format('SELECT %I.%I($1)', v_function.nspname, v_function.proname) INTO v_result USING p_context;
    RETURN v_result;
END
$$;

COMMENT ON FUNCTION _wa_call_flow_function(uuid, text, jsonb) IS
'Internal: calls a function that the administrator listed; raises WA704 where it is none.';

CREATE OR REPLACE FUNCTION _wa_notify_for_flow(p_turn _wa_flow_turns, p_step jsonb) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id uuid;
BEGIN
    INSERT INTO siren_events (organization_id, template_id, phone_e164, context)
    SELECT p_turn.organization_id, t.id, _wa_fill_flow_text(p_step -> 'phone', p_turn.context),
        coalesce((_wa_fill_flow(p_step -> 'context', p_turn.context)).filled, '{}')
            || jsonb_build_object('flow_id', p_turn.id, 'flow', p_turn.flow_type)
    FROM siren_templates t
    WHERE t.organization_id = p_turn.organization_id AND t.name = p_step ->> 'template' AND t.is_enabled
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_notify_for_flow(_wa_flow_turns, jsonb) IS
'Internal: plans a notification; NULL where there is no such template, or it is switched off.';

CREATE OR REPLACE FUNCTION _wa_fill_flow_text(p_value jsonb, p_context jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN (SELECT f.filled #>> '{}' FROM _wa_fill_flow(p_value, p_context) f);

COMMENT ON FUNCTION _wa_fill_flow_text(jsonb, jsonb) IS 'Internal: a text of a definition, filled in.';

-- As far as its next message, its next wait, or its end. p_queued is what the queue said of the message
-- before.
CREATE OR REPLACE FUNCTION _wa_advance_flow(
    p_turn _wa_flow_turns, p_plan jsonb, p_now timestamptz, p_queue_id uuid, p_queue_status text, p_code text,
    p_reason text
) RETURNS _wa_flow_turns
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 100;
    v _wa_flow_turns := p_turn;
    v_step jsonb := p_plan #> ARRAY['steps', v.step];
    v_visit integer;
    v_event wa_flow_events;
    v_until timestamptz;
    v_case record;
    v_missing text;
    -- What the step adds to the context, its line in the log, and where it leads.
    v_facts jsonb;
    v_type text;
    v_outcome text;
    v_detail jsonb;
    v_queue_id uuid;
    v_next text;
    -- Why it goes no further: which guard, or which refusal.
    v_stop text;
    v_reason text;
BEGIN
    IF v.message IS NULL THEN
        IF p_now - v.started_at > (p_plan ->> 'age')::interval THEN
            RETURN _wa_stop_flow(v, 'paused', 'age', format('older than %s', p_plan ->> 'age'));
        ELSIF p_plan -> 'interrupts' <> '{}' THEN
            v_event := _wa_next_flow_event(v, NULL, p_plan -> 'interrupts');
        END IF;
    END IF;
    FOR v_turn IN 1..c_most LOOP
        IF v_step IS NULL THEN
            RETURN _wa_stop_flow(v, 'failed', 'no_step', format('there is no step "%s"', v.step));
        END IF;
        v_type := v_step ->> 'type';
        v_next := v_step ->> 'next';
        v_outcome := NULL;
        v_detail := NULL;
        v_facts := NULL;
        v_queue_id := NULL;
        IF v_event.id IS NOT NULL THEN
            -- It leads elsewhere, whatever the step waits for.
            PERFORM _wa_cancel_referenced(ARRAY[v.organization_id], ARRAY['flow:' || v.id]);
            v_outcome := v_event.kind;
            v_detail := jsonb_build_object('event_id', v_event.id, 'interrupt', true);
            v_next := p_plan #>> ARRAY['interrupts', v_event.kind];
        ELSE
            IF v.wait IS NULL AND v.message IS NULL THEN
                v_visit := coalesce((v.visits ->> v.step)::integer, 0) + 1;
                IF v_visit > (p_plan ->> 'visits')::integer THEN
                    RETURN _wa_stop_flow(v, 'paused', 'visits',
                        format('came to step "%s" more than %s times', v.step, p_plan ->> 'visits'));
                END IF;
                v.visits := v.visits || jsonb_build_object(v.step, v_visit);
            END IF;
            CASE v_type
                WHEN 'send' THEN
                    IF v.message IS NULL THEN
                        SELECT f.filled, f.missing INTO v.message, v_missing
                        FROM _wa_fill_flow(v_step -> 'message', v.context) f;
                        IF v_missing IS NULL THEN
                            IF _wa_flow_sends(v.organization_id, v.contact_id, p_now)
                                + jsonb_array_length(jsonb_path_query_array(v.log,
                                    '$[*] ? (@.queue_id != null)'))
                                >= (p_plan ->> 'sends_per_hour')::integer
                            THEN
                                -- The step is carried out once it goes on.
                                v.visits := v.visits || jsonb_build_object(v.step, v_visit - 1);
                                RETURN _wa_stop_flow(v, 'paused', 'sends_per_hour', format(
                                    'flows sent the contact %s messages within an hour',
                                        p_plan ->> 'sends_per_hour'
                                ));
                            END IF;
                            v.queue_id := _wa_uuid7(clock_timestamp());
                            RETURN v;
                        END IF;
                        v_stop := 'no_value';
                        v_reason := format('no value for %s', v_missing);
                    ELSE
                        v_queue_id := p_queue_id;
                        v.last_queue_id := p_queue_id;
                        IF p_queue_status = 'failed' THEN
                            v_stop := p_code;
                            v_reason := p_reason;
                        END IF;
                    END IF;
                    v.message := NULL;
                    v_outcome := CASE WHEN v_stop IS NULL THEN 'queued' ELSE 'refused' END;
                    IF p_plan -> 'reads_outcome' = 'true' THEN
                        v_facts := jsonb_build_object('outcome', jsonb_strip_nulls(jsonb_build_object(
                            'status', v_outcome, 'code', v_stop)));
                    END IF;
                    IF v_stop IS NOT NULL THEN
                        v_detail := jsonb_build_object('code', v_stop, 'reason', v_reason);
                        v_next := v_step ->> 'on_refused';
                        IF v_next IS NOT NULL THEN
                            v_stop := NULL;
                        END IF;
                    END IF;
                WHEN 'wait' THEN
                    IF v.wait IS NULL THEN
                        SELECT w.until, w.missing INTO v_until, v_missing
                        FROM _wa_flow_wait_until(v.organization_id, v.contact_id, v_step, v.context, p_now) w;
                        IF v_missing IS NOT NULL OR v_until IS NULL THEN
                            RETURN _wa_stop_flow(v, 'failed', 'no_value', format(
                                'step "%s" has no time to wait for: %s', v.step, coalesce(v_missing,
                                    'none')));
                        END IF;
                        v.wait := jsonb_strip_nulls(jsonb_build_object(
                            'until', v_until, 'for', v_step -> 'for', 'buttons', v_step -> 'buttons',
                            'status', v_step -> 'status', 'event', v_step -> 'event'
                        ));
                        IF v_step ? 'on_past' AND v_until <= p_now THEN
                            v_outcome := 'past';
                            v_next := v_step ->> 'on_past';
                        END IF;
                    ELSE
                        v_until := (v.wait ->> 'until')::timestamptz;
                    END IF;
                    IF v_step ? 'for' THEN
                        v_event := _wa_next_flow_event(v, v.wait, '{}');
                    END IF;
                    IF v_event.id IS NOT NULL THEN
                        v_outcome := v_event.kind;
                        v_detail := jsonb_build_object('event_id', v_event.id);
                    ELSIF v_outcome IS NULL AND v_until <= p_now THEN
                        v_outcome := CASE WHEN v_step ? 'for' THEN 'timeout' ELSE 'time' END;
                        v_next := coalesce(v_step ->> 'on_timeout', v_next);
                    ELSIF v_outcome IS NULL THEN
                        v.next_at := v_until;
                        v.is_resting := true;
                        RETURN v;
                    END IF;
                WHEN 'branch' THEN
                    v_next := coalesce(v_step ->> 'else', v_next);
                    v_detail := '{"case": "else"}';
                    FOR v_case IN
                        SELECT c.value, c.n FROM jsonb_array_elements(v_step -> 'cases')
                            WITH ORDINALITY c (value, n)
                        ORDER BY c.n
                    LOOP
                        IF _wa_flow_holds(v_case.value -> 'when', v.context) THEN
                            v_next := v_case.value ->> 'goto';
                            v_detail := jsonb_build_object('case', v_case.n, 'when', v_case.value -> 'when');
                            EXIT;
                        END IF;
                    END LOOP;
                    v_outcome := v_next;
                WHEN 'set' THEN
                    SELECT f.filled, f.missing INTO v_facts, v_missing
                    FROM _wa_fill_flow(v_step -> 'values', v.context) f;
                    v_outcome := 'set';
                    IF v_missing IS NOT NULL THEN
                        v_detail := jsonb_build_object('missing', v_missing);
                    END IF;
                WHEN 'notify' THEN
                    v_detail := jsonb_strip_nulls(
                        jsonb_build_object('siren_event_id', _wa_notify_for_flow(v, v_step)));
                    v_outcome := CASE v_detail WHEN '{}' THEN 'no_template' ELSE 'planned' END;
                WHEN 'call' THEN
                    v_facts := _wa_call_flow_function(v.organization_id, v_step ->> 'function', v.context);
                    v_facts := CASE WHEN v_step ? 'into' THEN jsonb_build_object(v_step ->> 'into', v_facts)
                        WHEN jsonb_typeof(v_facts) = 'object' THEN v_facts END;
                    v_outcome := 'called';
                WHEN 'goto' THEN
                    v_outcome := v_next;
                WHEN 'end' THEN
                    v_next := 'end';
                    v_outcome := coalesce(v_step ->> 'outcome', 'end');
            END CASE;
        END IF;
        IF v_event.id IS NOT NULL THEN
            v.seen_events := v.seen_events || jsonb_build_object(v_event.kind, v_event.id);
            v_facts := jsonb_build_object(split_part(v_event.kind, ':', 1), v_event.data);
        END IF;
        IF v_facts IS NOT NULL THEN
            v.variables := v.variables || v_facts;
            v.context := v.context || v_facts;
        END IF;
        v.step_no := v.step_no + 1;
        v.log := v.log || _wa_flow_log(
            v.step_no, v.step, v.visits, v_type, v_outcome, v.entered_at, v_detail, v_queue_id);
        IF v_stop IS NOT NULL THEN
            RETURN _wa_stop_flow(v, 'failed', v_stop, v_reason);
        END IF;
        v.wait := NULL;
        v.entered_at := p_now;
        IF v_next = 'end' THEN
            v.status := 'completed';
            v.outcome := CASE WHEN v_type = 'end' OR v_event.id IS NOT NULL THEN v_outcome ELSE 'end' END;
            v.is_resting := true;
            RETURN v;
        END IF;
        v.step := v_next;
        v_step := p_plan #> ARRAY['steps', v_next];
        v_event := NULL;
    END LOOP;
    v.next_at := p_now;
    v.is_resting := true;
    RETURN v;
END
$$;

COMMENT ON FUNCTION _wa_advance_flow(_wa_flow_turns, jsonb, timestamptz, uuid, text, text, text) IS
'Internal: carries the steps of a run out, as far as its next message, its next wait, or its end. Of a run '
'whose message was inserted it is told what the queue said.';

-- What is of the usual make, and what is not, in statements of their own: the queue's insert is quickest with
-- rows that are alike.
CREATE OR REPLACE FUNCTION _wa_queue_for_flows(p_turns _wa_flow_turns[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    FOR v_make IN 1..3 LOOP
        IF EXISTS (SELECT FROM unnest(p_turns) t WHERE _wa_flow_message_make(t.message) = v_make) THEN
            INSERT INTO wa_outbound_queue (
                organization_id, id, phone, type, text_body, template_name, template_language,
                    template_params,
                content, priority, expires_at, phone_number_id, idempotency_key, reference, metadata,
                    on_refusal,
                fallback_template_name, fallback_template_language, fallback_template_params,
                    sms_fallback_text
            )
            SELECT t.organization_id, t.queue_id, t.phone, m.type, t.message ->> 'text_body',
                CASE WHEN m.type = 'template' THEN t.message ->> 'template_name' END,
                CASE WHEN m.type = 'template' THEN t.message ->> 'template_language' END,
                CASE WHEN m.type = 'template' THEN t.message -> 'template_params' END,
                t.message -> 'content', coalesce(t.message ->> 'priority', 'normal'),
                CASE WHEN t.message ? 'expires_after'
                    THEN clock_timestamp() + (t.message ->> 'expires_after')::interval END,
                t.message ->> 'phone_number_id',
                format('flow:%s:%s:%s', t.id, t.step, t.visits ->> t.step), 'flow:' || t.id,
                jsonb_build_object('flow_id', t.id, 'flow', t.flow_type, 'version', t.version, 'step',
                    t.step),
                'record',
                CASE WHEN m.type <> 'template' THEN t.message ->> 'template_name' END,
                CASE WHEN m.type <> 'template' THEN t.message ->> 'template_language' END,
                CASE WHEN m.type <> 'template' THEN t.message -> 'template_params' END,
                t.message ->> 'sms_fallback_text'
            FROM unnest(p_turns) t
            CROSS JOIN LATERAL (
                SELECT CASE WHEN t.message ? 'message_type' THEN t.message ->> 'message_type'
                    WHEN t.message ? 'text_body' THEN 'text' ELSE 'template' END AS type
            ) m
            WHERE _wa_flow_message_make(t.message) = v_make
            ON CONFLICT (organization_id, idempotency_key) DO NOTHING;
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_queue_for_flows(_wa_flow_turns[]) IS
'Internal: queues the messages of runs, each under the key of its run, step and visit.';

CREATE OR REPLACE FUNCTION _wa_flow_message_make(p_message jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_message ? 'content' OR p_message ?& '{text_body,template_name}' THEN 3
    WHEN p_message ? 'template_name' THEN 2
    ELSE 1
END;

COMMENT ON FUNCTION _wa_flow_message_make(jsonb) IS
'Internal: which messages are queued together: texts, templates, others.';

CREATE OR REPLACE FUNCTION _wa_step_flows(p_flows wa_automation_flows[], p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    v_defined record;
    v_turns _wa_flow_turns[];
    v_done _wa_flow_turns[] := '{}';
BEGIN
    -- Each version once: a plan is large, and read by all its runs.
    SELECT array_agg(d.plan || '{}') AS plans, array_agg(d.organization_id) AS orgs,
        array_agg(d.name) AS names,
        array_agg(d.version) AS versions
    INTO v_defined
    FROM (SELECT DISTINCT f.organization_id, f.flow_type, f.definition_version FROM unnest(p_flows) f) f
    CROSS JOIN LATERAL (
        SELECT x.* FROM wa_flow_definitions x
        WHERE x.organization_id = f.organization_id AND x.name = f.flow_type
            AND x.version = f.definition_version
        LIMIT 1
    ) d;
    SELECT array_agg(ROW(
        f.organization_id, f.id, p.n, f.flow_type, f.definition_version, f.contact_id,
        coalesce(f.phone_e164, f.user_id), f.run_key, f.created_at,
        f.trigger_data || f.variables
            || CASE WHEN v_defined.plans[p.n] -> 'reads_contact' = 'true'
                THEN _wa_flow_facts(f.organization_id, f.contact_id, p_now) ELSE '{}' END
            || CASE WHEN v_defined.plans[p.n] -> 'reads_run' = 'true' THEN jsonb_build_object('run',
                jsonb_build_object('id', f.id, 'key', f.run_key, 'started_at', f.created_at)) ELSE '{}' END,
        f.variables, f.visits, f.seen_events, f.current_step, coalesce(f.step_entered_at, f.created_at),
        f.step_no, f.wait, f.next_action_at, f.status, f.outcome, NULL, f.last_queue_id, NULL, NULL, '[]',
            false
    )::_wa_flow_turns) INTO v_turns
    FROM unnest(p_flows) f
    CROSS JOIN LATERAL (
        SELECT u.n::integer FROM unnest(v_defined.orgs, v_defined.names, v_defined.versions)
            WITH ORDINALITY u (org, name, version, n)
        WHERE u.org = f.organization_id AND u.name = f.flow_type AND u.version = f.definition_version
        LIMIT 1
    ) p;
    LOOP
        EXIT WHEN v_turns IS NULL;
        v_turns := ARRAY(
            SELECT _wa_advance_flow(
                t, v_defined.plans[t.plan_no], p_now, q.id, q.status, q.error_code, q.last_error
            )
            FROM unnest(v_turns) t
            LEFT JOIN LATERAL (
                SELECT x.id, x.status, x.error_code, x.last_error FROM wa_outbound_queue x
                WHERE t.message IS NOT NULL AND x.organization_id = t.organization_id AND x.id = t.queue_id
                UNION ALL
                -- Queued before, by a transaction that was undone by hand.
                SELECT x.id, x.status, x.error_code, x.last_error FROM wa_outbound_queue x
                WHERE t.message IS NOT NULL AND x.organization_id = t.organization_id
                    AND x.idempotency_key = format('flow:%s:%s:%s', t.id, t.step, t.visits ->> t.step)
                LIMIT 1
            ) q ON true
        );
        v_done := v_done || ARRAY(SELECT t FROM unnest(v_turns) t WHERE t.is_resting);
        v_turns := ARRAY(SELECT t FROM unnest(v_turns) t WHERE NOT t.is_resting);
        EXIT WHEN v_turns = '{}';
        PERFORM _wa_queue_for_flows(v_turns);
    END LOOP;
    INSERT INTO wa_flow_steps (
        organization_id, flow_id, step_no, contact_id, step, visit, type, outcome, queue_id, detail,
            entered_at,
        ended_at
    )
    SELECT t.organization_id, t.id, (l.value ->> 'step_no')::integer, t.contact_id, l.value ->> 'step',
        (l.value ->> 'visit')::integer, l.value ->> 'type', l.value ->> 'outcome',
        (l.value ->> 'queue_id')::uuid, nullif(l.value -> 'detail', 'null'),
        least((l.value ->> 'entered_at')::timestamptz, p_now), p_now
    FROM unnest(v_done) t
    CROSS JOIN LATERAL jsonb_array_elements(t.log) l (value);
    UPDATE wa_automation_flows f SET
        current_step = t.step, status = t.status, next_action_at = t.next_at, variables = t.variables,
        visits = t.visits, seen_events = t.seen_events, step_no = t.step_no, step_entered_at = t.entered_at,
        wait = t.wait, last_queue_id = t.last_queue_id, outcome = t.outcome, last_error = t.error,
            retry_count = 0
    FROM unnest(v_done) t
    WHERE f.organization_id = t.organization_id AND f.id = t.id;
END
$$;

COMMENT ON FUNCTION _wa_step_flows(wa_automation_flows[], timestamptz) IS
'Internal: carries the steps of runs out, whose rows the caller has locked.';

CREATE OR REPLACE FUNCTION _wa_set_flow_aside(
    p_flow wa_automation_flows, p_sqlstate text, p_error text, p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 5;
    -- Somebody's lock, which is no fault of the run's; and what another try does not mend.
    v_is_locked CONSTANT boolean := p_sqlstate = '55P03';
    v_is_over CONSTANT boolean := NOT v_is_locked
        AND (p_flow.retry_count + 1 >= c_most OR p_sqlstate LIKE 'WA%');
BEGIN
    UPDATE wa_automation_flows f SET
        retry_count = f.retry_count + CASE WHEN v_is_locked THEN 0 ELSE 1 END,
        last_error = format('%s: %s', p_sqlstate, left(p_error, 500)),
        status = CASE WHEN v_is_over THEN 'failed' ELSE f.status END,
        outcome = CASE WHEN v_is_over THEN 'error' ELSE f.outcome END,
        next_action_at = p_now + CASE WHEN v_is_locked THEN interval '5 seconds'
            ELSE _wa_backoff(p_flow.retry_count + 1, NULL) END
    WHERE f.organization_id = p_flow.organization_id AND f.id = p_flow.id;
    PERFORM _wa_note_fault(p_flow.organization_id, 'flows', p_flow.flow_type, p_sqlstate, p_error);
END
$$;

COMMENT ON FUNCTION _wa_set_flow_aside(wa_automation_flows, text, text, timestamptz) IS
'Internal: a run that raised is tried again later, five times in all, then it is failed with the reason.';

-- The whole batch at once; when something in it fails, its halves, so that one bad run costs little and harms
-- no other.
CREATE OR REPLACE FUNCTION _wa_step_flows_safely(p_flows wa_automation_flows[], p_now timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_count integer := cardinality(p_flows);
BEGIN
    BEGIN
        PERFORM _wa_step_flows(p_flows, p_now);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        ELSIF v_count = 1 THEN
            PERFORM _wa_set_flow_aside(p_flows[1], SQLSTATE, SQLERRM, p_now);
            RETURN;
        END IF;
    END;
    PERFORM _wa_step_flows_safely(p_flows[1:v_count / 2], p_now);
    PERFORM _wa_step_flows_safely(p_flows[v_count / 2 + 1:v_count], p_now);
END
$$;

COMMENT ON FUNCTION _wa_step_flows_safely(wa_automation_flows[], timestamptz) IS
'Internal: _wa_step_flows(), each run that raises by itself and set aside.';

-- What has been due for longest; where more is due than can be taken, the same of each organization, so that
-- one that has a hundred thousand does not stand before the others.
CREATE OR REPLACE FUNCTION _wa_lock_due_flows(p_orgs uuid[], p_limit integer, p_now timestamptz)
RETURNS wa_automation_flows[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off SET jit = off
AS $$
DECLARE
    v_orgs uuid[] := p_orgs;
    v_share integer;
BEGIN
    IF v_orgs IS NULL AND (
        SELECT count(*) <= p_limit FROM (
            SELECT FROM wa_automation_flows f
            WHERE f.status = 'active' AND f.definition_version > 0 AND f.next_action_at <= p_now
            ORDER BY f.next_action_at LIMIT p_limit + 1
        ) d
    ) THEN
        RETURN ARRAY(
            SELECT f FROM wa_automation_flows f
            WHERE f.status = 'active' AND f.definition_version > 0 AND f.next_action_at <= p_now
            ORDER BY f.next_action_at LIMIT p_limit
            FOR NO KEY UPDATE SKIP LOCKED
        );
    END IF;
    IF v_orgs IS NULL THEN
        -- From organization to organization through the index.
        WITH RECURSIVE org AS (
            (SELECT f.organization_id AS id FROM wa_automation_flows f
            WHERE f.status = 'active' AND f.definition_version IS NOT NULL
            ORDER BY f.organization_id LIMIT 1)
            UNION ALL
            SELECT (
                SELECT f.organization_id FROM wa_automation_flows f
                WHERE f.status = 'active' AND f.definition_version IS NOT NULL AND f.organization_id > o.id
                ORDER BY f.organization_id LIMIT 1
            ) FROM org o WHERE o.id IS NOT NULL
        )
        SELECT array_agg(o.id ORDER BY h.next_action_at) INTO v_orgs
        FROM org o
        CROSS JOIN LATERAL (
            SELECT f.next_action_at FROM wa_automation_flows f
            WHERE f.organization_id = o.id AND f.status = 'active' AND f.definition_version IS NOT NULL
                AND f.next_action_at <= p_now
            ORDER BY f.next_action_at LIMIT 1
        ) h
        WHERE o.id IS NOT NULL;
    END IF;
    v_share := greatest(1, p_limit / greatest(1, cardinality(v_orgs)));
    RETURN ARRAY(
        SELECT f
        FROM unnest(v_orgs[1:p_limit]) o (id)
        CROSS JOIN LATERAL (
            SELECT x.* FROM wa_automation_flows x
            WHERE x.organization_id = o.id AND x.status = 'active' AND x.definition_version IS NOT NULL
                AND x.next_action_at <= p_now
            ORDER BY x.next_action_at LIMIT v_share
            FOR NO KEY UPDATE SKIP LOCKED
        ) f
    );
END
$$;

COMMENT ON FUNCTION _wa_lock_due_flows(uuid[], integer, timestamptz) IS
'Internal: runs that are due, of the organizations given or of all, locked; those that somebody else has '
'are passed over.';

CREATE OR REPLACE FUNCTION _wa_run_flows(p_orgs uuid[], p_limit integer, p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '500ms'
AS $$
DECLARE
    v_flows wa_automation_flows[];
BEGIN
    PERFORM _wa_match_late_events(p_now);
    v_flows := _wa_lock_due_flows(p_orgs, least(greatest(p_limit, 0), 5000), p_now);
    IF cardinality(v_flows) > 0 THEN
        PERFORM _wa_step_flows_safely(v_flows, p_now);
    END IF;
    RETURN coalesce(cardinality(v_flows), 0);
END
$$;

COMMENT ON FUNCTION _wa_run_flows(uuid[], integer, timestamptz) IS
'Internal: carries out what is due, of the organizations given or of all; returns how many runs.';

CREATE OR REPLACE FUNCTION process_wa_flows(
    p_batch_size integer DEFAULT 500, p_now timestamptz DEFAULT clock_timestamp()
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_installation();
    RETURN _wa_run_flows(_wa_processed_organizations(), p_batch_size, p_now);
END
$$;

COMMENT ON FUNCTION process_wa_flows(integer, timestamptz) IS
'Carries out the steps of up to so many flows that are due, those of the caller''s organization, for '
'wa_admin and dispatchers of all; returns how many. Dispatchers call it by themselves, and so does the job '
'"flows".';

CREATE OR REPLACE FUNCTION _wa_processed_organizations() RETURNS uuid[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE WHEN NOT (pg_has_role(_wa_caller(), 'wa_admin', 'MEMBER')
            OR pg_has_role(_wa_caller(), 'wa_dispatcher', 'MEMBER'))
        OR nullif(current_setting('wa.organization_id', true), '') IS NOT NULL
        THEN ARRAY[_wa_caller_organization()] END
$$;

COMMENT ON FUNCTION _wa_processed_organizations() IS
'Internal: whose flows a caller carries out; NULL: everybody''s.';

CREATE OR REPLACE FUNCTION has_wa_flows() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$ SELECT EXISTS (SELECT FROM wa_flow_definitions) $$;

COMMENT ON FUNCTION has_wa_flows() IS
'Whether anybody has a flow: only then does a dispatcher look for what is due.';

CREATE OR REPLACE FUNCTION run_due_wa_flows(p_limit integer DEFAULT 500)
RETURNS TABLE (run_count integer, next_due_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$
BEGIN
    PERFORM _wa_require_installation();
    run_count := _wa_run_flows(NULL, p_limit, clock_timestamp());
    SELECT f.next_action_at INTO next_due_at FROM wa_automation_flows f
    WHERE f.status = 'active' AND f.definition_version > 0 AND f.next_action_at IS NOT NULL
    ORDER BY f.next_action_at LIMIT 1;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION run_due_wa_flows(integer) IS
'Carries out what is due of all organizations, up to so many runs; tells how many, and when the next is '
'due. For dispatchers.';
