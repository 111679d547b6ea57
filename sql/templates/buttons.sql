-- The parts of a template that take other things than text: files and places in the header, and buttons.

CREATE OR REPLACE FUNCTION _wa_template_header_parameter(
    p_format text, p_given jsonb, OUT parameter jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_kind text := lower(p_format);
    v_given jsonb := CASE WHEN jsonb_typeof(p_given) = 'array' AND jsonb_array_length(p_given) = 1
        THEN p_given -> 0 ELSE p_given END;
    v_object jsonb := CASE
        WHEN v_given ->> 'type' = v_kind THEN v_given -> v_kind
        WHEN jsonb_typeof(v_given) = 'string' AND v_given #>> '{}' ~* '^https?://'
            THEN jsonb_build_object('link', v_given)
        WHEN jsonb_typeof(v_given) = 'string' THEN jsonb_build_object('id', v_given)
        ELSE v_given
    END;
BEGIN
    IF coalesce(jsonb_typeof(v_given), 'null') = 'null' THEN
        problem := ARRAY['WA003', format('the header needs its %s', v_kind), CASE v_kind
            WHEN 'location'
                THEN 'Give {"header": {"latitude": -34.6, "longitude": -58.4, "name": "...", "address": '
                '"..."}, "body": [...]}.'
            ELSE 'Give {"header": {"link": "https://..."}, "body": [...]}, or {"id": "<media id>"}.'
        END];
    ELSIF jsonb_typeof(v_object) <> 'object' OR (
        v_kind = 'location' AND NOT v_object ?& ARRAY['latitude', 'longitude']
        OR v_kind <> 'location' AND (
            (v_object ? 'id') = (v_object ? 'link') OR v_object ->> 'link' !~* '^https?://'
        )
    ) THEN
        problem := ARRAY['WA008', format('the header''s %s is not complete', v_kind), CASE v_kind
            WHEN 'location' THEN 'It needs latitude, longitude, name and address.'
            ELSE 'It needs either the id of an uploaded file or a link with http(s).'
        END];
    ELSE
        parameter := jsonb_build_object('type', v_kind, v_kind, v_object);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_template_header_parameter(text, jsonb) IS
'Internal: the parameter of a header that is a file or a place. A string is a link or a media id.';

CREATE OR REPLACE FUNCTION _wa_template_button(
    p_type text, p_index integer, p_value jsonb, OUT component jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_what text := format('the value of button %s', p_index);
    v_sub_type text := CASE p_type WHEN 'OTP' THEN 'url' ELSE lower(p_type) END;
    v_text text := CASE WHEN jsonb_typeof(p_value) = 'object'
        THEN coalesce(p_value ->> 'text', p_value ->> 'payload', p_value ->> 'coupon_code')
        ELSE p_value #>> '{}' END;
    v_action jsonb;
    v_parameters jsonb;
BEGIN
    IF p_value ? 'parameters' THEN
        v_parameters := p_value -> 'parameters';
    ELSIF v_sub_type IN ('flow', 'catalog', 'mpm') THEN
        v_action := CASE
            WHEN jsonb_typeof(p_value) = 'object'
                THEN coalesce(p_value -> 'action', p_value - 'index' - 'sub_type')
            WHEN v_sub_type = 'flow' THEN jsonb_build_object('flow_token', v_text)
            WHEN v_sub_type = 'catalog' THEN jsonb_build_object('thumbnail_product_retailer_id', v_text)
        END;
        IF v_action IS NULL THEN
            problem := ARRAY['WA008', v_what || ' must be an action object',
                'Give the action of the Cloud API.'];
            RETURN;
        END IF;
        v_parameters := jsonb_build_array(jsonb_build_object('type', 'action', 'action', v_action));
    ELSE
        problem := _wa_template_value_problem(to_jsonb(v_text), v_what);
        IF v_text IS NULL THEN
            problem := ARRAY['WA003', v_what || ' is missing', 'Give a string.'];
        ELSIF v_sub_type = 'copy_code' AND char_length(v_text) > 20 THEN
            problem := ARRAY['WA007', v_what || ' is longer than 20 characters', 'Shorten the code.'];
        END IF;
        IF problem IS NOT NULL THEN
            RETURN;
        END IF;
        v_parameters := jsonb_build_array(CASE v_sub_type
            WHEN 'quick_reply' THEN jsonb_build_object('type', 'payload', 'payload', v_text)
            WHEN 'copy_code' THEN jsonb_build_object('type', 'coupon_code', 'coupon_code', v_text)
            ELSE jsonb_build_object('type', 'text', 'text', v_text)
        END);
    END IF;
    component := jsonb_build_object(
        'type', 'button', 'sub_type', v_sub_type, 'index', p_index::text, 'parameters', v_parameters
    );
END
$$;

COMMENT ON FUNCTION _wa_template_button(text, integer, jsonb) IS
'Internal: the component that gives one button its value.';

CREATE OR REPLACE FUNCTION _wa_template_buttons(
    p_template wa_templates, p_given jsonb, OUT list jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_given jsonb := coalesce(nullif(p_given, 'null'), '[]');
    v_seen integer[] := '{}';
    v_place integer := 0;
    v_button record;
    v_component jsonb;
BEGIN
    list := '[]';
    FOR v_button IN
        SELECT k.key AS index, k.value
        FROM jsonb_each(CASE jsonb_typeof(v_given) WHEN 'object' THEN v_given END) k
        UNION ALL
        SELECT e.value ->> 'index', e.value
        FROM jsonb_array_elements(CASE jsonb_typeof(v_given) WHEN 'array' THEN v_given END) e
    LOOP
        IF v_button.index IS NULL THEN
            v_button.index := p_template.button_parameters -> v_place ->> 'index';
            v_place := v_place + 1;
        END IF;
        IF v_button.index IS NULL OR v_button.index !~ '^[0-9]$'
            OR p_template.buttons -> v_button.index::integer IS NULL
        THEN
            problem := ARRAY['WA004', 'a value is given for a button that takes none or does not exist',
                format('The template has %s buttons; %s need a value.',
                    jsonb_array_length(p_template.buttons),
                    jsonb_array_length(p_template.button_parameters))];
            RETURN;
        END IF;
        SELECT b.component, b.problem INTO v_component, problem
        FROM _wa_template_button(
            upper(p_template.buttons -> v_button.index::integer ->> 'type'), v_button.index::integer,
            v_button.value
        ) b;
        IF problem IS NOT NULL THEN
            RETURN;
        END IF;
        v_seen := v_seen || v_button.index::integer;
        list := list || v_component;
    END LOOP;
    SELECT ARRAY['WA003', format('button %s needs a value', r.value ->> 'index'),
        'Give {"body": [...], "buttons": ["..."]}, one value for each button that needs one, in order.']
    INTO problem
    FROM jsonb_array_elements(p_template.button_parameters) r
    WHERE (r.value ->> 'index')::integer <> ALL (v_seen)
    LIMIT 1;
END
$$;

COMMENT ON FUNCTION _wa_template_buttons(wa_templates, jsonb) IS
'Internal: the components of the buttons. An array fills the buttons that need a value, in order, unless an '
'element names its index; an object goes by index.';
