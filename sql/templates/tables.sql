-- Message templates as Meta reviewed them, and how far their synchronisation came.

CREATE TABLE wa_templates (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    waba_id text,
    name text NOT NULL,
    language text NOT NULL DEFAULT 'en',
    category text NOT NULL,
    previous_category text,
    correct_category text,
    approval_status text NOT NULL DEFAULT 'pending',
    status text NOT NULL DEFAULT 'PENDING',
    rejected_reason text,
    quality_score text,
    provider_template_id text,
    meta_template_id text GENERATED ALWAYS AS (provider_template_id) STORED,
    parameter_format text NOT NULL DEFAULT 'POSITIONAL',
    header_text text,
    header_format text,
    body_text text NOT NULL,
    footer_text text,
    buttons jsonb NOT NULL DEFAULT '[]',
    components jsonb NOT NULL DEFAULT '[]',
    parameters jsonb NOT NULL DEFAULT '[]',
    variable_mapping jsonb NOT NULL DEFAULT '{}',
    body_placeholders text[] NOT NULL DEFAULT '{}',
    header_placeholders text[] NOT NULL DEFAULT '{}',
    button_parameters jsonb NOT NULL DEFAULT '[]',
    is_enabled boolean NOT NULL DEFAULT true,
    blocked_reason text,
    blocked_at timestamptz,
    blocked_until timestamptz,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    synced_at timestamptz,
    is_plain boolean NOT NULL DEFAULT false,
    CONSTRAINT wa_templates_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_templates_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_templates_category_check CHECK (category IN ('MARKETING', 'UTILITY', 'AUTHENTICATION')),
    CONSTRAINT wa_templates_approval_check CHECK (approval_status IN ('pending', 'approved', 'rejected')),
    CONSTRAINT wa_templates_format_check CHECK (parameter_format IN ('POSITIONAL', 'NAMED')),
    CONSTRAINT wa_templates_parameters_check CHECK (jsonb_typeof(parameters) = 'array'),
    CONSTRAINT wa_templates_buttons_check CHECK (jsonb_typeof(buttons) = 'array'),
    CONSTRAINT wa_templates_components_check CHECK (jsonb_typeof(components) = 'array')
);

CREATE UNIQUE INDEX wa_templates_name_key
ON wa_templates (organization_id, lower(name), language, waba_id) NULLS NOT DISTINCT;

CREATE INDEX wa_templates_provider_idx ON wa_templates (organization_id, provider_template_id);

CREATE TABLE wa_template_syncs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    waba_id text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    after_cursor text,
    finished_at timestamptz,
    templates integer NOT NULL DEFAULT 0,
    CONSTRAINT wa_template_syncs_pkey PRIMARY KEY (organization_id, waba_id),
    CONSTRAINT wa_template_syncs_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

COMMENT ON TABLE wa_templates IS
'Message templates, one row per name, language and account. Only approved ones are sent.';
COMMENT ON COLUMN wa_templates.waba_id IS
'WhatsApp Business Account that owns it; NULL serves every account.';
COMMENT ON COLUMN wa_templates.approval_status IS 'Meta''s review: pending, approved or rejected.';
COMMENT ON COLUMN wa_templates.status IS 'Meta''s exact state, for example APPROVED, PAUSED, DISABLED.';
COMMENT ON COLUMN wa_templates.provider_template_id IS 'Meta''s id of the template.';
COMMENT ON COLUMN wa_templates.parameters IS
'Declared parameters, [{"name": "customer_name", "type": "text", "example": "Ann"}, ...]: those of the body '
'in order, then that of the header, then those of the buttons. An object of values binds by these names; the '
'examples go to Meta''s review.';
COMMENT ON COLUMN wa_templates.variable_mapping IS
'Where resolve_wa_template_params() finds each parameter''s value in a context document: {"customer_name": '
'"customer.name"}, a path with dots. A parameter that is not listed is looked for by its own name.';
COMMENT ON COLUMN wa_templates.components IS 'The components as Meta stores them, when synced.';
COMMENT ON COLUMN wa_templates.body_placeholders IS 'Derived: the placeholders of the body in order.';
COMMENT ON COLUMN wa_templates.button_parameters IS
'Derived: the buttons that need a value, [{"index": 0, "sub_type": "url"}, ...].';
COMMENT ON COLUMN wa_templates.is_plain IS
'Derived: whether only its body takes values, so that nothing else need be looked at when it is sent.';
COMMENT ON COLUMN wa_templates.is_enabled IS 'Whether automation may use it.';
COMMENT ON COLUMN wa_templates.blocked_reason IS
'Why sending with it was stopped after an answer of the provider; an approval lifts it.';
COMMENT ON TABLE wa_template_syncs IS
'How far each account''s template sync came, so that it resumes after a crash.';
