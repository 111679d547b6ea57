-- The ledger: every message in either direction, and every status that was reported of it.

-- Half of each page stays free: a sent message is updated by two or three statuses, often all of a page in
-- one transaction, and an update that finds no room there writes to every index.
CREATE TABLE wa_messages (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    queue_id uuid,
    number_id bigint,
    phone_number_id text,
    contact_id bigint,
    customer_id text,
    phone_e164 text,
    user_id text,
    group_id text,
    wa_message_id text,
    direction text NOT NULL,
    message_type text NOT NULL,
    type text GENERATED ALWAYS AS (message_type) STORED,
    content jsonb NOT NULL DEFAULT '{}',
    content_text text,
    template_name text,
    template_language text,
    template_category text,
    status text NOT NULL,
    state text NOT NULL,
    state_history jsonb NOT NULL DEFAULT '[]',
    is_within_24h_at_claim boolean,
    is_echo boolean NOT NULL DEFAULT false,
    reply_to text,
    referral jsonb,
    pricing jsonb,
    error_code integer,
    error_title text,
    error_message text,
    reference text,
    metadata jsonb NOT NULL DEFAULT '{}',
    queued_at timestamptz,
    claimed_at timestamptz,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    played_at timestamptz,
    failed_at timestamptz,
    edited_at timestamptz,
    deleted_at timestamptz,
    provider_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_messages_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_messages_wa_message_id_key UNIQUE (wa_message_id, organization_id),
    CONSTRAINT wa_messages_direction_check CHECK (direction IN ('inbound', 'outbound')),
    CONSTRAINT wa_messages_status_check CHECK (status IN ('pending', 'sent', 'failed', 'received')),
    CONSTRAINT wa_messages_state_check CHECK (
        state IN ('queued', 'accepted', 'held', 'sent', 'failed', 'delivered', 'read', 'played', 'received')
    )
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX wa_messages_queue_key
ON wa_messages (queue_id, organization_id) WHERE queue_id IS NOT NULL;

CREATE INDEX wa_messages_contact_idx ON wa_messages (contact_id, id);

CREATE INDEX wa_messages_created_at_idx ON wa_messages (created_at, organization_id);

CREATE INDEX wa_messages_reply_to_idx
ON wa_messages (reply_to, organization_id) WHERE message_type IN ('edit', 'revoke');

-- For whoever looks for a word that was said.
CREATE INDEX wa_messages_text_idx
ON wa_messages USING gin (to_tsvector('simple', content_text)) WHERE content_text IS NOT NULL;

-- What was said stands in no statistics: they outlive it.
ALTER INDEX wa_messages_text_idx ALTER COLUMN 1 SET STATISTICS 0;

CREATE TABLE wa_message_statuses (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    message_id bigint,
    queue_id uuid,
    wa_message_id text NOT NULL,
    status text NOT NULL,
    participant text NOT NULL DEFAULT '',
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recipient_id text,
    recipient_user_id text,
    error_code integer,
    error_title text,
    error_message text,
    pricing jsonb,
    conversation jsonb,
    payload jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT wa_message_statuses_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_message_statuses_status_key UNIQUE (wa_message_id, status, participant, organization_id)
);

CREATE INDEX wa_message_statuses_orphan_idx ON wa_message_statuses (received_at) WHERE message_id IS NULL;

CREATE INDEX wa_message_statuses_occurred_at_idx ON wa_message_statuses USING brin (occurred_at);

CREATE TABLE wa_events (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    position bigint,
    kind text NOT NULL,
    message_id bigint,
    status text,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    conversation_id bigint,
    CONSTRAINT wa_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_events_kind_check CHECK (kind IN ('message', 'status', 'conversation'))
);

CREATE UNIQUE INDEX wa_events_position_key ON wa_events (organization_id,
position) WHERE position IS NOT NULL;

CREATE INDEX wa_events_unplaced_idx ON wa_events (organization_id, id) WHERE position IS NULL;

CREATE TABLE wa_event_consumers (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    consumer text NOT NULL,
    acked_position bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    acked_at timestamptz,
    CONSTRAINT wa_event_consumers_pkey PRIMARY KEY (organization_id, consumer)
);

COMMENT ON TABLE wa_messages IS
'Every message sent or received, with the outcome of sending and the delivery state.';
COMMENT ON COLUMN wa_messages.queue_id IS 'Row of wa_outbound_queue that it came from.';
COMMENT ON COLUMN wa_messages.wa_message_id IS 'The provider''s message id (wamid).';
COMMENT ON COLUMN wa_messages.status IS
'Outcome of sending: pending, sent, failed; received for inbound messages.';
COMMENT ON COLUMN wa_messages.state IS
'Delivery state; only moves forward: queued, accepted, held, sent, failed, delivered, read, played.';
COMMENT ON COLUMN wa_messages.state_history IS
'Every state reported, [{"state", "at", "error_code"}], in order of arrival.';
COMMENT ON COLUMN wa_messages.template_category IS
'Of a template; of an SMS that names none, which has no template_name, what it stands for, else UTILITY.';
COMMENT ON COLUMN wa_messages.is_within_24h_at_claim IS
'Whether the window was open when the message was claimed.';
COMMENT ON COLUMN wa_messages.is_echo IS 'Sent from the WhatsApp Business app, not from the queue.';
COMMENT ON COLUMN wa_messages.provider_at IS 'The provider''s own time of an inbound message.';
COMMENT ON COLUMN wa_messages.pricing IS 'The pricing object of the status webhooks.';
COMMENT ON TABLE wa_message_statuses IS
'Every status reported of a message, once each; kept also when the message is not known yet.';
COMMENT ON COLUMN wa_message_statuses.participant IS
'Member of a group that the status is about; empty otherwise.';
COMMENT ON TABLE wa_events IS
'Inbound messages, status changes and conversations that were assigned, in the order in which '
'read_wa_events() hands them out.';
COMMENT ON COLUMN wa_events.position IS
'Given to committed rows only, by the reader, so that a late commit leaves no gap behind a reader.';
COMMENT ON COLUMN wa_events.conversation_id IS 'Of the kind conversation: which; those have no message.';
COMMENT ON TABLE wa_event_consumers IS 'How far each consumer of read_wa_events() has acknowledged.';
