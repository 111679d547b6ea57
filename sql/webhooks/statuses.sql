-- Statuses: what a status webhook says, handed to the ledger, and what follows from it.

-- Comes before everything else of a batch: it locks queue rows, and whoever records an answer locks those
-- first too, conversations after.
CREATE OR REPLACE FUNCTION _wa_settle_callbacks(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_callback record;
BEGIN
    -- Before the send's answer was recorded, our callback data coming back is what tells the message. Mostly it
    -- was: the look-up is cheap and comes first.
    SELECT array_agg(c.parts[1]::uuid) AS queue_ids, array_agg(c.parts[2]::integer) AS attempts,
        array_agg(u.payload ->> 'id') AS wamids
    INTO v_callback
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
    PERFORM _wa_hold_for_delivery(
        p_org, _wa_settle_from_callback(p_org, v_callback.queue_ids, v_callback.attempts, v_callback.wamids),
        clock_timestamp()
    );
END
$$;

COMMENT ON FUNCTION _wa_settle_callbacks(uuid, _wa_webhook_atoms[]) IS
'Internal: settles the queued messages whose callback data statuses bring back.';

CREATE OR REPLACE FUNCTION _wa_apply_statuses(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_taken record;
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a WHERE num_nulls(a.payload ->> 'id', a.payload ->> 'status') > 0
    ) THEN
        PERFORM _wa_refuse_atoms(p_atoms, 'the status has no id or no state');
    END IF;
    v_taken := _wa_record_statuses(p_org, ARRAY(
        SELECT ROW(
            a.payload ->> 'id',
            CASE a.kind WHEN 'status' THEN a.payload ->> 'status' ELSE lower(a.payload ->> 'status') END,
            coalesce(a.payload ->> 'recipient_participant_id', a.payload ->> 'recipient_participant_user_id',
                ''),
            a.at, a.received_at, a.payload ->> 'recipient_id', a.payload ->> 'recipient_user_id',
            CASE WHEN e.error ->> 'code' ~ '^[0-9]{1,9}$' THEN (e.error ->> 'code')::integer END,
            e.error ->> 'title', coalesce(e.error #>> '{error_data,details}', e.error ->> 'message'),
            a.payload -> 'pricing', a.payload -> 'conversation',
            a.payload - ARRAY['id', 'status', 'timestamp', 'recipient_id', 'recipient_user_id', 'pricing',
            'conversation']
        )::_wa_told_statuses
        FROM unnest(p_atoms) a
        CROSS JOIN LATERAL (SELECT a.payload #> '{errors,0}' AS error) e
    ));
    PERFORM _wa_follow_statuses(p_org, v_taken.status_ids, v_taken.message_ids);
END
$$;

COMMENT ON FUNCTION _wa_apply_statuses(uuid, _wa_webhook_atoms[]) IS
'Internal: records statuses and has done what follows from them.';

CREATE OR REPLACE FUNCTION _wa_attach_orphan_statuses(p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '100ms'
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
        CONTINUE WHEN v_found.organization_id = ANY (_wa_locked_out('webhook'));
        BEGIN
            PERFORM _wa_take_early_statuses(v_found.organization_id, v_found.ids);
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(v_found.organization_id, 'webhook', '', SQLSTATE, SQLERRM);
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_attach_orphan_statuses(timestamptz) IS
'Internal: attaches statuses of the last minutes whose message was recorded at the same moment.';
