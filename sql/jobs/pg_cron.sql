-- Handing the jobs to pg_cron, where it is. wa_jobs says what is due and when; pg_cron and dispatchers only
-- come by and ask.

CREATE OR REPLACE FUNCTION _wa_cron_install(
    OUT is_here boolean, OUT other_database text, OUT has_seconds boolean, OUT problem text
)
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    SELECT
        coalesce(has_schema_privilege(to_regnamespace('cron'), 'USAGE'), false) AND e.extversion IS NOT NULL,
        CASE WHEN e.extversion IS NULL THEN nullif(s.database, current_database()) END,
        -- '10 seconds' is understood since 1.5.
        string_to_array(substring(coalesce(e.extversion, a.default_version) FROM '^\d+\.\d+'), '.')::int[]
            >= '{1,5}',
        CASE
            WHEN NOT has_schema_privilege(to_regnamespace('cron'), 'USAGE') THEN format(
                'pg_cron may not be used by the owner of this schema: GRANT USAGE ON SCHEMA cron TO %I;',
                current_user)
            WHEN e.extversion IS NULL AND s.database = current_database()
                THEN 'pg_cron is loaded for this database: CREATE EXTENSION pg_cron; then call this again'
        END
    FROM (SELECT current_setting('cron.database_name', true) AS database) s
    LEFT JOIN pg_extension e ON e.extname = 'pg_cron'
    LEFT JOIN pg_available_extensions a ON a.name = 'pg_cron'
$$;

COMMENT ON FUNCTION _wa_cron_install() IS
'Internal: whether pg_cron is in this database or serves it from another one, and what it can do.';

-- pg_cron knows one name once per user and server, so the name says which database it is for.
CREATE OR REPLACE FUNCTION _wa_cron_jobs(
    OUT cron_name text, OUT name text, OUT schedule text, OUT command text
) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT
        format('pg_whatsapp %s %s', current_database(), j.name), j.name,
        CASE WHEN j.schedule ~ 'second' AND NOT coalesce(i.has_seconds, false) THEN '* * * * *'
            ELSE j.schedule END,
        format('SELECT %I.run_wa_job(%L, p_only_if_due => true)', current_schema(), j.name)
    FROM wa_jobs j CROSS JOIN _wa_cron_install() i
    WHERE j.is_enabled AND j.scheduled_at IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_cron_jobs() IS 'Internal: the jobs that pg_cron should have, as it should have them.';

CREATE OR REPLACE FUNCTION _wa_sync_cron() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    -- Dynamic SQL, because pg_cron need not be there.
    v_schema name := 'cron';
BEGIN
    EXECUTE format(
        'SELECT %1$I.unschedule(c.jobname) FROM %1$I.job c'
        ' WHERE c.username = current_user AND starts_with(c.jobname, $1)'
        ' AND NOT EXISTS (SELECT FROM _wa_cron_jobs() j WHERE j.cron_name = c.jobname)', v_schema)
    USING format('pg_whatsapp %s ', current_database());
    EXECUTE format(
        'SELECT %I.schedule(j.cron_name, j.schedule, j.command) FROM _wa_cron_jobs() j', v_schema);
END
$$;

COMMENT ON FUNCTION _wa_sync_cron() IS
'Internal: makes pg_cron''s jobs for this database those of wa_jobs, as the owner of the schema.';

CREATE OR REPLACE FUNCTION schedule_wa_jobs()
RETURNS TABLE (name text, schedule text, runs_by text, time_zone text, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_cron record;
BEGIN
    -- Two calls at a time would both unschedule what the other has just made.
    LOCK TABLE wa_jobs IN SHARE UPDATE EXCLUSIVE MODE;
    UPDATE wa_jobs j SET scheduled_at = clock_timestamp()
    WHERE j.scheduled_at IS NULL AND (j.pack IS NULL OR _wa_job_function(j.function_name) IS NOT NULL);
    SELECT * INTO v_cron FROM _wa_cron_install();
    IF v_cron.is_here THEN
        PERFORM _wa_sync_cron();
    END IF;
    RETURN QUERY
    SELECT
        j.name, j.schedule,
        CASE
            WHEN c.name IS NULL THEN 'nobody'
            WHEN v_cron.is_here THEN 'pg_cron and bin/wa dispatch'
            ELSE 'bin/wa dispatch' END,
        _wa_job_time_zone(),
        CASE
            WHEN j.scheduled_at IS NULL
                THEN format('comes with SELECT * FROM install_wa_pack(%L); then call this again', j.pack)
            WHEN NOT j.is_enabled THEN 'switched off in wa_jobs'
            WHEN v_cron.other_database IS NOT NULL THEN format(
                'pg_cron is in database %I; to use it, there: '
                'SELECT cron.schedule_in_database(%L, %L, %L, %L);',
                v_cron.other_database, c.cron_name, c.schedule, c.command, current_database())
            WHEN v_cron.is_here AND c.schedule <> j.schedule
                THEN 'this pg_cron comes by once a minute; bin/wa dispatch keeps to the seconds'
            ELSE v_cron.problem
        END
    FROM wa_jobs j
    LEFT JOIN _wa_cron_jobs() c ON c.name = j.name
    ORDER BY j.name;
END
$$;

COMMENT ON FUNCTION schedule_wa_jobs() IS
'Starts the recurring work of wa_jobs, retention included: by pg_cron where it is in this database, and by '
'every running dispatcher; each job runs on one at a time. Safe to repeat: changes of wa_jobs stay and reach '
'pg_cron. Answers who runs what, and the time zone.';

CREATE OR REPLACE FUNCTION unschedule_wa_jobs() RETURNS TABLE (name text, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_cron record;
BEGIN
    LOCK TABLE wa_jobs IN SHARE UPDATE EXCLUSIVE MODE;
    SELECT * INTO v_cron FROM _wa_cron_install();
    RETURN QUERY
    SELECT j.name, CASE WHEN v_cron.other_database IS NOT NULL THEN format(
        'if pg_cron in database %I has it, there: SELECT cron.unschedule(%L);', v_cron.other_database,
        c.cron_name) END
    FROM wa_jobs j
    LEFT JOIN _wa_cron_jobs() c ON c.name = j.name
    WHERE j.scheduled_at IS NOT NULL
    ORDER BY j.name;
    UPDATE wa_jobs j SET scheduled_at = NULL WHERE j.scheduled_at IS NOT NULL;
    IF v_cron.is_here THEN
        PERFORM _wa_sync_cron();
    END IF;
END
$$;

COMMENT ON FUNCTION unschedule_wa_jobs() IS
'Stops the recurring work; answers with the jobs that were scheduled. Schedules and switches in wa_jobs '
'stay.';
