-- How fast a lane sends. Its throughput is spread evenly: each message gets a slot, and a claim hands out
-- those of the next moment, with the time at which each may start. So what arrives at the provider keeps the
-- limit in every second, whoever claims.

-- Messages that are a little late, and those that are not, must fit into one second together: at 80 a second
-- none has slots for more than 78, which leaves four that may be late. A mean of 97 % is promised.
CREATE OR REPLACE FUNCTION _wa_pace_share() RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 0.974;

-- How far ahead slots are handed out: below what a dispatcher keeps a grant for, and below the second within
-- which panic mode works.
CREATE OR REPLACE FUNCTION _wa_pace_horizon() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '600 milliseconds';

-- Lanes that are held for their throughput come back at the same moments, so that two hundred of them cost no
-- more claims than one.
CREATE OR REPLACE FUNCTION _wa_pace_beat(p_now timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN date_bin('250 ms', p_now, timestamptz '2020-01-01 00:00:00+00') + interval '250 ms';

-- A hundredth of the limit is won back each second.
CREATE OR REPLACE FUNCTION _wa_regained_share(
    p_share double precision, p_slowed_at timestamptz, p_now timestamptz
) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(1, coalesce(p_share + extract(EPOCH FROM p_now - p_slowed_at)::double precision / 100, 1));

CREATE OR REPLACE FUNCTION _wa_pace_of(
    p_throughput integer, p_share double precision, p_slowed_at timestamptz, p_now timestamptz
) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_throughput * _wa_pace_share() * _wa_regained_share(p_share, p_slowed_at, p_now);

CREATE OR REPLACE FUNCTION _wa_free_slots(
    p_next_slot_at timestamptz, p_pace double precision, p_now timestamptz
) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(1000000, greatest(0, 1 + floor(p_pace * extract(
    EPOCH FROM p_now + _wa_pace_horizon() - greatest(p_next_slot_at, p_now)
)::double precision)))::integer;

COMMENT ON FUNCTION _wa_pace_share() IS 'Internal: the share of a number''s throughput that is used.';
COMMENT ON FUNCTION _wa_pace_horizon() IS 'Internal: how far ahead of its slot a message may be claimed.';
COMMENT ON FUNCTION _wa_pace_beat(timestamptz) IS
'Internal: when a lane that is held for its throughput is looked at again.';
COMMENT ON FUNCTION _wa_regained_share(double precision, timestamptz, timestamptz) IS
'Internal: the share of its throughput that a lane has after a slow-down; 1 without one.';
COMMENT ON FUNCTION _wa_pace_of(integer, double precision, timestamptz, timestamptz) IS
'Internal: messages a second that a lane sends: its throughput, less where the provider refused it of late.';
COMMENT ON FUNCTION _wa_free_slots(timestamptz, double precision, timestamptz) IS
'Internal: how many messages a lane may be handed out now, of which the next starts at p_next_slot_at.';

-- Refusals that come together tell one thing: the share falls once a second.
CREATE OR REPLACE FUNCTION _wa_slow_down(p_org uuid, p_number_ids bigint[], p_now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_lane_slowdowns AS s (organization_id, number_id, share, slowed_at)
    SELECT DISTINCT p_org, u.id, 0.8, p_now FROM unnest(p_number_ids) u (id) ORDER BY 2
    ON CONFLICT (organization_id, number_id) DO UPDATE SET
        share = greatest(0.05, 0.8 * _wa_regained_share(s.share, s.slowed_at, p_now)),
        slowed_at = p_now
    WHERE s.slowed_at < p_now - interval '1 second'
$$;

COMMENT ON FUNCTION _wa_slow_down(uuid, bigint[], timestamptz) IS
'Internal: lets numbers whose throughput the provider refused (130429) send a fifth slower, and faster '
'again by a hundredth of the limit a second.';
