-- Conversations: what happened last between a business number and a contact.

CREATE TABLE wa_conversation_windows (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    number_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    last_customer_message_at timestamptz,
    last_business_message_at timestamptz,
    window_denied_at timestamptz,
    entry_point_opened_at timestamptz,
    entry_point_expires_at timestamptz,
    entry_point jsonb,
    unread_count integer NOT NULL DEFAULT 0,
    user_id text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'active',
    state_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_at timestamptz,
    read_call_id uuid,
    assigned_to text,
    CONSTRAINT wa_conversation_windows_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_conversation_windows_pair_key UNIQUE (contact_id, number_id, organization_id),
    CONSTRAINT wa_conversation_windows_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_conversation_windows_number_fkey FOREIGN KEY (organization_id, number_id)
    REFERENCES wa_phone_numbers (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_conversation_windows_state_check CHECK (
        state IN ('active', 'waiting', 'completed', 'expired')
    )
) WITH (fillfactor = 80);

-- Of columns that no message changes, so that recording one stays an update within the page.
CREATE INDEX wa_conversation_windows_open_idx
ON wa_conversation_windows (state_changed_at) WHERE state IN ('active', 'waiting');

CREATE INDEX wa_conversation_windows_assigned_idx
ON wa_conversation_windows (organization_id, assigned_to) WHERE assigned_to IS NOT NULL;

COMMENT ON TABLE wa_conversation_windows IS
'What happened last between one business number and one contact; wa_conversations shows it with the live '
'window.';
COMMENT ON COLUMN wa_conversation_windows.last_customer_message_at IS
'Meta''s time of the last message or call that opens a window.';
COMMENT ON COLUMN wa_conversation_windows.window_denied_at IS
'When the provider last answered that the window is closed; a later customer message opens it again.';
COMMENT ON COLUMN wa_conversation_windows.entry_point_expires_at IS
'End of the 72 h free entry point: a matter of cost, it does not allow free-form messages.';
COMMENT ON COLUMN wa_conversation_windows.state IS
'active: somebody has to act. waiting: for the customer. completed: dealt with. expired: no message for '
'24 hours. A message of the customer makes it active again.';
COMMENT ON COLUMN wa_conversation_windows.opened_at IS
'When it last became active after it was completed or expired, or began.';
COMMENT ON COLUMN wa_conversation_windows.read_at IS
'Time of the latest message of the customer that was marked as read, by mark_wa_read().';
COMMENT ON COLUMN wa_conversation_windows.read_call_id IS
'The row of wa_provider_calls that told the provider so.';
COMMENT ON COLUMN wa_conversation_windows.assigned_to IS
'The user who looks after it, by assign_wa_conversation(): in the words of your system; grants nothing.';
