-- What is wrong with a queued row, and what is said about it.

-- What a program made of a number gets a sentence of its own: whoever reads it looks at the way it came, not
-- at the number.
CREATE OR REPLACE FUNCTION _wa_recipient_problem(p_phone text) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    SELECT CASE WHEN x.problem ~ '\ma program\M'
        THEN ARRAY['WA001', 'not a phone number: ' || x.problem, x.hint]
        ELSE ARRAY['WA001', 'not a phone number or business-scoped user id',
            'Give + and the country code, or set wa_organizations.default_region for national forms.']
    END
    FROM _wa_parse_phone(p_phone, NULL, NULL) x
$$;

COMMENT ON FUNCTION _wa_recipient_problem(text) IS
'Internal: what is said of a recipient who is none: SQLSTATE, sentence and hint.';

CREATE OR REPLACE FUNCTION _wa_time_problem(
    p_scheduled_at timestamptz, p_expires_at timestamptz, p_created_at timestamptz
) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT isfinite(p_scheduled_at) THEN ARRAY[
        'WA011', format('scheduled_at is %s, which is no time to send at', p_scheduled_at),
        'Leave it out to send at once. What shall wait for a decision is better inserted after it.'
    ]
    WHEN p_expires_at <= p_scheduled_at THEN ARRAY[
        'WA011', format('it expires at %s, not after %s, when it is due', p_expires_at, p_scheduled_at),
        'Set expires_at after scheduled_at, or leave it out.'
    ]
    WHEN NOT isfinite(p_created_at) THEN ARRAY[
        'WA011', format('created_at is %s, which is no time', p_created_at), 'Leave it out.'
    ]
END;

COMMENT ON FUNCTION _wa_time_problem(timestamptz, timestamptz, timestamptz) IS
'Internal: what is wrong with the times of a row: SQLSTATE, sentence and hint; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_check_queue_row(
    p_org uuid, p_phone_number_id text, p_number_id bigint, p_type text, p_text_body text,
    p_content jsonb, p_template_name text, p_template_language text, p_waba_id text, p_template_params jsonb
) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
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
    IF p_phone_number_id IS NOT NULL AND p_number_id IS NULL THEN
        v_sqlstate := 'WA010';
        v_problem := format('no business number with the id "%s"', left(p_phone_number_id, 100));
        v_hint := 'SELECT phone_number_id FROM wa_phone_numbers; register_wa_phone_number() adds one.';
    ELSIF NOT p_type = ANY (v_types) THEN
        v_sqlstate := 'WA009';
        v_problem := CASE WHEN p_type = '' THEN 'no text_body, template_name or type with content given'
            ELSE format('unknown message type "%s"', left(p_type, 100)) END;
        v_hint := format('Known types: %s.', array_to_string(v_types, ', '));
    ELSIF p_type = 'template' THEN
        IF p_template_name IS NULL THEN
            v_sqlstate := 'WA009';
            v_problem := 'a template message needs template_name';
            v_hint := 'SELECT name, language FROM wa_templates;';
        ELSE
            SELECT c.sqlstate, c.problem, c.hint INTO v_sqlstate, v_problem, v_hint
            FROM _wa_check_template_params(
                p_org, p_template_name, p_template_language, p_waba_id,
                _wa_queued_params(p_type, p_content, p_template_params, NULL)
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
        v_hint := 'The limits are those of the Cloud API''s message types; see Meta''s reference.';
        IF v_problem IS NULL AND _wa_named_file(p_type, p_content) IS NOT NULL THEN
            RETURN _wa_named_file_problem(p_org, p_type, p_content ->> 'media_id');
        END IF;
    END IF;
    RETURN CASE WHEN v_sqlstate IS NOT NULL THEN ARRAY[v_sqlstate, v_problem, v_hint] END;
END
$$;

COMMENT ON FUNCTION _wa_check_queue_row(
    uuid, text, bigint, text, text, jsonb, text, text, text, jsonb
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

CREATE OR REPLACE FUNCTION _wa_is_plain_text(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_text ~ '\S' AND char_length(p_text) <= 4096;

COMMENT ON FUNCTION _wa_is_plain_text(text) IS
'Internal: whether the body of a text message is neither empty nor longer than the API takes.';

CREATE OR REPLACE FUNCTION _wa_queue_rows(p_org uuid, p_ids uuid[]) RETURNS SETOF wa_outbound_queue
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT q.* FROM unnest(p_ids) u (id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM wa_outbound_queue x WHERE x.organization_id = p_org AND x.id = u.id LIMIT 1
    ) q;
END;

COMMENT ON FUNCTION _wa_queue_rows(uuid, uuid[]) IS 'Internal: queued messages, each looked up by its key.';

-- Told, not raised: whoever was called from outside raises it, so that psql shows one line of context beneath
-- the HINT of an INSERT, not one for each function on the way.
CREATE OR REPLACE FUNCTION _wa_error_of_rows(
    p_row_count bigint, p_phones text[], p_problems text[], p_sqlstate text, p_hint text
) RETURNS text[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT ARRAY[
        p_sqlstate,
        CASE WHEN p_row_count = 1 THEN p_problems[1]
            ELSE format('%s of %s messages refused; the first: %s', cardinality(p_phones), p_row_count,
                p_problems[1]) END,
        CASE WHEN p_row_count = 1 THEN format('Recipient: %s.', quote_literal(left(p_phones[1], 100)))
            ELSE (
                SELECT string_agg(format('%s: %s', quote_literal(left(b.phone, 100)), b.problem), E'\n'
                    ORDER BY b.n)
                FROM unnest(p_phones[1:10], p_problems[1:10]) WITH ORDINALITY b (phone, problem, n)
            ) END,
        p_hint
    ]
$$;

COMMENT ON FUNCTION _wa_error_of_rows(bigint, text[], text[], text, text) IS
'Internal: one error for all bad rows of a statement: SQLSTATE, MESSAGE, DETAIL, which alone names '
'recipients (the first ten), and HINT.';

-- Insert and reschedule share it. A row due now must be allowed now; opt-outs and templates always count.
CREATE OR REPLACE FUNCTION _wa_refuse_rows(p_org wa_organizations, p_ids uuid[], p_row_count bigint)
RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_record record;
BEGIN
    FOR v_record IN
        SELECT r.refusal, array_agg(j.queue_id) AS ids,
            array_agg(q.phone ORDER BY q.id) AS phones,
            coalesce(q.on_refusal, (p_org).on_refusal) AS on_refusal,
            array_agg(j.hold_until) AS waits_until, array_agg(j.hold_reason) AS waits_for
        FROM (
            SELECT array_agg(d.queue_id) AS ids, array_agg(d.number_id) AS number_ids,
                array_agg(d.contact_id) AS contact_ids, array_agg(d.template_id) AS template_ids
            FROM wa_queue_due d
            LEFT JOIN LATERAL (
                SELECT x.channel FROM wa_phone_numbers x
                WHERE x.organization_id = (p_org).id AND x.id = d.number_id LIMIT 1
            ) n ON true
            WHERE d.organization_id = (p_org).id AND d.queue_id = ANY (p_ids)
            GROUP BY n.channel = 'sms'
        ) a
        CROSS JOIN LATERAL _wa_judge(
            (p_org).id, a.ids, a.number_ids, a.contact_ids, a.template_ids, (p_org).window_margin, v_now
        ) j
        CROSS JOIN LATERAL (
            SELECT x.id, x.phone, x.on_refusal, x.scheduled_at, x.expires_at, x.fallback_template_name
            FROM wa_outbound_queue x
            WHERE x.organization_id = (p_org).id AND x.id = j.queue_id LIMIT 1
        ) q
        CROSS JOIN LATERAL (
            SELECT _wa_wait_refusal(j.refusal, j.hold_reason, j.hold_until, q.expires_at) AS refusal OFFSET 0
        ) r
        WHERE _wa_counts_when_queued(
                r.refusal, q.scheduled_at, q.fallback_template_name, j.number_id, v_now
            ) AND NOT (q.scheduled_at > v_now AND r.refusal IN ('contact_cap', 'cool_off'))
            OR r.refusal IS NULL AND j.hold_reason <> 'restricted' AND q.scheduled_at <= v_now
        GROUP BY r.refusal, coalesce(q.on_refusal, (p_org).on_refusal)
        ORDER BY r.refusal IS NULL, 4
    LOOP
        IF v_record.refusal IS NULL THEN
            PERFORM _wa_postpone_due(
                (p_org).id, v_record.ids, v_record.waits_until, v_record.waits_for);
            CONTINUE;
        END IF;
        IF v_record.on_refusal = 'raise' THEN
            RETURN _wa_error_of_rows(
                p_row_count, v_record.phones,
                array_fill(_wa_refusal_text(v_record.refusal), ARRAY[cardinality(v_record.phones)]),
                _wa_refusal_sqlstate(v_record.refusal), _wa_refusal_hint(v_record.refusal)
            );
        END IF;
        PERFORM _wa_fail_messages((p_org).id, v_record.ids, v_record.refusal,
            _wa_refusal_text(v_record.refusal));
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_refuse_rows(wa_organizations, uuid[], bigint) IS
'Internal: records as failed, or returns an error for, those of the given rows, of so many in the statement, '
'that may not be sent; what is due and has to wait on its contact''s account does so.';

CREATE OR REPLACE FUNCTION _wa_warn_of_wait(p_org uuid, p_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_limit bigint := (SELECT o.rate_limit_per_minute FROM wa_organizations o WHERE o.id = p_org);
    v_queued bigint;
BEGIN
    IF cardinality(p_ids) > v_limit * 10 THEN
        SELECT count(*) INTO v_queued
        FROM unnest(p_ids) u (id)
        CROSS JOIN LATERAL (
            SELECT x.class FROM wa_queue_due x WHERE x.organization_id = p_org AND x.queue_id = u.id LIMIT 1
        ) d
        WHERE _wa_is_metered_class(d.class);
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

-- Templates change behind an application's back, at Meta, so that they count as a reason to refuse a row,
-- which may be recorded. Any other fault is the program's own; and without a recipient there is no contact.
CREATE OR REPLACE FUNCTION _wa_is_fault_of_template(p_type text, p_bad text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_type = 'template' AND p_bad[1] NOT IN ('WA001', 'WA009', 'WA010', 'WA011')
    OR p_bad[1] <> 'WA001' AND p_bad[2] LIKE 'fall-back: %';

COMMENT ON FUNCTION _wa_is_fault_of_template(text, text[]) IS
'Internal: whether what is malformed about a row of that type is that its template, or the one to fall '
'back on, is unknown or that the values do not fit it.';

-- Rows of every make, with faults and without, to contacts old and new. All bad rows of a statement are
-- refused in one error, except those whose faults are recorded.
CREATE OR REPLACE FUNCTION _wa_queue_the_rest(p_org uuid, p_ids uuid[], p_contact_ids bigint[] DEFAULT NULL)
RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_org wa_organizations;
    v_sum record;
    v_recorded record;
BEGIN
    PERFORM _wa_analyze_refilled('{wa_outbound_queue}', cardinality(p_ids));
    -- In a statement of its own: what is checked below is what stays.
    PERFORM _wa_use_media(
        p_org, array_agg(_wa_named_file(q.type, q.content)), array_agg(greatest(q.scheduled_at, v_now))
    )
    FROM _wa_queue_rows(p_org, p_ids) q
    WHERE _wa_named_file(q.type, q.content) IS NOT NULL
    HAVING count(*) > 0;
    PERFORM FROM (
        SELECT
            array_agg(CASE WHEN NOT _wa_is_user_id(q.phone) THEN q.phone END) AS phones,
            array_agg(CASE WHEN _wa_is_user_id(q.phone) THEN q.phone END) AS user_ids
        FROM _wa_queue_rows(p_org, p_ids) q
        WHERE p_contact_ids IS NULL AND q.error_code IS NULL
            AND NOT EXISTS (SELECT FROM _wa_contact_of(p_org, q.phone))
        HAVING count(*) > 0
    ) n
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, n.phones, n.user_ids, 'queue') x;
    WITH checked AS MATERIALIZED (
        SELECT q.id, q.phone, q.priority, q.scheduled_at, q.expires_at, c.contact_id, r.number_id,
            t.id AS template_id,
            _wa_is_metered(t.id, t.category) OR coalesce(s.category <> 'AUTHENTICATION', false) AS is_metered,
            CASE
                WHEN q.error_code = 'WA011'
                    THEN _wa_time_problem(q.scheduled_at, q.expires_at, q.created_at)
                WHEN q.error_code IS NOT NULL THEN _wa_recipient_problem(q.phone)
                WHEN q.content IS NULL AND q.fallback_template_name IS NULL
                    AND (q.phone_number_id IS NULL OR r.named_id IS NOT NULL)
                    AND CASE q.type
                        WHEN 'text' THEN _wa_is_plain_text(q.text_body)
                        WHEN 'template'
                            THEN t.is_plain AND _wa_are_plain_params(q.template_params, t.body_count)
                    END
                    THEN NULL
                ELSE coalesce(
                    _wa_check_queue_row(
                        p_org, q.phone_number_id, r.named_id, q.type, q.text_body, q.content,
                        q.template_name, q.template_language, r.waba_id, q.template_params
                    ),
                    _wa_check_fallback(
                        p_org, q.fallback_template_name, q.fallback_template_language, r.waba_id,
                        q.fallback_template_params
                    )
                )
            END AS bad,
            _wa_counts_when_queued(
                _wa_refusal(
                    t.id IS NOT NULL, t.is_sendable,
                    _wa_can_reply(r.last_customer_message_at, r.window_denied_at, v_now, r.window_margin),
                    e.refusal
                ),
                q.scheduled_at, q.fallback_template_name, r.number_id, v_now
            ) AS is_refused,
            q.type, q.on_refusal
        FROM unnest(p_ids, p_contact_ids) u (id, contact_id)
        CROSS JOIN LATERAL _wa_queue_rows(p_org, ARRAY[u.id]) q
        LEFT JOIN LATERAL (
            SELECT k.contact_id FROM _wa_contact_of(p_org, q.phone) k
            WHERE p_contact_ids IS NULL AND q.error_code IS NULL
            UNION ALL
            SELECT u.contact_id WHERE p_contact_ids IS NOT NULL
        ) c ON true
        CROSS JOIN LATERAL _wa_route(p_org, q.phone_number_id, c.contact_id) r
        LEFT JOIN LATERAL (
            SELECT x.channel FROM wa_phone_numbers x
            WHERE x.organization_id = p_org AND x.id = r.number_id LIMIT 1
        ) l ON true
        LEFT JOIN LATERAL _wa_template_of(
            p_org, q.template_name, q.template_language, r.waba_id, r.default_language, v_now
        ) t ON q.type = 'template'
        LEFT JOIN LATERAL _wa_sms_ground(l.channel, p_org, q.id, true) s ON true
        LEFT JOIN LATERAL _wa_opt_out_of(
            p_org, c.contact_id, t.category, r.require_opt_in, q.id, r.last_customer_message_at
        ) e ON true
        WHERE NOT coalesce((
            SELECT true FROM wa_queue_due d WHERE d.organization_id = p_org AND d.queue_id = q.id LIMIT 1
        ), false)
    ),
    decided AS (
        SELECT c.*, c.bad IS NOT NULL AND _wa_is_fault_of_template(c.type, c.bad) AND 'record' = coalesce(
            c.on_refusal, (SELECT o.on_refusal FROM wa_organizations o WHERE o.id = p_org)
        ) AS is_recorded
        FROM checked c
    ),
    -- What is recorded as failed waits until then, too, so that it ends as any row does.
    queued AS (
        INSERT INTO wa_queue_due (
            organization_id, number_id, class, due_at, queue_id, contact_id, template_id, expires_at
        )
        SELECT p_org, c.number_id, _wa_queue_class(c.priority, c.is_metered),
            greatest(c.scheduled_at, v_now), c.id, c.contact_id, c.template_id,
            coalesce(c.expires_at, 'infinity')
        FROM decided c WHERE c.bad IS NULL OR c.is_recorded
    )
    SELECT
        array_agg(c.phone ORDER BY c.id) FILTER (WHERE c.bad IS NOT NULL AND NOT c.is_recorded) AS phones,
        array_agg(c.bad[2] ORDER BY c.id) FILTER (WHERE c.bad IS NOT NULL AND NOT c.is_recorded) AS problems,
        (array_agg(to_jsonb(c.bad) ORDER BY c.id)
            FILTER (WHERE c.bad IS NOT NULL AND NOT c.is_recorded))[1] AS first,
        array_agg(c.id) FILTER (WHERE c.bad IS NULL AND c.is_refused) AS refused,
        array_agg(c.id) FILTER (WHERE c.is_recorded) AS recorded,
        array_agg(c.bad[1]) FILTER (WHERE c.is_recorded) AS codes,
        array_agg(c.bad[2]) FILTER (WHERE c.is_recorded) AS sentences
    INTO v_sum
    FROM decided c;
    IF v_sum.phones IS NOT NULL THEN
        RETURN _wa_error_of_rows(
            cardinality(p_ids), v_sum.phones, v_sum.problems, v_sum.first ->> 0, v_sum.first ->> 2
        );
    END IF;
    IF v_sum.recorded IS NOT NULL THEN
        FOR v_recorded IN
            SELECT u.code, u.sentence, array_agg(u.id) AS ids
            FROM unnest(v_sum.recorded, v_sum.codes, v_sum.sentences) u (id, code, sentence)
            GROUP BY u.code, u.sentence
            ORDER BY u.code, u.sentence
        LOOP
            PERFORM _wa_fail_messages(p_org, v_recorded.ids, v_recorded.code, v_recorded.sentence);
        END LOOP;
    END IF;
    IF v_sum.refused IS NOT NULL THEN
        SELECT o.* INTO v_org FROM wa_organizations o WHERE o.id = p_org;
        RETURN _wa_refuse_rows(v_org, v_sum.refused, cardinality(p_ids));
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_queue_the_rest(uuid, uuid[], bigint[]) IS
'Internal: of the given rows that are not due yet, records those whose template or values are at fault as '
'failed, where on_refusal says so, and returns an error for other malformed ones; queues the rest, then '
'refuses what may not be sent. They are for the contacts given, else for those of their numbers.';
