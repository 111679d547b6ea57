-- Who may be written to, with what, now: the one place that judges a queued row. The insert trigger, the
-- claim, a reschedule, explain_wa_message() and can_send_freeform_wa() all ask it.

CREATE OR REPLACE FUNCTION _wa_refusal(
    p_is_template boolean, p_is_sendable boolean, p_can_reply boolean, p_consent text
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_consent IS NOT NULL THEN p_consent
    WHEN p_is_template THEN CASE WHEN p_is_sendable IS NOT TRUE THEN 'template_unavailable' END
    WHEN p_can_reply IS NOT TRUE THEN 'window_closed'
END;

COMMENT ON FUNCTION _wa_refusal(boolean, boolean, boolean, text) IS
'Internal: why a message is refused (opted_out, no_opt_in, window_closed, template_unavailable; NULL when it '
'may go): told from whether it is a template, the template may be sent, a reply is possible, and what '
'_wa_opt_out_of() says of the contact.';

-- A row that is due later may find its window open then, and a fall-back template needs none. Each parameter
-- stands once only, so that a call can be inlined whatever its arguments cost.
CREATE OR REPLACE FUNCTION _wa_counts_when_queued(
    p_refusal text, p_scheduled_at timestamptz, p_fallback_template_name text, p_number_id bigint,
    p_now timestamptz
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(p_refusal, CASE
    WHEN p_scheduled_at > p_now OR p_fallback_template_name IS NOT NULL OR p_number_id IS NULL
        THEN 'window_closed'
END) IS NOT NULL;

COMMENT ON FUNCTION _wa_counts_when_queued(text, timestamptz, text, bigint, timestamptz) IS
'Internal: whether a refusal counts already when a row is queued: a closed window does for rows due now that '
'have a number and no fall-back.';

CREATE OR REPLACE FUNCTION _wa_judge(
    p_org uuid, p_queue_ids uuid[], p_number_ids bigint[], p_contact_ids bigint[], p_template_ids uuid[],
    p_margin interval, p_now timestamptz
)
RETURNS TABLE (
    queue_id uuid, place bigint, number_id bigint, contact_id bigint, template_id uuid,
    is_within_24h boolean, refusal text, hold_until timestamptz, hold_reason text
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT
        d.queue_id, d.place, d.number_id, d.contact_id, d.template_id,
        coalesce(_wa_can_reply(w.last_customer_message_at, w.window_denied_at, p_now, p_margin), false),
        coalesce(CASE WHEN n.channel = 'sms' THEN coalesce(s.refusal, nullif(g.verdict, 'in_reserve'))
            ELSE _wa_refusal(
                d.template_id IS NOT NULL, t.is_sendable AND o.sends_templates,
                _wa_can_reply(w.last_customer_message_at, w.window_denied_at, p_now, p_margin),
                e.refusal
            ) END, CASE WHEN h.are_refused[d.place] THEN h.reasons[d.place] END),
        CASE
            WHEN d.template_id IS NULL AND n.replies_blocked_until > p_now THEN n.replies_blocked_until
            WHEN d.template_id IS NOT NULL AND n.templates_blocked_until > p_now
                THEN n.templates_blocked_until
            WHEN g.verdict = 'in_reserve' THEN p_now + interval '1 minute'
            ELSE h.until[d.place]
        END,
        CASE
            WHEN d.template_id IS NULL AND n.replies_blocked_until > p_now THEN 'restricted'
            WHEN d.template_id IS NOT NULL AND n.templates_blocked_until > p_now THEN 'restricted'
            WHEN g.verdict = 'in_reserve' THEN 'in_reserve'
            ELSE h.reasons[d.place]
        END
    -- LIMIT keeps each look-up a look-up by key, also in a plan that was made while the tables were empty.
    FROM (
        SELECT x.require_opt_in, x.sms_requires_opt_in, x.sends_templates FROM wa_organizations x
        WHERE x.id = p_org LIMIT 1
    ) o
    CROSS JOIN _wa_waits_of(p_org, p_queue_ids, p_number_ids, p_contact_ids, p_template_ids, coalesce((
        SELECT x.channel FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.id = p_number_ids[1] LIMIT 1
    ), 'whatsapp'), p_now) h
    CROSS JOIN unnest(p_queue_ids, p_number_ids, p_contact_ids, p_template_ids)
        WITH ORDINALITY d (queue_id, number_id, contact_id, template_id, place)
    LEFT JOIN LATERAL (
        SELECT x.last_customer_message_at, x.window_denied_at FROM wa_conversation_windows x
        WHERE x.organization_id = p_org AND x.contact_id = d.contact_id AND x.number_id = d.number_id LIMIT 1
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT x.id, x.category,
            _wa_is_template_sendable(x.status, x.blocked_at, x.blocked_until, p_now) AS is_sendable
        FROM wa_templates x
        WHERE x.organization_id = p_org AND x.id = d.template_id LIMIT 1
    ) t ON true
    LEFT JOIN LATERAL _wa_opt_out_of(
        p_org, d.contact_id, t.category, o.require_opt_in, d.queue_id, w.last_customer_message_at
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT x.replies_blocked_until, x.templates_blocked_until, x.channel FROM wa_phone_numbers x
        WHERE x.organization_id = p_org AND x.id = d.number_id LIMIT 1
    ) n ON true
    LEFT JOIN LATERAL _wa_sms_ground(n.channel, p_org, d.queue_id, o.sends_templates) g ON true
    -- What nothing is known of any more counts as marketing.
    LEFT JOIN LATERAL _wa_sms_opt_out_of(
        n.channel, p_org, d.contact_id,
        coalesce(g.category, t.category, CASE WHEN d.template_id IS NOT NULL THEN 'MARKETING' END),
        o.sms_requires_opt_in
    ) s ON true;
END;

COMMENT ON FUNCTION _wa_judge(uuid, uuid[], bigint[], bigint[], uuid[], interval, timestamptz) IS
'Internal: for each queued row, all of one channel, at a given time whether its window is open, why it '
'is refused (opted_out, '
'no_opt_in, window_closed, template_unavailable, contact_cap, an SMS by _wa_sms_verdict(); NULL when it may '
'go), and until when and why it waits: restricted by Meta, on its contact''s account (quiet_hours, '
'contact_cap, cool_off), or in_reserve.';

-- Not yet, rather than never: but what would expire while it waits for a place is told so at once. The hour
-- is no such reason, what it makes stale expires.
CREATE OR REPLACE FUNCTION _wa_wait_refusal(
    p_refusal text, p_reason text, p_until timestamptz, p_expires_at timestamptz
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_refusal IS NULL AND p_reason IN ('contact_cap', 'cool_off') AND p_until >= p_expires_at
        THEN p_reason
    ELSE p_refusal
END;

COMMENT ON FUNCTION _wa_wait_refusal(text, text, timestamptz, timestamptz) IS
'Internal: why a row is refused, told from what _wa_judge() says: its refusal, or the cap or cool-off beyond '
'whose end it expires.';

CREATE OR REPLACE FUNCTION _wa_refusal_text(p_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_code
    WHEN 'opted_out' THEN 'the contact asked not to be written to'
    WHEN 'no_opt_in' THEN 'the contact has not opted in to messages of this category, or to SMS'
    WHEN 'window_closed'
        THEN 'more than 24 hours since the customer''s last message: only templates may be sent'
    WHEN 'template_unavailable' THEN 'the template is not approved, or paused'
    WHEN 'contact_cap' THEN 'the contact got as many messages of this kind as your cap allows'
    WHEN 'cool_off' THEN 'the provider delivered no marketing to the contact lately, and it is left in peace'
    WHEN 'expired' THEN 'not sent before it expired'
    WHEN 'in_reserve' THEN 'an SMS in reserve: the message that it stands for is on its way again'
    WHEN 'delivered' THEN 'an SMS in reserve: WhatsApp has delivered the message that it stands for'
    WHEN 'failed_otherwise'
        THEN 'an SMS in reserve: the message that it stands for failed of something that allows no SMS'
    WHEN 'cancelled' THEN 'an SMS in reserve: the message that it stands for was cancelled'
    WHEN 'too_late' THEN 'an SMS in reserve: the message that it stands for is gone'
    WHEN 'recipient_changed'
        THEN 'the number is no longer this contact''s, and no other way to the contact is known'
    ELSE p_code
END;

COMMENT ON FUNCTION _wa_refusal_text(text) IS 'Internal: a refusal in words.';

CREATE OR REPLACE FUNCTION _wa_refusal_sqlstate(p_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_code WHEN 'window_closed' THEN 'WA101' WHEN 'opted_out' THEN 'WA102'
    WHEN 'no_opt_in' THEN 'WA120'
    WHEN 'contact_cap' THEN 'WA131' WHEN 'cool_off' THEN 'WA132' ELSE 'WA103' END;

COMMENT ON FUNCTION _wa_refusal_sqlstate(text) IS 'Internal: the SQLSTATE that a refusal raises.';

CREATE OR REPLACE FUNCTION _wa_refusal_hint(p_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_code
    WHEN 'opted_out' THEN 'Leave the contact alone; opt_in_wa_contact() records a new consent.'
    WHEN 'no_opt_in' THEN 'opt_in_wa_contact() records consent; wa_organizations.require_opt_in asks for it, '
        'of an SMS sms_requires_opt_in, with the scope sms.'
    WHEN 'window_closed'
        THEN 'Use an approved template (template_name, template_params), or a fallback_template_name.'
    WHEN 'contact_cap'
        THEN 'A later expires_at lets it wait where the cap holds; wa_contact_caps sets it.'
    WHEN 'cool_off' THEN 'A later expires_at lets it wait; SELECT * FROM wa_contact_cool_offs;'
    WHEN 'in_reserve' THEN 'Nothing to do: it goes when that fails, too.'
    WHEN 'delivered' THEN 'Nothing to do.'
    WHEN 'failed_otherwise' THEN 'SELECT code, title, allows_sms FROM wa_error_rules;'
    WHEN 'cancelled' THEN 'retry_wa_messages() queues the message again.'
    WHEN 'too_late' THEN 'Queue the message anew.'
    ELSE 'SELECT name, language, status, blocked_reason FROM wa_templates; wait, or choose another one.'
END;

COMMENT ON FUNCTION _wa_refusal_hint(text) IS 'Internal: the way out of a refusal.';
