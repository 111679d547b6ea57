-- What is done about an error inside: what it means, where it is kept; and the locks that nobody else has.

-- Failures of the moment or of the server (transaction state, serialization, resources, cancels, I/O) are not
-- the fault of a row: the whole call is tried again. A lock that was not had in time (55P03) is its owner's.
CREATE OR REPLACE FUNCTION _wa_is_passing_error(p_sqlstate text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(p_sqlstate, 2) IN ('25', '40', '53', '55', '57', '58') AND p_sqlstate <> '55P03';

COMMENT ON FUNCTION _wa_is_passing_error(text) IS
'Internal: whether an error has nothing to do with the row or the organization whose work met it.';

CREATE OR REPLACE FUNCTION _wa_note_fault(
    p_org uuid, p_work text, p_subject text, p_sqlstate text, p_error text
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_faults AS f (organization_id, work, subject, sqlstate, error)
    VALUES (p_org, p_work, p_subject, p_sqlstate, left(p_error, 1000))
    ON CONFLICT (organization_id, work, subject) DO UPDATE SET
        sqlstate = excluded.sqlstate, error = excluded.error, last_at = excluded.last_at,
        first_at = CASE WHEN f.last_at < excluded.last_at - interval '1 minute' THEN excluded.first_at
            ELSE f.first_at END,
        times = CASE WHEN f.last_at < excluded.last_at - interval '1 minute' THEN 1
            ELSE least(f.times, 1000000) + 1 END
    RETURNING times
$$;

COMMENT ON FUNCTION _wa_note_fault(uuid, text, text, text, text) IS
'Internal: keeps an error that was caught; returns how often it has come in a row.';

-- A lock of a tenant's costs its neighbours the wait for it, once in five seconds.
CREATE OR REPLACE FUNCTION _wa_locked_out(p_work text) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN ARRAY(
        SELECT f.organization_id FROM wa_faults f
        WHERE f.last_at BETWEEN clock_timestamp() - interval '5 seconds' AND clock_timestamp()
            AND f.last_at > clock_timestamp() - interval '1 second' * f.times
            AND f.work = p_work AND f.subject = '' AND f.sqlstate = '55P03'
    );
END
$$;

COMMENT ON FUNCTION _wa_locked_out(text) IS
'Internal: organizations whose work has just waited for a lock in vain: more of it does not wait for now, a '
'second after the first time, five at most.';

-- Those are waited for hardly: their neighbours would pay for each wait.
CREATE OR REPLACE FUNCTION _wa_known_lockers(p_work text) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN ARRAY(
        SELECT f.organization_id FROM wa_faults f
        WHERE f.last_at > clock_timestamp() - interval '1 minute'
            AND f.work = p_work AND f.subject = '' AND f.sqlstate = '55P03'
    );
END
$$;

COMMENT ON FUNCTION _wa_known_lockers(text) IS
'Internal: organizations whose work has waited for a lock in vain within the last minute.';

CREATE OR REPLACE FUNCTION _wa_delete_faults(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_faults f
    USING (
        SELECT x.organization_id, x.work, x.subject FROM wa_faults x
        WHERE x.last_at < p_now - interval '7 days' ORDER BY x.last_at LIMIT p_limit
    ) e
    WHERE f.organization_id = e.organization_id AND f.work = e.work AND f.subject = e.subject;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_faults(timestamptz, integer) IS
'Internal: forgets what has not failed for a week.';

CREATE OR REPLACE FUNCTION _wa_lock(p_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM FROM wa_locks l WHERE l.name = p_name FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO wa_locks (name) VALUES (p_name) ON CONFLICT DO NOTHING;
        PERFORM FROM wa_locks l WHERE l.name = p_name FOR UPDATE;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_lock(text) IS
'Internal: waits until nobody else does what goes by this name, and keeps others from it until the end of '
'the transaction. No role but the owner''s reaches the row.';

CREATE OR REPLACE FUNCTION _wa_try_lock(p_name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM FROM wa_locks l WHERE l.name = p_name FOR UPDATE SKIP LOCKED;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION _wa_try_lock(text) IS
'Internal: as _wa_lock(), but false instead of waiting; for a name that has its row from the start.';
