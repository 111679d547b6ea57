-- The outbound queue: what applications insert into, and the narrow tables that sending works on.

CREATE TABLE wa_outbound_queue (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL,
    phone text NOT NULL,
    type text NOT NULL,
    text_body text,
    template_name text,
    template_language text,
    template_params jsonb,
    content jsonb,
    reply_to text,
    priority text NOT NULL DEFAULT 'normal',
    status text NOT NULL DEFAULT 'pending',
    scheduled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    phone_number_id text,
    idempotency_key text,
    reference text,
    metadata jsonb NOT NULL DEFAULT '{}',
    on_refusal text,
    on_unknown text,
    fallback_template_name text,
    fallback_template_language text,
    fallback_template_params jsonb,
    customer_id text,
    contact_id bigint,
    retry_count integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    last_error text,
    error_code text,
    wa_message_id text,
    claimed_at timestamptz,
    processed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    change_no integer NOT NULL DEFAULT 0,
    sent_by text,
    sms_fallback_text text,
    CONSTRAINT wa_outbound_queue_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_outbound_queue_idempotency_key_key UNIQUE (idempotency_key, organization_id),
    CONSTRAINT wa_outbound_queue_priority_check CHECK (priority IN ('high', 'normal', 'low')),
    CONSTRAINT wa_outbound_queue_status_check CHECK (
        status IN ('pending', 'sending', 'sent', 'failed', 'cancelled')
    ),
    CONSTRAINT wa_outbound_queue_refusal_check CHECK (on_refusal IN ('raise', 'record')),
    CONSTRAINT wa_outbound_queue_unknown_check CHECK (on_unknown IN ('fail', 'retry')),
    CONSTRAINT wa_outbound_queue_sent_by_check CHECK (sent_by <> '' AND char_length(sent_by) <= 200),
    CONSTRAINT wa_outbound_queue_sms_check CHECK (
        sms_fallback_text ~ '[^[:space:]]' AND char_length(sms_fallback_text) <= 1600
    )
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX wa_outbound_queue_reference_idx
ON wa_outbound_queue (reference, organization_id) WHERE reference IS NOT NULL;

-- Cleaning up asks whether a file is waited for. Nothing of a row without one stands here.
CREATE INDEX wa_outbound_queue_media_idx
ON wa_outbound_queue ((content ->> 'media_id')) WHERE content ->> 'media_id' IS NOT NULL;

-- class = 2 * priority rank (0 high, 1 normal, 2 low) + 1, + 1 when the organization's rate limit counts it.
CREATE TABLE wa_queue_due (
    organization_id uuid NOT NULL,
    number_id bigint,
    class smallint NOT NULL,
    due_at timestamptz NOT NULL,
    queue_id uuid NOT NULL,
    contact_id bigint NOT NULL,
    template_id uuid,
    hold_reason text,
    expires_at timestamptz NOT NULL DEFAULT 'infinity',
    hold_id bigint,
    CONSTRAINT wa_queue_due_pkey PRIMARY KEY (organization_id, queue_id),
    CONSTRAINT wa_queue_due_class_check CHECK (class BETWEEN 1 AND 6)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Rows that wait for a cause stand in the index of their hold, where no claim looks before the cause is gone.
-- Only who states the predicate may use an index: while the table seems empty, a look-up of one row by its
-- key would be planned as a walk through this index as readily as by the key.
CREATE INDEX wa_queue_due_order_idx
ON wa_queue_due (number_id, class, due_at, queue_id) WHERE hold_id IS NULL;

-- What waits on its contact's account, in the order in which a change of the rules goes through it.
CREATE INDEX wa_queue_due_wait_idx
ON wa_queue_due (organization_id, queue_id) WHERE hold_reason IN ('quiet_hours', 'contact_cap', 'cool_off');

CREATE INDEX wa_queue_due_hold_idx ON wa_queue_due (hold_id, class, queue_id) WHERE hold_id IS NOT NULL;

CREATE INDEX wa_queue_due_expires_at_idx ON wa_queue_due (expires_at) WHERE expires_at < 'infinity';

CREATE INDEX wa_queue_due_contact_idx ON wa_queue_due (contact_id, class, queue_id) WHERE class > 0;

CREATE TABLE wa_queue_inflight (
    organization_id uuid NOT NULL,
    queue_id uuid NOT NULL,
    attempt integer NOT NULL,
    number_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    class smallint NOT NULL,
    dispatcher_id uuid NOT NULL,
    claimed_at timestamptz NOT NULL,
    is_unknown boolean NOT NULL DEFAULT false,
    is_within_24h boolean NOT NULL,
    template_id uuid,
    deadline_at timestamptz NOT NULL,
    CONSTRAINT wa_queue_inflight_pkey PRIMARY KEY (organization_id, queue_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX wa_queue_inflight_contact_idx ON wa_queue_inflight (contact_id);

CREATE INDEX wa_queue_inflight_deadline_idx ON wa_queue_inflight (deadline_at);

COMMENT ON TABLE wa_outbound_queue IS
'Messages to send. Insert (phone, text_body) or (phone, template_name, template_params); a running '
'dispatcher sends.';
COMMENT ON COLUMN wa_outbound_queue.phone IS
'Recipient: a phone number in any usual form, stored in E.164, or a business-scoped user id.';
COMMENT ON COLUMN wa_outbound_queue.type IS
'text, template, image, document, audio, video, sticker, interactive, location, contacts or reaction; '
'follows from the columns.';
COMMENT ON COLUMN wa_outbound_queue.template_params IS
'JSON array: body values in order. JSON object: values by the template''s declared names. '
'{"header": ..., "body": ..., "buttons": ...} gives the other components too.';
COMMENT ON COLUMN wa_outbound_queue.content IS
'The message object of the Cloud API for every type but text and template. A file is named by link, by the '
'id that the provider gave it, or, as media_id, by its id in wa_media: then it is uploaded when it has to '
'be.';
COMMENT ON COLUMN wa_outbound_queue.reply_to IS 'wamid of the message that this one quotes.';
COMMENT ON COLUMN wa_outbound_queue.status IS 'pending, sending, sent, failed or cancelled.';
COMMENT ON COLUMN wa_outbound_queue.scheduled_at IS 'Not sent before.';
COMMENT ON COLUMN wa_outbound_queue.expires_at IS
'Not sent after. By default: authentication 10 minutes, free-form the end of the window, others 24 hours '
'after due; infinity means never.';
COMMENT ON COLUMN wa_outbound_queue.phone_number_id IS
'Business number to send from; NULL takes that of the newest conversation, else the default.';
COMMENT ON COLUMN wa_outbound_queue.idempotency_key IS
'A second row with the same key is refused, or skipped with ON CONFLICT DO NOTHING.';
COMMENT ON COLUMN wa_outbound_queue.reference IS
'The application''s own name for it; cancel, retry and reschedule find rows by it.';
COMMENT ON COLUMN wa_outbound_queue.on_refusal IS 'raise or record; NULL takes the organization''s setting.';
COMMENT ON COLUMN wa_outbound_queue.on_unknown IS 'fail or retry; NULL takes the organization''s setting.';
COMMENT ON COLUMN wa_outbound_queue.fallback_template_name IS
'Template to send instead when the window has closed meanwhile.';
COMMENT ON COLUMN wa_outbound_queue.customer_id IS 'The host application''s own id of the customer.';
COMMENT ON COLUMN wa_outbound_queue.sent_by IS
'The person who wrote it, where one did; NULL: a program. A person may answer who opted out and wrote again.';
COMMENT ON COLUMN wa_outbound_queue.sms_fallback_text IS
'What goes as SMS instead where WhatsApp cannot deliver it, if wa_organizations.sms_fallback says so.';
COMMENT ON COLUMN wa_outbound_queue.attempt IS
'How often it was claimed; part of the callback data of each request.';
COMMENT ON COLUMN wa_outbound_queue.error_code IS
'Meta''s error code, or a word of ours such as outcome_unknown, window_closed, opted_out.';
COMMENT ON COLUMN wa_outbound_queue.change_no IS 'Internal: tells our own updates from yours.';
COMMENT ON TABLE wa_queue_due IS 'Internal: the rows that wait to be sent, in the order of sending.';
COMMENT ON COLUMN wa_queue_due.template_id IS
'The template chosen when the row was queued; NULL for free-form messages.';
COMMENT ON COLUMN wa_queue_due.hold_reason IS
'Where due_at was moved on: retry, quiet_hours, contact_cap, cool_off or in_reserve; else the kind of the '
'hold.';
COMMENT ON COLUMN wa_queue_due.hold_id IS
'The cause that it waits for: a row of wa_queue_holds, or below zero one of wa_media_uploads; NULL for what '
'may go when its turn comes.';
COMMENT ON COLUMN wa_queue_due.expires_at IS 'That of the message; infinity where it has none.';
COMMENT ON TABLE wa_queue_inflight IS
'Internal: rows handed to a dispatcher, or whose outcome is not known yet.';
COMMENT ON COLUMN wa_queue_inflight.template_id IS
'The template that was sent: the row''s own, or its fall-back.';
COMMENT ON COLUMN wa_queue_inflight.deadline_at IS
'When to look at it again: end of the lease, or of the wait for a webhook.';
