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
        CROSS JOIN LATERAL (SELECT _wa_archived_through(o.id, 'statuses')::bigint AS through) a
        CROSS JOIN LATERAL (
            SELECT s.organization_id, s.id, s.received_at FROM wa_message_statuses s
            WHERE s.organization_id = o.id AND NOT EXISTS (
                SELECT FROM wa_contact_holds h
                JOIN wa_messages m ON m.organization_id = o.id AND m.id = s.message_id
                WHERE h.organization_id = o.id AND h.released_at IS NULL AND h.contact_id = m.contact_id
            ) AND s.id <= a.through
            ORDER BY s.id LIMIT p_limit
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
    v_through bigint := _wa_archived_through(p_org, 'messages');
    v_statuses_through bigint := _wa_archived_through(p_org, 'statuses');
    v_is_all_archived boolean := v_statuses_through = 9223372036854775807;
BEGIN
    WITH old AS MATERIALIZED (
        SELECT f.id
        FROM (
            SELECT m.id, m.created_at FROM wa_messages m
            WHERE m.organization_id = p_org AND m.id <= v_through AND NOT _wa_is_held(p_org, m.contact_id)
            ORDER BY m.id LIMIT p_limit
        ) f
        WHERE f.created_at < p_before
    ),
    gone AS (
        DELETE FROM wa_messages m USING old WHERE m.organization_id = p_org AND m.id = old.id
            -- Its statuses go with it.
            AND (v_is_all_archived OR NOT EXISTS (
                SELECT FROM wa_message_statuses s
                WHERE s.organization_id = p_org AND s.wa_message_id = m.wa_message_id
                    AND s.id > v_statuses_through
            ))
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

-- The rows behind a mark, a chunk at a time: what was looked at is not looked at again. The mark stops before
-- the first row whose time is not over, for a row may have got its id long before its time.
CREATE OR REPLACE FUNCTION _wa_forget_message_texts(
    p_org uuid, p_after bigint, p_before timestamptz, p_limit integer,
    OUT place bigint, OUT changed integer, OUT queue_ids uuid[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_through bigint := _wa_archived_through(p_org, 'messages');
BEGIN
    WITH chunk AS MATERIALIZED (
        SELECT m.id, m.created_at < p_before AS is_old, _wa_is_held(p_org, m.contact_id) AS is_held,
            m.queue_id
        FROM wa_messages m
        WHERE m.organization_id = p_org AND m.id > p_after AND m.id <= v_through
        ORDER BY m.id LIMIT p_limit
    ),
    emptied AS (
        UPDATE wa_messages m SET
            content = '{}', content_text = NULL, referral = NULL, error_message = NULL,
            metadata = CASE WHEN m.metadata ? 'role'
                THEN jsonb_build_object('role', m.metadata -> 'role') ELSE '{}' END
        FROM chunk c
        WHERE c.is_old AND NOT c.is_held AND m.organization_id = p_org AND m.id = c.id
            AND (
                m.content <> '{}' OR num_nonnulls(m.content_text, m.referral, m.error_message) > 0
                OR m.metadata - 'role' <> '{}'
            )
        RETURNING 1
    )
    SELECT coalesce(min(c.id) FILTER (WHERE NOT c.is_old) - 1, max(c.id)), (SELECT count(*) FROM emptied),
        array_agg(c.queue_id) FILTER (
            WHERE c.is_old AND NOT c.is_held AND NOT _wa_is_timed_id(c.queue_id)
        )
    INTO place, changed, queue_ids FROM chunk c;
END
$$;

COMMENT ON FUNCTION _wa_forget_message_texts(uuid, bigint, timestamptz, integer) IS
'Internal: empties what was said in the next messages of an organization, those from before a time that are '
'under no hold; up to which id, how many, and which of their queue rows have an id that tells no time.';
