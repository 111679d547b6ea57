-- The audit log: who did what; and the chain that shows whether it is still what was written.

CREATE TABLE audit_log (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    actor text NOT NULL DEFAULT session_user,
    event text NOT NULL,
    entity text,
    entity_id text,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    session_role text,
    database_role text,
    client_address text,
    CONSTRAINT audit_log_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT audit_log_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX audit_log_created_idx ON audit_log (organization_id, created_at);

-- What is yet to be sealed, apart from the log, whose rows never change: a row is written by each insert, and
-- taken away by the sealing.
CREATE TABLE wa_audit_unsealed (
    organization_id uuid NOT NULL,
    audit_id bigint NOT NULL,
    CONSTRAINT wa_audit_unsealed_pkey PRIMARY KEY (organization_id, audit_id),
    CONSTRAINT wa_audit_unsealed_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_audit_seals (
    organization_id uuid NOT NULL,
    position bigint NOT NULL,
    audit_id bigint NOT NULL,
    salt bytea,
    leaf bytea NOT NULL,
    hash bytea NOT NULL,
    field_salts jsonb NOT NULL DEFAULT '{}',
    erased jsonb NOT NULL DEFAULT '[]',
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_audit_seals_pkey PRIMARY KEY (organization_id, position),
    CONSTRAINT wa_audit_seals_audit_key UNIQUE (audit_id, organization_id),
    CONSTRAINT wa_audit_seals_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_audit_heads (
    organization_id uuid NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    sealed_at timestamptz,
    checkpoint_position bigint NOT NULL DEFAULT 0,
    checkpoint_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    checked_position bigint NOT NULL DEFAULT 0,
    checked_at timestamptz,
    problems integer NOT NULL DEFAULT 0,
    problem text,
    found integer NOT NULL DEFAULT 0,
    digest_salt bytea NOT NULL DEFAULT sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    ),
    acknowledged jsonb NOT NULL DEFAULT '[]',
    CONSTRAINT wa_audit_heads_pkey PRIMARY KEY (organization_id),
    CONSTRAINT wa_audit_heads_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

INSERT INTO wa_audit_heads (organization_id) SELECT o.id FROM wa_organizations o;

-- What comes in floods is counted, by source and minute: it must not fill the log.
CREATE TABLE wa_audit_counts (
    organization_id uuid NOT NULL,
    event text NOT NULL,
    subject text NOT NULL,
    minute timestamptz NOT NULL,
    further bigint NOT NULL DEFAULT 0,
    reason text,
    CONSTRAINT wa_audit_counts_pkey PRIMARY KEY (organization_id, event, subject, minute),
    CONSTRAINT wa_audit_counts_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE INDEX wa_audit_counts_minute_idx ON wa_audit_counts (minute);

COMMENT ON TABLE audit_log IS
'Who did what: changed settings, manual windows, panic, secrets, policy incidents. Rows may be added by '
'hand, and are never changed; verify_wa_audit_log() tells if somebody did.';
COMMENT ON COLUMN audit_log.actor IS 'Who did it, as whoever wrote the row says.';
COMMENT ON COLUMN audit_log.session_role IS 'The login that wrote the row, whatever the row says.';
COMMENT ON COLUMN audit_log.database_role IS
'As which role: that of SET ROLE, over HTTP that of the key, else the login.';
COMMENT ON COLUMN audit_log.client_address IS
'From where: the client of the HTTP API, else of the database; NULL through a socket of the machine.';
COMMENT ON TABLE wa_audit_unsealed IS 'Internal: rows of audit_log that have no place in the chain yet.';
COMMENT ON TABLE wa_audit_seals IS
'The chain of an organization''s audit_log: one seal a row, in the order in which they were sealed. Salts '
'and digests let anyone compute it again from a copy of both tables; docs/security.md says how.';
COMMENT ON COLUMN wa_audit_seals.position IS 'Its place in the chain, from 1 on without a gap.';
COMMENT ON COLUMN wa_audit_seals.salt IS
'Of which those of the row''s fields are made; NULL once a field was erased.';
COMMENT ON COLUMN wa_audit_seals.leaf IS 'SHA-256 of the row in its canonical form.';
COMMENT ON COLUMN wa_audit_seals.hash IS
'SHA-256 of the hash before, the position (eight bytes, the highest first) and the leaf.';
COMMENT ON COLUMN wa_audit_seals.field_salts IS
'Once a field was erased: the salts of the others, in hexadecimal.';
COMMENT ON COLUMN wa_audit_seals.erased IS
'The digests of fields that were erased; their salts are gone.';
COMMENT ON TABLE wa_audit_heads IS
'Where the chain of each organization ends, where it begins since old rows were deleted, and what the last '
'check found.';
COMMENT ON COLUMN wa_audit_heads.checkpoint_position IS
'The last position that retention deleted; the chain is checked from the next one on. 0: nothing was.';
COMMENT ON COLUMN wa_audit_heads.checked_position IS 'How far the check that is under way has come.';
COMMENT ON COLUMN wa_audit_heads.checked_at IS 'When the job audit_check was last through with all of it.';
COMMENT ON COLUMN wa_audit_heads.problems IS 'How much was wrong then, and since.';
COMMENT ON COLUMN wa_audit_heads.found IS 'What the check that is under way has found so far.';
COMMENT ON COLUMN wa_audit_heads.acknowledged IS
'What acknowledge_wa_audit_problems() was told of: the check does not count it.';
COMMENT ON TABLE wa_audit_counts IS
'Internal: what was refused again in the same minute by the same source, until it becomes a row of '
'audit_log.';
