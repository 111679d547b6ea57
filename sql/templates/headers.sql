-- The header of a template with its value: a text, a file, a place or a product.

CREATE OR REPLACE FUNCTION _wa_template_header_hint(p_kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_kind
    WHEN 'location' THEN 'Give {"header": {"latitude": -34.6, "longitude": -58.4, "name": "...", "address": '
        '"..."}, "body": [...]}.'
    WHEN 'product' THEN 'Give {"header": {"catalog_id": "...", "product_retailer_id": "..."}, "body": [...]}.'
    WHEN 'document' THEN 'Give {"header": {"link": "https://...", "filename": "invoice.pdf"}, "body": '
        '[...]}, or {"id": "<media id>"} for the link.'
    WHEN 'text' THEN 'Give {"header": "...", "body": [...]}.'
    ELSE 'Give {"header": {"link": "https://..."}, "body": [...]}, or {"id": "<media id>"}.'
END;

COMMENT ON FUNCTION _wa_template_header_hint(text) IS
'Internal: how the value of a kind of header is given.';

-- The usual file is decided by one look: the checks below it take ten times as long.
CREATE OR REPLACE FUNCTION _wa_template_header_object_problem(p_kind text, p_object jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
BEGIN
    IF jsonb_typeof(p_object) IS DISTINCT FROM 'object' THEN
        RETURN p_kind || ' must be an object.';
    ELSIF p_kind IN ('image', 'video', 'gif', 'document') THEN
        RETURN CASE
            WHEN p_object - 'link' = '{}' AND p_object ->> 'link' ~ '^https?://[^\s/?#]+\S*$'
                AND length(p_object ->> 'link') <= 2000 THEN NULL
            WHEN p_object - 'id' = '{}' AND p_object ->> 'id' ~ '^[0-9]{1,100}$'
                AND jsonb_typeof(p_object -> 'id') = 'string' THEN NULL
            WHEN p_object ? 'caption' THEN p_kind || '.caption is not allowed in a template.'
            ELSE _wa_check_media(p_kind, p_object, p_kind)
        END;
    ELSIF p_kind = 'location' THEN
        RETURN _wa_check_location(p_object);
    ELSIF p_kind = 'product' THEN
        RETURN coalesce(
            _wa_check_string(p_object -> 'catalog_id', 'product.catalog_id', 100, true),
            _wa_check_string(p_object -> 'product_retailer_id', 'product.product_retailer_id', 100, true)
        );
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_template_header_object_problem(text, jsonb) IS
'Internal: what is wrong with the file, place or product of a header, in one sentence; NULL when nothing is, '
'or when the kind is newer than this release.';

CREATE OR REPLACE FUNCTION _wa_template_header_parameter(
    p_format text, p_given jsonb, OUT parameter jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_kind text := lower(p_format);
    v_given jsonb := CASE WHEN jsonb_typeof(p_given) = 'array' AND jsonb_array_length(p_given) = 1
        THEN p_given -> 0 ELSE p_given END;
    v_object jsonb;
    v_problem text;
BEGIN
    IF coalesce(jsonb_typeof(v_given), 'null') = 'null' OR v_given = '[]' THEN
        problem := ARRAY['WA003', format('the header needs its %s', v_kind),
            _wa_template_header_hint(v_kind)];
        RETURN;
    ELSIF jsonb_typeof(v_given) = 'array' THEN
        problem := ARRAY['WA004',
            format('the header takes one %s, %s given', v_kind, jsonb_array_length(v_given)),
            _wa_template_header_hint(v_kind)];
        RETURN;
    ELSIF jsonb_typeof(v_given -> 'type') = 'string' AND v_given ->> 'type' <> v_kind THEN
        problem := ARRAY['WA008',
            format('the header takes one of the kind %s, not %s', v_kind, left(v_given ->> 'type', 40)),
            _wa_template_header_hint(v_kind)];
        RETURN;
    END IF;
    v_object := CASE
        WHEN v_given ->> 'type' = v_kind THEN v_given -> v_kind
        WHEN jsonb_typeof(v_given) <> 'string' OR v_kind IN ('location', 'product') THEN v_given
        WHEN v_given #>> '{}' ~* '^https?://' THEN jsonb_build_object('link', v_given)
        ELSE jsonb_build_object('id', v_given)
    END;
    v_problem := _wa_template_header_object_problem(v_kind, v_object);
    IF v_problem IS NOT NULL THEN
        problem := ARRAY['WA008', 'the header: ' || v_problem, _wa_template_header_hint(v_kind)];
        RETURN;
    END IF;
    parameter := jsonb_build_object('type', v_kind, v_kind, v_object);
END
$$;

COMMENT ON FUNCTION _wa_template_header_parameter(text, jsonb) IS
'Internal: the parameter of a header that is a file, a place or a product. A string is a link or a media id.';

CREATE OR REPLACE FUNCTION _wa_template_header(
    p_template wa_templates, p_given jsonb, OUT component jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_named CONSTANT boolean := p_template.parameter_format = 'NAMED';
    v_parameters jsonb;
    v_built record;
BEGIN
    IF coalesce(p_template.header_format, 'TEXT') <> 'TEXT' THEN
        v_built := _wa_template_header_parameter(p_template.header_format, p_given);
        v_parameters := jsonb_build_array(v_built.parameter);
        problem := v_built.problem;
    ELSIF p_template.header_placeholders = '{}' THEN
        IF p_given NOT IN ('null', '[]', '{}') THEN
            problem := ARRAY['WA004', 'a value is given for the header, which takes none', 'Leave it out.'];
        END IF;
        RETURN;
    ELSIF jsonb_typeof(p_given) = 'object' AND NOT p_given ? 'type' AND NOT v_is_named THEN
        problem := ARRAY['WA008', 'the header takes a text', _wa_template_header_hint('text')];
    ELSE
        v_built := _wa_template_values(
            p_given, cardinality(p_template.header_placeholders),
            CASE WHEN v_is_named THEN p_template.header_placeholders ELSE '{}' END, 'header'
        );
        v_parameters := v_built.list;
        problem := v_built.problem;
        IF problem IS NULL THEN
            v_parameters := _wa_template_text_parameters(
                v_parameters, CASE WHEN v_is_named THEN p_template.header_placeholders END
            );
        END IF;
    END IF;
    IF problem IS NULL THEN
        component := jsonb_build_object('type', 'header', 'parameters', v_parameters);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_template_header(wa_templates, jsonb) IS
'Internal: the component of a header that takes a value or is given one, be it text, a file, a place or a '
'product.';
