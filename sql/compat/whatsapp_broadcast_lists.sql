-- whatsapp_broadcast_lists over wa_broadcast_lists.

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
'wa_broadcast_lists under another name; lists may be made and renamed here too. '
'add_wa_broadcast_members() puts people on one, delete_wa_broadcast_list() deletes one.';
