-- Interactive messages: buttons, lists, flows, products. Counting rules as in content.sql.

CREATE FUNCTION _wa_check_header(p_header jsonb, p_types text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_header IS NULL THEN NULL
    WHEN jsonb_typeof(p_header) <> 'object' THEN 'interactive.header must be an object.'
    WHEN p_header ->> 'type' IS NULL OR p_header ->> 'type' <> ALL (p_types)
        THEN format('interactive.header.type must be %s here.', array_to_string(p_types, ', '))
    WHEN p_header ->> 'type' = 'text'
        THEN _wa_check_string(p_header -> 'text', 'interactive.header.text', 60, TRUE)
    ELSE _wa_check_media(p_header ->> 'type', p_header -> (p_header ->> 'type'),
        'interactive.header.' || (p_header ->> 'type'))
END;
COMMENT ON FUNCTION _wa_check_header(jsonb, text[]) IS
'What is wrong with the header of an interactive message that may be of some types only; NULL when fine or '
'absent.';

CREATE FUNCTION _wa_check_buttons(p_buttons jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_button jsonb;
    v_key    text;
    v_number int := 0;
    v_wrong  text;
    v_ids    text[] := ARRAY[]::text[];
    v_titles text[] := ARRAY[]::text[];
BEGIN
    IF jsonb_typeof(p_buttons) IS DISTINCT FROM 'array' THEN
        RETURN 'interactive.action.buttons must be an array.';
    ELSIF jsonb_array_length(p_buttons) NOT BETWEEN 1 AND 3 THEN
        RETURN format('interactive.action.buttons has %s elements; 1 to 3 are allowed.',
            jsonb_array_length(p_buttons));
    END IF;
    FOR v_button IN SELECT element FROM jsonb_array_elements(p_buttons) AS element LOOP
        v_key := format('interactive.action.buttons[%s]', v_number);
        IF v_button ->> 'type' IS DISTINCT FROM 'reply' THEN
            RETURN v_key || '.type must be reply.';
        END IF;
        v_wrong := coalesce(
            _wa_check_string(v_button #> '{reply,id}', v_key || '.reply.id', 256, TRUE),
            _wa_check_string(v_button #> '{reply,title}', v_key || '.reply.title', 20, TRUE)
        );
        IF v_wrong IS NOT NULL THEN
            RETURN v_wrong;
        ELSIF v_button #>> '{reply,id}' = ANY (v_ids) THEN
            RETURN v_key || '.reply.id is used twice.';
        ELSIF v_button #>> '{reply,title}' = ANY (v_titles) THEN
            RETURN v_key || '.reply.title is used twice.';
        END IF;
        v_ids := v_ids || (v_button #>> '{reply,id}');
        v_titles := v_titles || (v_button #>> '{reply,title}');
        v_number := v_number + 1;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION _wa_check_buttons(jsonb) IS
'What is wrong with the reply buttons of an interactive message; NULL when fine.';

-- Lists have sections of rows, product lists have sections of products: same frame, other elements.
CREATE FUNCTION _wa_check_sections(p_sections jsonb, p_element text, p_max_elements int) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_section  jsonb;
    v_element  jsonb;
    v_key      text;
    v_row_key  text;
    v_number   int := 0;
    v_place    int;
    v_elements int := 0;
    v_wrong    text;
    v_ids      text[] := ARRAY[]::text[];
BEGIN
    IF jsonb_typeof(p_sections) IS DISTINCT FROM 'array' THEN
        RETURN 'interactive.action.sections must be an array.';
    ELSIF jsonb_array_length(p_sections) NOT BETWEEN 1 AND 10 THEN
        RETURN format('interactive.action.sections has %s elements; 1 to 10 are allowed.',
            jsonb_array_length(p_sections));
    END IF;
    FOR v_section IN SELECT element FROM jsonb_array_elements(p_sections) AS element LOOP
        v_key := format('interactive.action.sections[%s]', v_number);
        v_wrong := _wa_check_string(
            v_section -> 'title', v_key || '.title', 24, jsonb_array_length(p_sections) > 1);
        IF v_wrong IS NOT NULL THEN
            RETURN v_wrong;
        ELSIF jsonb_typeof(v_section -> p_element) IS DISTINCT FROM 'array'
            OR v_section -> p_element = '[]' THEN
            RETURN format('%s.%s must be an array that is not empty.', v_key, p_element);
        END IF;
        v_place := 0;
        FOR v_element IN SELECT element FROM jsonb_array_elements(v_section -> p_element) AS element LOOP
            v_row_key := format('%s.%s[%s]', v_key, p_element, v_place);
            IF p_element = 'rows' THEN
                v_wrong := coalesce(
                    _wa_check_string(v_element -> 'id', v_row_key || '.id', 200, TRUE),
                    _wa_check_string(v_element -> 'title', v_row_key || '.title', 24, TRUE),
                    _wa_check_string(v_element -> 'description', v_row_key || '.description', 72, FALSE),
                    CASE WHEN v_element ->> 'id' = ANY (v_ids) THEN v_row_key || '.id is used twice.' END
                );
                v_ids := v_ids || (v_element ->> 'id');
            ELSE
                v_wrong := _wa_check_string(
                    v_element -> 'product_retailer_id', v_row_key || '.product_retailer_id', 512, TRUE);
            END IF;
            IF v_wrong IS NOT NULL THEN
                RETURN v_wrong;
            END IF;
            v_place := v_place + 1;
        END LOOP;
        v_elements := v_elements + v_place;
        v_number := v_number + 1;
    END LOOP;
    IF v_elements > p_max_elements THEN
        RETURN format('interactive.action.sections has %s %s in total; at most %s are allowed.',
            v_elements, p_element, p_max_elements);
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION _wa_check_sections(jsonb, text, int) IS
'What is wrong with the sections of a list (rows) or product list (product_items); NULL when fine.';

CREATE FUNCTION _wa_check_flow(p_parameters jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(p_parameters) IS DISTINCT FROM 'object'
        THEN 'interactive.action.parameters must be an object.'
    WHEN (p_parameters ? 'flow_id') = (p_parameters ? 'flow_name')
        THEN 'interactive.action.parameters must have either flow_id or flow_name.'
    WHEN p_parameters ->> 'flow_message_version' IS DISTINCT FROM '3'
        THEN 'interactive.action.parameters.flow_message_version must be "3".'
    WHEN p_parameters ->> 'mode' NOT IN ('draft', 'published')
        THEN 'interactive.action.parameters.mode must be draft or published.'
    WHEN p_parameters ->> 'flow_action' NOT IN ('navigate', 'data_exchange')
        THEN 'interactive.action.parameters.flow_action must be navigate or data_exchange.'
    ELSE _wa_check_string(p_parameters -> 'flow_cta', 'interactive.action.parameters.flow_cta', 30, TRUE)
END;
COMMENT ON FUNCTION _wa_check_flow(jsonb) IS
'What is wrong with the action parameters of a flow message; NULL when fine.';

CREATE FUNCTION _wa_check_action(p_type text, p_action jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_type = 'button' THEN _wa_check_buttons(p_action -> 'buttons')
    WHEN p_type = 'list' THEN coalesce(
        _wa_check_string(p_action -> 'button', 'interactive.action.button', 20, TRUE),
        _wa_check_sections(p_action -> 'sections', 'rows', 10)
    )
    WHEN p_type = 'product_list' THEN coalesce(
        _wa_check_string(p_action -> 'catalog_id', 'interactive.action.catalog_id', 512, TRUE),
        _wa_check_sections(p_action -> 'sections', 'product_items', 30)
    )
    WHEN p_type = 'product' THEN coalesce(
        _wa_check_string(p_action -> 'catalog_id', 'interactive.action.catalog_id', 512, TRUE),
        _wa_check_string(
            p_action -> 'product_retailer_id', 'interactive.action.product_retailer_id', 512, TRUE)
    )
    WHEN p_type IN ('cta_url', 'flow', 'catalog_message', 'location_request_message')
        AND p_action ->> 'name' IS DISTINCT FROM
            CASE p_type WHEN 'location_request_message' THEN 'send_location' ELSE p_type END
        THEN format('interactive.action.name must be %s.',
            CASE p_type WHEN 'location_request_message' THEN 'send_location' ELSE p_type END)
    WHEN p_type = 'cta_url' THEN coalesce(
        _wa_check_string(
            p_action #> '{parameters,display_text}', 'interactive.action.parameters.display_text', 20, TRUE),
        _wa_check_link(p_action #> '{parameters,url}', 'interactive.action.parameters.url')
    )
    WHEN p_type = 'flow' THEN _wa_check_flow(p_action -> 'parameters')
END;
COMMENT ON FUNCTION _wa_check_action(text, jsonb) IS
'What is wrong with the action of an interactive message of a type; NULL when fine or the type is not '
'known.';

CREATE FUNCTION _wa_check_interactive(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_content -> 'type', 'interactive.type', 100, TRUE),
    CASE WHEN p_content ->> 'type' = 'product' AND p_content ? 'header'
        THEN 'interactive.header is not allowed: a product message has none.' END,
    CASE WHEN p_content ->> 'type' = 'product_list' AND NOT p_content ? 'header'
        THEN 'interactive.header is missing.' END,
    _wa_check_header(p_content -> 'header', CASE p_content ->> 'type'
        WHEN 'list' THEN ARRAY['text']
        WHEN 'product_list' THEN ARRAY['text']
        ELSE ARRAY['text', 'image', 'video', 'document'] END),
    -- Of the types without limits known here, only the frame is checked.
    CASE WHEN p_content ? 'body' OR p_content ->> 'type' IN (
        'button', 'list', 'cta_url', 'flow', 'location_request_message', 'product_list', 'catalog_message')
        THEN _wa_check_string(p_content #> '{body,text}', 'interactive.body.text',
            CASE WHEN p_content ->> 'type' = 'list' THEN 4096 ELSE 1024 END, TRUE) END,
    CASE WHEN p_content ? 'footer'
        THEN _wa_check_string(p_content #> '{footer,text}', 'interactive.footer.text', 60, TRUE) END,
    CASE WHEN jsonb_typeof(p_content -> 'action') IS DISTINCT FROM 'object'
        THEN 'interactive.action must be an object.' END,
    _wa_check_action(p_content ->> 'type', p_content -> 'action')
);
COMMENT ON FUNCTION _wa_check_interactive(jsonb) IS
'What is wrong with the content of an interactive message; NULL when fine. Types not known here pass with '
'body and action.';

-- PL/pgSQL, because an SQL function that cannot be inlined starts an executor at each call: four times the
-- cost.
CREATE FUNCTION _wa_check_content(p_type text, p_content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
BEGIN
    IF p_type = 'contacts' THEN
        RETURN _wa_check_contacts(p_content);
    ELSIF jsonb_typeof(p_content) IS DISTINCT FROM 'object' THEN
        RETURN format('the content of a message of type %s must be an object.', coalesce(p_type, 'NULL'));
    ELSIF p_type = 'text' THEN
        -- What is fine is told by operators alone, the words are looked for only when something is wrong.
        RETURN CASE WHEN jsonb_typeof(p_content -> 'body') = 'string' AND length(p_content ->> 'body') <= 4096
            AND p_content ->> 'body' ~ '\S' AND NOT p_content ? 'preview_url'
            THEN NULL ELSE _wa_check_text(p_content) END;
    ELSIF p_type IN ('image', 'video', 'document', 'audio', 'sticker') THEN
        -- A file of wa_media is named by its own id; the provider's takes the place of that when it goes.
        IF NOT p_content ? 'media_id' THEN
            RETURN _wa_check_media(p_type, p_content, p_type);
        ELSIF p_content ? 'id' OR p_content ? 'link' THEN
            RETURN p_type || ' must have one of media_id, id and link.';
        ELSIF p_content ->> 'media_id' !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
            RETURN p_type || '.media_id must be the id of a row of wa_media.';
        END IF;
        RETURN _wa_check_media(p_type, p_content - 'media_id' || '{"id": "x"}', p_type);
    ELSIF p_type = 'location' THEN
        RETURN _wa_check_location(p_content);
    ELSIF p_type = 'reaction' THEN
        RETURN _wa_check_reaction(p_content);
    ELSIF p_type = 'interactive' THEN
        RETURN _wa_check_interactive(p_content);
    ELSIF p_type = 'template' THEN
        RETURN coalesce(
            _wa_check_string(p_content -> 'name', 'template.name', 512, TRUE),
            _wa_check_string(p_content #> '{language,code}', 'template.language.code', 20, TRUE),
            CASE WHEN p_content ? 'components' AND jsonb_typeof(p_content -> 'components') <> 'array'
                THEN 'template.components must be an array.' END
        );
    END IF;
    RETURN format('%s is no type of message that can be sent.', coalesce(quote_literal(p_type), 'NULL'));
END;
$$;
COMMENT ON FUNCTION _wa_check_content(text, jsonb) IS
'What is wrong with the content of a message of a type, the object that the Cloud API takes beside "type"; '
'NULL when fine.';
