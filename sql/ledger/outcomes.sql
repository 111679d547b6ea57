-- What became of queued messages, as the ledger keeps it.

-- Nothing else has a category and no template; the number may be gone by now.
CREATE OR REPLACE FUNCTION _wa_is_sms(p_template_name text, p_template_category text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_template_name IS NULL AND p_template_category IS NOT NULL;

COMMENT ON FUNCTION _wa_is_sms(text, text) IS
'Internal: whether a message of the ledger went as SMS: WhatsApp''s rules and prices are not for it.';

CREATE OR REPLACE FUNCTION _wa_record_outcomes(
    p_org uuid, p_queue_ids uuid[], p_number_ids bigint[], p_template_ids uuid[], p_states text[],
    p_within_24h boolean[], p_now timestamptz
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_messages bigint[];
BEGIN
    WITH recorded AS (
        INSERT INTO wa_messages (
            organization_id, queue_id, number_id, phone_number_id, contact_id, customer_id, phone_e164,
            user_id, wa_message_id, direction, message_type, content, content_text, template_name,
            template_language, template_category, status, state, is_within_24h_at_claim, reply_to,
            error_code, error_title, error_message, reference, metadata, queued_at, claimed_at, sent_at,
            failed_at
        )
        SELECT
            p_org, q.id, u.number_id, n.phone_number_id, q.contact_id, q.customer_id,
            CASE WHEN left(q.phone, 1) = '+' THEN q.phone END,
            CASE WHEN left(q.phone, 1) <> '+' THEN q.phone END,
            q.wa_message_id, 'outbound', CASE WHEN t.id IS NULL THEN q.type ELSE 'template' END,
            CASE
                WHEN t.id IS NOT NULL THEN jsonb_build_object('params', CASE WHEN q.type = 'template'
                    THEN coalesce(q.template_params, q.content) ELSE q.fallback_template_params END)
                ELSE coalesce(q.content, '{}')
            END,
            CASE WHEN t.id IS NULL
                THEN coalesce(q.text_body, q.content ->> 'caption', q.content #>> '{body,text}') END,
            t.name, t.language,
            CASE WHEN t.id IS NULL AND n.channel = 'sms' THEN _wa_sms_category(p_org, q.id)
                ELSE t.category END,
            q.status, u.state, u.is_within_24h, q.reply_to,
            CASE WHEN q.error_code ~ '^\d+$' THEN q.error_code::integer END,
            CASE WHEN q.status = 'failed' THEN q.error_code END,
            q.last_error, q.reference, q.metadata, q.created_at, q.claimed_at,
            CASE WHEN q.status = 'sent' THEN p_now END, CASE WHEN q.status = 'failed' THEN p_now END
        FROM unnest(p_queue_ids, p_number_ids, p_template_ids, p_states, p_within_24h)
            u (queue_id, number_id, template_id, state, is_within_24h)
        CROSS JOIN LATERAL (
            SELECT x.* FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = u.queue_id LIMIT 1
        ) q
        LEFT JOIN LATERAL (
            SELECT x.phone_number_id, x.channel FROM wa_phone_numbers x
            WHERE x.organization_id = p_org AND x.id = u.number_id LIMIT 1
        ) n ON true
        LEFT JOIN LATERAL (
            SELECT x.id, x.name, x.language, x.category FROM wa_templates x
            WHERE x.organization_id = p_org AND x.id = u.template_id LIMIT 1
        ) t ON true
        -- A row that was retried, or settled late, has its entry already.
        ON CONFLICT (organization_id, queue_id) WHERE queue_id IS NOT NULL DO UPDATE SET
            contact_id = excluded.contact_id, phone_e164 = excluded.phone_e164, user_id = excluded.user_id,
            wa_message_id = excluded.wa_message_id, status = excluded.status, state = excluded.state,
            error_code = excluded.error_code, error_title = excluded.error_title,
            error_message = excluded.error_message, claimed_at = excluded.claimed_at,
            sent_at = excluded.sent_at, failed_at = excluded.failed_at,
            is_within_24h_at_claim = coalesce(
                excluded.is_within_24h_at_claim, wa_messages.is_within_24h_at_claim
            ),
            updated_at = p_now
        RETURNING id, state
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'status', m.id, m.state, p_now FROM recorded m
    )
    SELECT array_agg(m.id) INTO v_messages FROM recorded m;
    RETURN coalesce(v_messages, '{}');
END
$$;

COMMENT ON FUNCTION _wa_record_outcomes(
    uuid, uuid[], bigint[], uuid[], text[], boolean[], timestamptz
) IS
'Internal: writes the entries of queued messages that have ended, and an event for each; the rows of the '
'queue tell how. Returns their ids.';
