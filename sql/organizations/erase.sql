-- What the audit log and faults hold of a person, and taking it away.

-- In faults, which no chain holds together, a digit takes the place of what matches.
CREATE OR REPLACE FUNCTION _wa_erase_audit_of(p_org uuid, p_who text[], p_pattern text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_faults integer;
BEGIN
    UPDATE wa_faults f SET error = regexp_replace(f.error, p_pattern, '0', 'g')
    WHERE f.organization_id = p_org AND f.error ~ p_pattern;
    GET DIAGNOSTICS v_faults = ROW_COUNT;
    RETURN v_faults + _wa_audit_forget(p_org, p_who);
END
$$;

COMMENT ON FUNCTION _wa_erase_audit_of(uuid, text[], text) IS
'Internal: takes numbers and ids of a person out of the audit log, whose chain stays valid, and of faults; '
'returns how many rows.';

CREATE OR REPLACE FUNCTION _wa_export_audit_of(p_org uuid, p_pattern text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(a) - 'organization_id' ORDER BY a.id), '[]')
    FROM audit_log a WHERE a.organization_id = p_org
        AND concat_ws(' ', a.actor, a.entity_id, a.client_address, a.meta::text) ~* p_pattern
$$;

COMMENT ON FUNCTION _wa_export_audit_of(uuid, text) IS
'Internal: audit rows that match a pattern.';
