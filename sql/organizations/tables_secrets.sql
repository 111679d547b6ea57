-- Sealed tokens and secrets; organizations/secrets.sql says who opens them.

CREATE TABLE wa_secrets (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL,
    phone_number_id text,
    ciphertext bytea NOT NULL,
    key_id text NOT NULL,
    fingerprint text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_secrets_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_secrets_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_secrets_name_check CHECK (
        name IN (
            'access_token', 'app_secret', 'verify_token', 'webhook_header', 'platform_secret',
            'registration_pin'
        )
    )
);

CREATE INDEX wa_secrets_name_idx ON wa_secrets (organization_id, name, phone_number_id) WHERE is_active;

COMMENT ON TABLE wa_secrets IS 'Tokens and secrets, encrypted with a key that is not in the database.';
COMMENT ON COLUMN wa_secrets.name IS
'access_token, verify_token; app_secret, with which Meta signs webhooks; webhook_header, the header that '
'360dialog was told to send with them, and platform_secret, with which it signs those of its partners; '
'registration_pin, the six digits that register a number.';
COMMENT ON COLUMN wa_secrets.phone_number_id IS
'The number that it belongs to; NULL means every number of the organization.';
COMMENT ON COLUMN wa_secrets.ciphertext IS
'Version, nonce and AES-GCM ciphertext; organization, name and number are bound in.';
COMMENT ON COLUMN wa_secrets.fingerprint IS
'Keyed hash of the value: tells equal secrets from different ones, gives nothing away.';
