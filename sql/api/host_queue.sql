-- What hosts that queue for many recipients at once send, and ask for.

CREATE OR REPLACE FUNCTION queue_wa_recipients(
    p_request jsonb, p_idempotency_key text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_keys CONSTANT text[] := '{eventId,recipients,templateName,variables,scheduledFor}';
    v_stray text;
    v_result jsonb;
BEGIN
    SELECT k INTO v_stray
    FROM jsonb_object_keys(CASE jsonb_typeof(p_request) WHEN 'object' THEN p_request ELSE '{}' END) k
    WHERE k <> ALL (c_keys) LIMIT 1;
    IF jsonb_typeof(p_request) IS DISTINCT FROM 'object' OR v_stray IS NOT NULL
        OR jsonb_typeof(p_request -> 'recipients') IS DISTINCT FROM 'array'
        OR jsonb_typeof(p_request -> 'templateName') IS DISTINCT FROM 'string'
    THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = CASE WHEN v_stray IS NOT NULL THEN format('the request has no %I', left(v_stray, 100))
                ELSE 'the request needs recipients, an array, and templateName, a text' END,
            DETAIL = format('It is %s.', coalesce(jsonb_typeof(p_request), 'NULL')),
            HINT = format('It may have %s.', array_to_string(c_keys, ', '));
    END IF;
    v_result := send_wa_messages((
        SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'phone', r.value, 'template_name', p_request -> 'templateName',
            'template_params',
            coalesce(_wa_numbered_values(p_request -> 'variables'), p_request -> 'variables'),
            'scheduled_at', p_request -> 'scheduledFor', 'reference', 'event:' || (p_request ->> 'eventId'),
            'metadata', CASE WHEN p_request ->> 'eventId' IS NOT NULL
                THEN jsonb_build_object('event_id', p_request -> 'eventId') END
        )) ORDER BY r.n), '[]')
        FROM jsonb_array_elements(p_request -> 'recipients') WITH ORDINALITY r (value, n)
    ), p_idempotency_key);
    RETURN jsonb_build_object(
        'queued', v_result -> 'queued',
        'messages', (
            SELECT coalesce(jsonb_agg(to_jsonb(w) ORDER BY v.n), '[]')
            FROM jsonb_array_elements(v_result -> 'messages') WITH ORDINALITY v (value, n)
            JOIN whatsapp_queue w
                ON w.user_id = current_wa_organization() AND w.id = (v.value ->> 'id')::uuid
        ),
        'verdicts', (
            SELECT jsonb_agg(v.value || jsonb_build_object(
                'recipient', p_request -> 'recipients' -> (v.n::integer - 1)
            ) ORDER BY v.n)
            FROM jsonb_array_elements(v_result -> 'messages') WITH ORDINALITY v (value, n)
        )
    );
END
$$;

COMMENT ON FUNCTION queue_wa_recipients(jsonb, text) IS
'Queues a template to each of many recipients: {"eventId", "recipients", "templateName", "variables", '
'"scheduledFor"}. Returns how many were queued, their rows as whatsapp_queue shows them, and a verdict for '
'each recipient in input order; a bad one stops no other.';

-- Dispatchers send by themselves; who asks for it by HTTP is told how things stand.
CREATE OR REPLACE FUNCTION process_wa_queue() RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_since timestamptz := clock_timestamp() - interval '1 minute';
    v_sent bigint;
    v_failed bigint;
BEGIN
    PERFORM _wa_notify_dispatchers();
    SELECT count(*) FILTER (WHERE m.status = 'sent'), count(*) FILTER (WHERE m.status = 'failed')
    INTO v_sent, v_failed
    FROM wa_messages m
    WHERE m.organization_id = v_org AND m.direction = 'outbound' AND m.created_at >= v_since;
    RETURN jsonb_build_object('processed', v_sent + v_failed, 'sent', v_sent, 'failed', v_failed);
END
$$;

COMMENT ON FUNCTION process_wa_queue() IS
'Wakes dispatchers that sleep, and tells what was sent and failed in the last minute.';
