-- What files hold of a person, and taking it away, in whatever store they are. Rows stay, as for files that
-- expired, so that it can be told that there was one.

CREATE OR REPLACE FUNCTION _wa_empty_media(p_org uuid, p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_blob_ids uuid[];
    v_rows integer;
BEGIN
    DELETE FROM wa_media_signatures s WHERE s.organization_id = p_org AND s.media_id = ANY (p_ids);
    DELETE FROM wa_media_uploads u
    WHERE u.organization_id = p_org AND u.media_id = ANY (p_ids)
        AND NOT EXISTS (SELECT FROM wa_queue_due d WHERE d.hold_id = -u.id);
    -- Whoever is fetching it has an attempt that counts no more, and throws away what it got.
    WITH old AS MATERIALIZED (
        SELECT m.id, m.blob_id FROM wa_media m
        WHERE m.organization_id = p_org AND m.id = ANY (p_ids)
        ORDER BY m.id FOR UPDATE
    ),
    emptied AS (
        UPDATE wa_media m SET
            status = 'deleted', blob_id = NULL, filename = NULL, sha256 = NULL, provider_media_id = NULL,
            error = NULL, next_attempt_at = NULL, leased_until = NULL, is_wanted = false,
            attempts = m.attempts + 1
        FROM old o WHERE m.organization_id = p_org AND m.id = o.id
        RETURNING 1
    )
    SELECT array_agg(o.blob_id), (SELECT count(*) FROM emptied) INTO v_blob_ids, v_rows FROM old o;
    PERFORM _wa_drop_blobs(p_org, v_blob_ids);
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_empty_media(uuid, uuid[]) IS
'Internal: deletes the bytes, names, hashes and links of files; returns how many.';

CREATE OR REPLACE FUNCTION _wa_erase_media_of(p_org uuid, p_contact_id bigint, p_limit integer)
RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_empty_media(p_org, array_agg(f.id)) FROM (
        SELECT m.id FROM wa_media m
        WHERE m.contact_id = p_contact_id AND m.organization_id = p_org
            AND (m.status <> 'deleted' OR num_nonnulls(m.filename, m.sha256, m.provider_media_id) > 0)
        LIMIT p_limit
    ) f
$$;

COMMENT ON FUNCTION _wa_erase_media_of(uuid, bigint, integer) IS
'Internal: empties some files of a contact; returns how many.';

-- A file that others were sent, too, is not one person's. Whether one was is asked behind the person's own
-- rows, which name it no more.
CREATE OR REPLACE FUNCTION _wa_erase_own_media(p_org uuid, p_ids text[]) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_empty_media(p_org, array_agg(m.id)) FROM wa_media m
    WHERE m.organization_id = p_org AND m.direction = 'outbound' AND m.status <> 'deleted'
        AND m.id::text = ANY (p_ids)
        AND NOT EXISTS (
            SELECT FROM wa_outbound_queue q
            WHERE q.content ->> 'media_id' = m.id::text AND q.content ->> 'media_id' IS NOT NULL
                AND q.organization_id = p_org
        )
$$;

COMMENT ON FUNCTION _wa_erase_own_media(uuid, text[]) IS
'Internal: empties those of files of yours that no queued message names any more; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_media_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(m) - 'organization_id' ORDER BY m.id), '[]')
    FROM wa_media m WHERE m.contact_id = p_contact_id AND m.organization_id = p_org
$$;

COMMENT ON FUNCTION _wa_export_media_of(uuid, bigint) IS
'Internal: the files of a contact; their bytes are had by links.';
