-- Who was erased, by keyed hashes of what they were known by, and the keys. The owner's only: neither a hash
-- nor a key is of use to anybody else.

-- A key as HMAC uses it (RFC 2104): the block of the hash, xored with 0x36 and 0x5c, so that SQL alone can
-- hash. It stands in the database because a row of the queue is inserted by any application's own statement,
-- where no process can bring a key: docs/security.md says what that means.
CREATE TABLE wa_privacy_keys (
    organization_id uuid NOT NULL,
    purpose text NOT NULL,
    version integer NOT NULL DEFAULT 1,
    inner_pad bytea NOT NULL,
    outer_pad bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_privacy_keys_pkey PRIMARY KEY (organization_id, purpose, version),
    CONSTRAINT wa_privacy_keys_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_privacy_keys_purpose_check CHECK (purpose IN ('erasure', 'analysts')),
    CONSTRAINT wa_privacy_keys_pads_check CHECK (
        octet_length(inner_pad) = 64 AND octet_length(outer_pad) = 64
    )
);

CREATE TABLE wa_erasures (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint,
    state text NOT NULL DEFAULT 'running',
    step integer NOT NULL DEFAULT 1,
    place text,
    counts jsonb NOT NULL DEFAULT '{}',
    keep jsonb NOT NULL DEFAULT '{}',
    reason text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    requested_by text NOT NULL DEFAULT session_user,
    done_at timestamptz,
    statistics_at timestamptz,
    CONSTRAINT wa_erasures_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_erasures_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_erasures_state_check CHECK (state IN ('running', 'done')),
    CONSTRAINT wa_erasures_keep_check CHECK (jsonb_typeof(keep) = 'object')
);

-- Of a contact one at a time, and what the job looks for.
CREATE UNIQUE INDEX wa_erasures_running_key ON wa_erasures (contact_id, organization_id)
WHERE state = 'running';

CREATE TABLE wa_erased_identities (
    organization_id uuid NOT NULL,
    hash bytea NOT NULL,
    key_version integer NOT NULL,
    erasure_id bigint,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_erased_identities_pkey PRIMARY KEY (organization_id, hash),
    CONSTRAINT wa_erased_identities_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_erased_identities_hash_check CHECK (octet_length(hash) = 32)
);

COMMENT ON TABLE wa_privacy_keys IS
'Keys of the hashes of phone numbers: erasure, by which the erased are known again, and analysts, for the '
'views that analysts read.';
COMMENT ON COLUMN wa_privacy_keys.version IS
'The highest is for what is new; older ones stay, since what was hashed with them cannot be hashed anew.';
COMMENT ON TABLE wa_erasures IS
'Persons who were erased, or are being erased, at whose word and why; it names none of them.';
COMMENT ON COLUMN wa_erasures.contact_id IS
'The contact, of which an empty row stays; NULL for an erasure that came from an export.';
COMMENT ON COLUMN wa_erasures.state IS 'running: the job "erasures" goes on with it. done.';
COMMENT ON COLUMN wa_erasures.step IS 'Where it stands: the step, and within it the place.';
COMMENT ON COLUMN wa_erasures.counts IS 'How many rows each step changed.';
COMMENT ON COLUMN wa_erasures.keep IS
'What the law says must stay, without names: {"consent": {"reason": "…", "until": "2029-12-31"}}.';
COMMENT ON COLUMN wa_erasures.statistics_at IS
'When the planner''s statistics were made anew: until then values of the person may stand in pg_statistic.';
COMMENT ON TABLE wa_erased_identities IS
'Keyed hashes of the phone numbers and user ids of erased persons: a contact that is made with one of them '
'is opted out from the start.';

-- How far the texts of messages and of queue rows have been emptied: ids that grow with time lead to what is
-- next without an index of its own.
CREATE TABLE wa_retention_marks (
    organization_id uuid NOT NULL,
    kind text NOT NULL,
    place text NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_retention_marks_pkey PRIMARY KEY (organization_id, kind),
    CONSTRAINT wa_retention_marks_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_retention_marks_kind_check CHECK (kind IN ('messages', 'queue'))
);

COMMENT ON TABLE wa_retention_marks IS
'Internal: up to which message and queue row texts have been emptied, because their time is over.';

-- Legal holds: what is known of a person stays for as long as somebody needs it.
CREATE TABLE wa_contact_holds (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    reason text NOT NULL,
    held_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_by text NOT NULL DEFAULT session_user,
    released_at timestamptz,
    released_by text,
    CONSTRAINT wa_contact_holds_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_contact_holds_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_contact_holds_reason_check CHECK (reason <> ''),
    CONSTRAINT wa_contact_holds_released_check CHECK ((released_at IS NULL) = (released_by IS NULL))
);

CREATE UNIQUE INDEX wa_contact_holds_active_key
ON wa_contact_holds (contact_id, organization_id) WHERE released_at IS NULL;

COMMENT ON TABLE wa_contact_holds IS
'Legal holds: while one is not released, neither retention nor an erasure takes anything of the contact.';
COMMENT ON COLUMN wa_contact_holds.reason IS 'Why, for whoever asks later: a case number rather than a name.';

-- Archives of what retention takes. The rows of a person are sealed with a key of the person's own, wherever
-- copies of the files may be by now: erasing the person destroys the key, and with it the rows.
CREATE TABLE wa_archive_keys (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_archive_keys_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_archive_keys_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_archive_keys_key_check CHECK (octet_length(key) = 32)
);

CREATE INDEX wa_archive_keys_contact_idx ON wa_archive_keys (contact_id, organization_id);

CREATE TABLE wa_archive_files (
    organization_id uuid NOT NULL,
    kind text NOT NULL,
    number integer NOT NULL,
    state text NOT NULL DEFAULT 'writing',
    location text NOT NULL,
    name text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kept_at timestamptz,
    place text,
    row_count integer,
    byte_count bigint,
    sha256 bytea,
    first_at timestamptz,
    last_at timestamptz,
    CONSTRAINT wa_archive_files_pkey PRIMARY KEY (organization_id, kind, number),
    CONSTRAINT wa_archive_files_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_archive_files_kind_check CHECK (kind IN ('messages', 'statuses', 'queue')),
    CONSTRAINT wa_archive_files_state_check CHECK (
        CASE state WHEN 'kept' THEN num_nulls(kept_at, place, row_count, byte_count, sha256) = 0
            ELSE state = 'writing' END
    )
);

-- What is scheduled for long after it was queued stops nobody behind it: it is noted, and seen to once it has
-- ended.
CREATE TABLE wa_retention_stragglers (
    organization_id uuid NOT NULL,
    kind text NOT NULL,
    queue_id uuid NOT NULL,
    name text,
    CONSTRAINT wa_retention_stragglers_pkey PRIMARY KEY (organization_id, kind, queue_id),
    CONSTRAINT wa_retention_stragglers_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_retention_stragglers_kind_check CHECK (kind IN ('archive', 'texts'))
);

COMMENT ON TABLE wa_archive_keys IS
'With which the archived rows of contacts are sealed; nobody''s but the owner''s. A key that is gone cannot '
'be made again.';
COMMENT ON TABLE wa_archive_files IS
'The files of bin/wa archive: which rows each holds, and its checksum. The newest of a kind says how far '
'retention may go.';
COMMENT ON COLUMN wa_archive_files.kind IS
'messages (with queue rows whose ids tell no time), statuses, or queue.';
COMMENT ON COLUMN wa_archive_files.state IS
'writing: it may be there or not, and does not count. kept: it is there as a whole.';
COMMENT ON COLUMN wa_archive_files.place IS 'All rows up to this id are in this file and those before it.';
COMMENT ON COLUMN wa_archive_files.first_at IS 'The time of its oldest row; last_at: of its newest.';
COMMENT ON TABLE wa_retention_stragglers IS
'Queue rows that had not ended when those behind them were archived (archive), or emptied (texts).';
COMMENT ON COLUMN wa_retention_stragglers.name IS
'Of kind archive: the file that holds it once that is kept; then the row here goes.';
