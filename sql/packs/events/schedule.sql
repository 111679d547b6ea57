-- The reminders of an event: planned when it is published, moved when it moves, gone when it is cancelled.
-- The lock of the event's row, which the host's own UPDATE takes, lets changes of one event take turns.

-- Calendar days in the event's zone: over a change of the clock the local hour stays. On the day itself it
-- is 8 in the morning, or two hours before the start if that is earlier.
CREATE OR REPLACE FUNCTION _wa_event_reminders(p_event ai_events)
RETURNS TABLE (days integer, template_name text, due_at timestamptz, ends_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT r.key::integer, r.value, d.due_at, _wa_local_day_end(d.due_at, p_event.time_zone)
    FROM jsonb_each_text(p_event.reminders) r
    CROSS JOIN LATERAL (SELECT p_event.start_date AT TIME ZONE p_event.time_zone) l (start)
    CROSS JOIN LATERAL (
        SELECT CASE r.key::integer
            WHEN 0 THEN least(date_trunc('day', l.start) + interval '8 hours', l.start - interval '2 hours')
            ELSE l.start - make_interval(days => r.key::integer)
        END AT TIME ZONE p_event.time_zone
    ) d (due_at)
$$;

COMMENT ON FUNCTION _wa_event_reminders(ai_events) IS
'Internal: the reminders that an event should have: how many days before, the template, when, and until when '
'it still makes sense.';

CREATE OR REPLACE FUNCTION _wa_shift_local(
    p_at timestamptz, p_old_start timestamptz, p_old_zone text, p_new_start timestamptz, p_new_zone text
) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    (p_at AT TIME ZONE p_old_zone)
    + ((p_new_start AT TIME ZONE p_new_zone) - (p_old_start AT TIME ZONE p_old_zone))
) AT TIME ZONE p_new_zone;

COMMENT ON FUNCTION _wa_shift_local(timestamptz, timestamptz, text, timestamptz, text) IS
'Internal: a moment moved along with the start of its event, by the clocks of both time zones.';

CREATE OR REPLACE FUNCTION _wa_check_event_zones(p_events ai_events[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM count(e.start_date AT TIME ZONE e.time_zone) FROM unnest(p_events) e;
EXCEPTION
    WHEN invalid_parameter_value THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = sqlerrm,
            DETAIL = format('Zones given: %s.', (
                SELECT string_agg(DISTINCT e.time_zone, ', ') FROM unnest(p_events) e
            )),
            HINT = 'ai_events.time_zone takes a name of pg_timezone_names, for example America/New_York.';
END
$$;

COMMENT ON FUNCTION _wa_check_event_zones(ai_events[]) IS
'Internal: raises for an event whose time zone the server does not know.';

CREATE OR REPLACE FUNCTION _wa_plan_event_tasks(p_events ai_events[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    -- Those that wait follow. One whose time has just passed is still sent on its own day.
    UPDATE ai_tasks t
    SET scheduled_for = r.due_at, template_name = r.template_name,
        metadata = (CASE WHEN r.due_at > v_now THEN t.metadata - 'replaces' ELSE t.metadata END)
        || jsonb_build_object('event_start', extract(epoch FROM e.start_date))
    FROM unnest(p_events) e
    CROSS JOIN LATERAL _wa_event_reminders(e) r
    WHERE t.organizer_id = e.organizer_id AND t.event_id = e.id AND t.status = 'pending'
        AND t.metadata ->> 'reminder_days' = r.days::text AND r.ends_at > v_now;

    UPDATE ai_tasks t
    SET status = 'cancelled', metadata = t.metadata || '{"reason": "no longer planned"}'
    FROM unnest(p_events) e
    WHERE t.organizer_id = e.organizer_id AND t.event_id = e.id AND t.status = 'pending'
        AND t.metadata ? 'reminder_days'
        AND NOT EXISTS (
            SELECT FROM _wa_event_reminders(e) r
            WHERE t.metadata ->> 'reminder_days' = r.days::text AND r.ends_at > v_now
        );

    -- Not again what ran for this very start, nor what a person cancelled (it has no reason of ours).
    INSERT INTO ai_tasks (organizer_id, event_id, task_type, scheduled_for, template_name, metadata)
    SELECT e.organizer_id, e.id, 'send_reminder', r.due_at, r.template_name, jsonb_build_object(
        'reminder_days', r.days, 'event_start', extract(epoch FROM e.start_date)
    )
    FROM unnest(p_events) e
    CROSS JOIN LATERAL _wa_event_reminders(e) r
    WHERE r.due_at > v_now
        AND NOT EXISTS (
            SELECT FROM ai_tasks t
            WHERE t.organizer_id = e.organizer_id AND t.event_id = e.id
                AND t.metadata ->> 'reminder_days' = r.days::text
                AND (t.status = 'pending'
                OR t.status = 'cancelled' AND NOT t.metadata ? 'reason'
                OR t.status IN ('executing', 'completed', 'failed')
                AND t.metadata -> 'event_start' = to_jsonb(extract(epoch FROM e.start_date)))
        )
    ORDER BY r.due_at;
END
$$;

COMMENT ON FUNCTION _wa_plan_event_tasks(ai_events[]) IS
'Internal: makes the planned reminders of published events what they should be now. Reminders whose time has '
'passed are not made.';

CREATE OR REPLACE FUNCTION _wa_move_event(p_old ai_events, p_new ai_events) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_references text[];
BEGIN
    -- Tasks made by hand keep their distance from the start; an update says what it says when it says it.
    UPDATE ai_tasks t
    SET scheduled_for = s.due_at,
        status = CASE WHEN _wa_local_day_end(s.due_at, p_new.time_zone) > v_now THEN t.status
            ELSE 'cancelled' END,
        metadata = coalesce(t.metadata, '{}') || CASE
            WHEN _wa_local_day_end(s.due_at, p_new.time_zone) > v_now THEN '{}'
            ELSE '{"reason": "too late to be sent"}'
        END::jsonb
    FROM (
        SELECT x.id, _wa_shift_local(
            x.scheduled_for, p_old.start_date, p_old.time_zone, p_new.start_date, p_new.time_zone
        ) AS due_at
        FROM ai_tasks x
        WHERE x.organizer_id = p_new.organizer_id AND x.event_id = p_new.id AND x.status = 'pending'
            AND x.task_type <> 'send_update' AND NOT coalesce(x.metadata, '{}') ? 'reminder_days'
        ORDER BY x.id
        FOR UPDATE
    ) s
    WHERE t.organizer_id = p_new.organizer_id AND t.id = s.id;

    -- What tasks that ran have waiting names the old time, so it is taken back, and a new task writes to those
    -- people: at once, or at its new time. A reminder whose new time lies ahead is planned anew for everyone.
    v_references := ARRAY(
        SELECT _wa_cancel_referenced(array_agg(t.organizer_id),
            array_agg(_wa_event_reference(t.event_id, t.id)))
        FROM ai_tasks t
        WHERE t.organizer_id = p_new.organizer_id AND t.event_id = p_new.id
            AND t.status IN ('executing', 'completed') AND t.task_type <> 'send_update'
    );
    INSERT INTO ai_tasks (
        organizer_id, event_id, task_type, scheduled_for, template_name, recipient_filter, metadata
    )
    SELECT t.organizer_id, t.event_id, t.task_type, s.due_at, t.template_name, t.recipient_filter,
        (coalesce(t.metadata, '{}') - 'result') || jsonb_build_object(
            'replaces', coalesce(t.metadata -> 'replaces', '[]') || to_jsonb(t.id)
        )
    FROM ai_tasks t
    LEFT JOIN LATERAL _wa_event_reminders(p_new) r ON t.metadata ->> 'reminder_days' = r.days::text
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.metadata ? 'reminder_days' THEN r.due_at ELSE _wa_shift_local(
            t.scheduled_for, p_old.start_date, p_old.time_zone, p_new.start_date, p_new.time_zone
        ) END
    ) s (due_at)
    WHERE t.organizer_id = p_new.organizer_id AND t.event_id = p_new.id AND p_new.status = 'published'
        AND _wa_event_reference(t.event_id, t.id) = ANY (v_references)
        AND p_new.start_date > v_now AND _wa_local_day_end(s.due_at, p_new.time_zone) > v_now
        AND NOT (t.metadata ? 'reminder_days' AND s.due_at > v_now);

    -- Messages queued for the event without a task.
    PERFORM _wa_move_queued(p_new.organizer_id, array_agg(q.id), array_agg(s.due_at), v_now)
    FROM wa_outbound_queue q
    CROSS JOIN LATERAL _wa_shift_local(
        q.scheduled_at, p_old.start_date, p_old.time_zone, p_new.start_date, p_new.time_zone
    ) s (due_at)
    WHERE q.organization_id = p_new.organizer_id AND q.reference = _wa_event_reference(p_new.id)
        AND q.status = 'pending' AND q.scheduled_at > v_now
    HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION _wa_move_event(ai_events, ai_events) IS
'Internal: moves what hangs on the start of an event: tasks made by hand, messages that are scheduled; '
'messages that wait with the old time are replaced.';

CREATE OR REPLACE FUNCTION tg_ai_events__place() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.time_zone := (SELECT o.time_zone FROM wa_organizations o WHERE o.id = NEW.organizer_id);
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_ai_events__place() IS 'An event that names no time zone has that of its organizer.';

CREATE OR REPLACE FUNCTION tg_ai_events__publish() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_check_event_zones(array_agg(n::ai_events)) FROM new_rows n;
    PERFORM _wa_plan_event_tasks(array_agg(n::ai_events)) FROM new_rows n
    WHERE n.status = 'published'
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_ai_events__publish() IS
'Plans the reminders of events that are published from the start.';

CREATE OR REPLACE FUNCTION _wa_change_events(p_old ai_events[], p_new ai_events[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_nestloop = on
AS $$
DECLARE
    v_cancelled uuid[] := ARRAY(
        SELECT n.id FROM unnest(p_new) n JOIN unnest(p_old) o ON o.id = n.id
        WHERE n.status = 'cancelled' AND o.status <> 'cancelled'
    );
BEGIN
    -- A runner that holds a task has read the old event: wait for it, then what it queues is seen below.
    PERFORM FROM ai_tasks t
    WHERE t.event_id IN (SELECT n.id FROM unnest(p_new) n) AND t.status = 'pending'
    ORDER BY t.id
    FOR UPDATE;

    IF v_cancelled <> '{}' THEN
        UPDATE ai_tasks t
        SET status = 'cancelled',
            metadata = coalesce(t.metadata, '{}') || '{"reason": "the event is cancelled"}'
        WHERE t.event_id = ANY (v_cancelled) AND t.status = 'pending';
        PERFORM _wa_cancel_referenced(array_agg(r.organizer_id), array_agg(r.reference))
        FROM (
            SELECT n.organizer_id, _wa_event_reference(n.id) AS reference
            FROM unnest(p_new) n WHERE n.id = ANY (v_cancelled)
            UNION ALL
            SELECT t.organizer_id, _wa_event_reference(t.event_id, t.id)
            FROM ai_tasks t WHERE t.event_id = ANY (v_cancelled)
        ) r;
    END IF;

    PERFORM _wa_move_event(o, n)
    FROM unnest(p_new) n JOIN unnest(p_old) o ON o.id = n.id
    WHERE (n.start_date, n.time_zone) IS DISTINCT FROM (o.start_date, o.time_zone) AND n.status <> 'cancelled';

    PERFORM _wa_plan_event_tasks(ARRAY(SELECT n FROM unnest(p_new) n WHERE n.status = 'published'));
END
$$;

COMMENT ON FUNCTION _wa_change_events(ai_events[], ai_events[]) IS
'Internal: carries changes of events to their tasks and to what is queued.';

-- The plan of the join is kept from a statement that changed one event to one that changes thousands.
CREATE OR REPLACE FUNCTION tg_ai_events__change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET enable_nestloop = off
AS $$
DECLARE
    v_old ai_events[];
    v_new ai_events[];
BEGIN
    SELECT array_agg(o::ai_events), array_agg(n::ai_events) INTO v_old, v_new
    FROM new_rows n JOIN old_rows o ON o.id = n.id
    WHERE (n.start_date, n.time_zone, n.status, n.reminders)
        IS DISTINCT FROM (o.start_date, o.time_zone, o.status, o.reminders);
    IF v_new IS NOT NULL THEN
        PERFORM _wa_check_event_zones(v_new);
        PERFORM _wa_change_events(v_old, v_new);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_ai_events__change() IS
'Carries a change of an event to its tasks and to what is queued: published plans, moved moves, cancelled '
'cancels.';

CREATE OR REPLACE FUNCTION tg_ai_events__remove() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_cancel_referenced(array_agg(o.organizer_id), array_agg(_wa_event_reference(o.id)))
    FROM old_rows o
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_ai_events__remove() IS
'Takes back what was queued for a deleted event without a task; its tasks see to their own.';

CREATE OR REPLACE TRIGGER place BEFORE INSERT ON ai_events
FOR EACH ROW WHEN (NEW.time_zone IS NULL) EXECUTE FUNCTION tg_ai_events__place();

CREATE OR REPLACE TRIGGER publish AFTER INSERT ON ai_events
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_ai_events__publish();

CREATE OR REPLACE TRIGGER change AFTER UPDATE ON ai_events
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_ai_events__change();

CREATE OR REPLACE TRIGGER remove AFTER DELETE ON ai_events
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_ai_events__remove();
