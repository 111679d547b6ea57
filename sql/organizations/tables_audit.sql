-- The audit log: who did what.

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

COMMENT ON TABLE audit_log IS
'Who did what: manual windows, panic, secrets, policy incidents. Rows may be added by hand.';
