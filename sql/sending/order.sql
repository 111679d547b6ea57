-- Where an organization wants it, the next message to a recipient waits until the one before is delivered.

CREATE OR REPLACE FUNCTION _wa_hold_for_delivery(p_org uuid, p_message_ids bigint[], p_now timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_wait interval;
BEGIN
    SELECT o.order_wait INTO v_wait FROM wa_organizations o WHERE o.id = p_org AND o.order_mode = 'delivered';
    IF FOUND THEN
        UPDATE wa_pair_rates r SET wait_until = p_now + v_wait
        FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.state IN ('accepted', 'held', 'sent')
            AND r.organization_id = p_org AND r.number_id = m.number_id AND r.contact_id = m.contact_id;
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
    UPDATE wa_pair_rates r SET wait_until = NULL
    FROM _wa_messages_of(p_org, p_message_ids) m
    WHERE m.state IN ('delivered', 'read', 'played', 'failed')
        AND r.organization_id = p_org AND r.number_id = m.number_id AND r.contact_id = m.contact_id;
    PERFORM _wa_release_in_order(p_org, array_agg(m.contact_id))
    FROM _wa_messages_of(p_org, p_message_ids) m;
    PERFORM _wa_notify_dispatchers();
END
$$;

COMMENT ON FUNCTION _wa_release_after_status(uuid, bigint[]) IS
'Internal: frees what waited for the delivery of the given messages.';
