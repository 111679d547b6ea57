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
    fallback_template_language text DEFAULT NULL, customer_id text DEFAULT NULL, sent_by text DEFAULT NULL,
    sms_fallback_text text DEFAULT NULL
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
        fallback_template_name, fallback_template_params, fallback_template_language, customer_id, sent_by,
        sms_fallback_text
    )
    VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
        $23
    )
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
    text, text, text, jsonb, text, text, text, text
) IS
'Queues one message and returns its row; with an idempotency_key that exists, the row that is there.';

CREATE OR REPLACE FUNCTION _wa_stray_key(p_message jsonb, p_keys text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT k FROM jsonb_object_keys(p_message) k WHERE k <> ALL (p_keys) LIMIT 1);

COMMENT ON FUNCTION _wa_stray_key(jsonb, text[]) IS 'Internal: a key of an object that is none of these.';

-- A savepoint, so that a bad one does not take the good ones with it. The error is handed to the caller.
CREATE OR REPLACE FUNCTION _wa_enqueue_one(p_n integer, p_message jsonb, p_keys text[])
RETURNS TABLE (n integer, id uuid, status text, error_sqlstate text, error text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_row wa_outbound_queue;
    v_stray text;
BEGIN
    n := p_n;
    BEGIN
        IF jsonb_typeof(p_message) <> 'object' THEN
            RAISE EXCEPTION USING ERRCODE = '22023',
                MESSAGE = format('a message is a JSON object, not %s', jsonb_typeof(p_message)),
                DETAIL = format('It begins: %s.', left(p_message::text, 60)),
                HINT = 'For example: {"phone": "+15551234567", "text_body": "Hello"}.';
        END IF;
        -- A misspelt scheduled_at must not be sent at once.
        v_stray := _wa_stray_key(p_message, p_keys);
        IF v_stray IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = '22023',
                MESSAGE = format('a message has no %I', v_stray),
                DETAIL = format('Its value is %s.', left((p_message -> v_stray)::text, 60)),
                HINT = format('It may have %s.', array_to_string(p_keys, ', '));
        END IF;
        v_row := jsonb_populate_record(NULL::wa_outbound_queue, p_message);
        SELECT e.* INTO v_row FROM enqueue_wa_message(
            v_row.phone, v_row.text_body, v_row.template_name, v_row.template_params,
            v_row.template_language, v_row.type, v_row.content, v_row.priority, v_row.scheduled_at,
            v_row.expires_at,
            v_row.phone_number_id, v_row.idempotency_key, v_row.reference, v_row.metadata, v_row.reply_to,
            v_row.on_refusal, v_row.on_unknown, v_row.fallback_template_name,
            v_row.fallback_template_params, v_row.fallback_template_language, v_row.customer_id,
            v_row.sent_by, v_row.sms_fallback_text
        ) e;
        id := v_row.id;
        status := v_row.status;
        error := v_row.last_error;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS error_sqlstate = RETURNED_SQLSTATE, error = MESSAGE_TEXT,
            hint = PG_EXCEPTION_HINT;
        status := 'refused';
    END;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION _wa_enqueue_one(integer, jsonb, text[]) IS
'Internal: queues one element of an array, and returns the verdict on it.';

-- One statement for many is several times as fast as one for each. Where one of them is bad all are undone,
-- and each is tried by itself. Ids that grow keep the order in which they came.
CREATE OR REPLACE FUNCTION _wa_enqueue_part(
    p_first integer, p_messages jsonb[], p_size integer, p_keys text[]
)
RETURNS TABLE (n integer, id uuid, status text, error_sqlstate text, error text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := current_wa_organization();
    v_count integer := cardinality(p_messages);
    v_part jsonb[];
    v_ids uuid[];
    v_now timestamptz;
BEGIN
    FOR v_from IN 1..v_count BY p_size LOOP
        v_part := p_messages[v_from:v_from + p_size - 1];
        IF cardinality(v_part) = 1 THEN
            RETURN QUERY SELECT * FROM _wa_enqueue_one(p_first + v_from - 1, v_part[1], p_keys);
            CONTINUE;
        END IF;
        -- What is no message at all is seen before anything is written.
        IF NOT EXISTS (
            SELECT FROM unnest(v_part) m (message)
            WHERE CASE jsonb_typeof(m.message)
                WHEN 'object' THEN _wa_stray_key(m.message, p_keys) IS NOT NULL ELSE true END
        ) THEN
            BEGIN
                v_now := clock_timestamp();
                v_ids := ARRAY(
                    SELECT _wa_uuid7(v_now + i * interval '1 microsecond')
                    FROM generate_series(1, cardinality(v_part)) i
                );
                INSERT INTO wa_outbound_queue (
                    id, phone, text_body, template_name, template_params, template_language, type, content,
                    priority, scheduled_at, expires_at, phone_number_id, idempotency_key, reference, metadata,
                    reply_to, on_refusal, on_unknown, fallback_template_name, fallback_template_params,
                    fallback_template_language, customer_id, sent_by, sms_fallback_text
                )
                SELECT u.id, r.phone, r.text_body, r.template_name, r.template_params, r.template_language,
                    r.type, r.content, coalesce(r.priority, 'normal'), r.scheduled_at, r.expires_at,
                    r.phone_number_id, r.idempotency_key, r.reference, r.metadata, r.reply_to, r.on_refusal,
                    r.on_unknown, r.fallback_template_name, r.fallback_template_params,
                    r.fallback_template_language, r.customer_id, r.sent_by, r.sms_fallback_text
                FROM unnest(v_part, v_ids) WITH ORDINALITY u (message, id, n)
                CROSS JOIN LATERAL jsonb_populate_record(NULL::wa_outbound_queue, u.message) r
                ORDER BY u.n
                ON CONFLICT (organization_id, idempotency_key) DO NOTHING;
                RETURN QUERY
                SELECT p_first + v_from - 2 + u.n::integer, q.id, q.status, NULL, q.last_error, NULL
                FROM unnest(v_part, v_ids) WITH ORDINALITY u (message, id, n)
                CROSS JOIN LATERAL (
                    SELECT x.id, x.status, x.last_error FROM wa_outbound_queue x
                    WHERE x.organization_id = v_org AND x.id = u.id
                    UNION ALL
                    -- With a key that exists, the row that is there.
                    SELECT x.id, x.status, x.last_error FROM wa_outbound_queue x
                    WHERE x.organization_id = v_org
                        AND x.idempotency_key = u.message ->> 'idempotency_key'
                    LIMIT 1
                ) q
                ORDER BY u.n;
                CONTINUE;
            EXCEPTION WHEN OTHERS THEN
                -- Each is tried by itself, and its error is the caller's.
                NULL;
            END;
        END IF;
        RETURN QUERY SELECT * FROM _wa_enqueue_part(p_first + v_from - 1, v_part, 1, p_keys);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_enqueue_part(integer, jsonb[], integer, text[]) IS
'Internal: queues elements of an array, so many in a statement, and returns the verdicts in their order.';

CREATE OR REPLACE FUNCTION enqueue_wa_messages(messages jsonb)
RETURNS TABLE (n integer, id uuid, status text, error_sqlstate text, error text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    -- More in a statement cost less each, and more when one of them is bad.
    c_at_once CONSTANT integer := 50;
BEGIN
    IF jsonb_typeof($1) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('messages must be a JSON array, not %s', coalesce(jsonb_typeof($1), 'NULL')),
            DETAIL = format('It begins: %s.', coalesce(left($1::text, 60), 'NULL')),
            HINT = 'For example: [{"phone": "+15551234567", "text_body": "Hello"}].';
    END IF;
    RETURN QUERY SELECT * FROM _wa_enqueue_part(
        1, ARRAY(SELECT m.value FROM jsonb_array_elements($1) WITH ORDINALITY m (value, n) ORDER BY m.n),
        c_at_once,
        (SELECT p.proargnames FROM pg_catalog.pg_proc p WHERE p.oid = 'enqueue_wa_message'::regproc)
    );
END
$$;

COMMENT ON FUNCTION enqueue_wa_messages(jsonb) IS
'Queues an array of messages given as objects with the columns of wa_outbound_queue. A verdict per element:'
' its id and status, or refused with SQLSTATE, error and hint; bad ones do not stop good ones.';
