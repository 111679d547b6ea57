-- What a flow would do, step by step, without doing it.

CREATE OR REPLACE FUNCTION _wa_preview_flow_cost(p_org uuid, p_phone text, p_category text, p_day date)
RETURNS TABLE (cost numeric, currency text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_country CONSTANT text := _wa_country(
        CASE WHEN NOT _wa_is_user_id(p_phone) THEN _wa_read_phone(p_org, p_phone) END,
        CASE WHEN _wa_is_user_id(p_phone) THEN p_phone END
    );
BEGIN
    RETURN QUERY
    SELECT r.rate, r.currency FROM wa_rates r
    WHERE r.organization_id = p_org AND r.country = v_country AND r.category = p_category
        AND r.valid_from <= p_day AND r.volume_from = 0
    ORDER BY r.valid_from DESC LIMIT 1;
END
$$;

COMMENT ON FUNCTION _wa_preview_flow_cost(uuid, text, text, date) IS
'Internal: what a message of a category to a number costs by the rate card; no row where it is not known.';

CREATE OR REPLACE FUNCTION preview_wa_flow(
    p_name text, p_context jsonb DEFAULT '{}', p_phone text DEFAULT NULL, p_events jsonb DEFAULT '{}',
    p_now timestamptz DEFAULT clock_timestamp(), p_version integer DEFAULT NULL
)
RETURNS TABLE (n integer, at timestamptz, step text, type text, what text, why text, cost numeric,
    currency text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    c_most CONSTANT integer := 100;
    v_org uuid := _wa_caller_organization();
    v_definition wa_flow_definitions := _wa_flow_version(v_org, p_name, p_version);
    v_contact_id bigint := CASE WHEN p_phone IS NOT NULL THEN _wa_find_contact(v_org, p_phone) END;
    v_context jsonb := coalesce(p_context, '{}');
    v_step jsonb;
    v_next text;
    v_message jsonb;
    v_missing text;
    v_until timestamptz;
    v_case record;
    v_template wa_templates;
    v_is_open boolean;
BEGIN
    at := p_now;
    step := v_definition.plan ->> 'first';
    FOR i IN 1..c_most LOOP
        v_step := v_definition.plan #> ARRAY['steps', step];
        n := i;
        type := v_step ->> 'type';
        what := NULL;
        why := NULL;
        cost := NULL;
        currency := NULL;
        v_context := v_context || coalesce(_wa_flow_facts(v_org, v_contact_id, at), '{}');
        v_next := v_step ->> 'next';
        CASE type
            WHEN 'send' THEN
                SELECT f.filled, f.missing INTO v_message, v_missing
                FROM _wa_fill_flow(v_step -> 'message', v_context) f;
                v_is_open := coalesce((v_context #>> '{conversation,is_open}')::boolean, false);
                IF v_missing IS NOT NULL THEN
                    what := 'nothing';
                    why := format('refused: no value for %s', v_missing);
                    v_next := coalesce(v_step ->> 'on_refused', 'end');
                ELSIF v_message ? 'template_name' AND NOT (v_message ? 'text_body' AND v_is_open) THEN
                    SELECT t.* INTO v_template
                    FROM _wa_pick_template(
                        v_org, v_message ->> 'template_name', v_message ->> 'template_language', NULL
                    ) t;
                    what := format('template %s %s', v_message ->> 'template_name',
                        v_message -> 'template_params');
                    why := CASE WHEN v_template.id IS NULL THEN 'refused: there is no such template'
                        ELSE coalesce('refused: ' || _wa_template_problem(v_template, at),
                            CASE WHEN v_message ? 'text_body' THEN 'the window is closed' END) END;
                    SELECT c.cost, c.currency INTO cost, currency
                    FROM _wa_preview_flow_cost(v_org, p_phone, lower(v_template.category), at::date) c;
                    IF why LIKE 'refused%' THEN
                        v_next := coalesce(v_step ->> 'on_refused', 'end');
                    END IF;
                ELSE
                    what := coalesce('text: ' || (v_message ->> 'text_body'),
                        format('%s %s', v_message ->> 'message_type', v_message -> 'content'));
                    why := CASE WHEN v_is_open THEN 'the window is open'
                        ELSE 'refused: the window is closed' END;
                    IF NOT v_is_open THEN
                        v_next := coalesce(v_step ->> 'on_refused', 'end');
                    END IF;
                END IF;
            WHEN 'wait' THEN
                SELECT w.until, w.missing INTO v_until, v_missing
                FROM _wa_flow_wait_until(v_org, v_contact_id, v_step, v_context, at) w;
                IF v_missing IS NOT NULL THEN
                    what := 'fails';
                    why := format('no time to wait for: %s', v_missing);
                    v_next := 'end';
                ELSIF v_step ? 'for' AND p_events ? step THEN
                    what := format('waits for %s', coalesce(v_step ->> 'event', v_step ->> 'for'));
                    why := 'it comes, as given';
                    v_context := v_context || jsonb_build_object(
                        CASE v_step ->> 'for' WHEN 'button' THEN 'reply' ELSE v_step ->> 'for' END,
                            p_events -> step
                    );
                ELSIF v_step ? 'on_past' AND v_until <= at THEN
                    what := format('does not wait until %s', v_until);
                    why := 'that is past';
                    v_next := v_step ->> 'on_past';
                ELSE
                    what := CASE WHEN v_step ? 'for'
                        THEN format('waits for %s until %s', coalesce(v_step ->> 'event', v_step ->> 'for'),
                            v_until)
                        ELSE format('waits until %s', v_until) END;
                    why := CASE WHEN v_step ? 'for' THEN 'it does not come' END;
                    v_next := CASE WHEN v_step ? 'for' THEN coalesce(v_step ->> 'on_timeout', v_next)
                        ELSE v_next END;
                END IF;
            WHEN 'branch' THEN
                v_next := coalesce(v_step ->> 'else', v_next);
                why := 'no case holds';
                FOR v_case IN
                    SELECT c.value, c.n FROM jsonb_array_elements(v_step -> 'cases')
                        WITH ORDINALITY c (value, n)
                    ORDER BY c.n
                LOOP
                    IF _wa_flow_holds(v_case.value -> 'when', v_context) THEN
                        v_next := v_case.value ->> 'goto';
                        why := format('case %s holds: %s', v_case.n, v_case.value -> 'when');
                        EXIT;
                    END IF;
                END LOOP;
                what := format('goes to %s', v_next);
            WHEN 'set' THEN
                what := (_wa_fill_flow(v_step -> 'values', v_context)).filled::text;
                v_context := v_context || what::jsonb;
            WHEN 'notify' THEN what := format('notifies by %s', v_step ->> 'template');
            WHEN 'call' THEN
                what := format('calls %s', v_step ->> 'function');
                why := 'not called here: what it would return is not known';
            WHEN 'goto' THEN what := format('goes to %s', v_next);
            ELSE
                what := coalesce(v_step ->> 'outcome', 'end');
                v_next := 'end';
        END CASE;
        RETURN NEXT;
        EXIT WHEN v_next = 'end';
        IF type = 'wait' AND why IS DISTINCT FROM 'it comes, as given' AND why IS DISTINCT
            FROM 'that is past' THEN
            at := greatest(v_until, at);
        END IF;
        step := v_next;
    END LOOP;
END
$$;

COMMENT ON FUNCTION preview_wa_flow(text, jsonb, text, jsonb, timestamptz, integer) IS
'What a flow would do from now on, with this context and for this customer: what it would send and when, '
'which branch it would take and why, and what each message costs by your rate card. Waits time out, unless '
'p_events has what comes, by the name of the step: {"ask": {"text": "5"}}. Sends and changes nothing.';
