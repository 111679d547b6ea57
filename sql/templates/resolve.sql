-- The values that a template takes, where they come from, and what the customer will read.

CREATE OR REPLACE FUNCTION _wa_require_template(p_org uuid, p_name text, p_language text)
RETURNS wa_templates
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_template wa_templates;
    v_problem text[];
BEGIN
    SELECT * INTO v_template FROM _wa_pick_template(p_org, p_name, p_language, NULL);
    IF NOT FOUND THEN
        v_problem := _wa_unknown_template_problem(p_org, p_name, p_language, NULL);
        RAISE EXCEPTION USING ERRCODE = 'WA002',
            MESSAGE = v_problem[1],
            DETAIL = format('Asked for: %s, language %s.', left(p_name, 100),
                coalesce(left(p_language, 20), 'any')),
            HINT = v_problem[2];
    END IF;
    RETURN v_template;
END
$$;

COMMENT ON FUNCTION _wa_require_template(uuid, text, text) IS
'Internal: the template that a name and language mean, by the same rules as sending; raises WA002.';

-- In PL/pgSQL for its cached plan: the queue asks it for each row that gives values by name or in a run.
CREATE OR REPLACE FUNCTION _wa_template_slots(p_template wa_templates)
RETURNS TABLE (part text, place integer, name text, example text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_is_named CONSTANT boolean := p_template.parameter_format = 'NAMED';
    v_own text[] := '{}';
    v_names text[];
    v_examples text[];
BEGIN
    IF v_is_named THEN
        v_own := p_template.body_placeholders || p_template.header_placeholders;
    END IF;
    -- What is declared beyond the names of placeholders goes by place.
    SELECT array_agg(d.name ORDER BY d.place), array_agg(d.example ORDER BY d.place)
    INTO v_names, v_examples
    FROM (
        SELECT e.place, coalesce(e.value ->> 'name', e.value #>> '{}') AS name,
            e.value ->> 'example' AS example
        FROM jsonb_array_elements(p_template.parameters) WITH ORDINALITY e (value, place)
    ) d
    WHERE d.name <> ALL (v_own);
    RETURN QUERY
    SELECT s.part, s.place, coalesce(CASE WHEN NOT s.is_own THEN v_names[s.turn] END, s.name),
        CASE WHEN s.is_own THEN (
            SELECT e.value ->> 'example' FROM jsonb_array_elements(p_template.parameters) e
            WHERE e.value ->> 'name' = s.name LIMIT 1
        ) ELSE v_examples[s.turn] END
    FROM (
        SELECT p.*, row_number() OVER (PARTITION BY p.is_own ORDER BY p.rank, p.place) AS turn
        FROM (
            SELECT 1 AS rank, 'body' AS part, b.place::integer AS place, b.name, v_is_named AS is_own
            FROM unnest(p_template.body_placeholders) WITH ORDINALITY b (name, place)
            UNION ALL
            SELECT 2, 'header', 1, CASE WHEN v_is_named THEN h.name ELSE 'header' END, v_is_named
            FROM unnest(p_template.header_placeholders) h (name)
            UNION ALL
            SELECT 2, 'header', 1, 'header', false WHERE p_template.header_format <> 'TEXT'
            UNION ALL
            SELECT 3, 'button', (b.value ->> 'index')::integer, 'button_' || (b.value ->> 'index'), false
            FROM jsonb_array_elements(p_template.button_parameters) b
            -- Meta wants an authentication template's code twice; it is given once.
            WHERE p_template.category <> 'AUTHENTICATION'
            UNION ALL
            SELECT 4, 'cards', 1, 'cards', false WHERE _wa_template_cards(p_template) IS NOT NULL
            UNION ALL
            SELECT 5, 'limited_time_offer', 1, 'limited_time_offer', false
            WHERE _wa_template_takes_offer(p_template)
        ) p
    ) s
    ORDER BY s.rank, s.place;
END
$$;

COMMENT ON FUNCTION _wa_template_slots(wa_templates) IS
'Internal: every value that a template takes, with its name: the placeholder''s own, else the declared one '
'(body first, then header, buttons, cards, the end of an offer), else its number, header, button_N, cards or '
'limited_time_offer.';

CREATE OR REPLACE FUNCTION _wa_fold_template_values(p_template wa_templates, p_values jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN count(*) = count(*) FILTER (WHERE s.part = 'body') THEN f.body
        ELSE jsonb_strip_nulls(jsonb_build_object(
            'header', jsonb_agg(p_values -> s.name) FILTER (WHERE s.part = 'header'),
            'buttons', jsonb_object_agg(s.place, p_values -> s.name) FILTER (WHERE s.part = 'button'),
            'cards', (jsonb_agg(p_values -> s.name) FILTER (WHERE s.part = 'cards')) -> 0,
            'limited_time_offer',
            (jsonb_agg(p_values -> s.name) FILTER (WHERE s.part = 'limited_time_offer')) -> 0
        )) || jsonb_build_object('body', f.body)
    END
    FROM (
        SELECT coalesce(jsonb_agg(p_values -> b.name ORDER BY b.place), '[]') AS body
        FROM _wa_template_slots(p_template) b
        WHERE b.part = 'body'
    ) f
    LEFT JOIN _wa_template_slots(p_template) s ON true
    WHERE s.part IS NOT NULL OR f.body = '[]'
    GROUP BY f.body
$$;

COMMENT ON FUNCTION _wa_fold_template_values(wa_templates, jsonb) IS
'Internal: values by name in the form that template_params takes: an array, or an object by part where '
'header, buttons, cards or an offer take values too.';

CREATE OR REPLACE FUNCTION resolve_wa_template_params(
    p_template text, p_context jsonb, p_language text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_template wa_templates := _wa_require_template(_wa_caller_organization(), p_template, p_language);
    v_what text := format('template "%s" (%s)', v_template.name, v_template.language);
    v_values jsonb;
    v_missing text;
    v_paths text;
    v_params jsonb;
    v_problem text[];
BEGIN
    IF jsonb_typeof(p_context) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA021', MESSAGE = v_what || ': the context is not a JSON object',
            DETAIL = format('It is: %s.', coalesce(jsonb_typeof(p_context), 'NULL')),
            HINT = 'For example: ''{"customer": {"name": "Ann"}}''.';
    END IF;
    SELECT jsonb_object_agg(f.name, f.value) FILTER (WHERE f.value IS NOT NULL),
        string_agg(f.name, ', ' ORDER BY f.turn) FILTER (WHERE f.value IS NULL),
        string_agg(format('%s is looked for at %s', f.name, f.path), '; ' ORDER BY f.turn)
            FILTER (WHERE f.value IS NULL)
    INTO v_values, v_missing, v_paths
    FROM (
        SELECT DISTINCT ON (s.name) s.name, s.turn, m.path,
            nullif(coalesce(p_context -> m.path, p_context #> string_to_array(m.path, '.')), 'null') AS value
        FROM _wa_template_slots(v_template) WITH ORDINALITY s (part, place, name, example, turn)
        CROSS JOIN LATERAL (
            SELECT coalesce(
                v_template.variable_mapping ->> s.name,
                CASE WHEN s.part = 'body' THEN v_template.variable_mapping ->> s.place::text END, s.name
            ) AS path
        ) m
        ORDER BY s.name, s.turn
    ) f;
    IF v_missing IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'WA021',
            MESSAGE = format('%s: the context has no value for %s', v_what, v_missing),
            DETAIL = v_paths || '.',
            HINT = 'Give them in the context, or say where they are: '
            'UPDATE wa_templates SET variable_mapping = ''{"customer_name": "customer.name"}''.';
    END IF;
    v_params := _wa_fold_template_values(v_template, coalesce(v_values, '{}'));
    SELECT b.problem INTO v_problem FROM _wa_build_template(v_template, v_params) b;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = v_problem[1],
            MESSAGE = format('%s: %s', v_what, v_problem[2]),
            DETAIL = format('Values: %s.', left(v_params::text, 500)),
            HINT = v_problem[3];
    END IF;
    RETURN v_params;
END
$$;

COMMENT ON FUNCTION resolve_wa_template_params(text, jsonb, text) IS
'The template_params of a template from a context document, by the template''s variable_mapping. A value '
'that is not there raises WA021 and is named.';

-- All at once, so that a value that looks like a placeholder is text.
CREATE OR REPLACE FUNCTION _wa_fill_template_text(p_text text, p_values jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT string_agg(t.part || coalesce(p_values ->> h.found[2], h.found[1], ''), '' ORDER BY t.place)
    FROM regexp_split_to_table(p_text, '\{\{\s*[A-Za-z0-9_]+\s*\}\}') WITH ORDINALITY t (part, place)
    LEFT JOIN regexp_matches(p_text, '(\{\{\s*([A-Za-z0-9_]+)\s*\}\})', 'g') WITH ORDINALITY h (found, place)
        ON h.place = t.place;
END;

COMMENT ON FUNCTION _wa_fill_template_text(text, jsonb) IS
'Internal: a text with its placeholders filled from an object.';

CREATE OR REPLACE FUNCTION _wa_template_component_values(p_components jsonb, p_type text, p_names text[])
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_object_agg(
        coalesce(v.value ->> 'parameter_name', p_names[v.place], v.place::text),
        coalesce(
            v.value ->> 'text', v.value #>> '{currency,fallback_value}',
            v.value #>> '{date_time,fallback_value}'
        )
    ), '{}')
    FROM jsonb_array_elements(
        coalesce(_wa_template_component(p_components, p_type) -> 'parameters', '[]')
    ) WITH ORDINALITY v (value, place);
END;

COMMENT ON FUNCTION _wa_template_component_values(jsonb, text, text[]) IS
'Internal: the texts that a request gives to the header or the body, by placeholder.';

-- Late-bound: a card is a template, which is rendered as one.
CREATE OR REPLACE FUNCTION _wa_render_cards(p_template wa_templates, p_given jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_cards CONSTANT jsonb := _wa_template_cards(p_template);
BEGIN
    RETURN (
        SELECT string_agg(format(E'(%s)\n%s', g.place, _wa_render_template(
            _wa_card_template(
                p_template, v_cards -> least(g.place, jsonb_array_length(v_cards))::integer - 1
            ), g.value -> 'components'
        )), E'\n\n' ORDER BY g.place)
        FROM jsonb_array_elements(p_given) WITH ORDINALITY g (value, place)
    );
END
$$;

COMMENT ON FUNCTION _wa_render_cards(wa_templates, jsonb) IS
'Internal: the texts of the cards of a carousel with the values of a request.';

CREATE OR REPLACE FUNCTION _wa_render_template(p_template wa_templates, p_components jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    SELECT concat_ws(E'\n\n',
        '[' || (_wa_template_component((p_template).components, 'LIMITED_TIME_OFFER')
            #>> '{limited_time_offer,text}') || ']',
        CASE
            WHEN (p_template).header_format = 'TEXT' THEN _wa_fill_template_text(
                (p_template).header_text,
                _wa_template_component_values(p_components, 'HEADER', (p_template).header_placeholders)
            )
            WHEN (p_template).header_format IS NOT NULL THEN format('[%s]', (p_template).header_format)
        END,
        _wa_fill_template_text(
            -- Meta words the text of an authentication template; what is sure is the code.
            CASE WHEN (p_template).category = 'AUTHENTICATION' AND (p_template).body_text NOT LIKE '%{{%'
                THEN concat_ws(' ', '{{1}}', nullif((p_template).body_text, ''))
                ELSE (p_template).body_text END,
            _wa_template_component_values(p_components, 'BODY', (p_template).body_placeholders)
        ),
        (p_template).footer_text,
        (
            SELECT string_agg(
                format('[%s]', coalesce(b.value ->> 'text', b.value ->> 'type')) || coalesce(
                    ' ' || regexp_replace(
                        b.value ->> 'url', '\{\{.*\}\}', replace(coalesce(g.given, ''), '\', '\\')
                    ),
                    ' ' || (b.value ->> 'phone_number'), ' ' || g.given, ''
                ), E'\n' ORDER BY b.place
            )
            FROM jsonb_array_elements((p_template).buttons) WITH ORDINALITY b (value, place)
            LEFT JOIN LATERAL (
                SELECT coalesce(c.value #>> '{parameters,0,text}', c.value #>> '{parameters,0,coupon_code}')
                    AS given
                FROM jsonb_array_elements(p_components) c
                WHERE c.value ->> 'type' = 'button' AND (c.value ->> 'index')::bigint = b.place - 1
                LIMIT 1
            ) g ON true
        ),
        _wa_render_cards(p_template, _wa_template_component(p_components, 'CAROUSEL') -> 'cards')
    )
$$;

COMMENT ON FUNCTION _wa_render_template(wa_templates, jsonb) IS
'Internal: the text of a template with the values of a request.';

-- Late-bound: a card is a template, whose samples it asks for.
CREATE OR REPLACE FUNCTION _wa_card_samples(p_template wa_templates) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(
            CASE jsonb_typeof(f.values) WHEN 'array' THEN jsonb_build_object('body', f.values)
                ELSE f.values END
            ORDER BY c.place
        )
        FROM jsonb_array_elements(_wa_template_cards(p_template)) WITH ORDINALITY c (value, place)
        CROSS JOIN LATERAL _wa_card_template(p_template, c.value) t
        CROSS JOIN LATERAL (
            SELECT _wa_fold_template_values(t, _wa_template_samples(t)) AS values
        ) f
    );
END
$$;

COMMENT ON FUNCTION _wa_card_samples(wa_templates) IS 'Internal: values for the cards of a carousel.';

CREATE OR REPLACE FUNCTION _wa_template_samples(p_template wa_templates) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_object_agg(s.name, CASE
        WHEN s.part = 'cards' THEN _wa_card_samples(p_template)
        WHEN s.part = 'limited_time_offer' THEN '4102444800000'
        WHEN s.part = 'header' AND (p_template).header_format = 'LOCATION'
            THEN '{"latitude": 0, "longitude": 0, "name": "Place", "address": "Address"}'
        WHEN s.part = 'header' AND (p_template).header_format = 'PRODUCT'
            THEN '{"catalog_id": "1", "product_retailer_id": "sample"}'
        WHEN s.part = 'button' AND k.sub_type = 'mpm' THEN '{"thumbnail_product_retailer_id": "sample", '
            '"sections": [{"title": "Sample", "product_items": [{"product_retailer_id": "sample"}]}]}'
        WHEN s.part = 'button' AND k.sub_type = 'order_details' THEN '{"reference_id": "sample", '
            '"type": "digital-goods", "currency": "BRL", "total_amount": {"value": 100, "offset": 100}}'
        WHEN s.part = 'header' AND (p_template).header_format <> 'TEXT'
            THEN to_jsonb(coalesce(s.example, 'https://example.com/file'))
        WHEN s.example IS NOT NULL THEN to_jsonb(s.example)
        -- The end of a URL, or a code.
        WHEN s.part = 'button' THEN to_jsonb('sample'::text)
        WHEN s.name ~ '^([0-9]+|header)$' THEN to_jsonb('sample ' || s.place)
        ELSE to_jsonb(replace(s.name, '_', ' '))
    END), '{}')
    FROM _wa_template_slots(p_template) s
    CROSS JOIN LATERAL _wa_template_button_kind((p_template).buttons -> s.place) k
$$;

COMMENT ON FUNCTION _wa_template_samples(wa_templates) IS
'Internal: a value for each name of a template: the declared example, else one made of the name.';

CREATE OR REPLACE FUNCTION preview_wa_template(
    p_template text, p_params jsonb DEFAULT NULL, p_language text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_template wa_templates := _wa_require_template(_wa_caller_organization(), p_template, p_language);
    v_components jsonb;
    v_problem text[];
BEGIN
    SELECT b.components, b.problem INTO v_components, v_problem FROM _wa_build_template(
        v_template,
        coalesce(p_params, _wa_fold_template_values(v_template, _wa_template_samples(v_template)))
    ) b;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = v_problem[1],
            MESSAGE = format('template "%s" (%s): %s', v_template.name, v_template.language, v_problem[2]),
            DETAIL = format('Values: %s.', coalesce(left(p_params::text, 500), 'those of the examples')),
            HINT = v_problem[3];
    END IF;
    RETURN _wa_render_template(v_template, v_components);
END
$$;

COMMENT ON FUNCTION preview_wa_template(text, jsonb, text) IS
'What the customer would read: header, body, footer and buttons with the values filled in, as '
'template_params takes them; without values, with the examples that Meta''s review gets. Sends nothing.';
