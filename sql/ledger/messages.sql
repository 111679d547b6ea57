-- Messages: recording what webhooks tell, and reading.

-- Plans are kept from a time when the table may have been empty, and = ANY (ids) looks dear then beside a
-- walk through any index that has the organization in it. One look-up by key for each id never does.
CREATE OR REPLACE FUNCTION _wa_messages_of(p_org uuid, p_ids bigint[]) RETURNS SETOF wa_messages
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.* FROM unnest(p_ids) u (id)
    CROSS JOIN LATERAL (
        SELECT w.* FROM wa_messages w WHERE w.organization_id = p_org AND w.id = u.id LIMIT 1
    ) m;
END;

COMMENT ON FUNCTION _wa_messages_of(uuid, bigint[]) IS 'Internal: messages, each looked up by its key.';

-- Only its row type is used: a message or call as a webhook tells it, in the arrays that recording takes.
-- phone is the customer's number as told, phone_key its _wa_phone_key().
CREATE OR REPLACE VIEW _wa_told_messages AS
SELECT
    NULL::text AS direction, NULL::bigint AS number_id, NULL::text AS phone_number_id,
    NULL::bigint AS contact_id, NULL::text AS phone, NULL::text AS phone_key, NULL::text AS user_id,
    NULL::text AS group_id, NULL::text AS wa_message_id, NULL::text AS message_type, NULL::jsonb AS content,
    NULL::text AS content_text, NULL::text AS reply_to, NULL::jsonb AS referral, NULL::integer AS error_code,
    NULL::text AS error_title, NULL::text AS error_message, NULL::jsonb AS metadata, NULL::timestamptz AS at
WHERE false;

COMMENT ON VIEW _wa_told_messages IS
'Internal: the shape of a message that is to be recorded. Never has rows.';

-- A set of one row, so that it is inlined into a join. LIMIT keeps each a look-up by its index, whatever the
-- statistics say while the tables grow.
CREATE OR REPLACE FUNCTION _wa_party(p_org uuid, p_contact_id bigint, p_phone text, p_phone_key text)
RETURNS TABLE (contact_id bigint, customer_id text, phone_e164 text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT c.id, c.customer_id, CASE WHEN i.contact_id = c.id THEN c.phone_e164 ELSE p_phone END
    FROM (SELECT p_contact_id AS id) x
    LEFT JOIN LATERAL (
        SELECT k.id, k.customer_id, k.phone_e164 FROM wa_contacts k
        WHERE k.organization_id = p_org AND k.id = x.id LIMIT 1
    ) c ON true
    LEFT JOIN LATERAL (
        SELECT k.contact_id FROM wa_contact_identities k
        WHERE k.organization_id = p_org AND k.kind = 'phone' AND k.is_current AND k.value = p_phone_key
        LIMIT 1
    ) i ON true;
END;

COMMENT ON FUNCTION _wa_party(uuid, bigint, text, text) IS
'Internal: what the ledger says of a customer. His number is in the spelling under which the contact is '
'known, so that ledger and conversations join by it.';

CREATE OR REPLACE FUNCTION _wa_record_messages(p_org uuid, p_messages _wa_told_messages[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_new record;
BEGIN
    WITH recorded AS (
        INSERT INTO wa_messages (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            group_id, wa_message_id, direction, message_type, content, content_text, status, state, is_echo,
            reply_to, referral, error_code, error_title, error_message, metadata, sent_at, provider_at
        )
        SELECT
            p_org, m.number_id, m.phone_number_id, c.contact_id, c.customer_id, c.phone_e164, m.user_id,
            m.group_id, m.wa_message_id, m.direction, m.message_type, m.content, m.content_text, s.state,
            s.state, m.direction = 'outbound', m.reply_to, m.referral, m.error_code, m.error_title,
            m.error_message, m.metadata, CASE WHEN m.direction = 'outbound' THEN m.at END, m.at
        FROM unnest(p_messages) m
        CROSS JOIN LATERAL (
            SELECT CASE m.direction WHEN 'inbound' THEN 'received' ELSE 'sent' END AS state
        ) s
        CROSS JOIN LATERAL _wa_party(p_org, m.contact_id, m.phone, m.phone_key) c
        ON CONFLICT (organization_id, wa_message_id) DO NOTHING
        RETURNING id, phone_number_id, contact_id, direction, message_type, content, state, provider_at
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, r.state, r.provider_at FROM recorded r ORDER BY r.id
    )
    SELECT array_agg(r.id) AS ids, array_agg(r.id) FILTER (WHERE f.is_file) AS filed,
        array_agg(r.contact_id) FILTER (WHERE f.is_file) AS contact_ids,
        array_agg(r.direction) FILTER (WHERE f.is_file) AS directions,
        array_agg(r.phone_number_id) FILTER (WHERE f.is_file) AS phone_number_ids,
        array_agg(r.message_type) FILTER (WHERE f.is_file) AS types,
        array_agg(r.content) FILTER (WHERE f.is_file) AS contents
    INTO v_new
    FROM recorded r
    CROSS JOIN LATERAL (
        SELECT r.message_type IN ('image', 'video', 'audio', 'document', 'sticker')
            AND r.content ->> 'id' <> '' AS is_file
    ) f;
    IF v_new.filed IS NOT NULL THEN
        PERFORM _wa_file_media(
            p_org, v_new.filed, v_new.contact_ids, v_new.directions, v_new.phone_number_ids, v_new.types,
            v_new.contents
        );
    END IF;
    IF v_new.ids IS NOT NULL THEN
        PERFORM _wa_mark_amended(p_org, v_new.ids);
    END IF;
    RETURN v_new.ids;
END
$$;

COMMENT ON FUNCTION _wa_record_messages(uuid, _wa_told_messages[]) IS
'Internal: records messages of customers (inbound) and messages that the business sent from the WhatsApp '
'Business app (outbound), each once, with their files and events, and marks what they amend. Returns the new '
'ones; NULL if none is.';

-- A call is one row, under its id; what is told of it at its start and at its end comes together in its
-- content. The window runs from the start of the customer's call, as Meta counts it.
CREATE OR REPLACE FUNCTION _wa_record_calls(p_org uuid, p_calls _wa_told_messages[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_known text[] := ARRAY(
        SELECT m.wa_message_id FROM unnest(p_calls) k
        JOIN wa_messages m ON m.organization_id = p_org AND m.wa_message_id = k.wa_message_id
        WHERE m.content ? 'connect'
    );
    v_started bigint[];
BEGIN
    WITH recorded AS (
        INSERT INTO wa_messages AS m (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            wa_message_id, direction, message_type, content, status, state, sent_at, provider_at
        )
        SELECT
            p_org, k.number_id, k.phone_number_id, c.contact_id, c.customer_id, c.phone_e164, k.user_id,
            k.wa_message_id, k.direction, k.message_type, k.content, s.state, s.state,
            CASE WHEN k.direction = 'outbound' THEN k.at END, k.at
        FROM unnest(p_calls) k
        CROSS JOIN LATERAL (
            SELECT CASE k.direction WHEN 'inbound' THEN 'received' ELSE 'sent' END AS state
        ) s
        CROSS JOIN LATERAL _wa_party(p_org, k.contact_id, k.phone, k.phone_key) c
        WHERE c.contact_id IS NOT NULL
        ORDER BY k.at, k.wa_message_id
        ON CONFLICT (organization_id, wa_message_id) DO UPDATE SET
            content = m.content || excluded.content, provider_at = least(m.provider_at, excluded.provider_at),
            sent_at = least(m.sent_at, excluded.sent_at), updated_at = clock_timestamp()
        WHERE NOT m.content @> excluded.content
        RETURNING m.id, m.wa_message_id, m.status, m.provider_at, m.content, m.xmax = 0 AS is_new
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, r.status, r.provider_at FROM recorded r WHERE r.is_new ORDER BY r.id
    )
    SELECT array_agg(r.id) INTO v_started FROM recorded r
    WHERE r.content ? 'connect' AND r.wa_message_id <> ALL (v_known);
    RETURN v_started;
END
$$;

COMMENT ON FUNCTION _wa_record_calls(uuid, _wa_told_messages[]) IS
'Internal: records calls, or what more is told of them ({event: what it says} as content); returns those '
'whose start has just become known.';

-- Works from either side: an edit or deletion may come before what it is about.
CREATE OR REPLACE FUNCTION _wa_mark_amended(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_wamid text;
BEGIN
    FOR v_wamid IN
        SELECT e.wamid
        FROM _wa_messages_of(p_org, p_message_ids) m
        CROSS JOIN LATERAL (
            SELECT m.reply_to AS wamid WHERE m.message_type IN ('edit', 'revoke')
            UNION ALL
            (
                SELECT a.reply_to FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = m.wa_message_id
                    AND a.message_type IN ('edit', 'revoke') LIMIT 1
            )
        ) e
        GROUP BY e.wamid
        ORDER BY e.wamid
    LOOP
        UPDATE wa_messages o SET
            edited_at = (
                SELECT max(a.provider_at) FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = v_wamid AND a.message_type = 'edit'
            ),
            deleted_at = (
                SELECT min(a.provider_at) FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = v_wamid AND a.message_type = 'revoke'
            ),
            updated_at = clock_timestamp()
        WHERE o.organization_id = p_org AND o.wa_message_id = v_wamid;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_mark_amended(uuid, bigint[]) IS
'Internal: marks the originals of edits and deletions; their content stays as it was.';

CREATE OR REPLACE FUNCTION get_wa_message_history(p_phone text, p_limit integer DEFAULT 50)
RETURNS SETOF wa_messages
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
BEGIN
    RETURN QUERY
    SELECT m.* FROM wa_messages m
    WHERE m.organization_id = v_org AND m.contact_id = _wa_find_contact(v_org, p_phone)
    ORDER BY m.id DESC
    LIMIT greatest(p_limit, 0);
END
$$;

COMMENT ON FUNCTION get_wa_message_history(text, integer) IS
'The latest messages with a phone number (any usual form) or user id, in both directions, newest first; none '
'for a customer who is not known.';
