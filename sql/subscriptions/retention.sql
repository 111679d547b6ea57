-- Which deliveries go when.

-- The oldest events of each subscription, as their ids tell; test events come first and go by their time.
CREATE OR REPLACE FUNCTION _wa_delete_event_deliveries(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_event_secrets c WHERE c.valid_until < p_now;
    WITH expired AS MATERIALIZED (
        SELECT d.organization_id, d.subscription_id, d.event_id, d.ended_at
        FROM wa_organizations o
        JOIN wa_event_subscriptions s ON s.organization_id = o.id
        CROSS JOIN LATERAL (
            SELECT x.organization_id, x.subscription_id, x.event_id, x.ended_at, x.created_at
            FROM wa_event_deliveries x
            WHERE x.organization_id = s.organization_id AND x.subscription_id = s.id
            ORDER BY x.event_id LIMIT p_limit
        ) d
        WHERE d.ended_at < p_now - o.event_delivery_retention
            -- What waits at a subscription that was ended long ago.
            OR (s.state <> 'active' AND d.created_at < p_now - o.message_retention)
        LIMIT p_limit
    )
    DELETE FROM wa_event_deliveries d USING expired e
    WHERE d.organization_id = e.organization_id AND d.subscription_id = e.subscription_id
        AND d.event_id = e.event_id AND d.state <> 'sending'
        -- Sent again meanwhile.
        AND d.ended_at IS NOT DISTINCT FROM e.ended_at;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_event_deliveries(timestamptz, integer) IS
'Internal: deletes deliveries that ended longer ago than their organization keeps them, all that are older '
'than it keeps messages where nothing is pushed any more, and secrets that sign no more.';
