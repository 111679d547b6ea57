-- Roll-ups of the ledger by quarter hour, and what messages cost. Quarter hours of UTC serve every time zone:
-- all of today's zones are multiples of 15 minutes away from it.

-- One row per quarter hour and combination of what it is counted by. day is cut in the organization's zone,
-- charged_on in that of the number's account, by roll_up_wa_analytics() and by triggers on both zones.
CREATE TABLE wa_message_rollups (
    organization_id uuid NOT NULL,
    quarter_at timestamptz NOT NULL,
    line integer NOT NULL,
    day date NOT NULL,
    phone_number_id text,
    direction text NOT NULL,
    is_echo boolean NOT NULL,
    message_type text NOT NULL,
    template_name text,
    status text NOT NULL,
    country text,
    pricing_category text,
    charge text,
    messages bigint NOT NULL,
    delivered bigint NOT NULL,
    seen bigint NOT NULL,
    queued bigint NOT NULL,
    queue_time interval NOT NULL,
    charged_at timestamptz,
    charged_on date,
    is_service boolean NOT NULL DEFAULT false,
    CONSTRAINT wa_message_rollups_pkey PRIMARY KEY (organization_id, quarter_at, line)
);

CREATE INDEX wa_message_rollups_day_idx ON wa_message_rollups (day, organization_id);

CREATE INDEX wa_message_rollups_charged_idx
ON wa_message_rollups (charged_on, organization_id) WHERE charged_on IS NOT NULL;

CREATE INDEX wa_message_rollups_service_idx
ON wa_message_rollups (organization_id, charged_on) WHERE is_service;

CREATE TABLE wa_response_rollups (
    organization_id uuid NOT NULL,
    quarter_at timestamptz NOT NULL,
    line integer NOT NULL,
    day date NOT NULL,
    phone_number_id text,
    role text,
    responses bigint NOT NULL,
    response_time interval NOT NULL,
    longest_time interval NOT NULL,
    CONSTRAINT wa_response_rollups_pkey PRIMARY KEY (organization_id, quarter_at, line)
);

CREATE INDEX wa_response_rollups_day_idx ON wa_response_rollups (day, organization_id);

-- Every statement that changes wa_messages adds a row for each quarter hour that it touched, in its own
-- transaction: whoever sees the change sees the mark. Only ever inserted and deleted.
CREATE TABLE wa_rollup_marks (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    quarter_at timestamptz NOT NULL,
    changes_order boolean NOT NULL,
    CONSTRAINT wa_rollup_marks_pkey PRIMARY KEY (organization_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE wa_rollup_horizons (
    organization_id uuid NOT NULL,
    forgotten_before timestamptz NOT NULL,
    CONSTRAINT wa_rollup_horizons_pkey PRIMARY KEY (organization_id),
    CONSTRAINT wa_rollup_horizons_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE
);

CREATE TABLE wa_rates (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    country text NOT NULL,
    category text NOT NULL,
    valid_from date NOT NULL,
    currency text NOT NULL,
    rate numeric NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    region text,
    volume_from bigint NOT NULL DEFAULT 0,
    CONSTRAINT wa_rates_pkey PRIMARY KEY (organization_id, country, category, valid_from, volume_from),
    CONSTRAINT wa_rates_organization_fkey FOREIGN KEY (organization_id)
    REFERENCES wa_organizations (id) ON DELETE CASCADE,
    CONSTRAINT wa_rates_country_check CHECK (country ~ '^[A-Z]{2}$'),
    CONSTRAINT wa_rates_category_check CHECK (category ~ '^[a-z][a-z_]*$'),
    CONSTRAINT wa_rates_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT wa_rates_rate_check CHECK (rate >= 0 AND rate < 'Infinity'),
    CONSTRAINT wa_rates_volume_check CHECK (volume_from = 0 OR volume_from > 0 AND region IS NOT NULL)
);

-- The ledger as it is at installation or upgrade is rolled up from the start. The lock leaves no gap between
-- this and the triggers that mark from then on.
LOCK TABLE wa_messages IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
SELECT DISTINCT m.organization_id, date_bin('15 minutes', m.created_at, '2000-01-01 00:00+00'), true
FROM wa_messages m;

COMMENT ON TABLE wa_message_rollups IS
'Internal: messages by quarter hour, as of the last roll-up; the analytics views add what changed since.';
COMMENT ON COLUMN wa_message_rollups.line IS 'Numbers the rows of one quarter hour.';
COMMENT ON COLUMN wa_message_rollups.day IS
'Day of the quarter hour in the organization''s time zone.';
COMMENT ON COLUMN wa_message_rollups.charge IS
'paid, free or unknown by the provider''s pricing object; NULL where none came.';
COMMENT ON COLUMN wa_message_rollups.charged_at IS
'Quarter hour of the delivery, which is when a message is charged; NULL where prices do not go by it.';
COMMENT ON COLUMN wa_message_rollups.charged_on IS
'Day of charged_at, else of the quarter hour, in the time zone of the number''s account; NULL for what costs '
'nothing at all.';
COMMENT ON COLUMN wa_message_rollups.is_service IS
'Free-form messages, of which each number has some a month without charge.';
COMMENT ON COLUMN wa_message_rollups.seen IS 'Messages read or played.';
COMMENT ON COLUMN wa_message_rollups.queued IS 'Messages whose time in the queue is part of queue_time.';
COMMENT ON TABLE wa_response_rollups IS
'Internal: answers to customers by quarter hour of the answer, as of the last roll-up.';
COMMENT ON TABLE wa_rollup_marks IS
'Internal: quarter hours whose roll-ups are out of date, since the ledger was changed there.';
COMMENT ON COLUMN wa_rollup_marks.changes_order IS
'Whether messages came, went or moved, so that answers of the day after may be others.';
COMMENT ON TABLE wa_rollup_horizons IS
'Internal: until when the ledger was deleted by retention; roll-ups before are all that is left and stay.';
COMMENT ON TABLE wa_rates IS
'What a delivered message costs, by country of the recipient and category; valid until a newer row.';
COMMENT ON COLUMN wa_rates.country IS 'ISO code, for example BR.';
COMMENT ON COLUMN wa_rates.category IS
'The provider''s pricing category in small letters: marketing, utility, authentication, service, …';
COMMENT ON COLUMN wa_rates.valid_from IS
'First day of the rate, in the time zone of the number''s account.';
COMMENT ON COLUMN wa_rates.rate IS 'Price of one message in the currency.';
COMMENT ON COLUMN wa_rates.region IS
'The provider''s name of the market that the country is in, as in wa_volume_tiers; needed for volume_from.';
COMMENT ON COLUMN wa_rates.volume_from IS
'Holds for accounts whose tier of the month (wa_volume_tiers) begins here or above; 0: for all.';
