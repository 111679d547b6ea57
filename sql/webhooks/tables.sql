-- What came in: raw webhook bodies, what could not be processed of them, account events; and the audit log.

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
    CONSTRAINT wa_webhook_errors_pkey PRIMARY KEY (log_id, atom),
    CONSTRAINT wa_webhook_errors_log_fkey FOREIGN KEY (log_id)
    REFERENCES wa_webhook_logs (id) ON DELETE CASCADE
);

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

CREATE TABLE audit_log (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    actor text NOT NULL DEFAULT session_user,
    event text NOT NULL,
    entity text,
    entity_id text,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_log_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT audit_log_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX audit_log_created_idx ON audit_log (organization_id, created_at);

-- Forged webhook requests are counted, one row per source and minute: a flood must not fill the log.
CREATE UNIQUE INDEX audit_log_rejection_key
ON audit_log (organization_id, entity_id) WHERE event = 'webhook_rejected';

CREATE TABLE wa_secrets (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    phone_number_id text,
    ciphertext bytea NOT NULL,
    key_id text NOT NULL,
    fingerprint text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_secrets_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_secrets_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_secrets_name_check CHECK (name IN ('access_token', 'app_secret', 'verify_token'))
);

CREATE INDEX wa_secrets_name_idx ON wa_secrets (organization_id, name, phone_number_id) WHERE is_active;

CREATE TABLE wa_template_syncs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    waba_id text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    after_cursor text,
    finished_at timestamptz,
    templates integer NOT NULL DEFAULT 0,
    CONSTRAINT wa_template_syncs_pkey PRIMARY KEY (organization_id, waba_id),
    CONSTRAINT wa_template_syncs_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

COMMENT ON TABLE wa_webhook_logs IS
'Webhook bodies byte for byte as they arrived; stored before the sender gets its 200.';
COMMENT ON COLUMN wa_webhook_logs.status IS
'pending, processed, partial (some parts failed, see wa_webhook_errors) or failed.';
COMMENT ON TABLE wa_webhook_errors IS
'Parts of webhooks that could not be processed; replay_wa_webhooks() tries them again.';
COMMENT ON TABLE wa_account_events IS 'Template, quality, security and account events, as they came.';
COMMENT ON TABLE audit_log IS
'Who did what: manual windows, panic, secrets, policy incidents. Rows may be added by hand.';
COMMENT ON TABLE wa_secrets IS 'Tokens and secrets, encrypted with a key that is not in the database.';
COMMENT ON COLUMN wa_secrets.phone_number_id IS
'The number that it belongs to; NULL means every number of the organization.';
COMMENT ON COLUMN wa_secrets.ciphertext IS
'Nonce and AES-GCM ciphertext; the organization and the name are bound in.';
COMMENT ON COLUMN wa_secrets.fingerprint IS
'Keyed hash of the value: tells equal secrets from different ones, gives nothing away.';
COMMENT ON TABLE wa_template_syncs IS
'How far each account''s template sync came, so that it resumes after a crash.';
