-- What came in: raw webhook bodies, what could not be processed of them, account events.

CREATE TABLE wa_webhook_logs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    provider text NOT NULL DEFAULT 'meta',
    source text,
    body bytea NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    atoms integer,
    failed_atoms integer,
    error text,
    processed_at timestamptz,
    signed_by uuid[],
    CONSTRAINT wa_webhook_logs_pkey PRIMARY KEY (id),
    CONSTRAINT wa_webhook_logs_status_check CHECK (status IN ('pending', 'processed', 'partial', 'failed'))
) WITH (fillfactor = 80);

CREATE INDEX wa_webhook_logs_pending_idx ON wa_webhook_logs (id) WHERE status = 'pending';

CREATE TABLE wa_webhook_errors (
    log_id bigint NOT NULL,
    atom integer NOT NULL,
    kind text NOT NULL,
    sqlstate text,
    error text NOT NULL,
    payload jsonb,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    tries integer NOT NULL DEFAULT 1,
    try_at timestamptz,
    CONSTRAINT wa_webhook_errors_pkey PRIMARY KEY (log_id, atom),
    CONSTRAINT wa_webhook_errors_log_fkey FOREIGN KEY (log_id)
    REFERENCES wa_webhook_logs (id) ON DELETE CASCADE
);

-- What somebody's lock stopped is looked for at each call.
CREATE INDEX wa_webhook_errors_locked_idx ON wa_webhook_errors (try_at)
WHERE sqlstate = '55P03' AND resolved_at IS NULL;

-- Who may speak for whom, where organizations share a Meta app.
CREATE TABLE wa_app_shares (
    organization_id uuid NOT NULL,
    with_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_app_shares_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX wa_app_shares_key ON wa_app_shares (organization_id, with_id) NULLS NOT DISTINCT;

CREATE TABLE wa_account_events (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    waba_id text,
    phone_number_id text,
    field text NOT NULL,
    event text,
    payload jsonb NOT NULL DEFAULT '{}',
    dedupe_key text NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_account_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_account_events_dedupe_key UNIQUE (organization_id, dedupe_key),
    CONSTRAINT wa_account_events_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX wa_account_events_received_idx ON wa_account_events (organization_id, received_at);

CREATE INDEX wa_account_events_field_idx ON wa_account_events (organization_id, field, occurred_at);

COMMENT ON TABLE wa_webhook_logs IS
'Webhook bodies byte for byte as they arrived; stored before the sender gets its 200.';
COMMENT ON COLUMN wa_webhook_logs.status IS
'pending, processed, partial (some parts failed, see wa_webhook_errors) or failed.';
COMMENT ON COLUMN wa_webhook_errors.try_at IS
'When it is tried again by itself: what somebody''s lock stopped (sqlstate 55P03); NULL for the rest.';
COMMENT ON COLUMN wa_webhook_logs.signed_by IS
'Whose secrets signed it (ids of wa_secrets, zeros for the environment''s): it is believed of their numbers '
'only. NULL where nobody looked: stored by hand, by 360dialog''s way in, or before 0.2.0; taken at its word.';
COMMENT ON TABLE wa_app_shares IS
'Organizations whose Meta app serves others, too: see share_wa_app(). with_id NULL: all.';
COMMENT ON TABLE wa_webhook_errors IS
'Parts of webhooks that could not be processed; replay_wa_webhooks() tries them again.';
COMMENT ON TABLE wa_account_events IS 'Template, quality, security and account events, as they came.';
