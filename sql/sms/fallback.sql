-- From a message that WhatsApp did not deliver to an SMS. Triggers on the ledger, which is where every end
-- of a message is written, note what may go; a dispatcher's heartbeat queues it, as a row like any other,
-- so that consent, hours, limits and the one verdict are those of all messages.

-- How long after it was due a message may still go as SMS.
CREATE OR REPLACE FUNCTION _wa_sms_span() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '24 hours';

COMMENT ON FUNCTION _wa_sms_span() IS
'Internal: how long after it was due a message that WhatsApp did not deliver may go as SMS.';

-- Of a row that failed before it was sent, or whose answer said so, the queue tells the code, else the
-- status. An unknown outcome is no failure: it may have arrived.
CREATE OR REPLACE FUNCTION _wa_allows_sms(p_provider text, p_status text, p_queue_code text, p_code integer)
RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(CASE
    WHEN p_status = 'failed' AND p_queue_code !~ '^[0-9]{1,9}$'
        THEN p_queue_code IN ('window_closed', 'template_unavailable')
    ELSE (
        SELECT r.allows_sms FROM _wa_error_rule(
            p_provider, CASE WHEN p_status = 'failed' THEN p_queue_code::integer ELSE p_code END, NULL
        ) r
    )
END, false);

COMMENT ON FUNCTION _wa_allows_sms(text, text, text, integer) IS
'Internal: whether a message that failed may go as SMS: by the word of the queue, else by wa_error_rules.';

CREATE OR REPLACE FUNCTION tg_wa_messages__fall_back() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_message wa_outbound_queue;
    v_is_failed boolean := NEW.state = 'failed';
BEGIN
    SELECT q.* INTO v_message FROM wa_outbound_queue q
    WHERE q.organization_id = NEW.organization_id AND q.id = NEW.queue_id AND q.sms_fallback_text IS NOT NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = NEW.organization_id;
    IF NOT v_org.sms_fallback OR NOT v_is_failed AND v_org.sms_authentication_after IS NULL
        OR v_is_failed AND NOT _wa_allows_sms(
            coalesce((
                SELECT n.provider FROM wa_phone_numbers n
                WHERE n.organization_id = NEW.organization_id AND n.id = NEW.number_id
            ), 'meta'), v_message.status, v_message.error_code, NEW.error_code
        )
    THEN
        RETURN NULL;
    END IF;
    INSERT INTO wa_sms_fallbacks AS f (organization_id, queue_id, cause, due_at)
    VALUES (
        NEW.organization_id, NEW.queue_id, CASE WHEN v_is_failed THEN 'failed' ELSE 'late' END,
        clock_timestamp() + CASE WHEN v_is_failed THEN interval '0' ELSE v_org.sms_authentication_after END
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

-- Why a noted message is not to go after all, by what is known now.
CREATE OR REPLACE FUNCTION _wa_sms_obstacle(
    p_message wa_outbound_queue, p_state text, p_provider text, p_code integer, p_phone text, p_number text,
    p_now timestamptz
) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN (p_message).id IS NULL THEN 'too_late'
    WHEN p_state IN ('delivered', 'read', 'played') THEN 'delivered'
    WHEN (p_message).status NOT IN ('sent', 'failed') THEN (p_message).status
    WHEN p_state = 'failed'
        AND NOT _wa_allows_sms(p_provider, (p_message).status, (p_message).error_code, p_code)
        THEN 'failed_otherwise'
    WHEN least((p_message).expires_at, (p_message).scheduled_at + _wa_sms_span()) <= p_now THEN 'too_late'
    WHEN p_phone IS NULL THEN 'no_phone_number'
    WHEN p_number IS NULL THEN 'no_sms_number'
END;

COMMENT ON FUNCTION _wa_sms_obstacle(wa_outbound_queue, text, text, integer, text, text, timestamptz) IS
'Internal: why a message that was noted for an SMS gets none; NULL when it does.';

CREATE OR REPLACE FUNCTION _wa_queue_sms(p_orgs uuid[], p_queue_ids uuid[], p_now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH looked AS MATERIALIZED (
        SELECT u.org, u.id, q.message, a.phone, n.phone_number_id,
            CASE WHEN o.sms_fallback
                THEN _wa_sms_obstacle(
                    q.message, m.state, m.provider, m.error_code, a.phone, n.phone_number_id, p_now
                ) ELSE 'switched_off'
            END AS reason
        FROM unnest(p_orgs, p_queue_ids) u (org, id)
        JOIN wa_organizations o ON o.id = u.org
        LEFT JOIN LATERAL (
            SELECT x AS message FROM wa_outbound_queue x
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
            SELECT x.phone FROM _wa_address_of(u.org, (q.message).contact_id, (q.message).phone) x (phone)
            WHERE left(x.phone, 1) = '+'
        ) a ON true
    ),
    queued AS (
        -- content, though empty, has the row looked at with care: what it stands for is in template_name.
        INSERT INTO wa_outbound_queue (
            organization_id, phone, type, text_body, template_name, template_language, content,
            phone_number_id,
            priority, expires_at, idempotency_key, reference, metadata, customer_id, on_refusal, on_unknown
        )
        SELECT l.org, l.phone, 'text', (l.message).sms_fallback_text, (l.message).template_name,
            (l.message).template_language, '{}', l.phone_number_id, (l.message).priority,
            least((l.message).expires_at, (l.message).scheduled_at + _wa_sms_span()), 'sms:' || l.id,
            (l.message).reference, (l.message).metadata || jsonb_build_object('sms_of', l.id),
            -- At most one, whatever the organization wants of messages whose answer was lost.
            (l.message).customer_id, 'record', 'fail'
        FROM looked l
        WHERE l.reason IS NULL
        RETURNING id, organization_id, metadata ->> 'sms_of' AS sms_of
    )
    UPDATE wa_sms_fallbacks f SET
        state = CASE WHEN q.id IS NULL THEN 'not_sent' ELSE 'queued' END, reason = l.reason, sms_id = q.id
    FROM looked l
    LEFT JOIN queued q ON q.organization_id = l.org AND q.sms_of = l.id::text
    WHERE f.organization_id = l.org AND f.queue_id = l.id
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
        WHERE x.created_at < p_now - interval '30 days'
        ORDER BY x.created_at LIMIT 100 FOR UPDATE SKIP LOCKED
    ) o
    WHERE f.organization_id = o.organization_id AND f.queue_id = o.queue_id;
    RETURN coalesce(cardinality(v_ids), 0);
END
$$;

COMMENT ON FUNCTION _wa_send_sms_fallbacks(integer, timestamptz) IS
'Internal: queues the SMS that are due, so many at most; returns how many were looked at. Forgets old ones.';
