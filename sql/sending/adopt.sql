-- This database sends from now on, in place of the one it was copied from.

CREATE OR REPLACE FUNCTION adopt_wa_database(p_pending text DEFAULT 'fail')
RETURNS TABLE (action text, messages bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_pending NOT IN ('fail', 'keep') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('p_pending must be fail or keep, not "%s"', p_pending),
            DETAIL = 'It says what becomes of messages that were queued when this copy was taken.',
            HINT = 'keep is right only when the original stopped sending before this copy was taken.';
    END IF;
    IF NOT _wa_record_installation() THEN
        action := 'nothing to do: this database is the one that sends';
        messages := 0;
        RETURN NEXT;
        RETURN;
    END IF;

    -- Those of the original: here none of them lives.
    UPDATE wa_dispatchers SET stopped_at = clock_timestamp() WHERE stopped_at IS NULL;

    -- What was being sent: callback data may still settle it here; else it fails as outcome_unknown.
    action := 'in flight when copied: outcome unknown';
    messages := _wa_doubt_all();
    RETURN NEXT;

    -- What was waiting may have been sent by the original since: sending it again is for a person to decide.
    IF p_pending = 'fail' THEN
        PERFORM _wa_fail_messages(
            d.organization_id, array_agg(d.queue_id), 'in_doubt',
            'queued before this database took over; the original may have sent it'
        )
        FROM wa_queue_due d WHERE d.due_at <= clock_timestamp() OR d.hold_reason IS NOT NULL
        GROUP BY d.organization_id;
        SELECT count(*) INTO messages FROM wa_outbound_queue q
        WHERE q.error_code = 'in_doubt' AND q.processed_at >= now();
        action := 'due when adopted: failed as in_doubt, retry_wa_messages() sends them';
        RETURN NEXT;
    END IF;
END
$$;

COMMENT ON FUNCTION adopt_wa_database(text) IS
'Makes this database the one that sends, after a restore, clone or promotion, and marks what the original '
'may have sent: rows in flight become outcome unknown, rows that are due fail as in_doubt (or stay pending '
'with ''keep'').';
