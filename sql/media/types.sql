-- What WhatsApp takes as a file: types and sizes (Cloud API, Media), and whether bytes are what they are
-- said to be. What the bytes are is looked up by the process that has them
-- (bin/pg_whatsapp/media_types.py).

CREATE OR REPLACE FUNCTION _wa_plain_mime_type(p_mime_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lower(btrim(split_part(p_mime_type, ';', 1)));

COMMENT ON FUNCTION _wa_plain_mime_type(text) IS
'Internal: a MIME type without its parameters, in lower case.';

CREATE OR REPLACE FUNCTION _wa_media_limit(p_media_type text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_media_type
    WHEN 'image' THEN 5 << 20
    WHEN 'audio' THEN 16 << 20
    WHEN 'video' THEN 16 << 20
    WHEN 'document' THEN 100 << 20
    -- An animated one; what stands still may have 100 KB, which Meta looks at.
    WHEN 'sticker' THEN 500 << 10
END;

COMMENT ON FUNCTION _wa_media_limit(text) IS
'Internal: how many bytes a file of a message type may have; NULL for a type that has no file.';

CREATE OR REPLACE FUNCTION _wa_media_type_of(p_mime_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN _wa_plain_mime_type(p_mime_type) IN ('image/jpeg', 'image/png') THEN 'image'
    WHEN _wa_plain_mime_type(p_mime_type) = 'image/webp' THEN 'sticker'
    WHEN _wa_plain_mime_type(p_mime_type) IN ('video/mp4', 'video/3gpp') THEN 'video'
    WHEN _wa_plain_mime_type(p_mime_type)
        IN ('audio/aac', 'audio/amr', 'audio/mpeg', 'audio/mp4', 'audio/ogg') THEN 'audio'
    -- Others of these families are refused, by the API itself, too.
    WHEN _wa_plain_mime_type(p_mime_type) !~ '^(image|video|audio)/' THEN 'document'
END;

COMMENT ON FUNCTION _wa_media_type_of(text) IS
'Internal: as which message type a file goes by itself; NULL where WhatsApp takes none such.';

-- p_found NULL: the bytes look like nothing that is known. Sound has forms without a mark of their own, so
-- only what is evidently something else is refused there.
CREATE OR REPLACE FUNCTION _wa_is_disguised(p_media_type text, p_told text, p_found text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_found IN ('application/x-msdownload', 'application/x-executable')
        THEN p_media_type <> 'document' OR coalesce(p_told, p_found) <> p_found
    WHEN p_media_type = 'image' OR p_told LIKE 'image/%' AND p_media_type = 'document'
        THEN p_found IS NULL OR p_found NOT LIKE 'image/%'
    WHEN p_media_type = 'sticker' THEN p_found IS DISTINCT FROM 'image/webp'
    WHEN p_media_type = 'video' OR p_told LIKE 'video/%' AND p_media_type = 'document'
        THEN p_found IS NULL OR p_found NOT LIKE 'video/%'
    WHEN p_media_type = 'audio' OR p_told LIKE 'audio/%'
        -- A container tells little of what is in it.
        THEN p_found NOT LIKE 'audio/%' AND p_found NOT IN ('video/mp4', 'video/3gpp', 'application/ogg')
    WHEN p_told = 'application/pdf' THEN p_found IS DISTINCT FROM 'application/pdf'
    WHEN p_told LIKE 'application/vnd.openxmlformats-officedocument.%'
        THEN p_found IS NULL
            OR p_found NOT LIKE 'application/vnd.openxmlformats-officedocument.%'
            AND p_found <> 'application/zip'
    WHEN p_told LIKE 'text/%' THEN p_found NOT LIKE 'text/%'
    ELSE false
END;

COMMENT ON FUNCTION _wa_is_disguised(text, text, text) IS
'Internal: whether bytes are evidently not what they are said to be: the message type, the MIME type as '
'told, and the one that was found in them (both plain).';

-- The type that the bytes have, where that says more than what was told.
CREATE OR REPLACE FUNCTION _wa_settled_mime_type(p_media_type text, p_told text, p_found text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_found IS NULL OR p_media_type = 'document' AND p_told IS NOT NULL
        OR p_media_type = 'audio' AND p_told IS NOT NULL AND p_found NOT LIKE 'audio/%' THEN p_told
    WHEN _wa_plain_mime_type(p_told) = _wa_plain_mime_type(p_found) THEN p_told
    ELSE p_found
END;

COMMENT ON FUNCTION _wa_settled_mime_type(text, text, text) IS
'Internal: the MIME type under which a file is kept.';

CREATE OR REPLACE FUNCTION _wa_file_problem(p_media_type text, p_mime_type text, p_size bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN _wa_media_type_of(p_mime_type) IS NULL
        THEN format('WhatsApp takes no files of the type %s', left(p_mime_type, 100))
    WHEN p_media_type <> 'document' AND _wa_media_type_of(p_mime_type) <> p_media_type
        THEN format('a file of the type %s cannot go as %s', left(p_mime_type, 100), p_media_type)
    WHEN p_size NOT BETWEEN 1 AND _wa_media_limit(p_media_type)
        THEN format('the file has %s bytes; as %s it may have 1 to %s', p_size, p_media_type,
            _wa_media_limit(p_media_type))
END;

COMMENT ON FUNCTION _wa_file_problem(text, text, bigint) IS
'Internal: why WhatsApp would not take a file as a message of a type; NULL when it does.';

CREATE OR REPLACE FUNCTION _wa_named_file(p_type text, p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_type IN ('image', 'video', 'document', 'audio', 'sticker') THEN p_content ->> 'media_id'
END;

COMMENT ON FUNCTION _wa_named_file(text, jsonb) IS
'Internal: the file of wa_media that a queued message names, as text; NULL where it names none.';

-- What a browser shows by itself and that cannot act.
CREATE OR REPLACE FUNCTION _wa_is_inline(p_mime_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN _wa_plain_mime_type(p_mime_type) IN (
    'image/jpeg', 'image/png', 'image/webp', 'video/mp4', 'video/3gpp', 'audio/aac', 'audio/amr',
    'audio/mpeg', 'audio/mp4', 'audio/ogg'
);

COMMENT ON FUNCTION _wa_is_inline(text) IS
'Internal: whether a browser may show a file in its place; everything else is handed over to be saved.';

CREATE OR REPLACE FUNCTION _wa_read_sha256(p_text text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_text ~ '^[0-9A-Fa-f]{64}$' THEN decode(p_text, 'hex')
    WHEN p_text ~ '^[0-9A-Za-z+/]{43}=$' THEN decode(p_text, 'base64')
END;

COMMENT ON FUNCTION _wa_read_sha256(text) IS
'Internal: a SHA-256 in Base64, as webhooks have it, or in hexadecimal, as the Graph API has it; else NULL.';

CREATE OR REPLACE FUNCTION _wa_media_backoff(p_attempts integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(interval '1 minute' * 2 ^ least(greatest(p_attempts - 1, 0), 20), interval '6 hours');

COMMENT ON FUNCTION _wa_media_backoff(integer) IS
'Internal: how long a file rests after so many failures: a minute, then twice as long each time, up to six '
'hours.';
