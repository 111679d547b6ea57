-- The moves of a queued row between those that wait (wa_queue_due) and those in flight (wa_queue_inflight).
-- Other rooms decide and call; here is who writes. How a row ends is in settling.sql, what applications do in
-- admission.sql and control.sql.
--
-- The frequent moves find and lock their rows by key in one statement and write them by place in the next: =
-- ANY (ids) may be planned as a walk through all of an index, dead entries included, and only what is locked
-- keeps its place. What writes by place names the organization, too, as a place alone says nothing of a table
-- in pieces. Its functions (..._at) know no index: while a table seems empty, reading all rows of the
-- organization through one would be taken for cheaper.

CREATE OR REPLACE FUNCTION _wa_start_sending(
    p_org uuid, p_number_id bigint, p_dispatcher_id uuid, p_ids uuid[], p_due tid[], p_contact_ids bigint[],
    p_template_ids uuid[], p_classes smallint[], p_open boolean[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows record;
BEGIN
    SELECT array_agg(q.place) AS places, array_agg(u.contact_id) AS contact_ids,
        array_agg(u.template_id) AS template_ids, array_agg(u.class) AS classes,
        array_agg(u.is_open) AS open
    INTO v_rows
    FROM unnest(p_ids, p_contact_ids, p_template_ids, p_classes, p_open)
        u (id, contact_id, template_id, class, is_open)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS place FROM wa_outbound_queue x
        WHERE x.organization_id = p_org AND x.id = u.id LIMIT 1 FOR NO KEY UPDATE
    ) q;
    PERFORM _wa_start_sending_at(
        p_org, p_number_id, p_dispatcher_id, p_due, v_rows.places, v_rows.contact_ids, v_rows.template_ids,
        v_rows.classes, v_rows.open, p_now
    );
END
$$;

COMMENT ON FUNCTION _wa_start_sending(
    uuid, bigint, uuid, uuid[], tid[], bigint[], uuid[], smallint[], boolean[], timestamptz
) IS
'Internal: moves rows that wait into flight, for one dispatcher, with their next attempt and a lease. The '
'caller has locked their rows of the queue, and those that wait, whose places it gives.';

CREATE OR REPLACE FUNCTION _wa_start_sending_at(
    p_org uuid, p_number_id bigint, p_dispatcher_id uuid, p_due tid[], p_places tid[], p_contact_ids bigint[],
    p_template_ids uuid[], p_classes smallint[], p_open boolean[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_indexscan = off SET enable_bitmapscan = off
AS $$
BEGIN
    DELETE FROM wa_queue_due d WHERE d.organization_id = p_org AND d.ctid = ANY (p_due);
    WITH marked AS (
        UPDATE wa_outbound_queue q
        SET status = 'sending', claimed_at = p_now, attempt = q.attempt + 1, contact_id = u.contact_id,
            change_no = q.change_no + 1
        FROM unnest(p_places, p_contact_ids, p_template_ids, p_classes, p_open)
            u (place, contact_id, template_id, class, is_open)
        WHERE q.organization_id = p_org AND q.ctid = u.place
        RETURNING q.id, q.attempt, u.contact_id, u.template_id, u.class, u.is_open
    )
    INSERT INTO wa_queue_inflight (
        organization_id, queue_id, attempt, number_id, contact_id, class, dispatcher_id, claimed_at,
        is_within_24h, template_id, deadline_at
    )
    SELECT p_org, m.id, m.attempt, p_number_id, m.contact_id, m.class, p_dispatcher_id, p_now, m.is_open,
        m.template_id, p_now + interval '60 seconds'
    FROM marked m;
END
$$;

COMMENT ON FUNCTION _wa_start_sending_at(
    uuid, bigint, uuid, tid[], tid[], bigint[], uuid[], smallint[], boolean[], timestamptz
) IS 'Internal: _wa_start_sending() for rows that it found and locked.';

CREATE OR REPLACE FUNCTION _wa_hold_due(p_org uuid, p_ids uuid[], p_holds bigint[], p_kinds text[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_hold_due_at(p_org, array_agg(d.place), array_agg(u.hold_id), array_agg(u.kind))
    FROM unnest(p_ids, p_holds, p_kinds) u (id, hold_id, kind)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS place, x.hold_id FROM wa_queue_due x
        WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1 FOR NO KEY UPDATE
    ) d
    WHERE d.hold_id IS DISTINCT FROM u.hold_id
    HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION _wa_hold_due(uuid, uuid[], bigint[], text[]) IS
'Internal: lets rows that wait stand aside until the hold that each is given opens.';

CREATE OR REPLACE FUNCTION _wa_hold_due_at(p_org uuid, p_places tid[], p_holds bigint[], p_kinds text[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_indexscan = off SET enable_bitmapscan = off
AS $$
BEGIN
    UPDATE wa_queue_due d SET hold_id = u.hold_id, hold_reason = u.kind
    FROM unnest(p_places, p_holds, p_kinds) u (place, hold_id, kind)
    WHERE d.organization_id = p_org AND d.ctid = u.place;
END
$$;

COMMENT ON FUNCTION _wa_hold_due_at(uuid, tid[], bigint[], text[]) IS
'Internal: _wa_hold_due() for rows that were found and locked.';

CREATE OR REPLACE FUNCTION _wa_postpone_due(
    p_org uuid, p_ids uuid[], p_until timestamptz[], p_reasons text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_postpone_due_at(p_org, array_agg(d.place), array_agg(u.until), array_agg(u.reason))
    FROM unnest(p_ids, p_until, p_reasons) u (id, until, reason)
    CROSS JOIN LATERAL (
        SELECT x.ctid AS place FROM wa_queue_due x
        WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1 FOR NO KEY UPDATE
    ) d
    HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION _wa_postpone_due(uuid, uuid[], timestamptz[], text[]) IS
'Internal: makes rows that wait due at a later time, for what each is to say.';

CREATE OR REPLACE FUNCTION _wa_postpone_due_at(
    p_org uuid, p_places tid[], p_until timestamptz[], p_reasons text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_indexscan = off SET enable_bitmapscan = off
AS $$
BEGIN
    UPDATE wa_queue_due d SET due_at = u.until, hold_id = NULL, hold_reason = u.reason
    FROM unnest(p_places, p_until, p_reasons) u (place, until, reason)
    WHERE d.organization_id = p_org AND d.ctid = u.place;
END
$$;

COMMENT ON FUNCTION _wa_postpone_due_at(uuid, tid[], timestamptz[], text[]) IS
'Internal: _wa_postpone_due() for rows that were found and locked.';

-- A batch of the organization's messages at a time, in the order of their ids: what a claim puts back is not
-- met again. What somebody has locked is judged when it is due.
CREATE OR REPLACE FUNCTION _wa_recheck_waits(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_recheck wa_wait_rechecks;
    v_ids uuid[];
    v_freed integer := 0;
BEGIN
    FOR v_recheck IN SELECT * FROM _wa_open_rechecks() LOOP
        SELECT array_agg(w.queue_id ORDER BY w.queue_id) INTO v_ids
        FROM (
            SELECT x.queue_id FROM wa_queue_due x
            WHERE x.organization_id = v_recheck.organization_id AND x.queue_id > v_recheck.looked_id
                AND x.hold_reason IN ('quiet_hours', 'contact_cap', 'cool_off')
            ORDER BY x.queue_id LIMIT p_limit
            FOR NO KEY UPDATE SKIP LOCKED
        ) w;
        PERFORM _wa_postpone_due(
            v_recheck.organization_id, v_ids,
            array_fill(clock_timestamp(), ARRAY[coalesce(cardinality(v_ids), 0)]), NULL
        );
        v_freed := v_freed + coalesce(cardinality(v_ids), 0);
        PERFORM _wa_note_recheck(
            v_recheck.organization_id, CASE WHEN cardinality(v_ids) >= p_limit THEN v_ids[p_limit] END);
    END LOOP;
    RETURN v_freed;
END
$$;

COMMENT ON FUNCTION _wa_recheck_waits(integer) IS
'Internal: lets go up to so many messages of each organization whose rules changed and that waited by the '
'old ones, to be judged anew; returns how many.';

CREATE OR REPLACE FUNCTION tg_wa_contacts__recheck() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_free_due(NEW.organization_id, ARRAY[NEW.id], 'quiet_hours');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_contacts__recheck() IS
'What waits for the hour of a contact whose time zone is said anew is judged anew.';

CREATE OR REPLACE TRIGGER recheck AFTER UPDATE OF time_zone ON wa_contacts
FOR EACH ROW WHEN (OLD.time_zone IS DISTINCT FROM NEW.time_zone)
EXECUTE FUNCTION tg_wa_contacts__recheck();

CREATE OR REPLACE FUNCTION _wa_free_due(p_org uuid, p_contact_ids bigint[], p_kind text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- A new place at the end of the line: cursors have passed the old one.
    UPDATE wa_queue_due d SET hold_id = NULL, hold_reason = NULL, due_at = clock_timestamp()
    FROM (
        SELECT w.organization_id, w.queue_id
        FROM (SELECT DISTINCT u.id FROM unnest(p_contact_ids) u (id) ORDER BY u.id) c
        CROSS JOIN LATERAL (
            SELECT x.organization_id, x.queue_id, x.hold_reason FROM wa_queue_due x
            WHERE x.organization_id = p_org AND x.contact_id = c.id AND x.class > 0
            OFFSET 0
            -- Neither a webhook nor a claim waits for what somebody else is changing.
            FOR NO KEY UPDATE SKIP LOCKED
        ) w
        WHERE w.hold_reason = p_kind
    ) f
    WHERE d.organization_id = f.organization_id AND d.queue_id = f.queue_id;
END
$$;

COMMENT ON FUNCTION _wa_free_due(uuid, bigint[], text) IS
'Internal: lets what is queued to contacts out of holds of a kind, to be judged anew.';

-- A new place at the end of the line, as above.
CREATE OR REPLACE FUNCTION _wa_free_held(p_org uuid, p_hold_id bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_queue_due d SET hold_id = NULL, hold_reason = NULL, due_at = clock_timestamp()
    FROM (
        SELECT x.organization_id, x.queue_id FROM wa_queue_due x
        WHERE x.hold_id = p_hold_id AND x.organization_id = p_org
        FOR NO KEY UPDATE SKIP LOCKED
    ) w
    WHERE d.organization_id = w.organization_id AND d.queue_id = w.queue_id
$$;

COMMENT ON FUNCTION _wa_free_held(uuid, bigint) IS
'Internal: lets what waits in a hold out of it, but for what somebody has locked, to be judged anew.';

CREATE OR REPLACE FUNCTION _wa_relabel_held(p_org uuid, p_hold_id bigint, p_kind text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_queue_due d SET hold_reason = p_kind
    FROM (
        SELECT x.organization_id, x.queue_id FROM wa_queue_due x
        WHERE x.hold_id = p_hold_id AND x.organization_id = p_org AND x.hold_reason <> p_kind
        FOR NO KEY UPDATE SKIP LOCKED
    ) w
    WHERE d.organization_id = w.organization_id AND d.queue_id = w.queue_id
$$;

COMMENT ON FUNCTION _wa_relabel_held(uuid, bigint, text) IS
'Internal: says anew for what rows in a hold wait.';

-- The window has closed: from now on the row is its fall-back template, and is judged as one.
CREATE OR REPLACE FUNCTION _wa_turn_into_fallback(p_org uuid, p_waba_id text, p_ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_lost uuid[];
BEGIN
    WITH turned AS (
        UPDATE wa_queue_due d
        SET template_id = c.template_id, due_at = clock_timestamp(), hold_id = NULL, hold_reason = NULL,
            class = _wa_queue_class(c.priority, _wa_is_metered(c.template_id, c.category))
        FROM (
            SELECT q.id, q.priority, t.id AS template_id, t.category
            FROM _wa_queue_rows(p_org, p_ids) q
            CROSS JOIN LATERAL _wa_pick_template(
                p_org, q.fallback_template_name, q.fallback_template_language, p_waba_id
            ) t
        ) c
        WHERE d.organization_id = p_org AND d.queue_id = c.id
        RETURNING d.queue_id
    )
    SELECT array_agg(u.id) INTO v_lost
    FROM unnest(p_ids) u (id)
    WHERE u.id NOT IN (SELECT t.queue_id FROM turned t);
    RETURN v_lost;
END
$$;

COMMENT ON FUNCTION _wa_turn_into_fallback(uuid, text, uuid[]) IS
'Internal: turns rows that wait into their fall-back template; returns those whose template is gone.';

-- due_at stays what it was for a row that was handed back, so that it keeps its place before later ones.
CREATE OR REPLACE FUNCTION _wa_requeue(
    p_org uuid, p_ids uuid[], p_due_at timestamptz[], p_errors text[], p_is_retry boolean
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH again AS (
        SELECT * FROM unnest(p_ids, p_due_at, p_errors) u (id, due_at, error)
    ),
    landed AS (
        DELETE FROM wa_queue_inflight i USING again a
        WHERE i.organization_id = p_org AND i.queue_id = a.id
        RETURNING i.queue_id, i.number_id, i.contact_id, i.class, i.template_id, a.due_at, a.error
    ),
    reset AS (
        UPDATE wa_outbound_queue q
        SET status = 'pending', retry_count = q.retry_count + p_is_retry::integer,
            last_error = coalesce(l.error, q.last_error),
            claimed_at = CASE WHEN p_is_retry THEN q.claimed_at END, change_no = q.change_no + 1
        FROM landed l
        WHERE q.organization_id = p_org AND q.id = l.queue_id
        RETURNING q.id, q.scheduled_at, q.expires_at
    )
    INSERT INTO wa_queue_due (
        organization_id, number_id, class, due_at, queue_id, contact_id, template_id, hold_reason, expires_at
    )
    SELECT p_org, l.number_id, l.class, coalesce(l.due_at, r.scheduled_at), l.queue_id, l.contact_id,
        l.template_id, CASE WHEN l.due_at IS NOT NULL THEN 'retry' END, coalesce(r.expires_at, 'infinity')
    FROM landed l JOIN reset r ON r.id = l.queue_id
$$;

COMMENT ON FUNCTION _wa_requeue(uuid, uuid[], timestamptz[], text[], boolean) IS
'Internal: puts rows in flight back into the queue: at a later time with an error, or at once and uncounted '
'when they were never started.';

CREATE OR REPLACE FUNCTION _wa_await_outcome(p_org uuid, p_ids uuid[], p_errors text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH doubtful AS (
        UPDATE wa_queue_inflight i
        SET is_unknown = true, deadline_at = i.claimed_at + o.unknown_grace
        FROM wa_organizations o
        WHERE o.id = p_org AND i.organization_id = p_org AND i.queue_id = ANY (p_ids)
        RETURNING i.queue_id
    )
    UPDATE wa_outbound_queue q SET last_error = u.error, change_no = q.change_no + 1
    FROM unnest(p_ids, p_errors) u (id, error), doubtful d
    WHERE q.organization_id = p_org AND q.id = u.id AND d.queue_id = u.id
$$;

COMMENT ON FUNCTION _wa_await_outcome(uuid, uuid[], text[]) IS
'Internal: marks rows whose outcome is unknown; a status webhook settles them, or maintain_wa_dispatch() '
'after the grace.';

CREATE OR REPLACE FUNCTION _wa_doubt_all() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH doubtful AS (
        UPDATE wa_queue_inflight i
        SET is_unknown = true, deadline_at = clock_timestamp() + o.unknown_grace
        FROM wa_organizations o
        WHERE o.id = i.organization_id
        RETURNING 1
    )
    SELECT count(*) FROM doubtful
$$;

COMMENT ON FUNCTION _wa_doubt_all() IS
'Internal: marks everything in flight, of every organization, as of unknown outcome from now on; returns how '
'many.';

CREATE OR REPLACE FUNCTION _wa_extend_deadlines(p_org uuid, p_ids uuid[], p_deadlines timestamptz[])
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_queue_inflight i SET deadline_at = u.deadline_at
    FROM unnest(p_ids, p_deadlines) u (id, deadline_at)
    WHERE i.organization_id = p_org AND i.queue_id = u.id
$$;

COMMENT ON FUNCTION _wa_extend_deadlines(uuid, uuid[], timestamptz[]) IS
'Internal: says when rows in flight are looked at again.';

-- Those whose time has come by the calendar, or that were due at once when they were queued in what is the
-- future now; and next tries. Rows that their owner has locked stay as they are.
CREATE OR REPLACE FUNCTION _wa_bring_back_queued(p_now timestamptz, p_by interval) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows record;
BEGIN
    SELECT array_agg(d.organization_id) AS orgs, array_agg(d.queue_id) AS ids,
        array_agg(q.is_retry) AS are_retries
    INTO v_rows
    FROM wa_queue_due d
    CROSS JOIN LATERAL (
        SELECT d.hold_reason = 'retry' AS is_retry FROM wa_outbound_queue x
        WHERE x.organization_id = d.organization_id AND x.id = d.queue_id
            AND (d.hold_reason = 'retry' OR x.scheduled_at <= p_now
                OR (x.created_at > p_now AND x.scheduled_at <= x.created_at + interval '1 second'))
        FOR NO KEY UPDATE SKIP LOCKED
    ) q
    WHERE d.due_at > p_now;
    UPDATE wa_queue_due d SET due_at = CASE WHEN u.is_retry THEN d.due_at - p_by ELSE p_now END
    FROM unnest(v_rows.orgs, v_rows.ids, v_rows.are_retries) u (org, id, is_retry)
    WHERE d.organization_id = u.org AND d.queue_id = u.id;
    UPDATE wa_outbound_queue q
    SET scheduled_at = least(q.scheduled_at, p_now), change_no = q.change_no + 1
    FROM unnest(v_rows.orgs, v_rows.ids) u (org, id)
    WHERE q.organization_id = u.org AND q.id = u.id;
    UPDATE wa_queue_inflight i SET deadline_at = i.deadline_at - p_by, claimed_at = least(i.claimed_at, p_now)
    WHERE i.claimed_at > p_now AND i.deadline_at < 'infinity';
END
$$;

COMMENT ON FUNCTION _wa_bring_back_queued(timestamptz, interval) IS
'Internal: lets go what waits only because the clock was set back to p_now, by so much.';

CREATE OR REPLACE FUNCTION _wa_assign_numbers(p_org uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_queue_due d SET number_id = o.default_number_id
    FROM wa_organizations o
    WHERE o.id = p_org AND d.organization_id = p_org AND d.number_id IS NULL AND d.hold_id IS NULL
        AND o.default_number_id IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_assign_numbers(uuid) IS
'Internal: gives the default number to rows that were queued before there was one.';

CREATE OR REPLACE FUNCTION tg_wa_organizations__assign_numbers() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_assign_numbers(NEW.id);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_organizations__assign_numbers() IS
'Gives an organization''s first number to what waited for one.';

CREATE OR REPLACE TRIGGER assign_numbers AFTER UPDATE OF default_number_id ON wa_organizations
FOR EACH ROW WHEN (OLD.default_number_id IS NULL AND NEW.default_number_id IS NOT NULL)
EXECUTE FUNCTION tg_wa_organizations__assign_numbers();
