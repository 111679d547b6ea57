-- whatsapp_conversations over wa_conversations; the state may be set here.

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
    PERFORM _wa_set_conversation_state(OLD.tenant_id, OLD.id, lower(NEW.state));
    SELECT v.* INTO NEW FROM whatsapp_conversations v WHERE v.tenant_id = OLD.tenant_id AND v.id = OLD.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_conversations__set_state() IS
'Changes the state of a conversation; one that may not follow is refused (WA203).';

CREATE OR REPLACE TRIGGER set_state INSTEAD OF UPDATE ON whatsapp_conversations
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_conversations__set_state();
