-- What conversations hold of a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_erase_conversations_of(p_org uuid, p_contact_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_conversation_windows w SET user_id = NULL, entry_point = NULL
    WHERE w.contact_id = p_contact_id AND w.organization_id = p_org
        AND num_nonnulls(w.user_id, w.entry_point) > 0;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_conversations_of(uuid, bigint) IS
'Internal: empties what conversations of a contact tell of the person; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_conversations_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(w) - 'organization_id' ORDER BY w.id), '[]')
    FROM wa_conversation_windows w WHERE w.organization_id = p_org AND w.contact_id = p_contact_id
$$;

COMMENT ON FUNCTION _wa_export_conversations_of(uuid, bigint) IS
'Internal: the conversations of a contact.';
