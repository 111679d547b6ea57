-- When a number's webhooks last arrived: their silence about a message tells something only while they do.

-- Not at every webhook: who reads it asks in minutes.
CREATE OR REPLACE FUNCTION _wa_note_webhooks(p_org uuid, p_number_ids bigint[], p_at timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    -- Ten seconds more or less matter to nobody: a row that is locked is left alone.
    UPDATE wa_phone_numbers n SET last_webhook_at = p_at
    FROM (
        SELECT x.id FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.id = ANY (p_number_ids)
            AND (x.last_webhook_at IS NULL OR x.last_webhook_at < p_at - interval '10 seconds')
        FOR NO KEY UPDATE SKIP LOCKED
    ) f
    WHERE n.organization_id = p_org AND n.id = f.id
$$;

COMMENT ON FUNCTION _wa_note_webhooks(uuid, bigint[], timestamptz) IS
'Internal: notes that webhooks of numbers arrived.';
