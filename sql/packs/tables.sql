-- Optional packs of tables that belong to the host, and which of them this database has. No tenant: a pack is
-- there for all organizations or for none.

CREATE TABLE wa_packs (
    name text NOT NULL,
    step text NOT NULL,
    version text NOT NULL,
    checksum text NOT NULL,
    objects text [] NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    installed_by text NOT NULL DEFAULT session_user,
    CONSTRAINT wa_packs_pkey PRIMARY KEY (name, step)
);

COMMENT ON TABLE wa_packs IS
'What install_wa_pack() did: a row per script. To be rid of a pack, drop its objects, then delete its rows.';
COMMENT ON COLUMN wa_packs.name IS 'Name of the pack.';
COMMENT ON COLUMN wa_packs.step IS 'Path of the script in the sources.';
COMMENT ON COLUMN wa_packs.version IS 'Version of the extension that the script was run or checked for last.';
COMMENT ON COLUMN wa_packs.checksum IS 'SHA-256 of the script.';
COMMENT ON COLUMN wa_packs.objects IS 'What the script creates: kind and name.';
COMMENT ON COLUMN wa_packs.installed_by IS 'The login that asked for it.';
