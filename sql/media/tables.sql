-- Files of messages: what they are, where their bytes are, the links by which they may be had, and what the
-- provider calls them. The bytes stand apart: whoever may look at wa_media gets none, only a link that is
-- still good opens them.

CREATE TABLE wa_media (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    -- As _wa_uuid7(), which is the extension's: a default that calls it would go with the extension.
    id uuid NOT NULL DEFAULT (
        overlay(lpad(to_hex((date_part('epoch', clock_timestamp()) * 4096000)::bigint), 15, '0'), '7', 13, 0)
        || right(gen_random_uuid()::text, 17)
    )::uuid,
    message_id bigint,
    direction text NOT NULL,
    phone_number_id text,
    provider_media_id text,
    media_type text NOT NULL,
    mime_type text,
    filename text,
    file_size bigint,
    sha256 bytea,
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT clock_timestamp(),
    error text,
    stored_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    contact_id bigint,
    blob_id uuid,
    leased_until timestamptz,
    is_wanted boolean NOT NULL DEFAULT false,
    used_at timestamptz,
    CONSTRAINT wa_media_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_media_message_key UNIQUE (message_id, organization_id),
    CONSTRAINT wa_media_direction_check CHECK (direction IN ('inbound', 'outbound')),
    CONSTRAINT wa_media_type_check CHECK (media_type IN ('image', 'video', 'audio', 'document', 'sticker')),
    CONSTRAINT wa_media_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT wa_media_attempt_check CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT wa_media_status_check CHECK (
        status IN ('pending', 'on_demand', 'stored', 'failed', 'deleted')
    )
);

-- Claims take from each organization in turn. Nobody else may name the state in a look-up by key: while the
-- table seems empty, that would be planned as a walk through all that is pending.
CREATE INDEX wa_media_pending_idx ON wa_media (organization_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX wa_media_expires_idx ON wa_media (expires_at) WHERE status = 'stored';

-- One of these for all files with the same bytes. Not tied to the organization by a foreign key: the last
-- file takes its bytes along, in whatever order a deleted organization's rows go.
CREATE TABLE wa_media_blobs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL,
    sha256 bytea NOT NULL,
    size bigint NOT NULL,
    store text NOT NULL,
    location text,
    is_own boolean NOT NULL,
    is_complete boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_media_blobs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_blobs_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT wa_media_blobs_size_check CHECK (size > 0),
    CONSTRAINT wa_media_blobs_store_check CHECK (
        store IN ('database', 'directory', 's3') AND (store = 'database') = (location IS NULL)
    )
);

CREATE UNIQUE INDEX wa_media_blobs_sha256_key
ON wa_media_blobs (sha256, is_own, organization_id) WHERE is_complete;
CREATE INDEX wa_media_blobs_incomplete_idx ON wa_media_blobs (created_at) WHERE NOT is_complete;

ALTER TABLE wa_media
ADD CONSTRAINT wa_media_blob_fkey FOREIGN KEY (organization_id, blob_id)
REFERENCES wa_media_blobs (organization_id, id);
CREATE INDEX wa_media_blob_idx ON wa_media (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX wa_media_ownerless_idx
ON wa_media (created_at) WHERE message_id IS NULL AND provider_media_id IS NOT NULL;
CREATE INDEX wa_media_contact_idx ON wa_media (contact_id, created_at) WHERE contact_id IS NOT NULL;

CREATE TABLE wa_media_chunks (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    blob_id uuid NOT NULL,
    n integer NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT wa_media_chunks_pkey PRIMARY KEY (organization_id, blob_id, n),
    CONSTRAINT wa_media_chunks_blob_fkey FOREIGN KEY (organization_id, blob_id)
    REFERENCES wa_media_blobs (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_media_chunks_content_check CHECK (octet_length(content) BETWEEN 1 AND 1048576)
);

-- Pictures, sound and video are compressed already; and a part of what is not is read without the rest.
ALTER TABLE wa_media_chunks ALTER COLUMN content SET STORAGE EXTERNAL;

-- What was said stands in no statistics: they outlive it.
ALTER TABLE wa_media_chunks ALTER COLUMN content SET STATISTICS 0;

-- Without a foreign key: the objects of an organization that is deleted have to go, too.
CREATE TABLE wa_media_garbage (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    blob_id uuid NOT NULL,
    store text NOT NULL,
    location text NOT NULL,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    error text,
    CONSTRAINT wa_media_garbage_pkey PRIMARY KEY (organization_id, blob_id)
);

CREATE INDEX wa_media_garbage_due_idx ON wa_media_garbage (due_at);

CREATE TABLE wa_media_usages (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    bytes bigint NOT NULL DEFAULT 0,
    CONSTRAINT wa_media_usages_pkey PRIMARY KEY (organization_id),
    CONSTRAINT wa_media_usages_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_media_signatures (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    media_id uuid NOT NULL,
    message_id bigint,
    token_hash bytea NOT NULL,
    max_access integer NOT NULL DEFAULT 1,
    access_count integer NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_accessed_at timestamptz,
    CONSTRAINT wa_media_signatures_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_signatures_media_fkey FOREIGN KEY (organization_id, media_id)
    REFERENCES wa_media (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_media_signatures_token_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT wa_media_signatures_access_check CHECK (
        max_access > 0 AND access_count BETWEEN 0 AND max_access
    )
);

-- A link names its signature and no organization.
CREATE INDEX wa_media_signatures_id_idx ON wa_media_signatures (id);
CREATE INDEX wa_media_signatures_media_idx ON wa_media_signatures (media_id);
CREATE INDEX wa_media_signatures_expires_idx ON wa_media_signatures (expires_at);

CREATE TABLE wa_media_openings (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    signature_id uuid NOT NULL,
    client_hash bytea NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    requests integer NOT NULL DEFAULT 1,
    CONSTRAINT wa_media_openings_pkey PRIMARY KEY (organization_id, signature_id, client_hash),
    CONSTRAINT wa_media_openings_signature_fkey FOREIGN KEY (organization_id, signature_id)
    REFERENCES wa_media_signatures (organization_id, id) ON DELETE CASCADE
);

-- By hash, not by blob: what the provider has stays of use when the bytes here were deleted and come again.
CREATE TABLE wa_media_uploads (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    sha256 bytea NOT NULL,
    phone_number_id text NOT NULL,
    mime_type text NOT NULL,
    media_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    provider_media_id text,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT clock_timestamp(),
    leased_until timestamptz,
    error text,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    CONSTRAINT wa_media_uploads_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_uploads_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_media_uploads_file_key UNIQUE (sha256, phone_number_id, mime_type, organization_id),
    CONSTRAINT wa_media_uploads_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT wa_media_uploads_status_check CHECK (status IN ('pending', 'uploaded', 'failed')),
    CONSTRAINT wa_media_uploads_attempt_check CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT wa_media_uploads_id_check CHECK (
        (status = 'uploaded') = (provider_media_id IS NOT NULL AND expires_at IS NOT NULL)
    )
);

CREATE INDEX wa_media_uploads_pending_idx
ON wa_media_uploads (organization_id, next_attempt_at) WHERE status = 'pending';

COMMENT ON TABLE wa_media IS
'Files of messages. Their bytes are given out by open_wa_media() only, against a link.';
COMMENT ON COLUMN wa_media.id IS 'Grows with time: retention looks among the lowest.';
COMMENT ON COLUMN wa_media.message_id IS
'Id in wa_messages; NULL for a file of your own, which any number of messages may name, and where the '
'message was deleted.';
COMMENT ON COLUMN wa_media.direction IS
'inbound: came with a message of a customer. outbound: yours, from create_wa_media() or bin/wa media upload, '
'or of a message from the WhatsApp Business app.';
COMMENT ON COLUMN wa_media.provider_media_id IS
'What the provider calls it; it hands an inbound file out for 7 days. Of files of yours: wa_media_uploads.';
COMMENT ON COLUMN wa_media.sha256 IS 'Hash of the bytes, as the provider told it; of what was stored, then.';
COMMENT ON COLUMN wa_media.status IS
'pending: yet to be fetched from the provider. on_demand: beyond a quota, fetched by fetch_wa_media() only. '
'stored: its bytes are here. failed: they could not be had. deleted: they were here.';
COMMENT ON COLUMN wa_media.error IS 'Why it was not fetched, or why fetching it failed last.';
COMMENT ON COLUMN wa_media.expires_at IS
'When the bytes are deleted; NULL: with the messages of the organization.';
COMMENT ON COLUMN wa_media.contact_id IS 'Who sent it; quotas count by it.';
COMMENT ON COLUMN wa_media.blob_id IS 'Its bytes, in wa_media_blobs; NULL while there are none.';
COMMENT ON COLUMN wa_media.leased_until IS
'While a dispatcher is fetching it; when that is over, another one may.';
COMMENT ON COLUMN wa_media.is_wanted IS 'Asked for by fetch_wa_media(): no quota counts.';
COMMENT ON COLUMN wa_media.used_at IS
'Of a file of yours: when a message with it was queued or sent last. It is kept as long as that message.';
COMMENT ON TABLE wa_media_blobs IS
'The bytes of stored files, once for all files of an organization that are alike.';
COMMENT ON COLUMN wa_media_blobs.store IS
'database: wa_media_chunks has them. directory, s3: a file or object below location, ORGANIZATION/ID.';
COMMENT ON COLUMN wa_media_blobs.location IS
'A directory, or s3://BUCKET/PREFIX; that of the time when it was stored. NULL in the database.';
COMMENT ON COLUMN wa_media_blobs.is_own IS
'Given by an application, whose word for the hash it is: what customers send is never found to be alike.';
COMMENT ON COLUMN wa_media_blobs.is_complete IS
'False while the bytes are being written, and where that was given up: those go after a day.';
COMMENT ON TABLE wa_media_chunks IS
'Bytes in the database, a mebibyte a row, so that nobody needs room for all of a file.';
COMMENT ON TABLE wa_media_garbage IS
'Internal: files and objects outside of the database that nothing names any more; dispatchers delete them.';
COMMENT ON TABLE wa_media_usages IS 'Internal: how many bytes each organization keeps, in all stores.';
COMMENT ON TABLE wa_media_signatures IS
'Links to files: each good for some time and some openings. Deleting one takes the link back.';
COMMENT ON COLUMN wa_media_signatures.token_hash IS
'SHA-256 of the token, which is told once and stored nowhere.';
COMMENT ON COLUMN wa_media_signatures.max_access IS 'How often the link may be opened.';
COMMENT ON TABLE wa_media_openings IS
'Internal: who opened a link, as a hash of address and program, so that a player that asks for part after '
'part has opened it once.';
COMMENT ON TABLE wa_media_uploads IS
'Files of yours at the provider, each once for a business number: its id there is good for 30 days, then the '
'file is uploaded again when it is needed.';
COMMENT ON COLUMN wa_media_uploads.media_id IS 'The file of wa_media that asked for it.';
COMMENT ON COLUMN wa_media_uploads.provider_media_id IS 'What the provider calls it.';
COMMENT ON COLUMN wa_media_uploads.error IS 'Why the last try failed.';
COMMENT ON COLUMN wa_media_uploads.requested_at IS
'Since when it is needed: what the provider does not take within a day has failed.';
COMMENT ON COLUMN wa_media_uploads.expires_at IS 'When the provider forgets it.';
