-- Queued messages of two contacts that turn out to be one.

CREATE OR REPLACE FUNCTION _wa_merge_queue_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_outbound_queue q SET contact_id = p_into, change_no = q.change_no + 1
    WHERE q.organization_id = p_org AND q.contact_id = p_from AND q.id IN (
        SELECT m.queue_id FROM wa_messages m WHERE m.organization_id = p_org AND m.contact_id = p_from
        UNION ALL
        SELECT d.queue_id FROM wa_queue_due d
        WHERE d.organization_id = p_org AND d.contact_id = p_from AND d.class > 0
        UNION ALL
        SELECT f.queue_id FROM wa_queue_inflight f WHERE f.organization_id = p_org AND f.contact_id = p_from
    );
    -- What the other waited for is no cause for this one.
    UPDATE wa_queue_due
    SET contact_id = p_into, hold_id = NULL, hold_reason = CASE WHEN hold_id IS NULL THEN hold_reason END
    WHERE organization_id = p_org AND contact_id = p_from AND class > 0;
    UPDATE wa_queue_inflight SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
END
$$;

COMMENT ON FUNCTION _wa_merge_queue_of(uuid, bigint, bigint) IS
'Internal: moves the queued messages of a contact to the one that it merges with. Comes before the ledger''s '
'part: those that are done are found by their messages.';
