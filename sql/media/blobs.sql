-- The bytes of files, wherever they are: written in parts, taken for complete once all of them are there, and
-- gone with the last file that has them.
--
-- The database knows of bytes outside of it before they are written, so that none are left behind by whoever
-- dies between the two; and their place is never used again, so that deleting them late harms nothing.

CREATE OR REPLACE FUNCTION _wa_store_of(p_org uuid, OUT store text, OUT location text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(o.media_store, i.media_store, 'database'),
        CASE WHEN o.media_store IS NULL THEN i.media_location ELSE o.media_location END
    FROM wa_organizations o LEFT JOIN wa_installations i ON true
    WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_store_of(uuid) IS
'Internal: where the files of an organization are stored from now on.';

CREATE OR REPLACE FUNCTION _wa_object_key(p_org uuid, p_blob_id uuid) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_org || '/' || p_blob_id;

COMMENT ON FUNCTION _wa_object_key(uuid, uuid) IS
'Internal: the name of bytes below the location of their store.';

CREATE OR REPLACE FUNCTION _wa_find_blob(p_org uuid, p_sha256 bytea, p_size bigint, p_is_own boolean)
RETURNS uuid
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT b.id FROM wa_media_blobs b
    WHERE b.organization_id = p_org AND b.sha256 = p_sha256 AND b.size = p_size AND b.is_complete
        AND (p_is_own OR NOT b.is_own)
    ORDER BY b.is_own
    LIMIT 1
    FOR KEY SHARE
$$;

COMMENT ON FUNCTION _wa_find_blob(uuid, bytea, bigint, boolean) IS
'Internal: bytes that are there already, kept from being deleted until the end of the transaction.';

CREATE OR REPLACE FUNCTION _wa_begin_blob(
    p_org uuid, p_sha256 bytea, p_size bigint, p_is_own boolean, p_store text, p_location text
) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_media_blobs (organization_id, id, sha256, size, store, location, is_own)
    VALUES (p_org, _wa_uuid7(clock_timestamp()), p_sha256, p_size, p_store, p_location, p_is_own)
    RETURNING id
$$;

COMMENT ON FUNCTION _wa_begin_blob(uuid, bytea, bigint, boolean, text, text) IS
'Internal: says that bytes will be written to a store.';

CREATE OR REPLACE FUNCTION _wa_write_chunk(
    p_org uuid, p_blob_id uuid, p_n integer, p_content bytea, p_is_own boolean
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM FROM wa_media_blobs b
    WHERE b.organization_id = p_org AND b.id = p_blob_id AND NOT b.is_complete AND b.store = 'database'
        AND b.is_own = p_is_own AND p_n BETWEEN 0 AND (b.size - 1) / 1048576
        AND octet_length(p_content) = least(1048576, b.size - p_n::bigint * 1048576)
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Whoever lost the connection may write it once more.
    INSERT INTO wa_media_chunks (organization_id, blob_id, n, content)
    VALUES (p_org, p_blob_id, p_n, p_content)
    ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

COMMENT ON FUNCTION _wa_write_chunk(uuid, uuid, integer, bytea, boolean) IS
'Internal: one mebibyte of bytes, the last one what is left; false where no such part is awaited.';

CREATE OR REPLACE FUNCTION _wa_finish_blob(p_org uuid, p_blob_id uuid, p_is_own boolean) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_blob wa_media_blobs;
    v_there uuid;
BEGIN
    SELECT b.* INTO v_blob FROM wa_media_blobs b
    WHERE b.organization_id = p_org AND b.id = p_blob_id AND b.is_own = p_is_own
    FOR UPDATE;
    IF NOT FOUND OR v_blob.is_complete THEN
        -- A second time after a lost answer: it is done.
        RETURN v_blob.id;
    END IF;
    IF v_blob.store = 'database' AND (
        SELECT count(*) FROM wa_media_chunks c WHERE c.organization_id = p_org AND c.blob_id = p_blob_id
    ) <> (v_blob.size + 1048575) / 1048576 THEN
        RETURN NULL;
    END IF;
    BEGIN
        UPDATE wa_media_blobs b SET is_complete = true WHERE b.organization_id = p_org AND b.id = p_blob_id;
    EXCEPTION WHEN unique_violation THEN
        -- Somebody else was faster with the same bytes: theirs are as good.
        v_there := _wa_find_blob(p_org, v_blob.sha256, v_blob.size, p_is_own);
        IF v_there IS NOT NULL THEN
            DELETE FROM wa_media_blobs b WHERE b.organization_id = p_org AND b.id = p_blob_id;
        END IF;
        RETURN v_there;
    END;
    INSERT INTO wa_media_usages AS u (organization_id, bytes) VALUES (p_org, v_blob.size)
    ON CONFLICT (organization_id) DO UPDATE SET bytes = u.bytes + excluded.bytes;
    RETURN p_blob_id;
END
$$;

COMMENT ON FUNCTION _wa_finish_blob(uuid, uuid, boolean) IS
'Internal: all bytes are written. Returns under which id, another one where the same were there by then; '
'NULL where some are missing.';

CREATE OR REPLACE FUNCTION _wa_put_blob(p_org uuid, p_content bytea, p_is_own boolean) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id uuid := _wa_find_blob(p_org, sha256(p_content), octet_length(p_content), p_is_own);
BEGIN
    IF v_id IS NULL THEN
        v_id := _wa_begin_blob(p_org, sha256(p_content), octet_length(p_content), p_is_own, 'database', NULL);
        PERFORM _wa_write_chunk(p_org, v_id, n, substr(p_content, n * 1048576 + 1, 1048576), p_is_own)
        FROM generate_series(0, (octet_length(p_content) - 1) / 1048576) n;
        v_id := _wa_finish_blob(p_org, v_id, p_is_own);
    END IF;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_put_blob(uuid, bytea, boolean) IS
'Internal: keeps bytes in the database, unless the same are there.';

-- Locked first, looked at in the next statement: of two who take away the last two files with the same
-- bytes, the second sees what the first did.
CREATE OR REPLACE FUNCTION _wa_drop_blobs(p_org uuid, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM FROM wa_media_blobs b WHERE b.organization_id = p_org AND b.id = ANY (p_ids)
    ORDER BY b.id FOR UPDATE;
    DELETE FROM wa_media_blobs b
    WHERE b.organization_id = p_org AND b.id = ANY (p_ids) AND NOT EXISTS (
        SELECT FROM wa_media m WHERE m.organization_id = p_org AND m.blob_id = b.id
    );
END
$$;

COMMENT ON FUNCTION _wa_drop_blobs(uuid, uuid[]) IS 'Internal: deletes bytes that no file has any more.';

CREATE OR REPLACE FUNCTION tg_wa_media__drop_blobs() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_drop_blobs(g.organization_id, array_agg(DISTINCT g.blob_id)) FROM gone g
    WHERE g.blob_id IS NOT NULL
    GROUP BY g.organization_id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_media__drop_blobs() IS 'The last file takes its bytes along.';

CREATE OR REPLACE TRIGGER drop_blobs AFTER DELETE ON wa_media
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_media__drop_blobs();

CREATE OR REPLACE FUNCTION tg_wa_media_blobs__throw_away() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_media_garbage (organization_id, blob_id, store, location)
    SELECT g.organization_id, g.id, g.store, g.location FROM gone g WHERE g.store <> 'database'
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('wa_media', '');
    END IF;
    UPDATE wa_media_usages u SET bytes = u.bytes - g.bytes
    FROM (
        SELECT w.organization_id, sum(w.size) AS bytes FROM gone w WHERE w.is_complete
        GROUP BY w.organization_id
    ) g
    WHERE u.organization_id = g.organization_id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_media_blobs__throw_away() IS
'Has dispatchers delete bytes that are outside of the database.';

CREATE OR REPLACE TRIGGER throw_away AFTER DELETE ON wa_media_blobs
REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_media_blobs__throw_away();

CREATE OR REPLACE FUNCTION claim_wa_media_garbage(
    p_limit integer DEFAULT 10, p_lease interval DEFAULT interval '5 minutes'
) RETURNS TABLE (organization_id uuid, blob_id uuid, store text, location text, object_key text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    -- A copy knows the objects of its original, which still needs them.
    PERFORM _wa_require_installation();
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT g.organization_id, g.blob_id FROM wa_media_garbage g
        WHERE g.due_at <= clock_timestamp()
        ORDER BY g.due_at
        LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE wa_media_garbage g SET attempts = g.attempts + 1, due_at = clock_timestamp() + p_lease
    FROM due d
    WHERE g.organization_id = d.organization_id AND g.blob_id = d.blob_id
    RETURNING g.organization_id, g.blob_id, g.store, g.location, _wa_object_key(g.organization_id, g.blob_id);
END
$$;

COMMENT ON FUNCTION claim_wa_media_garbage(integer, interval) IS
'Files and objects outside of the database that are to be deleted now, each given to one caller for the time '
'of the lease; to be ended with end_wa_media_garbage(). For dispatchers.';

CREATE OR REPLACE FUNCTION end_wa_media_garbage(
    p_organization_id uuid, p_blob_id uuid, p_error text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_error IS NULL THEN
        DELETE FROM wa_media_garbage g
        WHERE g.organization_id = p_organization_id AND g.blob_id = p_blob_id;
    ELSE
        UPDATE wa_media_garbage g
        SET error = left(p_error, 1000), due_at = clock_timestamp() + _wa_media_backoff(g.attempts)
        WHERE g.organization_id = p_organization_id AND g.blob_id = p_blob_id;
    END IF;
END
$$;

COMMENT ON FUNCTION end_wa_media_garbage(uuid, uuid, text) IS
'What was claimed by claim_wa_media_garbage() is deleted, or why it could not be: then it is tried again '
'later and later.';

CREATE OR REPLACE FUNCTION _wa_read_blob(p_org uuid, p_blob_id uuid, p_offset bigint, p_length integer)
RETURNS bytea
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT substr(c.content, (p_offset % 1048576)::integer + 1, p_length) FROM wa_media_chunks c
    WHERE c.organization_id = p_org AND c.blob_id = p_blob_id AND c.n = p_offset / 1048576
$$;

COMMENT ON FUNCTION _wa_read_blob(uuid, uuid, bigint, integer) IS
'Internal: bytes from an offset, up to the end of their mebibyte; NULL where there are none.';

CREATE OR REPLACE FUNCTION read_wa_media_blob(
    p_organization_id uuid, p_blob_id uuid, p_offset bigint, p_length integer DEFAULT 1048576
) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_read_blob(p_organization_id, p_blob_id, p_offset, p_length)
$$;

COMMENT ON FUNCTION read_wa_media_blob(uuid, uuid, bigint, integer) IS
'Bytes of a file that is in the database, for dispatchers that upload it: from an offset to the end of the '
'mebibyte at most, NULL behind the last.';
