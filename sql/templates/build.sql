-- A template's values become the components of the request. The usual case, a body with plain values, has a
-- short way in _wa_build_template(): claims take it.

CREATE OR REPLACE FUNCTION _wa_spread_template_values(
    p_template wa_templates, p_values jsonb,
    OUT header jsonb, OUT body jsonb, OUT buttons jsonb, OUT cards jsonb, OUT offer jsonb
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
        (jsonb_agg(v.value) FILTER (WHERE v.part = 'cards')) -> 0,
        (jsonb_agg(v.value) FILTER (WHERE v.part = 'limited_time_offer')) -> 0,
        array_agg(v.name) FILTER (WHERE v.part <> 'body' AND v.name <> ALL (p_template.body_placeholders)),
        jsonb_agg(v.value ORDER BY v.place) FILTER (WHERE v.part = 'body')
    INTO v_slots, header, buttons, cards, offer, v_taken, v_body
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
        cards := NULL;
        offer := NULL;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_spread_template_values(wa_templates, jsonb) IS
'Internal: values for the whole template, by name or one after the other, as those of its parts. Names and '
'places run on from the body to the header, to the buttons, to the cards and to the end of an offer.';

CREATE OR REPLACE FUNCTION _wa_allot_template_values(
    p_template wa_templates, p_values jsonb, p_names text[],
    OUT header jsonb, OUT body jsonb, OUT buttons jsonb, OUT cards jsonb, OUT offer jsonb
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_parts CONSTANT text[] := '{header,body,buttons,cards,limited_time_offer}';
BEGIN
    -- An object of parts, unless a value of the body has the name of a part.
    IF jsonb_typeof(p_values) = 'object' AND p_values - v_parts = '{}'
        AND (jsonb_typeof(p_values -> 'body') IN ('array', 'object') OR NOT p_names && v_parts)
    THEN
        header := p_values -> 'header';
        body := p_values -> 'body';
        buttons := p_values -> 'buttons';
        cards := p_values -> 'cards';
        offer := p_values -> 'limited_time_offer';
    ELSIF p_template.is_plain THEN
        body := p_values;
    ELSE
        SELECT s.header, s.body, s.buttons, s.cards, s.offer INTO header, body, buttons, cards, offer
        FROM _wa_spread_template_values(p_template, p_values) s;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_allot_template_values(wa_templates, jsonb, text[]) IS
'Internal: which values are for which part: as they are given by part, else all for the body where only that '
'takes any, else spread over the template.';

-- Cloud API, Authentication templates: a code has up to 15 characters and stands in body and button alike.
CREATE OR REPLACE FUNCTION _wa_template_code_problem(p_components jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_code CONSTANT text := jsonb_path_query_first(
        p_components, '$[*] ? (@.type == "body").parameters[0].text'
    ) #>> '{}';
    v_button CONSTANT text := jsonb_path_query_first(
        p_components, '$[*] ? (@.type == "button").parameters[0].text'
    ) #>> '{}';
BEGIN
    RETURN CASE
        WHEN v_button IS NULL THEN NULL
        WHEN char_length(v_code) > 15 THEN ARRAY['WA007', 'the code is longer than 15 characters',
            'Meta takes codes of up to 15 characters.']
        WHEN v_button IS DISTINCT FROM v_code THEN ARRAY['WA008', 'the button has another code than the body',
            'Leave buttons out: the code of the body goes there, too.']
    END;
END
$$;

COMMENT ON FUNCTION _wa_template_code_problem(jsonb) IS
'Internal: what is wrong with the code of an authentication template; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_build_template(
    p_template wa_templates, p_params jsonb, OUT components jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_named boolean := p_template.parameter_format = 'NAMED';
    v_count integer := cardinality(p_template.body_placeholders);
    v_params jsonb := coalesce(nullif(p_params, 'null'), '[]');
    v_built record;
BEGIN
    components := '[]';
    IF NOT v_is_named AND p_template.is_plain
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

    IF jsonb_typeof(v_params) NOT IN ('array', 'object') THEN
        problem := ARRAY['WA005', 'template_params is neither a JSON array nor an object',
            'Give an array of the body''s values in order, or an object by the declared names.'];
        RETURN;
    END IF;
    -- Values of a shape that nobody thought of are one row's fault: they must not stop a claim.
    BEGIN
        IF _wa_are_template_components(v_params) THEN
            v_built := _wa_ready_template(p_template, v_params);
        ELSE
            v_built := _wa_fill_template(p_template, v_params);
        END IF;
        components := v_built.components;
        problem := v_built.problem;
        IF problem IS NULL AND p_template.category = 'AUTHENTICATION' THEN
            problem := _wa_template_code_problem(components);
        END IF;
    EXCEPTION WHEN data_exception THEN
        problem := ARRAY['WA008', 'the values cannot be read: ' || SQLERRM,
            'Give {"header": ..., "body": [...], "buttons": [...]}, or the components of the Cloud API.'];
    END;
END
$$;

COMMENT ON FUNCTION _wa_build_template(wa_templates, jsonb) IS
'Internal: the components array of the request, or what is wrong with the values.';

CREATE OR REPLACE FUNCTION _wa_fill_template(
    p_template wa_templates, p_values jsonb, OUT components jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_named boolean := p_template.parameter_format = 'NAMED';
    v_count integer := cardinality(p_template.body_placeholders);
    v_names text[];
    v_given record;
    v_part record;
    v_header jsonb;
    v_body jsonb;
    v_offer jsonb;
    v_cards jsonb;
    v_buttons jsonb;
BEGIN
    v_names := CASE WHEN v_is_named THEN p_template.body_placeholders
        WHEN p_template.parameters = '[]' THEN '{}' ELSE ARRAY(
        SELECT coalesce(d.value ->> 'name', d.value #>> '{}')
        FROM jsonb_array_elements(p_template.parameters) WITH ORDINALITY d (value, place)
        ORDER BY d.place
    ) END;
    v_given := _wa_allot_template_values(p_template, p_values, v_names);
    IF v_given.header IS NOT NULL OR p_template.header_placeholders <> '{}'
        OR p_template.header_format <> 'TEXT'
    THEN
        v_part := _wa_template_header(p_template, v_given.header);
        v_header := v_part.component;
        problem := v_part.problem;
    END IF;
    IF problem IS NULL THEN
        v_part := _wa_template_values(v_given.body, v_count, v_names, 'body');
        v_body := v_part.list;
        problem := v_part.problem;
    END IF;
    IF problem IS NULL AND (v_given.offer IS NOT NULL OR _wa_template_takes_offer(p_template)) THEN
        v_part := _wa_template_offer(p_template, v_given.offer);
        v_offer := v_part.component;
        problem := v_part.problem;
    END IF;
    IF problem IS NULL AND (v_given.cards IS NOT NULL OR _wa_template_cards(p_template) IS NOT NULL) THEN
        v_part := _wa_template_carousel(p_template, v_given.cards);
        v_cards := v_part.component;
        problem := v_part.problem;
    END IF;
    IF p_template.category = 'AUTHENTICATION' AND v_given.buttons IS NULL
        AND _wa_template_all_buttons(p_template) <> '[]'
    THEN
        v_given.buttons := jsonb_build_array(v_body -> 0);
    END IF;
    IF problem IS NULL AND (v_given.buttons IS NOT NULL OR p_template.buttons <> '[]') THEN
        v_part := _wa_template_buttons(p_template, v_given.buttons);
        v_buttons := v_part.list;
        problem := v_part.problem;
    END IF;
    IF problem IS NULL THEN
        components := jsonb '[]' || coalesce(v_header, '[]') || coalesce(v_offer, '[]')
            || CASE WHEN v_count > 0 THEN jsonb_build_object('type', 'body', 'parameters',
                _wa_template_text_parameters(
                    v_body, CASE WHEN v_is_named THEN p_template.body_placeholders END
                ))
            ELSE '[]' END
            || coalesce(v_buttons, '[]') || coalesce(v_cards, '[]');
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_fill_template(wa_templates, jsonb) IS
'Internal: the components array of the request from values in their short form, or what is wrong with them.';

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

CREATE OR REPLACE FUNCTION _wa_queued_params(
    p_type text, p_content jsonb, p_params jsonb, p_fallback_params jsonb
) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_type <> 'template' THEN p_fallback_params
    WHEN p_content ? 'components' THEN p_content -> 'components'
    ELSE p_params
END;

COMMENT ON FUNCTION _wa_queued_params(text, jsonb, jsonb, jsonb) IS
'Internal: the values that a queued message gives to its template, or to its fall-back.';

CREATE OR REPLACE FUNCTION _wa_unknown_template_problem(
    p_org uuid, p_name text, p_language text, p_waba_id text
) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT ARRAY[
        format('template "%s" is not known%s', left(p_name, 100),
            CASE WHEN count(*) > 0 THEN format(' in language "%s"', left(p_language, 20)) ELSE '' END),
        coalesce('It exists in: ' || string_agg(DISTINCT t.language, ', ' ORDER BY t.language)
            || '. Ask for one of these, or choose one for all with wa_organizations.default_language.',
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
