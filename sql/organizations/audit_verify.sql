-- Whether the audit log is what was sealed: which rows were changed, removed, moved, added or cut off.

-- Stable: all of its statements see the log at one moment, whatever is sealed meanwhile.
CREATE OR REPLACE FUNCTION _wa_verify_audit(p_org uuid, p_after bigint, p_limit bigint)
RETURNS TABLE ("position" bigint, audit_id bigint, problem text, detail text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    WITH head AS (
        SELECT h.* FROM wa_audit_heads h WHERE h.organization_id = p_org
    ), start AS (
        SELECT coalesce(s.position, h.checkpoint_position) AS position,
            coalesce(s.hash, h.checkpoint_hash) AS hash
        FROM head h
        LEFT JOIN wa_audit_seals s ON s.organization_id = p_org AND s.position = p_after
            AND p_after > h.checkpoint_position
    ), sealed AS MATERIALIZED (
        SELECT s.position, s.audit_id, s.salt, s.field_salts, s.erased, s.leaf, s.hash,
            coalesce(lag(s.position) OVER w, b.position) AS last_position,
            coalesce(lag(s.hash) OVER w, b.hash) AS last_hash, a.id IS NOT NULL AS is_there,
            _wa_audit_leaf(
                p_org, a.id, a.created_at, a.event, a.entity, a.session_role, a.database_role, a.actor,
                a.entity_id, a.client_address, a.meta, s.salt, s.field_salts, s.erased
            ) = s.leaf AS is_same
        FROM start b
        CROSS JOIN LATERAL (
            SELECT x.* FROM wa_audit_seals x
            WHERE x.organization_id = p_org AND x.position > b.position ORDER BY x.position LIMIT p_limit
        ) s
        LEFT JOIN audit_log a ON a.organization_id = p_org AND a.id = s.audit_id
        WINDOW w AS (ORDER BY s.position)
    ), looked AS (
        SELECT s.*, s.position = s.last_position + 1 AS is_next,
            _wa_audit_link(s.last_hash, s.position, s.leaf) = s.hash AS is_linked
        FROM sealed s
    ), changed AS MATERIALIZED (
        -- Those that have each other's place are looked for among the first few only: of a log that was
        -- changed from end to end nobody needs to know that.
        SELECT l.*, row_number() OVER (ORDER BY l.position) AS rank FROM looked l
        WHERE l.is_there AND l.is_same IS NOT TRUE
    ), unlinked AS MATERIALIZED (
        SELECT l.*, row_number() OVER (ORDER BY l.position) AS rank FROM looked l
        WHERE l.is_same AND l.is_next AND NOT l.is_linked
    )
    SELECT l.position - 1, NULL::bigint, 'removed',
        format('positions %s to %s are missing, rows and seals', l.last_position + 1, l.position - 1)
    FROM looked l WHERE NOT l.is_next
    UNION ALL
    SELECT l.position, l.audit_id, 'removed', 'the row is sealed, and is not there any more'
    FROM looked l WHERE NOT l.is_there
    UNION ALL
    SELECT c.position, c.audit_id,
        CASE WHEN m.other IS NULL THEN 'changed' ELSE 'reordered' END,
        CASE WHEN m.other IS NOT NULL
            THEN format('what it says was sealed as row %s', m.other)
            ELSE 'it does not say what was sealed' END
    FROM changed c
    LEFT JOIN LATERAL (
        SELECT min(o.audit_id) AS other FROM changed o
        JOIN audit_log a ON a.organization_id = p_org AND a.id = c.audit_id
        WHERE c.rank <= 50 AND o.rank <= 50 AND o.position <> c.position AND _wa_audit_leaf(
            p_org, o.audit_id, a.created_at, a.event, a.entity, a.session_role, a.database_role, a.actor,
            a.entity_id, a.client_address, a.meta, o.salt, o.field_salts, o.erased
        ) = o.leaf
    ) m ON true
    UNION ALL
    SELECT u.position, u.audit_id, CASE WHEN m.other IS NULL THEN 'changed' ELSE 'reordered' END,
        CASE WHEN m.other IS NULL THEN 'its seal was made anew: it does not follow from the one before'
            ELSE format('its place was position %s', m.other) END
    FROM unlinked u
    LEFT JOIN LATERAL (
        -- Whatever hash was moved along with it, or was left behind.
        SELECT min(o.position) AS other FROM unlinked o, unlinked b, unlinked h
        WHERE u.rank <= 8 AND o.rank <= 8 AND b.rank <= 8 AND h.rank <= 8 AND o.position <> u.position
            AND (_wa_audit_link(b.last_hash, o.position, u.leaf) = h.hash
                OR _wa_audit_link(b.hash, o.position, u.leaf) = h.hash)
    ) m ON true
    UNION ALL
    -- What is beyond the last seal, where all of the chain was read.
    SELECT h.position, NULL, 'cut off', format(
        'positions %s to %s are missing: the chain had come that far', e.position + 1, h.position
    )
    FROM head h
    CROSS JOIN LATERAL (
        SELECT coalesce(max(l.position), (SELECT b.position FROM start b)) AS position, count(*) AS rows
        FROM looked l
    ) e
    WHERE e.rows < p_limit AND e.position < h.position
    UNION ALL
    SELECT l.position, l.audit_id, 'added', 'its seal is beyond the end of the chain'
    FROM looked l, head h WHERE l.position > h.position
    UNION ALL
    SELECT l.position, l.audit_id, 'changed', 'the chain does not end with the hash that was noted'
    FROM looked l, head h WHERE l.position = h.position AND l.hash <> h.hash
$$;

COMMENT ON FUNCTION _wa_verify_audit(uuid, bigint, bigint) IS
'Internal: what is wrong with so many places of the chain after a position.';

CREATE OR REPLACE FUNCTION _wa_verify_audit_rest(p_org uuid)
RETURNS TABLE ("position" bigint, audit_id bigint, problem text, detail text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT NULL::bigint, a.id, 'added', 'the row has no seal and waits for none'
    FROM audit_log a
    WHERE a.organization_id = p_org
        AND NOT EXISTS (
            SELECT FROM wa_audit_seals s WHERE s.organization_id = p_org AND s.audit_id = a.id
        )
        AND NOT EXISTS (
            SELECT FROM wa_audit_unsealed u WHERE u.organization_id = p_org AND u.audit_id = a.id
        )
    UNION ALL
    SELECT NULL, u.audit_id, 'removed', 'the row was written, and was gone before it was sealed'
    FROM wa_audit_unsealed u
    WHERE u.organization_id = p_org
        AND NOT EXISTS (SELECT FROM audit_log a WHERE a.organization_id = p_org AND a.id = u.audit_id)
    UNION ALL
    -- Every organization has one from the start, and nothing of ours takes it away.
    SELECT NULL, NULL, 'cut off', 'where the chain ends is not noted any more: wa_audit_heads has no row'
    WHERE NOT EXISTS (SELECT FROM wa_audit_heads h WHERE h.organization_id = p_org)
    UNION ALL
    SELECT h.checkpoint_position, NULL, 'cut off', format(
        'positions 1 to %s are missing, and no row of the log says that retention deleted them',
        h.checkpoint_position
    )
    FROM wa_audit_heads h
    WHERE h.organization_id = p_org AND h.checkpoint_position > 0 AND NOT EXISTS (
        SELECT FROM audit_log a
        WHERE a.organization_id = p_org AND a.event = 'audit_log_deleted'
            AND a.meta @> jsonb_build_object(
                'through_position', h.checkpoint_position, 'through_hash', encode(h.checkpoint_hash, 'hex')
            )
    )
$$;

COMMENT ON FUNCTION _wa_verify_audit_rest(uuid) IS
'Internal: rows that are not in the chain and should be, and a beginning that was cut off.';

-- An adoption explains an anchor of before; it stays a finding, for whoever can cut the log can write such a
-- row, too.
CREATE OR REPLACE FUNCTION _wa_compare_audit_anchor(p_org uuid, p_position bigint, p_hash text)
RETURNS TABLE ("position" bigint, audit_id bigint, problem text, detail text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT p_position, NULL::bigint,
        CASE
            WHEN h.organization_id IS NULL THEN 'removed'
            WHEN p_position < h.checkpoint_position THEN 'deleted'
            WHEN a.id IS NOT NULL THEN 'restored'
            WHEN p_position > h.position THEN 'cut off'
            ELSE 'changed'
        END,
        CASE
            WHEN h.organization_id IS NULL THEN 'the organization of the anchor has no chain any more'
            WHEN p_position < h.checkpoint_position THEN format(
                'retention has deleted the position of the anchor, it says; the chain begins at %s',
                h.checkpoint_position + 1)
            ELSE concat_ws('; ',
                CASE WHEN p_position > h.position
                    THEN format('the anchor knows position %s, the chain ends at %s', p_position, h.position)
                    ELSE 'the chain has another hash at the position of the anchor' END,
                CASE WHEN a.id IS NOT NULL THEN format(
                    'row %s says that this database was adopted as a copy, at position %s: what was written '
                    'after the copy was taken is in the original only; take a new anchor if you know of it',
                    a.id, a.meta ->> 'sealed_position') END)
        END
    FROM (SELECT) one
    LEFT JOIN wa_audit_heads h ON h.organization_id = p_org
    LEFT JOIN wa_audit_seals s ON s.organization_id = p_org AND s.position = p_position
    LEFT JOIN LATERAL (
        SELECT x.id, x.meta FROM audit_log x
        WHERE x.organization_id = p_org AND x.event = 'database_adopted'
            AND jsonb_typeof(x.meta -> 'sealed_position') = 'number'
            AND (x.meta ->> 'sealed_position')::numeric < p_position
        ORDER BY x.id DESC LIMIT 1
    ) a ON true
    WHERE p_position > 0 AND encode(coalesce(
        s.hash, CASE WHEN p_position = h.checkpoint_position THEN h.checkpoint_hash END
    ), 'hex') IS DISTINCT FROM lower(p_hash)
$$;

COMMENT ON FUNCTION _wa_compare_audit_anchor(uuid, bigint, text) IS
'Internal: what is wrong where the chain does not have the anchor''s hash at its position.';

CREATE OR REPLACE FUNCTION verify_wa_audit_log(p_anchors jsonb DEFAULT '[]') RETURNS TABLE (
    organization_id uuid, "position" bigint, audit_id bigint, problem text, detail text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_orgs uuid[] := _wa_chosen_organizations();
    v_sees_all boolean := pg_has_role(_wa_caller(), 'wa_admin', 'MEMBER');
BEGIN
    IF jsonb_typeof(p_anchors) <> 'array' OR EXISTS (
        SELECT FROM jsonb_array_elements(p_anchors) a (anchor)
        WHERE NOT coalesce(
            a.anchor ->> 'organization_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            AND a.anchor ->> 'position' ~ '^[0-9]{1,18}$' AND a.anchor ->> 'hash' ~* '^[0-9a-f]{64}$', false)
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'these are no anchors of an audit log',
            DETAIL = 'An array of objects is expected, each with organization_id, position and hash.',
            HINT = 'bin/wa audit anchor writes them, bin/wa audit verify --anchor FILE reads them.';
    END IF;
    RETURN QUERY
    SELECT o.id, f.position, f.audit_id, f.problem, f.detail
    FROM unnest(v_orgs) o (id)
    CROSS JOIN LATERAL (
        SELECT * FROM _wa_verify_audit(o.id, 0, 9223372036854775807)
        UNION ALL
        SELECT * FROM _wa_verify_audit_rest(o.id)
    ) f
    UNION ALL
    SELECT (a.anchor ->> 'organization_id')::uuid, f.position, f.audit_id, f.problem, f.detail
    FROM (
        -- The same head may have been noted often.
        SELECT x.anchor,
            x.newest = max(x.newest) OVER (PARTITION BY x.anchor ->> 'organization_id') AS is_newest
        FROM (
            SELECT e.anchor, max(e.n) AS newest
            FROM jsonb_array_elements(p_anchors) WITH ORDINALITY e (anchor, n)
            GROUP BY e.anchor
        ) x
    ) a
    CROSS JOIN LATERAL _wa_compare_audit_anchor(
        (a.anchor ->> 'organization_id')::uuid, (a.anchor ->> 'position')::bigint, a.anchor ->> 'hash'
    ) f
    -- Whether an organization of others exists is nobody's business. That retention has passed an older anchor
    -- is its purpose; the newest is to be beyond it.
    WHERE (v_sees_all OR (a.anchor ->> 'organization_id')::uuid = ANY (v_orgs))
        AND (f.problem <> 'deleted' OR a.is_newest)
    ORDER BY 1, 2, 3;
END
$$;

COMMENT ON FUNCTION verify_wa_audit_log(jsonb) IS
'Computes the chain of the audit log anew and names each row that was changed, removed, reordered, added or '
'cut off; no row when all is well. Of the current organization, or for wa_admin of all. Anchors, heads that '
'were kept elsewhere, the newest of an organization last, also tell when somebody cut the end off, or made '
'the whole chain anew.';

-- Bounded: a run goes on where the last one stopped, and begins anew after the end.
CREATE OR REPLACE FUNCTION check_wa_audit_log(p_limit integer DEFAULT 50000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid;
    v_done integer := 0;
BEGIN
    -- Somebody has taken it away: what is found behind a new one stays to be seen.
    INSERT INTO wa_audit_heads (organization_id)
    SELECT o.id FROM wa_organizations o
    WHERE NOT EXISTS (SELECT FROM wa_audit_heads h WHERE h.organization_id = o.id)
    ORDER BY o.id
    ON CONFLICT DO NOTHING;
    FOR v_org IN
        SELECT h.organization_id FROM wa_audit_heads h ORDER BY h.checked_at NULLS FIRST, h.organization_id
    LOOP
        v_done := v_done + _wa_check_audit(v_org, p_limit - v_done);
        EXIT WHEN v_done >= p_limit;
    END LOOP;
    RETURN v_done;
END
$$;

COMMENT ON FUNCTION check_wa_audit_log(integer) IS
'Verifies at most so many places of the audit logs'' chains, going on where the last run stopped; '
'get_wa_audit_health() tells what it found. The job "audit_check" calls it.';

CREATE OR REPLACE FUNCTION _wa_audit_finding(p_position bigint, p_audit_id bigint, p_problem text)
RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN jsonb_build_object('position', p_position, 'audit_id', p_audit_id, 'problem', p_problem);

COMMENT ON FUNCTION _wa_audit_finding(bigint, bigint, text) IS 'Internal: a finding as it is acknowledged.';

CREATE OR REPLACE FUNCTION _wa_check_audit(p_org uuid, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_head wa_audit_heads;
    v_last bigint;
    v_problems integer;
    v_problem text;
    v_found integer;
    v_is_through boolean;
BEGIN
    SELECT h.* INTO v_head FROM wa_audit_heads h WHERE h.organization_id = p_org
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT max(x.position) INTO v_last FROM (
        SELECT s.position FROM wa_audit_seals s
        WHERE s.organization_id = p_org AND s.position > v_head.checked_position
        ORDER BY s.position LIMIT p_limit
    ) x;
    SELECT count(*), min(concat_ws(' ', f.problem, 'position ' || f.position, 'row ' || f.audit_id))
    INTO v_problems, v_problem
    FROM (
        SELECT * FROM _wa_verify_audit(p_org, v_head.checked_position, p_limit)
        UNION ALL
        SELECT * FROM _wa_verify_audit_rest(p_org) WHERE coalesce(v_last, 0) = v_head.position
    ) f
    WHERE NOT v_head.acknowledged @> jsonb_build_array(_wa_audit_finding(f.position, f.audit_id, f.problem));
    v_found := CASE WHEN v_head.checked_position > v_head.checkpoint_position THEN v_head.found ELSE 0 END
        + v_problems;
    v_is_through := coalesce(v_last, v_head.position) >= v_head.position;
    -- What the round before found stands until this one is through.
    UPDATE wa_audit_heads h SET
        found = v_found,
        problems = CASE WHEN v_is_through THEN v_found ELSE greatest(h.problems, v_found) END,
        problem = CASE WHEN v_is_through AND v_found = 0
            THEN nullif(jsonb_array_length(h.acknowledged), 0) || ' acknowledged'
            ELSE coalesce(v_problem, h.problem) END,
        checked_position = CASE WHEN v_is_through THEN h.checkpoint_position ELSE v_last END,
        checked_at = CASE WHEN v_is_through THEN clock_timestamp() ELSE h.checked_at END
    WHERE h.organization_id = p_org;
    RETURN greatest(coalesce(v_last - v_head.checked_position, 0), 0);
END
$$;

COMMENT ON FUNCTION _wa_check_audit(uuid, integer) IS
'Internal: verifies the next places of an organization''s chain and notes what it found.';

-- The row is sealed first: it may be what closes a gap at the end, and so changes what is found.
CREATE OR REPLACE FUNCTION acknowledge_wa_audit_problems(p_reason text) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_orgs uuid[];
    v_found record;
    v_acknowledged integer := 0;
BEGIN
    IF coalesce(btrim(p_reason), '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an acknowledgement needs a reason',
            DETAIL = 'It stands in the audit log.',
            HINT = 'For example the number of the case in which the finding was looked into.';
    END IF;
    v_orgs := ARRAY(SELECT DISTINCT v.organization_id FROM verify_wa_audit_log() v);
    PERFORM _wa_audit(v.organization_id, 'audit_problems_acknowledged', 'wa_audit_heads',
        v.organization_id::text, jsonb_build_object('reason', p_reason, 'problems', jsonb_agg(
            _wa_audit_finding(v.position, v.audit_id, v.problem))))
    FROM verify_wa_audit_log() v
    GROUP BY v.organization_id;
    PERFORM seal_wa_audit_log();
    FOR v_found IN
        SELECT v.organization_id, count(*)::integer AS rows,
            jsonb_agg(_wa_audit_finding(v.position, v.audit_id, v.problem)) AS problems
        FROM verify_wa_audit_log() v
        WHERE v.organization_id = ANY (v_orgs)
        GROUP BY v.organization_id ORDER BY v.organization_id
    LOOP
        UPDATE wa_audit_heads h SET
            acknowledged = v_found.problems, checked_position = h.checkpoint_position
        WHERE h.organization_id = v_found.organization_id;
        PERFORM _wa_check_audit(v_found.organization_id, 2147483647);
        v_acknowledged := v_acknowledged + v_found.rows;
    END LOOP;
    RETURN v_acknowledged;
END
$$;

COMMENT ON FUNCTION acknowledge_wa_audit_problems(text) IS
'After what verify_wa_audit_log() names was looked into: the job audit_check, bin/wa doctor and wa_metrics '
'count it no more, only what is found from then on. Leaves an audit row with all of it and the reason; '
'verify_wa_audit_log() and bin/wa audit verify go on naming it. Returns how many.';

CREATE OR REPLACE FUNCTION get_wa_audit_health() RETURNS TABLE (
    organization_id uuid, name text, "position" bigint, hash text, sealed_at timestamptz, unsealed bigint,
    oldest_unsealed_at timestamptz, first_position bigint, checked_at timestamptz, problems integer,
    problem text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT o.id, o.name, coalesce(h.position, 0), encode(h.hash, 'hex'), h.sealed_at,
        (SELECT count(*) FROM wa_audit_unsealed u WHERE u.organization_id = o.id),
        (SELECT a.created_at FROM audit_log a WHERE a.organization_id = o.id AND a.id = (
            SELECT min(u.audit_id) FROM wa_audit_unsealed u WHERE u.organization_id = o.id)),
        coalesce(h.checkpoint_position, 0) + 1, h.checked_at, coalesce(h.problems, 0), h.problem
    FROM wa_organizations o
    LEFT JOIN wa_audit_heads h ON h.organization_id = o.id
    WHERE o.id = ANY (_wa_chosen_organizations())
    ORDER BY o.name, o.id;
END
$$;

COMMENT ON FUNCTION get_wa_audit_health() IS
'Of each organization''s audit log: where its chain ends (what an anchor holds), how many rows wait for '
'their seals and since when, and what the job audit_check found.';
