-- The order in which rooms delete what is old, by the job only. Each call deletes at most p_limit rows of a
-- table, the oldest first, so that transactions stay short; the job comes again while something is left.
-- Opt-ins and opt-outs are kept for good.

-- Queue rows first: some are found by their message.
CREATE OR REPLACE FUNCTION run_wa_retention(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_delete_queue_rows(n.at, p_limit) + _wa_delete_statuses(n.at, p_limit)
        + _wa_delete_event_deliveries(n.at, p_limit)
        + _wa_delete_events(n.at, p_limit) + _wa_delete_messages(n.at, p_limit)
        + _wa_delete_webhook_logs(n.at, p_limit) + _wa_delete_audit(n.at, p_limit)
        + _wa_delete_account_events(n.at, p_limit) + _wa_delete_faults(n.at, p_limit)
        + _wa_delete_idempotent_requests(n.at, p_limit)
    FROM (SELECT clock_timestamp()) n (at)
$$;

COMMENT ON FUNCTION run_wa_retention(integer) IS
'Deletes what is older than the organizations and the installation keep it, at most so many rows of each '
'table, the oldest first; returns how many. Opt-ins and opt-outs are kept for good. The job "retention" '
'calls it.';
