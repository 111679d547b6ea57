-- whatsapp_audit_logs over audit_log.

-- Simple enough for PostgreSQL to write through it without a trigger.
CREATE OR REPLACE VIEW whatsapp_audit_logs WITH (security_invoker = true) AS
SELECT
    a.id, a.organization_id AS tenant_id, a.actor, a.event AS action, a.entity AS entity_type, a.entity_id,
    a.meta AS details, a.created_at
FROM audit_log a;

COMMENT ON VIEW whatsapp_audit_logs IS 'audit_log under another name; rows may be added.';
