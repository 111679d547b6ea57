-- Places on lists of two contacts that turn out to be one.

CREATE OR REPLACE FUNCTION _wa_merge_campaigns_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_broadcast_members (organization_id, list_id, contact_id, added_by, added_at)
    SELECT p_org, f.list_id, p_into, f.added_by, f.added_at
    FROM wa_broadcast_members f WHERE f.organization_id = p_org AND f.contact_id = p_from
    ON CONFLICT (organization_id, list_id, contact_id) DO NOTHING;
END
$$;

COMMENT ON FUNCTION _wa_merge_campaigns_of(uuid, bigint, bigint) IS
'Internal: puts a contact on the lists of the one that merges with it; its own places go with it.';
