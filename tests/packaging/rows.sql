-- A little of everything that an installation holds, by way of its public functions.
SELECT register_wa_phone_number('106540352242922', '+1 555 123 0001', '102290129340398');
INSERT INTO wa_templates (name, language, category, status, components)
VALUES ('order_ready', 'en_US', 'UTILITY', 'APPROVED', '[{"type": "BODY", "text": "Order {{1}} is ready."}]');
INSERT INTO wa_outbound_queue (phone, template_name, template_params)
VALUES ('+15551234567', 'order_ready', '["A-17"]'), ('+541123456789', 'order_ready', '["A-18"]');
SELECT opt_out_wa_contact('+15557654321');
SELECT trigger_wa_panic('a drill');
UPDATE wa_error_rules SET action = 'retry', max_retries = 2 WHERE code = 100;
SELECT ingest_wa_webhook(convert_to('{
    "object": "whatsapp_business_account",
    "entry": [{"id": "102290129340398", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15551230001", "phone_number_id": "106540352242922"},
        "contacts": [{"profile": {"name": "Ada"}, "wa_id": "15551234567"}],
        "messages": [{"from": "15551234567", "id": "wamid.packaging", "timestamp": "1760000000", "type": "text",
                      "text": {"body": "When can I collect it?"}}]
    }}]}]
}', 'UTF8'));
SELECT process_wa_webhooks();
