-- The gate between producers and dispatchers. Awake dispatchers share the lock; one that sleeps needs it
-- alone, and gets it only when nobody is awake and no producer is between its INSERT and its COMMIT.
-- Producers try to share it until commit and NOTIFY only when refused: no wake-up is lost, and NOTIFY
-- serialises no commits while anyone is awake.

CREATE OR REPLACE FUNCTION _wa_gate() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 8247316640137322855::bigint;

COMMENT ON FUNCTION _wa_gate() IS
'Internal: key of the advisory lock that says whether a dispatcher is awake.';

CREATE OR REPLACE FUNCTION _wa_notify_dispatchers() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(_wa_gate()) THEN
        PERFORM pg_notify('wa_queue', '');
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_notify_dispatchers() IS
'Internal: wakes the dispatchers if all of them sleep; see _wa_gate().';
