-- Handing due rows to a dispatcher. Plans are made once a session and hold whatever the tables held then:
-- look-ups by key, the queue in the order of its index. What runs in every call is PL/pgSQL, whose plans are
-- kept: an SQL function that cannot be inlined is parsed and planned each time. Locks are taken lane
-- (skipping), then organization, then portfolio (waiting); every counter is read in a statement after its
-- lock, so that limits are exact for any number of dispatchers.

CREATE OR REPLACE FUNCTION claim_wa_messages(p_dispatcher_id uuid, p_limit integer)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision, start_in_s double precision
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET lock_timeout = '500ms'
AS $$
DECLARE
    -- Before anything else: the caller reckons start_in_s from when it asked.
    v_started_at timestamptz := clock_timestamp();
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = '25001',
            MESSAGE = format('claims need read committed, not %s', current_setting('transaction_isolation')),
            DETAIL = 'default_transaction_isolation of the role, the database or the session says so.',
            HINT = 'Counters are read after their lock, in a new snapshot.';
    END IF;
    PERFORM _wa_require_installation();
    -- What was granted must be known after a crash, or it would be granted again.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
    BEGIN
        -- A set is handed on whole: nothing of one that fails is returned.
        RETURN QUERY SELECT * FROM _wa_claim_lanes(p_dispatcher_id, p_limit, v_started_at, false);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        END IF;
    END;
    RETURN QUERY SELECT * FROM _wa_claim_lanes(p_dispatcher_id, p_limit, v_started_at, true);
END
$$;

COMMENT ON FUNCTION claim_wa_messages(uuid, integer) IS
'Hands up to so many due messages to a dispatcher, as requests ready to send. Every rule is checked and '
'every limit charged here; commit before sending. Rows with one order_key go one after the other, each '
'start_in_s seconds after the call at the earliest. A lane whose claim fails rests for some seconds (see '
'wa_faults), the others go on.';

-- A subtransaction a lane would cost each claim of many lanes dearly: only after a failure is it known to be
-- worth it.
CREATE OR REPLACE FUNCTION _wa_claim_lanes(
    p_dispatcher_id uuid, p_limit integer, p_started_at timestamptz, p_is_guarded boolean
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision, start_in_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_lane record;
    v_left integer := p_limit;
    v_rows bigint;
    v_locked_out uuid[] := _wa_locked_out('claim');
    v_lockers uuid[] := _wa_known_lockers('claim');
    v_is_guarded boolean;
    -- What is granted first must leave while it may still start: a lane takes one to three milliseconds.
    c_lanes CONSTANT integer := 100;
    -- A lane's claim costs as much as another twenty of its messages.
    c_fewest CONSTANT integer := 20;
    v_served integer := 0;
BEGIN
    FOR v_lane IN
        SELECT l.*, count(*) OVER () AS lanes
        FROM _wa_busy_lanes(p_started_at) l
        WHERE l.held_until IS NULL AND (SELECT i.is_sending_enabled FROM wa_installations i)
        ORDER BY l.served_at
    LOOP
        EXIT WHEN v_left <= 0 OR v_served >= c_lanes;
        CONTINUE WHEN v_lane.organization_id = ANY (v_locked_out);
        PERFORM FROM wa_lanes l
        WHERE l.organization_id = v_lane.organization_id AND l.number_id = v_lane.number_id
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        -- What was granted already must leave while it may start: a lock that made the first try fail is not
        -- waited for again.
        v_is_guarded := p_is_guarded OR v_lane.organization_id = ANY (v_lockers);
        IF v_is_guarded THEN
            PERFORM set_config('lock_timeout',
                CASE WHEN v_lane.organization_id = ANY (v_lockers) THEN '10ms' ELSE '50ms' END, true);
            RETURN QUERY SELECT * FROM _wa_claim_lane_safely(
                v_lane.organization_id, v_lane.number_id, p_dispatcher_id,
                least(v_left, greatest(ceil(p_limit::numeric / v_lane.lanes)::integer, c_fewest)), p_started_at
            );
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            PERFORM set_config('lock_timeout', '500ms', true);
        ELSE
            RETURN QUERY SELECT * FROM _wa_claim_lane(
                v_lane.organization_id, v_lane.number_id, p_dispatcher_id,
                least(v_left, greatest(ceil(p_limit::numeric / v_lane.lanes)::integer, c_fewest)), p_started_at
            );
            GET DIAGNOSTICS v_rows = ROW_COUNT;
        END IF;
        -- What was granted before that wait must leave while it may start.
        EXIT WHEN v_is_guarded AND v_lane.organization_id <> ALL (v_lockers)
            AND v_lane.organization_id = ANY (_wa_locked_out('claim'));
        v_left := v_left - v_rows;
        v_served := v_served + (v_rows > 0)::integer;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_claim_lanes(uuid, integer, timestamptz, boolean) IS
'Internal: claims from all lanes in turn; guarded, or of an organization that is known to lock: a lane that '
'fails is set aside.';

CREATE OR REPLACE FUNCTION _wa_claim_lane_safely(
    p_org uuid, p_number_id bigint, p_dispatcher_id uuid, p_limit integer, p_started_at timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision, start_in_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_longest_rest CONSTANT interval := interval '10 seconds';
    v_state wa_lane_states;
    v_rested wa_lane_states;
    v_times integer;
BEGIN
    BEGIN
        RETURN QUERY SELECT * FROM _wa_claim_lane(p_org, p_number_id, p_dispatcher_id, p_limit, p_started_at);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        END IF;
        v_times := _wa_note_fault(p_org, 'claim', p_number_id::text, SQLSTATE, SQLERRM);
        IF SQLSTATE = '55P03' THEN
            -- Its other lanes would wait for the same.
            PERFORM _wa_note_fault(p_org, 'claim', '', SQLSTATE, SQLERRM);
        END IF;
    END;
    SELECT * INTO v_state FROM _wa_lane_state(p_org, p_number_id);
    IF NOT FOUND THEN
        v_state := _wa_first_lane_state(p_org, p_number_id);
    END IF;
    v_rested := v_state;
    v_rested.hold_reason := 'fault';
    v_rested.held_until := clock_timestamp()
        + least(c_longest_rest, interval '1 second' * 2 ^ least(v_times - 1, 10));
    PERFORM _wa_write_lane_state(v_state, v_rested);
END
$$;

COMMENT ON FUNCTION _wa_claim_lane_safely(uuid, bigint, uuid, integer, timestamptz) IS
'Internal: claims from a lane, or keeps what went wrong in wa_faults and lets the lane rest for a second, '
'longer when it fails again.';

CREATE OR REPLACE FUNCTION _wa_lane_state(p_org uuid, p_number_id bigint) RETURNS SETOF wa_lane_states
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.organization_id, s.number_id, s.version, s.cursor_due, s.cursor_id, s.shares, s.share_clock,
        s.look_again_at, s.served_at, s.held_until, s.hold_reason, s.next_slot_at, s.is_skipping,
        s.look_due, s.look_id
    FROM wa_lane_states s
    WHERE s.organization_id = p_org AND s.number_id = p_number_id
    ORDER BY s.version DESC
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_lane_state(uuid, bigint) IS
'Internal: the newest state of a lane; no row before its first claim.';

-- An open hold counts as due since it opened.
CREATE OR REPLACE FUNCTION _wa_busy_lanes(p_now timestamptz)
RETURNS TABLE (
    organization_id uuid, number_id bigint, due_at timestamptz, held_until timestamptz, hold_reason text,
    served_at timestamptz, is_skipping boolean
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT l.organization_id, l.number_id, f.due_at,
        -- Another limit a minute counts at once.
        CASE WHEN s.held_until > p_now AND CASE WHEN s.hold_reason = 'organization_rate'
                THEN f.is_metered AND (
                    SELECT _wa_metered_room(o, p_now) FROM wa_organizations o WHERE o.id = l.organization_id
                ) = 0 AND NOT EXISTS (
                    SELECT FROM _wa_lane_holds(l.organization_id, l.number_id, p_now) h
                    CROSS JOIN generate_series(1, _wa_last_class()) c (class)
                    CROSS JOIN LATERAL (
                        SELECT x.organization_id FROM wa_queue_due x
                        WHERE x.hold_id = h.id AND x.class = c.class LIMIT 1
                    ) d
                    WHERE h.is_open AND h.kind = 'recipient' AND NOT _wa_is_metered_class(c.class)
                )
                ELSE true END
            THEN s.held_until END,
        s.hold_reason, coalesce(s.served_at, '-infinity'), coalesce(s.is_skipping, false)
    FROM wa_lanes l
    LEFT JOIN LATERAL _wa_lane_state(l.organization_id, l.number_id) s ON true
    CROSS JOIN LATERAL (
        SELECT min(d.due_at) AS due_at, bool_and(d.is_metered) FILTER (WHERE d.due_at <= p_now) AS is_metered
        FROM (
            SELECT d.due_at, _wa_is_metered_class(c.class) AS is_metered
            FROM generate_series(1, _wa_last_class()) c (class)
            CROSS JOIN LATERAL (
                SELECT d.due_at FROM wa_queue_due d
                WHERE d.organization_id = l.organization_id AND d.number_id = l.number_id
                    AND d.class = c.class AND d.hold_id IS NULL AND d.expires_at > p_now
                    AND (d.due_at, d.queue_id) > (
                        CASE WHEN s.look_again_at > p_now THEN s.cursor_due[c.class] ELSE '-infinity' END,
                        CASE WHEN s.look_again_at > p_now THEN s.cursor_id[c.class]
                            ELSE '00000000-0000-0000-0000-000000000000' END
                    )
                ORDER BY d.due_at, d.queue_id
                LIMIT 1
            ) d
            UNION ALL
            SELECT least(h.opens_at, p_now), CASE h.kind WHEN 'replies' THEN false WHEN 'recipient' THEN NULL
                ELSE true END
            FROM _wa_lane_holds(l.organization_id, l.number_id, p_now) h
            WHERE h.is_open
        ) d
    ) f
    WHERE f.due_at <= p_now;
END;

COMMENT ON FUNCTION _wa_busy_lanes(timestamptz) IS
'Internal: lanes with an open hold, or a due row past their cursor (or anywhere, when it is time to look '
'again), and until when they are held.';
