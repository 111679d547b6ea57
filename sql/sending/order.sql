-- Where an organization wants it, the next message to a recipient waits until the one before is delivered.

-- Both in FROM, where queries take them in. What this dispatcher was granted just now is no obstacle, but
-- takes a turn.
CREATE OR REPLACE FUNCTION _wa_turns_of(
    p_org uuid, p_number_id bigint, p_contact_id bigint, p_class integer, p_dispatcher_id uuid,
    p_most integer, p_now timestamptz
) RETURNS TABLE (turns integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT CASE WHEN bool_or(
        i.dispatcher_id <> p_dispatcher_id OR i.claimed_at < p_now - interval '500 milliseconds'
    ) THEN 0 ELSE greatest(0, p_most - count(*)::integer) END
    FROM wa_queue_inflight i
    WHERE i.contact_id = p_contact_id AND i.number_id = p_number_id AND i.organization_id = p_org
        AND _wa_priority_of(i.class) = _wa_priority_of(p_class) AND NOT i.is_unknown;
END;

COMMENT ON FUNCTION _wa_turns_of(uuid, bigint, bigint, integer, uuid, integer, timestamptz) IS
'Internal: how many messages of a priority a dispatcher may be handed out for a recipient, of at most so '
'many in flight: none while an earlier one is in flight that must be recorded first.';

-- It was handed back, committed late, waits itself for its turn, or for its file, which is being uploaded.
-- One that waits for something of its own (a limit, a time, a file that did not get there at once) holds up
-- nobody, one that waits for the organization's minute only its like.
CREATE OR REPLACE FUNCTION _wa_first_in_turn(
    p_org uuid, p_number_id bigint, p_contact_id bigint, p_class integer, p_picked uuid[], p_now timestamptz
) RETURNS TABLE (queue_id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT o.queue_id
    FROM (
        -- OFFSET keeps the other conditions outside, so that only the contact's index can serve.
        SELECT x.* FROM wa_queue_due x
        WHERE x.contact_id = p_contact_id AND x.class = p_class AND x.class > 0
        ORDER BY x.queue_id
        OFFSET 0
    ) o
    WHERE o.organization_id = p_org AND o.number_id = p_number_id AND o.expires_at > p_now
        AND ((o.hold_id IS NULL AND o.due_at <= p_now) OR o.hold_reason IN ('recipient', 'file'))
        AND o.queue_id <> ALL (p_picked)
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_first_in_turn(uuid, bigint, bigint, integer, uuid[], timestamptz) IS
'Internal: the first message of a class to a recipient that waits for its turn and was not picked.';

CREATE OR REPLACE FUNCTION _wa_earlier_of(
    p_org uuid, p_number_id bigint, p_contact_id bigint, p_class integer, p_last_class integer,
    p_picked uuid[], p_now timestamptz
) RETURNS TABLE (queue_id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT least(
        CASE WHEN f.class <= p_last_class THEN (SELECT t.queue_id FROM _wa_first_in_turn(
            p_org, p_number_id, p_contact_id, f.class, p_picked, p_now) t) END,
        CASE WHEN f.class + 1 <= p_last_class THEN (SELECT t.queue_id FROM _wa_first_in_turn(
            p_org, p_number_id, p_contact_id, f.class + 1, p_picked, p_now) t) END
    )
    FROM (SELECT _wa_first_class(_wa_priority_of(p_class)) AS class) f;
END;

COMMENT ON FUNCTION _wa_earlier_of(uuid, bigint, bigint, integer, integer, uuid[], timestamptz) IS
'Internal: the first message of a priority to a recipient that waits for its turn and was not picked.';

CREATE OR REPLACE FUNCTION _wa_hold_for_delivery(p_org uuid, p_message_ids bigint[], p_now timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_wait interval;
BEGIN
    SELECT o.order_wait INTO v_wait FROM wa_organizations o WHERE o.id = p_org AND o.order_mode = 'delivered';
    IF FOUND THEN
        -- In the order in which all lock these rows: two batches that share recipients could deadlock.
        UPDATE wa_pair_rates r SET wait_until = p_now + v_wait, awaited_id = l.message_id
        FROM (
            SELECT m.number_id, m.contact_id, max(m.id) AS message_id
            FROM _wa_messages_of(p_org, p_message_ids) m
            WHERE m.state IN ('accepted', 'held', 'sent')
            GROUP BY m.number_id, m.contact_id
            ORDER BY m.contact_id, m.number_id
        ) m
        CROSS JOIN LATERAL (
            SELECT x.number_id, x.contact_id, m.message_id FROM wa_pair_rates x
            WHERE x.organization_id = p_org AND x.number_id = m.number_id AND x.contact_id = m.contact_id
            LIMIT 1 FOR NO KEY UPDATE
        ) l
        WHERE r.organization_id = p_org AND r.number_id = l.number_id AND r.contact_id = l.contact_id;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_hold_for_delivery(uuid, bigint[], timestamptz) IS
'Internal: where the organization wants it, makes the next message to a recipient wait until this one is '
'delivered.';

-- Called by the statuses room: a delivery, or a failure, frees the next message to the recipient.
CREATE OR REPLACE FUNCTION _wa_release_after_status(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM wa_organizations o WHERE o.id = p_org AND o.order_mode = 'delivered') THEN
        RETURN;
    END IF;
    -- An older message may be read while the newer one is on its way.
    UPDATE wa_pair_rates r SET wait_until = NULL
    FROM (
        SELECT m.number_id, m.contact_id, m.id FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.state IN ('delivered', 'read', 'played', 'failed')
        ORDER BY m.contact_id, m.number_id
    ) m
    CROSS JOIN LATERAL (
        SELECT x.number_id, x.contact_id FROM wa_pair_rates x
        WHERE x.organization_id = p_org AND x.number_id = m.number_id AND x.contact_id = m.contact_id
            AND x.awaited_id = m.id
        LIMIT 1 FOR NO KEY UPDATE
    ) l
    WHERE r.organization_id = p_org AND r.number_id = l.number_id AND r.contact_id = l.contact_id;
    PERFORM _wa_release_in_order(p_org, array_agg(m.contact_id))
    FROM _wa_messages_of(p_org, p_message_ids) m;
    PERFORM _wa_notify_dispatchers();
END
$$;

COMMENT ON FUNCTION _wa_release_after_status(uuid, bigint[]) IS
'Internal: frees what waited for the delivery of the given messages.';
