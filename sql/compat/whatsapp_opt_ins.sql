-- whatsapp_opt_ins over wa_opt_ins; inserting records consent.

CREATE OR REPLACE VIEW whatsapp_opt_ins WITH (security_invoker = true) AS
SELECT
    i.id, i.organization_id AS tenant_id, c.phone_e164 AS phone_number, i.scope, i.source, i.proof,
    i.opted_in_at,
    NOT EXISTS (
        SELECT FROM wa_opt_outs o
        WHERE o.organization_id = i.organization_id AND o.contact_id = i.contact_id AND o.revoked_at IS NULL
            AND o.scope IN ('all', i.scope)
    ) AS is_active
FROM wa_opt_ins i
JOIN wa_contacts c ON c.organization_id = i.organization_id AND c.id = i.contact_id;

ALTER VIEW whatsapp_opt_ins ALTER COLUMN tenant_id SET DEFAULT current_wa_organization();
ALTER VIEW whatsapp_opt_ins ALTER COLUMN scope SET DEFAULT 'marketing';
ALTER VIEW whatsapp_opt_ins ALTER COLUMN source SET DEFAULT 'admin';

COMMENT ON VIEW whatsapp_opt_ins IS
'wa_opt_ins under another name: proofs of consent. Inserting records one and lifts the opt-outs it covers.';
COMMENT ON COLUMN whatsapp_opt_ins.is_active IS 'False while an opt-out of the same customer is in force.';

CREATE OR REPLACE FUNCTION tg_whatsapp_opt_ins__opt_in() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_columns('whatsapp_opt_ins', to_jsonb(NEW), 'tenant_id', 'phone_number', 'scope',
        'source');
    IF NEW.tenant_id <> current_wa_organization() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', TABLE = 'whatsapp_opt_ins',
            MESSAGE = 'tenant_id is not the organization that you work for',
            DETAIL = format('tenant_id is %s, you work for %s.', NEW.tenant_id, current_wa_organization()),
            HINT = 'SET wa.organization_id chooses among those that you belong to.';
    END IF;
    PERFORM opt_in_wa_contact(NEW.phone_number, NEW.scope, NEW.source, NEW.proof);
    SELECT v.* INTO NEW FROM whatsapp_opt_ins v
    WHERE v.tenant_id = NEW.tenant_id AND v.id = (
        SELECT max(i.id) FROM wa_opt_ins i
        WHERE i.organization_id = NEW.tenant_id
            AND i.contact_id = _wa_find_contact(NEW.tenant_id, NEW.phone_number)
    );
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_opt_ins__opt_in() IS 'Records consent by opt_in_wa_contact().';

CREATE OR REPLACE TRIGGER opt_in INSTEAD OF INSERT ON whatsapp_opt_ins
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_opt_ins__opt_in();
