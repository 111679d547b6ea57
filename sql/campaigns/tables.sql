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
