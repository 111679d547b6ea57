-- Figures of the whole installation, or of one organization, for a monitor that scrapes them.

CREATE OR REPLACE FUNCTION _wa_metrics()
RETURNS TABLE (name text, help text, labels jsonb, value double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    -- The web server's own login stands for the installation; whoever asks through it, for one organization.
    v_orgs uuid[] := CASE WHEN pg_has_role(_wa_caller(), 'wa_api', 'MEMBER')
        THEN ARRAY(SELECT o.id FROM wa_organizations o) ELSE _wa_visible_organizations() END;
BEGIN
    RETURN QUERY
    WITH number AS MATERIALIZED (
        SELECT n.organization_id, n.id, n.status, n.paused_at, n.paused_until, n.last_webhook_at,
            jsonb_build_object('organization', o.name, 'phone_number_id', n.phone_number_id) AS labels
        FROM wa_phone_numbers n JOIN wa_organizations o ON o.id = n.organization_id
        WHERE n.organization_id = ANY (v_orgs)
    ),
    waiting AS MATERIALIZED (
        SELECT d.organization_id, d.number_id,
            count(*) FILTER (WHERE d.hold_id IS NULL AND d.due_at <= v_now) AS due,
            count(*) FILTER (WHERE d.hold_id IS NULL AND d.due_at > v_now) AS scheduled,
            count(d.hold_id) AS held,
            min(d.due_at) FILTER (WHERE d.hold_id IS NULL AND d.due_at <= v_now) AS oldest
        FROM wa_queue_due d
        WHERE d.organization_id = ANY (v_orgs)
        GROUP BY d.organization_id, d.number_id
    ),
    flying AS MATERIALIZED (
        SELECT i.organization_id, i.number_id, count(*) FILTER (WHERE NOT i.is_unknown) AS in_flight,
            count(*) FILTER (WHERE i.is_unknown) AS unknown
        FROM wa_queue_inflight i
        WHERE i.organization_id = ANY (v_orgs)
        GROUP BY i.organization_id, i.number_id
    )
    SELECT f.name, f.help, n.labels, f.value
    FROM number n
    LEFT JOIN waiting w ON w.organization_id = n.organization_id AND w.number_id = n.id
    LEFT JOIN flying y ON y.organization_id = n.organization_id AND y.number_id = n.id
    CROSS JOIN LATERAL (
        VALUES ('wa_queue_due', 'Messages that may go now', coalesce(w.due, 0)::double precision),
        ('wa_queue_scheduled', 'Messages whose time has not come', coalesce(w.scheduled, 0)),
        ('wa_queue_held', 'Messages that wait for a cause to be gone', coalesce(w.held, 0)),
        ('wa_queue_oldest_due_seconds', 'How long the oldest message that may go has waited',
            coalesce(extract(epoch FROM v_now - w.oldest), 0)),
        ('wa_queue_in_flight', 'Messages that are being sent', coalesce(y.in_flight, 0)),
        ('wa_queue_outcome_unknown', 'Messages of which it is unknown whether they were sent',
            coalesce(y.unknown, 0)),
        ('wa_number_stopped', '1 while the number is paused or not connected',
            (n.status <> 'CONNECTED'
                OR (n.paused_at IS NOT NULL AND coalesce(n.paused_until, 'infinity') > v_now))::integer),
        ('wa_number_last_webhook_seconds', 'Since a webhook about the number last came',
            extract(epoch FROM v_now - n.last_webhook_at))
    ) f (name, help, value)
    WHERE f.value IS NOT NULL
    UNION ALL
    SELECT 'wa_messages_today', 'Messages of today in the organization''s time zone',
        jsonb_build_object('organization', o.name, 'direction', d.direction, 'status', d.status),
        sum(d.messages)
    FROM wa_organizations o
    JOIN _wa_message_figures d
        ON d.organization_id = o.id
        AND d.day = (v_now AT TIME ZONE _wa_known_zone(o.time_zone, 'UTC'))::date
    WHERE o.id = ANY (v_orgs)
    GROUP BY o.name, d.direction, d.status
    UNION ALL
    SELECT 'wa_templates', 'Templates by their approval',
        jsonb_build_object('organization', o.name, 'approval_status', t.approval_status), count(*)
    FROM wa_organizations o JOIN wa_templates t ON t.organization_id = o.id
    WHERE o.id = ANY (v_orgs)
    GROUP BY o.name, t.approval_status
    UNION ALL
    SELECT 'wa_panic_active', 'Emergency stops that are on', jsonb_build_object('organization', o.name),
        count(p.id)
    FROM wa_organizations o LEFT JOIN wa_panic_modes p ON p.organization_id = o.id AND p.active
    WHERE o.id = ANY (v_orgs)
    GROUP BY o.name
    UNION ALL
    SELECT 'wa_faults_recent', 'Parts of the work that failed within fifteen minutes',
        jsonb_build_object('organization', o.name), count(f.work)
    FROM wa_organizations o
    LEFT JOIN wa_faults f ON f.organization_id = o.id AND f.last_at > v_now - interval '15 minutes'
    WHERE o.id = ANY (v_orgs)
    GROUP BY o.name
    UNION ALL
    SELECT f.name, f.help, jsonb_build_object('organization', o.name), f.value
    FROM wa_organizations o
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(c.created_at) AS oldest FROM wa_provider_calls c
        WHERE c.organization_id = o.id AND c.state = 'pending'
    ) w
    CROSS JOIN LATERAL (
        SELECT count(*) AS failed FROM wa_provider_calls c
        WHERE c.organization_id = o.id AND c.state = 'failed' AND c.ended_at > v_now - interval '1 hour'
    ) b
    CROSS JOIN LATERAL (
        VALUES ('wa_provider_calls_waiting', 'Calls of the provider beside sending that are to be made',
            w.waiting::double precision),
        ('wa_provider_calls_oldest_seconds', 'How long the oldest of them has waited',
            coalesce(extract(epoch FROM v_now - w.oldest), 0)),
        ('wa_provider_calls_failed_recent', 'Those that were given up within an hour', b.failed)
    ) f (name, help, value)
    WHERE o.id = ANY (v_orgs)
    UNION ALL
    SELECT f.name, f.help,
        jsonb_build_object('organization', o.name, 'subscription', h.id), f.value
    FROM wa_organizations o
    JOIN wa_event_subscription_health h ON h.organization_id = o.id
    CROSS JOIN LATERAL (
        VALUES ('wa_event_subscription_failing',
            '1 while nothing gets through to a URL that events are pushed to',
            (h.state = 'active' AND h.failing_since IS NOT NULL)::integer::double precision),
        ('wa_event_subscription_disabled', '1 while nothing is pushed to it: paused, given up or gone',
            (h.state <> 'active')::integer),
        ('wa_event_subscription_waiting', 'Deliveries that wait for it', h.waiting),
        ('wa_event_subscription_oldest_seconds', 'How long the oldest event waits that it has not got',
            greatest(coalesce(extract(epoch FROM v_now - least(h.oldest_due_at, h.oldest_unread_at)), 0), 0))
    ) f (name, help, value)
    WHERE o.id = ANY (v_orgs)
    UNION ALL
    SELECT f.name, f.help, jsonb_build_object('organization', o.name), f.value
    FROM wa_organizations o
    LEFT JOIN wa_audit_heads h ON h.organization_id = o.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows, min(u.audit_id) AS oldest FROM wa_audit_unsealed u
        WHERE u.organization_id = o.id
    ) u
    LEFT JOIN audit_log a ON a.organization_id = o.id AND a.id = u.oldest
    CROSS JOIN LATERAL (
        VALUES ('wa_audit_unsealed', 'Audit rows that have no seal yet', u.rows::double precision),
        ('wa_audit_lag_seconds', 'How long the oldest of them has waited',
            coalesce(extract(epoch FROM v_now - a.created_at), 0)),
        ('wa_audit_problems', 'Audit rows that were not as they had been sealed when last checked',
            coalesce(h.problems, 0))
    ) f (name, help, value)
    WHERE o.id = ANY (v_orgs)
    UNION ALL
    SELECT f.name, f.help, '{}', f.value
    FROM (
        SELECT count(*) AS pending, min(l.received_at) AS oldest
        FROM wa_webhook_logs l WHERE l.status = 'pending'
    ) w
    CROSS JOIN wa_installations i
    CROSS JOIN LATERAL (
        VALUES ('wa_webhooks_pending', 'Webhooks that are stored and not processed',
            w.pending::double precision),
        ('wa_webhooks_lag_seconds', 'How long the oldest of them has waited',
            coalesce(extract(epoch FROM v_now - w.oldest), 0)),
        ('wa_dispatchers', 'Dispatchers that run', (
            SELECT count(*) FROM wa_dispatchers p
            WHERE p.stopped_at IS NULL AND p.seen_at > v_now - interval '30 seconds'
        )),
        ('wa_sending_enabled', '0 while sending is switched off', i.is_sending_enabled::integer),
        ('wa_jobs_overdue', 'Recurring work that is late', coalesce(cardinality(_wa_overdue_jobs()), 0))
    ) f (name, help, value);
END
$$;

COMMENT ON FUNCTION _wa_metrics() IS 'Internal: the rows of wa_metrics that the caller may see.';

CREATE OR REPLACE VIEW wa_metrics AS
SELECT m.name, m.help, m.labels, m.value FROM _wa_metrics() m;

COMMENT ON VIEW wa_metrics IS
'Figures for a monitor, one row a name and set of labels: what GET /metrics exposes. A wa_admin, and the '
'login of the web server, see all organizations, any other role its own.';
COMMENT ON COLUMN wa_metrics.labels IS
'Organization by name, business number by its id at the provider, and what else the figure is of.';
