-- whatsapp_queue over wa_outbound_queue.

-- Its priority has ten steps, ours three. The number written is kept beside, and counts as long as it fits.
CREATE OR REPLACE FUNCTION _wa_priority_word(p_number integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN p_number >= 8 THEN 'high' WHEN p_number <= 3 THEN 'low' ELSE 'normal' END;

COMMENT ON FUNCTION _wa_priority_word(integer) IS
'Internal: a priority from 1 to 10 (most urgent) as ours: 8 to 10 high, 4 to 7 normal, 1 to 3 low.';

CREATE OR REPLACE FUNCTION _wa_priority_number(p_word text, p_written text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(
    CASE WHEN p_written ~ '^([1-9]|10)$' THEN
        CASE WHEN _wa_priority_word(p_written::integer) = p_word THEN p_written::integer END
    END,
    CASE p_word WHEN 'high' THEN 10 WHEN 'low' THEN 1 ELSE 5 END
);

COMMENT ON FUNCTION _wa_priority_number(text, text) IS
'Internal: our priority as a number from 1 to 10: the one that was written, unless it was changed since.';

CREATE OR REPLACE FUNCTION _wa_queue_metadata(p_event_id uuid, p_priority integer) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_strip_nulls(jsonb_build_object('event_id', p_event_id, 'priority', nullif(p_priority, 5)));

COMMENT ON FUNCTION _wa_queue_metadata(uuid, integer) IS
'Internal: what whatsapp_queue keeps in the metadata of a row of the queue.';

-- JSON objects lose the order of their keys in jsonb, so that values go by declared names, never by order.
CREATE OR REPLACE FUNCTION _wa_numbered_values(p_variables jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(p_variables) = 'object' AND p_variables ? '1' THEN (
    SELECT CASE WHEN bool_and(v.key ~ '^[1-9][0-9]{0,2}$')
        THEN CASE WHEN max(CASE WHEN v.key ~ '^[1-9][0-9]{0,2}$' THEN v.key::integer END) = count(*)
            THEN jsonb_agg(v.value ORDER BY length(v.key), v.key) END
        END
    FROM jsonb_each(p_variables) v
) END;

COMMENT ON FUNCTION _wa_numbered_values(jsonb) IS
'Internal: {"1": ..., "2": ...} as an array; NULL for anything else.';

CREATE OR REPLACE VIEW whatsapp_queue WITH (security_invoker = true) AS
SELECT
    q.id, q.organization_id AS user_id, _wa_uuid_or_null(q.metadata ->> 'event_id') AS event_id,
    q.phone AS recipient_phone, q.template_name, coalesce(q.template_params, '{}') AS template_variables,
    _wa_priority_number(q.priority, q.metadata ->> 'priority') AS priority, q.scheduled_at AS scheduled_for,
    CASE
        WHEN q.status = 'pending' THEN 'queued'
        WHEN q.status = 'cancelled' OR m.status = 'failed' THEN 'failed'
        ELSE q.status
    END AS status,
    q.retry_count,
    CASE q.status
        WHEN 'cancelled' THEN coalesce(q.last_error, q.metadata ->> 'error_message', 'cancelled')
        WHEN 'sent' THEN m.error_message
        ELSE q.last_error
    END AS error_message,
    CASE
        -- The provider's clock tells seconds only.
        WHEN m.sent_at IS NOT NULL THEN greatest(m.sent_at, m.queued_at)
        WHEN q.status = 'sent' THEN q.processed_at
    END AS sent_at,
    q.created_at
FROM wa_outbound_queue q
LEFT JOIN wa_messages m ON m.organization_id = q.organization_id AND m.queue_id = q.id;

ALTER VIEW whatsapp_queue ALTER COLUMN user_id SET DEFAULT current_wa_organization();
ALTER VIEW whatsapp_queue ALTER COLUMN template_variables SET DEFAULT '{}';
ALTER VIEW whatsapp_queue ALTER COLUMN priority SET DEFAULT 5;
ALTER VIEW whatsapp_queue ALTER COLUMN scheduled_for SET DEFAULT now();
ALTER VIEW whatsapp_queue ALTER COLUMN status SET DEFAULT 'queued';
ALTER VIEW whatsapp_queue ALTER COLUMN retry_count SET DEFAULT 0;
ALTER VIEW whatsapp_queue ALTER COLUMN created_at SET DEFAULT now();

COMMENT ON VIEW whatsapp_queue IS
'wa_outbound_queue under another name: messages to send, inserted and rescheduled here too. Sending, and '
'what comes of it, is the dispatcher''s.';
COMMENT ON COLUMN whatsapp_queue.user_id IS 'The organization.';
COMMENT ON COLUMN whatsapp_queue.event_id IS
'Kept in metadata; a row with one gets the reference event:<id>, so that cancel_wa_messages() finds it.';
COMMENT ON COLUMN whatsapp_queue.template_name IS 'NULL for messages without a template.';
COMMENT ON COLUMN whatsapp_queue.template_variables IS
'Values by the names that the template declares, by number {"1": ...}, or an array in order.';
COMMENT ON COLUMN whatsapp_queue.priority IS '1 to 10, the most urgent.';
COMMENT ON COLUMN whatsapp_queue.status IS
'queued, sending, sent, or failed: refused, given up, cancelled, or reported as not delivered.';
COMMENT ON COLUMN whatsapp_queue.sent_at IS 'When the provider took it.';

-- By key, also where the plans were made when the queue was small.
CREATE OR REPLACE FUNCTION tg_whatsapp_queue__enqueue() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    v_id uuid;
BEGIN
    PERFORM _wa_require_columns('whatsapp_queue', to_jsonb(NEW), 'user_id', 'recipient_phone',
        'template_name');
    PERFORM _wa_require_value('whatsapp_queue', 'priority', NEW.priority::text,
        VARIADIC ARRAY(SELECT n::text FROM generate_series(1, 10) n));
    PERFORM _wa_require_value('whatsapp_queue', 'status', NEW.status, 'queued', 'sending', 'sent', 'failed');
    IF NEW.status <> 'queued' OR NEW.retry_count <> 0 OR NEW.sent_at IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA202', TABLE = 'whatsapp_queue',
            MESSAGE = 'a new message is queued, never tried and not sent',
            DETAIL = format('Given: status %s, retry_count %s, sent_at %s.', NEW.status, NEW.retry_count,
                coalesce(NEW.sent_at::text, 'NULL')),
            HINT = 'Leave out status, retry_count and sent_at: the dispatcher (bin/wa dispatch) fills them.';
    END IF;
    INSERT INTO wa_outbound_queue (
        organization_id, id, phone, template_name, template_params, priority, scheduled_at, reference,
        metadata, created_at
    )
    VALUES (
        NEW.user_id, NEW.id, NEW.recipient_phone, NEW.template_name,
        coalesce(_wa_numbered_values(NEW.template_variables), NEW.template_variables),
        _wa_priority_word(coalesce(NEW.priority, 5)), NEW.scheduled_for, 'event:' || NEW.event_id,
        _wa_queue_metadata(NEW.event_id, NEW.priority), coalesce(NEW.created_at, clock_timestamp())
    )
    RETURNING id INTO v_id;
    -- Read back: it has its normalised phone now, or was recorded as refused.
    SELECT v.* INTO NEW FROM whatsapp_queue v WHERE v.user_id = NEW.user_id AND v.id = v_id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_queue__enqueue() IS
'Queues a message; a value that the view does not take is refused (23502, 23514, WA202).';

CREATE OR REPLACE FUNCTION tg_whatsapp_queue__change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    v_cancels boolean := OLD.status <> 'failed' AND NEW.status = 'failed';
    v_queued wa_outbound_queue;
BEGIN
    PERFORM _wa_require_columns('whatsapp_queue', to_jsonb(NEW), 'priority', 'scheduled_for', 'status');
    PERFORM _wa_require_value('whatsapp_queue', 'priority', NEW.priority::text,
        VARIADIC ARRAY(SELECT n::text FROM generate_series(1, 10) n));
    PERFORM _wa_require_value('whatsapp_queue', 'status', NEW.status, 'queued', 'sending', 'sent', 'failed');
    IF NEW.status IN ('sending', 'sent') AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION USING ERRCODE = 'WA202', TABLE = 'whatsapp_queue',
            MESSAGE = format('status "%s" is set by the dispatcher alone', NEW.status),
            DETAIL = format('The message is %s.', OLD.status),
            HINT = 'Run bin/wa dispatch instead of a worker of your own: it claims, sends and records.';
    END IF;
    PERFORM _wa_refuse_changes(
        'whatsapp_queue', to_jsonb(OLD), to_jsonb(NEW),
        'scheduled_for, priority and event_id may change; status = ''failed'' (with error_message) cancels, '
        'status = ''queued'' tries a failed message again.',
        VARIADIC ARRAY['scheduled_for', 'priority', 'event_id', 'status']
        || CASE WHEN v_cancels THEN ARRAY['error_message'] ELSE '{}' END
    );
    IF OLD.status <> NEW.status AND NEW.status = 'queued' AND (
        OLD.status <> 'failed' OR retry_wa_messages(ids => ARRAY[OLD.id]) = 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201', TABLE = 'whatsapp_queue',
            MESSAGE = format('message %s is with the provider and cannot be queued again', OLD.id),
            DETAIL = format('Its status is %s.', OLD.status),
            HINT = 'Insert a new row to send it once more.';
    END IF;
    -- Locked before it is read, so that nothing that was written meanwhile is lost.
    SELECT q.* INTO v_queued FROM wa_outbound_queue q
    WHERE q.organization_id = OLD.user_id AND q.id = OLD.id
    FOR NO KEY UPDATE;
    PERFORM _wa_change_queued(
        OLD.user_id, OLD.id, v_cancels,
        CASE WHEN NEW.scheduled_for <> OLD.scheduled_for THEN NEW.scheduled_for END,
        CASE WHEN NEW.priority <> OLD.priority THEN _wa_priority_word(NEW.priority) END,
        CASE WHEN NEW.event_id IS DISTINCT FROM OLD.event_id THEN 'event:' || NEW.event_id
            ELSE v_queued.reference END,
        v_queued.metadata - '{event_id,priority}'::text[] || _wa_queue_metadata(NEW.event_id, NEW.priority)
        || CASE WHEN v_cancels THEN jsonb_strip_nulls(jsonb_build_object('error_message', NEW.error_message))
            ELSE '{}' END
    );
    SELECT v.* INTO NEW FROM whatsapp_queue v WHERE v.user_id = OLD.user_id AND v.id = OLD.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_whatsapp_queue__change() IS
'Reschedules, reprioritises, cancels or retries a message; what only sending may set is refused (WA202).';

CREATE OR REPLACE TRIGGER enqueue INSTEAD OF INSERT ON whatsapp_queue
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_queue__enqueue();

CREATE OR REPLACE TRIGGER change INSTEAD OF UPDATE ON whatsapp_queue
FOR EACH ROW EXECUTE FUNCTION tg_whatsapp_queue__change();
