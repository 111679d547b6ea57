-- How a message is asked for, and the id of an accepted one, as the Cloud API has it. Providers that have it
-- otherwise translate (provider/seam.sql); where they are and how a token is shown is theirs in
-- bin/pg_whatsapp/providers.

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
RETURN CASE WHEN (p_template).id IS NOT NULL THEN _wa_template_components(
    p_template, _wa_queued_params(p_type, p_content, p_params, p_fallback_params)
) END;

COMMENT ON FUNCTION _wa_request_components(text, jsonb, jsonb, jsonb, wa_templates) IS
'Internal: the components of a message that goes as a template, its own or its fall-back; NULL for another, '
'and where the values do not fit the template any more.';

-- The wamid of an accepted message. An expression, because nearly every result is that: what else there is to
-- say of a result costs a call.
CREATE OR REPLACE FUNCTION _wa_accepted_wamid(p_result jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_result ->> 'outcome' = 'answered' AND (p_result ->> 'status')::integer BETWEEN 200 AND 299
        THEN p_result #>> '{answer,messages,0,id}'
END;

COMMENT ON FUNCTION _wa_accepted_wamid(jsonb) IS
'Internal: the message id that an accepting answer gives; NULL for every other result.';
