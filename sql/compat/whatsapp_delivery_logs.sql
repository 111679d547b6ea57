-- whatsapp_delivery_logs over wa_message_statuses.

CREATE OR REPLACE VIEW whatsapp_delivery_logs WITH (security_invoker = true) AS
SELECT
    _wa_row_uuid(s.organization_id, s.id) AS id, m.queue_id, s.status, s.occurred_at AS "timestamp",
    s.wa_message_id AS meta_message_id, s.error_code::text AS error_code, s.error_message
FROM wa_message_statuses s
LEFT JOIN wa_messages m ON m.organization_id = s.organization_id AND m.wa_message_id = s.wa_message_id;

COMMENT ON VIEW whatsapp_delivery_logs IS
'wa_message_statuses under another name: every status that the provider reported of a message.';
COMMENT ON COLUMN whatsapp_delivery_logs.queue_id IS
'Row of whatsapp_queue; NULL for a message that did not come from it.';
COMMENT ON COLUMN whatsapp_delivery_logs.status IS
'sent, delivered, read or failed, and what else Meta reports.';
