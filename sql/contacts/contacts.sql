-- Customers: found by telephone number or by business-scoped user id. wa_contact_identities is the one way
-- in; it holds telephone numbers as keys (see _wa_phone_key), so that every spelling finds the same contact.

CREATE OR REPLACE FUNCTION _wa_inbound_phone(p_id text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN p_id ~ '^\+?[0-9]{1,20}$' THEN '+' || ltrim(p_id, '+') END;

COMMENT ON FUNCTION _wa_inbound_phone(text) IS
'Internal: a provider''s wa_id as a number with +. Never refused by a numbering plan; NULL for what is no '
'number.';

CREATE OR REPLACE FUNCTION _wa_inbound_user_id(p_user_id text, p_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(nullif(p_user_id, ''), CASE WHEN _wa_inbound_phone(p_id) IS NULL THEN nullif(p_id, '') END);

COMMENT ON FUNCTION _wa_inbound_user_id(text, text) IS
'Internal: the user id of a webhook. A sender id that is no number is taken as one, rather than lost.';

-- A telephone number may be handed on to somebody else: its former holder still owns what was sent before
-- that. A user id never changes hands, so that it always finds its contact.
CREATE OR REPLACE FUNCTION _wa_look_up_contacts(
    p_org uuid, p_keys text[], p_user_ids text[], p_ats timestamptz[], OUT by_phone bigint[],
    OUT by_user bigint[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
    SELECT array_agg(i.contact_id ORDER BY k.n) INTO by_phone
    FROM unnest(p_keys) WITH ORDINALITY k (key, n)
    LEFT JOIN LATERAL (
        SELECT i.contact_id FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.value = k.key AND i.is_current LIMIT 1
    ) i ON true;
    IF num_nulls(VARIADIC p_user_ids) = cardinality(p_user_ids) THEN
        by_user := array_fill(NULL::bigint, ARRAY[cardinality(p_keys)]);
    ELSE
        SELECT array_agg(i.contact_id ORDER BY k.n) INTO by_user
        FROM unnest(p_user_ids) WITH ORDINALITY k (user_id, n)
        LEFT JOIN LATERAL (
            SELECT i.contact_id FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.kind = 'user_id' AND i.value = k.user_id AND i.is_current
                LIMIT 1
        ) i ON true;
    END IF;
    IF p_ats IS NOT NULL AND EXISTS (
        SELECT FROM unnest(p_keys) k (key)
        JOIN wa_contact_identities i
            ON i.organization_id = p_org AND i.kind = 'phone' AND i.value = k.key AND NOT i.is_current
    ) THEN
        SELECT array_agg(coalesce(f.contact_id, by_phone[k.n]) ORDER BY k.n) INTO by_phone
        FROM unnest(p_keys, p_ats) WITH ORDINALITY k (key, at, n)
        LEFT JOIN LATERAL (
            SELECT i.contact_id FROM wa_contact_identities i
            WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.value = k.key AND NOT i.is_current
                AND i.valid_to >= k.at
            ORDER BY i.valid_to
            LIMIT 1
        ) f ON true;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_look_up_contacts(uuid, text[], text[], timestamptz[]) IS
'Internal: the contacts that number keys and user ids find, in the order given. With times, a number finds '
'who had it then.';

CREATE OR REPLACE FUNCTION _wa_create_contacts(
    p_org uuid, p_phones text[], p_keys text[], p_user_ids text[], p_by_phone bigint[], p_by_user bigint[],
    p_source text, p_ats timestamptz[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
BEGIN
    -- Sorted, so that two statements that create the same contacts wait for each other in one direction
    -- only.
    INSERT INTO wa_contacts (organization_id, phone_e164, phone_key, user_id)
    SELECT p_org, min(f.phone), f.key, f.user_id
    FROM unnest(p_by_phone, p_by_user, p_phones, p_keys, p_user_ids)
        f (by_phone, by_user, phone, key, user_id)
    WHERE f.by_phone IS NULL AND f.by_user IS NULL AND num_nonnulls(f.key, f.user_id) > 0
    GROUP BY f.key, f.user_id
    ORDER BY num_nulls(f.key, f.user_id), f.key, f.user_id
    ON CONFLICT DO NOTHING;

    -- Read back rather than RETURNING: another transaction may have been first.
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
    SELECT p_org, c.id, 'phone', f.key, p_source, coalesce(min(f.at), clock_timestamp())
    FROM unnest(p_by_phone, p_keys, p_ats) f (by_phone, key, at)
    CROSS JOIN LATERAL (
        SELECT c.id FROM wa_contacts c WHERE c.organization_id = p_org AND c.phone_key = f.key LIMIT 1
    ) c
    WHERE f.by_phone IS NULL
    GROUP BY c.id, f.key
    ORDER BY f.key
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;

    IF num_nonnulls(VARIADIC p_user_ids) > 0 THEN
        INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
        SELECT p_org, c.id, 'user_id', f.user_id, p_source, coalesce(min(f.at), clock_timestamp())
        FROM unnest(p_by_user, p_user_ids, p_ats) f (by_user, user_id, at)
        CROSS JOIN LATERAL (
            SELECT c.id FROM wa_contacts c WHERE c.organization_id = p_org AND c.user_id = f.user_id
                LIMIT 1
        ) c
        WHERE f.by_user IS NULL
        GROUP BY c.id, f.user_id
        ORDER BY f.user_id
        ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_create_contacts(
    uuid, text[], text[], text[], bigint[], bigint[], text, timestamptz[]
) IS
'Internal: makes the contacts, and the ways to find them, of those numbers and user ids that found none.';

CREATE OR REPLACE FUNCTION _wa_resolve_contacts(
    p_org uuid, p_phones text[], p_user_ids text[], p_source text, p_ats timestamptz[] DEFAULT NULL,
    p_keys text[] DEFAULT NULL, p_wamids text[] DEFAULT NULL
) RETURNS TABLE (n integer, contact_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    v_keys text[] := coalesce(p_keys, ARRAY(
        SELECT _wa_phone_key(p.phone) FROM unnest(p_phones) WITH ORDINALITY p (phone, n) ORDER BY p.n
    ));
    v_user_ids text[] := coalesce(p_user_ids, array_fill(NULL::text, ARRAY[cardinality(p_phones)]));
    v_has_user_ids boolean := num_nonnulls(VARIADIC p_user_ids) > 0;
    v_found record;
    v_any record;
    v_told record;
    v_pair record;
BEGIN
    IF cardinality(p_phones) = 0 THEN
        RETURN;
    END IF;
    v_found := _wa_look_up_contacts(p_org, v_keys, v_user_ids, p_ats);
    SELECT
        bool_or(f.by_phone IS NULL AND f.by_user IS NULL AND num_nonnulls(f.key, f.user_id) > 0)
            AS is_missing,
        bool_or(f.key IS NOT NULL AND f.user_id IS NOT NULL AND f.by_phone IS DISTINCT FROM f.by_user)
            AS is_doubtful
    INTO v_any
    FROM unnest(v_found.by_phone, v_found.by_user, v_keys, v_user_ids) f (by_phone, by_user, key, user_id);
    IF p_wamids IS NOT NULL AND (v_any.is_missing OR v_any.is_doubtful) THEN
        -- What is told again is no news of anybody: it belongs to whom it was recorded for.
        SELECT count(m.n) AS count, array_agg(m.contact_id ORDER BY u.n) AS contact_ids,
            array_agg(CASE WHEN m.n IS NULL THEN u.phone END ORDER BY u.n) AS phones,
            array_agg(CASE WHEN m.n IS NULL THEN u.key END ORDER BY u.n) AS keys,
            array_agg(CASE WHEN m.n IS NULL THEN u.user_id END ORDER BY u.n) AS user_ids
        INTO v_told
        FROM unnest(p_wamids, p_phones, v_keys, v_user_ids) WITH ORDINALITY u (wamid, phone, key, user_id, n)
        LEFT JOIN LATERAL (
            SELECT u.n, x.contact_id FROM wa_messages x
            WHERE x.organization_id = p_org AND x.wa_message_id = u.wamid LIMIT 1
        ) m ON true;
        IF v_told.count > 0 THEN
            RETURN QUERY
            SELECT r.n, coalesce(v_told.contact_ids[r.n], r.contact_id)
            FROM _wa_resolve_contacts(
                p_org, v_told.phones, v_told.user_ids, p_source, p_ats, v_told.keys
            ) r;
            RETURN;
        END IF;
    END IF;
    IF v_any.is_missing THEN
        PERFORM _wa_create_contacts(
            p_org, p_phones, v_keys, v_user_ids, v_found.by_phone, v_found.by_user, p_source, p_ats
        );
        v_found := _wa_look_up_contacts(p_org, v_keys, v_user_ids, p_ats);
    END IF;

    IF v_any.is_doubtful OR v_any.is_missing AND v_has_user_ids THEN
        FOR v_pair IN
            SELECT f.phone, f.user_id, max(f.at) AS at
            FROM unnest(v_found.by_phone, v_found.by_user, p_phones, v_user_ids, p_ats)
                f (by_phone, by_user, phone, user_id, at)
            WHERE f.phone IS NOT NULL AND f.user_id IS NOT NULL AND f.by_phone IS DISTINCT FROM f.by_user
            GROUP BY f.phone, f.user_id
            ORDER BY max(f.at), f.phone, f.user_id
        LOOP
            PERFORM _wa_join_contact(p_org, v_pair.phone, v_pair.user_id, p_source, v_pair.at);
        END LOOP;
        IF FOUND THEN
            v_found := _wa_look_up_contacts(p_org, v_keys, v_user_ids, p_ats);
        END IF;
    END IF;

    RETURN QUERY
    SELECT f.n::integer, coalesce(f.by_user, f.by_phone)
    FROM unnest(v_found.by_phone, v_found.by_user) WITH ORDINALITY f (by_phone, by_user, n);
END
$$;

COMMENT ON FUNCTION _wa_resolve_contacts(uuid, text[], text[], text, timestamptz[], text[], text[]) IS
'Internal: the contact of each pair of number (E.164) and user id, either of which may be NULL; creates '
'what is missing and joins two contacts that turn out to be one. With times, a number finds who had it then. '
'p_keys: the _wa_phone_key() of each number, where the caller has it. p_wamids: the messages that name '
'them; what is in the ledger already makes and joins no contacts.';

CREATE OR REPLACE FUNCTION _wa_find_contact(p_org uuid, p_recipient text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint;
    v_phone text := p_recipient;
BEGIN
    IF _wa_is_user_id(p_recipient) THEN
        SELECT i.contact_id INTO v_id FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'user_id' AND i.value = p_recipient AND i.is_current;
        RETURN v_id;
    END IF;
    -- What is stored is found as it stands; only what people type has to be read first.
    FOR v_try IN 1..2 LOOP
        SELECT i.contact_id INTO v_id FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.kind = 'phone' AND i.value = _wa_phone_key(v_phone)
            AND i.is_current;
        EXIT WHEN v_id IS NOT NULL OR v_try = 2;
        v_phone := _wa_read_phone(p_org, p_recipient);
        EXIT WHEN v_phone IS NOT DISTINCT FROM p_recipient;
    END LOOP;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_find_contact(uuid, text) IS
'Internal: the contact with a telephone number, in any form that people type, or with a user id; NULL when '
'there is none.';

-- A set of at most one, so that it is inlined into a join: the queue's insert finds a contact for every row
-- with it.
CREATE OR REPLACE FUNCTION _wa_contact_of(p_org uuid, p_recipient text) RETURNS TABLE (contact_id bigint)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT i.contact_id FROM wa_contact_identities i
    WHERE i.organization_id = p_org AND i.is_current
        AND i.kind = CASE WHEN left(p_recipient, 1) = '+' THEN 'phone' ELSE 'user_id' END
        AND i.value = CASE WHEN left(p_recipient, 1) = '+' THEN _wa_phone_key(p_recipient)
            ELSE p_recipient END
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_contact_of(uuid, text) IS
'Internal: the contact of a number in E.164 or a user id; no row when there is none.';

-- A former number is nobody's way to a contact: somebody else may have it. Of user ids the one that an event
-- replaced (valid_to) is none either, though it still finds its contact.
CREATE OR REPLACE FUNCTION _wa_address_of(p_org uuid, p_contact_id bigint, p_address text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_phone boolean := left(p_address, 1) = '+';
BEGIN
    RETURN (
        SELECT CASE
            WHEN EXISTS (
                SELECT FROM wa_contact_identities i
                WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.is_current
                    AND i.kind = CASE WHEN v_is_phone THEN 'phone' ELSE 'user_id' END
                    AND i.value = CASE WHEN v_is_phone THEN _wa_phone_key(p_address) ELSE p_address END
                    AND (v_is_phone OR i.valid_to IS NULL)
            ) THEN p_address
            WHEN v_is_phone THEN coalesce(c.phone_e164, c.user_id)
            ELSE coalesce(c.user_id, c.phone_e164)
        END
        FROM wa_contacts c WHERE c.organization_id = p_org AND c.id = p_contact_id
    );
END
$$;

COMMENT ON FUNCTION _wa_address_of(uuid, bigint, text) IS
'Internal: where a contact is written to that had the given number or user id: there, if it still has it, '
'else at its present number or user id; NULL when it has none.';
