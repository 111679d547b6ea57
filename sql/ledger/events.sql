-- The application's own feed: inbound messages and status changes, at least once, in one order.

-- Rows get their place only here, after their commit and under a lock. An identity value alone would let a
-- reader pass one whose transaction commits late.
CREATE OR REPLACE FUNCTION _wa_place_events(p_org uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_last bigint;
BEGIN
    PERFORM _wa_lock('events ' || p_org);
    SELECT e.position INTO v_last FROM wa_events e
    WHERE e.organization_id = p_org AND e.position IS NOT NULL
    ORDER BY e.position DESC LIMIT 1;
    UPDATE wa_events e SET position = coalesce(v_last, 0) + n.rank
    FROM (
        SELECT u.id, row_number() OVER (ORDER BY u.id) AS rank
        FROM (
            SELECT w.id FROM wa_events w
            WHERE w.organization_id = p_org AND w.position IS NULL
            ORDER BY w.id LIMIT 10000
        ) u
    ) n
    WHERE e.organization_id = p_org AND e.id = n.id;
END
$$;

COMMENT ON FUNCTION _wa_place_events(uuid) IS 'Internal: gives committed events their positions.';

CREATE OR REPLACE FUNCTION _wa_add_conversation_event(p_org uuid, p_conversation_id bigint, p_status text)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_events (organization_id, kind, status, occurred_at, conversation_id)
    VALUES (p_org, 'conversation', p_status, clock_timestamp(), p_conversation_id)
$$;

COMMENT ON FUNCTION _wa_add_conversation_event(uuid, bigint, text) IS
'Internal: tells applications of something that happened to a conversation beside its messages.';

CREATE OR REPLACE FUNCTION _wa_event_conversation(p_org uuid, p_conversation_id bigint) RETURNS TABLE (
    contact_id bigint, number_id bigint, phone_e164 text, user_id text, phone_number_id text, assigned_to text
)
LANGUAGE sql STABLE ROWS 1 SET search_path FROM CURRENT
AS $$
    SELECT w.contact_id, w.number_id, c.phone_e164, coalesce(w.user_id, c.user_id), n.phone_number_id,
        w.assigned_to
    FROM wa_conversation_windows w
    JOIN wa_contacts c ON c.organization_id = w.organization_id AND c.id = w.contact_id
    JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
    WHERE w.organization_id = p_org AND w.id = p_conversation_id
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_event_conversation(uuid, bigint) IS
'Internal: what an event tells of its conversation, as it is now; no row for an event without one.';

CREATE OR REPLACE FUNCTION _wa_own_consumer(p_consumer text) RETURNS text
LANGUAGE sql STABLE
RETURN CASE WHEN _wa_is_test_only() THEN 'test key: ' ELSE '' END || p_consumer;

COMMENT ON FUNCTION _wa_own_consumer(text) IS
'Internal: under which name a consumer is kept: with a test key, nothing is acknowledged for a live one.';

CREATE OR REPLACE FUNCTION read_wa_events(p_consumer text, p_limit integer DEFAULT 100) RETURNS TABLE (
    "position" bigint, kind text, status text, occurred_at timestamptz, message_id bigint, queue_id uuid,
    reference text,
    wa_message_id text, direction text, message_type text, contact_id bigint, phone_e164 text, user_id text,
    phone_number_id text, content_text text, content jsonb, error_code integer, error_title text,
    conversation_id bigint, assigned_to text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_consumer text := _wa_own_consumer(p_consumer);
    v_acked bigint;
BEGIN
    IF coalesce(p_consumer, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'the consumer must have a name',
            DETAIL = format('Given: %L.', p_consumer),
            HINT = 'Any text will do; each consumer reads all events once.';
    END IF;
    PERFORM _wa_place_events(v_org);
    INSERT INTO wa_event_consumers (organization_id, consumer) VALUES (v_org, v_consumer) ON CONFLICT
        DO NOTHING;
    SELECT c.acked_position INTO v_acked FROM wa_event_consumers c
    WHERE c.organization_id = v_org AND c.consumer = v_consumer;
    RETURN QUERY
    SELECT e.position, e.kind, e.status, e.occurred_at, e.message_id, m.queue_id, m.reference,
        m.wa_message_id, m.direction,
        m.message_type, coalesce(m.contact_id, w.contact_id), coalesce(m.phone_e164, w.phone_e164),
        coalesce(m.user_id, w.user_id), coalesce(m.phone_number_id, w.phone_number_id), m.content_text,
        m.content, m.error_code, m.error_title, e.conversation_id, w.assigned_to
    FROM wa_events e
    LEFT JOIN wa_messages m ON m.organization_id = v_org AND m.id = e.message_id
    LEFT JOIN LATERAL (
        -- Few events have one: no call for the others.
        SELECT f.* FROM _wa_event_conversation(v_org, e.conversation_id) f WHERE e.conversation_id IS NOT NULL
    ) w ON true
    WHERE e.organization_id = v_org AND e.position > v_acked
    ORDER BY e.position
    LIMIT greatest(p_limit, 0);
END
$$;

COMMENT ON FUNCTION read_wa_events(text, integer) IS
'Inbound messages, status changes and conversations that were assigned (kind conversation), after what the '
'consumer has acknowledged, in order, each with its message or conversation as it is now. Reading again '
'gives the same rows until ack_wa_events().';

CREATE OR REPLACE FUNCTION ack_wa_events(p_consumer text, p_position bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_last bigint;
BEGIN
    SELECT coalesce(max(e.position), 0) INTO v_last FROM wa_events e WHERE e.organization_id = v_org;
    -- An acknowledgement of what does not exist yet would skip it when it comes.
    UPDATE wa_event_consumers c SET
        acked_position = greatest(c.acked_position, least(p_position, v_last)), acked_at = clock_timestamp()
    WHERE c.organization_id = v_org AND c.consumer = _wa_own_consumer(p_consumer)
    RETURNING c.acked_position INTO v_last;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
        MESSAGE = format('no consumer "%s"', left(p_consumer, 100)),
        DETAIL = (
            SELECT 'There are: ' || coalesce(string_agg(c.consumer, ', ' ORDER BY c.consumer), 'none') || '.'
            FROM wa_event_consumers c WHERE c.organization_id = v_org
        ),
        HINT = 'A consumer is made by its first read_wa_events().';
    END IF;
    RETURN v_last;
END
$$;

COMMENT ON FUNCTION ack_wa_events(text, bigint) IS
'Acknowledges all events up to a position; returns the position that is acknowledged now. It never moves '
'back.';
