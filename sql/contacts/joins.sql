-- Two contacts that turn out to be one person, and people who change their number or user id.

-- Evidence decides who is who: a user id seen with a number belongs to that number's contact. Only where both
-- contacts have a number and a user id of their own are they two people, and the number has changed hands.
CREATE OR REPLACE FUNCTION _wa_join_contact(
    p_org uuid, p_phone text, p_user_id text, p_source text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_at timestamptz := coalesce(p_at, clock_timestamp());
    v_found record := _wa_look_up_contacts(p_org, ARRAY[_wa_phone_key(p_phone)], ARRAY[p_user_id],
        ARRAY[p_at]);
    v_by_phone wa_contacts;
    v_by_user wa_contacts;
BEGIN
    PERFORM FROM wa_contacts
    WHERE organization_id = p_org AND id IN (v_found.by_phone[1], v_found.by_user[1])
    ORDER BY id FOR UPDATE;
    SELECT * INTO v_by_phone FROM wa_contacts WHERE organization_id = p_org AND id = v_found.by_phone[1];
    SELECT * INTO v_by_user FROM wa_contacts WHERE organization_id = p_org AND id = v_found.by_user[1];
    IF v_by_phone.id = v_by_user.id THEN
        RETURN v_by_phone.id;
    ELSIF v_by_user.id IS NULL THEN
        PERFORM _wa_add_user_id(p_org, v_by_phone.id, p_user_id, p_source, v_at);
        RETURN v_by_phone.id;
    ELSIF v_by_phone.id IS NULL THEN
        PERFORM _wa_set_contact_phone(p_org, v_by_user.id, p_phone, p_source, v_at);
        RETURN v_by_user.id;
    ELSIF v_by_user.phone_key IS NULL THEN
        PERFORM _wa_merge_contacts(p_org, v_by_user.id, v_by_phone.id);
        RETURN v_by_phone.id;
    ELSIF v_by_phone.user_id IS NULL THEN
        PERFORM _wa_merge_contacts(p_org, v_by_phone.id, v_by_user.id);
    END IF;
    PERFORM _wa_set_contact_phone(p_org, v_by_user.id, p_phone, p_source, v_at);
    RETURN v_by_user.id;
END
$$;

COMMENT ON FUNCTION _wa_join_contact(uuid, text, text, text, timestamptz) IS
'Internal: makes one contact of a number and a user id that were seen together at p_at; returns it.';

CREATE OR REPLACE FUNCTION _wa_add_user_id(
    p_org uuid, p_contact_id bigint, p_user_id text, p_source text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_current text;
    v_since timestamptz;
BEGIN
    SELECT c.user_id, i.valid_from INTO v_current, v_since
    FROM wa_contacts c
    LEFT JOIN wa_contact_identities i ON i.organization_id = p_org AND i.kind = 'user_id'
        AND i.value = c.user_id
        AND i.is_current
    WHERE c.organization_id = p_org AND c.id = p_contact_id;
    -- Both stay findable: a person has another user id in each business portfolio.
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from, valid_to)
    VALUES (p_org, p_contact_id, 'user_id', p_user_id, p_source, p_at, CASE WHEN p_at < v_since
        THEN v_since END)
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    IF v_current IS NULL OR p_at >= v_since THEN
        UPDATE wa_contact_identities SET valid_to = p_at
        WHERE organization_id = p_org AND contact_id = p_contact_id AND kind = 'user_id' AND value = v_current
            AND is_current AND v_current <> p_user_id;
        UPDATE wa_contact_identities SET valid_to = NULL
        WHERE organization_id = p_org AND contact_id = p_contact_id AND kind = 'user_id' AND value = p_user_id
            AND is_current AND valid_to IS NOT NULL;
        UPDATE wa_contacts SET user_id = p_user_id, updated_at = clock_timestamp()
        WHERE organization_id = p_org AND id = p_contact_id AND user_id IS DISTINCT FROM p_user_id;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_add_user_id(uuid, bigint, text, text, timestamptz) IS
'Internal: gives a contact one more user id; the one seen last is the one written to.';

CREATE OR REPLACE FUNCTION _wa_set_contact_phone(
    p_org uuid, p_contact_id bigint, p_phone text, p_source text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_key text := _wa_phone_key(p_phone);
BEGIN
    -- Whoever had the number before, and what this contact had before, become history.
    UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
    WHERE organization_id = p_org AND kind = 'phone' AND is_current
        AND ((value = v_key AND contact_id <> p_contact_id)
            OR (value <> v_key AND contact_id = p_contact_id));
    UPDATE wa_contacts SET phone_e164 = NULL, phone_key = NULL, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND phone_key = v_key AND id <> p_contact_id;
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
    VALUES (p_org, p_contact_id, 'phone', v_key, p_source, p_at)
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    UPDATE wa_contacts SET phone_e164 = p_phone, phone_key = v_key, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_contact_id AND phone_key IS DISTINCT FROM v_key;
END
$$;

COMMENT ON FUNCTION _wa_set_contact_phone(uuid, bigint, text, text, timestamptz) IS
'Internal: gives a contact its number from p_at on; the former one no longer finds it for what comes later.';

CREATE OR REPLACE FUNCTION _wa_change_number(
    p_org uuid, p_old_phone text, p_old_user_id text, p_new_phone text, p_new_user_id text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found record := _wa_look_up_contacts(
        p_org, ARRAY[_wa_phone_key(p_old_phone), _wa_phone_key(p_new_phone)], ARRAY[p_old_user_id,
        p_new_user_id],
        ARRAY[p_at, p_at]
    );
    v_old bigint := coalesce(v_found.by_user[1], v_found.by_phone[1]);
    v_new bigint := coalesce(v_found.by_user[2], v_found.by_phone[2]);
BEGIN
    IF v_old IS NULL AND v_new IS NULL THEN
        SELECT r.contact_id INTO v_new
        FROM _wa_resolve_contacts(p_org, ARRAY[p_new_phone], ARRAY[p_new_user_id], 'webhook', ARRAY[p_at]) r;
    ELSIF v_new IS NULL THEN
        v_new := v_old;
    ELSIF v_old <> v_new THEN
        PERFORM _wa_merge_contacts(p_org, v_old, v_new);
    END IF;
    IF p_new_phone IS NOT NULL AND _wa_phone_key(p_new_phone) IS DISTINCT FROM _wa_phone_key(p_old_phone) THEN
        UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
        WHERE organization_id = p_org AND contact_id = v_new AND kind = 'phone'
            AND value = _wa_phone_key(p_old_phone)
            AND is_current;
        -- Webhooks that are still on their way from the old number must find the contact, too.
        IF NOT FOUND THEN
            INSERT INTO wa_contact_identities (
                organization_id, contact_id, kind, value, is_current, source, valid_from, valid_to
            )
            SELECT p_org, v_new, 'phone', _wa_phone_key(p_old_phone), false, 'webhook', p_at, p_at
            WHERE p_old_phone IS NOT NULL AND NOT EXISTS (
                SELECT FROM wa_contact_identities i
                WHERE i.organization_id = p_org AND i.contact_id = v_new AND i.kind = 'phone'
                    AND i.value = _wa_phone_key(p_old_phone) AND i.valid_to >= p_at
            );
        END IF;
        -- A later change may have been reported first: then the new number is history as well.
        IF NOT EXISTS (
            SELECT FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.contact_id = v_new AND i.kind = 'phone'
                AND i.value = _wa_phone_key(p_new_phone) AND NOT i.is_current AND i.valid_to >= p_at
        ) THEN
            PERFORM _wa_set_contact_phone(p_org, v_new, p_new_phone, 'webhook', p_at);
        END IF;
    END IF;
    IF p_old_user_id IS NOT NULL AND p_old_user_id IS DISTINCT FROM p_new_user_id THEN
        INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from,
            valid_to)
        VALUES (p_org, v_new, 'user_id', p_old_user_id, 'webhook', p_at - interval '1 second', p_at)
        ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    END IF;
    IF p_new_user_id IS NOT NULL THEN
        PERFORM _wa_add_user_id(p_org, v_new, p_new_user_id, 'webhook', p_at);
    END IF;
    RETURN v_new;
END
$$;

COMMENT ON FUNCTION _wa_change_number(uuid, text, text, text, text, timestamptz) IS
'Internal: a customer changed number or user id at p_at. Old and new become one contact, whichever was seen '
'first.';

CREATE OR REPLACE FUNCTION _wa_merge_contacts(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_from wa_contacts;
    v_from_is_newer boolean;
BEGIN
    IF p_from = p_into THEN
        RETURN;
    END IF;
    PERFORM FROM wa_contacts WHERE organization_id = p_org AND id IN (p_from, p_into) ORDER BY id FOR UPDATE;
    SELECT * INTO v_from FROM wa_contacts WHERE organization_id = p_org AND id = p_from;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    SELECT coalesce(
        max(m.provider_at) FILTER (WHERE m.contact_id = p_from)
        > coalesce(max(m.provider_at) FILTER (WHERE m.contact_id = p_into), '-infinity'),
        false
    )
    INTO v_from_is_newer
    FROM wa_messages m
    WHERE m.organization_id = p_org AND m.contact_id IN (p_from, p_into) AND m.direction = 'inbound'
        AND m.message_type <> 'system';

    UPDATE wa_contact_identities SET contact_id = p_into WHERE organization_id = p_org
        AND contact_id = p_from;

    -- What the rooms above hold of either. The queue finds some of its rows by their messages, so the ledger
    -- comes behind it.
    PERFORM _wa_merge_conversations_of(p_org, p_from, p_into);
    PERFORM _wa_merge_consent_of(p_org, p_from, p_into);
    PERFORM _wa_merge_campaigns_of(p_org, p_from, p_into);
    PERFORM _wa_merge_queue_of(p_org, p_from, p_into);
    PERFORM _wa_merge_ledger_of(p_org, p_from, p_into);
    PERFORM _wa_merge_sending_of(p_org, p_from, p_into);

    DELETE FROM wa_contacts WHERE organization_id = p_org AND id = p_from;
    UPDATE wa_contacts SET
        phone_e164 = coalesce(phone_e164, v_from.phone_e164),
        phone_key = coalesce(phone_key, v_from.phone_key),
        user_id = coalesce(user_id, v_from.user_id),
        parent_user_id = coalesce(parent_user_id, v_from.parent_user_id),
        wa_id = coalesce(wa_id, v_from.wa_id),
        profile_name = CASE WHEN v_from_is_newer THEN coalesce(v_from.profile_name, profile_name)
            ELSE coalesce(profile_name, v_from.profile_name) END,
        username = CASE WHEN v_from_is_newer THEN coalesce(v_from.username, username)
            ELSE coalesce(username, v_from.username) END,
        customer_id = coalesce(customer_id, v_from.customer_id),
        identity_hash = coalesce(identity_hash, v_from.identity_hash),
        created_at = least(created_at, v_from.created_at),
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_into;
    PERFORM _wa_audit(
        p_org, 'contact_merged', 'wa_contacts', p_into::text, jsonb_build_object('from', p_from)
    );
END
$$;

COMMENT ON FUNCTION _wa_merge_contacts(uuid, bigint, bigint) IS
'Internal: makes one contact of two; each room moves what it holds of the one that goes, whose id is '
'audited.';
