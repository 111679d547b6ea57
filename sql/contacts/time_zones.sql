-- The time zone of a contact, where somebody knows it.

CREATE OR REPLACE FUNCTION set_wa_contact_time_zone(p_phone text, p_time_zone text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
BEGIN
    PERFORM _wa_require_time_zone(p_time_zone);
    v_contact_id := _wa_find_contact(v_org, p_phone);
    IF v_contact_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = 'no contact with that number or user id',
            DETAIL = 'It is not known to this organization.',
            HINT = 'A contact is made by the first message in either direction, or by its consent.';
    END IF;
    UPDATE wa_contacts c SET time_zone = p_time_zone
    WHERE c.organization_id = v_org AND c.id = v_contact_id AND c.time_zone IS DISTINCT FROM p_time_zone;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION set_wa_contact_time_zone(text, text) IS
'Says in which time zone a contact lives, by a name such as America/Bogota; NULL where that is not known any '
'more. False when nothing changed. What waits for the hour is judged anew.';

CREATE OR REPLACE TRIGGER require_time_zone BEFORE INSERT OR UPDATE OF time_zone ON wa_contacts
FOR EACH ROW WHEN (NEW.time_zone IS NOT NULL) EXECUTE FUNCTION tg_require_time_zone('time_zone');
