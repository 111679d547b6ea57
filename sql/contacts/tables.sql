-- Customers, and every identity that they were known by.

CREATE TABLE wa_contacts (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    phone_e164 text,
    phone_key text,
    user_id text,
    parent_user_id text,
    wa_id text,
    profile_name text,
    username text,
    customer_id text,
    identity_hash text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    time_zone text,
    CONSTRAINT wa_contacts_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_contacts_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_contacts_phone_key_key UNIQUE (phone_key, organization_id),
    CONSTRAINT wa_contacts_user_id_key UNIQUE (user_id, organization_id),
    CONSTRAINT wa_contacts_phone_check CHECK ((phone_e164 IS NULL) = (phone_key IS NULL)),
    CONSTRAINT wa_contacts_time_zone_check CHECK (
        time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
    )
);

CREATE TABLE wa_contact_identities (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    kind text NOT NULL,
    value text NOT NULL,
    is_current boolean NOT NULL DEFAULT true,
    source text NOT NULL,
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    valid_to timestamptz,
    CONSTRAINT wa_contact_identities_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_contact_identities_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT wa_contact_identities_kind_check CHECK (kind IN ('phone', 'user_id', 'parent_user_id'))
);

CREATE UNIQUE INDEX wa_contact_identities_current_key
ON wa_contact_identities (value, kind, organization_id) WHERE is_current;

CREATE INDEX wa_contact_identities_former_idx
ON wa_contact_identities (value, kind, organization_id) WHERE NOT is_current;

CREATE INDEX wa_contact_identities_contact_idx ON wa_contact_identities (contact_id);

COMMENT ON TABLE wa_contacts IS
'Customers. Found by phone number or by business-scoped user id; either may be missing.';
COMMENT ON COLUMN wa_contacts.phone_e164 IS 'The number as it is dialled, with +.';
COMMENT ON COLUMN wa_contacts.phone_key IS
'The number in the one spelling in which all its forms find the contact: Brazil with the ninth digit, '
'Argentina with the 9, Mexico without the 1, renumbered countries as of today.';
COMMENT ON COLUMN wa_contacts.user_id IS 'Meta''s business-scoped user id.';
COMMENT ON COLUMN wa_contacts.wa_id IS
'The id that the provider answers with; it may differ from the number dialled.';
COMMENT ON COLUMN wa_contacts.customer_id IS 'The host application''s own id of this customer.';
COMMENT ON COLUMN wa_contacts.time_zone IS
'Where the contact lives, such as America/Bogota, if somebody knows; quiet hours go by it.';
COMMENT ON COLUMN wa_contacts.identity_hash IS 'Last identity key hash that Meta reported.';
COMMENT ON TABLE wa_contact_identities IS
'Every phone number and user id that a contact was known by, with the time during which it held.';
COMMENT ON COLUMN wa_contact_identities.value IS
'The user id, or the number in the spelling of wa_contacts.phone_key, so that every spelling is found.';
COMMENT ON COLUMN wa_contact_identities.is_current IS
'Whether it finds this contact: a former number does not, it may be handed on; a former user id does, '
'they are never reused.';
COMMENT ON COLUMN wa_contact_identities.valid_to IS
'When the number was given up or the user id was replaced, as the provider tells; NULL while it holds.';
