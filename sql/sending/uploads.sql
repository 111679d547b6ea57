-- Messages whose files have to be uploaded first. A claim that meets one has its file uploaded, and the row
-- stands aside meanwhile, in the hold of the upload: its number below zero, since claims know no hold of
-- that kind.

CREATE OR REPLACE FUNCTION _wa_absent_files(
    p_org uuid, p_phone_number_id text, p_files text[], p_now timestamptz
) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_files IS NULL OR array_remove(p_files, NULL) = '{}' OR EXISTS (
        SELECT FROM wa_phone_numbers n
        JOIN wa_providers p ON p.name = n.provider AND p.upload_path IS NULL
        WHERE n.organization_id = p_org AND n.phone_number_id = p_phone_number_id
    ) THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT f.file FROM unnest(p_files) f (file)
        WHERE f.file IS NOT NULL AND NOT EXISTS (
            SELECT FROM _wa_upload_of(p_org, f.file, p_phone_number_id) u
            WHERE _wa_is_uploaded(u.status, u.expires_at, p_now)
        )
    );
END
$$;

COMMENT ON FUNCTION _wa_absent_files(uuid, text, text[], timestamptz) IS
'Internal: which of the files that messages name (NULL: none) the provider does not have for a number.';

CREATE OR REPLACE FUNCTION _wa_hold_for_files(
    p_org uuid, p_number wa_phone_numbers, p_ids uuid[], p_files text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_file record;
    v_upload record;
    v_upload_id bigint;
BEGIN
    FOR v_file IN
        SELECT u.file, array_agg(u.id) AS ids, count(*)::integer AS messages
        FROM unnest(p_ids, p_files) u (id, file)
        GROUP BY u.file ORDER BY u.file
    LOOP
        v_upload_id := NULL;
        SELECT * INTO v_upload FROM _wa_upload_of(p_org, v_file.file, (p_number).phone_number_id);
        IF v_upload.status = 'failed' AND v_upload.changed_at > clock_timestamp() - interval '1 minute' THEN
            -- What waited for the same file has just been told so.
            PERFORM _wa_fail_messages(p_org, v_file.ids, 'upload_failed', v_upload.error);
            CONTINUE;
        ELSIF v_upload.media_id IS NOT NULL THEN
            v_upload_id := _wa_request_upload(p_org, v_upload.media_id, (p_number).phone_number_id);
        END IF;
        IF v_upload_id IS NULL THEN
            PERFORM _wa_fail_messages(p_org, v_file.ids, 'file_gone', 'the file is not here any more');
        ELSE
            PERFORM _wa_hold_due(
                p_org, v_file.ids, array_fill(-v_upload_id, ARRAY[v_file.messages]),
                array_fill(CASE WHEN v_upload.status = 'pending' AND v_upload.error IS NOT NULL
                    THEN 'file_late' ELSE 'file' END, ARRAY[v_file.messages])
            );
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_hold_for_files(uuid, wa_phone_numbers, uuid[], text[]) IS
'Internal: has the files of picked rows uploaded, and lets the rows wait for that; ends those whose file is '
'gone, or was refused just now.';

CREATE OR REPLACE FUNCTION complete_wa_media_upload(
    p_organization_id uuid, p_upload_id bigint, p_attempt integer, p_http_status integer, p_answer jsonb,
    p_error text
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '500ms'
AS $$
DECLARE
    v_id text := CASE WHEN p_http_status BETWEEN 200 AND 299 THEN nullif(p_answer ->> 'id', '') END;
    v_met record;
    v_rule wa_error_rules;
    v_error text;
    v_status text;
BEGIN
    SELECT * INTO v_met FROM _wa_answer_error(p_answer);
    v_error := coalesce(p_error, v_met.error, 'no id in the answer') || coalesce(format(' (HTTP %s%s)',
        p_http_status, ', code ' || v_met.code), '');
    SELECT * INTO v_rule FROM classify_wa_error(v_met.code, p_http_status, v_met.subcode);
    v_status := _wa_end_upload(
        p_organization_id, p_upload_id, p_attempt, v_id, CASE WHEN v_id IS NULL THEN v_error END,
        p_http_status BETWEEN 400 AND 499 AND (v_rule.action = 'fail' OR v_rule.max_retries < p_attempt)
    );
    IF v_status = 'uploaded' THEN
        PERFORM _wa_free_held(p_organization_id, -p_upload_id);
        PERFORM _wa_notify_dispatchers();
    ELSIF v_status = 'failed' THEN
        PERFORM _wa_fail_messages(p_organization_id, array_agg(d.queue_id), 'upload_failed', v_error)
        FROM wa_queue_due d WHERE d.hold_id = -p_upload_id AND d.organization_id = p_organization_id
        HAVING count(*) > 0;
    ELSIF v_status = 'pending' THEN
        -- From here on it holds up no other message to the same recipient.
        PERFORM _wa_relabel_held(p_organization_id, -p_upload_id, 'file_late');
    END IF;
    RETURN v_status;
END
$$;

COMMENT ON FUNCTION complete_wa_media_upload(uuid, bigint, integer, integer, jsonb, text) IS
'How an upload was answered (status and body), or why not. Returns its state: uploaded, what waited for it '
'goes; pending, it is tried again for a day; failed, what waited fails as upload_failed; NULL where another '
'attempt has it by now.';

-- What somebody had locked when its upload ended.
CREATE OR REPLACE FUNCTION _wa_free_after_uploads() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
BEGIN
    PERFORM _wa_free_held(h.organization_id, h.hold_id)
    FROM (
        WITH RECURSIVE each AS (
            (
                SELECT d.organization_id, d.hold_id FROM wa_queue_due d
                WHERE d.hold_id < 0 ORDER BY d.hold_id LIMIT 1
            )
            UNION ALL
            SELECT n.organization_id, n.hold_id
            FROM each e
            CROSS JOIN LATERAL (
                SELECT d.organization_id, d.hold_id FROM wa_queue_due d
                WHERE d.hold_id > e.hold_id AND d.hold_id < 0 ORDER BY d.hold_id LIMIT 1
            ) n
        )
        SELECT * FROM each
    ) h
    WHERE NOT EXISTS (
        SELECT FROM wa_media_uploads u
        WHERE u.organization_id = h.organization_id AND u.id = -h.hold_id AND u.status = 'pending'
    );
END
$$;

COMMENT ON FUNCTION _wa_free_after_uploads() IS
'Internal: lets rows go that wait for uploads which have ended; claims judge them anew.';
