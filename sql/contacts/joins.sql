-- Who is who: two contacts that turn out to be one person, and people who change their number or user id.
--
-- A user id never changes hands; a number does, so that it alone makes no two contacts one:
--
-- * What names two user ids as one person's (previous_user_id and user_id) makes their contacts one.
-- * A number and a user id that are seen together belong together. A contact that has nothing but the number
--   and one that has nothing but the id become one. Otherwise the number goes over to the id's contact.
-- * A number that goes over, because its owner changed to it or was seen with it, takes its former contact
--   along only where no user ids tell the two apart and that contact both became known and wrote after the
--   change alone: its messages came before the news of it. In every other case they stay two.
-- * Where they stay two and no user ids say so, they may still be one: an opt-out of either holds for both.

-- Looks up and locks until both agree: another transaction may join the same contacts.
CREATE OR REPLACE FUNCTION _wa_lock_contacts(
    p_org uuid, p_phone text, p_user_id text, p_at timestamptz, p_contact_id bigint DEFAULT NULL,
    OUT by_phone bigint, OUT by_user bigint
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found record;
BEGIN
    LOOP
        v_found := _wa_look_up_contacts(
            p_org, ARRAY[_wa_phone_key(p_phone)], ARRAY[p_user_id], ARRAY[p_at]
        );
        EXIT WHEN v_found.by_phone[1] IS NOT DISTINCT FROM by_phone
            AND v_found.by_user[1] IS NOT DISTINCT FROM by_user;
        by_phone := v_found.by_phone[1];
        by_user := v_found.by_user[1];
        PERFORM FROM wa_contacts c
        WHERE c.organization_id = p_org AND c.id IN (by_phone, by_user, p_contact_id)
        ORDER BY c.id FOR UPDATE;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_lock_contacts(uuid, text, text, timestamptz, bigint) IS
'Internal: the contacts that a number (at a time) and a user id find, locked in the order of their ids, with '
'another one if it is given.';

CREATE OR REPLACE FUNCTION _wa_join_contact(
    p_org uuid, p_phone text, p_user_id text, p_source text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_at timestamptz := coalesce(p_at, clock_timestamp());
    v_found record := _wa_lock_contacts(p_org, p_phone, p_user_id, p_at);
    v_contact_id bigint := v_found.by_user;
BEGIN
    IF v_contact_id = v_found.by_phone THEN
        RETURN v_contact_id;
    ELSIF v_contact_id IS NULL THEN
        IF NOT _wa_is_another_user_id(p_org, v_found.by_phone, p_user_id) THEN
            PERFORM _wa_add_user_id(p_org, v_found.by_phone, p_user_id, p_source, v_at);
            RETURN v_found.by_phone;
        END IF;
        SELECT r.contact_id INTO v_contact_id
        FROM _wa_resolve_contacts(p_org, ARRAY[NULL::text], ARRAY[p_user_id], p_source, ARRAY[v_at]) r;
        -- No event tells of it: the number has a new owner, or its owner has registered anew.
        PERFORM _wa_share_opt_outs_of(p_org, v_found.by_phone, v_contact_id);
    ELSIF NOT EXISTS (
        SELECT FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND (
            i.contact_id = v_contact_id AND i.kind = 'phone'
            OR i.contact_id = v_found.by_phone AND i.kind = 'user_id' AND i.valid_to IS NULL
        )
    ) AND v_found.by_phone IS NOT NULL THEN
        PERFORM _wa_merge_contacts(p_org, v_contact_id, v_found.by_phone);
        RETURN v_found.by_phone;
    END IF;
    PERFORM _wa_take_number(p_org, v_contact_id, p_phone, p_source, v_at, true);
    RETURN v_contact_id;
END
$$;

COMMENT ON FUNCTION _wa_join_contact(uuid, text, text, text, timestamptz) IS
'Internal: a number and a user id were seen together at p_at: they belong to one contact from then on, which '
'is returned.';

-- The time rule. What has not written is somebody that we only know of: in doubt, another person.
CREATE OR REPLACE FUNCTION _wa_is_known_since(p_org uuid, p_contact_id bigint, p_key text, p_at timestamptz)
RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT NOT EXISTS (
        SELECT FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.kind = 'phone'
            AND i.value = p_key AND i.valid_from <= p_at
    ) AND coalesce((
        SELECT min(m.provider_at) > p_at FROM wa_messages m
        WHERE m.organization_id = p_org AND m.contact_id = p_contact_id AND m.direction = 'inbound'
    ), false)
$$;

COMMENT ON FUNCTION _wa_is_known_since(uuid, bigint, text, timestamptz) IS
'Internal: whether a contact became known by a number, and wrote, only after a time.';

CREATE OR REPLACE FUNCTION _wa_take_number(
    p_org uuid, p_contact_id bigint, p_phone text, p_source text, p_at timestamptz, p_has_user_id boolean
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_former_id bigint;
BEGIN
    FOR v_try IN 1..3 LOOP
        BEGIN
            v_former_id := (_wa_lock_contacts(p_org, p_phone, NULL, p_at, p_contact_id)).by_phone;
            IF v_former_id <> p_contact_id AND NOT (p_has_user_id AND EXISTS (
                SELECT FROM wa_contact_identities i
                WHERE i.organization_id = p_org AND i.contact_id = v_former_id AND i.kind = 'user_id'
                    AND i.valid_to IS NULL
            )) THEN
                IF _wa_is_known_since(p_org, v_former_id, _wa_phone_key(p_phone), p_at) THEN
                    PERFORM _wa_merge_contacts(p_org, v_former_id, p_contact_id);
                ELSE
                    PERFORM _wa_share_opt_outs_of(p_org, v_former_id, p_contact_id);
                END IF;
            END IF;
            PERFORM _wa_set_contact_phone(p_org, p_contact_id, p_phone, p_source, p_at);
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            -- A session that queues to the number made a contact of it after the look, which is seen from now
            -- on: wa_contacts_phone_key_key made us wait for it.
            IF v_try = 3 THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_take_number(uuid, bigint, text, text, timestamptz, boolean) IS
'Internal: a number is a contact''s from p_at on. Its former contact becomes one with it, or loses the '
'number. p_has_user_id: whether the user id is known that the contact has with this number.';

CREATE OR REPLACE FUNCTION _wa_set_contact_phone(
    p_org uuid, p_contact_id bigint, p_phone text, p_source text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_key text := _wa_phone_key(p_phone);
    -- What webhooks told of a later time stands: the number has gone on, or the contact to another one. Of
    -- others' words only their own time is known, not since when they hold.
    v_until timestamptz := (
        SELECT min(i.valid_from) FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.is_current AND i.valid_from > p_at
            AND (i.value = v_key) <> (i.contact_id = p_contact_id)
            AND i.source = 'webhook'
    );
    v_moved record;
BEGIN
    IF v_until IS NOT NULL THEN
        INSERT INTO wa_contact_identities (
            organization_id, contact_id, kind, value, is_current, source, valid_from, valid_to
        )
        VALUES (p_org, p_contact_id, 'phone', v_key, false, p_source, p_at, v_until);
        RETURN;
    END IF;
    SELECT array_agg(c.id) AS ids, array_agg(c.phone_e164) AS phones INTO v_moved
    FROM wa_contacts c
    WHERE c.organization_id = p_org
        AND (c.phone_key = v_key AND c.id <> p_contact_id OR c.id = p_contact_id AND c.phone_key <> v_key);
    -- Whoever had the number before, and what this contact had before, become history.
    UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
    WHERE organization_id = p_org AND kind = 'phone' AND is_current
        AND ((value = v_key AND contact_id <> p_contact_id)
            OR (value <> v_key AND contact_id = p_contact_id));
    UPDATE wa_contacts SET phone_e164 = NULL, phone_key = NULL, wa_id = NULL, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND phone_key = v_key AND id <> p_contact_id;
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
    VALUES (p_org, p_contact_id, 'phone', v_key, p_source, p_at)
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    UPDATE wa_contacts SET phone_e164 = p_phone, phone_key = v_key, wa_id = ltrim(p_phone, '+'),
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_contact_id AND phone_key IS DISTINCT FROM v_key;
    PERFORM _wa_readdress_flows_of(p_org, v_moved.ids, v_moved.phones);
END
$$;

COMMENT ON FUNCTION _wa_set_contact_phone(uuid, bigint, text, text, timestamptz) IS
'Internal: gives a contact its number from p_at on; the former one no longer finds it for what comes later. '
'Where a later time is known already, it becomes history.';

CREATE OR REPLACE FUNCTION _wa_change_number(
    p_org uuid, p_contact_id bigint, p_old_phone text, p_old_user_id text, p_new_phone text,
    p_new_user_id text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_id bigint := p_contact_id;
    v_has_new_phone boolean := p_new_phone IS NOT NULL
        AND _wa_phone_key(p_new_phone) IS DISTINCT FROM _wa_phone_key(p_old_phone);
    v_user_id text;
    v_other_id bigint;
BEGIN
    -- Added before they are looked up: who makes a contact of one meanwhile is waited for, and found.
    IF p_old_user_id IS NOT NULL THEN
        PERFORM _wa_add_user_id(p_org, v_contact_id, p_old_user_id, 'webhook', p_at - interval '1 second');
    END IF;
    IF p_new_user_id IS NOT NULL THEN
        PERFORM _wa_add_user_id(p_org, v_contact_id, p_new_user_id, 'webhook', p_at);
    END IF;
    FOREACH v_user_id IN ARRAY ARRAY[p_old_user_id, p_new_user_id] LOOP
        v_other_id := (_wa_lock_contacts(p_org, NULL, v_user_id, p_at)).by_user;
        IF v_other_id <> v_contact_id THEN
            PERFORM _wa_follow_user_id(p_org, v_contact_id, v_other_id, p_at);
            v_contact_id := v_other_id;
        END IF;
    END LOOP;
    -- The id changes with the number, so that the ones before are replaced even where no new one is named.
    UPDATE wa_contact_identities SET valid_to = p_at
    WHERE organization_id = p_org AND contact_id = v_contact_id AND kind = 'user_id' AND valid_to IS NULL
        AND value IS DISTINCT FROM p_new_user_id
        AND (value = p_old_user_id OR valid_from < p_at AND (
            v_has_new_phone OR p_old_user_id IS NULL AND p_new_user_id IS NOT NULL
        ));
    PERFORM _wa_choose_user_id(p_org, v_contact_id);
    IF NOT v_has_new_phone THEN
        RETURN v_contact_id;
    END IF;
    UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
    WHERE organization_id = p_org AND contact_id = v_contact_id AND kind = 'phone'
        AND value = _wa_phone_key(p_old_phone)
        AND is_current;
    -- Webhooks that are still on their way from the old number must find the contact, too.
    IF NOT FOUND THEN
        INSERT INTO wa_contact_identities (
            organization_id, contact_id, kind, value, is_current, source, valid_from, valid_to
        )
        SELECT p_org, v_contact_id, 'phone', _wa_phone_key(p_old_phone), false, 'webhook', p_at, p_at
        WHERE p_old_phone IS NOT NULL AND NOT EXISTS (
            SELECT FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.contact_id = v_contact_id AND i.kind = 'phone'
                AND i.value = _wa_phone_key(p_old_phone) AND i.valid_to >= p_at
        );
    END IF;
    -- A later change may have been reported first: then the new number is history as well.
    IF NOT EXISTS (
        SELECT FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.contact_id = v_contact_id AND i.kind = 'phone'
            AND i.value = _wa_phone_key(p_new_phone) AND NOT i.is_current AND i.valid_to >= p_at
    ) THEN
        PERFORM _wa_take_number(
            p_org, v_contact_id, p_new_phone, 'webhook', p_at, p_new_user_id IS NOT NULL
        );
    END IF;
    RETURN v_contact_id;
END
$$;

COMMENT ON FUNCTION _wa_change_number(uuid, bigint, text, text, text, text, timestamptz) IS
'Internal: a contact changed number or user id at p_at; any of the old and new ones may be unknown (NULL). '
'Returns the contact, which may be another one now.';

CREATE OR REPLACE FUNCTION _wa_follow_user_id(p_org uuid, p_from bigint, p_into bigint, p_at timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_former_phone text;
BEGIN
    -- The new user id is known with the new number already.
    IF EXISTS (
        SELECT FROM wa_contacts c
        WHERE c.organization_id = p_org AND c.id = p_into AND c.phone_key IS NOT NULL
    ) THEN
        SELECT c.phone_e164 INTO v_former_phone FROM wa_contacts c
        WHERE c.organization_id = p_org AND c.id = p_from;
        UPDATE wa_contact_identities SET is_current = false, valid_to = p_at
        WHERE organization_id = p_org AND contact_id = p_from AND kind = 'phone' AND is_current;
    END IF;
    PERFORM _wa_merge_contacts(p_org, p_from, p_into);
    PERFORM _wa_readdress_flows_of(p_org, ARRAY[p_into], ARRAY[v_former_phone]);
END
$$;

COMMENT ON FUNCTION _wa_follow_user_id(uuid, bigint, bigint, timestamptz) IS
'Internal: makes one contact of two whose user ids an event names as one person''s; of their numbers the new '
'one''s stays.';

-- An answer says that two numbers are one account. Where both contacts have written, or have a user id, each
-- is somebody: then the answer proves nothing, and in doubt they stay two.
CREATE OR REPLACE FUNCTION _wa_learn_wa_id(
    p_org uuid, p_contact_ids bigint[], p_phones text[], p_wa_ids text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_alias record;
BEGIN
    FOR v_alias IN
        SELECT DISTINCT ON (c.id, k.key) c.id, k.key, l.wa_id, i.contact_id AS other_id, l.phone AS dialled
        FROM unnest(p_contact_ids, p_phones, p_wa_ids) WITH ORDINALITY l (contact_id, phone, wa_id, n)
        JOIN wa_contacts c ON c.organization_id = p_org AND c.id = l.contact_id
        CROSS JOIN LATERAL (SELECT _wa_phone_key(_wa_inbound_phone(l.wa_id)) AS key) k
        LEFT JOIN wa_contact_identities i ON i.organization_id = p_org AND i.kind = 'phone' AND i.is_current
            AND i.value = k.key
        -- What was under way while the contact changed its number tells nothing of the contact.
        WHERE k.key IS NOT NULL AND _wa_address_of(p_org, c.id, l.phone) = l.phone
        ORDER BY c.id, k.key, l.n DESC
    LOOP
        IF left(v_alias.dialled, 1) <> '+' THEN
            -- A user id was written to, and the answer names its number.
            PERFORM _wa_join_contact(
                p_org, _wa_inbound_phone(v_alias.wa_id), v_alias.dialled, 'provider', clock_timestamp()
            );
            CONTINUE;
        ELSIF v_alias.other_id IS NULL THEN
            INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source)
            VALUES (p_org, v_alias.id, 'phone', v_alias.key, 'provider')
            ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
        ELSIF v_alias.other_id <> v_alias.id THEN
            IF _wa_is_somebody(p_org, v_alias.id) AND _wa_is_somebody(p_org, v_alias.other_id) THEN
                PERFORM _wa_share_opt_outs_of(p_org, v_alias.id, v_alias.other_id);
                CONTINUE;
            END IF;
            PERFORM _wa_merge_contacts(p_org, v_alias.other_id, v_alias.id);
        END IF;
        UPDATE wa_contacts SET wa_id = v_alias.wa_id, updated_at = clock_timestamp()
        WHERE organization_id = p_org AND id = v_alias.id AND wa_id IS DISTINCT FROM v_alias.wa_id;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_learn_wa_id(uuid, bigint[], text[], text[]) IS
'Internal: records the ids that the provider answered for contacts and the numbers that were dialled; each '
'finds its contact from then on.';

CREATE OR REPLACE FUNCTION _wa_is_somebody(p_org uuid, p_contact_id bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.kind = 'user_id'
    ) OR EXISTS (
        SELECT FROM wa_messages m
        WHERE m.organization_id = p_org AND m.contact_id = p_contact_id AND m.direction = 'inbound'
    )
$$;

COMMENT ON FUNCTION _wa_is_somebody(uuid, bigint) IS
'Internal: whether a contact is more than a number that somebody dialled: it has a user id, or has written.';

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
    -- That either had the other's number for a while is no history, unless somebody else had it meanwhile.
    DELETE FROM wa_contact_identities f
    USING wa_contact_identities i
    WHERE f.organization_id = p_org AND f.contact_id = p_into AND f.kind = 'phone' AND NOT f.is_current
        AND i.organization_id = p_org AND i.contact_id = p_into AND i.kind = 'phone' AND i.is_current
        AND i.value = f.value
        AND NOT EXISTS (
            SELECT FROM wa_contact_identities o
            WHERE o.organization_id = p_org AND o.kind = 'phone' AND NOT o.is_current AND o.value = f.value
                AND o.contact_id <> p_into
        );

    -- What the rooms above hold of either. The queue finds some of its rows by their messages, so the ledger
    -- comes behind it.
    PERFORM _wa_merge_conversations_of(p_org, p_from, p_into);
    PERFORM _wa_merge_consent_of(p_org, p_from, p_into);
    PERFORM _wa_merge_campaigns_of(p_org, p_from, p_into);
    PERFORM _wa_merge_flows_of(p_org, p_from, p_into);
    PERFORM _wa_merge_queue_of(p_org, p_from, p_into);
    PERFORM _wa_merge_ledger_of(p_org, p_from, p_into);
    PERFORM _wa_merge_sending_of(p_org, p_from, p_into);
    PERFORM _wa_merge_hours_of(p_org, p_from, p_into);
    PERFORM _wa_merge_archive_of(p_org, p_from, p_into);
    PERFORM _wa_merge_privacy_of(p_org, p_from, p_into);

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
        time_zone = coalesce(time_zone, _wa_known_zone(v_from.time_zone)),
        created_at = least(created_at, v_from.created_at),
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_into;
    PERFORM _wa_choose_user_id(p_org, p_into);
    PERFORM _wa_audit(
        p_org, 'contact_merged', 'wa_contacts', p_into::text, jsonb_build_object('from', p_from)
    );
END
$$;

COMMENT ON FUNCTION _wa_merge_contacts(uuid, bigint, bigint) IS
'Internal: makes one contact of two; each room moves what it holds of the one that goes, whose id is '
'audited.';
