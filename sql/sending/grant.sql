-- The verdict on each picked row, and the granting of those that may go.

-- Meta's pair rate (About the platform): one message in 6 seconds to a recipient; up to 45 at once are
-- borrowed from the time after, which has to pass before the next. A burst is given 5 seconds, and a debt a
-- quarter of a second more, so that what arrives late at the provider is still inside.
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
                    WHEN r.contact_id IS NULL OR r.clear_at + interval '250 milliseconds' <= p_now THEN 45
                    WHEN p_now < r.burst_started_at + interval '5 seconds' THEN 45 - r.burst_count
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
                    SELECT x.organization_id, x.number_id, x.class, x.queue_id, x.due_at, x.hold_reason
                    FROM wa_queue_due x
                    WHERE x.contact_id = s.contact_id
                    OFFSET 0
                ) e
                WHERE e.organization_id = (p_org).id AND e.number_id = (p_number).id
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
                ELSE greatest(p.clear_at, p_now) + interval '250 milliseconds'
                    + interval '6 seconds' * (p.allowed + (p.k - p.allowed - 1))
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
                    WHERE u.last_at > p_now - interval '24 hours'
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

-- A count costs as much as there are recipients: one of the last seconds serves, with what was charged since,
-- as long as the limit is not near. No older: a claim that found no limit adds nothing, and may commit after
-- one was set and counted.
CREATE OR REPLACE FUNCTION _wa_tier_usage(
    p_org uuid, p_portfolio_id text, p_enough integer, p_now timestamptz,
    OUT version bigint, OUT counted_at timestamptz, OUT used integer, OUT free_at timestamptz
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    SELECT r.version, r.taken_at[1], r.taken[1] INTO version, counted_at, used FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = 'portfolio' AND r.scope_id = p_portfolio_id
    ORDER BY r.version DESC LIMIT 1;
    IF used <= p_enough AND counted_at > p_now - interval '10 seconds' THEN
        RETURN;
    END IF;
    counted_at := p_now;
    SELECT count(*), min(u.last_at) + interval '24 hours' INTO used, free_at
    FROM wa_tier_usages u
    WHERE u.organization_id = p_org AND u.portfolio_id = p_portfolio_id
        AND u.last_at > p_now - interval '24 hours';
END
$$;

COMMENT ON FUNCTION _wa_tier_usage(uuid, text, integer, timestamptz) IS
'Internal: how many recipients of the last 24 hours a portfolio has: exactly, with when the first of them '
'stops counting, or no fewer than there are where that is at most p_enough. The caller holds the '
'portfolio''s lock.';

CREATE OR REPLACE FUNCTION tg_wa_portfolios__forget_usage() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    DELETE FROM wa_rate_limits r
    WHERE r.organization_id = NEW.organization_id AND r.scope = 'portfolio' AND r.scope_id = NEW.portfolio_id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_portfolios__forget_usage() IS
'Makes claims count the recipients anew: nothing was added to the count while there was no limit.';

CREATE OR REPLACE TRIGGER forget_usage AFTER UPDATE OF tier_limit ON wa_portfolios
FOR EACH ROW WHEN (OLD.tier_limit IS NULL) EXECUTE FUNCTION tg_wa_portfolios__forget_usage();

CREATE OR REPLACE FUNCTION _wa_grant(
    p_org wa_organizations, p_number wa_phone_numbers, p_dispatcher_id uuid, p_ids uuid[],
    p_contact_ids bigint[], p_template_ids uuid[], p_classes smallint[], p_open boolean[], p_now timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_due tid[];
BEGIN
    -- Contacts in one order everywhere: lanes of one portfolio can charge the same recipients, no deadlock.
    INSERT INTO wa_pair_rates AS r (
        organization_id, number_id, contact_id, burst_started_at, burst_count, clear_at
    )
    SELECT (p_org).id, (p_number).id, u.contact_id, p_now, count(*), p_now + interval '6 seconds' * count(*)
    FROM unnest(p_contact_ids) u (contact_id)
    GROUP BY u.contact_id
    ORDER BY u.contact_id
    ON CONFLICT (organization_id, number_id, contact_id) DO UPDATE SET
        burst_started_at = CASE WHEN r.clear_at <= p_now THEN p_now ELSE r.burst_started_at END,
        burst_count = CASE WHEN r.clear_at <= p_now THEN 0 ELSE r.burst_count END + excluded.burst_count,
        clear_at = greatest(r.clear_at, p_now) + interval '6 seconds' * excluded.burst_count,
        wait_until = NULL;

    IF array_remove(p_template_ids, NULL) <> '{}' THEN
        INSERT INTO wa_tier_usages (organization_id, portfolio_id, contact_id, last_at)
        SELECT DISTINCT (p_org).id, (p_number).portfolio_id, u.contact_id, p_now
        FROM unnest(p_contact_ids, p_template_ids, p_open) u (contact_id, template_id, is_open)
        WHERE u.template_id IS NOT NULL AND NOT u.is_open
        ORDER BY u.contact_id
        ON CONFLICT (organization_id, portfolio_id, contact_id) DO UPDATE SET last_at = excluded.last_at;
    END IF;

    -- Found and locked by key, then deleted by place; _wa_finish_messages() says why.
    v_due := ARRAY(
        SELECT k.place FROM unnest(p_ids) u (id)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS place FROM wa_queue_due x
            WHERE x.organization_id = (p_org).id AND x.queue_id = u.id LIMIT 1 FOR UPDATE
        ) k
    );
    DELETE FROM wa_queue_due d WHERE d.ctid = ANY (v_due);

    RETURN QUERY
    WITH granted AS MATERIALIZED (
        SELECT u.*, q.tid
        FROM unnest(p_ids, p_contact_ids, p_template_ids, p_classes, p_open)
            WITH ORDINALITY u (id, contact_id, template_id, class, is_open, place)
        CROSS JOIN LATERAL (
            SELECT x.ctid AS tid FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
        ) q
    ),
    marked AS (
        UPDATE wa_outbound_queue q
        SET status = 'sending', claimed_at = p_now, attempt = q.attempt + 1, contact_id = g.contact_id,
            change_no = q.change_no + 1
        FROM granted g
        WHERE q.ctid = g.tid
        RETURNING q.*, g.template_id, g.class, g.is_open, g.place
    ),
    leased AS (
        INSERT INTO wa_queue_inflight (
            organization_id, queue_id, attempt, number_id, contact_id, class, dispatcher_id, claimed_at,
            is_within_24h, template_id, deadline_at
        )
        SELECT (p_org).id, m.id, m.attempt, (p_number).id, m.contact_id, m.class, p_dispatcher_id, p_now,
            m.is_open, m.template_id, p_now + interval '60 seconds'
        FROM marked m
    )
    SELECT
        (p_org).id, m.id, m.attempt, (p_number).id || ':' || m.contact_id || ':' || _wa_priority_of(m.class),
        (p_number).phone_number_id, (p_number).provider,
        CASE (p_number).provider WHEN '360dialog' THEN '/messages'
            ELSE '/' || (p_number).phone_number_id || '/messages' END,
        _wa_build_request(
            m.id, m.attempt, m.phone, m.type, m.text_body, m.content, m.reply_to, t.template, c.components
        )::text,
        30::double precision
    FROM marked m
    LEFT JOIN LATERAL (
        SELECT x AS template FROM wa_templates x
        WHERE x.organization_id = (p_org).id AND x.id = m.template_id LIMIT 1
    ) t ON true
    -- OFFSET: evaluated once a row, though the request names it more than once.
    CROSS JOIN LATERAL (
        SELECT _wa_request_components(
            m.type, m.content, m.template_params, m.fallback_template_params, t.template
        ) AS components
        OFFSET 0
    ) c
    ORDER BY m.place;
END
$$;

COMMENT ON FUNCTION _wa_grant(
    wa_organizations, wa_phone_numbers, uuid, uuid[], bigint[], uuid[], smallint[], boolean[], timestamptz
) IS
'Internal: moves granted rows from due to in flight, charges pair rate and messaging limit, returns their '
'requests.';

-- Body of POST /{phone_number_id}/messages (Cloud API, Send messages). An expression, so that the claim's
-- query takes it in: a function call for each row would cost more than the row.
CREATE OR REPLACE FUNCTION _wa_build_request(
    p_id uuid, p_attempt integer, p_phone text, p_type text, p_text_body text, p_content jsonb,
    p_reply_to text, p_template wa_templates, p_components jsonb
) RETURNS jsonb
LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'messaging_product', 'whatsapp', 'recipient_type', 'individual',
    CASE WHEN left(p_phone, 1) = '+' THEN 'to' ELSE 'recipient' END, p_phone,
    'type', CASE WHEN (p_template).id IS NULL THEN p_type ELSE 'template' END,
    CASE WHEN (p_template).id IS NULL THEN p_type ELSE 'template' END,
    CASE
        WHEN (p_template).id IS NOT NULL THEN jsonb_build_object(
            'name', lower((p_template).name), 'language', jsonb_build_object('code', (p_template).language)
        ) || CASE WHEN coalesce(p_components, '[]') = '[]' THEN '{}'
            ELSE jsonb_build_object('components', p_components) END
        WHEN p_type = 'text' THEN coalesce(p_content, '{}') || jsonb_build_object('body', p_text_body)
        ELSE p_content
    END,
    'biz_opaque_callback_data', 'q:' || p_id || ':' || p_attempt
) || CASE WHEN p_reply_to IS NULL OR p_type = 'reaction' AND (p_template).id IS NULL THEN '{}'
    ELSE jsonb_build_object('context', jsonb_build_object('message_id', p_reply_to)) END;

COMMENT ON FUNCTION _wa_build_request(uuid, integer, text, text, text, jsonb, text, wa_templates, jsonb) IS
'Internal: the request body of one message. Callback data carries the queue id and the attempt.';

CREATE OR REPLACE FUNCTION _wa_request_components(
    p_type text, p_content jsonb, p_params jsonb, p_fallback_params jsonb, p_template wa_templates
) RETURNS jsonb
LANGUAGE sql STABLE
RETURN CASE
    WHEN (p_template).id IS NULL THEN NULL
    WHEN p_type = 'template' AND p_content ? 'components' THEN p_content -> 'components'
    ELSE _wa_template_components(
        p_template, CASE WHEN p_type = 'template' THEN p_params ELSE p_fallback_params END
    )
END;

COMMENT ON FUNCTION _wa_request_components(text, jsonb, jsonb, jsonb, wa_templates) IS
'Internal: the components of a message that goes as a template, its own or its fall-back; NULL for another.';
