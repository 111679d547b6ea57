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
                SELECT _wa_archived_through(o.id, 'queue')::uuid AS through,
                    _wa_archived_through(o.id, 'messages')::bigint AS messages_through
            ) a
            CROSS JOIN LATERAL (
                (SELECT q.id FROM wa_outbound_queue q
                WHERE q.organization_id = o.id AND q.id < _wa_uuid7_floor(p_now - o.message_retention)
                    AND q.status IN ('sent', 'failed', 'cancelled')
                    AND q.processed_at < p_now - o.message_retention
                    AND (
                        o.archive_location IS NULL OR q.id <= a.through AND _wa_is_timed_id(q.id)
                        AND NOT _wa_is_straggler(o.id, 'archive', q.id)
                    )
                    AND NOT EXISTS (
                        SELECT FROM wa_contact_holds h
                        LEFT JOIN wa_messages m ON m.organization_id = o.id AND m.queue_id = q.id
                        WHERE h.organization_id = o.id AND h.released_at IS NULL
                            AND h.contact_id IN (q.contact_id, m.contact_id)
                    )
                ORDER BY q.id LIMIT p_limit)
                UNION
                SELECT m.queue_id FROM (
                    SELECT m.queue_id, m.created_at FROM wa_messages m
                    WHERE m.organization_id = o.id AND m.id <= a.messages_through
                        AND NOT _wa_is_held(o.id, m.contact_id)
                    ORDER BY m.id LIMIT p_limit
                ) m
                WHERE m.created_at < p_now - o.message_retention AND m.queue_id IS NOT NULL
                    AND (
                        o.archive_location IS NULL
                        OR m.queue_id <= a.through AND NOT _wa_is_straggler(o.id, 'archive', m.queue_id)
                        OR NOT _wa_is_timed_id(m.queue_id)
                    )
            ) f
        ) e
        CROSS JOIN LATERAL (
            SELECT q.organization_id, q.id FROM wa_outbound_queue q
            WHERE q.organization_id = e.organization_id AND q.id = e.id
                AND q.status IN ('sent', 'failed', 'cancelled') AND q.processed_at < e.before
            FOR UPDATE SKIP LOCKED
        ) q
        LIMIT p_limit
    ),
    deleted AS (
        DELETE FROM wa_outbound_queue q USING expired e
        WHERE q.organization_id = e.organization_id AND q.id = e.id
        RETURNING q.organization_id, q.id
    ),
    forgotten AS (
        SELECT d.n
        FROM (
            SELECT d.organization_id, count(*) AS n, array_agg(d.id) AS ids FROM deleted d
            GROUP BY d.organization_id
        ) d
        CROSS JOIN LATERAL _wa_forget_sms(d.organization_id, d.ids)
    )
    SELECT coalesce(sum(f.n), 0)::integer INTO v_rows FROM forgotten f;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_queue_rows(timestamptz, integer) IS
'Internal: deletes queue rows that are finished for longer than their organization keeps messages.';

CREATE OR REPLACE FUNCTION _wa_empty_queue_rows(p_org uuid, p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_outbound_queue q SET
        text_body = NULL, template_params = NULL, content = NULL, fallback_template_params = NULL,
        sms_fallback_text = NULL, last_error = NULL,
        metadata = CASE WHEN q.metadata ? 'role'
            THEN jsonb_build_object('role', q.metadata -> 'role') ELSE '{}' END,
        change_no = q.change_no + 1
    FROM unnest(p_ids) u (id)
    WHERE q.organization_id = p_org AND q.id = u.id AND q.status IN ('sent', 'failed', 'cancelled') AND (
        num_nonnulls(
            q.text_body, q.template_params, q.content, q.fallback_template_params, q.sms_fallback_text, q.last_error
        ) > 0
        OR q.metadata - 'role' <> '{}'
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_empty_queue_rows(uuid, uuid[]) IS
'Internal: empties what was said in queue rows that have ended; returns in how many something was.';

-- As in the ledger. Ids tell the time of queueing: what ends long after it is passed by and told. What is
-- locked stops the mark.
CREATE OR REPLACE FUNCTION _wa_forget_queue_texts(
    p_org uuid, p_after uuid, p_before timestamptz, p_limit integer, OUT place uuid, OUT changed integer,
    OUT stragglers uuid[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_ids uuid[];
    v_through uuid := _wa_archived_through(p_org, 'queue');
    v_is_archived boolean := (
        SELECT o.archive_location IS NOT NULL FROM wa_organizations o WHERE o.id = p_org
    );
BEGIN
    WITH chunk AS MATERIALIZED (
        SELECT q.id, q.status IN ('sent', 'failed', 'cancelled') AND q.processed_at < p_before AS is_old,
            EXISTS (
                SELECT FROM wa_contact_holds h
                LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.queue_id = q.id
                WHERE h.organization_id = p_org AND h.released_at IS NULL
                    AND h.contact_id IN (q.contact_id, m.contact_id)
            ) AS is_held
        FROM wa_outbound_queue q
        WHERE q.organization_id = p_org AND q.id > p_after AND q.id < _wa_uuid7_floor(p_before)
            AND q.id <= v_through AND (NOT v_is_archived OR _wa_is_timed_id(q.id))
        ORDER BY q.id LIMIT p_limit
    ),
    free AS MATERIALIZED (
        SELECT c.id FROM chunk c
        CROSS JOIN LATERAL (
            SELECT FROM wa_outbound_queue q WHERE q.organization_id = p_org AND q.id = c.id
            FOR NO KEY UPDATE SKIP LOCKED
        ) q
        WHERE c.is_old AND NOT c.is_held
    ),
    first_left AS (
        SELECT c.id FROM chunk c
        WHERE c.is_old AND NOT c.is_held AND c.id NOT IN (SELECT f.id FROM free f)
        ORDER BY c.id LIMIT 1
    )
    SELECT (
        SELECT c.id FROM chunk c
        WHERE c.id < ALL (SELECT l.id FROM first_left l)
        ORDER BY c.id DESC LIMIT 1
    ), array_agg(f.id), (
        SELECT array_agg(c.id) FROM chunk c WHERE NOT c.is_old AND c.id < ALL (SELECT l.id FROM first_left l)
    )
    INTO place, v_ids, stragglers FROM free f;
    changed := _wa_empty_queue_rows(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_forget_queue_texts(uuid, uuid, timestamptz, integer) IS
'Internal: empties what was said in the next queue rows of an organization, those that ended before a time '
'and are under no hold; up to which id, how many, and which were passed by, for they had not ended then.';
