-- What happens when an application inserts, updates or deletes rows of the queue.

-- Per row and quiet: fills in what RETURNING shows. What is malformed is only marked here (error_code), so
-- that the statement trigger can refuse all bad rows of a statement in one error. Every transaction makes
-- each expression ready anew, so the usual row meets few of them.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__prepare() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_phone text;
BEGIN
    NEW.id := coalesce(NEW.id, _wa_uuid7(clock_timestamp()));
    IF NEW.status IS DISTINCT FROM 'pending' OR NEW.priority NOT IN ('high', 'normal', 'low')
        OR (NEW.attempt = 0 AND NEW.retry_count = 0 AND NEW.change_no = 0) IS NOT TRUE
        OR num_nonnulls(NEW.error_code, NEW.wa_message_id, NEW.claimed_at, NEW.processed_at) > 0
        OR num_nulls(NEW.scheduled_at, NEW.priority, NEW.metadata) > 0 OR NEW.expires_at <= NEW.scheduled_at
        OR NOT (isfinite(NEW.scheduled_at) AND isfinite(NEW.created_at))
    THEN
        NEW.status := 'pending';
        NEW.attempt := 0;
        NEW.retry_count := 0;
        NEW.error_code := NULL;
        NEW.wa_message_id := NULL;
        NEW.claimed_at := NULL;
        NEW.processed_at := NULL;
        NEW.change_no := 0;
        NEW.scheduled_at := coalesce(NEW.scheduled_at, clock_timestamp());
        NEW.priority := lower(coalesce(NEW.priority, 'normal'));
        NEW.metadata := coalesce(NEW.metadata, '{}');
        IF _wa_time_problem(NEW.scheduled_at, NEW.expires_at, NEW.created_at) IS NOT NULL THEN
            NEW.error_code := 'WA011';
        END IF;
    END IF;
    NEW.type := coalesce(lower(NEW.type), CASE
        WHEN NEW.template_name IS NOT NULL THEN 'template'
        WHEN NEW.text_body IS NOT NULL THEN 'text'
        ELSE coalesce(NEW.content ->> 'type', '')
    END);
    IF NEW.type = 'text' AND NEW.text_body IS NULL THEN
        NEW.text_body := NEW.content ->> 'body';
    ELSIF NEW.type = 'template' THEN
        IF NEW.template_name IS NULL THEN
            NEW.template_name := NEW.content ->> 'name';
            NEW.template_language := coalesce(NEW.template_language, NEW.content #>> '{language,code}');
        END IF;
        IF NEW.expires_at IS NULL THEN
            NEW.expires_at := NEW.scheduled_at + CASE WHEN EXISTS (
                SELECT FROM wa_templates t
                WHERE t.organization_id = NEW.organization_id AND lower(t.name) = lower(NEW.template_name)
                    AND t.category = 'AUTHENTICATION'
            ) THEN interval '10 minutes' ELSE interval '24 hours' END;
        END IF;
    END IF;
    IF _wa_is_canonical_phone(NEW.phone) IS NOT TRUE THEN
        NEW.phone := coalesce(NEW.phone, '');
        IF NOT _wa_is_user_id(NEW.phone) THEN
            v_phone := CASE WHEN left(NEW.phone, 1) = '+' THEN try_normalize_phone_e164(NEW.phone) END;
            IF v_phone IS DISTINCT FROM NEW.phone THEN
                v_phone := _wa_read_phone(NEW.organization_id, NEW.phone);
            END IF;
            IF v_phone IS NULL THEN
                NEW.error_code := 'WA001';
            ELSE
                NEW.phone := v_phone;
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__prepare() IS
'Gives a new row its id, normalised phone, type and expiry; forces what only sending may set.';

-- One statement looks everything up and queues what may go, a row or a million, where all rows are of the
-- usual make. Most of what one row costs is making its plan ready, so it knows no more than such rows need;
-- texts that name no number have one of their own, which knows no templates. What is of another make, has a
-- fault, is refused, needs an opt-in or goes to a new contact is left to _wa_queue_the_rest().
--
-- The plans are made once a session, whatever the tables held then: every look-up is by key, in the order
-- written.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__enqueue() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET join_collapse_limit = 1 SET jit = off
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_count bigint;
    v_queued bigint := 0;
    v_are_usual boolean;
    v_are_texts boolean;
    v_may_wait boolean;
    v_rest record;
    v_error text[];
BEGIN
    SELECT count(*), bool_and(n.content IS NULL AND n.fallback_template_name IS NULL AND n.error_code IS NULL),
        bool_and(n.type = 'text' AND n.phone_number_id IS NULL), EXISTS (SELECT FROM wa_quiet_hours)
            OR EXISTS (SELECT FROM wa_quiet_days) OR EXISTS (SELECT FROM wa_contact_caps)
    INTO v_count, v_are_usual, v_are_texts, v_may_wait FROM new_rows n;
    IF v_are_usual AND v_are_texts THEN
        INSERT INTO wa_queue_due (
            organization_id, number_id, class, due_at, queue_id, contact_id, expires_at
        )
        SELECT n.organization_id, r.number_id, _wa_queue_class(n.priority, false),
            greatest(n.scheduled_at, v_now), n.id, c.contact_id, coalesce(n.expires_at, 'infinity')
        FROM new_rows n
        CROSS JOIN LATERAL _wa_contact_of(n.organization_id, n.phone) c
        CROSS JOIN LATERAL _wa_route(n.organization_id, NULL, c.contact_id) r
        LEFT JOIN LATERAL _wa_standing_opt_out(n.organization_id, c.contact_id, NULL) e ON true
        WHERE _wa_is_plain_text(n.text_body)
            AND NOT _wa_counts_when_queued(
                _wa_refusal(
                    false, NULL,
                    _wa_can_reply(r.last_customer_message_at, r.window_denied_at, v_now, r.window_margin),
                    e.refusal
                ),
                n.scheduled_at, NULL, r.number_id, v_now
            );
        GET DIAGNOSTICS v_queued = ROW_COUNT;
    ELSIF v_are_usual THEN
        INSERT INTO wa_queue_due (
            organization_id, number_id, class, due_at, queue_id, contact_id, template_id, expires_at
        )
        SELECT n.organization_id, r.number_id, _wa_queue_class(n.priority, _wa_is_metered(t.id, t.category)),
            greatest(n.scheduled_at, v_now), n.id, c.contact_id, t.id, coalesce(n.expires_at, 'infinity')
        FROM new_rows n
        CROSS JOIN LATERAL _wa_contact_of(n.organization_id, n.phone) c
        CROSS JOIN LATERAL _wa_route(n.organization_id, n.phone_number_id, c.contact_id) r
        LEFT JOIN LATERAL _wa_best_template(
            n.organization_id, n.template_name, n.template_language, r.waba_id, r.default_language, v_now
        ) t ON n.type = 'template'
        LEFT JOIN LATERAL _wa_standing_opt_out(n.organization_id, c.contact_id, t.category) e ON true
        WHERE (n.phone_number_id IS NULL OR r.named_id IS NOT NULL)
            AND CASE n.type
                WHEN 'text' THEN _wa_is_plain_text(n.text_body)
                WHEN 'template' THEN t.is_plain AND t.is_of_language
                    AND _wa_are_plain_params(n.template_params, t.body_count)
            END
            AND NOT _wa_counts_when_queued(
                _wa_refusal(
                    t.id IS NOT NULL, t.is_sendable,
                    _wa_can_reply(r.last_customer_message_at, r.window_denied_at, v_now, r.window_margin),
                    CASE WHEN lower(t.category) = ANY (r.require_opt_in) THEN 'no_opt_in' ELSE e.refusal END
                ),
                n.scheduled_at, NULL, r.number_id, v_now
            );
        GET DIAGNOSTICS v_queued = ROW_COUNT;
    END IF;
    IF v_queued < v_count THEN
        FOR v_rest IN
            SELECT n.organization_id, array_agg(n.id ORDER BY n.id) AS ids FROM new_rows n
            GROUP BY n.organization_id
        LOOP
            v_error := _wa_queue_the_rest(v_rest.organization_id, v_rest.ids);
            IF v_error IS NOT NULL THEN
                RAISE EXCEPTION USING ERRCODE = v_error[1], TABLE = 'wa_outbound_queue',
                    MESSAGE = v_error[2],
                    DETAIL = v_error[3],
                    HINT = v_error[4];
            END IF;
        END LOOP;
    END IF;
    -- What would wait for the hour is out of the way of claims from the start. Cool-offs are theirs to find.
    IF v_may_wait AND NOT v_are_texts THEN
        FOR v_rest IN
            -- Some hundred at a time: a verdict is looked up by its place in a list.
            SELECT o AS org, array_agg(n.id ORDER BY n.id) AS ids
            FROM (
                SELECT u.organization_id, u.id,
                    row_number() OVER (PARTITION BY u.organization_id ORDER BY u.id) / 500 AS batch
                FROM new_rows u
                WHERE u.type = 'template'
            ) n
            JOIN wa_organizations o ON o.id = n.organization_id
            WHERE EXISTS (SELECT FROM wa_quiet_hours x WHERE x.organization_id = o.id)
                OR EXISTS (SELECT FROM wa_quiet_days x WHERE x.organization_id = o.id)
                OR EXISTS (SELECT FROM wa_contact_caps x WHERE x.organization_id = o.id)
            GROUP BY o.id, o, n.batch
            ORDER BY o.id, n.batch
        LOOP
            v_error := _wa_refuse_rows(v_rest.org, v_rest.ids, v_count);
            IF v_error IS NOT NULL THEN
                RAISE EXCEPTION USING ERRCODE = v_error[1], TABLE = 'wa_outbound_queue',
                    MESSAGE = v_error[2],
                    DETAIL = v_error[3],
                    HINT = v_error[4];
            END IF;
        END LOOP;
    END IF;
    -- No limit is so low that fewer rows could wait for long.
    IF v_count > 10 THEN
        PERFORM _wa_warn_of_wait(u.organization_id, u.ids) FROM (
            SELECT n.organization_id, array_agg(n.id) AS ids FROM new_rows n
            WHERE n.type = 'template'
            GROUP BY n.organization_id
        ) u;
    END IF;
    IF NOT pg_try_advisory_xact_lock_shared(_wa_gate()) THEN
        PERFORM pg_notify('wa_queue', '');
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__enqueue() IS
'Checks all rows of a statement at once, finds contacts, numbers and templates, refuses or queues.';

-- WHEN keeps our own updates (which advance change_no) from ever calling it.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_fixed text;
    v_problem text[];
BEGIN
    SELECT string_agg(o.key, ', ' ORDER BY o.key) INTO v_fixed
    FROM jsonb_each(to_jsonb(OLD)) o
    JOIN jsonb_each(to_jsonb(NEW)) n USING (key)
    WHERE o.value IS DISTINCT FROM n.value AND o.key <> ALL (ARRAY[
        'scheduled_at', 'expires_at', 'priority', 'status', 'reference', 'metadata', 'customer_id',
        'on_refusal', 'on_unknown'
    ]);
    IF v_fixed IS NOT NULL OR NEW.status NOT IN (OLD.status, 'cancelled') THEN
        RAISE EXCEPTION USING ERRCODE = 'WA202',
            MESSAGE = format('cannot change %s of a queued message',
                coalesce(v_fixed, format('status to "%s"', NEW.status))),
            DETAIL = format('Message %s.', OLD.id),
            HINT = 'Times, priority and status = ''cancelled'' may be changed; else cancel it, insert anew.';
    END IF;
    -- One that expires before it is due is a way to end it.
    v_problem := _wa_time_problem(NEW.scheduled_at, NULL, NEW.created_at);
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = v_problem[1], TABLE = 'wa_outbound_queue',
            MESSAGE = v_problem[2],
            DETAIL = format('Message %s.', OLD.id),
            HINT = v_problem[3];
    END IF;
    IF (OLD.status, OLD.scheduled_at, OLD.expires_at, OLD.priority, OLD.on_unknown)
        IS NOT DISTINCT FROM (NEW.status, NEW.scheduled_at, NEW.expires_at, NEW.priority, NEW.on_unknown)
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status <> 'pending' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201',
            MESSAGE = format('message %s is %s: only pending ones can be changed', OLD.id, OLD.status),
            DETAIL = format('Since %s.', coalesce(OLD.processed_at, OLD.claimed_at)),
            HINT = CASE WHEN OLD.status IN ('failed', 'cancelled') THEN 'retry_wa_messages() queues it again.'
                ELSE 'It is with the provider already.' END;
    END IF;
    IF NEW.status = 'cancelled' THEN
        NEW.processed_at := clock_timestamp();
        -- Kept for a retry: the number may be somebody else's by then.
        DELETE FROM wa_queue_due WHERE organization_id = OLD.organization_id AND queue_id = OLD.id
        RETURNING contact_id INTO NEW.contact_id;
        RETURN NEW;
    END IF;
    UPDATE wa_queue_due
    SET due_at = greatest(NEW.scheduled_at, clock_timestamp()), hold_reason = NULL, hold_id = NULL,
        expires_at = coalesce(NEW.expires_at, 'infinity'),
        class = _wa_queue_class(NEW.priority, _wa_is_metered_class(class))
    WHERE organization_id = OLD.organization_id AND queue_id = OLD.id;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__change() IS
'Lets an application reschedule, reprioritise or cancel a pending row; refuses everything else (WA201, '
'WA202).';

CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__recheck() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_error text[];
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = NEW.organization_id;
    v_error := _wa_refuse_rows(v_org, ARRAY[NEW.id], 1);
    IF v_error IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = v_error[1], TABLE = 'wa_outbound_queue',
            MESSAGE = v_error[2],
            DETAIL = v_error[3],
            HINT = v_error[4];
    END IF;
    PERFORM _wa_notify_dispatchers();
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__recheck() IS 'Judges a rescheduled row again.';

CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__delete() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF OLD.status = 'sending' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201',
            MESSAGE = format('message %s is being sent and cannot be deleted', OLD.id),
            DETAIL = format('Claimed at %s.', OLD.claimed_at),
            HINT = 'Wait until its outcome is known.';
    END IF;
    DELETE FROM wa_queue_due WHERE organization_id = OLD.organization_id AND queue_id = OLD.id;
    RETURN OLD;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__delete() IS
'Takes a deleted row out of sending; refuses rows that are being sent.';

CREATE OR REPLACE TRIGGER prepare BEFORE INSERT ON wa_outbound_queue
FOR EACH ROW EXECUTE FUNCTION tg_wa_outbound_queue__prepare();

CREATE OR REPLACE TRIGGER enqueue AFTER INSERT ON wa_outbound_queue
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_outbound_queue__enqueue();

CREATE OR REPLACE TRIGGER change BEFORE UPDATE ON wa_outbound_queue
FOR EACH ROW WHEN (OLD.change_no = NEW.change_no) EXECUTE FUNCTION tg_wa_outbound_queue__change();

CREATE OR REPLACE TRIGGER recheck AFTER UPDATE OF scheduled_at, priority ON wa_outbound_queue
FOR EACH ROW WHEN (OLD.change_no = NEW.change_no AND NEW.status = 'pending')
EXECUTE FUNCTION tg_wa_outbound_queue__recheck();

CREATE OR REPLACE TRIGGER delete BEFORE DELETE ON wa_outbound_queue
FOR EACH ROW EXECUTE FUNCTION tg_wa_outbound_queue__delete();
