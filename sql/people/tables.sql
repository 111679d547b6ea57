-- People who work with the system, their roles, and what an organization says otherwise of a role than the
-- defaults do (_wa_default_permissions()).

CREATE TABLE wa_users (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    display_name text NOT NULL,
    role text NOT NULL,
    phone_e164 text,
    external_id text,
    role_name name,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_users_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_users_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_users_phone_key UNIQUE (organization_id, phone_e164),
    CONSTRAINT wa_users_external_id_key UNIQUE (organization_id, external_id),
    CONSTRAINT wa_users_role_name_key UNIQUE (organization_id, role_name),
    CONSTRAINT wa_users_known_check CHECK (num_nonnulls(phone_e164, external_id, role_name) > 0),
    CONSTRAINT wa_users_role_check CHECK (role ~ '^[a-z][a-z0-9_]{0,49}$'),
    CONSTRAINT wa_users_external_id_check CHECK (length(external_id) BETWEEN 1 AND 200)
);

-- As _wa_bound_role: whom a person signs in as may use it; a role that takes the name later may not. A dump
-- takes the right along by the name, so that a restore knows its people.
CREATE DOMAIN _wa_user_role AS name;
REVOKE ALL ON DOMAIN _wa_user_role FROM PUBLIC;

CREATE TABLE wa_role_overrides (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    role text NOT NULL,
    permission text NOT NULL,
    is_allowed boolean NOT NULL,
    CONSTRAINT wa_role_overrides_pkey PRIMARY KEY (organization_id, role, permission),
    CONSTRAINT wa_role_overrides_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_role_overrides_role_check CHECK (role ~ '^[a-z][a-z0-9_]{0,49}$'),
    CONSTRAINT wa_role_overrides_permission_check CHECK (permission ~ '^[a-z][a-z0-9_]{0,49}$')
);

COMMENT ON TABLE wa_users IS
'People who work with the system: known by telephone number, by an id of yours or by database role.';
COMMENT ON COLUMN wa_users.role IS 'What the person may do: wa_role_permissions lists it.';
COMMENT ON COLUMN wa_users.external_id IS
'The id that your application, or who signs people in, has for the person: what X-User-ID, or the subject of '
'a token, says.';
COMMENT ON COLUMN wa_users.role_name IS
'The database role that the person signs in with, which has to be there when it is written. One that was '
'dropped and made anew is another: write it again. DROP ROLE is refused while somebody active has it.';
COMMENT ON COLUMN wa_users.is_active IS 'Somebody who left is permitted nothing.';
COMMENT ON DOMAIN _wa_user_role IS
'Internal: whoever may use it is the role that wa_users names, not another that took its name.';
COMMENT ON TABLE wa_role_overrides IS
'What an organization permits a role, or does not, other than by default; written by '
'set_wa_role_permission().';
