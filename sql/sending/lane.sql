-- One lane's claim: chooses rows by share and order, judges them, charges the limits, hands out requests.

CREATE OR REPLACE FUNCTION _wa_lane_block(
    p_org uuid, p_number_id bigint, p_now timestamptz, OUT hold_reason text, OUT held_until timestamptz
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    SELECT b.reason, coalesce(b.until, p_now + interval '1 second') INTO hold_reason, held_until
    FROM (
        SELECT 'panic' AS reason, p.auto_resolve_at AS until, 1 AS severity
        FROM wa_panic_modes p
        WHERE p.organization_id = p_org AND p.active AND (p.number_id IS NULL OR p.number_id = p_number_id)
            AND coalesce(p.auto_resolve_at, 'infinity') > p_now
        UNION ALL
        SELECT 'paused', n.paused_until, 2 FROM wa_phone_numbers n
        WHERE n.organization_id = p_org AND n.id = p_number_id AND n.pause_scope IS NOT NULL
            AND coalesce(n.paused_until, 'infinity') > p_now
        UNION ALL
        SELECT 'number_state', NULL, 3 FROM wa_phone_numbers n
        WHERE n.organization_id = p_org AND n.id = p_number_id AND n.status <> 'CONNECTED'
    ) b
    ORDER BY b.severity
    LIMIT 1;
END
$$;

COMMENT ON FUNCTION _wa_lane_block(uuid, bigint, timestamptz) IS
'Internal: why a whole lane is stopped (panic, paused, number_state) and until when to look again; NULLs '
'when it is not. Never longer than a second for what may be lifted by hand.';

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

CREATE OR REPLACE FUNCTION _wa_claim_lane(
    p_org uuid, p_number_id bigint, p_dispatcher_id uuid, p_limit integer
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    c_no_id CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_lane record;
    v_org wa_organizations;
    v_number wa_phone_numbers;
    v_old wa_lane_states;
    v_new wa_lane_states;
    v_rate wa_rate_limits;
    v_block record;
    v_pick record;
    v_verdict record;
    v_now timestamptz;
    v_room integer;
    v_metered_room integer := p_limit;
    v_looks_again boolean;
    v_picked_from timestamptz;
    v_pick_time interval;
BEGIN
    -- The lane's state cannot change: the caller has its lock.
    SELECT o AS org, n AS number, s AS state INTO v_lane
    FROM wa_organizations o
    JOIN wa_phone_numbers n ON n.organization_id = o.id AND n.id = p_number_id
    LEFT JOIN LATERAL _wa_lane_state(o.id, n.id) s ON true
    WHERE o.id = p_org;
    v_org := v_lane.org;
    v_number := v_lane.number;
    v_old := v_lane.state;
    IF v_org.rate_limit_per_minute IS NOT NULL THEN
        PERFORM FROM wa_organizations o WHERE o.id = p_org FOR NO KEY UPDATE;
    END IF;
    v_now := clock_timestamp();
    IF v_old.version IS NULL THEN
        v_old := ROW(
            p_org, p_number_id, 0, array_fill('-infinity'::timestamptz, ARRAY[6]),
            array_fill(c_no_id, ARRAY[6]), array_fill(0::double precision, ARRAY[3]), 0, '{}', '{}',
            '-infinity', '-infinity', NULL, NULL
        )::wa_lane_states;
    END IF;
    v_new := v_old;
    v_new.held_until := NULL;
    v_new.hold_reason := NULL;
    v_looks_again := v_old.look_again_at <= v_now;
    IF v_looks_again THEN
        v_new.cursor_due := array_fill('-infinity'::timestamptz, ARRAY[6]);
        v_new.cursor_id := array_fill(c_no_id, ARRAY[6]);
    END IF;

    SELECT * INTO v_block FROM _wa_lane_block(p_org, p_number_id, v_now);
    v_room := least(
        p_limit, v_number.throughput - _wa_window_used(v_old.taken_at, v_old.taken, v_now, '1 second')
    );
    IF v_block.hold_reason IS NOT NULL OR v_room <= 0 THEN
        v_new.hold_reason := coalesce(v_block.hold_reason, 'throughput');
        v_new.held_until := least(
            coalesce(v_block.held_until, _wa_window_free_at(v_old.taken_at, v_now, '1 second')),
            v_now + interval '1 second'
        );
        v_new.look_again_at := v_old.look_again_at;
        v_new.cursor_due := v_old.cursor_due;
        v_new.cursor_id := v_old.cursor_id;
        PERFORM _wa_write_lane_state(v_old, v_new);
        RETURN;
    END IF;

    IF v_org.rate_limit_per_minute IS NOT NULL THEN
        SELECT r.* INTO v_rate FROM wa_rate_limits r
        WHERE r.organization_id = p_org AND r.scope = 'organization' AND r.scope_id = ''
        ORDER BY r.version DESC LIMIT 1;
        v_metered_room := greatest(0, v_org.rate_limit_per_minute - coalesce(
            _wa_window_used(v_rate.taken_at, v_rate.taken, v_now, '60 seconds'), 0));
    END IF;

    v_picked_from := clock_timestamp();
    SELECT * INTO v_pick FROM _wa_pick_due(
        p_org, p_number_id, v_now, v_new.cursor_due, v_new.cursor_id, v_old.shares, v_old.share_clock, v_room,
        v_metered_room
    );
    v_pick_time := clock_timestamp() - v_picked_from;
    IF v_metered_room = 0 THEN
        -- Unmetered rows go on; metered ones are looked at again when the window lets go of its oldest.
        v_new.hold_reason := 'organization_rate';
        v_new.held_until := _wa_window_free_at(v_rate.taken_at, v_now, '60 seconds');
    END IF;
    v_new.shares := v_pick.shares;
    v_new.share_clock := v_pick.share_clock;
    v_new.cursor_due := v_pick.cursor_due;
    v_new.cursor_id := v_pick.cursor_id;
    IF v_looks_again THEN
        -- Where a class was read to its end, its cursor need not fall behind the one it had before this look.
        SELECT
            array_agg(CASE WHEN k.keeps THEN v_old.cursor_due[k.c] ELSE v_pick.cursor_due[k.c] END ORDER BY k.c),
            array_agg(CASE WHEN k.keeps THEN v_old.cursor_id[k.c] ELSE v_pick.cursor_id[k.c] END ORDER BY k.c)
        INTO v_new.cursor_due, v_new.cursor_id
        FROM (
            SELECT c, NOT v_pick.has_more[c] AND (v_old.cursor_due[c], v_old.cursor_id[c])
                > (v_pick.cursor_due[c], v_pick.cursor_id[c]) AS keeps
            FROM generate_series(1, 6) c
        ) k;
    END IF;

    IF v_pick.ids IS NOT NULL THEN
        SELECT * INTO v_verdict FROM _wa_weigh_due(
            v_org, v_number, p_dispatcher_id, v_pick.ids, v_pick.contact_ids, v_pick.template_ids,
            v_pick.classes, v_now
        );
        IF num_nonnulls(v_verdict.failed, v_verdict.held, v_verdict.converted) > 0 THEN
            PERFORM _wa_set_aside(
                v_org, v_number, v_verdict.failed, v_verdict.fail_codes, v_verdict.held, v_verdict.held_until,
                v_verdict.hold_reasons, v_verdict.converted
            );
        END IF;
        IF v_verdict.granted IS NOT NULL THEN
            SELECT * INTO v_new.taken_at, v_new.taken FROM _wa_window_add(
                v_old.taken_at, v_old.taken, v_now, '1 second', cardinality(v_verdict.granted));
            IF v_org.rate_limit_per_minute IS NOT NULL AND v_verdict.metered > 0 THEN
                PERFORM _wa_charge_organization(v_rate, p_org, v_now, v_verdict.metered);
            END IF;
            -- A new count is kept also where nothing is added to it.
            IF v_verdict.tier_taken > 0 OR v_verdict.tier_counted_at = v_now THEN
                PERFORM _wa_write_rate(
                    p_org, 'portfolio', v_number.portfolio_id, v_verdict.tier_version,
                    ARRAY[v_verdict.tier_counted_at],
                    ARRAY[v_verdict.tier_used + coalesce(v_verdict.tier_taken, 0)]
                );
            END IF;
            RETURN QUERY SELECT * FROM _wa_grant(
                v_org, v_number, p_dispatcher_id, v_verdict.granted, v_verdict.granted_contacts,
                v_verdict.granted_templates, v_verdict.granted_classes, v_verdict.granted_open, v_now);
        END IF;
        v_new.served_at := v_now;
    END IF;
    IF v_looks_again THEN
        -- A look from the start walks what is dead there: it may take a twentieth of the time, at most
        -- once a second.
        v_new.look_again_at := v_now + least(
            greatest(interval '1 second', v_pick_time * 20), interval '10 seconds'
        );
    END IF;
    PERFORM _wa_write_lane_state(v_old, v_new);
END
$$;

COMMENT ON FUNCTION _wa_claim_lane(uuid, bigint, uuid, integer) IS
'Internal: claims up to so many rows of one lane, whose lock the caller holds.';

CREATE OR REPLACE FUNCTION _wa_write_lane_state(p_old wa_lane_states, p_new wa_lane_states) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- An idle or a held lane that was looked at again is no news.
    IF p_new IS NOT DISTINCT FROM p_old THEN
        RETURN;
    END IF;
    p_new.version := p_old.version + 1;
    INSERT INTO wa_lane_states SELECT p_new.*;
    DELETE FROM wa_lane_states s
    WHERE s.organization_id = p_old.organization_id AND s.number_id = p_old.number_id
        AND s.version = p_old.version;
END
$$;

COMMENT ON FUNCTION _wa_write_lane_state(wa_lane_states, wa_lane_states) IS
'Internal: writes the next version of a lane''s state and removes the last.';

CREATE OR REPLACE FUNCTION _wa_charge_organization(
    p_rate wa_rate_limits, p_org uuid, p_now timestamptz, p_n integer
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_write_rate(p_org, 'organization', '', (p_rate).version, w.p_taken_at, w.p_taken)
    FROM _wa_window_add(
        coalesce((p_rate).taken_at, '{}'), coalesce((p_rate).taken, '{}'), p_now, '60 seconds', p_n
    ) w;
END
$$;

COMMENT ON FUNCTION _wa_charge_organization(wa_rate_limits, uuid, timestamptz, integer) IS
'Internal: charges an organization''s rate limit; the caller holds its lock.';

CREATE OR REPLACE FUNCTION _wa_write_rate(
    p_org uuid, p_scope text, p_scope_id text, p_old_version bigint, p_taken_at timestamptz[],
    p_taken integer[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rate_limits (organization_id, scope, scope_id, version, taken_at, taken)
    VALUES (p_org, p_scope, p_scope_id, coalesce(p_old_version, 0) + 1, p_taken_at, p_taken);
    DELETE FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = p_scope AND r.scope_id = p_scope_id
        AND r.version = p_old_version;
END
$$;

COMMENT ON FUNCTION _wa_write_rate(uuid, text, text, bigint, timestamptz[], integer[]) IS
'Internal: writes the next version of a used limit and removes the last.';

CREATE OR REPLACE FUNCTION _wa_set_aside(
    p_org wa_organizations, p_number wa_phone_numbers, p_failed uuid[], p_fail_codes text[], p_held uuid[],
    p_held_until timestamptz[], p_hold_reasons text[], p_converted uuid[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_lost uuid[];
BEGIN
    IF p_failed IS NOT NULL THEN
        PERFORM _wa_fail_messages((p_org).id, array_agg(f.id), f.code, _wa_refusal_text(f.code))
        FROM unnest(p_failed, p_fail_codes) f (id, code) GROUP BY f.code;
    END IF;
    IF p_held IS NOT NULL THEN
        UPDATE wa_queue_due d SET due_at = h.until, hold_reason = h.reason
        FROM (
            SELECT x.tid, u.until, u.reason
            FROM unnest(p_held, p_held_until, p_hold_reasons) u (id, until, reason)
            CROSS JOIN LATERAL (
                SELECT e.ctid AS tid FROM wa_queue_due e
                WHERE e.organization_id = (p_org).id AND e.queue_id = u.id LIMIT 1 FOR NO KEY UPDATE
            ) x
        ) h
        WHERE d.ctid = h.tid;
    END IF;
    IF p_converted IS NOT NULL THEN
        -- The window has closed: from now on the row is its fall-back template, and is judged as one.
        WITH converted AS (
            UPDATE wa_queue_due d
            SET template_id = c.template_id, due_at = clock_timestamp(),
                class = _wa_queue_class(c.priority, _wa_is_metered(c.template_id, c.category))
            FROM (
                SELECT q.id, q.priority, t.id AS template_id, t.category
                FROM _wa_queue_rows((p_org).id, p_converted) q
                CROSS JOIN LATERAL _wa_pick_template(
                    (p_org).id, q.fallback_template_name, q.fallback_template_language, (p_number).waba_id
                ) t
            ) c
            WHERE d.organization_id = (p_org).id AND d.queue_id = c.id
            RETURNING d.queue_id
        )
        SELECT array_agg(u.id) INTO v_lost
        FROM unnest(p_converted) u (id)
        WHERE u.id NOT IN (SELECT c.queue_id FROM converted c);
        -- Its fall-back template was deleted meanwhile.
        PERFORM _wa_fail_messages((p_org).id, v_lost, 'window_closed', _wa_refusal_text('window_closed'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_set_aside(
    wa_organizations, wa_phone_numbers, uuid[], text[], uuid[], timestamptz[], text[], uuid[]
) IS
'Internal: fails, holds or turns into their fall-back template the picked rows that are not granted.';

CREATE OR REPLACE FUNCTION tg_wa_phone_numbers__add_lane() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_lanes (organization_id, number_id) VALUES (NEW.organization_id, NEW.id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_phone_numbers__add_lane() IS 'Gives a new business number its lane.';

CREATE OR REPLACE TRIGGER add_lane AFTER INSERT ON wa_phone_numbers
FOR EACH ROW EXECUTE FUNCTION tg_wa_phone_numbers__add_lane();
