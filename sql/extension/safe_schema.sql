-- Whether it is safe to install into a schema, and to change what is there.

-- Whoever may create in the schema can put a function there that fits a call of ours better than PostgreSQL's
-- own, and has it run with the rights of the caller, or of the owner. Nothing of it is looked up here.
CREATE FUNCTION _wa_require_safe_schema()
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $safe$
DECLARE
    v_schema  oid;
    v_name    name;
    v_trusted oid [];
    v_found   text;
BEGIN
    SELECT n.oid, n.nspname, ARRAY[
        n.nspowner, e.extowner, d.datdba, quote_ident(current_user)::regrole,
        quote_ident(session_user)::regrole
    ]
    INTO v_schema, v_name, v_trusted
    FROM pg_extension AS e
    INNER JOIN pg_namespace AS n ON n.oid = e.extnamespace
    INNER JOIN pg_database AS d ON d.datname = current_database()
    WHERE e.extname = 'pg_whatsapp';

    IF EXISTS (
        SELECT
        FROM pg_namespace AS n
        CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
        WHERE n.oid = v_schema AND a.grantee = 0 AND a.privilege_type = 'CREATE'
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('everybody may create objects in schema %I', v_name),
            DETAIL = 'A function planted there would run with the rights of whoever calls ours.',
            HINT = format(
                'REVOKE CREATE ON SCHEMA %I FROM PUBLIC; or give the extension a schema of its own.', v_name
            );
    END IF;

    SELECT string_agg(o.what, ', ' ORDER BY o.what)
    INTO v_found
    FROM (
        SELECT p.oid::regprocedure::text AS what, p.proowner AS owner, 'pg_proc'::regclass AS class, p.oid
        FROM pg_proc AS p
        WHERE p.pronamespace = v_schema
            AND EXISTS (
                SELECT FROM pg_proc AS c
                WHERE c.pronamespace = 'pg_catalog'::regnamespace AND c.proname = p.proname
            )
        UNION ALL
        SELECT 'operator ' || o.oid::regoperator::text, o.oprowner, 'pg_operator'::regclass, o.oid
        FROM pg_operator AS o
        WHERE o.oprnamespace = v_schema
        UNION ALL
        SELECT 'relation ' || c.oid::regclass::text, c.relowner, 'pg_class'::regclass, c.oid
        FROM pg_class AS c
        WHERE c.relnamespace = v_schema AND c.relname = 'wa_migrations'
    ) AS o
    WHERE o.owner <> ALL (v_trusted)
        AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = o.owner)
        AND NOT EXISTS (
            SELECT FROM pg_depend AS d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'
        );
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format(
                'schema %I has objects of others that ours could take for PostgreSQL''s', v_name
            ),
            DETAIL = format('Found: %s.', v_found),
            HINT = 'Drop them, move them to another schema, or let the owner of the schema own them.';
    END IF;

    SELECT string_agg(DISTINCT a.grantee::regrole::text, ', ')
    INTO v_found
    FROM pg_namespace AS n
    CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
    WHERE n.oid = v_schema AND a.privilege_type = 'CREATE' AND a.grantee <> ALL (v_trusted);
    IF v_found IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = format('%s may create objects in schema %I', v_found, v_name),
            DETAIL = 'A function planted there would run with the rights of whoever calls ours.',
            HINT = 'REVOKE CREATE, unless they are trusted as its owner is.';
    END IF;
END;
$safe$;
COMMENT ON FUNCTION _wa_require_safe_schema() IS
'Internal: refuses a schema in which everybody may create, or somebody has planted what our calls would
find (42501); names roles that may create there.';
