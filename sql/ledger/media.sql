-- Files of messages: fetching them from the provider, and links by which they may be had.

CREATE OR REPLACE FUNCTION _wa_read_sha256(p_text text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_text ~ '^[0-9A-Fa-f]{64}$' THEN decode(p_text, 'hex')
    WHEN p_text ~ '^[0-9A-Za-z+/]{43}=$' THEN decode(p_text, 'base64')
END;

COMMENT ON FUNCTION _wa_read_sha256(text) IS
'Internal: a SHA-256 in Base64, as webhooks have it, or in hexadecimal, as the Graph API has it; else NULL.';

-- What the provider hands over is claimed before it is fetched; who dies with it loses it to the next when
-- the lease is over. SKIP LOCKED: two who claim at once get different files.
CREATE OR REPLACE FUNCTION claim_wa_media(
    p_limit integer DEFAULT 10, p_lease interval DEFAULT interval '5 minutes'
) RETURNS TABLE (
    organization_id uuid, media_id uuid, phone_number_id text, provider_media_id text, sha256 bytea,
    attempt integer
)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    WITH due AS MATERIALIZED (
        SELECT m.organization_id, m.id FROM wa_media m
        WHERE m.status = 'pending' AND m.next_attempt_at <= clock_timestamp()
        ORDER BY m.next_attempt_at
        LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE wa_media m SET attempts = m.attempts + 1, next_attempt_at = clock_timestamp() + p_lease
    FROM due d
    WHERE m.organization_id = d.organization_id AND m.id = d.id
    RETURNING m.organization_id, m.id, m.phone_number_id, m.provider_media_id, m.sha256, m.attempts
$$;

COMMENT ON FUNCTION claim_wa_media(integer, interval) IS
'Files to be fetched from the provider now, each given to one caller for the time of the lease. To be ended '
'with store_wa_media() or fail_wa_media(). For dispatchers.';

CREATE OR REPLACE FUNCTION fail_wa_media(
    p_organization_id uuid, p_media_id uuid, p_error text, p_is_final boolean DEFAULT false
) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_media m SET
        status = CASE WHEN n.is_final THEN 'failed' ELSE 'pending' END,
        next_attempt_at = CASE WHEN NOT n.is_final THEN n.next_at END,
        error = p_error
    FROM (
        SELECT w.next_at, p_is_final OR w.next_at > f.created_at + interval '7 days' AS is_final
        FROM wa_media f
        -- A minute, then twice as long each time, up to six hours.
        CROSS JOIN LATERAL (
            SELECT clock_timestamp() + least(
                interval '1 minute' * 2 ^ least(f.attempts - 1, 20), interval '6 hours'
            ) AS next_at
        ) w
        WHERE f.organization_id = p_organization_id AND f.id = p_media_id
    ) n
    WHERE m.organization_id = p_organization_id AND m.id = p_media_id AND m.status = 'pending'
    RETURNING m.status
$$;

COMMENT ON FUNCTION fail_wa_media(uuid, uuid, text, boolean) IS
'A file could not be fetched: it is tried again later and later, unless that is final or the provider no '
'longer has it. Returns pending or failed; NULL for a file that is not pending.';

CREATE OR REPLACE FUNCTION store_wa_media(
    p_organization_id uuid, p_media_id uuid, p_content bytea, p_mime_type text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_media wa_media;
BEGIN
    IF p_content IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004',
            MESSAGE = 'there are no bytes to store',
            DETAIL = format('The file is %s.', p_media_id),
            HINT = 'fail_wa_media() says that a file could not be fetched.';
    END IF;
    -- The lock makes the second of two who fetched the same file find it stored.
    SELECT * INTO v_media FROM wa_media m
    WHERE m.organization_id = p_organization_id AND m.id = p_media_id AND m.status = 'pending'
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_media.sha256 <> sha256(p_content) THEN
        RETURN fail_wa_media(p_organization_id, p_media_id, 'the bytes do not have the hash that was told');
    END IF;
    INSERT INTO wa_media_contents (organization_id, media_id, content)
    VALUES (p_organization_id, p_media_id, p_content);
    UPDATE wa_media m SET
        status = 'stored', next_attempt_at = NULL, error = NULL, stored_at = clock_timestamp(),
        sha256 = sha256(p_content), file_size = octet_length(p_content),
        mime_type = coalesce(m.mime_type, p_mime_type)
    WHERE m.organization_id = p_organization_id AND m.id = p_media_id;
    RETURN 'stored';
END
$$;

COMMENT ON FUNCTION store_wa_media(uuid, uuid, bytea, text) IS
'Keeps the bytes of a file that was fetched. Returns stored; pending or failed where they do not have the '
'hash that the provider told, as fail_wa_media(); NULL for a file that is not pending.';

CREATE OR REPLACE FUNCTION _wa_create_media_signature(
    p_org uuid, p_media_id uuid, p_max_access integer, p_ttl_minutes integer,
    OUT id uuid, OUT token text, OUT path text, OUT expires_at timestamptz
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
    expires_at := clock_timestamp() + make_interval(mins => p_ttl_minutes);
    INSERT INTO wa_media_signatures (
        organization_id, id, media_id, message_id, token_hash, max_access, expires_at
    )
    SELECT m.organization_id, _wa_create_media_signature.id, m.id, m.message_id,
        sha256(convert_to(_wa_create_media_signature.token, 'UTF8')), p_max_access,
        _wa_create_media_signature.expires_at
    FROM wa_media m
    WHERE m.organization_id = p_org AND m.id = p_media_id AND m.status IN ('pending', 'stored')
        AND (m.expires_at IS NULL OR m.expires_at > clock_timestamp());
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

CREATE OR REPLACE FUNCTION create_wa_media_signature(
    message_id bigint, max_access integer DEFAULT 1, ttl_minutes integer DEFAULT 60
) RETURNS TABLE (id uuid, token text, path text, expires_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    RETURN QUERY
    SELECT * FROM _wa_create_media_signature(
        v_org,
        (
            SELECT m.id FROM wa_media m
            WHERE m.organization_id = v_org AND m.message_id = create_wa_media_signature.message_id
        ),
        max_access, ttl_minutes
    );
END
$$;

COMMENT ON FUNCTION create_wa_media_signature(bigint, integer, integer) IS
'A link to the file of a message, which can be opened max_access times within ttl_minutes: its id, its token '
'(told only here) and the path under which the web server gives the file out.';

CREATE OR REPLACE FUNCTION create_wa_media_signature(
    media_id uuid, max_access integer DEFAULT 1, ttl_minutes integer DEFAULT 60
) RETURNS TABLE (id uuid, token text, path text, expires_at timestamptz)
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
    expires_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT
        CASE
            WHEN s.id IS NULL THEN 'not_found'
            WHEN s.expires_at <= clock_timestamp() THEN 'expired'
            WHEN s.access_count >= s.max_access THEN 'used_up'
            WHEN m.expires_at <= clock_timestamp() THEN 'gone'
            WHEN m.status = 'pending' THEN 'not_ready'
            WHEN m.status = 'stored' THEN 'ok'
            ELSE 'gone'
        END,
        m.id, m.mime_type, m.filename, m.file_size, s.max_access - s.access_count, s.expires_at
    FROM (SELECT) one
    LEFT JOIN wa_media_signatures s ON s.id = p_id AND s.token_hash = sha256(convert_to(p_token, 'UTF8'))
    LEFT JOIN wa_media m ON m.organization_id = s.organization_id AND m.id = s.media_id
$$;

COMMENT ON FUNCTION verify_wa_media_signature(uuid, text) IS
'What opening a link would give, without counting: ok; not_ready, the file is yet to be fetched; expired, '
'used_up, gone (the file was deleted); not_found, also for a wrong token. For the web server.';

CREATE OR REPLACE FUNCTION open_wa_media(p_id uuid, p_token text) RETURNS TABLE (
    outcome text, content bytea, media_id uuid, mime_type text, filename text, file_size bigint,
    accesses_left integer, expires_at timestamptz
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_signature wa_media_signatures;
BEGIN
    -- Who opens the link at the same time waits here, and counts in the next statement, which sees what the
    -- first left.
    SELECT * INTO v_signature FROM wa_media_signatures s
    WHERE s.id = p_id AND s.token_hash = sha256(convert_to(p_token, 'UTF8'))
    FOR NO KEY UPDATE;

    SELECT v.outcome, v.media_id, v.mime_type, v.filename, v.file_size, v.accesses_left, v.expires_at
    INTO outcome, media_id, mime_type, filename, file_size, accesses_left, expires_at
    FROM verify_wa_media_signature(p_id, p_token) v;
    IF outcome = 'ok' THEN
        SELECT c.content INTO content FROM wa_media_contents c
        WHERE c.organization_id = v_signature.organization_id AND c.media_id = v_signature.media_id;
        UPDATE wa_media_signatures s SET
            access_count = s.access_count + 1, last_accessed_at = clock_timestamp()
        WHERE s.organization_id = v_signature.organization_id AND s.id = v_signature.id;
        accesses_left := accesses_left - 1;
        PERFORM _wa_audit(v_signature.organization_id, 'media_opened', 'wa_media', v_signature.media_id::text,
            jsonb_build_object('signature_id', v_signature.id, 'message_id', v_signature.message_id,
                'accesses_left', accesses_left));
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION open_wa_media(uuid, text) IS
'Opens a link: the bytes with outcome ok, which counts and leaves an audit row; else no bytes and one of the '
'other outcomes of verify_wa_media_signature(). However many ask at once, it opens max_access times. For the '
'web server.';

-- Locked rows are left for the next call.
CREATE OR REPLACE FUNCTION cleanup_expired_wa_media(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_rows integer;
    v_total integer;
BEGIN
    DELETE FROM wa_media_signatures s
    WHERE (s.organization_id, s.id) IN (
        SELECT e.organization_id, e.id FROM wa_media_signatures e
        WHERE e.expires_at <= v_now ORDER BY e.expires_at LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_total = ROW_COUNT;

    WITH expired AS MATERIALIZED (
        SELECT m.organization_id, m.id FROM wa_media m
        WHERE m.status = 'stored' AND m.expires_at <= v_now ORDER BY m.expires_at LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    emptied AS (
        DELETE FROM wa_media_contents c USING expired e
        WHERE c.organization_id = e.organization_id AND c.media_id = e.id
    )
    UPDATE wa_media m SET status = 'deleted' FROM expired e
    WHERE m.organization_id = e.organization_id AND m.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_total := v_total + v_rows;

    -- With the messages that they came with, and links to them, too.
    WITH expired AS MATERIALIZED (
        SELECT f.organization_id, f.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT m.organization_id, m.id FROM wa_media m
            WHERE m.organization_id = o.id AND m.id < _wa_uuid7_floor(v_now - o.message_retention)
                AND m.created_at < v_now - o.message_retention
            ORDER BY m.id LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        ) f
        LIMIT p_limit
    )
    DELETE FROM wa_media m USING expired e WHERE m.organization_id = e.organization_id AND m.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;

    -- Nobody fetched them while the provider had them.
    UPDATE wa_media m SET
        status = 'failed', next_attempt_at = NULL, error = 'the provider keeps a file for 7 days only'
    WHERE m.status = 'pending' AND m.next_attempt_at < v_now - interval '7 days';
    RETURN v_total + v_rows;
END
$$;

COMMENT ON FUNCTION cleanup_expired_wa_media(integer) IS
'Deletes links that expired, the bytes of files that expired, and files that are older than their '
'organization keeps messages, at most so many of each; returns how many. The job "cleanup" calls it.';
