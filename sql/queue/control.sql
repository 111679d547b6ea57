-- Cancelling, rescheduling and retrying what is queued, by id, reference or phone.

CREATE OR REPLACE FUNCTION _wa_select_queued(
    p_org uuid, p_ids uuid[], p_reference text, p_phone text, p_statuses text[]
) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF num_nonnulls(p_ids, p_reference, p_phone) <> 1 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'give either ids, a reference or a phone',
            DETAIL = format('%s of the three were given.', num_nonnulls(p_ids, p_reference, p_phone)),
            HINT = 'For example: reference => ''order-42''.';
    END IF;
    IF p_ids IS NOT NULL THEN
        RETURN ARRAY(
            SELECT q.id FROM wa_outbound_queue q
            WHERE q.organization_id = p_org AND q.id = ANY (p_ids) AND q.status = ANY (p_statuses)
        );
    ELSIF p_reference IS NOT NULL THEN
        RETURN ARRAY(
            SELECT q.id FROM wa_outbound_queue q
            WHERE q.organization_id = p_org AND q.reference = p_reference AND q.status = ANY (p_statuses)
        );
    END IF;
    -- Waiting rows are found by their contact, ended ones by their entry in the ledger. Of who had the number
    -- before, those that still name it are meant, too.
    RETURN ARRAY(
        WITH party AS MATERIALIZED (
            SELECT _wa_find_contact(p_org, p_phone) AS contact_id, NULL::text AS former
            UNION
            SELECT i.contact_id, i.value
            FROM (VALUES (p_phone), (_wa_read_phone(p_org, p_phone))) s (phone)
            JOIN wa_contact_identities i ON i.organization_id = p_org AND i.kind = 'phone'
                AND i.value = _wa_phone_key(s.phone) AND NOT i.is_current
        )
        SELECT q.id FROM party p
        JOIN wa_queue_due d ON d.organization_id = p_org AND d.contact_id = p.contact_id AND d.class > 0
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = d.queue_id
        WHERE 'pending' = ANY (p_statuses) AND (p.former IS NULL OR _wa_phone_key(q.phone) = p.former)
        UNION
        SELECT q.id FROM party p
        JOIN wa_messages m ON m.organization_id = p_org AND m.contact_id = p.contact_id
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = m.queue_id
        WHERE q.status = ANY (p_statuses) AND (q.status = 'sent' OR m.status = 'failed' AND q.status = 'failed')
            AND (p.former IS NULL OR _wa_phone_key(q.phone) = p.former)
    );
END
$$;

COMMENT ON FUNCTION _wa_select_queued(uuid, uuid[], text, text, text[]) IS
'Internal: ids of queued rows by id, reference or phone (exactly one of them given) that have one of the '
'statuses.';

CREATE OR REPLACE FUNCTION cancel_wa_messages(
    ids uuid[] DEFAULT NULL, reference text DEFAULT NULL, phone text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_ids uuid[] := _wa_select_queued(v_org, $1, $2, $3, ARRAY['pending']);
    v_cancelled integer;
BEGIN
    IF EXISTS (SELECT FROM wa_sms_fallbacks f WHERE f.organization_id = v_org) THEN
        v_ids := v_ids || _wa_drop_sms(
            v_org, v_ids || _wa_select_queued(v_org, $1, $2, $3, ARRAY['sending', 'sent', 'failed'])
        );
    END IF;
    UPDATE wa_outbound_queue q SET status = 'cancelled'
    WHERE q.organization_id = v_org AND q.id = ANY (v_ids) AND q.status = 'pending';
    GET DIAGNOSTICS v_cancelled = ROW_COUNT;
    RETURN v_cancelled;
END
$$;

COMMENT ON FUNCTION cancel_wa_messages(uuid[], text, text) IS
'Cancels pending messages by ids, by reference or by phone, and what would go as SMS in place of others; '
'returns how many were pending. What is being sent already is not touched.';

CREATE OR REPLACE FUNCTION reschedule_wa_messages(
    scheduled_at timestamptz, ids uuid[] DEFAULT NULL, reference text DEFAULT NULL, phone text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_ids uuid[] := _wa_select_queued(v_org, $2, $3, $4, ARRAY['pending']);
    v_moved integer;
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'scheduled_at must not be NULL',
            DETAIL = 'It is the time to which the messages move.',
            HINT = 'Give the time, for example now() + interval ''1 hour''.';
    END IF;
    -- An expiry that was reckoned from the old time moves along.
    UPDATE wa_outbound_queue q
    SET scheduled_at = $1,
        expires_at = CASE WHEN q.expires_at = 'infinity' THEN q.expires_at
            ELSE q.expires_at + ($1 - q.scheduled_at) END
    WHERE q.organization_id = v_org AND q.id = ANY (v_ids) AND q.status = 'pending';
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    RETURN v_moved;
END
$$;

COMMENT ON FUNCTION reschedule_wa_messages(timestamptz, uuid[], text, text) IS
'Moves pending messages, by ids, reference or phone, to another time, and their expiry with it; returns how '
'many.';

CREATE OR REPLACE FUNCTION _wa_queue_again(p_org uuid, p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids uuid[];
    v_contact_ids bigint[];
    v_recipients record;
    v_gone uuid[];
    v_error text[];
BEGIN
    PERFORM FROM wa_outbound_queue q
    WHERE q.organization_id = p_org AND q.id = ANY (p_ids)
    ORDER BY q.id
    FOR NO KEY UPDATE;
    -- Never both ways.
    v_gone := _wa_gone_as_sms(p_org, p_ids);
    IF v_gone <> '{}' THEN
        RAISE WARNING USING
            MESSAGE = format('%s of these messages went as SMS and are not queued again', cardinality(v_gone)),
            HINT = 'SELECT queue_id, sms_id FROM wa_sms_fallbacks; a new message goes by WhatsApp.';
        p_ids := ARRAY(SELECT u.id FROM unnest(p_ids) u (id) WHERE u.id <> ALL (v_gone));
    END IF;
    SELECT array_agg(c.queue_id) AS ids, array_agg(c.contact_id) AS contact_ids INTO v_recipients
    FROM _wa_recipients_of(p_org, p_ids) c;
    -- The row lock: two retries of one row queue it once.
    WITH revived AS (
        UPDATE wa_outbound_queue q
        SET status = 'pending', retry_count = 0, last_error = NULL, error_code = NULL, processed_at = NULL,
            wa_message_id = NULL, claimed_at = NULL,
            expires_at = CASE WHEN q.expires_at <= clock_timestamp()
                THEN clock_timestamp() + (q.expires_at - q.scheduled_at) ELSE q.expires_at END,
            scheduled_at = greatest(q.scheduled_at, clock_timestamp()), change_no = q.change_no + 1
        WHERE q.organization_id = p_org AND q.id = ANY (p_ids) AND q.status IN ('failed', 'cancelled')
        RETURNING q.id
    )
    SELECT array_agg(r.id), array_agg(c.contact_id) INTO v_ids, v_contact_ids
    FROM revived r
    JOIN unnest(v_recipients.ids, v_recipients.contact_ids) c (queue_id, contact_id) ON c.queue_id = r.id;
    IF v_ids IS NULL THEN
        RETURN 0;
    END IF;
    -- As if inserted now, to the same contact: a template may have gone since, or its values have been wrong
    -- all along.
    v_error := _wa_queue_the_rest(p_org, v_ids, v_contact_ids);
    IF v_error IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = v_error[1], TABLE = 'wa_outbound_queue',
            MESSAGE = v_error[2],
            DETAIL = v_error[3],
            HINT = v_error[4];
    END IF;
    PERFORM _wa_notify_dispatchers();
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION _wa_queue_again(uuid, uuid[]) IS
'Internal: queues failed or cancelled messages again, but for what went as SMS; they are judged anew. '
'Returns how many.';

CREATE OR REPLACE FUNCTION retry_wa_messages(
    ids uuid[] DEFAULT NULL, reference text DEFAULT NULL, phone text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_ids uuid[] := _wa_select_queued(v_org, $1, $2, $3, ARRAY['failed', 'cancelled']);
    v_doubtful integer;
BEGIN
    SELECT count(*) INTO v_doubtful FROM wa_outbound_queue q
    WHERE q.organization_id = v_org AND q.id = ANY (v_ids)
        AND q.error_code IN ('outcome_unknown', 'in_doubt');
    IF v_doubtful > 0 THEN
        RAISE WARNING USING MESSAGE = format('%s of these messages may have been sent before', v_doubtful),
            HINT = 'Their outcome was never reported; the recipient may get them twice.';
    END IF;
    RETURN _wa_queue_again(v_org, v_ids);
END
$$;

COMMENT ON FUNCTION retry_wa_messages(uuid[], text, text) IS
'Queues failed or cancelled messages again, by ids, reference or phone; returns how many. They are judged '
'anew; a WARNING tells how many have an unknown outcome, and how many went as SMS and stay as they are.';

CREATE OR REPLACE FUNCTION _wa_cancel_due(p_org uuid, p_contact_ids bigint[], p_scope text, p_reason text)
RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH unwanted AS (
        -- Queue row first, then its due row, as everywhere: one that is being claimed is waited for and gone.
        SELECT q.id, d.contact_id FROM wa_queue_due d
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = d.queue_id AND q.status = 'pending'
        LEFT JOIN wa_templates t ON t.organization_id = p_org AND t.id = d.template_id
        LEFT JOIN wa_sms_fallbacks f ON f.organization_id = p_org AND f.sms_id = q.id
        WHERE d.organization_id = p_org AND d.contact_id = ANY (p_contact_ids) AND d.class > 0
            AND (p_scope = 'all' OR coalesce(lower(t.category), lower(f.category), 'utility') = p_scope)
        ORDER BY q.id
        FOR NO KEY UPDATE OF q
    ),
    dropped AS (
        DELETE FROM wa_queue_due d USING unwanted u
        WHERE d.organization_id = p_org AND d.queue_id = u.id
    ),
    cancelled AS (
        UPDATE wa_outbound_queue q
        SET status = 'cancelled', error_code = 'opted_out', last_error = p_reason, contact_id = u.contact_id,
            processed_at = clock_timestamp(), change_no = q.change_no + 1
        FROM unwanted u
        WHERE q.organization_id = p_org AND q.id = u.id
        RETURNING 1
    )
    SELECT count(*)::integer FROM cancelled
$$;

COMMENT ON FUNCTION _wa_cancel_due(uuid, bigint[], text, text) IS
'Internal: cancels what waits for contacts that opted out, by scope; returns how many.';
