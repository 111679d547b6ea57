-- The rights that sql/grants states, and those that came later by other hands.

CREATE FUNCTION _wa_stated_rights(p_matrix text)
RETURNS TABLE (kind text, name text, column_name text, role_name text, privilege text)
LANGUAGE sql
STABLE
SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $stated$
    WITH line AS (
        SELECT m.found
        FROM regexp_split_to_table(p_matrix, '\n') AS l (text)
        CROSS JOIN LATERAL regexp_match(
            l.text, '^(\w+)(\(\))?(?:\.(\w+))?\s+(?:(public)|([rawdWX]+|\.)'
            || repeat('\s+([rawdWX]+|\.)', 4) || '(?:\s+([rawdWX]+|\.))?)\s*$'
        ) AS m (found)
        WHERE m.found IS NOT NULL
    )
    SELECT CASE WHEN l.found [2] IS NULL THEN 'TABLE' ELSE 'FUNCTION' END, l.found [1],
        coalesce(l.found [3], a.attname), r.role_name,
        CASE p.letter WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'd' THEN 'DELETE'
            WHEN 'X' THEN 'EXECUTE' ELSE 'UPDATE' END
    FROM line AS l
    CROSS JOIN LATERAL unnest(
        ARRAY['PUBLIC', 'wa_admin', 'wa_app', 'wa_dispatcher', 'wa_receiver', 'wa_analyst', 'wa_api'],
        ARRAY[CASE WHEN l.found [4] IS NOT NULL THEN 'X' END] || l.found [5:10]
    ) AS r (role_name, letters)
    CROSS JOIN LATERAL regexp_split_to_table(r.letters, '') AS p (letter)
    LEFT JOIN pg_catalog.pg_class AS c
        ON p.letter = 'W' AND c.relnamespace = quote_ident(current_schema())::regnamespace
            AND c.relname = l.found [1]
    LEFT JOIN pg_catalog.pg_attribute AS a
        ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE p.letter <> '.' AND (p.letter <> 'W' OR a.attname IS NOT NULL)
$stated$;
COMMENT ON FUNCTION _wa_stated_rights(text) IS
'Internal: a matrix of objects and roles (sql/grants) as one row a right; a right on a whole table has no
column.';


CREATE FUNCTION _wa_give_rights(p_matrix text)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $rights$
DECLARE
    v_schema    regnamespace := quote_ident(current_schema())::regnamespace;
    v_before    oid [] := string_to_array(current_setting('wa.objects_before', true), ',');
    v_statement text;
BEGIN
    FOR v_statement IN
        WITH named AS (
            SELECT x.object FROM _wa_scripts AS s CROSS JOIN LATERAL unnest(s.objects) AS x (object)
            UNION
            SELECT 'relation wa_migrations'
        ),
        ours AS (
            SELECT 'FUNCTION' AS kind, p.oid, p.proname AS name, p.oid::regprocedure::text AS full_name,
                coalesce(p.proacl, acldefault('f', p.proowner)) AS acl, p.proowner AS owner
            FROM pg_catalog.pg_proc AS p
            LEFT JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_proc'::regclass
                AND d.objid = p.oid AND d.deptype = 'e'
            LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
            WHERE p.pronamespace = v_schema AND p.prokind = 'f' AND pg_has_role(p.proowner, 'USAGE')
                -- Of two functions of one name ours is the one that this transaction has made or replaced.
                AND coalesce(
                    e.extname = 'pg_whatsapp',
                    'function ' || p.proname IN (SELECT n.object FROM named AS n) AND age(p.xmin) <= 0
                )
            UNION ALL
            SELECT 'TABLE', c.oid, c.relname, c.oid::regclass::text, c.relacl, c.relowner
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = v_schema AND c.relkind IN ('r', 'p', 'v', 'm')
                AND pg_has_role(c.relowner, 'USAGE')
                AND 'relation ' || c.relname IN (SELECT n.object FROM named AS n)
        ),
        owned AS (
            SELECT o.* FROM ours AS o
            UNION ALL
            SELECT 'SEQUENCE', c.oid, c.relname, c.oid::regclass::text, c.relacl, c.relowner
            FROM ours AS o
            INNER JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::regclass
                AND d.refobjid = o.oid AND d.deptype IN ('a', 'i') AND d.classid = d.refclassid
            INNER JOIN pg_catalog.pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
            WHERE o.kind = 'TABLE'
        ),
        given AS (
            SELECT o.kind, o.full_name, r.role_name, string_agg(
                r.privilege || coalesce(' (' || quote_ident(r.column_name) || ')', ''), ', '
                ORDER BY r.column_name, r.privilege
            ) AS privileges
            FROM _wa_stated_rights(p_matrix) AS r
            INNER JOIN ours AS o ON o.kind = r.kind AND o.name = r.name
            GROUP BY o.kind, o.full_name, r.role_name, r.column_name IS NULL
        )
        -- Taken first; the order of the words is the order of the statements.
        SELECT t.statement
        FROM (
            SELECT 1 AS step, format(
                'REVOKE ALL ON %s %s FROM %s', o.kind, string_agg(DISTINCT o.full_name, ', '),
                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            ) AS statement
            FROM owned AS o
            CROSS JOIN LATERAL aclexplode(o.acl) AS a
            WHERE o.oid <> ALL (v_before) AND a.grantee <> o.owner
            GROUP BY o.kind, a.grantee
            UNION ALL
            SELECT 2, format(
                'GRANT %s ON %s %s TO %s', g.privileges, g.kind, string_agg(g.full_name, ', '), g.role_name
            )
            FROM given AS g
            GROUP BY g.privileges, g.kind, g.role_name
        ) AS t
        ORDER BY t.step
    LOOP
        EXECUTE v_statement;
    END LOOP;
END;
$rights$;
COMMENT ON FUNCTION _wa_give_rights(text) IS
'Internal: gives the rights of a matrix of objects and roles (sql/grants), after it has taken what PUBLIC and
default privileges gave on our objects that are not among wa.objects_before. Takes nothing else.';


CREATE FUNCTION get_wa_later_grants()
RETURNS TABLE (object text, role_name text, privilege text)
LANGUAGE sql
STABLE
SET search_path FROM CURRENT
AS $later$
    WITH ours AS (
        SELECT DISTINCT split_part(x.object, ' ', 1) AS kind, split_part(x.object, ' ', 2) AS name
        FROM wa_migrations AS m
        CROSS JOIN LATERAL unnest(m.objects) AS x (object)
    ),
    acl AS (
        SELECT 'TABLE' AS kind, c.relname AS name, NULL::name AS column_name,
            c.oid::regclass::text AS full_name, c.relowner AS owner, c.relacl AS items
        FROM ours AS o
        INNER JOIN pg_catalog.pg_class AS c ON o.kind = 'relation' AND c.relname = o.name
        WHERE c.relnamespace = quote_ident(current_schema())::regnamespace
        UNION ALL
        SELECT 'TABLE', c.relname, a.attname, c.oid::regclass || '.' || quote_ident(a.attname), c.relowner,
            a.attacl
        FROM ours AS o
        INNER JOIN pg_catalog.pg_class AS c ON o.kind = 'relation' AND c.relname = o.name
        INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
        WHERE c.relnamespace = quote_ident(current_schema())::regnamespace AND NOT a.attisdropped
        UNION ALL
        SELECT 'FUNCTION', p.proname, NULL, p.oid::regprocedure::text, p.proowner,
            coalesce(p.proacl, acldefault('f', p.proowner))
        FROM ours AS o
        INNER JOIN pg_catalog.pg_proc AS p ON o.kind = 'function' AND p.proname = o.name
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace
    ),
    granted AS (
        SELECT a.kind, a.name, a.column_name, a.full_name, e.privilege_type::text AS privilege,
            CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(e.grantee)::text END AS role_name
        FROM acl AS a
        CROSS JOIN LATERAL aclexplode(a.items) AS e
        WHERE e.grantee <> a.owner
    )
    SELECT g.full_name, g.role_name, g.privilege
    FROM granted AS g
    EXCEPT
    SELECT g.full_name, g.role_name, g.privilege
    FROM _wa_scripts AS s
    CROSS JOIN LATERAL _wa_stated_rights(s.body) AS r
    INNER JOIN granted AS g
        ON g.kind = r.kind AND g.name = r.name AND g.role_name = r.role_name
            AND g.privilege = r.privilege AND g.column_name IS NOT DISTINCT FROM r.column_name
    WHERE s.name = 'grants' OR s.name LIKE '%/grants'
    ORDER BY 1, 2, 3
$later$;
COMMENT ON FUNCTION get_wa_later_grants() IS
'Rights on tables, views, columns and functions of pg_whatsapp that somebody has granted beyond those that it
comes with. migrate_wa() leaves them; whoever has them, sees or does what its roles do not.';
