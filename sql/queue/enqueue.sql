-- Queueing by function: the same insert, with named arguments or from JSON.

CREATE OR REPLACE FUNCTION enqueue_wa_message(
    phone text, text_body text DEFAULT NULL, template_name text DEFAULT NULL,
    template_params jsonb DEFAULT NULL, template_language text DEFAULT NULL, type text DEFAULT NULL,
    content jsonb DEFAULT NULL,
    priority text DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    phone_number_id text DEFAULT NULL, idempotency_key text DEFAULT NULL, reference text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, reply_to text DEFAULT NULL, on_refusal text DEFAULT NULL,
    on_unknown text DEFAULT NULL,
    fallback_template_name text DEFAULT NULL, fallback_template_params jsonb DEFAULT NULL,
    fallback_template_language text DEFAULT NULL, customer_id text DEFAULT NULL
) RETURNS wa_outbound_queue
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_row wa_outbound_queue;
BEGIN
    -- With a key that exists the row that is there comes back, so that a caller may simply repeat its call.
    INSERT INTO wa_outbound_queue AS q (
        phone, text_body, template_name, template_params, template_language, type, content, priority,
        scheduled_at, expires_at, phone_number_id, idempotency_key, reference, metadata, reply_to, on_refusal,
        on_unknown,
        fallback_template_name, fallback_template_params, fallback_template_language, customer_id
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
    ON CONFLICT (organization_id, idempotency_key) DO NOTHING
    RETURNING q.id, q.organization_id INTO v_row.id, v_row.organization_id;
    IF v_row.id IS NULL THEN
        SELECT q.* INTO v_row FROM wa_outbound_queue q
        WHERE q.organization_id = current_wa_organization() AND q.idempotency_key = $12;
    ELSE
        -- Read back: a refusal that was recorded has changed it since.
        SELECT q.* INTO v_row FROM wa_outbound_queue q
        WHERE q.organization_id = v_row.organization_id AND q.id = v_row.id;
    END IF;
    RETURN v_row;
END
$$;

COMMENT ON FUNCTION enqueue_wa_message(
    text, text, text, jsonb, text, text, jsonb, text, timestamptz, timestamptz, text, text, text, jsonb, text,
    text, text, text, jsonb, text, text
) IS 'Queues one message and returns its row; with an idempotency_key that exists, the row that is there.';

CREATE OR REPLACE FUNCTION enqueue_wa_messages(messages jsonb)
RETURNS TABLE (n integer, id uuid, status text, error_sqlstate text, error text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_message jsonb;
    v_row wa_outbound_queue;
    v_keys text[];
    v_stray text;
BEGIN
    IF jsonb_typeof($1) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('messages must be a JSON array, not %s', coalesce(jsonb_typeof($1), 'NULL')),
            DETAIL = format('It begins: %s.', coalesce(left($1::text, 60), 'NULL')),
            HINT = 'For example: [{"phone": "+15551234567", "text_body": "Hello"}].';
    END IF;
    SELECT p.proargnames INTO v_keys FROM pg_catalog.pg_proc p WHERE p.oid = 'enqueue_wa_message'::regproc;
    -- A savepoint a row, so that a bad one does not take the good ones with it; plain INSERT is the fast way.
    FOR n, v_message IN
        SELECT m.n::integer, m.message FROM jsonb_array_elements($1) WITH ORDINALITY m (message, n)
    LOOP
        id := NULL;
        status := 'refused';
        error_sqlstate := NULL;
        error := NULL;
        hint := NULL;
        BEGIN
            IF jsonb_typeof(v_message) <> 'object' THEN
                RAISE EXCEPTION USING ERRCODE = '22023',
                    MESSAGE = format('a message is a JSON object, not %s', jsonb_typeof(v_message)),
                    DETAIL = format('It begins: %s.', left(v_message::text, 60)),
                    HINT = 'For example: {"phone": "+15551234567", "text_body": "Hello"}.';
            END IF;
            -- A misspelt scheduled_at must not be sent at once.
            SELECT k INTO v_stray
            FROM jsonb_object_keys(v_message) k WHERE k <> ALL (v_keys) LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION USING ERRCODE = '22023',
                    MESSAGE = format('a message has no %I', v_stray),
                    DETAIL = format('Its value is %s.', left((v_message -> v_stray)::text, 60)),
                    HINT = format('It may have %s.', array_to_string(v_keys, ', '));
            END IF;
            v_row := jsonb_populate_record(NULL::wa_outbound_queue, v_message);
            SELECT e.* INTO v_row FROM enqueue_wa_message(
                v_row.phone, v_row.text_body, v_row.template_name, v_row.template_params,
                v_row.template_language, v_row.type, v_row.content, v_row.priority, v_row.scheduled_at,
                v_row.expires_at,
                v_row.phone_number_id, v_row.idempotency_key, v_row.reference, v_row.metadata, v_row.reply_to,
                v_row.on_refusal, v_row.on_unknown, v_row.fallback_template_name,
                v_row.fallback_template_params, v_row.fallback_template_language, v_row.customer_id
            ) e;
            id := v_row.id;
            status := v_row.status;
            error := v_row.last_error;
        EXCEPTION
            -- Every error is one row's own; it is handed to the caller, not swallowed.
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS error_sqlstate = RETURNED_SQLSTATE, error = MESSAGE_TEXT,
                    hint = PG_EXCEPTION_HINT;
        END;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION enqueue_wa_messages(jsonb) IS
'Queues an array of messages given as objects with the columns of wa_outbound_queue. A verdict per element: '
'its id and status, or refused with SQLSTATE, error and hint; bad ones do not stop good ones.';
