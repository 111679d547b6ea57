-- The schema runner. The build stores the rooms' files and migrations/ as rows of _wa_scripts; the functions
-- below turn them into ordinary tables, views and functions of whoever calls migrate_wa(). Of kind schema are
-- the files ROOM/tables….sql: what they make holds data, is made once and changed by migrations only.

CREATE FUNCTION _wa_taken_objects(p_objects text [])
RETURNS text
LANGUAGE sql
STABLE
SET search_path FROM CURRENT
AS $taken$
    SELECT string_agg(format('%s %s', o.kind, quote_ident(o.name)), ', ' ORDER BY o.kind DESC, o.name)
    FROM (
        SELECT DISTINCT split_part(x.object, ' ', 1) AS kind, split_part(x.object, ' ', 2) AS name
        FROM unnest(p_objects) AS x (object)
    ) AS o
    WHERE CASE o.kind
        WHEN 'relation' THEN to_regclass(format('%I.%I', current_schema(), o.name)) IS NOT NULL
        WHEN 'type' THEN to_regtype(format('%I.%I', current_schema(), o.name)) IS NOT NULL
        ELSE EXISTS (
            SELECT FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
                AND p.proname = o.name
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_depend AS d
                    INNER JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
                    WHERE e.extname = 'pg_whatsapp'
                        AND d.classid = 'pg_catalog.pg_proc'::regclass
                        AND d.objid = p.oid
                        AND d.refclassid = 'pg_catalog.pg_extension'::regclass
                        AND d.deptype = 'e'
                )
        )
    END
$taken$;
COMMENT ON FUNCTION _wa_taken_objects(text []) IS
'Internal: which of these objects, each a kind and a name, the schema has already and from elsewhere.';


CREATE FUNCTION _wa_lock_migration()
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
AS $lock$
BEGIN
    PERFORM set_config(
        'lock_timeout', coalesce(nullif(current_setting('wa.lock_timeout', true), ''), '5s'), true
    );
    PERFORM pg_advisory_xact_lock(hashtextextended('pg_whatsapp migrate_wa', 0));
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION USING
            ERRCODE = 'lock_not_available',
            MESSAGE = 'another migrate_wa() is at work in this database',
            DETAIL = format('Waited for %s.', current_setting('lock_timeout')),
            HINT = 'Call again when its transaction has ended; wa.lock_timeout says how long to wait.';
END;
$lock$;
COMMENT ON FUNCTION _wa_lock_migration() IS
'Internal: waits for its turn to change the schema, up to wa.lock_timeout, which holds from then on.';


CREATE FUNCTION _wa_object_ids()
RETURNS text
LANGUAGE sql
STABLE
SET search_path FROM CURRENT
AS $ids$
    SELECT coalesce(string_agg(o.oid::text, ','), '')
    FROM (
        SELECT p.oid, p.pronamespace AS namespace FROM pg_catalog.pg_proc AS p
        UNION ALL
        SELECT c.oid, c.relnamespace FROM pg_catalog.pg_class AS c
    ) AS o
    WHERE o.namespace = quote_ident(current_schema())::regnamespace
$ids$;
COMMENT ON FUNCTION _wa_object_ids() IS
'Internal: the functions and relations of the schema, for wa.objects_before.';


CREATE FUNCTION plan_wa_migration()
RETURNS TABLE (step text, action text, body text, checksum text, objects text [])
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $plan$
#variable_conflict use_column
DECLARE
    v_schema  name := current_schema();
    v_target  text := (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_whatsapp');
    v_current text;
    v_next    text;
    v_changed text;
    v_taken   text;
    v_known   text [] := ARRAY[]::text [];
BEGIN
    IF to_regclass(format('%I.wa_migrations', v_schema)) IS NOT NULL THEN
        SELECT version INTO v_current
        FROM wa_migrations
        ORDER BY string_to_array(version, '.')::int [] DESC
        LIMIT 1;
        v_known := ARRAY(SELECT DISTINCT unnest(objects) FROM wa_migrations);
    END IF;

    IF string_to_array(v_current, '.')::int [] > string_to_array(v_target, '.')::int [] THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('schema version %s is newer than the extension''s %s', v_current, v_target),
            DETAIL = 'The extension''s scripts know nothing of what the schema has.',
            HINT = 'Install the newer files, then ALTER EXTENSION pg_whatsapp UPDATE.';
    END IF;

    -- CREATE OR REPLACE would silently take over an object of the host that has one of our names.
    v_taken := _wa_taken_objects(ARRAY(
        SELECT DISTINCT x.object
        FROM _wa_scripts AS s
        CROSS JOIN LATERAL unnest(s.objects) AS x (object)
        WHERE s.kind IN ('schema', 'api') AND x.object <> ALL (v_known)
    ));
    IF v_taken IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_object',
            MESSAGE = format('schema %I already has objects with names that pg_whatsapp needs', v_schema),
            DETAIL = format('Already there: %s.', v_taken),
            HINT = 'Rename or move them, or give the extension a schema of its own. Nothing was changed.';
    END IF;

    IF v_current IS NULL THEN
        RETURN QUERY
        SELECT s.name, 'create', s.body, s.checksum, s.objects
        FROM _wa_scripts AS s
        WHERE s.kind IN ('schema', 'api')
        ORDER BY s.position;
        RETURN;
    END IF;

    IF v_current = v_target THEN
        SELECT string_agg(coalesce(s.name, m.step), ', ')
        INTO v_changed
        FROM (SELECT * FROM _wa_scripts WHERE kind = 'schema') AS s
        FULL JOIN (SELECT * FROM wa_migrations WHERE version = v_target AND step ~ '/tables\w*\.sql$') AS m
            ON m.step = s.name
        WHERE s.checksum IS DISTINCT FROM m.checksum;
        IF v_changed IS NOT NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('the tables of version %s were not made by this build''s scripts', v_target),
                DETAIL = format('Different: %s.', v_changed),
                HINT = 'Released schema scripts never change: raise the version, write migrations/A--B.sql. '
                    'While developing, start from an empty schema.';
        END IF;
        RETURN QUERY
        SELECT
            s.name, CASE WHEN s.kind = 'api' AND c.is_changed THEN 'replace' ELSE 'unchanged' END,
            s.body, s.checksum, s.objects
        FROM _wa_scripts AS s
        CROSS JOIN (
            SELECT EXISTS (
                SELECT
                FROM _wa_scripts AS a
                LEFT JOIN wa_migrations AS m ON m.version = v_target AND m.step = a.name
                WHERE a.kind = 'api' AND a.checksum IS DISTINCT FROM m.checksum
            ) OR EXISTS (
                -- DROP EXTENSION ... CASCADE takes what rests on the extension's own functions along.
                SELECT
                FROM _wa_scripts AS a
                CROSS JOIN LATERAL unnest(a.objects) AS x (object)
                WHERE a.kind = 'api' AND CASE split_part(x.object, ' ', 1)
                    WHEN 'relation'
                        THEN to_regclass(format('%I.%I', v_schema, split_part(x.object, ' ', 2))) IS NULL
                    WHEN 'function' THEN NOT EXISTS (
                        SELECT FROM pg_catalog.pg_proc AS p
                        WHERE p.pronamespace = quote_ident(v_schema)::regnamespace
                            AND p.proname = split_part(x.object, ' ', 2)
                    )
                END
            ) AS is_changed
        ) AS c
        WHERE s.kind IN ('schema', 'api')
        ORDER BY s.position;
    ELSE
        WHILE v_current <> v_target LOOP
            SELECT
                s.name, 'migrate', s.body, s.checksum, s.objects,
                split_part(split_part(s.name, '--', 2), '.sql', 1)
            INTO step, action, body, checksum, objects, v_next
            FROM _wa_scripts AS s
            WHERE s.kind = 'migration' AND s.name LIKE 'migrations/' || v_current || '--%';
            IF NOT FOUND THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = format('there is no migration from version %s to %s', v_current, v_target),
                    DETAIL = format('The extension is of version %s.', v_target),
                    HINT = 'Upgrade by way of a release that still has it.';
            END IF;
            RETURN NEXT;
            v_current := v_next;
        END LOOP;
        RETURN QUERY
        SELECT s.name, CASE s.kind WHEN 'api' THEN 'replace' ELSE 'covered' END, s.body, s.checksum, s.objects
        FROM _wa_scripts AS s
        WHERE s.kind IN ('schema', 'api')
        ORDER BY s.position;
    END IF;

    -- Packs that are installed are kept up to date; the functions that know them come with the schema.
    IF to_regclass(format('%I.wa_packs', v_schema)) IS NOT NULL THEN
        RETURN QUERY
        SELECT p.* FROM _wa_installed_packs() AS i (name) CROSS JOIN LATERAL _wa_plan_pack(i.name) AS p;
    END IF;
END;
$plan$;
COMMENT ON FUNCTION plan_wa_migration() IS
'What migrate_wa() would do now: a row per step with its SQL. Refuses what migrate_wa() would refuse; changes
nothing.';


CREATE FUNCTION migrate_wa()
RETURNS TABLE (step text, action text)
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
SET client_min_messages = warning
SET lock_timeout = '5s'
AS $migrate$
#variable_conflict use_column
DECLARE
    v_schema name := current_schema();
    v_target text := (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_whatsapp');
    v_step   record;
    v_detail text;
BEGIN
    PERFORM _wa_require_safe_schema();
    IF NOT pg_has_role('wa_admin', 'USAGE') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('%I may not call the functions that the extension brings', current_user),
            DETAIL = 'What is created would be owned by it, and call them with its rights.',
            HINT = format('As a superuser: GRANT wa_admin TO %I; then call migrate_wa() again.', current_user);
    END IF;
    PERFORM _wa_lock_migration();
    PERFORM set_config('wa.objects_before', _wa_object_ids(), true);

    FOR v_step IN SELECT * FROM plan_wa_migration() AS p WHERE p.step NOT LIKE 'packs/%/%' LOOP
        IF v_step.action IN ('create', 'migrate', 'replace') THEN
            BEGIN
                EXECUTE v_step.body;
            EXCEPTION
                -- Never CASCADE: what is not ours is named and left alone.
                WHEN dependent_objects_still_exist THEN
                    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
                    RAISE EXCEPTION USING
                        ERRCODE = 'dependent_objects_still_exist',
                        MESSAGE = format('%s changes something that other objects need', v_step.step),
                        DETAIL = v_detail,
                        HINT = 'Drop them, call migrate_wa() again, create them again. Nothing was changed.';
            END;
        END IF;
        step := v_step.step;
        action := v_step.action;
        RETURN NEXT;
        CONTINUE WHEN v_step.action = 'unchanged';

        IF to_regclass(format('%I.wa_migrations', v_schema)) IS NULL THEN
            CREATE TABLE wa_migrations (
                version text NOT NULL,
                step text NOT NULL,
                checksum text NOT NULL,
                objects text [] NOT NULL,
                applied_at timestamptz NOT NULL,
                applied_by name NOT NULL,
                CONSTRAINT wa_migrations_version_step_pkey PRIMARY KEY (version, step)
            );
            COMMENT ON TABLE wa_migrations IS 'What migrate_wa() did: a row per version and step.';
            COMMENT ON COLUMN wa_migrations.version IS 'Version of the extension that the step belongs to.';
            COMMENT ON COLUMN wa_migrations.step IS 'Path of the script in the sources.';
            COMMENT ON COLUMN wa_migrations.checksum IS 'SHA-256 of the script.';
            COMMENT ON COLUMN wa_migrations.objects IS 'What the script creates: kind and name.';
            COMMENT ON COLUMN wa_migrations.applied_at IS 'When the step was run last.';
            COMMENT ON COLUMN wa_migrations.applied_by IS 'The login that ran it.';
        END IF;
        INSERT INTO wa_migrations AS m (version, step, checksum, objects, applied_at, applied_by)
        VALUES (
            CASE v_step.action
                WHEN 'migrate' THEN split_part(split_part(v_step.step, '--', 2), '.sql', 1) ELSE v_target
            END,
            v_step.step, v_step.checksum, v_step.objects, clock_timestamp(), session_user
        )
        ON CONFLICT (version, step) DO UPDATE
        SET checksum = excluded.checksum, objects = excluded.objects,
            applied_at = excluded.applied_at, applied_by = excluded.applied_by;
    END LOOP;

    -- By the functions as they are now, not as they were when the plan was made.
    IF to_regclass(format('%I.wa_packs', v_schema)) IS NOT NULL THEN
        RETURN QUERY
        SELECT p.* FROM _wa_installed_packs() AS i (name) CROSS JOIN LATERAL _wa_run_pack(i.name) AS p;
    END IF;

    -- The group roles must be able to look into the schema; only its owner can let them.
    IF EXISTS (
        SELECT
        FROM unnest(
            ARRAY['wa_admin', 'wa_app', 'wa_dispatcher', 'wa_receiver', 'wa_analyst', 'wa_api']
        ) AS r (name)
        WHERE NOT has_schema_privilege(r.name, v_schema, 'USAGE')
    ) THEN
        IF pg_has_role((SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = v_schema), 'USAGE') THEN
            EXECUTE format(
                'GRANT USAGE ON SCHEMA %I TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst, wa_api',
                v_schema
            );
        ELSE
            RAISE WARNING USING
                MESSAGE = format('the wa_ roles have no USAGE on schema %I and you do not own it', v_schema),
                HINT = format(
                    'Its owner should run: GRANT USAGE ON SCHEMA %I TO wa_admin, wa_app, wa_dispatcher, '
                    'wa_receiver, wa_analyst, wa_api;', v_schema
                );
        END IF;
    END IF;
END;
$migrate$;
COMMENT ON FUNCTION migrate_wa() IS
'Creates the tables, views and functions of pg_whatsapp in the extension''s schema, or brings them to the
version of the extension; answers with a row per step. All or nothing, one at a time, safe to repeat, never
CASCADE. Waits for locks up to wa.lock_timeout (5 s). The objects belong to the caller: a superuser, or a member
of wa_admin with CREATE on the schema.';


CREATE FUNCTION wa_version()
RETURNS TABLE (extension_version text, schema_version text)
LANGUAGE plpgsql
STABLE
SET search_path FROM CURRENT
AS $version$
#variable_conflict use_column
BEGIN
    SELECT extversion INTO extension_version FROM pg_catalog.pg_extension WHERE extname = 'pg_whatsapp';
    IF to_regclass(format('%I.wa_migrations', current_schema())) IS NOT NULL THEN
        SELECT version INTO schema_version
        FROM wa_migrations
        ORDER BY string_to_array(version, '.')::int [] DESC
        LIMIT 1;
    END IF;
    RETURN NEXT;
END;
$version$;
COMMENT ON FUNCTION wa_version() IS
'The version of the installed extension and that of the schema, which is NULL before migrate_wa().';
