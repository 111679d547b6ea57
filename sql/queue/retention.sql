-- Which rows of the queue go when: those that are finished, by the retention of messages.

-- A row that got an id of the application's own is found by its message. Locked rows are left for the next
-- call: whoever is at work on them goes on undisturbed.
CREATE OR REPLACE FUNCTION _wa_delete_queue_rows(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
BEGIN
    WITH expired AS (
        SELECT q.organization_id, q.id
        FROM (
            SELECT o.id AS organization_id, f.id, p_now - o.message_retention AS before
            FROM wa_organizations o
            CROSS JOIN LATERAL (
                (SELECT q.id FROM wa_outbound_queue q
                WHERE q.organization_id = o.id AND q.id < _wa_uuid7_floor(p_now - o.message_retention)
                    AND q.status IN ('sent', 'failed', 'cancelled')
                    AND q.processed_at < p_now - o.message_retention
                ORDER BY q.id LIMIT p_limit)
                UNION
                SELECT m.queue_id FROM (
                    SELECT m.queue_id, m.created_at FROM wa_messages m
                    WHERE m.organization_id = o.id ORDER BY m.id LIMIT p_limit
                ) m
                WHERE m.created_at < p_now - o.message_retention AND m.queue_id IS NOT NULL
            ) f
        ) e
        CROSS JOIN LATERAL (
            SELECT q.organization_id, q.id FROM wa_outbound_queue q
            WHERE q.organization_id = e.organization_id AND q.id = e.id
                AND q.status IN ('sent', 'failed', 'cancelled') AND q.processed_at < e.before
            FOR UPDATE SKIP LOCKED
        ) q
        LIMIT p_limit
    )
    DELETE FROM wa_outbound_queue q USING expired e
    WHERE q.organization_id = e.organization_id AND q.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_queue_rows(timestamptz, integer) IS
'Internal: deletes queue rows that are finished for longer than their organization keeps messages.';
