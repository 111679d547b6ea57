-- Opt-outs from a file and into one: lists of other systems, and what a restored database has to be told.

-- ISO 8601 only, so that no setting of the session says which number is the month. NULL for anything else.
CREATE OR REPLACE FUNCTION _wa_read_time(p_text text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET TimeZone = 'UTC' SET DateStyle = 'ISO'
SET standard_conforming_strings = on
AS $$
BEGIN
    IF p_text !~ '^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?$' THEN
        RETURN NULL;
    END IF;
    RETURN p_text::timestamptz;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_read_time(text) IS
'Internal: a date or time of ISO 8601, in UTC unless it says otherwise; NULL for what is none.';

-- What is wrong with a line: SQLSTATE aside, as a queued row would be told.
CREATE OR REPLACE FUNCTION _wa_opt_out_problem(p_org uuid, p_row jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN r.phone IS NULL AND r.user_id IS NULL THEN 'it has neither phone nor user_id'
        WHEN r.phone IS NOT NULL AND _wa_is_canonical_phone(r.phone) IS NOT TRUE
            AND _wa_read_phone(p_org, r.phone) IS NULL
            THEN 'not a phone number: ' || (_wa_parse_phone(r.phone, NULL, NULL)).problem
        WHEN r.user_id IS NOT NULL AND NOT _wa_is_user_id(r.user_id)
            THEN 'user_id is no business-scoped user id'
        WHEN NOT _wa_is_scope(r.scope) THEN 'scope is not marketing, utility, authentication, sms or all'
        WHEN r.at IS NOT NULL AND _wa_read_time(r.at) IS NULL
            THEN 'opt_out_date is no date such as 2026-01-31 or 2026-01-31T12:00:00Z'
        WHEN _wa_read_time(r.at) > clock_timestamp() + interval '1 day' THEN 'opt_out_date lies in the future'
        -- One that is misspelt would be left out, and the opt-out be of another scope.
        WHEN r.others <> '{}' THEN format('it has something that means nothing here: %s', left((
            SELECT string_agg(k.key, ', ') FROM jsonb_object_keys(r.others) k (key)), 100))
    END
    FROM (
        SELECT nullif(btrim(p_row ->> 'phone'), '') AS phone,
            nullif(btrim(p_row ->> 'user_id'), '') AS user_id,
            lower(nullif(btrim(p_row ->> 'scope'), '')) AS scope,
            nullif(btrim(p_row ->> 'opt_out_date'), '') AS at,
            CASE WHEN jsonb_typeof(p_row) = 'object' THEN p_row - ARRAY[
                'phone', 'user_id', 'scope', 'reason', 'source', 'opt_out_date'] ELSE '{}' END AS others
    ) r
$$;

COMMENT ON FUNCTION _wa_opt_out_problem(uuid, jsonb) IS
'Internal: what is wrong with an opt-out of a file; NULL when nothing is.';

CREATE OR REPLACE FUNCTION import_wa_opt_outs(p_rows jsonb, p_source text DEFAULT 'import')
RETURNS TABLE (n integer, outcome text, problem text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_good record;
    v_outcomes text[];
    v_problems text[];
    v_done record;
BEGIN
    IF jsonb_typeof(p_rows) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('p_rows must be a JSON array, not %s', coalesce(jsonb_typeof(p_rows), 'NULL')),
            DETAIL = format('It begins: %s.', coalesce(left(p_rows::text, 60), 'NULL')),
            HINT = 'For example: [{"phone": "+15551234567", "scope": "all", "opt_out_date": "2026-01-31"}].';
    END IF;
    SELECT array_agg(_wa_opt_out_problem(v_org, r.value) ORDER BY r.n) INTO v_problems
    FROM jsonb_array_elements(p_rows) WITH ORDINALITY r (value, n);
    SELECT array_agg(g.n) AS places, array_agg(g.phone) AS phones, array_agg(g.user_id) AS user_ids,
        array_agg(g.scope) AS scopes, array_agg(g.at) AS ats, array_agg(g.source) AS sources,
        array_agg(g.reason) AS reasons
    INTO v_good
    FROM (
        SELECT r.n::integer AS n,
            CASE WHEN _wa_is_canonical_phone(p.phone) THEN p.phone ELSE _wa_read_phone(v_org, p.phone) END
                AS phone,
            nullif(btrim(r.value ->> 'user_id'), '') AS user_id,
            coalesce(lower(nullif(btrim(r.value ->> 'scope'), '')), 'marketing') AS scope,
            _wa_read_time(nullif(btrim(r.value ->> 'opt_out_date'), '')) AS at,
            coalesce(nullif(btrim(r.value ->> 'source'), ''), p_source) AS source,
            nullif(btrim(r.value ->> 'reason'), '') AS reason
        FROM jsonb_array_elements(p_rows) WITH ORDINALITY r (value, n)
        CROSS JOIN LATERAL (SELECT nullif(btrim(r.value ->> 'phone'), '') AS phone) p
        WHERE v_problems[r.n] IS NULL
        ORDER BY r.n
    ) g;
    v_outcomes := array_fill('refused'::text, ARRAY[cardinality(v_problems)]);
    IF v_good.places IS NOT NULL THEN
        -- Consent that was given after the date of a line stands, if it lifted what the line asks for: START
        -- lifts only what a word set. Two lines of one opt-out are one.
        FOR v_done IN
            WITH told AS MATERIALIZED (
                SELECT g.n, c.contact_id, g.scope, g.at, g.source, g.reason, c.phone,
                    g.source IN ('keyword', 'button') AS is_keyword
                FROM unnest(
                    v_good.places, v_good.phones, v_good.user_ids, v_good.scopes, v_good.ats, v_good.sources,
                    v_good.reasons
                ) WITH ORDINALITY g (n, phone, user_id, scope, at, source, reason, place)
                JOIN (
                    SELECT k.n AS place, k.contact_id, v_good.phones[k.n] AS phone
                    FROM _wa_resolve_contacts(v_org, v_good.phones, v_good.user_ids, 'import') k
                ) c ON c.place = g.place
            ),
            judged AS MATERIALIZED (
                SELECT t.*, EXISTS (
                    SELECT FROM wa_consent_events e
                    WHERE e.organization_id = v_org AND e.contact_id = t.contact_id AND e.occurred_at > t.at
                        AND e.event = 'opt_in' AND e.scope IN ('all', t.scope)
                        AND (t.is_keyword OR e.source <> 'keyword')
                ) AS is_superseded
                FROM told t
            ),
            added AS (
                INSERT INTO wa_opt_outs AS o (
                    organization_id, contact_id, scope, phone_number, reason, source, opt_out_date, is_keyword,
                    last_asked_at
                )
                SELECT DISTINCT ON (j.contact_id, j.scope, j.is_keyword)
                    v_org, j.contact_id, j.scope, j.phone, j.reason, j.source,
                    coalesce(j.at, clock_timestamp()), j.is_keyword,
                    nullif(max(j.at) OVER (PARTITION BY j.contact_id, j.scope, j.is_keyword), j.at)
                FROM judged j
                WHERE NOT j.is_superseded
                ORDER BY j.contact_id, j.scope, j.is_keyword, j.at NULLS LAST
                ON CONFLICT (organization_id, contact_id, scope, is_keyword) WHERE revoked_at IS NULL
                DO NOTHING
                RETURNING o.contact_id, o.scope, o.is_keyword
            ),
            -- Asked for again since: what the contact wrote in between, START too, is no message after it.
            renewed AS (
                UPDATE wa_opt_outs o SET last_asked_at = a.at
                FROM (
                    SELECT x.id, j.at
                    FROM wa_opt_outs x
                    JOIN (
                        SELECT t.contact_id, t.scope, t.is_keyword, max(t.at) AS at FROM judged t
                        WHERE NOT t.is_superseded GROUP BY t.contact_id, t.scope, t.is_keyword
                    ) j USING (contact_id, scope, is_keyword)
                    WHERE x.organization_id = v_org AND x.revoked_at IS NULL
                    ORDER BY x.contact_id, x.scope FOR NO KEY UPDATE OF x
                ) a
                WHERE o.organization_id = v_org AND o.id = a.id
                    AND a.at > greatest(o.opt_out_date, o.last_asked_at)
            )
            SELECT j.n, CASE
                WHEN j.is_superseded THEN 'superseded'
                WHEN a.contact_id IS NOT NULL AND row_number() OVER (
                    PARTITION BY j.contact_id, j.scope, j.is_keyword ORDER BY j.is_superseded, j.n
                ) = 1 THEN 'added'
                ELSE 'known'
            END AS outcome
            FROM judged j
            LEFT JOIN added a USING (contact_id, scope, is_keyword)
        LOOP
            v_outcomes[v_done.n] := v_done.outcome;
        END LOOP;
    END IF;
    PERFORM _wa_audit(v_org, 'opt_outs_imported', 'wa_opt_outs', NULL, (
        SELECT jsonb_object_agg(u.outcome, u.count) || jsonb_build_object('source', p_source)
        FROM (SELECT o.outcome, count(*) AS count FROM unnest(v_outcomes) o (outcome) GROUP BY 1) u
    ));
    RETURN QUERY SELECT u.n::integer, u.outcome, u.problem
    FROM unnest(v_outcomes, v_problems) WITH ORDINALITY u (outcome, problem, n) ORDER BY u.n;
END
$$;

COMMENT ON FUNCTION import_wa_opt_outs(jsonb, text) IS
'Records opt-outs given as an array of objects with phone or user_id, scope, reason, source and '
'opt_out_date. '
'For each: added, known (in force already), superseded (consent was given after its date) or refused, with '
'the problem; refused ones do not stop the others.';

CREATE OR REPLACE FUNCTION export_wa_opt_outs()
RETURNS TABLE (phone text, user_id text, scope text, opt_out_date timestamptz, source text, reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT coalesce(c.phone_e164, CASE WHEN c.user_id IS NULL THEN o.phone_number END), c.user_id, o.scope,
        greatest(o.opt_out_date, o.last_asked_at),
        CASE WHEN o.is_keyword AND o.source NOT IN ('keyword', 'button') THEN 'keyword' ELSE o.source END,
        o.reason
    FROM wa_opt_outs o
    JOIN wa_contacts c ON c.organization_id = o.organization_id AND c.id = o.contact_id
    WHERE o.organization_id = _wa_caller_organization() AND o.revoked_at IS NULL
        -- Whoever was erased is known by a hash: export_wa_erasures().
        AND num_nonnulls(c.phone_e164, c.user_id, o.phone_number) > 0
    ORDER BY o.id
$$;

COMMENT ON FUNCTION export_wa_opt_outs() IS
'The opt-outs in force, as import_wa_opt_outs() takes them: for another system, or for this one after a '
'restore.';
