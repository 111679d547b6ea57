-- What the queue holds of a person, and taking it away. Only what has ended: what waits was cancelled before,
-- what is being sent is waited for.

CREATE OR REPLACE FUNCTION _wa_has_inflight_of(p_org uuid, p_contact_id bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_queue_inflight f WHERE f.contact_id = p_contact_id AND f.organization_id = p_org
    )
$$;

COMMENT ON FUNCTION _wa_has_inflight_of(uuid, bigint) IS
'Internal: whether something is being sent to a contact, or its outcome is not known yet.';

CREATE OR REPLACE FUNCTION _wa_erase_queue_rows(p_org uuid, p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_outbound_queue q SET
        phone = _wa_first_digits(q.phone), text_body = NULL, template_params = NULL, content = NULL,
        fallback_template_params = NULL, sms_fallback_text = NULL, last_error = NULL, reply_to = NULL,
        idempotency_key = NULL, reference = NULL, customer_id = NULL, wa_message_id = NULL,
        metadata = CASE WHEN q.metadata ? 'role'
            THEN jsonb_build_object('role', q.metadata -> 'role') ELSE '{}' END,
        change_no = q.change_no + 1
    FROM unnest(p_ids) u (id)
    WHERE q.organization_id = p_org AND q.id = u.id AND q.status IN ('sent', 'failed', 'cancelled');
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_queue_rows(uuid, uuid[]) IS
'Internal: empties queue rows that have ended; returns how many.';

-- What never became a message is found by its address, which no index has: one walk for some thousand rows.
CREATE OR REPLACE FUNCTION _wa_erase_queue_of(
    p_org uuid, p_contact_id bigint, p_addresses text[], p_limit integer, OUT changed integer,
    OUT media_ids text[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids uuid[];
BEGIN
    SELECT array_agg(q.id), array_agg(DISTINCT q.media_id) FILTER (WHERE q.media_id IS NOT NULL)
    INTO v_ids, media_ids
    FROM (
        SELECT x.id, x.content ->> 'media_id' AS media_id FROM wa_outbound_queue x
        WHERE x.organization_id = p_org
            -- Its number may be somebody else's by now, and what was queued to it is still this person's.
            AND (x.phone = ANY (p_addresses) OR x.contact_id = p_contact_id AND length(x.phone) > 5)
            AND x.status IN ('sent', 'failed', 'cancelled')
        LIMIT p_limit
    ) q;
    changed := _wa_erase_queue_rows(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_erase_queue_of(uuid, bigint, text[], integer) IS
'Internal: empties some queue rows to a contact, or to these addresses; how many, and the files of yours '
'that they named.';

CREATE OR REPLACE FUNCTION _wa_export_queue_of(p_org uuid, p_contact_id bigint, p_addresses text[])
RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(q) - 'organization_id' ORDER BY q.id), '[]')
    FROM wa_outbound_queue q
    WHERE q.organization_id = p_org AND (q.phone = ANY (p_addresses) OR q.contact_id = p_contact_id)
$$;

COMMENT ON FUNCTION _wa_export_queue_of(uuid, bigint, text[]) IS
'Internal: queue rows to these addresses, or to a contact.';
