-- What the ledger and the timeline hold of a person, and taking it away. Rows stay, with their kinds, states,
-- times and costs: the figures are counted from them, and stay the same.

-- One chunk of a contact's messages, by wa_messages_contact_idx, with their statuses, which are found by the
-- wamid that both have. That holds the number, in base64, so both get the row's id in its place.
CREATE OR REPLACE FUNCTION _wa_erase_messages_of(
    p_org uuid, p_contact_id bigint, p_after bigint, p_limit integer,
    OUT last_id bigint, OUT changed integer, OUT queue_ids uuid[], OUT media_ids text[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    WITH chunk AS MATERIALIZED (
        SELECT m.id, m.wa_message_id, m.queue_id, m.content ->> 'media_id' AS media_id FROM wa_messages m
        WHERE m.contact_id = p_contact_id AND m.organization_id = p_org AND m.id > p_after
        ORDER BY m.id LIMIT p_limit
    ),
    histories AS (
        UPDATE wa_message_statuses s SET
            wa_message_id = 'erased.' || c.id,
            participant = CASE WHEN s.participant = '' THEN '' ELSE 'erased.' || s.id END,
            recipient_id = NULL, recipient_user_id = NULL, error_message = NULL, conversation = NULL,
            payload = '{}'
        FROM chunk c WHERE s.organization_id = p_org AND s.wa_message_id = c.wa_message_id
        RETURNING 1
    ),
    emptied AS (
        UPDATE wa_messages m SET
            wa_message_id = CASE WHEN m.wa_message_id IS NOT NULL THEN 'erased.' || m.id END,
            phone_e164 = _wa_first_digits(m.phone_e164), user_id = _wa_first_digits(m.user_id),
            group_id = CASE WHEN m.group_id IS NOT NULL THEN 'erased' END,
            customer_id = NULL, reply_to = NULL, reference = NULL, content = '{}', content_text = NULL,
            referral = NULL, error_message = NULL,
            metadata = CASE WHEN m.metadata ? 'role'
                THEN jsonb_build_object('role', m.metadata -> 'role') ELSE '{}' END
        FROM chunk c WHERE m.organization_id = p_org AND m.id = c.id
        RETURNING 1
    )
    SELECT max(c.id), (SELECT count(*) FROM emptied) + (SELECT count(*) FROM histories),
        array_agg(c.queue_id) FILTER (WHERE c.queue_id IS NOT NULL),
        array_agg(DISTINCT c.media_id) FILTER (WHERE c.media_id IS NOT NULL)
    INTO last_id, changed, queue_ids, media_ids
    FROM chunk c;
END
$$;

COMMENT ON FUNCTION _wa_erase_messages_of(uuid, bigint, bigint, integer) IS
'Internal: empties the next messages of a contact, and their statuses: the last one''s id (NULL: there was '
'none), how many rows, their queue rows, and the files of yours that they named.';

CREATE OR REPLACE FUNCTION _wa_has_messages_of(p_org uuid, p_contact_id bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_messages m
        WHERE m.contact_id = p_contact_id AND m.organization_id = p_org AND (
            length(m.phone_e164) > 5 OR length(m.user_id) > 3 OR m.content_text IS NOT NULL
            OR m.content <> '{}'
        )
    )
$$;

COMMENT ON FUNCTION _wa_has_messages_of(uuid, bigint) IS
'Internal: whether a message of a contact still tells of the person.';

-- Statuses of messages that are not known, or of a group in which the person was.
CREATE OR REPLACE FUNCTION _wa_erase_statuses_of(p_org uuid, p_who text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_message_statuses s SET
        wa_message_id = CASE WHEN s.message_id IS NULL THEN 'erased.s' || s.id ELSE s.wa_message_id END,
        participant = CASE WHEN s.participant = '' THEN '' ELSE 'erased.' || s.id END,
        recipient_id = NULL, recipient_user_id = NULL, error_message = NULL, conversation = NULL,
        payload = '{}'
    WHERE s.organization_id = p_org AND (
        s.participant = ANY (p_who)
        OR s.message_id IS NULL AND (s.recipient_id = ANY (p_who) OR s.recipient_user_id = ANY (p_who))
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_statuses_of(uuid, text[]) IS
'Internal: empties statuses about a person that belong to no message of the contact; returns how many.';

CREATE OR REPLACE FUNCTION _wa_erase_timeline_of(p_org uuid, p_contact_id bigint, p_pattern text)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE timeline_entries t SET
        actor = CASE WHEN t.actor ~ p_pattern THEN 'erased' ELSE t.actor END,
        content = CASE WHEN t.content ? 'action'
            THEN jsonb_build_object('action', t.content -> 'action') ELSE '{}' END
    WHERE t.organization_id = p_org AND (
        t.content::text ~ p_pattern OR t.actor ~ p_pattern
        OR t.conversation_id IN (
            SELECT w.id FROM wa_conversation_windows w
            WHERE w.organization_id = p_org AND w.contact_id = p_contact_id
        )
        OR EXISTS (
            SELECT FROM wa_messages m
            WHERE m.organization_id = p_org AND m.id = t.message_id AND m.contact_id = p_contact_id
        )
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_timeline_of(uuid, bigint, text) IS
'Internal: empties entries of the timeline that came out of a contact''s conversations or match a pattern; '
'returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_ledger_of(p_org uuid, p_contact_id bigint, p_who text[], p_pattern text)
RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'messages', (
            SELECT coalesce(jsonb_agg(to_jsonb(m) - 'organization_id' ORDER BY m.id), '[]')
            FROM wa_messages m WHERE m.contact_id = p_contact_id AND m.organization_id = p_org
        ),
        'statuses', (
            SELECT coalesce(jsonb_agg(to_jsonb(s) - 'organization_id' ORDER BY s.id), '[]')
            FROM (
                SELECT x.* FROM wa_messages m
                JOIN wa_message_statuses x
                    ON x.organization_id = p_org AND x.wa_message_id = m.wa_message_id
                WHERE m.contact_id = p_contact_id AND m.organization_id = p_org
                UNION
                SELECT x.* FROM wa_message_statuses x
                WHERE x.organization_id = p_org AND (
                    x.participant = ANY (p_who) OR x.message_id IS NULL
                    AND (x.recipient_id = ANY (p_who) OR x.recipient_user_id = ANY (p_who))
                )
            ) s
        ),
        'timeline', (
            SELECT coalesce(jsonb_agg(to_jsonb(t) - 'organization_id' ORDER BY t.id), '[]')
            FROM timeline_entries t
            WHERE t.organization_id = p_org AND (
                t.content::text ~ p_pattern OR t.actor ~ p_pattern
                OR t.conversation_id IN (
                    SELECT w.id FROM wa_conversation_windows w
                    WHERE w.organization_id = p_org AND w.contact_id = p_contact_id
                )
                OR EXISTS (
                    SELECT FROM wa_messages m
                    WHERE m.organization_id = p_org AND m.id = t.message_id AND m.contact_id = p_contact_id
                )
            )
        )
    )
$$;

COMMENT ON FUNCTION _wa_export_ledger_of(uuid, bigint, text[], text) IS
'Internal: messages, statuses and entries of the timeline of a contact.';
