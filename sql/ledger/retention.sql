-- What of the ledger goes when, at most p_limit rows a call, the oldest first.

-- Ids that grow with time lead to what is oldest without an index of its own: their first p_limit rows of
-- each organization hold what is to go, or nothing is.

CREATE OR REPLACE FUNCTION _wa_delete_statuses(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
BEGIN
    WITH expired AS (
        SELECT s.organization_id, s.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT s.organization_id, s.id, s.received_at FROM wa_message_statuses s
            WHERE s.organization_id = o.id ORDER BY s.id LIMIT p_limit
        ) s
        WHERE s.received_at < p_now - o.message_retention
        LIMIT p_limit
    )
    DELETE FROM wa_message_statuses s USING expired e
    WHERE s.organization_id = e.organization_id AND s.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_statuses(timestamptz, integer) IS
'Internal: deletes statuses that came in longer ago than their organization keeps messages.';

-- The newest position stays, because the next one is counted from it.
CREATE OR REPLACE FUNCTION _wa_delete_events(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
BEGIN
    WITH expired AS (
        SELECT e.organization_id, e.id, e.position
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT e.organization_id, e.id, e.position, e.created_at FROM wa_events e
            WHERE e.organization_id = o.id ORDER BY e.id LIMIT p_limit
        ) e
        WHERE e.created_at < p_now - o.message_retention
            AND e.position IS DISTINCT FROM (
                SELECT n.position FROM wa_events n
                WHERE n.organization_id = o.id AND n.position IS NOT NULL
                ORDER BY n.position DESC LIMIT 1
            )
        LIMIT p_limit
    )
    DELETE FROM wa_events w USING expired e
    -- One that is given its place meanwhile may be the newest now: looked at again after its lock.
    WHERE w.organization_id = e.organization_id AND w.id = e.id
        AND w.position IS NOT DISTINCT FROM e.position;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_events(timestamptz, integer) IS
'Internal: deletes events that are older than their organization keeps messages, read or not.';

-- Whoever calls it has seen to the figures first: see analytics/retention.sql.
CREATE OR REPLACE FUNCTION _wa_delete_ledger_before(
    p_org uuid, p_before timestamptz, p_limit integer
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_deleted integer;
    v_filed bigint[];
BEGIN
    WITH old AS MATERIALIZED (
        SELECT f.id
        FROM (
            SELECT m.id, m.created_at FROM wa_messages m
            WHERE m.organization_id = p_org ORDER BY m.id LIMIT p_limit
        ) f
        WHERE f.created_at < p_before
    ),
    gone AS (
        DELETE FROM wa_messages m USING old WHERE m.organization_id = p_org AND m.id = old.id
        RETURNING m.id, m.wa_message_id, m.message_type
    ),
    histories AS (
        DELETE FROM wa_message_statuses s
        WHERE s.organization_id = p_org AND s.wa_message_id IN (SELECT g.wa_message_id FROM gone g)
    )
    SELECT count(*), array_agg(g.id) FILTER (
        WHERE g.message_type IN ('image', 'video', 'audio', 'document', 'sticker')
    ) INTO v_deleted, v_filed FROM gone g;
    PERFORM _wa_abandon_media(p_org, v_filed);
    RETURN v_deleted;
END
$$;

COMMENT ON FUNCTION _wa_delete_ledger_before(uuid, timestamptz, integer) IS
'Internal: deletes the oldest messages of an organization and their statuses; returns how many messages.';
