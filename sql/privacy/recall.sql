-- Who was erased and comes again: a new contact, opted out until the person opts in.

-- Of new ways to a contact, whoever makes them. One look for a statement while nobody was erased; hashes are
-- made for what is new only.
CREATE OR REPLACE FUNCTION tg_wa_contact_identities__recall() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM new_rows n
        WHERE EXISTS (SELECT FROM wa_erased_identities e WHERE e.organization_id = n.organization_id)
    ) THEN
        RETURN NULL;
    END IF;
    FOR v_org IN
        SELECT n.organization_id AS id, array_agg(n.kind) AS kinds, array_agg(n.value) AS vals,
            array_agg(n.contact_id) AS contact_ids
        FROM new_rows n WHERE n.is_current GROUP BY n.organization_id
    LOOP
        PERFORM _wa_opt_out_contacts(
            v_org.id, array_agg(DISTINCT v_org.contact_ids[h.n]), '{all}', NULL, 'erasure'
        )
        FROM _wa_identity_hashes(v_org.id, v_org.kinds, v_org.vals) h
        JOIN wa_erased_identities e ON e.organization_id = v_org.id AND e.hash = h.hash
        HAVING count(*) > 0;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_contact_identities__recall() IS
'Opts a contact out that is found by what an erased person was known by; in doubt, too, for a number may '
'have been handed on.';

CREATE OR REPLACE TRIGGER recall AFTER INSERT ON wa_contact_identities
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_contact_identities__recall();

CREATE OR REPLACE FUNCTION export_wa_erasures() RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'organization_id', o.id,
        'keys', (
            SELECT jsonb_agg(jsonb_build_object(
                'version', k.version, 'inner', encode(k.inner_pad, 'hex'), 'outer', encode(k.outer_pad, 'hex')
            ) ORDER BY k.version)
            FROM wa_privacy_keys k WHERE k.organization_id = o.id AND k.purpose = 'erasure'
        ),
        'identities', (
            SELECT jsonb_agg(jsonb_build_object(
                'hash', encode(e.hash, 'hex'), 'version', e.key_version, 'erased_at', e.erased_at,
                'keep', coalesce(x.keep, '{}')
            ) ORDER BY e.erased_at, e.hash)
            FROM wa_erased_identities e
            LEFT JOIN wa_erasures x ON x.organization_id = o.id AND x.id = e.erasure_id
            WHERE e.organization_id = o.id
        )
    )
    FROM wa_organizations o
    WHERE EXISTS (SELECT FROM wa_erased_identities e WHERE e.organization_id = o.id)
    ORDER BY o.id
$$;

COMMENT ON FUNCTION export_wa_erasures() IS
'Who was erased, of all organizations, by keyed hashes and with their keys: to be kept beside backups, and '
'as safe as they are; a restored database takes it with reapply_wa_erasures(). No number stands in it.';

-- A key in the form in which HMAC uses it: twice the same, with other bits turned.
CREATE OR REPLACE FUNCTION _wa_is_key_of_erasures(p_key jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN jsonb_typeof(p_key) = 'object' AND p_key ->> 'version' ~ '^[1-9][0-9]{0,8}$'
            AND p_key ->> 'inner' ~ '^[0-9a-f]{64}(36){32}$'
            AND p_key ->> 'outer' ~ '^[0-9a-f]{64}(5c){32}$'
        THEN (
            SELECT bool_and(get_byte(k."inner", b.n) # 54 = get_byte(k."outer", b.n) # 92)
            FROM (
                SELECT decode(p_key ->> 'inner', 'hex') AS "inner",
                    decode(p_key ->> 'outer', 'hex') AS "outer"
            ) k
            CROSS JOIN generate_series(0, 31) b (n)
        )
        ELSE false END
$$;

COMMENT ON FUNCTION _wa_is_key_of_erasures(jsonb) IS
'Internal: whether JSON is a key, as export_wa_erasures() tells it.';

CREATE OR REPLACE FUNCTION _wa_problem_of_erasures(p_export jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN jsonb_typeof(p_export) IS DISTINCT FROM 'object'
            OR jsonb_typeof(p_export -> 'keys') IS DISTINCT FROM 'array'
            OR jsonb_typeof(p_export -> 'identities') IS DISTINCT FROM 'array'
            THEN 'an element is no object with organization_id, keys and identities'
        WHEN NOT coalesce(
            p_export ->> 'organization_id' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', false
        ) THEN 'an organization_id is none'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(p_export -> 'keys') k WHERE NOT _wa_is_key_of_erasures(k.value)
        ) THEN 'a key is none, or was changed'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(p_export -> 'identities') i
            WHERE NOT coalesce(
                i.value ->> 'hash' ~ '^[0-9a-f]{64}$' AND _wa_read_time(i.value ->> 'erased_at') IS NOT NULL
                AND EXISTS (
                    SELECT FROM jsonb_array_elements(p_export -> 'keys') k
                    WHERE k.value -> 'version' = i.value -> 'version'
                ), false)
        ) THEN 'an identity has no hash, no time, or no key of its version'
    END
$$;

COMMENT ON FUNCTION _wa_problem_of_erasures(jsonb) IS
'Internal: what is wrong with the export of an organization''s erasures; NULL where nothing is. No value of '
'it is told: keys are in it.';

-- Hashes are only as good as the key that they were made with: an export brings its keys along, so that a
-- backup from before a rotation takes it, too.
CREATE OR REPLACE FUNCTION _wa_take_erasures(p_export jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := (p_export ->> 'organization_id')::uuid;
    v_key record;
    v_version integer;
    v_rows bigint;
    v_taken bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM wa_organizations o WHERE o.id = v_org) THEN
        RETURN 0;
    END IF;
    FOR v_key IN
        SELECT k.version, decode(k."inner", 'hex') AS inner_pad, decode(k."outer", 'hex') AS outer_pad
        FROM jsonb_to_recordset(p_export -> 'keys') k (version integer, "inner" text, "outer" text)
        ORDER BY k.version
    LOOP
        v_version := (
            SELECT k.version FROM wa_privacy_keys k
            WHERE k.organization_id = v_org AND k.purpose = 'erasure' AND k.inner_pad = v_key.inner_pad
        );
        IF v_version IS NULL THEN
            INSERT INTO wa_privacy_keys (organization_id, purpose, version, inner_pad, outer_pad)
            SELECT v_org, 'erasure', coalesce(max(k.version), 0) + 1, v_key.inner_pad, v_key.outer_pad
            FROM wa_privacy_keys k WHERE k.organization_id = v_org AND k.purpose = 'erasure'
            RETURNING version INTO v_version;
        END IF;
        INSERT INTO wa_erased_identities AS e (organization_id, hash, key_version, erased_at)
        -- A clock that was ahead would erase whoever comes again.
        SELECT v_org, decode(i.hash, 'hex'), v_version, least(i.erased_at, clock_timestamp())
        FROM jsonb_to_recordset(p_export -> 'identities')
            i (hash text, version integer, erased_at timestamptz)
        WHERE i.version = v_key.version
        -- Erased again after the backup was taken.
        ON CONFLICT (organization_id, hash) DO UPDATE SET erased_at = excluded.erased_at, erasure_id = NULL
        WHERE e.erased_at < excluded.erased_at;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_taken := v_taken + v_rows;
    END LOOP;
    RETURN v_taken;
END
$$;

COMMENT ON FUNCTION _wa_take_erasures(jsonb) IS
'Internal: takes the hashes and keys of one organization from an export; returns how many hashes were new, '
'or erased again later than was known.';

CREATE OR REPLACE FUNCTION reapply_wa_erasures(p_exports jsonb DEFAULT '[]')
RETURNS TABLE (organization_id uuid, identities bigint, contacts bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org record;
    v_keeps jsonb;
    v_problem text := 'it is no array';
BEGIN
    IF jsonb_typeof(p_exports) = 'array' THEN
        v_problem := (
            SELECT min(_wa_problem_of_erasures(x.value)) FROM jsonb_array_elements(p_exports) x
        );
    END IF;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('this is no export of erasures: %s', v_problem),
            DETAIL = 'An export is an array of objects, each with organization_id, keys and identities.',
            HINT = 'bin/wa erasures export writes one; bin/wa adopt --erasures FILE takes it.';
    END IF;
    -- What the law says must stay does so here, too.
    SELECT jsonb_object_agg(i.value ->> 'hash', i.value -> 'keep') INTO v_keeps
    FROM jsonb_array_elements(p_exports) x
    CROSS JOIN jsonb_array_elements(x.value -> 'identities') i
    WHERE jsonb_typeof(i.value #> '{keep,consent}') = 'object';
    FOR v_org IN
        SELECT o.id, (
            SELECT sum(_wa_take_erasures(x.value))::bigint FROM jsonb_array_elements(p_exports) x
            WHERE x.value ->> 'organization_id' = o.id::text
        ) AS taken
        FROM wa_organizations o ORDER BY o.id
    LOOP
        organization_id := v_org.id;
        identities := coalesce(v_org.taken, 0);
        -- Known from before the erasure: who came again later is somebody who wants to be known.
        SELECT count(_wa_begin_erasure(
            v_org.id, f.contact_id, 'erased before this database was restored', f.keep
        ))
        INTO contacts
        FROM (
            SELECT DISTINCT ON (contact_id) i.contact_ids[h.n] AS contact_id,
                coalesce(v_keeps -> encode(e.hash, 'hex'), x.keep, '{}') AS keep
            FROM (
                SELECT array_agg(c.kind ORDER BY c.id) AS kinds, array_agg(c.value ORDER BY c.id) AS vals,
                    array_agg(c.contact_id ORDER BY c.id) AS contact_ids,
                    array_agg(c.valid_from ORDER BY c.id) AS valid_froms
                FROM wa_contact_identities c
                WHERE c.organization_id = v_org.id AND c.is_current AND EXISTS (
                    SELECT FROM wa_erased_identities e WHERE e.organization_id = v_org.id
                )
            ) i
            CROSS JOIN LATERAL _wa_identity_hashes(v_org.id, i.kinds, i.vals) h
            JOIN wa_erased_identities e ON e.organization_id = v_org.id AND e.hash = h.hash
                AND e.erased_at > i.valid_froms[h.n]
            LEFT JOIN wa_erasures x ON x.organization_id = v_org.id AND x.id = e.erasure_id
            ORDER BY contact_id, e.erased_at DESC
        ) f;
        IF identities + contacts > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM run_wa_erasures();
END
$$;

COMMENT ON FUNCTION reapply_wa_erasures(jsonb) IS
'Erases again, in a database that was restored from before an erasure, whom an export of erasures (an array '
'of what export_wa_erasures() gives) and the database itself know to have been erased; tells by organization '
'how many hashes were new and how many contacts are erased. bin/wa adopt --erasures FILE calls it.';
