-- Values that come as the components array of the Cloud API: they go as they are, once they fit the template.

CREATE OR REPLACE FUNCTION _wa_are_template_components(p_params jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_typeof(p_params) = 'array'
    AND NOT p_params @? 'strict $[*] ? (@.type() != "object")'
    AND NOT p_params @? '$[*] ? (!exists (@.type))'
    -- No value of a placeholder has one of these keys.
    AND p_params @? '$[*] ? (exists (@.parameters) || exists (@.cards) || exists (@.sub_type)
        || @.type like_regex "^(header|body|button|carousel|limited_time_offer)$" flag "i")';

COMMENT ON FUNCTION _wa_are_template_components(jsonb) IS
'Internal: whether the values are given as the ready components array of the Cloud API.';

CREATE OR REPLACE FUNCTION _wa_ready_form_problem(p_components jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_seen text[] := '{}';
    v_type text;
BEGIN
    FOR v_no IN 0 .. jsonb_array_length(p_components) - 1 LOOP
        v_type := lower(p_components -> v_no ->> 'type');
        IF v_type IN ('footer', 'buttons') THEN
            RETURN ARRAY['WA004', format('the component "%s" takes no value', v_type),
                'Leave it out; each button that takes one is {"type": "button", "sub_type": "...", '
                '"index": "0", "parameters": [...]}.'];
        -- The last two are of templates that say nothing of them themselves: orders, and links of marketing.
        ELSIF v_type NOT IN (
            'header', 'body', 'button', 'carousel', 'limited_time_offer', 'order_status',
            'tap_target_configuration'
        ) THEN
            RETURN ARRAY['WA008', format('a template has no component of the type "%s"', left(v_type, 40)),
                'Types are header, body, button, carousel and limited_time_offer.'];
        ELSIF v_type = ANY (v_seen) AND v_type <> 'button' THEN
            RETURN ARRAY['WA004', format('the component "%s" is given twice', v_type),
                'Give all its parameters in one.'];
        ELSIF jsonb_typeof(p_components -> v_no -> 'parameters') <> 'array'
            OR p_components -> v_no @? '$.parameters[*] ? (@.type() != "object" || !exists (@.type))'
        THEN
            RETURN ARRAY['WA008', format(
                    'the parameters of the component "%s" must be an array of objects with a type', v_type
                ),
                'For example {"type": "body", "parameters": [{"type": "text", "text": "Ann"}]}.'];
        END IF;
        v_seen := v_seen || v_type;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_ready_form_problem(jsonb) IS
'Internal: what keeps an array from being the components of any template; NULL when nothing does.';

-- Cloud API, Template messages: parameters of a template with names bear them, those of one with numbers do
-- not.
CREATE OR REPLACE FUNCTION _wa_ready_texts_problem(
    p_template wa_templates, p_part text, p_placeholders text[], p_parameters jsonb
) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_values record := _wa_template_values(p_parameters, cardinality(p_placeholders), '{}', p_part);
    v_problem text[] := v_values.problem;
    v_names text[];
BEGIN
    IF v_problem IS NULL
        AND (p_template.parameter_format = 'NAMED' OR p_parameters @? '$[*].parameter_name')
    THEN
        v_names := ARRAY(
            SELECT e.value ->> 'parameter_name' FROM jsonb_array_elements(p_parameters) e ORDER BY 1
        );
        IF p_template.parameter_format = 'NAMED'
            AND v_names <> ARRAY(SELECT n FROM unnest(p_placeholders) n ORDER BY 1)
        THEN
            v_problem := ARRAY['WA005', format('%s: each parameter needs its own parameter_name', p_part),
                format('The template declares: %s.', array_to_string(p_placeholders, ', '))];
        ELSIF p_template.parameter_format <> 'NAMED' THEN
            v_problem := ARRAY['WA005',
                format('%s: parameter_name is given, but the placeholders have numbers', p_part),
                'Leave parameter_name out and keep the order.'];
        END IF;
    END IF;
    RETURN v_problem;
END
$$;

COMMENT ON FUNCTION _wa_ready_texts_problem(wa_templates, text, text[], jsonb) IS
'Internal: what is wrong with the ready parameters of a text; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_ready_buttons(
    p_template wa_templates, p_components jsonb, OUT missing jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_buttons CONSTANT jsonb := _wa_template_all_buttons(p_template);
    v_seen integer[] := '{}';
    v_component jsonb;
    v_index integer;
BEGIN
    FOR v_no IN 0 .. jsonb_array_length(p_components) - 1 LOOP
        v_component := p_components -> v_no;
        CONTINUE WHEN lower(v_component ->> 'type') <> 'button';
        problem := _wa_button_place_problem(v_buttons, v_component ->> 'index', v_seen);
        IF problem IS NULL THEN
            v_index := v_component ->> 'index';
            problem := _wa_template_button_problem(v_buttons -> v_index, v_index, v_component);
        END IF;
        IF problem IS NOT NULL THEN
            RETURN;
        END IF;
        v_seen := v_seen || v_index;
    END LOOP;
    problem := _wa_missing_button_problem(_wa_template_button_parameters(v_buttons), v_seen);
    missing := _wa_default_buttons(v_buttons, v_seen);
END
$$;

COMMENT ON FUNCTION _wa_ready_buttons(wa_templates, jsonb) IS
'Internal: what is wrong with the ready components of the buttons, and those that go without being given.';

CREATE OR REPLACE FUNCTION _wa_ready_template(
    p_template wa_templates, p_components jsonb, OUT components jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_header CONSTANT jsonb := coalesce(jsonb_path_query_first(
        p_components, '$[*] ? (@.type like_regex "^header$" flag "i").parameters'), '[]');
    v_body CONSTANT jsonb := coalesce(jsonb_path_query_first(
        p_components, '$[*] ? (@.type like_regex "^body$" flag "i").parameters'), '[]');
    v_part record;
BEGIN
    components := p_components;
    problem := _wa_ready_form_problem(p_components);
    IF problem IS NOT NULL THEN
        RETURN;
    ELSIF p_template.header_format = 'TEXT' AND p_template.header_placeholders <> '{}' THEN
        problem := _wa_ready_texts_problem(p_template, 'header', p_template.header_placeholders, v_header);
    ELSE
        v_part := _wa_template_header(p_template, v_header);
        problem := v_part.problem;
    END IF;
    IF problem IS NULL THEN
        problem := _wa_ready_texts_problem(p_template, 'body', p_template.body_placeholders, v_body);
    END IF;
    IF problem IS NULL THEN
        v_part := _wa_ready_buttons(p_template, p_components);
        components := p_components || v_part.missing;
        problem := v_part.problem;
    END IF;
    IF problem IS NULL AND (
        _wa_template_takes_offer(p_template) OR _wa_template_cards(p_template) IS NOT NULL
        OR p_components @? '$[*].type ? (@ like_regex "^(carousel|limited_time_offer)$" flag "i")'
    ) THEN
        v_part := _wa_ready_extras(p_template, components);
        components := v_part.list;
        problem := v_part.problem;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_ready_template(wa_templates, jsonb) IS
'Internal: ready components as they go into the request, or what keeps them from being sent with a template.';

-- A card or a time may be given in its short form even here.
CREATE OR REPLACE FUNCTION _wa_ready_extras(
    p_template wa_templates, p_components jsonb, OUT list jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_offer record := _wa_template_offer(
        p_template, _wa_template_component(p_components, 'LIMITED_TIME_OFFER') -> 'parameters'
    );
    v_carousel record := _wa_template_carousel(
        p_template, _wa_template_component(p_components, 'CAROUSEL') -> 'cards'
    );
BEGIN
    problem := coalesce(v_offer.problem, v_carousel.problem);
    list := (
        SELECT jsonb_agg(CASE lower(e.value ->> 'type')
            WHEN 'carousel' THEN v_carousel.component WHEN 'limited_time_offer' THEN v_offer.component
            ELSE e.value
        END ORDER BY e.place)
        FROM jsonb_array_elements(p_components) WITH ORDINALITY e (value, place)
    );
END
$$;

COMMENT ON FUNCTION _wa_ready_extras(wa_templates, jsonb) IS
'Internal: ready components with their cards and the end of an offer as they go into the request.';
