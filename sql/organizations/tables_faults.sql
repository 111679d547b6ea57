-- What went wrong inside, and the locks that keep what must be done by one at a time to one at a time.

-- One row for each kind of work and what it was about, so that a fault that comes back every second is one
-- row, not a flood. It references nothing: noting a fault must wait for nobody's lock.
CREATE TABLE wa_faults (
    organization_id uuid NOT NULL,
    work text NOT NULL,
    subject text NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    times integer NOT NULL DEFAULT 1,
    CONSTRAINT wa_faults_pkey PRIMARY KEY (organization_id, work, subject)
);

CREATE INDEX wa_faults_last_at_idx ON wa_faults (last_at);

-- Rows, not advisory locks: the key of those could be guessed, and any role may take them.
CREATE TABLE wa_locks (
    name text NOT NULL,
    CONSTRAINT wa_locks_pkey PRIMARY KEY (name)
);

INSERT INTO wa_locks (name) VALUES ('maintenance'), ('rollups'), ('webhooks');

COMMENT ON TABLE wa_faults IS
'What failed inside and was set aside so that the rest could go on, by kind of work; the last time counts.';
COMMENT ON COLUMN wa_faults.work IS
'claim, result, maintenance, events (pushed), audit, erasure, or webhook where it met a lock: '
'wa_webhook_errors and wa_job_runs have the rest.';
COMMENT ON COLUMN wa_faults.subject IS
'What it was about: a business number for a claim, a queue id for a result, a subscription for events, the '
'id of an erasure, else empty.';
COMMENT ON COLUMN wa_faults.times IS 'How often it failed in a row, with less than a minute in between.';
COMMENT ON TABLE wa_locks IS
'Internal: one row for what is done by one session at a time; locked, never changed.';
