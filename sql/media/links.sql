-- Links by which files may be had: made, looked at, opened.

-- A file of your own is of no number: it may have gone to anybody.
CREATE OR REPLACE FUNCTION _wa_is_reachable_file(p_file wa_media) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN NOT _wa_is_test_only() OR EXISTS (
    SELECT FROM wa_phone_numbers n
    WHERE n.organization_id = (p_file).organization_id AND n.phone_number_id = (p_file).phone_number_id
        AND n.is_test
);

COMMENT ON FUNCTION _wa_is_reachable_file(wa_media) IS
'Internal: whether the request may reach a file: with a test key those that came to test numbers only.';

CREATE OR REPLACE FUNCTION _wa_create_media_signature(
    p_org uuid, p_media_id uuid, p_max_access integer, p_ttl_minutes integer,
    OUT id uuid, OUT token text, OUT path text, OUT expires_at timestamptz, OUT url text
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_max_access IS NULL OR p_max_access < 1 OR p_ttl_minutes IS NULL OR p_ttl_minutes < 1 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a link cannot be opened %s times within %s minutes',
                coalesce(p_max_access::text, 'NULL'), coalesce(p_ttl_minutes::text, 'NULL')),
            DETAIL = 'p_max_access and p_ttl_minutes are counts.',
            HINT = 'Both are at least 1.';
    END IF;
    -- Two UUIDs hold 244 bits from the server's strong random numbers: nobody guesses them, so that a plain
    -- hash hides them.
    id := gen_random_uuid();
    token := encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex');
    path := format('/api/whatsapp/media/%s?token=%s', id, token);
    url := coalesce(_wa_public_url(p_org), '') || path;
    expires_at := clock_timestamp() + make_interval(mins => p_ttl_minutes);
    INSERT INTO wa_media_signatures (
        organization_id, id, media_id, message_id, token_hash, max_access, expires_at
    )
    SELECT m.organization_id, _wa_create_media_signature.id, m.id, m.message_id,
        sha256(convert_to(_wa_create_media_signature.token, 'UTF8')), p_max_access,
        _wa_create_media_signature.expires_at
    FROM wa_media m
    WHERE m.organization_id = p_org AND m.id = p_media_id AND m.status IN ('pending', 'on_demand', 'stored')
        AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp()) AND _wa_is_reachable_file(m);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA031',
            MESSAGE = 'there is no such file, or its bytes are gone',
            DETAIL = format('The file is %s.', coalesce(p_media_id::text, 'NULL')),
            HINT = 'SELECT id, message_id, status, error FROM wa_media;';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_create_media_signature(uuid, uuid, integer, integer) IS
'Internal: makes a link to a file; raises WA031 where there is none to be had.';

-- A file of yours is named by the messages with it, of which it knows none.
CREATE OR REPLACE FUNCTION _wa_file_of_message(p_org uuid, p_message_id bigint) RETURNS uuid
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(
        (
            SELECT m.id FROM wa_media m
            WHERE m.organization_id = p_org AND m.message_id = p_message_id
        ),
        (
            SELECT m.id FROM wa_messages w
            JOIN wa_media m ON m.organization_id = w.organization_id
                AND m.id::text = _wa_named_file(w.message_type, w.content)
            WHERE w.organization_id = p_org AND w.id = p_message_id
        )
    )
$$;

COMMENT ON FUNCTION _wa_file_of_message(uuid, bigint) IS
'Internal: the file of a message, whoever sent it; NULL where it has none here.';

CREATE OR REPLACE FUNCTION create_wa_media_signature(
    message_id bigint, max_access integer DEFAULT 1, ttl_minutes integer DEFAULT 60
) RETURNS TABLE (id uuid, token text, path text, expires_at timestamptz, url text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    RETURN QUERY
    SELECT * FROM _wa_create_media_signature(
        v_org, _wa_file_of_message(v_org, message_id), max_access, ttl_minutes
    );
END
$$;

COMMENT ON FUNCTION create_wa_media_signature(bigint, integer, integer) IS
'A link to the file of a message, which can be opened max_access times within ttl_minutes: its id, its token '
'(told only here), the path under which the web server gives the file out, and the same as url, behind the '
'public_url of the organization or else the installation where one is set.';

CREATE OR REPLACE FUNCTION create_wa_media_signature(
    media_id uuid, max_access integer DEFAULT 1, ttl_minutes integer DEFAULT 60
) RETURNS TABLE (id uuid, token text, path text, expires_at timestamptz, url text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM _wa_create_media_signature(_wa_caller_organization(), media_id, max_access, ttl_minutes);
END
$$;

COMMENT ON FUNCTION create_wa_media_signature(uuid, integer, integer) IS
'The same for a file of wa_media by its own id.';

-- The token is what authorises, whoever brings it; a wrong one answers as an unknown link does.
CREATE OR REPLACE FUNCTION verify_wa_media_signature(p_id uuid, p_token text) RETURNS TABLE (
    outcome text, media_id uuid, mime_type text, filename text, file_size bigint, accesses_left integer,
    expires_at timestamptz, sha256 text, is_inline boolean, store text, location text, object_key text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT
        CASE
            WHEN s.id IS NULL THEN 'not_found'
            WHEN s.expires_at <= clock_timestamp() THEN 'expired'
            WHEN s.access_count >= s.max_access THEN 'used_up'
            WHEN m.expires_at <= clock_timestamp() THEN 'gone'
            WHEN m.status IN ('pending', 'on_demand') THEN 'not_ready'
            WHEN m.status = 'stored' THEN 'ok'
            ELSE 'gone'
        END,
        m.id, m.mime_type, m.filename, m.file_size, s.max_access - s.access_count, s.expires_at,
        encode(m.sha256, 'hex'), coalesce(_wa_is_inline(m.mime_type), false), b.store, b.location,
        _wa_object_key(b.organization_id, b.id)
    FROM (SELECT) one
    LEFT JOIN wa_media_signatures s ON s.id = p_id AND s.token_hash = sha256(convert_to(p_token, 'UTF8'))
    LEFT JOIN wa_media m ON m.organization_id = s.organization_id AND m.id = s.media_id
    LEFT JOIN wa_media_blobs b ON b.organization_id = m.organization_id AND b.id = m.blob_id
$$;

COMMENT ON FUNCTION verify_wa_media_signature(uuid, text) IS
'What opening a link would give, without counting: ok; not_ready, the file is yet to be fetched; expired, '
'used_up, gone (the file was deleted); not_found, also for a wrong token. is_inline: a browser may show it; '
'store, location and object_key: where its bytes are. For the web server.';

-- A player asks for a file in many parts, often for the first one twice. Who asks for a part of what he has
-- just opened goes on with it: the same address and program, within a quarter of an hour. A request for the
-- whole always counts, and so does a part for anybody else.
CREATE OR REPLACE FUNCTION open_wa_media(
    p_id uuid, p_token text, p_source text DEFAULT NULL, p_agent text DEFAULT NULL,
    p_is_part boolean DEFAULT false
) RETURNS TABLE (
    outcome text, media_id uuid, mime_type text, filename text, file_size bigint, accesses_left integer,
    expires_at timestamptz, sha256 text, is_inline boolean, store text, location text, object_key text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '20ms'
AS $$
#variable_conflict use_column
DECLARE
    v_signature wa_media_signatures;
    v_now timestamptz;
    v_client bytea;
    v_is_continued boolean := false;
BEGIN
    -- Who opens the link at the same time waits here, and counts in the next statement, which sees what the
    -- first left. An application that has the link locked is not waited for: others open theirs meanwhile.
    -- Whoever asked comes again, and has no connection in between.
    SELECT * INTO v_signature FROM wa_media_signatures s
    WHERE s.id = p_id AND s.token_hash = sha256(convert_to(p_token, 'UTF8'))
    FOR NO KEY UPDATE;
    v_now := clock_timestamp();

    SELECT v.outcome, v.media_id, v.mime_type, v.filename, v.file_size, v.accesses_left, v.expires_at,
        v.sha256, v.is_inline, v.store, v.location, v.object_key
    INTO outcome, media_id, mime_type, filename, file_size, accesses_left, expires_at, sha256, is_inline,
        store, location, object_key
    FROM verify_wa_media_signature(p_id, p_token) v;
    IF v_signature.id IS NOT NULL THEN
        v_client := sha256(
            v_signature.token_hash || convert_to(format('%s %s', p_source, left(p_agent, 1000)), 'UTF8')
        );
    END IF;
    IF p_is_part AND outcome IN ('ok', 'used_up') THEN
        UPDATE wa_media_openings o SET requests = o.requests + 1
        FROM wa_media m
        WHERE o.organization_id = v_signature.organization_id AND o.signature_id = p_id
            AND o.client_hash = v_client AND o.opened_at > v_now - interval '15 minutes'
            AND m.organization_id = v_signature.organization_id AND m.id = v_signature.media_id
            AND m.status = 'stored' AND coalesce(m.expires_at, 'infinity') > v_now;
        v_is_continued := FOUND;
    END IF;
    IF v_is_continued THEN
        outcome := 'ok';
    ELSIF outcome = 'ok' THEN
        UPDATE wa_media_signatures s SET
            access_count = s.access_count + 1, last_accessed_at = v_now
        WHERE s.organization_id = v_signature.organization_id AND s.id = v_signature.id;
        INSERT INTO wa_media_openings AS o (organization_id, signature_id, client_hash, opened_at)
        VALUES (v_signature.organization_id, p_id, v_client, v_now)
        ON CONFLICT (organization_id, signature_id, client_hash) DO UPDATE
        SET opened_at = excluded.opened_at, requests = o.requests + 1;
        accesses_left := accesses_left - 1;
        PERFORM _wa_audit(v_signature.organization_id, 'media_opened', 'wa_media', v_signature.media_id::text,
            jsonb_strip_nulls(jsonb_build_object('signature_id', v_signature.id,
                'message_id', v_signature.message_id, 'accesses_left', accesses_left,
                'source', left(p_source, 200))));
    END IF;
    IF outcome <> 'ok' THEN
        store := NULL;
        location := NULL;
        object_key := NULL;
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION open_wa_media(uuid, text, text, text, boolean) IS
'Opens a link, for whoever asks from an address with a program: where the bytes are (in the database: '
'read_wa_media() has them) with outcome ok, which counts and leaves an audit row; else one of the other '
'outcomes of verify_wa_media_signature(). However many ask at once, it opens max_access times. p_is_part: a '
'part is asked for; from who has opened it within the last 15 minutes that does not count again, also where '
'the link is used up by now. For the web server.';

CREATE OR REPLACE FUNCTION read_wa_media(
    p_id uuid, p_token text, p_offset bigint DEFAULT 0, p_length integer DEFAULT 1048576
) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_read_blob(m.organization_id, m.blob_id, p_offset, p_length)
    FROM wa_media_signatures s
    JOIN wa_media m ON m.organization_id = s.organization_id AND m.id = s.media_id
    WHERE s.id = p_id AND s.token_hash = sha256(convert_to(p_token, 'UTF8')) AND EXISTS (
        SELECT FROM wa_media_openings o
        WHERE o.organization_id = s.organization_id AND o.signature_id = s.id
            AND o.opened_at > clock_timestamp() - interval '1 hour'
    )
$$;

COMMENT ON FUNCTION read_wa_media(uuid, text, bigint, integer) IS
'Bytes of a file in the database by a link that was opened within the last hour: from an offset to the end '
'of the mebibyte at most; NULL behind the last, and for any other link. For the web server.';

CREATE OR REPLACE FUNCTION delete_wa_media(p_media_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_now timestamptz := clock_timestamp();
    v_status text;
BEGIN
    UPDATE wa_media m SET expires_at = least(m.expires_at, v_now)
    WHERE m.organization_id = v_org AND m.id = p_media_id AND m.status <> 'deleted'
        AND _wa_is_reachable_file(m)
    RETURNING m.status INTO v_status;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA031',
            MESSAGE = 'there is no such file, or its bytes are gone',
            DETAIL = format('The file is %s.', coalesce(p_media_id::text, 'NULL')),
            HINT = 'SELECT id, message_id, status, error FROM wa_media;';
    END IF;
    UPDATE wa_media_signatures s SET expires_at = v_now
    WHERE s.organization_id = v_org AND s.media_id = p_media_id AND s.expires_at > v_now;
    PERFORM _wa_audit(v_org, 'media_deleted', 'wa_media', p_media_id::text,
        jsonb_build_object('status', v_status));
    RETURN v_status;
END
$$;

COMMENT ON FUNCTION delete_wa_media(uuid) IS
'Deletes a file: its links open nothing from now on, its bytes go with the next job "cleanup", or once no '
'queued message names it any more. Audited. Returns the state that it had; raises WA031 where there is none.';
