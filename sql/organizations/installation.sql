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

CREATE OR REPLACE FUNCTION adopt_wa_database(p_pending text DEFAULT 'fail')
RETURNS TABLE (action text, messages bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_here record;
    v_known wa_installations;
BEGIN
    IF p_pending NOT IN ('fail', 'keep') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('p_pending must be fail or keep, not "%s"', p_pending),
            DETAIL = 'It says what becomes of messages that were queued when this copy was taken.',
            HINT = 'keep is right only when the original stopped sending before this copy was taken.';
    END IF;
    SELECT * INTO v_here FROM _wa_database_identity();
    SELECT * INTO v_known FROM wa_installations FOR UPDATE;
    IF FOUND AND v_known.system_identifier = v_here.system_identifier
        AND v_known.database_oid = v_here.database_oid
        AND v_known.timeline_id = v_here.timeline_id
        AND v_known.data_directory_mark = v_here.data_directory_mark
    THEN
        action := 'nothing to do: this database is the one that sends';
        messages := 0;
        RETURN NEXT;
        RETURN;
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

    -- Those of the original: here none of them lives.
    UPDATE wa_dispatchers SET stopped_at = clock_timestamp() WHERE stopped_at IS NULL;

    -- What was being sent: an echo may still settle it here; without one it fails as outcome_unknown.
    UPDATE wa_queue_inflight i
    SET is_unknown = true,
        deadline_at = clock_timestamp()
        + (SELECT o.unknown_grace FROM wa_organizations o WHERE o.id = i.organization_id);
    GET DIAGNOSTICS messages = ROW_COUNT;
    action := 'in flight when copied: outcome unknown';
    RETURN NEXT;

    -- What was waiting may have been sent by the original since: sending it again is for a person to decide.
    IF p_pending = 'fail' THEN
        PERFORM _wa_fail_messages(
            d.organization_id, array_agg(d.queue_id), 'in_doubt',
            'queued before this database took over; the original may have sent it'
        )
        FROM wa_queue_due d WHERE d.due_at <= clock_timestamp() OR d.hold_reason IS NOT NULL
        GROUP BY d.organization_id;
        SELECT count(*) INTO messages FROM wa_outbound_queue q
        WHERE q.error_code = 'in_doubt' AND q.processed_at >= now();
        action := 'due when adopted: failed as in_doubt, retry_wa_messages() sends them';
        RETURN NEXT;
    END IF;
END
$$;

COMMENT ON FUNCTION adopt_wa_database(text) IS
'Makes this database the one that sends, after a restore, clone or promotion, and marks what the original '
'may have sent: rows in flight become outcome unknown, rows that are due fail as in_doubt (or stay pending '
'with ''keep'').';

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

CREATE OR REPLACE FUNCTION start_wa_dispatcher(
    p_dispatcher_id uuid, p_host text, p_pid integer, p_version text
)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_version(p_version);
    PERFORM _wa_require_installation();
    INSERT INTO wa_dispatchers (id, host, pid, version) VALUES (p_dispatcher_id, p_host, p_pid, p_version)
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), stopped_at = NULL;
    DELETE FROM wa_dispatchers WHERE seen_at < clock_timestamp() - interval '7 days';
    RETURN jsonb_build_object('poll_ms', 1000, 'start_within_ms', 800, 'wake_channel', 'wa_queue');
END
$$;

COMMENT ON FUNCTION start_wa_dispatcher(uuid, text, integer, text) IS
'Registers a dispatcher process and tells it its settings; raises WA401 in a database that may not send, '
'WA402 for a program of another release than the schema.';

CREATE OR REPLACE FUNCTION stop_wa_dispatcher(p_dispatcher_id uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_dispatchers SET stopped_at = clock_timestamp() WHERE id = p_dispatcher_id
$$;

COMMENT ON FUNCTION stop_wa_dispatcher(uuid) IS 'Records that a dispatcher ended in order.';

-- The gate. Awake dispatchers share the lock; one that sleeps needs it alone, and gets it only when nobody is
-- awake and no producer is between its INSERT and its COMMIT. Producers try to share it until commit and
-- NOTIFY only when refused: no wake-up is lost, and NOTIFY serialises no commits while anyone is awake.
CREATE OR REPLACE FUNCTION _wa_gate() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 8247316640137322855::bigint;

COMMENT ON FUNCTION _wa_gate() IS
'Internal: key of the advisory lock that says whether a dispatcher is awake.';

CREATE OR REPLACE FUNCTION wake_wa_dispatcher() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_unlock_all();
    PERFORM pg_advisory_lock_shared(_wa_gate());
END
$$;

COMMENT ON FUNCTION wake_wa_dispatcher() IS
'Declares the session''s dispatcher awake: producers need not notify. Gives up the session''s other advisory '
'locks.';

CREATE OR REPLACE FUNCTION sleep_wa_dispatcher() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_unlock_all();
    RETURN pg_try_advisory_lock(_wa_gate());
END
$$;

COMMENT ON FUNCTION sleep_wa_dispatcher() IS
'True: producers will NOTIFY wa_queue from now on; look once more, then wait. False: poll.';

INSERT INTO wa_installations (system_identifier, database_oid, timeline_id, data_directory_mark)
SELECT i.system_identifier, i.database_oid, i.timeline_id, i.data_directory_mark
FROM _wa_database_identity() i
ON CONFLICT DO NOTHING;
