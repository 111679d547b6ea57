-- What a step looks at: the context of its run, values and conditions that are taken from it, times.

-- In the text of a JSON document: a placeholder with both quotes around it is the whole of a value. By
-- hand: a regular expression takes several times as long, for each message.
CREATE OR REPLACE FUNCTION _wa_fill_flow(p_value jsonb, p_context jsonb, OUT filled jsonb, OUT missing text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_rest text := p_value::text;
    v_done text := '';
    v_at integer := strpos(v_rest, '{{');
    v_end integer;
    v_inner text;
    v_bar integer;
    v_path text;
    v_value jsonb;
    v_is_whole boolean;
BEGIN
    IF v_at IS NULL OR v_at = 0 THEN
        filled := p_value;
        RETURN;
    END IF;
    WHILE v_at > 0 LOOP
        v_end := strpos(substr(v_rest, v_at), '}}');
        EXIT WHEN v_end = 0;
        v_inner := substr(v_rest, v_at + 2, v_end - 3);
        v_bar := strpos(v_inner, '|');
        v_path := btrim(CASE WHEN v_bar > 0 THEN left(v_inner, v_bar - 1) ELSE v_inner END);
        v_value := nullif(p_context #> string_to_array(v_path, '.'), 'null');
        IF v_value IS NULL THEN
            IF v_bar > 0 THEN
                -- It stands in the text of a document: a quote in it is written as one there.
                v_value := ('"' || substr(v_inner, v_bar + 1) || '"')::jsonb;
            ELSE
                missing := concat_ws(', ', missing, v_path);
                v_value := '""';
            END IF;
        END IF;
        v_is_whole := substr(v_rest, v_at - 1, 1) = '"' AND substr(v_rest, v_at + v_end + 1, 1) = '"'
            AND substr(v_rest, v_at - 2, 1) <> '\';
        IF v_is_whole THEN
            v_done := v_done || left(v_rest, v_at - 2) || v_value::text;
            v_rest := substr(v_rest, v_at + v_end + 2);
        ELSE
            v_inner := to_jsonb(v_value #>> '{}')::text;
            v_done := v_done || left(v_rest, v_at - 1) || substr(v_inner, 2, length(v_inner) - 2);
            v_rest := substr(v_rest, v_at + v_end + 1);
        END IF;
        v_at := strpos(v_rest, '{{');
    END LOOP;
    filled := (v_done || v_rest)::jsonb;
END
$$;

COMMENT ON FUNCTION _wa_fill_flow(jsonb, jsonb) IS
'Internal: a value of a definition with {{path}} and {{path|otherwise}} filled in from the context, and the '
'paths of which it has no value. What is nothing but a placeholder becomes the value as it is, a number '
'too.';

CREATE OR REPLACE FUNCTION _wa_flow_number(p_text text) RETURNS numeric
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN CASE WHEN p_text ~ '^ *[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+) *$' THEN p_text::numeric
        ELSE extract(EPOCH FROM p_text::timestamptz)::numeric END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_flow_number(text) IS
'Internal: a number, or a time as seconds, to be compared; NULL for anything else.';

CREATE OR REPLACE FUNCTION _wa_flow_holds(p_condition jsonb, p_context jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_value jsonb;
    v_said text;
    v_part jsonb;
BEGIN
    IF p_condition ? 'all' THEN
        FOR v_part IN SELECT c.value FROM jsonb_array_elements(p_condition -> 'all') c LOOP
            IF NOT _wa_flow_holds(v_part, p_context) THEN
                RETURN false;
            END IF;
        END LOOP;
        RETURN true;
    ELSIF p_condition ? 'any' THEN
        FOR v_part IN SELECT c.value FROM jsonb_array_elements(p_condition -> 'any') c LOOP
            IF _wa_flow_holds(v_part, p_context) THEN
                RETURN true;
            END IF;
        END LOOP;
        RETURN false;
    ELSIF p_condition ? 'not' THEN
        RETURN NOT _wa_flow_holds(p_condition -> 'not', p_context);
    END IF;
    v_value := nullif(p_context #> string_to_array(p_condition ->> 'path', '.'), 'null');
    v_said := lower(btrim(v_value #>> '{}'));
    RETURN coalesce(CASE
        WHEN p_condition ? 'exists' THEN (v_value IS NOT NULL) = (p_condition -> 'exists' = 'true')
        WHEN p_condition ? 'is'
            THEN v_said IS NOT DISTINCT FROM lower(btrim(nullif(p_condition -> 'is', 'null') #>> '{}'))
        WHEN p_condition ? 'in' THEN EXISTS (
            SELECT FROM jsonb_array_elements_text(p_condition -> 'in') i (word)
                WHERE lower(btrim(i.word)) = v_said
        )
        WHEN p_condition ? 'contains' THEN strpos(v_said, lower(p_condition ->> 'contains')) > 0
        WHEN p_condition ? 'above' THEN _wa_flow_number(v_said) > _wa_flow_number(p_condition ->> 'above')
        WHEN p_condition ? 'below' THEN _wa_flow_number(v_said) < _wa_flow_number(p_condition ->> 'below')
        WHEN p_condition ? 'at_least' THEN _wa_flow_number(v_said)
            >= _wa_flow_number(p_condition ->> 'at_least')
        WHEN p_condition ? 'at_most' THEN _wa_flow_number(v_said)
            <= _wa_flow_number(p_condition ->> 'at_most')
    END, false);
END
$$;

COMMENT ON FUNCTION _wa_flow_holds(jsonb, jsonb) IS
'Internal: whether a condition of a branch holds in a context. Words are compared without regard to '
'capitals; what is not there is neither above nor below anything.';

CREATE OR REPLACE FUNCTION _wa_flow_facts(p_org uuid, p_contact_id bigint, p_now timestamptz) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'contact', jsonb_build_object(
            'name', c.profile_name, 'phone', c.phone_e164, 'user_id', c.user_id,
            'customer_id', c.customer_id, 'time_zone', c.time_zone
        ),
        'conversation', jsonb_build_object(
            'is_open', coalesce(
                _wa_can_reply(w.last_customer_message_at, w.window_denied_at, p_now, o.window_margin), false
            ),
            'closes_at', w.last_customer_message_at + interval '24 hours',
            'last_customer_message_at', w.last_customer_message_at,
            'last_business_message_at', w.last_business_message_at,
            'is_answered', coalesce(w.last_business_message_at >= w.last_customer_message_at, false),
            'state', w.state, 'assigned_to', w.assigned_to
        )
    )
    FROM wa_organizations o
    LEFT JOIN wa_contacts c ON c.organization_id = p_org AND c.id = p_contact_id
    LEFT JOIN LATERAL (
        SELECT x.* FROM wa_conversation_windows x
        WHERE x.organization_id = p_org AND x.contact_id = p_contact_id
        ORDER BY greatest(x.last_customer_message_at, x.last_business_message_at) DESC NULLS LAST, x.id DESC
        LIMIT 1
    ) w ON true
    WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_flow_facts(uuid, bigint, timestamptz) IS
'Internal: what conditions and values may say of a contact and its newest conversation, as it is now.';

-- Where a number may lie in several zones the clock that is behind all others counts: nobody is written to
-- before the time.
CREATE OR REPLACE FUNCTION _wa_flow_next_time(
    p_org uuid, p_contact_id bigint, p_at time, p_weekdays jsonb, p_now timestamptz
) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_zone text;
    v_next timestamptz;
BEGIN
    SELECT u.zone INTO v_zone
    FROM (
        SELECT z.zones FROM _wa_zones_of(p_org, p_contact_id) z
        UNION ALL SELECT ARRAY[o.time_zone] FROM wa_organizations o WHERE o.id = p_org
        LIMIT 1
    ) z
    CROSS JOIN LATERAL unnest(z.zones) u (zone)
    ORDER BY p_now AT TIME ZONE u.zone, u.zone LIMIT 1;
    SELECT d.at INTO v_next
    FROM (
        SELECT ((p_now AT TIME ZONE v_zone)::date + n.days + p_at) AT TIME ZONE v_zone AS at,
            extract(ISODOW FROM (p_now AT TIME ZONE v_zone)::date + n.days)::integer AS weekday
        FROM generate_series(0, 8) n (days)
    ) d
    WHERE d.at > p_now AND (p_weekdays IS NULL OR p_weekdays @> to_jsonb(d.weekday))
    ORDER BY d.at LIMIT 1;
    RETURN v_next;
END
$$;

COMMENT ON FUNCTION _wa_flow_next_time(uuid, bigint, time, jsonb, timestamptz) IS
'Internal: when it is next a time of day by the clock of a contact, on one of these weekdays.';

-- until and offset stand apart from the time that is past: the caller says what is done about it.
CREATE OR REPLACE FUNCTION _wa_flow_wait_until(
    p_org uuid, p_contact_id bigint, p_step jsonb, p_context jsonb, p_now timestamptz,
    OUT until timestamptz, OUT missing text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_filled jsonb;
BEGIN
    IF p_step ? 'until' THEN
        SELECT f.filled, f.missing INTO v_filled, missing FROM _wa_fill_flow(p_step -> 'until', p_context) f;
        IF missing IS NULL THEN
            BEGIN
                until := (v_filled #>> '{}')::timestamptz
                    + coalesce(_wa_flow_interval(p_step -> 'offset'), '0');
            EXCEPTION WHEN data_exception THEN
                missing := format('%s is no time', left(v_filled::text, 60));
            END;
        END IF;
    ELSIF p_step ? 'at' THEN
        until := _wa_flow_next_time(
            p_org, p_contact_id, _wa_flow_time(p_step -> 'at'), p_step -> 'weekdays', p_now
        );
    ELSE
        until := p_now + _wa_flow_interval(coalesce(p_step -> 'interval', p_step -> 'timeout'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_flow_wait_until(uuid, bigint, jsonb, jsonb, timestamptz) IS
'Internal: until when a step waits, and what keeps that from being known.';
