-- Automation: flows, which are definitions, the runs of them, what these did and what they waited for; and
-- notifications that are planned from a template. The row of a run is all that there is of it.

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
    definition_version integer,
    contact_id bigint,
    run_key text,
    variables jsonb NOT NULL DEFAULT '{}',
    visits jsonb NOT NULL DEFAULT '{}',
    step_no integer NOT NULL DEFAULT 0,
    step_entered_at timestamptz,
    wait jsonb,
    seen_events jsonb NOT NULL DEFAULT '{}',
    last_queue_id uuid,
    outcome text,
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
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX wa_automation_flows_phone_idx ON wa_automation_flows (phone_e164, created_at);

-- Whether anything is due is one look at the first entry; whose turn it is where much is due, one look a
-- tenant.
-- Their predicates differ, so that no plan takes one for the other, whatever the table held when it was made.
CREATE INDEX wa_automation_flows_next_idx
ON wa_automation_flows (next_action_at) WHERE status = 'active' AND definition_version > 0;
CREATE INDEX wa_automation_flows_turn_idx
ON wa_automation_flows (organization_id, next_action_at)
WHERE status = 'active' AND definition_version IS NOT NULL;

-- Two quick messages start one run; what was started under a key is not started again.
CREATE UNIQUE INDEX wa_automation_flows_contact_key
ON wa_automation_flows (contact_id, flow_type, organization_id)
WHERE status IN ('active', 'paused') AND run_key IS NULL AND definition_version IS NOT NULL;
CREATE UNIQUE INDEX wa_automation_flows_run_key
ON wa_automation_flows (run_key, flow_type, organization_id)
WHERE run_key IS NOT NULL AND definition_version IS NOT NULL;

-- Whom an event of a customer may concern.
CREATE INDEX wa_automation_flows_contact_idx
ON wa_automation_flows (contact_id, organization_id)
WHERE status IN ('active', 'paused') AND definition_version IS NOT NULL;

CREATE INDEX wa_automation_flows_ended_idx
ON wa_automation_flows (ended_at) WHERE ended_at IS NOT NULL AND definition_version IS NOT NULL;

CREATE TABLE wa_flow_definitions (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    name text NOT NULL,
    version integer NOT NULL,
    description text,
    category text NOT NULL DEFAULT 'utility',
    trigger jsonb NOT NULL DEFAULT '{}',
    key text,
    interrupts jsonb NOT NULL DEFAULT '{}',
    limits jsonb NOT NULL DEFAULT '{}',
    steps jsonb NOT NULL,
    plan jsonb NOT NULL,
    state text NOT NULL DEFAULT 'draft',
    state_reason text,
    checksum text NOT NULL,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    activated_at timestamptz,
    retired_at timestamptz,
    CONSTRAINT wa_flow_definitions_pkey PRIMARY KEY (organization_id, name, version),
    CONSTRAINT wa_flow_definitions_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_flow_definitions_version_check CHECK (version > 0),
    CONSTRAINT wa_flow_definitions_category_check CHECK (category IN ('utility', 'marketing',
        'authentication')),
    CONSTRAINT wa_flow_definitions_state_check CHECK (state IN ('draft', 'active', 'retired'))
);

CREATE UNIQUE INDEX wa_flow_definitions_active_key
ON wa_flow_definitions (organization_id, name) WHERE state = 'active';

CREATE TABLE wa_flow_steps (
    organization_id uuid NOT NULL,
    flow_id uuid NOT NULL,
    step_no integer NOT NULL,
    contact_id bigint,
    step text NOT NULL,
    visit integer NOT NULL,
    type text NOT NULL,
    outcome text NOT NULL,
    queue_id uuid,
    detail jsonb,
    entered_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT wa_flow_steps_pkey PRIMARY KEY (organization_id, flow_id, step_no),
    CONSTRAINT wa_flow_steps_flow_fkey FOREIGN KEY (organization_id, flow_id)
    REFERENCES wa_automation_flows (organization_id, id) ON DELETE CASCADE
);

-- How much was sent to somebody within the hour.
CREATE INDEX wa_flow_steps_sends_idx ON wa_flow_steps (contact_id, ended_at) WHERE queue_id IS NOT NULL;

CREATE TABLE wa_flow_events (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    key text,
    contact_id bigint,
    data jsonb NOT NULL DEFAULT '{}',
    event_id text,
    is_matched boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_flow_events_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_flow_events_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_flow_events_kind_check CHECK (kind ~ '^(reply|status|payment|event:.+)$'),
    CONSTRAINT wa_flow_events_whose_check CHECK (num_nonnulls(key, contact_id) > 0)
);

CREATE UNIQUE INDEX wa_flow_events_event_key
ON wa_flow_events (event_id, kind, organization_id) WHERE event_id IS NOT NULL;
CREATE INDEX wa_flow_events_contact_idx ON wa_flow_events (contact_id, id) WHERE contact_id IS NOT NULL;
CREATE INDEX wa_flow_events_key_idx ON wa_flow_events (key, id) WHERE key IS NOT NULL;
CREATE INDEX wa_flow_events_late_idx ON wa_flow_events (id) WHERE NOT is_matched;
CREATE INDEX wa_flow_events_created_at_idx ON wa_flow_events (created_at);

CREATE TABLE wa_flow_functions (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    name text NOT NULL,
    function_name text NOT NULL,
    description text,
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_flow_functions_pkey PRIMARY KEY (organization_id, name),
    CONSTRAINT wa_flow_functions_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_flow_functions_name_check CHECK (name <> '')
);

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
COMMENT ON COLUMN wa_automation_flows.flow_type IS
'Which flow it is: the name of an active row of wa_flow_definitions, which then is run by the engine, or a '
'word of the host''s own, who then runs it.';
COMMENT ON COLUMN wa_automation_flows.current_step IS
'Where it stands: a step of the definition; start is the first.';
COMMENT ON COLUMN wa_automation_flows.status IS
'active; paused, which may go on; completed, cancelled or failed, which ended.';
COMMENT ON COLUMN wa_automation_flows.next_action_at IS
'When an active flow acts next; NULL while it waits for something else to happen.';
COMMENT ON COLUMN wa_automation_flows.trigger_data IS
'What started it, for example {"payment_link_url": "https://..."}.';
COMMENT ON COLUMN wa_automation_flows.ended_at IS 'When it was completed, cancelled or failed.';
COMMENT ON COLUMN wa_automation_flows.definition_version IS
'The version of its definition, for as long as it runs; NULL for a flow that the engine leaves alone.';
COMMENT ON COLUMN wa_automation_flows.contact_id IS
'The customer, whatever number he has; NULL for flows of the host.';
COMMENT ON COLUMN wa_automation_flows.run_key IS
'What it is about, such as an order: a key starts one run of a definition, and events find the run by it.';
COMMENT ON COLUMN wa_automation_flows.variables IS 'What steps and events have added to trigger_data.';
COMMENT ON COLUMN wa_automation_flows.visits IS 'How often each step was come to.';
COMMENT ON COLUMN wa_automation_flows.step_no IS 'How many rows it has in wa_flow_steps.';
COMMENT ON COLUMN wa_automation_flows.step_entered_at IS 'Since when it is at its step.';
COMMENT ON COLUMN wa_automation_flows.wait IS
'What it waits for, and until when; NULL: its step is carried out next.';
COMMENT ON COLUMN wa_automation_flows.seen_events IS
'By kind, up to which wa_flow_events.id events have been heeded.';
COMMENT ON COLUMN wa_automation_flows.last_queue_id IS 'The message that it queued last.';
COMMENT ON COLUMN wa_automation_flows.outcome IS
'How it ended: end, or the event, the refusal or the guard that ended or paused it.';
COMMENT ON TABLE wa_flow_definitions IS
'What flows do: immutable versions, of which one a name may be active. store_wa_flow() adds one.';
COMMENT ON COLUMN wa_flow_definitions.category IS
'As of templates: an opt-out of marketing ends flows of that category, one of everything ends all.';
COMMENT ON COLUMN wa_flow_definitions.trigger IS
'What starts it beside start_wa_flow(): {"text": ["hello"]}, {"message": "first"}, {"message": "any"} or '
'{"event": "order_placed"}.';
COMMENT ON COLUMN wa_flow_definitions.key IS
'The path in the context at which a run''s key stands, such as order_id.';
COMMENT ON COLUMN wa_flow_definitions.interrupts IS
'Events that count at every step, and where they lead: {"payment": "thanks", "reply": "end"}.';
COMMENT ON COLUMN wa_flow_definitions.limits IS
'Guards: visits of a step, sends_per_hour to a contact, age of a run.';
COMMENT ON COLUMN wa_flow_definitions.steps IS
'The steps in their order; docs/flows.schema.json describes them.';
COMMENT ON COLUMN wa_flow_definitions.plan IS 'Internal: the steps as the engine reads them, by name.';
COMMENT ON COLUMN wa_flow_definitions.state IS
'draft; active, which new runs take; retired: its runs go on, none is started.';
COMMENT ON COLUMN wa_flow_definitions.state_reason IS
'Why it is a draft still, such as a template that is not approved.';
COMMENT ON COLUMN wa_flow_definitions.checksum IS
'Of all that makes the version: what is stored again unchanged is no new one.';
COMMENT ON TABLE wa_flow_steps IS
'What each run did: a row for each step that was carried out or waited through.';
COMMENT ON COLUMN wa_flow_steps.step_no IS 'Which step of its run it was, counted from 1.';
COMMENT ON COLUMN wa_flow_steps.visit IS 'Which time the run was at this step.';
COMMENT ON COLUMN wa_flow_steps.outcome IS
'queued, refused, timeout, reply, payment, the branch taken, paused, cancelled, … by type.';
COMMENT ON COLUMN wa_flow_steps.queue_id IS 'The message, of a step that sends.';
COMMENT ON COLUMN wa_flow_steps.detail IS 'Why: the refusal, the event, the condition, what was past recall.';
COMMENT ON TABLE wa_flow_events IS
'What flows may wait for: replies and delivery states of customers who have a flow, payments, and events of '
'the host. Kept for thirty days, so that a wait finds what came before it.';
COMMENT ON COLUMN wa_flow_events.kind IS 'reply, status, payment, or event:NAME.';
COMMENT ON COLUMN wa_flow_events.key IS 'Finds runs with this run_key; NULL: all of the contact.';
COMMENT ON COLUMN wa_flow_events.event_id IS 'The sender''s own: what comes twice counts once.';
COMMENT ON COLUMN wa_flow_events.is_matched IS
'false where a run was locked when it came: the engine looks again.';
COMMENT ON TABLE wa_flow_functions IS
'Functions that flows may call: list_wa_flow_function() adds one. They run with the rights of the '
'schema''s owner.';
COMMENT ON COLUMN wa_flow_functions.function_name IS
'A function of one jsonb, the context, that returns jsonb, with its schema.';
COMMENT ON TABLE siren_templates IS 'Kinds of notifications; the name says what for, and which channel.';
COMMENT ON COLUMN siren_templates.template_name IS 'The WhatsApp template that it sends, if any.';
COMMENT ON COLUMN siren_templates.body_text IS 'The text outside of WhatsApp, or inside an open window.';
COMMENT ON TABLE siren_events IS 'Notifications that are planned, sent, failed or cancelled.';
COMMENT ON COLUMN siren_events.phone_e164 IS 'Who gets it; typed forms are normalised.';
COMMENT ON COLUMN siren_events.context IS 'What the template''s variables are taken from.';
COMMENT ON COLUMN siren_events.scheduled_at IS 'Not before this time.';
