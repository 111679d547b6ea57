-- Messages, conversations, consent and audit under other names, with words in capitals.

CREATE OR REPLACE VIEW whatsapp_messages WITH (security_invoker = true) AS
SELECT
    m.id, m.organization_id AS tenant_id, w.id AS conversation_id, upper(m.direction) AS direction,
    upper(m.message_type) AS message_type, m.content_text AS text, m.content, m.template_name,
    upper(m.state) AS status, m.phone_e164 AS phone_number, m.wa_message_id AS whatsapp_message_id,
    CASE m.direction WHEN 'inbound' THEN m.provider_at ELSE m.sent_at END AS sent_at, m.delivered_at,
    m.read_at, m.failed_at, m.error_message, m.created_at
FROM wa_messages m
LEFT JOIN wa_conversation_windows w ON w.organization_id = m.organization_id
    AND w.contact_id = m.contact_id AND w.number_id = m.number_id;

COMMENT ON VIEW whatsapp_messages IS
'wa_messages under another name: direction INBOUND or OUTBOUND, status in capitals.';
COMMENT ON COLUMN whatsapp_messages.status IS
'QUEUED, ACCEPTED, HELD, SENT, DELIVERED, READ, PLAYED, FAILED; RECEIVED for inbound messages.';
COMMENT ON COLUMN whatsapp_messages.sent_at IS
'When the provider sent it, or when the customer did; NULL for what never went out.';

CREATE OR REPLACE VIEW whatsapp_conversations WITH (security_invoker = true) AS
SELECT
    c.id, c.organization_id AS tenant_id, c.phone_e164 AS phone_number, c.phone_number_id, c.customer_name,
    upper(c.state) AS state, c.state_changed_at, c.opened_at AS started_at, c.last_customer_message_at,
    c.last_business_message_at,
    greatest(c.last_customer_message_at, c.last_business_message_at) AS last_message_at,
    c.window_expires_at AS expires_at, c.unread_count, c.created_at, c.updated_at
FROM wa_conversations c;

COMMENT ON VIEW whatsapp_conversations IS
'wa_conversations under another name. state may be changed here: ACTIVE, WAITING, COMPLETED, EXPIRED.';
COMMENT ON COLUMN whatsapp_conversations.expires_at IS 'End of the 24-hour window.';

CREATE OR REPLACE FUNCTION tg_whatsapp_conversations__set_state() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_columns('whatsapp_conversations', to_jsonb(NEW), 'state');
    PERFORM _wa_require_value('whatsapp_conversations', 'state', upper(NEW.state), 'ACTIVE', 'WAITING',
        'COMPLETED', 'EXPIRED');
    PERFORM _wa_refuse_changes('whatsapp_conversations', to_jsonb(OLD), to_jsonb(NEW),
        'Only state is set by hand; the rest follows from the messages.', 'state');
    UPDATE wa_conversation_windows w SET state = lower(NEW.state)
    WHERE w.organization_id = OLD.tenant_id AND w.id = OLD.id;
    SELECT v.* INTO NEW FROM whatsapp_conversations v WHERE v.tenant_id = OLD.tenant_id AND v.id = OLD.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_conversations__set_state() IS
'Changes the state of a conversation; one that may not follow is refused (WA203).';

CREATE OR REPLACE TRIGGER set_state INSTEAD OF UPDATE ON whatsapp_conversations
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_conversations__set_state();

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

-- Simple enough for PostgreSQL to write through it without a trigger.
CREATE OR REPLACE VIEW whatsapp_audit_logs WITH (security_invoker = true) AS
SELECT
    a.id, a.organization_id AS tenant_id, a.actor, a.event AS action, a.entity AS entity_type, a.entity_id,
    a.meta AS details, a.created_at
FROM audit_log a;

COMMENT ON VIEW whatsapp_audit_logs IS 'audit_log under another name; rows may be added.';

REVOKE ALL ON FUNCTION tg_whatsapp_conversations__set_state(), tg_whatsapp_opt_ins__opt_in() FROM PUBLIC;
GRANT SELECT ON whatsapp_messages, whatsapp_conversations, whatsapp_opt_ins, whatsapp_audit_logs
TO wa_app, wa_admin;
GRANT UPDATE ON whatsapp_conversations TO wa_app, wa_admin;
GRANT INSERT ON whatsapp_opt_ins, whatsapp_audit_logs TO wa_app, wa_admin;
