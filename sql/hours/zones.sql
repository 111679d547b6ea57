-- Whose clock counts: the contact's own zone, else what the organization says of the number's prefix, else
-- every zone that the number may lie in. Where nothing is known of a contact, the organization's zone counts,
-- and three hours to both sides of it. A zone that the server has no more is none.

CREATE OR REPLACE FUNCTION refresh_wa_phone_zones() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_changed integer;
BEGIN
    WITH told AS MATERIALIZED (
        -- A zone that the server does not know would be an error in each claim.
        SELECT z.prefix, array_agg(u.name ORDER BY u.name) AS zones
        FROM _wa_phone_zones() z
        CROSS JOIN LATERAL unnest(z.zones) u (name)
        WHERE u.name IN (SELECT n.name FROM pg_catalog.pg_timezone_names n)
        GROUP BY z.prefix
    ),
    gone AS (
        DELETE FROM wa_phone_zones p WHERE NOT EXISTS (SELECT FROM told t
            WHERE t.prefix = p.prefix) RETURNING 1
    ),
    written AS (
        INSERT INTO wa_phone_zones AS p (prefix, zones) SELECT t.prefix, t.zones FROM told t
        ON CONFLICT (prefix) DO UPDATE SET zones = excluded.zones WHERE p.zones <> excluded.zones
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM written) INTO v_changed;
    RETURN v_changed;
END
$$;

COMMENT ON FUNCTION refresh_wa_phone_zones() IS
'Takes over the time zones of the phonenumbers library that the server has; returns how many prefixes '
'changed. migrate_wa() calls it; call it after another release of the library was installed.';

DO $$
BEGIN
    PERFORM refresh_wa_phone_zones();
END
$$;

-- A set of one, so that it is taken into a join. Each table is looked up by key.
CREATE OR REPLACE FUNCTION _wa_zones_for(p_org uuid, p_time_zone text, p_phone text, p_user_id text)
RETURNS TABLE (zones text[], spread integer, source text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(c.zones, r.zones, z.zones, ARRAY[o.time_zone]),
        CASE WHEN num_nonnulls(c.zones, r.zones, z.zones) = 0 THEN 3 ELSE 0 END,
        CASE WHEN c.zones IS NOT NULL THEN 'contact' WHEN r.zones IS NOT NULL THEN 'prefix'
            WHEN z.zones IS NOT NULL THEN 'number' ELSE 'unknown' END
    FROM wa_organizations o
    LEFT JOIN LATERAL (SELECT ARRAY[p_time_zone] AS zones) c ON _wa_known_zone(p_time_zone) IS NOT NULL
    LEFT JOIN LATERAL (
        SELECT ARRAY[x.time_zone] AS zones FROM wa_zone_prefixes x
        WHERE x.organization_id = p_org AND x.prefix = ANY (_wa_zone_prefixes(p_phone, p_user_id))
            AND _wa_known_zone(x.time_zone) IS NOT NULL
        ORDER BY length(x.prefix) DESC LIMIT 1
    ) r ON c.zones IS NULL
    LEFT JOIN LATERAL (
        SELECT x.zones FROM wa_phone_zones x
        WHERE x.prefix = ANY (_wa_zone_prefixes(p_phone, p_user_id))
        ORDER BY length(x.prefix) DESC LIMIT 1
    ) z ON c.zones IS NULL AND r.zones IS NULL
    WHERE o.id = p_org;
END;

COMMENT ON FUNCTION _wa_zones_for(uuid, text, text, text) IS
'Internal: the zones whose clocks count for a number or user id, and with spread, how many hours to both '
'sides of them; source: contact, prefix (the organization''s rule), number (all it may lie in) or unknown.';

CREATE OR REPLACE FUNCTION _wa_zones_of(p_org uuid, p_contact_id bigint)
RETURNS TABLE (zones text[], spread integer, source text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT z.zones, z.spread, z.source
    FROM (
        SELECT x.time_zone, x.phone_e164, x.user_id FROM wa_contacts x
        WHERE x.organization_id = p_org AND x.id = p_contact_id LIMIT 1
    ) c
    CROSS JOIN LATERAL _wa_zones_for(p_org, c.time_zone, c.phone_e164, c.user_id) z;
END;

COMMENT ON FUNCTION _wa_zones_of(uuid, bigint) IS 'Internal: _wa_zones_for() a contact.';
