-- One lane's claim: has rows picked and weighed, charges the limits, grants what may go.

CREATE OR REPLACE FUNCTION _wa_lane_block(
    p_org uuid, p_number_id bigint, p_now timestamptz, OUT hold_reason text, OUT held_until timestamptz
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    SELECT b.reason, b.until INTO hold_reason, held_until
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
'Internal: why a whole lane is stopped (panic, paused, number_state), and until when; NULL where somebody '
'has to end it.';

CREATE OR REPLACE FUNCTION _wa_look_time() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '30 milliseconds';

COMMENT ON FUNCTION _wa_look_time() IS
'Internal: how long a claim that has nothing to send goes on setting aside what was passed over.';

CREATE OR REPLACE FUNCTION _wa_is_worthwhile(p_picked integer, p_granted uuid[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(cardinality(p_granted), 0) * 2 >= p_picked;

COMMENT ON FUNCTION _wa_is_worthwhile(integer, uuid[]) IS
'Internal: whether of the rows that a round of a claim picked enough may go to read on like that.';

-- A claim goes on until there is no room or nothing is due: rows that turn out to have to wait cost it a
-- round, not the rest of the lane its turn.
CREATE OR REPLACE FUNCTION _wa_claim_lane(
    p_org uuid, p_number_id bigint, p_dispatcher_id uuid, p_limit integer, p_started_at timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision, start_in_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    c_rounds CONSTANT integer := 10;
    v_lane record;
    v_old wa_lane_states;
    v_new wa_lane_states;
    v_block record;
    v_round record;
    v_now timestamptz;
    v_pace double precision;
    v_room integer;
    v_wanted integer;
    v_is_look boolean;
    v_is_full boolean;
    v_is_idle boolean := false;
    v_ids uuid[] := '{}';
    v_contact_ids bigint[] := '{}';
    v_template_ids uuid[] := '{}';
    v_classes smallint[] := '{}';
    v_starts timestamptz[] := '{}';
BEGIN
    -- The lane's state cannot change: the caller has its lock.
    SELECT o AS org, n AS number, s AS state, d.share, d.slowed_at INTO v_lane
    FROM wa_organizations o
    JOIN wa_phone_numbers n ON n.organization_id = o.id AND n.id = p_number_id
    LEFT JOIN LATERAL _wa_lane_state(o.id, n.id) s ON true
    LEFT JOIN wa_lane_slowdowns d ON d.organization_id = o.id AND d.number_id = n.id
    WHERE o.id = p_org;
    IF NOT FOUND THEN
        -- The number was deleted just now.
        RETURN;
    END IF;
    IF (v_lane.org).rate_limit_per_minute IS NOT NULL OR _wa_has_caps(p_org) THEN
        PERFORM FROM wa_organizations o WHERE o.id = p_org FOR NO KEY UPDATE;
    END IF;
    v_now := clock_timestamp();
    v_old := v_lane.state;
    IF v_old.version IS NULL THEN
        v_old := _wa_first_lane_state(p_org, p_number_id);
    END IF;
    v_new := v_old;
    v_new.held_until := NULL;
    v_new.hold_reason := NULL;
    v_pace := _wa_pace_of((v_lane.number).throughput, v_lane.share, v_lane.slowed_at, v_now);

    SELECT * INTO v_block FROM _wa_lane_block(p_org, p_number_id, v_now);
    v_room := least(p_limit, _wa_free_slots(v_new.next_slot_at, v_pace, v_now));
    IF v_block.hold_reason IS NOT NULL OR v_room <= 0 THEN
        v_new.hold_reason := coalesce(v_block.hold_reason, 'throughput');
        -- Any block may be ended by hand before its time.
        v_new.held_until := CASE WHEN v_block.hold_reason IS NULL THEN _wa_pace_beat(v_now)
            ELSE least(v_block.held_until, v_now + interval '1 second') END;
        PERFORM _wa_write_lane_state(v_old, v_new);
        RETURN;
    END IF;

    v_new.next_slot_at := greatest(v_old.next_slot_at, v_now);
    v_is_look := v_old.look_again_at <= v_now;
    FOR i IN 1..c_rounds LOOP
        v_wanted := CASE WHEN v_is_look AND v_new.is_skipping AND NOT v_is_idle
            THEN least(v_room, _wa_look_size()) ELSE v_room END;
        SELECT * INTO v_round FROM _wa_claim_round(
            v_lane.org, v_lane.number, p_dispatcher_id, v_new, v_wanted, v_is_look, v_pace, v_now
        );
        v_new := v_round.state;
        IF v_round.ids IS NOT NULL THEN
            v_ids := v_ids || v_round.ids;
            v_contact_ids := v_contact_ids || v_round.contact_ids;
            v_template_ids := v_template_ids || v_round.template_ids;
            v_classes := v_classes || v_round.classes;
            v_starts := v_starts || v_round.starts;
            v_room := v_room - cardinality(v_round.ids);
        END IF;
        EXIT WHEN v_room <= 0;
        v_is_full := v_round.picked >= v_wanted;
        IF v_is_look THEN
            v_is_look := v_new.look_again_at <= v_now OR (
                v_is_idle AND v_is_full AND v_new.is_skipping AND clock_timestamp() < v_now + _wa_look_time()
            );
            EXIT WHEN v_is_idle AND NOT v_is_look;
        ELSIF NOT v_is_full THEN
            -- Nothing else is to be sent now.
            EXIT WHEN NOT v_new.is_skipping;
            v_is_idle := true;
            v_is_look := true;
        ELSIF NOT v_new.is_skipping AND NOT _wa_is_worthwhile(v_round.picked, v_round.ids) THEN
            v_new.is_skipping := true;
            v_new.look_again_at := v_now;
        END IF;
    END LOOP;

    IF v_new.is_skipping AND v_is_idle AND v_is_full THEN
        v_new.look_again_at := v_now;
    END IF;
    IF _wa_free_slots(v_new.next_slot_at, v_pace, v_now) = 0 THEN
        v_new.hold_reason := 'throughput';
        v_new.held_until := _wa_pace_beat(v_now);
    ELSIF v_round.metered_room = 0 THEN
        -- Unmetered rows go on; metered ones are looked at again when the window lets go of its oldest.
        v_new.hold_reason := 'organization_rate';
        v_new.held_until := _wa_metered_free_at(p_org, v_now);
    END IF;
    PERFORM _wa_write_lane_state(v_old, v_new);
    IF _wa_is_translated((v_lane.number).provider) THEN
        RETURN QUERY SELECT * FROM _wa_translated_requests(
            v_lane.org, v_lane.number, v_ids, v_contact_ids, v_template_ids, v_classes, v_starts, p_started_at
        );
    ELSE
        RETURN QUERY SELECT * FROM _wa_requests(
            v_lane.org, v_lane.number, v_ids, v_contact_ids, v_template_ids, v_classes, v_starts, p_started_at
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_claim_lane(uuid, bigint, uuid, integer, timestamptz) IS
'Internal: claims up to so many rows of one lane, whose lock the caller holds.';

-- Behind the cursor lies what was passed over, handed back or committed late. Looking there, and at what is
-- dead there, takes a twentieth of the time, at most once a second; setting aside what cannot go a tenth.
-- What may go, goes at once.
CREATE OR REPLACE FUNCTION _wa_claim_round(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_state wa_lane_states,
    p_wanted integer, p_is_look boolean, p_pace double precision, p_now timestamptz,
    OUT state wa_lane_states, OUT picked integer, OUT metered_room integer, OUT ids uuid[],
    OUT contact_ids bigint[], OUT template_ids uuid[], OUT classes smallint[], OUT starts timestamptz[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_began timestamptz := clock_timestamp();
    v_took interval;
    v_holds record;
    v_pick record;
    v_verdict record;
    v_moved record;
    v_weighed uuid[] := '{}';
    v_held_kinds text[] := '{}';
BEGIN
    state := p_state;
    metered_room := _wa_metered_room(p_org, p_now);
    IF NOT EXISTS (
        SELECT FROM wa_queue_holds h WHERE h.number_id = (p_number).id AND h.opens_at > '-infinity'
    ) THEN
        SELECT NULL::bigint[] AS ids, NULL::integer[] AS rooms, NULL::uuid[] AS passed, '{}'::text[] AS closed
        INTO v_holds;
    ELSE
        -- Where recipients alone fill the claim with the turns that they have, more of each is read for
        -- nothing.
        SELECT array_agg(h.id) FILTER (WHERE h.is_open) AS ids,
            array_agg(CASE WHEN h.kind = 'recipient' AND h.recipients * _wa_most_turns() >= p_wanted
                THEN least(h.room, _wa_most_turns()) ELSE coalesce(h.room, p_wanted) END)
                FILTER (WHERE h.is_open) AS rooms,
            array_agg(coalesce(h.passed_id, '00000000-0000-0000-0000-000000000000'))
                FILTER (WHERE h.is_open) AS passed,
            coalesce(array_agg(h.kind) FILTER (WHERE NOT h.is_open), '{}') AS closed
        INTO v_holds
        FROM (
            SELECT x.*, count(*) FILTER (WHERE x.kind = 'recipient') OVER () AS recipients
            FROM _wa_lane_holds((p_org).id, (p_number).id, p_now) x
        ) h;
    END IF;
    SELECT * INTO v_pick FROM _wa_pick_due(
        (p_org).id, (p_number).id, (p_number).portfolio_id, (p_org).window_margin,
        (p_org).order_mode = 'delivered', p_dispatcher_id, p_now,
        CASE WHEN p_is_look THEN p_state.look_due ELSE p_state.cursor_due END,
        CASE WHEN p_is_look THEN p_state.look_id ELSE p_state.cursor_id END,
        p_state.shares, p_state.share_clock, p_wanted, metered_room,
        v_holds.ids, v_holds.rooms, v_holds.passed, v_holds.closed, p_state.is_skipping AND NOT p_is_look
    );
    picked := coalesce(cardinality(v_pick.ids), 0);
    state.shares := v_pick.shares;
    state.share_clock := v_pick.share_clock;
    IF p_is_look THEN
        SELECT m.state, m.is_read INTO v_moved
        FROM _wa_move_cursors(state, v_pick.cursor_due, v_pick.cursor_id, v_pick.has_more) m;
        state := v_moved.state;
    ELSE
        state.cursor_due := v_pick.cursor_due;
        state.cursor_id := v_pick.cursor_id;
    END IF;

    IF picked > 0 THEN
        SELECT * INTO v_verdict FROM _wa_weigh_due(
            p_org, p_number, p_dispatcher_id, v_pick.ids, v_pick.contact_ids, v_pick.template_ids,
            v_pick.classes, CASE WHEN picked < p_wanted THEN _wa_pair_burst() ELSE _wa_most_turns() END, p_now
        );
        v_weighed := v_verdict.weighed;
        v_held_kinds := coalesce(v_verdict.held_kinds, '{}');
        IF num_nonnulls(v_verdict.failed, v_verdict.converted) > 0 THEN
            PERFORM _wa_set_aside(
                p_org, p_number, v_verdict.failed, v_verdict.fail_codes, v_verdict.converted);
        END IF;
        IF v_verdict.fileless IS NOT NULL THEN
            PERFORM _wa_hold_for_files((p_org).id, p_number, v_verdict.fileless, v_verdict.files);
        END IF;
        IF v_verdict.waiting_places IS NOT NULL THEN
            PERFORM _wa_postpone_due_at(
                (p_org).id, v_verdict.waiting_places, v_verdict.waits_until, v_verdict.waits_for);
        END IF;
        IF v_verdict.held IS NOT NULL THEN
            PERFORM _wa_hold_rows(
                (p_org).id, p_number, v_verdict.held, v_verdict.held_kinds, v_verdict.held_contacts,
                v_verdict.held_reasons, v_verdict.held_until, v_verdict.tier_limit
            );
        END IF;
        IF v_verdict.granted IS NOT NULL THEN
            ids := v_verdict.granted;
            contact_ids := v_verdict.granted_contacts;
            template_ids := v_verdict.granted_templates;
            classes := v_verdict.granted_classes;
            SELECT array_agg(p_state.next_slot_at + make_interval(secs => n / p_pace) ORDER BY n) INTO starts
            FROM generate_series(0, cardinality(ids) - 1) n;
            state.next_slot_at := p_state.next_slot_at + make_interval(secs => cardinality(ids) / p_pace);
            IF v_verdict.metered > 0 AND (p_org).rate_limit_per_minute IS NOT NULL THEN
                PERFORM _wa_charge_organization((p_org).id, state.next_slot_at, v_verdict.metered);
            END IF;
            PERFORM _wa_charge_pairs((p_org).id, (p_number).id, contact_ids, p_now);
            PERFORM _wa_charge_portfolio(
                (p_org).id, (p_number).portfolio_id, contact_ids, template_ids, v_verdict.granted_open, p_now);
            PERFORM _wa_start_sending(
                (p_org).id, (p_number).id, p_dispatcher_id, ids, v_verdict.granted_places, contact_ids,
                template_ids, classes, v_verdict.granted_open, p_now);
        END IF;
        -- A new count is kept also where nothing is added to it.
        IF v_verdict.tier_taken > 0 OR v_verdict.tier_counted_at = p_now THEN
            PERFORM _wa_write_rate(
                (p_org).id, 'portfolio', (p_number).portfolio_id, v_verdict.tier_version,
                ARRAY[v_verdict.tier_counted_at],
                ARRAY[v_verdict.tier_used + coalesce(v_verdict.tier_taken, 0)]
            );
            PERFORM _wa_release_from_limit((p_org).id, v_verdict.counted);
        END IF;
        state.served_at := p_now;
    END IF;
    IF v_holds.ids IS NOT NULL THEN
        PERFORM _wa_settle_holds(
            p_org, (p_number).id, v_holds.ids, coalesce(v_pick.ids, '{}'), coalesce(v_pick.hold_ids, '{}'),
            v_weighed, coalesce(contact_ids, '{}'), v_held_kinds, p_now
        );
    END IF;
    IF p_is_look THEN
        v_took := clock_timestamp() - v_began;
        IF v_moved.is_read OR picked < p_wanted THEN
            state.look_again_at := p_now
                + least(greatest(interval '1 second', v_took * 20), interval '10 seconds');
        ELSIF _wa_is_worthwhile(picked, ids) THEN
            state.look_again_at := p_now;
        ELSE
            state.look_again_at := p_now + v_took * 10;
        END IF;
        state.is_skipping := NOT v_moved.is_read AND (
            p_state.is_skipping OR (picked >= p_wanted AND NOT _wa_is_worthwhile(picked, ids))
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_claim_round(
    wa_organizations, wa_phone_numbers, uuid, wa_lane_states, integer, boolean, double precision, timestamptz
) IS
'Internal: one round of a lane''s claim: rows are picked, weighed, set aside, charged and put in flight. '
'Returns the lane''s state after it, what was granted, and when each may start.';

CREATE OR REPLACE FUNCTION _wa_first_lane_state(p_org uuid, p_number_id bigint) RETURNS wa_lane_states
LANGUAGE sql IMMUTABLE
RETURN row(
    p_org, p_number_id, 0, array_fill('-infinity'::timestamptz, ARRAY[_wa_last_class()]),
    array_fill('00000000-0000-0000-0000-000000000000'::uuid, ARRAY[_wa_last_class()]),
    array_fill(0::double precision, ARRAY[_wa_priority_of(_wa_last_class())]), 0, '-infinity', '-infinity',
    NULL, NULL, '-infinity', false, array_fill('-infinity'::timestamptz, ARRAY[_wa_last_class()]),
    array_fill('00000000-0000-0000-0000-000000000000'::uuid, ARRAY[_wa_last_class()])
)::wa_lane_states;

COMMENT ON FUNCTION _wa_first_lane_state(uuid, bigint) IS
'Internal: the state of a lane before its first claim; its cursors stand before everything.';

-- The cursors of the line never fall back. What lies behind them is looked at from its beginning to its end,
-- however many claims that takes, and then anew; so rows that their owner has locked hide no others.
CREATE OR REPLACE FUNCTION _wa_move_cursors(
    p_state wa_lane_states, p_due timestamptz[], p_id uuid[], p_has_more boolean[],
    OUT state wa_lane_states, OUT is_read boolean
)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_first wa_lane_states;
BEGIN
    state := p_state;
    SELECT
        array_agg(CASE WHEN b.is_behind THEN p_state.cursor_due[b.c] ELSE p_due[b.c] END ORDER BY b.c),
        array_agg(CASE WHEN b.is_behind THEN p_state.cursor_id[b.c] ELSE p_id[b.c] END ORDER BY b.c),
        bool_and(NOT (b.is_behind AND p_has_more[b.c]))
    INTO state.cursor_due, state.cursor_id, is_read
    FROM (
        SELECT c, (p_due[c], p_id[c]) < (p_state.cursor_due[c], p_state.cursor_id[c]) AS is_behind
        FROM generate_series(1, _wa_last_class()) c
    ) b;
    state.look_due := p_due;
    state.look_id := p_id;
    IF is_read THEN
        v_first := _wa_first_lane_state(p_state.organization_id, p_state.number_id);
        state.look_due := v_first.look_due;
        state.look_id := v_first.look_id;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_move_cursors(wa_lane_states, timestamptz[], uuid[], boolean[]) IS
'Internal: the state of a lane after a look that read so far, and whether all that lay behind the cursors is '
'read now.';

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

-- What waits is never left without a number, nor an answer without one to be recorded for.
CREATE OR REPLACE FUNCTION tg_wa_phone_numbers__end_lane() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    -- A claim that has the lane's lock is waited for; later ones find no lane.
    DELETE FROM wa_lanes l WHERE l.organization_id = OLD.organization_id AND l.number_id = OLD.id;
    IF EXISTS (
        SELECT FROM wa_queue_inflight i WHERE i.organization_id = OLD.organization_id AND i.number_id = OLD.id
        UNION ALL
        SELECT FROM wa_queue_due d
        WHERE d.organization_id = OLD.organization_id AND d.number_id = OLD.id AND d.hold_id IS NULL
        UNION ALL
        SELECT FROM wa_queue_due d
        WHERE d.hold_id < 0 AND d.organization_id = OLD.organization_id AND d.number_id = OLD.id
        UNION ALL
        SELECT FROM wa_queue_holds h
        JOIN wa_queue_due d ON d.organization_id = h.organization_id AND d.hold_id = h.id
        WHERE h.organization_id = OLD.organization_id AND h.number_id = OLD.id
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA204',
            MESSAGE = format('messages of the business number %s wait or are being sent', OLD.phone_number_id),
            DETAIL = 'Deleting its organization deletes a number, too.',
            HINT = format('SELECT cancel_wa_messages(ids => ARRAY(SELECT d.queue_id FROM wa_queue_due d '
                'WHERE d.number_id = %s)); what is being sent ends within minutes.', OLD.id);
    END IF;
    RETURN OLD;
END
$$;

COMMENT ON FUNCTION tg_wa_phone_numbers__end_lane() IS
'Refuses to delete a business number while messages of it wait or are being sent (WA204); ends its lane.';

CREATE OR REPLACE TRIGGER end_lane BEFORE DELETE ON wa_phone_numbers
FOR EACH ROW EXECUTE FUNCTION tg_wa_phone_numbers__end_lane();
