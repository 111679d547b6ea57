-- The seam between the database and its providers. Everything here is asked for, and told, as Meta's Cloud
-- API has it; a provider's own file says by a row of wa_providers how it differs, and brings the functions
-- that translate. Nothing else in SQL knows a provider by name.

CREATE OR REPLACE FUNCTION _wa_fill_path(p_path text, p_phone_number_id text, p_waba_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(replace(p_path, '{number}', p_phone_number_id), '{account}', coalesce(p_waba_id, ''));

COMMENT ON FUNCTION _wa_fill_path(text, text, text) IS
'Internal: a path of wa_providers for a business number and its account.';

CREATE OR REPLACE FUNCTION _wa_request_path(p_provider text, p_phone_number_id text, p_waba_id text)
RETURNS text
LANGUAGE sql STABLE
RETURN (
    SELECT _wa_fill_path(p.send_path, p_phone_number_id, p_waba_id) FROM wa_providers p
    WHERE p.name = p_provider
);

COMMENT ON FUNCTION _wa_request_path(text, text, text) IS
'Internal: the path of the request that sends a message or marks one as read, behind the provider''s prefix.';

CREATE OR REPLACE FUNCTION _wa_has_feature(p_provider text, p_feature text) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM wa_providers p WHERE p.name = p_provider AND p_feature = ANY (p.features));

COMMENT ON FUNCTION _wa_has_feature(text, text) IS
'Internal: whether a provider can what only some can (wa_providers.features).';

CREATE OR REPLACE FUNCTION _wa_providers_with(p_feature text) RETURNS text
LANGUAGE sql STABLE
RETURN (
    SELECT string_agg(p.name, ', ' ORDER BY p.name) FROM wa_providers p
    WHERE p_feature IS NULL OR p_feature = ANY (p.features)
);

COMMENT ON FUNCTION _wa_providers_with(text) IS
'Internal: the providers that can something, or (NULL) all, for the words of an error.';

CREATE OR REPLACE FUNCTION _wa_is_translated(p_provider text) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM wa_providers p WHERE p.name = p_provider AND p.request_function IS NOT NULL
);

COMMENT ON FUNCTION _wa_is_translated(text) IS
'Internal: whether a provider takes other requests than the Cloud API does.';

-- One statement for all; each by itself where one of them is more than the provider's function can take.
CREATE OR REPLACE FUNCTION _wa_translate_requests(p_number wa_phone_numbers, p_requests jsonb[])
RETURNS jsonb[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_function text := (
        SELECT p.request_function FROM wa_providers p WHERE p.name = (p_number).provider
    );
    v_requests jsonb[];
BEGIN
    IF v_function IS NULL THEN
        RETURN p_requests;
    END IF;
    BEGIN
        EXECUTE format($query$
            SELECT array_agg(coalesce(%I(u.request, $2), jsonb_build_object('problem', format(
                'provider "%%s" cannot send a message of type %%s', ($2).provider, u.request ->> 'type'
            ))) ORDER BY u.n)
            FROM unnest($1) WITH ORDINALITY u (request, n)
        $query$, v_function) INTO v_requests USING p_requests, p_number;
        RETURN v_requests;
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        ELSIF cardinality(p_requests) = 1 THEN
            RETURN ARRAY[jsonb_build_object('problem', SQLERRM)];
        END IF;
    END;
    RETURN (
        SELECT array_agg((_wa_translate_requests(p_number, ARRAY[u.request]))[1] ORDER BY u.n)
        FROM unnest(p_requests) WITH ORDINALITY u (request, n)
    );
END
$$;

COMMENT ON FUNCTION _wa_translate_requests(wa_phone_numbers, jsonb[]) IS
'Internal: the provider''s requests for those of the Cloud API, in their order; {"problem": why} where it '
'has none.';

-- A result says whose answer it holds. What a provider''s own function cannot read stays as it came, and an
-- answer without a message id is an unknown outcome: nothing is lost, nothing sent again.
CREATE OR REPLACE FUNCTION _wa_translate_answers(p_results jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_provider record;
BEGIN
    FOR v_provider IN
        SELECT p.name, p.answer_function FROM wa_providers p
        WHERE p.answer_function IS NOT NULL
            AND p_results @> jsonb_build_array(jsonb_build_object('provider', p.name))
    LOOP
        BEGIN
            EXECUTE format($query$
                SELECT jsonb_agg(CASE WHEN r ->> 'provider' = $2 AND jsonb_typeof(r -> 'answer') = 'object'
                    THEN r || jsonb_build_object('answer', %I(r -> 'answer')) ELSE r END ORDER BY n)
                FROM jsonb_array_elements($1) WITH ORDINALITY x (r, n)
            $query$, v_provider.answer_function) INTO p_results USING p_results, v_provider.name;
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
        END;
    END LOOP;
    RETURN p_results;
END
$$;

COMMENT ON FUNCTION _wa_translate_answers(jsonb) IS
'Internal: results of sending with every answer as the Cloud API would have given it.';

CREATE OR REPLACE FUNCTION _wa_translate_webhooks(p_providers text[], p_bodies bytea[]) RETURNS bytea[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_provider record;
    v_body bytea;
BEGIN
    FOR v_provider IN
        SELECT p.name, p.webhook_function FROM wa_providers p
        WHERE p.webhook_function IS NOT NULL AND p.name = ANY (p_providers)
    LOOP
        FOR i IN 1..cardinality(p_bodies) LOOP
            CONTINUE WHEN p_providers[i] <> v_provider.name;
            BEGIN
                EXECUTE format('SELECT %I($1)', v_provider.webhook_function) INTO v_body USING p_bodies[i];
                p_bodies[i] := coalesce(v_body, p_bodies[i]);
            EXCEPTION WHEN OTHERS THEN
                IF _wa_is_passing_error(SQLSTATE) THEN
                    RAISE;
                END IF;
            END;
        END LOOP;
    END LOOP;
    RETURN p_bodies;
END
$$;

COMMENT ON FUNCTION _wa_translate_webhooks(text[], bytea[]) IS
'Internal: webhook bodies, each of the provider beside it, as the Cloud API would have sent them. What its '
'function cannot read stays as it came, and cannot be taken apart.';

-- Error object of the Graph API (Cloud API, Error codes): details say more than the message.
CREATE OR REPLACE FUNCTION _wa_answer_error(
    p_answer jsonb, OUT code integer, OUT subcode integer, OUT error text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    CASE WHEN p_answer #>> '{error,code}' ~ '^\d{1,9}$' THEN (p_answer #>> '{error,code}')::integer END,
    CASE WHEN p_answer #>> '{error,error_subcode}' ~ '^\d{1,9}$'
        THEN (p_answer #>> '{error,error_subcode}')::integer END,
    coalesce(p_answer #>> '{error,error_data,details}', p_answer #>> '{error,message}')
);

COMMENT ON FUNCTION _wa_answer_error(jsonb) IS
'Internal: the codes and the words of an answer that refuses a request; NULLs where it has none.';

CREATE OR REPLACE FUNCTION _wa_error_rule(p_provider text, p_code integer, p_subcode integer)
RETURNS SETOF wa_error_rules
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT e.* FROM wa_error_rules e
    WHERE e.code = p_code AND e.subcode IN (0, p_subcode) AND e.provider IN (p_provider, (
        SELECT p.errors_of FROM wa_providers p WHERE p.name = p_provider
    ))
    ORDER BY e.provider = p_provider DESC, e.subcode = 0
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_error_rule(text, integer, integer) IS
'Internal: what wa_error_rules says of a provider''s code and subcode: its own row, else that of the '
'provider '
'whose errors it has; none where nobody said anything.';

CREATE OR REPLACE FUNCTION classify_wa_error(
    p_code integer, p_http_status integer, p_subcode integer DEFAULT NULL, p_provider text DEFAULT 'meta'
)
RETURNS wa_error_rules
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT r.code, r.http_status, r.title, r.action, r.max_retries, r.wait, r.subcode, r.provider,
        r.allows_sms
    FROM (
        SELECT e.*, 1 AS preference FROM _wa_error_rule(p_provider, p_code, p_subcode) e
        UNION ALL
        SELECT
            p_code, p_http_status,
            coalesce('Error ' || p_code, 'HTTP status ' || p_http_status, 'Unknown error'),
            CASE
                WHEN p_code BETWEEN 200 AND 299 THEN 'pause_token'
                WHEN p_code IS NULL AND p_http_status BETWEEN 200 AND 399 THEN 'unknown'
                WHEN p_http_status IN (401, 403) THEN 'pause_token'
                WHEN p_http_status = 429 THEN 'wait_number'
                WHEN p_http_status = 408 THEN 'unknown'
                -- Of a code that is not known it is known of the Cloud API alone that nothing was accepted.
                WHEN p_http_status >= 500 AND (p_code IS NULL OR _wa_is_translated(p_provider)) THEN 'unknown'
                WHEN p_http_status >= 500 THEN 'retry'
                ELSE 'fail'
            END,
            NULL, NULL, coalesce(p_subcode, 0), p_provider, false, 2
    ) r (
        code, http_status, title, action, max_retries, wait, subcode, provider, allows_sms, preference
    )
    ORDER BY r.preference
    LIMIT 1
$$;

COMMENT ON FUNCTION classify_wa_error(integer, integer, integer, text) IS
'The rule for an error code and subcode of a provider: that of wa_error_rules, its own or else that of the '
'provider whose errors it has (wa_providers.errors_of), else one by HTTP status. '
'A 5xx answer without an error code leaves the outcome unknown; that of a provider whose requests are not '
'the Cloud API''s also with one.';
