-- People who work with the system. For hosts that have no such table of their own.

CREATE TABLE profiles (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    role_id text NOT NULL DEFAULT 'user',
    full_name text,
    email text,
    phone text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT profiles_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT profiles_role_check CHECK (role_id <> '')
);

CREATE INDEX profiles_id_idx ON profiles (id);

ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON profiles USING (organization_id = current_wa_organization())
WITH CHECK (organization_id = current_wa_organization());
CREATE POLICY admin ON profiles TO wa_admin USING (true) WITH CHECK (true);

COMMENT ON TABLE profiles IS 'People who work with the system, with their role.';
COMMENT ON COLUMN profiles.role_id IS 'What the person does: admin, user or any other word of the host.';
COMMENT ON COLUMN profiles.phone IS 'In E.164, if it is to be compared with other tables.';
