-- Automation: what keeps flows and notifications in order, whoever writes them.

CREATE OR REPLACE FUNCTION _wa_given_phone(p_org uuid, p_phone text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT normalize_phone_e164(p_phone, o.default_region, o.default_area_code)
    FROM wa_organizations o WHERE o.id = p_org AND p_phone IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_given_phone(uuid, text) IS
'Internal: a number that somebody typed, read as the organization reads numbers; NULL for NULL.';

CREATE OR REPLACE FUNCTION tg_wa_automation_flows__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
    ELSE
        NEW.updated_at := clock_timestamp();
        IF NEW.phone_e164 IS DISTINCT FROM OLD.phone_e164 THEN
            NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
        END IF;
    END IF;
    IF NEW.status IN ('active', 'paused') THEN
        NEW.ended_at := NULL;
    ELSE
        NEW.ended_at := coalesce(NEW.ended_at, clock_timestamp());
        NEW.next_action_at := NULL;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_automation_flows__keep() IS
'Normalises the number; a flow that ended gets its time and has no next action.';

CREATE OR REPLACE TRIGGER keep BEFORE INSERT OR UPDATE ON wa_automation_flows
FOR EACH ROW EXECUTE FUNCTION tg_wa_automation_flows__keep();

CREATE OR REPLACE FUNCTION tg_siren_templates__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_siren_templates__keep() IS 'Notes the time of a change.';

CREATE OR REPLACE TRIGGER keep BEFORE UPDATE ON siren_templates
FOR EACH ROW EXECUTE FUNCTION tg_siren_templates__keep();

CREATE OR REPLACE FUNCTION tg_siren_events__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
    ELSE
        NEW.updated_at := clock_timestamp();
        IF NEW.phone_e164 IS DISTINCT FROM OLD.phone_e164 THEN
            NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
        END IF;
    END IF;
    IF NEW.status = 'sent' THEN
        NEW.sent_at := coalesce(NEW.sent_at, clock_timestamp());
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_siren_events__keep() IS
'Normalises the number, and notes the time of a change and of sending.';

CREATE OR REPLACE TRIGGER keep BEFORE INSERT OR UPDATE ON siren_events
FOR EACH ROW EXECUTE FUNCTION tg_siren_events__keep();
