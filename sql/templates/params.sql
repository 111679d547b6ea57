-- The values of one part of a template: which placeholder each is for, and whether they fit. A problem is
-- handed up as ARRAY[sqlstate, message, hint]. Messages name places, never values.

CREATE OR REPLACE FUNCTION _wa_template_value_problem(p_value jsonb, p_what text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
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
                v_problem := coalesce(
                    _wa_check_string(
                        p_value #> ARRAY[v_type, 'fallback_value'], v_type || '.fallback_value', 1024, true
                    ),
                    CASE WHEN v_type = 'currency' THEN coalesce(
                        _wa_check_string(p_value #> '{currency,code}', 'currency.code', 3, true),
                        CASE WHEN p_value #>> '{currency,amount_1000}' ~ '^-?[0-9]+$' IS NOT TRUE
                            THEN 'currency.amount_1000 must be a whole number.' END
                    ) END
                );
                RETURN CASE WHEN v_problem IS NOT NULL THEN ARRAY[
                    'WA008', format('%s: %s', p_what, v_problem),
                    'For example {"type": "currency", "currency": {"fallback_value": "$10.99", "code": '
                    '"USD", "amount_1000": 10990}}, or {"type": "date_time", "date_time": '
                    '{"fallback_value": "..."}}.'
                ] END;
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
            CASE p_count WHEN 0 THEN format('Leave the values of the %s out.', p_part)
                ELSE format('Give one value for each placeholder of the %s.', p_part) END];
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
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_parameters jsonb;
    v_value jsonb;
BEGIN
    FOR v_no IN 0 .. jsonb_array_length(p_list) - 1 LOOP
        v_value := p_list -> v_no;
        IF jsonb_typeof(v_value) <> 'object' THEN
            v_value := jsonb_build_object('type', 'text', 'text', v_value #>> '{}');
        END IF;
        IF p_names IS NOT NULL THEN
            v_value := v_value || jsonb_build_object('parameter_name', p_names[v_no + 1]);
        END IF;
        v_parameters := coalesce(v_parameters, '[]') || jsonb_build_array(v_value);
    END LOOP;
    RETURN v_parameters;
END
$$;

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
