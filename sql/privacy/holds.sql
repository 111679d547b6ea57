-- Legal holds: what is known of a person stays until they are released.

CREATE OR REPLACE FUNCTION hold_wa_contact(p_phone text, p_reason text) RETURNS wa_contact_holds
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint := _wa_require_known(v_org, p_phone);
    v_hold wa_contact_holds;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'admin');
    IF coalesce(p_reason, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a hold needs a reason',
            DETAIL = 'p_reason is empty.',
            HINT = 'For example the number of the case: p_reason => ''case 2031-4''.';
    END IF;
    INSERT INTO wa_contact_holds (organization_id, contact_id, reason) VALUES (v_org, v_contact_id, p_reason)
    ON CONFLICT (contact_id, organization_id) WHERE released_at IS NULL DO NOTHING
    RETURNING * INTO v_hold;
    IF v_hold.id IS NULL THEN
        SELECT * INTO v_hold FROM wa_contact_holds h
        WHERE h.organization_id = v_org AND h.contact_id = v_contact_id AND h.released_at IS NULL;
    ELSE
        PERFORM _wa_audit(v_org, 'contact_held', 'wa_contacts', v_contact_id::text,
            jsonb_build_object('hold', v_hold.id, 'reason', p_reason));
    END IF;
    RETURN v_hold;
END
$$;

COMMENT ON FUNCTION hold_wa_contact(text, text) IS
'Puts a person under a legal hold: neither retention nor erasure takes anything of them until '
'release_wa_contact(). Returns the hold, the one in force where there is one.';

CREATE OR REPLACE FUNCTION release_wa_contact(p_phone text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint := _wa_find_contact(v_org, p_phone);
    v_id bigint;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'admin');
    UPDATE wa_contact_holds h SET released_at = clock_timestamp(), released_by = session_user
    WHERE h.organization_id = v_org AND h.contact_id = v_contact_id AND h.released_at IS NULL
    RETURNING h.id INTO v_id;
    IF v_id IS NULL THEN
        RETURN false;
    END IF;
    -- Retention passed its rows by: it looks at them again.
    UPDATE wa_retention_marks r SET place = least(r.place::bigint, m.id - 1)::text
    FROM (SELECT min(x.id) AS id FROM wa_messages x
        WHERE x.organization_id = v_org AND x.contact_id = v_contact_id) m
    WHERE r.organization_id = v_org AND r.kind = 'messages' AND m.id IS NOT NULL;
    UPDATE wa_retention_marks r SET place = _wa_uuid7_floor(c.created_at)::text
    FROM wa_contacts c
    WHERE r.organization_id = v_org AND r.kind = 'queue' AND c.organization_id = v_org
        AND c.id = v_contact_id AND _wa_uuid7_floor(c.created_at)::text < r.place;
    PERFORM _wa_audit(v_org, 'contact_released', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('hold', v_id));
    RETURN true;
END
$$;

COMMENT ON FUNCTION release_wa_contact(text) IS
'Ends a legal hold: retention and erasures go on with the person. False where there was none.';
