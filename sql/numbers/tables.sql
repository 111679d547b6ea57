-- Business numbers, their portfolios, and the lane state that sending needs.

CREATE TABLE wa_portfolios (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    portfolio_id text NOT NULL,
    messaging_limit text,
    tier_limit integer,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_portfolios_pkey PRIMARY KEY (organization_id, portfolio_id),
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
    CONSTRAINT wa_phone_numbers_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_phone_numbers_phone_number_id_key UNIQUE (organization_id, phone_number_id),
    CONSTRAINT wa_phone_numbers_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_phone_numbers_portfolio_fkey FOREIGN KEY (organization_id, portfolio_id)
    REFERENCES wa_portfolios (organization_id, portfolio_id),
    CONSTRAINT wa_phone_numbers_provider_check CHECK (provider IN ('meta', '360dialog', 'twilio')),
    CONSTRAINT wa_phone_numbers_throughput_check CHECK (throughput > 0),
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

-- One row per lane, never updated: only locked, so that a lock costs no new row version.
CREATE TABLE wa_lanes (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    CONSTRAINT wa_lanes_pkey PRIMARY KEY (organization_id, number_id)
);

-- State is written as a new row of the next version and read from the newest end of the index: an updated row
-- would grow a chain of dead versions that every claim walks while an old snapshot is held elsewhere.
CREATE TABLE wa_lane_states (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    version bigint NOT NULL,
    cursor_due timestamptz[] NOT NULL,
    cursor_id uuid[] NOT NULL,
    shares double precision[] NOT NULL,
    share_clock double precision NOT NULL,
    taken_at timestamptz[] NOT NULL,
    taken integer[] NOT NULL,
    look_again_at timestamptz NOT NULL,
    served_at timestamptz NOT NULL,
    held_until timestamptz,
    hold_reason text,
    CONSTRAINT wa_lane_states_pkey PRIMARY KEY (organization_id, number_id, version)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE wa_rate_limits (
    organization_id uuid NOT NULL,
    scope text NOT NULL,
    scope_id text NOT NULL,
    version bigint NOT NULL,
    taken_at timestamptz[] NOT NULL DEFAULT '{}',
    taken integer[] NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT wa_rate_limits_pkey PRIMARY KEY (organization_id, scope, scope_id, version),
    CONSTRAINT wa_rate_limits_scope_check CHECK (scope IN ('organization', 'portfolio'))
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE wa_pair_rates (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    burst_started_at timestamptz NOT NULL,
    burst_count integer NOT NULL,
    clear_at timestamptz NOT NULL,
    wait_until timestamptz,
    CONSTRAINT wa_pair_rates_pkey PRIMARY KEY (organization_id, number_id, contact_id)
) WITH (fillfactor = 70);

CREATE TABLE wa_tier_usages (
    organization_id uuid NOT NULL,
    portfolio_id text NOT NULL,
    contact_id bigint NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT wa_tier_usages_pkey PRIMARY KEY (organization_id, portfolio_id, contact_id)
);

CREATE INDEX wa_tier_usages_last_at_idx ON wa_tier_usages (last_at, portfolio_id);

COMMENT ON TABLE wa_portfolios IS
'Business portfolios: all numbers of one share its messaging limit (unique recipients outside the window in '
'a rolling 24 hours).';
COMMENT ON COLUMN wa_portfolios.messaging_limit IS 'The limit as Meta names it, for example TIER_2K.';
COMMENT ON COLUMN wa_portfolios.tier_limit IS
'The limit as a number of recipients; NULL means unlimited or not known.';
COMMENT ON TABLE wa_phone_numbers IS 'Business numbers that send and receive; each is one lane of the queue.';
COMMENT ON COLUMN wa_phone_numbers.phone_number_id IS
'The provider''s id of the number, as used in its URLs and webhooks.';
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
COMMENT ON TABLE wa_number_routes IS 'Internal: finds the tenant of a webhook by the provider''s number id.';
COMMENT ON TABLE wa_lanes IS 'Internal: the lock of each lane.';
COMMENT ON TABLE wa_lane_states IS 'Internal: where each lane''s claim stands. The newest version counts.';
COMMENT ON TABLE wa_rate_limits IS
'Internal: what was used of limits. The newest version counts. organization: messages of the last minute. '
'portfolio: no fewer recipients of the last 24 hours than there are, and when they were counted.';
COMMENT ON TABLE wa_pair_rates IS 'Internal: Meta''s pair rate of each business number and contact.';
COMMENT ON TABLE wa_tier_usages IS
'Internal: recipients written to outside their window, per portfolio, for the rolling messaging limit.';
