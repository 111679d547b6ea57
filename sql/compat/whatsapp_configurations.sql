-- whatsapp_configurations over wa_phone_numbers: all business numbers.

CREATE OR REPLACE VIEW whatsapp_configurations WITH (security_invoker = true) AS
SELECT
    _wa_row_uuid(n.organization_id, n.id) AS id, n.organization_id AS tenant_id, n.provider,
    nullif(n.display_phone, '') AS phone_number, n.phone_number_id, n.waba_id AS business_account_id,
    _wa_number_state(n.status, n.pause_scope, n.paused_until) = 'active' AS is_active,
    n.id = o.default_number_id AS is_default, n.quality_rating,
    p.messaging_limit, n.created_at, n.updated_at
FROM wa_phone_numbers n
JOIN wa_organizations o ON o.id = n.organization_id
JOIN wa_portfolios p ON p.organization_id = n.organization_id AND p.portfolio_id = n.portfolio_id;

COMMENT ON VIEW whatsapp_configurations IS
'wa_phone_numbers under another name: every business number of the organization.';
