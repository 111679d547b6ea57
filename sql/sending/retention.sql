-- What was charged to limits, once it counts no more.

-- A pair whose burst is over, a recipient outside the rolling 24 hours: like none. Locked rows are being
-- charged, hence not old; skipping them keeps claims from waiting here.
CREATE OR REPLACE FUNCTION clean_wa_rate_windows(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_before timestamptz := clock_timestamp() - interval '2 days';
    v_rows integer;
    v_total integer;
BEGIN
    DELETE FROM wa_pair_rates r
    WHERE (r.organization_id, r.number_id, r.contact_id) IN (
        SELECT p.organization_id, p.number_id, p.contact_id FROM wa_pair_rates p
        WHERE p.clear_at < v_before AND coalesce(p.wait_until, p.clear_at) < v_before
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_total = ROW_COUNT;
    DELETE FROM wa_tier_usages u
    WHERE (u.organization_id, u.portfolio_id, u.contact_id) IN (
        SELECT t.organization_id, t.portfolio_id, t.contact_id FROM wa_tier_usages t
        WHERE t.last_at < v_before
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;
    -- What numbers and organizations that were deleted left behind.
    DELETE FROM wa_lane_states s WHERE NOT EXISTS (
        SELECT FROM wa_phone_numbers n WHERE n.organization_id = s.organization_id AND n.id = s.number_id
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;
    DELETE FROM wa_queue_holds h WHERE NOT EXISTS (
        SELECT FROM wa_phone_numbers n WHERE n.organization_id = h.organization_id AND n.id = h.number_id
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;
    DELETE FROM wa_lane_slowdowns d WHERE NOT EXISTS (
        SELECT FROM wa_phone_numbers n WHERE n.organization_id = d.organization_id AND n.id = d.number_id
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;
    DELETE FROM wa_rate_limits r WHERE NOT EXISTS (
        SELECT FROM wa_organizations o WHERE o.id = r.organization_id
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_total + v_rows;
END
$$;

COMMENT ON FUNCTION clean_wa_rate_windows(integer) IS
'Deletes what was charged to pair rates and messaging limits more than two days ago, and what deleted '
'numbers left behind; returns how many rows. The job "rate_windows" calls it.';
