-- whatsapp_messages over the ledger, with words in capitals.

CREATE OR REPLACE VIEW whatsapp_messages WITH (security_invoker = true) AS
SELECT
    m.id, m.organization_id AS tenant_id, w.id AS conversation_id, upper(m.direction) AS direction,
    upper(m.message_type) AS message_type, m.content_text AS text, m.content, m.template_name,
    upper(m.state) AS status, m.phone_e164 AS phone_number, m.wa_message_id AS whatsapp_message_id,
    CASE m.direction WHEN 'inbound' THEN m.provider_at ELSE m.sent_at END AS sent_at, m.delivered_at,
    m.read_at, m.failed_at, m.error_message, m.created_at
FROM wa_messages m
LEFT JOIN wa_conversation_windows w ON w.organization_id = m.organization_id
    AND w.contact_id = m.contact_id AND w.number_id = m.number_id;

COMMENT ON VIEW whatsapp_messages IS
'wa_messages under another name: direction INBOUND or OUTBOUND, status in capitals.';
COMMENT ON COLUMN whatsapp_messages.status IS
'QUEUED, ACCEPTED, HELD, SENT, DELIVERED, READ, PLAYED, FAILED; RECEIVED for inbound messages.';
COMMENT ON COLUMN whatsapp_messages.sent_at IS
'When the provider sent it, or when the customer did; NULL for what never went out.';
