-- What became of messages: whatsapp_delivery_logs, whatsapp_analytics, rate_limits.

CREATE OR REPLACE VIEW whatsapp_delivery_logs WITH (security_invoker = true) AS
SELECT
    _wa_row_uuid(s.organization_id, s.id) AS id, m.queue_id, s.status, s.occurred_at AS "timestamp",
    s.wa_message_id AS meta_message_id, s.error_code::text AS error_code, s.error_message
FROM wa_message_statuses s
LEFT JOIN wa_messages m ON m.organization_id = s.organization_id AND m.wa_message_id = s.wa_message_id;

COMMENT ON VIEW whatsapp_delivery_logs IS
'wa_message_statuses under another name: every status that the provider reported of a message.';
COMMENT ON COLUMN whatsapp_delivery_logs.queue_id IS
'Row of whatsapp_queue; NULL for a message that did not come from it.';
COMMENT ON COLUMN whatsapp_delivery_logs.status IS
'sent, delivered, read or failed, and what else Meta reports.';

-- Of numbers alone, so that analysts may read it; hence with the owner's rights and a filter of its own. From
-- the roll-ups: they are cheap to read and outlive queue and ledger.
CREATE OR REPLACE VIEW whatsapp_analytics WITH (security_barrier = true) AS
SELECT
    f.day AS "date", f.organization_id AS user_id, sum(f.queued)::bigint AS total_sent,
    coalesce(sum(f.queued) FILTER (WHERE f.status = 'sent'), 0)::bigint AS successful,
    coalesce(sum(f.queued) FILTER (WHERE f.status = 'failed'), 0)::bigint AS failed,
    extract(EPOCH FROM sum(f.queue_time)) / sum(f.queued) AS avg_queue_time_seconds
FROM _wa_message_figures f
WHERE f.direction = 'outbound' AND f.queued > 0
    AND f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY f.day, f.organization_id;

COMMENT ON VIEW whatsapp_analytics IS
'Queued messages that the provider took, by the day in the organization''s time zone: how many, how many of '
'them were reported as failed later, and how long they had waited.';

CREATE OR REPLACE VIEW rate_limits WITH (security_barrier = true) AS
SELECT
    r.organization_id AS user_id, 'whatsapp' AS service, 'send_message' AS endpoint, u.count,
    u.window_start
FROM (
    SELECT DISTINCT ON (x.organization_id) x.organization_id, x.taken, x.taken_at FROM wa_rate_limits x
    WHERE x.scope = 'organization' AND x.scope_id = ''
        AND x.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
    ORDER BY x.organization_id, x.version DESC
) r
CROSS JOIN LATERAL unnest(r.taken, r.taken_at) u (count, window_start)
WHERE u.window_start > clock_timestamp() - interval '60 seconds';

ALTER VIEW rate_limits ALTER COLUMN user_id SET DEFAULT current_wa_organization();

COMMENT ON VIEW rate_limits IS
'wa_rate_limits under another name: what was charged in the last minute to organizations that have a limit. '
'The dispatcher charges its own messages; inserting charges those that somebody else sent.';

CREATE OR REPLACE FUNCTION tg_rate_limits__charge() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_rate wa_rate_limits;
BEGIN
    PERFORM _wa_require_columns('rate_limits', to_jsonb(NEW), 'user_id', 'service', 'endpoint', 'count');
    PERFORM _wa_require_value('rate_limits', 'service', NEW.service, 'whatsapp');
    PERFORM _wa_require_value('rate_limits', 'endpoint', NEW.endpoint, 'send_message');
    IF NEW.user_id <> _wa_caller_organization() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', TABLE = 'rate_limits',
            MESSAGE = 'only the organization that you work for can be charged',
            HINT = 'SET wa.organization_id chooses among those that you belong to.';
    ELSIF NEW.count < 1 THEN
        RAISE EXCEPTION USING ERRCODE = '23514', TABLE = 'rate_limits', COLUMN = 'count',
            MESSAGE = format('count must be positive, not %s', NEW.count),
            HINT = 'A charge cannot be taken back; it is over after a minute.';
    END IF;
    -- The lock that a claim charges under: neither misses the other's charge.
    PERFORM FROM wa_organizations o WHERE o.id = NEW.user_id FOR NO KEY UPDATE;
    SELECT r.* INTO v_rate FROM wa_rate_limits r
    WHERE r.organization_id = NEW.user_id AND r.scope = 'organization' AND r.scope_id = ''
    ORDER BY r.version DESC LIMIT 1;
    NEW.window_start := clock_timestamp();
    PERFORM _wa_charge_organization(v_rate, NEW.user_id, NEW.window_start, NEW.count);
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_rate_limits__charge() IS
'Charges messages that were sent by other means to the limit of the caller''s own organization, as of now.';

CREATE OR REPLACE TRIGGER charge INSTEAD OF INSERT ON rate_limits
FOR EACH ROW EXECUTE FUNCTION tg_rate_limits__charge();

REVOKE ALL ON FUNCTION tg_rate_limits__charge() FROM PUBLIC;
GRANT SELECT ON whatsapp_delivery_logs TO wa_app, wa_admin;
GRANT SELECT ON whatsapp_analytics, rate_limits TO wa_app, wa_admin, wa_analyst;
GRANT INSERT ON rate_limits TO wa_app, wa_admin;
