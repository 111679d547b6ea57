-- What installations hold since 0.2.0, to be run after rows.sql.
SELECT ingest_wa_webhook(convert_to('{
    "object": "whatsapp_business_account",
    "entry": [{"id": "102290129340398", "changes": [{"field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15551230001", "phone_number_id": "106540352242922"},
        "contacts": [{"profile": {"name": "Ada"}, "wa_id": "15551234567"}],
        "messages": [{"from": "15551234567", "id": "wamid.file", "timestamp": "1760000000", "type": "image",
                      "image": {"id": "M1", "mime_type": "image/jpeg"}}]
    }}]}]
}', 'UTF8'));
SELECT process_wa_webhooks();
SELECT store_wa_media(organization_id, id, '\x00ff00') FROM wa_media;
SELECT open_wa_media(l.id, l.token) FROM wa_media m CROSS JOIN create_wa_media_signature(m.id) l;
INSERT INTO wa_automation_flows (phone_e164, flow_type, status) VALUES
('+15551234567', 'welcome', 'active'), ('+15551234567', 'welcome', 'cancelled');
WITH t AS (INSERT INTO siren_templates (name) VALUES ('WHATSAPP_REMINDER') RETURNING id)
INSERT INTO siren_events (template_id, phone_e164, status) SELECT t.id, '+15551234567', 'sent' FROM t;
INSERT INTO timeline_entries (event_type, content) VALUES ('SYSTEM', '{"action": "LEAD_CREATED"}');
INSERT INTO wa_broadcast_lists (name) VALUES ('regulars');
SELECT add_wa_broadcast_members('regulars', ARRAY['+15551234567']);
SELECT install_wa_pack('profiles'), install_wa_pack('events');
INSERT INTO profiles (role_id, full_name) VALUES ('admin', 'Ada');
INSERT INTO ai_events (name, start_date) VALUES ('Meeting', '2030-01-01');
