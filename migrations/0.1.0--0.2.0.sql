-- From release 0.1.0 to 0.2.0.

-- A constant default first: PostgreSQL then adds the columns without writing the table anew.
ALTER TABLE wa_conversation_windows
ADD COLUMN state text NOT NULL DEFAULT 'active',
ADD COLUMN state_changed_at timestamptz NOT NULL DEFAULT now(),
ADD COLUMN opened_at timestamptz NOT NULL DEFAULT now(),
ADD CONSTRAINT wa_conversation_windows_state_check CHECK (
    state IN ('active', 'waiting', 'completed', 'expired')
);
ALTER TABLE wa_conversation_windows
ALTER COLUMN state_changed_at SET DEFAULT clock_timestamp(),
ALTER COLUMN opened_at SET DEFAULT clock_timestamp();
CREATE INDEX wa_conversation_windows_open_idx
ON wa_conversation_windows (state_changed_at) WHERE state IN ('active', 'waiting');
COMMENT ON COLUMN wa_conversation_windows.state IS
'active: somebody has to act. waiting: for the customer. completed: dealt with. expired: no message for '
'24 hours. A message of the customer makes it active again.';
COMMENT ON COLUMN wa_conversation_windows.opened_at IS
'When it last became active after it was completed or expired, or began.';
