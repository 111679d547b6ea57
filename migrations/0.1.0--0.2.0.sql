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

-- Retention. Organizations that 0.1.0 made were told that nothing is deleted: theirs is for them to set.
ALTER TABLE wa_organizations ADD COLUMN message_retention interval;
ALTER TABLE wa_organizations ALTER COLUMN message_retention SET DEFAULT interval '90 days';
ALTER TABLE wa_organizations ADD COLUMN audit_retention interval;
ALTER TABLE wa_organizations
ADD CONSTRAINT wa_organizations_message_retention_check CHECK (message_retention >= interval '2 days'),
ADD CONSTRAINT wa_organizations_audit_retention_check CHECK (audit_retention >= interval '1 day');
ALTER TABLE wa_installations ADD COLUMN webhook_log_retention interval;
ALTER TABLE wa_installations ALTER COLUMN webhook_log_retention SET DEFAULT interval '90 days';
ALTER TABLE wa_installations
ADD CONSTRAINT wa_installations_webhook_log_retention_check CHECK (webhook_log_retention >= interval '1 day');
COMMENT ON COLUMN wa_organizations.message_retention IS
'How long messages, their statuses, events and finished queue rows are kept, once jobs are scheduled; NULL '
'keeps them for good.';
COMMENT ON COLUMN wa_organizations.audit_retention IS
'The same for audit_log and wa_account_events; NULL, the default, keeps them for good.';
COMMENT ON COLUMN wa_installations.webhook_log_retention IS
'How long raw webhooks are kept, once jobs are scheduled, though never longer than any organization keeps '
'its messages; NULL sets no limit of its own.';

-- For rows to come; pages that are there already stay as full as they are.
ALTER TABLE wa_messages SET (fillfactor = 50);

-- Functions of 0.1.0 with another signature.
DROP FUNCTION _wa_build_request(uuid, integer, text, text, text, jsonb, text, jsonb, wa_templates);
DROP FUNCTION _wa_read_result(jsonb);

-- A language to fall back to.
ALTER TABLE wa_organizations
ADD COLUMN default_language text,
ADD CONSTRAINT wa_organizations_language_check CHECK (default_language ~ '^[a-z]{2,3}(_[A-Z]{2,3})?$');
COMMENT ON COLUMN wa_organizations.default_language IS
'Language of a template that is taken where the one asked for does not exist, for example en or pt_BR; NULL: '
'none is.';
COMMENT ON COLUMN wa_templates.parameters IS
'Declared parameters, [{"name": "customer_name", "type": "text", "example": "Ann"}, ...]: those of the body '
'in order, then that of the header, then those of the buttons. An object of values binds by these names; the '
'examples go to Meta''s review.';
COMMENT ON COLUMN wa_templates.variable_mapping IS
'Where resolve_wa_template_params() finds each parameter''s value in a context document: {"customer_name": '
'"customer.name"}, a path with dots. A parameter that is not listed is looked for by its own name.';
-- Queueing in one statement.
-- Queueing in one statement.
DROP FUNCTION _wa_refuse_rows(wa_organizations, uuid[]);
DROP FUNCTION _wa_warn_of_wait(wa_organizations, bigint);
CREATE INDEX wa_message_statuses_occurred_at_idx ON wa_message_statuses USING brin (occurred_at);
ALTER TABLE wa_organizations
ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC',
ADD CONSTRAINT wa_organizations_time_zone_check CHECK (
    time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-][0-9]{1,2})$'
    AND timestamptz '2000-01-01 00:00+00' AT TIME ZONE time_zone IS NOT NULL
);
COMMENT ON COLUMN wa_organizations.time_zone IS
'IANA name of the zone in which days are cut, for example Asia/Kathmandu.';

-- Writers of the ledger wait while it is built.
DROP INDEX wa_messages_created_at_idx;
CREATE INDEX wa_messages_created_at_idx ON wa_messages (created_at, organization_id);
