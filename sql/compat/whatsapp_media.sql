-- whatsapp_media over wa_media, with words in capitals.

CREATE OR REPLACE VIEW whatsapp_media WITH (security_invoker = true) AS
SELECT
    f.id, f.organization_id AS tenant_id, f.message_id, upper(f.direction) AS direction,
    upper(f.media_type) AS media_type, f.mime_type, f.filename AS file_name, f.file_size,
    encode(f.sha256, 'hex') AS sha256, f.provider_media_id, upper(f.status) AS status, f.stored_at,
    f.expires_at, f.created_at
FROM wa_media f;

COMMENT ON VIEW whatsapp_media IS
'wa_media under another name: files of messages, with words in capitals. create_wa_media_signature() gives a '
'link to one.';
