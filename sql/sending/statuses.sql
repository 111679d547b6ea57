-- What follows from statuses that were recorded: lessons of failures, the next message to the recipient, and
-- another name of the recipient. The ledger keeps the statuses themselves.

CREATE OR REPLACE FUNCTION _wa_follow_statuses(p_org uuid, p_status_ids bigint[], p_message_ids bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_status_ids IS NOT NULL THEN
        PERFORM _wa_react_to_failures(p_org, p_status_ids);
        PERFORM _wa_release_after_status(p_org, p_message_ids);
        PERFORM _wa_learn_recipients(p_org, p_status_ids);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_follow_statuses(uuid, bigint[], bigint[]) IS
'Internal: does what follows from new statuses and the messages that they moved.';

CREATE OR REPLACE FUNCTION _wa_take_early_statuses(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_early record;
BEGIN
    v_early := _wa_attach_early_statuses(p_org, p_message_ids);
    PERFORM _wa_follow_statuses(p_org, v_early.status_ids, v_early.message_ids);
END
$$;

COMMENT ON FUNCTION _wa_take_early_statuses(uuid, bigint[]) IS
'Internal: statuses that came before their message was known count from now on.';

CREATE OR REPLACE FUNCTION _wa_react_to_failures(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM _wa_statuses_of(p_org, p_status_ids) s WHERE s.status = 'failed'
    ) THEN
        RETURN;
    END IF;
    -- Waits are for a message that is tried again, which none is that the provider had accepted.
    PERFORM _wa_apply_error_actions(p_org, array_agg(ROW(
        r.action, m.number_id, m.contact_id, _wa_template_of_account(
            p_org, n.waba_id, m.template_name, m.template_language
        ), r.code, r.title, s.occurred_at, s.occurred_at + r.wait
    )::_wa_met_errors))
    FROM _wa_statuses_of(p_org, p_status_ids) s
    -- A status has no subcode.
    JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
    LEFT JOIN wa_phone_numbers n ON n.organization_id = p_org AND n.id = m.number_id
    CROSS JOIN LATERAL _wa_error_rule(coalesce(n.provider, 'meta'), s.error_code, NULL) r
    WHERE s.status = 'failed' AND r.action NOT LIKE 'wait%'
    HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION _wa_react_to_failures(uuid, bigint[]) IS
'Internal: what a failed status teaches, by wa_error_rules. A message that the provider had accepted is not '
'sent again.';

-- Statuses bring the user id of a customer whom we know by number, and the other way round.
CREATE OR REPLACE FUNCTION _wa_learn_recipients(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_phones text[];
    v_user_ids text[];
    v_ats timestamptz[];
BEGIN
    SELECT array_agg(l.phone), array_agg(l.recipient_user_id), array_agg(l.at) INTO v_phones, v_user_ids,
        v_ats
    FROM (
        -- As it was when the message was sent: its states may be told long after the number has gone on.
        SELECT s.phone, s.recipient_user_id, max(least(s.occurred_at, m.sent_at)) AS at
        FROM (
            SELECT k.message_id, k.recipient_user_id, k.occurred_at,
                _wa_inbound_phone(k.recipient_id) AS phone
            FROM _wa_statuses_of(p_org, p_status_ids) k
            WHERE k.participant = '' AND k.recipient_user_id IS NOT NULL
            OFFSET 0
        ) s
        CROSS JOIN LATERAL (
            SELECT o.contact_id, o.sent_at FROM wa_messages o
            WHERE o.organization_id = p_org AND o.id = s.message_id AND o.group_id IS NULL LIMIT 1
        ) m
        CROSS JOIN LATERAL (
            SELECT k.phone_key FROM wa_contacts k
            WHERE k.organization_id = p_org AND k.id = m.contact_id LIMIT 1
        ) c
        LEFT JOIN LATERAL (
            SELECT u.contact_id FROM wa_contact_identities u
            WHERE u.organization_id = p_org AND u.kind = 'user_id' AND u.value = s.recipient_user_id
                AND u.is_current
            LIMIT 1
        ) i ON true
        WHERE s.phone IS NOT NULL AND (i.contact_id IS DISTINCT FROM m.contact_id OR c.phone_key IS NULL)
        GROUP BY 1, 2
    ) l;
    IF v_phones IS NOT NULL THEN
        PERFORM FROM _wa_resolve_contacts(p_org, v_phones, v_user_ids, 'status', v_ats);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_learn_recipients(uuid, bigint[]) IS
'Internal: joins the numbers and user ids that statuses name together.';
