-- How a queued message ends: the one place that writes an outcome to the queue and to the ledger.

CREATE OR REPLACE FUNCTION _wa_finish_messages(
    p_org uuid, p_ids uuid[], p_wamids text[], p_states text[], p_codes text[], p_errors text[]
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_messages bigint[];
    v_landed tid[];
    v_due tid[];
BEGIN
    -- What is deleted below is found and locked here, by key: = ANY (p_ids) may be planned as a walk through all
    -- of an index, dead entries included, and only what is locked keeps its place until the next statement.
    v_landed := ARRAY(
        SELECT k.place FROM unnest(p_ids) u (id)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS place FROM wa_queue_inflight x
            WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1 FOR UPDATE
        ) k
    );
    v_due := ARRAY(
        SELECT k.place FROM unnest(p_ids) u (id)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS place FROM wa_queue_due x
            WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1 FOR UPDATE
        ) k
    );
    WITH outcome AS MATERIALIZED (
        SELECT u.*, q.tid, coalesce(f.number_id, w.number_id) AS number_id,
            coalesce(f.contact_id, w.contact_id) AS known_contact_id,
            coalesce(f.template_id, w.template_id) AS template_id,
            f.is_within_24h
        FROM unnest(p_ids, p_wamids, p_states, p_codes, p_errors) u (id, wamid, state, code, error)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS tid FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
        ) q
        LEFT JOIN LATERAL (
            SELECT x.number_id, x.contact_id, x.template_id, x.is_within_24h FROM wa_queue_inflight x
            WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1
        ) f ON true
        LEFT JOIN LATERAL (
            SELECT x.number_id, x.contact_id, x.template_id FROM wa_queue_due x
            WHERE f.contact_id IS NULL AND x.organization_id = p_org AND x.queue_id = u.id LIMIT 1
        ) w ON true
    ),
    landed AS (
        DELETE FROM wa_queue_inflight i WHERE i.ctid = ANY (v_landed)
    ),
    dropped AS (
        DELETE FROM wa_queue_due d WHERE d.ctid = ANY (v_due)
    ),
    finished AS (
        UPDATE wa_outbound_queue q
        SET status = CASE WHEN o.wamid IS NULL THEN 'failed' ELSE 'sent' END,
            wa_message_id = o.wamid, error_code = o.code, last_error = o.error,
            contact_id = coalesce(o.known_contact_id, q.contact_id),
            processed_at = v_now, change_no = q.change_no + 1
        FROM outcome o
        WHERE q.ctid = o.tid
        RETURNING q.*, o.state, o.number_id, o.template_id, o.is_within_24h
    ),
    recorded AS (
        INSERT INTO wa_messages (
            organization_id, queue_id, number_id, phone_number_id, contact_id, customer_id, phone_e164,
            user_id, wa_message_id, direction, message_type, content, content_text, template_name,
            template_language,
            template_category, status, state, is_within_24h_at_claim, reply_to, error_code, error_title,
            error_message, reference, metadata, queued_at, claimed_at, sent_at, failed_at
        )
        SELECT
            p_org, q.id, q.number_id, n.phone_number_id, q.contact_id, q.customer_id,
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
            t.name, t.language, t.category,
            q.status, q.state, q.is_within_24h, q.reply_to,
            CASE WHEN q.error_code ~ '^\d+$' THEN q.error_code::integer END,
            CASE WHEN q.status = 'failed' THEN q.error_code END,
            q.last_error, q.reference, q.metadata, q.created_at, q.claimed_at,
            CASE WHEN q.status = 'sent' THEN v_now END, CASE WHEN q.status = 'failed' THEN v_now END
        FROM finished q
        LEFT JOIN LATERAL (
            SELECT x.id, x.name, x.language, x.category FROM wa_templates x
            WHERE x.organization_id = p_org AND x.id = q.template_id LIMIT 1
        ) t ON true
        LEFT JOIN LATERAL (
            SELECT x.phone_number_id FROM wa_phone_numbers x
            WHERE x.organization_id = p_org AND x.id = q.number_id LIMIT 1
        ) n ON true
        -- A row that was retried, or settled late, has its entry already.
        ON CONFLICT (organization_id, queue_id) WHERE queue_id IS NOT NULL DO UPDATE SET
            wa_message_id = excluded.wa_message_id, status = excluded.status, state = excluded.state,
            error_code = excluded.error_code, error_title = excluded.error_title,
            error_message = excluded.error_message, claimed_at = excluded.claimed_at,
            sent_at = excluded.sent_at, failed_at = excluded.failed_at,
            is_within_24h_at_claim = coalesce(
                excluded.is_within_24h_at_claim, wa_messages.is_within_24h_at_claim
            ),
            updated_at = v_now
        RETURNING id, contact_id, number_id, status, state
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'status', m.id, m.state, v_now FROM recorded m
    )
    SELECT array_agg(m.id) INTO v_messages FROM recorded m;
    PERFORM _wa_record_business_messages(p_org, v_messages);
    RETURN coalesce(v_messages, '{}');
END
$$;

COMMENT ON FUNCTION _wa_finish_messages(uuid, uuid[], text[], text[], text[], text[]) IS
'Internal: ends queued messages of one organization (sent where a wamid is given, else failed): takes them '
'out of sending, updates the queue, writes the ledger, its event and the conversation. The caller has locked '
'their rows of the queue in a statement before. Returns the ids in wa_messages.';

CREATE OR REPLACE FUNCTION _wa_fail_messages(p_org uuid, p_ids uuid[], p_code text, p_error text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF cardinality(p_ids) > 0 THEN
        -- In a statement of its own, so that the next one sees what an application has just changed.
        PERFORM FROM unnest(p_ids) u (id)
        CROSS JOIN LATERAL (
            SELECT FROM wa_outbound_queue x
            WHERE x.organization_id = p_org AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
        ) q;
        PERFORM _wa_finish_messages(
            p_org, p_ids, array_fill(NULL::text, ARRAY[cardinality(p_ids)]),
            array_fill('failed'::text, ARRAY[cardinality(p_ids)]),
            array_fill(p_code, ARRAY[cardinality(p_ids)]),
            array_fill(p_error, ARRAY[cardinality(p_ids)])
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_fail_messages(uuid, uuid[], text, text) IS
'Internal: ends queued messages as failed, all with one code and reason.';

-- A status webhook that echoes our callback data proves that the provider accepted the message, whatever
-- became of the answer.
CREATE OR REPLACE FUNCTION _wa_settle_from_echo(
    p_org uuid, p_queue_ids uuid[], p_attempts integer[], p_wamids text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids uuid[];
    v_wamids text[];
BEGIN
    -- The row lock decides against complete_wa_messages(), which locks the same row before it records an
    -- answer.
    SELECT array_agg(x.id), array_agg(x.wamid) INTO v_ids, v_wamids
    FROM (
        SELECT q.id, e.wamid
        FROM (
            SELECT DISTINCT ON (u.id) u.id, u.attempt, u.wamid
            FROM unnest(p_queue_ids, p_attempts, p_wamids) u (id, attempt, wamid)
            ORDER BY u.id, u.attempt DESC
        ) e
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = e.id
        WHERE q.wa_message_id IS NULL AND e.attempt <= q.attempt
            AND (q.status IN ('sending', 'pending') OR q.error_code IN ('outcome_unknown', 'in_doubt'))
        ORDER BY q.id
        FOR NO KEY UPDATE OF q
    ) x;
    IF v_ids IS NOT NULL THEN
        PERFORM _wa_finish_messages(
            p_org, v_ids, v_wamids, array_fill('accepted'::text, ARRAY[cardinality(v_ids)]),
            array_fill(NULL::text, ARRAY[cardinality(v_ids)]),
            array_fill(NULL::text, ARRAY[cardinality(v_ids)])
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_settle_from_echo(uuid, uuid[], integer[], text[]) IS
'Internal: settles rows in flight, or of unknown outcome, whose callback data a status webhook brought back.';
