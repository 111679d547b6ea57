-- The rows that may go, as requests.

CREATE OR REPLACE FUNCTION _wa_grant(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_ids uuid[],
    p_contact_ids bigint[], p_template_ids uuid[], p_classes smallint[], p_open boolean[], p_now timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    PERFORM _wa_start_sending(
        (p_org).id, (p_number).id, p_dispatcher_id, p_ids, p_contact_ids, p_template_ids, p_classes, p_open,
        p_now
    );
    RETURN QUERY
    SELECT
        (p_org).id, q.id, q.attempt,
        (p_org).id || ':' || (p_number).id || ':' || u.contact_id || ':' || _wa_priority_of(u.class),
        (p_number).phone_number_id, (p_number).provider,
        CASE (p_number).provider WHEN '360dialog' THEN '/messages'
            ELSE '/' || (p_number).phone_number_id || '/messages' END,
        _wa_build_request(
            q.id, q.attempt, q.phone, q.type, q.text_body, q.content, q.reply_to, t.template, c.components
        )::text,
        30::double precision
    FROM unnest(p_ids, p_contact_ids, p_template_ids, p_classes)
        WITH ORDINALITY u (id, contact_id, template_id, class, place)
    CROSS JOIN LATERAL (
        SELECT x.* FROM wa_outbound_queue x WHERE x.organization_id = (p_org).id AND x.id = u.id LIMIT 1
    ) q
    LEFT JOIN LATERAL (
        SELECT x AS template FROM wa_templates x
        WHERE x.organization_id = (p_org).id AND x.id = u.template_id LIMIT 1
    ) t ON true
    -- OFFSET: evaluated once a row, though the request names it more than once.
    CROSS JOIN LATERAL (
        SELECT _wa_request_components(
            q.type, q.content, q.template_params, q.fallback_template_params, t.template
        ) AS components
        OFFSET 0
    ) c
    ORDER BY u.place;
END
$$;

COMMENT ON FUNCTION _wa_grant(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], boolean[], timestamptz
) IS 'Internal: moves granted rows from due to in flight and returns their requests.';

-- Body of POST /{phone_number_id}/messages (Cloud API, Send messages). An expression, so that the claim's
-- query takes it in: a function call for each row would cost more than the row.
CREATE OR REPLACE FUNCTION _wa_build_request(
    p_id uuid, p_attempt integer, p_phone text, p_type text, p_text_body text, p_content jsonb,
    p_reply_to text, p_template wa_templates, p_components jsonb
) RETURNS jsonb
LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'messaging_product', 'whatsapp', 'recipient_type', 'individual',
    CASE WHEN left(p_phone, 1) = '+' THEN 'to' ELSE 'recipient' END, p_phone,
    'type', CASE WHEN (p_template).id IS NULL THEN p_type ELSE 'template' END,
    CASE WHEN (p_template).id IS NULL THEN p_type ELSE 'template' END,
    CASE
        WHEN (p_template).id IS NOT NULL THEN jsonb_build_object(
            'name', lower((p_template).name), 'language', jsonb_build_object('code', (p_template).language)
        ) || CASE WHEN coalesce(p_components, '[]') = '[]' THEN '{}'
            ELSE jsonb_build_object('components', p_components) END
        WHEN p_type = 'text' THEN coalesce(p_content, '{}') || jsonb_build_object('body', p_text_body)
        ELSE p_content
    END,
    'biz_opaque_callback_data', 'q:' || p_id || ':' || p_attempt
) || CASE WHEN p_reply_to IS NULL OR p_type = 'reaction' AND (p_template).id IS NULL THEN '{}'
    ELSE jsonb_build_object('context', jsonb_build_object('message_id', p_reply_to)) END;

COMMENT ON FUNCTION _wa_build_request(uuid, integer, text, text, text, jsonb, text, wa_templates, jsonb) IS
'Internal: the request body of one message. Callback data carries the queue id and the attempt.';

CREATE OR REPLACE FUNCTION _wa_request_components(
    p_type text, p_content jsonb, p_params jsonb, p_fallback_params jsonb, p_template wa_templates
) RETURNS jsonb
LANGUAGE sql STABLE
RETURN CASE
    WHEN (p_template).id IS NULL THEN NULL
    WHEN p_type = 'template' AND p_content ? 'components' THEN p_content -> 'components'
    ELSE _wa_template_components(
        p_template, CASE WHEN p_type = 'template' THEN p_params ELSE p_fallback_params END
    )
END;

COMMENT ON FUNCTION _wa_request_components(text, jsonb, jsonb, jsonb, wa_templates) IS
'Internal: the components of a message that goes as a template, its own or its fall-back; NULL for another.';
