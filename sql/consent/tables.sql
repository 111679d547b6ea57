-- Who agreed to be written to, and who asked not to be.

CREATE TABLE wa_opt_ins (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL DEFAULT 'marketing',
    source text NOT NULL,
    proof jsonb NOT NULL DEFAULT '{}',
    opted_in_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_opt_ins_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_ins_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_opt_ins_scope_check CHECK (scope IN ('marketing', 'all'))
);

CREATE INDEX wa_opt_ins_contact_idx ON wa_opt_ins (contact_id);

CREATE TABLE wa_opt_outs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    scope text NOT NULL DEFAULT 'marketing',
    phone_number text,
    reason text,
    source text NOT NULL DEFAULT 'admin',
    opt_out_date timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz,
    revoked_source text,
    CONSTRAINT wa_opt_outs_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_opt_outs_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id),
    CONSTRAINT wa_opt_outs_scope_check CHECK (scope IN ('marketing', 'all'))
);

CREATE UNIQUE INDEX wa_opt_outs_active_key
ON wa_opt_outs (contact_id, scope, organization_id) WHERE revoked_at IS NULL;

CREATE TABLE wa_panic_modes (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    number_id bigint,
    integration text NOT NULL DEFAULT 'whatsapp',
    reason text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    triggered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    triggered_by text NOT NULL DEFAULT session_user,
    resolved_at timestamptz,
    resolved_by text,
    auto_resolve_at timestamptz,
    CONSTRAINT wa_panic_modes_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_panic_modes_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_panic_modes_number_fkey FOREIGN KEY (organization_id, number_id)
    REFERENCES wa_phone_numbers (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_panic_modes_resolved_check CHECK (active OR resolved_at IS NOT NULL)
);

CREATE INDEX wa_panic_modes_active_idx ON wa_panic_modes (organization_id) WHERE active;

COMMENT ON TABLE wa_opt_ins IS 'Proofs of consent, never changed.';
COMMENT ON COLUMN wa_opt_ins.proof IS 'What shows the consent: form, text, language, message id.';
COMMENT ON TABLE wa_opt_outs IS
'Requests not to be written to. A row without revoked_at is in force; rows are kept for good.';
COMMENT ON COLUMN wa_opt_outs.scope IS 'marketing: MARKETING templates only. all: every message.';
COMMENT ON COLUMN wa_opt_outs.phone_number IS 'The number as it was given when the opt-out was recorded.';
COMMENT ON TABLE wa_panic_modes IS
'Emergency stops. While one is active for an organization or number, no message of it is claimed.';
COMMENT ON COLUMN wa_panic_modes.number_id IS
'The number that is stopped; NULL stops the whole organization.';
COMMENT ON COLUMN wa_panic_modes.auto_resolve_at IS 'When the stop ends by itself; NULL means never.';
