-- The verdict on each picked row, and what becomes of those that are not granted.

CREATE OR REPLACE FUNCTION _wa_weigh_due(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_ids uuid[],
    p_contact_ids bigint[], p_template_ids uuid[], p_classes smallint[], p_now timestamptz,
    OUT granted uuid[], OUT granted_contacts bigint[], OUT granted_templates uuid[],
    OUT granted_classes smallint[], OUT granted_open boolean[], OUT metered integer, OUT failed uuid[],
    OUT fail_codes text[],
    OUT held uuid[], OUT held_until timestamptz[], OUT hold_reasons text[], OUT converted uuid[],
    OUT tier_version bigint, OUT tier_counted_at timestamptz, OUT tier_used integer, OUT tier_taken integer
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_templates CONSTANT integer := cardinality(array_remove(p_template_ids, NULL));
    v_tier_limit integer;
    v_tier_room integer;
    v_tier_free_at timestamptz;
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
    WITH judged AS MATERIALIZED (
        -- A row that its owner changes at this moment is skipped, never waited for; so is one moved since it
        -- was picked.
        SELECT j.*, p_classes[j.place] AS class, q.expires_at <= p_now AS is_expired,
            q.fallback_template_name IS NOT NULL AS has_fallback
        FROM _wa_judge(
            (p_org).id, p_ids, array_fill((p_number).id, ARRAY[cardinality(p_ids)]), p_contact_ids,
            p_template_ids, (p_org).window_margin, p_now
        ) j
        CROSS JOIN LATERAL (
            SELECT x.expires_at, x.fallback_template_name FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = j.queue_id AND x.status = 'pending'
                AND x.scheduled_at <= p_now
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) q
    ),
    sorted AS (
        SELECT j.*,
            CASE
                WHEN j.is_expired THEN 'fail'
                WHEN j.refusal = 'window_closed' AND j.has_fallback THEN 'convert'
                WHEN j.refusal IS NOT NULL THEN 'fail'
                WHEN j.hold_until IS NOT NULL THEN 'hold'
                ELSE 'go'
            END AS first_verdict
        FROM judged j
    ),
    paired AS (
        SELECT s.*, r.clear_at, f.is_awaited, b.is_behind, r.wait_until,
            row_number() OVER (PARTITION BY s.contact_id, s.first_verdict ORDER BY s.place) AS k,
            least(
                CASE
                    WHEN r.contact_id IS NULL OR r.clear_at + _wa_pair_slack() <= p_now
                        THEN _wa_pair_burst()
                    WHEN p_now < r.burst_started_at + _wa_pair_burst_time()
                        THEN _wa_pair_burst() - r.burst_count
                    ELSE 0
                END,
                CASE WHEN (p_org).order_mode = 'delivered' THEN 1 END
            ) AS allowed
        FROM sorted s
        LEFT JOIN LATERAL (
            SELECT x.contact_id, x.clear_at, x.burst_started_at, x.burst_count, x.wait_until
            FROM wa_pair_rates x
            WHERE x.organization_id = (p_org).id AND x.number_id = (p_number).id
                AND x.contact_id = s.contact_id LIMIT 1
        ) r ON true
        -- Another dispatcher, or ours since a while, has an earlier message to this recipient in flight.
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM wa_queue_inflight i
                WHERE i.contact_id = s.contact_id AND i.number_id = (p_number).id
                    AND i.organization_id = (p_org).id AND _wa_priority_of(i.class) = _wa_priority_of(s.class)
                    AND NOT i.is_unknown AND (
                        i.dispatcher_id <> p_dispatcher_id
                        OR i.claimed_at < p_now - interval '500 milliseconds'
                    )
            ) AS is_awaited
        ) f
        -- An earlier one is due but was not picked: it was handed back, committed late, or waits itself for
        -- one before it. One that waits for the organization's minute holds up only its like.
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM (
                    -- OFFSET keeps the other conditions outside, so that only the contact's index can serve.
                    SELECT x.number_id, x.class, x.queue_id, x.due_at, x.hold_reason
                    FROM wa_queue_due x
                    WHERE x.organization_id = (p_org).id AND x.contact_id = s.contact_id
                    OFFSET 0
                ) e
                WHERE e.number_id = (p_number).id
                    AND _wa_priority_of(e.class) = _wa_priority_of(s.class) AND e.queue_id < s.queue_id
                    AND (e.due_at <= p_now OR e.hold_reason = 'in_order')
                    AND (e.class <= s.class OR (p_org).rate_limit_per_minute IS NULL)
                    AND NOT e.queue_id = ANY (p_ids)
            ) AS is_behind
        ) b
    ),
    timed AS (
        SELECT p.*,
            CASE
                WHEN p.first_verdict <> 'go' THEN p.first_verdict
                WHEN p.is_awaited OR p.is_behind OR p.wait_until > p_now OR p.k > p.allowed
                    THEN 'hold'
                ELSE 'go'
            END AS second_verdict,
            CASE
                WHEN p.first_verdict = 'hold' THEN p.hold_until
                -- Its completion lets go of this one; the second is for one that was being recorded
                -- meanwhile.
                WHEN p.is_awaited OR p.is_behind THEN p_now + interval '1 second'
                WHEN p.wait_until > p_now THEN p.wait_until
                WHEN (p_org).order_mode = 'delivered' AND p.allowed > 0 THEN p_now + (p_org).order_wait
                ELSE greatest(p.clear_at, p_now) + _wa_pair_slack()
                    + _wa_pair_interval() * (p.allowed + (p.k - p.allowed - 1))
            END AS wait_to,
            CASE
                WHEN p.first_verdict = 'hold' THEN p.hold_reason
                WHEN p.is_awaited OR p.is_behind OR p.wait_until > p_now THEN 'in_order'
                WHEN (p_org).order_mode = 'delivered' AND p.allowed > 0 THEN 'in_order'
                ELSE 'recipient_rate'
            END AS wait_reason
        FROM paired p
    ),
    tiered AS (
        SELECT t.*, n.slot
        FROM timed t
        LEFT JOIN (
            SELECT x.contact_id, row_number() OVER (ORDER BY min(x.place)) AS slot
            FROM timed x
            WHERE x.second_verdict = 'go' AND x.template_id IS NOT NULL AND NOT x.is_within_24h
                AND v_tier_limit IS NOT NULL
                AND NOT EXISTS (
                    SELECT FROM (
                        SELECT k.last_at FROM wa_tier_usages k
                        WHERE k.organization_id = (p_org).id AND k.portfolio_id = (p_number).portfolio_id
                            AND k.contact_id = x.contact_id
                        OFFSET 0
                    ) u
                    WHERE u.last_at > p_now - _wa_tier_window()
                )
            GROUP BY x.contact_id
        ) n ON n.contact_id = t.contact_id AND t.second_verdict = 'go' AND t.template_id IS NOT NULL
            AND NOT t.is_within_24h
    ),
    final AS (
        SELECT t.queue_id, t.place, t.contact_id, t.template_id, t.class, t.is_within_24h, t.refusal,
            t.is_expired, t.slot,
            CASE WHEN t.slot > v_tier_room THEN 'hold' ELSE t.second_verdict END AS verdict,
            CASE WHEN t.slot > v_tier_room THEN greatest(v_tier_free_at, p_now + interval '1 minute')
                ELSE t.wait_to END AS wait_to,
            CASE WHEN t.slot > v_tier_room THEN 'messaging_limit' ELSE t.wait_reason END AS wait_reason
        FROM tiered t
    )
    SELECT
        array_agg(f.queue_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.contact_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.template_id ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.class ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        array_agg(f.is_within_24h ORDER BY f.place) FILTER (WHERE f.verdict = 'go'),
        count(*) FILTER (WHERE f.verdict = 'go' AND _wa_is_metered_class(f.class)),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'fail'),
        array_agg(CASE WHEN f.is_expired THEN 'expired' ELSE f.refusal END) FILTER (WHERE f.verdict = 'fail'),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.wait_to) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.wait_reason) FILTER (WHERE f.verdict = 'hold'),
        array_agg(f.queue_id) FILTER (WHERE f.verdict = 'convert'),
        max(f.slot) FILTER (WHERE f.verdict = 'go')
    INTO granted, granted_contacts, granted_templates, granted_classes, granted_open, metered, failed,
        fail_codes, held, held_until, hold_reasons, converted, tier_taken
    FROM final f;
END
$$;

COMMENT ON FUNCTION _wa_weigh_due(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], timestamptz
) IS
'Internal: divides picked rows into granted, failed (expired or refused), held (with reason and time) and '
'those to be turned into their fall-back template. Locks the queue rows.';

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
        PERFORM _wa_hold_due((p_org).id, p_held, p_held_until, p_hold_reasons);
    END IF;
    IF p_converted IS NOT NULL THEN
        v_lost := _wa_turn_into_fallback((p_org).id, (p_number).waba_id, p_converted);
        -- Its fall-back template was deleted meanwhile.
        PERFORM _wa_fail_messages((p_org).id, v_lost, 'window_closed', _wa_refusal_text('window_closed'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_set_aside(
    wa_organizations, wa_phone_numbers, uuid[], text[], uuid[], timestamptz[], text[], uuid[]
) IS
'Internal: fails, holds or turns into their fall-back template the picked rows that are not granted.';
