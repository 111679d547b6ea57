-- Which database may send: a restored copy, a clone or a promoted standby has another identity, and does not.

-- A set of one, so that it is inlined: every claim asks.
CREATE OR REPLACE FUNCTION _wa_database_identity()
RETURNS TABLE (system_identifier text, database_oid oid, timeline_id integer, data_directory_mark text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.system_identifier::text, d.oid,
        -- From the write position, not from the control file: that lags behind a promotion.
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer, _wa_data_directory_mark()
    FROM pg_control_system() s
    CROSS JOIN pg_database d
    WHERE d.datname = current_database();
END;

COMMENT ON FUNCTION _wa_database_identity() IS
'Internal: system identifier, database, timeline and data directory of this database.';

CREATE OR REPLACE FUNCTION _wa_require_installation() RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_here record;
    v_known wa_installations;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION USING ERRCODE = 'WA401',
            MESSAGE = 'this server is a standby: nothing is sent from it',
            DETAIL = 'pg_is_in_recovery() is true.',
            HINT = 'Connect to the primary. Once this server has taken over and the original sends no more: '
                'bin/wa adopt.';
    END IF;
    PERFORM FROM wa_installations i
    JOIN _wa_database_identity() h
        USING (system_identifier, database_oid, timeline_id, data_directory_mark);
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT * INTO v_here FROM _wa_database_identity();
    SELECT * INTO v_known FROM wa_installations;
    RAISE EXCEPTION USING ERRCODE = 'WA401',
        MESSAGE = 'this database is not the one that was sending: nothing is sent from it',
        DETAIL = format(
            'recorded: system %s, database %s, timeline %s, directory %s; '
            'found: system %s, database %s, timeline %s, directory %s',
            v_known.system_identifier, v_known.database_oid, v_known.timeline_id, v_known.data_directory_mark,
            v_here.system_identifier, v_here.database_oid, v_here.timeline_id, v_here.data_directory_mark),
        HINT = 'If it is a copy, leave it. If it takes over and the original sends no more: bin/wa adopt.';
END
$$;

COMMENT ON FUNCTION _wa_require_installation() IS
'Internal: raises WA401 unless this database is the one recorded in wa_installations.';

CREATE OR REPLACE FUNCTION _wa_record_installation() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_here record;
    v_known wa_installations;
BEGIN
    SELECT * INTO v_here FROM _wa_database_identity();
    SELECT * INTO v_known FROM wa_installations FOR UPDATE;
    IF FOUND AND v_known.system_identifier = v_here.system_identifier
        AND v_known.database_oid = v_here.database_oid
        AND v_known.timeline_id = v_here.timeline_id
        AND v_known.data_directory_mark = v_here.data_directory_mark
    THEN
        RETURN false;
    END IF;
    INSERT INTO wa_installations (system_identifier, database_oid, timeline_id, data_directory_mark)
    VALUES (v_here.system_identifier, v_here.database_oid, v_here.timeline_id, v_here.data_directory_mark)
    ON CONFLICT (is_current) DO UPDATE SET
        system_identifier = excluded.system_identifier,
        database_oid = excluded.database_oid,
        timeline_id = excluded.timeline_id,
        data_directory_mark = excluded.data_directory_mark,
        adopted_at = excluded.adopted_at,
        adopted_by = excluded.adopted_by;
    -- A link of the chain: whoever compares it with an anchor of before learns where the copy was taken.
    INSERT INTO audit_log (organization_id, event, entity, meta)
    SELECT o.id, 'database_adopted', 'wa_installations', jsonb_build_object(
        'from', to_jsonb(v_known) - ARRAY['is_current', 'is_sending_enabled', 'sending_note'],
        'to', to_jsonb(v_here), 'sealed_position', coalesce(h.position, 0),
        'sealed_hash', encode(h.hash, 'hex')
    )
    FROM wa_organizations o
    LEFT JOIN wa_audit_heads h ON h.organization_id = o.id;
    RETURN true;
END
$$;

COMMENT ON FUNCTION _wa_record_installation() IS
'Internal: records this database as the one that sends; false when it was that already.';

CREATE OR REPLACE FUNCTION set_wa_sending(p_enabled boolean, p_note text DEFAULT NULL) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_installations SET is_sending_enabled = p_enabled,
        sending_note = coalesce(p_note, CASE WHEN p_enabled THEN NULL ELSE 'stopped' END)
        || ' (' || session_user || ')'
$$;

COMMENT ON FUNCTION set_wa_sending(boolean, text) IS
'The kill switch: false stops every claim of every organization, true resumes. Nothing is lost.';

CREATE OR REPLACE FUNCTION _wa_require_version(p_version text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_schema text := (SELECT v.schema_version FROM wa_version() v);
BEGIN
    -- The third part of a version changes nothing between program and schema.
    IF (string_to_array(p_version, '.'))[1:2] = (string_to_array(v_schema, '.'))[1:2] THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'WA402',
        MESSAGE = format('bin/wa is release %s, the schema is release %s: they do not work together',
            p_version, v_schema),
        DETAIL = 'Their first two numbers must be the same.',
        HINT = CASE WHEN p_version ~ '^\d+\.\d+\.'
            AND (string_to_array(split_part(p_version, '+', 1), '.'))[1:2]::int []
                < (string_to_array(v_schema, '.'))[1:2]::int []
            THEN 'Start the newer bin/wa.'
            ELSE 'Install that release on the server, then bin/wa migrate.' END;
END
$$;

COMMENT ON FUNCTION _wa_require_version(text) IS
'Internal: raises WA402 unless a program of that release works with this schema: same first two numbers.';

INSERT INTO wa_installations (system_identifier, database_oid, timeline_id, data_directory_mark)
SELECT i.system_identifier, i.database_oid, i.timeline_id, i.data_directory_mark
FROM _wa_database_identity() i
ON CONFLICT DO NOTHING;
