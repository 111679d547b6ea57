-- How an organization reads a number that somebody typed: as the numbering plans say, unless the same digits
-- are somebody who is known already.

-- Without + the digits may be a number of the organization's region or one with country code. Whoever wrote
-- is who is meant: WhatsApp itself gave the number, be it in no plan any more. Else the plans decide, unless
-- they know nobody and the digits with a + in front are somebody's: no misreading makes such a contact,
-- whereas one whose number was misread before would attract the same digits for ever. An opt-out of every
-- message comes before all that: in doubt it was these digits that asked for it.
CREATE OR REPLACE FUNCTION _wa_known_reading(p_org uuid, p_readings text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    RETURN (
        SELECT r.phone
        FROM unnest(p_readings) WITH ORDINALITY r (phone, n)
        CROSS JOIN LATERAL (
            SELECT x.contact_id, x.source FROM wa_contact_identities x
            WHERE x.organization_id = p_org AND x.kind = 'phone' AND x.value = _wa_phone_key(r.phone)
                AND x.is_current LIMIT 1
        ) i
        CROSS JOIN LATERAL (
            SELECT
                i.source IN ('webhook', 'provider') OR EXISTS (
                    SELECT FROM wa_conversation_windows w
                    WHERE w.organization_id = p_org AND w.contact_id = i.contact_id
                        AND w.last_customer_message_at IS NOT NULL
                ) AS wrote,
                EXISTS (
                    SELECT FROM wa_opt_outs x
                    WHERE x.organization_id = p_org AND x.contact_id = i.contact_id AND x.revoked_at IS NULL
                        AND x.scope = 'all'
                ) AS is_opted_out
        ) k
        WHERE k.wrote OR k.is_opted_out OR r.phone = p_readings[1] OR r.n = cardinality(p_readings)
        ORDER BY k.is_opted_out DESC, k.wrote DESC, r.phone = p_readings[1] DESC, r.n
        LIMIT 1
    );
END
$$;

COMMENT ON FUNCTION _wa_known_reading(uuid, text[]) IS
'Internal: which of the numbers that a text may mean, as _wa_phone_readings() gives them, is somebody who is '
'known; NULL when none is.';

CREATE OR REPLACE FUNCTION _wa_read_phone(p_org uuid, p_phone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_readings text[];
BEGIN
    SELECT _wa_phone_readings(p_phone, o.default_region, o.default_area_code) INTO v_readings
    FROM wa_organizations o WHERE o.id = p_org;
    -- Most texts mean one number.
    IF v_readings[1] = p_phone OR v_readings[2:] <@ v_readings[1:1] THEN
        RETURN v_readings[1];
    END IF;
    RETURN coalesce(_wa_known_reading(p_org, v_readings), v_readings[1]);
END
$$;

COMMENT ON FUNCTION _wa_read_phone(uuid, text) IS
'Internal: a number as typed, in E.164: of its readings the contact who is known, else what the numbering '
'plans say; NULL for what is no number.';

-- Tells and changes nothing: which number was meant, only people know. Whoever wrote has the number that
-- WhatsApp told, hence is not looked at.
CREATE OR REPLACE FUNCTION find_misread_wa_phones(p_limit integer DEFAULT 10000)
RETURNS TABLE (
    organization_id uuid, contact_id bigint, phone_e164 text, probably_meant text, reason text,
    is_opted_out boolean
)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT c.organization_id, c.id, c.phone_e164, coalesce(d.meant, n.phone_e164),
        coalesce(d.reason, 'decimals were read as digits: there is a contact without the last 0'), EXISTS (
        SELECT FROM wa_opt_outs x
        WHERE x.organization_id = c.organization_id AND x.contact_id = c.id AND x.revoked_at IS NULL
    )
    FROM (
        SELECT k.organization_id, k.id, k.phone_e164 FROM wa_contacts k
        WHERE k.phone_e164 IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM wa_conversation_windows w
                WHERE w.organization_id = k.organization_id AND w.contact_id = k.id
                    AND w.last_customer_message_at IS NOT NULL
            )
            AND NOT EXISTS (
                SELECT FROM wa_contact_identities i
                WHERE i.organization_id = k.organization_id AND i.contact_id = k.id AND i.kind = 'phone'
                    AND i.value = k.phone_key AND i.source IN ('webhook', 'provider')
            )
        ORDER BY k.id DESC
        LIMIT p_limit
    ) c
    JOIN wa_organizations o ON o.id = c.organization_id
    CROSS JOIN LATERAL _wa_phone_doubt(c.phone_e164, o.default_region, o.default_area_code) d
    -- Where numbers differ in length, only another contact tells that one is a 0 too long.
    LEFT JOIN wa_contacts n ON n.organization_id = c.organization_id
        AND c.phone_e164 LIKE '%0' AND n.phone_key = _wa_phone_key(left(c.phone_e164, -1))
    WHERE d.reason IS NOT NULL OR n.id IS NOT NULL
    ORDER BY c.organization_id, c.id
$$;

COMMENT ON FUNCTION find_misread_wa_phones(integer) IS
'Contacts whose number looks misread by the rules of earlier releases: what was probably meant, why, and '
'whether an opt-out stands there that is to be given to the right number, too. Looks at the newest contacts '
'that never wrote, and changes nothing.';
