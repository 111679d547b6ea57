-- Conversations as the HTTP API shows them: a list to choose from, and one with its messages.

-- A cursor is the place of the last row that was shown, hidden from those who would reckon with it.
CREATE OR REPLACE FUNCTION _wa_open_cursor(p_cursor text, p_form text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_place text;
BEGIN
    IF p_cursor IS NULL THEN
        RETURN NULL;
    END IF;
    BEGIN
        v_place := convert_from(decode(translate(p_cursor, '-_', '+/'), 'base64'), 'UTF8');
    EXCEPTION WHEN invalid_parameter_value OR character_not_in_repertoire OR untranslatable_character THEN
        v_place := NULL;
    END;
    IF v_place !~ format('^wa1:%s$', p_form) OR v_place IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'that is no cursor of ours',
            DETAIL = format('It has %s characters.', length(p_cursor)),
            HINT = 'Take the one of the answer before, as it is, or leave it away to begin.';
    END IF;
    RETURN substr(v_place, 5);
END
$$;

COMMENT ON FUNCTION _wa_open_cursor(text, text) IS
'Internal: the place that a cursor stands for, which has the form of a regular expression; raises 22023 for '
'another text.';

CREATE OR REPLACE FUNCTION _wa_read_cursor(p_cursor text) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
RETURN _wa_open_cursor(p_cursor, '[0-9]{1,18}')::bigint;

COMMENT ON FUNCTION _wa_read_cursor(text) IS
'Internal: the number of a row that a cursor stands for; raises 22023 for another text.';

CREATE OR REPLACE FUNCTION _wa_write_cursor(p_place text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(encode(convert_to('wa1:' || p_place, 'UTF8'), 'base64'), E'+/\n', '-_');

COMMENT ON FUNCTION _wa_write_cursor(text) IS 'Internal: a place as a cursor.';

CREATE OR REPLACE FUNCTION _wa_require_page(p_limit integer, p_most integer) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND p_most THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('limit must be 1 to %s, not %s', p_most, coalesce(p_limit::text, 'NULL')),
            DETAIL = 'It is the number of rows of a page.',
            HINT = 'The answer''s "next" leads to the following page.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_page(integer, integer) IS
'Internal: raises 22023 for a page that is larger than pages may be; none is cut in silence.';

CREATE OR REPLACE FUNCTION _wa_conversation_json(
    p_conversation wa_conversations, p_last wa_messages
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN jsonb_build_object(
    'id', (p_conversation).id, 'phone', (p_conversation).phone_e164, 'user_id', (p_conversation).user_id,
    'customer_name', (p_conversation).customer_name, 'phone_number_id', (p_conversation).phone_number_id,
    'state', (p_conversation).state, 'unread_count', (p_conversation).unread_count,
    'assigned_to', (p_conversation).assigned_to,
    'is_within_24h', (p_conversation).is_within_24h, 'is_sendable', (p_conversation).is_sendable,
    'window_expires_at', (p_conversation).window_expires_at,
    'last_customer_message_at', (p_conversation).last_customer_message_at,
    'last_business_message_at', (p_conversation).last_business_message_at,
    'last_message', CASE WHEN (p_last).id IS NOT NULL THEN jsonb_build_object(
        'id', (p_last).id, 'direction', (p_last).direction, 'type', (p_last).message_type,
        'text', left((p_last).content_text, 200), 'state', (p_last).state, 'created_at', (p_last).created_at
    ) END
);

COMMENT ON FUNCTION _wa_conversation_json(wa_conversations, wa_messages) IS
'Internal: a conversation with its latest message as the HTTP API shows it.';

-- Who is meant by a search: a number, a beginning of one, a part of a name, or words of a message.
CREATE OR REPLACE FUNCTION _wa_search_contacts(p_org uuid, p_search text) RETURNS bigint[]
LANGUAGE sql STABLE SET search_path FROM CURRENT SET standard_conforming_strings = on
AS $$
    WITH wanted AS (
        SELECT replace(replace(replace(lower(p_search), '\', '\\'), '%', '\%'), '_', '\_') AS pattern,
            nullif(regexp_replace(p_search, '[^0-9]', '', 'g'), '') AS digits
    )
    SELECT ARRAY(
        SELECT _wa_find_contact(p_org, p_search) WHERE p_search ~ '^[+0-9][0-9 ().-]{6,}$'
        UNION
        (
            SELECT c.id FROM wa_contacts c CROSS JOIN wanted w
            WHERE c.organization_id = p_org
                AND (lower(c.profile_name) LIKE '%' || w.pattern || '%'
                    OR lower(c.username) LIKE w.pattern || '%'
                    OR (p_search ~ '^[+0-9 ().-]+$' AND length(w.digits) >= 3
                        AND c.phone_e164 LIKE '%' || w.digits || '%'))
            ORDER BY c.id DESC LIMIT 1000
        )
        UNION
        (
            SELECT m.contact_id FROM wa_messages m
            WHERE m.organization_id = p_org AND m.contact_id IS NOT NULL AND m.content_text IS NOT NULL
                AND to_tsvector('simple', m.content_text) @@ websearch_to_tsquery('simple', p_search)
            ORDER BY m.id DESC LIMIT 1000
        )
    )
$$;

COMMENT ON FUNCTION _wa_search_contacts(uuid, text) IS
'Internal: contacts with that number or a part of it, a name that contains the text, or one of the latest '
'thousand messages with its words.';

-- By the latest message of each, from the newest on: no index changes with every message.
CREATE OR REPLACE FUNCTION search_wa_conversations(
    p_search text DEFAULT NULL, p_state text DEFAULT NULL, p_is_unread boolean DEFAULT NULL,
    p_phone_number_id text DEFAULT NULL, p_closing_within interval DEFAULT NULL,
    p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL, p_assigned_to text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET standard_conforming_strings = on
AS $$
DECLARE
    c_most CONSTANT integer := 200;
    v_org uuid := current_wa_organization();
    v_before bigint := coalesce(_wa_read_cursor(p_cursor), 9223372036854775807);
    v_now timestamptz := clock_timestamp();
    v_contacts bigint[];
    v_items jsonb := '[]';
    v_place bigint;
    v_row record;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    IF p_state NOT IN ('active', 'waiting', 'completed', 'expired') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('no state of a conversation is called "%s"', left(p_state, 100)),
            DETAIL = 'It is what the list is narrowed to.',
            HINT = 'There are active, waiting, completed and expired.';
    END IF;
    IF p_search ~ '\S' THEN
        v_contacts := _wa_search_contacts(v_org, btrim(left(p_search, 200)));
    END IF;
    FOR v_row IN
        SELECT m.id, _wa_conversation_json(c, m) AS item
        FROM wa_messages m
        JOIN wa_conversations c
            ON c.organization_id = v_org AND c.contact_id = m.contact_id AND c.number_id = m.number_id
        WHERE m.organization_id = v_org AND m.id < v_before
            AND (v_contacts IS NULL OR m.contact_id = ANY (v_contacts))
            AND NOT EXISTS (
                SELECT FROM wa_messages l
                WHERE l.organization_id = v_org AND l.contact_id = m.contact_id AND l.number_id = m.number_id
                    AND l.id > m.id
            )
            AND (p_state IS NULL OR c.state = p_state)
            AND (p_is_unread IS NULL OR (c.unread_count > 0) = p_is_unread)
            AND (p_phone_number_id IS NULL OR c.phone_number_id = p_phone_number_id)
            AND (p_assigned_to IS NULL OR coalesce(c.assigned_to, '') = p_assigned_to)
            AND (p_closing_within IS NULL
                OR (c.is_within_24h AND c.window_expires_at <= v_now + p_closing_within))
            AND (NOT _wa_is_test_only() OR c.number_id IN (
                SELECT n.id FROM wa_phone_numbers n WHERE n.organization_id = v_org AND n.is_test))
        ORDER BY m.id DESC
        LIMIT p_limit + 1
    LOOP
        IF jsonb_array_length(v_items) = p_limit THEN
            RETURN jsonb_build_object('conversations', v_items, 'next', _wa_write_cursor(v_place::text));
        END IF;
        v_items := v_items || v_row.item;
        v_place := v_row.id;
    END LOOP;
    RETURN jsonb_build_object('conversations', v_items, 'next', NULL);
END
$$;

COMMENT ON FUNCTION search_wa_conversations(text, text, boolean, text, interval, integer, text, text) IS
'Conversations, that with the latest message first: those whose number, name or messages fit p_search, in a'
' state, with unread messages or without, of one business number, whose window closes within a time, or that '
'a user looks after (the empty text: nobody). A '
'page of at most 200, and the cursor of the next one.';

CREATE OR REPLACE FUNCTION get_wa_conversation(
    p_phone text, p_limit integer DEFAULT 50, p_cursor text DEFAULT NULL, p_phone_number_id text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 500;
    v_org uuid := current_wa_organization();
    v_contact_id bigint := _wa_find_contact(v_org, p_phone);
    v_before bigint := coalesce(_wa_read_cursor(p_cursor), 9223372036854775807);
    v_messages jsonb;
    v_place bigint;
    v_count integer;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    IF v_contact_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = 'no conversation with this customer',
            DETAIL = format('Asked for was %s.', _wa_mask_phone(p_phone)),
            HINT = 'Write + and the country code; a customer is known from the first message on.';
    END IF;
    SELECT jsonb_agg(_wa_message_json(m.message) ORDER BY m.n) FILTER (WHERE m.n <= p_limit),
        min((m.message).id) FILTER (WHERE m.n <= p_limit), count(*)
    INTO v_messages, v_place, v_count
    FROM (
        SELECT x AS message, row_number() OVER (ORDER BY x.id DESC) AS n
        FROM wa_messages x
        WHERE x.organization_id = v_org AND x.contact_id = v_contact_id AND x.id < v_before
            AND (p_phone_number_id IS NULL OR x.phone_number_id = p_phone_number_id)
            AND (NOT _wa_is_test_only() OR x.number_id IN (
                SELECT n.id FROM wa_phone_numbers n WHERE n.organization_id = v_org AND n.is_test))
        ORDER BY x.id DESC
        LIMIT p_limit + 1
    ) m;
    RETURN jsonb_build_object(
        'conversations', (
            SELECT coalesce(jsonb_agg(_wa_conversation_json(c, NULL) ORDER BY c.id), '[]')
            FROM wa_conversations c
            WHERE c.organization_id = v_org AND c.contact_id = v_contact_id
                AND (p_phone_number_id IS NULL OR c.phone_number_id = p_phone_number_id)
                AND (NOT _wa_is_test_only() OR c.number_id IN (
                    SELECT n.id FROM wa_phone_numbers n WHERE n.organization_id = v_org AND n.is_test))
        ),
        'messages', coalesce(v_messages, '[]'),
        'next', CASE WHEN v_count > p_limit THEN _wa_write_cursor(v_place::text) END
    );
END
$$;

COMMENT ON FUNCTION get_wa_conversation(text, integer, text, text) IS
'What was said with a customer, newest first, a page of at most 500 and the cursor of the next one; and the'
' conversations that the customer has, one a business number. Raises P0002 for one who is not known.';
