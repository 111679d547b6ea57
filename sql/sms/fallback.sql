-- From a message that WhatsApp did not deliver to an SMS. Triggers on the ledger, which is where every end
-- of a message is written, note what may go; a dispatcher's heartbeat queues it, as a row like any other,
-- so that consent, hours, limits and the one verdict are those of all messages.

-- How long after it was due a message may still go as SMS.
CREATE OR REPLACE FUNCTION _wa_sms_span() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '24 hours';

COMMENT ON FUNCTION _wa_sms_span() IS
'Internal: how long after it was due a message that WhatsApp did not deliver may go as SMS.';

-- Taken when it failed, as what it went as: the template of that name may be another one later, or gone. What
-- nothing is known of counts as marketing. A text that has a template in reserve is what that template is,
-- the strictest of the name.
CREATE OR REPLACE FUNCTION _wa_sms_category_of(
    p_org uuid, p_type text, p_category text, p_fallback_template text
) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN p_type = 'template' THEN coalesce(p_category, 'MARKETING')
    WHEN p_fallback_template IS NULL THEN 'UTILITY'
    ELSE coalesce((
        SELECT t.category FROM wa_templates t
        WHERE t.organization_id = p_org AND lower(t.name) = lower(p_fallback_template)
        ORDER BY t.category = 'MARKETING' DESC LIMIT 1
    ), 'MARKETING')
END;

COMMENT ON FUNCTION _wa_sms_category_of(uuid, text, text, text) IS
'Internal: the category that an SMS has in place of a message of the ledger: of that type and category, with '
'that template in reserve.';

CREATE OR REPLACE FUNCTION tg_wa_messages__fall_back() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_message wa_outbound_queue;
    v_number wa_phone_numbers;
    v_is_failed boolean := NEW.state = 'failed';
BEGIN
    SELECT q.* INTO v_message FROM wa_outbound_queue q
    WHERE q.organization_id = NEW.organization_id AND q.id = NEW.queue_id AND q.sms_fallback_text IS NOT NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = NEW.organization_id;
    SELECT n.* INTO v_number FROM wa_phone_numbers n
    WHERE n.organization_id = NEW.organization_id AND n.id = NEW.number_id;
    -- What was an SMS goes as none; what is queued again is on its way.
    IF NOT v_org.sms_fallback OR v_number.channel = 'sms' OR v_message.status NOT IN ('sent', 'failed')
        OR NOT v_is_failed AND v_org.sms_authentication_after IS NULL
        OR v_is_failed AND NOT _wa_allows_sms(
            coalesce(v_number.provider, 'meta'), v_message.status, v_message.error_code, NEW.error_code,
            v_org.sends_templates
        )
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO wa_sms_fallbacks AS f (organization_id, queue_id, cause, due_at, category)
    VALUES (
        NEW.organization_id, NEW.queue_id, CASE WHEN v_is_failed THEN 'failed' ELSE 'late' END,
        clock_timestamp() + CASE WHEN v_is_failed THEN interval '0' ELSE v_org.sms_authentication_after END,
        _wa_sms_category_of(
            NEW.organization_id, NEW.message_type, NEW.template_category, v_message.fallback_template_name
        )
    )
    ON CONFLICT (organization_id, queue_id) DO UPDATE SET cause = excluded.cause, due_at = excluded.due_at
    WHERE f.state = 'waiting' AND excluded.cause = 'failed';
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_messages__fall_back() IS
'Notes a message that failed for good, or an authentication whose delivery is awaited, for an SMS in its '
'place.';

CREATE OR REPLACE TRIGGER fall_back AFTER INSERT OR UPDATE OF state ON wa_messages
FOR EACH ROW WHEN (
    NEW.queue_id IS NOT NULL
    AND (NEW.state = 'failed' OR NEW.template_category = 'AUTHENTICATION' AND NEW.state = 'accepted')
) EXECUTE FUNCTION tg_wa_messages__fall_back();

-- Noted first, then queued: what judges the SMS looks up what it stands for.
CREATE OR REPLACE FUNCTION _wa_queue_sms(p_orgs uuid[], p_queue_ids uuid[], p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_sms record;
BEGIN
    WITH looked AS MATERIALIZED (
        SELECT u.org, u.id, a.phone, n.phone_number_id, CASE
            WHEN NOT o.sms_fallback THEN 'switched_off'
            ELSE coalesce(
                _wa_sms_verdict(
                    f.cause, q.status, q.error_code, m.state, m.error_code, m.provider, o.sends_templates
                ), CASE
                    WHEN least(q.expires_at, q.scheduled_at + _wa_sms_span()) <= p_now THEN 'too_late'
                    WHEN a.phone IS NULL THEN 'no_phone_number'
                    WHEN n.phone_number_id IS NULL THEN 'no_sms_number'
                END
            ) END AS reason
        FROM unnest(p_orgs, p_queue_ids) u (org, id)
        JOIN wa_organizations o ON o.id = u.org
        JOIN wa_sms_fallbacks f ON f.organization_id = u.org AND f.queue_id = u.id
        LEFT JOIN LATERAL (
            SELECT x.* FROM wa_outbound_queue x
            WHERE x.organization_id = u.org AND x.id = u.id LIMIT 1
        ) q ON true
        LEFT JOIN LATERAL (
            SELECT x.state, x.error_code, coalesce((
                SELECT w.provider FROM wa_phone_numbers w
                WHERE w.organization_id = u.org AND w.id = x.number_id
            ), 'meta') AS provider
            FROM wa_messages x WHERE x.organization_id = u.org AND x.queue_id = u.id LIMIT 1
        ) m ON true
        LEFT JOIN LATERAL (
            SELECT x.phone_number_id FROM wa_phone_numbers x
            WHERE x.organization_id = u.org AND x.channel = 'sms' ORDER BY x.id LIMIT 1
        ) n ON true
        -- Who it is for may have another number by now, or none.
        LEFT JOIN LATERAL (
            SELECT x.phone FROM _wa_address_of(u.org, q.contact_id, q.phone) x (phone)
            WHERE left(x.phone, 1) = '+'
        ) a ON true
    ),
    decided AS (
        UPDATE wa_sms_fallbacks f SET
            state = CASE WHEN l.reason IS NULL THEN 'queued' ELSE 'not_sent' END, reason = l.reason,
            sms_id = CASE WHEN l.reason IS NULL THEN _wa_uuid7(clock_timestamp()) END
        FROM looked l
        WHERE f.organization_id = l.org AND f.queue_id = l.id
        RETURNING f.organization_id, f.queue_id, f.sms_id, l.phone, l.phone_number_id
    )
    SELECT array_agg(d.organization_id) AS orgs, array_agg(d.queue_id) AS queue_ids,
        array_agg(d.sms_id) AS ids, array_agg(d.phone) AS phones,
        array_agg(d.phone_number_id) AS phone_number_ids
    INTO v_sms
    FROM decided d WHERE d.sms_id IS NOT NULL;
    -- content, though empty, has the row looked at with care.
    INSERT INTO wa_outbound_queue (
        organization_id, id, phone, type, text_body, content, phone_number_id, priority, expires_at,
        reference, metadata, customer_id, on_refusal, on_unknown
    )
    SELECT u.org, u.id, u.phone, 'text', q.sms_fallback_text, '{}', u.phone_number_id, q.priority,
        least(q.expires_at, q.scheduled_at + _wa_sms_span()), q.reference,
        CASE WHEN jsonb_typeof(q.metadata) = 'object' THEN q.metadata ELSE '{}' END
            || jsonb_build_object('sms_of', q.id),
        -- At most one, whatever the organization wants of messages whose answer was lost.
        q.customer_id, 'record', 'fail'
    FROM unnest(v_sms.orgs, v_sms.queue_ids, v_sms.ids, v_sms.phones, v_sms.phone_number_ids)
        u (org, queue_id, id, phone, phone_number_id)
    JOIN wa_outbound_queue q ON q.organization_id = u.org AND q.id = u.queue_id;
END
$$;

COMMENT ON FUNCTION _wa_queue_sms(uuid[], uuid[], timestamptz) IS
'Internal: queues the SMS of noted messages, each given by its organization and id, or says why it gets '
'none.';

-- One statement for all; each by itself where one of them fails.
CREATE OR REPLACE FUNCTION _wa_queue_sms_safely(p_orgs uuid[], p_queue_ids uuid[], p_now timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    BEGIN
        PERFORM _wa_queue_sms(p_orgs, p_queue_ids, p_now);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        ELSIF cardinality(p_queue_ids) = 1 THEN
            -- Tried again, and given up with its span.
            PERFORM _wa_note_fault(p_orgs[1], 'maintenance', 'sms', SQLSTATE, SQLERRM);
            UPDATE wa_sms_fallbacks f SET due_at = p_now + interval '1 minute'
            WHERE f.organization_id = p_orgs[1] AND f.queue_id = p_queue_ids[1];
            RETURN;
        END IF;
    END;
    PERFORM _wa_queue_sms_safely(ARRAY[u.org], ARRAY[u.id], p_now)
    FROM unnest(p_orgs, p_queue_ids) u (org, id);
END
$$;

COMMENT ON FUNCTION _wa_queue_sms_safely(uuid[], uuid[], timestamptz) IS
'Internal: as _wa_queue_sms(); what cannot be queued now is tried again a minute later.';

CREATE OR REPLACE FUNCTION _wa_send_sms_fallbacks(p_limit integer, p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_orgs uuid[];
    v_ids uuid[];
BEGIN
    SELECT array_agg(x.organization_id), array_agg(x.queue_id) INTO v_orgs, v_ids
    FROM (
        SELECT f.organization_id, f.queue_id FROM wa_sms_fallbacks f
        WHERE f.state = 'waiting' AND f.due_at <= p_now
        ORDER BY f.due_at LIMIT p_limit
        FOR NO KEY UPDATE SKIP LOCKED
    ) x;
    IF v_ids IS NOT NULL THEN
        PERFORM _wa_queue_sms_safely(v_orgs, v_ids, p_now);
    END IF;
    DELETE FROM wa_sms_fallbacks f
    USING (
        SELECT x.organization_id, x.queue_id FROM wa_sms_fallbacks x
        WHERE x.created_at < p_now - interval '30 days' AND x.sms_id IS NULL
        ORDER BY x.created_at LIMIT 100 FOR UPDATE SKIP LOCKED
    ) o
    WHERE f.organization_id = o.organization_id AND f.queue_id = o.queue_id;
    RETURN coalesce(cardinality(v_ids), 0);
END
$$;

COMMENT ON FUNCTION _wa_send_sms_fallbacks(integer, timestamptz) IS
'Internal: queues the SMS that are due, so many at most; returns how many were looked at. Forgets those of '
'long ago that got none.';
