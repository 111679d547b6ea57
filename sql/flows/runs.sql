-- Runs: started, paused, resumed, cancelled, moved by hand, explained. A plain UPDATE of the status does
-- the same as the functions: what follows from it is a trigger's.

CREATE OR REPLACE FUNCTION _wa_start_flow(
    p_org uuid, p_name text, p_contact_id bigint, p_context jsonb, p_key text
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id uuid;
BEGIN
    INSERT INTO wa_automation_flows AS f (
        organization_id, phone_e164, user_id, contact_id, flow_type, trigger_data, run_key
    )
    SELECT p_org, c.phone_e164, CASE WHEN c.phone_e164 IS NULL THEN c.user_id END, c.id, p_name,
        coalesce(p_context, '{}'), p_key
    FROM wa_contacts c
    WHERE c.organization_id = p_org AND c.id = p_contact_id AND num_nonnulls(c.phone_e164, c.user_id) > 0
    ON CONFLICT DO NOTHING
    RETURNING f.id INTO v_id;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_start_flow(uuid, text, bigint, jsonb, text) IS
'Internal: starts a flow for a contact; NULL where it has it already, or the key was used.';

CREATE OR REPLACE FUNCTION start_wa_flow(
    p_name text, p_phone text, p_context jsonb DEFAULT '{}', p_key text DEFAULT NULL
) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_definition wa_flow_definitions := _wa_flow_version(v_org, p_name, NULL);
    v_contact_id bigint;
    v_key text;
    v_id uuid;
    v_row wa_automation_flows;
BEGIN
    PERFORM _wa_require_live_key('Flows are run');
    IF v_definition.state <> 'active' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA802',
            MESSAGE = format('flow "%s" is not active: its newest version is %s', p_name, v_definition.state),
            DETAIL = coalesce(v_definition.state_reason, format('Version %s.', v_definition.version)),
            HINT = 'SELECT activate_wa_flow(name);';
    ELSIF jsonb_typeof(p_context) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'the context of a flow is a JSON object',
            DETAIL = format('It is: %s.', coalesce(jsonb_typeof(p_context), 'NULL')),
            HINT = 'For example: ''{"order_id": "ORD-1"}''.';
    END IF;
    v_contact_id := _wa_flow_contact(v_org, p_phone);
    v_key := coalesce(p_key, p_context #>> string_to_array(v_definition.key, '.'));
    -- Twice: the run that was in the way may end in between.
    FOR v_try IN 1..2 LOOP
        v_id := _wa_start_flow(v_org, p_name, v_contact_id, p_context, v_key);
        SELECT f.* INTO v_row FROM wa_automation_flows f
        WHERE f.organization_id = v_org AND f.flow_type = p_name AND f.definition_version IS NOT NULL
            AND CASE WHEN v_id IS NOT NULL THEN f.id = v_id WHEN v_key IS NULL
                THEN f.contact_id = v_contact_id AND f.run_key IS NULL AND f.status IN ('active', 'paused')
                ELSE f.run_key = v_key END;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN v_row;
END
$$;

COMMENT ON FUNCTION start_wa_flow(text, text, jsonb, text) IS
'Starts a flow for a customer, with a context that its steps take their values from. A key, such as an '
'order, starts one run ever; without one a customer has one run of a flow at a time. What is there already '
'comes back. Raises WA702 for a flow that is not known, WA802 for one that is not active.';

CREATE OR REPLACE FUNCTION _wa_log_flow_state(
    p_flow wa_automation_flows, p_outcome text, p_detail jsonb
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_no integer;
BEGIN
    -- Its own number is moved on, too: the engine counts from there.
    UPDATE wa_automation_flows f SET step_no = f.step_no + 1
    WHERE f.organization_id = p_flow.organization_id AND f.id = p_flow.id
    RETURNING f.step_no INTO v_no;
    INSERT INTO wa_flow_steps (
        organization_id, flow_id, step_no, contact_id, step, visit, type, outcome, detail, entered_at,
            ended_at
    )
    VALUES (
        p_flow.organization_id, p_flow.id, v_no, p_flow.contact_id, p_flow.current_step,
        coalesce((p_flow.visits ->> p_flow.current_step)::integer, 0), 'state', p_outcome, p_detail,
        clock_timestamp(), clock_timestamp()
    );
END
$$;

COMMENT ON FUNCTION _wa_log_flow_state(wa_automation_flows, text, jsonb) IS
'Internal: notes in the log of a run that its state was changed.';

-- What it queued and what still waits goes with it; what was handed to a dispatcher is past recall, and said.
CREATE OR REPLACE FUNCTION tg_wa_automation_flows__follow() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_reference CONSTANT text := 'flow:' || OLD.id;
    v_recalled integer;
    v_gone uuid[];
    v_again uuid[];
BEGIN
    IF NEW.status = 'active' THEN
        -- What its pause took back is queued anew, and judged anew.
        SELECT array_agg(q.id) INTO v_again
        FROM (
            SELECT s.ended_at FROM wa_flow_steps s
            WHERE s.organization_id = NEW.organization_id AND s.flow_id = NEW.id AND s.type = 'state'
                AND s.outcome = OLD.status
            ORDER BY s.step_no DESC LIMIT 1
        ) p
        JOIN wa_outbound_queue q ON q.organization_id = NEW.organization_id AND q.reference = v_reference
            AND q.status = 'cancelled' AND q.error_code IS NULL
            AND q.processed_at BETWEEN p.ended_at - interval '1 minute' AND p.ended_at
        WHERE OLD.status = 'paused';
        IF v_again IS NOT NULL THEN
            PERFORM _wa_queue_again(NEW.organization_id, v_again);
        END IF;
        PERFORM _wa_log_flow_state(NEW, 'resumed', jsonb_build_object('queued_again',
            coalesce(cardinality(v_again), 0)));
    ELSE
        SELECT count(*) INTO v_recalled
        FROM _wa_cancel_referenced(ARRAY[NEW.organization_id], ARRAY[v_reference]);
        SELECT array_agg(q.id) INTO v_gone FROM wa_outbound_queue q
        WHERE q.organization_id = NEW.organization_id AND q.reference = v_reference AND q.status = 'sending';
        PERFORM _wa_log_flow_state(NEW, NEW.status, jsonb_strip_nulls(jsonb_build_object(
            'recalled', v_recalled, 'past_recall', to_jsonb(v_gone), 'reason', coalesce(NEW.last_error,
                NEW.outcome)
        )));
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_automation_flows__follow() IS
'Cancels what a run that is paused or cancelled has waiting, and notes what was with a dispatcher already; '
'queues again what a pause took back.';

CREATE OR REPLACE FUNCTION tg_wa_automation_flows__recall() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_cancel_referenced(ARRAY[OLD.organization_id], ARRAY['flow:' || OLD.id]);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_automation_flows__recall() IS 'Cancels what a run that is deleted has waiting.';

CREATE OR REPLACE TRIGGER follow AFTER UPDATE ON wa_automation_flows
FOR EACH ROW WHEN (
    NEW.definition_version IS NOT NULL AND OLD.status <> NEW.status
    AND (NEW.status IN ('cancelled', 'paused') OR NEW.status = 'active')
) EXECUTE FUNCTION tg_wa_automation_flows__follow();

CREATE OR REPLACE TRIGGER recall AFTER DELETE ON wa_automation_flows
FOR EACH ROW WHEN (OLD.definition_version IS NOT NULL AND OLD.status IN ('active', 'paused'))
EXECUTE FUNCTION tg_wa_automation_flows__recall();

CREATE OR REPLACE FUNCTION _wa_lock_flow(p_org uuid, p_id uuid) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_flow wa_automation_flows;
BEGIN
    SELECT f.* INTO v_flow FROM wa_automation_flows f
    WHERE f.organization_id = p_org AND f.id = p_id AND f.definition_version IS NOT NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA703',
            MESSAGE = 'there is no such run of a flow',
            DETAIL = format('The id is %s.', coalesce(p_id::text, 'NULL')),
            HINT = 'SELECT id, flow_type, status, current_step FROM wa_automation_flows;';
    END IF;
    RETURN v_flow;
END
$$;

COMMENT ON FUNCTION _wa_lock_flow(uuid, uuid) IS
'Internal: a run, which nobody else changes until the end of the transaction; raises WA703 where there is '
'none.';

CREATE OR REPLACE FUNCTION _wa_refuse_flow_state(p_flow wa_automation_flows, p_action text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'WA802',
        MESSAGE = format('run %s is %s and cannot be %s', p_flow.id, p_flow.status, p_action),
        DETAIL = format('Flow "%s", step "%s"%s.', p_flow.flow_type, p_flow.current_step,
            ', ended ' || p_flow.ended_at),
        HINT = 'SELECT * FROM explain_wa_flow(id);';
END
$$;

COMMENT ON FUNCTION _wa_refuse_flow_state(wa_automation_flows, text) IS
'Internal: raises WA802: what is asked does not fit the state of the run.';

CREATE OR REPLACE FUNCTION pause_wa_flow(p_id uuid, p_reason text DEFAULT NULL) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_flow wa_automation_flows := _wa_lock_flow(_wa_caller_organization(), p_id);
BEGIN
    IF v_flow.status <> 'active' THEN
        PERFORM _wa_refuse_flow_state(v_flow, 'paused');
    END IF;
    UPDATE wa_automation_flows f SET status = 'paused', outcome = 'by hand', last_error = p_reason
    WHERE f.organization_id = v_flow.organization_id AND f.id = p_id RETURNING f.* INTO v_flow;
    RETURN v_flow;
END
$$;

COMMENT ON FUNCTION pause_wa_flow(uuid, text) IS
'Pauses a run; what it has waiting in the queue is taken back until it goes on. UPDATE wa_automation_flows '
'SET status = ''paused'' does the same for many.';

CREATE OR REPLACE FUNCTION resume_wa_flow(p_id uuid) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_flow wa_automation_flows := _wa_lock_flow(_wa_caller_organization(), p_id);
BEGIN
    IF v_flow.status <> 'paused' THEN
        PERFORM _wa_refuse_flow_state(v_flow, 'resumed');
    END IF;
    UPDATE wa_automation_flows f SET status = 'active', last_error = NULL
    WHERE f.organization_id = v_flow.organization_id AND f.id = p_id RETURNING f.* INTO v_flow;
    RETURN v_flow;
END
$$;

COMMENT ON FUNCTION resume_wa_flow(uuid) IS
'Lets a paused run go on where it stood: what its pause took back is queued again, what happened meanwhile '
'counts.';

CREATE OR REPLACE FUNCTION cancel_wa_flow(p_id uuid, p_reason text DEFAULT NULL) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_flow wa_automation_flows := _wa_lock_flow(_wa_caller_organization(), p_id);
BEGIN
    IF v_flow.status NOT IN ('active', 'paused') THEN
        PERFORM _wa_refuse_flow_state(v_flow, 'cancelled');
    END IF;
    UPDATE wa_automation_flows f SET status = 'cancelled', outcome = 'by hand', last_error = p_reason
    WHERE f.organization_id = v_flow.organization_id AND f.id = p_id RETURNING f.* INTO v_flow;
    RETURN v_flow;
END
$$;

COMMENT ON FUNCTION cancel_wa_flow(uuid, text) IS
'Ends a run, and takes back what it has waiting in the queue; what a dispatcher has already is named in '
'wa_flow_steps.';

CREATE OR REPLACE FUNCTION advance_wa_flow(p_id uuid, p_step text) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_flow wa_automation_flows := _wa_lock_flow(_wa_caller_organization(), p_id);
    v_definition wa_flow_definitions :=
        _wa_flow_version(v_flow.organization_id, v_flow.flow_type, v_flow.definition_version);
BEGIN
    IF v_flow.status NOT IN ('active', 'paused', 'failed') THEN
        PERFORM _wa_refuse_flow_state(v_flow, 'moved');
    ELSIF NOT v_definition.plan -> 'steps' ? p_step OR p_step IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA702',
            MESSAGE = format('flow "%s" has no step "%s"', v_flow.flow_type, left(p_step, 63)),
            DETAIL = format('Version %s.', v_flow.definition_version),
            HINT = (SELECT 'There are: ' || string_agg(k, ', ')
                FROM jsonb_object_keys(v_definition.plan -> 'steps') k);
    END IF;
    PERFORM _wa_log_flow_state(v_flow, 'advanced', jsonb_build_object('to', p_step));
    UPDATE wa_automation_flows f SET
        current_step = p_step, wait = NULL, step_entered_at = clock_timestamp(), status = 'active',
        next_action_at = clock_timestamp(), retry_count = 0, last_error = NULL, visits = f.visits - p_step
            || jsonb_build_object(p_step, least(
                coalesce((f.visits ->> p_step)::integer, 0), (v_definition.plan ->> 'visits')::integer - 1))
    WHERE f.organization_id = v_flow.organization_id AND f.id = p_id RETURNING f.* INTO v_flow;
    PERFORM _wa_audit(v_flow.organization_id, 'flow_advanced', 'wa_automation_flows', p_id::text,
        jsonb_build_object('flow', v_flow.flow_type, 'step', p_step));
    RETURN v_flow;
END
$$;

COMMENT ON FUNCTION advance_wa_flow(uuid, text) IS
'Has a run go on at a step, by hand; one that is paused or failed goes on, too. Audited.';

CREATE OR REPLACE FUNCTION explain_wa_flow(p_id uuid, p_now timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (status text, step text, state text, waits_until timestamptz, explanation text, way_out text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_flow wa_automation_flows;
    v_definition wa_flow_definitions;
    v_pending integer;
BEGIN
    SELECT f.* INTO v_flow FROM wa_automation_flows f
    WHERE f.organization_id = current_wa_organization() AND f.id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA703',
            MESSAGE = 'there is no such run of a flow',
            DETAIL = format('The id is %s.', coalesce(p_id::text, 'NULL')),
            HINT = 'SELECT id, flow_type, status, current_step FROM wa_automation_flows;';
    END IF;
    SELECT d.* INTO v_definition FROM wa_flow_definitions d
    WHERE d.organization_id = v_flow.organization_id AND d.name = v_flow.flow_type
        AND d.version = v_flow.definition_version;
    SELECT count(*) INTO v_pending FROM wa_outbound_queue q
    WHERE q.organization_id = v_flow.organization_id AND q.reference = 'flow:' || p_id
        AND q.status = 'pending';
    status := v_flow.status;
    step := v_flow.current_step;
    waits_until := CASE WHEN v_flow.status = 'active' THEN v_flow.next_action_at END;
    state := CASE
        WHEN v_flow.definition_version IS NULL THEN 'host'
        WHEN v_flow.status <> 'active' THEN v_flow.status
        WHEN v_flow.retry_count > 0 THEN 'retrying'
        WHEN v_flow.next_action_at <= p_now THEN 'due'
        ELSE 'waiting'
    END;
    explanation := CASE state
        WHEN 'host' THEN format('no definition "%s" was active when it was inserted: the engine leaves it alone',
            v_flow.flow_type)
        WHEN 'waiting' THEN format('waits%s until %s', CASE v_flow.wait ->> 'for'
            WHEN 'event' THEN format(' for the event "%s"%s', v_flow.wait ->> 'event', ' of '
                || v_flow.run_key)
            WHEN 'payment' THEN ' for the payment' || coalesce(' of ' || v_flow.run_key, '')
            ELSE ' for a ' || (v_flow.wait ->> 'for') END, v_flow.next_action_at)
        WHEN 'due' THEN format('due since %s: a dispatcher carries it out within a second',
            v_flow.next_action_at)
        WHEN 'retrying' THEN format('attempt %s failed: %s', v_flow.retry_count, v_flow.last_error)
        ELSE concat_ws(': ', v_flow.status, v_flow.outcome, v_flow.last_error)
    END || CASE WHEN v_pending > 0 THEN format('; %s of its messages wait in the queue', v_pending)
        ELSE '' END
        || CASE WHEN v_definition.state <> 'active'
            THEN format('; its version %s is %s', v_definition.version, v_definition.state) ELSE '' END;
    way_out := CASE state
        WHEN 'host' THEN 'store_wa_flow() makes a definition; insert it again then.'
        WHEN 'paused' THEN 'SELECT resume_wa_flow(id);'
        WHEN 'failed' THEN 'SELECT advance_wa_flow(id, step);'
        WHEN 'due' THEN 'bin/wa dispatch, or SELECT process_wa_flows();'
        WHEN 'waiting' THEN 'SELECT advance_wa_flow(id, step); moves it by hand.'
        WHEN 'retrying' THEN 'It is tried again by itself; wa_faults says more.'
    END;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION explain_wa_flow(uuid, timestamptz) IS
'Where a run stands, what it waits for and until when, and the way out; wa_flow_steps says what it did.';

CREATE OR REPLACE FUNCTION _wa_merge_flows_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- Of two runs of a flow for what is one customer the older goes on.
    UPDATE wa_automation_flows f SET status = 'cancelled', outcome = 'merged'
    FROM wa_automation_flows o
    WHERE f.organization_id = p_org AND o.organization_id = p_org AND f.contact_id IN (p_from, p_into)
        AND o.contact_id IN (p_from, p_into) AND f.contact_id <> o.contact_id AND f.flow_type = o.flow_type
        AND f.status IN ('active', 'paused') AND o.status IN ('active', 'paused')
        AND f.run_key IS NULL AND o.run_key IS NULL
        AND f.definition_version IS NOT NULL AND o.definition_version IS NOT NULL
        AND (f.created_at, f.id) > (o.created_at, o.id);
    UPDATE wa_automation_flows f SET contact_id = p_into
    WHERE f.organization_id = p_org AND f.contact_id = p_from;
    UPDATE wa_flow_steps s SET contact_id = p_into WHERE s.organization_id = p_org AND s.contact_id = p_from;
    UPDATE wa_flow_events e SET contact_id = p_into WHERE e.organization_id = p_org AND e.contact_id = p_from;
END
$$;

COMMENT ON FUNCTION _wa_merge_flows_of(uuid, bigint, bigint) IS
'Internal: gives the runs of a contact, and what happened to them, to the one that it becomes part of.';
