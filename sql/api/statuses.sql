-- Delivery states. Every status is stored once; the ledger's state is the highest that was reported, so that
-- repeated, late and out-of-order webhooks change nothing twice.

CREATE OR REPLACE FUNCTION _wa_apply_statuses(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_echo record;
    v_ids bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a WHERE num_nulls(a.payload ->> 'id', a.payload ->> 'status') > 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the status has no id or no state';
    END IF;

    -- Before the send's answer was recorded, the echo of our callback data is what tells the message.
    FOR v_echo IN
        SELECT a.number_id, array_agg(c.parts[1]::uuid) AS queue_ids,
            array_agg(c.parts[2]::integer) AS attempts,
            array_agg(a.payload ->> 'id') AS wamids
        FROM unnest(p_atoms) a
        CROSS JOIN LATERAL regexp_match(
            a.payload ->> 'biz_opaque_callback_data',
            '^q:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([0-9]{1,9})$'
        ) c (parts)
        WHERE c.parts IS NOT NULL AND NOT EXISTS (
            SELECT FROM wa_messages m
            WHERE m.organization_id = p_org AND m.wa_message_id = a.payload ->> 'id'
        )
        GROUP BY a.number_id
        ORDER BY a.number_id
    LOOP
        PERFORM _wa_settle_from_echo(p_org, v_echo.number_id, v_echo.queue_ids, v_echo.attempts,
            v_echo.wamids);
    END LOOP;

    WITH recorded AS (
        INSERT INTO wa_message_statuses (
            organization_id, message_id, queue_id, wa_message_id, status, participant, occurred_at,
            received_at,
            recipient_id, recipient_user_id, error_code, error_title, error_message, pricing, conversation,
            payload
        )
        SELECT
            p_org, m.id, m.queue_id, a.payload ->> 'id',
            CASE a.kind WHEN 'status' THEN a.payload ->> 'status' ELSE lower(a.payload ->> 'status') END,
            coalesce(a.payload ->> 'recipient_participant_id', a.payload ->> 'recipient_participant_user_id',
                ''),
            a.at, a.received_at, a.payload ->> 'recipient_id', a.payload ->> 'recipient_user_id',
            CASE WHEN e.error ->> 'code' ~ '^[0-9]{1,9}$' THEN (e.error ->> 'code')::integer END,
            e.error ->> 'title', coalesce(e.error #>> '{error_data,details}', e.error ->> 'message'),
            a.payload -> 'pricing', a.payload -> 'conversation',
            a.payload - ARRAY['id', 'status', 'timestamp', 'recipient_id', 'recipient_user_id', 'pricing',
            'conversation']
        FROM unnest(p_atoms) a
        LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.wa_message_id = a.payload ->> 'id'
            AND m.direction = 'outbound'
        CROSS JOIN LATERAL (SELECT a.payload #> '{errors,0}' AS error) e
        -- Repeats within a batch: the first of each is kept, whatever their order.
        ORDER BY a.payload ->> 'id', a.at
        ON CONFLICT (organization_id, wa_message_id, status, participant) DO NOTHING
        RETURNING id, message_id
    )
    SELECT array_agg(r.id) FILTER (WHERE r.message_id IS NOT NULL) INTO v_ids FROM recorded r;
    PERFORM _wa_advance_messages(p_org, v_ids);
    PERFORM _wa_learn_recipients(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_apply_statuses(uuid, _wa_webhook_atoms[]) IS
'Internal: records statuses and moves their messages forward; what belongs to no known message waits for it.';

CREATE OR REPLACE FUNCTION _wa_advance_messages(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_status_ids IS NULL OR cardinality(p_status_ids) = 0 THEN
        RETURN;
    END IF;
    WITH news AS (
        SELECT s.*, _wa_status_rank(s.status) AS rank
        FROM wa_message_statuses s
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.message_id IS NOT NULL
    ),
    summary AS (
        SELECT
            n.message_id, max(n.rank) AS rank,
            (array_agg(n.status ORDER BY n.rank DESC NULLS LAST))[1] AS state,
            min(n.occurred_at) FILTER (WHERE n.status = 'sent') AS sent_at,
            min(n.occurred_at) FILTER (WHERE n.status = 'delivered') AS delivered_at,
            min(n.occurred_at) FILTER (WHERE n.status = 'read') AS read_at,
            min(n.occurred_at) FILTER (WHERE n.status = 'played') AS played_at,
            min(n.occurred_at) FILTER (WHERE n.status = 'failed') AS failed_at,
            (array_agg(n.pricing) FILTER (WHERE n.pricing IS NOT NULL))[1] AS pricing,
            (array_agg(n.error_code) FILTER (WHERE n.status = 'failed'))[1] AS error_code,
            (array_agg(n.error_title) FILTER (WHERE n.status = 'failed'))[1] AS error_title,
            (array_agg(n.error_message) FILTER (WHERE n.status = 'failed'))[1] AS error_message,
            jsonb_agg(
                jsonb_strip_nulls(
                    jsonb_build_object('state', n.status, 'at', n.occurred_at, 'error_code', n.error_code)
                ) ORDER BY n.occurred_at, n.rank
            ) AS history
        FROM news n
        GROUP BY n.message_id
    ),
    moved AS (
        UPDATE wa_messages m SET
            state = CASE WHEN c.is_forward THEN s.state ELSE m.state END,
            status = CASE WHEN NOT c.is_forward THEN m.status WHEN s.state = 'failed' THEN 'failed'
                ELSE 'sent' END,
            -- An error explains a failed state only; the history keeps one that a later delivery overtook.
            error_code = CASE
                WHEN NOT c.is_forward THEN m.error_code WHEN s.state = 'failed' THEN s.error_code
            END,
            error_title = CASE
                WHEN NOT c.is_forward THEN m.error_title WHEN s.state = 'failed' THEN s.error_title
            END,
            error_message = CASE
                WHEN NOT c.is_forward THEN m.error_message WHEN s.state = 'failed' THEN s.error_message
            END,
            sent_at = coalesce(s.sent_at, m.sent_at),
            delivered_at = least(m.delivered_at, s.delivered_at),
            read_at = least(m.read_at, s.read_at),
            played_at = least(m.played_at, s.played_at),
            failed_at = least(m.failed_at, s.failed_at),
            pricing = coalesce(s.pricing, m.pricing),
            state_history = m.state_history || s.history,
            updated_at = clock_timestamp()
        FROM summary s
        JOIN wa_messages was ON was.organization_id = p_org AND was.id = s.message_id
        CROSS JOIN LATERAL (SELECT coalesce(s.rank > _wa_status_rank(was.state), false) AS is_forward) c
        WHERE m.organization_id = p_org AND m.id = s.message_id
        RETURNING m.id, _wa_status_rank(was.state) AS old_rank
    )
    -- An event for each step forward, none for what a later status had already overtaken.
    INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
    SELECT p_org, 'status', step.message_id, step.status, step.occurred_at
    FROM (
        SELECT n.message_id, n.status, n.occurred_at, n.rank, greatest(m.old_rank, max(n.rank) OVER (
            PARTITION BY n.message_id ORDER BY n.occurred_at, n.rank, n.id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )) AS rank_before
        FROM news n
        JOIN moved m ON m.id = n.message_id
    ) step
    WHERE step.rank > step.rank_before
    ORDER BY step.occurred_at, step.rank;
    PERFORM _wa_react_to_failures(p_org, p_status_ids);
END
$$;

COMMENT ON FUNCTION _wa_advance_messages(uuid, bigint[]) IS
'Internal: takes newly recorded statuses into their messages and writes the events.';

-- A status and the answer that names its message may be recorded at the same time, each unseen by the other;
-- whichever comes next (this call after an answer, or the next processing of webhooks) brings them together.
CREATE OR REPLACE FUNCTION _wa_attach_early_statuses(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    WITH attached AS (
        UPDATE wa_message_statuses s SET message_id = m.id, queue_id = m.queue_id
        FROM wa_messages m
        WHERE m.organization_id = p_org AND m.id = ANY (p_message_ids) AND m.direction = 'outbound'
            AND s.organization_id = p_org AND s.wa_message_id = m.wa_message_id AND s.message_id IS NULL
        RETURNING s.id
    )
    SELECT array_agg(a.id) INTO v_ids FROM attached a;
    PERFORM _wa_advance_messages(p_org, v_ids);
    PERFORM _wa_learn_recipients(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_attach_early_statuses(uuid, bigint[]) IS
'Internal: gives messages that have just become known the statuses that came before them.';

CREATE OR REPLACE FUNCTION _wa_attach_orphan_statuses(p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_found record;
BEGIN
    FOR v_found IN
        SELECT s.organization_id, array_agg(DISTINCT m.id) AS ids
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = s.organization_id AND m.wa_message_id = s.wa_message_id
            AND m.direction = 'outbound'
        WHERE s.message_id IS NULL AND s.received_at > p_now - interval '10 minutes'
        GROUP BY s.organization_id
        ORDER BY s.organization_id
    LOOP
        PERFORM _wa_attach_early_statuses(v_found.organization_id, v_found.ids);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_attach_orphan_statuses(timestamptz) IS
'Internal: attaches statuses of the last minutes whose message was recorded at the same moment.';

CREATE OR REPLACE FUNCTION _wa_react_to_failures(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rule record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM wa_message_statuses s
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.status = 'failed'
    ) THEN
        RETURN;
    END IF;
    UPDATE wa_conversation_windows w SET
        window_denied_at = greatest(w.window_denied_at, d.denied_at), updated_at = clock_timestamp()
    FROM (
        SELECT m.contact_id, m.number_id, max(s.occurred_at) AS denied_at
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_error_rules r ON r.code = s.error_code AND r.action = 'need_template'
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.status = 'failed'
        GROUP BY m.contact_id, m.number_id
    ) d
    WHERE w.organization_id = p_org AND w.contact_id = d.contact_id AND w.number_id = d.number_id;
    FOR v_rule IN
        SELECT DISTINCT r.code, r.title, r.action, m.number_id, m.contact_id, m.template_name,
            m.template_language,
            s.occurred_at + r.wait AS ends_at
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_error_rules r ON r.code = s.error_code
            AND r.action IN ('opt_out', 'stop_template', 'pause_number', 'pause_account', 'pause_token')
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.status = 'failed'
    LOOP
        CASE v_rule.action
            WHEN 'opt_out' THEN
                PERFORM _wa_opt_out_contacts(p_org, ARRAY[v_rule.contact_id], 'marketing', v_rule.title,
                    'provider');
            WHEN 'stop_template' THEN
                UPDATE wa_templates t SET blocked_reason = format('%s (code %s)', v_rule.title, v_rule.code),
                    blocked_at = clock_timestamp(), blocked_until = v_rule.ends_at
                WHERE t.organization_id = p_org AND t.name = v_rule.template_name
                    AND t.language = v_rule.template_language
                    AND coalesce(v_rule.ends_at > clock_timestamp(), true);
            ELSE
                CONTINUE WHEN v_rule.ends_at <= clock_timestamp();
                PERFORM _wa_pause_number(
                    p_org, v_rule.number_id, replace(v_rule.action, 'pause_', ''),
                    format('%s (code %s)', v_rule.title, v_rule.code), v_rule.ends_at
                );
        END CASE;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_react_to_failures(uuid, bigint[]) IS
'Internal: what a failed status teaches, by wa_error_rules: the window is closed, the customer wants no '
'marketing, a template or number must stop. A message that the provider had accepted is not sent again.';

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
        SELECT _wa_inbound_phone(s.recipient_id) AS phone, s.recipient_user_id, max(s.occurred_at) AS at
        FROM wa_message_statuses s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_contacts c ON c.organization_id = p_org AND c.id = m.contact_id
        WHERE s.organization_id = p_org AND s.id = ANY (p_status_ids) AND s.participant = ''
            AND _wa_inbound_phone(s.recipient_id) IS NOT NULL AND m.group_id IS NULL
            AND NOT EXISTS (
                SELECT FROM wa_contact_identities i
                WHERE i.organization_id = p_org AND i.kind = 'user_id' AND i.value = s.recipient_user_id
                    AND i.is_current
                    AND i.contact_id = c.id AND c.phone_key IS NOT NULL
            )
            AND s.recipient_user_id IS NOT NULL
        GROUP BY 1, 2
    ) l;
    IF v_phones IS NOT NULL THEN
        PERFORM FROM _wa_resolve_contacts(p_org, v_phones, v_user_ids, 'status', v_ats);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_learn_recipients(uuid, bigint[]) IS
'Internal: joins the numbers and user ids that statuses name together.';

REVOKE ALL ON FUNCTION _wa_apply_statuses(uuid, _wa_webhook_atoms[]), _wa_advance_messages(uuid, bigint[]),
_wa_attach_early_statuses(uuid, bigint[]), _wa_attach_orphan_statuses(timestamptz),
_wa_react_to_failures(uuid, bigint[]), _wa_learn_recipients(uuid, bigint[]) FROM PUBLIC;
GRANT SELECT ON wa_message_statuses TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_message_statuses TO wa_admin;
