-- The moves of a queued row. Other rooms decide and call; here is who writes.

CREATE OR REPLACE FUNCTION _wa_doubt_all() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH doubtful AS (
        UPDATE wa_queue_inflight i
        SET is_unknown = true, deadline_at = clock_timestamp() + o.unknown_grace
        FROM wa_organizations o
        WHERE o.id = i.organization_id
        RETURNING 1
    )
    SELECT count(*) FROM doubtful
$$;

COMMENT ON FUNCTION _wa_doubt_all() IS
'Internal: marks everything in flight, of every organization, as of unknown outcome from now on; returns how '
'many.';

CREATE OR REPLACE FUNCTION _wa_assign_numbers(p_org uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_queue_due d SET number_id = o.default_number_id
    FROM wa_organizations o
    WHERE o.id = p_org AND d.organization_id = p_org AND d.number_id IS NULL AND d.class > 0
        AND o.default_number_id IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_assign_numbers(uuid) IS
'Internal: gives the default number to rows that were queued before there was one.';

CREATE OR REPLACE FUNCTION tg_wa_organizations__assign_numbers() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_assign_numbers(NEW.id);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_organizations__assign_numbers() IS
'Gives an organization''s first number to what waited for one.';

CREATE OR REPLACE TRIGGER assign_numbers AFTER UPDATE OF default_number_id ON wa_organizations
FOR EACH ROW WHEN (OLD.default_number_id IS NULL AND NEW.default_number_id IS NOT NULL)
EXECUTE FUNCTION tg_wa_organizations__assign_numbers();
