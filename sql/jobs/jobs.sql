-- Running jobs: one process at a time each, whoever asks; with pg_cron, dispatchers, or both.

-- The list. A function that is not there makes its run fail, not the others. What an administrator changed
-- stays.
INSERT INTO wa_jobs AS j (name, function_name, schedule, batch_rows, rest, pack, description) VALUES
('audit', 'seal_wa_audit_log', '* * * * *', 10000, 0, NULL,
    'Seals new rows of the audit log into its chain.'),
('audit_check', 'check_wa_audit_log', '23 3 * * *', 50000, 0, NULL,
    'Verifies the chain of the audit log from end to end.'),
('cleanup', 'cleanup_expired_wa_media', '*/10 * * * *', 10000, 0, NULL,
    'Removes expired media and links to them.'),
('conversations', 'expire_wa_conversations', '*/5 * * * *', 10000, 0, NULL,
    'Ends conversations that nobody continued.'),
('erasures', 'run_wa_erasures', '* * * * *', 10000, 0, NULL,
    'Goes on with erasures of persons, and makes statistics anew behind them.'),
('event_tasks', 'run_wa_event_tasks', '* * * * *', 100, 0, 'events', 'Queues the reminders of events.'),
('flows', 'process_wa_flows', '* * * * *', 500, 0, NULL,
    'Carries out the steps of flows that are due; dispatchers do it at once.'),
('rate_windows', 'clean_wa_rate_windows', '17 * * * *', 10000, 0, NULL,
    'Forgets what was charged to limits whose time is over.'),
('retention', 'run_wa_retention', '2-57/5 * * * *', 1000, 4, NULL,
    'Deletes what is older than wa_organizations.message_retention, audit_retention and '
    'event_delivery_retention and wa_installations.webhook_log_retention, and empties texts by '
    'text_retention.'),
('roll_ups', 'roll_up_wa_analytics', '*/5 * * * *', 2000, 0, NULL,
    'Adds up messages by quarter hour for analytics.')
ON CONFLICT (name) DO UPDATE SET
    function_name = excluded.function_name, batch_rows = excluded.batch_rows, pack = excluded.pack
WHERE (j.function_name, j.batch_rows, j.pack)
    IS DISTINCT FROM (excluded.function_name, excluded.batch_rows, excluded.pack);

CREATE OR REPLACE FUNCTION _wa_job_function(p_function_name text) RETURNS regprocedure
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT min(p.oid)::regprocedure FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = current_schema()
    WHERE p.proname = p_function_name AND p.pronargs = p.pronargdefaults AND p.prokind = 'f'
$$;

COMMENT ON FUNCTION _wa_job_function(text) IS
'Internal: the function of that name that can be called without arguments; NULL if there is none.';

-- The row lock is what makes a second run at the same time impossible: who does not get it goes away, and
-- PostgreSQL looks at next_run_at again after it got it. It also keeps changes of the row out meanwhile.
CREATE OR REPLACE FUNCTION run_wa_job(p_name text, p_only_if_due boolean DEFAULT false)
RETURNS TABLE (status text, row_count bigint, duration interval, error text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET lock_timeout = '5s' SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    v_job wa_jobs;
    v_started_at timestamptz;
    v_hint text;
BEGIN
    PERFORM _wa_require_installation();
    SELECT j.* INTO v_job FROM wa_jobs j
    WHERE j.name = p_name AND (NOT p_only_if_due OR j.next_run_at <= clock_timestamp())
    FOR NO KEY UPDATE SKIP LOCKED;
    IF v_job.name IS NULL THEN
        SELECT CASE
            WHEN NOT p_only_if_due OR j.next_run_at <= clock_timestamp() THEN 'running elsewhere'
            WHEN j.next_run_at IS NULL THEN 'not scheduled'
            ELSE 'not due' END
        INTO status FROM wa_jobs j WHERE j.name = p_name;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = '22023',
                MESSAGE = format('there is no job "%s"', p_name),
                DETAIL = 'wa_jobs has no row of that name.',
                HINT = (SELECT 'There are: ' || string_agg(j.name, ', ' ORDER BY j.name) FROM wa_jobs j);
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    v_started_at := clock_timestamp();
    BEGIN
        IF _wa_job_function(v_job.function_name) IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = '42883',
                MESSAGE = format('the function %s() is not there', v_job.function_name),
                DETAIL = format('The job "%s" calls it.', v_job.name),
                HINT = CASE WHEN v_job.pack IS NULL THEN 'bin/wa migrate'
                    ELSE format('SELECT * FROM install_wa_pack(%L);', v_job.pack) END;
        END IF;
        EXECUTE format('SELECT %I()', v_job.function_name) INTO row_count;
        status := 'done';
    EXCEPTION
        -- Its work is undone, its lock is kept until the error is recorded.
        WHEN OTHERS OR query_canceled THEN
            GET STACKED DIAGNOSTICS v_hint = PG_EXCEPTION_HINT;
            status := 'failed';
            error := concat_ws(' ', SQLSTATE || ':', SQLERRM, nullif('(' || v_hint || ')', '()'));
    END;
    duration := clock_timestamp() - v_started_at;
    UPDATE wa_jobs j SET next_run_at = CASE
        WHEN j.next_run_at IS NULL THEN NULL
        WHEN row_count >= j.batch_rows
            THEN clock_timestamp()
                + CASE WHEN j.rest > 0 AND _wa_is_sending() THEN j.rest ELSE 0 END * duration
        ELSE _wa_next_job_time(j.schedule, v_started_at) END
    WHERE j.name = p_name;
    INSERT INTO wa_job_runs (job, started_at, duration, row_count, error)
    VALUES (p_name, v_started_at, duration, row_count, error);
    DELETE FROM wa_job_runs r WHERE r.job = p_name AND r.id <= (
        SELECT o.id FROM wa_job_runs o WHERE o.job = p_name ORDER BY o.id DESC OFFSET 100 LIMIT 1
    ) AND r.id IS DISTINCT FROM (
        SELECT max(o.id) FROM wa_job_runs o WHERE o.job = p_name AND o.error IS NULL
    );
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION run_wa_job(text, boolean) IS
'Runs a job now, or if it is due, unless it runs elsewhere; records time, rows and error in wa_job_runs. '
'An error is recorded and returned, not raised.';

CREATE OR REPLACE FUNCTION run_due_wa_job()
RETURNS TABLE (
    job text, status text, row_count bigint, duration interval, error text, next_due_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    -- The clock was set back behind a run.
    IF EXISTS (SELECT FROM wa_job_runs r WHERE r.started_at > clock_timestamp() + interval '5 seconds') THEN
        UPDATE wa_jobs j SET next_run_at = _wa_next_job_time(j.schedule, clock_timestamp())
        WHERE j.next_run_at > _wa_next_job_time(j.schedule, clock_timestamp());
    END IF;
    SELECT j.name INTO job FROM wa_jobs j
    WHERE j.next_run_at <= clock_timestamp()
    ORDER BY j.next_run_at, j.name
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED;
    IF job IS NOT NULL THEN
        SELECT r.status, r.row_count, r.duration, r.error INTO status, row_count, duration, error
        FROM run_wa_job(job, true) r;
    END IF;
    SELECT min(j.next_run_at) INTO next_due_at FROM wa_jobs j;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION run_due_wa_job() IS
'Runs the job that is due for longest, if one is and nobody runs it; tells what became of it and when the '
'next is due. For dispatchers.';

CREATE OR REPLACE VIEW wa_job_health WITH (security_invoker = true) AS
SELECT
    j.name, j.description, j.schedule, j.is_enabled, j.scheduled_at IS NOT NULL AS is_scheduled,
    j.next_run_at,
    r.started_at AS last_started_at, r.duration AS last_duration, r.row_count AS last_row_count,
    r.error AS last_error, g.started_at AS last_success_at,
    _wa_job_is_overdue(j.schedule, j.next_run_at) AS is_overdue
FROM wa_jobs j
LEFT JOIN LATERAL (
    SELECT l.started_at, l.duration, l.row_count, l.error FROM wa_job_runs l
    WHERE l.job = j.name ORDER BY l.id DESC LIMIT 1
) r ON true
LEFT JOIN LATERAL (
    SELECT l.started_at FROM wa_job_runs l WHERE l.job = j.name AND l.error IS NULL ORDER BY l.id DESC LIMIT 1
) g ON true;

COMMENT ON VIEW wa_job_health IS
'One row per job: when it is due, its last run with time, rows and error, its last success, and whether it '
'is overdue by three intervals.';

-- Definer: applications see which jobs are late, not the jobs.
CREATE OR REPLACE FUNCTION _wa_overdue_jobs() RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT coalesce(array_agg(j.name ORDER BY j.name), '{}') FROM wa_jobs j
    WHERE _wa_job_is_overdue(j.schedule, j.next_run_at)
$$;

COMMENT ON FUNCTION _wa_overdue_jobs() IS 'Internal: names of the jobs that are overdue by three intervals.';

CREATE OR REPLACE TRIGGER audit_change
AFTER INSERT OR DELETE OR UPDATE OF function_name, schedule, is_enabled, batch_rows, rest ON wa_jobs
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('name', 'description scheduled_at next_run_at pack');
