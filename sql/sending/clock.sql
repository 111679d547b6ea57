-- A clock that was set back. Times that were written before are in the future then: nothing would be due, no
-- limit would let go of anything, until the clock comes by again. Dispatchers write down each second when
-- they were seen; where that lies ahead, everything that counts from a moment moves back by as much. What
-- people and Meta set by the calendar stays.

CREATE OR REPLACE FUNCTION _wa_follow_clock() RETURNS interval
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_by interval;
    v_lane record;
    v_first wa_lane_states;
BEGIN
    SELECT max(d.seen_at) - v_now INTO v_by FROM wa_dispatchers d;
    -- Less is over by itself as soon.
    IF v_by IS NULL OR v_by < interval '5 seconds' THEN
        RETURN NULL;
    END IF;
    -- No claim goes on meanwhile; the second in which messages may have gone already is left out.
    FOR v_lane IN
        SELECT l.organization_id, l.number_id FROM wa_lanes l
        ORDER BY l.organization_id, l.number_id FOR UPDATE
    LOOP
        v_first := _wa_first_lane_state(v_lane.organization_id, v_lane.number_id);
        v_first.next_slot_at := v_now + interval '1 second';
        PERFORM _wa_write_lane_state(s, v_first)
        FROM _wa_lane_state(v_lane.organization_id, v_lane.number_id) s;
    END LOOP;
    UPDATE wa_queue_holds SET opens_at = opens_at - v_by WHERE opens_at > v_now AND opens_at < 'infinity';
    UPDATE wa_lane_slowdowns SET slowed_at = v_now WHERE slowed_at > v_now;
    UPDATE wa_rate_limits r SET taken_at = ARRAY(
        SELECT CASE WHEN u.t > v_now THEN u.t - v_by ELSE u.t END
        FROM unnest(r.taken_at) WITH ORDINALITY u (t, n) ORDER BY u.n
    )
    WHERE r.scope = 'organization' AND r.scope_id = '';
    DELETE FROM wa_rate_limits r WHERE r.scope = 'portfolio';
    UPDATE wa_pair_rates SET burst_started_at = least(burst_started_at, v_now), clear_at = clear_at - v_by,
        wait_until = wait_until - v_by
    WHERE clear_at > v_now OR wait_until > v_now;
    UPDATE wa_tier_usages SET last_at = v_now WHERE last_at > v_now;
    UPDATE wa_late_results SET try_at = v_now WHERE try_at > v_now;
    PERFORM _wa_bring_back_queued(v_now, v_by);
    PERFORM _wa_bring_back_pauses(v_now, v_by);
    UPDATE wa_dispatchers SET seen_at = v_now WHERE seen_at > v_now;
    PERFORM _wa_audit(o.id, 'clock_set_back', 'wa_dispatchers', NULL, jsonb_build_object(
        'seconds', round(extract(epoch FROM v_by), 1)))
    FROM wa_organizations o WHERE o.is_default;
    RETURN v_by;
END
$$;

COMMENT ON FUNCTION _wa_follow_clock() IS
'Internal: where the server''s clock was set back, moves back what counts from a moment that is still to '
'come; returns by how much, NULL where it was not.';
