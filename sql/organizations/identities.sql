-- Numbers for rows that stay unique when tenants are spread over several databases: each installation counts
-- from an offset of its own, so that a tenant's rows can move to another without new numbers.

-- 2^40 rows of a table for each of 2^13 installations: every number stays below 2^53, exact in JSON, too.
CREATE OR REPLACE FUNCTION _wa_identity_start(p_installation integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (p_installation::bigint << 40) + 1;

COMMENT ON FUNCTION _wa_identity_start(integer) IS
'Internal: the first number that an installation gives to a row.';

CREATE OR REPLACE FUNCTION _wa_identity_sequences()
RETURNS TABLE (sequence_name name, start_value bigint, is_used boolean)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT q.relname, s.seqstart, pg_sequence_last_value(s.seqrelid) IS NOT NULL
    FROM pg_sequence s
    JOIN pg_class q ON q.oid = s.seqrelid
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
        AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
    JOIN pg_class c ON c.oid = d.refobjid AND c.relnamespace = quote_ident(current_schema())::regnamespace
    WHERE 'relation ' || c.relname IN (SELECT unnest(m.objects) FROM wa_migrations m)
    ORDER BY 1
$$;

COMMENT ON FUNCTION _wa_identity_sequences() IS
'Internal: the sequences that number the rows of our tables, where they start and whether they were used.';

CREATE OR REPLACE FUNCTION _wa_start_sequences(p_installation integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_name name;
BEGIN
    FOR v_name IN
        SELECT s.sequence_name FROM _wa_identity_sequences() s
        WHERE NOT s.is_used AND s.start_value <> _wa_identity_start(p_installation)
    LOOP
        EXECUTE format(
            'ALTER SEQUENCE %I START WITH %s RESTART', v_name, _wa_identity_start(p_installation)
        );
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_start_sequences(integer) IS
'Internal: makes all sequences that were not used yet count from the start of an installation.';

CREATE OR REPLACE FUNCTION get_wa_installation_number() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT (max(s.start_value) >> 40)::integer FROM _wa_identity_sequences() s
$$;

COMMENT ON FUNCTION get_wa_installation_number() IS
'The number of this installation among several that tenants may move between; 0 unless it was set.';

-- Definer: only the owner of a sequence may alter it.
CREATE OR REPLACE FUNCTION set_wa_installation_number(p_number integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_used text;
BEGIN
    IF p_number IS NULL OR p_number NOT BETWEEN 0 AND 8191 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an installation cannot have this number',
            DETAIL = format('Given: %s.', coalesce(p_number::text, 'NULL')),
            HINT = 'Give one from 0 to 8191 that none of your other installations has.';
    END IF;
    SELECT string_agg(s.sequence_name, ', ') INTO v_used FROM _wa_identity_sequences() s WHERE s.is_used;
    IF v_used IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'rows of this installation have numbers already',
            DETAIL = format('Used: %s.', v_used),
            HINT = 'The number is set right after migrate_wa(), before anything is registered or queued.';
    END IF;
    PERFORM _wa_start_sequences(p_number);
END
$$;

COMMENT ON FUNCTION set_wa_installation_number(integer) IS
'Numbers this installation, 0 to 8191, before its first use: rows are counted from the number times 2^40 on, '
'so that tenants can move between installations without new numbers. For wa_admin.';

-- Tables that an upgrade has added count from there, too.
SELECT _wa_start_sequences(get_wa_installation_number());
