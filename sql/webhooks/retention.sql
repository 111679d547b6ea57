-- Which raw webhooks and account events go when.

-- Raw bodies hold what was written, and several organizations' in one: the shortest time counts. What was not
-- processed yet stays, and so does what tells of somebody under a legal hold.
CREATE OR REPLACE FUNCTION _wa_delete_webhook_logs(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_keep interval := least(
        (SELECT i.webhook_log_retention FROM wa_installations i),
        (SELECT min(least(o.message_retention, o.text_retention)) FROM wa_organizations o)
    );
    v_held bytea[] := ARRAY(
        SELECT convert_to(w.who, 'UTF8') FROM wa_contact_holds h
        CROSS JOIN LATERAL _wa_identities_of(h.organization_id, h.contact_id) i
        CROSS JOIN LATERAL unnest(i.who) w (who)
        WHERE h.released_at IS NULL
    );
    v_rows integer;
BEGIN
    DELETE FROM wa_webhook_logs l
    USING (
        SELECT f.id FROM (
            SELECT w.id, w.received_at FROM wa_webhook_logs w
            WHERE NOT EXISTS (SELECT FROM unnest(v_held) h (who) WHERE position(h.who IN w.body) > 0)
            ORDER BY w.id LIMIT p_limit
        ) f
        WHERE f.received_at < p_now - v_keep
    ) e
    WHERE l.id = e.id AND l.status <> 'pending';
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_webhook_logs(timestamptz, integer) IS
'Internal: deletes raw webhooks, and what could not be processed of them, after the time for which they are '
'kept.';

CREATE OR REPLACE FUNCTION _wa_delete_account_events(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
BEGIN
    WITH expired AS (
        SELECT v.organization_id, v.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT v.organization_id, v.id FROM wa_account_events v
            WHERE v.organization_id = o.id AND v.received_at < p_now - o.audit_retention LIMIT p_limit
        ) v
        LIMIT p_limit
    )
    DELETE FROM wa_account_events v USING expired e
    WHERE v.organization_id = e.organization_id AND v.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_account_events(timestamptz, integer) IS
'Internal: deletes account events where the organization set an end for its audit.';
