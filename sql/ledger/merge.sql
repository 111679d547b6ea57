-- Messages of two contacts that turn out to be one.

CREATE OR REPLACE FUNCTION _wa_merge_ledger_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_messages SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    PERFORM _wa_move_media_of(p_org, p_from, p_into);
END
$$;

COMMENT ON FUNCTION _wa_merge_ledger_of(uuid, bigint, bigint) IS
'Internal: moves the messages of a contact, and their files, to the one that it merges with.';
