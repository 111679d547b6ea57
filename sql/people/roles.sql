-- Who may do what. Permissions are words: those of the HTTP API's scopes, and those of the work itself, which
-- mean what applications make of them.

CREATE OR REPLACE FUNCTION _wa_default_permissions() RETURNS TABLE (role text, permission text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT r.role, p.permission
    FROM (
        VALUES
        ('customer', '{enquire,check_status,pay}'::text[]),
        ('sales', '{create_leads,send_quotes,convert_bookings,send,read,media}'),
        ('operations', '{manage_inventory,assign_staff,broadcast,send,read,media,templates,metrics}'),
        ('field_staff', '{check_in,report_issues,upload_media,read,media}'),
        ('manager', '{enquire,check_status,pay,create_leads,send_quotes,convert_bookings,manage_inventory,'
            'assign_staff,broadcast,check_in,report_issues,upload_media,approve,send,read,media,templates,'
            'metrics,admin}')
    ) r (role, permissions)
    CROSS JOIN LATERAL unnest(r.permissions) p (permission);
END;

COMMENT ON FUNCTION _wa_default_permissions() IS
'Internal: what each role may do in an organization that says nothing else.';

CREATE OR REPLACE VIEW wa_role_permissions WITH (security_invoker = true) AS
SELECT o.id AS organization_id, k.role, k.permission,
    coalesce(x.is_allowed, d.role IS NOT NULL) AS is_allowed, d.role IS NOT NULL AS is_default
FROM wa_organizations o
CROSS JOIN LATERAL (
    SELECT p.role, p.permission FROM _wa_default_permissions() p
    UNION
    SELECT v.role, v.permission FROM wa_role_overrides v WHERE v.organization_id = o.id
) k
LEFT JOIN _wa_default_permissions() d ON d.role = k.role AND d.permission = k.permission
LEFT JOIN wa_role_overrides x ON x.organization_id = o.id AND x.role = k.role AND x.permission = k.permission;

COMMENT ON VIEW wa_role_permissions IS
'What each role may do: the defaults, and what the organization says otherwise.';

CREATE OR REPLACE FUNCTION set_wa_role_permission(p_role text, p_permission text, p_is_allowed boolean)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_was boolean;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'admin');
    IF p_is_allowed IS NULL OR coalesce(p_role, '') !~ '^[a-z][a-z0-9_]{0,49}$'
        OR coalesce(p_permission, '') !~ '^[a-z][a-z0-9_]{0,49}$'
    THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a role and a permission are words of small letters, digits and _',
            DETAIL = format('The role is %s, the permission %s.', quote_nullable(left(p_role, 100)),
                quote_nullable(left(p_permission, 100))),
            HINT = 'SELECT role, permission FROM wa_role_permissions; a new role is made by its first permission.';
    END IF;
    v_was := _wa_role_may(v_org, p_role, p_permission);
    -- What is said as the defaults say it is said by them.
    IF EXISTS (
        SELECT FROM _wa_default_permissions() d WHERE d.role = p_role AND d.permission = p_permission
    ) = p_is_allowed THEN
        DELETE FROM wa_role_overrides x
        WHERE x.organization_id = v_org AND x.role = p_role AND x.permission = p_permission;
    ELSE
        INSERT INTO wa_role_overrides AS x (organization_id, role, permission, is_allowed)
        VALUES (v_org, p_role, p_permission, p_is_allowed)
        ON CONFLICT (organization_id, role, permission) DO UPDATE SET is_allowed = excluded.is_allowed
        WHERE x.is_allowed <> excluded.is_allowed;
    END IF;
    RETURN v_was <> p_is_allowed;
END
$$;

COMMENT ON FUNCTION set_wa_role_permission(text, text, boolean) IS
'Permits a role of the caller''s organization something, or does not. True where that is another answer than '
'before. A role that was not there is made so. For a wa_admin.';

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_role_overrides
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('role permission');

CREATE OR REPLACE FUNCTION _wa_role_may(p_org uuid, p_role text, p_permission text) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(
    (
        SELECT x.is_allowed FROM wa_role_overrides x
        WHERE x.organization_id = p_org AND x.role = p_role AND x.permission = p_permission
    ),
    EXISTS (SELECT FROM _wa_default_permissions() d WHERE d.role = p_role AND d.permission = p_permission)
);

COMMENT ON FUNCTION _wa_role_may(uuid, text, text) IS
'Internal: whether an organization permits a role something.';
