-- What follows from an error of the provider, and from no answer at all.

CREATE OR REPLACE FUNCTION _wa_answer_errors(p_org uuid, p_errors jsonb, p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_error record;
    v_due timestamptz;
    v_fails boolean;
BEGIN
    -- Row by row: errors are rare, each has consequences of its own, and their order does not matter.
    FOR v_error IN
        SELECT * FROM jsonb_to_recordset(p_errors) AS e (
            id uuid, verdict text, code integer, error text, max_retries integer, wait_s double precision,
            retry_count integer, number_id bigint, contact_id bigint, template_id uuid, class smallint,
            expires_at timestamptz, has_fallback boolean, is_open boolean
        )
        WHERE e.is_open
    LOOP
        v_due := greatest(
            p_now + _wa_backoff(v_error.retry_count + 1, random()),
            p_now + make_interval(secs => coalesce(v_error.wait_s, 0))
        );
        CASE v_error.verdict
            WHEN 'wait_number' THEN
                v_due := p_now + make_interval(
                    secs => coalesce(v_error.wait_s, 1) * power(2, least(v_error.retry_count, 8))
                );
                PERFORM _wa_pause_number(p_org, v_error.number_id, 'number', v_error.error, v_due);
            WHEN 'wait_account' THEN
                v_due := p_now + make_interval(secs => coalesce(v_error.wait_s, 300));
                PERFORM _wa_pause_number(p_org, v_error.number_id, 'account', v_error.error, v_due);
            WHEN 'wait_recipient' THEN
                -- Meta asks for 4^n seconds.
                v_due := greatest(
                    p_now + make_interval(secs => least(power(4, v_error.retry_count + 1), 3600)), v_due
                );
                UPDATE wa_pair_rates r
                SET clear_at = greatest(r.clear_at, v_due), burst_count = _wa_pair_burst()
                WHERE r.organization_id = p_org AND r.number_id = v_error.number_id
                    AND r.contact_id = v_error.contact_id;
            WHEN 'pause_number', 'pause_account', 'pause_token' THEN
                PERFORM _wa_pause_number(
                    p_org, v_error.number_id, replace(v_error.verdict, 'pause_', ''),
                    format('%s (code %s)', v_error.error, v_error.code),
                    p_now + make_interval(secs => v_error.wait_s)
                );
                v_due := p_now;
            WHEN 'opt_out' THEN
                PERFORM _wa_opt_out_contacts(
                    p_org, ARRAY[v_error.contact_id], 'marketing', v_error.error, 'provider'
                );
            WHEN 'stop_template' THEN
                UPDATE wa_templates t
                SET blocked_reason = format('%s (code %s)', v_error.error, v_error.code), blocked_at = p_now,
                    blocked_until = p_now + make_interval(secs => v_error.wait_s)
                WHERE t.organization_id = p_org AND t.id = v_error.template_id;
            WHEN 'need_template' THEN
                UPDATE wa_conversation_windows w SET window_denied_at = p_now
                WHERE w.organization_id = p_org AND w.number_id = v_error.number_id
                    AND w.contact_id = v_error.contact_id;
                v_due := p_now;
            ELSE NULL;
        END CASE;
        v_fails := v_error.verdict IN ('fail', 'fail_recipient', 'opt_out', 'stop_template')
            OR (v_error.verdict = 'need_template' AND NOT v_error.has_fallback)
            OR v_error.retry_count >= v_error.max_retries
            OR (v_error.expires_at <= v_due AND v_error.verdict NOT LIKE 'pause%');
        IF v_fails THEN
            PERFORM _wa_fail_messages(
                p_org, ARRAY[v_error.id],
                CASE
                    WHEN v_error.verdict = 'need_template' THEN 'window_closed'
                    WHEN v_error.code IS NULL AND v_error.verdict = 'fail' THEN 'refused'
                    ELSE coalesce(v_error.code::text, 'expired')
                END,
                v_error.error
            );
        ELSE
            PERFORM _wa_requeue(p_org, ARRAY[v_error.id], ARRAY[v_due], ARRAY[v_error.error], true);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_answer_errors(uuid, jsonb, timestamptz) IS
'Internal: applies the actions of wa_error_rules to refused messages.';

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
