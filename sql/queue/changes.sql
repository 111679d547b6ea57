-- What other rooms may change of queued messages. The queue's triggers look at it as at an application's own
-- UPDATE.

-- Not cancel_wa_messages(): rows of several organizations may be meant at once. One that is being claimed is
-- waited for and, being no longer pending, left alone. Rows are found by key in a large queue.
CREATE OR REPLACE FUNCTION _wa_cancel_referenced(p_organizations uuid[], p_references text[])
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    PERFORM _wa_drop_sms(q.organization_id, array_agg(q.id))
    FROM (SELECT DISTINCT u.org, u.ref FROM unnest(p_organizations, p_references) u (org, ref)) r
    JOIN wa_outbound_queue q ON q.organization_id = r.org AND q.reference = r.ref
        AND q.sms_fallback_text IS NOT NULL
    GROUP BY q.organization_id;
    RETURN QUERY
    UPDATE wa_outbound_queue q SET status = 'cancelled'
    FROM (SELECT DISTINCT u.org, u.ref FROM unnest(p_organizations, p_references) u (org, ref)) r
    WHERE q.organization_id = r.org AND q.reference = r.ref AND q.status = 'pending'
    RETURNING q.reference;
END
$$;

COMMENT ON FUNCTION _wa_cancel_referenced(uuid[], text[]) IS
'Internal: cancels what waits under references of organizations; answers with a reference per message.';

-- A move must not fail because one of them may no longer go.
CREATE OR REPLACE FUNCTION _wa_move_queued(
    p_org uuid, p_ids uuid[], p_scheduled_ats timestamptz[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    UPDATE wa_outbound_queue q
    SET status = CASE WHEN m.at > p_now THEN q.status ELSE 'cancelled' END,
        scheduled_at = CASE WHEN m.at > p_now THEN m.at ELSE q.scheduled_at END,
        expires_at = CASE WHEN m.at > p_now AND q.expires_at < 'infinity'
            THEN q.expires_at + (m.at - q.scheduled_at) ELSE q.expires_at END,
        on_refusal = 'record'
    FROM unnest(p_ids, p_scheduled_ats) m (id, at)
    WHERE q.organization_id = p_org AND q.id = m.id AND q.status = 'pending';
END
$$;

COMMENT ON FUNCTION _wa_move_queued(uuid, uuid[], timestamptz[], timestamptz) IS
'Internal: moves pending messages to other times, and their expiry with them; those whose time has passed by '
'p_now are cancelled.';

CREATE OR REPLACE FUNCTION _wa_change_queued(
    p_org uuid, p_id uuid, p_is_cancelled boolean, p_scheduled_at timestamptz, p_priority text,
    p_reference text, p_metadata jsonb
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_outbound_queue q SET
        status = CASE WHEN p_is_cancelled THEN 'cancelled' ELSE q.status END,
        scheduled_at = coalesce(p_scheduled_at, q.scheduled_at),
        -- An expiry that was reckoned from the old time moves along.
        expires_at = CASE
            WHEN p_scheduled_at IS NULL OR q.expires_at = 'infinity' THEN q.expires_at
            ELSE q.expires_at + (p_scheduled_at - q.scheduled_at)
        END,
        priority = coalesce(p_priority, q.priority), reference = p_reference, metadata = p_metadata
    WHERE q.organization_id = p_org AND q.id = p_id;
END
$$;

COMMENT ON FUNCTION _wa_change_queued(uuid, uuid, boolean, timestamptz, text, text, jsonb) IS
'Internal: cancels, reschedules or reprioritises a message with the caller''s rights, and sets its reference '
'and metadata; a time or priority of NULL stays.';
