-- What goes when, and the order in which rooms delete what is old, by the job only. Each call deletes at most
-- p_limit rows of a table, the oldest first, so that transactions stay short; the job comes again while
-- something is left. Opt-ins and opt-outs are kept for good, and so is all of whoever is under a legal hold.

CREATE OR REPLACE FUNCTION _wa_forget_stragglers(p_org uuid, p_before timestamptz, p_limit integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids uuid[] := ARRAY(
        SELECT s.queue_id
        FROM wa_retention_stragglers s
        LEFT JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = s.queue_id
        WHERE s.organization_id = p_org AND s.kind = 'texts' AND (
            q.id IS NULL
            OR q.status IN ('sent', 'failed', 'cancelled') AND q.processed_at < p_before
            AND NOT _wa_is_held(p_org, q.contact_id) AND NOT _wa_is_straggler(p_org, 'archive', q.id)
        )
        LIMIT p_limit
    );
BEGIN
    DELETE FROM wa_retention_stragglers s
    WHERE s.organization_id = p_org AND s.kind = 'texts' AND s.queue_id = ANY (v_ids);
    RETURN _wa_empty_queue_rows(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_forget_stragglers(uuid, timestamptz, integer) IS
'Internal: empties what was said in queue rows that were passed by and have ended since; returns in how many '
'something was.';

-- Behind a mark, for an empty row looks like any other to an index.
CREATE OR REPLACE FUNCTION _wa_forget_texts(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_next record;
    v_place text;
    v_changed integer;
    v_stragglers uuid[];
    v_rows integer := 0;
BEGIN
    FOR v_next IN
        SELECT o.id, p_now - o.text_retention AS before, k.kind, coalesce(r.place, k.start) AS place
        FROM wa_organizations o
        CROSS JOIN (
            VALUES ('messages', '0'), ('queue', '00000000-0000-0000-0000-000000000000')
        ) k (kind, start)
        LEFT JOIN wa_retention_marks r ON r.organization_id = o.id AND r.kind = k.kind
        WHERE o.text_retention IS NOT NULL AND o.retention_previewed_at < p_now - interval '1 day'
        ORDER BY o.id, k.kind
    LOOP
        IF v_next.kind = 'messages' THEN
            SELECT m.place, m.changed + _wa_empty_queue_rows(v_next.id, m.queue_ids) INTO v_place, v_changed
            FROM _wa_forget_message_texts(v_next.id, v_next.place::bigint, v_next.before, p_limit) m;
        ELSE
            SELECT q.place, q.changed + _wa_forget_stragglers(v_next.id, v_next.before, p_limit), q.stragglers
            INTO v_place, v_changed, v_stragglers
            FROM _wa_forget_queue_texts(v_next.id, v_next.place::uuid, v_next.before, p_limit) q;
            INSERT INTO wa_retention_stragglers (organization_id, kind, queue_id)
            SELECT v_next.id, 'texts', u.id FROM unnest(v_stragglers) u (id)
            ON CONFLICT DO NOTHING;
        END IF;
        v_rows := v_rows + coalesce(v_changed, 0);
        CONTINUE WHEN v_place IS NULL OR v_place = v_next.place;
        INSERT INTO wa_retention_marks (organization_id, kind, place)
        VALUES (v_next.id, v_next.kind, v_place)
        ON CONFLICT (organization_id, kind) DO UPDATE SET
            place = excluded.place, moved_at = clock_timestamp();
        EXIT WHEN v_rows >= p_limit;
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_forget_texts(timestamptz, integer) IS
'Internal: empties what was said in messages and queue rows whose time is over; returns how many.';

CREATE OR REPLACE FUNCTION _wa_retention_counts(p_org uuid, p_now timestamptz)
RETURNS TABLE (kind text, keep interval, row_count bigint, oldest_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    -- Raw webhooks tell of persons of every organization.
    WITH held AS MATERIALIZED (
        SELECT convert_to(w.who, 'UTF8') AS who FROM wa_contact_holds h
        CROSS JOIN LATERAL _wa_identities_of(h.organization_id, h.contact_id) i
        CROSS JOIN LATERAL unnest(i.who) w (who)
        WHERE h.released_at IS NULL
    )
    SELECT k.*, f.row_count, f.oldest_at
    FROM wa_organizations o
    CROSS JOIN LATERAL (
        VALUES ('texts', o.text_retention), ('files', least(o.media_retention, o.message_retention)),
            ('messages', o.message_retention), ('statuses', o.message_retention),
            ('events', o.message_retention), ('queue', o.message_retention),
            ('deliveries', o.event_delivery_retention), ('audit', o.audit_retention),
            ('webhooks', (
                SELECT least(i.webhook_log_retention, min(least(x.message_retention, x.text_retention)))
                FROM wa_organizations x LEFT JOIN wa_installations i ON true
                GROUP BY i.webhook_log_retention
            )), ('opt_outs', NULL::interval)
    ) k (kind, keep)
    CROSS JOIN LATERAL (
        SELECT count(*), min(x.at)
        FROM (
            SELECT m.created_at AS at FROM wa_messages m
            WHERE k.kind = 'texts' AND m.organization_id = p_org AND m.created_at < p_now - k.keep
                AND (m.content_text IS NOT NULL OR m.content <> '{}')
                AND NOT _wa_is_held(p_org, m.contact_id)
            UNION ALL
            SELECT greatest(m.created_at, m.used_at) FROM wa_media m
            WHERE k.kind = 'files' AND m.organization_id = p_org
                AND greatest(m.created_at, m.used_at) < p_now - k.keep
                AND NOT _wa_is_held(p_org, m.contact_id)
            UNION ALL
            SELECT m.created_at FROM wa_messages m
            WHERE k.kind = 'messages' AND m.organization_id = p_org AND m.created_at < p_now - k.keep
                AND NOT _wa_is_held(p_org, m.contact_id)
            UNION ALL
            SELECT s.received_at FROM wa_message_statuses s
            LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
            WHERE k.kind = 'statuses' AND s.organization_id = p_org AND s.received_at < p_now - k.keep
                AND _wa_is_held(p_org, m.contact_id) IS NOT TRUE
            UNION ALL
            SELECT e.created_at FROM wa_events e
            WHERE k.kind = 'events' AND e.organization_id = p_org AND e.created_at < p_now - k.keep
            UNION ALL
            SELECT q.processed_at FROM wa_outbound_queue q
            WHERE k.kind = 'queue' AND q.organization_id = p_org AND q.processed_at < p_now - k.keep
                AND q.status IN ('sent', 'failed', 'cancelled') AND NOT EXISTS (
                    SELECT FROM wa_contact_holds h
                    LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.queue_id = q.id
                    WHERE h.organization_id = p_org AND h.released_at IS NULL
                        AND h.contact_id IN (q.contact_id, m.contact_id)
                )
            UNION ALL
            SELECT d.ended_at FROM wa_event_deliveries d
            WHERE k.kind = 'deliveries' AND d.organization_id = p_org AND d.ended_at < p_now - k.keep
            UNION ALL
            SELECT a.created_at FROM audit_log a
            WHERE k.kind = 'audit' AND a.organization_id = p_org AND a.created_at < p_now - k.keep
            UNION ALL
            SELECT l.received_at FROM wa_webhook_logs l
            WHERE k.kind = 'webhooks' AND l.received_at < p_now - k.keep AND l.status <> 'pending'
                AND NOT EXISTS (SELECT FROM held h WHERE position(h.who IN l.body) > 0)
        ) x
    ) f (row_count, oldest_at)
    WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_retention_counts(uuid, timestamptz) IS
'Internal: what of an organization is older than it is kept, by kind.';

CREATE OR REPLACE FUNCTION preview_wa_retention(p_now timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (kind text, keep interval, row_count bigint, oldest_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT c.* FROM _wa_retention_counts(_wa_caller_organization(), p_now) c
$$;

COMMENT ON FUNCTION preview_wa_retention(timestamptz) IS
'What retention would take of the organization now, or at another time: kind, how long it is kept (NULL: for '
'good), how many rows are older, and the oldest one''s time. Raw webhooks are the installation''s. Deletes '
'nothing; reads all that it counts.';

-- The first run after an upgrade: it says what it would do, a day before it does it.
CREATE OR REPLACE FUNCTION _wa_preview_new_limits(p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid;
BEGIN
    FOR v_org IN
        SELECT o.id FROM wa_organizations o WHERE o.retention_previewed_at IS NULL ORDER BY o.id
    LOOP
        PERFORM _wa_audit(v_org, 'retention_previewed', 'wa_organizations', v_org::text, (
            SELECT jsonb_object_agg(c.kind, c.row_count) FROM _wa_retention_counts(v_org, p_now) c
            WHERE c.kind IN ('texts', 'files')
        ));
        PERFORM _wa_note_retention_preview(v_org, p_now);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_preview_new_limits(timestamptz) IS
'Internal: leaves an audit row with what the limits for texts and files would take, where that was not done '
'yet; they hold from a day later on.';

-- Queue rows first: some are found by their message. While messages are sent, batches are small and the job
-- rests between them (wa_jobs.rest): what is old can wait, and no transaction is long. Of a large table plans
-- look dear, and compiling them takes longer than a batch.
CREATE OR REPLACE FUNCTION run_wa_retention(p_limit integer DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET jit = off
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_limit integer := coalesce(p_limit, CASE WHEN _wa_is_sending() THEN 1000 ELSE 10000 END);
BEGIN
    PERFORM _wa_preview_new_limits(v_now);
    RETURN _wa_delete_queue_rows(v_now, v_limit) + _wa_delete_statuses(v_now, v_limit)
        + _wa_delete_event_deliveries(v_now, v_limit)
        + _wa_delete_events(v_now, v_limit) + _wa_delete_messages(v_now, v_limit)
        + _wa_delete_webhook_logs(v_now, v_limit) + _wa_delete_audit(v_now, v_limit)
        + _wa_delete_account_events(v_now, v_limit) + _wa_delete_faults(v_now, v_limit)
        + _wa_delete_idempotent_requests(v_now, v_limit)
        + _wa_delete_provider_calls(v_now, v_limit) + _wa_delete_flow_records(v_now, v_limit)
        + _wa_forget_texts(v_now, v_limit);
END
$$;

COMMENT ON FUNCTION run_wa_retention(integer) IS
'Deletes, or for texts empties, what is older than the organizations and the installation keep it, at most '
'so many rows of each table (NULL: 1000 while messages are sent, else 10,000), the oldest first; returns how '
'many. What an organization archives is not taken before it is in the archive. '
' Opt-ins and opt-outs are kept for good, and '
'so is all of whoever is under a legal hold. The job "retention" calls it.';
