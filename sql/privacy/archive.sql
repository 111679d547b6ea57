-- What retention is to take is copied into files before, where an organization says so: by bin/wa archive,
-- which asks for the next rows, writes them, and says so. Rows are read in the order of their ids and none is
-- passed by, so that one id tells how far retention may go; a file counts once it is there as a whole.

-- A day before retention takes them.
CREATE OR REPLACE FUNCTION _wa_archive_before(p_org uuid, p_now timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT p_now - least(o.text_retention, o.message_retention) + interval '1 day'
    FROM wa_organizations o WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_archive_before(uuid, timestamptz) IS
'Internal: rows from before this time are archived; NULL where an organization keeps all for good.';

CREATE OR REPLACE FUNCTION _wa_archive_place(p_org uuid, p_kind text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(
        (
            SELECT f.place FROM wa_archive_files f
            WHERE f.organization_id = p_org AND f.kind = p_kind AND f.state = 'kept'
            ORDER BY f.number DESC LIMIT 1
        ),
        CASE p_kind WHEN 'queue' THEN '00000000-0000-0000-0000-000000000000' ELSE '0' END
    )
$$;

COMMENT ON FUNCTION _wa_archive_place(uuid, text) IS
'Internal: the last id of a kind that is in the archive.';

-- Each stops at the first row whose time has not come; queue rows that have not ended are passed by, and come
-- once they have. Held persons' rows are copied like others: nothing is taken from them. Queue rows with ids
-- of the application's own come with their messages.
CREATE OR REPLACE FUNCTION _wa_archive_rows(p_org uuid, p_kind text, p_before timestamptz, p_limit integer)
RETURNS TABLE (place text, at timestamptz, contact_id bigint, table_name text, body jsonb)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    v_after text := _wa_archive_place(p_org, p_kind);
BEGIN
    CASE p_kind
        WHEN 'messages' THEN
            RETURN QUERY
            WITH chunk AS MATERIALIZED (
                SELECT m.* FROM wa_messages m
                WHERE m.organization_id = p_org AND m.id > v_after::bigint
                ORDER BY m.id LIMIT p_limit
            ),
            old AS (
                SELECT c.* FROM chunk c
                WHERE c.id < ALL (SELECT n.id FROM chunk n WHERE n.created_at >= p_before)
            )
            SELECT o.id::text, o.created_at, o.contact_id, 'wa_messages', to_jsonb(o) FROM old o
            UNION ALL
            SELECT o.id::text, o.created_at, o.contact_id, 'wa_outbound_queue', to_jsonb(q)
            FROM old o
            JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = o.queue_id
            WHERE NOT _wa_is_timed_id(o.queue_id);
        WHEN 'statuses' THEN
            RETURN QUERY
            WITH chunk AS MATERIALIZED (
                SELECT s.* FROM wa_message_statuses s
                WHERE s.organization_id = p_org AND s.id > v_after::bigint
                ORDER BY s.id LIMIT p_limit
            )
            SELECT c.id::text, c.received_at, coalesce(m.contact_id, _wa_find_contact(
                    p_org, coalesce(c.recipient_user_id, '+' || c.recipient_id)
                )), 'wa_message_statuses', to_jsonb(c)
            FROM chunk c
            LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.id = c.message_id
            WHERE c.id < ALL (SELECT n.id FROM chunk n WHERE n.received_at >= p_before);
        ELSE
            RETURN QUERY
            WITH chunk AS MATERIALIZED (
                (SELECT q.* FROM wa_outbound_queue q
                WHERE q.organization_id = p_org AND q.id > v_after::uuid AND q.id < _wa_uuid7_floor(p_before)
                    AND _wa_is_timed_id(q.id) AND q.status IN ('sent', 'failed', 'cancelled')
                    AND q.processed_at < p_before
                ORDER BY q.id LIMIT p_limit)
                UNION ALL
                (SELECT q.* FROM wa_retention_stragglers s
                JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = s.queue_id
                WHERE s.organization_id = p_org AND s.kind = 'archive' AND s.queue_id <= v_after::uuid
                    AND q.status IN ('sent', 'failed', 'cancelled') AND q.processed_at < p_before
                ORDER BY q.id LIMIT p_limit)
            )
            SELECT greatest(c.id, v_after::uuid)::text, c.processed_at,
                coalesce(c.contact_id, m.contact_id, _wa_find_contact(p_org, c.phone)), 'wa_outbound_queue',
                to_jsonb(c)
            FROM chunk c
            LEFT JOIN wa_messages m ON m.organization_id = p_org AND m.queue_id = c.id;
    END CASE;
END
$$;

COMMENT ON FUNCTION _wa_archive_rows(uuid, text, timestamptz, integer) IS
'Internal: the next rows of a kind that are to be archived, whose they are, and as JSON what they say.';

CREATE OR REPLACE FUNCTION _wa_require_archive(p_org uuid, p_kind text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_location text := (SELECT o.archive_location FROM wa_organizations o WHERE o.id = p_org);
BEGIN
    IF p_kind IS NULL OR p_kind NOT IN ('messages', 'statuses', 'queue') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('nothing of the kind %s is archived', quote_nullable(left(p_kind, 100))),
            DETAIL = 'There are messages, statuses and queue.',
            HINT = 'bin/wa archive run takes one after the other.';
    END IF;
    IF v_location IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA074',
            MESSAGE = 'the organization has no archive',
            DETAIL = 'wa_organizations.archive_location is NULL.',
            HINT = 'UPDATE wa_organizations SET archive_location = ''/srv/archive''; or s3://BUCKET/PREFIX.';
    END IF;
    RETURN v_location;
END
$$;

COMMENT ON FUNCTION _wa_require_archive(uuid, text) IS
'Internal: where the archive of an organization is; raises WA074 where it has none.';

-- The name is noted before anything is written under it: what is found half written is known, and removed.
CREATE OR REPLACE FUNCTION begin_wa_archive_file(p_kind text, p_take_over boolean DEFAULT false)
RETURNS TABLE (location text, name text, stale_location text, stale_name text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    c_given_up CONSTANT interval := interval '10 minutes';
    v_org uuid := _wa_caller_organization();
    v_file wa_archive_files;
BEGIN
    -- A copy knows the files of its original, and would take one that it finds half written for given up.
    PERFORM _wa_require_installation();
    location := _wa_require_archive(v_org, p_kind);
    PERFORM FROM wa_organizations o WHERE o.id = v_org FOR NO KEY UPDATE;
    SELECT f.* INTO v_file FROM wa_archive_files f
    WHERE f.organization_id = v_org AND f.kind = p_kind ORDER BY f.number DESC LIMIT 1;
    name := format('%s/%s-%s-%s', v_org, p_kind,
        to_char(
            coalesce(v_file.number, 0) + (v_file.state IS DISTINCT FROM 'writing')::integer, 'FM00000000'
        ),
        left(gen_random_uuid()::text, 8));
    IF v_file.state = 'writing' THEN
        IF NOT p_take_over AND v_file.began_at > clock_timestamp() - c_given_up THEN
            RAISE EXCEPTION USING ERRCODE = 'WA075',
                MESSAGE = 'the archive is being written elsewhere',
                DETAIL = format('File %s of %s was begun at %s.', v_file.number, p_kind, v_file.began_at),
                HINT = 'Where no other bin/wa archive runs: again with --take-over, or in ten minutes.';
        END IF;
        stale_location := v_file.location;
        stale_name := v_file.name;
        UPDATE wa_archive_files f SET
            location = begin_wa_archive_file.location, name = begin_wa_archive_file.name,
            began_at = clock_timestamp()
        WHERE f.organization_id = v_org AND f.kind = p_kind AND f.number = v_file.number;
    ELSE
        INSERT INTO wa_archive_files (organization_id, kind, number, location, name)
        VALUES (v_org, p_kind, coalesce(v_file.number, 0) + 1, location, name);
    END IF;
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION begin_wa_archive_file(text, boolean) IS
'Names the next file of the archive of the caller''s organization, and one that was given up half written, '
'which is to be removed first. Raises WA074 where there is no archive, WA075 while another process writes, '
'WA401 in a copy. For bin/wa archive.';

-- The last note of what was passed by may be of a file that came to nothing. What has been read is named by
-- the file that is being written, and goes when that is kept.
CREATE OR REPLACE FUNCTION _wa_note_stragglers(p_org uuid, p_rows jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_after uuid := _wa_archive_place(p_org, 'queue')::uuid;
    v_read uuid[] := ARRAY(
        SELECT r.id FROM jsonb_path_query(p_rows, '$[*].body') b (row)
        CROSS JOIN LATERAL jsonb_to_record(b.row) r (id uuid)
    );
BEGIN
    DELETE FROM wa_retention_stragglers s
    WHERE s.organization_id = p_org AND s.kind = 'archive' AND (s.queue_id > v_after OR NOT EXISTS (
        SELECT FROM wa_outbound_queue q WHERE q.organization_id = p_org AND q.id = s.queue_id
    ));
    INSERT INTO wa_retention_stragglers (organization_id, kind, queue_id)
    SELECT p_org, 'archive', q.id FROM wa_outbound_queue q
    WHERE q.organization_id = p_org AND q.id > v_after AND _wa_is_timed_id(q.id)
        AND q.id < (SELECT u.id FROM unnest(v_read) u (id) ORDER BY u.id DESC LIMIT 1)
        AND q.id <> ALL (v_read);
    UPDATE wa_retention_stragglers s SET name = f.name
    FROM wa_archive_files f
    WHERE f.organization_id = p_org AND f.kind = 'queue' AND f.state = 'writing'
        AND s.organization_id = p_org AND s.kind = 'archive' AND s.queue_id = ANY (v_read);
END
$$;

COMMENT ON FUNCTION _wa_note_stragglers(uuid, jsonb) IS
'Internal: notes which queue rows are passed by, and which of them come with the rows that were read.';

-- Of a person whom nothing names any more, nothing is kept that could.
CREATE OR REPLACE FUNCTION read_wa_archive_rows(p_kind text, p_limit integer DEFAULT 10000)
RETURNS TABLE (place text, at timestamptz, key_id bigint, table_name text, body text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_rows jsonb;
BEGIN
    PERFORM _wa_require_archive(v_org, p_kind);
    SELECT jsonb_agg(to_jsonb(r)) INTO v_rows
    FROM _wa_archive_rows(v_org, p_kind, _wa_archive_before(v_org, clock_timestamp()), p_limit) r;
    IF p_kind = 'queue' THEN
        PERFORM _wa_note_stragglers(v_org, v_rows);
    END IF;
    INSERT INTO wa_archive_keys (organization_id, contact_id, key)
    SELECT DISTINCT v_org, r.contact_id, sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    )
    FROM jsonb_to_recordset(v_rows) r (contact_id bigint)
    WHERE r.contact_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM wa_archive_keys k WHERE k.organization_id = v_org AND k.contact_id = r.contact_id
    );
    RETURN QUERY
    SELECT r.place, r.at, k.id, r.table_name, (
        CASE WHEN k.id IS NULL THEN r.body - d.columns ELSE r.body END
    )::text
    FROM jsonb_to_recordset(v_rows) r (
        place text, at timestamptz, contact_id bigint, table_name text, body jsonb
    )
    LEFT JOIN (
        SELECT x.contact_id, max(x.id) AS id FROM wa_archive_keys x
        WHERE x.organization_id = v_org GROUP BY x.contact_id
    ) k ON k.contact_id = r.contact_id
    LEFT JOIN (
        SELECT p.table_name, array_agg(p.column_name) AS columns FROM wa_personal_data p
        WHERE p.kind <> 'none' GROUP BY p.table_name
    ) d ON d.table_name = r.table_name;
END
$$;

COMMENT ON FUNCTION read_wa_archive_rows(text, integer) IS
'The next rows of a kind (messages, statuses, queue) that are to be archived, and the keys with which they '
'are to be sealed; a row that belongs to no contact has none, and nothing personal. For bin/wa archive.';

CREATE OR REPLACE FUNCTION get_wa_archive_keys(p_ids bigint[])
RETURNS TABLE (id bigint, key bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT k.id, k.key FROM wa_archive_keys k
    WHERE k.organization_id = _wa_caller_organization() AND k.id = ANY (p_ids)
$$;

COMMENT ON FUNCTION get_wa_archive_keys(bigint[]) IS
'The keys of archived rows, without those of persons who were erased. For bin/wa archive.';

-- The keys are locked: an erasure that destroyed one before is noticed, and one that comes later finds the
-- file written, and nothing more to be read in it.
CREATE OR REPLACE FUNCTION keep_wa_archive_file(
    p_kind text, p_name text, p_place text, p_rows integer, p_bytes bigint, p_sha256 bytea,
    p_first_at timestamptz, p_last_at timestamptz, p_key_ids bigint[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    IF (
        SELECT count(*) FROM (
            SELECT FROM wa_archive_keys k WHERE k.organization_id = v_org AND k.id = ANY (p_key_ids)
            FOR KEY SHARE
        ) k
    ) < cardinality(p_key_ids) THEN
        RETURN false;
    END IF;
    -- One that ended after the rows were read may have been given a new key since.
    IF EXISTS (
        SELECT FROM wa_archive_files f
        JOIN wa_erasures e ON e.organization_id = v_org AND e.done_at >= f.began_at
        JOIN wa_archive_keys k ON k.organization_id = v_org AND k.contact_id = e.contact_id
        WHERE f.organization_id = v_org AND f.kind = p_kind AND f.name = p_name AND k.id = ANY (p_key_ids)
    ) THEN
        RETURN false;
    END IF;
    UPDATE wa_archive_files f SET
        state = 'kept', kept_at = clock_timestamp(), place = p_place, row_count = p_rows,
        byte_count = p_bytes, sha256 = p_sha256, first_at = p_first_at, last_at = p_last_at
    WHERE f.organization_id = v_org AND f.kind = p_kind AND f.name = p_name AND f.state = 'writing';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM wa_retention_stragglers s
    WHERE s.organization_id = v_org AND s.kind = 'archive' AND s.name = p_name;
    RETURN true;
END
$$;

COMMENT ON FUNCTION keep_wa_archive_file(
    text, text, text, integer, bigint, bytea, timestamptz, timestamptz, bigint[]
) IS
'Says that a file of the archive is there as a whole, up to which id, and its checksum: retention goes on to '
'there. False where it does not count: somebody was erased meanwhile, or another process took over. For '
'bin/wa archive.';

CREATE OR REPLACE FUNCTION drop_wa_archive_file(p_kind text, p_name text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    DELETE FROM wa_archive_files f
    WHERE f.organization_id = _wa_caller_organization() AND f.kind = p_kind AND f.name = p_name
        AND f.state = 'writing'
$$;

COMMENT ON FUNCTION drop_wa_archive_file(text, text) IS
'Forgets a file of the archive that was begun and came to nothing. For bin/wa archive.';

CREATE OR REPLACE FUNCTION list_wa_archive_files()
RETURNS TABLE (
    organization_id uuid, kind text, number integer, location text, name text, row_count integer,
    byte_count bigint, sha256 bytea, first_at timestamptz, last_at timestamptz, kept_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT f.organization_id, f.kind, f.number, f.location, f.name, f.row_count, f.byte_count, f.sha256,
        f.first_at, f.last_at, f.kept_at
    FROM wa_archive_files f
    WHERE f.organization_id = ANY (_wa_visible_organizations()) AND f.state = 'kept'
    ORDER BY f.organization_id, f.kind, f.number
$$;

COMMENT ON FUNCTION list_wa_archive_files() IS
'The files of the archives of the organizations that the caller sees, in the order in which they were '
'written.';

CREATE OR REPLACE FUNCTION get_wa_archive_health()
RETURNS TABLE (
    organization_id uuid, name text, location text, files bigint, rows bigint, bytes bigint,
    archived_at timestamptz, waiting_since timestamptz, late interval
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT o.id, o.name, o.archive_location, f.files, f.rows, f.bytes, f.archived_at, w.since,
        d.before - w.since
    FROM wa_organizations o
    CROSS JOIN LATERAL (SELECT _wa_archive_before(o.id, clock_timestamp()) AS before OFFSET 0) d
    CROSS JOIN LATERAL (
        SELECT min(r.at) AS since FROM unnest(ARRAY['messages', 'statuses', 'queue']) k (kind)
        CROSS JOIN LATERAL _wa_archive_rows(o.id, k.kind, d.before, 1) r
    ) w
    CROSS JOIN LATERAL (
        SELECT count(*) AS files, coalesce(sum(x.row_count), 0)::bigint AS rows,
            coalesce(sum(x.byte_count), 0)::bigint AS bytes, max(x.kept_at) AS archived_at
        FROM wa_archive_files x WHERE x.organization_id = o.id AND x.state = 'kept'
    ) f
    WHERE o.id = ANY (_wa_visible_organizations()) AND o.archive_location IS NOT NULL
    ORDER BY o.name
$$;

COMMENT ON FUNCTION get_wa_archive_health() IS
'One row per organization that has an archive: what is in it, when it was last written to, and from when the '
'oldest row is that waits for it, and retention with it; late: since when it is due. NULL where none waits.';

CREATE OR REPLACE FUNCTION _wa_erase_archive_of(p_org uuid, p_contact_id bigint) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_archive_keys k WHERE k.organization_id = p_org AND k.contact_id = p_contact_id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_archive_of(uuid, bigint) IS
'Internal: destroys the keys of a person''s archived rows, wherever copies of them are.';

CREATE OR REPLACE FUNCTION _wa_merge_archive_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_archive_keys k SET contact_id = p_into
    WHERE k.organization_id = p_org AND k.contact_id = p_from
$$;

COMMENT ON FUNCTION _wa_merge_archive_of(uuid, bigint, bigint) IS
'Internal: what was archived of a contact is that of the one that it merges with.';
