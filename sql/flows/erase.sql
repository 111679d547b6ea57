-- What flows and notifications hold of a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_erase_flows_of(p_org uuid, p_addresses text[], p_pattern text)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_flows integer;
    v_told integer;
    v_events integer;
BEGIN
    -- A flow names its customer, by one thing or the other: by its own id, then.
    UPDATE wa_automation_flows f SET
        phone_e164 = NULL, user_id = 'erased:' || f.id, trigger_data = '{}', variables = '{}', run_key = NULL,
        last_error = NULL,
        status = CASE WHEN f.status IN ('active', 'paused') THEN 'cancelled' ELSE f.status END
    WHERE f.organization_id = p_org
        AND (f.phone_e164 = ANY (p_addresses) OR f.user_id = ANY (p_addresses));
    GET DIAGNOSTICS v_flows = ROW_COUNT;
    UPDATE siren_events e SET
        phone_e164 = NULL, context = '{}', error_message = NULL,
        status = CASE WHEN e.status = 'pending' THEN 'cancelled' ELSE e.status END
    WHERE e.organization_id = p_org AND e.phone_e164 = ANY (p_addresses);
    GET DIAGNOSTICS v_told = ROW_COUNT;
    -- What somebody of the business was told about the person.
    UPDATE siren_events e SET
        context = regexp_replace(e.context::text, p_pattern, '0', 'g')::jsonb,
        error_message = regexp_replace(e.error_message, p_pattern, '0', 'g')
    WHERE e.organization_id = p_org AND (e.context::text ~ p_pattern OR e.error_message ~ p_pattern);
    GET DIAGNOSTICS v_events = ROW_COUNT;
    RETURN v_flows + v_told + v_events;
END
$$;

COMMENT ON FUNCTION _wa_erase_flows_of(uuid, text[], text) IS
'Internal: ends and empties flows and notifications of somebody with these addresses, and takes what matches '
'the pattern out of other notifications; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_flows_of(p_org uuid, p_addresses text[], p_pattern text)
RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'flows', (
            SELECT coalesce(jsonb_agg(to_jsonb(f) - 'organization_id' ORDER BY f.created_at, f.id), '[]')
            FROM wa_automation_flows f
            WHERE f.organization_id = p_org
                AND (f.phone_e164 = ANY (p_addresses) OR f.user_id = ANY (p_addresses))
        ),
        'notifications', (
            SELECT coalesce(jsonb_agg(to_jsonb(e) - 'organization_id' ORDER BY e.created_at, e.id), '[]')
            FROM siren_events e
            WHERE e.organization_id = p_org
                AND (e.phone_e164 = ANY (p_addresses) OR e.context::text ~ p_pattern)
        )
    )
$$;

COMMENT ON FUNCTION _wa_export_flows_of(uuid, text[], text) IS
'Internal: flows and notifications of somebody with these addresses, and notifications about them.';

CREATE OR REPLACE FUNCTION _wa_erase_flow_records_of(p_org uuid, p_contact_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_runs integer;
    v_steps integer;
    v_events integer;
BEGIN
    DELETE FROM wa_flow_events e
    WHERE e.organization_id = p_org AND (e.contact_id = p_contact_id OR e.key IN (
        SELECT f.run_key FROM wa_automation_flows f
        WHERE f.organization_id = p_org AND f.contact_id = p_contact_id
    ));
    GET DIAGNOSTICS v_events = ROW_COUNT;
    UPDATE wa_automation_flows f SET
        phone_e164 = NULL, user_id = 'erased:' || f.id, trigger_data = '{}', variables = '{}', run_key = NULL,
        last_error = NULL,
        status = CASE WHEN f.status IN ('active', 'paused') THEN 'cancelled' ELSE f.status END
    WHERE f.organization_id = p_org AND f.contact_id = p_contact_id
        AND f.user_id IS DISTINCT FROM 'erased:' || f.id;
    GET DIAGNOSTICS v_runs = ROW_COUNT;
    UPDATE wa_flow_steps s SET detail = NULL
    FROM wa_automation_flows f
    WHERE f.organization_id = p_org AND f.contact_id = p_contact_id AND s.organization_id = p_org
        AND s.flow_id = f.id AND s.detail IS NOT NULL;
    GET DIAGNOSTICS v_steps = ROW_COUNT;
    RETURN v_runs + v_steps + v_events;
END
$$;

COMMENT ON FUNCTION _wa_erase_flow_records_of(uuid, bigint) IS
'Internal: ends and empties the runs of a contact, takes away what they noted and the events of the contact; '
'returns how many rows.';

CREATE OR REPLACE FUNCTION _wa_export_flow_records_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'flow_steps', (
            SELECT coalesce(jsonb_agg(to_jsonb(s) - 'organization_id' ORDER BY s.ended_at, s.step_no), '[]')
            FROM wa_automation_flows f
            JOIN wa_flow_steps s ON s.organization_id = p_org AND s.flow_id = f.id
            WHERE f.organization_id = p_org AND f.contact_id = p_contact_id
        ),
        'flow_events', (
            SELECT coalesce(jsonb_agg(to_jsonb(e) - 'organization_id' ORDER BY e.id), '[]')
            FROM wa_flow_events e
            WHERE e.organization_id = p_org AND (e.contact_id = p_contact_id OR e.key IN (
                SELECT f.run_key FROM wa_automation_flows f
                WHERE f.organization_id = p_org AND f.contact_id = p_contact_id
            ))
        )
    )
$$;

COMMENT ON FUNCTION _wa_export_flow_records_of(uuid, bigint) IS
'Internal: what the runs of a contact did, and what happened to them.';
