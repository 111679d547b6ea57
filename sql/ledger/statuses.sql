-- Delivery states. Every status is stored once; the ledger's state is the highest that was reported, so that
-- repeated, late and out-of-order webhooks change nothing twice.

CREATE OR REPLACE FUNCTION _wa_statuses_of(p_org uuid, p_ids bigint[]) RETURNS SETOF wa_message_statuses
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.* FROM unnest(p_ids) u (id)
    CROSS JOIN LATERAL (
        SELECT k.* FROM wa_message_statuses k WHERE k.organization_id = p_org AND k.id = u.id LIMIT 1
    ) s;
END;

COMMENT ON FUNCTION _wa_statuses_of(uuid, bigint[]) IS 'Internal: statuses, each looked up by its key.';

-- Only its row type is used: a status as a webhook tells it, in the arrays that _wa_record_statuses() takes.
CREATE OR REPLACE VIEW _wa_told_statuses AS
SELECT
    NULL::text AS wa_message_id, NULL::text AS status, NULL::text AS participant,
    NULL::timestamptz AS occurred_at, NULL::timestamptz AS received_at, NULL::text AS recipient_id,
    NULL::text AS recipient_user_id, NULL::integer AS error_code, NULL::text AS error_title,
    NULL::text AS error_message, NULL::jsonb AS pricing, NULL::jsonb AS conversation, NULL::jsonb AS payload
WHERE false;

COMMENT ON VIEW _wa_told_statuses IS
'Internal: the shape of a status that is to be recorded. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_record_statuses(
    p_org uuid, p_statuses _wa_told_statuses[], OUT status_ids bigint[], OUT message_ids bigint[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    WITH recorded AS (
        INSERT INTO wa_message_statuses (
            organization_id, message_id, queue_id, wa_message_id, status, participant, occurred_at,
            received_at, recipient_id, recipient_user_id, error_code, error_title, error_message, pricing,
            conversation, payload
        )
        SELECT
            p_org, m.id, m.queue_id, t.wa_message_id, t.status, t.participant, t.occurred_at, t.received_at,
            t.recipient_id, t.recipient_user_id, t.error_code, t.error_title, t.error_message, t.pricing,
            t.conversation, t.payload
        FROM unnest(p_statuses) t
        LEFT JOIN LATERAL (
            SELECT o.id, o.queue_id FROM wa_messages o
            WHERE o.organization_id = p_org AND o.wa_message_id = t.wa_message_id
                AND o.direction = 'outbound'
            LIMIT 1
        ) m ON true
        -- Repeats within a batch: the first of each is kept, whatever their order.
        ORDER BY t.wa_message_id, t.occurred_at
        ON CONFLICT (organization_id, wa_message_id, status, participant) DO NOTHING
        RETURNING id, message_id
    )
    SELECT array_agg(r.id) FILTER (WHERE r.message_id IS NOT NULL) INTO status_ids FROM recorded r;
    message_ids := _wa_advance_messages(p_org, status_ids);
END
$$;

COMMENT ON FUNCTION _wa_record_statuses(uuid, _wa_told_statuses[]) IS
'Internal: records statuses and moves their messages forward; what belongs to no known message waits for it. '
'Returns the new ones of known messages, and those messages: what follows from them is the caller''s.';

CREATE OR REPLACE FUNCTION _wa_announce_states(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
    SELECT p_org, 'status', step.message_id, step.status, step.occurred_at
    FROM (
        SELECT s.message_id, s.status, s.occurred_at, _wa_status_rank(s.status) AS rank,
            greatest(m.rank, max(_wa_status_rank(s.status)) OVER (
                PARTITION BY s.message_id ORDER BY s.occurred_at, _wa_status_rank(s.status), s.id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )) AS rank_before
        FROM _wa_statuses_of(p_org, p_status_ids) s
        CROSS JOIN LATERAL (
            SELECT _wa_status_rank(w.state) AS rank FROM wa_messages w
            WHERE w.organization_id = p_org AND w.id = s.message_id LIMIT 1
        ) m
    ) step
    WHERE step.rank > step.rank_before
    ORDER BY step.occurred_at, step.rank;
END
$$;

COMMENT ON FUNCTION _wa_announce_states(uuid, bigint[]) IS
'Internal: an event for each step forward, none for what a later status had already overtaken. Before '
'_wa_advance_messages() takes the step.';

CREATE OR REPLACE FUNCTION _wa_advance_messages(p_org uuid, p_status_ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message_ids bigint[];
BEGIN
    IF p_status_ids IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM _wa_announce_states(p_org, p_status_ids);
    v_message_ids := ARRAY(
        SELECT DISTINCT s.message_id FROM _wa_statuses_of(p_org, p_status_ids) s WHERE s.message_id IS NOT NULL
    );
    -- In the order of their ids, as everyone locks them. The second look at the ids makes it a look-up by key,
    -- once for all, even on statistics of a table that was small a minute ago.
    UPDATE wa_messages m SET
        sent_at = coalesce(n.sent_at, m.sent_at),
        delivered_at = least(m.delivered_at, n.delivered_at),
        read_at = least(m.read_at, n.read_at),
        played_at = least(m.played_at, n.played_at),
        failed_at = least(m.failed_at, n.failed_at),
        pricing = coalesce(n.pricing, m.pricing),
        state_history = m.state_history || n.history,
        updated_at = clock_timestamp(),
        state = CASE WHEN n.rank > _wa_status_rank(m.state) THEN n.state ELSE m.state END,
        status = CASE
            WHEN n.rank > _wa_status_rank(m.state) THEN CASE n.state WHEN 'failed' THEN 'failed' ELSE 'sent' END
            ELSE m.status
        END,
        -- An error explains a failed state only; the history keeps one that a later delivery overtook.
        error_code = CASE
            WHEN n.rank > _wa_status_rank(m.state) THEN CASE n.state WHEN 'failed' THEN n.error_code END
            ELSE m.error_code
        END,
        error_title = CASE
            WHEN n.rank > _wa_status_rank(m.state) THEN CASE n.state WHEN 'failed' THEN n.error_title END
            ELSE m.error_title
        END,
        error_message = CASE
            WHEN n.rank > _wa_status_rank(m.state) THEN CASE n.state WHEN 'failed' THEN n.error_message END
            ELSE m.error_message
        END
    FROM (
        SELECT
            s.message_id, max(r.rank) AS rank,
            (array_agg(s.status ORDER BY r.rank DESC NULLS LAST))[1] AS state,
            min(s.occurred_at) FILTER (WHERE s.status = 'sent') AS sent_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'delivered') AS delivered_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'read') AS read_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'played') AS played_at,
            min(s.occurred_at) FILTER (WHERE s.status = 'failed') AS failed_at,
            -- As it came; of two the later one, for a message is charged on delivery.
            (array_agg(s.pricing ORDER BY r.rank DESC NULLS LAST) FILTER (WHERE s.pricing IS NOT NULL))[1]
                AS pricing,
            (array_agg(s.error_code) FILTER (WHERE s.status = 'failed'))[1] AS error_code,
            (array_agg(s.error_title) FILTER (WHERE s.status = 'failed'))[1] AS error_title,
            (array_agg(s.error_message) FILTER (WHERE s.status = 'failed'))[1] AS error_message,
            jsonb_agg(
                jsonb_strip_nulls(
                    jsonb_build_object('state', s.status, 'at', s.occurred_at, 'error_code', s.error_code)
                ) ORDER BY s.occurred_at, r.rank
            ) AS history
        FROM _wa_statuses_of(p_org, p_status_ids) s
        CROSS JOIN LATERAL (SELECT _wa_status_rank(s.status) AS rank) r
        WHERE s.message_id IS NOT NULL
        GROUP BY s.message_id
        ORDER BY s.message_id
    ) n
    WHERE m.organization_id = p_org AND m.id = ANY (v_message_ids) AND m.id = n.message_id;
    RETURN v_message_ids;
END
$$;

COMMENT ON FUNCTION _wa_advance_messages(uuid, bigint[]) IS
'Internal: takes newly recorded statuses into their messages and writes the events; returns the messages.';

-- A status and the answer that names its message may be recorded at the same time, each unseen by the other;
-- whichever comes next (this call after an answer, or the next processing of webhooks) brings them together.
CREATE OR REPLACE FUNCTION _wa_attach_early_statuses(
    p_org uuid, p_message_ids bigint[], OUT status_ids bigint[], OUT message_ids bigint[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_bitmapscan = off
AS $$
DECLARE
    v_early record;
BEGIN
    FOR v_early IN
        SELECT s.id, m.id AS message_id, m.queue_id
        FROM _wa_messages_of(p_org, p_message_ids) m
        CROSS JOIN LATERAL (
            -- OFFSET keeps the last condition outside, so that the index of orphans cannot serve. Of the others
            -- the wamid's does, also on statistics of an empty table, where a bitmap of all of the organization
            -- would look cheaper.
            SELECT k.id, k.message_id FROM wa_message_statuses k
            WHERE k.organization_id = p_org AND k.wa_message_id = m.wa_message_id
            OFFSET 0
        ) s
        WHERE m.direction = 'outbound' AND s.message_id IS NULL
    LOOP
        UPDATE wa_message_statuses s SET message_id = v_early.message_id, queue_id = v_early.queue_id
        WHERE s.organization_id = p_org AND s.id = v_early.id AND s.message_id IS NULL;
        IF FOUND THEN
            status_ids := status_ids || v_early.id;
        END IF;
    END LOOP;
    message_ids := _wa_advance_messages(p_org, status_ids);
END
$$;

COMMENT ON FUNCTION _wa_attach_early_statuses(uuid, bigint[]) IS
'Internal: gives messages that have just become known the statuses that came before them. Returns as '
'_wa_record_statuses() does.';
