-- What the provider answered. Results come in batches; each is recorded once, by queue id and attempt.

CREATE OR REPLACE FUNCTION complete_wa_messages(p_dispatcher_id uuid, p_results jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    -- Who reports is alive, also where its heartbeat is late.
    UPDATE wa_dispatchers SET seen_at = clock_timestamp()
    WHERE id = p_dispatcher_id AND seen_at < clock_timestamp() - interval '5 seconds';
    RETURN _wa_complete_results(_wa_translate_answers(p_results));
END
$$;

COMMENT ON FUNCTION complete_wa_messages(uuid, jsonb) IS
'Records what became of claimed messages: [{"id", "org", "attempt", "outcome", "status", "answer", '
'"retry_after", "error", "provider"}]. outcome: answered, not_sent, unknown or not_started. Results that '
'were recorded before are passed over; returns how many were not. What cannot be recorded now is kept in '
'wa_late_results and tried again.';

-- lock_timeout: an application may hold rows that are written to here for as long as it likes; its
-- neighbours' results stand behind.
CREATE OR REPLACE FUNCTION _wa_complete_results(p_results jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
AS $$
DECLARE
    v_org record;
    v_recorded integer := 0;
    v_locked_out uuid[] := _wa_locked_out('result');
    v_lockers uuid[] := _wa_known_lockers('result');
BEGIN
    BEGIN
        FOR v_org IN
            SELECT DISTINCT (r ->> 'org')::uuid AS id FROM jsonb_array_elements(p_results) r ORDER BY 1
        LOOP
            v_recorded := v_recorded + CASE
                WHEN v_org.id = ANY (v_locked_out) THEN _wa_keep_results(
                    v_org.id, p_results, '55P03', 'somebody has locked rows of the organization')
                WHEN v_org.id = ANY (v_lockers) THEN _wa_complete_safely(v_org.id, (
                    SELECT jsonb_agg(r) FROM jsonb_array_elements(p_results) r
                    WHERE (r ->> 'org')::uuid = v_org.id))
                ELSE _wa_complete_organization(v_org.id, p_results) END;
        END LOOP;
        RETURN v_recorded;
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        END IF;
    END;
    -- One of them failed: each by itself.
    v_recorded := 0;
    FOR v_org IN
        SELECT (r ->> 'org')::uuid AS id, jsonb_agg(r) AS results FROM jsonb_array_elements(p_results) r
        GROUP BY 1 ORDER BY 1
    LOOP
        v_recorded := v_recorded + _wa_complete_safely(v_org.id, v_org.results);
    END LOOP;
    RETURN v_recorded;
END
$$;

COMMENT ON FUNCTION _wa_complete_results(jsonb) IS
'Internal: records results, each organization by itself once one of them failed; returns how many.';

-- A lock that somebody holds is waited for once: the organization's results are kept, and tried again later.
-- Anything else is some result's fault, found by halving.
CREATE OR REPLACE FUNCTION _wa_complete_safely(p_org uuid, p_results jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
AS $$
DECLARE
    v_half integer := jsonb_array_length(p_results) / 2;
BEGIN
    IF p_org = ANY (_wa_known_lockers('result')) THEN
        PERFORM set_config('lock_timeout', '10ms', true);
    END IF;
    BEGIN
        RETURN _wa_complete_organization(p_org, p_results);
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        ELSIF v_half = 0 OR SQLSTATE = '55P03' THEN
            PERFORM _wa_note_fault(p_org, 'result', '', SQLSTATE, SQLERRM);
            RETURN _wa_keep_results(p_org, p_results, SQLSTATE, SQLERRM);
        END IF;
    END;
    RETURN (
        SELECT sum(_wa_complete_safely(p_org, h.results))
        FROM (
            SELECT jsonb_agg(r.value ORDER BY r.n) AS results
            FROM jsonb_array_elements(p_results) WITH ORDINALITY r (value, n)
            GROUP BY r.n <= v_half
        ) h
    );
END
$$;

COMMENT ON FUNCTION _wa_complete_safely(uuid, jsonb) IS
'Internal: records the results of one organization, or keeps those that cannot be; returns how many.';

-- Of two results of one attempt the one counts that allows less to be sent again.
CREATE OR REPLACE FUNCTION _wa_result_weight(p_result jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN _wa_accepted_wamid(p_result) IS NOT NULL THEN 3
    WHEN p_result ->> 'outcome' IN ('not_started', 'not_sent') THEN 1
    ELSE 2
END;

COMMENT ON FUNCTION _wa_result_weight(jsonb) IS
'Internal: how much a result tells of its attempt: 3 accepted, 2 it may have left, 1 it did not leave.';

-- What has a result that waits is neither lost nor handed back, however long it takes to record it: whoever
-- ends leases or releases claims looks here.
CREATE OR REPLACE FUNCTION _wa_keep_results(p_org uuid, p_results jsonb, p_sqlstate text, p_error text)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    -- Some three minutes.
    c_most_tries CONSTANT integer := 10;
    v_kept integer;
BEGIN
    INSERT INTO wa_late_results AS l (organization_id, queue_id, attempt, result, sqlstate, error, try_at)
    SELECT DISTINCT ON (id, attempt) p_org, (r ->> 'id')::uuid AS id, (r ->> 'attempt')::integer AS attempt,
        r, p_sqlstate, left(p_error, 1000), clock_timestamp() + interval '1 second'
    FROM jsonb_array_elements(p_results) r
    WHERE (r ->> 'org')::uuid = p_org
    ORDER BY id, attempt, _wa_result_weight(r) DESC
    ON CONFLICT (organization_id, queue_id, attempt) DO UPDATE SET
        result = CASE
            -- It is no lock: whatever it says cannot be recorded, and it may have been accepted.
            WHEN l.tries >= c_most_tries AND excluded.sqlstate <> '55P03' THEN (l.result - 'answer')
                || jsonb_build_object('outcome', 'unknown', 'error', 'an answer that could not be recorded')
            WHEN _wa_result_weight(excluded.result) > _wa_result_weight(l.result)
            THEN excluded.result ELSE l.result END,
        sqlstate = excluded.sqlstate, error = excluded.error, tries = least(l.tries, 1000) + 1,
        try_at = clock_timestamp()
            + least(interval '30 seconds', interval '1 second' * 2 ^ least(l.tries, 10));
    GET DIAGNOSTICS v_kept = ROW_COUNT;
    RETURN v_kept;
END
$$;

COMMENT ON FUNCTION _wa_keep_results(uuid, jsonb, text, text) IS
'Internal: keeps results that cannot be recorded now, to be tried again in a second, later each time, half a '
'minute at most; returns how many. What fails ten times, and not for a lock, counts as an unknown outcome.';

CREATE OR REPLACE FUNCTION _wa_settle_late_results(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_org record;
    v_settled integer := 0;
BEGIN
    FOR v_org IN
        SELECT x.organization_id AS id, jsonb_agg(x.result) AS results, array_agg(x.queue_id) AS queue_ids
        FROM (
            SELECT l.* FROM wa_late_results l
            WHERE l.try_at <= v_now AND l.organization_id <> ALL (_wa_locked_out('result'))
            ORDER BY l.try_at LIMIT p_limit
        ) x
        GROUP BY x.organization_id
    LOOP
        v_settled := v_settled + _wa_complete_safely(v_org.id, v_org.results);
        -- What has to wait again has another time.
        DELETE FROM wa_late_results l
        WHERE l.organization_id = v_org.id AND l.queue_id = ANY (v_org.queue_ids) AND l.try_at <= v_now;
    END LOOP;
    RETURN v_settled;
END
$$;

COMMENT ON FUNCTION _wa_settle_late_results(integer) IS
'Internal: tries kept results again, so many at most; returns how many were recorded, or kept once more.';

-- The meaning of a result that is no acceptance, before anything is written. A 2xx answer without a message
-- id may still be an accepted message.
CREATE OR REPLACE FUNCTION _wa_read_result(
    p_result jsonb, OUT verdict text, OUT code integer, OUT error text, OUT max_retries integer,
    OUT wait interval
)
LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT
AS $$
DECLARE
    v_status integer := (p_result ->> 'status')::integer;
    v_subcode integer;
    v_rule wa_error_rules;
BEGIN
    CASE p_result ->> 'outcome'
        WHEN 'not_started' THEN
            verdict := 'not_started';
        WHEN 'not_sent' THEN
            verdict := 'retry';
            error := 'could not reach the provider: ' || coalesce(p_result ->> 'error', 'no connection');
        WHEN 'unknown' THEN
            verdict := 'unknown';
            error := 'no answer: ' || coalesce(p_result ->> 'error', 'connection lost');
        ELSE
            SELECT a.code, a.subcode, a.error INTO code, v_subcode, error
            FROM _wa_answer_error(p_result -> 'answer') a;
            SELECT * INTO v_rule FROM classify_wa_error(
                code, v_status, v_subcode, coalesce(p_result ->> 'provider', 'meta')
            );
            verdict := v_rule.action;
            max_retries := v_rule.max_retries;
            wait := v_rule.wait;
            IF verdict = 'pause_token' AND p_result ? 'number' AND _wa_has_newer_token(
                (p_result ->> 'org')::uuid, p_result ->> 'number', (p_result ->> 'secret_id')::uuid
            ) THEN
                verdict := 'retry';
            END IF;
            error := coalesce(error, 'HTTP status ' || v_status);
    END CASE;
    IF (p_result ->> 'retry_after')::double precision > 0 THEN
        wait := greatest(
            wait, make_interval(secs => least((p_result ->> 'retry_after')::double precision, 86400))
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_read_result(jsonb) IS
'Internal: what a result without acceptance means: not_started, unknown, or an action of wa_error_rules.';

CREATE OR REPLACE FUNCTION _wa_complete_organization(p_org uuid, p_results jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_done record;
    v_messages bigint[];
    v_locked jsonb;
    v_kept integer := 0;
BEGIN
    -- The queue row's lock decides against callback data that settles the same row at this moment; the in-
    -- flight row tells whether this attempt is still open. An answer that comes after we gave up on it is
    -- welcome too. A row that somebody has locked is not waited for.
    SELECT
        count(*)::integer AS recorded,
        array_agg(x.id) AS ids,
        array_agg(x.id) FILTER (WHERE x.verdict = 'accepted') AS accepted,
        array_agg(x.wamid) FILTER (WHERE x.verdict = 'accepted') AS wamids,
        array_agg(x.state) FILTER (WHERE x.verdict = 'accepted') AS states,
        array_agg(x.contact_id)
            FILTER (WHERE x.verdict = 'accepted' AND x.wa_id <> ltrim(x.phone, '+')) AS learners,
        array_agg(x.phone) FILTER (WHERE x.verdict = 'accepted' AND x.wa_id <> ltrim(x.phone, '+')) AS dialled,
        array_agg(x.wa_id) FILTER (WHERE x.verdict = 'accepted' AND x.wa_id <> ltrim(x.phone, '+')) AS wa_ids,
        array_agg(x.id) FILTER (WHERE x.verdict = 'not_started') AS unstarted,
        array_agg(x.id) FILTER (WHERE x.verdict = 'unknown') AS unknown,
        array_agg(x.error) FILTER (WHERE x.verdict = 'unknown') AS unknown_errors,
        array_agg(x.contact_id) AS contacts,
        jsonb_agg(jsonb_build_object(
            'id', x.id, 'verdict', x.verdict, 'code', x.code, 'error', x.error, 'max_retries', x.max_retries,
            'wait_s', extract(epoch FROM x.wait), 'retry_count', x.retry_count, 'number_id', x.number_id,
            'contact_id', x.contact_id, 'template_id', x.template_id, 'class', x.class,
            'expires_at', x.expires_at,
            'has_fallback', x.has_fallback, 'is_open', x.is_open
        )) FILTER (WHERE x.verdict NOT IN ('accepted', 'not_started', 'unknown')) AS refused
    INTO v_done
    FROM (
        SELECT q.id, q.phone, q.retry_count, q.expires_at,
            q.fallback_template_name IS NOT NULL AND i.template_id IS NULL AS has_fallback,
            i.number_id, coalesce(i.contact_id, q.contact_id) AS contact_id, i.template_id, i.class,
            i.queue_id IS NOT NULL AS is_open, s.wamid,
            CASE e #>> '{answer,messages,0,message_status}'
                WHEN 'held_for_quality_assessment' THEN 'held' ELSE 'accepted'
            END AS state,
            e #>> '{answer,contacts,0,wa_id}' AS wa_id,
            coalesce(r.verdict, 'accepted') AS verdict, r.code, r.error, r.max_retries, r.wait
        FROM (
            SELECT r.value AS e, _wa_accepted_wamid(r.value) AS wamid
            FROM jsonb_array_elements(p_results) r ORDER BY r.value ->> 'id'
        ) s
        CROSS JOIN LATERAL (
            SELECT x.* FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = (e ->> 'id')::uuid
                AND x.attempt = (e ->> 'attempt')::integer
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) q
        LEFT JOIN LATERAL (
            SELECT x.* FROM wa_queue_inflight x
            WHERE x.organization_id = p_org AND x.queue_id = q.id AND x.attempt = q.attempt
            LIMIT 1
        ) i ON true
        -- Not called for an accepted one: it is strict.
        CROSS JOIN LATERAL _wa_read_result(CASE WHEN s.wamid IS NULL THEN e END) r
        WHERE (e ->> 'org')::uuid = p_org
            -- After a wait for the lock q is new and i still old: the status tells what was recorded
            -- meanwhile.
            AND ((i.queue_id IS NOT NULL AND q.status = 'sending')
                OR (s.wamid IS NOT NULL AND q.wa_message_id IS NULL))
    ) x;
    IF v_done.recorded < jsonb_array_length(p_results) THEN
        SELECT jsonb_agg(r) INTO v_locked
        FROM jsonb_array_elements(p_results) r
        CROSS JOIN LATERAL (
            SELECT x.status, x.wa_message_id FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = (r ->> 'id')::uuid
                AND x.attempt = (r ->> 'attempt')::integer
            LIMIT 1
        ) q
        WHERE (r ->> 'org')::uuid = p_org AND (r ->> 'id')::uuid <> ALL (coalesce(v_done.ids, '{}'))
            AND (q.status = 'sending' OR (q.wa_message_id IS NULL AND _wa_accepted_wamid(r) IS NOT NULL));
        IF v_locked IS NOT NULL THEN
            v_kept := _wa_keep_results(p_org, v_locked, '55P03', 'somebody has the row in the queue locked');
        END IF;
    END IF;
    IF v_done.recorded = 0 THEN
        RETURN v_kept;
    END IF;

    -- Accepted and refused ones write to conversations one after the other: two batches that share recipients
    -- would wait for each other.
    IF v_done.refused IS NOT NULL THEN
        PERFORM _wa_lock_windows(p_org, v_done.contacts);
    END IF;
    IF v_done.accepted IS NOT NULL THEN
        v_messages := _wa_finish_messages(
            p_org, v_done.accepted, v_done.wamids, v_done.states,
            array_fill(NULL::text, ARRAY[cardinality(v_done.accepted)]),
            array_fill(NULL::text, ARRAY[cardinality(v_done.accepted)])
        );
        PERFORM _wa_take_early_statuses(p_org, v_messages);
        IF v_done.learners IS NOT NULL THEN
            PERFORM _wa_learn_wa_id(p_org, v_done.learners, v_done.dialled, v_done.wa_ids);
        END IF;
        PERFORM _wa_hold_for_delivery(p_org, v_messages, v_now);
    END IF;
    IF v_done.unstarted IS NOT NULL THEN
        PERFORM _wa_refund_pairs(p_org, v_done.unstarted);
        PERFORM _wa_requeue(p_org, v_done.unstarted, NULL, NULL, false);
    END IF;
    IF v_done.unknown IS NOT NULL THEN
        PERFORM _wa_await_outcome(p_org, v_done.unknown, v_done.unknown_errors);
    END IF;
    IF v_done.refused IS NOT NULL THEN
        PERFORM _wa_answer_errors(p_org, v_done.refused, v_now);
    END IF;
    PERFORM _wa_release_in_order(p_org, v_done.contacts);
    RETURN v_done.recorded + v_kept;
END
$$;

COMMENT ON FUNCTION _wa_complete_organization(uuid, jsonb) IS
'Internal: records the results of one organization, or keeps those whose row is locked; those of others in '
'the batch are passed over.';
