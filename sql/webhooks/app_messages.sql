-- What the business itself did outside the queue: messages from the WhatsApp Business app. And calls, in both
-- directions.

CREATE OR REPLACE FUNCTION _wa_apply_echoes(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_ids bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a
        WHERE coalesce(a.payload ->> 'id', '') = ''
            OR num_nonnulls(a.payload ->> 'to', a.payload ->> 'to_user_id', a.payload ->> 'group_id') = 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the echo has no id or no recipient';
    END IF;
    SELECT array_agg(r.contact_id ORDER BY r.n) INTO v_contact_ids
    FROM (
        SELECT
            array_agg(CASE WHEN p.group_id IS NULL THEN _wa_inbound_phone(p.recipient) END
                ORDER BY a.n) AS phones,
            array_agg(CASE WHEN p.group_id IS NULL THEN _wa_inbound_user_id(p.user_id, p.recipient) END
                ORDER BY a.n)
                AS user_ids,
            array_agg(a.at ORDER BY a.n) AS ats
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL (
            SELECT a.payload ->> 'to' AS recipient, a.payload ->> 'to_user_id' AS user_id,
                a.payload ->> 'group_id' AS group_id
        ) p
    ) s
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, s.phones, s.user_ids, 'echo', s.ats) r;

    WITH recorded AS (
        INSERT INTO wa_messages (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            group_id,
            wa_message_id, direction, message_type, content, content_text, status, state, is_echo, reply_to,
            metadata,
            sent_at, provider_at
        )
        SELECT
            p_org, a.number_id, a.phone_number_id, c.id, c.customer_id,
            CASE
                WHEN c.phone_key = _wa_phone_key(_wa_inbound_phone(a.payload ->> 'to')) THEN c.phone_e164
                ELSE _wa_inbound_phone(a.payload ->> 'to')
            END,
            a.payload ->> 'to_user_id', a.payload ->> 'group_id', a.payload ->> 'id', 'outbound', t.type,
            t.content, t.content_text, 'sent', 'sent', true, t.reply_to,
            a.payload - ARRAY['id', 'from', 'to', 'to_user_id', 'timestamp', 'type', 'group_id', t.type],
            a.at, a.at
        FROM _wa_number_atoms(p_atoms) a
        LEFT JOIN wa_contacts c ON c.organization_id = p_org AND c.id = v_contact_ids[a.n]
        CROSS JOIN LATERAL _wa_read_message(a.payload) t
        ORDER BY a.n
        ON CONFLICT (organization_id, wa_message_id) DO NOTHING
        RETURNING id, phone_number_id, message_type, content, provider_at
    ),
    filed AS (
        INSERT INTO wa_media (
            organization_id, id, message_id, direction, phone_number_id, provider_media_id, media_type,
            mime_type, filename, sha256
        )
        SELECT p_org, _wa_uuid7(clock_timestamp()), r.id, 'outbound', r.phone_number_id,
            r.content ->> 'id', r.message_type, r.content ->> 'mime_type', r.content ->> 'filename',
            _wa_read_sha256(r.content ->> 'sha256')
        FROM recorded r
        WHERE r.message_type IN ('image', 'video', 'audio', 'document', 'sticker') AND r.content ->> 'id' <> ''
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, 'sent', r.provider_at FROM recorded r ORDER BY r.id
    )
    SELECT array_agg(r.id) INTO v_ids FROM recorded r;
    IF v_ids IS NOT NULL THEN
        PERFORM _wa_record_business_messages(p_org, v_ids);
        PERFORM _wa_mark_amended(p_org, v_ids);
        PERFORM _wa_attach_early_statuses(p_org, v_ids);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_echoes(uuid, _wa_webhook_atoms[]) IS
'Internal: records messages that were sent from the WhatsApp Business app.';

-- A call is one row, under its id; what is told of it at its start and at its end comes together in its
-- content. The window runs from the start of the customer's call, as Meta counts it.
CREATE OR REPLACE FUNCTION _wa_apply_calls(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_known text[];
    v_started bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a
        WHERE coalesce(a.payload ->> 'id', '') = '' OR num_nonnulls(
            a.payload ->> 'from', a.payload ->> 'from_user_id', a.payload ->> 'to',
            a.payload ->> 'to_user_id', a.contact ->> 'wa_id',
            a.contact ->> 'user_id'
        ) = 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the call has no id or no customer';
    END IF;
    SELECT array_agg(r.contact_id ORDER BY r.n) INTO v_contact_ids
    FROM (
        SELECT array_agg(_wa_inbound_phone(p.phone) ORDER BY a.n) AS phones,
            array_agg(_wa_inbound_user_id(p.user_id, p.phone) ORDER BY a.n) AS user_ids,
            array_agg(a.at ORDER BY a.n) AS ats
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL _wa_call_customer(a.payload, a.contact, a.display_phone) p
    ) s
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, s.phones, s.user_ids, 'call', s.ats) r;
    v_known := ARRAY(
        SELECT m.wa_message_id FROM unnest(p_atoms) a
        JOIN wa_messages m ON m.organization_id = p_org AND m.wa_message_id = a.payload ->> 'id'
        WHERE m.content ? 'connect'
    );

    WITH calls AS (
        SELECT a.payload ->> 'id' AS id, min(a.number_id) AS number_id,
            min(a.phone_number_id) AS phone_number_id,
            min(v_contact_ids[a.n]) AS contact_id, min(_wa_inbound_phone(p.phone)) AS phone,
            min(p.user_id) AS user_id,
            bool_or(p.is_inbound) AS is_inbound,
            jsonb_object_agg(coalesce(a.payload ->> 'event', 'unknown'), a.payload - 'id') AS content,
            min(a.at) AS at
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL _wa_call_customer(a.payload, a.contact, a.display_phone) p
        GROUP BY a.payload ->> 'id'
    ),
    recorded AS (
        INSERT INTO wa_messages AS m (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            wa_message_id, direction,
            message_type, content, status, state, sent_at, provider_at
        )
        SELECT
            p_org, k.number_id, k.phone_number_id, c.id, c.customer_id,
            CASE WHEN c.phone_key = _wa_phone_key(k.phone) THEN c.phone_e164 ELSE k.phone END, k.user_id,
            k.id,
            CASE WHEN k.is_inbound THEN 'inbound' ELSE 'outbound' END, 'call', k.content,
            CASE WHEN k.is_inbound THEN 'received' ELSE 'sent' END, CASE WHEN k.is_inbound THEN 'received'
                ELSE 'sent' END,
            CASE WHEN NOT k.is_inbound THEN k.at END, k.at
        FROM calls k
        JOIN wa_contacts c ON c.organization_id = p_org AND c.id = k.contact_id
        ORDER BY k.at, k.id
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
    SELECT array_agg(r.id) INTO v_started FROM recorded r WHERE r.content ? 'connect'
        AND r.wa_message_id <> ALL (v_known);
    IF v_started IS NOT NULL THEN
        PERFORM _wa_record_customer_messages(p_org, v_started);
        PERFORM _wa_record_business_messages(p_org, v_started);
        PERFORM _wa_attach_early_statuses(p_org, v_started);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_calls(uuid, _wa_webhook_atoms[]) IS
'Internal: records calls; one that the customer makes opens the window.';

CREATE OR REPLACE FUNCTION _wa_call_customer(
    p_call jsonb, p_contact jsonb, p_display_phone text, OUT is_inbound boolean, OUT phone text,
    OUT user_id text
)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    is_inbound := CASE p_call ->> 'direction'
        WHEN 'USER_INITIATED' THEN true
        WHEN 'BUSINESS_INITIATED' THEN false
        ELSE coalesce(p_call ->> 'from', '') <> regexp_replace(coalesce(p_display_phone, '-'), '[^0-9]', '',
            'g')
    END;
    phone := coalesce(p_call ->> CASE WHEN is_inbound THEN 'from' ELSE 'to' END, p_contact ->> 'wa_id');
    user_id := coalesce(
        p_call ->> CASE WHEN is_inbound THEN 'from_user_id' ELSE 'to_user_id' END, p_contact ->> 'user_id'
    );
END
$$;

COMMENT ON FUNCTION _wa_call_customer(jsonb, jsonb, text) IS
'Internal: who the customer of a call is, and whether the customer made it.';
