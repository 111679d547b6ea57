-- whatsapp_analytics over the roll-ups of the ledger.

-- Of numbers alone, so that analysts may read it; hence with the owner's rights and a filter of its own. From
-- the roll-ups: they are cheap to read and outlive queue and ledger.
CREATE OR REPLACE VIEW whatsapp_analytics WITH (security_barrier = true) AS
SELECT
    f.day AS "date", f.organization_id AS user_id, sum(f.queued)::bigint AS total_sent,
    coalesce(sum(f.queued) FILTER (WHERE f.status = 'sent'), 0)::bigint AS successful,
    coalesce(sum(f.queued) FILTER (WHERE f.status = 'failed'), 0)::bigint AS failed,
    extract(EPOCH FROM sum(f.queue_time)) / sum(f.queued) AS avg_queue_time_seconds
FROM _wa_message_figures f
WHERE f.direction = 'outbound' AND f.queued > 0
    AND f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY f.day, f.organization_id;

COMMENT ON VIEW whatsapp_analytics IS
'Queued messages that the provider took, by the day in the organization''s time zone: how many, how many of '
'them were reported as failed later, and how long they had waited.';
