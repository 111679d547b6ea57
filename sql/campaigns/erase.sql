-- What lists hold of a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_erase_campaigns_of(p_org uuid, p_contact_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_broadcast_members m WHERE m.contact_id = p_contact_id AND m.organization_id = p_org;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_campaigns_of(uuid, bigint) IS
'Internal: takes a contact off all lists; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_campaigns_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'list', l.name, 'added_by', m.added_by, 'added_at', m.added_at
    ) ORDER BY l.name), '[]')
    FROM wa_broadcast_members m
    JOIN wa_broadcast_lists l ON l.organization_id = m.organization_id AND l.id = m.list_id
    WHERE m.organization_id = p_org AND m.contact_id = p_contact_id
$$;

COMMENT ON FUNCTION _wa_export_campaigns_of(uuid, bigint) IS 'Internal: the lists that a contact is on.';
