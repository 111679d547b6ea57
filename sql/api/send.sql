-- Sending over HTTP: one message or many, from the words of a request to the queue's own.

CREATE OR REPLACE FUNCTION _wa_request_to_message(p_request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_keys text[];
    v_stray text;
BEGIN
    IF jsonb_typeof(p_request) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a message is a JSON object, not %s', coalesce(jsonb_typeof(p_request), 'NULL')),
            DETAIL = 'It is what the body of the request holds.',
            HINT = 'For example: {"phone": "+15551234567", "message": "Hello"}.';
    ELSIF p_request ? 'message' AND p_request ? 'text_body' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a message has its text once, as message or as text_body',
            DETAIL = 'Both are there.',
            HINT = 'They mean the same: leave one away.';
    END IF;
    SELECT p.proargnames || 'message'::text INTO v_keys FROM pg_catalog.pg_proc p
    WHERE p.oid = 'enqueue_wa_message'::regproc;
    SELECT k INTO v_stray FROM jsonb_object_keys(p_request) k WHERE k <> ALL (v_keys) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a message has no %I', left(v_stray, 100)),
            DETAIL = format('Its value is %s.', left((p_request -> v_stray)::text, 60)),
            HINT = format('It may have %s.', array_to_string(v_keys, ', '));
    END IF;
    RETURN CASE WHEN p_request ? 'message'
        THEN p_request - 'message' || jsonb_build_object('text_body', p_request -> 'message')
        ELSE p_request END;
END
$$;

COMMENT ON FUNCTION _wa_request_to_message(jsonb) IS
'Internal: the message of a request in the queue''s words ("message" is text_body); fields that no message '
'has are refused by name.';

-- Which number a row goes out from stands beside it; NULL is none yet, which may become any.
CREATE OR REPLACE FUNCTION _wa_require_test_numbers(p_queue_ids uuid[]) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_number text;
BEGIN
    SELECT coalesce(n.phone_number_id, 'none yet') INTO v_number
    FROM unnest(p_queue_ids) i (id)
    JOIN wa_queue_due d ON d.organization_id = v_org AND d.queue_id = i.id
    LEFT JOIN wa_phone_numbers n ON n.organization_id = v_org AND n.id = d.number_id
    WHERE n.is_test IS NOT TRUE
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA605',
            MESSAGE = 'a test key reaches test numbers only',
            DETAIL = format('The message would go out from the business number %s.', v_number),
            HINT = 'Name a number with is_test as phone_number_id, or use a live key.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_test_numbers(uuid[]) IS
'Internal: raises WA605 where a queued message would go out from a number that is no test number.';

CREATE OR REPLACE FUNCTION _wa_queued_json(p_message wa_outbound_queue) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN jsonb_build_object(
    'id', (p_message).id, 'status', (p_message).status, 'phone', (p_message).phone, 'type', (p_message).type,
    'text_body', (p_message).text_body, 'template_name', (p_message).template_name,
    'template_language', (p_message).template_language, 'template_params', (p_message).template_params,
    'content', (p_message).content, 'reply_to', (p_message).reply_to, 'priority', (p_message).priority,
    'scheduled_at', (p_message).scheduled_at, 'expires_at', (p_message).expires_at,
    'phone_number_id', (p_message).phone_number_id, 'reference', (p_message).reference,
    'customer_id', (p_message).customer_id, 'sent_by', (p_message).sent_by,
    'sms_fallback_text', (p_message).sms_fallback_text, 'metadata', (p_message).metadata,
    'wa_message_id', (p_message).wa_message_id, 'error_code', (p_message).error_code,
    'last_error', (p_message).last_error, 'retry_count', (p_message).retry_count,
    'created_at', (p_message).created_at, 'processed_at', (p_message).processed_at
);

COMMENT ON FUNCTION _wa_queued_json(wa_outbound_queue) IS
'Internal: a queued message as the HTTP API shows it.';

CREATE OR REPLACE FUNCTION send_wa_message(p_request jsonb, p_idempotency_key text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_operation CONSTANT text := 'send';
    v_before jsonb;
    v_message jsonb;
    v_row wa_outbound_queue;
BEGIN
    IF p_idempotency_key IS NOT NULL THEN
        v_before := begin_wa_idempotent_request(
            p_idempotency_key, c_operation, sha256(convert_to(p_request::text, 'UTF8'))
        );
        IF v_before IS NOT NULL THEN
            SELECT q.* INTO v_row FROM wa_outbound_queue q
            WHERE q.organization_id = current_wa_organization() AND q.id = (v_before ->> 'id')::uuid;
            -- Retention may have taken the row.
            RETURN CASE WHEN FOUND THEN _wa_queued_json(v_row) ELSE v_before END;
        END IF;
    END IF;
    v_message := _wa_request_to_message(p_request);
    v_row := jsonb_populate_record(NULL::wa_outbound_queue, v_message);
    SELECT e.* INTO v_row FROM enqueue_wa_message(
        v_row.phone, v_row.text_body, v_row.template_name, v_row.template_params, v_row.template_language,
        v_row.type, v_row.content, v_row.priority, v_row.scheduled_at, v_row.expires_at,
        v_row.phone_number_id, v_row.idempotency_key, v_row.reference, v_row.metadata, v_row.reply_to,
        v_row.on_refusal, v_row.on_unknown, v_row.fallback_template_name, v_row.fallback_template_params,
        v_row.fallback_template_language, v_row.customer_id, v_row.sent_by, v_row.sms_fallback_text
    ) e;
    IF _wa_is_test_only() THEN
        PERFORM _wa_require_test_numbers(ARRAY[v_row.id]);
    END IF;
    IF p_idempotency_key IS NOT NULL THEN
        PERFORM end_wa_idempotent_request(p_idempotency_key, c_operation,
            jsonb_build_object('id', v_row.id, 'status', v_row.status, 'phone', v_row.phone));
    END IF;
    RETURN _wa_queued_json(v_row);
END
$$;

COMMENT ON FUNCTION send_wa_message(jsonb, text) IS
'Queues one message given as an object with the columns of wa_outbound_queue, "message" standing for '
'text_body, and returns it as the HTTP API shows it. Repeated with the same p_idempotency_key it returns '
'the message that is there, in its present state; raises WA606 for another body, WA607 while the first is '
'at work.';

CREATE OR REPLACE FUNCTION send_wa_messages(
    p_messages jsonb, p_idempotency_key text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_operation CONSTANT text := 'batch';
    c_most CONSTANT integer := 10000;
    v_result jsonb;
    v_ids uuid[];
BEGIN
    IF (CASE jsonb_typeof(p_messages) WHEN 'array' THEN jsonb_array_length(p_messages) ELSE 0 END)
        NOT BETWEEN 1 AND c_most
    THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a batch is a JSON array of 1 to %s messages', c_most),
            DETAIL = format('It is %s.', CASE jsonb_typeof(p_messages)
                WHEN 'array' THEN format('an array of %s', jsonb_array_length(p_messages))
                ELSE coalesce(jsonb_typeof(p_messages), 'NULL') END),
            HINT = 'Send more of them in several batches.';
    END IF;
    IF p_idempotency_key IS NOT NULL THEN
        v_result := begin_wa_idempotent_request(
            p_idempotency_key, c_operation, sha256(convert_to(p_messages::text, 'UTF8'))
        );
    END IF;
    IF v_result IS NULL THEN
        SELECT jsonb_agg(to_jsonb(v) ORDER BY v.n), array_agg(v.id) FILTER (WHERE v.id IS NOT NULL)
        INTO v_result, v_ids
        FROM enqueue_wa_messages((
            SELECT jsonb_agg(
                CASE WHEN jsonb_typeof(m.value) = 'object' AND m.value ? 'message'
                    AND NOT m.value ? 'text_body'
                THEN m.value - 'message' || jsonb_build_object('text_body', m.value -> 'message')
                ELSE m.value END ORDER BY m.n
            ) FROM jsonb_array_elements(p_messages) WITH ORDINALITY m (value, n)
        )) v;
        IF _wa_is_test_only() THEN
            PERFORM _wa_require_test_numbers(v_ids);
        END IF;
        IF p_idempotency_key IS NOT NULL THEN
            PERFORM end_wa_idempotent_request(p_idempotency_key, c_operation, v_result);
        END IF;
    ELSE
        SELECT jsonb_agg(
            CASE WHEN q.id IS NULL THEN r.value
            ELSE r.value || jsonb_build_object('status', q.status, 'error', q.last_error) END ORDER BY r.n
        ) INTO v_result
        FROM jsonb_array_elements(v_result) WITH ORDINALITY r (value, n)
        LEFT JOIN wa_outbound_queue q
            ON q.organization_id = current_wa_organization() AND q.id = (r.value ->> 'id')::uuid;
    END IF;
    RETURN jsonb_build_object(
        'queued', (SELECT count(*) FROM jsonb_array_elements(v_result) r WHERE r ->> 'id' IS NOT NULL),
        'refused', (SELECT count(*) FROM jsonb_array_elements(v_result) r WHERE r ->> 'id' IS NULL),
        'messages', v_result
    );
END
$$;

COMMENT ON FUNCTION send_wa_messages(jsonb, text) IS
'Queues up to 10,000 messages, each as for send_wa_message(), and returns a verdict for each in their '
'order: its id and status, or refused with SQLSTATE, error and hint. Bad ones do not stop good ones.';

-- What a caller may do instead, asked for after a refusal has undone everything.
CREATE OR REPLACE FUNCTION get_wa_send_options(
    p_phone text, p_phone_number_id text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 50;
    v_org uuid := current_wa_organization();
    v_contact_id bigint := _wa_find_contact(v_org, p_phone);
    v_last timestamptz;
BEGIN
    SELECT max(w.last_customer_message_at) INTO v_last
    FROM wa_conversation_windows w
    JOIN wa_phone_numbers n ON n.organization_id = v_org AND n.id = w.number_id
    WHERE w.organization_id = v_org AND w.contact_id = v_contact_id
        AND (p_phone_number_id IS NULL OR n.phone_number_id = p_phone_number_id)
        AND (n.is_test OR NOT _wa_is_test_only());
    RETURN jsonb_build_object(
        'last_customer_message_at', v_last,
        'window_closed_at', v_last + interval '24 hours',
        'templates', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', t.name, 'language', t.language, 'category', t.category, 'body_text', t.body_text,
                'parameters', t.parameters
            ) ORDER BY t.name, t.language), '[]')
            FROM (
                SELECT x.* FROM wa_templates x
                WHERE x.organization_id = v_org
                    AND _wa_is_template_sendable(x.status, x.blocked_at, x.blocked_until, clock_timestamp())
                ORDER BY x.name, x.language LIMIT c_most
            ) t
        )
    );
END
$$;

COMMENT ON FUNCTION get_wa_send_options(text, text) IS
'What may go where a free-form message may not: when the customer wrote last, when the window closed, and '
'up to 50 templates that may be sent now.';

CREATE OR REPLACE FUNCTION read_wa_phone_number(
    p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL, p_or_null boolean DEFAULT false
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object('phone', CASE
        WHEN p_or_null THEN try_normalize_phone_e164(p_phone, r.region, r.area_code)
        ELSE normalize_phone_e164(p_phone, r.region, r.area_code) END)
    FROM (
        -- An area code belongs to its region: that of the organization to no other.
        SELECT coalesce(upper(p_region), o.default_region) AS region,
            CASE WHEN upper(p_region) <> o.default_region THEN p_area_code
                ELSE coalesce(p_area_code, o.default_area_code) END AS area_code
        FROM (SELECT current_wa_organization() AS id) c
        LEFT JOIN wa_organizations o ON o.id = c.id
    ) r
$$;

COMMENT ON FUNCTION read_wa_phone_number(text, text, text, boolean) IS
'A phone number in E.164, national forms read by the region given, else by the organization''s; for what is '
'no number 22023, or null where p_or_null says so.';
