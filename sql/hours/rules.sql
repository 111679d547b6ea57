-- What happens when the rules change, and what they say of a number.

CREATE OR REPLACE FUNCTION _wa_ask_for_recheck(p_org uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_wait_rechecks AS w (organization_id) VALUES (p_org)
    ON CONFLICT (organization_id) DO UPDATE SET looked_id = excluded.looked_id
    WHERE w.looked_id <> excluded.looked_id
$$;

COMMENT ON FUNCTION _wa_ask_for_recheck(uuid) IS
'Internal: what waits by the rules that an organization had is judged anew, a batch a heartbeat.';

CREATE OR REPLACE FUNCTION tg_recheck_waits() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_ask_for_recheck(
        CASE TG_OP WHEN 'DELETE' THEN OLD.organization_id ELSE NEW.organization_id END
    );
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_recheck_waits() IS 'A change of a rule of hours or caps counts for what waits, too.';

CREATE OR REPLACE TRIGGER recheck_waits AFTER INSERT OR UPDATE OR DELETE ON wa_quiet_hours
FOR EACH ROW EXECUTE FUNCTION tg_recheck_waits();
CREATE OR REPLACE TRIGGER recheck_waits AFTER INSERT OR UPDATE OR DELETE ON wa_quiet_days
FOR EACH ROW EXECUTE FUNCTION tg_recheck_waits();
CREATE OR REPLACE TRIGGER recheck_waits AFTER INSERT OR UPDATE OR DELETE ON wa_zone_prefixes
FOR EACH ROW EXECUTE FUNCTION tg_recheck_waits();
CREATE OR REPLACE TRIGGER recheck_waits AFTER INSERT OR UPDATE OR DELETE ON wa_contact_caps
FOR EACH ROW EXECUTE FUNCTION tg_recheck_waits();

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_quiet_hours
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id');
CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_quiet_days
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('day purpose');
CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_zone_prefixes
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('prefix');
CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_contact_caps
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('purpose');

CREATE OR REPLACE FUNCTION _wa_open_rechecks() RETURNS SETOF wa_wait_rechecks
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT r.* FROM wa_wait_rechecks r ORDER BY r.organization_id FOR UPDATE SKIP LOCKED
$$;

COMMENT ON FUNCTION _wa_open_rechecks() IS 'Internal: whose rules changed, locked until the end of the call.';

CREATE OR REPLACE FUNCTION _wa_note_recheck(p_org uuid, p_looked_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_wait_rechecks SET looked_id = p_looked_id
    WHERE organization_id = p_org AND p_looked_id IS NOT NULL;
    DELETE FROM wa_wait_rechecks WHERE organization_id = p_org AND p_looked_id IS NULL;
END
$$;

COMMENT ON FUNCTION _wa_note_recheck(uuid, uuid) IS
'Internal: up to which message what waits was let go; NULL when that was all.';

-- Kept only as long as a message is, the ledger cannot tell more.
CREATE OR REPLACE FUNCTION tg_wa_contact_caps__limit_days() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_kept interval := (
        SELECT o.message_retention FROM wa_organizations o WHERE o.id = NEW.organization_id
    );
BEGIN
    IF NEW.days * interval '24 hours' > v_kept THEN
        RAISE EXCEPTION USING ERRCODE = 'WA060',
            MESSAGE = format('a cap over %s days, and messages are kept for %s', NEW.days, v_kept),
            DETAIL = 'A cap counts the messages in wa_messages.',
            HINT = 'Fewer days, or a longer wa_organizations.message_retention.';
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_contact_caps__limit_days() IS
'Refuses a cap over more days than messages are kept (WA060).';

CREATE OR REPLACE TRIGGER limit_days BEFORE INSERT OR UPDATE ON wa_contact_caps
FOR EACH ROW EXECUTE FUNCTION tg_wa_contact_caps__limit_days();

CREATE OR REPLACE FUNCTION tg_wa_organizations__keep_for_caps() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_days integer := (SELECT max(k.days) FROM wa_contact_caps k WHERE k.organization_id = NEW.id);
BEGIN
    IF v_days * interval '24 hours' > NEW.message_retention THEN
        RAISE EXCEPTION USING ERRCODE = 'WA060',
            MESSAGE = format('messages kept for %s, and a cap over %s days', NEW.message_retention, v_days),
            DETAIL = 'A cap counts the messages in wa_messages.',
            HINT = 'A cap of fewer days in wa_contact_caps, or a longer message_retention.';
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_organizations__keep_for_caps() IS
'Refuses to keep messages for a shorter time than caps count (WA060).';

CREATE OR REPLACE TRIGGER keep_for_caps BEFORE UPDATE OF message_retention ON wa_organizations
FOR EACH ROW EXECUTE FUNCTION tg_wa_organizations__keep_for_caps();

CREATE OR REPLACE TRIGGER require_time_zone BEFORE INSERT OR UPDATE OF time_zone ON wa_zone_prefixes
FOR EACH ROW EXECUTE FUNCTION tg_require_time_zone('time_zone');

CREATE OR REPLACE FUNCTION preview_wa_quiet_hours(
    p_phone text, p_at timestamptz DEFAULT clock_timestamp(), p_purpose text DEFAULT 'marketing',
    p_channel text DEFAULT 'whatsapp', p_phone_number_id text DEFAULT NULL
) RETURNS TABLE (
    is_quiet boolean, allowed_from timestamptz, zones text[], zones_from text, local_times timestamp[]
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact wa_contacts;
    v_zones record;
    v_until timestamptz;
BEGIN
    IF p_purpose IS NULL OR p_purpose NOT IN ('marketing', 'utility')
        OR p_channel IS NULL OR p_channel NOT IN ('whatsapp', 'sms')
    THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('no quiet hours for the purpose %s on %s', quote_nullable(left(p_purpose, 100)),
                quote_nullable(left(p_channel, 100))),
            DETAIL = 'Authentication and free-form answers never wait.',
            HINT = 'The purpose is marketing or utility, the channel whatsapp or sms.';
    END IF;
    SELECT c.* INTO v_contact FROM wa_contacts c
    WHERE c.organization_id = v_org AND c.id = _wa_find_contact(v_org, p_phone);
    IF NOT FOUND THEN
        IF _wa_is_user_id(p_phone) THEN
            v_contact.user_id := p_phone;
        ELSE
            v_contact.phone_e164 := (
                SELECT normalize_phone_e164(p_phone, o.default_region, o.default_area_code)
                FROM wa_organizations o WHERE o.id = v_org
            );
        END IF;
    END IF;
    SELECT z.* INTO v_zones
    FROM _wa_zones_for(v_org, v_contact.time_zone, v_contact.phone_e164, v_contact.user_id) z;
    v_until := _wa_quiet_until(
        v_org, (
            SELECT n.id FROM wa_phone_numbers n
            WHERE n.organization_id = v_org AND n.phone_number_id = p_phone_number_id
        ), p_channel, p_purpose, v_zones.zones, v_zones.spread, p_at
    );
    RETURN QUERY SELECT v_until IS NOT NULL, coalesce(v_until, p_at), v_zones.zones, v_zones.source, ARRAY(
        SELECT DISTINCT p_at AT TIME ZONE _wa_known_zone(z, 'UTC') FROM unnest(v_zones.zones) z ORDER BY 1
    );
END
$$;

COMMENT ON FUNCTION preview_wa_quiet_hours(text, timestamptz, text, text, text) IS
'Whether a number or user id may be written to at a time, from when on it may, by the clocks of which zones, '
'what they show then, and how they are known: contact (its own), prefix (your rule), number (all that it may '
'lie in) or unknown (yours, and three hours to both sides).';
