-- What the Cloud API accepts as the content of a message. Lengths are counted in characters (Unicode code
-- points), as length() does. Every check answers NULL when all is well, else one sentence that names the key
-- and the limit.

CREATE FUNCTION _wa_check_string(p_value jsonb, p_key text, p_max int, p_required boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_value IS NULL OR jsonb_typeof(p_value) = 'null'
        THEN CASE WHEN p_required THEN p_key || ' is missing.' END
    WHEN jsonb_typeof(p_value) <> 'string' THEN p_key || ' must be a string.'
    WHEN p_required AND p_value #>> '{}' ~ '^\s*$' THEN p_key || ' must not be empty.'
    WHEN length(p_value #>> '{}') > p_max
        THEN format('%s has %s characters; at most %s are allowed.', p_key, length(p_value #>> '{}'), p_max)
END;
COMMENT ON FUNCTION _wa_check_string(jsonb, text, int, boolean) IS
'What is wrong with a string of at most p_max characters; NULL when fine. A required one must not be blank.';

CREATE FUNCTION _wa_check_text(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_content -> 'body', 'text.body', 4096, TRUE),
    CASE WHEN p_content ? 'preview_url' AND jsonb_typeof(p_content -> 'preview_url') <> 'boolean'
        THEN 'text.preview_url must be true or false.' END
);
COMMENT ON FUNCTION _wa_check_text(jsonb) IS
'What is wrong with the content of a text message; NULL when fine.';

CREATE FUNCTION _wa_check_link(p_value jsonb, p_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_value, p_key, 2000, TRUE),
    CASE WHEN p_value #>> '{}' !~* '^https?://[^\s/?#]+\S*$'
        THEN p_key || ' must be an http or https URL.' END
);
COMMENT ON FUNCTION _wa_check_link(jsonb, text) IS
'What is wrong with a URL that Meta or the customer shall open; NULL when fine.';

CREATE FUNCTION _wa_check_media(p_type text, p_content jsonb, p_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(p_content) IS DISTINCT FROM 'object' THEN p_key || ' must be an object.'
    WHEN p_content ? 'id' AND p_content ? 'link' THEN p_key || ' must have id or link, not both.'
    WHEN NOT p_content ? 'id' AND NOT p_content ? 'link' THEN p_key || ' must have id or link.'
    WHEN p_content ? 'caption' AND p_type IN ('audio', 'sticker')
        THEN format('%s.caption is not allowed: a message of type %s has no caption.', p_key, p_type)
    WHEN p_content ? 'filename' AND p_type <> 'document' THEN p_key || '.filename is for documents only.'
    WHEN p_content ? 'voice' AND (p_type <> 'audio' OR jsonb_typeof(p_content -> 'voice') <> 'boolean')
        THEN p_key || '.voice is true or false, for audio only.'
    ELSE coalesce(
        CASE WHEN p_content ? 'id' THEN _wa_check_string(p_content -> 'id', p_key || '.id', 512, TRUE)
            ELSE _wa_check_link(p_content -> 'link', p_key || '.link') END,
        _wa_check_string(p_content -> 'caption', p_key || '.caption', 1024, FALSE),
        _wa_check_string(p_content -> 'filename', p_key || '.filename', 1024, FALSE)
    )
END;
COMMENT ON FUNCTION _wa_check_media(text, jsonb, text) IS
'What is wrong with an image, video, document, audio or sticker (by id or by link); NULL when fine.';

CREATE FUNCTION _wa_check_coordinate(p_value jsonb, p_key text, p_limit int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_value IS NULL OR jsonb_typeof(p_value) = 'null' THEN p_key || ' is missing.'
    WHEN jsonb_typeof(p_value) NOT IN ('number', 'string')
        OR p_value #>> '{}' !~ '^[+-]?[0-9]{1,3}(\.[0-9]{1,30})?$'
        THEN p_key || ' must be a number in degrees.'
    WHEN abs((p_value #>> '{}')::numeric) > p_limit
        THEN format('%s must lie between -%s and %2$s.', p_key, p_limit)
END;
COMMENT ON FUNCTION _wa_check_coordinate(jsonb, text, int) IS
'What is wrong with a latitude or longitude (number, or number in a string); NULL when fine.';

CREATE FUNCTION _wa_check_location(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_coordinate(p_content -> 'latitude', 'location.latitude', 90),
    _wa_check_coordinate(p_content -> 'longitude', 'location.longitude', 180),
    _wa_check_string(p_content -> 'name', 'location.name', 1000, FALSE),
    _wa_check_string(p_content -> 'address', 'location.address', 1000, FALSE)
);
COMMENT ON FUNCTION _wa_check_location(jsonb) IS
'What is wrong with the content of a location message; NULL when fine.';

CREATE FUNCTION _wa_check_reaction(p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    _wa_check_string(p_content -> 'message_id', 'reaction.message_id', 512, TRUE),
    CASE WHEN jsonb_typeof(p_content -> 'emoji') IS DISTINCT FROM 'string'
        THEN 'reaction.emoji must be a string ("" takes the reaction back).' END,
    _wa_check_string(p_content -> 'emoji', 'reaction.emoji', 64, FALSE)
);
COMMENT ON FUNCTION _wa_check_reaction(jsonb) IS
'What is wrong with the content of a reaction; NULL when fine.';

CREATE FUNCTION _wa_check_contacts(p_content jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact jsonb;
    v_list    text;
    v_number  int := 0;
    v_wrong   text;
BEGIN
    IF jsonb_typeof(p_content) IS DISTINCT FROM 'array' THEN
        RETURN 'contacts must be an array.';
    ELSIF jsonb_array_length(p_content) NOT BETWEEN 1 AND 257 THEN
        RETURN format('contacts has %s elements; 1 to 257 are allowed.', jsonb_array_length(p_content));
    END IF;
    FOR v_contact IN SELECT element FROM jsonb_array_elements(p_content) AS element LOOP
        IF jsonb_typeof(v_contact) <> 'object' THEN
            RETURN format('contacts[%s] must be an object.', v_number);
        END IF;
        v_wrong := _wa_check_string(v_contact #> '{name,formatted_name}',
            format('contacts[%s].name.formatted_name', v_number), 1024, TRUE);
        IF v_wrong IS NOT NULL THEN
            RETURN v_wrong;
        END IF;
        FOREACH v_list IN ARRAY ARRAY['phones', 'emails', 'urls', 'addresses'] LOOP
            IF v_contact ? v_list AND jsonb_typeof(v_contact -> v_list) <> 'array' THEN
                RETURN format('contacts[%s].%s must be an array.', v_number, v_list);
            END IF;
        END LOOP;
        IF v_contact ? 'birthday' AND v_contact ->> 'birthday' !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' THEN
            RETURN format('contacts[%s].birthday must be a date of the form YYYY-MM-DD.', v_number);
        END IF;
        v_number := v_number + 1;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION _wa_check_contacts(jsonb) IS
'What is wrong with the content of a contacts message; NULL when fine.';

-- 1024 is the limit of a whole body; a single value cannot be longer.
CREATE FUNCTION _wa_check_template_text(p_value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_value IS NULL THEN 'a template parameter is missing.'
    WHEN p_value ~ '^\s*$' THEN 'a template parameter must not be empty.'
    WHEN p_value ~ '[\n\r\t\v\f]' THEN 'a template parameter must not contain a newline or a tab.'
    WHEN p_value LIKE '%     %' THEN 'a template parameter must not contain more than 4 spaces in a row.'
    WHEN length(p_value) > 1024
        THEN format('a template parameter has %s characters; at most 1024 are allowed.', length(p_value))
END;
COMMENT ON FUNCTION _wa_check_template_text(text) IS
'What is wrong with the text of a template parameter; NULL when fine.';

CREATE FUNCTION _wa_template_placeholders(p_text text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(array_agg(found.name ORDER BY found.number, found.place), '{}')
    FROM (
        SELECT match.parts[1] AS name, min(match.place) AS place,
            CASE WHEN match.parts[1] ~ '^[0-9]{1,4}$' THEN match.parts[1]::int END AS number
        FROM regexp_matches(p_text, '\{\{\s*([A-Za-z0-9_]+)\s*\}\}', 'g')
            WITH ORDINALITY AS match (parts, place)
        GROUP BY match.parts[1]
    ) AS found;
END;
COMMENT ON FUNCTION _wa_template_placeholders(text) IS
'The distinct placeholders of a template text: numbers in their order, names in order of appearance; {} for '
'none.';
