-- whatsapp_templates over wa_templates, with the columns of both ways of writing one.

CREATE OR REPLACE FUNCTION _wa_parameter_names(p_parameters jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_agg(coalesce(p.value -> 'name', p.value) ORDER BY p.place), '[]')
    FROM jsonb_array_elements(p_parameters) WITH ORDINALITY p (value, place);
END;

COMMENT ON FUNCTION _wa_parameter_names(jsonb) IS
'Internal: declared parameters as an array of their names.';

CREATE OR REPLACE VIEW whatsapp_templates WITH (security_invoker = true) AS
SELECT
    t.id, t.organization_id AS user_id, t.name AS template_name, t.language, t.category,
    t.approval_status AS status, t.body_text AS template_body, _wa_parameter_names(t.parameters) AS variables,
    t.provider_template_id AS meta_template_id, t.created_at,
    t.name, t.header_text AS header, t.body_text AS body, t.footer_text AS footer, t.buttons
FROM wa_templates t;

ALTER VIEW whatsapp_templates ALTER COLUMN user_id SET DEFAULT current_wa_organization();
ALTER VIEW whatsapp_templates ALTER COLUMN language SET DEFAULT 'en';
ALTER VIEW whatsapp_templates ALTER COLUMN status SET DEFAULT 'pending';
ALTER VIEW whatsapp_templates ALTER COLUMN variables SET DEFAULT '[]';
ALTER VIEW whatsapp_templates ALTER COLUMN created_at SET DEFAULT now();
ALTER VIEW whatsapp_templates ALTER COLUMN id SET DEFAULT gen_random_uuid();

COMMENT ON VIEW whatsapp_templates IS
'wa_templates under another name. name and body are template_name and template_body again: write either.';
COMMENT ON COLUMN whatsapp_templates.user_id IS 'The organization.';
COMMENT ON COLUMN whatsapp_templates.category IS
'MARKETING, UTILITY or AUTHENTICATION; TRANSACTIONAL is taken as UTILITY, its name of today.';
COMMENT ON COLUMN whatsapp_templates.status IS 'Meta''s review: pending, approved or rejected.';
COMMENT ON COLUMN whatsapp_templates.variables IS 'Names of the body''s values in order.';

CREATE OR REPLACE FUNCTION tg_whatsapp_templates__write() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- Of two columns that say the same the one that was written counts.
    IF TG_OP = 'INSERT' THEN
        NEW.template_name := coalesce(NEW.template_name, NEW.name);
        NEW.template_body := coalesce(NEW.template_body, NEW.body);
    ELSE
        IF NEW.template_name IS NOT DISTINCT FROM OLD.template_name THEN
            NEW.template_name := NEW.name;
        END IF;
        IF NEW.template_body IS NOT DISTINCT FROM OLD.template_body THEN
            NEW.template_body := NEW.body;
        END IF;
        PERFORM _wa_refuse_changes(
            'whatsapp_templates', to_jsonb(OLD), to_jsonb(NEW), 'Everything but its owner and age may change.',
            'template_name', 'name', 'language', 'category', 'status', 'template_body', 'body', 'variables',
            'meta_template_id', 'header', 'footer', 'buttons'
        );
    END IF;
    NEW.category := CASE upper(NEW.category) WHEN 'TRANSACTIONAL' THEN 'UTILITY' ELSE NEW.category END;
    PERFORM _wa_require_columns('whatsapp_templates', to_jsonb(NEW), 'user_id', 'template_name', 'category',
        'template_body');
    PERFORM _wa_require_value('whatsapp_templates', 'category', NEW.category, 'MARKETING', 'UTILITY',
        'AUTHENTICATION');
    PERFORM _wa_require_value('whatsapp_templates', 'status', NEW.status, 'pending', 'approved', 'rejected');
    IF TG_OP = 'INSERT' THEN
        INSERT INTO wa_templates AS t (
            organization_id, id, name, language, category, approval_status, body_text, parameters,
            provider_template_id, created_at, header_text, footer_text, buttons
        )
        VALUES (
            NEW.user_id, coalesce(NEW.id, gen_random_uuid()), NEW.template_name, coalesce(NEW.language, 'en'),
            NEW.category, coalesce(NEW.status, 'pending'), NEW.template_body, coalesce(NEW.variables, '[]'),
            NEW.meta_template_id, coalesce(NEW.created_at, clock_timestamp()), NEW.header, NEW.footer,
            coalesce(NEW.buttons, '[]')
        )
        RETURNING t.id INTO NEW.id;
    ELSE
        UPDATE wa_templates t SET
            name = NEW.template_name, language = coalesce(NEW.language, 'en'), category = NEW.category,
            approval_status = coalesce(NEW.status, 'pending'), body_text = NEW.template_body,
            parameters = CASE WHEN NEW.variables IS DISTINCT FROM OLD.variables
                THEN coalesce(NEW.variables, '[]') ELSE t.parameters END,
            provider_template_id = NEW.meta_template_id, header_text = NEW.header, footer_text = NEW.footer,
            buttons = coalesce(NEW.buttons, '[]')
        WHERE t.organization_id = OLD.user_id AND t.id = OLD.id;
    END IF;
    SELECT v.* INTO NEW FROM whatsapp_templates v WHERE v.user_id = NEW.user_id AND v.id = NEW.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_templates__write() IS
'Stores a template; a value that the view does not take is refused (23502, 23514).';

CREATE OR REPLACE TRIGGER write INSTEAD OF INSERT OR UPDATE ON whatsapp_templates
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_templates__write();
