-- The parts of marketing templates that lie beside header, body and buttons: the cards of a carousel, each a
-- small template of its own, and the end of a limited-time offer.

CREATE OR REPLACE FUNCTION _wa_template_cards(p_template wa_templates) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_path_query_first((p_template).components, '$[*].cards');

COMMENT ON FUNCTION _wa_template_cards(wa_templates) IS
'Internal: the cards of a template''s carousel, NULL where it has none.';

CREATE OR REPLACE FUNCTION _wa_template_takes_offer(p_template wa_templates) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (p_template).components @? '$[*].limited_time_offer.has_expiration ? (@ == true)';

COMMENT ON FUNCTION _wa_template_takes_offer(wa_templates) IS
'Internal: whether a template shows the end of a limited-time offer, which each message gives.';

CREATE OR REPLACE FUNCTION _wa_card_template(p_template wa_templates, p_card jsonb) RETURNS wa_templates
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    p_template.components := coalesce(p_card -> 'components', '[]');
    p_template.body_text := '';
    p_template.parameters := '[]';
    RETURN _wa_template_derived(_wa_template_in_parts(p_template, NULL));
END
$$;

COMMENT ON FUNCTION _wa_card_template(wa_templates, jsonb) IS
'Internal: a card of a carousel as a template: what is true of those is true of it.';

-- Media cards are sent as they were approved, all of them; product cards only follow one pattern, 2 to 10.
CREATE OR REPLACE FUNCTION _wa_template_card_count_problem(p_cards jsonb, p_given integer) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_given = jsonb_array_length(p_cards) THEN NULL
    WHEN p_cards @? '$[0].components[*].format ? (@ like_regex "^product$" flag "i")' THEN
        CASE WHEN p_given NOT BETWEEN 2 AND 10 THEN ARRAY[
            CASE WHEN p_given < 2 THEN 'WA003' ELSE 'WA004' END,
            format('the carousel takes 2 to 10 product cards, %s given', p_given),
            'Give {"cards": [{...}, {...}]}.'
        ] END
    ELSE ARRAY[
        CASE WHEN p_given < jsonb_array_length(p_cards) THEN 'WA003' ELSE 'WA004' END,
        format('the carousel takes %s cards, %s given', jsonb_array_length(p_cards), p_given),
        format('Give {"body": [...], "cards": [{"header": {"link": "https://..."}, "body": [...], "buttons": '
            '[...]}, ...]}, one for each of its %s cards.', jsonb_array_length(p_cards))
    ]
END;

COMMENT ON FUNCTION _wa_template_card_count_problem(jsonb, integer) IS
'Internal: that so many cards do not fit a carousel; NULL when they do.';

CREATE OR REPLACE FUNCTION _wa_template_carousel(
    p_template wa_templates, p_given jsonb, OUT component jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_cards CONSTANT jsonb := _wa_template_cards(p_template);
    v_given CONSTANT jsonb := coalesce(nullif(p_given, 'null'), '[]');
    v_list jsonb := '[]';
    v_seen integer[] := '{}';
    v_card jsonb;
    v_place integer;
    v_built record;
BEGIN
    IF v_cards IS NULL THEN
        IF v_given NOT IN ('[]', '{}') THEN
            problem := ARRAY['WA004', 'cards are given, but the template has no carousel', 'Leave them out.'];
        END IF;
        RETURN;
    ELSIF jsonb_typeof(v_given) <> 'array' OR v_given @? 'strict $[*] ? (@.type() != "object")' THEN
        problem := ARRAY['WA008', 'cards must be an array of objects, one for each card',
            'Give {"cards": [{"header": {...}, "body": [...], "buttons": [...]}, ...]}.'];
        RETURN;
    END IF;
    problem := _wa_template_card_count_problem(v_cards, jsonb_array_length(v_given));
    FOR v_no IN 0 .. jsonb_array_length(v_given) - 1 LOOP
        EXIT WHEN problem IS NOT NULL;
        v_card := v_given -> v_no;
        IF coalesce(v_card ->> 'card_index', v_no::text) !~ '^[0-9]$' THEN
            problem := ARRAY['WA008', format('card %s: card_index must be 0 to 9', v_no),
                'Leave card_index out: the cards go in their order.'];
            EXIT;
        END IF;
        v_place := coalesce(v_card ->> 'card_index', v_no::text)::integer;
        IF v_place = ANY (v_seen) OR v_place >= jsonb_array_length(v_given) THEN
            problem := ARRAY['WA004', format('card %s is given twice, or there is none', v_place),
                'Leave card_index out: the cards go in their order.'];
            EXIT;
        END IF;
        v_built := _wa_build_template(
            _wa_card_template(p_template, v_cards -> least(v_place, jsonb_array_length(v_cards) - 1)),
            CASE WHEN v_card ? 'components' THEN v_card -> 'components' ELSE v_card - 'card_index' END
        );
        IF v_built.problem IS NOT NULL THEN
            problem := ARRAY[
                v_built.problem[1], format('card %s: %s', v_place, v_built.problem[2]), v_built.problem[3]
            ];
        END IF;
        v_seen := v_seen || v_place;
        v_list := v_list || jsonb_build_object('card_index', v_place, 'components', v_built.components);
    END LOOP;
    IF problem IS NULL THEN
        component := jsonb_build_object('type', 'carousel', 'cards', v_list);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_template_carousel(wa_templates, jsonb) IS
'Internal: the component of a carousel; each card takes what a template of its parts takes.';

-- A time without a zone would mean another one to each session that reads it.
CREATE OR REPLACE FUNCTION _wa_offer_end(p_given jsonb) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_text CONSTANT text := p_given #>> '{}';
BEGIN
    IF v_text ~ '^[0-9]{1,15}$' THEN
        RETURN v_text::bigint;
    ELSIF v_text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$' THEN
        RETURN floor(extract(epoch FROM v_text::timestamptz) * 1000);
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_offer_end(jsonb) IS
'Internal: when an offer ends, in milliseconds since 1970, from such a number or a time with its zone; NULL '
'for anything else.';

CREATE OR REPLACE FUNCTION _wa_template_offer(
    p_template wa_templates, p_given jsonb, OUT component jsonb, OUT problem text[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_hint CONSTANT text := 'Give {"body": [...], "limited_time_offer": "2030-12-31T23:59:59Z"}, or '
        'milliseconds since 1970.';
    v_given jsonb := nullif(CASE WHEN jsonb_typeof(p_given) = 'array' AND jsonb_array_length(p_given) = 1
        THEN p_given -> 0 ELSE p_given END, 'null');
    v_end bigint;
BEGIN
    IF NOT _wa_template_takes_offer(p_template) THEN
        IF v_given NOT IN ('[]', '{}') THEN
            problem := ARRAY['WA004', 'an end is given for an offer, but the template shows none',
                'Leave limited_time_offer out.'];
        END IF;
        RETURN;
    ELSIF v_given IS NULL OR v_given IN ('[]', '{}') THEN
        problem := ARRAY['WA003', 'the limited-time offer needs its end', v_hint];
        RETURN;
    END IF;
    v_given := coalesce(v_given -> 'limited_time_offer', v_given);
    v_end := _wa_offer_end(coalesce(v_given -> 'expiration_time_ms', v_given));
    IF v_end IS NULL THEN
        problem := ARRAY['WA008', 'the end of the limited-time offer is no time', v_hint];
        RETURN;
    END IF;
    component := jsonb_build_object('type', 'limited_time_offer', 'parameters', jsonb_build_array(
        jsonb_build_object('type', 'limited_time_offer', 'limited_time_offer',
            jsonb_build_object('expiration_time_ms', v_end))
    ));
END
$$;

COMMENT ON FUNCTION _wa_template_offer(wa_templates, jsonb) IS
'Internal: the component that gives a limited-time offer its end.';
