-- When a job is due: schedules in the words of cron, read by ourselves, so that a dispatcher follows the same
-- ones as pg_cron.

-- From PostgreSQL 17 on, the setting may be read by some roles only: the others take it for what it is unless
-- somebody changed it.
CREATE OR REPLACE FUNCTION _wa_job_time_zone() RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN _wa_known_zone(nullif(current_setting('cron.timezone', true), ''), 'GMT');
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 'GMT';
END
$$;

COMMENT ON FUNCTION _wa_job_time_zone() IS
'The zone of the schedules in wa_jobs: that of pg_cron, which is GMT where it has no setting for it.';

CREATE OR REPLACE FUNCTION _wa_cron_values(
    p_field text, p_lowest integer, p_highest integer, p_names text[] DEFAULT '{}'
) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_part text;
    v_found text[];
    v_from integer;
    v_to integer;
    v_values integer[] := '{}'::integer[];
BEGIN
    FOREACH v_part IN ARRAY string_to_array(lower(p_field), ',') LOOP
        v_found := regexp_match(v_part, '^(?:\*|([a-z]{3}|\d{1,2})(-([a-z]{3}|\d{1,2}))?)(?:/(\d{1,2}))?$');
        v_from := CASE
            WHEN v_found[1] IS NULL THEN p_lowest
            WHEN v_found[1] ~ '\d' THEN v_found[1]::integer
            ELSE array_position(p_names, v_found[1]) - 1 + p_lowest END;
        v_to := CASE
            WHEN v_found[1] IS NULL THEN p_highest
            WHEN v_found[2] IS NULL THEN v_from
            WHEN v_found[3] ~ '\d' THEN v_found[3]::integer
            ELSE array_position(p_names, v_found[3]) - 1 + p_lowest END;
        -- A step goes with * or a range, and is not 0.
        IF v_found IS NULL OR v_from IS NULL OR v_to IS NULL OR v_from < p_lowest OR v_to > p_highest
            OR v_from > v_to OR v_found[4]::integer = 0
            OR (v_found[4] IS NOT NULL AND v_found[1] IS NOT NULL AND v_found[2] IS NULL)
        THEN
            RETURN NULL;
        END IF;
        v_values := v_values || ARRAY(SELECT generate_series(v_from, v_to, coalesce(v_found[4]::integer, 1)));
    END LOOP;
    RETURN v_values;
END
$$;

COMMENT ON FUNCTION _wa_cron_values(text, integer, integer, text[]) IS
'Internal: the values that a field of a cron schedule names; NULL if it is malformed.';

CREATE OR REPLACE FUNCTION _wa_next_job_time(p_schedule text, p_after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_seconds integer := substring(p_schedule FROM '^([1-9]|[1-5]\d) seconds?$')::integer;
    v_fields text[] := regexp_split_to_array(btrim(p_schedule), '\s+');
    v_zone text := _wa_job_time_zone();
    v_from timestamp := date_trunc('minute', p_after AT TIME ZONE v_zone) + interval '1 minute';
    v_minutes integer[] := _wa_cron_values(v_fields[1], 0, 59);
    v_hours integer[] := _wa_cron_values(v_fields[2], 0, 23);
    v_days integer[] := _wa_cron_values(v_fields[3], 1, 31);
    v_months integer[] := _wa_cron_values(
        v_fields[4], 1, 12,
        '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}'::text[]
    );
    v_weekdays integer[] := _wa_cron_values(v_fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}'::text[]);
    -- As in cron: days of the month and of the week add up, unless one of them is any.
    v_either boolean := v_fields[3] !~ '^\*' AND v_fields[5] !~ '^\*';
    v_next timestamp;
BEGIN
    IF v_seconds IS NOT NULL THEN
        RETURN p_after + v_seconds * interval '1 second';
    END IF;
    IF cardinality(v_fields) = 5 AND v_minutes IS NOT NULL AND v_hours IS NOT NULL AND v_days IS NOT NULL
        AND v_months IS NOT NULL AND v_weekdays IS NOT NULL
    THEN
        -- Today's last time may be over, so two days are looked at; 29 February comes within eight years.
        SELECT min(t.at) INTO v_next
        FROM (
            SELECT d.day
            FROM generate_series(v_from::date, v_from::date + 8 * 366, interval '1 day') d (day)
            CROSS JOIN LATERAL (
                SELECT extract(day FROM d.day)::integer = ANY (v_days),
                    v_weekdays && ARRAY[extract(dow FROM d.day)::integer, extract(isodow FROM d.day)::integer]
            ) m (by_month, by_week)
            WHERE extract(month FROM d.day)::integer = ANY (v_months)
                AND CASE WHEN v_either THEN m.by_month OR m.by_week ELSE m.by_month AND m.by_week END
            ORDER BY d.day
            LIMIT 2
        ) d
        CROSS JOIN unnest(v_hours) h (hour)
        CROSS JOIN unnest(v_minutes) n (minute)
        CROSS JOIN LATERAL (SELECT d.day + make_interval(hours => h.hour, mins => n.minute)) t (at)
        WHERE t.at >= v_from;
    END IF;
    IF v_next IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('"%s" is not a schedule, or never comes', p_schedule),
            DETAIL = 'It has neither five fields that a time fits, nor a number of seconds.',
            HINT = 'Five fields: minute, hour, day of month, month, day of week, for example */5 * * * *; or '
                '10 seconds.';
    END IF;
    RETURN v_next AT TIME ZONE v_zone;
END
$$;

COMMENT ON FUNCTION _wa_next_job_time(text, timestamptz) IS
'Internal: the first time after the given one that a schedule names.';

-- With pg_cron alone, schedules in seconds may come by only every minute.
CREATE OR REPLACE FUNCTION _wa_job_is_overdue(p_schedule text, p_next_run_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        WHEN p_next_run_at < clock_timestamp() - interval '3 minutes'
            THEN (
                SELECT clock_timestamp() > p_next_run_at + 3 * greatest(
                    interval '1 minute', _wa_next_job_time(p_schedule, n.at) - n.at)
                FROM (SELECT _wa_next_job_time(p_schedule, p_next_run_at)) n (at))
        ELSE false END
$$;

COMMENT ON FUNCTION _wa_job_is_overdue(text, timestamptz) IS
'Internal: whether a job has been due for three of its intervals and nobody ran it.';

CREATE OR REPLACE FUNCTION tg_wa_jobs__plan() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_next timestamptz := _wa_next_job_time(NEW.schedule, clock_timestamp());
BEGIN
    NEW.next_run_at := CASE WHEN NEW.is_enabled AND NEW.scheduled_at IS NOT NULL THEN v_next END;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_jobs__plan() IS
'Refuses what is no schedule (22023), and says when a changed job is due next.';

CREATE OR REPLACE TRIGGER plan BEFORE INSERT OR UPDATE OF schedule, is_enabled, scheduled_at ON wa_jobs
FOR EACH ROW EXECUTE FUNCTION tg_wa_jobs__plan();
