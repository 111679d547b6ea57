-- The buttons of a template with their values.

-- Cloud API, Template components. Meta refuses a value for a button that takes none (#100 "does not support
-- parameters") as it does a missing one (#131008 "requires a parameter").
CREATE OR REPLACE FUNCTION _wa_template_button_kind(
    p_button jsonb, OUT type text, OUT sub_type text, OUT parameter text, OUT need text
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    type := upper(p_button ->> 'type');
    IF type = 'URL' AND (p_button ->> 'url' LIKE '%{{%}}%') IS NOT TRUE THEN
        type := 'static URL';
    END IF;
    sub_type := CASE type WHEN 'OTP' THEN 'url' ELSE lower(type) END;
    CASE
        WHEN type IN ('URL', 'OTP') THEN
            parameter := 'text';
            need := 'always';
        WHEN type = 'COPY_CODE' THEN
            parameter := 'coupon_code';
            need := 'always';
        WHEN type IN ('MPM', 'ORDER_DETAILS') THEN
            parameter := 'action';
            need := 'always';
        WHEN type = 'FLOW' THEN
            parameter := 'action';
            need := 'default';
        WHEN type = 'CATALOG' THEN
            parameter := 'action';
            need := 'maybe';
        WHEN type = 'QUICK_REPLY' THEN
            parameter := 'payload';
            need := 'maybe';
        WHEN type = 'VOICE_CALL' THEN
            need := 'maybe';
        WHEN type IN (
            'static URL', 'PHONE_NUMBER', 'SPM', 'REQUEST_CONTACT_INFO', 'CALL_PERMISSION_REQUEST', 'APP'
        ) THEN
            sub_type := NULL;
            need := 'never';
        ELSE
            need := 'unknown';
    END CASE;
END
$$;

COMMENT ON FUNCTION _wa_template_button_kind(jsonb) IS
'Internal: what a button of a template takes: its kind, the sub_type and the type of the parameter in a '
'request, and whether it needs a value: always, maybe, never, default (has one of its own), or unknown, for '
'kinds that are newer than this release.';

CREATE OR REPLACE FUNCTION _wa_template_button_parameters(p_buttons jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_list jsonb := '[]';
    v_kind record;
BEGIN
    FOR v_no IN 0 .. jsonb_array_length(p_buttons) - 1 LOOP
        v_kind := _wa_template_button_kind(p_buttons -> v_no);
        IF v_kind.need = 'always' THEN
            v_list := v_list || jsonb_build_object('index', v_no, 'sub_type', v_kind.sub_type);
        END IF;
    END LOOP;
    RETURN v_list;
END
$$;

COMMENT ON FUNCTION _wa_template_button_parameters(jsonb) IS
'Internal: the buttons that cannot be sent without a value, [{"index": 0, "sub_type": "url"}, ...].';

-- Of an authentication template that was never synced the button is not known, but there is one.
CREATE OR REPLACE FUNCTION _wa_template_all_buttons(p_template wa_templates) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN (p_template).category = 'AUTHENTICATION' AND (p_template).buttons = '[]'
        AND (p_template).provider_template_id IS NULL THEN '[{"type": "OTP"}]'
    ELSE (p_template).buttons
END;

COMMENT ON FUNCTION _wa_template_all_buttons(wa_templates) IS
'Internal: the buttons of a template as Meta has them.';

CREATE OR REPLACE FUNCTION _wa_template_button_hint(p_sub_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN format('Give {"body": [...], "buttons": [%s]}, one value for each button that needs one, in order.',
    CASE p_sub_type
        WHEN 'url' THEN '"track/123"'
        WHEN 'copy_code' THEN '"SAVE10"'
        WHEN 'mpm' THEN '{"thumbnail_product_retailer_id": "...", "sections": [{"title": "...", '
            '"product_items": [{"product_retailer_id": "..."}]}]}'
        WHEN 'order_details' THEN '{"reference_id": "...", "type": "digital-goods", "currency": "BRL", '
            '"total_amount": {"value": 5000, "offset": 100}, "payment_settings": [...]}'
        WHEN 'flow' THEN '{"flow_token": "...", "flow_action_data": {...}}'
        WHEN 'catalog' THEN '{"thumbnail_product_retailer_id": "..."}'
        WHEN 'voice_call' THEN '{"ttl_minutes": 60, "payload": "..."}'
        ELSE '"..."'
    END);

COMMENT ON FUNCTION _wa_template_button_hint(text) IS
'Internal: how the value of a kind of button is given.';

-- Cloud API: multi-product templates have up to 30 products in up to 10 sections, titles of 24 characters; an
-- order (Payments API) its reference_id, type, currency and total_amount.
CREATE OR REPLACE FUNCTION _wa_template_action_problem(p_sub_type text, p_action jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(p_action) IS DISTINCT FROM 'object' THEN 'action must be an object.'
    WHEN p_sub_type = 'flow' THEN coalesce(
        _wa_check_string(p_action -> 'flow_token', 'flow_token', 1024, false),
        CASE WHEN p_action ? 'flow_action_data' AND jsonb_typeof(p_action -> 'flow_action_data') <> 'object'
            THEN 'flow_action_data must be an object.' END
    )
    WHEN p_sub_type = 'catalog' THEN _wa_check_string(
        p_action -> 'thumbnail_product_retailer_id', 'thumbnail_product_retailer_id', 100, true
    )
    WHEN p_sub_type = 'mpm' THEN coalesce(
        _wa_check_string(
            p_action -> 'thumbnail_product_retailer_id', 'thumbnail_product_retailer_id', 100, true
        ),
        CASE WHEN jsonb_typeof(p_action -> 'sections') IS DISTINCT FROM 'array'
            OR jsonb_array_length(p_action -> 'sections') NOT BETWEEN 1 AND 10
            THEN 'sections must be an array of 1 to 10.' END,
        CASE WHEN p_action @? '$.sections[*]
            ? (!(@.product_items.type() == "array" && exists (@.product_items[0])))'
            THEN 'each of sections needs its product_items.' END,
        CASE WHEN p_action @? '$.sections[*].product_items[*]
            ? (!exists (@.product_retailer_id ? (@.type() == "string")))'
            THEN 'each of product_items needs its product_retailer_id.' END,
        CASE WHEN jsonb_array_length(jsonb_path_query_array(p_action, '$.sections[*].product_items[*]')) > 30
            THEN 'sections may have 30 product_items in all.' END,
        CASE WHEN p_action @? '$.sections[1]'
            AND p_action @? '$.sections[*] ? (!exists (@.title ? (@.type() == "string")))'
            THEN 'each of several sections needs its title.' END,
        CASE WHEN p_action @? '$.sections[*].title ? (@ like_regex "^.{25}")'
            THEN 'the title of a section has at most 24 characters.' END
    )
    WHEN p_sub_type = 'order_details' THEN CASE
        WHEN jsonb_typeof(p_action -> 'order_details') IS DISTINCT FROM 'object'
            THEN 'order_details must be an object.'
        ELSE coalesce(
            _wa_check_string(
                p_action #> '{order_details,reference_id}', 'order_details.reference_id', 60, true
            ),
            CASE WHEN p_action #>> '{order_details,type}' IN ('digital-goods', 'physical-goods') IS NOT TRUE
                THEN 'order_details.type must be digital-goods or physical-goods.' END,
            CASE WHEN p_action #>> '{order_details,currency}' ~ '^[A-Z]{3}$' IS NOT TRUE
                THEN 'order_details.currency must be a code such as BRL or INR.' END,
            CASE WHEN p_action @? '$.order_details.total_amount ? (@.value.type() == "number"
                && @.offset.type() == "number")' IS NOT TRUE
                THEN 'order_details.total_amount needs value and offset.' END
        ) END
END;

COMMENT ON FUNCTION _wa_template_action_problem(text, jsonb) IS
'Internal: what is wrong with the action of a button, in one sentence; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_template_parameter_problem(
    p_sub_type text, p_type text, p_parameter jsonb, p_what text
) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_text text := p_parameter ->> p_type;
    v_longest integer := CASE
        WHEN p_type = 'coupon_code' THEN 20 WHEN p_sub_type = 'quick_reply' THEN 256 ELSE 1024
    END;
    v_problem text;
BEGIN
    IF p_parameter ->> 'type' IS DISTINCT FROM p_type THEN
        RETURN ARRAY['WA008',
            format('%s must be a parameter of the type %s%s', p_what, p_type,
                coalesce(', not ' || left(p_parameter ->> 'type', 40), '')),
            _wa_template_button_hint(p_sub_type)];
    ELSIF p_type = 'action' THEN
        v_problem := _wa_template_action_problem(p_sub_type, p_parameter -> 'action');
        RETURN CASE WHEN v_problem IS NOT NULL THEN
            ARRAY['WA008', format('%s: %s', p_what, v_problem), _wa_template_button_hint(p_sub_type)] END;
    ELSIF jsonb_typeof(p_parameter -> p_type) IS DISTINCT FROM 'string' OR v_text !~ '\S' THEN
        RETURN ARRAY['WA003', p_what || ' is missing', 'Give a string.'];
    ELSIF char_length(v_text) > v_longest THEN
        RETURN ARRAY['WA007', format('%s is longer than %s characters', p_what, v_longest), CASE p_type
            WHEN 'payload' THEN 'Shorten it; what it stands for can lie in a table of yours.'
            ELSE 'Shorten it.' END];
    ELSIF p_type = 'text' AND NOT _wa_are_plain_params(jsonb_build_array(v_text), 1) THEN
        RETURN _wa_template_value_problem(to_jsonb(v_text), p_what);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_template_parameter_problem(text, text, jsonb, text) IS
'Internal: what is wrong with the only parameter of a button; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_template_button_problem(p_button jsonb, p_index integer, p_component jsonb)
RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_kind record := _wa_template_button_kind(p_button);
    v_what text := format('the value of button %s', p_index);
    v_parameters jsonb := coalesce(p_component -> 'parameters', '[]');
BEGIN
    IF v_kind.need = 'never' THEN
        RETURN ARRAY['WA004', format('button %s (%s) takes no value', p_index, v_kind.type), 'Leave it out.'];
    ELSIF lower(p_component ->> 'sub_type') IS DISTINCT FROM v_kind.sub_type THEN
        RETURN ARRAY['WA008',
            format('button %s is of the sub_type %s%s', p_index, v_kind.sub_type,
                coalesce(', not ' || left(p_component ->> 'sub_type', 40), '')),
            format('Give {"type": "button", "sub_type": "%s", "index": "%s", "parameters": [...]}.',
                v_kind.sub_type, p_index)];
    ELSIF jsonb_typeof(v_parameters) <> 'array' THEN
        RETURN ARRAY['WA008', v_what || ': parameters must be an array',
            _wa_template_button_hint(v_kind.sub_type)];
    ELSIF v_kind.sub_type = 'voice_call' THEN
        RETURN CASE WHEN v_parameters @?
            '$[*] ? (!(@.type == "ttl_minutes" && @.ttl_minutes >= 1 && @.ttl_minutes <= 43200
                || @.type == "payload" && @.payload.type() == "string"))'
            THEN ARRAY['WA008', v_what || ' may have ttl_minutes from 1 to 43200 and a payload',
                _wa_template_button_hint(v_kind.sub_type)] END;
    ELSIF v_kind.need = 'unknown' OR v_parameters = '[]' AND v_kind.need <> 'always' THEN
        RETURN NULL;
    ELSIF jsonb_array_length(v_parameters) <> 1 THEN
        RETURN ARRAY[CASE v_parameters WHEN '[]' THEN 'WA003' ELSE 'WA004' END,
            format('button %s takes one parameter, %s given', p_index, jsonb_array_length(v_parameters)),
            _wa_template_button_hint(v_kind.sub_type)];
    END IF;
    RETURN _wa_template_parameter_problem(v_kind.sub_type, v_kind.parameter, v_parameters -> 0, v_what);
END
$$;

COMMENT ON FUNCTION _wa_template_button_problem(jsonb, integer, jsonb) IS
'Internal: what is wrong with the component that gives a button of a template its value; NULL when nothing '
'is.';

CREATE OR REPLACE FUNCTION _wa_template_button(
    p_button jsonb, p_index integer, p_value jsonb, OUT component jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_kind record := _wa_template_button_kind(p_button);
    v_is_object CONSTANT boolean := jsonb_typeof(p_value) = 'object';
    v_value CONSTANT jsonb := CASE WHEN v_is_object
        THEN p_value - '{sub_type,index}'::text[] ELSE p_value END;
    v_text text := CASE WHEN v_is_object
        THEN coalesce(p_value ->> 'text', p_value ->> 'payload', p_value ->> 'coupon_code')
        ELSE p_value #>> '{}' END;
    v_parameters jsonb;
BEGIN
    IF v_is_object AND p_value ? 'parameters' THEN
        v_parameters := p_value -> 'parameters';
    ELSIF v_kind.sub_type = 'voice_call' THEN
        SELECT coalesce(jsonb_agg(jsonb_build_object('type', k.key, k.key, k.value)), '[]') INTO v_parameters
        FROM jsonb_each(CASE WHEN v_is_object THEN v_value ELSE jsonb_build_object('payload', p_value) END) k
        WHERE k.key <> 'type';
    ELSIF v_kind.parameter = 'action' THEN
        v_parameters := jsonb_build_array(jsonb_build_object('type', 'action', 'action', CASE
            WHEN v_is_object AND v_value ? 'action' THEN v_value -> 'action'
            WHEN v_is_object AND v_kind.sub_type = 'order_details' AND NOT v_value ? 'order_details'
                THEN jsonb_build_object('order_details', v_value)
            WHEN v_is_object THEN v_value - 'type'
            WHEN v_kind.sub_type = 'flow' THEN jsonb_build_object('flow_token', v_text)
            WHEN v_kind.sub_type = 'catalog' THEN jsonb_build_object('thumbnail_product_retailer_id', v_text)
            ELSE p_value
        END));
    ELSE
        v_parameters := jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
            'type', coalesce(v_kind.parameter, 'text'), coalesce(v_kind.parameter, 'text'), v_text
        )));
    END IF;
    component := jsonb_build_object(
        'type', 'button', 'sub_type', coalesce(lower(CASE WHEN v_is_object THEN p_value ->> 'sub_type' END),
            v_kind.sub_type), 'index', p_index::text, 'parameters', v_parameters
    );
    problem := _wa_template_button_problem(p_button, p_index, component);
END
$$;

COMMENT ON FUNCTION _wa_template_button(jsonb, integer, jsonb) IS
'Internal: the component that gives one button of a template its value.';

CREATE OR REPLACE FUNCTION _wa_missing_button_problem(p_needy jsonb, p_seen integer[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    FOR v_no IN 0 .. jsonb_array_length(p_needy) - 1 LOOP
        IF (p_needy -> v_no ->> 'index')::integer <> ALL (p_seen) THEN
            RETURN ARRAY['WA003', format('button %s needs a value', p_needy -> v_no ->> 'index'),
                _wa_template_button_hint(p_needy -> v_no ->> 'sub_type')];
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_missing_button_problem(jsonb, integer[]) IS
'Internal: that one of the buttons that need a value is not among those that have one; NULL when all are.';

CREATE OR REPLACE FUNCTION _wa_button_place_problem(p_buttons jsonb, p_index text, p_seen integer[])
RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_index ~ '^[0-9]$' IS NOT TRUE OR p_buttons -> p_index::integer IS NULL THEN
        RETURN ARRAY['WA004', 'a value is given for a button that takes none or does not exist',
            format('The template has %s buttons; %s need a value.', jsonb_array_length(p_buttons),
                jsonb_array_length(_wa_template_button_parameters(p_buttons)))];
    ELSIF p_index::integer = ANY (p_seen) THEN
        RETURN ARRAY['WA004', format('button %s is given two values', p_index),
            'Give one value for each button.'];
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_button_place_problem(jsonb, text, integer[]) IS
'Internal: that a template has no button at a place, or that it has its value already; NULL when all is '
'well.';

-- Meta wants the component of a flow also where there is nothing to say; "unused" is its token then.
CREATE OR REPLACE FUNCTION _wa_default_buttons(p_buttons jsonb, p_seen integer[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_list jsonb := '[]';
    v_built record;
BEGIN
    FOR v_no IN 0 .. jsonb_array_length(p_buttons) - 1 LOOP
        IF upper(p_buttons -> v_no ->> 'type') = 'FLOW' AND v_no <> ALL (p_seen) THEN
            v_built := _wa_template_button(p_buttons -> v_no, v_no, '"unused"');
            v_list := v_list || v_built.component;
        END IF;
    END LOOP;
    RETURN v_list;
END
$$;

COMMENT ON FUNCTION _wa_default_buttons(jsonb, integer[]) IS
'Internal: the components of buttons that have a value of their own, for those that are given none.';

CREATE OR REPLACE FUNCTION _wa_template_buttons(
    p_template wa_templates, p_given jsonb, OUT list jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_buttons CONSTANT jsonb := _wa_template_all_buttons(p_template);
    v_needy CONSTANT jsonb := _wa_template_button_parameters(v_buttons);
    v_given jsonb := CASE WHEN coalesce(jsonb_typeof(p_given), 'null') = 'null' THEN '[]'
        WHEN jsonb_typeof(p_given) IN ('array', 'object') THEN p_given ELSE jsonb_build_array(p_given) END;
    v_seen integer[] := '{}';
    v_place integer := 0;
    v_button record;
    v_built record;
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
            v_button.index := v_needy -> v_place ->> 'index';
            v_place := v_place + 1;
        END IF;
        problem := _wa_button_place_problem(v_buttons, v_button.index, v_seen);
        IF problem IS NULL THEN
            v_built := _wa_template_button(
                v_buttons -> v_button.index::integer, v_button.index::integer, v_button.value
            );
            problem := v_built.problem;
        END IF;
        IF problem IS NOT NULL THEN
            RETURN;
        END IF;
        v_seen := v_seen || v_button.index::integer;
        list := list || v_built.component;
    END LOOP;
    problem := _wa_missing_button_problem(v_needy, v_seen);
    list := list || _wa_default_buttons(v_buttons, v_seen);
END
$$;

COMMENT ON FUNCTION _wa_template_buttons(wa_templates, jsonb) IS
'Internal: the components of the buttons. An array fills the buttons that need a value, in order, unless an '
'element names its index; an object goes by index.';
