-- From release 0.1.0 to 0.2.0.

-- Renumbered countries: former and current number are one subscriber from here on, so contacts of either
-- become one; by the functions of 0.1.0, whose tables are still as they were. Two user ids are two people:
-- the former number is then history, and its holder is found by user id.
DO $$
DECLARE
    v_former record;
BEGIN
    FOR v_former IN
        SELECT c.organization_id, c.id, n.id AS current_id, _wa_phone_key(c.phone_key) AS key,
            c.user_id <> n.user_id AS are_two
        FROM wa_contacts c
        LEFT JOIN wa_contacts n ON n.organization_id = c.organization_id
            AND n.phone_key = _wa_phone_key(c.phone_key)
        WHERE c.phone_key ~ '^\+(225|229|241|84)' AND c.phone_key <> _wa_phone_key(c.phone_key)
    LOOP
        IF v_former.are_two THEN
            UPDATE wa_contacts SET phone_e164 = NULL, phone_key = NULL
            WHERE organization_id = v_former.organization_id AND id = v_former.id;
        ELSIF v_former.current_id IS NOT NULL THEN
            PERFORM _wa_merge_contacts(v_former.organization_id, v_former.id, v_former.current_id);
        ELSE
            UPDATE wa_contacts SET phone_key = v_former.key
            WHERE organization_id = v_former.organization_id AND id = v_former.id;
        END IF;
    END LOOP;
    UPDATE wa_contact_identities i SET is_current = false, valid_to = clock_timestamp()
    WHERE i.kind = 'phone' AND i.is_current AND i.value ~ '^\+(225|229|241|84)'
        AND i.value <> _wa_phone_key(i.value) AND EXISTS (
            SELECT FROM wa_contact_identities x
            WHERE x.organization_id = i.organization_id AND x.kind = 'phone' AND x.is_current
                AND x.value = _wa_phone_key(i.value)
        );
    UPDATE wa_contact_identities i SET value = _wa_phone_key(i.value)
    WHERE i.kind = 'phone' AND i.value ~ '^\+(225|229|241|84)' AND i.value <> _wa_phone_key(i.value);
END
$$;
COMMENT ON COLUMN wa_contacts.phone_key IS
'The number in the one spelling in which all its forms find the contact: Brazil with the ninth digit, '
'Argentina with the 9, Mexico without the 1, renumbered countries as of today.';

-- What is recorded now includes faults of templates.
COMMENT ON COLUMN wa_organizations.on_refusal IS
'raise: a refused row rolls its statement back. record: it is stored as failed with its reason, as is one '
'whose template is unknown or does not fit its values. A bad phone, content or type raises in any case.';

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

-- Parent ids find their contacts, as all user ids do.
COMMENT ON COLUMN wa_contact_identities.valid_to IS
'When the number was given up or the user id was replaced, as the provider tells; NULL while it holds.';
INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
SELECT c.organization_id, c.id, 'user_id', c.parent_user_id, 'webhook', c.created_at
FROM wa_contacts c WHERE c.parent_user_id IS NOT NULL
ORDER BY c.organization_id, c.id
ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;

-- For rows to come; pages that are there already stay as full as they are.
ALTER TABLE wa_messages SET (fillfactor = 50);

-- Rows that wait for a cause stand in its hold. Those that were put off until now are judged anew.
ALTER TABLE wa_queue_due
ADD COLUMN expires_at timestamptz NOT NULL DEFAULT 'infinity',
ADD COLUMN hold_id bigint;
UPDATE wa_queue_due d
SET expires_at = coalesce(q.expires_at, 'infinity'),
    due_at = CASE WHEN d.hold_reason <> 'retry' THEN q.scheduled_at ELSE d.due_at END,
    hold_reason = CASE WHEN d.hold_reason = 'retry' THEN d.hold_reason END
FROM wa_outbound_queue q
WHERE q.organization_id = d.organization_id AND q.id = d.queue_id;
COMMENT ON COLUMN wa_queue_due.hold_reason IS
'retry where due_at was moved on, else the kind of the hold.';
COMMENT ON COLUMN wa_queue_due.hold_id IS
'The cause that it waits for, a row of wa_queue_holds; NULL for what may go when its turn comes.';
COMMENT ON COLUMN wa_queue_due.expires_at IS 'That of the message; infinity where it has none.';
DROP INDEX wa_queue_due_order_idx;
DROP INDEX wa_queue_due_contact_idx;
CREATE INDEX wa_queue_due_order_idx
ON wa_queue_due (number_id, class, due_at, queue_id) WHERE hold_id IS NULL;
CREATE INDEX wa_queue_due_hold_idx ON wa_queue_due (hold_id, class, queue_id) WHERE hold_id IS NOT NULL;
CREATE INDEX wa_queue_due_expires_at_idx ON wa_queue_due (expires_at) WHERE expires_at < 'infinity';
CREATE INDEX wa_queue_due_contact_idx ON wa_queue_due (contact_id, class, queue_id) WHERE class > 0;

-- Claims begin anew: what a lane's state held is made by them.
DROP FUNCTION _wa_busy_lanes(timestamptz);
DROP FUNCTION _wa_lane_state(uuid, bigint);
DROP FUNCTION _wa_write_lane_state(wa_lane_states, wa_lane_states);
DROP TABLE wa_lane_states;

-- State is written as a new row of the next version and read from the newest end of the index: an updated row
-- would grow a chain of dead versions that every claim walks while an old snapshot is held elsewhere.
CREATE TABLE wa_lane_states (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    version bigint NOT NULL,
    cursor_due timestamptz[] NOT NULL,
    cursor_id uuid[] NOT NULL,
    shares double precision[] NOT NULL,
    share_clock double precision NOT NULL,
    look_again_at timestamptz NOT NULL,
    served_at timestamptz NOT NULL,
    held_until timestamptz,
    hold_reason text,
    next_slot_at timestamptz NOT NULL,
    is_skipping boolean NOT NULL,
    look_due timestamptz[] NOT NULL,
    look_id uuid[] NOT NULL,
    CONSTRAINT wa_lane_states_pkey PRIMARY KEY (organization_id, number_id, version)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE wa_lane_states IS 'Internal: where each lane''s claim stands. The newest version counts.';
COMMENT ON COLUMN wa_lane_states.next_slot_at IS 'When the next message may be sent, by the throughput.';
COMMENT ON COLUMN wa_lane_states.is_skipping IS
'Whether claims pass over rows that cannot go, and set them aside a few at a time.';
COMMENT ON COLUMN wa_lane_states.look_due IS
'With look_id: how far the rows that were passed over have been looked at, class by class.';

-- Claims keep a count of a portfolio's recipients.
ALTER TABLE wa_rate_limits
DROP CONSTRAINT wa_rate_limits_scope_check,
ADD CONSTRAINT wa_rate_limits_scope_check CHECK (scope IN ('organization', 'portfolio'));
COMMENT ON TABLE wa_rate_limits IS
'Internal: what was used of limits. The newest version counts. organization: messages of the last minute. '
'portfolio: no fewer recipients of the last 24 hours than there are, and when they were counted.';

-- Rules for subcodes. What an operator changed stays, as the rule for all other subcodes.
ALTER TABLE wa_error_rules
ADD COLUMN subcode integer NOT NULL DEFAULT 0,
DROP CONSTRAINT wa_error_rules_pkey,
ADD CONSTRAINT wa_error_rules_pkey PRIMARY KEY (code, subcode);
COMMENT ON COLUMN wa_error_rules.subcode IS
'The error_subcode that changes what the code means; 0 is the rule for all others.';

-- Secrets of 360dialog's webhooks.
ALTER TABLE wa_secrets
DROP CONSTRAINT wa_secrets_name_check,
ADD CONSTRAINT wa_secrets_name_check CHECK (
    name IN ('access_token', 'app_secret', 'verify_token', 'webhook_header', 'platform_secret')
);
COMMENT ON COLUMN wa_secrets.name IS
'access_token, verify_token; app_secret, with which Meta signs webhooks; webhook_header, the header that '
'360dialog was told to send with them, and platform_secret, with which it signs those of its partners.';

-- Functions of 0.1.0 with another signature.
DROP FUNCTION get_wa_webhook_secrets();
DROP FUNCTION classify_wa_error(integer, integer);
DROP FUNCTION _wa_database_identity();
DROP FUNCTION _wa_weigh_due(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], timestamptz
);
DROP FUNCTION claim_wa_messages(uuid, integer);
DROP FUNCTION get_wa_next_due();
DROP FUNCTION _wa_claim_lane(uuid, bigint, uuid, integer);
DROP FUNCTION _wa_pick_due(
    uuid, bigint, timestamptz, timestamptz[], uuid[], double precision[], double precision, integer, integer
);
DROP FUNCTION _wa_set_aside(
    wa_organizations, wa_phone_numbers, uuid[], text[], uuid[], timestamptz[], text[], uuid[]
);
DROP FUNCTION _wa_grant(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], boolean[], timestamptz
);
DROP FUNCTION _wa_charge_organization(wa_rate_limits, uuid, timestamptz, integer);
DROP FUNCTION _wa_build_request(uuid, integer, text, text, text, jsonb, text, jsonb, wa_templates);
DROP FUNCTION _wa_read_result(jsonb);
DROP FUNCTION _wa_refuse_rows(wa_organizations, uuid[]);
DROP FUNCTION _wa_raise_bad_rows(bigint, bigint, text[], text, text, text);
DROP FUNCTION _wa_warn_of_wait(wa_organizations, bigint);
DROP FUNCTION _wa_read_message(jsonb);
DROP FUNCTION _wa_resolve_contacts(uuid, text[], text[], text, timestamptz[]);
DROP FUNCTION _wa_learn_wa_id(uuid, bigint[], text[]);
DROP FUNCTION _wa_change_number(uuid, text, text, text, text, timestamptz);
DROP FUNCTION _wa_number_atoms(_wa_webhook_atoms[]);
DROP FUNCTION _wa_call_customer(jsonb, jsonb, text);
DROP FUNCTION _wa_update_profiles(uuid, _wa_webhook_atoms[], bigint[]);
DROP FUNCTION _wa_settle_from_echo(uuid, uuid[], integer[], text[]);
DROP FUNCTION _wa_settle_echoes(uuid, _wa_webhook_atoms[]);
DROP FUNCTION _wa_advance_messages(uuid, bigint[]);
DROP FUNCTION _wa_attach_early_statuses(uuid, bigint[]);
DROP FUNCTION _wa_refresh_entry_points(uuid, bigint[]);
DROP FUNCTION _wa_template_button(text, integer, jsonb);
DROP FUNCTION _wa_apply_atoms_safely(uuid, _wa_webhook_atoms[]);
DROP FUNCTION ingest_wa_webhooks(bytea[], text[], text);
DROP VIEW wa_queue_health;
DROP FUNCTION _wa_queue_health();
DROP FUNCTION _wa_check_queue_row(
    uuid, text, text, bigint, text, text, jsonb, text, text, text, jsonb, uuid
);

-- Triggers bear the name of what they do, as their functions do after the table's.
ALTER TRIGGER wa_opt_outs__cancel_queued ON wa_opt_outs RENAME TO cancel_queued;
ALTER TRIGGER wa_panic_modes__audit_insert ON wa_panic_modes RENAME TO audit_insert;
ALTER TRIGGER wa_panic_modes__audit_update ON wa_panic_modes RENAME TO audit_update;
ALTER TRIGGER wa_installations__audit ON wa_installations RENAME TO audit;
ALTER TRIGGER wa_templates__derive ON wa_templates RENAME TO derive;
ALTER TRIGGER remove ON wa_outbound_queue RENAME TO delete;

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

-- What takes values in its body only. The trigger knows nothing of it yet, and order_details as little.
-- Without a default at first, see README.md.
ALTER TABLE wa_templates ADD COLUMN is_plain boolean;
COMMENT ON COLUMN wa_templates.is_plain IS
'Derived: whether only its body takes values, so that nothing else need be looked at when it is sent.';
ALTER TABLE wa_templates DISABLE TRIGGER derive;
UPDATE wa_templates t SET
    button_parameters = coalesce((
        SELECT jsonb_agg(jsonb_build_object('index', b.place - 1, 'sub_type', CASE upper(b.value ->> 'type')
            WHEN 'OTP' THEN 'url' ELSE lower(b.value ->> 'type') END) ORDER BY b.place)
        FROM jsonb_array_elements(t.buttons) WITH ORDINALITY b (value, place)
        WHERE upper(b.value ->> 'type') IN ('OTP', 'COPY_CODE', 'MPM', 'ORDER_DETAILS')
            OR upper(b.value ->> 'type') = 'URL' AND b.value ->> 'url' LIKE '%{{%}}%'
    ), '[]'),
    is_plain = t.category <> 'AUTHENTICATION' AND t.header_placeholders = '{}'
        AND coalesce(t.header_format, 'TEXT') = 'TEXT'
        AND NOT EXISTS (
            SELECT FROM jsonb_array_elements(t.buttons) b
            WHERE upper(b.value ->> 'type') IN ('OTP', 'COPY_CODE', 'MPM', 'ORDER_DETAILS', 'FLOW')
                OR upper(b.value ->> 'type') = 'URL' AND b.value ->> 'url' LIKE '%{{%}}%'
        )
        AND NOT EXISTS (
            SELECT FROM jsonb_array_elements(t.components) c
            WHERE upper(c.value ->> 'type') = 'CAROUSEL'
                OR c.value #>> '{limited_time_offer,has_expiration}' = 'true'
        );
ALTER TABLE wa_templates ENABLE TRIGGER derive;
ALTER TABLE wa_templates ALTER COLUMN is_plain SET DEFAULT false, ALTER COLUMN is_plain SET NOT NULL;
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

-- Figures that nobody means. What has them gets the default.
UPDATE wa_organizations SET order_wait = DEFAULT
WHERE order_wait < interval '0' OR order_wait > interval '1 day';
UPDATE wa_organizations SET unknown_grace = DEFAULT
WHERE unknown_grace < interval '0' OR unknown_grace > interval '30 days';
UPDATE wa_organizations SET unknown_grace_silent = DEFAULT
WHERE unknown_grace_silent < interval '0' OR unknown_grace_silent > interval '30 days';
UPDATE wa_portfolios SET tier_limit = NULL WHERE tier_limit < 0;
UPDATE wa_phone_numbers SET throughput = 100000 WHERE throughput > 100000;
ALTER TABLE wa_organizations
ADD CONSTRAINT wa_organizations_order_wait_check CHECK (
    order_wait >= interval '0' AND order_wait <= interval '1 day'
),
ADD CONSTRAINT wa_organizations_grace_check CHECK (
    unknown_grace >= interval '0' AND unknown_grace <= interval '30 days'
    AND unknown_grace_silent >= interval '0' AND unknown_grace_silent <= interval '30 days'
);
ALTER TABLE wa_portfolios ADD CONSTRAINT wa_portfolios_tier_limit_check CHECK (tier_limit >= 0);
ALTER TABLE wa_phone_numbers DROP CONSTRAINT wa_phone_numbers_throughput_check;
ALTER TABLE wa_phone_numbers
ADD CONSTRAINT wa_phone_numbers_throughput_check CHECK (throughput BETWEEN 1 AND 100000);

-- What somebody's lock stopped is looked for at each call.
ALTER TABLE wa_webhook_errors
ADD COLUMN tries integer NOT NULL DEFAULT 1,
ADD COLUMN try_at timestamptz;
CREATE INDEX wa_webhook_errors_locked_idx ON wa_webhook_errors (try_at)
WHERE sqlstate = '55P03' AND resolved_at IS NULL;

-- New tables.

-- Who may speak for whom, where organizations share a Meta app.
CREATE TABLE wa_app_shares (
    organization_id uuid NOT NULL,
    with_id uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_app_shares_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX wa_app_shares_key ON wa_app_shares (organization_id, with_id) NULLS NOT DISTINCT;

ALTER TABLE wa_webhook_logs ADD COLUMN signed_by uuid[];

COMMENT ON COLUMN wa_webhook_errors.try_at IS
'When it is tried again by itself: what somebody''s lock stopped (sqlstate 55P03); NULL for the rest.';
COMMENT ON COLUMN wa_webhook_logs.signed_by IS
'Whose secrets signed it (ids of wa_secrets, zeros for the environment''s): it is believed of their numbers '
'only. NULL where nobody looked: stored by hand, by 360dialog''s way in, or before 0.2.0; taken at its word.';
COMMENT ON TABLE wa_app_shares IS
'Organizations whose Meta app serves others, too: see share_wa_app(). with_id NULL: all.';

-- One row for each kind of work and what it was about, so that a fault that comes back every second is one
-- row, not a flood. It references nothing: noting a fault must wait for nobody's lock.
CREATE TABLE wa_faults (
    organization_id uuid NOT NULL,
    work text NOT NULL,
    subject text NOT NULL,
    sqlstate text NOT NULL,
    error text NOT NULL,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    times integer NOT NULL DEFAULT 1,
    CONSTRAINT wa_faults_pkey PRIMARY KEY (organization_id, work, subject)
);

CREATE INDEX wa_faults_last_at_idx ON wa_faults (last_at);

-- Rows, not advisory locks: the key of those could be guessed, and any role may take them.
CREATE TABLE wa_locks (
    name text NOT NULL,
    CONSTRAINT wa_locks_pkey PRIMARY KEY (name)
);

INSERT INTO wa_locks (name) VALUES ('maintenance'), ('rollups'), ('webhooks');

COMMENT ON TABLE wa_faults IS
'What failed inside and was set aside so that the rest could go on, by kind of work; the last time counts.';
COMMENT ON COLUMN wa_faults.work IS
'claim, result, maintenance, or webhook where it met a lock: wa_webhook_errors and wa_job_runs have the '
'rest.';
COMMENT ON COLUMN wa_faults.subject IS
'What it was about: a business number for a claim, a queue id for a result, else empty.';
COMMENT ON COLUMN wa_faults.times IS 'How often it failed in a row, with less than a minute in between.';
COMMENT ON TABLE wa_locks IS
'Internal: one row for what is done by one session at a time; locked, never changed.';

-- Answers that could not be recorded when they came, most of them because somebody had the row locked. The
-- row stays in flight meanwhile: what was sent is never taken for lost.
CREATE TABLE wa_late_results (
    organization_id uuid NOT NULL,
    queue_id uuid NOT NULL,
    attempt integer NOT NULL,
    result jsonb NOT NULL,
    sqlstate text NOT NULL,
    error text,
    tries integer NOT NULL DEFAULT 1,
    came_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    try_at timestamptz NOT NULL,
    CONSTRAINT wa_late_results_pkey PRIMARY KEY (organization_id, queue_id, attempt)
);

CREATE INDEX wa_late_results_try_at_idx ON wa_late_results (try_at);

COMMENT ON TABLE wa_late_results IS
'Answers of the provider that could not be recorded at once; dispatchers try again until they can.';
COMMENT ON COLUMN wa_late_results.sqlstate IS
'55P03: somebody has the row, or something else of the organization, locked. Else the error.';

-- Only its own delivery ends the wait for a message.
ALTER TABLE wa_pair_rates ADD COLUMN awaited_id bigint;
COMMENT ON COLUMN wa_pair_rates.wait_until IS
'Where one message waits for the delivery of the one before: until when at most.';
COMMENT ON COLUMN wa_pair_rates.awaited_id IS 'Whose delivery: a row of wa_messages.';

-- A cause that rows of a lane wait for: their recipient (contact_id), or, with contact_id 0, what stops one
-- kind of row of the whole lane. Written by claims under the lane's lock; rows name it in
-- wa_queue_due.hold_id.
CREATE TABLE wa_queue_holds (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    number_id bigint NOT NULL,
    kind text NOT NULL,
    contact_id bigint NOT NULL DEFAULT 0,
    reason text NOT NULL,
    opens_at timestamptz NOT NULL,
    tier_limit integer,
    portfolio_id text,
    passed_id uuid,
    CONSTRAINT wa_queue_holds_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_queue_holds_cause_key UNIQUE (contact_id, number_id, kind, organization_id),
    CONSTRAINT wa_queue_holds_kind_check CHECK (
        kind IN ('recipient', 'messaging_limit', 'replies', 'templates')
    )
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- The predicate holds for every row; see the indexes of wa_queue_due.
CREATE INDEX wa_queue_holds_opens_at_idx
ON wa_queue_holds (number_id, opens_at) WHERE opens_at > '-infinity';

-- Those that wait for a delivery, once the organization does not want that any more.
CREATE INDEX wa_queue_holds_in_order_idx ON wa_queue_holds (number_id, opens_at) WHERE reason = 'in_order';

CREATE TABLE wa_lane_slowdowns (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    share double precision NOT NULL,
    slowed_at timestamptz NOT NULL,
    CONSTRAINT wa_lane_slowdowns_pkey PRIMARY KEY (organization_id, number_id)
);

COMMENT ON TABLE wa_queue_holds IS
'Internal: what rows of a lane wait for; they stand aside until it opens, then go in their order.';
COMMENT ON COLUMN wa_queue_holds.kind IS
'recipient (pair rate, or an earlier message), messaging_limit, replies or templates (restricted by Meta).';
COMMENT ON COLUMN wa_queue_holds.reason IS 'What explain_wa_message() says of its rows.';
COMMENT ON COLUMN wa_queue_holds.opens_at IS 'From then on claims take its rows and judge them anew.';
COMMENT ON COLUMN wa_queue_holds.tier_limit IS
'The messaging limit when the hold was closed; another one opens it.';
COMMENT ON COLUMN wa_queue_holds.portfolio_id IS
'Whose messaging limit it was; a number that moves to another portfolio opens the hold.';
COMMENT ON COLUMN wa_queue_holds.passed_id IS
'The last row that its owner had locked when it was to be taken out; claims go on behind it, then begin '
'anew.';
COMMENT ON TABLE wa_lane_slowdowns IS
'Internal: the share of its throughput that a lane took when the provider last said that it was too much; '
'from then on it rises again.';

-- Roll-ups of the ledger by quarter hour, and what messages cost. Quarter hours of UTC serve every time zone:
-- all of today's zones are multiples of 15 minutes away from it.

-- One row per quarter hour and combination of what it is counted by. day is cut in the organization's zone,
-- by roll_up_wa_analytics() and by a trigger on wa_organizations.time_zone.
CREATE TABLE wa_message_rollups (
    organization_id uuid NOT NULL,
    quarter_at timestamptz NOT NULL,
    line integer NOT NULL,
    day date NOT NULL,
    phone_number_id text,
    direction text NOT NULL,
    is_echo boolean NOT NULL,
    message_type text NOT NULL,
    template_name text,
    status text NOT NULL,
    country text,
    pricing_category text,
    charge text,
    messages bigint NOT NULL,
    delivered bigint NOT NULL,
    seen bigint NOT NULL,
    queued bigint NOT NULL,
    queue_time interval NOT NULL,
    CONSTRAINT wa_message_rollups_pkey PRIMARY KEY (organization_id, quarter_at, line)
);

CREATE INDEX wa_message_rollups_day_idx ON wa_message_rollups (day, organization_id);

CREATE TABLE wa_response_rollups (
    organization_id uuid NOT NULL,
    quarter_at timestamptz NOT NULL,
    line integer NOT NULL,
    day date NOT NULL,
    phone_number_id text,
    role text,
    responses bigint NOT NULL,
    response_time interval NOT NULL,
    longest_time interval NOT NULL,
    CONSTRAINT wa_response_rollups_pkey PRIMARY KEY (organization_id, quarter_at, line)
);

CREATE INDEX wa_response_rollups_day_idx ON wa_response_rollups (day, organization_id);

-- Every statement that changes wa_messages adds a row for each quarter hour that it touched, in its own
-- transaction: whoever sees the change sees the mark. Only ever inserted and deleted.
CREATE TABLE wa_rollup_marks (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    quarter_at timestamptz NOT NULL,
    changes_order boolean NOT NULL,
    CONSTRAINT wa_rollup_marks_pkey PRIMARY KEY (organization_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE wa_rollup_horizons (
    organization_id uuid NOT NULL,
    forgotten_before timestamptz NOT NULL,
    CONSTRAINT wa_rollup_horizons_pkey PRIMARY KEY (organization_id),
    CONSTRAINT wa_rollup_horizons_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_rates (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    country text NOT NULL,
    category text NOT NULL,
    valid_from date NOT NULL,
    currency text NOT NULL,
    rate numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_rates_pkey PRIMARY KEY (organization_id, country, category, valid_from),
    CONSTRAINT wa_rates_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_rates_country_check CHECK (country ~ '^[A-Z]{2}$'),
    CONSTRAINT wa_rates_category_check CHECK (category ~ '^[a-z][a-z_]*$'),
    CONSTRAINT wa_rates_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT wa_rates_rate_check CHECK (rate >= 0 AND rate < 'Infinity')
);

-- The ledger as it is at installation or upgrade is rolled up from the start. The lock leaves no gap between
-- this and the triggers that mark from then on.
LOCK TABLE wa_messages IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
SELECT DISTINCT m.organization_id, date_bin('15 minutes', m.created_at, '2000-01-01 00:00+00'), true
FROM wa_messages m;

COMMENT ON TABLE wa_message_rollups IS
'Internal: messages by quarter hour, as of the last roll-up; the analytics views add what changed since.';
COMMENT ON COLUMN wa_message_rollups.line IS 'Numbers the rows of one quarter hour.';
COMMENT ON COLUMN wa_message_rollups.day IS
'Day of the quarter hour in the organization''s time zone.';
COMMENT ON COLUMN wa_message_rollups.charge IS
'paid, free or unknown by the provider''s pricing object; NULL where none came.';
COMMENT ON COLUMN wa_message_rollups.seen IS 'Messages read or played.';
COMMENT ON COLUMN wa_message_rollups.queued IS 'Messages whose time in the queue is part of queue_time.';
COMMENT ON TABLE wa_response_rollups IS
'Internal: answers to customers by quarter hour of the answer, as of the last roll-up.';
COMMENT ON TABLE wa_rollup_marks IS
'Internal: quarter hours whose roll-ups are out of date, since the ledger was changed there.';
COMMENT ON COLUMN wa_rollup_marks.changes_order IS
'Whether messages came, went or moved, so that answers of the day after may be others.';
COMMENT ON TABLE wa_rollup_horizons IS
'Internal: until when the ledger was deleted by retention; roll-ups before are all that is left and stay.';
COMMENT ON TABLE wa_rates IS
'What a delivered message costs, by country of the recipient and category; valid until a newer row.';
COMMENT ON COLUMN wa_rates.country IS 'ISO code, for example BR.';
COMMENT ON COLUMN wa_rates.category IS
'The provider''s pricing category in small letters: marketing, utility, authentication, …';
COMMENT ON COLUMN wa_rates.valid_from IS 'First day of the rate, in the organization''s time zone.';
COMMENT ON COLUMN wa_rates.rate IS 'Price of one message in the currency.';

-- Automation: multi-step flows per customer, and notifications that are planned from a template. The tables
-- that the documents read and stop by hand; what runs them comes later.

CREATE TABLE wa_automation_flows (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    phone_e164 text,
    user_id text,
    flow_type text NOT NULL,
    current_step text NOT NULL DEFAULT 'start',
    status text NOT NULL DEFAULT 'active',
    next_action_at timestamptz DEFAULT clock_timestamp(),
    trigger_data jsonb NOT NULL DEFAULT '{}',
    retry_count integer NOT NULL DEFAULT 0,
    last_error text,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    CONSTRAINT wa_automation_flows_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_automation_flows_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_automation_flows_customer_check CHECK (num_nonnulls(phone_e164, user_id) > 0),
    CONSTRAINT wa_automation_flows_type_check CHECK (flow_type <> ''),
    CONSTRAINT wa_automation_flows_status_check CHECK (
        status IN ('active', 'paused', 'completed', 'cancelled', 'failed')
    ),
    CONSTRAINT wa_automation_flows_trigger_check CHECK (jsonb_typeof(trigger_data) = 'object'),
    CONSTRAINT wa_automation_flows_retry_check CHECK (retry_count >= 0)
);

CREATE INDEX wa_automation_flows_due_idx ON wa_automation_flows (next_action_at) WHERE status = 'active';
CREATE INDEX wa_automation_flows_phone_idx ON wa_automation_flows (phone_e164, created_at);

CREATE TABLE siren_templates (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    channel text NOT NULL DEFAULT 'whatsapp',
    template_name text,
    body_text text,
    is_enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT siren_templates_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT siren_templates_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT siren_templates_name_key UNIQUE (name, organization_id),
    CONSTRAINT siren_templates_name_check CHECK (name <> '')
);

CREATE TABLE siren_events (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    template_id uuid NOT NULL,
    phone_e164 text,
    context jsonb NOT NULL DEFAULT '{}',
    status text NOT NULL DEFAULT 'pending',
    scheduled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    retry_count integer NOT NULL DEFAULT 0,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT siren_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT siren_events_template_fkey FOREIGN KEY (organization_id, template_id)
    REFERENCES siren_templates (organization_id, id),
    CONSTRAINT siren_events_status_check CHECK (
        status IN ('pending', 'sending', 'sent', 'failed', 'cancelled')
    ),
    CONSTRAINT siren_events_context_check CHECK (jsonb_typeof(context) = 'object'),
    CONSTRAINT siren_events_retry_check CHECK (retry_count >= 0)
);

CREATE INDEX siren_events_due_idx ON siren_events (scheduled_at) WHERE status = 'pending';
CREATE INDEX siren_events_template_idx ON siren_events (template_id);

COMMENT ON TABLE wa_automation_flows IS
'A flow under way with one customer, such as following up on a payment link. Only active ones act.';
COMMENT ON COLUMN wa_automation_flows.phone_e164 IS
'The customer''s number; typed forms are normalised. NULL for a customer who is known by user_id only.';
COMMENT ON COLUMN wa_automation_flows.user_id IS 'Meta''s business-scoped user id of the customer.';
COMMENT ON COLUMN wa_automation_flows.flow_type IS 'Which flow it is, in the host''s words.';
COMMENT ON COLUMN wa_automation_flows.current_step IS 'Where it stands, in the flow''s own words.';
COMMENT ON COLUMN wa_automation_flows.status IS
'active; paused, which may go on; completed, cancelled or failed, which ended.';
COMMENT ON COLUMN wa_automation_flows.next_action_at IS
'When an active flow acts next; NULL while it waits for something else to happen.';
COMMENT ON COLUMN wa_automation_flows.trigger_data IS
'What started it, for example {"payment_link_url": "https://..."}.';
COMMENT ON COLUMN wa_automation_flows.ended_at IS 'When it was completed, cancelled or failed.';
COMMENT ON TABLE siren_templates IS 'Kinds of notifications; the name says what for, and which channel.';
COMMENT ON COLUMN siren_templates.template_name IS 'The WhatsApp template that it sends, if any.';
COMMENT ON COLUMN siren_templates.body_text IS 'The text outside of WhatsApp, or inside an open window.';
COMMENT ON TABLE siren_events IS 'Notifications that are planned, sent, failed or cancelled.';
COMMENT ON COLUMN siren_events.phone_e164 IS 'Who gets it; typed forms are normalised.';
COMMENT ON COLUMN siren_events.context IS 'What the template''s variables are taken from.';
COMMENT ON COLUMN siren_events.scheduled_at IS 'Not before this time.';

-- The timeline: what happened around a lead, booking, trip or any other object of the host.

CREATE TABLE timeline_entries (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_type text NOT NULL,
    source text NOT NULL DEFAULT 'SYSTEM',
    entity_type text,
    entity_id text,
    actor text NOT NULL DEFAULT session_user,
    actor_role text,
    content jsonb NOT NULL DEFAULT '{}',
    conversation_id bigint,
    message_id bigint,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT timeline_entries_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT timeline_entries_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    -- Queries compare with capitals; an entry in small letters would silently not be counted.
    CONSTRAINT timeline_entries_type_check CHECK (event_type <> '' AND event_type = upper(event_type)),
    CONSTRAINT timeline_entries_source_check CHECK (source <> '' AND source = upper(source)),
    CONSTRAINT timeline_entries_entity_check CHECK ((entity_type IS NULL) = (entity_id IS NULL)),
    CONSTRAINT timeline_entries_content_check CHECK (jsonb_typeof(content) = 'object')
);

CREATE INDEX timeline_entries_entity_idx ON timeline_entries (entity_type, entity_id, occurred_at);
CREATE INDEX timeline_entries_action_idx ON timeline_entries ((content ->> 'action'), event_type, source);

COMMENT ON TABLE timeline_entries IS
'What happened around an object of the host, in order; applications add entries and change none.';
COMMENT ON COLUMN timeline_entries.event_type IS 'SYSTEM, MESSAGE, INCIDENT or any other word in capitals.';
COMMENT ON COLUMN timeline_entries.source IS 'Where it came from: WHATSAPP, WEB, SYSTEM …, in capitals.';
COMMENT ON COLUMN timeline_entries.entity_type IS 'Kind of the object, for example lead, booking, trip.';
COMMENT ON COLUMN timeline_entries.entity_id IS 'The host''s own id of the object.';
COMMENT ON COLUMN timeline_entries.actor_role IS 'What the actor is: customer, sales, operations ….';
COMMENT ON COLUMN timeline_entries.content IS
'The entry itself; "action" says in a word what was done, for example LEAD_CREATED.';
COMMENT ON COLUMN timeline_entries.conversation_id IS 'Id in wa_conversations, if it came out of one.';
COMMENT ON COLUMN timeline_entries.message_id IS 'Id in wa_messages, if a message caused it.';

-- Files of messages: what they are, the bytes, and the links by which they may be had. The bytes stand apart:
-- whoever may look at wa_media gets none, only a link that is still good opens them.

CREATE TABLE wa_media (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT _wa_uuid7(clock_timestamp()),
    message_id bigint,
    direction text NOT NULL,
    phone_number_id text,
    provider_media_id text,
    media_type text NOT NULL,
    mime_type text,
    filename text,
    file_size bigint,
    sha256 bytea,
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT clock_timestamp(),
    error text,
    stored_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_media_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_media_message_key UNIQUE (message_id, organization_id),
    CONSTRAINT wa_media_direction_check CHECK (direction IN ('inbound', 'outbound')),
    CONSTRAINT wa_media_type_check CHECK (media_type IN ('image', 'video', 'audio', 'document', 'sticker')),
    CONSTRAINT wa_media_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT wa_media_status_check CHECK (status IN ('pending', 'stored', 'failed', 'deleted')),
    CONSTRAINT wa_media_attempt_check CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
);

CREATE INDEX wa_media_pending_idx ON wa_media (next_attempt_at) WHERE status = 'pending';
CREATE INDEX wa_media_expires_idx ON wa_media (expires_at) WHERE status = 'stored';

CREATE TABLE wa_media_contents (
    organization_id uuid NOT NULL,
    media_id uuid NOT NULL,
    content bytea NOT NULL,
    CONSTRAINT wa_media_contents_pkey PRIMARY KEY (organization_id, media_id),
    CONSTRAINT wa_media_contents_media_fkey FOREIGN KEY (organization_id, media_id)
    REFERENCES wa_media (organization_id, id) ON DELETE CASCADE
);

-- Pictures, sound and video are compressed already.
ALTER TABLE wa_media_contents ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE TABLE wa_media_signatures (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    media_id uuid NOT NULL,
    message_id bigint,
    token_hash bytea NOT NULL,
    max_access integer NOT NULL DEFAULT 1,
    access_count integer NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_accessed_at timestamptz,
    CONSTRAINT wa_media_signatures_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_media_signatures_media_fkey FOREIGN KEY (organization_id, media_id)
    REFERENCES wa_media (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_media_signatures_token_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT wa_media_signatures_access_check CHECK (
        max_access > 0 AND access_count BETWEEN 0 AND max_access
    )
);

-- A link names its signature and no organization.
CREATE INDEX wa_media_signatures_id_idx ON wa_media_signatures (id);
CREATE INDEX wa_media_signatures_media_idx ON wa_media_signatures (media_id);
CREATE INDEX wa_media_signatures_expires_idx ON wa_media_signatures (expires_at);

COMMENT ON TABLE wa_media IS
'Files of messages. Their bytes are given out by open_wa_media() only, against a link.';
COMMENT ON COLUMN wa_media.id IS 'Grows with time: retention looks among the lowest.';
COMMENT ON COLUMN wa_media.message_id IS 'Id in wa_messages.';
COMMENT ON COLUMN wa_media.provider_media_id IS
'What the provider calls it; it hands an inbound file out for 7 days.';
COMMENT ON COLUMN wa_media.sha256 IS 'Hash of the bytes, as the provider told it; of what was stored, then.';
COMMENT ON COLUMN wa_media.status IS
'pending: yet to be fetched from the provider. stored: its bytes are here. failed: they could not be had. '
'deleted: they were here.';
COMMENT ON COLUMN wa_media.error IS 'Why fetching it failed last.';
COMMENT ON COLUMN wa_media.expires_at IS
'When the bytes are deleted; NULL: with the messages of the organization.';
COMMENT ON TABLE wa_media_contents IS 'The bytes of stored files.';
COMMENT ON TABLE wa_media_signatures IS
'Links to files: each good for some time and some openings. Deleting one takes the link back.';
COMMENT ON COLUMN wa_media_signatures.token_hash IS
'SHA-256 of the token, which is told once and stored nowhere.';
COMMENT ON COLUMN wa_media_signatures.max_access IS 'How often the link may be opened.';

-- Broadcast lists: contacts that are written to together.

CREATE TABLE wa_broadcast_lists (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    description text,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_broadcast_lists_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_broadcast_lists_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_broadcast_lists_name_key UNIQUE (name, organization_id),
    CONSTRAINT wa_broadcast_lists_name_check CHECK (name <> '')
);

CREATE TABLE wa_broadcast_members (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    list_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    added_by text NOT NULL DEFAULT session_user,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_broadcast_members_pkey PRIMARY KEY (organization_id, list_id, contact_id),
    CONSTRAINT wa_broadcast_members_list_fkey FOREIGN KEY (organization_id, list_id)
    REFERENCES wa_broadcast_lists (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_broadcast_members_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE
);

CREATE INDEX wa_broadcast_members_contact_idx ON wa_broadcast_members (contact_id);

COMMENT ON TABLE wa_broadcast_lists IS 'Lists of contacts that are written to together.';
COMMENT ON COLUMN wa_broadcast_lists.name IS 'What people and functions call the list by.';
COMMENT ON TABLE wa_broadcast_members IS 'Who is on which list; a contact once.';

-- Optional packs of tables that belong to the host, and which of them this database has. No tenant: a pack is
-- there for all organizations or for none.

CREATE TABLE wa_packs (
    name text NOT NULL,
    step text NOT NULL,
    version text NOT NULL,
    checksum text NOT NULL,
    objects text [] NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    installed_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_packs_pkey PRIMARY KEY (name, step)
);

COMMENT ON TABLE wa_packs IS
'What install_wa_pack() did: a row per script. To be rid of a pack, drop its objects, then delete its rows.';
COMMENT ON COLUMN wa_packs.name IS 'Name of the pack.';
COMMENT ON COLUMN wa_packs.step IS 'Path of the script in the sources.';
COMMENT ON COLUMN wa_packs.version IS 'Version of the extension that the script was run or checked for last.';
COMMENT ON COLUMN wa_packs.checksum IS 'SHA-256 of the script.';
COMMENT ON COLUMN wa_packs.objects IS 'What the script creates: kind and name.';
COMMENT ON COLUMN wa_packs.installed_by IS 'The login that asked for it.';

-- The recurring work and what became of it. Of the installation as a whole, not of a tenant, and for
-- administrators only; therefore without row security.

CREATE TABLE wa_jobs (
    name text NOT NULL,
    function_name text NOT NULL,
    schedule text NOT NULL,
    is_enabled boolean NOT NULL DEFAULT true,
    description text NOT NULL,
    batch_rows integer,
    pack text,
    scheduled_at timestamptz,
    next_run_at timestamptz,
    CONSTRAINT wa_jobs_pkey PRIMARY KEY (name),
    CONSTRAINT wa_jobs_batch_check CHECK (batch_rows > 0)
);

CREATE TABLE wa_job_runs (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job text NOT NULL,
    started_at timestamptz NOT NULL,
    duration interval NOT NULL,
    row_count bigint,
    error text,
    ran_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_job_runs_pkey PRIMARY KEY (id),
    CONSTRAINT wa_job_runs_job_fkey FOREIGN KEY (job) REFERENCES wa_jobs (name)
    ON UPDATE CASCADE ON DELETE CASCADE
);

CREATE INDEX wa_job_runs_job_idx ON wa_job_runs (job, id);

COMMENT ON TABLE wa_jobs IS
'Recurring work. Nothing of it runs before schedule_wa_jobs(). schedule, is_enabled and description may be '
'changed and stay so.';
COMMENT ON COLUMN wa_jobs.function_name IS
'Function of the extension''s schema that a run calls, without arguments; returns how many rows it handled.';
COMMENT ON COLUMN wa_jobs.schedule IS
'Five fields as in cron (minute, hour, day of month, month, day of week), in the zone that '
'schedule_wa_jobs() prints; or ''N seconds'', 1 to 59.';
COMMENT ON COLUMN wa_jobs.batch_rows IS
'A run that handled at least so many rows left some behind: the next one follows at once.';
COMMENT ON COLUMN wa_jobs.pack IS 'The pack that brings the function; NULL means that it is always there.';
COMMENT ON COLUMN wa_jobs.scheduled_at IS
'When schedule_wa_jobs() took it up; NULL means that it never runs.';
COMMENT ON COLUMN wa_jobs.next_run_at IS
'When it is due; NULL while it is switched off or not scheduled. Whoever comes first then, runs it.';
COMMENT ON TABLE wa_job_runs IS 'The last hundred runs of each job, and its last success.';
COMMENT ON COLUMN wa_job_runs.error IS 'SQLSTATE and message of a run that failed, and was rolled back.';
COMMENT ON COLUMN wa_job_runs.ran_by IS
'The login of the session: that of pg_cron, of a dispatcher, or yours.';

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'wa_automation_flows', 'siren_templates', 'siren_events', 'timeline_entries', 'wa_broadcast_lists',
        'wa_broadcast_members', 'wa_media', 'wa_media_contents', 'wa_media_signatures',
        'wa_message_rollups', 'wa_response_rollups', 'wa_rollup_marks', 'wa_rollup_horizons', 'wa_rates',
        'wa_lane_states', 'wa_queue_holds', 'wa_lane_slowdowns', 'wa_faults', 'wa_late_results',
        'wa_app_shares'
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

-- The sources were laid out anew, a folder a room. What was done is known by the files' present names, so
-- that one name tells the whole history of a file; of one that was divided, the name of its larger part.
UPDATE wa_migrations AS m
SET step = n.present
FROM (
    VALUES
    ('api/account_events.sql', 'webhooks/account_events.sql'),
    ('api/account_rules.sql', 'webhooks/account_rules.sql'),
    ('api/claim.sql', 'sending/claim.sql'),
    ('api/claim_grant.sql', 'sending/grant.sql'),
    ('api/claim_lane.sql', 'sending/lane.sql'),
    ('api/complete.sql', 'sending/complete.sql'),
    ('api/consent.sql', 'consent/consent.sql'),
    ('api/contact_joins.sql', 'contacts/joins.sql'),
    ('api/contacts.sql', 'contacts/contacts.sql'),
    ('api/conversations.sql', 'conversations/conversations.sql'),
    ('api/enqueue.sql', 'queue/enqueue.sql'),
    ('api/errors.sql', 'sending/errors.sql'),
    ('api/events.sql', 'ledger/events.sql'),
    ('api/failures.sql', 'sending/failures.sql'),
    ('api/health.sql', 'sending/explain.sql'),
    ('api/installation.sql', 'organizations/installation.sql'),
    ('api/masked.sql', 'analytics/masked.sql'),
    ('api/numbers.sql', 'numbers/numbers.sql'),
    ('api/organizations.sql', 'organizations/organizations.sql'),
    ('api/panic.sql', 'numbers/panic.sql'),
    ('api/policy.sql', 'queue/policy.sql'),
    ('api/queue.sql', 'queue/admission.sql'),
    ('api/queue_control.sql', 'queue/control.sql'),
    ('api/secrets.sql', 'organizations/secrets.sql'),
    ('api/settle.sql', 'queue/settling.sql'),
    ('api/statuses.sql', 'webhooks/statuses.sql'),
    ('api/template_buttons.sql', 'templates/buttons.sql'),
    ('api/template_params.sql', 'templates/params.sql'),
    ('api/template_sync.sql', 'templates/sync.sql'),
    ('api/templates.sql', 'templates/templates.sql'),
    ('api/webhook_echoes.sql', 'webhooks/app_messages.sql'),
    ('api/webhook_messages.sql', 'webhooks/messages.sql'),
    ('api/webhooks.sql', 'webhooks/store.sql'),
    ('schema/consent.sql', 'consent/tables.sql'),
    ('schema/contacts.sql', 'contacts/tables.sql'),
    ('schema/messages.sql', 'ledger/tables.sql'),
    ('schema/numbers.sql', 'numbers/tables.sql'),
    ('schema/organizations.sql', 'organizations/tables.sql'),
    ('schema/queue.sql', 'queue/tables.sql'),
    ('schema/row_security.sql', 'organizations/tables_row_security.sql'),
    ('schema/templates.sql', 'templates/tables.sql'),
    ('schema/webhooks.sql', 'webhooks/tables.sql')
) AS n (former, present)
WHERE m.step = n.former;

-- Whoever may change, or delete in, a table as a whole may also lock it against everybody: what an
-- application changes is granted column by column now.
REVOKE UPDATE, DELETE ON wa_templates, wa_template_syncs FROM wa_app;

-- Whoever takes the name of a role that is dropped is not taken for it from here on.
CREATE DOMAIN _wa_bound_role AS name;
REVOKE ALL ON DOMAIN _wa_bound_role FROM PUBLIC;
COMMENT ON DOMAIN _wa_bound_role IS
'Internal: USAGE of it marks the roles that wa_organization_roles means.';
DO $$
DECLARE
    v_role name;
BEGIN
    FOR v_role IN
        SELECT DISTINCT r.role_name FROM wa_organization_roles r
        WHERE to_regrole(quote_ident(r.role_name)) IS NOT NULL
    LOOP
        EXECUTE format('GRANT USAGE ON DOMAIN _wa_bound_role TO %I', v_role);
    END LOOP;
END
$$;

-- Who may not claim is no dispatcher, and looks like none.
REVOKE EXECUTE ON FUNCTION start_wa_dispatcher(uuid, text, integer, text), stop_wa_dispatcher(uuid),
wake_wa_dispatcher(), sleep_wa_dispatcher() FROM wa_admin;
