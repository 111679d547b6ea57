-- What a message waits for on its contact's account: the hour, room under a cap, the end of a cool-off. Asked
-- by _wa_judge() for all rows at once; an organization without rules is told so by three looks into empty
-- tables.

CREATE OR REPLACE FUNCTION _wa_purpose_of(p_category text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_category WHEN 'AUTHENTICATION' THEN NULL WHEN 'UTILITY' THEN 'utility' ELSE 'marketing' END;

COMMENT ON FUNCTION _wa_purpose_of(text) IS
'Internal: what a template is for: utility or marketing, which is what has no category; NULL for '
'authentication, which never waits.';

CREATE OR REPLACE FUNCTION _wa_quiet_until(
    p_org uuid, p_number_id bigint, p_channel text, p_purpose text, p_zones text[], p_spread integer,
    p_now timestamptz
) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    -- What is claimed now is sent within a second.
    c_ahead CONSTANT interval := interval '2 seconds';
    v_hours record;
    v_days date[];
    v_allowed timestamptz;
    -- Those of the number, and the organization's, are asked for here: once for all that hang by them.
    v_zones text[] := ARRAY(
        SELECT u.zone FROM unnest(p_zones) u (zone) WHERE _wa_known_zone(u.zone) IS NOT NULL
    );
BEGIN
    IF v_zones = '{}' THEN
        v_zones := '{UTC}';
        p_spread := 3;
    END IF;
    SELECT array_agg(r.days) AS days, array_agg(r.from_time) AS from_time, array_agg(r.to_time) AS to_time
    INTO v_hours
    FROM (
        SELECT (SELECT sum(1 << d) FROM (SELECT DISTINCT unnest(q.days)) u (d))::integer AS days, q.from_time,
            q.to_time
        FROM wa_quiet_hours q
        WHERE q.organization_id = p_org AND q.channel = p_channel AND q.purpose IN (p_purpose, 'all')
            AND (q.phone_number_id IS NULL OR q.phone_number_id = (
                SELECT n.phone_number_id FROM wa_phone_numbers n
                WHERE n.organization_id = p_org AND n.id = p_number_id
            ))
        UNION ALL
        SELECT 254, time '21:00', time '08:00' WHERE p_channel = 'sms'
    ) r;
    SELECT array_agg(q.day) INTO v_days FROM wa_quiet_days q
    WHERE q.organization_id = p_org AND q.purpose IN (p_purpose, 'all') AND q.day >= p_now::date - 2;
    IF v_hours.days IS NULL AND v_days IS NULL THEN
        RETURN NULL;
    END IF;
    v_allowed := _wa_allowed_from(
        v_hours.days, v_hours.from_time, v_hours.to_time, v_days, v_zones, p_spread, p_now);
    IF v_allowed = p_now THEN
        v_allowed := _wa_allowed_from(
            v_hours.days, v_hours.from_time, v_hours.to_time, v_days, v_zones, p_spread, p_now + c_ahead);
        IF v_allowed = p_now + c_ahead THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN coalesce(v_allowed, p_now + interval '7 days');
END
$$;

COMMENT ON FUNCTION _wa_quiet_until(uuid, bigint, text, text, text[], integer, timestamptz) IS
'Internal: until when a message of a purpose has to wait for the hour in all of the zones; NULL when it may '
'go. Where they have no hour in common it is asked again in seven days.';

-- In flight is what may still fail. Of the ledger no more is read than the contact's messages of those days:
-- ids grow with the time, and an hour is more than any two transactions differ.
CREATE OR REPLACE FUNCTION _wa_sends_of(
    p_org uuid, p_contact_id bigint, p_purpose text, p_first_id bigint, p_since timestamptz
) RETURNS TABLE (at timestamptz, is_in_flight boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(m.claimed_at, m.created_at), false
    FROM (
        SELECT x.* FROM wa_messages x WHERE x.contact_id = p_contact_id AND x.id >= p_first_id
        ORDER BY x.id DESC OFFSET 0
    ) m
    WHERE m.organization_id = p_org AND m.direction = 'outbound'
        AND num_nonnulls(m.template_name, m.template_category) > 0
        AND m.state <> 'failed' AND coalesce(m.claimed_at, m.created_at) > p_since
        AND CASE p_purpose WHEN 'all' THEN _wa_purpose_of(m.template_category) IS NOT NULL
            ELSE _wa_purpose_of(m.template_category) = p_purpose END
    UNION ALL
    SELECT f.claimed_at, true
    FROM (
        SELECT x.* FROM wa_queue_inflight x WHERE x.contact_id = p_contact_id OFFSET 0
    ) f
    CROSS JOIN LATERAL (
        SELECT _wa_purpose_of(x.category) AS purpose FROM wa_templates x
        WHERE x.organization_id = p_org AND x.id = f.template_id
        UNION ALL
        SELECT _wa_purpose_of(_wa_sms_category(p_org, f.queue_id)) FROM wa_phone_numbers x
        WHERE f.template_id IS NULL AND x.organization_id = p_org AND x.id = f.number_id
            AND x.channel = 'sms'
        LIMIT 1
    ) t
    WHERE f.organization_id = p_org
        AND CASE p_purpose WHEN 'all' THEN t.purpose IS NOT NULL ELSE t.purpose = p_purpose END;
END;

COMMENT ON FUNCTION _wa_sends_of(uuid, bigint, text, bigint, timestamptz) IS
'Internal: when templates, or SMS, of a purpose went to a contact since a given time, and those on their '
'way.';

-- Where a place is taken by what is on its way and may still fail, or is judged at the same time, it is
-- looked at again a minute later. A claim asks under the organization's lock.
CREATE OR REPLACE FUNCTION _wa_waits_of(
    p_org uuid, p_queue_ids uuid[], p_number_ids bigint[], p_contact_ids bigint[], p_template_ids uuid[],
    p_channel text, p_now timestamptz, OUT until timestamptz[], OUT reasons text[], OUT are_refused boolean[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    c_soon CONSTANT interval := interval '1 minute';
    v_has record;
BEGIN
    IF p_channel <> 'sms' AND num_nonnulls(VARIADIC p_template_ids) = 0 THEN
        RETURN;
    END IF;
    SELECT
        p_channel = 'sms' OR EXISTS (SELECT FROM wa_quiet_hours x WHERE x.organization_id = p_org)
            OR EXISTS (SELECT FROM wa_quiet_days x WHERE x.organization_id = p_org) AS hours,
        EXISTS (SELECT FROM wa_contact_caps x WHERE x.organization_id = p_org) AS caps,
        EXISTS (SELECT FROM wa_contact_cool_offs x WHERE x.organization_id = p_org) AS cool_offs
    INTO v_has;
    IF NOT (v_has.hours OR v_has.caps OR v_has.cool_offs) THEN
        RETURN;
    END IF;
    WITH asked AS MATERIALIZED (
        SELECT u.place, u.number_id, u.contact_id, p.purpose,
            row_number() OVER (PARTITION BY u.contact_id ORDER BY u.place) AS nth,
            row_number() OVER (PARTITION BY u.contact_id, p.purpose ORDER BY u.place) AS nth_of_purpose
        FROM unnest(p_queue_ids, p_number_ids, p_contact_ids, p_template_ids)
            WITH ORDINALITY u (queue_id, number_id, contact_id, template_id, place)
        CROSS JOIN LATERAL (
            SELECT _wa_purpose_of(x.category) AS purpose FROM wa_templates x
            WHERE x.organization_id = p_org AND x.id = u.template_id
            -- No SMS is an answer within a window.
            UNION ALL
            SELECT _wa_purpose_of(CASE WHEN u.template_id IS NULL THEN _wa_sms_category(p_org, u.queue_id) END)
            WHERE p_channel = 'sms'
            LIMIT 1
        ) p
        WHERE p.purpose IS NOT NULL
    ),
    clocks AS MATERIALIZED (
        SELECT a.place, a.number_id, a.purpose, z.zones, z.spread
        FROM asked a
        CROSS JOIN LATERAL _wa_zones_of(p_org, a.contact_id) z
        WHERE v_has.hours
    ),
    -- Once for all that hang by the same clocks.
    quiet AS MATERIALIZED (
        SELECT d.number_id, d.purpose, d.zones, d.spread, q.until
        FROM (SELECT DISTINCT c.number_id, c.purpose, c.zones, c.spread FROM clocks c) d
        CROSS JOIN LATERAL (
            SELECT _wa_quiet_until(p_org, d.number_id, p_channel, d.purpose, d.zones, d.spread,
                p_now) AS until
            OFFSET 0
        ) q
        WHERE q.until IS NOT NULL
    ),
    caps AS MATERIALIZED (
        SELECT k.purpose, k.messages, k.on_full = 'refuse' AS refuses, k.days * interval '24 hours' AS span,
            coalesce((
                SELECT x.id FROM wa_messages x
                WHERE x.created_at >= p_now - k.days * interval '24 hours' - interval '1 hour'
                ORDER BY x.created_at, x.organization_id LIMIT 1
            ), 9223372036854775807) AS first_id
        FROM wa_contact_caps k
        WHERE v_has.caps AND k.organization_id = p_org
    ),
    wait AS (
        SELECT c.place, q.until, 'quiet_hours' AS reason, false AS is_refused
        FROM clocks c
        JOIN quiet q ON q.purpose = c.purpose AND q.zones = c.zones AND q.spread = c.spread
            AND q.number_id IS NOT DISTINCT FROM c.number_id
        UNION ALL
        SELECT a.place, o.until, 'cool_off', false
        FROM asked a
        CROSS JOIN LATERAL (
            SELECT x.until FROM wa_contact_cool_offs x
            WHERE x.organization_id = p_org AND x.contact_id = a.contact_id AND x.until > p_now LIMIT 1
        ) o
        WHERE v_has.cool_offs AND a.purpose = 'marketing'
        UNION ALL
        SELECT a.place,
            CASE WHEN s.sent >= k.messages THEN s.frees_at + k.span ELSE p_now + c_soon END, 'contact_cap',
            k.refuses AND s.sent >= k.messages
        FROM asked a
        JOIN caps k ON k.purpose IN (a.purpose, 'all')
        CROSS JOIN LATERAL (
            SELECT count(*) AS used, count(*) FILTER (WHERE NOT x.is_in_flight) AS sent,
                (array_agg(x.at ORDER BY x.at DESC) FILTER (WHERE NOT x.is_in_flight))[k.messages] AS frees_at
            FROM _wa_sends_of(p_org, a.contact_id, k.purpose, k.first_id, p_now - k.span) x
        ) s
        WHERE s.used + CASE k.purpose WHEN 'all' THEN a.nth ELSE a.nth_of_purpose END > k.messages
    ),
    worst AS (
        SELECT DISTINCT ON (w.place) w.place, w.until, w.reason, w.is_refused FROM wait w
        ORDER BY w.place, w.is_refused DESC, w.until DESC
    )
    SELECT array_agg(w.until ORDER BY n.place), array_agg(w.reason ORDER BY n.place),
        array_agg(w.is_refused ORDER BY n.place)
    INTO until, reasons, are_refused
    FROM generate_series(1, cardinality(p_contact_ids)) n (place)
    LEFT JOIN worst w ON w.place = n.place;
END
$$;

COMMENT ON FUNCTION _wa_waits_of(uuid, uuid[], bigint[], bigint[], uuid[], text, timestamptz) IS
'Internal: for each message, in the order given, until when it waits on its contact''s account and for what '
'(quiet_hours, contact_cap, cool_off), or whether a cap refuses it; NULLs for those, or all, that do not.';

CREATE OR REPLACE FUNCTION _wa_has_caps(p_org uuid) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(
    (SELECT true FROM wa_contact_caps k WHERE k.organization_id = p_org LIMIT 1), false
);

COMMENT ON FUNCTION _wa_has_caps(uuid) IS
'Internal: whether an organization limits how often contacts are written to; claims take its lock then.';

CREATE OR REPLACE FUNCTION _wa_cool_off_contacts(
    p_org uuid, p_contact_ids bigint[], p_code integer, p_until timestamptz[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- By key, and in its order, as all who write several contacts do.
    INSERT INTO wa_contact_cool_offs AS c (organization_id, contact_id, until, error_code)
    SELECT p_org, k.id, max(u.until), p_code
    FROM unnest(p_contact_ids, p_until) u (contact_id, until)
    JOIN wa_contacts k ON k.organization_id = p_org AND k.id = u.contact_id
    WHERE u.until > clock_timestamp()
    GROUP BY k.id
    ORDER BY k.id
    ON CONFLICT (organization_id, contact_id) DO UPDATE SET until = excluded.until,
        error_code = excluded.error_code, created_at = excluded.created_at
    WHERE c.until < excluded.until;
    -- Those that are over: a few each time, so that no job need.
    DELETE FROM wa_contact_cool_offs c
    USING (
        SELECT x.organization_id, x.contact_id FROM wa_contact_cool_offs x
        WHERE x.until < clock_timestamp() ORDER BY x.until LIMIT 100 FOR UPDATE SKIP LOCKED
    ) o
    WHERE c.organization_id = o.organization_id AND c.contact_id = o.contact_id;
END
$$;

COMMENT ON FUNCTION _wa_cool_off_contacts(uuid, bigint[], integer, timestamptz[]) IS
'Internal: contacts get no marketing until the given times, because of an error of the provider.';

CREATE OR REPLACE FUNCTION _wa_merge_hours_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_contact_cool_offs AS c (organization_id, contact_id, until, error_code)
    SELECT p_org, p_into, x.until, x.error_code FROM wa_contact_cool_offs x
    WHERE x.organization_id = p_org AND x.contact_id = p_from
    ON CONFLICT (organization_id, contact_id) DO UPDATE SET until = excluded.until
    WHERE c.until < excluded.until
$$;

COMMENT ON FUNCTION _wa_merge_hours_of(uuid, bigint, bigint) IS
'Internal: the cool-off of a contact counts for the one that it merges with.';
