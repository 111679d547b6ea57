-- What claims work on: the lanes and their state, what was used of the limits, and dispatchers. Nothing
-- references these tables.

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
    look_again_at timestamptz NOT NULL,
    served_at timestamptz NOT NULL,
    held_until timestamptz,
    hold_reason text,
    next_slot_at timestamptz NOT NULL,
    is_skipping boolean NOT NULL,
    look_due timestamptz[] NOT NULL,
    look_id uuid[] NOT NULL,
    CONSTRAINT wa_lane_states_pkey PRIMARY KEY (organization_id, number_id, version)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- A cause that rows of a lane wait for: their recipient (contact_id), or, with contact_id 0, what stops one
-- kind of row of the whole lane. Written by claims under the lane's lock; rows name it in
-- wa_queue_due.hold_id.
CREATE TABLE wa_queue_holds (
    organization_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    number_id bigint NOT NULL,
    kind text NOT NULL,
    contact_id bigint NOT NULL DEFAULT 0,
    reason text NOT NULL,
    opens_at timestamptz NOT NULL,
    tier_limit integer,
    portfolio_id text,
    passed_id uuid,
    CONSTRAINT wa_queue_holds_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT wa_queue_holds_cause_key UNIQUE (contact_id, number_id, kind, organization_id),
    CONSTRAINT wa_queue_holds_kind_check CHECK (
        kind IN ('recipient', 'messaging_limit', 'replies', 'templates')
    )
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- The predicate holds for every row; see the indexes of wa_queue_due.
CREATE INDEX wa_queue_holds_opens_at_idx
ON wa_queue_holds (number_id, opens_at) WHERE opens_at > '-infinity';

-- Those that wait for a delivery, once the organization does not want that any more.
CREATE INDEX wa_queue_holds_in_order_idx ON wa_queue_holds (number_id, opens_at) WHERE reason = 'in_order';

CREATE TABLE wa_lane_slowdowns (
    organization_id uuid NOT NULL,
    number_id bigint NOT NULL,
    share double precision NOT NULL,
    slowed_at timestamptz NOT NULL,
    CONSTRAINT wa_lane_slowdowns_pkey PRIMARY KEY (organization_id, number_id)
);

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
    awaited_id bigint,
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

-- Answers that could not be recorded when they came, most of them because somebody had the row locked. The
-- row stays in flight meanwhile: what was sent is never taken for lost.
CREATE TABLE wa_late_results (
    organization_id uuid NOT NULL,
    queue_id uuid NOT NULL,
    attempt integer NOT NULL,
    result jsonb NOT NULL,
    sqlstate text NOT NULL,
    error text,
    tries integer NOT NULL DEFAULT 1,
    came_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    try_at timestamptz NOT NULL,
    CONSTRAINT wa_late_results_pkey PRIMARY KEY (organization_id, queue_id, attempt)
);

CREATE INDEX wa_late_results_try_at_idx ON wa_late_results (try_at);

CREATE TABLE wa_dispatchers (
    id uuid NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    stopped_at timestamptz,
    CONSTRAINT wa_dispatchers_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE wa_lanes IS 'Internal: the lock of each lane.';
COMMENT ON TABLE wa_lane_states IS 'Internal: where each lane''s claim stands. The newest version counts.';
COMMENT ON COLUMN wa_lane_states.next_slot_at IS 'When the next message may be sent, by the throughput.';
COMMENT ON COLUMN wa_lane_states.is_skipping IS
'Whether claims pass over rows that cannot go, and set them aside a few at a time.';
COMMENT ON COLUMN wa_lane_states.look_due IS
'With look_id: how far the rows that were passed over have been looked at, class by class.';
COMMENT ON TABLE wa_queue_holds IS
'Internal: what rows of a lane wait for; they stand aside until it opens, then go in their order.';
COMMENT ON COLUMN wa_queue_holds.kind IS
'recipient (pair rate, or an earlier message), messaging_limit, replies or templates (restricted by Meta).';
COMMENT ON COLUMN wa_queue_holds.reason IS 'What explain_wa_message() says of its rows.';
COMMENT ON COLUMN wa_queue_holds.opens_at IS 'From then on claims take its rows and judge them anew.';
COMMENT ON COLUMN wa_queue_holds.tier_limit IS
'The messaging limit when the hold was closed; another one opens it.';
COMMENT ON COLUMN wa_queue_holds.portfolio_id IS
'Whose messaging limit it was; a number that moves to another portfolio opens the hold.';
COMMENT ON COLUMN wa_queue_holds.passed_id IS
'The last row that its owner had locked when it was to be taken out; claims go on behind it, then begin '
'anew.';
COMMENT ON TABLE wa_lane_slowdowns IS
'Internal: the share of its throughput that a lane took when the provider last said that it was too much; '
'from then on it rises again.';
COMMENT ON TABLE wa_rate_limits IS
'Internal: what was used of limits. The newest version counts. organization: messages of the last minute. '
'portfolio: no fewer recipients of the last 24 hours than there are, and when they were counted.';
COMMENT ON TABLE wa_pair_rates IS 'Internal: Meta''s pair rate of each business number and contact.';
COMMENT ON COLUMN wa_pair_rates.wait_until IS
'Where one message waits for the delivery of the one before: until when at most.';
COMMENT ON COLUMN wa_pair_rates.awaited_id IS 'Whose delivery: a row of wa_messages.';
COMMENT ON TABLE wa_tier_usages IS
'Internal: recipients written to outside their window, per portfolio, for the rolling messaging limit.';
COMMENT ON TABLE wa_late_results IS
'Answers of the provider that could not be recorded at once; dispatchers try again until they can.';
COMMENT ON COLUMN wa_late_results.sqlstate IS
'55P03: somebody has the row, or something else of the organization, locked. Else the error.';
COMMENT ON TABLE wa_dispatchers IS 'Dispatcher processes and when they were last seen.';
