-- How far rows are in the archive, as the rooms see that take old ones away.

-- Once a call of a deleting function, not once a row.
CREATE OR REPLACE FUNCTION _wa_archived_through(p_org uuid, p_kind text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN o.archive_location IS NULL THEN CASE p_kind
            WHEN 'queue' THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE '9223372036854775807' END
        ELSE coalesce(
            (
                SELECT f.place FROM wa_archive_files f
                WHERE f.organization_id = p_org AND f.kind = p_kind AND f.state = 'kept'
                ORDER BY f.number DESC LIMIT 1
            ),
            CASE p_kind WHEN 'queue' THEN '00000000-0000-0000-0000-000000000000' ELSE '0' END
        ) END
    FROM wa_organizations o WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_archived_through(uuid, text) IS
'Internal: up to which id retention may take rows of a kind (messages, statuses, queue): all of them where '
'the organization has no archive, else what is in it.';

-- Others have ids of the application's own; they are archived, and found, by their messages.
CREATE OR REPLACE FUNCTION _wa_is_timed_id(p_id uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substr(p_id::text, 15, 1) = '7';

COMMENT ON FUNCTION _wa_is_timed_id(uuid) IS 'Internal: whether an id tells its time (UUIDv7).';

CREATE OR REPLACE FUNCTION _wa_is_straggler(p_org uuid, p_kind text, p_queue_id uuid) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM wa_retention_stragglers s
    WHERE s.organization_id = p_org AND s.kind = p_kind AND s.queue_id = p_queue_id
);

COMMENT ON FUNCTION _wa_is_straggler(uuid, text, uuid) IS
'Internal: whether a queue row was passed by, and is not in the archive yet (archive), or not emptied '
'(texts).';
