-- Messages as the HTTP API shows them: one with its history and why it has not gone, and taking one back.

CREATE OR REPLACE FUNCTION _wa_message_json(p_message wa_messages) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN jsonb_build_object(
    'id', (p_message).id, 'queue_id', (p_message).queue_id, 'direction', (p_message).direction,
    'phone', (p_message).phone_e164, 'user_id', (p_message).user_id,
    'phone_number_id', (p_message).phone_number_id, 'type', (p_message).message_type,
    'text', (p_message).content_text, 'content', (p_message).content,
    'template_name', (p_message).template_name, 'template_language', (p_message).template_language,
    'status', (p_message).status, 'state', (p_message).state, 'wa_message_id', (p_message).wa_message_id,
    'reply_to', (p_message).reply_to, 'reference', (p_message).reference,
    'error_code', (p_message).error_code, 'error_title', (p_message).error_title,
    'error_message', (p_message).error_message, 'created_at', (p_message).created_at,
    'provider_at', (p_message).provider_at, 'sent_at', (p_message).sent_at,
    'delivered_at', (p_message).delivered_at, 'read_at', (p_message).read_at,
    'failed_at', (p_message).failed_at, 'edited_at', (p_message).edited_at,
    'deleted_at', (p_message).deleted_at
);

COMMENT ON FUNCTION _wa_message_json(wa_messages) IS
'Internal: a message of the ledger as the HTTP API shows it.';

CREATE OR REPLACE FUNCTION get_wa_message(p_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_queue_id uuid := CASE WHEN p_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN p_id::uuid END;
    v_id bigint := CASE WHEN p_id ~ '^[0-9]{1,18}$' THEN p_id::bigint END;
    v_queued wa_outbound_queue;
    v_message wa_messages;
BEGIN
    IF v_queue_id IS NOT NULL THEN
        SELECT q.* INTO v_queued FROM wa_outbound_queue q
        WHERE q.organization_id = v_org AND q.id = v_queue_id;
        SELECT m.* INTO v_message FROM wa_messages m
        WHERE m.organization_id = v_org AND m.queue_id = v_queue_id;
    ELSE
        SELECT m.* INTO v_message FROM wa_messages m WHERE m.organization_id = v_org AND m.id = v_id;
        SELECT q.* INTO v_queued FROM wa_outbound_queue q
        WHERE q.organization_id = v_org AND q.id = v_message.queue_id;
    END IF;
    IF v_queued.id IS NULL AND v_message.id IS NULL OR _wa_is_test_only() AND NOT EXISTS (
        SELECT FROM wa_phone_numbers n
        WHERE n.organization_id = v_org AND n.is_test
            AND n.phone_number_id = coalesce(v_message.phone_number_id, v_queued.phone_number_id)
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = format('no message with the id "%s"', left(p_id, 100)),
            DETAIL = 'It is not there, belongs to another organization, or to a number that a test key does not '
                'reach.',
            HINT = 'The id of a queued message is a UUID, that of a message of the ledger a whole number.';
    END IF;
    RETURN jsonb_build_object(
        'queued', CASE WHEN v_queued.id IS NOT NULL THEN _wa_queued_json(v_queued) END,
        'message', CASE WHEN v_message.id IS NOT NULL THEN _wa_message_json(v_message) END,
        'history', coalesce(v_message.state_history, '[]'),
        'explanation', CASE WHEN v_queued.id IS NOT NULL THEN (
            SELECT to_jsonb(e) FROM explain_wa_message(v_queued.id) e
        ) END
    );
END
$$;

COMMENT ON FUNCTION get_wa_message(text) IS
'A message by its id in the queue (a UUID) or in the ledger (a number): as it was queued, what the ledger '
'has of it, the history of its states, and why it has not gone. Raises P0002 where there is none.';

CREATE OR REPLACE FUNCTION cancel_wa_message(p_id uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_row wa_outbound_queue;
BEGIN
    IF _wa_is_test_only() THEN
        PERFORM _wa_require_test_numbers(ARRAY[p_id]);
    END IF;
    PERFORM cancel_wa_messages(ids => ARRAY[p_id]);
    SELECT q.* INTO v_row FROM wa_outbound_queue q WHERE q.organization_id = v_org AND q.id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = format('no queued message with the id %s', p_id),
            DETAIL = 'It is not there, or belongs to another organization.',
            HINT = 'RETURNING id of your INSERT gives it.';
    ELSIF v_row.status <> 'cancelled' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201',
            MESSAGE = format('the message is %s and can no longer be cancelled', v_row.status),
            DETAIL = format('It is %s.', p_id),
            HINT = 'Only pending messages can be; one that is being sent cannot be called back.';
    END IF;
    RETURN _wa_queued_json(v_row);
END
$$;

COMMENT ON FUNCTION cancel_wa_message(uuid) IS
'Takes a pending message back and returns it. Raises P0002 where there is none, WA201 once it was claimed.';
