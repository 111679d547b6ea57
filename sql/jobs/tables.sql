-- The recurring work and what became of it. Of the installation as a whole, not of a tenant, and for
-- administrators only; therefore without row security.

CREATE TABLE wa_jobs (
    name text NOT NULL,
    function_name text NOT NULL,
    schedule text NOT NULL,
    is_enabled boolean NOT NULL DEFAULT true,
    description text NOT NULL,
    batch_rows integer,
    pack text,
    scheduled_at timestamptz,
    next_run_at timestamptz,
    rest integer NOT NULL DEFAULT 0,
    CONSTRAINT wa_jobs_pkey PRIMARY KEY (name),
    CONSTRAINT wa_jobs_batch_check CHECK (batch_rows > 0),
    CONSTRAINT wa_jobs_rest_check CHECK (rest >= 0)
);

CREATE TABLE wa_job_runs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job text NOT NULL,
    started_at timestamptz NOT NULL,
    duration interval NOT NULL,
    row_count bigint,
    error text,
    ran_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_job_runs_pkey PRIMARY KEY (id),
    CONSTRAINT wa_job_runs_job_fkey FOREIGN KEY (job) REFERENCES wa_jobs (name)
    ON UPDATE CASCADE ON DELETE CASCADE
);

CREATE INDEX wa_job_runs_job_idx ON wa_job_runs (job, id);

COMMENT ON TABLE wa_jobs IS
'Recurring work. Nothing of it runs before schedule_wa_jobs(). schedule, is_enabled, rest and description '
'may be changed and stay so.';
COMMENT ON COLUMN wa_jobs.function_name IS
'Function of the extension''s schema that a run calls, without arguments; returns how many rows it handled.';
COMMENT ON COLUMN wa_jobs.schedule IS
'Five fields as in cron (minute, hour, day of month, month, day of week), in the zone that '
'schedule_wa_jobs() prints; or ''N seconds'', 1 to 59.';
COMMENT ON COLUMN wa_jobs.batch_rows IS
'A run that handled at least so many rows left some behind: the next one follows at once, or after rest.';
COMMENT ON COLUMN wa_jobs.rest IS
'While messages are being sent, a run that left some behind is followed by the next after so many times as '
'long as it took. 0: at once.';
COMMENT ON COLUMN wa_jobs.pack IS 'The pack that brings the function; NULL means that it is always there.';
COMMENT ON COLUMN wa_jobs.scheduled_at IS
'When schedule_wa_jobs() took it up; NULL means that it never runs.';
COMMENT ON COLUMN wa_jobs.next_run_at IS
'When it is due; NULL while it is switched off or not scheduled. Whoever comes first then, runs it.';
COMMENT ON TABLE wa_job_runs IS 'The last hundred runs of each job, and its last success.';
COMMENT ON COLUMN wa_job_runs.error IS 'SQLSTATE and message of a run that failed, and was rolled back.';
COMMENT ON COLUMN wa_job_runs.ran_by IS
'The login of the session: that of pg_cron, of a dispatcher, or yours.';
