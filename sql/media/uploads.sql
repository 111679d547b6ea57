-- Files of your own at the provider: uploaded when a message needs them, once for a business number and 30
-- days.

CREATE OR REPLACE FUNCTION _wa_upload_path(p_provider text, p_phone_number_id text, p_waba_id text)
RETURNS text
LANGUAGE sql STABLE
RETURN (
    SELECT _wa_fill_path(p.upload_path, p_phone_number_id, p_waba_id) FROM wa_providers p
    WHERE p.name = p_provider
);

COMMENT ON FUNCTION _wa_upload_path(text, text, text) IS
'Internal: the path of the request that uploads a file, behind the provider''s prefix.';

-- The provider need not agree to the second when 30 days are over, and the message has yet to get there.
CREATE OR REPLACE FUNCTION _wa_is_uploaded(p_status text, p_expires_at timestamptz, p_now timestamptz)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_status = 'uploaded' AND p_expires_at > p_now + interval '1 hour';

COMMENT ON FUNCTION _wa_is_uploaded(text, timestamptz, timestamptz) IS
'Internal: whether an upload''s id may still be sent.';

CREATE OR REPLACE FUNCTION _wa_upload_of(p_org uuid, p_media_id text, p_phone_number_id text)
RETURNS TABLE (
    id bigint, media_id uuid, status text, provider_media_id text, expires_at timestamptz, error text,
    changed_at timestamptz
)
LANGUAGE sql STABLE ROWS 1 SET search_path FROM CURRENT
AS $$
    SELECT u.id, m.id, u.status, u.provider_media_id, u.expires_at, u.error, u.changed_at
    FROM wa_media m
    LEFT JOIN wa_media_uploads u ON u.sha256 = m.sha256 AND u.phone_number_id = p_phone_number_id
        AND u.mime_type = m.mime_type AND u.organization_id = m.organization_id
    WHERE m.organization_id = p_org AND m.id = CASE
        WHEN p_media_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN p_media_id::uuid
    END AND m.status = 'stored'
$$;

COMMENT ON FUNCTION _wa_upload_of(uuid, text, text) IS
'Internal: what became of uploading a file for a business number, NULLs where nobody asked for it yet; no '
'row where there is no such file.';

CREATE OR REPLACE FUNCTION _wa_provider_content(
    p_org uuid, p_content jsonb, p_phone_number_id text, p_now timestamptz
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT p_content - 'media_id' || jsonb_build_object('id', (
        SELECT u.provider_media_id
        FROM _wa_upload_of(p_org, p_content ->> 'media_id', p_phone_number_id) u
        WHERE _wa_is_uploaded(u.status, u.expires_at, p_now)
    ))
$$;

COMMENT ON FUNCTION _wa_provider_content(uuid, jsonb, text, timestamptz) IS
'Internal: the content of a message that names a file of wa_media as the provider takes it: by the id that '
'it has there, null while there is none.';

-- Fetched by the provider soon after the request, and again where its first try fails.
CREATE OR REPLACE FUNCTION _wa_linked_content(p_org uuid, p_content jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_openings CONSTANT integer := 10;
    c_minutes CONSTANT integer := 24 * 60;
    v_media_id uuid := (
        SELECT m.id FROM wa_media m
        WHERE m.organization_id = p_org AND m.id = (p_content ->> 'media_id')::uuid AND m.status = 'stored'
    );
BEGIN
    RETURN p_content - 'media_id' || CASE WHEN v_media_id IS NULL THEN '{}' ELSE jsonb_build_object(
        'link', (_wa_create_media_signature(p_org, v_media_id, c_openings, c_minutes)).url
    ) END;
END
$$;

COMMENT ON FUNCTION _wa_linked_content(uuid, jsonb) IS
'Internal: the content of a message that names a file of wa_media for a provider that fetches files: with a '
'link to it, none where it is gone.';

-- Looked at first, since ON CONFLICT locks the row that is there also where it leaves it alone: whoever
-- asked, and does not commit, would have locked an upload that is under way.
CREATE OR REPLACE FUNCTION _wa_request_upload(p_org uuid, p_media_id uuid, p_phone_number_id text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_id bigint;
BEGIN
    SELECT f.id INTO v_id FROM _wa_upload_of(p_org, p_media_id::text, p_phone_number_id) f
    WHERE f.status = 'pending' OR _wa_is_uploaded(f.status, f.expires_at, v_now);
    IF FOUND THEN
        RETURN v_id;
    END IF;
    INSERT INTO wa_media_uploads AS u (organization_id, sha256, phone_number_id, mime_type, media_id)
    SELECT p_org, m.sha256, p_phone_number_id, m.mime_type, m.id FROM wa_media m
    WHERE m.organization_id = p_org AND m.id = p_media_id AND m.status = 'stored'
    ON CONFLICT (sha256, phone_number_id, mime_type, organization_id) DO UPDATE SET
        media_id = excluded.media_id, status = 'pending', provider_media_id = NULL, expires_at = NULL,
        attempts = 0, next_attempt_at = v_now, leased_until = NULL, error = NULL, requested_at = v_now,
        changed_at = v_now
    WHERE u.status = 'failed'
        OR u.status = 'uploaded' AND NOT _wa_is_uploaded(u.status, u.expires_at, v_now)
    RETURNING u.id INTO v_id;
    IF v_id IS NOT NULL THEN
        PERFORM pg_notify('wa_media', '');
    END IF;
    RETURN coalesce(v_id, (
        SELECT f.id FROM _wa_upload_of(p_org, p_media_id::text, p_phone_number_id) f
    ));
END
$$;

COMMENT ON FUNCTION _wa_request_upload(uuid, uuid, text) IS
'Internal: has a file uploaded for a business number, unless it is there or on its way; the id of the '
'upload.';

CREATE OR REPLACE FUNCTION upload_wa_media(p_media_id uuid, p_phone_number_id text DEFAULT NULL)
RETURNS TABLE (phone_number_id text, status text, provider_media_id text, expires_at timestamptz, error text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_number text;
BEGIN
    SELECT n.phone_number_id INTO v_number
    FROM wa_organizations o
    JOIN wa_phone_numbers n ON n.organization_id = o.id
        AND CASE WHEN p_phone_number_id IS NULL THEN n.id = o.default_number_id
            ELSE n.phone_number_id = p_phone_number_id END
    WHERE o.id = v_org;
    IF v_number IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('no business number with the id "%s"', left(p_phone_number_id, 100)),
            DETAIL = 'A file is uploaded for one number of the organization.',
            HINT = 'SELECT phone_number_id FROM wa_phone_numbers; register_wa_phone_number() adds one.';
    ELSIF _wa_request_upload(v_org, p_media_id, v_number) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA031',
            MESSAGE = 'there is no such file, or its bytes are gone',
            DETAIL = format('The file is %s.', coalesce(p_media_id::text, 'NULL')),
            HINT = 'SELECT id, message_id, status, error FROM wa_media;';
    END IF;
    RETURN QUERY
    SELECT v_number, u.status, u.provider_media_id, u.expires_at, u.error
    FROM _wa_upload_of(v_org, p_media_id::text, v_number) u;
END
$$;

COMMENT ON FUNCTION upload_wa_media(uuid, text) IS
'Has a file uploaded for a business number (NULL: the default) before a message needs it, unless it is there '
'still; a running dispatcher does so. Returns how that stands; repeat the call to see.';

CREATE OR REPLACE FUNCTION claim_wa_media_uploads(
    p_limit integer DEFAULT 10, p_lease interval DEFAULT interval '1 minute'
) RETURNS TABLE (
    organization_id uuid, upload_id bigint, attempt integer, phone_number_id text, provider text, path text,
    mime_type text, size bigint, sha256 bytea, blob_id uuid, store text, location text, object_key text
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
            SELECT count(*) AS under_way FROM wa_media_uploads u
            WHERE u.organization_id = o.id AND u.status = 'pending' AND u.next_attempt_at > v_now
                AND u.next_attempt_at <= v_now + p_lease AND u.leased_until > v_now
        ) b
        CROSS JOIN LATERAL (
            SELECT u.id, u.next_attempt_at FROM wa_media_uploads u
            WHERE u.organization_id = o.id AND u.status = 'pending' AND u.next_attempt_at <= v_now
            ORDER BY u.next_attempt_at
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
            SELECT u.organization_id, u.id FROM wa_media_uploads u
            WHERE u.organization_id = w.organization_id AND u.id = w.id AND u.next_attempt_at <= v_now
            FOR NO KEY UPDATE SKIP LOCKED
        ) l
        LIMIT p_limit
    )
    UPDATE wa_media_uploads u
    SET attempts = u.attempts + 1, next_attempt_at = v_now + p_lease, leased_until = v_now + p_lease
    FROM due d
    LEFT JOIN LATERAL (
        SELECT n.provider, n.waba_id, b.id AS blob_id, b.store, b.location, b.size
        FROM wa_media_uploads x
        LEFT JOIN wa_phone_numbers n ON n.organization_id = x.organization_id
            AND n.phone_number_id = x.phone_number_id
        LEFT JOIN wa_media m ON m.organization_id = x.organization_id AND m.id = x.media_id
            AND m.status = 'stored' AND m.sha256 = x.sha256
        LEFT JOIN wa_media_blobs b ON b.organization_id = m.organization_id AND b.id = m.blob_id
        WHERE x.organization_id = d.organization_id AND x.id = d.id
    ) f ON true
    WHERE u.organization_id = d.organization_id AND u.id = d.id
    RETURNING u.organization_id, u.id, u.attempts, u.phone_number_id, coalesce(f.provider, 'meta'),
        _wa_upload_path(coalesce(f.provider, 'meta'), u.phone_number_id, f.waba_id), u.mime_type, f.size,
        u.sha256,
        f.blob_id, f.store, f.location, _wa_object_key(u.organization_id, f.blob_id);
END
$$;

COMMENT ON FUNCTION claim_wa_media_uploads(integer, interval) IS
'Files to be uploaded to the provider now, each given to one caller for the time of the lease, which '
'renew_wa_media_uploads() prolongs: where to (path) and where the bytes are (blob_id NULL: they are gone). '
'To be ended with complete_wa_media_upload(). For dispatchers.';

CREATE OR REPLACE FUNCTION renew_wa_media_uploads(
    p_organization_ids uuid[], p_upload_ids bigint[], p_attempts integer[],
    p_lease interval DEFAULT interval '1 minute'
) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    UPDATE wa_media_uploads u
    SET next_attempt_at = clock_timestamp() + p_lease, leased_until = clock_timestamp() + p_lease
    FROM unnest(p_organization_ids, p_upload_ids, p_attempts) r (organization_id, id, attempt)
    -- One that somebody has locked keeps nobody from holding the others.
    CROSS JOIN LATERAL (
        SELECT FROM wa_media_uploads x
        WHERE x.organization_id = r.organization_id AND x.id = r.id AND x.attempts = r.attempt
            AND x.leased_until IS NOT NULL
        FOR NO KEY UPDATE SKIP LOCKED
    ) l
    WHERE u.organization_id = r.organization_id AND u.id = r.id
$$;

COMMENT ON FUNCTION renew_wa_media_uploads(uuid[], bigint[], integer[], interval) IS
'Prolongs the leases of files that are still being uploaded.';

CREATE OR REPLACE FUNCTION _wa_end_upload(
    p_org uuid, p_upload_id bigint, p_attempt integer, p_provider_media_id text, p_error text,
    p_is_final boolean
) RETURNS text
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_media_uploads u SET
        status = n.status, provider_media_id = p_provider_media_id, error = left(p_error, 1000),
        leased_until = NULL, changed_at = clock_timestamp(),
        expires_at = CASE WHEN n.status = 'uploaded' THEN clock_timestamp() + interval '30 days' END,
        -- Somebody waits for it: sooner than what comes in, and for no longer than messages usually live.
        next_attempt_at = CASE WHEN n.status = 'pending' THEN clock_timestamp()
            + least(interval '5 seconds' * 2 ^ least(u.attempts - 1, 20), interval '10 minutes') END
    FROM wa_media_uploads f
    CROSS JOIN LATERAL (
        SELECT CASE WHEN p_provider_media_id IS NOT NULL THEN 'uploaded'
            WHEN p_is_final OR f.requested_at < clock_timestamp() - interval '24 hours' OR NOT EXISTS (
                    SELECT FROM wa_media m
                    WHERE m.organization_id = p_org AND m.id = f.media_id AND m.status = 'stored'
                ) THEN 'failed'
            ELSE 'pending' END AS status
    ) n
    WHERE u.organization_id = p_org AND u.id = p_upload_id AND u.attempts = p_attempt
        AND u.leased_until IS NOT NULL AND f.organization_id = p_org AND f.id = p_upload_id
    RETURNING u.status
$$;

COMMENT ON FUNCTION _wa_end_upload(uuid, bigint, integer, text, text, boolean) IS
'Internal: how uploading a file ended; returns its state, NULL where another attempt has it by now.';
