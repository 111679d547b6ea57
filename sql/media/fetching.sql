-- Files that come in: fetched from the provider while it has them. A dispatcher claims a file, asks the
-- provider where it is, tells what it heard (begin_wa_media_download), has the bytes and says what they are
-- (begin_wa_media_store), writes them, and is done (finish_wa_media_store). Whoever dies on the way loses
-- the file to the next when the lease is over; an attempt that is not the latest changes nothing.

-- An id comes from outside and must not lead elsewhere.
CREATE OR REPLACE FUNCTION _wa_media_path(
    p_provider text, p_phone_number_id text, p_waba_id text, p_provider_media_id text
) RETURNS text
LANGUAGE sql STABLE
RETURN CASE WHEN p_provider_media_id ~ '^[A-Za-z0-9._:=-]{1,200}$' THEN (
    SELECT replace(replace(replace(
        _wa_fill_path(p.media_path, p_phone_number_id, p_waba_id), '{media}', p_provider_media_id
    ), '{media1}', split_part(p_provider_media_id, ':', 1)),
        '{media2}', split_part(p_provider_media_id, ':', 2))
    FROM wa_providers p WHERE p.name = p_provider
) END;

COMMENT ON FUNCTION _wa_media_path(text, text, text, text) IS
'Internal: the path of the request that tells where a file is; NULL for an id that is none.';

CREATE OR REPLACE FUNCTION _wa_file_media(
    p_org uuid, p_message_ids bigint[], p_contact_ids bigint[], p_directions text[],
    p_phone_number_ids text[], p_types text[], p_contents jsonb[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_media (
        organization_id, id, message_id, direction, phone_number_id, provider_media_id, media_type, mime_type,
        filename, sha256, contact_id
    )
    SELECT p_org, _wa_uuid7(clock_timestamp()), u.message_id, u.direction, u.phone_number_id,
        u.content ->> 'id', u.type, u.content ->> 'mime_type', u.content ->> 'filename',
        _wa_read_sha256(u.content ->> 'sha256'), u.contact_id
    FROM unnest(p_message_ids, p_contact_ids, p_directions, p_phone_number_ids, p_types, p_contents)
        u (message_id, contact_id, direction, phone_number_id, type, content);
    -- Webhooks are processed by one session at a time, so that this keeps no other from committing.
    PERFORM pg_notify('wa_media', '');
END
$$;

COMMENT ON FUNCTION _wa_file_media(uuid, bigint[], bigint[], text[], text[], text[], jsonb[]) IS
'Internal: the files of messages that came in, to be fetched; the contents are those of the webhook.';

CREATE OR REPLACE FUNCTION has_wa_media_work() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_media m WHERE m.status = 'pending' AND m.next_attempt_at <= clock_timestamp()
    ) OR EXISTS (
        SELECT FROM wa_media_uploads u WHERE u.status = 'pending' AND u.next_attempt_at <= clock_timestamp()
    ) OR EXISTS (
        SELECT FROM wa_media_garbage g WHERE g.due_at <= clock_timestamp()
    )
$$;

COMMENT ON FUNCTION has_wa_media_work() IS
'Whether files are to be fetched, uploaded or deleted now. For dispatchers.';

CREATE OR REPLACE FUNCTION _wa_most_files_each() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 4;

COMMENT ON FUNCTION _wa_most_files_each() IS
'Internal: how many files of an organization are fetched at once, and how many uploaded: its store, or its '
'provider, may let them wait.';

-- Each organization in turn: those that have fewest under way first, so that nobody's thousand files keep
-- another one waiting.
CREATE OR REPLACE FUNCTION claim_wa_media(
    p_limit integer DEFAULT 10, p_lease interval DEFAULT interval '1 minute'
) RETURNS TABLE (
    organization_id uuid, media_id uuid, attempt integer, phone_number_id text, provider text, path text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM _wa_require_installation();
    RETURN QUERY
    WITH waiting AS MATERIALIZED (
        SELECT o.id AS organization_id, f.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT count(*) AS under_way FROM wa_media m
            WHERE m.organization_id = o.id AND m.status = 'pending' AND m.next_attempt_at > v_now
                AND m.next_attempt_at <= v_now + p_lease AND m.leased_until > v_now
        ) b
        CROSS JOIN LATERAL (
            SELECT m.id, m.next_attempt_at FROM wa_media m
            WHERE m.organization_id = o.id AND m.status = 'pending' AND m.next_attempt_at <= v_now
            ORDER BY m.next_attempt_at
            LIMIT least(p_limit, greatest(_wa_most_files_each() - b.under_way, 0))
        ) f
        ORDER BY b.under_way + row_number() OVER (PARTITION BY o.id ORDER BY f.next_attempt_at),
            f.next_attempt_at
        LIMIT p_limit * 4
    ),
    due AS MATERIALIZED (
        SELECT l.organization_id, l.id
        FROM waiting w
        CROSS JOIN LATERAL (
            SELECT m.organization_id, m.id FROM wa_media m
            WHERE m.organization_id = w.organization_id AND m.id = w.id AND m.next_attempt_at <= v_now
            FOR NO KEY UPDATE SKIP LOCKED
        ) l
        LIMIT p_limit
    )
    UPDATE wa_media m
    SET attempts = m.attempts + 1, next_attempt_at = v_now + p_lease, leased_until = v_now + p_lease
    FROM due d
    LEFT JOIN LATERAL (
        SELECT n.provider, n.waba_id FROM wa_media f
        JOIN wa_phone_numbers n ON n.organization_id = f.organization_id
            AND n.phone_number_id = f.phone_number_id
        WHERE f.organization_id = d.organization_id AND f.id = d.id
    ) n ON true
    WHERE m.organization_id = d.organization_id AND m.id = d.id
    RETURNING m.organization_id, m.id, m.attempts, m.phone_number_id, coalesce(n.provider, 'meta'),
        _wa_media_path(coalesce(n.provider, 'meta'), m.phone_number_id, n.waba_id, m.provider_media_id);
END
$$;

COMMENT ON FUNCTION claim_wa_media(integer, interval) IS
'Files to be fetched from the provider now, each given to one caller for the time of the lease, which '
'renew_wa_media() prolongs: whom to ask (path, NULL where the id is none). For dispatchers.';

CREATE OR REPLACE FUNCTION renew_wa_media(
    p_organization_ids uuid[], p_media_ids uuid[], p_attempts integer[],
    p_lease interval DEFAULT interval '1 minute'
) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_media m
    SET next_attempt_at = clock_timestamp() + p_lease, leased_until = clock_timestamp() + p_lease
    FROM unnest(p_organization_ids, p_media_ids, p_attempts) u (organization_id, id, attempt)
    -- One that its owner has locked keeps nobody from holding the others.
    CROSS JOIN LATERAL (
        SELECT FROM wa_media x
        WHERE x.organization_id = u.organization_id AND x.id = u.id AND x.attempts = u.attempt
            AND x.leased_until IS NOT NULL
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
    WHERE m.organization_id = u.organization_id AND m.id = u.id
$$;

COMMENT ON FUNCTION renew_wa_media(uuid[], uuid[], integer[], interval) IS
'Prolongs the leases of files that are still being fetched.';

-- Its owner may have it locked for as long as he likes; others' files wait half a second for that, and this
-- one is begun anew when its lease is over.
CREATE OR REPLACE FUNCTION _wa_lock_fetch(p_org uuid, p_media_id uuid, p_attempt integer) RETURNS wa_media
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_media wa_media;
BEGIN
    SELECT m.* INTO v_media FROM wa_media m WHERE m.organization_id = p_org AND m.id = p_media_id
    FOR NO KEY UPDATE;
    IF v_media.status <> 'pending' OR v_media.attempts <> p_attempt THEN
        RETURN NULL;
    END IF;
    RETURN v_media;
END
$$;

COMMENT ON FUNCTION _wa_lock_fetch(uuid, uuid, integer) IS
'Internal: a file that is being fetched, locked; NULL where another attempt has it by now, or it is settled. '
'p_attempt NULL: whichever it is.';

CREATE OR REPLACE FUNCTION _wa_put_off(p_org uuid, p_media_id uuid, p_error text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_media m SET
        status = 'on_demand', next_attempt_at = NULL, leased_until = NULL, error = p_error
    WHERE m.organization_id = p_org AND m.id = p_media_id
$$;

COMMENT ON FUNCTION _wa_put_off(uuid, uuid, text) IS
'Internal: from now on a file is fetched only where somebody asks for it.';

-- Whoever asks waits for the lock of the organization's sum, and counts in statements after that, so that
-- files which begin at the same time see each other.
CREATE OR REPLACE FUNCTION _wa_quota_problem(p_media wa_media, p_size bigint) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_now timestamptz := clock_timestamp();
    v_bytes bigint;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = p_media.organization_id;
    IF p_media.is_wanted OR v_org.media_quota IS NULL AND v_org.media_contact_quota IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO wa_media_usages (organization_id) VALUES (v_org.id) ON CONFLICT DO NOTHING;
    PERFORM FROM wa_media_usages u WHERE u.organization_id = v_org.id FOR NO KEY UPDATE;
    IF v_org.media_quota IS NOT NULL THEN
        SELECT u.bytes + coalesce((
            SELECT sum(m.file_size) FROM wa_media m
            WHERE m.organization_id = v_org.id AND m.status = 'pending' AND m.leased_until > v_now
                AND m.id <> p_media.id
        ), 0) INTO v_bytes
        FROM wa_media_usages u WHERE u.organization_id = v_org.id;
        IF v_bytes + p_size > v_org.media_quota THEN
            RETURN format('quota: the organization keeps %s bytes of %s', v_bytes, v_org.media_quota);
        END IF;
    END IF;
    IF v_org.media_contact_quota IS NOT NULL THEN
        SELECT coalesce(sum(m.file_size), 0) INTO v_bytes FROM wa_media m
        WHERE m.contact_id = p_media.contact_id AND m.organization_id = v_org.id
            AND m.created_at > v_now - interval '24 hours' AND m.id <> p_media.id
            AND (m.status = 'stored' OR m.leased_until > v_now);
        IF v_bytes + p_size > v_org.media_contact_quota THEN
            RETURN format('quota: %s bytes of %s were fetched from the contact in 24 hours', v_bytes,
                v_org.media_contact_quota);
        END IF;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_quota_problem(wa_media, bigint) IS
'Internal: which quota a file of a size would exceed; NULL for none.';

-- What drips is given up long before its time is over.
CREATE OR REPLACE FUNCTION _wa_least_rate() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 16384;

COMMENT ON FUNCTION _wa_least_rate() IS
'Internal: how many bytes a second have to come of a file for it to be fetched on.';

CREATE OR REPLACE FUNCTION begin_wa_media_download(
    p_organization_id uuid, p_media_id uuid, p_attempt integer, p_size bigint, p_mime_type text,
    p_sha256 text, OUT verdict text, OUT max_size bigint, OUT timeout_s double precision,
    OUT least_per_s integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms'
AS $$
DECLARE
    v_media wa_media := _wa_lock_fetch(p_organization_id, p_media_id, p_attempt);
    v_problem text;
BEGIN
    IF v_media.id IS NULL THEN
        RETURN;
    END IF;
    max_size := _wa_media_limit(v_media.media_type);
    IF p_size > max_size THEN
        verdict := fail_wa_media(
            p_organization_id, p_media_id,
            format('the file has %s bytes; of type %s it may have %s', p_size, v_media.media_type, max_size),
            true, p_attempt
        );
        RETURN;
    END IF;
    -- What the provider does not tell is taken for as large as it may be.
    v_problem := _wa_quota_problem(v_media, coalesce(p_size, max_size));
    IF v_problem IS NOT NULL THEN
        UPDATE wa_media m SET file_size = p_size
        WHERE m.organization_id = p_organization_id AND m.id = p_media_id;
        PERFORM _wa_put_off(p_organization_id, p_media_id, v_problem);
        verdict := 'on_demand';
        RETURN;
    END IF;
    UPDATE wa_media m SET
        file_size = coalesce(p_size, max_size), mime_type = coalesce(m.mime_type, p_mime_type),
        sha256 = coalesce(m.sha256, _wa_read_sha256(p_sha256))
    WHERE m.organization_id = p_organization_id AND m.id = p_media_id;
    max_size := coalesce(p_size, max_size);
    least_per_s := _wa_least_rate();
    -- Half a minute, and what an eighth of a megabyte a second takes: far below what any provider gives.
    timeout_s := 30 + max_size / 131072.0;
    verdict := 'go';
END
$$;

COMMENT ON FUNCTION begin_wa_media_download(uuid, uuid, integer, bigint, text, text) IS
'What the provider says of a file that was claimed (NULLs where it does not). verdict go: no more than '
'max_size bytes are to be fetched, within timeout_s, and not slower than least_per_s over any ten seconds; '
'failed: it is larger than its type may be; on_demand: beyond a quota; NULL: it is no longer this '
'attempt''s.';

CREATE OR REPLACE FUNCTION begin_wa_media_store(
    p_organization_id uuid, p_media_id uuid, p_attempt integer, p_sha256 bytea, p_size bigint, p_found text,
    OUT verdict text, OUT blob_id uuid, OUT store text, OUT location text, OUT object_key text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms'
AS $$
DECLARE
    v_media wa_media := _wa_lock_fetch(p_organization_id, p_media_id, p_attempt);
    v_there uuid;
BEGIN
    IF v_media.id IS NULL THEN
        RETURN;
    END IF;
    verdict := _wa_refuse_bytes(v_media, p_attempt, p_sha256, p_size, p_found);
    IF verdict IS NOT NULL THEN
        RETURN;
    END IF;
    v_there := _wa_find_blob(p_organization_id, p_sha256, p_size, false);
    IF v_there IS NOT NULL THEN
        verdict := _wa_mark_stored(p_organization_id, p_media_id, v_there, p_found);
        RETURN;
    END IF;
    verdict := 'write';
    SELECT s.store, s.location INTO store, location FROM _wa_store_of(p_organization_id) s;
    blob_id := _wa_begin_blob(p_organization_id, p_sha256, p_size, false, store, location);
    object_key := _wa_object_key(p_organization_id, blob_id);
END
$$;

COMMENT ON FUNCTION begin_wa_media_store(uuid, uuid, integer, bytea, bigint, text) IS
'What bytes are that were fetched: their hash, number, and the MIME type found in them (NULL: none is '
'known). verdict write: write them to the store (in the database by write_wa_media_chunk(), else as '
'object_key below location), then finish_wa_media_store(); stored: the same are there already; failed or '
'pending: they are not what was told, as fail_wa_media(); NULL: it is no longer this attempt''s.';

CREATE OR REPLACE FUNCTION _wa_refuse_bytes(
    p_media wa_media, p_attempt integer, p_sha256 bytea, p_size bigint, p_found text
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_told text := _wa_plain_mime_type(p_media.mime_type);
BEGIN
    IF p_media.sha256 <> p_sha256 THEN
        RETURN fail_wa_media(p_media.organization_id, p_media.id,
            'the bytes do not have the hash that was told', false, p_attempt);
    ELSIF p_size = 0 THEN
        RETURN fail_wa_media(p_media.organization_id, p_media.id, 'the file is empty', false, p_attempt);
    ELSIF _wa_is_disguised(p_media.media_type, v_told, _wa_plain_mime_type(p_found)) THEN
        -- They will be the same the next time.
        RETURN fail_wa_media(p_media.organization_id, p_media.id,
            format('told to be %s, the bytes are %s', coalesce(v_told, p_media.media_type),
                coalesce(p_found, 'of no known type')), true, p_attempt);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_refuse_bytes(wa_media, integer, bytea, bigint, text) IS
'Internal: fails a file whose bytes are not what was told of it, and returns its state then; NULL when they '
'are.';

CREATE OR REPLACE FUNCTION _wa_mark_stored(p_org uuid, p_media_id uuid, p_blob_id uuid, p_found text)
RETURNS text
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_media m SET
        status = 'stored', next_attempt_at = NULL, leased_until = NULL, error = NULL,
        stored_at = clock_timestamp(), blob_id = b.id, sha256 = b.sha256, file_size = b.size,
        mime_type = _wa_settled_mime_type(m.media_type, m.mime_type, p_found)
    FROM wa_media_blobs b
    WHERE m.organization_id = p_org AND m.id = p_media_id AND b.organization_id = p_org AND b.id = p_blob_id
    RETURNING m.status
$$;

COMMENT ON FUNCTION _wa_mark_stored(uuid, uuid, uuid, text) IS 'Internal: a file has its bytes.';

CREATE OR REPLACE FUNCTION write_wa_media_chunk(
    p_organization_id uuid, p_blob_id uuid, p_n integer, p_content bytea
) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_write_chunk(p_organization_id, p_blob_id, p_n, p_content, false)
$$;

COMMENT ON FUNCTION write_wa_media_chunk(uuid, uuid, integer, bytea) IS
'The n-th mebibyte (from 0) of bytes that begin_wa_media_store() asked for; the last one is what is left. '
'May be repeated; false where no such part is awaited.';

CREATE OR REPLACE FUNCTION finish_wa_media_store(
    p_organization_id uuid, p_media_id uuid, p_attempt integer, p_blob_id uuid, p_found text
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms'
AS $$
DECLARE
    v_media wa_media := _wa_lock_fetch(p_organization_id, p_media_id, p_attempt);
    v_blob_id uuid;
BEGIN
    IF v_media.id IS NULL THEN
        PERFORM _wa_drop_blobs(p_organization_id, ARRAY[p_blob_id]);
        RETURN (
            SELECT m.status FROM wa_media m
            WHERE m.organization_id = p_organization_id AND m.id = p_media_id AND m.blob_id = p_blob_id
        );
    END IF;
    v_blob_id := _wa_finish_blob(p_organization_id, p_blob_id, false);
    IF v_blob_id IS NULL THEN
        RETURN fail_wa_media(
            p_organization_id, p_media_id, 'not all bytes were written', false, p_attempt
        );
    END IF;
    RETURN _wa_mark_stored(p_organization_id, p_media_id, v_blob_id, p_found);
END
$$;

COMMENT ON FUNCTION finish_wa_media_store(uuid, uuid, integer, uuid, text) IS
'All bytes are written. Returns stored; pending or failed where they are not all there; NULL where the file '
'was no longer this attempt''s: then what was written goes.';

CREATE OR REPLACE FUNCTION fail_wa_media(
    p_organization_id uuid, p_media_id uuid, p_error text, p_is_final boolean DEFAULT false,
    p_attempt integer DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms'
AS $$
DECLARE
    v_media wa_media := _wa_lock_fetch(p_organization_id, p_media_id, p_attempt);
    v_next_at timestamptz := clock_timestamp() + _wa_media_backoff(v_media.attempts);
    v_is_final boolean := p_is_final OR v_next_at > v_media.created_at + interval '7 days';
BEGIN
    UPDATE wa_media m SET
        status = CASE WHEN v_is_final THEN 'failed' ELSE 'pending' END,
        next_attempt_at = CASE WHEN NOT v_is_final THEN v_next_at END,
        leased_until = NULL, error = left(p_error, 1000)
    WHERE m.organization_id = v_media.organization_id AND m.id = v_media.id
    RETURNING m.status INTO v_media.status;
    RETURN v_media.status;
END
$$;

COMMENT ON FUNCTION fail_wa_media(uuid, uuid, text, boolean, integer) IS
'A file could not be fetched: it is tried again later and later, unless that is final or the provider no '
'longer has it. Returns pending or failed; NULL for a file that is not pending, or another attempt''s.';

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
    v_media := _wa_lock_fetch(p_organization_id, p_media_id, NULL);
    IF v_media.id IS NULL THEN
        RETURN NULL;
    ELSIF v_media.sha256 <> sha256(p_content) THEN
        RETURN fail_wa_media(p_organization_id, p_media_id, 'the bytes do not have the hash that was told');
    ELSIF p_content = '' THEN
        RETURN fail_wa_media(p_organization_id, p_media_id, 'the file is empty');
    END IF;
    UPDATE wa_media m SET mime_type = coalesce(m.mime_type, p_mime_type)
    WHERE m.organization_id = p_organization_id AND m.id = p_media_id;
    RETURN _wa_mark_stored(
        p_organization_id, p_media_id, _wa_put_blob(p_organization_id, p_content, false), NULL
    );
END
$$;

COMMENT ON FUNCTION store_wa_media(uuid, uuid, bytea, text) IS
'Keeps the bytes of a small file that was fetched by a program of yours, in the database, and does not look '
'what they are. Returns stored; pending or failed where they do not have the hash that the provider told, '
'as fail_wa_media(); NULL for a file that is not pending.';

CREATE OR REPLACE FUNCTION fetch_wa_media(p_media_id uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_media wa_media;
BEGIN
    SELECT m.* INTO v_media FROM wa_media m WHERE m.organization_id = v_org AND m.id = p_media_id
    FOR NO KEY UPDATE;
    IF v_media.status = 'stored' THEN
        RETURN v_media.status;
    ELSIF v_media.provider_media_id IS NULL
        OR v_media.created_at < clock_timestamp() - interval '7 days'
    THEN
        RAISE EXCEPTION USING ERRCODE = 'WA031',
            MESSAGE = 'there is no such file, or the provider has it no longer',
            DETAIL = format('The file is %s.', coalesce(p_media_id::text, 'NULL')),
            HINT = 'The provider keeps what customers send for 7 days. '
                'SELECT id, created_at, status, error FROM wa_media;';
    ELSIF v_media.leased_until > clock_timestamp() THEN
        UPDATE wa_media m SET is_wanted = true WHERE m.organization_id = v_org AND m.id = p_media_id;
    ELSE
        UPDATE wa_media m SET
            status = 'pending', next_attempt_at = clock_timestamp(), attempts = 0, is_wanted = true
        WHERE m.organization_id = v_org AND m.id = p_media_id;
        PERFORM pg_notify('wa_media', '');
    END IF;
    RETURN 'pending';
END
$$;

COMMENT ON FUNCTION fetch_wa_media(uuid) IS
'Has a file fetched now, whatever the quotas say, also one that failed or was deleted, while the provider '
'has it. Returns its state: pending, or stored where it is there already.';

CREATE OR REPLACE FUNCTION _wa_move_media_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_media m SET contact_id = p_into WHERE m.organization_id = p_org AND m.contact_id = p_from
$$;

COMMENT ON FUNCTION _wa_move_media_of(uuid, bigint, bigint) IS
'Internal: moves the files of a contact to the one that it merges with.';
