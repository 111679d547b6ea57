-- Deleting old messages without losing their figures: roll-ups are the history that stays.

-- What is behind the horizon is never read from the ledger again, so marks there mean nothing. The answers of
-- its first day depend on messages that go; they are rolled up before, and stay as well.
CREATE OR REPLACE FUNCTION _wa_delete_messages_before(
    p_org uuid, p_before timestamptz, p_limit integer
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_horizon timestamptz := _wa_quarter(p_before);
BEGIN
    IF p_before IS NULL OR p_before > clock_timestamp() - interval '2 days' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('messages since %s cannot be deleted yet', coalesce(p_before::text, 'NULL')),
            DETAIL = 'Windows, answers and late statuses of the last two days need them.',
            HINT = 'Give a time at least two days ago.';
    END IF;
    PERFORM _wa_lock_rollups();
    INSERT INTO wa_rollup_horizons AS h (organization_id, forgotten_before) VALUES (p_org, '-infinity')
    ON CONFLICT (organization_id) DO NOTHING;
    IF EXISTS (
        SELECT FROM wa_rollup_horizons h WHERE h.organization_id = p_org AND h.forgotten_before < v_horizon
    ) THEN
        WHILE _wa_roll_up(p_org, v_horizon + interval '24 hours', 2000) > 0 LOOP
            NULL;
        END LOOP;
        UPDATE wa_rollup_horizons h SET forgotten_before = v_horizon WHERE h.organization_id = p_org;
    END IF;
    RETURN _wa_delete_ledger_before(p_org, v_horizon, p_limit);
END
$$;

COMMENT ON FUNCTION _wa_delete_messages_before(uuid, timestamptz, integer) IS
'Internal: delete_wa_messages_before() for one organization.';

CREATE OR REPLACE FUNCTION delete_wa_messages_before(
    p_before timestamptz, p_limit integer DEFAULT 10000
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN _wa_delete_messages_before(_wa_caller_organization(), p_before, p_limit);
END
$$;

COMMENT ON FUNCTION delete_wa_messages_before(timestamptz, integer) IS
'Deletes the organization''s oldest messages and their statuses, those of whole quarter hours before a time '
'and at most so many at once; returns how many. The figures of the analytics views stay as they are; a plain '
'DELETE lowers them. A status that comes for one of that time afterwards changes no figure.';

CREATE OR REPLACE FUNCTION _wa_delete_messages(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_expired record;
    v_rows integer := 0;
BEGIN
    FOR v_expired IN
        SELECT o.id, p_now - o.message_retention AS before
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT m.created_at FROM wa_messages m WHERE m.organization_id = o.id ORDER BY m.id LIMIT 1
        ) m
        WHERE m.created_at < _wa_quarter(p_now - o.message_retention)
        ORDER BY o.id
    LOOP
        EXIT WHEN v_rows >= p_limit;
        v_rows := v_rows + _wa_delete_messages_before(v_expired.id, v_expired.before, p_limit - v_rows);
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_messages(timestamptz, integer) IS
'Internal: deletes messages that are older than their organization keeps them; their figures stay.';
