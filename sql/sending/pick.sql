-- Which rows of a lane are looked at next.

-- Rows of each class that are due past the cursor, shared out 7 : 2 : 1 among high, normal and low by virtual
-- time, so that a priority gets its share also when rows are granted one by one, and all of it while the
-- others are idle.
CREATE OR REPLACE FUNCTION _wa_pick_due(
    p_org uuid, p_number_id bigint, p_now timestamptz, p_cursor_due timestamptz[], p_cursor_id uuid[],
    p_shares double precision[], p_share_clock double precision, p_limit integer, p_metered_limit integer,
    OUT ids uuid[], OUT contact_ids bigint[], OUT template_ids uuid[], OUT classes smallint[],
    OUT cursor_due timestamptz[], OUT cursor_id uuid[], OUT shares double precision[],
    OUT share_clock double precision, OUT has_more boolean[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_sort = off
AS $$
BEGIN
    WITH candidate AS MATERIALIZED (
        SELECT c.class, d.due_at, d.queue_id, d.contact_id, d.template_id, d.n,
            greatest(p_shares[_wa_priority_of(c.class)], p_share_clock) AS start,
            (ARRAY[7.0, 2.0, 1.0])[_wa_priority_of(c.class)]::double precision AS weight
        FROM generate_series(1, 6) c (class)
        CROSS JOIN LATERAL (
            SELECT x.*, row_number() OVER (ORDER BY x.due_at, x.queue_id) AS n
            FROM (
                SELECT d.due_at, d.queue_id, d.contact_id, d.template_id FROM wa_queue_due d
                WHERE d.organization_id = p_org AND d.number_id = p_number_id AND d.class = c.class
                    AND d.class > 0 AND d.due_at <= p_now
                    AND (d.due_at, d.queue_id) > (p_cursor_due[c.class], p_cursor_id[c.class])
                ORDER BY d.due_at, d.queue_id
                LIMIT CASE WHEN _wa_is_metered_class(c.class) THEN least(p_limit, p_metered_limit)
                    ELSE p_limit END
            ) x
        ) d
    ),
    -- Within a priority, unmetered and metered rows run side by side; across priorities the tags decide.
    tagged AS (
        SELECT k.*, k.start + (
            row_number() OVER (PARTITION BY _wa_priority_of(k.class) ORDER BY k.due_at, k.queue_id) - 1
        ) / k.weight AS tag
        FROM candidate k
    ),
    capped AS (
        SELECT t.*, count(*) FILTER (WHERE _wa_is_metered_class(t.class))
            OVER (ORDER BY t.tag, t.class, t.due_at, t.queue_id) AS metered
        FROM tagged t
    ),
    chosen AS (
        SELECT k.* FROM capped k
        WHERE NOT _wa_is_metered_class(k.class) OR k.metered <= p_metered_limit
        ORDER BY k.tag, k.class, k.due_at, k.queue_id
        LIMIT p_limit
    ),
    advanced AS (
        SELECT DISTINCT ON (k.class) k.class, k.due_at, k.queue_id FROM chosen k
        ORDER BY k.class, k.due_at DESC, k.queue_id DESC
    ),
    moved AS (
        SELECT array_agg(coalesce(a.due_at, p_cursor_due[c.class]) ORDER BY c.class) AS cursor_due,
            array_agg(coalesce(a.queue_id, p_cursor_id[c.class]) ORDER BY c.class) AS cursor_id,
            array_agg(
                (SELECT count(*) FROM candidate k WHERE k.class = c.class)
                > (SELECT count(*) FROM chosen k WHERE k.class = c.class)
                OR (SELECT count(*) FROM candidate k WHERE k.class = c.class) >= p_limit
                OR (_wa_is_metered_class(c.class) AND p_metered_limit < p_limit) ORDER BY c.class
            ) AS has_more
        FROM generate_series(1, 6) c (class)
        LEFT JOIN advanced a ON a.class = c.class
    ),
    served AS (
        SELECT array_agg(coalesce(s.finish, p_shares[p.priority]) ORDER BY p.priority) AS shares,
            coalesce(max(s.last_start), p_share_clock) AS share_clock
        FROM generate_series(1, 3) p (priority)
        LEFT JOIN LATERAL (
            SELECT max(k.tag + 1 / k.weight) AS finish, max(k.tag) AS last_start
            FROM chosen k WHERE _wa_priority_of(k.class) = p.priority
        ) s ON true
    )
    SELECT
        k.ids, k.contact_ids, k.template_ids, k.classes, m.cursor_due, m.cursor_id, s.shares, s.share_clock,
        m.has_more
    INTO ids, contact_ids, template_ids, classes, cursor_due, cursor_id, shares, share_clock, has_more
    FROM moved m
    CROSS JOIN served s
    CROSS JOIN (
        SELECT array_agg(k.queue_id ORDER BY k.place) AS ids,
            array_agg(k.contact_id ORDER BY k.place) AS contact_ids,
            array_agg(k.template_id ORDER BY k.place) AS template_ids,
            array_agg(k.class::smallint ORDER BY k.place) AS classes
        FROM (
            -- Of the places that a recipient has, the first is for the message that was queued first: one
            -- that waited for an earlier message became due again after those behind it.
            SELECT o.queue_id, o.contact_id, o.template_id, o.class,
                (array_agg(o.place) OVER (
                    PARTITION BY o.contact_id, _wa_priority_of(o.class) ORDER BY o.place
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
                ))[row_number() OVER (PARTITION BY o.contact_id, _wa_priority_of(o.class)
                    ORDER BY o.queue_id)] AS place
            FROM (
                SELECT c.*, row_number() OVER (ORDER BY c.tag, c.class, c.due_at, c.queue_id) AS place
                FROM chosen c
            ) o
        ) k
    ) k;
END
$$;

COMMENT ON FUNCTION _wa_pick_due(
    uuid, bigint, timestamptz, timestamptz[], uuid[], double precision[], double precision, integer, integer
) IS
'Internal: the next rows of a lane in order of sending, and where its cursors and shares stand after them.';
