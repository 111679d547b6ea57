-- Messages that go as SMS because WhatsApp cannot deliver them: each once, whatever is told of it later.

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
