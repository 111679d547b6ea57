-- Business numbers, their portfolios, how a webhook finds them, and emergency stops.

CREATE TABLE wa_portfolios (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    portfolio_id text NOT NULL,
    messaging_limit text,
    tier_limit integer,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_portfolios_pkey PRIMARY KEY (organization_id, portfolio_id),
    CONSTRAINT wa_portfolios_tier_limit_check CHECK (tier_limit >= 0),
    CONSTRAINT wa_portfolios_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_phone_numbers (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    phone_number_id text NOT NULL,
    display_phone text NOT NULL,
    phone_e164 text,
    waba_id text NOT NULL,
    portfolio_id text NOT NULL,
    provider text NOT NULL DEFAULT 'meta',
    throughput integer NOT NULL DEFAULT 80,
    is_test boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'CONNECTED',
    quality_rating text NOT NULL DEFAULT 'UNKNOWN',
    verified_name text,
    name_status text,
    username text,
    pause_scope text,
    pause_reason text,
    paused_at timestamptz,
    paused_until timestamptz,
    templates_blocked_until timestamptz,
    replies_blocked_until timestamptz,
    last_webhook_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    account_time_zone text,
    business_profile jsonb,
    profile_read_at timestamptz,
    channel text NOT NULL DEFAULT 'whatsapp',
    CONSTRAINT wa_phone_numbers_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_phone_numbers_phone_number_id_key UNIQUE (organization_id, phone_number_id),
    CONSTRAINT wa_phone_numbers_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_phone_numbers_portfolio_fkey FOREIGN KEY (organization_id, portfolio_id)
    REFERENCES wa_portfolios (organization_id, portfolio_id),
    CONSTRAINT wa_phone_numbers_channel_check CHECK (channel IN ('whatsapp', 'sms')),
    CONSTRAINT wa_phone_numbers_throughput_check CHECK (throughput BETWEEN 1 AND 100000),
    CONSTRAINT wa_phone_numbers_account_time_zone_check CHECK (
        account_time_zone ~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
    ),
    CONSTRAINT wa_phone_numbers_pause_check CHECK (pause_scope IN ('number', 'account', 'token'))
);

-- A webhook names only the provider's id, so the way from it to the tenant cannot start with a tenant.
CREATE TABLE wa_number_routes (
    phone_number_id text NOT NULL,
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    waba_id text NOT NULL,
    CONSTRAINT wa_number_routes_pkey PRIMARY KEY (phone_number_id),
    CONSTRAINT wa_number_routes_number_fkey FOREIGN KEY (organization_id, number_id)
    REFERENCES wa_phone_numbers (organization_id, id) ON DELETE CASCADE
);

CREATE INDEX wa_number_routes_waba_idx ON wa_number_routes (waba_id);

CREATE TABLE wa_volume_tiers (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    waba_id text NOT NULL,
    category text NOT NULL,
    region text NOT NULL,
    month date NOT NULL,
    tier text NOT NULL,
    volume_from bigint NOT NULL,
    volume_to bigint,
    told_at timestamptz NOT NULL,
    CONSTRAINT wa_volume_tiers_pkey PRIMARY KEY (organization_id, waba_id, category, region, month),
    CONSTRAINT wa_volume_tiers_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

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

COMMENT ON TABLE wa_portfolios IS
'Business portfolios: all numbers of one share its messaging limit (unique recipients outside the window in '
'a rolling 24 hours).';
COMMENT ON COLUMN wa_portfolios.messaging_limit IS 'The limit as Meta names it, for example TIER_2K.';
COMMENT ON COLUMN wa_portfolios.tier_limit IS
'The limit as a number of recipients; NULL means unlimited or not known.';
COMMENT ON TABLE wa_phone_numbers IS 'Business numbers that send and receive; each is one lane of the queue.';
COMMENT ON COLUMN wa_phone_numbers.phone_number_id IS
'The provider''s id of the number, as used in its URLs and webhooks.';
COMMENT ON COLUMN wa_phone_numbers.provider IS 'A row of wa_providers.';
COMMENT ON COLUMN wa_phone_numbers.channel IS
'whatsapp or sms, by the provider''s id of the number; what goes from a number goes by its channel.';
COMMENT ON COLUMN wa_phone_numbers.throughput IS 'Requests that may be claimed in any sliding second.';
COMMENT ON COLUMN wa_phone_numbers.is_test IS 'On a test number wa_admin may open a window by hand.';
COMMENT ON COLUMN wa_phone_numbers.status IS 'The provider''s state of the number; only CONNECTED sends.';
COMMENT ON COLUMN wa_phone_numbers.pause_scope IS
'Why sending is paused: this number, its whole account, or every number with the same token.';
COMMENT ON COLUMN wa_phone_numbers.paused_until IS
'End of the pause; NULL with pause_scope set means until resume_wa_number().';
COMMENT ON COLUMN wa_phone_numbers.templates_blocked_until IS
'Meta restricted business-initiated messages until then.';
COMMENT ON COLUMN wa_phone_numbers.replies_blocked_until IS 'Meta restricted replies until then.';
COMMENT ON COLUMN wa_phone_numbers.last_webhook_at IS
'When a webhook of this number was last processed, to ten seconds.';
COMMENT ON COLUMN wa_phone_numbers.account_time_zone IS
'Time zone of its WhatsApp Business account, in which the provider bills; NULL: that of the organization.';
COMMENT ON COLUMN wa_phone_numbers.business_profile IS
'What customers see of the business (about, address, description, email, vertical, websites), as it was at '
'profile_read_at.';
COMMENT ON TABLE wa_number_routes IS 'Internal: finds the tenant of a webhook by the provider''s number id.';
COMMENT ON TABLE wa_volume_tiers IS
'Volume tiers that accounts have reached, as the provider tells them: from so many messages a month of a '
'category in a region on, others of wa_rates hold.';
COMMENT ON COLUMN wa_volume_tiers.region IS 'The market as the provider names it, for example India.';
COMMENT ON COLUMN wa_volume_tiers.month IS 'First day of the month that it holds for.';
COMMENT ON COLUMN wa_volume_tiers.tier IS 'As told: 25000001:50000000.';
COMMENT ON TABLE wa_panic_modes IS
'Emergency stops. While one is active for an organization or number, no message of it is claimed.';
COMMENT ON COLUMN wa_panic_modes.number_id IS
'The number that is stopped; NULL stops the whole organization.';
COMMENT ON COLUMN wa_panic_modes.auto_resolve_at IS 'When the stop ends by itself; NULL means never.';
