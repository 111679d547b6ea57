-- What follows from no answer at all.

CREATE OR REPLACE FUNCTION _wa_give_up_waiting(p_org uuid, p_ids uuid[], p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ripe record;
BEGIN
    -- While the number's webhooks arrive, their silence about a message tells something; else a long wait.
    PERFORM _wa_extend_deadlines(p_org, array_agg(i.queue_id), array_agg(
        least(i.claimed_at + o.unknown_grace_silent, p_now + greatest(o.unknown_grace / 10, '1 second'))
    ))
    FROM wa_queue_inflight i
    JOIN wa_organizations o ON o.id = p_org
    JOIN wa_phone_numbers n ON n.organization_id = p_org AND n.id = i.number_id
    WHERE i.organization_id = p_org AND i.queue_id = ANY (p_ids)
        AND (
            coalesce(n.last_webhook_at, '-infinity') <= i.claimed_at
            -- The callback data may be among those that came in time and wait to be processed.
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
