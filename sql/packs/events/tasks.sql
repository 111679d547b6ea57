-- Tasks of events become queued messages. Locks are taken in the order event, its tasks by id, queued rows.

CREATE OR REPLACE FUNCTION _wa_event_reference(p_event_id uuid, p_task_id uuid DEFAULT NULL) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'event:' || p_event_id::text || coalesce(':' || p_task_id::text, '');

COMMENT ON FUNCTION _wa_event_reference(uuid, uuid) IS
'Internal: the reference of messages that a task queued, or of those queued for the event without one.';

CREATE OR REPLACE FUNCTION _wa_local_day_end(p_at timestamptz, p_time_zone text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (date_trunc('day', p_at AT TIME ZONE p_time_zone) + interval '1 day') AT TIME ZONE p_time_zone;

COMMENT ON FUNCTION _wa_local_day_end(timestamptz, text) IS
'Internal: when the calendar day of a moment ends in a time zone. A planned reminder, which may say '
'tomorrow, is not sent after its own day.';

CREATE OR REPLACE FUNCTION _wa_event_tickets(p_org wa_organizations, p_event_id uuid, p_filter jsonb)
RETURNS TABLE (id uuid, created_at timestamptz, info jsonb, phone text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT a.id, a.created_at, i.info,
        CASE WHEN _wa_is_user_id(p.phone) THEN p.phone ELSE _wa_read_phone(p_org.id, p.phone) END
    FROM orders o
    JOIN attendees a ON a.organizer_id = p_org.id AND a.order_id = o.id
    CROSS JOIN LATERAL (
        SELECT a.attendee_info || jsonb_strip_nulls(jsonb_build_object('ticket_type', a.ticket_type))
    ) i (info)
    CROSS JOIN LATERAL (SELECT btrim(a.attendee_info ->> 'phone')) p (phone)
    WHERE o.organizer_id = p_org.id AND o.event_id = p_event_id
        AND o.status NOT IN ('cancelled', 'refunded')
        AND p.phone <> '' AND i.info @> coalesce(p_filter, '{}');
END
$$;

COMMENT ON FUNCTION _wa_event_tickets(wa_organizations, uuid, jsonb) IS
'Internal: the valid tickets of an event that a filter meets and that name a phone, with it in E.164 or as a '
'user id; NULL where it is no phone number.';

CREATE OR REPLACE FUNCTION _wa_task_reached(p_org uuid, p_task ai_tasks) RETURNS TABLE (phone_key text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_references text[] := _wa_event_reference(p_task.event_id, p_task.id) || ARRAY(
        SELECT _wa_event_reference(p_task.event_id, r.id::uuid)
        FROM jsonb_array_elements_text(p_task.metadata -> 'replaces') r (id)
    );
BEGIN
    RETURN QUERY
    SELECT _wa_phone_key(q.phone) FROM wa_outbound_queue q
    WHERE q.organization_id = p_org AND q.reference = ANY (v_references) AND q.status <> 'cancelled'
    UNION
    -- A message tells where it went, which may be a newer number than the ticket has.
    SELECT i.value FROM wa_outbound_queue q
    JOIN wa_contact_identities i ON i.organization_id = p_org AND i.contact_id = q.contact_id
        AND i.kind = 'phone' AND i.valid_to > q.created_at
    WHERE q.organization_id = p_org AND q.reference = ANY (v_references) AND q.status <> 'cancelled';
END
$$;

COMMENT ON FUNCTION _wa_task_reached(uuid, ai_tasks) IS
'Internal: whom a task, or one that it replaces, wrote to already.';

-- What a ticket says of itself goes before the task's own words, and never before what the event is.
CREATE OR REPLACE FUNCTION _wa_event_context(
    p_event ai_events, p_task ai_tasks, OUT base jsonb, OUT facts jsonb
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_time text := to_char(p_event.start_date AT TIME ZONE p_event.time_zone, 'YYYY-MM-DD HH12:MI AM');
BEGIN
    base := jsonb_build_object('update_message', 'starts at ' || v_time) || coalesce(p_task.metadata, '{}');
    facts := jsonb_build_object('event_name', p_event.name, 'event_time', v_time)
        || jsonb_strip_nulls(jsonb_build_object('event_location', p_event.location))
        || jsonb_build_object('task', p_task.metadata, 'event', jsonb_build_object(
            'name', p_event.name, 'time', v_time, 'location', p_event.location,
            'update_message', base -> 'update_message'
        ));
END
$$;

COMMENT ON FUNCTION _wa_event_context(ai_events, ai_tasks) IS
'Internal: what every message of a task may take its values from: what a ticket may say otherwise, and what '
'it may not.';

CREATE OR REPLACE FUNCTION _wa_attendee_context(
    p_base jsonb, p_info jsonb, p_facts jsonb, p_takes_three boolean
) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_name text := nullif(btrim(p_info ->> 'name'), '');
BEGIN
    RETURN p_base || p_info || p_facts || jsonb_build_object('attendee', p_info)
        || jsonb_strip_nulls(jsonb_build_object('attendee_name', v_name))
        || CASE WHEN p_takes_three THEN jsonb_build_object(
            '1', v_name, '2', p_facts -> 'event_name', '3', p_facts -> 'event_time'
        ) ELSE '{}' END;
END
$$;

COMMENT ON FUNCTION _wa_attendee_context(jsonb, jsonb, jsonb, boolean) IS
'Internal: what one attendee''s message may take its values from; by number, too, for a template that takes '
'the documented three.';

-- Meta takes one line; a value that would be refused must not take the other messages with it.
CREATE OR REPLACE FUNCTION _wa_attendee_values(
    p_slots jsonb, p_context jsonb, OUT given jsonb, OUT missing text
)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
BEGIN
    SELECT coalesce(jsonb_object_agg(x.name, x.value) FILTER (WHERE x.value <> ''), '{}'),
        string_agg(DISTINCT x.name, ', ') FILTER (WHERE x.value IS NULL OR x.value = '')
    INTO given, missing
    FROM (
        SELECT s.name, left(btrim(regexp_replace(
            coalesce(p_context #>> string_to_array(s.path, '.'), p_context ->> s.name), '\s+', ' ', 'g'
        )), 1024) AS value
        FROM jsonb_to_recordset(p_slots) s (name text, path text)
        -- OFFSET: made once, not again wherever it is used.
        OFFSET 0
    ) x;
END
$$;

COMMENT ON FUNCTION _wa_attendee_values(jsonb, jsonb) IS
'Internal: the values of a template by name, from a context, and the names of those that it does not have.';

-- What may be wrong with one attendee is found here and recorded, so that one insert takes all others.
CREATE OR REPLACE FUNCTION _wa_queue_event_task(
    p_org wa_organizations, p_event ai_events, p_task ai_tasks, p_template wa_templates
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_slots jsonb;
    v_names text[];
    -- A template that declares no names takes the documented three in their order.
    v_takes_three CONSTANT boolean := p_template.parameters = '[]'
        AND cardinality(p_template.body_placeholders) = 3;
    v_context record := _wa_event_context(p_event, p_task);
    v_expires_at timestamptz := CASE WHEN p_task.metadata ? 'reminder_days'
        THEN least(_wa_local_day_end(p_task.scheduled_for, p_event.time_zone), p_event.start_date) END;
    v_ids uuid[];
    v_result jsonb;
BEGIN
    -- The usual template takes values in its body only, which is the quick way in: by their order.
    SELECT jsonb_agg(jsonb_build_object('name', s.name, 'path', coalesce(
            p_template.variable_mapping ->> s.name,
            CASE WHEN s.part = 'body' THEN p_template.variable_mapping ->> s.place::text END
        ))),
        CASE WHEN bool_and(s.part = 'body') THEN array_agg(s.name ORDER BY s.place) END
    INTO v_slots, v_names
    FROM _wa_template_slots(p_template) s;

    WITH ticket AS MATERIALIZED (
        SELECT * FROM _wa_event_tickets(p_org, p_event.id, p_task.recipient_filter)
    ),
    person AS (
        SELECT DISTINCT ON (_wa_phone_key(t.phone)) t.* FROM ticket t WHERE t.phone IS NOT NULL
        ORDER BY _wa_phone_key(t.phone), t.created_at, t.id
    ),
    message AS (
        SELECT p.id, p.phone, v.given, v.missing
        FROM person p
        CROSS JOIN LATERAL _wa_attendee_values(
            v_slots, _wa_attendee_context(v_context.base, p.info, v_context.facts, v_takes_three)
        ) v
        WHERE NOT EXISTS (
            SELECT FROM _wa_task_reached(p_org.id, p_task) r WHERE r.phone_key = _wa_phone_key(p.phone)
        )
    ),
    queued AS (
        -- The key: however often and from wherever a task is executed, an attendee gets its message once.
        INSERT INTO wa_outbound_queue (
            organization_id, phone, template_name, template_params, expires_at, idempotency_key, reference,
            metadata, on_refusal
        )
        SELECT p_org.id, m.phone, p_task.template_name,
            CASE WHEN v_names IS NULL THEN _wa_fold_template_values(p_template, m.given)
                ELSE (SELECT jsonb_agg(m.given -> n.name ORDER BY n.place)
                    FROM unnest(v_names) WITH ORDINALITY n (name, place))
            END,
            CASE WHEN v_expires_at > clock_timestamp() THEN v_expires_at END,
            format('%s:%s', p_task.id, m.id), _wa_event_reference(p_event.id, p_task.id),
            jsonb_build_object('event_id', p_event.id, 'task_id', p_task.id, 'attendee_id', m.id), 'record'
        FROM message m
        WHERE m.missing IS NULL
        ON CONFLICT (organization_id, idempotency_key) DO NOTHING
        RETURNING id
    ),
    problem AS (
        SELECT t.id, 'phone'::text AS kind, 'not a phone number'::text AS problem
        FROM ticket t WHERE t.phone IS NULL
        UNION ALL
        SELECT m.id, 'values', format('no %s', m.missing) FROM message m WHERE m.missing IS NOT NULL
    )
    SELECT (SELECT array_agg(q.id) FROM queued q), jsonb_build_object(
        'tickets', (SELECT count(*) FROM ticket),
        'people', (SELECT count(*) FROM person),
        'invalid_phones', (SELECT count(*) FROM problem p WHERE p.kind = 'phone'),
        'missing_values', (SELECT count(*) FROM problem p WHERE p.kind = 'values'),
        'problems', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('attendee_id', p.id, 'problem', p.problem)
                ORDER BY p.id), '[]')
            FROM (SELECT * FROM problem ORDER BY id LIMIT 100) p
        )
    ) INTO v_ids, v_result;
    RETURN v_result || _wa_count_queued(p_org.id, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_queue_event_task(wa_organizations, ai_events, ai_tasks, wa_templates) IS
'Internal: queues a task''s message for every person with a ticket and a phone, one each, except those that '
'it, or a task that it replaces, wrote to. Answers with counts and the attendees that were left out.';

-- In a statement after the insert's: refusals, of people who opted out, are recorded once that is done.
CREATE OR REPLACE FUNCTION _wa_count_queued(p_org uuid, p_ids uuid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (
        SELECT jsonb_build_object(
            'queued', count(*) FILTER (WHERE q.status <> 'failed'),
            'refused', count(*) FILTER (WHERE q.status = 'failed')
        )
        FROM wa_outbound_queue q
        WHERE q.organization_id = p_org AND q.id = ANY (p_ids)
    );
END
$$;

COMMENT ON FUNCTION _wa_count_queued(uuid, uuid[]) IS
'Internal: how many of the messages that were inserted wait, and how many were refused.';

CREATE OR REPLACE FUNCTION _wa_execute_event_task(p_task ai_tasks) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_event ai_events;
    v_template wa_templates;
    v_result jsonb;
    v_problem text;
    v_sqlstate text;
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = p_task.organizer_id;
    SELECT e.* INTO v_event FROM ai_events e WHERE e.organizer_id = v_org.id AND e.id = p_task.event_id;
    SELECT t.* INTO v_template FROM _wa_pick_template(v_org.id, p_task.template_name, NULL, NULL) t;
    v_problem := CASE
        WHEN v_event.status = 'cancelled' AND p_task.task_type <> 'send_update' THEN 'the event is cancelled'
        WHEN v_template.id IS NULL THEN format('no template "%s"', left(p_task.template_name, 100))
        WHEN NOT v_template.is_enabled
            THEN format('template "%s" is switched off for automation', v_template.name)
        -- Told once, and nothing is used up: the task may be set to pending again when Meta has approved.
        WHEN _wa_template_problem(v_template, clock_timestamp()) IS NOT NULL
            THEN _wa_template_problem(v_template, clock_timestamp())
        WHEN v_template.parameter_format = 'POSITIONAL' AND v_template.parameters = '[]'
            AND v_template.variable_mapping = '{}'
            AND cardinality(v_template.body_placeholders) NOT IN (0, 3)
            THEN format('template "%s" does not declare the names of its values', v_template.name)
        WHEN jsonb_typeof(p_task.recipient_filter) NOT IN ('object', 'null')
            THEN 'recipient_filter is not a JSON object'
    END;
    IF v_problem IS NULL THEN
        BEGIN
            p_task.recipient_filter := nullif(p_task.recipient_filter, 'null');
            v_result := _wa_queue_event_task(v_org, v_event, p_task, v_template);
            IF v_result -> 'problems' <> '[]' AND v_result -> 'people' = v_result -> 'missing_values' THEN
                v_problem := 'nobody can be written to';
            END IF;
        EXCEPTION
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS v_sqlstate = RETURNED_SQLSTATE, v_problem = MESSAGE_TEXT;
                -- What a repeat may mend, and a wish to stop, go up; anything else is this task's own.
                IF left(v_sqlstate, 2) IN ('40', '53', '55', '57', '58') THEN
                    RAISE;
                END IF;
                v_problem := format('%s: %s', v_sqlstate, v_problem);
        END;
    END IF;
    UPDATE ai_tasks t
    SET status = CASE WHEN v_problem IS NULL THEN 'completed' ELSE 'failed' END,
        metadata = coalesce(t.metadata, '{}')
        || jsonb_build_object('result', jsonb_strip_nulls(
            coalesce(v_result, '{}') || jsonb_build_object('error', v_problem)))
    WHERE t.organizer_id = v_org.id AND t.id = p_task.id;
END
$$;

COMMENT ON FUNCTION _wa_execute_event_task(ai_tasks) IS
'Internal: carries a task out and ends it as completed, with counts, or failed, with the reason, in its '
'metadata.';

-- Each task ends by itself: one that fails must not undo the others of the statement.
CREATE OR REPLACE FUNCTION _wa_change_event_tasks(p_tasks ai_tasks[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_nestloop = on
AS $$
DECLARE
    v_task ai_tasks;
BEGIN
    FOREACH v_task IN ARRAY p_tasks LOOP
        IF v_task.status = 'executing' THEN
            PERFORM _wa_execute_event_task(v_task);
        END IF;
    END LOOP;
    PERFORM _wa_cancel_referenced(
        array_agg(t.organizer_id), array_agg(_wa_event_reference(t.event_id, t.id))
    )
    FROM unnest(p_tasks) t WHERE t.status = 'cancelled';
END
$$;

COMMENT ON FUNCTION _wa_change_event_tasks(ai_tasks[]) IS
'Internal: executes tasks, takes back what cancelled ones have waiting.';

-- The plan of the join is kept from a statement that changed one task to one that changes thousands.
CREATE OR REPLACE FUNCTION tg_ai_tasks__execute() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET enable_nestloop = off
AS $$
DECLARE
    v_tasks ai_tasks[];
BEGIN
    SELECT array_agg(n::ai_tasks ORDER BY n.id) INTO v_tasks
    FROM new_rows n JOIN old_rows o ON o.id = n.id
    WHERE n.status = 'executing' AND o.status = 'pending' OR n.status = 'cancelled' AND o.status <> 'cancelled';
    IF v_tasks IS NOT NULL THEN
        PERFORM _wa_change_event_tasks(v_tasks);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_ai_tasks__execute() IS
'Queues the messages of tasks that go from pending to executing; takes back what a task that is cancelled '
'has waiting.';

CREATE OR REPLACE FUNCTION tg_ai_tasks__remove() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_cancel_referenced(
        array_agg(o.organizer_id), array_agg(_wa_event_reference(o.event_id, o.id))
    )
    FROM old_rows o
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_ai_tasks__remove() IS
'Takes back what a deleted task, also one that goes with its event, has waiting.';

CREATE OR REPLACE TRIGGER execute AFTER UPDATE ON ai_tasks
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_ai_tasks__execute();

CREATE OR REPLACE TRIGGER remove AFTER DELETE ON ai_tasks
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_ai_tasks__remove();

-- SKIP LOCKED: runners share the tasks. One that another runner has just finished is read anew, passed by.
CREATE OR REPLACE FUNCTION run_wa_event_tasks(p_limit integer DEFAULT 100) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    -- Tasks stay locked until the caller commits; the next run goes on.
    v_stop_at CONSTANT timestamptz := clock_timestamp() + interval '10 seconds';
    v_task ai_tasks;
    v_event ai_events;
    v_ends_at timestamptz;
    v_executed integer := 0;
BEGIN
    WHILE v_executed < p_limit AND clock_timestamp() < v_stop_at LOOP
        SELECT t.* INTO v_task
        FROM ai_tasks t
        JOIN ai_events e ON e.organizer_id = t.organizer_id AND e.id = t.event_id
        WHERE t.status = 'pending' AND t.scheduled_for <= clock_timestamp() AND e.status <> 'draft'
        ORDER BY t.scheduled_for, t.id
        LIMIT 1
        FOR UPDATE OF t SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        SELECT e.* INTO v_event FROM ai_events e
        WHERE e.organizer_id = v_task.organizer_id AND e.id = v_task.event_id;
        v_ends_at := least(v_event.start_date, CASE WHEN v_task.metadata ? 'reminder_days'
            -- Without its zone the task itself fails, and stops no other.
            THEN _wa_local_day_end(v_task.scheduled_for, _wa_known_zone(v_event.time_zone, 'UTC')) END);
        IF v_task.task_type <> 'send_update' AND v_task.scheduled_for < v_event.start_date
            AND v_ends_at <= clock_timestamp()
        THEN
            UPDATE ai_tasks t
            SET status = 'cancelled',
                metadata = coalesce(t.metadata, '{}') || '{"reason": "too late to be sent"}'
            WHERE t.organizer_id = v_task.organizer_id AND t.id = v_task.id;
        ELSE
            UPDATE ai_tasks t SET status = 'executing'
            WHERE t.organizer_id = v_task.organizer_id AND t.id = v_task.id;
            v_executed := v_executed + 1;
        END IF;
    END LOOP;
    RETURN v_executed;
END
$$;

COMMENT ON FUNCTION run_wa_event_tasks(integer) IS
'Executes the tasks that are due, of all organizations, at most so many; returns how many. Reminders that '
'were not run in time are cancelled. Any number of sessions may call it at once.';
