-- What a receiver answered: delivered, tried again, given up; and what follows for its subscription.

CREATE OR REPLACE FUNCTION _wa_event_backoff(p_attempt integer, p_random double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs =>
    least(28800, 5 * 5 ^ (least(greatest(p_attempt, 1), 7) - 1)) * (0.5 + least(greatest(p_random, 0), 1) / 2)
);

COMMENT ON FUNCTION _wa_event_backoff(integer, double precision) IS
'Internal: how long a delivery waits after failed attempt number p_attempt (from 1): 2.5 s to 5 s, then five '
'times as long each time, at most 8 hours. p_random is a number from 0 to 1.';

CREATE OR REPLACE FUNCTION _wa_event_pause(p_failures integer, p_random double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs =>
    least(600, 5 * 2 ^ least(greatest(p_failures, 3) - 3, 10)) * (0.5 + least(greatest(p_random, 0), 1) / 2)
);

COMMENT ON FUNCTION _wa_event_pause(integer, double precision) IS
'Internal: how long a subscription waits after so many failures in a row (from 3): 2.5 s to 5 s, doubling, '
'at most 10 minutes; then one delivery is tried.';

-- False: somebody has the subscription's row, so tell it later.
CREATE OR REPLACE FUNCTION _wa_record_event_results(
    p_org uuid, p_id uuid, p_results jsonb, p_now timestamptz
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_subscription wa_event_subscriptions;
    v_result record;
    v_delivered boolean := false;
    v_is_gone boolean := false;
    v_ended text[] := '{}';
    v_wait interval;
    c_give_up_after CONSTANT interval := interval '3 days';
    c_disable_after CONSTANT interval := interval '5 days';
    c_longest_wish CONSTANT double precision := 86400;
BEGIN
    SELECT * INTO v_subscription FROM wa_event_subscriptions s
    WHERE s.organization_id = p_org AND s.id = p_id FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NOT EXISTS (SELECT FROM wa_event_subscriptions s WHERE s.organization_id = p_org AND s.id = p_id);
    END IF;
    FOR v_result IN
        SELECT r.*, d.state, d.attempts, d.first_attempt_at, d.order_key,
            r.outcome = 'answered' AND r.status BETWEEN 200 AND 299 AS is_good
        FROM jsonb_to_recordset(p_results) r (
            event bigint, attempt integer, outcome text, status integer, answer text, error text,
            retry_after double precision, duration_ms integer
        )
        JOIN wa_event_deliveries d
            ON d.organization_id = p_org AND d.subscription_id = p_id AND d.event_id = r.event
    LOOP
        -- One that was taken for lost, and is on its way again, may have arrived after all.
        CONTINUE WHEN v_result.state NOT IN ('waiting', 'sending')
            OR (NOT v_result.is_good AND (v_result.state <> 'sending' OR v_result.attempts <> v_result.attempt));
        IF v_result.outcome = 'not_signed' THEN
            -- No fault of the receiver, and no attempt.
            UPDATE wa_event_deliveries d SET
                state = 'waiting', attempts = d.attempts - 1, next_attempt_at = p_now + interval '1 minute',
                error = v_result.error
            WHERE d.organization_id = p_org AND d.subscription_id = p_id AND d.event_id = v_result.event;
            v_subscription.last_error := v_result.error;
            v_subscription.retry_at := p_now + interval '1 minute';
            CONTINUE;
        END IF;
        v_wait := NULL;
        IF v_result.is_good THEN
            v_delivered := true;
            v_subscription.failures := 0;
            v_subscription.failing_since := NULL;
            v_subscription.last_error := NULL;
            v_subscription.retry_at := NULL;
        ELSE
            v_subscription.failures := v_subscription.failures + 1;
            v_subscription.failing_since := coalesce(v_subscription.failing_since, p_now);
            v_subscription.last_error := coalesce(v_result.error, 'HTTP ' || v_result.status);
            v_is_gone := v_is_gone OR coalesce(v_result.outcome = 'answered' AND v_result.status = 410, false);
            -- As long as nothing at all gets through, it is not for this one that it fails.
            IF NOT v_is_gone AND NOT coalesce(
                v_result.first_attempt_at <= p_now - c_give_up_after
                AND v_subscription.last_success_at > v_result.first_attempt_at, false
            ) THEN
                v_wait := greatest(
                    _wa_event_backoff(v_result.attempt, random()),
                    make_interval(secs => least(coalesce(v_result.retry_after, 0), c_longest_wish))
                );
            END IF;
        END IF;
        UPDATE wa_event_deliveries d SET
            state = CASE WHEN v_result.is_good THEN 'delivered' WHEN v_wait IS NULL THEN 'failed'
                ELSE 'waiting' END,
            next_attempt_at = CASE WHEN v_wait IS NULL THEN d.next_attempt_at ELSE p_now + v_wait END,
            ended_at = CASE WHEN v_wait IS NULL THEN p_now END,
            http_status = v_result.status, answer = v_result.answer, duration_ms = v_result.duration_ms,
            error = CASE WHEN NOT v_result.is_good
                THEN coalesce(v_result.error, 'HTTP ' || v_result.status) END
        WHERE d.organization_id = p_org AND d.subscription_id = p_id AND d.event_id = v_result.event;
        IF v_wait IS NULL THEN
            v_ended := v_ended || v_result.order_key;
        END IF;
    END LOOP;
    PERFORM _wa_release_event_order(p_org, p_id, v_ended, p_now);
    IF v_subscription.failures >= 3 THEN
        v_subscription.retry_at := p_now + _wa_event_pause(v_subscription.failures, random());
    END IF;
    UPDATE wa_event_subscriptions s SET
        failures = v_subscription.failures, failing_since = v_subscription.failing_since,
        last_error = v_subscription.last_error, retry_at = v_subscription.retry_at,
        last_success_at = CASE WHEN v_delivered THEN p_now ELSE s.last_success_at END
    WHERE s.organization_id = p_org AND s.id = p_id AND (
        -- Written only where it tells something new: the row is read with every claim.
        (s.failures, s.failing_since, s.last_error, s.retry_at) IS DISTINCT FROM (v_subscription.failures,
            v_subscription.failing_since, v_subscription.last_error, v_subscription.retry_at)
        OR (v_delivered AND (s.last_success_at > p_now - interval '1 minute') IS NOT TRUE)
    );
    IF v_subscription.state = 'active' AND v_is_gone THEN
        PERFORM _wa_set_event_subscription_state(p_org, p_id, 'gone', 'gone');
    ELSIF v_subscription.state = 'active' AND v_subscription.failing_since <= p_now - c_disable_after THEN
        PERFORM _wa_set_event_subscription_state(p_org, p_id, 'disabled', 'failing');
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION _wa_record_event_results(uuid, uuid, jsonb, timestamptz) IS
'Internal: what became of deliveries of one subscription. False where its row is locked: tell it later.';

CREATE OR REPLACE FUNCTION _wa_complete_event_deliveries(p_results jsonb, p_now timestamptz) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    v_group record;
    v_left jsonb := '[]';
BEGIN
    FOR v_group IN
        SELECT (r ->> 'org')::uuid AS org, (r ->> 'subscription')::uuid AS id, jsonb_agg(r) AS results
        FROM jsonb_array_elements(p_results) r
        GROUP BY 1, 2
        ORDER BY 1, 2
    LOOP
        BEGIN
            IF NOT _wa_record_event_results(v_group.org, v_group.id, v_group.results, p_now) THEN
                v_left := v_left || v_group.results;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            -- What cannot be recorded counts as lost in a while, and is sent again.
            PERFORM _wa_note_fault(v_group.org, 'events', v_group.id::text, SQLSTATE, SQLERRM);
            IF SQLSTATE = '55P03' THEN
                v_left := v_left || v_group.results;
            END IF;
        END;
    END LOOP;
    RETURN v_left;
END
$$;

COMMENT ON FUNCTION _wa_complete_event_deliveries(jsonb, timestamptz) IS
'Internal: complete_wa_event_deliveries() at a time.';

CREATE OR REPLACE FUNCTION complete_wa_event_deliveries(p_results jsonb) RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_complete_event_deliveries(p_results, clock_timestamp())
$$;

COMMENT ON FUNCTION complete_wa_event_deliveries(jsonb) IS
'For dispatchers: what became of deliveries, [{org, subscription, event, attempt, outcome, status, answer, '
'error, retry_after, duration_ms}]; outcome is answered, no_answer, or not_signed where its secret did not '
'open. May be repeated. Returns those that are to be told again, because somebody holds their subscription.';
