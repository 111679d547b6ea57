-- rate_limits over wa_rate_limits: what was charged in the last minute, and charging for others.

CREATE OR REPLACE VIEW rate_limits WITH (security_barrier = true) AS
SELECT
    r.organization_id AS user_id, 'whatsapp' AS service, 'send_message' AS endpoint, u.count,
    u.window_start
FROM (
    SELECT DISTINCT ON (x.organization_id, x.scope_id) x.organization_id, x.taken, x.taken_at
    FROM wa_rate_limits x
    WHERE x.scope = 'organization'
        AND x.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
    ORDER BY x.organization_id, x.scope_id, x.version DESC
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
    c_most CONSTANT integer := 1000000;
BEGIN
    PERFORM _wa_require_columns('rate_limits', to_jsonb(NEW), 'user_id', 'service', 'endpoint', 'count');
    PERFORM _wa_require_value('rate_limits', 'service', NEW.service, 'whatsapp');
    PERFORM _wa_require_value('rate_limits', 'endpoint', NEW.endpoint, 'send_message');
    IF NEW.user_id <> _wa_caller_organization() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', TABLE = 'rate_limits',
            MESSAGE = 'only the organization that you work for can be charged',
            DETAIL = format('user_id is %s, you work for %s.', NEW.user_id, _wa_caller_organization()),
            HINT = 'SET wa.organization_id chooses among those that you belong to.';
    ELSIF NEW.count NOT BETWEEN 1 AND c_most THEN
        RAISE EXCEPTION USING ERRCODE = '23514', TABLE = 'rate_limits', COLUMN = 'count',
            MESSAGE = format('count must be from 1 to %s, not %s', c_most, NEW.count),
            DETAIL = 'count is the number of messages that somebody else sent within a minute.',
            HINT = 'A charge cannot be taken back; it is over after a minute.';
    END IF;
    NEW.window_start := clock_timestamp();
    PERFORM _wa_charge_elsewhere(NEW.user_id, NEW.window_start, NEW.count);
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_rate_limits__charge() IS
'Charges messages that were sent by other means to the limit of the caller''s own organization, as of now.';

CREATE OR REPLACE TRIGGER charge INSTEAD OF INSERT ON rate_limits
FOR EACH ROW EXECUTE FUNCTION tg_rate_limits__charge();
