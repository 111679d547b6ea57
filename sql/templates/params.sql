-- The values of a template message: which placeholder each is for, whether they fit, and the request's
-- components. A problem is handed up as ARRAY[sqlstate, message, hint]. Messages name places, never values.

CREATE OR REPLACE FUNCTION _wa_template_value_problem(p_value jsonb, p_what text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_type text := p_value ->> 'type';
    v_text text := p_value #>> '{}';
    v_problem text;
BEGIN
    CASE jsonb_typeof(p_value)
        WHEN 'null' THEN
            RETURN ARRAY['WA003', p_what || ' is null', 'Every placeholder needs a string or a number.'];
        WHEN 'array' THEN
            RETURN ARRAY['WA008', p_what || ' is an array', 'Every placeholder needs a string or a number.'];
        WHEN 'object' THEN
            IF v_type IN ('currency', 'date_time') THEN
                IF p_value #>> ARRAY[v_type, 'fallback_value'] IS NULL THEN
                    RETURN ARRAY['WA008',
                        format('%s: a %s parameter needs %s.fallback_value', p_what, v_type, v_type),
                        'For example {"type": "currency", "currency": {"fallback_value": "$10.99", '
                        '"code": "USD", "amount_1000": 10990}}.'];
                END IF;
                RETURN NULL;
            END IF;
            v_text := p_value ->> 'text';
            IF v_type IS DISTINCT FROM 'text' OR v_text IS NULL THEN
                RETURN ARRAY['WA008', p_what || ': an object must be a text, currency or date_time parameter',
                    'Give a string, a number, or a parameter object of the Cloud API.'];
            END IF;
        ELSE
            NULL;
    END CASE;
    v_problem := _wa_check_template_text(v_text);
    RETURN CASE WHEN v_problem IS NOT NULL THEN ARRAY[
        CASE
            WHEN v_text ~ '[\n\r\t]|     ' THEN 'WA006'
            WHEN char_length(v_text) > 1024 THEN 'WA007'
            ELSE 'WA008'
        END,
        format('%s: %s', p_what, v_problem),
        'Meta refuses line breaks, tabs, more than four spaces in a row, empty and over-long values.'
    ] END;
END
$$;

COMMENT ON FUNCTION _wa_template_value_problem(jsonb, text) IS
'Internal: what is wrong with one value of a template; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_template_values(
    p_given jsonb, p_count integer, p_names text[], p_part text, OUT list jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_missing text;
    v_unknown text;
BEGIN
    list := CASE jsonb_typeof(p_given)
        WHEN 'array' THEN p_given
        WHEN 'object' THEN p_given
        WHEN 'string' THEN jsonb_build_array(p_given)
        WHEN 'number' THEN jsonb_build_array(p_given)
        WHEN 'boolean' THEN jsonb_build_array(p_given)
        ELSE '[]'
    END;
    IF jsonb_typeof(list) = 'object' AND NOT list ? 'type' THEN
        IF cardinality(p_names) = 0 AND list <> '{}' THEN
            problem := ARRAY['WA005',
                format('the %s values are given by name, but the template declares no names', p_part),
                'Give a JSON array in the order of the placeholders, or declare the names: '
                'UPDATE wa_templates SET parameters = ''[{"name": "customer_name", "type": "text"}]''.'];
            RETURN;
        END IF;
        IF NOT list ?& p_names[:p_count] OR list - p_names <> '{}' THEN
            SELECT string_agg(k, ', ' ORDER BY k) INTO v_unknown FROM jsonb_object_keys(list - p_names) k;
            SELECT string_agg(n.name, ', ' ORDER BY n.place) INTO v_missing
            FROM unnest(p_names[:p_count]) WITH ORDINALITY n (name, place)
            WHERE NOT list ? n.name;
            problem := ARRAY[CASE WHEN v_unknown IS NOT NULL THEN 'WA005' ELSE 'WA003' END,
                format('%s values: %s', p_part,
                    concat_ws('; ', 'not declared: ' || v_unknown, 'missing: ' || v_missing)),
                format('The template declares: %s.', array_to_string(p_names, ', '))];
            RETURN;
        END IF;
        SELECT coalesce(jsonb_agg(list -> n.name ORDER BY n.place), '[]') INTO list
        FROM unnest(p_names[:p_count]) WITH ORDINALITY n (name, place);
    ELSIF jsonb_typeof(list) = 'object' THEN
        list := jsonb_build_array(list);
    END IF;
    IF jsonb_array_length(list) <> p_count THEN
        problem := ARRAY[CASE WHEN jsonb_array_length(list) < p_count THEN 'WA003' ELSE 'WA004' END,
            format('the %s takes %s, %s given', p_part,
                CASE p_count WHEN 0 THEN 'no value' WHEN 1 THEN 'one value' ELSE p_count || ' values' END,
                jsonb_array_length(list)),
            'Give one value for each placeholder of the template.'];
        RETURN;
    END IF;
    IF _wa_are_plain_params(list, p_count) THEN
        RETURN;
    END IF;
    FOR v_no IN 0 .. p_count - 1 LOOP
        problem := _wa_template_value_problem(list -> v_no, format('%s value %s', p_part, v_no + 1));
        EXIT WHEN problem IS NOT NULL;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_template_values(jsonb, integer, text[], text) IS
'Internal: the values of one part as a list in the order of its placeholders. An array is taken by place, '
'an object by the declared names, a scalar or a single parameter object as the only value.';

CREATE OR REPLACE FUNCTION _wa_template_text_parameters(p_list jsonb, p_names text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT jsonb_agg(
        CASE jsonb_typeof(v.value)
            WHEN 'object' THEN v.value
            ELSE jsonb_build_object('type', 'text', 'text', v.value #>> '{}')
        END
        || CASE WHEN p_names IS NULL THEN '{}' ELSE jsonb_build_object('parameter_name', p_names[v.place]) END
        ORDER BY v.place
    )
    FROM jsonb_array_elements(p_list) WITH ORDINALITY v (value, place);
END;

COMMENT ON FUNCTION _wa_template_text_parameters(jsonb, text[]) IS
'Internal: values as parameter objects; with names for a template whose placeholders are named. NULL for no '
'value.';

-- The usual case, an array of plain strings and numbers, is decided by one look at its text.
CREATE OR REPLACE FUNCTION _wa_are_plain_params(p_params jsonb, p_count integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(p_params) = 'array' THEN
    jsonb_array_length(p_params) = p_count
    AND length(p_params::text) <= 1024
    AND p_params::text ~ '^\[(("[^\s"\\][^"\\]*"|-?[0-9.]+)(, |\]$))*$'
    AND position('     ' IN p_params::text) = 0
END;

COMMENT ON FUNCTION _wa_are_plain_params(jsonb, integer) IS
'Internal: whether it is an array of so many strings and numbers in which nothing needs a closer look.';

CREATE OR REPLACE FUNCTION _wa_spread_template_values(
    p_template wa_templates, p_values jsonb, OUT header jsonb, OUT body jsonb, OUT buttons jsonb
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_object CONSTANT boolean := jsonb_typeof(p_values) = 'object';
    v_slots bigint;
    v_taken text[];
    v_body jsonb;
BEGIN
    body := p_values;
    IF NOT v_is_object AND jsonb_array_length(p_values) <= cardinality(p_template.body_placeholders) THEN
        RETURN;
    END IF;
    SELECT count(*),
        jsonb_agg(v.value) FILTER (WHERE v.part = 'header' AND v.value IS NOT NULL),
        jsonb_object_agg(v.place, v.value) FILTER (WHERE v.part = 'button' AND v.value IS NOT NULL),
        array_agg(v.name) FILTER (WHERE v.part <> 'body' AND v.name <> ALL (p_template.body_placeholders)),
        jsonb_agg(v.value ORDER BY v.place) FILTER (WHERE v.part = 'body')
    INTO v_slots, header, buttons, v_taken, v_body
    FROM (
        SELECT s.part, s.place, s.name,
            CASE WHEN v_is_object THEN p_values -> s.name ELSE p_values -> (s.turn::integer - 1) END AS value
        FROM _wa_template_slots(p_template) WITH ORDINALITY s (part, place, name, example, turn)
    ) v;
    IF v_is_object THEN
        body := p_values - coalesce(v_taken, '{}');
    ELSIF v_slots = jsonb_array_length(p_values) THEN
        body := coalesce(v_body, '[]');
    ELSE
        header := NULL;
        buttons := NULL;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_spread_template_values(wa_templates, jsonb) IS
'Internal: values for the whole template, by name or one after the other, as those of its parts. Names and '
'places run on from the body to the header and to the buttons.';

CREATE OR REPLACE FUNCTION _wa_build_template(
    p_template wa_templates, p_params jsonb, OUT components jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_named boolean := p_template.parameter_format = 'NAMED';
    v_count integer := cardinality(p_template.body_placeholders);
    v_params jsonb := coalesce(nullif(p_params, 'null'), '[]');
    v_names text[];
    v_header jsonb;
    v_body jsonb;
    v_buttons jsonb;
    v_part jsonb;
    v_code text;
BEGIN
    components := '[]';
    IF NOT v_is_named AND p_template.button_parameters = '[]' AND p_template.header_placeholders = '{}'
        AND coalesce(p_template.header_format, 'TEXT') = 'TEXT' AND p_template.category <> 'AUTHENTICATION'
        AND (v_count = 0 AND v_params IN ('[]', '{}') OR _wa_are_plain_params(v_params, v_count))
    THEN
        IF v_count > 0 THEN
            -- A loop over the few values costs a third of a query over them.
            FOR v_no IN 0 .. v_count - 1 LOOP
                components := components || jsonb_build_object('type', 'text', 'text', v_params ->> v_no);
            END LOOP;
            components := jsonb_build_array(jsonb_build_object('type', 'body', 'parameters', components));
        END IF;
        RETURN;
    END IF;

    v_names := CASE WHEN v_is_named THEN p_template.body_placeholders ELSE ARRAY(
        SELECT coalesce(d.value ->> 'name', d.value #>> '{}')
        FROM jsonb_array_elements(p_template.parameters) WITH ORDINALITY d (value, place)
        ORDER BY d.place
    ) END;
    IF jsonb_typeof(v_params) NOT IN ('array', 'object') THEN
        problem := ARRAY['WA005', 'template_params is neither a JSON array nor an object',
            'Give an array of the body''s values in order, or an object by the declared names.'];
        RETURN;
    ELSIF _wa_are_template_components(v_params) THEN
        components := v_params;
        SELECT v.problem INTO problem FROM _wa_template_values(
            coalesce(_wa_template_component(v_params, 'BODY') -> 'parameters', '[]'), v_count, v_names, 'body'
        ) v;
        RETURN;
    ELSIF jsonb_typeof(v_params) = 'object' AND v_params - '{header,body,buttons}'::text[] = '{}'
        AND (jsonb_typeof(v_params -> 'body') IN ('array', 'object')
            OR NOT v_names && ARRAY['header', 'body', 'buttons'])
    THEN
        v_header := v_params -> 'header';
        v_body := v_params -> 'body';
        v_buttons := v_params -> 'buttons';
    ELSIF p_template.header_placeholders = '{}' AND coalesce(p_template.header_format, 'TEXT') = 'TEXT'
        AND p_template.button_parameters = '[]'
    THEN
        v_body := v_params;
    ELSE
        SELECT s.header, s.body, s.buttons INTO v_header, v_body, v_buttons
        FROM _wa_spread_template_values(p_template, v_params) s;
    END IF;

    IF coalesce(p_template.header_format, 'TEXT') = 'TEXT' AND p_template.header_placeholders = '{}'
        AND v_header IS NULL
    THEN
        v_part := NULL;
    ELSIF coalesce(p_template.header_format, 'TEXT') = 'TEXT' THEN
        SELECT v.list, v.problem INTO v_part, problem FROM _wa_template_values(
            v_header, cardinality(p_template.header_placeholders),
            CASE WHEN v_is_named THEN p_template.header_placeholders ELSE '{}' END, 'header'
        ) v;
        v_part := _wa_template_text_parameters(
            v_part, CASE WHEN v_is_named THEN p_template.header_placeholders END
        );
    ELSE
        SELECT jsonb_build_array(h.parameter), h.problem INTO v_part, problem
        FROM _wa_template_header_parameter(p_template.header_format, v_header) h;
    END IF;
    IF problem IS NOT NULL THEN
        RETURN;
    END IF;
    IF v_part IS NOT NULL THEN
        components := components || jsonb_build_object('type', 'header', 'parameters', v_part);
    END IF;

    SELECT v.list, v.problem INTO v_part, problem
    FROM _wa_template_values(v_body, v_count, v_names, 'body') v;
    IF problem IS NOT NULL THEN
        RETURN;
    END IF;
    IF v_count > 0 THEN
        components := components || jsonb_build_object('type', 'body', 'parameters',
            _wa_template_text_parameters(
            v_part, CASE WHEN v_is_named THEN p_template.body_placeholders END
        ));
    END IF;

    IF p_template.category = 'AUTHENTICATION' AND v_buttons IS NULL THEN
        -- The code goes into the button too; a template that was never synced does not show its button.
        v_code := coalesce(v_part -> 0 ->> 'text', v_part ->> 0);
        IF char_length(v_code) > 15 THEN
            problem := ARRAY['WA007', 'the code is longer than 15 characters',
                'Meta takes codes of up to 15 characters.'];
            RETURN;
        END IF;
        SELECT components || b.component, b.problem INTO components, problem
        FROM _wa_template_button(
            'OTP', coalesce((p_template.button_parameters -> 0 ->> 'index')::integer, 0), to_jsonb(v_code)
        ) b;
        RETURN;
    END IF;
    IF v_buttons IS NOT NULL OR p_template.button_parameters <> '[]' THEN
        SELECT components || b.list, b.problem INTO components, problem
        FROM _wa_template_buttons(p_template, v_buttons) b;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_build_template(wa_templates, jsonb) IS
'Internal: the components array of the request, or what is wrong with the values.';

CREATE OR REPLACE FUNCTION _wa_are_template_components(p_params jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(bool_and((lower(e.value ->> 'type') IN (
        'header', 'body', 'button', 'carousel', 'limited_time_offer'
    )) IS TRUE), false)
    FROM jsonb_array_elements(CASE jsonb_typeof(p_params) WHEN 'array' THEN p_params END) e;
END;

COMMENT ON FUNCTION _wa_are_template_components(jsonb) IS
'Internal: whether the values are given as the ready components array of the Cloud API.';

CREATE OR REPLACE FUNCTION _wa_template_components(p_template wa_templates, p_params jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_built record := _wa_build_template(p_template, p_params);
BEGIN
    RETURN CASE WHEN v_built.problem IS NULL THEN v_built.components END;
END
$$;

COMMENT ON FUNCTION _wa_template_components(wa_templates, jsonb) IS
'Internal: the components array of a template request, [] when it needs none; NULL when the values do not '
'fit (any more).';

CREATE OR REPLACE FUNCTION _wa_unknown_template_problem(
    p_org uuid, p_name text, p_language text, p_waba_id text
) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT ARRAY[
        format('template "%s" is not known%s', p_name,
            CASE WHEN count(*) > 0 THEN format(' in language "%s"', p_language) ELSE '' END),
        coalesce('It exists in: ' || string_agg(DISTINCT t.language, ', ' ORDER BY t.language) || '.',
            'bin/wa templates sync fetches those of the account; a local one can be inserted into '
            'wa_templates.')
    ]
    FROM wa_templates t
    WHERE t.organization_id = p_org AND lower(t.name) = lower(p_name)
        AND (p_waba_id IS NULL OR t.waba_id IS NULL OR t.waba_id = p_waba_id)
$$;

COMMENT ON FUNCTION _wa_unknown_template_problem(uuid, text, text, text) IS
'Internal: the sentence and the hint for a template that does not exist, or not in a language.';

CREATE OR REPLACE FUNCTION _wa_check_template_params(
    p_org uuid, p_name text, p_language text, p_waba_id text, p_params jsonb,
    OUT template_id uuid, OUT sqlstate text, OUT problem text, OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_template wa_templates;
    v_problem text[];
BEGIN
    SELECT * INTO v_template FROM _wa_pick_template(p_org, p_name, p_language, p_waba_id);
    IF NOT FOUND THEN
        sqlstate := 'WA002';
        v_problem := _wa_unknown_template_problem(p_org, p_name, p_language, p_waba_id);
        problem := v_problem[1];
        hint := v_problem[2];
        RETURN;
    END IF;
    template_id := v_template.id;
    SELECT b.problem INTO v_problem FROM _wa_build_template(v_template, p_params) b;
    IF v_problem IS NOT NULL THEN
        sqlstate := v_problem[1];
        problem := format('template "%s" (%s): %s', v_template.name, v_template.language, v_problem[2]);
        hint := v_problem[3];
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_check_template_params(uuid, text, text, text, jsonb) IS
'Internal: the template that a row means and what is wrong with its values (WA002 to WA008); sqlstate NULL '
'when nothing is.';
