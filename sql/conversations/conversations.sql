-- Conversations: what happened last between a business number and a customer, and what that allows now.

CREATE OR REPLACE FUNCTION _wa_can_reply(
    p_last_customer_at timestamptz, p_denied_at timestamptz, p_now timestamptz, p_margin interval
) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN _wa_window_open(p_last_customer_at, p_now, p_margin)
AND (p_denied_at IS NULL OR p_denied_at < p_last_customer_at);

COMMENT ON FUNCTION _wa_can_reply(timestamptz, timestamptz, timestamptz, interval) IS
'Internal: whether the window of a conversation lets a free-form message through: it is open, and the '
'provider has not said otherwise since.';

CREATE OR REPLACE VIEW wa_conversations WITH (security_invoker = true) AS
SELECT
    w.organization_id, w.id, w.number_id, n.phone_number_id, w.contact_id, c.phone_e164,
    coalesce(w.user_id, c.user_id) AS user_id, c.profile_name AS customer_name,
    w.last_customer_message_at, w.last_business_message_at,
    _wa_window_open(w.last_customer_message_at, clock_timestamp(), interval '0') AS is_within_24h,
    w.last_customer_message_at + interval '24 hours' AS window_expires_at,
    _wa_can_reply(w.last_customer_message_at, w.window_denied_at, clock_timestamp(), o.window_margin)
    AS is_sendable,
    w.entry_point_expires_at,
    coalesce(w.entry_point_expires_at > clock_timestamp(), false) AS is_free_entry_point,
    w.unread_count, w.created_at, w.updated_at, w.state, w.state_changed_at, w.opened_at, w.read_at,
    w.assigned_to
FROM wa_conversation_windows w
JOIN wa_contacts c ON c.organization_id = w.organization_id AND c.id = w.contact_id
JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
JOIN wa_organizations o ON o.id = w.organization_id;

COMMENT ON VIEW wa_conversations IS
'One row per business number and customer. is_within_24h, is_sendable and is_free_entry_point are worked '
'out when read.';
COMMENT ON COLUMN wa_conversations.is_within_24h IS
'Whether the customer wrote or called in the last 24 hours, to the second.';
COMMENT ON COLUMN wa_conversations.is_sendable IS
'Whether the window allows free-form messages now: it closes window_margin early, and when the provider '
'said so.';
COMMENT ON COLUMN wa_conversations.is_free_entry_point IS
'Whether messages are free of charge after a click on an advertisement.';
COMMENT ON COLUMN wa_conversations.unread_count IS
'Messages of the customer since the business last wrote, or marked the conversation as read.';

-- Meta does not document the rest as opening the window; an unsupported message is still one that the
-- customer wrote.
CREATE OR REPLACE FUNCTION _wa_opens_window(p_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_type NOT IN ('reaction', 'system', 'edit', 'revoke', 'request_welcome');

COMMENT ON FUNCTION _wa_opens_window(text) IS
'Internal: whether an inbound message of this type opens the 24-hour window.';

-- The rule of both directions: a reaction is a remark on a message, and Meta documents neither that it opens
-- a window nor that it answers a customer or starts the free entry point. Who got a thumb up still waits for
-- an answer: it clears no unread_count, whether it went through the queue or came as an echo. Edits and
-- deletions change a message that was counted.
CREATE OR REPLACE FUNCTION _wa_is_answer(p_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_type NOT IN ('reaction', 'edit', 'revoke');

COMMENT ON FUNCTION _wa_is_answer(text) IS
'Internal: whether an outbound message of this type answers the customer.';

-- An SMS opens no window, and makes no number the one that answers. A set of at most one row, so that it is
-- inlined into a join.
CREATE OR REPLACE FUNCTION _wa_chats_of(p_org uuid, p_number_id bigint) RETURNS TABLE (number_id bigint)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT x.id FROM wa_phone_numbers x
    WHERE x.organization_id = p_org AND x.id = p_number_id AND x.channel = 'whatsapp'
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_chats_of(uuid, bigint) IS 'Internal: a business number if it is one of WhatsApp.';

CREATE OR REPLACE FUNCTION _wa_record_customer_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_with_entry_point bigint[];
BEGIN
    WITH told AS (
        INSERT INTO wa_conversation_windows AS w (
            organization_id, number_id, contact_id, last_customer_message_at, unread_count, user_id,
            entry_point, entry_point_opened_at
        )
        SELECT
            p_org, m.number_id, m.contact_id, max(m.provider_at),
            count(*) FILTER (WHERE m.provider_at > coalesce(o.last_business_message_at, '-infinity')),
            (array_agg(m.user_id ORDER BY m.provider_at DESC) FILTER (WHERE m.user_id IS NOT NULL))[1],
            (array_agg(m.referral ORDER BY m.provider_at DESC) FILTER (WHERE m.referral IS NOT NULL))[1],
            max(m.provider_at) FILTER (WHERE m.referral IS NOT NULL)
        FROM _wa_messages_of(p_org, p_message_ids) m
        CROSS JOIN LATERAL _wa_chats_of(p_org, m.number_id) s
        LEFT JOIN LATERAL (
            SELECT k.last_business_message_at FROM wa_conversation_windows k
            WHERE k.organization_id = p_org AND k.contact_id = m.contact_id AND k.number_id = m.number_id
            LIMIT 1
        ) o ON true
        WHERE m.direction = 'inbound'
            AND m.contact_id IS NOT NULL AND m.number_id IS NOT NULL AND m.group_id IS NULL
            AND _wa_opens_window(m.message_type)
        GROUP BY m.number_id, m.contact_id
        ORDER BY m.contact_id, m.number_id
        ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
            last_customer_message_at = greatest(w.last_customer_message_at, excluded.last_customer_message_at),
            unread_count = w.unread_count + excluded.unread_count,
            -- One that comes late does not open again what was closed after it.
            state = CASE WHEN excluded.last_customer_message_at > w.state_changed_at THEN 'active'
                ELSE w.state END,
            user_id = CASE
                WHEN excluded.last_customer_message_at >= coalesce(w.last_customer_message_at, '-infinity')
                    THEN coalesce(excluded.user_id, w.user_id)
                ELSE coalesce(w.user_id, excluded.user_id)
            END,
            entry_point = CASE
                WHEN excluded.entry_point_opened_at >= coalesce(w.entry_point_opened_at, '-infinity')
                    THEN excluded.entry_point
                ELSE w.entry_point
            END,
            -- A new click starts over: the free time runs from the answer to it.
            entry_point_expires_at = CASE
                WHEN excluded.entry_point_opened_at > coalesce(w.entry_point_opened_at, '-infinity') THEN NULL
                ELSE w.entry_point_expires_at
            END,
            entry_point_opened_at = greatest(w.entry_point_opened_at, excluded.entry_point_opened_at),
            updated_at = clock_timestamp()
        RETURNING w.id, w.entry_point_opened_at
    )
    SELECT array_agg(t.id) FILTER (WHERE t.entry_point_opened_at IS NOT NULL) INTO v_with_entry_point
    FROM told t;
    PERFORM _wa_refresh_entry_points(p_org, v_with_entry_point);
END
$$;

COMMENT ON FUNCTION _wa_record_customer_messages(uuid, bigint[]) IS
'Internal: takes new inbound messages into their conversations; the latest of Meta''s times counts.';

CREATE OR REPLACE FUNCTION _wa_record_business_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_with_entry_point bigint[];
BEGIN
    WITH told AS (
        INSERT INTO wa_conversation_windows AS w (
            organization_id, number_id, contact_id, last_business_message_at
        )
        SELECT p_org, m.number_id, m.contact_id, max(coalesce(m.provider_at, m.sent_at))
        FROM _wa_messages_of(p_org, p_message_ids) m
        CROSS JOIN LATERAL _wa_chats_of(p_org, m.number_id) s
        WHERE m.direction = 'outbound' AND m.status = 'sent'
            AND m.contact_id IS NOT NULL AND m.number_id IS NOT NULL AND m.group_id IS NULL
            AND _wa_is_answer(m.message_type)
        GROUP BY m.number_id, m.contact_id
        ORDER BY m.contact_id, m.number_id
        ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
            last_business_message_at = greatest(w.last_business_message_at,
                excluded.last_business_message_at),
            unread_count = CASE
                WHEN w.unread_count = 0 THEN 0
                -- The customer wrote nothing since: no need to count.
                WHEN w.last_customer_message_at <= greatest(w.last_business_message_at,
                    excluded.last_business_message_at) THEN 0
                ELSE (
                    SELECT count(*) FROM wa_messages c
                    WHERE c.organization_id = w.organization_id AND c.contact_id = w.contact_id
                        AND c.number_id = w.number_id AND c.direction = 'inbound' AND c.group_id IS NULL
                        AND _wa_opens_window(c.message_type)
                        AND (c.message_type <> 'call' OR c.content ? 'connect')
                        AND c.provider_at > greatest(w.last_business_message_at,
                            excluded.last_business_message_at, w.read_at)
                )
            END,
            updated_at = clock_timestamp()
        RETURNING w.id, w.entry_point_opened_at
    )
    SELECT array_agg(t.id) FILTER (WHERE t.entry_point_opened_at IS NOT NULL) INTO v_with_entry_point
    FROM told t;
    -- The free entry point runs from our first answer to the advertisement's click, whichever is told first.
    -- From the messages themselves: the ledger may have lost earlier ones to retention.
    IF v_with_entry_point IS NOT NULL THEN
        UPDATE wa_conversation_windows w
        SET entry_point_expires_at = least(w.entry_point_expires_at, a.at + interval '72 hours')
        FROM (
            SELECT k.id, min(coalesce(m.provider_at, m.sent_at)) AS at
            FROM _wa_messages_of(p_org, p_message_ids) m
            JOIN wa_conversation_windows k ON k.organization_id = p_org AND k.contact_id = m.contact_id
                AND k.number_id = m.number_id AND k.id = ANY (v_with_entry_point)
                AND coalesce(m.provider_at, m.sent_at) >= k.entry_point_opened_at
                AND coalesce(m.provider_at, m.sent_at) < k.entry_point_opened_at + interval '24 hours'
            WHERE m.direction = 'outbound' AND m.status = 'sent' AND m.group_id IS NULL
                AND _wa_is_answer(m.message_type)
            GROUP BY k.id
        ) a
        WHERE w.organization_id = p_org AND w.id = a.id;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_record_business_messages(uuid, bigint[]) IS
'Internal: takes messages that the business sent into their conversations, whether from the queue, from the '
'app or by calling.';

CREATE OR REPLACE FUNCTION _wa_refresh_entry_points(p_org uuid, p_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint;
BEGIN
    -- Few conversations have one; one look-up by key for each.
    FOREACH v_id IN ARRAY coalesce(p_ids, '{}') LOOP
        -- What is known does not move back: retention may have deleted the answer that began it.
        UPDATE wa_conversation_windows w SET entry_point_expires_at = least(w.entry_point_expires_at, (
            SELECT min(coalesce(m.provider_at, m.sent_at)) + interval '72 hours' FROM wa_messages m
            WHERE m.organization_id = p_org AND m.contact_id = w.contact_id AND m.number_id = w.number_id
                AND m.direction = 'outbound' AND m.group_id IS NULL AND m.status = 'sent'
                AND _wa_is_answer(m.message_type)
                AND coalesce(m.provider_at, m.sent_at) >= w.entry_point_opened_at
                AND coalesce(m.provider_at, m.sent_at) < w.entry_point_opened_at + interval '24 hours'
        ))
        WHERE w.organization_id = p_org AND w.id = v_id;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_refresh_entry_points(uuid, bigint[]) IS
'Internal: the free entry point of a conversation ends 72 h after the first answer that came within 24 h of '
'the click.';

CREATE OR REPLACE FUNCTION _wa_lock_windows(p_org uuid, p_contact_ids bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT FROM wa_conversation_windows w
    WHERE w.organization_id = p_org AND w.contact_id = ANY (p_contact_ids)
    ORDER BY w.contact_id, w.number_id
    FOR NO KEY UPDATE
$$;

COMMENT ON FUNCTION _wa_lock_windows(uuid, bigint[]) IS
'Internal: locks the conversations of contacts in the order in which everyone locks them, for who writes to '
'some of them more than once.';

CREATE OR REPLACE FUNCTION _wa_deny_windows(
    p_org uuid, p_contact_ids bigint[], p_number_ids bigint[], p_ats timestamptz[]
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_conversation_windows w SET
        window_denied_at = greatest(w.window_denied_at, d.at), updated_at = clock_timestamp()
    FROM (
        SELECT u.contact_id, u.number_id, max(u.at) AS at
        FROM unnest(p_contact_ids, p_number_ids, p_ats) u (contact_id, number_id, at)
        GROUP BY u.contact_id, u.number_id
    ) d
    WHERE w.organization_id = p_org AND w.contact_id = d.contact_id AND w.number_id = d.number_id
$$;

COMMENT ON FUNCTION _wa_deny_windows(uuid, bigint[], bigint[], timestamptz[]) IS
'Internal: the provider said of these conversations, each a contact with a number, that their window is '
'closed, and when.';

CREATE OR REPLACE FUNCTION _wa_number_for(p_org uuid, p_contact_id bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(
        (
            SELECT w.number_id FROM wa_conversation_windows w
            WHERE w.organization_id = p_org AND w.contact_id = p_contact_id
            ORDER BY greatest(w.last_customer_message_at, w.last_business_message_at) DESC NULLS LAST,
            w.id DESC
            LIMIT 1
        ),
        (SELECT o.default_number_id FROM wa_organizations o WHERE o.id = p_org)
    )
$$;

COMMENT ON FUNCTION _wa_number_for(uuid, bigint) IS
'Internal: the business number that writes to a contact when none is named: that of the newest '
'conversation, else the default.';

-- A set of one row, so that it is inlined into a join. LIMIT keeps each look-up a look-up by key.
CREATE OR REPLACE FUNCTION _wa_route(p_org uuid, p_phone_number_id text, p_contact_id bigint)
RETURNS TABLE (
    default_language text, named_id bigint, number_id bigint, waba_id text, window_margin interval,
    last_customer_message_at timestamptz, window_denied_at timestamptz, require_opt_in text[]
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT o.default_language, p.id, a.id, a.waba_id, o.window_margin, w.last_customer_message_at,
        w.window_denied_at, o.require_opt_in
    FROM (
        SELECT x.default_number_id, x.default_language, x.window_margin, x.require_opt_in
        FROM wa_organizations x WHERE x.id = p_org LIMIT 1
    ) o
    LEFT JOIN LATERAL (
        SELECT x.id FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.phone_number_id = p_phone_number_id LIMIT 1
    ) p ON true
    LEFT JOIN LATERAL (
        SELECT x.number_id, x.last_customer_message_at, x.window_denied_at FROM wa_conversation_windows x
        WHERE x.organization_id = p_org AND x.contact_id = p_contact_id
            AND (p_phone_number_id IS NULL OR x.number_id = p.id)
        ORDER BY greatest(x.last_customer_message_at, x.last_business_message_at) DESC NULLS LAST, x.id DESC
        LIMIT 1
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT x.id, x.waba_id FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.id = coalesce(p.id, w.number_id, o.default_number_id) LIMIT 1
    ) a ON true;
END;

COMMENT ON FUNCTION _wa_route(uuid, text, bigint) IS
'Internal: the number that a message to a contact goes out from (the one named, else as _wa_number_for()), '
'its account, the conversation between the two, and what the organization has set for it.';

CREATE OR REPLACE FUNCTION update_wa_conversation(p_phone text, p_user text, p_from_customer boolean)
    RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_phone text;
    v_contact_id bigint;
    v_number wa_phone_numbers;
    v_now timestamptz := clock_timestamp();
    v_id bigint;
BEGIN
    SELECT * INTO v_org FROM wa_organizations WHERE id = _wa_caller_organization();
    IF p_from_customer AND NOT pg_has_role(
        coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, 'wa_admin', 'MEMBER'
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '42501',
        MESSAGE = 'only wa_admin may open a window by hand',
        DETAIL = format('You are %s.', session_user),
        HINT = 'A message of the customer opens it; to try things out, let the simulator write as one.';
    END IF;
    v_contact_id := _wa_find_contact(v_org.id, p_phone);
    IF v_contact_id IS NULL THEN
        v_phone := CASE WHEN NOT _wa_is_user_id(p_phone)
            THEN normalize_phone_e164(p_phone, v_org.default_region, v_org.default_area_code) END;
        SELECT r.contact_id INTO v_contact_id FROM _wa_resolve_contacts(
            v_org.id, ARRAY[v_phone], ARRAY[CASE WHEN v_phone IS NULL THEN p_phone END], 'manual'
        ) r;
    END IF;
    SELECT n.* INTO v_number FROM wa_phone_numbers n
    WHERE n.organization_id = v_org.id AND n.id = _wa_number_for(v_org.id, v_contact_id);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
        MESSAGE = 'the organization has no business number',
        DETAIL = format('The organization is %s.', v_org.id),
        HINT = 'SELECT register_wa_phone_number(phone_number_id, display_phone, waba_id);';
    END IF;
    IF p_from_customer AND NOT v_number.is_test THEN
        IF NOT v_org.allow_manual_window THEN
            RAISE EXCEPTION USING ERRCODE = 'WA501',
            MESSAGE = format('a window of number %s may not be opened by hand', v_number.phone_number_id),
            DETAIL = 'Meta does not know of it and would refuse free-form messages.',
            HINT = 'Use a number registered with is_test, or set the organization''s allow_manual_window.';
        END IF;
        RAISE WARNING USING MESSAGE = format('window of number %s opened by hand', v_number.phone_number_id),
        DETAIL = 'Meta does not know of it and refuses free-form messages unless the customer did write.';
    END IF;
    INSERT INTO wa_conversation_windows AS w (
        organization_id, number_id, contact_id, last_customer_message_at, last_business_message_at
    )
    VALUES (
        v_org.id, v_number.id, v_contact_id,
        CASE WHEN p_from_customer THEN v_now END, CASE WHEN NOT p_from_customer THEN v_now END
    )
    ON CONFLICT (organization_id, contact_id, number_id) DO UPDATE SET
        last_customer_message_at = greatest(w.last_customer_message_at, excluded.last_customer_message_at),
        last_business_message_at = greatest(w.last_business_message_at, excluded.last_business_message_at),
        unread_count = CASE WHEN p_from_customer THEN w.unread_count ELSE 0 END,
        state = CASE WHEN p_from_customer THEN 'active' ELSE w.state END,
        updated_at = v_now
    RETURNING w.id INTO v_id;
    PERFORM _wa_audit(
        v_org.id, CASE WHEN p_from_customer THEN 'window_opened_by_hand' ELSE 'conversation_updated' END,
        'wa_conversations', v_id::text,
        jsonb_build_object('user', p_user, 'contact_id', v_contact_id, 'phone_number_id',
            v_number.phone_number_id)
    );
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION update_wa_conversation(text, text, boolean) IS
'Records by hand that the customer (true: opens the 24-hour window; wa_admin only, on test numbers unless '
'the organization allows it) or the business (false) has just written. p_user names who asked; audited. '
'Returns the conversation''s id.';
