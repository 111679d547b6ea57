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
