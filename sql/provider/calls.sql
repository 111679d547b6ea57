-- Calls to the provider beside sending: asked for as rows, handed out to a process beside the dispatcher,
-- tried again while that may help, given up with the reason. All of them may be repeated without harm; of
-- some the provider counts how often, and so do we ("most" in their arguments).

CREATE OR REPLACE FUNCTION _wa_ask_provider(
    p_org uuid, p_kind text, p_subject text, p_phone_number_id text, p_give_up_after interval,
    p_arguments jsonb DEFAULT '{}', p_path text DEFAULT NULL, p_body jsonb DEFAULT NULL,
    p_passing_body jsonb DEFAULT NULL, p_passes_after interval DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_id uuid;
BEGIN
    -- The secrets of a call are not in its row: which they are tells whether it is another call.
    IF p_arguments ? 'secrets' THEN
        p_arguments := p_arguments || jsonb_build_object('secret_ids', (
            SELECT jsonb_agg(s.id ORDER BY s.id) FROM wa_secrets s
            WHERE s.organization_id = p_org AND s.is_active
                AND (s.phone_number_id = p_phone_number_id OR s.phone_number_id IS NULL)
                AND p_arguments -> 'secrets' @> jsonb_build_array(jsonb_build_object('name', s.name))
        ));
    END IF;
    -- Who comes second waits for the first one's commit at the unique index, and finds its row. What it
    -- changes of a call that is under way has to be called anew: the lease is taken away, so that the answer to
    -- the call before ends nothing. A row that waits after failures goes on waiting, however often it is asked
    -- for.
    INSERT INTO wa_provider_calls AS c (
        organization_id, kind, subject, phone_number_id, path, body, passing_body, passing_until, arguments,
        next_attempt_at, give_up_at
    )
    VALUES (
        p_org, p_kind, p_subject, p_phone_number_id, p_path, p_body, p_passing_body, v_now + p_passes_after,
        p_arguments, v_now, v_now + p_give_up_after
    )
    ON CONFLICT (subject, kind, organization_id) WHERE state = 'pending' DO UPDATE SET
        phone_number_id = excluded.phone_number_id, path = excluded.path, body = excluded.body,
        passing_body = coalesce(excluded.passing_body, c.passing_body),
        passing_until = coalesce(excluded.passing_until, c.passing_until), arguments = excluded.arguments,
        give_up_at = excluded.give_up_at,
        next_attempt_at = CASE
            WHEN c.leased_until IS NOT NULL AND (
                (excluded.body, excluded.arguments) IS DISTINCT FROM (c.body, c.arguments)
                OR excluded.passing_body IS NOT NULL
            ) THEN v_now
            ELSE c.next_attempt_at END,
        leased_until = CASE
            WHEN (excluded.body, excluded.arguments) IS NOT DISTINCT FROM (c.body, c.arguments)
                AND excluded.passing_body IS NULL
                THEN c.leased_until END
    RETURNING c.id INTO v_id;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_ask_provider(uuid, text, text, text, interval, jsonb, text, jsonb, jsonb, interval) IS
'Internal: has the provider called, by the token of a business number: a body posted to a path, or what the '
'arguments of a kind mean. Replaces what waits of the same kind for the same subject. The id of the call.';

CREATE OR REPLACE FUNCTION claim_wa_provider_calls(
    p_limit integer, p_version text, p_lease interval DEFAULT interval '1 minute'
) RETURNS TABLE (
    organization_id uuid, call_id uuid, attempt integer, kind text, phone_number_id text, provider text,
    waba_id text, path text, body text, arguments jsonb, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
    c_timeout_s CONSTANT double precision := 15;
    -- Of an organization at once, for each process that asks: the provider may let it wait.
    c_most_each CONSTANT integer := 4;
BEGIN
    PERFORM _wa_require_version(p_version);
    -- A copy must not tell the provider what the original tells it.
    PERFORM _wa_require_installation();
    RETURN QUERY
    WITH waiting AS MATERIALIZED (
        SELECT o.id AS organization_id, f.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT count(*) AS under_way FROM wa_provider_calls c
            WHERE c.organization_id = o.id AND c.state = 'pending' AND c.next_attempt_at > v_now
                AND c.next_attempt_at <= v_now + p_lease AND c.leased_until > v_now
        ) b
        CROSS JOIN LATERAL (
            SELECT c.id, c.next_attempt_at FROM wa_provider_calls c
            WHERE c.organization_id = o.id AND c.state = 'pending' AND c.next_attempt_at <= v_now
            ORDER BY c.next_attempt_at LIMIT least(p_limit, greatest(c_most_each - b.under_way, 0))
        ) f
        ORDER BY b.under_way + row_number() OVER (PARTITION BY o.id ORDER BY f.next_attempt_at),
            f.next_attempt_at
        LIMIT p_limit
    ),
    -- Who claims at the same moment takes others. The row is looked at again once it is locked.
    due AS MATERIALIZED (
        SELECT l.organization_id, l.id, n.provider, n.waba_id,
            CASE WHEN n.id IS NULL THEN 'the business number is not registered any more'
                WHEN l.give_up_at <= v_now
                    THEN coalesce('not done in time, at last: ' || l.error, 'not done in time')
                -- Also where a process died before it could tell what came of it.
                WHEN l.attempts >= (l.arguments ->> 'most')::integer
                    THEN format('made %s times, at last: %s', l.attempts, coalesce(l.error, 'nothing was heard'))
                END AS problem
        FROM waiting w
        CROSS JOIN LATERAL (
            SELECT c.organization_id, c.id, c.phone_number_id, c.give_up_at, c.error, c.attempts, c.arguments
            FROM wa_provider_calls c
            WHERE c.organization_id = w.organization_id AND c.id = w.id AND c.next_attempt_at <= v_now
            FOR NO KEY UPDATE SKIP LOCKED
        ) l
        LEFT JOIN wa_phone_numbers n
            ON n.organization_id = l.organization_id AND n.phone_number_id = l.phone_number_id
    ),
    taken AS (
        UPDATE wa_provider_calls c SET
            state = CASE WHEN d.problem IS NULL THEN 'pending' ELSE 'failed' END,
            error = coalesce(d.problem, c.error),
            attempts = c.attempts + CASE WHEN d.problem IS NULL THEN 1 ELSE 0 END,
            next_attempt_at = CASE WHEN d.problem IS NULL THEN v_now + p_lease END,
            leased_until = CASE WHEN d.problem IS NULL THEN v_now + p_lease END,
            ended_at = CASE WHEN d.problem IS NOT NULL THEN v_now END
        FROM due d
        WHERE c.organization_id = d.organization_id AND c.id = d.id
        RETURNING c.*, d.provider, d.waba_id
    )
    SELECT t.organization_id, t.id, t.attempts, t.kind, t.phone_number_id, t.provider, t.waba_id, t.path,
        (t.body || CASE WHEN t.passing_until > v_now THEN t.passing_body ELSE '{}' END)::text, t.arguments,
        c_timeout_s
    FROM taken t
    WHERE t.state = 'pending';
END
$$;

COMMENT ON FUNCTION claim_wa_provider_calls(integer, text, interval) IS
'For dispatchers: calls of the provider to be made now, each given to one caller for the time of the lease, '
'which renew_wa_provider_calls() prolongs; few at a time of each organization. To be ended with '
'complete_wa_provider_calls(), else made again. p_version is the release of the process.';

CREATE OR REPLACE FUNCTION renew_wa_provider_calls(
    p_organization_ids uuid[], p_call_ids uuid[], p_attempts integer[],
    p_lease interval DEFAULT interval '1 minute'
) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_provider_calls c
    SET next_attempt_at = clock_timestamp() + p_lease, leased_until = clock_timestamp() + p_lease
    FROM unnest(p_organization_ids, p_call_ids, p_attempts) r (organization_id, id, attempt)
    WHERE c.organization_id = r.organization_id AND c.id = r.id AND c.attempts = r.attempt
        AND c.leased_until IS NOT NULL
$$;

COMMENT ON FUNCTION renew_wa_provider_calls(uuid[], uuid[], integer[], interval) IS
'For dispatchers: prolongs the leases of calls that are still being made; with none, hands them back.';

CREATE OR REPLACE FUNCTION _wa_call_wait(
    p_outcome text, p_status integer, p_answer jsonb, p_attempt integer, p_retry_after double precision,
    p_random double precision, p_provider text
) RETURNS interval
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_longest_wish CONSTANT double precision := 3600;
    -- Another dispatcher may have the key that opens the token.
    c_tries_without_token CONSTANT integer := 3;
    v_action text;
    v_wait interval;
BEGIN
    IF p_outcome = 'no_token' THEN
        RETURN CASE WHEN p_attempt < c_tries_without_token THEN _wa_backoff(p_attempt, p_random) END;
    ELSIF p_outcome = 'answered' THEN
        SELECT r.action, r.wait INTO v_action, v_wait
        FROM _wa_answer_error(p_answer) e
        CROSS JOIN LATERAL _wa_error_rule(p_provider, e.code, e.subcode) r;
        IF NOT coalesce(
            v_action IN ('retry', 'wait_number', 'wait_account', 'wait_recipient'),
            p_status = 429 OR p_status >= 500 OR p_answer #>> '{error,is_transient}' IS NOT DISTINCT FROM 'true'
        ) THEN
            RETURN NULL;
        END IF;
    ELSIF p_outcome <> 'no_answer' THEN
        RETURN NULL;
    END IF;
    RETURN greatest(
        _wa_backoff(p_attempt, p_random), v_wait,
        make_interval(secs => least(coalesce(p_retry_after, 0), c_longest_wish))
    );
END
$$;

COMMENT ON FUNCTION _wa_call_wait(text, integer, jsonb, integer, double precision, double precision, text) IS
'Internal: how long a call that was not done waits for its next try; NULL: trying again does not help.';

CREATE OR REPLACE FUNCTION _wa_record_call(p_result jsonb, p_now timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_call wa_provider_calls;
    v_status integer := (p_result ->> 'status')::integer;
    v_error record;
    v_wait interval;
BEGIN
    -- Whoever comes with an older attempt, or after the call was changed, ends nothing.
    SELECT * INTO v_call FROM wa_provider_calls c
    WHERE c.organization_id = (p_result ->> 'org')::uuid AND c.id = (p_result ->> 'call')::uuid
        AND c.attempts = (p_result ->> 'attempt')::integer AND c.leased_until IS NOT NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF coalesce(p_result ->> 'outcome' = 'done'
        OR (p_result ->> 'outcome' = 'answered' AND v_status BETWEEN 200 AND 299), false)
    THEN
        UPDATE wa_provider_calls c SET
            state = 'done', next_attempt_at = NULL, leased_until = NULL, ended_at = p_now, error = NULL,
            http_status = v_status, result = p_result -> 'result'
        WHERE c.organization_id = v_call.organization_id AND c.id = v_call.id;
        RETURN 'done';
    END IF;
    SELECT e.code, e.error INTO v_error FROM _wa_answer_error(p_result -> 'answer') e;
    v_wait := _wa_call_wait(
        p_result ->> 'outcome', v_status, p_result -> 'answer', v_call.attempts,
        (p_result ->> 'retry_after')::double precision, random(), (
            SELECT n.provider FROM wa_phone_numbers n
            WHERE n.organization_id = v_call.organization_id AND n.phone_number_id = v_call.phone_number_id
        )
    );
    IF p_now + v_wait >= v_call.give_up_at THEN
        v_wait := NULL;
    END IF;
    UPDATE wa_provider_calls c SET
        state = CASE WHEN v_wait IS NULL THEN 'failed' ELSE 'pending' END,
        next_attempt_at = p_now + v_wait, leased_until = NULL,
        ended_at = CASE WHEN v_wait IS NULL THEN p_now END, http_status = v_status,
        result = p_result -> 'result',
        error = left(coalesce(
            p_result ->> 'error', concat_ws(': ', v_error.code, v_error.error), 'HTTP ' || v_status
        ), 1000)
    WHERE c.organization_id = v_call.organization_id AND c.id = v_call.id;
    RETURN CASE WHEN v_wait IS NULL THEN 'failed' ELSE 'pending' END;
END
$$;

COMMENT ON FUNCTION _wa_record_call(jsonb, timestamptz) IS
'Internal: what came of one call: the state that it has now, NULL where another attempt has it.';

CREATE OR REPLACE FUNCTION complete_wa_provider_calls(p_results jsonb) RETURNS text[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s'
AS $$
DECLARE
    v_result jsonb;
    v_states text[] := '{}';
BEGIN
    -- In one order, so that two that tell of the same calls do not wait for each other.
    FOR v_result IN
        SELECT r FROM jsonb_array_elements(p_results) r ORDER BY r ->> 'org', r ->> 'call'
    LOOP
        BEGIN
            v_states := v_states || _wa_record_call(v_result, clock_timestamp());
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            -- Its lease runs out, and it is made again.
            PERFORM _wa_note_fault((v_result ->> 'org')::uuid, 'provider_calls', v_result ->> 'call',
                SQLSTATE, SQLERRM);
        END;
    END LOOP;
    RETURN v_states;
END
$$;

COMMENT ON FUNCTION complete_wa_provider_calls(jsonb) IS
'For dispatchers: what came of calls, [{org, call, attempt, outcome, status, answer, error, retry_after, '
'result}]; outcome is answered, no_answer, no_token, or done where it took several requests. May be '
'repeated. Returns the states that they have now; a NULL where another attempt has the call.';

CREATE OR REPLACE FUNCTION has_wa_provider_calls() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT FROM wa_provider_calls c
            WHERE c.organization_id = o.id AND c.state = 'pending'
                AND c.next_attempt_at <= clock_timestamp() LIMIT 1
        ) f
    )
$$;

COMMENT ON FUNCTION has_wa_provider_calls() IS
'For dispatchers: whether a call of the provider is due.';

CREATE OR REPLACE FUNCTION _wa_delete_provider_calls(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
    c_kept CONSTANT interval := interval '7 days';
BEGIN
    WITH expired AS MATERIALIZED (
        SELECT x.organization_id, x.id
        FROM wa_organizations o
        CROSS JOIN unnest('{done,failed}'::text[]) s (state)
        CROSS JOIN LATERAL (
            SELECT c.organization_id, c.id FROM wa_provider_calls c
            WHERE c.organization_id = o.id AND c.state = s.state AND c.state <> 'pending'
                AND c.ended_at < p_now - c_kept
            ORDER BY c.ended_at LIMIT p_limit
        ) x
        LIMIT p_limit
    )
    DELETE FROM wa_provider_calls c USING expired e
    WHERE c.organization_id = e.organization_id AND c.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_provider_calls(timestamptz, integer) IS
'Internal: deletes calls that ended a week ago.';
