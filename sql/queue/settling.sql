-- How a queued message ends: the one place that writes an outcome to the queue, and has it written to the
-- ledger and to the conversation.

CREATE OR REPLACE FUNCTION _wa_finish_messages(
    p_org uuid, p_ids uuid[], p_wamids text[], p_states text[], p_codes text[], p_errors text[]
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_rows record;
    v_messages bigint[];
BEGIN
    -- A row is in flight or waits, never both. moves.sql says why places.
    SELECT array_agg(q.place) AS places, array_agg(u.id) AS ids, array_agg(u.wamid) AS wamids,
        array_agg(u.state) AS states, array_agg(u.code) AS codes, array_agg(u.error) AS errors,
        array_agg(coalesce(f.number_id, w.number_id)) AS number_ids,
        array_agg(coalesce(f.contact_id, w.contact_id)) AS contact_ids,
        array_agg(coalesce(f.template_id, w.template_id)) AS template_ids,
        array_agg(f.is_within_24h) AS within_24h,
        array_agg(f.place) FILTER (WHERE f.place IS NOT NULL) AS in_flight,
        array_agg(w.place) FILTER (WHERE w.place IS NOT NULL) AS due
    INTO v_rows
    FROM (
        -- Of what is told twice the first counts.
        SELECT DISTINCT ON (r.id) r.* FROM unnest(p_ids, p_wamids, p_states, p_codes, p_errors)
            WITH ORDINALITY r (id, wamid, state, code, error, n)
        ORDER BY r.id, r.n
    ) u
    CROSS JOIN LATERAL (
        SELECT x.ctid AS place FROM wa_outbound_queue x
        WHERE x.organization_id = p_org AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
    ) q
    LEFT JOIN LATERAL (
        SELECT x.ctid AS place, x.number_id, x.contact_id, x.template_id, x.is_within_24h
        FROM wa_queue_inflight x
        WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1 FOR UPDATE
    ) f ON true
    LEFT JOIN LATERAL (
        SELECT x.ctid AS place, x.number_id, x.contact_id, x.template_id FROM wa_queue_due x
        WHERE f.contact_id IS NULL AND x.organization_id = p_org AND x.queue_id = u.id LIMIT 1 FOR UPDATE
    ) w ON true;
    IF v_rows.ids IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM _wa_finish_at(
        p_org, v_rows.places, v_rows.in_flight, v_rows.due, v_rows.wamids, v_rows.codes, v_rows.errors,
        v_rows.contact_ids, v_now
    );
    v_messages := _wa_record_outcomes(
        p_org, v_rows.ids, v_rows.number_ids, v_rows.template_ids, v_rows.states, v_rows.within_24h, v_now
    );
    -- All of them were sent, or all failed.
    IF v_rows.wamids[1] IS NOT NULL THEN
        PERFORM _wa_record_business_messages(p_org, v_messages);
    END IF;
    RETURN v_messages;
END
$$;

COMMENT ON FUNCTION _wa_finish_messages(uuid, uuid[], text[], text[], text[], text[]) IS
'Internal: ends queued messages of one organization, all as sent (with their wamids) or all as failed: takes '
'them out of sending, updates the queue, has the ledger, its event and the conversation written. The caller '
'has locked their rows of the queue in a statement before. Returns the ids in wa_messages.';

CREATE OR REPLACE FUNCTION _wa_finish_at(
    p_org uuid, p_places tid[], p_in_flight tid[], p_due tid[], p_wamids text[], p_codes text[],
    p_errors text[], p_contact_ids bigint[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_indexscan = off SET enable_bitmapscan = off
AS $$
BEGIN
    IF p_in_flight IS NOT NULL THEN
        DELETE FROM wa_queue_inflight i WHERE i.organization_id = p_org AND i.ctid = ANY (p_in_flight);
    END IF;
    IF p_due IS NOT NULL THEN
        DELETE FROM wa_queue_due d WHERE d.organization_id = p_org AND d.ctid = ANY (p_due);
    END IF;
    UPDATE wa_outbound_queue q
    SET status = CASE WHEN u.wamid IS NULL THEN 'failed' ELSE 'sent' END,
        wa_message_id = u.wamid, error_code = u.code, last_error = u.error,
        contact_id = coalesce(u.contact_id, q.contact_id), processed_at = p_now, change_no = q.change_no + 1
    FROM unnest(p_places, p_wamids, p_codes, p_errors, p_contact_ids)
        u (place, wamid, code, error, contact_id)
    WHERE q.organization_id = p_org AND q.ctid = u.place;
END
$$;

COMMENT ON FUNCTION _wa_finish_at(
    uuid, tid[], tid[], tid[], text[], text[], text[], bigint[], timestamptz
) IS 'Internal: the queue''s part of _wa_finish_messages(), for rows that were found and locked.';

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

-- A status webhook that brings our callback data back proves that the provider accepted the message, whatever
-- became of the answer.
CREATE OR REPLACE FUNCTION _wa_settle_from_callback(
    p_org uuid, p_queue_ids uuid[], p_attempts integer[], p_wamids text[]
) RETURNS bigint[]
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
    IF v_ids IS NULL THEN
        RETURN '{}';
    END IF;
    RETURN _wa_finish_messages(
        p_org, v_ids, v_wamids, array_fill('accepted'::text, ARRAY[cardinality(v_ids)]),
        array_fill(NULL::text, ARRAY[cardinality(v_ids)]),
        array_fill(NULL::text, ARRAY[cardinality(v_ids)])
    );
END
$$;

COMMENT ON FUNCTION _wa_settle_from_callback(uuid, uuid[], integer[], text[]) IS
'Internal: settles rows in flight, or of unknown outcome, whose callback data a status webhook brought back; '
'returns their ids in wa_messages.';

-- Whatever they wait for, and whether their number may send at all. Those that are being claimed or changed
-- at this moment are left for the next call.
CREATE OR REPLACE FUNCTION _wa_expire_queued(p_limit integer, p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_expired integer := 0;
BEGIN
    FOR v_org IN
        SELECT r.organization_id AS id, array_agg(r.id) AS ids
        FROM (
            -- Those that are locked take nobody's place.
            SELECT q.organization_id, q.id
            FROM (
                SELECT d.organization_id, d.queue_id FROM wa_queue_due d
                WHERE d.expires_at <= p_now AND d.expires_at < 'infinity'
                ORDER BY d.expires_at
            ) e
            CROSS JOIN LATERAL (
                SELECT x.organization_id, x.id FROM wa_outbound_queue x
                WHERE x.organization_id = e.organization_id AND x.id = e.queue_id AND x.status = 'pending'
                    AND x.expires_at <= p_now
                LIMIT 1
                FOR NO KEY UPDATE SKIP LOCKED
            ) q
            LIMIT p_limit
        ) r
        GROUP BY r.organization_id
    LOOP
        BEGIN
            PERFORM _wa_fail_messages(v_org.id, v_org.ids, 'expired', _wa_refusal_text('expired'));
            v_expired := v_expired + cardinality(v_org.ids);
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(v_org.id, 'maintenance', 'expired', SQLSTATE, SQLERRM);
        END;
    END LOOP;
    RETURN v_expired;
END
$$;

COMMENT ON FUNCTION _wa_expire_queued(integer, timestamptz) IS
'Internal: ends up to so many queued messages that were not sent before they expired; returns how many.';
