-- Holds and erasures of two contacts that turn out to be one: what was said of either counts for the person.

CREATE OR REPLACE FUNCTION _wa_merge_privacy_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_erasure_id bigint;
BEGIN
    -- One hold in force is enough; the other stays as history.
    UPDATE wa_contact_holds f SET released_at = clock_timestamp(), released_by = 'merged'
    FROM wa_contact_holds i
    WHERE f.organization_id = p_org AND f.contact_id = p_from AND f.released_at IS NULL
        AND i.organization_id = p_org AND i.contact_id = p_into AND i.released_at IS NULL;
    UPDATE wa_contact_holds SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    -- The same of erasures. It begins anew, for it may have passed by what has just been moved.
    UPDATE wa_erasures f SET state = 'done', done_at = clock_timestamp()
    FROM wa_erasures i
    WHERE f.organization_id = p_org AND f.contact_id = p_from AND f.state = 'running'
        AND i.organization_id = p_org AND i.contact_id = p_into AND i.state = 'running';
    UPDATE wa_erasures SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_erasures SET step = 1, place = NULL
    WHERE organization_id = p_org AND contact_id = p_into AND state = 'running'
    RETURNING id INTO v_erasure_id;
    IF v_erasure_id IS NOT NULL THEN
        PERFORM _wa_remember_erased(p_org, p_into, v_erasure_id);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_merge_privacy_of(uuid, bigint, bigint) IS
'Internal: holds and erasures of a contact are those of the one that it merges with; an erasure that is '
'under way takes both.';
