-- Delivery states. Every status is stored once; the ledger's state is the highest that was reported, so that
-- repeated, late and out-of-order webhooks change nothing twice.

-- Comes before everything else of a batch: it locks queue rows, and whoever records an answer locks those
-- first too, conversations after.
CREATE OR REPLACE FUNCTION _wa_settle_echoes(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_echo record;
BEGIN
    -- Before the send's answer was recorded, the echo of our callback data is what tells the message. Mostly it
    -- was: the look-up is cheap and comes first.
    SELECT array_agg(c.parts[1]::uuid) AS queue_ids, array_agg(c.parts[2]::integer) AS attempts,
        array_agg(u.payload ->> 'id') AS wamids
    INTO v_echo
    FROM (
        SELECT a.payload
        FROM unnest(p_atoms) a
        LEFT JOIN LATERAL (
            SELECT o.id FROM wa_messages o
            WHERE o.organization_id = p_org AND o.wa_message_id = a.payload ->> 'id' LIMIT 1
        ) m ON true
        WHERE a.kind = 'status' AND m.id IS NULL
        OFFSET 0
    ) u
    CROSS JOIN LATERAL regexp_match(
        u.payload ->> 'biz_opaque_callback_data',
        '^q:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([0-9]{1,9})$'
    ) c (parts)
    WHERE c.parts IS NOT NULL;
    PERFORM _wa_settle_from_echo(p_org, v_echo.queue_ids, v_echo.attempts, v_echo.wamids);
END
$$;

COMMENT ON FUNCTION _wa_settle_echoes(uuid, _wa_webhook_atoms[]) IS
'Internal: settles the queued messages whose callback data statuses bring back.';

CREATE OR REPLACE FUNCTION _wa_apply_statuses(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a WHERE num_nulls(a.payload ->> 'id', a.payload ->> 'status') > 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the status has no id or no state';
    END IF;

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
        LEFT JOIN LATERAL (
            SELECT o.id, o.queue_id FROM wa_messages o
            WHERE o.organization_id = p_org AND o.wa_message_id = a.payload ->> 'id'
                AND o.direction = 'outbound'
            LIMIT 1
        ) m ON true
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

CREATE OR REPLACE FUNCTION _wa_statuses_of(p_org uuid, p_ids bigint[]) RETURNS SETOF wa_message_statuses
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.* FROM unnest(p_ids) u (id)
    CROSS JOIN LATERAL (
        SELECT k.* FROM wa_message_statuses k WHERE k.organization_id = p_org AND k.id = u.id LIMIT 1
    ) s;
END;

COMMENT ON FUNCTION _wa_statuses_of(uuid, bigint[]) IS 'Internal: statuses, each looked up by its key.';

CREATE OR REPLACE FUNCTION _wa_advance_messages(p_org uuid, p_status_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message_ids bigint[];
BEGIN
    IF p_status_ids IS NULL OR cardinality(p_status_ids) = 0 THEN
        RETURN;
    END IF;
    -- An event for each step forward, none for what a later status had already overtaken.
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
            (array_agg(s.pricing) FILTER (WHERE s.pricing IS NOT NULL))[1] AS pricing,
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
    PERFORM _wa_react_to_failures(p_org, p_status_ids);
    PERFORM _wa_release_after_status(p_org, v_message_ids);
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
    v_early record;
    v_ids bigint[] := '{}';
BEGIN
    FOR v_early IN
        SELECT s.id, m.id AS message_id, m.queue_id
        FROM _wa_messages_of(p_org, p_message_ids) m
        CROSS JOIN LATERAL (
            -- OFFSET keeps the other conditions outside, so that only the index of the wamid can serve.
            SELECT k.id, k.organization_id, k.message_id FROM wa_message_statuses k
            WHERE k.wa_message_id = m.wa_message_id
            OFFSET 0
        ) s
        WHERE m.direction = 'outbound' AND s.organization_id = p_org AND s.message_id IS NULL
    LOOP
        UPDATE wa_message_statuses s SET message_id = v_early.message_id, queue_id = v_early.queue_id
        WHERE s.organization_id = p_org AND s.id = v_early.id AND s.message_id IS NULL;
        IF FOUND THEN
            v_ids := v_ids || v_early.id;
        END IF;
    END LOOP;
    IF v_ids <> '{}' THEN
        PERFORM _wa_advance_messages(p_org, v_ids);
        PERFORM _wa_learn_recipients(p_org, v_ids);
    END IF;
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
        SELECT FROM _wa_statuses_of(p_org, p_status_ids) s WHERE s.status = 'failed'
    ) THEN
        RETURN;
    END IF;
    UPDATE wa_conversation_windows w SET
        window_denied_at = greatest(w.window_denied_at, d.denied_at), updated_at = clock_timestamp()
    FROM (
        SELECT m.contact_id, m.number_id, max(s.occurred_at) AS denied_at
        FROM _wa_statuses_of(p_org, p_status_ids) s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_error_rules r ON r.code = s.error_code AND r.action = 'need_template'
        WHERE s.status = 'failed'
        GROUP BY m.contact_id, m.number_id
    ) d
    WHERE w.organization_id = p_org AND w.contact_id = d.contact_id AND w.number_id = d.number_id;
    FOR v_rule IN
        SELECT DISTINCT r.code, r.title, r.action, m.number_id, m.contact_id, m.template_name,
            m.template_language,
            s.occurred_at + r.wait AS ends_at
        FROM _wa_statuses_of(p_org, p_status_ids) s
        JOIN wa_messages m ON m.organization_id = p_org AND m.id = s.message_id
        JOIN wa_error_rules r ON r.code = s.error_code
            AND r.action IN ('opt_out', 'stop_template', 'pause_number', 'pause_account', 'pause_token')
        WHERE s.status = 'failed'
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
        FROM _wa_statuses_of(p_org, p_status_ids) s
        CROSS JOIN LATERAL (
            SELECT o.contact_id FROM wa_messages o
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
        WHERE s.participant = '' AND s.recipient_user_id IS NOT NULL
            AND _wa_inbound_phone(s.recipient_id) IS NOT NULL
            AND (i.contact_id IS DISTINCT FROM m.contact_id OR c.phone_key IS NULL)
        GROUP BY 1, 2
    ) l;
    IF v_phones IS NOT NULL THEN
        PERFORM FROM _wa_resolve_contacts(p_org, v_phones, v_user_ids, 'status', v_ats);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_learn_recipients(uuid, bigint[]) IS
'Internal: joins the numbers and user ids that statuses name together.';
