-- What is deleted when, by the jobs only. Each call deletes at most p_limit rows of a table, the oldest
-- first, so that transactions stay short; the job comes again while something is left.

-- Ids that grow with time lead to what is oldest without an index of its own: their first p_limit rows of
-- each organization hold what is to go, or nothing is. Opt-ins and opt-outs are kept for good.

CREATE OR REPLACE FUNCTION _wa_uuid7_floor(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (overlay(lpad(to_hex((date_part('epoch', p_at) * 4096000)::bigint), 15, '0'), '7', 13, 0)
    || repeat('0', 16))::uuid;

COMMENT ON FUNCTION _wa_uuid7_floor(timestamptz) IS
'Internal: the lowest id that _wa_uuid7() gives at that time.';

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

CREATE OR REPLACE FUNCTION _wa_delete_messages(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_expired record;
    v_rows integer := 0;
BEGIN
    FOR v_expired IN
        SELECT o.id, p_now - o.message_retention AS before
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT m.created_at FROM wa_messages m WHERE m.organization_id = o.id ORDER BY m.id LIMIT 1
        ) m
        WHERE m.created_at < _wa_quarter(p_now - o.message_retention)
        ORDER BY o.id
    LOOP
        EXIT WHEN v_rows >= p_limit;
        v_rows := v_rows + _wa_delete_messages_before(v_expired.id, v_expired.before, p_limit - v_rows);
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_messages(timestamptz, integer) IS
'Internal: deletes messages that are older than their organization keeps them; their figures stay.';

-- Raw bodies hold what was written, and several organizations' in one: the shortest time counts. What was not
-- processed yet stays.
CREATE OR REPLACE FUNCTION _wa_delete_webhook_logs(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_keep interval := least(
        (SELECT i.webhook_log_retention FROM wa_installations i),
        (SELECT min(o.message_retention) FROM wa_organizations o)
    );
    v_rows integer;
BEGIN
    DELETE FROM wa_webhook_logs l
    USING (
        SELECT f.id FROM (
            SELECT w.id, w.received_at FROM wa_webhook_logs w ORDER BY w.id LIMIT p_limit
        ) f
        WHERE f.received_at < p_now - v_keep
    ) e
    WHERE l.id = e.id AND l.status <> 'pending';
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_webhook_logs(timestamptz, integer) IS
'Internal: deletes raw webhooks, and what could not be processed of them, after the time for which they are '
'kept.';

CREATE OR REPLACE FUNCTION _wa_delete_audit(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_audited integer;
    v_events integer;
BEGIN
    WITH expired AS (
        SELECT a.organization_id, a.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT a.organization_id, a.id FROM audit_log a
            WHERE a.organization_id = o.id AND a.created_at < p_now - o.audit_retention LIMIT p_limit
        ) a
        LIMIT p_limit
    )
    DELETE FROM audit_log a USING expired e WHERE a.organization_id = e.organization_id AND a.id = e.id;
    GET DIAGNOSTICS v_audited = ROW_COUNT;
    WITH expired AS (
        SELECT v.organization_id, v.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT v.organization_id, v.id FROM wa_account_events v
            WHERE v.organization_id = o.id AND v.received_at < p_now - o.audit_retention LIMIT p_limit
        ) v
        LIMIT p_limit
    )
    DELETE FROM wa_account_events v USING expired e
    WHERE v.organization_id = e.organization_id AND v.id = e.id;
    GET DIAGNOSTICS v_events = ROW_COUNT;
    RETURN v_audited + v_events;
END
$$;

COMMENT ON FUNCTION _wa_delete_audit(timestamptz, integer) IS
'Internal: deletes audit rows and account events where the organization set an end for them.';

-- Queue rows first: some are found by their message.
CREATE OR REPLACE FUNCTION run_wa_retention(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_delete_queue_rows(n.at, p_limit) + _wa_delete_statuses(n.at, p_limit)
        + _wa_delete_events(n.at, p_limit) + _wa_delete_messages(n.at, p_limit)
        + _wa_delete_webhook_logs(n.at, p_limit) + _wa_delete_audit(n.at, p_limit)
    FROM (SELECT clock_timestamp()) n (at)
$$;

COMMENT ON FUNCTION run_wa_retention(integer) IS
'Deletes what is older than the organizations and the installation keep it, at most so many rows of each '
'table, the oldest first; returns how many. Opt-ins and opt-outs are kept for good. The job "retention" '
'calls it.';

-- A pair whose burst is over, a recipient outside the rolling 24 hours: like none. Locked rows are being
-- charged, hence not old; skipping them keeps claims from waiting here.
CREATE OR REPLACE FUNCTION clean_wa_rate_windows(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_before timestamptz := clock_timestamp() - interval '2 days';
    v_rows integer;
    v_total integer;
BEGIN
    DELETE FROM wa_pair_rates r
    WHERE (r.organization_id, r.number_id, r.contact_id) IN (
        SELECT p.organization_id, p.number_id, p.contact_id FROM wa_pair_rates p
        WHERE p.clear_at < v_before AND coalesce(p.wait_until, p.clear_at) < v_before
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_total = ROW_COUNT;
    DELETE FROM wa_tier_usages u
    WHERE (u.organization_id, u.portfolio_id, u.contact_id) IN (
        SELECT t.organization_id, t.portfolio_id, t.contact_id FROM wa_tier_usages t
        WHERE t.last_at < v_before
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;
    -- What numbers and organizations that were deleted left behind.
    DELETE FROM wa_lane_states s WHERE NOT EXISTS (
        SELECT FROM wa_phone_numbers n WHERE n.organization_id = s.organization_id AND n.id = s.number_id
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;
    DELETE FROM wa_rate_limits r WHERE NOT EXISTS (
        SELECT FROM wa_organizations o WHERE o.id = r.organization_id
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_total + v_rows;
END
$$;

COMMENT ON FUNCTION clean_wa_rate_windows(integer) IS
'Deletes what was charged to pair rates and messaging limits more than two days ago, and what deleted '
'numbers left behind; returns how many rows. The job "rate_windows" calls it.';
