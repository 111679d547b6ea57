-- Why a message has not gone, what would be sent, and how the queue stands.

CREATE OR REPLACE FUNCTION _wa_explain(
    p_message wa_outbound_queue, OUT reason text, OUT held_until timestamptz, OUT explanation text,
    OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_org wa_organizations;
    v_due wa_queue_due;
    v_flight wa_queue_inflight;
    v_judged record;
    v_block record;
    v_state wa_lane_states;
    v_hold wa_queue_holds;
    v_late text;
    v_upload_error text;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = p_message.organization_id;
    SELECT d.* INTO v_due FROM wa_queue_due d
    WHERE d.organization_id = p_message.organization_id AND d.queue_id = p_message.id;
    SELECT i.* INTO v_flight FROM wa_queue_inflight i
    WHERE i.organization_id = p_message.organization_id AND i.queue_id = p_message.id;
    IF p_message.status NOT IN ('pending', 'sending') THEN
        reason := coalesce(p_message.error_code, p_message.status);
        explanation := CASE p_message.status
            WHEN 'sent' THEN 'accepted by the provider'
            WHEN 'cancelled' THEN coalesce('cancelled: ' || p_message.last_error, 'cancelled')
            ELSE p_message.last_error END;
        hint := CASE p_message.status
            WHEN 'sent' THEN 'SELECT state, state_history FROM wa_messages WHERE queue_id = ...;'
            ELSE 'retry_wa_messages() queues it again once the cause is gone.' END;
        RETURN;
    ELSIF v_flight.is_unknown THEN
        reason := 'outcome_unknown';
        held_until := v_flight.deadline_at;
        explanation := coalesce(p_message.last_error, 'no answer')
            || '; waiting for a status webhook that tells';
        hint := 'Not sent twice. wa_organizations.unknown_grace sets the wait, on_unknown what follows.';
        RETURN;
    ELSIF v_flight.queue_id IS NOT NULL THEN
        reason := 'sending';
        held_until := v_flight.deadline_at;
        SELECT l.error INTO v_late FROM wa_late_results l
        WHERE l.organization_id = v_org.id AND l.queue_id = p_message.id AND l.attempt = p_message.attempt;
        explanation := concat_ws('; ', 'handed to a dispatcher at ' || v_flight.claimed_at,
            'the answer came and could not be recorded yet: ' || v_late);
        hint := CASE WHEN v_late IS NULL THEN 'SELECT * FROM wa_dispatchers; shows which are alive.'
            ELSE 'End the session that holds the lock (pg_locks, pg_stat_activity); it is tried again.' END;
        RETURN;
    ELSIF NOT EXISTS (
        SELECT FROM wa_phone_numbers n WHERE n.organization_id = v_org.id AND n.id = v_due.number_id
    ) THEN
        reason := 'no_number';
        explanation := 'no business number to send from';
        hint := 'SELECT register_wa_phone_number(phone_number_id, display_phone, waba_id);';
        RETURN;
    END IF;
    SELECT * INTO v_judged FROM _wa_judge(
        v_org.id, ARRAY[v_due.queue_id], ARRAY[v_due.number_id], ARRAY[v_due.contact_id],
        ARRAY[v_due.template_id],
        v_org.window_margin, v_now
    );
    SELECT * INTO v_block FROM _wa_lane_block(v_org.id, v_due.number_id, v_now);
    SELECT * INTO v_state FROM _wa_lane_state(v_org.id, v_due.number_id);
    IF v_due.hold_id < 0 THEN
        SELECT 'file', u.next_attempt_at, u.error INTO v_hold.reason, v_hold.opens_at, v_upload_error
        FROM wa_media_uploads u WHERE u.organization_id = v_org.id AND u.id = -v_due.hold_id;
    ELSIF v_due.hold_id IS NOT NULL THEN
        SELECT h.* INTO v_hold FROM wa_queue_holds h
        WHERE h.organization_id = v_org.id AND h.id = v_due.hold_id AND h.opens_at > v_now;
    ELSIF v_due.due_at > v_now THEN
        v_hold.reason := v_due.hold_reason;
        v_hold.opens_at := v_due.due_at;
    END IF;
    IF NOT (SELECT i.is_sending_enabled FROM wa_installations i) THEN
        reason := 'sending_disabled';
        explanation := 'sending is switched off: '
            || coalesce((SELECT i.sending_note FROM wa_installations i), '');
        hint := 'A wa_admin resumes with set_wa_sending(true).';
    ELSIF v_block.hold_reason IS NOT NULL THEN
        reason := v_block.hold_reason;
        held_until := v_block.held_until;
        explanation := CASE v_block.hold_reason
            WHEN 'panic' THEN 'panic mode: ' || coalesce((
                SELECT p.reason FROM wa_panic_modes p
                WHERE p.organization_id = v_org.id AND p.active
                    AND coalesce(p.number_id, v_due.number_id) = v_due.number_id
                LIMIT 1), '')
            ELSE (SELECT format('the business number is %s: %s',
                    CASE WHEN n.pause_scope IS NULL THEN n.status ELSE 'paused' END,
                    coalesce(n.pause_reason, ''))
                FROM wa_phone_numbers n WHERE n.organization_id = v_org.id AND n.id = v_due.number_id) END;
        hint := CASE v_block.hold_reason WHEN 'panic' THEN 'resolve_wa_panic() ends it.'
            WHEN 'number_state' THEN 'When Meta shows the number as connected again: UPDATE wa_phone_numbers '
                'SET status = ''CONNECTED'' WHERE phone_number_id = ...;'
            ELSE 'Settle the cause, then resume_wa_number().' END;
    ELSIF p_message.scheduled_at > v_now THEN
        reason := 'scheduled';
        held_until := p_message.scheduled_at;
        explanation := 'scheduled for later';
        hint := 'reschedule_wa_messages(now(), ids => ...) sends it at once.';
    ELSIF v_due.expires_at <= v_now THEN
        reason := 'expired';
        explanation := _wa_refusal_text('expired') || '; it fails in a moment';
        hint := 'retry_wa_messages() queues it again.';
    ELSIF _wa_address_of(v_org.id, v_due.contact_id, p_message.phone) IS NULL THEN
        reason := 'recipient_changed';
        explanation := _wa_refusal_text('recipient_changed') || '; it will fail when it is claimed';
        hint := 'Cancel it, and queue it anew to where the customer is now.';
    ELSIF v_judged.refusal IS NOT NULL THEN
        reason := v_judged.refusal;
        explanation := _wa_refusal_text(v_judged.refusal) || '; it will fail when it is claimed';
        hint := _wa_refusal_hint(v_judged.refusal);
    ELSIF v_judged.hold_reason <> 'restricted' THEN
        reason := v_judged.hold_reason;
        held_until := v_judged.hold_until;
        explanation := CASE v_judged.hold_reason WHEN 'quiet_hours' THEN (
                SELECT format('quiet hours by the clock of %s', CASE
                    WHEN z.source = 'unknown' THEN format('%s, and 3 hours to both sides: where the contact '
                        'is, is not known', z.zones[1])
                    WHEN cardinality(z.zones) > 3 THEN format('one of the %s zones that the number may lie in',
                        cardinality(z.zones))
                    ELSE array_to_string(z.zones, ' or ') END)
                FROM _wa_zones_of(v_org.id, v_due.contact_id) z)
            ELSE _wa_refusal_text(v_judged.hold_reason) END;
        hint := CASE v_judged.hold_reason
            WHEN 'quiet_hours' THEN 'SELECT * FROM wa_quiet_hours; set_wa_contact_time_zone() says where the '
                'contact lives.'
            ELSE _wa_refusal_hint(v_judged.hold_reason) END;
    ELSIF v_judged.hold_until IS NOT NULL THEN
        reason := v_judged.hold_reason;
        held_until := v_judged.hold_until;
        explanation := 'Meta restricts this kind of message of the account';
        hint := 'SELECT * FROM wa_account_events WHERE field = ''account_update'';';
    ELSIF v_hold.reason IS NOT NULL THEN
        reason := v_hold.reason;
        held_until := v_hold.opens_at;
        explanation := CASE v_hold.reason
            WHEN 'recipient_rate'
                THEN 'one message in 6 seconds to a recipient, after a burst its debt first (Meta''s rule)'
            WHEN 'in_order' THEN 'an earlier message to the same recipient goes first'
            WHEN 'messaging_limit'
                THEN 'the portfolio''s messaging limit of unique recipients in 24 hours is reached'
            WHEN 'file' THEN concat_ws('; ', 'its file is being uploaded to the provider',
                'the last try failed: ' || v_upload_error)
            WHEN 'quiet_hours' THEN 'waited for the hour, and is looked at again'
            WHEN 'contact_cap' THEN 'waited for a place under a cap, and is looked at again'
            WHEN 'cool_off' THEN 'waited for the end of a cool-off, and is looked at again'
            ELSE 'waits for its next try: ' || coalesce(p_message.last_error, '') END;
        hint := CASE v_hold.reason WHEN 'messaging_limit'
            THEN 'The limit rises with quality; SELECT * FROM wa_portfolios;'
            WHEN 'file' THEN 'SELECT * FROM wa_media_uploads; a running bin/wa dispatch uploads it.'
            ELSE 'Nothing to do.' END;
    ELSIF v_state.held_until > v_now AND v_state.hold_reason = 'organization_rate'
        AND _wa_is_metered_class(v_due.class)
    THEN
        reason := 'organization_rate';
        held_until := v_state.held_until;
        explanation := format('the organization''s %s messages a minute are used up',
            v_org.rate_limit_per_minute);
        hint := 'wa_organizations.rate_limit_per_minute sets the limit; NULL switches it off.';
    ELSIF v_state.held_until > v_now AND v_state.hold_reason = 'fault' THEN
        reason := 'fault';
        held_until := v_state.held_until;
        explanation := 'claims of the business number fail: ' || coalesce((
            SELECT f.sqlstate || ' ' || f.error FROM wa_faults f
            WHERE f.organization_id = v_org.id AND f.work = 'claim' AND f.subject = v_due.number_id::text), '');
        hint := 'SELECT * FROM wa_faults; 55P03 is somebody''s lock, see pg_locks. It is tried again.';
    ELSIF NOT EXISTS (
        SELECT FROM wa_dispatchers p WHERE p.stopped_at IS NULL AND p.seen_at > v_now - interval '30 seconds'
    ) THEN
        reason := 'no_dispatcher';
        explanation := 'no dispatcher is running';
        hint := 'Start bin/wa dispatch.';
    ELSIF NOT EXISTS (
        SELECT FROM wa_secrets s
        JOIN wa_phone_numbers n ON n.organization_id = v_org.id AND n.id = v_due.number_id
        WHERE s.organization_id = v_org.id AND s.name = 'access_token' AND s.is_active
            AND coalesce(s.phone_number_id, n.phone_number_id) = n.phone_number_id
    ) THEN
        -- What is in the environment of a dispatcher is not known here.
        reason := 'waiting';
        explanation := 'due; no access token is stored for the business number, so it waits unless the '
            'environment of bin/wa dispatch has one';
        hint := 'bin/wa secrets set access_token --number ID; bin/wa doctor says whether it is good.';
    ELSE
        reason := 'waiting';
        explanation := 'due; its turn comes with the number''s throughput';
        hint := 'SELECT * FROM wa_queue_health; bin/wa doctor says whether the number''s access token is good.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_explain(wa_outbound_queue) IS
'Internal: why a message has not gone, until when, and the way out.';

CREATE OR REPLACE FUNCTION explain_wa_message(id uuid)
RETURNS TABLE (status text, reason text, held_until timestamptz, explanation text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_message wa_outbound_queue := _wa_visible_message($1);
BEGIN
    RETURN QUERY SELECT v_message.status, e.reason, e.held_until,
        concat_ws('; ', e.explanation,
            CASE WHEN v_message.status = 'pending' AND e.held_until >= v_message.expires_at
                THEN format('it expires before, at %s', v_message.expires_at) END,
            _wa_template_note(v_message)),
        CASE WHEN v_message.status = 'pending' AND e.held_until >= v_message.expires_at
            THEN 'UPDATE wa_outbound_queue SET expires_at = ... WHERE id = ...; lets it wait longer.'
            ELSE e.hint END
    FROM _wa_explain(v_message) e;
END
$$;

COMMENT ON FUNCTION explain_wa_message(uuid) IS
'Why a message has not gone: a word, until when it is held, a sentence, which also says where it expires '
'before, or a template goes in another language than the one asked for or was changed so that the values do '
'not fit, and the way out.';

CREATE OR REPLACE FUNCTION _wa_template_note(p_message wa_outbound_queue) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT nullif(concat_ws('; ',
        CASE WHEN lower(t.language) <> lower(replace(a.language, '-', '_'))
            THEN format('goes in the language %s, for %s', t.language, a.language) END,
        'its values do not fit the template any more, so it will fail: ' || b.problem[2]
    ), '')
    FROM (
        SELECT d.template_id FROM wa_queue_due d
        WHERE d.organization_id = (p_message).organization_id AND d.queue_id = (p_message).id
        UNION ALL
        SELECT i.template_id FROM wa_queue_inflight i
        WHERE i.organization_id = (p_message).organization_id AND i.queue_id = (p_message).id
    ) q
    CROSS JOIN LATERAL (
        SELECT CASE (p_message).type WHEN 'template' THEN (p_message).template_language
            ELSE (p_message).fallback_template_language END AS language
    ) a
    JOIN wa_templates t ON t.organization_id = (p_message).organization_id AND t.id = q.template_id
    CROSS JOIN LATERAL _wa_build_template(t, _wa_queued_params(
        (p_message).type, (p_message).content, (p_message).template_params,
        (p_message).fallback_template_params
    )) b
$$;

COMMENT ON FUNCTION _wa_template_note(wa_outbound_queue) IS
'Internal: that a message that waits or is being sent goes in another language than it asked for, or that '
'its values do not fit its template any more; NULL if neither.';

CREATE OR REPLACE FUNCTION _wa_visible_message(p_id uuid) RETURNS wa_outbound_queue
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message wa_outbound_queue;
BEGIN
    SELECT q.* INTO v_message
    -- The caller is looked at first, so that the answer to a stranger does not depend on what there is.
    FROM (SELECT o.id FROM unnest(_wa_visible_organizations()) o (id) OFFSET 0) o
    JOIN wa_outbound_queue q ON q.organization_id = o.id AND q.id = p_id;
    IF v_message.id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = format('no queued message with the id %s', p_id),
            DETAIL = 'It is not there, or belongs to another organization.',
            HINT = 'RETURNING id of your INSERT gives it.';
    END IF;
    RETURN v_message;
END
$$;

COMMENT ON FUNCTION _wa_visible_message(uuid) IS
'Internal: a queue row that the caller may see; raises P0002 otherwise.';

CREATE OR REPLACE FUNCTION preview_wa_request(id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_message wa_outbound_queue := _wa_visible_message($1);
    v_template wa_templates;
    v_number wa_phone_numbers;
BEGIN
    SELECT n.* INTO v_number
    FROM (
        SELECT d.number_id FROM wa_queue_due d
        WHERE d.organization_id = v_message.organization_id AND d.queue_id = v_message.id
        UNION ALL
        SELECT i.number_id FROM wa_queue_inflight i
        WHERE i.organization_id = v_message.organization_id AND i.queue_id = v_message.id
        UNION ALL
        SELECT m.number_id FROM wa_messages m
        WHERE m.organization_id = v_message.organization_id AND m.queue_id = v_message.id
        LIMIT 1
    ) q
    JOIN wa_phone_numbers n ON n.organization_id = v_message.organization_id AND n.id = q.number_id;
    SELECT t.* INTO v_template
    FROM wa_templates t
    WHERE t.organization_id = v_message.organization_id AND t.id = coalesce(
        (SELECT d.template_id FROM wa_queue_due d
            WHERE d.organization_id = v_message.organization_id AND d.queue_id = v_message.id),
        (SELECT i.template_id FROM wa_queue_inflight i
            WHERE i.organization_id = v_message.organization_id AND i.queue_id = v_message.id),
        (SELECT p.id FROM _wa_pick_template(
            v_message.organization_id, v_message.template_name, v_message.template_language, NULL) p
            WHERE v_message.type = 'template')
    );
    RETURN (_wa_translate_requests(v_number, ARRAY[_wa_build_request(
        v_message.id, v_message.attempt + (v_message.status = 'pending')::integer,
        coalesce((
            SELECT _wa_address_of(v_message.organization_id, d.contact_id, v_message.phone)
            FROM wa_queue_due d
            WHERE d.organization_id = v_message.organization_id AND d.queue_id = v_message.id
        ), v_message.phone),
        v_message.type, v_message.text_body,
        CASE WHEN _wa_named_file(v_message.type, v_message.content) IS NULL OR v_template.id IS NOT NULL
            THEN v_message.content
            ELSE _wa_provider_content(
                v_message.organization_id, v_message.content, v_number.phone_number_id, clock_timestamp())
        END,
        v_message.reply_to, v_template,
        _wa_request_components(
            v_message.type, v_message.content, v_message.template_params, v_message.fallback_template_params,
            v_template
        )
    )]))[1];
END
$$;

COMMENT ON FUNCTION preview_wa_request(uuid) IS
'The request body that is, or would be, sent to the provider for a queued message.';

-- Definer: it counts in tables that applications need not see, for those organizations that the caller may
-- see.
CREATE OR REPLACE FUNCTION _wa_queue_health() RETURNS TABLE (
    organization_id uuid, number_id bigint, phone_number_id text, display_phone text, due bigint,
    scheduled bigint,
    held bigint, oldest_due_at timestamptz, in_flight bigint, outcome_unknown bigint, hold_reason text,
    held_until timestamptz, pause_reason text, last_claim_at timestamptz, dispatchers bigint,
    late_results bigint, last_fault text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT
        n.organization_id, n.id, n.phone_number_id, n.display_phone, coalesce(d.due, 0),
        coalesce(d.scheduled, 0),
        coalesce(d.held, 0), d.oldest_due_at, coalesce(f.in_flight, 0), coalesce(f.unknown, 0),
        CASE WHEN NOT i.is_sending_enabled THEN 'sending_disabled'
            ELSE coalesce(b.hold_reason, CASE WHEN s.held_until > clock_timestamp() THEN s.hold_reason END,
            d.hold_reason) END,
        CASE WHEN NOT i.is_sending_enabled THEN NULL WHEN b.hold_reason IS NOT NULL THEN b.held_until
            ELSE coalesce(CASE WHEN s.held_until > clock_timestamp() THEN s.held_until END, d.held_until) END,
        n.pause_reason, s.served_at,
        (SELECT count(*) FROM wa_dispatchers p
            WHERE p.stopped_at IS NULL AND p.seen_at > clock_timestamp() - interval '30 seconds'),
        coalesce(f.late, 0),
        (SELECT format('%s failed at %s: %s %s', u.work, u.last_at, u.sqlstate, u.error) FROM wa_faults u
            WHERE u.organization_id = n.organization_id AND u.last_at > clock_timestamp() - interval '1 hour'
                AND (u.work <> 'claim' OR u.subject = n.id::text)
            ORDER BY u.last_at DESC LIMIT 1)
    FROM (
        SELECT p.organization_id, p.id, p.phone_number_id, p.display_phone,
        p.pause_reason FROM wa_phone_numbers p
        UNION ALL
        -- What waits for a first number.
        SELECT DISTINCT q.organization_id, NULL::bigint, NULL::text, NULL::text,
            'no business number is registered'
        FROM wa_queue_due q WHERE q.number_id IS NULL AND q.hold_id IS NULL
    ) n
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE w.opens_at IS NULL AND q.due_at <= clock_timestamp()) AS due,
            count(*) FILTER (WHERE w.opens_at IS NULL AND q.due_at > clock_timestamp()) AS scheduled,
            count(w.opens_at) AS held,
            min(q.due_at) FILTER (WHERE w.opens_at IS NULL AND q.due_at <= clock_timestamp())
                AS oldest_due_at,
            mode() WITHIN GROUP (ORDER BY w.reason) AS hold_reason,
            min(w.opens_at) AS held_until
        FROM wa_queue_due q
        LEFT JOIN LATERAL (
            SELECT h.reason, h.opens_at FROM wa_queue_holds h
            WHERE h.organization_id = q.organization_id AND h.id = q.hold_id AND h.opens_at > clock_timestamp()
            UNION ALL
            SELECT 'file', u.next_attempt_at FROM wa_media_uploads u
            WHERE u.organization_id = q.organization_id AND u.id = -q.hold_id
            UNION ALL
            SELECT q.hold_reason, q.due_at
            WHERE q.hold_id IS NULL AND q.hold_reason IS NOT NULL AND q.due_at > clock_timestamp()
        ) w ON true
        WHERE q.organization_id = n.organization_id AND q.number_id IS NOT DISTINCT FROM n.id
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE NOT i.is_unknown) AS in_flight,
            count(*) FILTER (WHERE i.is_unknown) AS unknown, count(l.attempt) AS late
        FROM wa_queue_inflight i
        LEFT JOIN wa_late_results l ON l.organization_id = i.organization_id AND l.queue_id = i.queue_id
            AND l.attempt = i.attempt
        WHERE i.organization_id = n.organization_id AND i.number_id = n.id
    ) f ON true
    CROSS JOIN wa_installations i
    LEFT JOIN LATERAL _wa_lane_block(n.organization_id, n.id, clock_timestamp()) b ON true
    LEFT JOIN LATERAL _wa_lane_state(n.organization_id, n.id) s ON true
    WHERE n.organization_id = ANY (_wa_visible_organizations())
$$;

COMMENT ON FUNCTION _wa_queue_health() IS 'Internal: the rows of wa_queue_health that the caller may see.';

CREATE OR REPLACE VIEW wa_queue_health AS
SELECT
    h.organization_id, h.number_id, h.phone_number_id, h.display_phone, h.due, h.scheduled, h.held,
    h.oldest_due_at, h.in_flight, h.outcome_unknown, h.hold_reason, h.held_until, h.pause_reason,
    h.last_claim_at, h.dispatchers, (SELECT _wa_overdue_jobs()) AS overdue_jobs, h.late_results, h.last_fault
FROM _wa_queue_health() h;

COMMENT ON VIEW wa_queue_health IS
'One row per business number: what is due, scheduled, held (why and until when) and in flight, how many '
'dispatchers run, which jobs of the installation are overdue, how many answers could not be recorded yet, '
'and what last failed within an hour.';

-- Definer: dispatchers see no tables.
CREATE OR REPLACE FUNCTION get_wa_stops()
RETURNS TABLE (phone_number_id text, reason text, held_until timestamptz, detail text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT NULL, 'sending_disabled', NULL::timestamptz, i.sending_note
    FROM wa_installations i WHERE NOT i.is_sending_enabled
    UNION ALL
    SELECT n.phone_number_id, coalesce(b.hold_reason, 'fault'), b.held_until,
        CASE WHEN b.hold_reason IS NULL THEN f.sqlstate || ' ' || f.error
            WHEN b.hold_reason = 'paused' THEN n.pause_reason
            WHEN b.hold_reason = 'number_state' THEN n.status END
    FROM wa_phone_numbers n
    LEFT JOIN LATERAL _wa_lane_block(n.organization_id, n.id, clock_timestamp()) b ON true
    LEFT JOIN wa_faults f ON f.organization_id = n.organization_id AND f.work = 'claim'
        AND f.subject = n.id::text AND f.last_at > clock_timestamp() - interval '15 seconds'
    WHERE b.hold_reason IS NOT NULL OR f.error IS NOT NULL
$$;

COMMENT ON FUNCTION get_wa_stops() IS
'For dispatchers, which log what changes: numbers that may not send now (panic, paused, number_state, '
'fault), until when, and the rest that is known of it; a row without a number while sending is switched off.';
