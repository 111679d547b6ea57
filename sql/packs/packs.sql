-- Packs: tables that a host may want and may have already. migrate_wa() never installs one, it only brings
-- those that are there to its version. A pack's scripts are called
--   packs/PACK/tables….sql    run once; later releases change its tables in their migration
--   packs/PACK/….sql          run again when one of them changed
-- Bodies look the extension's tables up late: nothing of the host may hang on the extension's life.

CREATE OR REPLACE FUNCTION _wa_pack_of(p_script text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(p_script FROM '^packs/([a-z0-9]+)/\w+(?:\.sql)?$');

COMMENT ON FUNCTION _wa_pack_of(text) IS 'Internal: the pack that a script belongs to.';

CREATE OR REPLACE FUNCTION _wa_installed_packs() RETURNS SETOF text
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT DISTINCT p.name FROM wa_packs p ORDER BY p.name;
END;

COMMENT ON FUNCTION _wa_installed_packs() IS 'Internal: the packs that this database has.';

CREATE OR REPLACE FUNCTION _wa_plan_pack(p_name text)
RETURNS TABLE (step text, action text, body text, checksum text, objects text[])
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_version text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'pg_whatsapp');
    v_known text[] := ARRAY(SELECT DISTINCT unnest(p.objects) FROM wa_packs p WHERE p.name = p_name);
    v_taken text;
    v_changed text;
    v_is_api_changed boolean;
BEGIN
    SELECT string_agg(s.name, ', ' ORDER BY s.position) FILTER (
            WHERE s.name LIKE '%/tables%' AND p.version = v_version AND p.checksum <> s.checksum
        ),
        bool_or(p.checksum IS DISTINCT FROM s.checksum OR p.version <> v_version)
            FILTER (WHERE s.name NOT LIKE '%/tables%'),
        _wa_taken_objects(ARRAY(
            SELECT o.object FROM _wa_scripts t CROSS JOIN LATERAL unnest(t.objects) o (object)
            WHERE t.kind = 'pack' AND _wa_pack_of(t.name) = p_name AND o.object <> ALL (v_known)
        ))
    INTO v_changed, v_is_api_changed, v_taken
    FROM _wa_scripts s
    LEFT JOIN wa_packs p ON p.name = p_name AND p.step = s.name
    WHERE s.kind = 'pack' AND _wa_pack_of(s.name) = p_name;

    IF v_taken IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('schema %I already has objects with names that the pack "%s" needs',
                current_schema(), p_name),
            DETAIL = format('Already there: %s.', v_taken),
            HINT = 'Your own take the place of the pack, which you then do not need; else rename or move '
                'them. Nothing was changed.';
    END IF;
    IF v_changed IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the tables of pack "%s" were not made by this build''s scripts', p_name),
            DETAIL = format('Different: %s.', v_changed),
            HINT = 'Scripts of a released pack''s tables never change; while developing, start from an empty '
                'schema.';
    END IF;

    RETURN QUERY
    SELECT s.name, CASE
            WHEN p.step IS NULL THEN 'create'
            WHEN s.name NOT LIKE '%/tables%' AND v_is_api_changed THEN 'replace'
            WHEN p.checksum = s.checksum AND p.version = v_version THEN 'unchanged'
            ELSE 'covered'
        END, s.body, s.checksum, s.objects
    FROM _wa_scripts s
    LEFT JOIN wa_packs p ON p.name = p_name AND p.step = s.name
    WHERE s.kind = 'pack' AND _wa_pack_of(s.name) = p_name
    ORDER BY s.position;
END
$$;

COMMENT ON FUNCTION _wa_plan_pack(text) IS
'Internal: what installing a pack, or bringing it to this version, would do: a row per step with its SQL. '
'No rows for a pack that this release does not have. Refuses what install_wa_pack() would refuse.';

CREATE OR REPLACE FUNCTION _wa_run_pack(p_name text) RETURNS TABLE (step text, action text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
    v_step record;
BEGIN
    PERFORM set_config('wa.objects_before', _wa_object_ids(), true);
    FOR v_step IN SELECT * FROM _wa_plan_pack(p_name) LOOP
        IF v_step.action IN ('create', 'replace') THEN
            EXECUTE v_step.body;
        END IF;
        IF v_step.action <> 'unchanged' THEN
            INSERT INTO wa_packs AS p (name, step, version, checksum, objects)
            SELECT p_name, v_step.step, e.extversion, v_step.checksum, v_step.objects
            FROM pg_extension e WHERE e.extname = 'pg_whatsapp'
            ON CONFLICT (name, step) DO UPDATE
            SET version = excluded.version, checksum = excluded.checksum, objects = excluded.objects,
                installed_at = excluded.installed_at, installed_by = excluded.installed_by;
        END IF;
        step := v_step.step;
        action := v_step.action;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_run_pack(text) IS
'Internal: does what _wa_plan_pack() says and records it. The caller holds the lock of migrate_wa().';

-- Definer: a wa_admin installs without CREATE on the schema, and the pack's objects belong to the owner of
-- the rest, with whose rights their functions have to work. It runs only scripts of the extension, which
-- nobody but the extension can write.
CREATE OR REPLACE FUNCTION install_wa_pack(p_name text) RETURNS TABLE (step text, action text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '5s'
AS $$
#variable_conflict use_column
DECLARE
    v_packs text;
    v_version record;
BEGIN
    PERFORM _wa_lock_migration();
    SELECT * INTO v_version FROM wa_version();
    IF v_version.extension_version <> v_version.schema_version THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the schema is of version %s, the extension of %s', v_version.schema_version,
                v_version.extension_version),
            DETAIL = 'Packs are made for one version of the schema.',
            HINT = 'SELECT * FROM migrate_wa() first; it also brings installed packs to the new version.';
    END IF;
    RETURN QUERY SELECT * FROM _wa_run_pack(p_name);
    IF NOT FOUND THEN
        SELECT string_agg(DISTINCT _wa_pack_of(s.name), ', ') INTO v_packs
        FROM _wa_scripts s WHERE s.kind = 'pack';
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('there is no pack "%s"', p_name),
            DETAIL = 'A pack is a folder of sql/packs in the sources of this release.',
            HINT = format('There are: %s.', v_packs);
    END IF;
END
$$;

COMMENT ON FUNCTION install_wa_pack(text) IS
'Creates the tables and functions of an optional pack in the extension''s schema, never over an object that '
'the host already has; answers with a row per step. All or nothing, safe to repeat; migrate_wa() keeps the '
'pack up to date from then on. For wa_admin.';
