-- Templates written by hand under another name of the table: the columns that a person gives.

CREATE OR REPLACE FUNCTION _wa_add_template(p_template wa_templates) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_templates AS t (
        organization_id, id, name, language, category, approval_status, body_text, parameters,
        provider_template_id, created_at, header_text, footer_text, buttons
    )
    SELECT
        p.organization_id, coalesce(p.id, gen_random_uuid()), p.name, p.language, p.category,
        p.approval_status, p.body_text, p.parameters, p.provider_template_id,
        coalesce(p.created_at, clock_timestamp()), p.header_text, p.footer_text, p.buttons
    FROM (SELECT (p_template).*) p
    RETURNING t.id
$$;

COMMENT ON FUNCTION _wa_add_template(wa_templates) IS
'Internal: adds a template with the caller''s rights, from the columns that people write; returns its id.';

CREATE OR REPLACE FUNCTION _wa_change_template(p_template wa_templates) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_templates t SET
        name = p.name, language = p.language, category = p.category, approval_status = p.approval_status,
        body_text = p.body_text, parameters = coalesce(p.parameters, t.parameters),
        provider_template_id = p.provider_template_id, header_text = p.header_text,
        footer_text = p.footer_text, buttons = p.buttons
    FROM (SELECT (p_template).*) p
    WHERE t.organization_id = p.organization_id AND t.id = p.id
$$;

COMMENT ON FUNCTION _wa_change_template(wa_templates) IS
'Internal: changes a template with the caller''s rights, in the columns that people write; parameters of '
'NULL stay.';
