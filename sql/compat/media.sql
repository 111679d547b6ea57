-- Files and broadcast lists under other names.

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

-- Simple enough for PostgreSQL to write through it without a trigger.
CREATE OR REPLACE VIEW whatsapp_broadcast_lists WITH (security_invoker = true) AS
SELECT
    b.id, b.organization_id AS tenant_id, b.name, b.description,
    (
        SELECT count(*) FROM wa_broadcast_members m
        WHERE m.organization_id = b.organization_id AND m.list_id = b.id
    ) AS recipient_count,
    b.created_by, b.created_at, b.updated_at
FROM wa_broadcast_lists b;

COMMENT ON VIEW whatsapp_broadcast_lists IS
'wa_broadcast_lists under another name; lists may be made, renamed and deleted here too. '
'add_wa_broadcast_members() puts people on one.';

GRANT SELECT ON whatsapp_media TO wa_app, wa_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON whatsapp_broadcast_lists TO wa_app, wa_admin;
