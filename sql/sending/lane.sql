-- One lane's claim: has rows picked and weighed, charges the limits, grants what may go.

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
        p_limit, v_number.throughput
            - _wa_window_used(v_old.taken_at, v_old.taken, v_now, _wa_throughput_window())
    );
    IF v_block.hold_reason IS NOT NULL OR v_room <= 0 THEN
        v_new.hold_reason := coalesce(v_block.hold_reason, 'throughput');
        v_new.held_until := least(
            coalesce(v_block.held_until, _wa_window_free_at(v_old.taken_at, v_now, _wa_throughput_window())),
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
            _wa_window_used(v_rate.taken_at, v_rate.taken, v_now, _wa_rate_window()), 0));
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
        v_new.held_until := _wa_window_free_at(v_rate.taken_at, v_now, _wa_rate_window());
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
                v_old.taken_at, v_old.taken, v_now, _wa_throughput_window(), cardinality(v_verdict.granted));
            IF v_org.rate_limit_per_minute IS NOT NULL AND v_verdict.metered > 0 THEN
                PERFORM _wa_charge_organization(v_rate, p_org, v_now, v_verdict.metered);
            END IF;
            PERFORM _wa_charge_pairs(p_org, p_number_id, v_verdict.granted_contacts, v_now);
            PERFORM _wa_charge_portfolio(
                p_org, v_number.portfolio_id, v_verdict.granted_contacts, v_verdict.granted_templates,
                v_verdict.granted_open, v_now);
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
