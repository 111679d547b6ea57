-- What follows from an error of the provider beyond its message.

-- Only its row type is used: an error that a message met, with the action of its rule, until when that lasts
-- (NULL: until somebody ends it) and what the error says.
CREATE OR REPLACE VIEW _wa_met_errors AS
SELECT
    NULL::text AS action, NULL::bigint AS number_id, NULL::bigint AS contact_id, NULL::uuid AS template_id,
    NULL::integer AS code, NULL::text AS title, NULL::timestamptz AS at, NULL::timestamptz AS until
WHERE false;

COMMENT ON VIEW _wa_met_errors IS
'Internal: the shape of an error that is to be acted on. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_apply_error_actions(p_org uuid, p_errors _wa_met_errors[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM _wa_deny_windows(p_org, array_agg(e.contact_id), array_agg(e.number_id), array_agg(e.at))
    FROM unnest(p_errors) e
    WHERE e.action = 'need_template'
    HAVING count(*) > 0;

    -- A switch is for marketing. A word that was written to the provider is lifted by START.
    PERFORM _wa_opt_out_contacts(
        p_org, array_agg(e.contact_id),
        CASE WHEN e.action = 'opt_out' THEN '{marketing}' WHEN k.is_old THEN '{sms}'
            ELSE (SELECT o.stop_scopes || '{sms}'::text[] FROM wa_organizations o WHERE o.id = p_org) END,
        e.title, 'provider', jsonb_build_object('error_code', e.code), e.action = 'opt_out_word'
    )
    FROM unnest(p_errors) e
    CROSS JOIN LATERAL (
        SELECT e.action = 'opt_out_word' AND _wa_is_old_sms_stop(p_org, e.contact_id) AS is_old
    ) k
    WHERE e.action IN ('opt_out', 'opt_out_word')
    GROUP BY e.code, e.title, e.action, k.is_old;

    PERFORM _wa_cool_off_contacts(p_org, array_agg(e.contact_id), e.code, array_agg(
        coalesce(e.until, e.at + interval '24 hours')
    ))
    FROM unnest(p_errors) e
    WHERE e.action = 'cool_off'
    GROUP BY e.code;
    -- What did not arrive leaves its place under a cap.
    IF _wa_has_caps(p_org) THEN
        PERFORM _wa_free_due(p_org, array_agg(e.contact_id), 'contact_cap') FROM unnest(p_errors) e;
    END IF;

    -- What is over by now, as a late status may tell it, stops nothing.
    PERFORM _wa_block_templates(
        p_org, array_agg(e.template_id), array_agg(format('%s (code %s)', e.title, e.code)), array_agg(e.until)
    )
    FROM unnest(p_errors) e
    WHERE e.action = 'stop_template' AND coalesce(e.until > v_now, true)
    HAVING count(*) > 0;

    PERFORM _wa_pause_number(p_org, d.number_id, d.scope, d.reason, d.until)
    FROM (
        SELECT DISTINCT e.number_id, split_part(e.action, '_', 2) AS scope, e.until,
            e.title || CASE WHEN e.action LIKE 'pause%' THEN format(' (code %s)', e.code) ELSE '' END AS reason
        FROM unnest(p_errors) e
        WHERE e.action IN ('wait_number', 'wait_account', 'pause_number', 'pause_account', 'pause_token')
            AND coalesce(e.until > v_now, true)
    ) d;

    PERFORM _wa_slow_down(p_org, array_agg(e.number_id), v_now)
    FROM unnest(p_errors) e
    WHERE e.action = 'wait_number'
    HAVING count(*) > 0;

    -- In the order in which claims charge recipients.
    PERFORM FROM wa_pair_rates r
    WHERE r.organization_id = p_org AND (r.number_id, r.contact_id) IN (
        SELECT e.number_id, e.contact_id FROM unnest(p_errors) e WHERE e.action = 'wait_recipient'
    )
    ORDER BY r.contact_id, r.number_id
    FOR NO KEY UPDATE;
    -- Of the recipient's burst nothing is left.
    UPDATE wa_pair_rates r SET clear_at = greatest(r.clear_at, w.until), burst_count = _wa_pair_burst()
    FROM (
        SELECT e.number_id, e.contact_id, max(e.until) AS until FROM unnest(p_errors) e
        WHERE e.action = 'wait_recipient'
        GROUP BY e.number_id, e.contact_id
    ) w
    WHERE r.organization_id = p_org AND r.number_id = w.number_id AND r.contact_id = w.contact_id;
END
$$;

COMMENT ON FUNCTION _wa_apply_error_actions(uuid, _wa_met_errors[]) IS
'Internal: what an error means beyond its message, whether an answer or a status brought it: the window is '
'closed, the customer opted out, a template or number must stop, a recipient is to be spared.';

CREATE OR REPLACE FUNCTION _wa_next_try(
    p_action text, p_retry_count integer, p_wait interval, p_now timestamptz
) RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        -- The pause, or the fall-back, is what the message waits for.
        WHEN p_action IN ('pause_number', 'pause_account', 'pause_token', 'need_template') THEN p_now
        WHEN p_action = 'wait_number'
            THEN p_now + coalesce(p_wait, interval '1 second') * power(2, least(p_retry_count, 8))
        WHEN p_action = 'wait_account' THEN p_now + coalesce(p_wait, interval '5 minutes')
        ELSE greatest(
            p_now + _wa_backoff(p_retry_count + 1, random()), p_now + p_wait,
            -- Meta asks for 4^n seconds.
            CASE WHEN p_action = 'wait_recipient'
                THEN p_now + interval '1 second' * least(power(4, p_retry_count + 1), 3600) END
        )
    END
$$;

COMMENT ON FUNCTION _wa_next_try(text, integer, interval, timestamptz) IS
'Internal: when a message that met an error is tried again, if it is.';

CREATE OR REPLACE FUNCTION _wa_answer_errors(p_org uuid, p_errors jsonb, p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_met record;
BEGIN
    SELECT
        array_agg(ROW(
            e.verdict, e.number_id, e.contact_id, e.template_id, e.code, e.error, p_now,
            CASE WHEN e.verdict LIKE 'wait%' THEN d.due_at ELSE p_now + make_interval(secs => e.wait_s) END
        )::_wa_met_errors) AS errors,
        array_agg(e.id) FILTER (WHERE NOT f.fails) AS again,
        array_agg(d.due_at) FILTER (WHERE NOT f.fails) AS due_ats,
        array_agg(e.error) FILTER (WHERE NOT f.fails) AS reasons,
        array_agg(e.id) FILTER (WHERE f.fails) AS failed,
        array_agg(CASE
            WHEN e.verdict = 'need_template' THEN 'window_closed'
            WHEN e.code IS NULL AND e.verdict = 'fail' THEN 'refused'
            ELSE coalesce(e.code::text, 'expired')
        END) FILTER (WHERE f.fails) AS codes,
        array_agg(e.error) FILTER (WHERE f.fails) AS causes
    INTO v_met
    FROM jsonb_to_recordset(p_errors) AS e (
        id uuid, verdict text, code integer, error text, max_retries integer, wait_s double precision,
        retry_count integer, number_id bigint, contact_id bigint, template_id uuid, expires_at timestamptz,
        has_fallback boolean, is_open boolean
    )
    CROSS JOIN LATERAL (
        SELECT _wa_next_try(e.verdict, e.retry_count, make_interval(secs => e.wait_s), p_now) AS due_at
    ) d
    CROSS JOIN LATERAL (
        SELECT coalesce(
            e.verdict IN (
                'fail', 'fail_recipient', 'opt_out', 'opt_out_word', 'cool_off', 'stop_template'
            )
            OR (e.verdict = 'need_template' AND NOT e.has_fallback)
            OR e.retry_count >= e.max_retries
            OR (e.expires_at <= d.due_at AND e.verdict NOT LIKE 'pause%'), false
        ) AS fails
    ) f
    WHERE e.is_open;
    IF v_met.errors IS NULL THEN
        RETURN;
    END IF;
    PERFORM _wa_apply_error_actions(p_org, v_met.errors);
    PERFORM _wa_fail_messages(p_org, array_agg(u.id), u.code, u.cause)
    FROM unnest(v_met.failed, v_met.codes, v_met.causes) u (id, code, cause)
    GROUP BY u.code, u.cause;
    IF v_met.again IS NOT NULL THEN
        PERFORM _wa_requeue(p_org, v_met.again, v_met.due_ats, v_met.reasons, true);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_answer_errors(uuid, jsonb, timestamptz) IS
'Internal: what the answers to refused messages mean by wa_error_rules; each fails or is tried again.';
