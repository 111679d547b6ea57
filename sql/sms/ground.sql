-- What an SMS in reserve stands for, and whether that still holds: asked whenever the SMS is judged, as
-- WhatsApp may tell more of the message while its SMS waits.

-- Of a row that failed before it was sent, or whose answer said so, the queue tells the code, else the
-- status. An unknown outcome is no failure: it may have arrived. Whoever sends no templates wants none by
-- SMS either.
CREATE OR REPLACE FUNCTION _wa_allows_sms(
    p_provider text, p_status text, p_queue_code text, p_code integer, p_sends_templates boolean
) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(CASE
    WHEN p_status = 'failed' AND p_queue_code !~ '^[0-9]{1,9}$'
        THEN p_queue_code = 'window_closed' OR p_queue_code = 'template_unavailable' AND p_sends_templates
    ELSE (
        SELECT r.allows_sms FROM _wa_error_rule(
            p_provider, CASE WHEN p_status = 'failed' THEN p_queue_code::integer ELSE p_code END, NULL
        ) r
    )
END, false);

COMMENT ON FUNCTION _wa_allows_sms(text, text, text, integer, boolean) IS
'Internal: whether a message that failed may go as SMS: by the word of the queue, else by wa_error_rules.';

-- Sent again, it is WhatsApp's until that fails, too.
CREATE OR REPLACE FUNCTION _wa_sms_verdict(
    p_cause text, p_status text, p_queue_code text, p_state text, p_code integer, p_provider text,
    p_sends_templates boolean
) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN p_status IS NULL THEN 'too_late'
    WHEN p_state IN ('delivered', 'read', 'played') THEN 'delivered'
    WHEN p_status = 'cancelled' THEN 'cancelled'
    WHEN p_status IN ('pending', 'sending') THEN 'in_reserve'
    WHEN p_state = 'failed' THEN CASE WHEN NOT _wa_allows_sms(
        p_provider, p_status, p_queue_code, p_code, p_sends_templates
    ) THEN 'failed_otherwise' END
    WHEN p_cause = 'failed' THEN 'in_reserve'
END;

COMMENT ON FUNCTION _wa_sms_verdict(text, text, text, text, integer, text, boolean) IS
'Internal: why a message is not to go as SMS, by what is known of it now: too_late (it is gone), delivered, '
'cancelled, failed_otherwise, or not yet (in_reserve: it is on its way again); NULL when it is.';

-- A set of at most one, so that it is inlined into a join, and LIMIT, so that nothing is looked up for
-- another channel. By one index each: OFFSET keeps the organization outside.
CREATE OR REPLACE FUNCTION _wa_sms_ground(
    p_channel text, p_org uuid, p_sms_id uuid, p_sends_templates boolean
) RETURNS TABLE (category text, verdict text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT f.category, _wa_sms_verdict(
        f.cause, q.status, q.error_code, m.state, m.error_code, coalesce(n.provider, 'meta'),
        p_sends_templates
    )
    FROM (
        SELECT x.* FROM wa_sms_fallbacks x WHERE x.sms_id = p_sms_id OFFSET 0
    ) f
    LEFT JOIN LATERAL (
        SELECT x.status, x.error_code FROM wa_outbound_queue x
        WHERE x.organization_id = p_org AND x.id = f.queue_id LIMIT 1
    ) q ON true
    LEFT JOIN LATERAL (
        SELECT x.state, x.error_code, x.number_id FROM wa_messages x
        WHERE x.organization_id = p_org AND x.queue_id = f.queue_id LIMIT 1
    ) m ON true
    LEFT JOIN LATERAL (
        SELECT x.provider FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.id = m.number_id LIMIT 1
    ) n ON true
    WHERE p_channel = 'sms' AND f.organization_id = p_org
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_sms_ground(text, uuid, uuid, boolean) IS
'Internal: of an SMS in reserve the category of the message that it stands for, and why it is not to go; no '
'row for another SMS, and for another channel.';

CREATE OR REPLACE FUNCTION _wa_sms_category(p_org uuid, p_sms_id uuid) RETURNS text
LANGUAGE sql STABLE
RETURN coalesce((
    SELECT f.category FROM (
        SELECT x.organization_id, x.category FROM wa_sms_fallbacks x WHERE x.sms_id = p_sms_id OFFSET 0
    ) f
    WHERE f.organization_id = p_org LIMIT 1
), 'UTILITY');

COMMENT ON FUNCTION _wa_sms_category(uuid, uuid) IS
'Internal: the category of an SMS: that of the message that it stands for, else UTILITY.';

-- The row of an SMS is locked before it is read: a claim that has it is waited for, and a later one passes it
-- by and judges it anew.
CREATE OR REPLACE FUNCTION _wa_gone_as_sms(p_org uuid, p_ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_sms_ids uuid[];
BEGIN
    -- Whatever it fails of next is noted anew.
    DELETE FROM wa_sms_fallbacks f
    WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids) AND f.sms_id IS NULL;
    SELECT array_agg(l.sms_id) INTO v_sms_ids
    FROM (
        SELECT f.sms_id FROM wa_sms_fallbacks f
        WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids)
        ORDER BY f.queue_id
        FOR NO KEY UPDATE
    ) l;
    IF v_sms_ids IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM FROM wa_outbound_queue q
    WHERE q.organization_id = p_org AND q.id = ANY (v_sms_ids)
    ORDER BY q.id
    FOR NO KEY UPDATE;
    RETURN ARRAY(
        SELECT f.queue_id FROM wa_sms_fallbacks f
        LEFT JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = f.sms_id
        LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.queue_id = f.sms_id
        WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids) AND f.sms_id = ANY (v_sms_ids)
            AND (
                q.status = 'sending' OR m.status = 'sent' OR q.error_code IN ('outcome_unknown', 'in_doubt')
            )
    );
END
$$;

COMMENT ON FUNCTION _wa_gone_as_sms(uuid, uuid[]) IS
'Internal: those of the given messages that went as SMS, or may have, none of which was told to have failed. '
'The others'' SMS, if they wait, are locked, and wait on for what becomes of the message.';

CREATE OR REPLACE FUNCTION _wa_drop_sms(p_org uuid, p_ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_sms_fallbacks f SET state = 'not_sent', reason = 'cancelled'
    WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids) AND f.state = 'waiting';
    RETURN ARRAY(
        SELECT f.sms_id FROM wa_sms_fallbacks f
        WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids) AND f.sms_id IS NOT NULL
    );
END
$$;

COMMENT ON FUNCTION _wa_drop_sms(uuid, uuid[]) IS
'Internal: messages are to go as SMS no more; returns the SMS that were queued for them.';

-- While its SMS is there a message is known to have one.
CREATE OR REPLACE FUNCTION _wa_forget_sms(p_org uuid, p_sms_ids uuid[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    DELETE FROM wa_sms_fallbacks f USING unnest(p_sms_ids) u (id)
    WHERE f.sms_id = u.id AND f.organization_id = p_org
$$;

COMMENT ON FUNCTION _wa_forget_sms(uuid, uuid[]) IS
'Internal: forgets what SMS stood for whose rows of the queue are deleted.';
