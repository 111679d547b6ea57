-- What a dispatcher process calls besides claiming and completing: its life from start to stop, its sleep,
-- when to ask next, and what became of claims whose answer was lost.

CREATE OR REPLACE FUNCTION start_wa_dispatcher(
    p_dispatcher_id uuid, p_host text, p_pid integer, p_version text
)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_version(p_version);
    PERFORM _wa_require_installation();
    INSERT INTO wa_dispatchers (id, host, pid, version) VALUES (p_dispatcher_id, p_host, p_pid, p_version)
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), stopped_at = NULL;
    DELETE FROM wa_dispatchers WHERE seen_at < clock_timestamp() - interval '7 days';
    RETURN jsonb_build_object(
        'poll_ms', 1000, 'start_within_ms', 800, 'late_within_ms', 50, 'wake_channel', 'wa_queue'
    );
END
$$;

COMMENT ON FUNCTION start_wa_dispatcher(uuid, text, integer, text) IS
'Registers a dispatcher process and tells it its settings; raises WA401 in a database that may not send, '
'WA402 for a program of another release than the schema.';

CREATE OR REPLACE FUNCTION stop_wa_dispatcher(p_dispatcher_id uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_dispatchers SET stopped_at = clock_timestamp() WHERE id = p_dispatcher_id
$$;

COMMENT ON FUNCTION stop_wa_dispatcher(uuid) IS 'Records that a dispatcher ended in order.';

CREATE OR REPLACE FUNCTION maintain_wa_dispatch(p_dispatcher_id uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms'
AS $$
DECLARE
    v_org record;
    v_late record;
    v_lost bigint := 0;
    v_settled bigint := 0;
    v_expired integer;
    v_recorded integer;
    v_rechecked integer;
    -- Some twenty milliseconds each: results are recorded over the same connection.
    c_expired_at_once CONSTANT integer := 200;
    c_results_at_once CONSTANT integer := 200;
    c_rechecked_at_once CONSTANT integer := 1000;
    c_sms_at_once CONSTANT integer := 100;
    v_sms integer;
BEGIN
    IF EXISTS (SELECT FROM wa_dispatchers d WHERE d.seen_at > clock_timestamp() + interval '5 seconds')
        AND _wa_try_lock('maintenance')
    THEN
        PERFORM _wa_follow_clock();
    END IF;
    UPDATE wa_dispatchers SET seen_at = clock_timestamp(), stopped_at = NULL WHERE id = p_dispatcher_id;
    -- The schema may have been upgraded beneath a running process.
    PERFORM _wa_require_version(d.version) FROM wa_dispatchers d WHERE d.id = p_dispatcher_id;
    -- One process at a time is enough, and keeps two from settling the same rows.
    IF NOT _wa_try_lock('maintenance') THEN
        RETURN '{}';
    END IF;
    PERFORM _wa_require_installation();
    PERFORM _wa_analyze_refilled(ARRAY[
        'wa_outbound_queue', 'wa_queue_due', 'wa_queue_inflight', 'wa_messages', 'wa_contacts',
        'wa_contact_identities', 'wa_conversation_windows', 'wa_message_statuses', 'wa_tier_usages',
        'wa_opt_outs'
    ]::regclass[]);
    v_recorded := _wa_settle_late_results(c_results_at_once);
    FOR v_org IN
        -- Queue rows are locked first, as everywhere. One that an answer or callback data is being recorded
        -- for at this moment, or that anybody else has, is left alone until the next time.
        SELECT r.organization_id AS id, array_agg(r.id) AS queue_ids
        FROM (
            SELECT q.organization_id, q.id
            FROM (
                SELECT x.organization_id, x.queue_id FROM wa_queue_inflight x
                -- What has an answer that waits to be recorded is not lost.
                WHERE x.deadline_at <= clock_timestamp() AND NOT EXISTS (
                    SELECT FROM wa_late_results l
                    WHERE l.organization_id = x.organization_id AND l.queue_id = x.queue_id
                        AND l.attempt = x.attempt
                )
                ORDER BY x.deadline_at
            ) i
            CROSS JOIN LATERAL (
                SELECT x.organization_id, x.id FROM wa_outbound_queue x
                WHERE x.organization_id = i.organization_id AND x.id = i.queue_id
                LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED
            ) q
            LIMIT 1000
        ) r
        GROUP BY r.organization_id
    LOOP
        BEGIN
            SELECT m.lost, m.settled INTO v_late FROM _wa_end_leases(v_org.id, v_org.queue_ids) m;
            v_lost := v_lost + v_late.lost;
            v_settled := v_settled + v_late.settled;
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(v_org.id, 'maintenance', 'leases', SQLSTATE, SQLERRM);
        END;
    END LOOP;
    v_expired := _wa_expire_queued(c_expired_at_once, clock_timestamp());
    v_rechecked := _wa_recheck_waits(c_rechecked_at_once);
    v_sms := _wa_send_sms_fallbacks(c_sms_at_once, clock_timestamp());
    PERFORM _wa_free_after_uploads();
    PERFORM _wa_expire_panics(clock_timestamp());
    FOR v_org IN
        SELECT DISTINCT d.organization_id AS id FROM wa_queue_due d
        WHERE d.number_id IS NULL AND d.hold_id IS NULL
    LOOP
        BEGIN
            PERFORM _wa_assign_numbers(v_org.id);
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(v_org.id, 'maintenance', 'numbers', SQLSTATE, SQLERRM);
        END;
    END LOOP;
    RETURN jsonb_build_object(
        'lost', v_lost, 'settled', v_settled, 'expired', v_expired,
        'has_more', v_expired >= c_expired_at_once OR v_recorded >= c_results_at_once
            OR v_rechecked >= c_rechecked_at_once OR v_sms >= c_sms_at_once
    );
END
$$;

COMMENT ON FUNCTION maintain_wa_dispatch(uuid) IS
'A dispatcher''s heartbeat. Also: leases that ran out become outcome unknown, and unknown outcomes whose '
'grace is over are failed or, where the row asks for it, sent again; messages that expired fail. has_more: '
'call it again soon.';

-- The caller has locked the rows in a statement before: what is read after the lock knows of an answer that
-- was recorded meanwhile.
CREATE OR REPLACE FUNCTION _wa_end_leases(p_org uuid, p_ids uuid[], OUT lost bigint, OUT settled bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_late record;
BEGIN
    lost := 0;
    settled := 0;
    SELECT array_agg(i.queue_id) FILTER (WHERE NOT i.is_unknown) AS lost,
        array_agg(i.queue_id) FILTER (WHERE i.is_unknown) AS unknown, array_agg(i.contact_id) AS contact_ids
    INTO v_late
    FROM wa_queue_inflight i
    WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids) AND i.deadline_at <= clock_timestamp()
        AND NOT EXISTS (
            SELECT FROM wa_late_results l
            WHERE l.organization_id = i.organization_id AND l.queue_id = i.queue_id AND l.attempt = i.attempt
        );
    IF v_late.lost IS NOT NULL THEN
        -- Its dispatcher died or lost us: the request may have left.
        PERFORM _wa_await_outcome(p_org, v_late.lost, array_fill(
            'the dispatcher did not report'::text, ARRAY[cardinality(v_late.lost)]));
        lost := cardinality(v_late.lost);
    END IF;
    IF v_late.unknown IS NOT NULL THEN
        settled := _wa_give_up_waiting(p_org, v_late.unknown, clock_timestamp());
    END IF;
    PERFORM _wa_release_in_order(p_org, v_late.contact_ids);
END
$$;

COMMENT ON FUNCTION _wa_end_leases(uuid, uuid[]) IS
'Internal: what becomes of rows in flight whose lease, or whose wait for a webhook, is over.';

CREATE OR REPLACE FUNCTION wake_wa_dispatcher() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_unlock_all();
    PERFORM pg_advisory_lock_shared(_wa_gate());
END
$$;

COMMENT ON FUNCTION wake_wa_dispatcher() IS
'Declares the session''s dispatcher awake: producers need not notify. Gives up the session''s other advisory '
'locks.';

CREATE OR REPLACE FUNCTION sleep_wa_dispatcher() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_unlock_all();
    RETURN pg_try_advisory_lock(_wa_gate());
END
$$;

COMMENT ON FUNCTION sleep_wa_dispatcher() IS
'True: producers will NOTIFY wa_queue from now on; look once more, then wait. False: poll.';

CREATE OR REPLACE FUNCTION get_wa_next_due()
RETURNS TABLE (next_due_at timestamptz, is_contended boolean, is_sifting boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT SET jit = off
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY SELECT
        nullif(least(
            min(CASE WHEN k.hold_reason IS NULL THEN b.held_until ELSE k.held_until END),
            -- The next heartbeat ends them.
            (
                SELECT CASE WHEN min(d.expires_at) <= v_now THEN v_now + interval '1 second' END
                FROM wa_queue_due d WHERE d.expires_at < 'infinity'
            ),
            -- Uploads let their rows go by notification; here it is only said that something is to come.
            (
                SELECT min(greatest(u.next_attempt_at, v_now + interval '1 second'))
                FROM wa_media_uploads u
                WHERE u.status = 'pending' AND EXISTS (SELECT FROM wa_queue_due d WHERE d.hold_id = -u.id)
            ),
            (
                SELECT min(least(
                    h.opens_at, f.due_at,
                    -- Due, but behind the cursor of its lane: passed over, handed back, or committed late.
                    CASE WHEN s.look_again_at > v_now AND p.is_due THEN s.look_again_at END
                ))
                FROM wa_lanes l
                LEFT JOIN LATERAL _wa_lane_state(l.organization_id, l.number_id) s ON true
                CROSS JOIN LATERAL (
                    SELECT min(d.due_at) AS due_at
                    FROM generate_series(1, _wa_last_class()) c (class)
                    CROSS JOIN LATERAL (
                        SELECT d.due_at FROM wa_queue_due d
                        WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                            AND d.class = c.class AND d.hold_id IS NULL AND d.due_at > v_now
                        ORDER BY d.due_at LIMIT 1
                    ) d
                ) f
                CROSS JOIN LATERAL (
                    SELECT bool_or(d.due_at <= v_now) AS is_due
                    FROM generate_series(1, _wa_last_class()) c (class)
                    CROSS JOIN LATERAL (
                        SELECT d.due_at FROM wa_queue_due d
                        WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                            AND d.class = c.class AND d.hold_id IS NULL
                        ORDER BY d.due_at LIMIT 1
                    ) d
                    WHERE s.look_again_at > v_now
                ) p
                LEFT JOIN LATERAL (
                    SELECT x.opens_at FROM wa_queue_holds x
                    WHERE x.number_id = l.number_id AND x.organization_id = l.organization_id
                        AND x.opens_at > v_now AND x.opens_at > '-infinity'
                    ORDER BY x.opens_at LIMIT 1
                ) h ON true
            )
        ), 'infinity'),
        coalesce(bool_or(b.held_until IS NULL), false),
        coalesce(bool_or(b.held_until IS NULL AND b.is_skipping), false)
    FROM _wa_busy_lanes(v_now) b
    LEFT JOIN LATERAL _wa_lane_block(b.organization_id, b.number_id, v_now) k
        ON b.held_until IS NOT NULL AND b.hold_reason <> ALL ('{throughput,organization_rate}');
END
$$;

COMMENT ON FUNCTION get_wa_next_due() IS
'When the next row becomes due, expired ones are ended, a held lane is free, or a file that rows wait for is '
'looked after (NULL: never, by itself). '
'is_contended: a lane has due rows that another dispatcher may be claiming at this moment, so ask again '
'soon; is_sifting: claims are setting aside rows that cannot go, so ask again at once.';

-- A claim whose answer was lost with the connection had committed all the same: what the dispatcher does not
-- hold was never started.
CREATE OR REPLACE FUNCTION release_wa_claims(p_dispatcher_id uuid, p_held uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_released integer := 0;
BEGIN
    FOR v_org IN
        SELECT i.organization_id AS id, jsonb_agg(jsonb_build_object(
            'org', i.organization_id, 'id', i.queue_id, 'attempt', i.attempt, 'outcome', 'not_started'
        )) AS results
        FROM wa_queue_inflight i
        WHERE i.dispatcher_id = p_dispatcher_id AND NOT i.is_unknown AND i.queue_id <> ALL (p_held)
            -- The dispatcher gave us its answer already.
            AND NOT EXISTS (
                SELECT FROM wa_late_results l
                WHERE l.organization_id = i.organization_id AND l.queue_id = i.queue_id
                    AND l.attempt = i.attempt
            )
        GROUP BY i.organization_id
        ORDER BY i.organization_id
    LOOP
        v_released := v_released + _wa_complete_safely(v_org.id, v_org.results);
    END LOOP;
    RETURN v_released;
END
$$;

COMMENT ON FUNCTION release_wa_claims(uuid, uuid[]) IS
'Hands back what a dispatcher was granted but does not hold, because the answer of its claim was lost; call '
'it before the next claim. Returns how many.';

CREATE OR REPLACE FUNCTION _wa_is_sending() RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_lane_states s WHERE s.served_at > clock_timestamp() - interval '5 seconds'
    )
$$;

COMMENT ON FUNCTION _wa_is_sending() IS
'Internal: whether messages were claimed just now. What can wait, such as deleting old rows, then makes '
'room.';
