-- A request over HTTP: whose it is, as which role it runs, and the one that was made before.

CREATE OR REPLACE FUNCTION _wa_find_api_key(p_hash bytea, p_scope text, p_user text DEFAULT NULL)
RETURNS TABLE (id uuid, organization_id uuid, role_name name, is_test boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
    v_key wa_api_keys;
BEGIN
    SELECT * INTO v_key FROM wa_api_keys k WHERE k.secret_hash = p_hash;
    IF v_key.id IS NULL OR v_key.revoked_at IS NOT NULL OR v_key.expires_at <= v_now THEN
        RAISE EXCEPTION USING ERRCODE = 'WA601',
            MESSAGE = CASE WHEN v_key.id IS NULL THEN 'the API key is unknown'
                WHEN v_key.revoked_at IS NOT NULL THEN 'the API key was revoked'
                ELSE 'the API key has expired' END,
            DETAIL = format('It begins with %s.', coalesce(v_key.prefix, 'something else than any of ours')),
            HINT = 'create_wa_api_key(), or bin/wa keys create, makes one.';
    END IF;
    IF NOT p_scope = ANY (v_key.scopes) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA602',
            MESSAGE = format('the API key has not the scope %s', p_scope),
            DETAIL = format('It has %s.', array_to_string(v_key.scopes, ', ')),
            HINT = 'Make a key with that scope.';
    END IF;
    PERFORM _wa_require_api_role(v_key.role_name, v_key.organization_id);
    PERFORM _wa_require_user(v_key.organization_id, p_user, p_scope);
    -- A row that every request wrote to would be a queue of its own; nobody waits for a lock here.
    IF coalesce(v_key.last_used_at, '-infinity') < v_now - interval '1 minute' THEN
        UPDATE wa_api_keys k SET last_used_at = date_trunc('minute', v_now)
        WHERE k.organization_id = v_key.organization_id AND k.id IN (
            SELECT x.id FROM wa_api_keys x
            WHERE x.organization_id = v_key.organization_id AND x.id = v_key.id
            FOR NO KEY UPDATE SKIP LOCKED
        );
    END IF;
    RETURN QUERY SELECT v_key.id, v_key.organization_id, v_key.role_name, v_key.is_test;
END
$$;

COMMENT ON FUNCTION _wa_find_api_key(bytea, text, text) IS
'Internal: the key of that hash, if it is valid, has the scope and its role is one that keys may speak for.';

-- In a statement of its own before the request's transaction: one row a key is written to by all of its
-- requests, and must not stay locked until they have done their work.
CREATE OR REPLACE FUNCTION count_wa_api_request(p_hash bytea)
RETURNS TABLE (quota integer, remaining integer, reset_s integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET synchronous_commit = off SET lock_timeout = '1s'
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
    v_minute timestamptz := date_trunc('minute', v_now);
    v_key wa_api_keys;
    v_requests integer;
BEGIN
    SELECT * INTO v_key FROM wa_api_keys k
    WHERE k.secret_hash = p_hash AND k.requests_per_minute IS NOT NULL AND k.revoked_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO wa_api_key_uses AS u (organization_id, key_id, minute, requests)
    VALUES (v_key.organization_id, v_key.id, v_minute, 1)
    -- Who began in the minute before, and had to wait for the row, must not begin that one anew.
    ON CONFLICT (organization_id, key_id) DO UPDATE SET
        minute = CASE WHEN u.minute = excluded.minute + interval '1 minute' THEN u.minute
            ELSE excluded.minute END,
        requests = CASE WHEN u.minute IN (excluded.minute, excluded.minute + interval '1 minute')
            THEN least(u.requests, 1000000000) + 1 ELSE 1 END
    RETURNING u.requests INTO v_requests;
    quota := v_key.requests_per_minute;
    remaining := quota - v_requests;
    reset_s := ceil(extract(epoch FROM v_minute + interval '1 minute' - v_now));
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION count_wa_api_request(bytea) IS
'Counts a request of the key with that hash: how many it may make a minute, how many are left (below 0: '
'this one is too many), and in how many seconds the next minute begins. No row for a key without a limit. '
'For the web server.';

CREATE OR REPLACE FUNCTION _wa_run_as(
    p_caller text, p_role name, p_org uuid, p_is_test boolean, p_user text
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM set_config('wa.organization_id', p_org::text, true),
        set_config('wa.caller', p_caller, true),
        set_config('wa.is_test_only', p_is_test::text, true),
        set_config('wa.acting_user', left(coalesce(p_user, ''), 200), true);
    PERFORM set_config('role', p_role, true);
END
$$;

COMMENT ON FUNCTION _wa_run_as(text, name, uuid, boolean, text) IS
'Internal: the rest of the transaction runs as that role for that organization.';

-- Invoker: to become a role is up to the session, which must be a member of it.
CREATE OR REPLACE FUNCTION open_wa_api_request(p_hash bytea, p_scope text, p_user text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_key record;
BEGIN
    SELECT * INTO v_key FROM _wa_find_api_key(p_hash, p_scope, p_user);
    PERFORM _wa_run_as('key:' || v_key.id, v_key.role_name, v_key.organization_id, v_key.is_test, p_user);
END
$$;

COMMENT ON FUNCTION open_wa_api_request(bytea, text, text) IS
'Lets the rest of the transaction run as the role of an API key, in its organization. p_hash is the SHA-256'
' of the key, p_scope what the request needs; p_user names who acts: that grants nothing, but what the role'
' of one of wa_users does not permit is refused. Raises WA601, WA602, WA603, WA621 or WA622. For the web'
' server, whose role must be a member of the key''s.';

CREATE OR REPLACE FUNCTION _wa_find_token_organization(
    p_organization text, p_role name, p_user text, p_scope text
) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid;
BEGIN
    SELECT o.id INTO v_org FROM wa_organizations o
    WHERE o.id::text = lower(p_organization) OR (p_organization IS NULL AND o.is_default);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA601',
            MESSAGE = 'the token names no organization of this database',
            DETAIL = format('Its claim is %s.', coalesce(left(p_organization, 100), 'missing')),
            HINT = 'The claim that WA_JWT_ORGANIZATION_CLAIM names holds the id of an organization.';
    END IF;
    PERFORM _wa_require_api_role(p_role, v_org);
    PERFORM _wa_require_user(v_org, p_user, p_scope);
    RETURN v_org;
END
$$;

COMMENT ON FUNCTION _wa_find_token_organization(text, name, text, text) IS
'Internal: the organization of a token''s claims, whose role must be one that keys may speak for.';

CREATE OR REPLACE FUNCTION open_wa_api_token(
    p_subject text, p_organization text, p_role name, p_scopes text [], p_scope text, p_user text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_find_token_organization(p_organization, p_role, coalesce(p_user, p_subject), p_scope);
BEGIN
    IF NOT p_scope = ANY (p_scopes) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA602',
            MESSAGE = format('the token has not the scope %s', p_scope),
            DETAIL = format('It has %s.', coalesce(left(array_to_string(p_scopes, ', '), 200), 'none')),
            HINT = 'Its issuer names them, with spaces between, in the claim "scope".';
    END IF;
    PERFORM _wa_run_as(
        'token:' || left(p_subject, 200), p_role, v_org, false, coalesce(p_user, p_subject)
    );
END
$$;

COMMENT ON FUNCTION open_wa_api_token(text, text, name, text [], text, text) IS
'The same for a JWT whose signature the web server has checked: its subject, organization, role and scopes '
'are those of its claims; without an organization it is the default one.';

CREATE OR REPLACE FUNCTION record_wa_api_rejection(p_source text, p_reason text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit_rejection(o.id, p_source, p_reason, 1)
    FROM wa_organizations o
    ORDER BY o.is_default DESC, o.created_at, o.id
    LIMIT 1
$$;

COMMENT ON FUNCTION record_wa_api_rejection(text, text) IS
'Counts a request with a wrong key: one audit_log row per source and minute, in the default organization. '
'For the web server.';

CREATE OR REPLACE FUNCTION _wa_is_test_only() RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(current_setting('wa.is_test_only', true), '') = 'true';

COMMENT ON FUNCTION _wa_is_test_only() IS 'Internal: whether the request came with a test key.';

CREATE OR REPLACE FUNCTION _wa_require_reachable_number(p_org uuid, p_number_id bigint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF _wa_is_test_only() AND NOT EXISTS (
        SELECT FROM wa_phone_numbers n WHERE n.organization_id = p_org AND n.id = p_number_id AND n.is_test
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA605',
            MESSAGE = 'a test key reaches test numbers only',
            DETAIL = format('Asked for was number %s.', coalesce(p_number_id::text, '(none)')),
            HINT = 'Name a number with is_test as phone_number_id, or use a live key.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_reachable_number(uuid, bigint) IS
'Internal: raises WA605 where the request came with a test key and is about a number that is no test number.';

CREATE OR REPLACE FUNCTION _wa_require_live_key(p_what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF _wa_is_test_only() THEN
        RAISE EXCEPTION USING ERRCODE = 'WA605',
            MESSAGE = 'a test key reaches test numbers only',
            DETAIL = format('%s for all numbers.', p_what),
            HINT = 'Use a live key.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_live_key(text) IS
'Internal: raises WA605 where the request came with a test key, and is about what counts for all numbers.';

CREATE OR REPLACE FUNCTION _wa_idempotency_caller(p_operation text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN concat_ws(' ', coalesce(nullif(current_setting('wa.caller', true), ''), _wa_caller()), p_operation);

COMMENT ON FUNCTION _wa_idempotency_caller(text) IS
'Internal: for whom and what an Idempotency-Key counts: the API key, the token''s subject, or the role.';

-- The row is inserted before the work and commits with it: a second request finds it, or waits for the first
-- one's end, which the lock_timeout makes a refusal.
CREATE OR REPLACE FUNCTION begin_wa_idempotent_request(p_key text, p_operation text, p_body_hash bytea)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '10ms'
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_caller text := _wa_idempotency_caller(p_operation);
    v_request wa_idempotent_requests;
BEGIN
    IF p_key IS NULL OR length(p_key) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an Idempotency-Key has 1 to 255 characters',
            DETAIL = format('This one has %s.', coalesce(length(p_key)::text, 'none')),
            HINT = 'A UUID serves.';
    END IF;
    BEGIN
        INSERT INTO wa_idempotent_requests (organization_id, caller, idempotency_key, body_hash)
        VALUES (v_org, v_caller, p_key, p_body_hash)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION USING ERRCODE = 'WA607',
            MESSAGE = 'the first request with this Idempotency-Key is still at work',
            DETAIL = 'Nothing was done for this one.',
            HINT = 'Repeat it in a moment.';
    END;
    SELECT * INTO v_request FROM wa_idempotent_requests r
    WHERE r.organization_id = v_org AND r.caller = v_caller AND r.idempotency_key = p_key;
    IF v_request.body_hash IS DISTINCT FROM p_body_hash THEN
        RAISE EXCEPTION USING ERRCODE = 'WA606',
            MESSAGE = 'the Idempotency-Key was used for another body',
            DETAIL = format('That was at %s.', v_request.created_at),
            HINT = 'A repetition brings the same body; another request needs another key.';
    END IF;
    RETURN v_request.result;
END
$$;

COMMENT ON FUNCTION begin_wa_idempotent_request(text, text, bytea) IS
'NULL for the first request with this key, which is to end with end_wa_idempotent_request() in the same '
'transaction; else what the first one left. Raises WA606 for another body, WA607 while the first is at '
'work.';

CREATE OR REPLACE FUNCTION end_wa_idempotent_request(
    p_key text, p_operation text, p_result jsonb
) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_idempotent_requests r SET result = p_result
    WHERE r.organization_id = _wa_caller_organization() AND r.idempotency_key = p_key AND r.result IS NULL
        AND r.caller = _wa_idempotency_caller(p_operation)
$$;

COMMENT ON FUNCTION end_wa_idempotent_request(text, text, jsonb) IS
'What the first request with this key did, for those that repeat it.';

CREATE OR REPLACE FUNCTION _wa_delete_idempotent_requests(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_kept CONSTANT interval := interval '3 days';
    v_rows integer;
BEGIN
    DELETE FROM wa_idempotent_requests r
    WHERE (r.organization_id, r.caller, r.idempotency_key) IN (
        SELECT x.organization_id, x.caller, x.idempotency_key FROM wa_idempotent_requests x
        WHERE x.created_at < p_now - c_kept ORDER BY x.created_at LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_idempotent_requests(timestamptz, integer) IS
'Internal: forgets Idempotency-Keys after three days.';
