-- Files of messages: what they are, the bytes, and the links by which they may be had. The bytes stand apart:
-- whoever may look at wa_media gets none, only a link that is still good opens them.

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
    CONSTRAINT wa_media_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_media_message_key UNIQUE (message_id, organization_id),
    CONSTRAINT wa_media_direction_check CHECK (direction IN ('inbound', 'outbound')),
    CONSTRAINT wa_media_type_check CHECK (media_type IN ('image', 'video', 'audio', 'document', 'sticker')),
    CONSTRAINT wa_media_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT wa_media_status_check CHECK (status IN ('pending', 'stored', 'failed', 'deleted')),
    CONSTRAINT wa_media_attempt_check CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
);

CREATE INDEX wa_media_pending_idx ON wa_media (next_attempt_at) WHERE status = 'pending';
CREATE INDEX wa_media_expires_idx ON wa_media (expires_at) WHERE status = 'stored';

CREATE TABLE wa_media_contents (
    organization_id uuid NOT NULL,
    media_id uuid NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT wa_media_contents_pkey PRIMARY KEY (organization_id, media_id),
    CONSTRAINT wa_media_contents_media_fkey FOREIGN KEY (organization_id, media_id)
    REFERENCES wa_media (organization_id, id) ON DELETE CASCADE
);

-- Pictures, sound and video are compressed already.
ALTER TABLE wa_media_contents ALTER COLUMN content SET STORAGE EXTERNAL;

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

COMMENT ON TABLE wa_media IS
'Files of messages. Their bytes are given out by open_wa_media() only, against a link.';
COMMENT ON COLUMN wa_media.id IS 'Grows with time: retention looks among the lowest.';
COMMENT ON COLUMN wa_media.message_id IS 'Id in wa_messages.';
COMMENT ON COLUMN wa_media.provider_media_id IS
'What the provider calls it; it hands an inbound file out for 7 days.';
COMMENT ON COLUMN wa_media.sha256 IS 'Hash of the bytes, as the provider told it; of what was stored, then.';
COMMENT ON COLUMN wa_media.status IS
'pending: yet to be fetched from the provider. stored: its bytes are here. failed: they could not be had. '
'deleted: they were here.';
COMMENT ON COLUMN wa_media.error IS 'Why fetching it failed last.';
COMMENT ON COLUMN wa_media.expires_at IS
'When the bytes are deleted; NULL: with the messages of the organization.';
COMMENT ON TABLE wa_media_contents IS 'The bytes of stored files.';
COMMENT ON TABLE wa_media_signatures IS
'Links to files: each good for some time and some openings. Deleting one takes the link back.';
COMMENT ON COLUMN wa_media_signatures.token_hash IS
'SHA-256 of the token, which is told once and stored nowhere.';
COMMENT ON COLUMN wa_media_signatures.max_access IS 'How often the link may be opened.';
