-- Twilio, for WhatsApp (business numbers called whatsapp:+14155238886) and for SMS (+14155238886). The
-- account of a number is Twilio's AccountSid. Twilio's documentation: Programmable Messaging (Message
-- resource), Content API, Webhooks security, Error and warning dictionary.

INSERT INTO wa_providers (
    name, send_path, media_path, request_function, answer_function, webhook_function, whatsapp_ids, features
) VALUES (
    'twilio', '/2010-04-01/Accounts/{account}/Messages.json',
    '/2010-04-01/Accounts/{account}/Messages/{media1}/Media/{media2}',
    '_wa_twilio_request', '_wa_twilio_answer', '_wa_twilio_webhook', '^whatsapp:', '{templates}'
)
ON CONFLICT (name) DO UPDATE SET
send_path = excluded.send_path, media_path = excluded.media_path,
request_function = excluded.request_function,
answer_function = excluded.answer_function, webhook_function = excluded.webhook_function,
whatsapp_ids = excluded.whatsapp_ids, features = excluded.features;

-- Existing rows are left alone: they may have been changed by an operator.
INSERT INTO wa_error_rules (provider, code, http_status, title, action, max_retries, wait, allows_sms) VALUES
('twilio', 20003, 401, 'Account SID and auth token do not fit', 'pause_token', NULL, NULL, false),
('twilio', 20005, 403, 'Account not active', 'pause_account', NULL, NULL, false),
('twilio', 20404, 404, 'Account or service unknown', 'pause_number', NULL, NULL, false),
('twilio', 20429, 429, 'Too many requests', 'wait_number', NULL, '1 second', false),
('twilio', 20500, 500, 'Internal server error', 'unknown', NULL, NULL, false),
('twilio', 20503, 503, 'Service unavailable', 'retry', NULL, NULL, false),
('twilio', 20504, 504, 'Gateway timeout', 'unknown', NULL, NULL, false),
('twilio', 21211, 400, 'Recipient is no phone number', 'fail_recipient', NULL, NULL, false),
('twilio', 21212, 400, 'Sender is no phone number', 'pause_number', NULL, NULL, false),
('twilio', 21408, 400, 'Account may not message this country', 'fail_recipient', NULL, NULL, true),
('twilio', 21602, 400, 'Message without body', 'fail', NULL, NULL, false),
('twilio', 21603, 400, 'Sender missing', 'pause_number', NULL, NULL, false),
('twilio', 21604, 400, 'Recipient missing', 'fail', NULL, NULL, false),
('twilio', 21606, 400, 'Sender is not of this account', 'pause_number', NULL, NULL, false),
('twilio', 21609, 400, 'StatusCallback is no URL', 'fail', NULL, NULL, false),
('twilio', 21610, 400, 'Recipient wrote STOP at the provider', 'opt_out_word', NULL, NULL, false),
('twilio', 21611, 400, 'Queue of the sender is full', 'wait_number', NULL, '1 minute', false),
('twilio', 21612, 400, 'No route from the sender to the recipient', 'fail_recipient', NULL, NULL, false),
('twilio', 21614, 400, 'Recipient is no mobile number', 'fail_recipient', NULL, NULL, false),
('twilio', 21617, 400, 'Body too long', 'fail', NULL, NULL, false),
('twilio', 21619, 400, 'Neither body nor media nor content', 'fail', NULL, NULL, false),
('twilio', 21620, 400, 'Media URL invalid', 'fail', NULL, NULL, false),
('twilio', 21623, 400, 'Too many media URLs', 'fail', NULL, NULL, false),
('twilio', 21654, 400, 'ContentSid missing', 'fail', NULL, NULL, false),
('twilio', 21655, 400, 'ContentSid invalid', 'stop_template', NULL, NULL, true),
('twilio', 21656, 400, 'ContentVariables invalid', 'fail', NULL, NULL, false),
('twilio', 21659, 400, 'Sender is no number of Twilio', 'pause_number', NULL, NULL, false),
('twilio', 21660, 400, 'Sender and account do not fit', 'pause_number', NULL, NULL, false),
('twilio', 21703, 400, 'Messaging service without sender', 'pause_number', NULL, NULL, false),
('twilio', 21910, 400, 'Sender and recipient are of two channels', 'fail', NULL, NULL, false),
('twilio', 30001, NULL, 'Queue overflow', 'fail', NULL, NULL, false),
('twilio', 30002, NULL, 'Account suspended', 'pause_account', NULL, NULL, false),
('twilio', 30003, NULL, 'Handset not reachable', 'fail_recipient', NULL, NULL, false),
('twilio', 30004, NULL, 'Message blocked', 'fail_recipient', NULL, NULL, false),
('twilio', 30005, NULL, 'Handset unknown', 'fail_recipient', NULL, NULL, false),
('twilio', 30006, NULL, 'Landline, or carrier not reachable', 'fail_recipient', NULL, NULL, false),
('twilio', 30007, NULL, 'Filtered by the carrier', 'fail', NULL, NULL, false),
('twilio', 30008, NULL, 'Unknown error of the carrier', 'fail', NULL, NULL, false),
('twilio', 30032, NULL, 'Toll-free sender not verified', 'pause_number', NULL, NULL, false),
('twilio', 30034, NULL, 'Sender not registered for A2P 10DLC', 'pause_number', NULL, NULL, false),
('twilio', 63001, NULL, 'Channel does not know the credentials', 'pause_token', NULL, NULL, false),
('twilio', 63002, NULL, 'Channel does not know the sender', 'pause_number', NULL, NULL, false),
('twilio', 63003, NULL, 'Channel does not know the recipient', 'fail_recipient', NULL, NULL, true),
('twilio', 63005, NULL, 'Channel did not take the content', 'fail', NULL, NULL, true),
('twilio', 63007, 400, 'No channel with the sender', 'pause_number', NULL, NULL, false),
('twilio', 63010, NULL, 'Internal error of the channel', 'retry', NULL, NULL, true),
('twilio', 63012, NULL, 'Internal error of the channel''s provider', 'retry', NULL, NULL, true),
('twilio', 63013, NULL, 'Violates a policy of the channel', 'fail', NULL, NULL, false),
('twilio', 63014, NULL, 'Recipient blocked the sender', 'fail_recipient', NULL, NULL, false),
('twilio', 63015, NULL, 'Recipient has not joined the sandbox', 'fail_recipient', NULL, NULL, false),
('twilio', 63016, 400, 'More than 24 hours since the customer wrote', 'need_template', NULL, NULL, true),
('twilio', 63017, 429, 'Rate limit of the account', 'wait_number', NULL, '1 second', false),
('twilio', 63018, 429, 'Rate limit of the channel', 'wait_number', NULL, '1 second', false),
('twilio', 63019, NULL, 'Media could not be fetched', 'fail', NULL, NULL, false),
('twilio', 63020, NULL, 'Error of the business account at Meta', 'pause_account', NULL, NULL, false),
('twilio', 63021, NULL, 'Content invalid', 'fail', NULL, NULL, false),
('twilio', 63022, NULL, 'Display name not approved', 'pause_number', NULL, NULL, false),
('twilio', 63024, 400, 'Recipient invalid', 'fail_recipient', NULL, NULL, true),
('twilio', 63027, NULL, 'Template does not exist in this language', 'stop_template', NULL, NULL, true),
('twilio', 63028, NULL, 'Parameter count does not match', 'fail', NULL, NULL, false),
('twilio', 63030, NULL, 'Parameter not supported by the type', 'fail', NULL, NULL, false),
('twilio', 63031, 400, 'Recipient is the sender', 'fail', NULL, NULL, false),
('twilio', 63032, NULL, 'User is part of an experiment of Meta', 'fail', NULL, NULL, true),
('twilio', 63033, NULL, 'Recipient may not be written to', 'fail_recipient', NULL, NULL, false),
('twilio', 63036, NULL, 'Recipient cannot get it', 'fail_recipient', NULL, NULL, true),
('twilio', 63038, 429, 'Daily limit of the account', 'wait_account', NULL, '1 hour', false),
('twilio', 63040, NULL, 'Template rejected', 'stop_template', NULL, NULL, true),
('twilio', 63041, NULL, 'Template paused', 'stop_template', NULL, '3 hours', true),
('twilio', 63042, NULL, 'Template disabled', 'stop_template', NULL, NULL, true),
('twilio', 63049, NULL, 'Not delivered to keep the ecosystem healthy', 'cool_off', NULL, '24 hours', false),
('twilio', 63051, NULL, 'Business account locked', 'pause_account', NULL, NULL, false),
('twilio', 63054, NULL, 'Template unavailable', 'stop_template', NULL, '1 hour', true),
('twilio', 63059, NULL, 'Sender moved to another business account', 'pause_number', NULL, NULL, false)
ON CONFLICT (provider, code, subcode) DO NOTHING;

-- Twilio numbers the variables of a template over all of its parts. bin/wa templates sync keeps, in each
-- part, which those are; without that they are counted through.
CREATE OR REPLACE FUNCTION _wa_twilio_variables(p_components jsonb, p_parts jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT jsonb_object_agg(
        coalesce(v.name, k.part #>> ARRAY['twilio_variables', v.nth::text], v.n::text), v.value
    )
    FROM (
        SELECT c.value ->> 'type' AS type, a.value ->> 'parameter_name' AS name,
            row_number() OVER (ORDER BY c.place, a.place) AS n,
            row_number() OVER (PARTITION BY c.value ->> 'type' ORDER BY c.place, a.place) - 1 AS nth,
            coalesce(
                a.value ->> 'text', a.value ->> 'payload', a.value ->> 'coupon_code',
                a.value #>> ARRAY[a.value ->> 'type', 'link'],
                a.value #>> ARRAY[a.value ->> 'type', 'fallback_value']
            ) AS value
        FROM jsonb_array_elements(p_components) WITH ORDINALITY c (value, place)
        CROSS JOIN LATERAL jsonb_array_elements(c.value -> 'parameters') WITH ORDINALITY a (value, place)
    ) v
    LEFT JOIN LATERAL jsonb_array_elements(p_parts) k (part)
        ON lower(k.part ->> 'type') IN (v.type, v.type || 's')
);

COMMENT ON FUNCTION _wa_twilio_variables(jsonb, jsonb) IS
'Internal: ContentVariables for the values of a template in the Cloud API''s form; NULL where it has none.';

CREATE OR REPLACE FUNCTION _wa_twilio_content(p_number wa_phone_numbers, p_template jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_template record;
BEGIN
    SELECT t.provider_template_id AS sid, t.components INTO v_template
    FROM wa_templates t
    WHERE t.organization_id = (p_number).organization_id AND t.waba_id = (p_number).waba_id
        AND lower(t.name) = p_template ->> 'name' AND t.language = p_template #>> '{language,code}';
    IF v_template.sid ~ '^HX[0-9a-fA-F]{32}$' THEN
        RETURN jsonb_strip_nulls(jsonb_build_object(
            'ContentSid', v_template.sid,
            'ContentVariables', _wa_twilio_variables(p_template -> 'components', v_template.components)::text
        ));
    END IF;
    RETURN jsonb_build_object('problem', format(
        'the template "%s" (%s) has no ContentSid: wa_templates.provider_template_id is where it belongs',
        p_template ->> 'name', p_template #>> '{language,code}'
    ));
END
$$;

COMMENT ON FUNCTION _wa_twilio_content(wa_phone_numbers, jsonb) IS
'Internal: what sends a template: its ContentSid and the values.';

-- StatusCallback is the only thing of ours that comes back: Twilio posts there what becomes of the message,
-- and, as the part behind # asks (Webhooks connection overrides), five times more where that is not taken.
-- What quotes another message goes without: there is no field for it.
CREATE OR REPLACE FUNCTION _wa_twilio_request(p_request jsonb, p_number wa_phone_numbers) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_longest CONSTANT integer := 1600;
    v_type text := p_request ->> 'type';
    v_content jsonb := p_request -> v_type;
    v_prefix text := CASE (p_number).channel WHEN 'whatsapp' THEN 'whatsapp:' ELSE '' END;
    v_sender text := substr((p_number).phone_number_id, length(v_prefix) + 1);
    v_public_url text := _wa_public_url((p_number).organization_id);
    v_message jsonb;
BEGIN
    v_message := CASE
        WHEN v_type = 'template' THEN _wa_twilio_content(p_number, v_content)
        WHEN v_type = 'text' THEN jsonb_build_object('Body', v_content ->> 'body')
        WHEN v_content ->> 'link' ~ '^https?://' THEN jsonb_strip_nulls(jsonb_build_object(
            'MediaUrl', v_content ->> 'link', 'Body', v_content ->> 'caption'
        ))
        WHEN v_type IN ('image', 'video', 'audio', 'document', 'sticker') THEN jsonb_build_object(
            'problem', CASE WHEN v_content ? 'link' THEN 'Twilio fetches files from us: set public_url'
                ELSE 'Twilio fetches files: name one of yours that is here, or give a link' END
        )
        WHEN v_type = 'location' THEN jsonb_build_object(
            'Body', coalesce(v_content ->> 'name', v_content ->> 'address', '.'),
            'PersistentAction', concat_ws(
                '|', format('geo:%s,%s', v_content ->> 'latitude', v_content ->> 'longitude'),
                coalesce(v_content ->> 'name', v_content ->> 'address')
            )
        )
    END;
    IF v_message IS NULL OR v_message ? 'problem' THEN
        RETURN v_message;
    ELSIF char_length(v_message ->> 'Body') > c_longest THEN
        RETURN jsonb_build_object(
            'problem', format('Twilio takes texts of %s characters at most', c_longest));
    END IF;
    RETURN v_message || jsonb_build_object(
        'To', v_prefix || coalesce(p_request ->> 'to', p_request ->> 'recipient'),
        CASE WHEN v_sender LIKE 'MG%' THEN 'MessagingServiceSid' ELSE 'From' END,
        CASE WHEN v_sender LIKE 'MG%' THEN v_sender ELSE (p_number).phone_number_id END
    ) || CASE WHEN v_public_url IS NULL THEN '{}' ELSE jsonb_build_object(
        'StatusCallback', format(
            '%s/api/whatsapp/webhook?callback=%s#rc=5&rp=all', v_public_url,
            p_request ->> 'biz_opaque_callback_data'
        )
    ) END;
END
$$;

COMMENT ON FUNCTION _wa_twilio_request(jsonb, wa_phone_numbers) IS
'Internal: the form fields of Twilio''s Message resource for a request of the Cloud API.';

CREATE OR REPLACE FUNCTION _wa_twilio_answer(p_answer jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_answer ->> 'sid' ~ '^[A-Z]{2}[0-9a-fA-F]{32}$'
        THEN jsonb_build_object('messages', jsonb_build_array(jsonb_build_object('id', p_answer ->> 'sid')))
    WHEN p_answer ? 'code' THEN jsonb_build_object('error', jsonb_build_object(
        'code', p_answer -> 'code', 'message', p_answer ->> 'message'
    ))
    ELSE p_answer
END;

COMMENT ON FUNCTION _wa_twilio_answer(jsonb) IS
'Internal: the Cloud API''s answer for one of Twilio''s: the Sid as message id, or the error.';

CREATE OR REPLACE FUNCTION _wa_twilio_status(p_form jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_strip_nulls(jsonb_build_object(
    'id', p_form ->> 'MessageSid',
    'status', CASE
        WHEN p_form ->> 'MessageStatus' IN ('accepted', 'scheduled', 'queued', 'sending') THEN 'accepted'
        WHEN p_form ->> 'MessageStatus' IN ('undelivered', 'canceled') THEN 'failed'
        WHEN p_form ->> 'MessageStatus' = 'partially_delivered' THEN 'delivered'
        ELSE p_form ->> 'MessageStatus'
    END,
    'recipient_id', substring(p_form ->> 'To' FROM '^(?:whatsapp:)?[+]?([0-9]+)$'),
    'recipient_user_id', substring(p_form ->> 'To' FROM '^whatsapp:([A-Z]{2}[.].+)$'),
    'biz_opaque_callback_data', p_form ->> 'callback',
    'errors', CASE WHEN p_form ->> 'ErrorCode' ~ '^[0-9]{1,9}$' THEN jsonb_build_array(jsonb_build_object(
        'code', (p_form ->> 'ErrorCode')::integer,
        'title', coalesce(p_form ->> 'ErrorMessage', p_form ->> 'ChannelStatusMessage', 'Twilio error')
    )) END
));

COMMENT ON FUNCTION _wa_twilio_status(jsonb) IS
'Internal: a status as the Cloud API tells it, of the fields of one of Twilio''s callbacks.';

CREATE OR REPLACE FUNCTION _wa_twilio_message(p_form jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'id', coalesce(p_form ->> 'MessageSid', p_form ->> 'SmsMessageSid'),
        'from', coalesce(
            nullif(p_form ->> 'WaId', ''), substring(p_form ->> 'From' FROM '^(?:whatsapp:)?[+]?([0-9]+)$')
        ),
        'from_user_id', substring(p_form ->> 'From' FROM '^whatsapp:([A-Z]{2}[.].+)$'),
        'type', t.type,
        t.type, CASE t.type
            WHEN 'button' THEN jsonb_build_object(
                'text', p_form ->> 'ButtonText', 'payload', p_form ->> 'ButtonPayload')
            WHEN 'interactive' THEN jsonb_build_object('type', 'list_reply', 'list_reply', jsonb_build_object(
                'id', p_form ->> 'ListId', 'title', p_form ->> 'ListTitle'))
            WHEN 'location' THEN jsonb_build_object(
                'latitude', p_form ->> 'Latitude', 'longitude', p_form ->> 'Longitude',
                'name', p_form ->> 'Label', 'address', p_form ->> 'Address')
            WHEN 'text' THEN jsonb_build_object('body', p_form ->> 'Body')
            WHEN 'unsupported' THEN jsonb_build_object('type', p_form ->> 'MessageType')
            ELSE jsonb_build_object(
                'id', concat_ws(':', m.parts[1], m.parts[2]), 'mime_type', p_form ->> 'MediaContentType0',
                'caption', nullif(p_form ->> 'Body', ''))
        END,
        'opt_out_type', nullif(p_form ->> 'OptOutType', ''),
        'context', CASE WHEN p_form ->> 'OriginalRepliedMessageSid' IS NOT NULL
            THEN jsonb_build_object('id', p_form ->> 'OriginalRepliedMessageSid') END,
        'referral', CASE WHEN p_form ->> 'ReferralSourceId' IS NOT NULL THEN jsonb_build_object(
            'source_id', p_form ->> 'ReferralSourceId', 'source_url', p_form ->> 'ReferralSourceUrl',
            'source_type', p_form ->> 'ReferralSourceType', 'headline', p_form ->> 'ReferralHeadline',
            'body', p_form ->> 'ReferralBody', 'ctwa_clid', p_form ->> 'ReferralCtwaClid'
        ) END
    ))
    FROM regexp_match(p_form ->> 'MediaUrl0', '/Messages/([A-Za-z0-9]+)/Media/([A-Za-z0-9]+)$') m (parts)
    CROSS JOIN LATERAL (
        SELECT CASE
            -- Some fields come empty with every message.
            WHEN concat(p_form ->> 'ButtonText', p_form ->> 'ButtonPayload') <> '' THEN 'button'
            WHEN p_form ->> 'ListId' <> '' THEN 'interactive'
            WHEN p_form ->> 'Latitude' <> '' THEN 'location'
            WHEN m.parts IS NOT NULL THEN CASE
                WHEN p_form ->> 'MediaContentType0' = 'image/webp' THEN 'sticker'
                WHEN p_form ->> 'MediaContentType0' ~ '^(image|video|audio)/'
                    THEN split_part(p_form ->> 'MediaContentType0', '/', 1)
                ELSE 'document'
            END
            WHEN p_form ->> 'Body' <> '' THEN 'text'
            ELSE 'unsupported'
        END AS type
    ) t
);

COMMENT ON FUNCTION _wa_twilio_message(jsonb) IS
'Internal: a customer''s message as the Cloud API tells it, of the fields of Twilio''s webhook.';

-- One of several files is a message, as at Meta: the first is the one that Twilio knows, and has the words.
CREATE OR REPLACE FUNCTION _wa_twilio_messages(p_form jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_array(_wa_twilio_message(p_form)) || coalesce((
    SELECT jsonb_agg(
        _wa_twilio_message(jsonb_build_object(
            'MessageSid', concat_ws(':', coalesce(p_form ->> 'MessageSid', p_form ->> 'SmsMessageSid'), n),
            'WaId', p_form -> 'WaId', 'From', p_form -> 'From', 'MediaUrl0', p_form -> ('MediaUrl' || n),
            'MediaContentType0', p_form -> ('MediaContentType' || n)
        )) ORDER BY n
    )
    FROM generate_series(1, 9) n
    WHERE p_form ->> ('MediaUrl' || n) <> ''
), '[]');

COMMENT ON FUNCTION _wa_twilio_messages(jsonb) IS
'Internal: what a customer sent as the Cloud API tells it, a message for each file, of Twilio''s webhook.';

-- A status names our side as From, a message as To; where it went through a messaging service that is
-- registered as the number, as that.
CREATE OR REPLACE FUNCTION _wa_twilio_webhook(p_body bytea) RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_form jsonb := _wa_read_form(p_body);
    v_is_status boolean := v_form ? 'MessageStatus';
    v_ours text := v_form ->> CASE WHEN v_is_status THEN 'From' ELSE 'To' END;
    v_number text := coalesce(
        (SELECT r.phone_number_id FROM wa_number_routes r WHERE r.phone_number_id = v_ours),
        (
            SELECT r.phone_number_id FROM wa_number_routes r
            WHERE r.phone_number_id = CASE WHEN v_ours LIKE 'whatsapp:%' THEN 'whatsapp:' ELSE '' END
                || (v_form ->> 'MessagingServiceSid')
        ),
        v_ours
    );
BEGIN
    IF v_form IS NULL OR NOT v_form ?& '{AccountSid,From,To}' THEN
        RETURN NULL;
    END IF;
    RETURN convert_to(jsonb_build_object(
        'object', 'whatsapp_business_account',
        'entry', jsonb_build_array(jsonb_build_object(
            'id', v_form ->> 'AccountSid',
            'changes', jsonb_build_array(jsonb_build_object(
                'field', 'messages',
                'value', jsonb_build_object(
                    'metadata', jsonb_build_object(
                        'phone_number_id', v_number,
                        'display_phone_number', regexp_replace(v_ours, '^whatsapp:[+]?', '')
                    )
                ) || CASE WHEN v_is_status
                    THEN jsonb_build_object('statuses', jsonb_build_array(_wa_twilio_status(v_form)))
                    ELSE jsonb_build_object(
                        'messages', _wa_twilio_messages(v_form),
                        'contacts', jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
                            'wa_id', nullif(v_form ->> 'WaId', ''),
                            'profile', jsonb_strip_nulls(jsonb_build_object('name', v_form ->> 'ProfileName'))
                        )))
                    )
                END
            ))
        ))
    )::text, 'UTF8');
END
$$;

COMMENT ON FUNCTION _wa_twilio_webhook(bytea) IS
'Internal: a webhook of Twilio''s as the Cloud API would have sent it; NULL for what is none.';
