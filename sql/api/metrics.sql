-- Figures for monitors: how the queue stands and what was sent, for one organization and for the
-- installation.

CREATE OR REPLACE FUNCTION get_wa_metrics() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_now timestamptz := clock_timestamp();
    v_zone text := (SELECT _wa_known_zone(o.time_zone, 'UTC') FROM wa_organizations o WHERE o.id = v_org);
BEGIN
    RETURN jsonb_build_object(
        'at', v_now,
        'queue', (
            SELECT jsonb_build_object(
                'due', coalesce(sum(h.due), 0), 'scheduled', coalesce(sum(h.scheduled), 0),
                'held', coalesce(sum(h.held), 0), 'in_flight', coalesce(sum(h.in_flight), 0),
                'outcome_unknown', coalesce(sum(h.outcome_unknown), 0),
                'oldest_due_at', min(h.oldest_due_at), 'dispatchers', coalesce(max(h.dispatchers), 0)
            ) FROM wa_queue_health h WHERE h.organization_id = v_org
        ),
        'daily', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'date', d.day, 'direction', d.direction, 'message_count', d.messages,
                'successful_sends', d.sent, 'failed_sends', d.failed
            ) ORDER BY d.day DESC, d.direction), '[]')
            FROM (
                SELECT x.day, x.direction, sum(x.messages) AS messages,
                    coalesce(sum(x.messages) FILTER (WHERE x.status = 'sent'), 0) AS sent,
                    coalesce(sum(x.messages) FILTER (WHERE x.status = 'failed'), 0) AS failed
                FROM wa_daily_messages x
                WHERE x.organization_id = v_org AND x.day > (v_now AT TIME ZONE v_zone)::date - 7
                GROUP BY x.day, x.direction
            ) d
        ),
        'delivery', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'date', d.day, 'sent', d.sent, 'failed', d.failed, 'delivered', d.delivered, 'read', d.seen
            ) ORDER BY d.day DESC), '[]')
            FROM (
                SELECT x.day, sum(x.sent) AS sent, sum(x.failed) AS failed, sum(x.delivered) AS delivered,
                    sum(x.seen) AS seen
                FROM wa_daily_delivery x
                WHERE x.organization_id = v_org AND x.day > (v_now AT TIME ZONE v_zone)::date - 7
                GROUP BY x.day
            ) d
        ),
        'conversations', (
            SELECT jsonb_build_object(
                'open_windows', count(*) FILTER (
                    WHERE _wa_window_open(w.last_customer_message_at, v_now, interval '0')),
                'unread', count(*) FILTER (WHERE w.unread_count > 0), 'total', count(*)
            ) FROM wa_conversation_windows w WHERE w.organization_id = v_org
        ),
        'templates', (
            SELECT coalesce(jsonb_object_agg(t.approval_status, t.n), '{}')
            FROM (
                SELECT x.approval_status, count(*) AS n FROM wa_templates x
                WHERE x.organization_id = v_org GROUP BY x.approval_status
            ) t
        ),
        'opt_outs', (
            SELECT count(*) FROM wa_opt_outs o WHERE o.organization_id = v_org AND o.revoked_at IS NULL
        ),
        'webhooks', (
            SELECT jsonb_build_object('pending', count(*), 'oldest_pending_at', min(l.received_at))
            FROM wa_webhook_logs l WHERE l.status = 'pending'
        )
    );
END
$$;

COMMENT ON FUNCTION get_wa_metrics() IS
'How the caller''s organization stands, for a monitor: queue, messages and deliveries by day of the last '
'week, conversations, templates, opt-outs; and how many webhooks of the installation wait.';

CREATE OR REPLACE FUNCTION check_wa_readiness() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_version record;
    v_webhooks record;
BEGIN
    SELECT * INTO v_version FROM wa_version();
    SELECT count(*) AS pending, min(l.received_at) AS oldest INTO v_webhooks
    FROM wa_webhook_logs l WHERE l.status = 'pending';
    RETURN jsonb_build_object(
        'is_ready', NOT pg_is_in_recovery() AND v_version.extension_version = v_version.schema_version,
        'is_standby', pg_is_in_recovery(), 'extension_version', v_version.extension_version,
        'schema_version', v_version.schema_version,
        'may_serve_api', pg_has_role(_wa_caller(), 'wa_api', 'MEMBER'),
        'may_receive', pg_has_role(_wa_caller(), 'wa_receiver', 'MEMBER'),
        'webhooks_pending', v_webhooks.pending,
        'webhooks_lag_s', coalesce(extract(epoch FROM clock_timestamp() - v_webhooks.oldest)::integer, 0)
    );
END
$$;

COMMENT ON FUNCTION check_wa_readiness() IS
'Whether requests can be served: release of extension and schema, no standby, what the caller''s role may; '
'and how far the processing of webhooks is behind. For the web server.';
