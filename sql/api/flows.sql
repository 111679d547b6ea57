-- Flows as the HTTP API shows them: their runs, one with what it did, their definitions.

CREATE OR REPLACE FUNCTION _wa_flow_run_body(p_id uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'id', f.id, 'flow', f.flow_type, 'version', f.definition_version,
        'phone', coalesce(f.phone_e164, f.user_id), 'key', f.run_key, 'status', f.status,
        'step', f.current_step, 'outcome', f.outcome, 'error', f.last_error,
        'context', f.trigger_data || f.variables,
        'next_action_at', CASE WHEN isfinite(f.next_action_at) THEN f.next_action_at END,
        'created_at', f.created_at, 'ended_at', f.ended_at
    )
    FROM wa_automation_flows f WHERE f.organization_id = current_wa_organization() AND f.id = p_id
$$;

COMMENT ON FUNCTION _wa_flow_run_body(uuid) IS 'Internal: a run as the HTTP API shows it.';

CREATE OR REPLACE FUNCTION start_wa_flow_run(p_flow text, p_phone text, p_context jsonb, p_key text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_flow wa_automation_flows := start_wa_flow(p_flow, p_phone, p_context, p_key);
BEGIN
    RETURN _wa_flow_run_body(v_flow.id);
END
$$;

COMMENT ON FUNCTION start_wa_flow_run(text, text, jsonb, text) IS
'start_wa_flow(), and the run as a document.';

CREATE OR REPLACE FUNCTION store_wa_flow_definition(p_definition jsonb, p_activate boolean) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_stored wa_flow_definitions := store_wa_flow(p_definition, p_activate);
BEGIN
    RETURN jsonb_build_object(
        'name', v_stored.name, 'version', v_stored.version, 'state', v_stored.state,
        'state_reason', v_stored.state_reason, 'definition', export_wa_flow(v_stored.name, v_stored.version),
        'created_at', v_stored.created_at
    );
END
$$;

COMMENT ON FUNCTION store_wa_flow_definition(jsonb, boolean) IS
'store_wa_flow(), and the version as a document.';

CREATE OR REPLACE FUNCTION list_wa_flow_runs(
    p_flow text DEFAULT NULL, p_status text DEFAULT NULL, p_phone text DEFAULT NULL,
        p_limit integer DEFAULT 50,
    p_cursor text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 200;
    v_place text := _wa_open_cursor(p_cursor, '[0-9]{1,18}:[0-9a-f-]{36}');
    v_before timestamptz := timestamptz 'epoch' + split_part(v_place, ':',
        1)::bigint * interval '1 microsecond';
    v_contact_id bigint;
    v_page jsonb;
    v_last text;
    v_count integer;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    PERFORM _wa_require_live_key('Flows are run');
    IF p_phone IS NOT NULL THEN
        v_contact_id := coalesce(_wa_find_contact(current_wa_organization(), p_phone), 0);
    END IF;
    SELECT coalesce(jsonb_agg(p.item ORDER BY p.n) FILTER (WHERE p.n <= p_limit), '[]'),
        max(p.place) FILTER (WHERE p.n = p_limit), count(*)
    INTO v_page, v_last, v_count
    FROM (
        SELECT _wa_flow_run_body(f.id) AS item,
            row_number() OVER (ORDER BY f.created_at DESC, f.id DESC) AS n,
            (extract(EPOCH FROM f.created_at) * 1000000)::bigint || ':' || f.id AS place
        FROM wa_automation_flows f
        WHERE f.organization_id = current_wa_organization()
            AND (p_flow IS NULL OR f.flow_type = p_flow) AND (p_status IS NULL OR f.status = p_status)
            AND (p_phone IS NULL OR f.contact_id = v_contact_id)
            AND (v_place IS NULL OR (f.created_at, f.id) < (v_before, split_part(v_place, ':', 2)::uuid))
        ORDER BY f.created_at DESC, f.id DESC LIMIT p_limit + 1
    ) p;
    RETURN jsonb_build_object(
        'flows', v_page, 'next', CASE WHEN v_count > p_limit THEN _wa_write_cursor(v_last) END
    );
END
$$;

COMMENT ON FUNCTION list_wa_flow_runs(text, text, text, integer, text) IS
'Runs of flows, the newest first, at most 200 a page: of a flow, in a status, of a customer, or all.';

CREATE OR REPLACE FUNCTION get_wa_flow_run(p_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_explained record;
BEGIN
    PERFORM _wa_require_live_key('Flows are run');
    SELECT e.state, e.explanation, e.way_out INTO v_explained FROM explain_wa_flow(p_id) e;
    RETURN (
        SELECT _wa_flow_run_body(f.id) || jsonb_build_object(
            'state', v_explained.state, 'explanation', v_explained.explanation, 'way_out',
                v_explained.way_out,
            'steps', (
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'step_no', s.step_no, 'step', s.step, 'visit', s.visit, 'type', s.type, 'outcome',
                        s.outcome,
                    'message_id', s.queue_id, 'detail', s.detail, 'entered_at', s.entered_at, 'ended_at',
                        s.ended_at
                ) ORDER BY s.step_no), '[]')
                FROM wa_flow_steps s WHERE s.organization_id = f.organization_id AND s.flow_id = f.id
            )
        )
        FROM wa_automation_flows f
        WHERE f.organization_id = current_wa_organization() AND f.id = p_id
    );
END
$$;

COMMENT ON FUNCTION get_wa_flow_run(uuid) IS
'A run with what it did and what it waits for; raises WA703 where there is none.';

CREATE OR REPLACE FUNCTION steer_wa_flow_run(p_id uuid, p_action text, p_step text, p_reason text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_live_key('Flows are run');
    CASE p_action
        WHEN 'pause' THEN PERFORM pause_wa_flow(p_id, p_reason);
        WHEN 'resume' THEN PERFORM resume_wa_flow(p_id);
        WHEN 'cancel' THEN PERFORM cancel_wa_flow(p_id, p_reason);
        WHEN 'advance' THEN PERFORM advance_wa_flow(p_id, p_step);
    END CASE;
    RETURN get_wa_flow_run(p_id);
END
$$;

COMMENT ON FUNCTION steer_wa_flow_run(uuid, text, text, text) IS
'Pauses, resumes, cancels or advances a run, and shows it; as pause_wa_flow() and the others do.';

CREATE OR REPLACE FUNCTION list_wa_flow_definitions() RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object('definitions', coalesce(jsonb_agg(jsonb_build_object(
        'name', d.name, 'version', d.version, 'state', d.state, 'state_reason', d.state_reason,
        'definition', export_wa_flow(d.name, d.version), 'created_at', d.created_at
    ) ORDER BY d.name), '[]'))
    FROM (
        SELECT DISTINCT ON (x.name) x.* FROM wa_flow_definitions x
        WHERE x.organization_id = current_wa_organization()
        ORDER BY x.name, x.state = 'active' DESC, x.version DESC
    ) d
$$;

COMMENT ON FUNCTION list_wa_flow_definitions() IS
'The flows that there are: of each the active version, or the newest.';
