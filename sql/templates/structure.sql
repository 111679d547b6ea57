-- What a template must be to be one at all. What Meta's review would say of it is lint_wa_template()'s.

CREATE OR REPLACE FUNCTION _wa_template_structure_problem(p_template wa_templates) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_is_named boolean := p_template.parameter_format = 'NAMED';
    v_body text[] := p_template.body_placeholders;
    v_header text[] := p_template.header_placeholders;
    v_wrong text;
BEGIN
    IF p_template.name !~ '\S' OR char_length(p_template.name) > 512 THEN
        RETURN 'its name must have 1 to 512 characters';
    ELSIF p_template.body_text !~ '\S' AND p_template.category <> 'AUTHENTICATION' THEN
        RETURN 'body_text is empty';
    ELSIF jsonb_typeof(p_template.parameters) <> 'array'
        OR jsonb_typeof(p_template.variable_mapping) <> 'object'
    THEN
        RETURN 'parameters must be a JSON array and variable_mapping an object';
    END IF;

    -- Placeholders
    IF regexp_replace(
        concat_ws(' ', p_template.header_text, p_template.body_text, p_template.footer_text),
        '\{\{\s*[A-Za-z0-9_]+\s*\}\}', '', 'g'
    ) ~ '\{\{|\}\}' THEN
        RETURN 'a placeholder is not closed or holds more than a number or a name';
    END IF;
    SELECT n INTO v_wrong FROM unnest(v_body || v_header) n WHERE n !~ '^([1-9][0-9]{0,3}|[a-z][a-z0-9_]*)$';
    IF FOUND THEN
        RETURN format('placeholder {{%s}} is neither a number from 1 nor a name of small letters, digits '
            'and underscores', v_wrong);
    ELSIF v_is_named AND array_to_string(v_body || v_header, ',') ~ '(^|,)[0-9]' THEN
        RETURN 'placeholders are either numbers or names, not both';
    ELSIF NOT v_is_named AND v_body <> ARRAY(SELECT n::text FROM generate_series(1, cardinality(v_body)) n)
    THEN
        RETURN format('the placeholders of the body must be numbered from 1 to %s, without a gap',
            cardinality(v_body));
    ELSIF p_template.footer_text LIKE '%{{%' THEN
        RETURN 'the footer takes no placeholder';
    END IF;

    -- Header
    IF p_template.header_format NOT IN ('TEXT', 'IMAGE', 'VIDEO', 'GIF', 'DOCUMENT', 'LOCATION', 'PRODUCT')
    THEN
        RETURN format('header_format "%s" is not TEXT, IMAGE, VIDEO, GIF, DOCUMENT, LOCATION or PRODUCT',
            left(p_template.header_format, 20));
    ELSIF (p_template.header_format = 'TEXT') <> (coalesce(p_template.header_text, '') ~ '\S') THEN
        RETURN 'a header of the format TEXT needs header_text, and no other takes it';
    ELSIF cardinality(v_header) > 1 THEN
        RETURN 'the header takes one placeholder at most';
    END IF;

    RETURN coalesce(
        _wa_template_parameters_problem(p_template.parameters, CASE WHEN NOT v_is_named THEN v_body END),
        _wa_template_buttons_problem(p_template.buttons)
    );
END
$$;

COMMENT ON FUNCTION _wa_template_structure_problem(wa_templates) IS
'Internal: what makes a template unusable whatever Meta thinks of it, in one sentence; NULL when nothing '
'does.';

CREATE OR REPLACE FUNCTION _wa_template_parameters_problem(p_parameters jsonb, p_numbered text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE
        WHEN count(*) FILTER (WHERE (d.name ~ '\S') IS NOT TRUE) > 0
            THEN 'each of parameters is a name or an object with a name'
        WHEN count(DISTINCT d.name) < count(*) THEN 'parameters has a name twice'
        WHEN count(*) BETWEEN 1 AND cardinality(p_numbered) - 1
            THEN format('parameters has %s names, the body %s placeholders',
                count(*), cardinality(p_numbered))
    END
    FROM (
        SELECT CASE jsonb_typeof(e.value)
            WHEN 'string' THEN e.value #>> '{}' WHEN 'object' THEN e.value ->> 'name' END AS name
        FROM jsonb_array_elements(p_parameters) e
    ) d;
END;

COMMENT ON FUNCTION _wa_template_parameters_problem(jsonb, text[]) IS
'Internal: what is wrong with declared parameters, in one sentence. With numbered placeholders either none '
'are declared or one for each.';

CREATE OR REPLACE FUNCTION _wa_template_buttons_problem(p_buttons jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(
        CASE WHEN jsonb_array_length(p_buttons) > 10 THEN 'it has more than 10 buttons' END,
        (
            SELECT format('button %s %s', b.place - 1, p.problem)
            FROM jsonb_array_elements(p_buttons) WITH ORDINALITY b (value, place)
            CROSS JOIN LATERAL (
                SELECT CASE
                    WHEN (b.value ->> 'type' ~ '\S') IS NOT TRUE THEN 'has no type'
                    WHEN upper(b.value ->> 'type') = 'URL' AND (b.value ->> 'url' ~ '\S') IS NOT TRUE
                        THEN 'has no url'
                    WHEN upper(b.value ->> 'type') = 'URL' AND b.value ->> 'url' LIKE '%{{%{{%'
                        THEN 'has more than one placeholder in its url'
                    WHEN upper(b.value ->> 'type') = 'PHONE_NUMBER'
                        AND (b.value ->> 'phone_number' ~ '[0-9]') IS NOT TRUE
                        THEN 'has no phone_number'
                END AS problem
            ) p
            WHERE p.problem IS NOT NULL
            ORDER BY b.place
            LIMIT 1
        )
    );
END;

COMMENT ON FUNCTION _wa_template_buttons_problem(jsonb) IS
'Internal: what is wrong with the buttons, in one sentence; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_refuse_template(p_template wa_templates, p_problem text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'WA020',
        MESSAGE = format('template "%s" (%s): %s', left(p_template.name, 100), left(p_template.language, 20),
            p_problem),
        DETAIL = format('Its body: %s', left(p_template.body_text, 200)),
        HINT = 'For example: body_text ''Hi {{1}}, thank you.'', parameters ''[{"name": "customer_name"}]'', '
        'buttons ''[{"type": "URL", "text": "Open", "url": "https://example.com/{{1}}"}]''.',
        TABLE = 'wa_templates';
END
$$;

COMMENT ON FUNCTION _wa_refuse_template(wa_templates, text) IS
'Internal: refuses a template that is none (WA020).';
