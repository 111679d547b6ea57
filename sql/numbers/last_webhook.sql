-- When a number's webhooks last arrived: their silence about a message tells something only while they do.

-- Not at every webhook: who reads it asks in minutes.
CREATE OR REPLACE FUNCTION _wa_note_webhooks(p_org uuid, p_number_ids bigint[], p_at timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers n SET last_webhook_at = p_at
    WHERE n.organization_id = p_org AND n.id = ANY (p_number_ids)
        AND (n.last_webhook_at IS NULL OR n.last_webhook_at < p_at - interval '10 seconds')
$$;

COMMENT ON FUNCTION _wa_note_webhooks(uuid, bigint[], timestamptz) IS
'Internal: notes that webhooks of numbers arrived.';
