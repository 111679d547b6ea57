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

COMMENT ON TABLE wa_opt_ins IS 'Proofs of consent, never changed.';
COMMENT ON COLUMN wa_opt_ins.proof IS 'What shows the consent: form, text, language, message id.';
COMMENT ON TABLE wa_opt_outs IS
'Requests not to be written to. A row without revoked_at is in force; rows are kept for good.';
COMMENT ON COLUMN wa_opt_outs.scope IS 'marketing: MARKETING templates only. all: every message.';
COMMENT ON COLUMN wa_opt_outs.phone_number IS 'The number as it was given when the opt-out was recorded.';
