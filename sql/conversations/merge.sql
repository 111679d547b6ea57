-- Conversations of two contacts that turn out to be one.

CREATE OR REPLACE FUNCTION _wa_merge_conversations_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_conversation_windows w SET
        last_customer_message_at = greatest(w.last_customer_message_at, f.last_customer_message_at),
        last_business_message_at = greatest(w.last_business_message_at, f.last_business_message_at),
        window_denied_at = greatest(w.window_denied_at, f.window_denied_at),
        entry_point = CASE
            WHEN w.entry_point_opened_at >= f.entry_point_opened_at OR f.entry_point_opened_at IS NULL
                THEN w.entry_point
            ELSE f.entry_point
        END,
        entry_point_opened_at = greatest(w.entry_point_opened_at, f.entry_point_opened_at),
        entry_point_expires_at = greatest(w.entry_point_expires_at, f.entry_point_expires_at),
        unread_count = w.unread_count + f.unread_count,
        user_id = coalesce(w.user_id, f.user_id),
        read_at = least(w.read_at, f.read_at), assigned_to = coalesce(w.assigned_to, f.assigned_to),
        -- What is open in either stays open.
        state = CASE WHEN f.state = 'active' THEN 'active'
            WHEN f.state = 'waiting' AND w.state <> 'active' THEN 'active' ELSE w.state END,
        created_at = least(w.created_at, f.created_at),
        updated_at = clock_timestamp()
    FROM wa_conversation_windows f
    WHERE w.organization_id = p_org AND w.contact_id = p_into
        AND f.organization_id = p_org AND f.contact_id = p_from AND f.number_id = w.number_id;
    DELETE FROM wa_conversation_windows f
    USING wa_conversation_windows w
    WHERE f.organization_id = p_org AND f.contact_id = p_from
        AND w.organization_id = p_org AND w.contact_id = p_into AND w.number_id = f.number_id;
    UPDATE wa_conversation_windows SET contact_id = p_into WHERE organization_id = p_org
        AND contact_id = p_from;
END
$$;

COMMENT ON FUNCTION _wa_merge_conversations_of(uuid, bigint, bigint) IS
'Internal: moves the conversations of a contact to the one that it merges with; where both have one with a '
'number, they become one.';
