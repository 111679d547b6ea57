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
