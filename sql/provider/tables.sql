-- How each provider is asked, what its errors mean, and calls to it beside sending: what is to be called, and
-- what came of it.

CREATE TABLE wa_providers (
    name text NOT NULL,
    send_path text NOT NULL,
    upload_path text,
    media_path text,
    request_function text,
    answer_function text,
    webhook_function text,
    errors_of text,
    features text[] NOT NULL DEFAULT '{}',
    whatsapp_ids text,
    number_calls jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT wa_providers_pkey PRIMARY KEY (name)
);

CREATE TABLE wa_error_rules (
    code integer NOT NULL,
    http_status integer,
    title text NOT NULL,
    action text NOT NULL,
    max_retries integer,
    wait interval,
    subcode integer NOT NULL DEFAULT 0,
    provider text NOT NULL DEFAULT 'meta',
    allows_sms boolean NOT NULL DEFAULT false,
    CONSTRAINT wa_error_rules_pkey PRIMARY KEY (provider, code, subcode),
    CONSTRAINT wa_error_rules_action_check CHECK (action IN (
        'retry', 'wait_number', 'wait_account', 'wait_recipient', 'fail', 'fail_recipient', 'opt_out',
        'opt_out_word', 'cool_off', 'need_template', 'stop_template', 'pause_number', 'pause_account',
        'pause_token', 'unknown'
    ))
);

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
COMMENT ON COLUMN wa_error_rules.subcode IS
'The error_subcode that changes what the code means; 0 is the rule for all others.';
COMMENT ON COLUMN wa_error_rules.max_retries IS 'Retries before it fails; NULL means until the row expires.';
COMMENT ON COLUMN wa_error_rules.wait IS
'How long to wait or pause; NULL means backoff, or until resumed by hand.';
COMMENT ON COLUMN wa_error_rules.provider IS 'Whose code it is: a row of wa_providers.';
COMMENT ON COLUMN wa_error_rules.allows_sms IS
'Whether a message that failed for good with this code may go as SMS, where the organization wants that.';
