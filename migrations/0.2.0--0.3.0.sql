-- What changes in the tables between 0.2.0 and 0.3.0.

-- Without a function of the extension, with which the default would go.
ALTER TABLE wa_media ALTER COLUMN id SET DEFAULT (
    overlay(lpad(to_hex((date_part('epoch', clock_timestamp()) * 4096000)::bigint), 15, '0'), '7', 13, 0)
    || right(gen_random_uuid()::text, 17)
)::uuid;

CREATE TABLE wa_api_keys (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL,
    role_name name NOT NULL,
    scopes text [] NOT NULL,
    is_test boolean NOT NULL DEFAULT false,
    requests_per_minute integer,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    last_used_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT wa_api_keys_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_api_keys_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_api_keys_hash_check CHECK (octet_length(secret_hash) = 32),
    CONSTRAINT wa_api_keys_scopes_check CHECK (
        scopes <@ '{send,read,media,templates,metrics,admin}' AND cardinality(scopes) > 0
    ),
    CONSTRAINT wa_api_keys_rate_check CHECK (requests_per_minute > 0)
);

-- A request brings the key alone, and no organization.
CREATE INDEX wa_api_keys_hash_idx ON wa_api_keys (secret_hash);

-- Written with every request of a key that has a limit: narrow, and without an index beside its key.
CREATE TABLE wa_api_key_uses (
    organization_id uuid NOT NULL,
    key_id uuid NOT NULL,
    minute timestamptz NOT NULL,
    requests integer NOT NULL,
    CONSTRAINT wa_api_key_uses_pkey PRIMARY KEY (organization_id, key_id),
    CONSTRAINT wa_api_key_uses_key_fkey FOREIGN KEY (organization_id, key_id)
    REFERENCES wa_api_keys (organization_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE wa_idempotent_requests (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    caller text NOT NULL,
    idempotency_key text NOT NULL,
    body_hash bytea NOT NULL,
    result jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_idempotent_requests_pkey PRIMARY KEY (organization_id, caller, idempotency_key),
    CONSTRAINT wa_idempotent_requests_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE INDEX wa_idempotent_requests_created_at_idx ON wa_idempotent_requests (created_at);

COMMENT ON TABLE wa_api_keys IS
'Keys of the HTTP API. A request with a key runs as its role, in its organization.';
COMMENT ON COLUMN wa_api_keys.prefix IS 'How the key begins, by which a person knows it again.';
COMMENT ON COLUMN wa_api_keys.secret_hash IS 'SHA-256 of the whole key, which is told once and never stored.';
COMMENT ON COLUMN wa_api_keys.role_name IS
'The database role of its requests: their grants and row security are those of this role.';
COMMENT ON COLUMN wa_api_keys.scopes IS
'What it is for: send, read, media, templates, metrics, admin. The rights of the role hold beside it.';
COMMENT ON COLUMN wa_api_keys.is_test IS 'Reaches business numbers with is_test only.';
COMMENT ON COLUMN wa_api_keys.requests_per_minute IS
'So many requests a minute are answered; NULL: any number.';
COMMENT ON COLUMN wa_api_keys.last_used_at IS 'To the minute.';
COMMENT ON TABLE wa_api_key_uses IS 'Requests in the present minute, of keys with a limit.';
COMMENT ON TABLE wa_idempotent_requests IS
'Requests that came with an Idempotency-Key: a repetition finds what the first one did.';
COMMENT ON COLUMN wa_idempotent_requests.caller IS
'The key (or token) and the operation that it was used for.';
COMMENT ON COLUMN wa_idempotent_requests.body_hash IS
'SHA-256 of the body: another one under the same key is refused.';
COMMENT ON COLUMN wa_idempotent_requests.result IS
'What the first one did, by its ids; the answer is made from the rows as they are now.';

-- For whoever looks for a word that was said.
CREATE INDEX wa_messages_text_idx
ON wa_messages USING gin (to_tsvector('simple', content_text)) WHERE content_text IS NOT NULL;

-- Where URLs that tenants set may lead.
ALTER TABLE wa_installations
ADD COLUMN outside_networks cidr[] NOT NULL DEFAULT '{}',
ADD COLUMN outside_plain_http boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN wa_installations.outside_networks IS
'Networks that are not of the internet (10.0.0.0/8, …) to which URLs that tenants set may lead all the same.';
COMMENT ON COLUMN wa_installations.outside_plain_http IS
'Whether URLs that tenants set may be http instead of https.';

-- Events that are pushed.
ALTER TABLE wa_organizations
ADD COLUMN event_delivery_retention interval DEFAULT interval '7 days',
ADD CONSTRAINT wa_organizations_event_delivery_retention_check CHECK (
    event_delivery_retention >= interval '1 hour'
);
COMMENT ON COLUMN wa_organizations.event_delivery_retention IS
'How long wa_event_deliveries keeps what was pushed or given up, once jobs are scheduled; NULL keeps it for '
'good.';
COMMENT ON COLUMN wa_faults.work IS
'claim, result, maintenance, events (pushed), audit, erasure, or webhook where it met a lock: '
'wa_webhook_errors and wa_job_runs have the rest.';
COMMENT ON COLUMN wa_faults.subject IS
'What it was about: a business number for a claim, a queue id for a result, a subscription for events, the '
'id of an erasure, else empty.';

CREATE TABLE wa_event_subscriptions (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    url text NOT NULL,
    kinds text[] NOT NULL,
    state text NOT NULL DEFAULT 'active',
    state_reason text,
    state_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_position bigint NOT NULL,
    starts_after_id bigint NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_error text,
    retry_at timestamptz,
    last_success_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_event_subscriptions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_event_subscriptions_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_event_subscriptions_kinds_check CHECK (cardinality(kinds) > 0),
    CONSTRAINT wa_event_subscriptions_state_check CHECK (state IN ('active', 'disabled', 'gone'))
) WITH (fillfactor = 50);

CREATE TABLE wa_event_secrets (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    subscription_id uuid NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    ciphertext bytea NOT NULL,
    key_id text NOT NULL,
    fingerprint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    valid_until timestamptz,
    CONSTRAINT wa_event_secrets_pkey PRIMARY KEY (organization_id, subscription_id, id),
    CONSTRAINT wa_event_secrets_subscription_fkey FOREIGN KEY (organization_id, subscription_id)
    REFERENCES wa_event_subscriptions (organization_id, id) ON DELETE CASCADE
);

CREATE TABLE wa_event_deliveries (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    subscription_id uuid NOT NULL,
    event_id bigint NOT NULL,
    webhook_id text NOT NULL,
    type text NOT NULL,
    position bigint,
    order_key text NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    first_attempt_at timestamptz,
    last_attempt_at timestamptz,
    duration_ms integer,
    http_status integer,
    answer text,
    error text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    CONSTRAINT wa_event_deliveries_pkey PRIMARY KEY (organization_id, subscription_id, event_id),
    CONSTRAINT wa_event_deliveries_subscription_fkey FOREIGN KEY (organization_id, subscription_id)
    REFERENCES wa_event_subscriptions (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_event_deliveries_state_check CHECK (
        state IN ('waiting', 'sending', 'delivered', 'failed')
    )
) WITH (fillfactor = 70);

-- None serves for the other: while the table seems empty they would look equally good.
CREATE INDEX wa_event_deliveries_due_idx ON wa_event_deliveries (subscription_id, next_attempt_at)
WHERE state IN ('waiting', 'sending') AND next_attempt_at < 'infinity';

CREATE INDEX wa_event_deliveries_order_idx
ON wa_event_deliveries (subscription_id, order_key, position) WHERE state IN ('waiting', 'sending');

COMMENT ON TABLE wa_event_subscriptions IS
'URLs to which events are pushed, signed by Standard Webhooks. bin/wa events subscribe makes them.';
COMMENT ON COLUMN wa_event_subscriptions.kinds IS
'What is pushed: message, status, conversation, or some of them: message.received, status.failed, …';
COMMENT ON COLUMN wa_event_subscriptions.state IS
'active; disabled, by hand or because nothing got through for five days; gone, the receiver answered 410.';
COMMENT ON COLUMN wa_event_subscriptions.state_reason IS 'Why it is not active: paused, failing or gone.';
COMMENT ON COLUMN wa_event_subscriptions.read_position IS
'Up to which wa_events.position deliveries were made.';
COMMENT ON COLUMN wa_event_subscriptions.starts_after_id IS
'Events with an id up to this one were there before the subscription, and are not pushed.';
COMMENT ON COLUMN wa_event_subscriptions.failures IS
'Attempts that failed in a row; from three on only one at a time is made.';
COMMENT ON COLUMN wa_event_subscriptions.failing_since IS
'The first failure since the last success; after five days the subscription is disabled.';
COMMENT ON COLUMN wa_event_subscriptions.retry_at IS 'No attempt is made before this time.';
COMMENT ON COLUMN wa_event_subscriptions.last_success_at IS 'To the minute.';
COMMENT ON TABLE wa_event_secrets IS
'What deliveries are signed with, encrypted with a key that is not in the database; those of a subscription '
'sign side by side until valid_until.';
COMMENT ON COLUMN wa_event_secrets.ciphertext IS
'Nonce and AES-GCM ciphertext; the organization and the subscription are bound in.';
COMMENT ON COLUMN wa_event_secrets.fingerprint IS
'Keyed hash of the value: tells equal secrets from different ones, gives nothing away.';
COMMENT ON COLUMN wa_event_secrets.valid_until IS 'NULL for the one in use; until when a former one signs.';
COMMENT ON TABLE wa_event_deliveries IS
'What became of each event at each subscription that wants it; only the last attempt is kept.';
COMMENT ON COLUMN wa_event_deliveries.event_id IS
'wa_events.id; below zero for test events, which are in no other table.';
COMMENT ON COLUMN wa_event_deliveries.webhook_id IS
'The header by which the receiver knows what it got already, the same with every attempt.';
COMMENT ON COLUMN wa_event_deliveries.type IS 'As in the body: message.received, status.delivered, …, test.';
COMMENT ON COLUMN wa_event_deliveries.order_key IS
'Deliveries with the same key (a contact at a business number) go one after the other.';
COMMENT ON COLUMN wa_event_deliveries.state IS
'waiting, sending, delivered; failed: given up after three days in which others got through, or at 410.';
COMMENT ON COLUMN wa_event_deliveries.next_attempt_at IS
'When it is due; infinity while an earlier one of its key is not delivered; while sending, from when on it '
'counts as lost and is sent again.';
COMMENT ON COLUMN wa_event_deliveries.answer IS 'How the body of the last answer begins.';
COMMENT ON COLUMN wa_event_deliveries.error IS 'Why the last attempt failed.';
COMMENT ON COLUMN wa_event_deliveries.ended_at IS 'When it was delivered or given up.';

-- Files have a room of their own, and so has privacy.
UPDATE wa_migrations AS m
SET step = n.present
FROM (
    VALUES
    ('ledger/media.sql', 'media/links.sql'),
    ('ledger/tables_media.sql', 'media/tables.sql'),
    ('jobs/retention.sql', 'privacy/retention.sql')
) AS n (former, present)
WHERE m.step = n.former;

-- A step from 0.1.0 comes here without having made them.
DROP FUNCTION IF EXISTS claim_wa_media(integer, interval);
DROP FUNCTION IF EXISTS fail_wa_media(uuid, uuid, text, boolean);
DROP FUNCTION IF EXISTS _wa_create_media_signature(uuid, uuid, integer, integer);
DROP FUNCTION IF EXISTS create_wa_media_signature(bigint, integer, integer);
DROP FUNCTION IF EXISTS create_wa_media_signature(uuid, integer, integer);
DROP FUNCTION IF EXISTS verify_wa_media_signature(uuid, text);
DROP FUNCTION IF EXISTS open_wa_media(uuid, text);
DROP FUNCTION IF EXISTS _wa_weigh_due(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], integer, timestamptz
);

-- Where files are stored, what of them, and under which address they are given out.
ALTER TABLE wa_organizations
ADD COLUMN public_url text,
ADD COLUMN media_store text,
ADD COLUMN media_location text,
ADD COLUMN media_quota bigint,
ADD COLUMN media_contact_quota bigint DEFAULT 1073741824,
ADD CONSTRAINT wa_organizations_public_url_check CHECK (
    public_url ~ '^https?://[^/?#[:space:]]+(/[^?#[:space:]]*[^/?#[:space:]])?$'
),
ADD CONSTRAINT wa_organizations_media_store_check CHECK (
    CASE media_store
        WHEN 'directory' THEN coalesce(media_location ~ '^/.*[^/]$', false)
        WHEN 's3' THEN coalesce(media_location ~ '^s3://[a-z0-9.-]{3,63}(/.*[^/])?$', false)
        ELSE media_location IS NULL AND coalesce(media_store = 'database', true)
    END
),
ADD CONSTRAINT wa_organizations_media_quota_check CHECK (media_quota >= 0 AND media_contact_quota >= 0);
ALTER TABLE wa_installations
ADD COLUMN public_url text,
ADD COLUMN media_store text NOT NULL DEFAULT 'database',
ADD COLUMN media_location text,
ADD CONSTRAINT wa_installations_public_url_check CHECK (
    public_url ~ '^https?://[^/?#[:space:]]+(/[^?#[:space:]]*[^/?#[:space:]])?$'
),
ADD CONSTRAINT wa_installations_media_store_check CHECK (
    CASE media_store
        WHEN 'directory' THEN coalesce(media_location ~ '^/.*[^/]$', false)
        WHEN 's3' THEN coalesce(media_location ~ '^s3://[a-z0-9.-]{3,63}(/.*[^/])?$', false)
        ELSE media_location IS NULL AND media_store = 'database'
    END
);
COMMENT ON COLUMN wa_organizations.public_url IS
'Where customers and browsers reach `bin/wa serve`, for example https://chat.shop.example; links to files '
'begin with it. NULL: that of wa_installations.';
COMMENT ON COLUMN wa_organizations.media_store IS
'Where files are stored from now on: database, directory or s3; NULL: as wa_installations says.';
COMMENT ON COLUMN wa_organizations.media_location IS
'The directory, or s3://BUCKET/PREFIX, of media_store. Every process that reads or writes files has to '
'reach it.';
COMMENT ON COLUMN wa_organizations.media_quota IS
'How many bytes of files are kept; what comes in beyond them waits for fetch_wa_media(). NULL: any number.';
COMMENT ON COLUMN wa_organizations.media_contact_quota IS
'How many bytes are fetched of what one contact sends within 24 hours; NULL: any number, 0: nothing by '
'itself.';
COMMENT ON COLUMN wa_installations.public_url IS
'Where customers and browsers reach `bin/wa serve`, for organizations that have no public_url of their own.';
COMMENT ON COLUMN wa_installations.media_store IS
'Where files are stored from now on, for organizations that say nothing else: database, directory or s3.';
COMMENT ON COLUMN wa_installations.media_location IS
'The directory, or s3://BUCKET/PREFIX, of media_store.';

-- Bytes stand in rows of a mebibyte now, once for all files of an organization that are alike. What is
-- stored is rewritten, in about the time that it takes to copy it.
ALTER TABLE wa_media
ADD COLUMN contact_id bigint,
ADD COLUMN blob_id uuid,
ADD COLUMN leased_until timestamptz,
ADD COLUMN is_wanted boolean NOT NULL DEFAULT false,
ADD COLUMN used_at timestamptz,
DROP CONSTRAINT wa_media_status_check,
ADD CONSTRAINT wa_media_status_check CHECK (
    status IN ('pending', 'on_demand', 'stored', 'failed', 'deleted')
);
UPDATE wa_media m SET contact_id = w.contact_id
FROM wa_messages w WHERE w.organization_id = m.organization_id AND w.id = m.message_id;
DROP INDEX wa_media_pending_idx;
CREATE INDEX wa_media_pending_idx ON wa_media (organization_id, next_attempt_at) WHERE status = 'pending';
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
ALTER TABLE wa_media_chunks ALTER COLUMN content SET STORAGE EXTERNAL;
INSERT INTO wa_media_blobs (organization_id, id, sha256, size, store, is_own, is_complete)
SELECT DISTINCT ON (c.organization_id, sha256(c.content))
    c.organization_id, c.media_id, sha256(c.content), octet_length(c.content), 'database', false, true
FROM wa_media_contents c WHERE c.content <> ''
ORDER BY c.organization_id, sha256(c.content), c.media_id;
INSERT INTO wa_media_chunks (organization_id, blob_id, n, content)
SELECT b.organization_id, b.id, n, substr(c.content, n * 1048576 + 1, 1048576)
FROM wa_media_blobs b
JOIN wa_media_contents c ON c.organization_id = b.organization_id AND c.media_id = b.id
CROSS JOIN LATERAL generate_series(0, (b.size::integer - 1) / 1048576) n;
UPDATE wa_media m SET blob_id = b.id
FROM wa_media_contents c
JOIN wa_media_blobs b ON b.organization_id = c.organization_id AND b.sha256 = sha256(c.content)
WHERE m.organization_id = c.organization_id AND m.id = c.media_id;
-- A file without a byte is none.
UPDATE wa_media m SET status = 'failed', error = 'the file is empty'
WHERE m.status = 'stored' AND m.blob_id IS NULL;
DROP TABLE wa_media_contents;
ALTER TABLE wa_media
ADD CONSTRAINT wa_media_blob_fkey FOREIGN KEY (organization_id, blob_id)
REFERENCES wa_media_blobs (organization_id, id);
CREATE INDEX wa_media_blob_idx ON wa_media (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX wa_media_ownerless_idx
ON wa_media (created_at) WHERE message_id IS NULL AND provider_media_id IS NOT NULL;
CREATE INDEX wa_media_contact_idx ON wa_media (contact_id, created_at) WHERE contact_id IS NOT NULL;
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
INSERT INTO wa_media_usages (organization_id, bytes)
SELECT b.organization_id, sum(b.size) FROM wa_media_blobs b GROUP BY b.organization_id;
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
COMMENT ON COLUMN wa_media.message_id IS
'Id in wa_messages; NULL for a file of your own, which any number of messages may name, and where the '
'message was deleted.';
COMMENT ON COLUMN wa_media.direction IS
'inbound: came with a message of a customer. outbound: yours, from create_wa_media() or bin/wa media upload, '
'or of a message from the WhatsApp Business app.';
COMMENT ON COLUMN wa_media.provider_media_id IS
'What the provider calls it; it hands an inbound file out for 7 days. Of files of yours: wa_media_uploads.';
COMMENT ON COLUMN wa_media.status IS
'pending: yet to be fetched from the provider. on_demand: beyond a quota, fetched by fetch_wa_media() only. '
'stored: its bytes are here. failed: they could not be had. deleted: they were here.';
COMMENT ON COLUMN wa_media.error IS 'Why it was not fetched, or why fetching it failed last.';
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

CREATE INDEX wa_outbound_queue_media_idx
ON wa_outbound_queue ((content ->> 'media_id')) WHERE content ->> 'media_id' IS NOT NULL;
COMMENT ON COLUMN wa_outbound_queue.content IS
'The message object of the Cloud API for every type but text and template. A file is named by link, by the '
'id that the provider gave it, or, as media_id, by its id in wa_media: then it is uploaded when it has to '
'be.';
COMMENT ON COLUMN wa_queue_due.hold_id IS
'The cause that it waits for: a row of wa_queue_holds, or below zero one of wa_media_uploads; NULL for what '
'may go when its turn comes.';

ALTER TABLE wa_organizations
ALTER COLUMN message_retention SET DEFAULT interval '1 year',
ADD COLUMN text_retention interval DEFAULT interval '90 days',
ADD COLUMN media_retention interval DEFAULT interval '90 days',
-- What is there already is counted before the first of it goes.
ADD COLUMN retention_previewed_at timestamptz,
ADD CONSTRAINT wa_organizations_text_retention_check CHECK (text_retention >= interval '2 days'),
ADD CONSTRAINT wa_organizations_media_retention_check CHECK (media_retention >= interval '2 days');
ALTER TABLE wa_organizations ALTER COLUMN retention_previewed_at SET DEFAULT '-infinity';
-- Who keeps messages for good, keeps what was said for good.
UPDATE wa_organizations SET text_retention = NULL, media_retention = NULL WHERE message_retention IS NULL;
COMMENT ON COLUMN wa_organizations.message_retention IS
'How long messages, their statuses, events and finished queue rows are kept, once jobs are scheduled, '
'without their texts from text_retention on; NULL keeps them for good.';
COMMENT ON COLUMN wa_organizations.text_retention IS
'How long what was said is kept: texts, values and raw webhooks go, kinds, states and times stay for '
'message_retention; NULL keeps it as long as the message.';
COMMENT ON COLUMN wa_organizations.media_retention IS
'How long files are kept; NULL keeps them as long as messages.';
COMMENT ON COLUMN wa_organizations.retention_previewed_at IS
'When the first run for texts and files only counted: it deletes from a day later on. NULL: the next run '
'counts.';

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

-- What was said stands in no statistics: they outlive it.
ALTER TABLE wa_media_chunks ALTER COLUMN content SET STATISTICS 0;
ALTER INDEX wa_messages_text_idx ALTER COLUMN 1 SET STATISTICS 0;
-- Hours, caps and cool-offs.
CREATE TABLE wa_quiet_hours (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    channel text NOT NULL DEFAULT 'whatsapp',
    purpose text NOT NULL DEFAULT 'all',
    phone_number_id text,
    days integer[] NOT NULL DEFAULT '{1,2,3,4,5,6,7}',
    from_time time NOT NULL,
    to_time time NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_quiet_hours_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_quiet_hours_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_quiet_hours_number_fkey FOREIGN KEY (organization_id, phone_number_id)
    REFERENCES wa_phone_numbers (organization_id, phone_number_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT wa_quiet_hours_channel_check CHECK (channel IN ('whatsapp', 'sms')),
    CONSTRAINT wa_quiet_hours_purpose_check CHECK (purpose IN ('marketing', 'utility', 'all')),
    CONSTRAINT wa_quiet_hours_days_check CHECK (
        cardinality(days) > 0 AND days <@ '{1,2,3,4,5,6,7}'::integer[]
    ),
    CONSTRAINT wa_quiet_hours_times_check CHECK (from_time <> to_time AND from_time < time '24:00')
);

CREATE TABLE wa_quiet_days (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    day date NOT NULL,
    purpose text NOT NULL DEFAULT 'all',
    name text,
    CONSTRAINT wa_quiet_days_pkey PRIMARY KEY (organization_id, day, purpose),
    CONSTRAINT wa_quiet_days_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_quiet_days_purpose_check CHECK (purpose IN ('marketing', 'utility', 'all'))
);

CREATE TABLE wa_zone_prefixes (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    prefix text NOT NULL,
    time_zone text NOT NULL,
    CONSTRAINT wa_zone_prefixes_pkey PRIMARY KEY (organization_id, prefix),
    CONSTRAINT wa_zone_prefixes_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_zone_prefixes_prefix_check CHECK (prefix ~ '^(\+[1-9][0-9]{0,9}|[A-Z]{2})$'),
    -- Whether the server has it may change: tg_require_time_zone() asks when it is set.
    CONSTRAINT wa_zone_prefixes_time_zone_check CHECK (
        time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
    )
);

-- What the phonenumbers library knows, alike for everybody.
CREATE TABLE wa_phone_zones (
    prefix text NOT NULL,
    zones text[] NOT NULL,
    CONSTRAINT wa_phone_zones_pkey PRIMARY KEY (prefix)
);

CREATE TABLE wa_contact_caps (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    purpose text NOT NULL,
    messages integer NOT NULL,
    days integer NOT NULL,
    on_full text NOT NULL DEFAULT 'hold',
    CONSTRAINT wa_contact_caps_pkey PRIMARY KEY (organization_id, purpose),
    CONSTRAINT wa_contact_caps_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_contact_caps_purpose_check CHECK (purpose IN ('marketing', 'utility', 'all')),
    CONSTRAINT wa_contact_caps_messages_check CHECK (messages BETWEEN 1 AND 1000),
    CONSTRAINT wa_contact_caps_days_check CHECK (days BETWEEN 1 AND 90),
    CONSTRAINT wa_contact_caps_full_check CHECK (on_full IN ('hold', 'refuse'))
);

CREATE TABLE wa_contact_cool_offs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    contact_id bigint NOT NULL,
    until timestamptz NOT NULL,
    error_code integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_contact_cool_offs_pkey PRIMARY KEY (organization_id, contact_id),
    CONSTRAINT wa_contact_cool_offs_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE
);

CREATE INDEX wa_contact_cool_offs_until_idx ON wa_contact_cool_offs (until);

-- Without a foreign key: rules that go with their organization leave one, too.
CREATE TABLE wa_wait_rechecks (
    organization_id uuid NOT NULL,
    looked_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    CONSTRAINT wa_wait_rechecks_pkey PRIMARY KEY (organization_id)
);

COMMENT ON TABLE wa_quiet_hours IS
'Hours in which no marketing, no utility or no template at all is sent, by the clock of whoever gets it. '
'Authentication and free-form answers are never held back.';
COMMENT ON COLUMN wa_quiet_hours.channel IS
'whatsapp, or sms, where 21:00 to 08:00 is quiet in any case.';
COMMENT ON COLUMN wa_quiet_hours.purpose IS 'marketing or utility, by the template''s category; all is both.';
COMMENT ON COLUMN wa_quiet_hours.phone_number_id IS 'Only for this business number; NULL: for each.';
COMMENT ON COLUMN wa_quiet_hours.days IS
'Days on which the quiet time begins, 1 is Monday: one that begins on Sunday evening ends on Monday.';
COMMENT ON COLUMN wa_quiet_hours.from_time IS 'First quiet minute.';
COMMENT ON COLUMN wa_quiet_hours.to_time IS
'First minute that is not; at or before from_time it is one of the next day. 24:00 is midnight.';
COMMENT ON TABLE wa_quiet_days IS
'Dates that are quiet from midnight to midnight, by the recipient''s clock.';
COMMENT ON TABLE wa_zone_prefixes IS
'The time zone of numbers that begin like this, by word of the organization; the longest prefix counts.';
COMMENT ON COLUMN wa_zone_prefixes.prefix IS
'+ and digits; or two letters, for contacts without a number whose user id begins so.';
COMMENT ON TABLE wa_phone_zones IS
'The time zones that a number may lie in, by how it begins: from the phonenumbers library, filled by '
'refresh_wa_phone_zones().';
COMMENT ON TABLE wa_contact_caps IS
'How many templates of a purpose a contact gets in so many days, from all business numbers together.';
COMMENT ON COLUMN wa_contact_caps.purpose IS
'marketing, utility, or all, which counts both together. Authentication and answers count for none.';
COMMENT ON COLUMN wa_contact_caps.days IS 'Times 24 hours before now.';
COMMENT ON COLUMN wa_contact_caps.on_full IS
'hold: it waits until there is room, and fails if it expires before. refuse: it fails at once.';
COMMENT ON TABLE wa_contact_cool_offs IS
'Contacts who get no marketing for a while, because the provider did not deliver any (131049).';
COMMENT ON TABLE wa_wait_rechecks IS
'Internal: organizations whose rules changed, and how far what waits has been let go to be judged anew.';

ALTER TABLE wa_contacts ADD COLUMN time_zone text;
ALTER TABLE wa_contacts ADD CONSTRAINT wa_contacts_time_zone_check CHECK (
    time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
);
-- Whether the server has a zone may change; only how a name looks is a matter of the table.
UPDATE wa_organizations SET time_zone = 'UTC' WHERE time_zone ~ '^Etc/GMT[+-](0[0-9]|1[5-9]|[2-9][0-9])$';
ALTER TABLE wa_organizations DROP CONSTRAINT wa_organizations_time_zone_check;
ALTER TABLE wa_organizations ADD CONSTRAINT wa_organizations_time_zone_check CHECK (
    time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
);
COMMENT ON COLUMN wa_contacts.time_zone IS
'Where the contact lives, such as America/Bogota, if somebody knows; quiet hours go by it.';

CREATE INDEX wa_queue_due_wait_idx
ON wa_queue_due (organization_id, queue_id) WHERE hold_reason IN ('quiet_hours', 'contact_cap', 'cool_off');
COMMENT ON COLUMN wa_queue_due.hold_reason IS
'Where due_at was moved on: retry, quiet_hours, contact_cap, cool_off or in_reserve; else the kind of the '
'hold.';

-- An operator's own rule for the code stays.
ALTER TABLE wa_error_rules DROP CONSTRAINT wa_error_rules_action_check;
ALTER TABLE wa_error_rules ADD CONSTRAINT wa_error_rules_action_check CHECK (action IN (
    'retry', 'wait_number', 'wait_account', 'wait_recipient', 'fail', 'fail_recipient', 'opt_out',
    'opt_out_word', 'cool_off', 'need_template', 'stop_template', 'pause_number', 'pause_account',
    'pause_token', 'unknown'
));
UPDATE wa_error_rules SET action = 'cool_off', wait = interval '24 hours'
WHERE code = 131049 AND subcode = 0 AND action = 'fail' AND wait IS NULL;

-- The audit log: who, beside what the row says; the chain; counts apart, so that no row changes.
ALTER TABLE audit_log
ADD COLUMN session_role text, ADD COLUMN database_role text, ADD COLUMN client_address text;
DROP INDEX audit_log_rejection_key;

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

INSERT INTO wa_audit_heads (organization_id) SELECT o.id FROM wa_organizations AS o;

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

-- What is there already is sealed as it is.
INSERT INTO wa_audit_unsealed (organization_id, audit_id) SELECT a.organization_id, a.id FROM audit_log a;

-- People and what they may do.
CREATE TABLE wa_users (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    display_name text NOT NULL,
    role text NOT NULL,
    phone_e164 text,
    external_id text,
    role_name name,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_users_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_users_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_users_phone_key UNIQUE (organization_id, phone_e164),
    CONSTRAINT wa_users_external_id_key UNIQUE (organization_id, external_id),
    CONSTRAINT wa_users_role_name_key UNIQUE (organization_id, role_name),
    CONSTRAINT wa_users_known_check CHECK (num_nonnulls(phone_e164, external_id, role_name) > 0),
    CONSTRAINT wa_users_role_check CHECK (role ~ '^[a-z][a-z0-9_]{0,49}$'),
    CONSTRAINT wa_users_external_id_check CHECK (length(external_id) BETWEEN 1 AND 200)
);

-- As _wa_bound_role: whom a person signs in as may use it; a role that takes the name later may not. A dump
-- takes the right along by the name, so that a restore knows its people.
CREATE DOMAIN _wa_user_role AS name;
REVOKE ALL ON DOMAIN _wa_user_role FROM PUBLIC;

CREATE TABLE wa_role_overrides (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    role text NOT NULL,
    permission text NOT NULL,
    is_allowed boolean NOT NULL,
    CONSTRAINT wa_role_overrides_pkey PRIMARY KEY (organization_id, role, permission),
    CONSTRAINT wa_role_overrides_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_role_overrides_role_check CHECK (role ~ '^[a-z][a-z0-9_]{0,49}$'),
    CONSTRAINT wa_role_overrides_permission_check CHECK (permission ~ '^[a-z][a-z0-9_]{0,49}$')
);

COMMENT ON TABLE wa_users IS
'People who work with the system: known by telephone number, by an id of yours or by database role.';
COMMENT ON COLUMN wa_users.role IS 'What the person may do: wa_role_permissions lists it.';
COMMENT ON COLUMN wa_users.external_id IS
'The id that your application, or who signs people in, has for the person: what X-User-ID, or the subject of '
'a token, says.';
COMMENT ON COLUMN wa_users.role_name IS
'The database role that the person signs in with, which has to be there when it is written. One that was '
'dropped and made anew is another: write it again. DROP ROLE is refused while somebody active has it.';
COMMENT ON COLUMN wa_users.is_active IS 'Somebody who left is permitted nothing.';
COMMENT ON DOMAIN _wa_user_role IS
'Internal: whoever may use it is the role that wa_users names, not another that took its name.';
COMMENT ON TABLE wa_role_overrides IS
'What an organization permits a role, or does not, other than by default; written by '
'set_wa_role_permission().';

ALTER TABLE wa_organizations ADD COLUMN unknown_users text NOT NULL DEFAULT 'allow';
ALTER TABLE wa_organizations
ADD CONSTRAINT wa_organizations_unknown_users_check CHECK (unknown_users IN ('allow', 'refuse'));
COMMENT ON COLUMN wa_organizations.unknown_users IS
'allow or refuse: requests over HTTP that name a user who is none of wa_users. Nobody is unknown while '
'there are no users.';

-- Calls to the provider beside sending, and whose conversations are.
CREATE TABLE wa_provider_calls (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    kind text NOT NULL,
    subject text NOT NULL,
    phone_number_id text NOT NULL,
    path text,
    body jsonb,
    passing_body jsonb,
    passing_until timestamptz,
    arguments jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT clock_timestamp(),
    leased_until timestamptz,
    give_up_at timestamptz NOT NULL,
    http_status integer,
    error text,
    result jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    ended_at timestamptz,
    CONSTRAINT wa_provider_calls_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_provider_calls_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_provider_calls_state_check CHECK (state IN ('pending', 'done', 'failed')),
    CONSTRAINT wa_provider_calls_attempt_check CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT wa_provider_calls_end_check CHECK ((state = 'pending') = (ended_at IS NULL))
) WITH (fillfactor = 70);

-- Bounds what waits, however often it is asked for while the provider is away.
CREATE UNIQUE INDEX wa_provider_calls_pending_key
ON wa_provider_calls (subject, kind, organization_id) WHERE state = 'pending';

CREATE INDEX wa_provider_calls_due_idx
ON wa_provider_calls (organization_id, next_attempt_at) WHERE state = 'pending';

CREATE INDEX wa_provider_calls_ended_idx
ON wa_provider_calls (organization_id, state, ended_at) WHERE state <> 'pending';

COMMENT ON TABLE wa_provider_calls IS
'Calls to the provider beside sending (marking as read, templates, business numbers), made by a process '
'beside the dispatcher. Those that ended are kept for a week.';
COMMENT ON COLUMN wa_provider_calls.kind IS
'mark_read; sync_templates, submit_templates; of numbers register_number, subscribe_webhooks, read_profile, '
'set_profile, block_user, list_blocked.';
COMMENT ON COLUMN wa_provider_calls.subject IS
'What it is about. Of a kind only one waits for a subject: the next request takes the place of it.';
COMMENT ON COLUMN wa_provider_calls.phone_number_id IS 'The business number whose token is used.';
COMMENT ON COLUMN wa_provider_calls.path IS
'Where the body is posted to; NULL for what takes several requests, by what stands in arguments.';
COMMENT ON COLUMN wa_provider_calls.arguments IS
'What a kind takes: the method where it is not POST, the names of the sealed secrets that go into the body, '
'and their ids when it was asked for, whether the answer is kept, how often it is made at most.';
COMMENT ON COLUMN wa_provider_calls.passing_body IS
'Goes into the body until passing_until: a typing indicator is of no use later.';
COMMENT ON COLUMN wa_provider_calls.next_attempt_at IS
'When it is due; while it is being made, from when on it counts as lost and is made again.';
COMMENT ON COLUMN wa_provider_calls.leased_until IS 'While a dispatcher''s process is making it.';
COMMENT ON COLUMN wa_provider_calls.give_up_at IS 'It has failed if it was not done by then.';
COMMENT ON COLUMN wa_provider_calls.error IS 'Why the last attempt failed.';
COMMENT ON COLUMN wa_provider_calls.result IS
'What came of templates, or what the provider answered; NULL where there is nothing to tell.';


ALTER TABLE wa_conversation_windows
ADD COLUMN read_at timestamptz,
ADD COLUMN read_call_id uuid,
ADD COLUMN assigned_to text;
CREATE INDEX wa_conversation_windows_assigned_idx
ON wa_conversation_windows (organization_id, assigned_to) WHERE assigned_to IS NOT NULL;
COMMENT ON COLUMN wa_conversation_windows.read_at IS
'Time of the latest message of the customer that was marked as read, by mark_wa_read().';
COMMENT ON COLUMN wa_conversation_windows.read_call_id IS
'The row of wa_provider_calls that told the provider so.';
COMMENT ON COLUMN wa_conversation_windows.assigned_to IS
'The user who looks after it, by assign_wa_conversation(): in the words of your system; grants nothing.';

ALTER TABLE wa_events
ADD COLUMN conversation_id bigint,
DROP CONSTRAINT wa_events_kind_check,
ADD CONSTRAINT wa_events_kind_check CHECK (kind IN ('message', 'status', 'conversation'));
COMMENT ON TABLE wa_events IS
'Inbound messages, status changes and conversations that were assigned, in the order in which '
'read_wa_events() hands them out.';
COMMENT ON COLUMN wa_events.conversation_id IS 'Of the kind conversation: which; those have no message.';
DROP FUNCTION read_wa_events(text, integer);
-- Another column of the result.
DROP FUNCTION get_wa_credentials();
COMMENT ON COLUMN wa_secrets.ciphertext IS
'Version, nonce and AES-GCM ciphertext; organization, name and number are bound in.';
ALTER TABLE wa_secrets
DROP CONSTRAINT wa_secrets_name_check,
ADD CONSTRAINT wa_secrets_name_check CHECK (
    name IN (
        'access_token', 'app_secret', 'verify_token', 'webhook_header', 'platform_secret', 'registration_pin'
    )
);
COMMENT ON COLUMN wa_secrets.name IS
'access_token, verify_token; app_secret, with which Meta signs webhooks; webhook_header, the header that '
'360dialog was told to send with them, and platform_secret, with which it signs those of its partners; '
'registration_pin, the six digits that register a number.';


-- Consent: a record that nobody changes, scopes by category, words as data, double opt-in.
DROP FUNCTION IF EXISTS _wa_judge(
    uuid, uuid[], bigint[], bigint[], uuid[], interval, timestamptz
);
DROP FUNCTION IF EXISTS _wa_refusal(boolean, boolean, boolean, boolean);
DROP FUNCTION IF EXISTS _wa_opt_out_of(uuid, bigint, text);
DROP FUNCTION IF EXISTS _wa_opt_out_contacts(uuid, bigint[], text, text, text);
DROP FUNCTION IF EXISTS _wa_opt_in_contacts(uuid, bigint[], text, text, jsonb);
DROP FUNCTION IF EXISTS opt_out_wa_contact(text, text, text, text);
DROP FUNCTION IF EXISTS _wa_route(uuid, text, bigint);
DROP FUNCTION IF EXISTS _wa_refused_scope(uuid, text, text, jsonb, text);
DROP FUNCTION IF EXISTS enqueue_wa_message(
    text, text, text, jsonb, text, text, jsonb, text, timestamptz, timestamptz, text, text, text, jsonb, text,
    text, text, text, jsonb, text, text
);
-- What the update of the extension left of it, to this schema's owner.
DROP FUNCTION IF EXISTS _wa_is_opt_out_word(text);
DROP FUNCTION IF EXISTS _wa_is_opt_in_word(text);
DROP FUNCTION IF EXISTS _wa_opt_out_scope(text);
DROP FUNCTION IF EXISTS _wa_bare_word(text);

ALTER TABLE wa_organizations
ADD COLUMN stop_scopes text [] NOT NULL DEFAULT '{marketing,utility}',
ADD COLUMN confirms_opt_outs boolean NOT NULL DEFAULT true,
ADD COLUMN require_opt_in text [] NOT NULL DEFAULT '{}',
ADD CONSTRAINT wa_organizations_stop_scopes_check CHECK (
    stop_scopes <@ '{marketing,utility,authentication,all}' AND cardinality(stop_scopes) > 0
),
ADD CONSTRAINT wa_organizations_opt_in_check CHECK (require_opt_in <@ '{marketing,utility,authentication}');
COMMENT ON COLUMN wa_organizations.stop_scopes IS
'What STOP and its like opt out of: marketing, utility, authentication, or all.';
COMMENT ON COLUMN wa_organizations.confirms_opt_outs IS
'Whether a message confirms an opt-out by a word or a button: wa_consent_texts.';
COMMENT ON COLUMN wa_organizations.require_opt_in IS
'Categories whose templates go only to who has opted in to them: marketing, utility, authentication.';

ALTER TABLE wa_outbound_queue
ADD COLUMN sent_by text,
ADD CONSTRAINT wa_outbound_queue_sent_by_check CHECK (sent_by <> '' AND char_length(sent_by) <= 200);
COMMENT ON COLUMN wa_outbound_queue.sent_by IS
'The person who wrote it, where one did; NULL: a program. A person may answer who opted out and wrote again.';

ALTER TABLE wa_opt_ins
DROP CONSTRAINT wa_opt_ins_scope_check,
DROP CONSTRAINT wa_opt_ins_contact_fkey,
ADD CONSTRAINT wa_opt_ins_contact_fkey FOREIGN KEY (organization_id, contact_id)
REFERENCES wa_contacts (organization_id, id),
ADD CONSTRAINT wa_opt_ins_scope_check CHECK (
    scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
);

ALTER TABLE wa_opt_outs
ADD COLUMN is_keyword boolean NOT NULL DEFAULT false,
ADD COLUMN last_asked_at timestamptz,
ADD COLUMN proof jsonb NOT NULL DEFAULT '{}',
ADD COLUMN confirmation_id uuid,
DROP CONSTRAINT wa_opt_outs_scope_check,
ADD CONSTRAINT wa_opt_outs_scope_check CHECK (
    scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
),
ADD CONSTRAINT wa_opt_outs_proof_check CHECK (jsonb_typeof(proof) = 'object');
UPDATE wa_opt_outs SET is_keyword = true WHERE source IN ('keyword', 'button');
DROP INDEX wa_opt_outs_active_key;
CREATE UNIQUE INDEX wa_opt_outs_active_key
ON wa_opt_outs (contact_id, scope, is_keyword, organization_id) WHERE revoked_at IS NULL;

CREATE TABLE wa_consent_events (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    event text NOT NULL,
    scope text NOT NULL,
    source text NOT NULL,
    phone_number text,
    reason text,
    text_shown text,
    language text,
    wa_message_id text,
    proof jsonb NOT NULL DEFAULT '{}',
    actor text NOT NULL DEFAULT session_user,
    acting_user text,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_consent_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_consent_events_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_consent_events_event_check CHECK (
        event IN ('opt_out', 'opt_in', 'lifted', 'returned', 'requested')
    ),
    CONSTRAINT wa_consent_events_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
    )
);

CREATE INDEX wa_consent_events_contact_idx ON wa_consent_events (contact_id, occurred_at);

CREATE TABLE wa_opt_in_requests (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL,
    source text NOT NULL,
    proof jsonb NOT NULL DEFAULT '{}',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    CONSTRAINT wa_opt_in_requests_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_in_requests_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_opt_in_requests_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'sms', 'all')
    ),
    CONSTRAINT wa_opt_in_requests_proof_check CHECK (jsonb_typeof(proof) = 'object')
);

CREATE INDEX wa_opt_in_requests_open_idx ON wa_opt_in_requests (contact_id) WHERE confirmed_at IS NULL;

-- Words and texts come in two tables each: ours, which every release fills anew, and an organization's own.
CREATE TABLE wa_default_keywords (
    word_key text NOT NULL,
    word text NOT NULL,
    meaning text NOT NULL,
    scope text,
    language text,
    CONSTRAINT wa_default_keywords_pkey PRIMARY KEY (word_key),
    CONSTRAINT wa_default_keywords_meaning_check CHECK (meaning IN ('stop', 'cancel', 'start', 'confirm')),
    CONSTRAINT wa_default_keywords_scope_check CHECK (
        scope IN ('marketing', 'utility', 'authentication', 'all')
    )
);

CREATE TABLE wa_keywords (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    word_key text NOT NULL,
    word text NOT NULL,
    meaning text NOT NULL,
    scope text,
    language text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_keywords_pkey PRIMARY KEY (organization_id, word_key),
    CONSTRAINT wa_keywords_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_keywords_meaning_check CHECK (
        meaning IN ('stop', 'cancel', 'start', 'confirm', 'nothing')
    ),
    CONSTRAINT wa_keywords_scope_check CHECK (scope IN ('marketing', 'utility', 'authentication', 'all'))
);

CREATE TABLE wa_default_consent_texts (
    scope text NOT NULL,
    language text NOT NULL,
    body text NOT NULL,
    CONSTRAINT wa_default_consent_texts_pkey PRIMARY KEY (scope, language),
    CONSTRAINT wa_default_consent_texts_scope_check CHECK (scope IN ('marketing', 'all'))
);

CREATE TABLE wa_consent_texts (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    scope text NOT NULL,
    language text NOT NULL,
    body text NOT NULL,
    CONSTRAINT wa_consent_texts_pkey PRIMARY KEY (organization_id, scope, language),
    CONSTRAINT wa_consent_texts_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_consent_texts_scope_check CHECK (scope IN ('marketing', 'all')),
    CONSTRAINT wa_consent_texts_language_check CHECK (language ~ '^[a-z]{2,3}(_[A-Z]{2,3})?$'),
    CONSTRAINT wa_consent_texts_body_check CHECK (body ~ '[^[:space:]]' AND char_length(body) <= 1024)
);

-- What is known of the time before, at its own times.
INSERT INTO wa_consent_events (
    organization_id, contact_id, event, scope, source, phone_number, reason, proof, actor, occurred_at
)
SELECT e.organization_id, e.contact_id, e.event, e.scope, e.source, e.phone_number, e.reason, e.proof,
    'before 0.3.0', e.at
FROM (
    SELECT organization_id, contact_id, 'opt_out' AS event, scope, source, phone_number, reason,
        jsonb '{}' AS proof, opt_out_date AS at
    FROM wa_opt_outs
    UNION ALL
    SELECT organization_id, contact_id, 'lifted', scope, coalesce(revoked_source, 'unknown'), phone_number,
        NULL, '{}', revoked_at
    FROM wa_opt_outs WHERE revoked_at IS NOT NULL
    UNION ALL
    SELECT organization_id, contact_id, 'opt_in', scope, source, NULL, NULL, proof, opted_in_at
    FROM wa_opt_ins
) AS e
ORDER BY e.organization_id, e.at;

COMMENT ON COLUMN wa_opt_ins.scope IS 'marketing, utility, authentication: templates of it. all: everything.';
COMMENT ON COLUMN wa_opt_ins.proof IS
'What shows the consent: text (as it was shown), language, wa_message_id, and whatever else (form, version).';
COMMENT ON TABLE wa_opt_outs IS
'Requests not to be written to. A row without revoked_at is in force; rows are kept for good.';
COMMENT ON COLUMN wa_opt_outs.scope IS
'marketing: MARKETING templates. utility: UTILITY templates and free-form messages. authentication: its '
'templates. all: every message.';
COMMENT ON COLUMN wa_opt_outs.phone_number IS 'The number as it was given when the opt-out was recorded.';
COMMENT ON COLUMN wa_opt_outs.opt_out_date IS 'When it was asked for; of a message: when that was written.';
COMMENT ON COLUMN wa_opt_outs.is_keyword IS
'A word that was written or a button that was pressed set it: START lifts such ones alone.';
COMMENT ON COLUMN wa_opt_outs.last_asked_at IS 'When it was asked for again last, while it was in force.';
COMMENT ON COLUMN wa_opt_outs.proof IS 'text, language, wa_message_id of what was said, and whatever else.';
COMMENT ON COLUMN wa_opt_outs.confirmation_id IS
'The queued message that confirms it, which it does not stop: id of wa_outbound_queue.';
COMMENT ON TABLE wa_consent_events IS
'The record of consent: rows are added by whatever changes wa_opt_outs, wa_opt_ins or wa_opt_in_requests, '
'and '
'nobody but the owner of the table may change or delete one. Kept for good.';
COMMENT ON COLUMN wa_consent_events.event IS
'opt_out, opt_in; lifted: an opt-out ended; returned: START was written; requested: an opt-in was asked for.';
COMMENT ON COLUMN wa_consent_events.source IS
'keyword, button, user_preferences, provider (an error told it), admin, api, import, shared, merged, or a '
'name '
'that the caller gave.';
COMMENT ON COLUMN wa_consent_events.text_shown IS 'What was said, or shown to whom agreed.';
COMMENT ON COLUMN wa_consent_events.actor IS 'The database role.';
COMMENT ON COLUMN wa_consent_events.acting_user IS 'Whom that role named as the user (wa.acting_user).';
COMMENT ON COLUMN wa_consent_events.occurred_at IS
'When it was said or asked; recorded_at: when we learned of it.';
COMMENT ON TABLE wa_opt_in_requests IS
'Opt-ins that were asked for and count once the contact writes a word of confirmation in time.';
COMMENT ON TABLE wa_default_keywords IS
'Words that opt out and in, as a whole message. Those of wa_keywords come first. Filled anew by each '
'release.';
COMMENT ON COLUMN wa_default_keywords.word_key IS 'The word as _wa_word_key() compares it.';
COMMENT ON COLUMN wa_default_keywords.meaning IS
'stop: opts out, whatever it answers. cancel: opts out unless it answers a question. start: lifts what a '
'word '
'set. confirm: confirms an opt-in that was asked for.';
COMMENT ON COLUMN wa_default_keywords.scope IS 'Of stop and cancel; NULL: wa_organizations.stop_scopes.';
COMMENT ON COLUMN wa_default_keywords.language IS 'Of the confirmation; NULL: that of the organization.';
COMMENT ON TABLE wa_keywords IS
'Words of an organization beside wa_default_keywords: it sets word, and the rest follows.';
COMMENT ON COLUMN wa_keywords.meaning IS
'As in wa_default_keywords; nothing: the word means nothing here, whatever it means by default.';
COMMENT ON TABLE wa_default_consent_texts IS
'What confirms an opt-out, by language. Those of wa_consent_texts come first. Filled anew by each release.';
COMMENT ON TABLE wa_consent_texts IS 'An organization''s own texts that confirm an opt-out.';
COMMENT ON COLUMN wa_consent_texts.scope IS
'marketing: of an opt-out of marketing alone; all: of a wider one.';

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

ALTER TABLE wa_organizations ADD COLUMN archive_location text;
ALTER TABLE wa_organizations ADD CONSTRAINT wa_organizations_archive_location_check CHECK (
    archive_location ~ '^(/.*[^/]|s3://[a-z0-9.-]{3,63}(/.*[^/])?)$'
);
COMMENT ON COLUMN wa_organizations.archive_location IS
'A directory, or s3://BUCKET/PREFIX, in which bin/wa archive keeps messages, their statuses and queue rows: '
'retention then takes none of them before it is there. NULL: nothing is archived, and retention waits for '
'nothing.';

ALTER TABLE wa_jobs ADD COLUMN rest integer NOT NULL DEFAULT 0;
ALTER TABLE wa_jobs ADD CONSTRAINT wa_jobs_rest_check CHECK (rest >= 0);
UPDATE wa_jobs SET rest = 4 WHERE name = 'retention';
COMMENT ON TABLE wa_jobs IS
'Recurring work. Nothing of it runs before schedule_wa_jobs(). schedule, is_enabled, rest and description '
'may be changed and stay so.';
COMMENT ON COLUMN wa_jobs.batch_rows IS
'A run that handled at least so many rows left some behind: the next one follows at once, or after rest.';
COMMENT ON COLUMN wa_jobs.rest IS
'While messages are being sent, a run that left some behind is followed by the next after so many times as '
'long as it took. 0: at once.';

-- What is charged, on which day of the account, and the month's free messages. What was rolled up is charged
-- on its day; where it may be about the months since free-form messages cost, it is counted anew.
ALTER TABLE wa_phone_numbers
ADD COLUMN account_time_zone text,
ADD COLUMN business_profile jsonb,
ADD COLUMN profile_read_at timestamptz,
ADD CONSTRAINT wa_phone_numbers_account_time_zone_check CHECK (
    account_time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
);
COMMENT ON COLUMN wa_phone_numbers.account_time_zone IS
'Time zone of its WhatsApp Business account, in which the provider bills; NULL: that of the organization.';
COMMENT ON COLUMN wa_phone_numbers.business_profile IS
'What customers see of the business (about, address, description, email, vertical, websites), as it was at '
'profile_read_at.';

CREATE TABLE wa_volume_tiers (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    waba_id text NOT NULL,
    category text NOT NULL,
    region text NOT NULL,
    month date NOT NULL,
    tier text NOT NULL,
    volume_from bigint NOT NULL,
    volume_to bigint,
    told_at timestamptz NOT NULL,
    CONSTRAINT wa_volume_tiers_pkey PRIMARY KEY (organization_id, waba_id, category, region, month),
    CONSTRAINT wa_volume_tiers_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

COMMENT ON TABLE wa_volume_tiers IS
'Volume tiers that accounts have reached, as the provider tells them: from so many messages a month of a '
'category in a region on, others of wa_rates hold.';
COMMENT ON COLUMN wa_volume_tiers.region IS 'The market as the provider names it, for example India.';
COMMENT ON COLUMN wa_volume_tiers.month IS 'First day of the month that it holds for.';
COMMENT ON COLUMN wa_volume_tiers.tier IS 'As told: 25000001:50000000.';

ALTER TABLE wa_message_rollups
ADD COLUMN charged_at timestamptz,
ADD COLUMN charged_on date,
ADD COLUMN is_service boolean NOT NULL DEFAULT false;
UPDATE wa_message_rollups SET charged_on = day WHERE charge IS NOT NULL;
INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
SELECT DISTINCT r.organization_id, r.quarter_at, false FROM wa_message_rollups r
WHERE r.quarter_at >= timestamptz '2026-08-30 00:00+00';

CREATE INDEX wa_message_rollups_charged_idx
ON wa_message_rollups (charged_on, organization_id) WHERE charged_on IS NOT NULL;

CREATE INDEX wa_message_rollups_service_idx
ON wa_message_rollups (organization_id, charged_on) WHERE is_service;

COMMENT ON COLUMN wa_message_rollups.charged_at IS
'Quarter hour of the delivery, which is when a message is charged; NULL where prices do not go by it.';
COMMENT ON COLUMN wa_message_rollups.charged_on IS
'Day of charged_at, else of the quarter hour, in the time zone of the number''s account; NULL for what costs '
'nothing at all.';
COMMENT ON COLUMN wa_message_rollups.is_service IS
'Free-form messages, of which each number has some a month without charge.';

-- Further columns of its result.
DROP FUNCTION IF EXISTS _wa_rate_lines(text, text[]);
ALTER TABLE wa_rates
ADD COLUMN region text,
ADD COLUMN volume_from bigint NOT NULL DEFAULT 0,
ADD CONSTRAINT wa_rates_volume_check CHECK (volume_from = 0 OR volume_from > 0 AND region IS NOT NULL),
DROP CONSTRAINT wa_rates_pkey,
ADD CONSTRAINT wa_rates_pkey PRIMARY KEY (organization_id, country, category, valid_from, volume_from);
COMMENT ON COLUMN wa_rates.category IS
'The provider''s pricing category in small letters: marketing, utility, authentication, service, …';
COMMENT ON COLUMN wa_rates.valid_from IS
'First day of the rate, in the time zone of the number''s account.';
COMMENT ON COLUMN wa_rates.region IS
'The provider''s name of the market that the country is in, as in wa_volume_tiers; needed for volume_from.';
COMMENT ON COLUMN wa_rates.volume_from IS
'Holds for accounts whose tier of the month (wa_volume_tiers) begins here or above; 0: for all.';

-- Providers are described by rows, each error is somebody's, and a number sends by one channel.
CREATE TABLE wa_providers (
    name text NOT NULL,
    send_path text NOT NULL,
    upload_path text,
    media_path text,
    request_function text,
    answer_function text,
    webhook_function text,
    errors_of text,
    features text [] NOT NULL DEFAULT '{}',
    whatsapp_ids text,
    number_calls jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT wa_providers_pkey PRIMARY KEY (name)
);
ALTER TABLE wa_error_rules ADD COLUMN provider text, ADD COLUMN allows_sms boolean;
UPDATE wa_error_rules SET provider = 'meta', allows_sms = code IN (
    130472, 130497, 131026, 131047, 131062, 131063, 132001, 132007, 132015, 132016, 132068, 132069
);
UPDATE wa_error_rules SET provider = 'twilio',
    action = CASE action WHEN 'opt_out' THEN 'opt_out_word' ELSE action END
WHERE code = 21610;
ALTER TABLE wa_error_rules ALTER COLUMN provider SET DEFAULT 'meta', ALTER COLUMN provider SET NOT NULL;
ALTER TABLE wa_error_rules ALTER COLUMN allows_sms SET DEFAULT false, ALTER COLUMN allows_sms SET NOT NULL;
ALTER TABLE wa_error_rules DROP CONSTRAINT wa_error_rules_pkey;
ALTER TABLE wa_error_rules ADD CONSTRAINT wa_error_rules_pkey PRIMARY KEY (provider, code, subcode);
ALTER TABLE wa_phone_numbers ADD COLUMN channel text;
UPDATE wa_phone_numbers SET channel = 'whatsapp';
ALTER TABLE wa_phone_numbers ALTER COLUMN channel SET DEFAULT 'whatsapp', ALTER COLUMN channel SET NOT NULL;
ALTER TABLE wa_phone_numbers DROP CONSTRAINT wa_phone_numbers_provider_check;
ALTER TABLE wa_phone_numbers
ADD CONSTRAINT wa_phone_numbers_channel_check CHECK (channel IN ('whatsapp', 'sms'));
ALTER TABLE wa_outbound_queue ADD COLUMN sms_fallback_text text;
ALTER TABLE wa_outbound_queue ADD CONSTRAINT wa_outbound_queue_sms_check CHECK (
    sms_fallback_text ~ '[^[:space:]]' AND char_length(sms_fallback_text) <= 1600
);
COMMENT ON COLUMN wa_outbound_queue.sms_fallback_text IS
'What goes as SMS instead where WhatsApp cannot deliver it, if wa_organizations.sms_fallback says so.';
ALTER TABLE wa_organizations
ADD COLUMN sms_fallback boolean NOT NULL DEFAULT false,
ADD COLUMN sms_authentication_after interval,
ADD COLUMN sms_requires_opt_in boolean NOT NULL DEFAULT true,
ADD COLUMN sends_templates boolean NOT NULL DEFAULT true,
ADD CONSTRAINT wa_organizations_sms_check CHECK (
    sms_authentication_after >= interval '5 seconds' AND sms_authentication_after <= interval '10 minutes'
);
COMMENT ON COLUMN wa_organizations.sms_fallback IS
'Whether a message with sms_fallback_text goes as SMS where WhatsApp failed to deliver it.';
COMMENT ON COLUMN wa_organizations.sms_authentication_after IS
'An authentication that was not delivered by then goes as SMS, too; it may arrive twice. NULL: never.';
COMMENT ON COLUMN wa_organizations.sms_requires_opt_in IS
'Whether SMS go only to who has opted in to them: opt_in_wa_contact() with scope sms.';
COMMENT ON COLUMN wa_organizations.sends_templates IS
'Whether templates are sent at all; those that are due are refused where not (template_unavailable).';
CREATE TABLE wa_sms_fallbacks (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    queue_id uuid NOT NULL,
    cause text NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    reason text,
    due_at timestamptz NOT NULL,
    sms_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    category text NOT NULL,
    CONSTRAINT wa_sms_fallbacks_pkey PRIMARY KEY (organization_id, queue_id),
    CONSTRAINT wa_sms_fallbacks_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_sms_fallbacks_cause_check CHECK (cause IN ('failed', 'late')),
    CONSTRAINT wa_sms_fallbacks_state_check CHECK (state IN ('waiting', 'queued', 'not_sent')),
    CONSTRAINT wa_sms_fallbacks_sms_check CHECK ((state = 'queued') = (sms_id IS NOT NULL))
);

CREATE INDEX wa_sms_fallbacks_due_idx ON wa_sms_fallbacks (due_at) WHERE state = 'waiting';

CREATE INDEX wa_sms_fallbacks_sms_idx ON wa_sms_fallbacks (sms_id) WHERE sms_id IS NOT NULL;

CREATE INDEX wa_sms_fallbacks_created_at_idx ON wa_sms_fallbacks (created_at) WHERE sms_id IS NULL;

COMMENT ON TABLE wa_sms_fallbacks IS
'Messages with sms_fallback_text that WhatsApp did not deliver, and what became of their SMS: at most '
'one each. '
'Kept for as long as the SMS, for thirty days where there is none.';
COMMENT ON COLUMN wa_sms_fallbacks.queue_id IS 'The message that was to go by WhatsApp.';
COMMENT ON COLUMN wa_sms_fallbacks.cause IS
'failed: for good, with a code that allows it. late: an authentication was not delivered in time.';
COMMENT ON COLUMN wa_sms_fallbacks.state IS
'waiting, queued (sms_id says as what), or not_sent (reason says why).';
COMMENT ON COLUMN wa_sms_fallbacks.reason IS
'Why none was queued: delivered, too_late, no_phone_number, no_sms_number, switched_off, cancelled, or '
'failed_otherwise.';
COMMENT ON COLUMN wa_sms_fallbacks.sms_id IS 'The SMS: a row of wa_outbound_queue.';
COMMENT ON COLUMN wa_sms_fallbacks.category IS
'What the SMS counts as, for consent, hours and caps: the category of the message that it stands for.';
COMMENT ON COLUMN wa_messages.template_category IS
'Of a template; of an SMS that names none, which has no template_name, what it stands for, else UTILITY.';
DROP FUNCTION IF EXISTS classify_wa_error(integer, integer);
DROP FUNCTION IF EXISTS classify_wa_error(integer, integer, integer);
DROP FUNCTION IF EXISTS _wa_request_path(text, text);
DROP FUNCTION IF EXISTS _wa_media_path(text, text, text);
DROP FUNCTION IF EXISTS _wa_upload_path(text, text);
COMMENT ON TABLE wa_providers IS
'The providers: each is described by a file of its own, which translates where it differs from the Cloud '
'API.';
COMMENT ON COLUMN wa_providers.name IS 'As wa_phone_numbers.provider names it.';
COMMENT ON COLUMN wa_providers.send_path IS
'The path of the request that sends, behind the prefix that the process knows. In paths {number} stands '
'for the '
'number''s phone_number_id, {account} for its waba_id.';
COMMENT ON COLUMN wa_providers.upload_path IS
'The path that takes a file; NULL where files are fetched by the provider from a link.';
COMMENT ON COLUMN wa_providers.media_path IS
'The path that tells of a file that came in; {media} is its id, {media1} and {media2} its parts around a '
'colon.';
COMMENT ON COLUMN wa_providers.request_function IS
'Makes the provider''s request of the Cloud API''s and the number; NULL where it takes that as it is.';
COMMENT ON COLUMN wa_providers.answer_function IS
'Makes the Cloud API''s answer of the provider''s; NULL where it is that.';
COMMENT ON COLUMN wa_providers.webhook_function IS
'Makes the Cloud API''s webhook body of the provider''s; NULL where it is that.';
COMMENT ON COLUMN wa_providers.errors_of IS
'Whose rules of wa_error_rules count for codes of which it has none of its own.';
COMMENT ON COLUMN wa_providers.features IS
'What else it can: receipts (be told what was read), templates (be asked for them as Meta is).';
COMMENT ON COLUMN wa_providers.whatsapp_ids IS
'A pattern of the phone_number_ids that are WhatsApp''s, others are for SMS; NULL: all are.';
COMMENT ON COLUMN wa_providers.number_calls IS
'What it can be told and asked of a business number: by name the path, the body, the sealed secrets in it '
'and how often it is made at most.';
COMMENT ON TABLE wa_error_rules IS
'What to do about each error code of a provider; change a row to change the behaviour.';
COMMENT ON COLUMN wa_error_rules.action IS
'retry, wait_number, wait_account, wait_recipient, fail, fail_recipient, opt_out (of marketing), '
'opt_out_word '
'(as STOP does), cool_off, need_template, stop_template, pause_number, pause_account, pause_token or '
'unknown.';
COMMENT ON COLUMN wa_error_rules.provider IS 'Whose code it is: a row of wa_providers.';
COMMENT ON COLUMN wa_error_rules.allows_sms IS
'Whether a message that failed for good with this code may go as SMS, where the organization wants that.';
COMMENT ON COLUMN wa_phone_numbers.provider IS 'A row of wa_providers.';
COMMENT ON COLUMN wa_phone_numbers.channel IS
'whatsapp or sms, by the provider''s id of the number; what goes from a number goes by its channel.';

-- Flows: definitions, and runs of them.
ALTER TABLE wa_automation_flows
ADD COLUMN definition_version integer,
ADD COLUMN contact_id bigint,
ADD COLUMN run_key text,
ADD COLUMN variables jsonb NOT NULL DEFAULT '{}',
ADD COLUMN visits jsonb NOT NULL DEFAULT '{}',
ADD COLUMN step_no integer NOT NULL DEFAULT 0,
ADD COLUMN step_entered_at timestamptz,
ADD COLUMN wait jsonb,
ADD COLUMN seen_events jsonb NOT NULL DEFAULT '{}',
ADD COLUMN last_queue_id uuid,
ADD COLUMN outcome text;
ALTER TABLE wa_automation_flows SET (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0
);
DROP INDEX wa_automation_flows_due_idx;

-- Whether anything is due is one look at the first entry; whose turn it is where much is due, one look a
-- tenant.
-- Their predicates differ, so that no plan takes one for the other, whatever the table held when it was made.
CREATE INDEX wa_automation_flows_next_idx
ON wa_automation_flows (next_action_at) WHERE status = 'active' AND definition_version > 0;
CREATE INDEX wa_automation_flows_turn_idx
ON wa_automation_flows (organization_id, next_action_at)
WHERE status = 'active' AND definition_version IS NOT NULL;

-- Two quick messages start one run; what was started under a key is not started again.
CREATE UNIQUE INDEX wa_automation_flows_contact_key
ON wa_automation_flows (contact_id, flow_type, organization_id)
WHERE status IN ('active', 'paused') AND run_key IS NULL AND definition_version IS NOT NULL;
CREATE UNIQUE INDEX wa_automation_flows_run_key
ON wa_automation_flows (run_key, flow_type, organization_id)
WHERE run_key IS NOT NULL AND definition_version IS NOT NULL;

-- Whom an event of a customer may concern.
CREATE INDEX wa_automation_flows_contact_idx
ON wa_automation_flows (contact_id, organization_id)
WHERE status IN ('active', 'paused') AND definition_version IS NOT NULL;

CREATE INDEX wa_automation_flows_ended_idx
ON wa_automation_flows (ended_at) WHERE ended_at IS NOT NULL AND definition_version IS NOT NULL;

CREATE TABLE wa_flow_definitions (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    name text NOT NULL,
    version integer NOT NULL,
    description text,
    category text NOT NULL DEFAULT 'utility',
    trigger jsonb NOT NULL DEFAULT '{}',
    key text,
    interrupts jsonb NOT NULL DEFAULT '{}',
    limits jsonb NOT NULL DEFAULT '{}',
    steps jsonb NOT NULL,
    plan jsonb NOT NULL,
    state text NOT NULL DEFAULT 'draft',
    state_reason text,
    checksum text NOT NULL,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    activated_at timestamptz,
    retired_at timestamptz,
    CONSTRAINT wa_flow_definitions_pkey PRIMARY KEY (organization_id, name, version),
    CONSTRAINT wa_flow_definitions_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_flow_definitions_version_check CHECK (version > 0),
    CONSTRAINT wa_flow_definitions_category_check CHECK (category IN ('utility', 'marketing',
        'authentication')),
    CONSTRAINT wa_flow_definitions_state_check CHECK (state IN ('draft', 'active', 'retired'))
);

CREATE UNIQUE INDEX wa_flow_definitions_active_key
ON wa_flow_definitions (organization_id, name) WHERE state = 'active';

CREATE TABLE wa_flow_steps (
    organization_id uuid NOT NULL,
    flow_id uuid NOT NULL,
    step_no integer NOT NULL,
    contact_id bigint,
    step text NOT NULL,
    visit integer NOT NULL,
    type text NOT NULL,
    outcome text NOT NULL,
    queue_id uuid,
    detail jsonb,
    entered_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT wa_flow_steps_pkey PRIMARY KEY (organization_id, flow_id, step_no),
    CONSTRAINT wa_flow_steps_flow_fkey FOREIGN KEY (organization_id, flow_id)
    REFERENCES wa_automation_flows (organization_id, id) ON DELETE CASCADE
);

-- How much was sent to somebody within the hour.
CREATE INDEX wa_flow_steps_sends_idx ON wa_flow_steps (contact_id, ended_at) WHERE queue_id IS NOT NULL;

CREATE TABLE wa_flow_events (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    key text,
    contact_id bigint,
    data jsonb NOT NULL DEFAULT '{}',
    event_id text,
    is_matched boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_flow_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_flow_events_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_flow_events_kind_check CHECK (kind ~ '^(reply|status|payment|event:.+)$'),
    CONSTRAINT wa_flow_events_whose_check CHECK (num_nonnulls(key, contact_id) > 0)
);

CREATE UNIQUE INDEX wa_flow_events_event_key
ON wa_flow_events (event_id, kind, organization_id) WHERE event_id IS NOT NULL;
CREATE INDEX wa_flow_events_contact_idx ON wa_flow_events (contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX wa_flow_events_key_idx ON wa_flow_events (key, id) WHERE key IS NOT NULL;
CREATE INDEX wa_flow_events_late_idx ON wa_flow_events (id) WHERE NOT is_matched;
CREATE INDEX wa_flow_events_created_at_idx ON wa_flow_events (created_at);

CREATE TABLE wa_flow_functions (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    name text NOT NULL,
    function_name text NOT NULL,
    description text,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_flow_functions_pkey PRIMARY KEY (organization_id, name),
    CONSTRAINT wa_flow_functions_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_flow_functions_name_check CHECK (name <> '')
);

COMMENT ON COLUMN wa_automation_flows.flow_type IS
'Which flow it is: the name of an active row of wa_flow_definitions, which then is run by the engine, or a '
'word of the host''s own, who then runs it.';
COMMENT ON COLUMN wa_automation_flows.current_step IS
'Where it stands: a step of the definition; start is the first.';
COMMENT ON COLUMN wa_automation_flows.definition_version IS
'The version of its definition, for as long as it runs; NULL for a flow that the engine leaves alone.';
COMMENT ON COLUMN wa_automation_flows.contact_id IS
'The customer, whatever number he has; NULL for flows of the host.';
COMMENT ON COLUMN wa_automation_flows.run_key IS
'What it is about, such as an order: a key starts one run of a definition, and events find the run by it.';
COMMENT ON COLUMN wa_automation_flows.variables IS 'What steps and events have added to trigger_data.';
COMMENT ON COLUMN wa_automation_flows.visits IS 'How often each step was come to.';
COMMENT ON COLUMN wa_automation_flows.step_no IS 'How many rows it has in wa_flow_steps.';
COMMENT ON COLUMN wa_automation_flows.step_entered_at IS 'Since when it is at its step.';
COMMENT ON COLUMN wa_automation_flows.wait IS
'What it waits for, and until when; NULL: its step is carried out next.';
COMMENT ON COLUMN wa_automation_flows.seen_events IS
'By kind, up to which wa_flow_events.id events have been heeded.';
COMMENT ON COLUMN wa_automation_flows.last_queue_id IS 'The message that it queued last.';
COMMENT ON COLUMN wa_automation_flows.outcome IS
'How it ended: end, or the event, the refusal or the guard that ended or paused it.';
COMMENT ON TABLE wa_flow_definitions IS
'What flows do: immutable versions, of which one a name may be active. store_wa_flow() adds one.';
COMMENT ON COLUMN wa_flow_definitions.category IS
'As of templates: an opt-out of marketing ends flows of that category, one of everything ends all.';
COMMENT ON COLUMN wa_flow_definitions.trigger IS
'What starts it beside start_wa_flow(): {"text": ["hello"]}, {"message": "first"}, {"message": "any"} or '
'{"event": "order_placed"}.';
COMMENT ON COLUMN wa_flow_definitions.key IS
'The path in the context at which a run''s key stands, such as order_id.';
COMMENT ON COLUMN wa_flow_definitions.interrupts IS
'Events that count at every step, and where they lead: {"payment": "thanks", "reply": "end"}.';
COMMENT ON COLUMN wa_flow_definitions.limits IS
'Guards: visits of a step, sends_per_hour to a contact, age of a run.';
COMMENT ON COLUMN wa_flow_definitions.steps IS
'The steps in their order; docs/flows.schema.json describes them.';
COMMENT ON COLUMN wa_flow_definitions.plan IS 'Internal: the steps as the engine reads them, by name.';
COMMENT ON COLUMN wa_flow_definitions.state IS
'draft; active, which new runs take; retired: its runs go on, none is started.';
COMMENT ON COLUMN wa_flow_definitions.state_reason IS
'Why it is a draft still, such as a template that is not approved.';
COMMENT ON COLUMN wa_flow_definitions.checksum IS
'Of all that makes the version: what is stored again unchanged is no new one.';
COMMENT ON TABLE wa_flow_steps IS
'What each run did: a row for each step that was carried out or waited through.';
COMMENT ON COLUMN wa_flow_steps.step_no IS 'Which step of its run it was, counted from 1.';
COMMENT ON COLUMN wa_flow_steps.visit IS 'Which time the run was at this step.';
COMMENT ON COLUMN wa_flow_steps.outcome IS
'queued, refused, timeout, reply, payment, the branch taken, paused, cancelled, … by type.';
COMMENT ON COLUMN wa_flow_steps.queue_id IS 'The message, of a step that sends.';
COMMENT ON COLUMN wa_flow_steps.detail IS 'Why: the refusal, the event, the condition, what was past recall.';
COMMENT ON TABLE wa_flow_events IS
'What flows may wait for: replies and delivery states of customers who have a flow, payments, and events of '
'the host. Kept for thirty days, so that a wait finds what came before it.';
COMMENT ON COLUMN wa_flow_events.kind IS 'reply, status, payment, or event:NAME.';
COMMENT ON COLUMN wa_flow_events.key IS 'Finds runs with this run_key; NULL: all of the contact.';
COMMENT ON COLUMN wa_flow_events.event_id IS 'The sender''s own: what comes twice counts once.';
COMMENT ON COLUMN wa_flow_events.is_matched IS
'false where a run was locked when it came: the engine looks again.';
COMMENT ON TABLE wa_flow_functions IS
'Functions that flows may call: list_wa_flow_function() adds one. They run with the rights of the '
'schema''s owner.';
COMMENT ON COLUMN wa_flow_functions.function_name IS
'A function of one jsonb, the context, that returns jsonb, with its schema.';

-- Row security of the tables that are new, a line each.
DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'wa_api_key_uses',
        'wa_api_keys',
        'wa_archive_files',
        'wa_archive_keys',
        'wa_audit_counts',
        'wa_audit_heads',
        'wa_audit_seals',
        'wa_audit_unsealed',
        'wa_consent_events',
        'wa_consent_texts',
        'wa_contact_caps',
        'wa_contact_cool_offs',
        'wa_contact_holds',
        'wa_erased_identities',
        'wa_erasures',
        'wa_event_deliveries',
        'wa_event_secrets',
        'wa_event_subscriptions',
        'wa_flow_definitions',
        'wa_flow_events',
        'wa_flow_functions',
        'wa_flow_steps',
        'wa_idempotent_requests',
        'wa_keywords',
        'wa_media_blobs',
        'wa_media_chunks',
        'wa_media_garbage',
        'wa_media_openings',
        'wa_media_uploads',
        'wa_media_usages',
        'wa_opt_in_requests',
        'wa_privacy_keys',
        'wa_provider_calls',
        'wa_quiet_days',
        'wa_quiet_hours',
        'wa_retention_marks',
        'wa_retention_stragglers',
        'wa_role_overrides',
        'wa_sms_fallbacks',
        'wa_users',
        'wa_volume_tiers',
        'wa_wait_rechecks',
        'wa_zone_prefixes'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (organization_id = current_wa_organization())'
            ' WITH CHECK (organization_id = current_wa_organization())', v_table
        );
        EXECUTE format('CREATE POLICY admin ON %I TO wa_admin USING (true) WITH CHECK (true)', v_table);
    END LOOP;
END
$$;
