-- Names of time zones: of an organization, of an account, of a prefix, of a contact.

CREATE OR REPLACE FUNCTION _wa_require_time_zone(p_name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    -- As the CHECK of the columns says.
    IF p_name !~ '^(UTC|[A-Z][A-Za-z]+(/[A-Za-z_-]+)+|Etc/GMT[+-](1[0-4]|[0-9]))$'
        OR p_name <> _wa_known_zone(p_name, '')
    THEN
        RAISE EXCEPTION USING ERRCODE = 'WA061',
            MESSAGE = format('no time zone of the name "%s"', left(p_name, 100)),
            DETAIL = 'Abbreviations such as CET, and distances to UTC, know nothing of changes of the clock.',
            HINT = 'SELECT name FROM pg_timezone_names; Europe/Madrid is one. NULL forgets what was set.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_time_zone(text) IS
'Internal: raises WA061 for what is no name of a time zone; NULL passes.';

-- No CHECK: that would be asked again with each change of the row, and by a restore, where the server may
-- have the zone no more.
CREATE OR REPLACE FUNCTION tg_require_time_zone() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_zone text := to_jsonb(NEW) ->> TG_ARGV[0];
BEGIN
    IF TG_OP = 'INSERT' OR v_zone IS DISTINCT FROM to_jsonb(OLD) ->> TG_ARGV[0] THEN
        PERFORM _wa_require_time_zone(v_zone);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_require_time_zone() IS
'Refuses the name of a time zone that the server does not have, in the column that the trigger names '
'(WA061).';

CREATE OR REPLACE TRIGGER require_time_zone BEFORE INSERT OR UPDATE OF time_zone ON wa_organizations
FOR EACH ROW EXECUTE FUNCTION tg_require_time_zone('time_zone');
