-- When contacts may be written to, and how often: rules of an organization. Without a row here nothing waits.

CREATE TABLE wa_quiet_hours (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    channel text NOT NULL DEFAULT 'whatsapp',
    purpose text NOT NULL DEFAULT 'all',
    phone_number_id text,
    days integer[] NOT NULL DEFAULT '{1,2,3,4,5,6,7}',
    from_time time NOT NULL,
    to_time time NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_quiet_hours_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_quiet_hours_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_quiet_hours_number_fkey FOREIGN KEY (organization_id, phone_number_id)
    REFERENCES wa_phone_numbers (organization_id, phone_number_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT wa_quiet_hours_channel_check CHECK (channel IN ('whatsapp', 'sms')),
    CONSTRAINT wa_quiet_hours_purpose_check CHECK (purpose IN ('marketing', 'utility', 'all')),
    CONSTRAINT wa_quiet_hours_days_check CHECK (
        cardinality(days) > 0 AND days <@ '{1,2,3,4,5,6,7}'::integer[]
    ),
    CONSTRAINT wa_quiet_hours_times_check CHECK (from_time <> to_time AND from_time < time '24:00')
);

CREATE TABLE wa_quiet_days (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    day date NOT NULL,
    purpose text NOT NULL DEFAULT 'all',
    name text,
    CONSTRAINT wa_quiet_days_pkey PRIMARY KEY (organization_id, day, purpose),
    CONSTRAINT wa_quiet_days_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_quiet_days_purpose_check CHECK (purpose IN ('marketing', 'utility', 'all'))
);

CREATE TABLE wa_zone_prefixes (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    prefix text NOT NULL,
    time_zone text NOT NULL,
    CONSTRAINT wa_zone_prefixes_pkey PRIMARY KEY (organization_id, prefix),
    CONSTRAINT wa_zone_prefixes_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_zone_prefixes_prefix_check CHECK (prefix ~ '^(\+[1-9][0-9]{0,9}|[A-Z]{2})$'),
    -- Whether the server has it may change: tg_require_time_zone() asks when it is set.
    CONSTRAINT wa_zone_prefixes_time_zone_check CHECK (
        time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
    )
);

-- What the phonenumbers library knows, alike for everybody.
CREATE TABLE wa_phone_zones (
    prefix text NOT NULL,
    zones text[] NOT NULL,
    CONSTRAINT wa_phone_zones_pkey PRIMARY KEY (prefix)
);

CREATE TABLE wa_contact_caps (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    purpose text NOT NULL,
    messages integer NOT NULL,
    days integer NOT NULL,
    on_full text NOT NULL DEFAULT 'hold',
    CONSTRAINT wa_contact_caps_pkey PRIMARY KEY (organization_id, purpose),
    CONSTRAINT wa_contact_caps_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_contact_caps_purpose_check CHECK (purpose IN ('marketing', 'utility', 'all')),
    CONSTRAINT wa_contact_caps_messages_check CHECK (messages BETWEEN 1 AND 1000),
    CONSTRAINT wa_contact_caps_days_check CHECK (days BETWEEN 1 AND 90),
    CONSTRAINT wa_contact_caps_full_check CHECK (on_full IN ('hold', 'refuse'))
);

CREATE TABLE wa_contact_cool_offs (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    contact_id bigint NOT NULL,
    until timestamptz NOT NULL,
    error_code integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_contact_cool_offs_pkey PRIMARY KEY (organization_id, contact_id),
    CONSTRAINT wa_contact_cool_offs_contact_fkey FOREIGN KEY (organization_id, contact_id)
    REFERENCES wa_contacts (organization_id, id) ON DELETE CASCADE
);

CREATE INDEX wa_contact_cool_offs_until_idx ON wa_contact_cool_offs (until);

-- Without a foreign key: rules that go with their organization leave one, too.
CREATE TABLE wa_wait_rechecks (
    organization_id uuid NOT NULL,
    looked_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    CONSTRAINT wa_wait_rechecks_pkey PRIMARY KEY (organization_id)
);

COMMENT ON TABLE wa_quiet_hours IS
'Hours in which no marketing, no utility or no template at all is sent, by the clock of whoever gets it. '
'Authentication and free-form answers are never held back.';
COMMENT ON COLUMN wa_quiet_hours.channel IS
'whatsapp, or sms, where 21:00 to 08:00 is quiet in any case.';
COMMENT ON COLUMN wa_quiet_hours.purpose IS 'marketing or utility, by the template''s category; all is both.';
COMMENT ON COLUMN wa_quiet_hours.phone_number_id IS 'Only for this business number; NULL: for each.';
COMMENT ON COLUMN wa_quiet_hours.days IS
'Days on which the quiet time begins, 1 is Monday: one that begins on Sunday evening ends on Monday.';
COMMENT ON COLUMN wa_quiet_hours.from_time IS 'First quiet minute.';
COMMENT ON COLUMN wa_quiet_hours.to_time IS
'First minute that is not; at or before from_time it is one of the next day. 24:00 is midnight.';
COMMENT ON TABLE wa_quiet_days IS
'Dates that are quiet from midnight to midnight, by the recipient''s clock.';
COMMENT ON TABLE wa_zone_prefixes IS
'The time zone of numbers that begin like this, by word of the organization; the longest prefix counts.';
COMMENT ON COLUMN wa_zone_prefixes.prefix IS
'+ and digits; or two letters, for contacts without a number whose user id begins so.';
COMMENT ON TABLE wa_phone_zones IS
'The time zones that a number may lie in, by how it begins: from the phonenumbers library, filled by '
'refresh_wa_phone_zones().';
COMMENT ON TABLE wa_contact_caps IS
'How many templates of a purpose a contact gets in so many days, from all business numbers together.';
COMMENT ON COLUMN wa_contact_caps.purpose IS
'marketing, utility, or all, which counts both together. Authentication and answers count for none.';
COMMENT ON COLUMN wa_contact_caps.days IS 'Times 24 hours before now.';
COMMENT ON COLUMN wa_contact_caps.on_full IS
'hold: it waits until there is room, and fails if it expires before. refuse: it fails at once.';
COMMENT ON TABLE wa_contact_cool_offs IS
'Contacts who get no marketing for a while, because the provider did not deliver any (131049).';
COMMENT ON TABLE wa_wait_rechecks IS
'Internal: organizations whose rules changed, and how far what waits has been let go to be judged anew.';
