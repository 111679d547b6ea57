-- Which rows of a lane are looked at next.

-- Rows that are due past the cursor, and those of open holds, shared out 7 : 2 : 1 among high, normal and low
-- by virtual time, so that a priority gets its share also when rows are granted one by one, and all of it
-- while the others are idle. Within a priority each hold is a line of its own, served in turn with the line
-- of the others: two hundred thousand that are released at once keep nobody waiting.
--
-- A lane with rows in front that cannot go is read with p_is_skipping: what evidently has to wait, or to
-- fail, is passed over for as much as reading it costs. It lies behind the cursor then, where claims set it
-- aside a few at a time. p_closed names the holds of the whole lane that are closed.
CREATE OR REPLACE FUNCTION _wa_pick_due(
    p_org uuid, p_number_id bigint, p_portfolio_id text, p_margin interval, p_awaits_delivery boolean,
    p_dispatcher_id uuid,
    p_now timestamptz, p_cursor_due timestamptz[], p_cursor_id uuid[], p_shares double precision[],
    p_share_clock double precision, p_limit integer, p_metered_limit integer, p_holds bigint[],
    p_rooms integer[], p_passed uuid[], p_closed text[], p_is_skipping boolean,
    OUT ids uuid[], OUT hold_ids bigint[], OUT contact_ids bigint[], OUT template_ids uuid[],
    OUT classes smallint[],
    OUT cursor_due timestamptz[], OUT cursor_id uuid[], OUT shares double precision[],
    OUT share_clock double precision, OUT has_more boolean[]
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_sort = off
AS $$
BEGIN
    WITH free AS MATERIALIZED (
        SELECT c.class, d.due_at, d.queue_id, d.contact_id, d.template_id
        FROM generate_series(1, _wa_last_class()) c (class)
        CROSS JOIN LATERAL (
            SELECT d.due_at, d.queue_id, d.contact_id, d.template_id FROM wa_queue_due d
            WHERE d.organization_id = p_org AND d.number_id = p_number_id AND d.class = c.class
                AND d.hold_id IS NULL AND d.due_at <= p_now
                AND (d.due_at, d.queue_id) > (p_cursor_due[c.class], p_cursor_id[c.class])
                AND d.expires_at > p_now
                -- Each a look-up by key: an EXISTS could be answered from a table of all windows.
                AND (NOT p_is_skipping OR (
                    (
                        SELECT true FROM wa_pair_rates r
                        WHERE r.organization_id = p_org AND r.number_id = p_number_id
                            AND r.contact_id = d.contact_id
                            AND ((p_awaits_delivery AND r.wait_until > p_now) OR _wa_pair_room(
                                r.burst_started_at, r.burst_count, r.clear_at, p_now) <= 0)
                        LIMIT 1
                    ) IS NULL
                    AND (
                        SELECT true FROM _wa_hold_of(p_org, p_number_id, 'recipient', d.contact_id)
                    ) IS NULL
                    AND (
                        SELECT t.turns FROM _wa_turns_of(
                            p_org, p_number_id, d.contact_id, c.class, p_dispatcher_id, _wa_most_turns(),
                            p_now) t
                    ) > 0
                    AND CASE WHEN d.template_id IS NULL THEN 'replies' <> ALL (p_closed)
                        ELSE 'templates' <> ALL (p_closed) AND (
                            SELECT true FROM wa_templates t
                            WHERE t.organization_id = p_org AND t.id = d.template_id
                                AND _wa_is_template_sendable(t.status, t.blocked_at, t.blocked_until, p_now)
                            LIMIT 1
                        ) END
                    AND (
                        (d.template_id IS NOT NULL AND 'messaging_limit' <> ALL (p_closed))
                        OR (
                            SELECT true FROM wa_conversation_windows w
                            WHERE w.organization_id = p_org AND w.contact_id = d.contact_id
                                AND w.number_id = p_number_id AND _wa_can_reply(
                                    w.last_customer_message_at, w.window_denied_at, p_now, p_margin)
                            LIMIT 1
                        )
                        OR (d.template_id IS NOT NULL AND (
                            SELECT true FROM _wa_tier_use(p_org, p_portfolio_id, d.contact_id, p_now)))
                    )
                ))
            ORDER BY d.due_at, d.queue_id
            LIMIT CASE WHEN _wa_is_metered_class(c.class) THEN least(p_limit, p_metered_limit)
                ELSE p_limit END
        ) d
    ),
    held AS MATERIALIZED (
        SELECT h.id AS hold_id, d.*
        FROM unnest(p_holds, p_rooms, p_passed) h (id, room, passed_id)
        CROSS JOIN LATERAL (
            SELECT d.* FROM generate_series(1, _wa_last_class()) c (class)
            CROSS JOIN LATERAL (
                SELECT o.class::integer, o.due_at, o.queue_id, o.contact_id, o.template_id
                FROM (
                    -- OFFSET keeps the other conditions outside, so that only the hold's index can serve.
                    SELECT x.* FROM wa_queue_due x
                    WHERE x.hold_id = h.id AND x.class = c.class AND x.queue_id > h.passed_id
                    ORDER BY x.queue_id
                    OFFSET 0
                ) o
                WHERE o.organization_id = p_org AND o.expires_at > p_now
                LIMIT CASE WHEN _wa_is_metered_class(c.class) THEN least(h.room, p_limit, p_metered_limit)
                    ELSE least(h.room, p_limit) END
            ) d
            ORDER BY _wa_priority_of(d.class), d.queue_id
            LIMIT least(h.room, p_limit)
        ) d
    ),
    candidate AS (
        SELECT f.*, NULL::bigint AS hold_id, row_number() OVER (
            PARTITION BY _wa_priority_of(f.class) ORDER BY f.due_at, f.queue_id) AS n
        FROM free f
        UNION ALL
        SELECT h.class, h.due_at, h.queue_id, h.contact_id, h.template_id, h.hold_id, row_number() OVER (
            PARTITION BY h.hold_id, _wa_priority_of(h.class) ORDER BY h.queue_id)
        FROM held h
    ),
    -- Within a priority, unmetered and metered rows run side by side; across priorities the tags decide.
    tagged AS (
        SELECT k.*, greatest(p_shares[_wa_priority_of(k.class)], p_share_clock) + (
            row_number() OVER (
                PARTITION BY _wa_priority_of(k.class) ORDER BY k.n, k.due_at, k.queue_id
            ) - 1
        ) / _wa_priority_weight(_wa_priority_of(k.class)) AS tag
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
    read AS (
        SELECT c.class,
            (SELECT count(*) FROM free f WHERE f.class = c.class) AS found,
            (SELECT count(*) FROM chosen k WHERE k.class = c.class AND k.hold_id IS NULL) AS taken,
            CASE WHEN _wa_is_metered_class(c.class) THEN least(p_limit, p_metered_limit) ELSE p_limit END
                AS most
        FROM generate_series(1, _wa_last_class()) c (class)
    ),
    advanced AS (
        SELECT r.*, coalesce(a.due_at, p_cursor_due[r.class]) AS due_at,
            coalesce(a.queue_id, p_cursor_id[r.class]) AS queue_id,
            r.found > r.taken OR r.found >= r.most AS has_more
        FROM read r
        LEFT JOIN LATERAL (
            (SELECT d.due_at, d.queue_id FROM chosen d
            WHERE d.class = r.class AND d.hold_id IS NULL AND NOT (
                p_is_skipping AND r.found = r.taken AND r.found < r.most
            )
            ORDER BY d.due_at DESC, d.queue_id DESC LIMIT 1)
            UNION ALL
            -- The line was read to its end, and what was passed over need not be read again.
            (SELECT d.due_at, d.queue_id FROM wa_queue_due d
            WHERE p_is_skipping AND r.found = r.taken AND r.found < r.most
                AND d.organization_id = p_org AND d.number_id = p_number_id AND d.class = r.class
                AND d.hold_id IS NULL AND d.due_at <= p_now
                AND (d.due_at, d.queue_id) > (p_cursor_due[r.class], p_cursor_id[r.class])
            ORDER BY d.due_at DESC, d.queue_id DESC LIMIT 1)
        ) a ON true
    ),
    moved AS (
        SELECT array_agg(a.due_at ORDER BY a.class) AS cursor_due,
            array_agg(a.queue_id ORDER BY a.class) AS cursor_id,
            array_agg(a.has_more ORDER BY a.class) AS has_more
        FROM advanced a
    ),
    served AS (
        SELECT array_agg(coalesce(s.finish, p_shares[p.priority]) ORDER BY p.priority) AS shares,
            coalesce(max(s.last_start), p_share_clock) AS share_clock
        FROM generate_series(1, _wa_priority_of(_wa_last_class())) p (priority)
        LEFT JOIN LATERAL (
            SELECT max(k.tag + 1 / _wa_priority_weight(p.priority)) AS finish, max(k.tag) AS last_start
            FROM chosen k WHERE _wa_priority_of(k.class) = p.priority
        ) s ON true
    )
    SELECT
        k.ids, k.hold_ids, k.contact_ids, k.template_ids, k.classes, m.cursor_due, m.cursor_id, s.shares,
        s.share_clock, m.has_more
    INTO ids, hold_ids, contact_ids, template_ids, classes, cursor_due, cursor_id, shares, share_clock, has_more
    FROM moved m
    CROSS JOIN served s
    CROSS JOIN (
        SELECT array_agg(k.queue_id ORDER BY k.place) AS ids, array_agg(k.hold_id ORDER BY k.place) AS hold_ids,
            array_agg(k.contact_id ORDER BY k.place) AS contact_ids,
            array_agg(k.template_id ORDER BY k.place) AS template_ids,
            array_agg(k.class::smallint ORDER BY k.place) AS classes
        FROM (
            -- Of the places that a recipient has, the first is for the message that was queued first: one
            -- that waited for an earlier message became due again after those behind it.
            SELECT o.queue_id, o.hold_id, o.contact_id, o.template_id, o.class,
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
    uuid, bigint, text, interval, boolean, uuid, timestamptz, timestamptz[], uuid[], double precision[],
    double precision, integer, integer, bigint[], integer[], uuid[], text[], boolean
) IS
'Internal: the next rows of a lane in order of sending, and where its cursors and shares stand after them.';
