-- What rows wait for, and when they go on. A row that cannot go stands in the hold of its cause, where no
-- claim looks before the cause is gone: holding and opening change one row of wa_queue_holds, however many
-- wait. What a hold that opened gives out is judged anew.
--
-- Holds are made, filled and deleted by claims under the lock of their lane, so none is deleted while rows
-- are put into it. Everybody else only opens them, and takes rows out.

-- Look-ups of holds go by one index each, however empty the table seems: OFFSET keeps the other conditions
-- outside.
CREATE OR REPLACE FUNCTION _wa_hold_of(p_org uuid, p_number_id bigint, p_kind text, p_contact_id bigint)
RETURNS TABLE (id bigint)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT h.id
    FROM (
        SELECT x.id, x.organization_id FROM wa_queue_holds x
        WHERE x.contact_id = p_contact_id AND x.number_id = p_number_id AND x.kind = p_kind
        OFFSET 0
    ) h
    WHERE h.organization_id = p_org
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_hold_of(uuid, bigint, text, bigint) IS
'Internal: the hold of a kind of a recipient, or with 0 of the whole lane, if there is one.';

-- How many rows are set aside at a time while others go: a few milliseconds of a claim.
CREATE OR REPLACE FUNCTION _wa_look_size() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 100;

COMMENT ON FUNCTION _wa_look_size() IS
'Internal: how many rows that were passed over a claim judges at a time.';

-- Messages to a recipient go one after the other, each after the answer to the one before. Where slots are
-- scarce, more than these at a time would take those that others could use, only to be handed back: an answer
-- may take a third of a second.
CREATE OR REPLACE FUNCTION _wa_most_turns() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 3;

COMMENT ON FUNCTION _wa_most_turns() IS
'Internal: how many messages to one recipient may be in flight at a time where others wait, too.';

CREATE OR REPLACE FUNCTION _wa_most_open_holds() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 200;

COMMENT ON FUNCTION _wa_most_open_holds() IS
'Internal: how many open holds of recipients a claim looks at.';

-- Open are those whose time has come, and those of a whole lane whose cause was ended by hand or by a
-- webhook.
CREATE OR REPLACE FUNCTION _wa_lane_holds(p_org uuid, p_number_id bigint, p_now timestamptz)
RETURNS TABLE (
    id bigint, kind text, opens_at timestamptz, is_open boolean, room integer, passed_id uuid
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    (SELECT h.id, h.kind, h.opens_at, true,
        -- A debt is paid off by one message after another, each in its time.
        least(_wa_pair_burst(), CASE h.reason WHEN 'recipient_rate' THEN 1 + floor(
            extract(EPOCH FROM p_now - h.opens_at) / extract(EPOCH FROM _wa_pair_interval())
        )::integer END), NULL::uuid
    FROM wa_queue_holds h
    WHERE h.number_id = p_number_id AND h.organization_id = p_org AND h.opens_at <= p_now
        AND h.opens_at > '-infinity' AND h.kind = 'recipient'
    ORDER BY h.opens_at
    LIMIT _wa_most_open_holds())
    UNION ALL
    -- No other waits longer than a second for an earlier message. Asked first, and once, how the organization
    -- wants it: a join could ask for each hold.
    (SELECT h.id, h.kind, h.opens_at, true, _wa_pair_burst(), NULL
    FROM (SELECT x.order_mode FROM wa_organizations x WHERE x.id = p_org OFFSET 0) o
    CROSS JOIN LATERAL (
        SELECT x.id, x.kind, x.opens_at FROM wa_queue_holds x
        WHERE o.order_mode <> 'delivered' AND x.number_id = p_number_id AND x.organization_id = p_org
            AND x.reason = 'in_order' AND x.opens_at > p_now + interval '2 seconds'
        ORDER BY x.opens_at
        LIMIT _wa_most_open_holds()
    ) h)
    UNION ALL
    SELECT h.id, h.kind, h.opens_at,
        CASE
            WHEN h.opens_at <= p_now THEN true
            WHEN h.kind = 'messaging_limit' THEN (
                (f.tier_limit IS DISTINCT FROM h.tier_limit)
                OR (n.portfolio_id IS DISTINCT FROM h.portfolio_id)
            )
            WHEN h.kind = 'replies' THEN coalesce(n.replies_blocked_until, p_now) <= p_now
            ELSE coalesce(n.templates_blocked_until, p_now) <= p_now
        END,
        -- Where locked rows were met, their places are not to be missed by those behind them.
        CASE WHEN h.kind = 'messaging_limit' AND f.tier_limit IS NOT NULL
            THEN greatest(
                CASE WHEN h.passed_id IS NULL THEN 1 ELSE _wa_look_size() END,
                f.tier_limit - coalesce((
                    SELECT r.taken[1] FROM wa_rate_limits r
                    WHERE r.organization_id = p_org AND r.scope = 'portfolio' AND r.scope_id = n.portfolio_id
                    ORDER BY r.version DESC LIMIT 1
                ), 0)
            ) END,
        h.passed_id
    FROM (
        SELECT x.* FROM wa_queue_holds x WHERE x.contact_id = 0 AND x.number_id = p_number_id OFFSET 0
    ) h
    JOIN wa_phone_numbers n ON n.organization_id = h.organization_id AND n.id = h.number_id
    LEFT JOIN wa_portfolios f ON f.organization_id = n.organization_id AND f.portfolio_id = n.portfolio_id
    WHERE h.organization_id = p_org;
END;

COMMENT ON FUNCTION _wa_lane_holds(uuid, bigint, timestamptz) IS
'Internal: the open holds of a lane''s recipients, and all those of the whole lane: whether they are open, '
'how many rows may be taken from each (NULL: any number), and behind which.';

-- What is said of the first row of a cause counts: nothing goes before it. What has to come after others of
-- its recipient waits as long as they do.
CREATE OR REPLACE FUNCTION _wa_hold_rows(
    p_org uuid, p_number wa_phone_numbers, p_ids uuid[], p_kinds text[], p_contact_ids bigint[],
    p_reasons text[], p_opens_at timestamptz[], p_tier_limit integer
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_queue_holds AS h (
        organization_id, number_id, kind, contact_id, reason, opens_at, tier_limit, portfolio_id
    )
    SELECT p_org, (p_number).id, u.kind, c.id, (array_agg(u.reason ORDER BY u.n))[1],
        (array_agg(u.opens_at ORDER BY u.n))[1], CASE WHEN u.kind = 'messaging_limit' THEN p_tier_limit END,
        CASE WHEN u.kind = 'messaging_limit' THEN (p_number).portfolio_id END
    FROM unnest(p_kinds, p_contact_ids, p_reasons, p_opens_at)
        WITH ORDINALITY u (kind, contact_id, reason, opens_at, n)
    CROSS JOIN LATERAL (SELECT CASE WHEN u.kind = 'recipient' THEN u.contact_id ELSE 0 END AS id) c
    GROUP BY u.kind, c.id
    ORDER BY c.id
    ON CONFLICT (contact_id, number_id, kind, organization_id) DO UPDATE SET
        reason = excluded.reason, opens_at = excluded.opens_at, tier_limit = excluded.tier_limit,
        portfolio_id = excluded.portfolio_id, passed_id = NULL
    WHERE excluded.reason <> 'in_order' OR excluded.opens_at > h.opens_at;
    PERFORM _wa_hold_due(p_org, array_agg(u.id), array_agg(h.id), array_agg(u.kind))
    FROM unnest(p_ids, p_kinds, p_contact_ids) u (id, kind, contact_id)
    CROSS JOIN LATERAL _wa_hold_of(
        p_org, (p_number).id, u.kind, CASE WHEN u.kind = 'recipient' THEN u.contact_id ELSE 0 END
    ) h;
END
$$;

COMMENT ON FUNCTION _wa_hold_rows(
    uuid, wa_phone_numbers, uuid[], text[], bigint[], text[], timestamptz[], integer
) IS 'Internal: puts picked rows of a lane, whose lock the caller holds, into the holds of their causes.';

CREATE OR REPLACE FUNCTION _wa_settle_holds(
    p_org wa_organizations, p_number_id bigint, p_ids bigint[], p_picked uuid[], p_picked_holds bigint[],
    p_weighed uuid[], p_granted_contacts bigint[], p_held_kinds text[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    DELETE FROM wa_queue_holds h
    USING (SELECT u.id FROM unnest(p_ids) u (id) ORDER BY u.id) u
    WHERE h.organization_id = (p_org).id AND h.id = u.id
        AND NOT EXISTS (
            SELECT FROM (SELECT d.organization_id FROM wa_queue_due d WHERE d.hold_id = h.id OFFSET 0) d
            WHERE d.organization_id = (p_org).id
        );
    -- The rest of a recipient's rows waits for the answer to, the delivery, or the time of what was granted now.
    UPDATE wa_queue_holds h SET opens_at = c.opens_at, reason = c.reason
    FROM unnest(p_ids) u (id)
    CROSS JOIN LATERAL (
        SELECT x.contact_id, x.reason = 'in_order' AND (p_org).order_mode = 'delivered' AS awaits_delivery,
            x.reason = 'in_order' AND (p_org).order_mode <> 'delivered' AS awaits_answer,
            x.reason = 'recipient_rate' AS is_debt
        FROM wa_queue_holds x
        WHERE x.organization_id = (p_org).id AND x.id = u.id AND x.kind = 'recipient' AND x.opens_at <= p_now
            AND x.contact_id = ANY (p_granted_contacts)
        LIMIT 1
    ) x
    CROSS JOIN LATERAL (
        SELECT CASE WHEN x.awaits_delivery THEN p_now + (p_org).order_wait
                WHEN x.awaits_answer AND r.room > 0 THEN p_now + interval '1 second'
                ELSE p.clear_at + _wa_pair_slack() END AS opens_at,
            CASE WHEN x.awaits_delivery OR (x.awaits_answer AND r.room > 0) THEN 'in_order'
                ELSE 'recipient_rate' END AS reason
        FROM wa_pair_rates p
        CROSS JOIN LATERAL (
            SELECT _wa_pair_room(p.burst_started_at, p.burst_count, p.clear_at, p_now) AS room
        ) r
        WHERE p.organization_id = (p_org).id AND p.number_id = p_number_id AND p.contact_id = x.contact_id
            AND p.clear_at > p_now AND (x.awaits_delivery OR x.awaits_answer OR x.is_debt OR r.room <= 0)
        LIMIT 1
    ) c
    WHERE h.organization_id = (p_org).id AND h.id = u.id;
    -- What its owner has locked is passed by, and comes up again after the last. Nothing goes before it to the
    -- same recipient.
    IF cardinality(p_picked) > cardinality(p_weighed) THEN
        UPDATE wa_queue_holds h
        SET passed_id = CASE WHEN h.kind <> 'recipient' THEN m.last_id END,
            opens_at = CASE WHEN h.kind = 'recipient' THEN p_now + interval '1 second' ELSE h.opens_at END
        FROM (
            SELECT u.hold_id, (array_agg(u.id ORDER BY u.id DESC))[1] AS last_id
            FROM unnest(p_picked, p_picked_holds) u (id, hold_id)
            WHERE u.hold_id IS NOT NULL AND u.id <> ALL (p_weighed)
            GROUP BY u.hold_id
        ) m
        WHERE h.organization_id = (p_org).id AND h.id = m.hold_id
            AND CASE WHEN h.kind = 'recipient' THEN h.opens_at <= p_now ELSE h.kind <> ALL (p_held_kinds) END;
    END IF;
    UPDATE wa_queue_holds h SET passed_id = NULL
    FROM unnest(p_ids) u (id)
    WHERE h.organization_id = (p_org).id AND h.id = u.id AND h.passed_id IS NOT NULL
        AND u.id <> ALL (array_remove(p_picked_holds, NULL));
    -- Those that had nothing to give now must not hide the others.
    IF cardinality(p_ids) >= _wa_most_open_holds() THEN
        UPDATE wa_queue_holds h SET opens_at = p_now
        FROM unnest(p_ids) u (id)
        WHERE h.organization_id = (p_org).id AND h.id = u.id AND h.kind = 'recipient' AND h.opens_at <= p_now;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_settle_holds(
    wa_organizations, bigint, bigint[], uuid[], bigint[], uuid[], bigint[], text[], timestamptz
) IS
'Internal: after a claim took from open holds of its lane: those that are empty are deleted, those of '
'recipients that it granted something are closed until the next message may go.';

-- A hold that is being written by a claim at this moment is passed over: it opens by itself within a second,
-- and waiting could deadlock with claims of several lanes.
CREATE OR REPLACE FUNCTION _wa_release_in_order(p_org uuid, p_contact_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    UPDATE wa_queue_holds h SET opens_at = v_now
    FROM (SELECT DISTINCT u.id FROM unnest(p_contact_ids) u (id)) c
    CROSS JOIN LATERAL (
        SELECT x.* FROM wa_queue_holds x WHERE x.contact_id = c.id OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
    ) w
    WHERE h.organization_id = p_org AND h.id = w.id AND w.organization_id = p_org
        AND w.reason = 'in_order' AND w.opens_at > v_now
        AND NOT EXISTS (
            SELECT FROM wa_pair_rates r
            WHERE r.organization_id = p_org AND r.number_id = w.number_id
                AND r.contact_id = w.contact_id AND r.wait_until > v_now
        );
END
$$;

COMMENT ON FUNCTION _wa_release_in_order(uuid, bigint[]) IS
'Internal: lets go of what waited for an earlier message to the same recipient.';

-- Who may be written to without a place in the messaging limit waits for none.
CREATE OR REPLACE FUNCTION _wa_release_from_limit(p_org uuid, p_contact_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT x.* FROM wa_queue_holds x WHERE x.contact_id = 0 OFFSET 0) h
        WHERE h.organization_id = p_org AND h.kind = 'messaging_limit'
    ) THEN
        PERFORM _wa_free_due(p_org, p_contact_ids, 'messaging_limit');
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_release_from_limit(uuid, bigint[]) IS
'Internal: judges anew what waits for the messaging limit and is for contacts who have just written, or who '
'count already.';
