-- The verdict on each picked row, and what becomes of those that are not granted.

CREATE OR REPLACE FUNCTION _wa_weigh_due(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_ids uuid[],
    p_contact_ids bigint[], p_template_ids uuid[], p_classes smallint[], p_most_turns integer,
    p_now timestamptz,
    OUT weighed uuid[], OUT granted uuid[], OUT granted_places tid[], OUT granted_contacts bigint[],
    OUT granted_templates uuid[],
    OUT granted_classes smallint[], OUT granted_open boolean[], OUT metered integer, OUT failed uuid[],
    OUT fail_codes text[],
    OUT held uuid[], OUT held_kinds text[], OUT held_contacts bigint[], OUT held_reasons text[],
    OUT held_until timestamptz[], OUT converted uuid[], OUT counted bigint[], OUT tier_limit integer,
    OUT tier_version bigint, OUT tier_counted_at timestamptz, OUT tier_used integer, OUT tier_taken integer,
    OUT fileless uuid[], OUT files text[], OUT waiting_places tid[], OUT waits_until timestamptz[],
    OUT waits_for text[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_templates CONSTANT integer := cardinality(array_remove(p_template_ids, NULL));
    v_locked record;
    v_tier_limit integer;
    v_tier_room integer;
    v_tier_free_at timestamptz;
    v_told bigint[] := '{}';
    v_absent text[];
BEGIN
    -- Only templates open conversations.
    IF v_templates > 0 THEN
        SELECT f.tier_limit INTO v_tier_limit FROM wa_portfolios f
        WHERE f.organization_id = (p_org).id AND f.portfolio_id = (p_number).portfolio_id
            AND f.tier_limit IS NOT NULL
        FOR NO KEY UPDATE;
    END IF;
    IF v_tier_limit IS NOT NULL THEN
        SELECT u.version, u.counted_at, u.used, u.free_at
        INTO tier_version, tier_counted_at, tier_used, v_tier_free_at
        FROM _wa_tier_usage((p_org).id, (p_number).portfolio_id, v_tier_limit - v_templates, p_now) u;
        v_tier_room := v_tier_limit - tier_used;
    END IF;
    -- A row that its owner changes at this moment is skipped, never waited for; so is one that was moved, or
    -- became another contact's, since it was picked. Judged is what the locked rows say.
    SELECT array_agg(q.id) AS ids, array_agg(d.place) AS places, array_agg(u.contact_id) AS contact_ids,
        array_agg(u.template_id) AS template_ids, array_agg(u.class) AS classes,
        array_agg(q.expires_at) AS expires_at, array_agg(q.fallback_template_name IS NOT NULL) AS fallbacks,
        array_agg(q.file) AS files
    INTO v_locked
    FROM unnest(p_ids, p_contact_ids, p_template_ids, p_classes) u (id, contact_id, template_id, class)
    CROSS JOIN LATERAL (
        SELECT x.id, x.expires_at, x.fallback_template_name,
            CASE WHEN u.template_id IS NULL THEN _wa_named_file(x.type, x.content) END AS file
        FROM wa_outbound_queue x
        WHERE x.organization_id = (p_org).id AND x.id = u.id AND x.status = 'pending'
            AND x.scheduled_at <= p_now
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) q
    CROSS JOIN LATERAL (
        SELECT x.ctid AS place, x.number_id, x.contact_id, x.template_id, x.class FROM wa_queue_due x
        WHERE x.organization_id = (p_org).id AND x.queue_id = u.id
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) d
    WHERE d.number_id = (p_number).id AND d.contact_id = u.contact_id AND d.class = u.class
        AND d.template_id IS NOT DISTINCT FROM u.template_id;
    weighed := coalesce(v_locked.ids, '{}');
    IF v_locked.ids IS NULL THEN
        RETURN;
    END IF;
    -- A status that tells of a delivery comes before this lock, and is seen below, or after this claim, and
    -- finds what it held. Those that are being told of one at this moment are left for the next claim.
    IF (p_org).order_mode = 'delivered' THEN
        SELECT coalesce(array_agg(c.id) FILTER (WHERE l.is_mine IS NULL), '{}') INTO v_told
        FROM (SELECT DISTINCT u.id FROM unnest(v_locked.contact_ids) u (id) ORDER BY u.id) c
        CROSS JOIN LATERAL (
            SELECT FROM wa_pair_rates x
            WHERE x.organization_id = (p_org).id AND x.number_id = (p_number).id AND x.contact_id = c.id
            LIMIT 1
        ) r
        LEFT JOIN LATERAL (
            SELECT true AS is_mine FROM wa_pair_rates x
            WHERE x.organization_id = (p_org).id AND x.number_id = (p_number).id AND x.contact_id = c.id
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) l ON true;
    END IF;
    v_absent := _wa_absent_files((p_org).id, (p_number).phone_number_id, v_locked.files, p_now);
    WITH judged AS MATERIALIZED (
        SELECT j.*, v_locked.files[j.place] AS file, v_locked.classes[j.place]::integer AS class,
            v_locked.expires_at[j.place] <= p_now AS is_expired, v_locked.fallbacks[j.place] AS has_fallback,
            _wa_wait_refusal(
                j.refusal, j.hold_reason, j.hold_until, v_locked.expires_at[j.place]) AS fail_code
        FROM _wa_judge(
            (p_org).id, v_locked.ids, array_fill((p_number).id, ARRAY[cardinality(v_locked.ids)]),
            v_locked.contact_ids, v_locked.template_ids, (p_org).window_margin, p_now
        ) j
    ),
    by_policy AS (
        SELECT j.*,
            CASE
                WHEN j.contact_id = ANY (v_told) THEN 'leave'
                WHEN j.is_expired THEN 'fail'
                WHEN j.refusal = 'window_closed' AND j.has_fallback THEN 'convert'
                WHEN j.fail_code IS NOT NULL THEN 'fail'
                WHEN j.hold_until IS NOT NULL
                    THEN CASE j.hold_reason WHEN 'restricted' THEN 'hold' ELSE 'wait' END
                WHEN j.file = ANY (v_absent) THEN 'file'
                ELSE 'go'
            END AS verdict
        FROM judged j
    ),
    -- What is looked up of a recipient is looked up at its first row of a class, and told to the others.
    by_recipient AS (
        SELECT p.*,
            count(*) FILTER (WHERE p.verdict = 'go') OVER (PARTITION BY p.contact_id ORDER BY p.place) AS k,
            array_agg(p.queue_id) OVER (PARTITION BY p.contact_id) AS picked,
            row_number() OVER (PARTITION BY p.contact_id, p.class ORDER BY p.place) AS nth,
            bool_or(p.verdict = 'file') OVER (PARTITION BY p.contact_id, p.class ORDER BY p.place)
                AS is_behind_file
        FROM by_policy p
    ),
    looked_up AS (
        SELECT r.*, w.clear_at, w.wait_until, w.room, f.turns, e.queue_id AS earlier_id
        FROM (
            SELECT b.*, CASE WHEN b.nth = 1 THEN b.contact_id END AS first_of FROM by_recipient b OFFSET 0
        ) r
        LEFT JOIN LATERAL (
            SELECT x.clear_at, x.wait_until,
                _wa_pair_room(x.burst_started_at, x.burst_count, x.clear_at, p_now) AS room
            FROM wa_pair_rates x
            WHERE x.organization_id = (p_org).id AND x.number_id = (p_number).id
                AND x.contact_id = r.first_of
            LIMIT 1
        ) w ON true
        LEFT JOIN LATERAL _wa_turns_of(
            (p_org).id, (p_number).id, r.first_of, r.class, p_dispatcher_id, p_most_turns, p_now
        ) f ON true
        LEFT JOIN LATERAL _wa_earlier_of(
            (p_org).id, (p_number).id, r.first_of, r.class,
            CASE WHEN (p_org).rate_limit_per_minute IS NULL THEN _wa_last_class() ELSE r.class END,
            r.picked, p_now
        ) e ON true
    ),
    told AS (
        SELECT l.place, l.queue_id, l.contact_id, l.template_id, l.class, l.is_within_24h, l.fail_code,
            l.is_expired, l.verdict, l.file, l.k, l.hold_until, l.hold_reason,
            first_value(l.clear_at) OVER same AS clear_at,
            (p_org).order_mode = 'delivered' AND first_value(l.wait_until) OVER same > p_now
                AS is_undelivered,
            first_value(l.wait_until) OVER same AS wait_until,
            first_value(l.turns) OVER same AS turns,
            coalesce(first_value(l.earlier_id) OVER same < l.queue_id, false) OR l.is_behind_file
                AS is_out_of_order,
            least(
                coalesce(first_value(l.room) OVER same, _wa_pair_burst()),
                CASE WHEN (p_org).order_mode = 'delivered' THEN 1 END
            ) AS room
        FROM looked_up l
        WINDOW same AS (PARTITION BY l.contact_id, l.class ORDER BY l.nth)
    ),
    by_turn AS (
        SELECT t.*,
            CASE
                WHEN t.verdict <> 'go' THEN NULL
                -- Its completion opens the hold; the second is for one that was being recorded meanwhile.
                WHEN t.is_out_of_order THEN p_now + interval '1 second'
                WHEN t.is_undelivered THEN t.wait_until
                WHEN t.k <= least(t.room, t.turns) THEN NULL
                WHEN t.k <= t.room THEN p_now + interval '1 second'
                WHEN (p_org).order_mode = 'delivered' AND t.room > 0 THEN p_now + (p_org).order_wait
                ELSE greatest(t.clear_at, p_now) + _wa_pair_slack()
                    + _wa_pair_interval() * greatest(t.room, 0)
            END AS turn_at
        FROM told t
    ),
    by_tier AS (
        SELECT t.*, CASE WHEN t.needs_place
            THEN dense_rank() OVER (PARTITION BY t.needs_place ORDER BY t.first_place) END AS slot
        FROM (
            SELECT b.*, min(b.place) OVER (PARTITION BY b.contact_id, b.needs_place) AS first_place
            FROM (
                SELECT t.*, v_tier_limit IS NOT NULL AND t.verdict = 'go' AND t.turn_at IS NULL
                    AND t.template_id IS NOT NULL AND NOT t.is_within_24h AND NOT EXISTS (
                        SELECT FROM _wa_tier_use(
                            (p_org).id, (p_number).portfolio_id, t.contact_id, p_now)
                    ) AS needs_place
                FROM by_turn t
            ) b
        ) t
    ),
    final AS (
        SELECT t.place, t.queue_id, t.contact_id, t.template_id, t.class, t.is_within_24h, t.slot, t.file,
            CASE WHEN t.is_expired THEN 'expired' ELSE t.fail_code END AS fail_code,
            CASE WHEN t.turn_at IS NOT NULL OR t.slot > v_tier_room THEN 'hold' ELSE t.verdict END AS verdict,
            CASE
                WHEN t.verdict = 'hold' THEN CASE WHEN t.template_id IS NULL THEN 'replies' ELSE 'templates' END
                WHEN t.turn_at IS NOT NULL THEN 'recipient'
                ELSE 'messaging_limit'
            END AS kind,
            CASE
                WHEN t.verdict IN ('hold', 'wait') THEN t.hold_reason
                WHEN t.is_out_of_order OR t.is_undelivered OR (t.turn_at IS NOT NULL AND t.k <= t.room)
                    OR ((p_org).order_mode = 'delivered' AND t.room > 0 AND t.turn_at IS NOT NULL)
                    THEN 'in_order'
                WHEN t.turn_at IS NOT NULL THEN 'recipient_rate'
                ELSE 'messaging_limit'
            END AS reason,
            coalesce(
                t.hold_until, t.turn_at,
                greatest(coalesce(v_tier_free_at, p_now + _wa_tier_window()), p_now + _wa_tier_recheck())
            ) AS opens_at
        FROM by_tier t
    )
    SELECT
        array_agg(f.queue_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(v_locked.places[f.place] ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.contact_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.template_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.class::smallint ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.is_within_24h ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        count(*) FILTER (WHERE f.verdict = 'go' AND _wa_is_metered_class(f.class)),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'fail'),
        array_agg(f.fail_code) FILTER (WHERE f.verdict = 'fail'),
        array_agg(f.queue_id ORDER BY f.place) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.kind ORDER BY f.place) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.contact_id ORDER BY f.place) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.reason ORDER BY f.place) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.opens_at ORDER BY f.place) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'convert'),
        max(f.slot) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.contact_id) FILTER (WHERE f.verdict = 'go' AND f.slot IS NOT NULL),
        array_agg(f.queue_id ORDER BY f.place) FILTER (WHERE f.verdict = 'file'),
        array_agg(f.file ORDER BY f.place) FILTER (WHERE f.verdict = 'file'),
        array_agg(v_locked.places[f.place]) FILTER (WHERE f.verdict = 'wait'),
        array_agg(f.opens_at) FILTER (WHERE f.verdict = 'wait'),
        array_agg(f.reason) FILTER (WHERE f.verdict = 'wait')
    INTO granted, granted_places, granted_contacts, granted_templates, granted_classes, granted_open, metered,
        failed, fail_codes, held, held_kinds, held_contacts, held_reasons, held_until, converted, tier_taken,
        counted, fileless, files, waiting_places, waits_until, waits_for
    FROM final f;
    tier_limit := v_tier_limit;
END
$$;

COMMENT ON FUNCTION _wa_weigh_due(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], integer, timestamptz
) IS
'Internal: divides picked rows into granted, failed (expired or refused), held (with reason and time), '
'those to be turned into their fall-back template, those whose files the provider does not have '
'(fileless, with the files), and those that wait on their contact''s account. Locks the queue rows.';

CREATE OR REPLACE FUNCTION _wa_set_aside(
    p_org wa_organizations, p_number wa_phone_numbers, p_failed uuid[], p_fail_codes text[],
    p_converted uuid[]
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
    IF p_converted IS NOT NULL THEN
        v_lost := _wa_turn_into_fallback((p_org).id, (p_number).waba_id, p_converted);
        -- Its fall-back template was deleted meanwhile.
        PERFORM _wa_fail_messages((p_org).id, v_lost, 'window_closed', _wa_refusal_text('window_closed'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_set_aside(wa_organizations, wa_phone_numbers, uuid[], text[], uuid[]) IS
'Internal: fails, or turns into their fall-back template, picked rows that may not go.';
