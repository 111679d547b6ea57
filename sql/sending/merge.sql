-- What was charged for two contacts that turn out to be one.

CREATE OR REPLACE FUNCTION _wa_merge_sending_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_pair_rates AS r (
        organization_id, number_id, contact_id, burst_started_at, burst_count, clear_at, wait_until,
        awaited_id
    )
    SELECT p_org, f.number_id, p_into, f.burst_started_at, f.burst_count, f.clear_at, f.wait_until,
        f.awaited_id
    FROM wa_pair_rates f WHERE f.organization_id = p_org AND f.contact_id = p_from
    ON CONFLICT (organization_id, number_id, contact_id) DO UPDATE SET
        burst_count = r.burst_count + excluded.burst_count,
        clear_at = greatest(r.clear_at, excluded.clear_at),
        wait_until = greatest(r.wait_until, excluded.wait_until),
        awaited_id = CASE WHEN coalesce(r.wait_until, '-infinity') < coalesce(excluded.wait_until, '-infinity')
            THEN excluded.awaited_id ELSE r.awaited_id END;
    DELETE FROM wa_pair_rates WHERE organization_id = p_org AND contact_id = p_from;
    INSERT INTO wa_tier_usages AS u (organization_id, portfolio_id, contact_id, last_at)
    SELECT p_org, f.portfolio_id, p_into, f.last_at
    FROM wa_tier_usages f WHERE f.organization_id = p_org AND f.contact_id = p_from
    ON CONFLICT (organization_id, portfolio_id, contact_id) DO UPDATE SET
        last_at = greatest(u.last_at, excluded.last_at);
    DELETE FROM wa_tier_usages WHERE organization_id = p_org AND contact_id = p_from;
    -- It may count already, or have an open window, as the other did.
    PERFORM _wa_release_from_limit(p_org, ARRAY[p_into]);
END
$$;

COMMENT ON FUNCTION _wa_merge_sending_of(uuid, bigint, bigint) IS
'Internal: moves what pair rates and messaging limits were charged for a contact to the one that it merges '
'with.';
