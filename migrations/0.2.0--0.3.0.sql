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
'claim, result, maintenance, events (pushed), or webhook where it met a lock: wa_webhook_errors and '
'wa_job_runs have the rest.';
COMMENT ON COLUMN wa_faults.subject IS
'What it was about: a business number for a claim, a queue id for a result, a subscription for events, else '
'empty.';

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
'What is pushed: message, status, or some of them: message.received, status.failed, …';
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

-- As sql/organizations/tables_row_security.sql has it for all.
DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'wa_api_keys', 'wa_api_key_uses', 'wa_idempotent_requests',
        'wa_event_subscriptions', 'wa_event_secrets', 'wa_event_deliveries'
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

-- Files have a room of their own.
UPDATE wa_migrations AS m
SET step = n.present
FROM (
    VALUES
    ('ledger/media.sql', 'media/links.sql'),
    ('ledger/tables_media.sql', 'media/tables.sql')
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

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'wa_media_blobs', 'wa_media_chunks', 'wa_media_garbage', 'wa_media_usages', 'wa_media_openings',
        'wa_media_uploads'
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
