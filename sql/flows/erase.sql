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
        phone_e164 = NULL, user_id = 'erased:' || f.id, trigger_data = '{}', last_error = NULL,
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
