-- Where events are pushed to, and what became of each event there.

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
