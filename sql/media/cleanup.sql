-- What of files goes when: links that expired, bytes that expired, files whose messages are gone, what was
-- given up. Bytes outside of the database are deleted by dispatchers, from wa_media_garbage.

CREATE OR REPLACE FUNCTION _wa_abandon_media(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_media m SET message_id = NULL
    FROM unnest(p_message_ids) u (id)
    WHERE m.message_id = u.id AND m.organization_id = p_org
$$;

COMMENT ON FUNCTION _wa_abandon_media(uuid, bigint[]) IS
'Internal: messages were deleted; their files go at the next cleaning up.';

CREATE OR REPLACE FUNCTION _wa_media_use(p_org uuid, p_media_id uuid, p_now timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM wa_outbound_queue q
            WHERE q.content ->> 'media_id' = p_media_id::text AND q.content ->> 'media_id' IS NOT NULL
                AND q.organization_id = p_org AND q.status IN ('pending', 'sending')
        ) THEN 'queued'
        WHEN EXISTS (
            SELECT FROM wa_media_signatures s
            JOIN wa_media_openings o ON o.organization_id = s.organization_id AND o.signature_id = s.id
            WHERE s.media_id = p_media_id AND s.organization_id = p_org
                AND o.opened_at > p_now - interval '1 hour'
        ) THEN 'read'
        WHEN EXISTS (
            SELECT FROM wa_media_signatures s
            WHERE s.media_id = p_media_id AND s.organization_id = p_org AND s.expires_at > p_now
                AND s.access_count < s.max_access
        ) THEN 'linked'
    END
$$;

COMMENT ON FUNCTION _wa_media_use(uuid, uuid, timestamptz) IS
'Internal: what a file is needed for: queued, a message that waits names it; read, somebody who opened a '
'link may be having the bytes at this moment; linked, a link to it is good; NULL: nothing.';

-- Kept for as long as who has opened one may go on reading.
CREATE OR REPLACE FUNCTION _wa_delete_signatures(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_media_signatures s
    WHERE (s.organization_id, s.id) IN (
        SELECT e.organization_id, e.id FROM wa_media_signatures e
        WHERE e.expires_at <= p_now AND NOT EXISTS (
            SELECT FROM wa_media_openings o
            WHERE o.organization_id = e.organization_id AND o.signature_id = e.id
                AND o.opened_at > p_now - interval '1 hour'
        )
        ORDER BY e.expires_at LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_signatures(timestamptz, integer) IS 'Internal: deletes links that expired.';

-- Locked in one statement, looked at in the next, which sees a message that was queued meanwhile: whoever
-- queues it locks the file first.
CREATE OR REPLACE FUNCTION _wa_empty_expired_media(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org record;
    v_blob_ids uuid[];
    v_rows integer := 0;
BEGIN
    FOR v_org IN
        SELECT e.organization_id AS id, array_agg(e.id) AS ids
        FROM (
            SELECT m.organization_id, m.id FROM wa_media m
            WHERE m.status = 'stored' AND m.expires_at <= p_now
                AND coalesce(_wa_media_use(m.organization_id, m.id, p_now), 'linked') = 'linked'
                AND NOT _wa_is_held(m.organization_id, m.contact_id)
            ORDER BY m.expires_at LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        ) e
        GROUP BY e.organization_id ORDER BY e.organization_id
    LOOP
        WITH unused AS MATERIALIZED (
            SELECT m.id, m.blob_id FROM wa_media m
            WHERE m.organization_id = v_org.id AND m.id = ANY (v_org.ids)
                AND coalesce(_wa_media_use(v_org.id, m.id, p_now), 'linked') = 'linked'
        ),
        emptied AS (
            UPDATE wa_media m SET status = 'deleted', blob_id = NULL FROM unused u
            WHERE m.organization_id = v_org.id AND m.id = u.id
        )
        SELECT array_agg(u.blob_id) INTO v_blob_ids FROM unused u;
        PERFORM _wa_drop_blobs(v_org.id, v_blob_ids);
        v_rows := v_rows + coalesce(cardinality(v_blob_ids), 0);
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_empty_expired_media(timestamptz, integer) IS
'Internal: deletes the bytes of files that expired, and remembers that they were there.';

CREATE OR REPLACE FUNCTION _wa_delete_media(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_files record;
    v_rows integer := 0;
    v_more integer;
BEGIN
    FOR v_files IN
        SELECT f.organization_id AS org, array_agg(f.id) AS ids
        FROM (
            SELECT l.organization_id, l.id
            FROM wa_organizations o
            CROSS JOIN LATERAL (
                -- What was there before an upgrade brought this limit is counted before the first of it goes.
                SELECT least(o.message_retention, CASE
                    WHEN o.retention_previewed_at < p_now - interval '1 day' THEN o.media_retention
                END) AS keep
            ) k
            CROSS JOIN LATERAL (
                SELECT m.organization_id, m.id FROM wa_media m
                WHERE m.organization_id = o.id AND m.id < _wa_uuid7_floor(p_now - k.keep)
                    AND greatest(m.created_at, m.used_at) < p_now - k.keep
                    AND _wa_media_use(o.id, m.id, p_now) IS NULL
                    AND NOT _wa_is_held(o.id, m.contact_id)
                ORDER BY m.id LIMIT p_limit
                FOR UPDATE SKIP LOCKED
            ) l
            LIMIT p_limit
        ) f
        GROUP BY f.organization_id
        UNION ALL
        SELECT f.organization_id, array_agg(f.id)
        FROM (
            SELECT m.organization_id, m.id FROM wa_media m
            WHERE m.message_id IS NULL AND m.provider_media_id IS NOT NULL
                AND coalesce(m.leased_until, '-infinity') < p_now
                AND _wa_media_use(m.organization_id, m.id, p_now) IS NULL
                AND NOT _wa_is_held(m.organization_id, m.contact_id)
            LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        ) f
        GROUP BY f.organization_id
    LOOP
        DELETE FROM wa_media m
        WHERE m.organization_id = v_files.org AND m.id = ANY (v_files.ids)
            AND _wa_media_use(v_files.org, m.id, p_now) IS NULL;
        GET DIAGNOSTICS v_more = ROW_COUNT;
        v_rows := v_rows + v_more;
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_media(timestamptz, integer) IS
'Internal: deletes files that are older than their organization keeps files or messages, and those whose '
'messages are gone, unless they are in use or of somebody under a legal hold.';

CREATE OR REPLACE FUNCTION _wa_delete_given_up(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_blobs integer;
    v_uploads integer;
BEGIN
    DELETE FROM wa_media_blobs b
    WHERE (b.organization_id, b.id) IN (
        SELECT i.organization_id, i.id FROM wa_media_blobs i
        WHERE NOT i.is_complete AND i.created_at < p_now - interval '1 day' LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_blobs = ROW_COUNT;
    DELETE FROM wa_media_uploads u
    WHERE (u.organization_id, u.id) IN (
        SELECT i.organization_id, i.id FROM wa_media_uploads i
        WHERE (i.status = 'uploaded' AND i.expires_at < p_now OR i.status = 'failed'
                AND i.changed_at < p_now - interval '7 days')
            AND NOT EXISTS (SELECT FROM wa_queue_due d WHERE d.hold_id = -i.id)
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS v_uploads = ROW_COUNT;
    RETURN v_blobs + v_uploads;
END
$$;

COMMENT ON FUNCTION _wa_delete_given_up(timestamptz, integer) IS
'Internal: deletes bytes of which writing was given up a day ago, and what the provider has forgotten.';

-- Locked rows are left for the next call.
CREATE OR REPLACE FUNCTION cleanup_expired_wa_media(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_total integer;
BEGIN
    v_total := _wa_delete_signatures(v_now, p_limit) + _wa_empty_expired_media(v_now, p_limit)
        + _wa_delete_media(v_now, p_limit) + _wa_delete_given_up(v_now, p_limit);
    -- Nobody fetched them while the provider had them.
    UPDATE wa_media m SET
        status = 'failed', next_attempt_at = NULL, leased_until = NULL,
        error = 'the provider keeps a file for 7 days only'
    FROM wa_organizations o
    WHERE m.organization_id = o.id AND m.status = 'pending'
        AND m.next_attempt_at < v_now - interval '7 days';
    RETURN v_total;
END
$$;

COMMENT ON FUNCTION cleanup_expired_wa_media(integer) IS
'Deletes links that expired, the bytes of files that expired, in whatever store they are, and files that are '
'older than their organization keeps messages or whose messages are gone, at most so many of each, and none '
'that is in use; returns how many. The job "cleanup" calls it; bytes outside of the database are deleted by '
'running dispatchers right after.';
