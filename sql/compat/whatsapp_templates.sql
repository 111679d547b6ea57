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
DECLARE
    v_template wa_templates;
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
    v_template.organization_id := NEW.user_id;
    v_template.id := NEW.id;
    v_template.name := NEW.template_name;
    v_template.language := coalesce(NEW.language, 'en');
    v_template.category := NEW.category;
    v_template.approval_status := coalesce(NEW.status, 'pending');
    v_template.body_text := NEW.template_body;
    v_template.provider_template_id := NEW.meta_template_id;
    v_template.header_text := NEW.header;
    v_template.footer_text := NEW.footer;
    v_template.buttons := coalesce(NEW.buttons, '[]');
    v_template.created_at := NEW.created_at;
    IF TG_OP = 'INSERT' THEN
        v_template.parameters := coalesce(NEW.variables, '[]');
        NEW.id := _wa_add_template(v_template);
    ELSE
        -- Names alone do not show types and examples: those stay with names that nobody touched.
        v_template.parameters := CASE WHEN NEW.variables IS DISTINCT FROM OLD.variables
            THEN coalesce(NEW.variables, '[]') END;
        PERFORM _wa_change_template(v_template);
    END IF;
    SELECT v.* INTO NEW FROM whatsapp_templates v WHERE v.user_id = NEW.user_id AND v.id = NEW.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_templates__write() IS
'Stores a template; a value that the view does not take is refused (23502, 23514).';

CREATE OR REPLACE TRIGGER write INSTEAD OF INSERT OR UPDATE ON whatsapp_templates
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_templates__write();
