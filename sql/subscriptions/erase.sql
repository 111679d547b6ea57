-- What receivers of events answered about a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_erase_deliveries_of(p_org uuid, p_contact_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_event_deliveries d SET answer = NULL, error = NULL
    WHERE d.organization_id = p_org AND d.order_key LIKE 'contact:' || p_contact_id || ':%'
        AND num_nonnulls(d.answer, d.error) > 0;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_deliveries_of(uuid, bigint) IS
'Internal: empties what receivers answered to events of a contact; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_deliveries_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(d) - 'organization_id' ORDER BY d.event_id), '[]')
    FROM wa_event_deliveries d
    WHERE d.organization_id = p_org AND d.order_key LIKE 'contact:' || p_contact_id || ':%'
$$;

COMMENT ON FUNCTION _wa_export_deliveries_of(uuid, bigint) IS
'Internal: what was told to receivers of events about a contact.';
