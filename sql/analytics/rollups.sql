-- Keeping roll-ups and ledger together. A change of the ledger marks its quarter hour; what is marked is read
-- from the ledger, by the views and by the next roll-up, everything else from the roll-ups. A roll-up takes
-- the marks away that it saw before it read the ledger: what commits later comes with a mark of its own.

CREATE OR REPLACE FUNCTION _wa_quarter(p_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN date_bin('15 minutes', p_at, '2000-01-01 00:00+00');

COMMENT ON FUNCTION _wa_quarter(timestamptz) IS 'Internal: the quarter hour of a moment.';

-- Triggers: definer, so that whoever may change the ledger need no right on the marks. One row per statement
-- and quarter hour.
CREATE OR REPLACE FUNCTION tg_wa_messages__mark_new() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
    SELECT DISTINCT n.organization_id, _wa_quarter(n.created_at), true FROM new_rows n;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION tg_wa_messages__mark_old() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
    SELECT DISTINCT o.organization_id, _wa_quarter(o.created_at), true FROM old_rows o;
    RETURN NULL;
END
$$;

-- In one pass over both: a join or EXCEPT of them is planned for one row and run with hundreds. What
-- _wa_answer_lines looks at is hashed, and the hashes cancel out where nothing of it changed. A delivery
-- state is not among it: the usual change makes no answers stale.
CREATE OR REPLACE FUNCTION tg_wa_messages__mark_changed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
    SELECT c.organization_id, c.quarter_at, bit_xor(c.hash) <> 0
    FROM (
        SELECT o.organization_id, _wa_quarter(o.created_at) AS quarter_at, hash_record_extended(ROW(
            o.id, o.contact_id, o.number_id, o.group_id, o.direction, o.message_type, o.template_name,
            o.status, o.metadata ->> 'role', o.provider_at, o.created_at
        ), 0) AS hash
        FROM old_rows o
        UNION ALL
        SELECT n.organization_id, _wa_quarter(n.created_at), hash_record_extended(ROW(
            n.id, n.contact_id, n.number_id, n.group_id, n.direction, n.message_type, n.template_name,
            n.status, n.metadata ->> 'role', n.provider_at, n.created_at
        ), 0)
        FROM new_rows n
    ) c
    GROUP BY c.organization_id, c.quarter_at;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION tg_wa_messages__mark_all() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
    SELECT r.organization_id, r.quarter_at, true FROM wa_message_rollups r
    UNION
    SELECT r.organization_id, r.quarter_at, true FROM wa_response_rollups r;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_messages__mark_new() IS 'Marks the quarter hours of new messages.';
COMMENT ON FUNCTION tg_wa_messages__mark_old() IS 'Marks the quarter hours of deleted messages.';
COMMENT ON FUNCTION tg_wa_messages__mark_changed() IS 'Marks the quarter hours of changed messages.';
COMMENT ON FUNCTION tg_wa_messages__mark_all() IS 'Marks everything rolled up when the ledger is truncated.';

CREATE OR REPLACE TRIGGER mark_new AFTER INSERT ON wa_messages
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_messages__mark_new();
CREATE OR REPLACE TRIGGER mark_old AFTER DELETE ON wa_messages
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_messages__mark_old();
CREATE OR REPLACE TRIGGER mark_changed AFTER UPDATE ON wa_messages
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_messages__mark_changed();
CREATE OR REPLACE TRIGGER mark_all AFTER TRUNCATE ON wa_messages
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_messages__mark_all();

-- The quarter hours whose messages must be counted in the ledger.
CREATE OR REPLACE VIEW _wa_stale_quarters AS
SELECT DISTINCT k.organization_id, k.quarter_at
FROM wa_rollup_marks k
LEFT JOIN wa_rollup_horizons h ON h.organization_id = k.organization_id
WHERE k.quarter_at >= coalesce(h.forgotten_before, '-infinity');

-- The same for answers: they depend on what was written in the 24 hours before.
CREATE OR REPLACE VIEW _wa_stale_answer_quarters AS
SELECT DISTINCT k.organization_id, q.quarter_at
FROM (SELECT DISTINCT x.organization_id, x.quarter_at FROM wa_rollup_marks x WHERE x.changes_order) k
LEFT JOIN wa_rollup_horizons h ON h.organization_id = k.organization_id
CROSS JOIN LATERAL generate_series(
    k.quarter_at,
    greatest(k.quarter_at, least(k.quarter_at + interval '24 hours', _wa_quarter(clock_timestamp()))),
    interval '15 minutes'
) q (quarter_at)
WHERE q.quarter_at >= coalesce(h.forgotten_before + interval '24 hours', '-infinity');

-- The ledger's own figures of stale quarter hours: the source of a roll-up, and what stands in until there is
-- one. Grouped in a lateral, each quarter hour is a look-up by wa_messages_created_at_idx whatever the
-- planner believes of the marks.
CREATE OR REPLACE VIEW _wa_message_lines AS
SELECT
    s.organization_id, s.quarter_at,
    (s.quarter_at AT TIME ZONE _wa_known_zone(o.time_zone, 'UTC'))::date AS day, l.*,
    CASE WHEN l.charge IS NOT NULL OR l.charged_at IS NOT NULL THEN (
        coalesce(l.charged_at, s.quarter_at)
        AT TIME ZONE _wa_known_zone(n.account_time_zone, _wa_known_zone(o.time_zone, 'UTC'))
    )::date END AS charged_on
FROM _wa_stale_quarters s
JOIN wa_organizations o ON o.id = s.organization_id
CROSS JOIN LATERAL (
    SELECT
        m.phone_number_id, m.direction, m.is_echo, m.message_type, m.template_name, m.status,
        -- Only prices go by it.
        CASE WHEN m.pricing IS NOT NULL OR p.is_service THEN _wa_country(m.phone_e164, m.user_id) END
            AS country,
        replace(lower(m.pricing ->> 'category'), '-', '_') AS pricing_category,
        _wa_charge(m.pricing) AS charge,
        count(*) AS messages,
        count(*) FILTER (WHERE m.state IN ('delivered', 'read', 'played')) AS delivered,
        count(*) FILTER (WHERE m.state IN ('read', 'played')) AS seen,
        count(m.sent_at - m.queued_at) AS queued,
        -- Statuses carry whole seconds: what was sent in the second of its queueing waited for none.
        coalesce(sum(greatest(m.sent_at - m.queued_at, '0')), '0') AS queue_time,
        -- A delivery that nobody told of is known by what came after it.
        CASE WHEN m.state IN ('delivered', 'read', 'played') AND (m.pricing IS NOT NULL OR p.is_service)
            THEN _wa_quarter(coalesce(least(m.delivered_at, m.read_at, m.played_at), m.created_at))
        END AS charged_at,
        p.is_service
    FROM wa_messages m
    -- What is written freely to one customer. A price of another category is another matter, and what an
    -- advertisement began is free anyway.
    CROSS JOIN LATERAL (
        SELECT m.direction = 'outbound' AND NOT m.is_echo AND m.template_name IS NULL AND m.group_id IS NULL
            AND NOT _wa_is_sms(m.template_name, m.template_category)
            AND coalesce(lower(m.pricing ->> 'category') = 'service', true)
            AND coalesce(m.pricing ->> 'type' <> 'free_entry_point', true) AS is_service
    ) p
    WHERE m.organization_id = s.organization_id AND m.created_at >= s.quarter_at
        AND m.created_at < s.quarter_at + interval '15 minutes'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, charged_at, p.is_service
) l
LEFT JOIN wa_phone_numbers n
    ON n.organization_id = s.organization_id AND n.phone_number_id = l.phone_number_id;

-- An answer is the first free-form message to a customer after one of theirs, within 24 hours. It is timed
-- from the first message that was still unanswered.
CREATE OR REPLACE VIEW _wa_answer_lines AS
SELECT
    s.organization_id, s.quarter_at,
    (s.quarter_at AT TIME ZONE _wa_known_zone(o.time_zone, 'UTC'))::date AS day, l.*
FROM _wa_stale_answer_quarters s
JOIN wa_organizations o ON o.id = s.organization_id
CROSS JOIN LATERAL (
    SELECT
        m.phone_number_id, m.metadata ->> 'role' AS role, count(*) AS responses,
        sum(greatest(m.created_at - a.asked_at, '0')) AS response_time,
        max(greatest(m.created_at - a.asked_at, '0')) AS longest_time
    FROM wa_messages m
    LEFT JOIN LATERAL (
        SELECT p.id FROM wa_messages p
        WHERE p.organization_id = m.organization_id AND p.contact_id = m.contact_id
            AND p.number_id IS NOT DISTINCT FROM m.number_id AND p.id < m.id AND p.direction = 'outbound'
            AND p.status = 'sent' AND p.template_name IS NULL AND p.group_id IS NULL
        ORDER BY p.id DESC LIMIT 1
    ) p ON true
    CROSS JOIN LATERAL (
        SELECT min(coalesce(i.provider_at, i.created_at)) AS asked_at FROM wa_messages i
        WHERE i.organization_id = m.organization_id AND i.contact_id = m.contact_id
            AND i.number_id IS NOT DISTINCT FROM m.number_id AND i.id < m.id AND i.id > coalesce(p.id, 0)
            AND i.direction = 'inbound' AND i.group_id IS NULL
            AND i.message_type NOT IN ('system', 'reaction', 'edit', 'revoke')
            AND i.created_at <= m.created_at AND i.created_at >= m.created_at - interval '24 hours'
    ) a
    WHERE m.organization_id = s.organization_id AND m.created_at >= s.quarter_at
        AND m.created_at < s.quarter_at + interval '15 minutes' AND m.direction = 'outbound'
        AND m.status = 'sent' AND m.template_name IS NULL AND m.group_id IS NULL AND a.asked_at IS NOT NULL
    GROUP BY 1, 2
) l;

COMMENT ON VIEW _wa_stale_quarters IS
'Internal: quarter hours whose messages must be counted in the ledger.';
COMMENT ON VIEW _wa_stale_answer_quarters IS
'Internal: quarter hours whose answers must be looked for in the ledger.';
COMMENT ON VIEW _wa_message_lines IS 'Internal: figures of stale quarter hours, from the ledger.';
COMMENT ON VIEW _wa_answer_lines IS 'Internal: answers in stale quarter hours, from the ledger.';

-- Callers hold the lock: two roll-ups of a quarter hour would both write it.
CREATE OR REPLACE FUNCTION _wa_lock_rollups() RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_lock('rollups')
$$;

COMMENT ON FUNCTION _wa_lock_rollups() IS
'Internal: one at a time of whatever writes roll-ups, until the end of the transaction.';

CREATE OR REPLACE FUNCTION _wa_roll_up(p_org uuid, p_until timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_orgs uuid[];
    v_quarters timestamptz[];
    v_ids bigint[];
BEGIN
    -- Each quarter hour's marks become one, which stands until the roll-up has been written.
    WITH chosen AS (
        SELECT DISTINCT k.organization_id, k.quarter_at FROM wa_rollup_marks k
        WHERE k.quarter_at < p_until AND (p_org IS NULL OR k.organization_id = p_org)
        ORDER BY k.quarter_at, k.organization_id
        LIMIT p_limit
    ),
    taken AS (
        DELETE FROM wa_rollup_marks k USING chosen c
        WHERE k.organization_id = c.organization_id AND k.quarter_at = c.quarter_at
        RETURNING k.organization_id, k.quarter_at, k.changes_order
    ),
    joined AS (
        INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
        SELECT t.organization_id, t.quarter_at, bool_or(t.changes_order) FROM taken t
        GROUP BY t.organization_id, t.quarter_at
        RETURNING id, organization_id, quarter_at
    )
    SELECT array_agg(j.id), array_agg(j.organization_id), array_agg(j.quarter_at)
    INTO v_ids, v_orgs, v_quarters
    FROM joined j;
    IF v_ids IS NULL THEN
        RETURN 0;
    END IF;

    -- Later statements see at least what the marks above were about.
    DELETE FROM wa_message_rollups r
    USING unnest(v_orgs, v_quarters) u (organization_id, quarter_at), _wa_stale_quarters s
    WHERE r.organization_id = u.organization_id AND r.quarter_at = u.quarter_at
        AND s.organization_id = u.organization_id AND s.quarter_at = u.quarter_at;
    INSERT INTO wa_message_rollups (
        organization_id, quarter_at, line, day, phone_number_id, direction, is_echo, message_type,
        template_name, status, country, pricing_category, charge, messages, delivered, seen, queued,
        queue_time, charged_at, charged_on, is_service
    )
    SELECT
        l.organization_id, l.quarter_at, row_number() OVER (PARTITION BY l.organization_id, l.quarter_at),
        l.day, l.phone_number_id, l.direction, l.is_echo, l.message_type, l.template_name, l.status,
        l.country, l.pricing_category, l.charge, l.messages, l.delivered, l.seen, l.queued, l.queue_time,
        l.charged_at, l.charged_on, l.is_service
    FROM unnest(v_orgs, v_quarters) u (organization_id, quarter_at)
    JOIN _wa_message_lines l ON l.organization_id = u.organization_id AND l.quarter_at = u.quarter_at;

    -- Answers that the chosen marks may have changed.
    WITH touched AS (
        SELECT DISTINCT k.organization_id, q.quarter_at
        FROM wa_rollup_marks k
        CROSS JOIN LATERAL generate_series(
            k.quarter_at, k.quarter_at + interval '24 hours', interval '15 minutes'
        ) q (quarter_at)
        WHERE k.id = ANY (v_ids) AND k.changes_order
    )
    SELECT array_agg(t.organization_id), array_agg(t.quarter_at) INTO v_orgs, v_quarters
    FROM touched t
    JOIN _wa_stale_answer_quarters s
        ON s.organization_id = t.organization_id AND s.quarter_at = t.quarter_at;
    DELETE FROM wa_response_rollups r
    USING unnest(v_orgs, v_quarters) u (organization_id, quarter_at)
    WHERE r.organization_id = u.organization_id AND r.quarter_at = u.quarter_at;
    INSERT INTO wa_response_rollups (
        organization_id, quarter_at, line, day, phone_number_id, role, responses, response_time,
        longest_time
    )
    SELECT
        l.organization_id, l.quarter_at, row_number() OVER (PARTITION BY l.organization_id, l.quarter_at),
        l.day, l.phone_number_id, l.role, l.responses, l.response_time, l.longest_time
    FROM unnest(v_orgs, v_quarters) u (organization_id, quarter_at)
    JOIN _wa_answer_lines l ON l.organization_id = u.organization_id AND l.quarter_at = u.quarter_at;

    DELETE FROM wa_rollup_marks k WHERE k.id = ANY (v_ids);
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION _wa_roll_up(uuid, timestamptz, integer) IS
'Internal: rolls up to p_limit stale quarter hours before p_until, of one organization or of all. The caller '
'holds _wa_lock_rollups().';

CREATE OR REPLACE FUNCTION roll_up_wa_analytics(p_limit integer DEFAULT 2000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := _wa_quarter(clock_timestamp());
    v_rolled integer;
BEGIN
    PERFORM _wa_lock_rollups();
    v_rolled := _wa_roll_up(NULL, v_now, p_limit);
    -- The quarter hour that still runs stays in the ledger, with one mark instead of many.
    WITH taken AS (
        DELETE FROM wa_rollup_marks k WHERE k.quarter_at >= v_now
        RETURNING k.organization_id, k.quarter_at, k.changes_order
    )
    INSERT INTO wa_rollup_marks (organization_id, quarter_at, changes_order)
    SELECT t.organization_id, t.quarter_at, bool_or(t.changes_order) FROM taken t
    GROUP BY t.organization_id, t.quarter_at;
    RETURN v_rolled;
END
$$;

COMMENT ON FUNCTION roll_up_wa_analytics(integer) IS
'Counts the quarter hours that changed since the last call, at most so many at once; returns how many. The '
'analytics views are exact without it, and fast with it: call it every five minutes.';

CREATE OR REPLACE FUNCTION _wa_cut_charged_days(p_org uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_message_rollups r SET charged_on = d.charged_on
    FROM (
        SELECT x.quarter_at, x.line, (
            coalesce(x.charged_at, x.quarter_at)
            AT TIME ZONE _wa_known_zone(n.account_time_zone, _wa_known_zone(o.time_zone, 'UTC'))
        )::date AS charged_on
        FROM wa_message_rollups x
        JOIN wa_organizations o ON o.id = x.organization_id
        LEFT JOIN wa_phone_numbers n
            ON n.organization_id = x.organization_id AND n.phone_number_id = x.phone_number_id
        WHERE x.organization_id = p_org AND x.charged_on IS NOT NULL
    ) d
    WHERE r.organization_id = p_org AND r.quarter_at = d.quarter_at AND r.line = d.line
        AND r.charged_on <> d.charged_on
$$;

COMMENT ON FUNCTION _wa_cut_charged_days(uuid) IS
'Internal: cuts the days of what is charged anew. The caller holds _wa_lock_rollups().';

CREATE OR REPLACE FUNCTION tg_wa_phone_numbers__cut_charged_days() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_lock_rollups();
    PERFORM _wa_cut_charged_days(new.organization_id);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_phone_numbers__cut_charged_days() IS
'Cuts the days of what is charged anew when the time zone of an account changes.';

CREATE OR REPLACE FUNCTION tg_wa_organizations__cut_days() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    -- A roll-up that runs has read the old zone and is waited for; the next one reads the new one.
    PERFORM _wa_lock_rollups();
    UPDATE wa_message_rollups r SET day = (r.quarter_at AT TIME ZONE new.time_zone)::date
    WHERE r.organization_id = new.id AND r.day <> (r.quarter_at AT TIME ZONE new.time_zone)::date;
    UPDATE wa_response_rollups r SET day = (r.quarter_at AT TIME ZONE new.time_zone)::date
    WHERE r.organization_id = new.id AND r.day <> (r.quarter_at AT TIME ZONE new.time_zone)::date;
    PERFORM _wa_cut_charged_days(new.id);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_organizations__cut_days() IS
'Cuts the days of what is rolled up anew when the organization''s time zone changes.';

CREATE OR REPLACE TRIGGER cut_charged_days AFTER UPDATE OF account_time_zone ON wa_phone_numbers
FOR EACH ROW WHEN (old.account_time_zone IS DISTINCT FROM new.account_time_zone)
EXECUTE FUNCTION tg_wa_phone_numbers__cut_charged_days();

CREATE OR REPLACE TRIGGER cut_days AFTER UPDATE OF time_zone ON wa_organizations
FOR EACH ROW WHEN (old.time_zone IS DISTINCT FROM new.time_zone)
EXECUTE FUNCTION tg_wa_organizations__cut_days();
