-- What contacts hold of a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_identities_of(
    p_org uuid, p_contact_id bigint, OUT addresses text[], OUT who text[]
)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT array_agg(DISTINCT a.address), array_agg(DISTINCT ltrim(a.address, '+'))
    FROM (
        SELECT unnest(CASE WHEN i.kind = 'phone' THEN _wa_phone_spellings(i.value) ELSE ARRAY[i.value] END)
        FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id
            -- A parent's id is its business's, and others have it, too.
            AND i.kind IN ('phone', 'user_id') AND i.value !~ '^erased:'
            -- Somebody else's by now: what is found by it may be theirs.
            AND (i.is_current OR NOT EXISTS (
                SELECT FROM wa_contact_identities o
                WHERE o.organization_id = p_org AND o.kind = i.kind AND o.value = i.value
                    AND o.contact_id <> p_contact_id
            ))
        UNION
        SELECT unnest(ARRAY[c.phone_e164, _wa_inbound_phone(c.wa_id), c.user_id])
        FROM wa_contacts c WHERE c.organization_id = p_org AND c.id = p_contact_id
        UNION
        -- Of a contact that is erased already: what was recorded since.
        SELECT unnest(ARRAY[m.phone_e164, m.user_id])
        FROM wa_messages m
        WHERE m.contact_id = p_contact_id AND m.organization_id = p_org AND NOT EXISTS (
            SELECT FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.value !~ '^erased:'
        )
    ) a (address)
    WHERE length(a.address) > 6
$$;

COMMENT ON FUNCTION _wa_identities_of(uuid, bigint) IS
'Internal: by what a contact is or was known: addresses as the queue has them, and the same without + as '
'webhooks tell them. A number that went over to somebody else is not among them.';

CREATE OR REPLACE FUNCTION _wa_erase_contact_of(p_org uuid, p_contact_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    -- The row stays, since proofs and figures point to it, and is found by nothing any more.
    UPDATE wa_contact_identities i SET
        value = 'erased:' || i.id, is_current = false, valid_to = coalesce(i.valid_to, clock_timestamp())
    WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.value !~ '^erased:';
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    UPDATE wa_contacts c SET
        phone_e164 = NULL, phone_key = NULL, wa_id = NULL, user_id = NULL, parent_user_id = NULL,
        customer_id = NULL, identity_hash = NULL, profile_name = NULL, username = NULL,
        time_zone = NULL,
        updated_at = clock_timestamp()
    WHERE c.organization_id = p_org AND c.id = p_contact_id;
    RETURN v_rows + 1;
END
$$;

COMMENT ON FUNCTION _wa_erase_contact_of(uuid, bigint) IS
'Internal: empties a contact and what it was found by; returns how many rows.';

CREATE OR REPLACE FUNCTION _wa_export_contact_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'contact', to_jsonb(c) - 'organization_id',
        'identities', (
            SELECT coalesce(jsonb_agg(to_jsonb(i) - 'organization_id' ORDER BY i.id), '[]')
            FROM wa_contact_identities i WHERE i.organization_id = p_org AND i.contact_id = p_contact_id
        )
    )
    FROM wa_contacts c WHERE c.organization_id = p_org AND c.id = p_contact_id
$$;

COMMENT ON FUNCTION _wa_export_contact_of(uuid, bigint) IS
'Internal: who a contact is, and by what it was known.';
