-- Files of your own, to be sent: registered once, named by queued messages as often as you like.

CREATE OR REPLACE FUNCTION _wa_refuse_own(
    p_mime_type text, p_size bigint, p_found text, p_is_looked_at boolean DEFAULT true
) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_type text := _wa_media_type_of(p_mime_type);
    v_problem text := CASE
        WHEN p_mime_type IS NULL THEN 'the type of the file is not known'
        WHEN p_mime_type !~ '^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; *[a-z]+=[A-Za-z0-9._-]+)*$'
            THEN format('%s is no MIME type', quote_literal(left(p_mime_type, 100)))
        WHEN p_is_looked_at
            AND _wa_is_disguised(v_type, _wa_plain_mime_type(p_mime_type), _wa_plain_mime_type(p_found))
            THEN format('the file is said to be %s, its bytes are %s', left(p_mime_type, 100),
                coalesce(p_found, 'of no known type'))
        WHEN v_type = 'audio' AND _wa_plain_mime_type(p_found) = 'audio/ogg' AND p_found !~ 'codecs=opus'
            THEN 'of Ogg files WhatsApp takes those with Opus in them'
        ELSE _wa_file_problem(v_type, p_mime_type, p_size)
    END;
BEGIN
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA033',
            MESSAGE = v_problem,
            DETAIL = format('It has %s bytes.', p_size),
            HINT = 'Images: JPEG, PNG up to 5 MB; audio: AAC, AMR, MP3, MP4, Ogg with Opus, and video: '
                'MP4, 3GPP up to 16 MB; stickers: WebP up to 500 KB; documents of any other type up to 100 MB.';
    END IF;
    RETURN v_type;
END
$$;

COMMENT ON FUNCTION _wa_refuse_own(text, bigint, text, boolean) IS
'Internal: as which message type a file goes; raises WA033 for one that WhatsApp would not take. '
'p_is_looked_at: p_found is what its bytes look like.';

CREATE OR REPLACE FUNCTION _wa_add_own(
    p_org uuid, p_blob_id uuid, p_mime_type text, p_filename text, p_media_type text
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id uuid;
BEGIN
    SELECT m.id INTO v_id FROM wa_media m
    WHERE m.blob_id = p_blob_id AND m.organization_id = p_org AND m.direction = 'outbound'
        AND m.message_id IS NULL AND m.mime_type = p_mime_type AND m.filename IS NOT DISTINCT FROM p_filename
        AND m.expires_at IS NULL
    ORDER BY m.id LIMIT 1
    FOR NO KEY UPDATE;
    IF v_id IS NOT NULL THEN
        UPDATE wa_media m SET used_at = clock_timestamp() WHERE m.organization_id = p_org AND m.id = v_id;
        RETURN v_id;
    END IF;
    INSERT INTO wa_media (
        organization_id, direction, media_type, mime_type, filename, file_size, sha256, status,
        next_attempt_at, stored_at, blob_id
    )
    SELECT p_org, 'outbound', p_media_type, p_mime_type, p_filename, b.size, b.sha256, 'stored', NULL,
        clock_timestamp(), b.id
    FROM wa_media_blobs b WHERE b.organization_id = p_org AND b.id = p_blob_id
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_add_own(uuid, uuid, text, text, text) IS
'Internal: the row of a file of an application, the same one for the same bytes, type and name.';

CREATE OR REPLACE FUNCTION create_wa_media(
    p_content bytea, p_mime_type text, p_filename text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_type text;
BEGIN
    IF p_content IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004',
            MESSAGE = 'there are no bytes to store',
            DETAIL = 'p_content is NULL.',
            HINT = 'Give the bytes of the file; bin/wa media upload FILE takes a file of any size.';
    END IF;
    -- What the bytes are is not looked at here: the caller's word counts, and the provider looks.
    v_type := _wa_refuse_own(p_mime_type, octet_length(p_content), NULL, false);
    RETURN _wa_add_own(v_org, _wa_put_blob(v_org, p_content, true), p_mime_type, p_filename, v_type);
END
$$;

COMMENT ON FUNCTION create_wa_media(bytea, text, text) IS
'Keeps a file of yours, in the database, to be sent: type document, image, … with content {"media_id": ID}. '
'Returns its id, that of before for the same bytes, type and name; raises WA033 for what WhatsApp does not '
'take.';

CREATE OR REPLACE FUNCTION begin_wa_media(
    p_sha256 bytea, p_size bigint, p_mime_type text, p_filename text, p_found text,
    OUT media_id uuid, OUT blob_id uuid, OUT store text, OUT location text, OUT object_key text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_type text := _wa_refuse_own(p_mime_type, p_size, p_found);
    v_mime_type text := _wa_settled_mime_type(v_type, p_mime_type, p_found);
    v_there uuid := _wa_find_blob(v_org, p_sha256, p_size, true);
BEGIN
    IF v_there IS NOT NULL THEN
        media_id := _wa_add_own(v_org, v_there, v_mime_type, p_filename, v_type);
        RETURN;
    END IF;
    SELECT s.store, s.location INTO store, location FROM _wa_store_of(v_org) s;
    blob_id := _wa_begin_blob(v_org, p_sha256, p_size, true, store, location);
    object_key := _wa_object_key(v_org, blob_id);
END
$$;

COMMENT ON FUNCTION begin_wa_media(bytea, bigint, text, text, text) IS
'For programs that keep a large file of yours: its hash, size, type, name, and the MIME type found in its '
'bytes (NULL: none is known). Either media_id is set, for the same bytes are there; or they are to be '
'written to the store (in the database by append_wa_media(), else as object_key below location), then '
'finish_wa_media(). Raises WA033 for what WhatsApp does not take.';

CREATE OR REPLACE FUNCTION append_wa_media(p_blob_id uuid, p_n integer, p_content bytea) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_write_chunk(_wa_caller_organization(), p_blob_id, p_n, p_content, true)
$$;

COMMENT ON FUNCTION append_wa_media(uuid, integer, bytea) IS
'The n-th mebibyte (from 0) of bytes that begin_wa_media() asked for; the last one is what is left. May be '
'repeated; false where no such part is awaited.';

CREATE OR REPLACE FUNCTION finish_wa_media(p_blob_id uuid, p_mime_type text, p_filename text, p_found text)
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_blob_id uuid := _wa_finish_blob(v_org, p_blob_id, true);
BEGIN
    IF v_blob_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA031',
            MESSAGE = 'not all bytes of the file are there',
            DETAIL = format('They are those of %s.', coalesce(p_blob_id::text, 'NULL')),
            HINT = 'append_wa_media() writes them, a mebibyte a call; or begin anew with begin_wa_media().';
    END IF;
    RETURN (
        SELECT _wa_add_own(
            v_org, v_blob_id, _wa_settled_mime_type(t.media_type, p_mime_type, p_found), p_filename,
            t.media_type
        )
        FROM wa_media_blobs b
        CROSS JOIN LATERAL (SELECT _wa_refuse_own(p_mime_type, b.size, p_found) AS media_type) t
        WHERE b.organization_id = v_org AND b.id = v_blob_id
    );
END
$$;

COMMENT ON FUNCTION finish_wa_media(uuid, text, text, text) IS
'All bytes that begin_wa_media() asked for are written: the id of the file.';

-- Told, not raised: all bad rows of a statement are refused in one error.
CREATE OR REPLACE FUNCTION _wa_named_file_problem(p_org uuid, p_type text, p_media_id text) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN m.id IS NULL OR m.status <> 'stored' OR m.expires_at <= clock_timestamp() THEN ARRAY[
            'WA031', format('there is no file %s that could be sent', quote_literal(left(p_media_id, 100))),
            'create_wa_media() or bin/wa media upload gives the id of one; SELECT id, status FROM wa_media;'
        ]
        WHEN _wa_file_problem(p_type, m.mime_type, m.file_size) IS NOT NULL THEN ARRAY[
            'WA033', _wa_file_problem(p_type, m.mime_type, m.file_size),
            'SELECT id, media_type, mime_type, file_size FROM wa_media; media_type says as what it goes.'
        ]
    END
    FROM (SELECT) one
    LEFT JOIN wa_media m ON m.organization_id = p_org AND m.id = CASE
        WHEN p_media_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN p_media_id::uuid
    END
$$;

COMMENT ON FUNCTION _wa_named_file_problem(uuid, text, text) IS
'Internal: why a message of a type cannot carry a file of wa_media: SQLSTATE, sentence and hint; NULL when '
'it can.';

-- The locks keep cleaning up away until the rows that name the files are committed.
CREATE OR REPLACE FUNCTION _wa_use_media(p_org uuid, p_media_ids text[], p_until timestamptz[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_media m SET used_at = greatest(m.used_at, u.until)
    FROM (
        SELECT n.id::uuid AS id, max(n.until) AS until FROM unnest(p_media_ids, p_until) n (id, until)
        WHERE n.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' AND isfinite(n.until)
        GROUP BY n.id
        ORDER BY n.id
    ) u
    WHERE m.organization_id = p_org AND m.id = u.id
        -- Not for each of a thousand messages.
        AND (m.used_at IS NULL OR m.used_at < u.until - interval '1 hour');
    PERFORM FROM wa_media m
    WHERE m.organization_id = p_org AND m.id = ANY (ARRAY(
        SELECT n.id::uuid FROM unnest(p_media_ids) n (id)
        WHERE n.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    ))
    ORDER BY m.id
    FOR KEY SHARE;
END
$$;

COMMENT ON FUNCTION _wa_use_media(uuid, text[], timestamptz[]) IS
'Internal: messages with these files are being queued, and are due then.';
