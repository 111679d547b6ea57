-- Conversations that somebody has read, which the customer's phone is told, too; and whose they are.

CREATE OR REPLACE FUNCTION _wa_conversation_of(p_org uuid, p_phone text, p_phone_number_id text)
RETURNS wa_conversation_windows
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_id bigint := _wa_find_contact(p_org, p_phone);
    v_number_id bigint;
    v_conversation wa_conversation_windows;
BEGIN
    IF p_phone_number_id IS NULL THEN
        v_number_id := _wa_number_for(p_org, v_contact_id);
    ELSE
        SELECT n.id INTO v_number_id FROM wa_phone_numbers n
        WHERE n.organization_id = p_org AND n.phone_number_id = p_phone_number_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'WA010',
                MESSAGE = format('no business number with the id "%s"', left(p_phone_number_id, 100)),
                DETAIL = 'The conversation is one with a number of the organization.',
                HINT = 'SELECT phone_number_id FROM wa_phone_numbers;';
        END IF;
    END IF;
    PERFORM _wa_require_reachable_number(p_org, v_number_id);
    SELECT * INTO v_conversation FROM wa_conversation_windows w
    WHERE w.organization_id = p_org AND w.contact_id = v_contact_id AND w.number_id = v_number_id
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = 'no conversation with this customer',
            DETAIL = format('Asked for was %s.', _wa_mask_phone(p_phone)),
            HINT = 'SELECT phone_e164, phone_number_id FROM wa_conversations;';
    END IF;
    RETURN v_conversation;
END
$$;

COMMENT ON FUNCTION _wa_conversation_of(uuid, text, text) IS
'Internal: the conversation of a customer with a business number (NULL: the newest one), locked. Raises '
'P0002 where there is none, WA605 for a test key and a number that is none for tests.';

-- What is said of a customer counts with every number.
CREATE OR REPLACE FUNCTION _wa_is_reachable_contact(p_org uuid, p_contact_id bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN NOT _wa_is_test_only() OR coalesce((
    SELECT bool_and(n.is_test) FROM wa_conversation_windows w
    JOIN wa_phone_numbers n ON n.organization_id = p_org AND n.id = w.number_id
    WHERE w.organization_id = p_org AND w.contact_id = p_contact_id
), false);

COMMENT ON FUNCTION _wa_is_reachable_contact(uuid, bigint) IS
'Internal: whether the request may reach a customer: with a test key those known at test numbers only.';

CREATE OR REPLACE FUNCTION _wa_require_reachable_contact(p_org uuid, p_contact_id bigint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT _wa_is_reachable_contact(p_org, p_contact_id) THEN
        PERFORM _wa_require_live_key('Consent counts');
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_reachable_contact(uuid, bigint) IS
'Internal: raises WA605 where the request came with a test key and is about a customer who is not known at '
'test numbers only.';

CREATE OR REPLACE FUNCTION _wa_latest_readable(p_org uuid, p_contact_id bigint, p_number_id bigint)
RETURNS wa_messages
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    -- They may have been told out of order, but hardly by more than this.
    SELECT l.* FROM (
        SELECT m.* FROM wa_messages m
        WHERE m.organization_id = p_org AND m.contact_id = p_contact_id AND m.number_id = p_number_id
            AND m.direction = 'inbound' AND m.group_id IS NULL AND m.wa_message_id IS NOT NULL
            AND _wa_opens_window(m.message_type) AND m.message_type <> 'call'
        ORDER BY m.id DESC LIMIT 20
    ) l
    ORDER BY l.provider_at DESC NULLS LAST, l.id DESC
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_latest_readable(uuid, bigint, bigint) IS
'Internal: the latest message of a customer to a number that can be marked as read.';

CREATE OR REPLACE FUNCTION mark_wa_read(
    p_phone text, p_typing boolean DEFAULT false, p_phone_number_id text DEFAULT NULL
) RETURNS TABLE (conversation_id bigint, phone_number_id text, marked integer, call_id uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    -- Locked from here on: a message that is not seen below is counted after this, as unread.
    v_conversation wa_conversation_windows := _wa_conversation_of(v_org, p_phone, p_phone_number_id);
    v_number wa_phone_numbers;
    v_message wa_messages;
    -- The provider takes it for so long, and shows that somebody types for so long.
    c_markable CONSTANT interval := interval '30 days';
    c_typing CONSTANT interval := interval '25 seconds';
    c_give_up_after CONSTANT interval := interval '1 day';
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'send');
    SELECT * INTO v_number FROM wa_phone_numbers n
    WHERE n.organization_id = v_org AND n.id = v_conversation.number_id;
    IF NOT _wa_has_feature(v_number.provider, 'receipts') THEN
        RAISE EXCEPTION USING ERRCODE = '0A000',
            MESSAGE = format('provider "%s" cannot be told what was read', v_number.provider),
            DETAIL = format('The business number is %s.', v_number.phone_number_id),
            HINT = format('Numbers of these can: %s.', _wa_providers_with('receipts'));
    END IF;
    v_message := _wa_latest_readable(v_org, v_conversation.contact_id, v_conversation.number_id);
    IF v_message.provider_at > clock_timestamp() - c_markable AND (
        p_typing
        OR v_conversation.read_at IS NULL OR v_conversation.read_at < v_message.provider_at
        -- It was told, or is going to be.
        OR NOT EXISTS (
            SELECT FROM wa_provider_calls c
            WHERE c.organization_id = v_org AND c.id = v_conversation.read_call_id AND c.state <> 'failed'
        )
    ) THEN
        v_conversation.read_call_id := _wa_ask_provider(
            v_org, 'mark_read', v_conversation.id::text, v_number.phone_number_id, c_give_up_after,
            p_path => _wa_request_path(v_number.provider, v_number.phone_number_id, v_number.waba_id),
            p_body => jsonb_build_object(
                'messaging_product', 'whatsapp', 'status', 'read', 'message_id', v_message.wa_message_id
            ),
            p_passing_body => CASE WHEN p_typing
                THEN '{"typing_indicator": {"type": "text"}}'::jsonb END,
            p_passes_after => CASE WHEN p_typing THEN c_typing END
        );
    END IF;
    UPDATE wa_conversation_windows w SET
        unread_count = 0, read_at = greatest(w.read_at, v_message.provider_at),
        read_call_id = v_conversation.read_call_id, updated_at = clock_timestamp()
    WHERE w.organization_id = v_org AND w.id = v_conversation.id;
    RETURN QUERY SELECT v_conversation.id, v_number.phone_number_id, v_conversation.unread_count,
        v_conversation.read_call_id;
END
$$;

COMMENT ON FUNCTION mark_wa_read(text, boolean, text) IS
'Marks the conversation with a customer as read, here at once, on the customer''s phone as soon as a '
'dispatcher has told the provider; with p_typing it shows there for 25 seconds, or until a message comes, '
'that somebody is typing. p_phone_number_id (NULL: that of the newest conversation) names the business '
'number. Returns the conversation, how many messages were unread, and the row of wa_provider_calls that '
'tells whether the provider took it: NULL where there is nothing younger than 30 days to be told of. A user '
'whom the session names must have the permission send (WA621).';

CREATE OR REPLACE FUNCTION assign_wa_conversation(
    p_phone text, p_user text, p_phone_number_id text DEFAULT NULL
) RETURNS TABLE (conversation_id bigint, phone_number_id text, former text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_conversation wa_conversation_windows := _wa_conversation_of(v_org, p_phone, p_phone_number_id);
    v_to text := nullif(btrim(p_user), '');
    c_longest CONSTANT integer := 200;
BEGIN
    IF length(v_to) > c_longest THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a user''s name has at most %s characters', c_longest),
            DETAIL = format('This one has %s.', length(v_to)),
            HINT = 'Give the id by which your system knows the user.';
    END IF;
    -- To take one, or to give one's own up, is not to assign staff.
    PERFORM _wa_require_acting_user(v_org, CASE
        WHEN EXISTS (
            SELECT FROM unnest(ARRAY[v_to, v_conversation.assigned_to]) n (name)
            WHERE n.name IS NOT NULL AND NOT _wa_is_acting_user(v_org, n.name)
        ) THEN 'assign_staff' ELSE 'send' END);
    PERFORM _wa_require_user(v_org, v_to, 'send');
    IF v_to IS DISTINCT FROM v_conversation.assigned_to THEN
        UPDATE wa_conversation_windows w SET assigned_to = v_to, updated_at = clock_timestamp()
        WHERE w.organization_id = v_org AND w.id = v_conversation.id;
        PERFORM _wa_add_conversation_event(v_org, v_conversation.id, 'assigned');
        PERFORM _wa_audit(v_org, 'conversation_assigned', 'wa_conversations', v_conversation.id::text,
            jsonb_build_object('from', v_conversation.assigned_to, 'to', v_to));
    END IF;
    RETURN QUERY
    SELECT v_conversation.id, n.phone_number_id, v_conversation.assigned_to FROM wa_phone_numbers n
    WHERE n.organization_id = v_org AND n.id = v_conversation.number_id;
END
$$;

COMMENT ON FUNCTION assign_wa_conversation(text, text, text) IS
'Says which user looks after the conversation with a customer (NULL: nobody), in words of your own; audited, '
'and an event of the kind conversation. p_phone_number_id as for mark_wa_read(). Returns who had it before. '
'Where the session names a user, assigning it to somebody else, or taking it from somebody, needs the '
'permission assign_staff, else send; who gets it must have send (WA621).';
