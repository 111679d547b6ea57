-- The rate card: what a message costs, by country and category.

-- No field of a rate card holds a comma or a quote.
CREATE OR REPLACE FUNCTION _wa_csv_fields(p_line text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
    SELECT array_agg(btrim(f.field, E' \t\r"') ORDER BY f.n)
    FROM unnest(string_to_array(p_line, ',')) WITH ORDINALITY f (field, n)
$$;

COMMENT ON FUNCTION _wa_csv_fields(text) IS 'Internal: the fields of a line, without blanks and quotes.';

CREATE OR REPLACE FUNCTION _wa_rate_lines(p_csv text, p_names text[]) RETURNS TABLE (
    n bigint, line text, country text, category text, currency text, valid_from text, rate text,
    region text, volume_from text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
    SELECT
        l.n, btrim(l.line, E'\r'), upper(f.fields[array_position(p_names, 'country')]),
        replace(lower(f.fields[array_position(p_names, 'category')]), '-', '_'),
        upper(f.fields[array_position(p_names, 'currency')]), f.fields[array_position(p_names, 'valid_from')],
        f.fields[array_position(p_names, 'rate')],
        nullif(f.fields[array_position(p_names, 'region')], ''),
        coalesce(nullif(f.fields[array_position(p_names, 'volume_from')], ''), '0')
    FROM string_to_table(p_csv, E'\n') WITH ORDINALITY l (line, n)
    CROSS JOIN LATERAL (SELECT _wa_csv_fields(l.line) AS fields) f
    WHERE l.n > 1 AND btrim(l.line, E' \t\r') <> ''
$$;

COMMENT ON FUNCTION _wa_rate_lines(text, text[]) IS
'Internal: the lines of a rate card after the first, by the names of its columns.';

CREATE OR REPLACE FUNCTION load_wa_rates(p_csv text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_names text[];
    v_wrong record;
    v_loaded integer;
BEGIN
    v_names := _wa_csv_fields(lower(split_part(ltrim(p_csv, E'\ufeff'), E'\n', 1)));
    IF NOT coalesce(v_names @> ARRAY['country', 'category', 'currency', 'valid_from', 'rate'], false) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA032',
            MESSAGE = 'the first line does not name the columns of a rate card',
            DETAIL = format('It says: %s.', coalesce(left(array_to_string(v_names, ','), 200), 'nothing')),
            HINT = 'Begin with: country,category,currency,valid_from,rate';
    END IF;
    SELECT l.n, l.line INTO v_wrong
    FROM _wa_rate_lines(p_csv, v_names) l
    WHERE NOT coalesce(
        l.country ~ '^[A-Z]{2}$' AND l.category ~ '^[a-z][a-z_]*$' AND l.currency ~ '^[A-Z]{3}$'
        AND l.valid_from ~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$' AND l.rate ~ '^\d+([.]\d+)?$'
        AND l.volume_from ~ '^\d{1,18}$' AND (l.volume_from ~ '^0+$' OR l.region IS NOT NULL), false
    )
    ORDER BY l.n LIMIT 1;
    IF v_wrong.n IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA032',
            MESSAGE = format('line %s is no rate: "%s"', v_wrong.n, left(v_wrong.line, 80)),
            DETAIL = format('The columns are %s.', array_to_string(v_names, ',')),
            HINT = 'As in: BR,marketing,USD,2026-07-01,0.0625';
    END IF;
    INSERT INTO wa_rates AS r (country, category, valid_from, currency, rate, region, volume_from)
    SELECT DISTINCT ON (l.country, l.category, l.valid_from, l.volume_from::bigint)
        l.country, l.category, l.valid_from::date, l.currency, l.rate::numeric, l.region,
        l.volume_from::bigint
    FROM _wa_rate_lines(p_csv, v_names) l
    ORDER BY l.country, l.category, l.valid_from, l.volume_from::bigint, l.n DESC
    ON CONFLICT (organization_id, country, category, valid_from, volume_from) DO UPDATE SET
        currency = excluded.currency, rate = excluded.rate,
        region = coalesce(excluded.region, r.region), created_at = clock_timestamp();
    GET DIAGNOSTICS v_loaded = ROW_COUNT;
    RETURN v_loaded;
END
$$;

COMMENT ON FUNCTION load_wa_rates(text) IS
'Takes a rate card as CSV text into wa_rates and returns the number of rates; one of the same country, '
'category, day and volume replaces what was there. The first line names the columns country, category, '
'currency, valid_from, rate, in any order, and region, volume_from where rates go by volume.';
