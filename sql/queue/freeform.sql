-- Whether a free-form message may go: the queue's verdict, asked before there is a row.

CREATE OR REPLACE FUNCTION _wa_can_send_freeform(
    p_org uuid, p_contact_id bigint, p_number_id bigint, p_now timestamptz
) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT j.refusal IS NULL
    FROM wa_organizations o
    CROSS JOIN LATERAL _wa_judge(
        p_org, ARRAY[NULL]::uuid[], ARRAY[p_number_id], ARRAY[p_contact_id], ARRAY[NULL]::uuid[], o.window_margin,
        p_now
    ) j
    WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_can_send_freeform(uuid, bigint, bigint, timestamptz) IS
'Internal: whether a free-form message may go from a number to a contact at a given time.';

CREATE OR REPLACE FUNCTION can_send_freeform_wa(p_phone text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_contact_id bigint := _wa_find_contact(v_org, p_phone);
BEGIN
    RETURN v_contact_id IS NOT NULL
        AND _wa_can_send_freeform(v_org, v_contact_id, _wa_number_for(v_org, v_contact_id),
            clock_timestamp());
END
$$;

COMMENT ON FUNCTION can_send_freeform_wa(text) IS
'Whether a free-form message may be sent to a phone number (any usual form) or user id now, from the number '
'that a queued row would take.';

CREATE OR REPLACE FUNCTION can_send_freeform_wa(p_phone text, p_phone_number_id text, p_now timestamptz)
RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_number_id bigint;
BEGIN
    SELECT n.id INTO v_number_id FROM wa_phone_numbers n
    WHERE n.organization_id = v_org AND n.phone_number_id = p_phone_number_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
        MESSAGE = format('no business number with the id "%s"', left(p_phone_number_id, 100)),
        DETAIL = (
                SELECT 'There are: ' || coalesce(string_agg(n.phone_number_id, ', '), 'none') || '.'
                FROM wa_phone_numbers n WHERE n.organization_id = v_org
            ),
        HINT = 'SELECT phone_number_id, display_phone FROM wa_phone_numbers;';
    END IF;
    RETURN _wa_can_send_freeform(v_org, _wa_find_contact(v_org, p_phone), v_number_id, p_now);
END
$$;

COMMENT ON FUNCTION can_send_freeform_wa(text, text, timestamptz) IS
'As can_send_freeform_wa(phone, phone_number_id), at a given time.';

CREATE OR REPLACE FUNCTION can_send_freeform_wa(p_phone text, p_phone_number_id text) RETURNS boolean
LANGUAGE sql STABLE
RETURN can_send_freeform_wa(p_phone, p_phone_number_id, clock_timestamp());

COMMENT ON FUNCTION can_send_freeform_wa(text, text) IS
'Whether a free-form message may be sent to a phone number or user id now, from the given business number.';
