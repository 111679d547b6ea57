-- whatsapp_config: the organization's default number; inserting registers the first one.

-- Definer: an application may know that a token is set, and not read wa_secrets for it.
CREATE OR REPLACE FUNCTION _wa_secret_mark(p_organization_id uuid, p_name text, p_phone_number_id text)
RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT 'sealed:' || s.fingerprint FROM wa_secrets s
    WHERE s.organization_id = p_organization_id
        AND s.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
        AND s.name = p_name AND s.is_active
        AND (s.phone_number_id = p_phone_number_id OR s.phone_number_id IS NULL)
    ORDER BY s.phone_number_id NULLS LAST, s.created_at DESC
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_secret_mark(uuid, text, text) IS
'Internal: the fingerprint of the secret that a number of the caller''s organization uses; NULL when none is '
'stored.';

CREATE OR REPLACE FUNCTION _wa_number_state(
    p_status text, p_pause_scope text, p_paused_until timestamptz
) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN p_pause_scope IS NOT NULL AND coalesce(p_paused_until > clock_timestamp(), true) THEN 'paused'
    WHEN p_status = 'CONNECTED' THEN 'active'
    ELSE lower(p_status)
END;

COMMENT ON FUNCTION _wa_number_state(text, text, timestamptz) IS
'Internal: active when a number may send, else paused or the provider''s state in small letters.';

CREATE OR REPLACE VIEW whatsapp_config WITH (security_invoker = true) AS
SELECT
    _wa_row_uuid(n.organization_id, n.id) AS id, n.organization_id AS user_id, n.phone_number_id,
    n.waba_id AS business_account_id,
    _wa_secret_mark(n.organization_id, 'access_token', n.phone_number_id) AS access_token_encrypted,
    _wa_secret_mark(n.organization_id, 'verify_token', n.phone_number_id) AS webhook_verify_token,
    _wa_number_state(n.status, n.pause_scope, n.paused_until) AS status,
    'tier_' || coalesce(p.tier_limit::text, CASE WHEN p.messaging_limit IS NOT NULL THEN 'unlimited' END)
    AS rate_limit_tier,
    n.created_at
FROM wa_organizations o
JOIN wa_phone_numbers n ON n.organization_id = o.id AND n.id = o.default_number_id
JOIN wa_portfolios p ON p.organization_id = n.organization_id AND p.portfolio_id = n.portfolio_id;

ALTER VIEW whatsapp_config ALTER COLUMN user_id SET DEFAULT current_wa_organization();
ALTER VIEW whatsapp_config ALTER COLUMN status SET DEFAULT 'active';
ALTER VIEW whatsapp_config ALTER COLUMN rate_limit_tier SET DEFAULT 'tier_1000';
ALTER VIEW whatsapp_config ALTER COLUMN created_at SET DEFAULT now();

COMMENT ON VIEW whatsapp_config IS
'The default business number of each organization. Inserting registers the first number.';
COMMENT ON COLUMN whatsapp_config.user_id IS 'The organization.';
COMMENT ON COLUMN whatsapp_config.access_token_encrypted IS
'A fingerprint of the stored token; the token itself never comes out. bin/wa secrets set access_token '
'stores it.';
COMMENT ON COLUMN whatsapp_config.webhook_verify_token IS
'A fingerprint of the stored token; bin/wa secrets set verify_token stores it.';
COMMENT ON COLUMN whatsapp_config.status IS 'active, paused, or the provider''s state of the number.';
COMMENT ON COLUMN whatsapp_config.rate_limit_tier IS
'tier_ and the number of recipients in 24 hours, as Meta told it; NULL while it is not known.';

CREATE OR REPLACE FUNCTION tg_whatsapp_config__register() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_token record;
BEGIN
    PERFORM _wa_require_columns('whatsapp_config', to_jsonb(NEW), 'user_id', 'phone_number_id',
        'business_account_id');
    PERFORM _wa_require_value('whatsapp_config', 'status', NEW.status, 'active');
    PERFORM _wa_require_value('whatsapp_config', 'rate_limit_tier', NEW.rate_limit_tier, 'tier_250',
        'tier_1000', 'tier_2000', 'tier_10000', 'tier_100000', 'tier_unlimited');
    IF NEW.user_id <> current_wa_organization() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', TABLE = 'whatsapp_config',
            MESSAGE = 'user_id is not the organization that you work for',
            DETAIL = format('user_id is %s, you work for %s.', NEW.user_id, current_wa_organization()),
            HINT = 'SET wa.organization_id to it; create_wa_organization(name, id) makes one with your own id.';
    END IF;
    FOR v_token IN
        SELECT t.* FROM (VALUES
            ('access_token_encrypted', 'access_token', NEW.access_token_encrypted),
            ('webhook_verify_token', 'verify_token', NEW.webhook_verify_token)
        ) t (column_name, name, given)
        WHERE t.given IS DISTINCT FROM _wa_secret_mark(NEW.user_id, t.name, NEW.phone_number_id)
            AND t.given IS NOT NULL
    LOOP
        RAISE EXCEPTION USING ERRCODE = 'WA502', TABLE = 'whatsapp_config', COLUMN = v_token.column_name,
            MESSAGE = format('%s was not sealed by our key and is not stored', v_token.column_name),
            DETAIL = 'Only the fingerprint of a stored secret may be written here, which changes nothing.',
            HINT = format('Leave it out; store it with: bin/wa secrets set %s --number %s', v_token.name,
                NEW.phone_number_id);
    END LOOP;
    -- Two inserts at once: the second waits and finds the number of the first.
    PERFORM FROM wa_organizations o WHERE o.id = NEW.user_id FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM whatsapp_config c WHERE c.user_id = NEW.user_id) THEN
        RAISE EXCEPTION USING ERRCODE = '23505', TABLE = 'whatsapp_config',
            CONSTRAINT = 'whatsapp_config_user_id_key',
            MESSAGE = format('organization %s has its configuration', NEW.user_id),
            DETAIL = (
                SELECT format('Its default number is %s.', c.phone_number_id) FROM whatsapp_config c
                WHERE c.user_id = NEW.user_id
            ),
            HINT = 'register_wa_phone_number() adds numbers and changes them; whatsapp_configurations shows all.';
    END IF;
    PERFORM register_wa_phone_number(NEW.phone_number_id, '', NEW.business_account_id);
    PERFORM _wa_expect_messaging_limit(
        NEW.user_id, NEW.business_account_id,
        'TIER_' || upper(regexp_replace(substr(NEW.rate_limit_tier, 6), '000$', 'K'))
    );
    SELECT c.* INTO NEW FROM whatsapp_config c WHERE c.user_id = NEW.user_id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_config__register() IS
'Registers the first number of an organization. Tokens are not taken here, only recognised (WA502).';

CREATE OR REPLACE TRIGGER register INSTEAD OF INSERT ON whatsapp_config
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_config__register();
