-- What follows from no answer at all.

CREATE OR REPLACE FUNCTION maintain_wa_dispatch(p_dispatcher_id uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_late record;
    v_lost bigint := 0;
    v_settled bigint := 0;
BEGIN
    UPDATE wa_dispatchers SET seen_at = clock_timestamp(), stopped_at = NULL WHERE id = p_dispatcher_id;
    -- The schema may have been upgraded beneath a running process.
    PERFORM _wa_require_version(d.version) FROM wa_dispatchers d WHERE d.id = p_dispatcher_id;
    -- One process at a time is enough, and keeps two from settling the same rows.
    IF NOT pg_try_advisory_xact_lock(_wa_gate() + 1) THEN
        RETURN '{}';
    END IF;
    PERFORM _wa_require_installation();
    PERFORM _wa_analyze_refilled(ARRAY[
        'wa_outbound_queue', 'wa_queue_due', 'wa_queue_inflight', 'wa_messages', 'wa_contacts',
        'wa_contact_identities', 'wa_conversation_windows', 'wa_message_statuses', 'wa_tier_usages',
        'wa_opt_outs'
    ]::regclass[]);
    FOR v_org IN
        SELECT i.organization_id AS id, array_agg(i.queue_id) AS queue_ids
        FROM (SELECT * FROM wa_queue_inflight i WHERE i.deadline_at <= clock_timestamp() LIMIT 1000) i
        GROUP BY i.organization_id
    LOOP
        -- Queue rows are locked first, as everywhere: an answer or an echo that is being recorded is waited
        -- for, and what is read after the lock knows of it.
        PERFORM FROM wa_outbound_queue q
        WHERE q.organization_id = v_org.id AND q.id = ANY (v_org.queue_ids)
        ORDER BY q.id
        FOR NO KEY UPDATE;
        SELECT array_agg(i.queue_id) FILTER (WHERE NOT i.is_unknown) AS lost,
            array_agg(i.queue_id) FILTER (WHERE i.is_unknown) AS unknown
        INTO v_late
        FROM wa_queue_inflight i
        WHERE i.organization_id = v_org.id AND i.queue_id = ANY (v_org.queue_ids)
            AND i.deadline_at <= clock_timestamp();
        IF v_late.lost IS NOT NULL THEN
            -- Its dispatcher died or lost us: the request may have left.
            PERFORM _wa_await_outcome(v_org.id, v_late.lost, array_fill(
                'the dispatcher did not report'::text, ARRAY[cardinality(v_late.lost)]));
            v_lost := v_lost + cardinality(v_late.lost);
        END IF;
        IF v_late.unknown IS NOT NULL THEN
            v_settled := v_settled + _wa_give_up_waiting(v_org.id, v_late.unknown, clock_timestamp());
        END IF;
    END LOOP;
    PERFORM _wa_expire_panics(clock_timestamp());
    PERFORM _wa_assign_numbers(o.organization_id)
    FROM (SELECT DISTINCT d.organization_id FROM wa_queue_due d WHERE d.number_id IS NULL AND d.class > 0) o;
    RETURN jsonb_build_object('lost', v_lost, 'settled', v_settled);
END
$$;

COMMENT ON FUNCTION maintain_wa_dispatch(uuid) IS
'A dispatcher''s heartbeat. Also: leases that ran out become outcome unknown, and unknown outcomes whose '
'grace is over are failed or, where the row asks for it, sent again.';

CREATE OR REPLACE FUNCTION _wa_give_up_waiting(p_org uuid, p_ids uuid[], p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ripe record;
BEGIN
    -- While the number's webhooks arrive, their silence about a message tells something; else a long wait.
    UPDATE wa_queue_inflight i
    SET deadline_at = least(
        i.claimed_at + o.unknown_grace_silent, p_now + greatest(o.unknown_grace / 10, '1 second')
    )
    FROM wa_phone_numbers n, wa_organizations o
    WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids) AND o.id = p_org
        AND n.organization_id = p_org AND n.id = i.number_id
        AND (
            coalesce(n.last_webhook_at, '-infinity') <= i.claimed_at
            -- The echo may be among those that came in time and wait to be processed.
            OR EXISTS (
                SELECT FROM wa_webhook_logs l WHERE l.status = 'pending' AND l.received_at <= i.deadline_at
            )
        )
        AND i.claimed_at + o.unknown_grace_silent > p_now;
    SELECT
        array_agg(q.id) FILTER (WHERE NOT x.retries) AS failed,
        array_agg(q.id) FILTER (WHERE x.retries) AS retried,
        count(*)::integer AS total
    INTO v_ripe
    FROM wa_queue_inflight i
    JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = i.queue_id
    JOIN wa_organizations o ON o.id = p_org
    CROSS JOIN LATERAL (
        SELECT coalesce(q.on_unknown, o.on_unknown) = 'retry'
            AND coalesce(q.expires_at, 'infinity') > p_now AS retries
    ) x
    WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids) AND i.is_unknown AND i.deadline_at <= p_now;
    IF v_ripe.retried IS NOT NULL THEN
        PERFORM _wa_requeue(
            p_org, v_ripe.retried, array_fill(p_now, ARRAY[cardinality(v_ripe.retried)]),
            array_fill('outcome unknown, sent again'::text, ARRAY[cardinality(v_ripe.retried)]), true
        );
    END IF;
    PERFORM _wa_fail_messages(
        p_org, v_ripe.failed, 'outcome_unknown',
        'no answer and no status webhook: it may have arrived; a status that comes later corrects this'
    );
    RETURN v_ripe.total;
END
$$;

COMMENT ON FUNCTION _wa_give_up_waiting(uuid, uuid[], timestamptz) IS
'Internal: ends the wait for unknown outcomes whose grace is over.';

CREATE OR REPLACE FUNCTION get_wa_next_due() RETURNS TABLE (next_due_at timestamptz, is_contended boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY SELECT
        least(
            min(b.held_until),
            (
                SELECT min(d.due_at)
                FROM wa_lanes l
                CROSS JOIN generate_series(1, 6) c (class)
                CROSS JOIN LATERAL (
                    SELECT d.due_at FROM wa_queue_due d
                    WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                        AND d.class = c.class AND d.class > 0
                        AND d.due_at > v_now
                    ORDER BY d.due_at LIMIT 1
                ) d
            ),
            (
                -- Due, but behind the cursor of its lane: handed back, or committed late.
                SELECT min(s.look_again_at)
                FROM wa_lanes l
                CROSS JOIN LATERAL _wa_lane_state(l.organization_id, l.number_id) s
                WHERE s.look_again_at > v_now AND EXISTS (
                    SELECT FROM generate_series(1, 6) c (class)
                    CROSS JOIN LATERAL (
                        SELECT d.due_at FROM wa_queue_due d
                        WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                            AND d.class = c.class AND d.class > 0
                        ORDER BY d.due_at LIMIT 1
                    ) d
                    WHERE d.due_at <= v_now
                )
            )
        ),
        coalesce(bool_or(b.held_until IS NULL), false)
    FROM _wa_busy_lanes(v_now) b;
END
$$;

COMMENT ON FUNCTION get_wa_next_due() IS
'When the next row becomes due or a held lane is free; is_contended: a lane has due rows that another '
'dispatcher may be claiming at this moment, so ask again soon.';

-- A claim whose answer was lost with the connection had committed all the same: what the dispatcher does not
-- hold was never started.
CREATE OR REPLACE FUNCTION release_wa_claims(p_dispatcher_id uuid, p_held uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_ids uuid[];
    v_released integer := 0;
BEGIN
    FOR v_org IN
        SELECT i.organization_id AS id, array_agg(i.queue_id ORDER BY i.queue_id) AS ids
        FROM wa_queue_inflight i
        WHERE i.dispatcher_id = p_dispatcher_id AND NOT i.is_unknown AND i.queue_id <> ALL (p_held)
        GROUP BY i.organization_id
        ORDER BY i.organization_id
    LOOP
        PERFORM FROM wa_outbound_queue q
        WHERE q.organization_id = v_org.id AND q.id = ANY (v_org.ids)
        ORDER BY q.id FOR NO KEY UPDATE;
        -- While the locks were waited for, a lease may have run out and the row gone to another dispatcher.
        SELECT array_agg(i.queue_id ORDER BY i.queue_id) INTO v_ids FROM wa_queue_inflight i
        WHERE i.organization_id = v_org.id AND i.queue_id = ANY (v_org.ids)
            AND i.dispatcher_id = p_dispatcher_id AND NOT i.is_unknown;
        CONTINUE WHEN v_ids IS NULL;
        PERFORM _wa_refund_pairs(v_org.id, v_ids);
        PERFORM _wa_requeue(v_org.id, v_ids, NULL, NULL, false);
        v_released := v_released + cardinality(v_ids);
    END LOOP;
    RETURN v_released;
END
$$;

COMMENT ON FUNCTION release_wa_claims(uuid, uuid[]) IS
'Hands back what a dispatcher was granted but does not hold, because the answer of its claim was lost; call '
'it before the next claim. Returns how many.';
