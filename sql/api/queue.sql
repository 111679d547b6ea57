-- What happens when an application inserts, updates or deletes rows of the queue.

-- Per row and quiet: fills in what RETURNING shows. What is malformed is only marked here (error_code), so
-- that the statement trigger can refuse all bad rows of a statement in one error.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__prepare() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_phone text;
    v_region text;
    v_area_code text;
BEGIN
    IF NEW.id IS NULL THEN
        NEW.id := _wa_uuid7(clock_timestamp());
    END IF;
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
    IF NEW.type IS NULL THEN
        NEW.type := CASE
            WHEN NEW.template_name IS NOT NULL THEN 'template'
            WHEN NEW.text_body IS NOT NULL THEN 'text'
            ELSE coalesce(NEW.content ->> 'type', '')
        END;
    ELSE
        NEW.type := lower(NEW.type);
    END IF;
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
    NEW.phone := coalesce(NEW.phone, '');
    IF left(NEW.phone, 1) = '+' OR NOT _wa_is_user_id(NEW.phone) THEN
        IF left(NEW.phone, 1) = '+' THEN
            v_phone := try_normalize_phone_e164(NEW.phone);
        ELSE
            SELECT o.default_region, o.default_area_code INTO v_region, v_area_code
            FROM wa_organizations o WHERE o.id = NEW.organization_id;
            v_phone := try_normalize_phone_e164(NEW.phone, v_region, v_area_code);
        END IF;
        IF v_phone IS NULL THEN
            NEW.error_code := 'WA001';
        ELSE
            NEW.phone := v_phone;
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_outbound_queue__prepare() IS
'Gives a new row its id, normalised phone, type and expiry; forces what only sending may set.';

-- One statement looks everything up and queues what may go, a row or a million: where all is well nothing else
-- runs. It is run again once the contacts that were not known are made; what it still leaves out goes to
-- _wa_queue_the_rest().
--
-- Its plan is made once a session, whatever the tables held then: every look-up is by key.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__enqueue() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_count bigint;
    v_queued bigint := 0;
    v_found bigint;
    v_is_second boolean := false;
BEGIN
    SELECT count(*) INTO v_count FROM new_rows n;
    LOOP
        INSERT INTO wa_queue_due (
            organization_id, number_id, class, due_at, queue_id, contact_id, template_id
        )
        SELECT n.organization_id, r.number_id, _wa_queue_class(n.priority, _wa_is_metered(t.id, t.category)),
            greatest(n.scheduled_at, v_now), n.id, c.contact_id, t.id
        FROM new_rows n
        CROSS JOIN LATERAL _wa_contact_of(n.organization_id, n.phone) c
        CROSS JOIN LATERAL (
            SELECT x.default_number_id, x.window_margin FROM wa_organizations x
            WHERE x.id = n.organization_id LIMIT 1
        ) o
        CROSS JOIN LATERAL _wa_route(
            n.organization_id, n.phone_number_id, c.contact_id, o.default_number_id
        ) r
        LEFT JOIN LATERAL _wa_template_of(
            n.organization_id, n.template_name, n.template_language, r.waba_id, v_now
        ) t ON n.type = 'template'
        LEFT JOIN LATERAL (
            SELECT true AS is_opted_out FROM wa_opt_outs x
            WHERE x.organization_id = n.organization_id AND x.contact_id = c.contact_id
                AND x.revoked_at IS NULL AND (x.scope = 'all' OR t.category = 'MARKETING')
            LIMIT 1
        ) e ON true
        WHERE n.error_code IS NULL
            AND CASE
                -- The usual text and the usual template need no function call.
                WHEN (n.phone_number_id IS NULL OR r.named_id IS NOT NULL)
                    AND n.content IS NULL AND n.fallback_template_name IS NULL
                    AND CASE n.type
                        WHEN 'text' THEN n.text_body ~ '\S' AND char_length(n.text_body) <= 4096
                        WHEN 'template'
                            THEN t.is_plain AND _wa_are_plain_params(n.template_params, t.body_count)
                    END
                    THEN true
                ELSE coalesce(
                    _wa_check_queue_row(
                        n.organization_id, n.error_code, n.phone_number_id, r.named_id, n.type, n.text_body,
                        n.content, n.template_name, n.template_language, r.waba_id, n.template_params, t.id
                    ),
                    _wa_check_fallback(
                        n.organization_id, n.fallback_template_name, n.fallback_template_language, r.waba_id,
                        n.fallback_template_params
                    )
                ) IS NULL
            END
            AND NOT _wa_counts_when_queued(
                _wa_refusal(
                    t.id IS NOT NULL, t.is_sendable,
                    _wa_can_reply(r.last_customer_message_at, r.window_denied_at, v_now, o.window_margin),
                    e.is_opted_out
                ),
                n.scheduled_at, n.fallback_template_name, r.number_id, v_now
            )
            AND NOT (v_is_second AND coalesce((
                SELECT true FROM wa_queue_due x
                WHERE x.organization_id = n.organization_id AND x.queue_id = n.id LIMIT 1
            ), false));
        GET DIAGNOSTICS v_found = ROW_COUNT;
        v_queued := v_queued + v_found;
        EXIT WHEN v_queued = v_count OR v_is_second;
        PERFORM FROM (
            SELECT n.organization_id,
                array_agg(CASE WHEN NOT _wa_is_user_id(n.phone) THEN n.phone END) AS phones,
                array_agg(CASE WHEN _wa_is_user_id(n.phone) THEN n.phone END) AS user_ids
            FROM new_rows n
            WHERE n.error_code IS NULL AND NOT EXISTS (SELECT FROM _wa_contact_of(n.organization_id, n.phone))
            GROUP BY n.organization_id
        ) u
        CROSS JOIN LATERAL _wa_resolve_contacts(u.organization_id, u.phones, u.user_ids, 'queue') x;
        v_is_second := true;
    END LOOP;
    IF v_queued < v_count THEN
        PERFORM _wa_queue_the_rest(u.organization_id, u.ids) FROM (
            SELECT n.organization_id, array_agg(n.id ORDER BY n.id) AS ids FROM new_rows n
            GROUP BY n.organization_id
        ) u;
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

-- Rows with a fault, and refused ones. All bad rows of a statement are refused in one error.
CREATE OR REPLACE FUNCTION _wa_queue_the_rest(p_org uuid, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org wa_organizations;
    v_sum record;
BEGIN
    SELECT * INTO v_org FROM wa_organizations WHERE id = p_org;
    WITH checked AS (
        SELECT q.id, q.phone, q.priority, q.scheduled_at, c.contact_id, r.number_id, t.id AS template_id,
            t.category,
            coalesce(
                _wa_check_queue_row(
                    p_org, q.error_code, q.phone_number_id, r.named_id, q.type, q.text_body, q.content,
                    q.template_name, q.template_language, r.waba_id, q.template_params, t.id
                ),
                _wa_check_fallback(
                    p_org, q.fallback_template_name, q.fallback_template_language, r.waba_id,
                    q.fallback_template_params
                )
            ) AS bad
        FROM unnest(p_ids) u (id)
        JOIN wa_outbound_queue q ON q.organization_id = p_org AND q.id = u.id
        LEFT JOIN LATERAL _wa_contact_of(p_org, q.phone) c ON q.error_code IS NULL
        CROSS JOIN LATERAL _wa_route(p_org, q.phone_number_id, c.contact_id, v_org.default_number_id) r
        LEFT JOIN LATERAL _wa_template_of(
            p_org, q.template_name, q.template_language, r.waba_id, clock_timestamp()
        ) t ON q.type = 'template'
        WHERE NOT EXISTS (
            SELECT FROM wa_queue_due d WHERE d.organization_id = p_org AND d.queue_id = u.id
        )
    ),
    queued AS (
        INSERT INTO wa_queue_due (
            organization_id, number_id, class, due_at, queue_id, contact_id, template_id
        )
        SELECT p_org, c.number_id, _wa_queue_class(c.priority, _wa_is_metered(c.template_id, c.category)),
            greatest(c.scheduled_at, clock_timestamp()), c.id, c.contact_id, c.template_id
        FROM checked c WHERE c.bad IS NULL
        RETURNING queue_id
    )
    SELECT
        count(*) FILTER (WHERE c.bad IS NOT NULL) AS bad,
        (array_agg(format('%s: %s', quote_ident(c.phone), c.bad[2]) ORDER BY c.id)
            FILTER (WHERE c.bad IS NOT NULL))[1:10] AS details,
        (array_agg(to_jsonb(c.bad) ORDER BY c.id) FILTER (WHERE c.bad IS NOT NULL))[1] AS first,
        ARRAY(SELECT q.queue_id FROM queued q) AS queued
    INTO v_sum
    FROM checked c;
    IF v_sum.bad > 0 THEN
        PERFORM _wa_raise_bad_rows(
            v_sum.bad, cardinality(p_ids), v_sum.details, v_sum.first ->> 0, v_sum.first ->> 1,
            v_sum.first ->> 2
        );
    END IF;
    PERFORM _wa_refuse_rows(v_org, v_sum.queued, cardinality(p_ids));
END
$$;

COMMENT ON FUNCTION _wa_queue_the_rest(uuid, uuid[]) IS
'Internal: raises for the malformed ones of the given rows that are not due yet; queues the others, then refuses '
'what may not be sent.';

CREATE OR REPLACE FUNCTION _wa_is_metered(p_template_id uuid, p_category text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_template_id IS NOT NULL AND p_category IS DISTINCT FROM 'AUTHENTICATION';

COMMENT ON FUNCTION _wa_is_metered(uuid, text) IS
'Internal: whether the organization''s rate limit counts a message: templates other than authentication. '
'Free-form messages are replies inside a window by rule.';

CREATE OR REPLACE FUNCTION _wa_queue_class(p_priority text, p_is_metered boolean) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (CASE p_priority WHEN 'high' THEN 1 WHEN 'normal' THEN 3 ELSE 5 END + p_is_metered::integer)::smallint;

COMMENT ON FUNCTION _wa_queue_class(text, boolean) IS
'Internal: the class of a due row: 1, 3, 5 for high, normal, low; one more when the organization''s rate '
'counts it.';

CREATE OR REPLACE FUNCTION _wa_check_queue_row(
    p_org uuid, p_mark text, p_phone_number_id text, p_number_id bigint, p_type text, p_text_body text,
    p_content jsonb, p_template_name text, p_template_language text, p_waba_id text, p_template_params jsonb,
    p_template_id uuid
) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_types CONSTANT text[] := ARRAY[
        'text', 'template', 'image', 'document', 'audio', 'video', 'sticker', 'interactive', 'location',
        'contacts', 'reaction'
    ];
    v_sqlstate text;
    v_problem text;
    v_hint text;
BEGIN
    IF p_mark IS NOT NULL THEN
        v_sqlstate := p_mark;
        v_problem := 'not a phone number or business-scoped user id';
        v_hint := 'Give + and the country code, or set wa_organizations.default_region for national forms.';
    ELSIF p_phone_number_id IS NOT NULL AND p_number_id IS NULL THEN
        v_sqlstate := 'WA010';
        v_problem := format('no business number with the id "%s"', p_phone_number_id);
        v_hint := 'SELECT phone_number_id FROM wa_phone_numbers; register_wa_phone_number() adds one.';
    ELSIF NOT p_type = ANY (v_types) THEN
        v_sqlstate := 'WA009';
        v_problem := CASE WHEN p_type = '' THEN 'no text_body, template_name or type with content given'
            ELSE format('unknown message type "%s"', p_type) END;
        v_hint := format('Known types: %s.', array_to_string(v_types, ', '));
    ELSIF p_type = 'template' THEN
        IF p_template_name IS NULL THEN
            v_sqlstate := 'WA009';
            v_problem := 'a template message needs template_name';
            v_hint := 'SELECT name, language FROM wa_templates;';
        ELSIF p_template_id IS NULL OR NOT coalesce(p_content ? 'components', false) THEN
            SELECT c.sqlstate, c.problem, c.hint INTO v_sqlstate, v_problem, v_hint
            FROM _wa_check_template_params(
                p_org, p_template_name, p_template_language, p_waba_id, p_template_params
            ) c;
        END IF;
    ELSIF p_type = 'text' AND (p_text_body IS NULL OR p_text_body !~ '\S') THEN
        v_sqlstate := 'WA008';
        v_problem := 'text_body is empty';
        v_hint := 'Give the text of the message.';
    ELSE
        v_problem := _wa_check_content(
            p_type, CASE p_type
                WHEN 'text' THEN coalesce(p_content, '{}') || jsonb_build_object('body', p_text_body)
                ELSE p_content
            END
        );
        v_sqlstate := CASE
            WHEN v_problem IS NULL THEN NULL
            WHEN v_problem ~ 'longer than|characters' THEN 'WA007'
            ELSE 'WA008'
        END;
        v_hint := 'The limits are those of the Cloud API''s message types; see the reference.';
    END IF;
    RETURN CASE WHEN v_sqlstate IS NOT NULL THEN ARRAY[v_sqlstate, v_problem, v_hint] END;
END
$$;

COMMENT ON FUNCTION _wa_check_queue_row(
    uuid, text, text, bigint, text, text, jsonb, text, text, text, jsonb, uuid
) IS 'Internal: what is malformed about a row: SQLSTATE, sentence and hint; NULL when it is fine.';

CREATE OR REPLACE FUNCTION _wa_check_fallback(
    p_org uuid, p_name text, p_language text, p_waba_id text, p_params jsonb
) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT ARRAY[c.sqlstate, 'fall-back: ' || c.problem, c.hint]
    FROM _wa_check_template_params(p_org, p_name, p_language, p_waba_id, p_params) c
    WHERE p_name IS NOT NULL AND c.sqlstate IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_check_fallback(uuid, text, text, text, jsonb) IS
'Internal: what is malformed about a fall-back template: SQLSTATE, sentence and hint; NULL when it is fine.';

CREATE OR REPLACE FUNCTION _wa_raise_bad_rows(
    p_bad bigint, p_row_count bigint, p_details text[], p_sqlstate text, p_problem text, p_hint text
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = p_sqlstate,
        MESSAGE = CASE WHEN p_row_count = 1 THEN p_problem
            ELSE format('%s of %s messages refused; the first: %s', p_bad, p_row_count, p_problem) END,
        DETAIL = array_to_string(p_details, E'\n'),
        HINT = p_hint,
        TABLE = 'wa_outbound_queue';
END
$$;

COMMENT ON FUNCTION _wa_raise_bad_rows(bigint, bigint, text[], text, text, text) IS
'Internal: raises one error for all bad rows of a statement. Values stand in the DETAIL only, the first ten.';

-- Insert and reschedule share it. A row due now must be allowed now; opt-outs and templates always count.
CREATE OR REPLACE FUNCTION _wa_refuse_rows(p_org wa_organizations, p_ids uuid[], p_row_count bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_record record;
BEGIN
    FOR v_record IN
        SELECT j.refusal, array_agg(j.queue_id) AS ids,
            array_agg(format('%s: %s', quote_ident(q.phone), _wa_refusal_text(j.refusal))
                ORDER BY q.id) AS details,
            coalesce(q.on_refusal, (p_org).on_refusal) AS on_refusal, count(*) AS refused
        FROM (
            SELECT array_agg(d.queue_id) AS ids, array_agg(d.number_id) AS number_ids,
                array_agg(d.contact_id) AS contact_ids, array_agg(d.template_id) AS template_ids
            FROM wa_queue_due d WHERE d.organization_id = (p_org).id AND d.queue_id = ANY (p_ids)
        ) a
        CROSS JOIN LATERAL _wa_judge(
            (p_org).id, a.ids, a.number_ids, a.contact_ids, a.template_ids, (p_org).window_margin, v_now
        ) j
        CROSS JOIN LATERAL (
            SELECT x.id, x.phone, x.on_refusal, x.scheduled_at, x.fallback_template_name
            FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = j.queue_id LIMIT 1
        ) q
        WHERE _wa_counts_when_queued(
            j.refusal, q.scheduled_at, q.fallback_template_name, j.number_id, v_now
        )
        GROUP BY j.refusal, coalesce(q.on_refusal, (p_org).on_refusal)
        ORDER BY 4
    LOOP
        IF v_record.on_refusal = 'raise' THEN
            PERFORM _wa_raise_bad_rows(
                v_record.refused, p_row_count, v_record.details[1:10],
                _wa_refusal_sqlstate(v_record.refusal), _wa_refusal_text(v_record.refusal),
                _wa_refusal_hint(v_record.refusal)
            );
        END IF;
        PERFORM _wa_fail_messages((p_org).id, v_record.ids, v_record.refusal,
            _wa_refusal_text(v_record.refusal));
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_refuse_rows(wa_organizations, uuid[], bigint) IS
'Internal: raises for, or records as failed, those of the given rows, of so many in the statement, that may not '
'be sent.';

CREATE OR REPLACE FUNCTION _wa_warn_of_wait(p_org uuid, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_limit bigint := (SELECT o.rate_limit_per_minute FROM wa_organizations o WHERE o.id = p_org);
    v_queued bigint;
BEGIN
    IF cardinality(p_ids) > v_limit * 10 THEN
        -- The even classes are those that the limit counts.
        SELECT count(*) INTO v_queued
        FROM unnest(p_ids) u (id)
        JOIN wa_queue_due d ON d.organization_id = p_org AND d.queue_id = u.id
        WHERE d.class % 2 = 0;
    END IF;
    IF v_queued > v_limit * 10 THEN
        RAISE WARNING USING
            MESSAGE = format('%s messages queued: at %s a minute they take about %s', v_queued, v_limit,
                justify_hours(make_interval(mins => ceil(v_queued::numeric / v_limit)::integer))),
            HINT = 'wa_organizations.rate_limit_per_minute sets the limit; NULL switches it off.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_warn_of_wait(uuid, uuid[]) IS
'Internal: warns when a statement queues more than ten minutes'' worth of the organization''s rate limit.';

CREATE OR REPLACE FUNCTION _wa_notify_dispatchers() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(_wa_gate()) THEN
        PERFORM pg_notify('wa_queue', '');
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_notify_dispatchers() IS
'Internal: wakes the dispatchers if all of them sleep; see _wa_gate().';

-- WHEN keeps our own updates (which advance change_no) from ever calling it.
CREATE OR REPLACE FUNCTION tg_wa_outbound_queue__change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_fixed text;
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
            HINT = 'Times, priority and status = ''cancelled'' may be changed; else cancel it, insert anew.';
    END IF;
    IF (OLD.status, OLD.scheduled_at, OLD.expires_at, OLD.priority, OLD.on_unknown)
        IS NOT DISTINCT FROM (NEW.status, NEW.scheduled_at, NEW.expires_at, NEW.priority, NEW.on_unknown)
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status <> 'pending' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA201',
            MESSAGE = format('message %s is %s: only pending ones can be changed', OLD.id, OLD.status),
            HINT = CASE WHEN OLD.status IN ('failed', 'cancelled') THEN 'retry_wa_messages() queues it again.'
                ELSE 'It is with the provider already.' END;
    END IF;
    IF NEW.status = 'cancelled' THEN
        NEW.processed_at := clock_timestamp();
        DELETE FROM wa_queue_due WHERE organization_id = OLD.organization_id AND queue_id = OLD.id;
        RETURN NEW;
    END IF;
    UPDATE wa_queue_due
    SET due_at = greatest(NEW.scheduled_at, clock_timestamp()), hold_reason = NULL,
        class = _wa_queue_class(NEW.priority, class % 2 = 0)
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
BEGIN
    SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = NEW.organization_id;
    PERFORM _wa_refuse_rows(v_org, ARRAY[NEW.id], 1);
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

CREATE OR REPLACE TRIGGER remove BEFORE DELETE ON wa_outbound_queue
FOR EACH ROW EXECUTE FUNCTION tg_wa_outbound_queue__delete();

REVOKE ALL ON FUNCTION tg_wa_outbound_queue__prepare(), tg_wa_outbound_queue__enqueue(),
tg_wa_outbound_queue__change(), tg_wa_outbound_queue__recheck(), tg_wa_outbound_queue__delete(),
_wa_queue_class(text, boolean), _wa_is_metered(uuid, text),
_wa_check_queue_row(uuid, text, text, bigint, text, text, jsonb, text, text, text, jsonb, uuid),
_wa_check_fallback(uuid, text, text, text, jsonb),
_wa_raise_bad_rows(bigint, bigint, text[], text, text, text), _wa_refuse_rows(wa_organizations, uuid[], bigint),
_wa_warn_of_wait(uuid, uuid[]), _wa_queue_the_rest(uuid, uuid[]), _wa_notify_dispatchers() FROM PUBLIC;
GRANT SELECT, INSERT ON wa_outbound_queue TO wa_app;
GRANT UPDATE (scheduled_at, expires_at, priority, status, reference, metadata, customer_id, on_refusal,
on_unknown)
ON wa_outbound_queue TO wa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON wa_outbound_queue TO wa_admin;
GRANT SELECT ON wa_queue_due, wa_queue_inflight TO wa_admin;
