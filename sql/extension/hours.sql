-- Hours of the day at which somebody may be written to, by the clocks that hang where he may be. A moment is
-- quiet when the clock on the wall shows a quiet time, so a time that a change of the clock leaves out, or
-- shows twice, needs no rule of its own.

CREATE FUNCTION _wa_phone_zones() RETURNS TABLE (prefix text, zones text[])
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
@@include plpython/parse_phone.py@@
@@include plpython/phone_zones.py@@
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    return phone_zones(import_phonenumbers(directory))
except ImportError:
    plpy.error("the phonenumbers library is missing on the server", sqlstate="58P01",
               hint="Run make install of pg_whatsapp for this server.")
$plpython$;
COMMENT ON FUNCTION _wa_phone_zones() IS
'The time zones that numbers may lie in, by how they begin: + and digits, or the two letters of a region. '
'From the phonenumbers library.';

-- Names come and go with the server's time zone data: with an update of the system, or a restore on another
-- machine. Whoever reads a stored one asks here first, for an unknown one is an error in all that it touches.
CREATE FUNCTION _wa_known_zone(p_name text, p_else text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM timestamptz '2000-01-01 00:00+00' AT TIME ZONE p_name;
    RETURN coalesce(p_name, p_else);
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN p_else;
END
$$;
COMMENT ON FUNCTION _wa_known_zone(text, text) IS
'The name of a time zone if the server has it, else the other.';

-- The longest first: what is said of an area counts before what is said of its country.
CREATE FUNCTION _wa_zone_prefixes(p_phone text, p_user_id text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_phone IS NOT NULL THEN ARRAY[
        left(p_phone, 11), left(p_phone, 10), left(p_phone, 9), left(p_phone, 8), left(p_phone, 7),
        left(p_phone, 6), left(p_phone, 5), left(p_phone, 4), left(p_phone, 3), left(p_phone, 2)
    ]
    ELSE ARRAY[left(p_user_id, 2)]
END;
COMMENT ON FUNCTION _wa_zone_prefixes(text, text) IS
'Under which prefixes the zone of a number, or of a user id that begins with its region, may stand.';

-- p_days holds the ISO days on which each period begins, as bits (2 Monday to 128 Sunday). A period that ends
-- at or before the time at which it begins lasts into the next day.
CREATE FUNCTION _wa_quiet_end(
    p_days integer[], p_from time[], p_to time[], p_holidays date[], p_local timestamp
) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT max(q.ends)
    FROM (
        SELECT d.day + r.ends
            + CASE WHEN r.ends <= r.begins THEN interval '1 day' ELSE interval '0' END AS ends
        FROM unnest(p_days, p_from, p_to) r (days, begins, ends)
        CROSS JOIN (VALUES (p_local::date), (p_local::date - 1)) d (day)
        WHERE r.days & (1 << extract(ISODOW FROM d.day)::integer) <> 0 AND d.day + r.begins <= p_local
        UNION ALL
        SELECT p_local::date + interval '1 day' WHERE p_local::date = ANY (p_holidays)
    ) q
    WHERE q.ends > p_local
);
COMMENT ON FUNCTION _wa_quiet_end(integer[], time[], time[], date[], timestamp) IS
'When by the same clock the longest quiet period ends that it is in; NULL when it shows no quiet time.';

-- In such a stretch of time a clock changes once: where its distance to UTC is another than at the start.
CREATE FUNCTION _wa_clock_change(p_zone text, p_from timestamptz, p_to timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_before timestamptz := p_from;
    v_after timestamptz := p_to;
    v_middle timestamptz;
BEGIN
    WHILE v_after - v_before > interval '1 microsecond' LOOP
        v_middle := v_before + (v_after - v_before) / 2;
        IF (v_middle AT TIME ZONE p_zone) - (v_middle AT TIME ZONE 'UTC')
            = (p_from AT TIME ZONE p_zone) - (p_from AT TIME ZONE 'UTC')
        THEN
            v_before := v_middle;
        ELSE
            v_after := v_middle;
        END IF;
    END LOOP;
    RETURN v_after;
END
$$;
COMMENT ON FUNCTION _wa_clock_change(text, timestamptz, timestamptz) IS
'The moment between two at which a zone''s clock is changed.';

CREATE FUNCTION _wa_allowed_from(
    p_days integer[], p_from time[], p_to time[], p_holidays date[], p_zones text[], p_spread integer,
    p_at timestamptz
) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_at timestamptz := p_at;
    v_next timestamptz;
    v_quiet record;
BEGIN
    LOOP
        SELECT c.zone, c.ahead, c.local, q.ends INTO v_quiet
        FROM (
            SELECT min(u.zone) AS zone, s.ahead, (v_at + s.ahead) AT TIME ZONE u.zone AS local
            FROM unnest(p_zones) u (zone)
            CROSS JOIN (
                SELECT make_interval(hours => n) AS ahead FROM generate_series(-p_spread, p_spread) n
            ) s
            GROUP BY s.ahead, local
        ) c
        CROSS JOIN LATERAL (
            SELECT _wa_quiet_end(p_days, p_from, p_to, p_holidays, c.local) AS ends OFFSET 0
        ) q
        WHERE q.ends IS NOT NULL
        ORDER BY q.ends - c.local DESC
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        v_next := v_at + (v_quiet.ends - v_quiet.local);
        IF (v_next + v_quiet.ahead) AT TIME ZONE v_quiet.zone <> v_quiet.ends THEN
            v_next := _wa_clock_change(v_quiet.zone, v_at + v_quiet.ahead, v_next + v_quiet.ahead)
                - v_quiet.ahead;
        END IF;
        v_at := v_next;
        IF v_at > p_at + interval '15 days' THEN
            RETURN NULL;
        END IF;
    END LOOP;
    RETURN v_at;
END
$$;
COMMENT ON FUNCTION _wa_allowed_from(integer[], time[], time[], date[], text[], integer, timestamptz) IS
'The first moment, from a given one on, at which in none of the zones the clock, and what it shows up to so '
'many hours before and after, is in a quiet period or on a holiday; NULL if there is none in fifteen days.';
