-- What a definition of a flow may look like: docs/flows.schema.json as the database checks it, and what no
-- schema can say: that every step is reached, and that no loop goes round without waiting.

-- By type: which keys a step may have, and which it must have.
CREATE OR REPLACE FUNCTION _wa_flow_step_keys() RETURNS TABLE (type text, may text[], must text[])
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT k.type, string_to_array('name type note ' || k.may, ' '), string_to_array(k.must, ' ')
    FROM (
        VALUES
        ('send', 'next text_body template_name template_language template_params message_type content '
            'priority phone_number_id expires_after sms_fallback_text on_refused', ''),
        ('wait', 'next interval at weekdays until offset for event buttons status timeout on_timeout '
            'on_past', ''),
        ('branch', 'cases else', 'cases'),
        ('set', 'next values', 'values'),
        ('notify', 'next template phone context', 'template'),
        ('call', 'next function into', 'function'),
        ('goto', 'next', 'next'),
        ('end', 'outcome', '')
    ) k (type, may, must);
END;

COMMENT ON FUNCTION _wa_flow_step_keys() IS
'Internal: the types of steps, and by type which keys a step may and must have.';

CREATE OR REPLACE FUNCTION _wa_flow_interval(p_value jsonb) RETURNS interval
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
SET intervalstyle = postgres
AS $$
BEGIN
    RETURN CASE WHEN jsonb_typeof(p_value) = 'string' THEN (p_value #>> '{}')::interval END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_flow_interval(jsonb) IS
'Internal: an interval that stands in a definition; NULL where it is none.';

CREATE OR REPLACE FUNCTION _wa_flow_time(p_value jsonb) RETURNS time
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN CASE WHEN p_value #>> '{}' ~ '^[0-9]{1,2}:[0-9]{2}$' THEN (p_value #>> '{}')::time END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_flow_time(jsonb) IS
'Internal: a time of day that stands in a definition; NULL where it is none.';

CREATE OR REPLACE FUNCTION _wa_flow_condition_problem(p_condition jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_tests CONSTANT text[] :=
        ARRAY['is', 'in', 'contains', 'above', 'below', 'at_least', 'at_most', 'exists'];
    v_keys text[];
    v_stray text;
    v_problem text;
BEGIN
    IF jsonb_typeof(p_condition) IS DISTINCT FROM 'object' THEN
        RETURN 'a condition is an object, such as {"path": "reply.text", "is": "yes"}';
    END IF;
    v_keys := ARRAY(SELECT jsonb_object_keys(p_condition));
    IF v_keys && '{all,any}' THEN
        IF cardinality(v_keys) <> 1 OR jsonb_typeof(p_condition -> v_keys[1]) <> 'array'
            OR p_condition -> v_keys[1] = '[]'
        THEN
            RETURN 'all and any stand alone, with a list of conditions';
        END IF;
        SELECT p.problem INTO v_problem
        FROM jsonb_array_elements(p_condition -> v_keys[1]) c (value)
        CROSS JOIN LATERAL (SELECT _wa_flow_condition_problem(c.value) AS problem OFFSET 0) p
        WHERE p.problem IS NOT NULL LIMIT 1;
        RETURN v_problem;
    ELSIF v_keys = '{not}' THEN
        RETURN _wa_flow_condition_problem(p_condition -> 'not');
    END IF;
    SELECT k INTO v_stray FROM unnest(v_keys) k WHERE k <> 'path' AND k <> ALL (c_tests) LIMIT 1;
    RETURN CASE
        WHEN v_stray IS NOT NULL THEN format('a condition knows no "%s"', left(v_stray, 50))
        WHEN jsonb_typeof(p_condition -> 'path') IS DISTINCT FROM 'string'
            THEN 'a condition needs a path, such as reply.text'
        WHEN cardinality(v_keys) <> 2
            THEN format('a condition has a path and one of %s', array_to_string(c_tests, ', '))
        WHEN p_condition ? 'in' AND jsonb_typeof(p_condition -> 'in') <> 'array' THEN 'in takes a list'
        WHEN p_condition ? 'exists' AND jsonb_typeof(p_condition -> 'exists') <> 'boolean'
            THEN 'exists is true or false'
        WHEN v_keys && '{above,below,at_least,at_most}'
            AND jsonb_typeof(p_condition -> (array_remove(v_keys, 'path'))[1]) NOT IN ('number', 'string')
            THEN format('%s takes a number or a time', (array_remove(v_keys, 'path'))[1])
    END;
END
$$;

COMMENT ON FUNCTION _wa_flow_condition_problem(jsonb) IS
'Internal: what is wrong with a condition of a branch; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_flow_wait_problem(p_step jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_kinds CONSTANT text[] := ARRAY['interval', 'at', 'until', 'for'];
    v_for text := p_step ->> 'for';
BEGIN
    RETURN CASE
        WHEN (SELECT count(*) FROM unnest(c_kinds) k WHERE p_step ? k) <> 1
            THEN 'a wait has one of interval, at, until and for'
        WHEN p_step ? 'interval' AND coalesce(_wa_flow_interval(p_step -> 'interval') < '1 second', true)
            THEN 'interval is a time of a second or more, such as "2 hours"'
        WHEN p_step ? 'at' AND _wa_flow_time(p_step -> 'at') IS NULL
            THEN 'at is a time of day, such as "09:00"'
        WHEN p_step ? 'weekdays' AND (
            NOT p_step ? 'at' OR jsonb_typeof(p_step -> 'weekdays') <> 'array' OR p_step -> 'weekdays' = '[]'
            OR NOT '[1, 2, 3, 4, 5, 6, 7]'::jsonb @> (p_step -> 'weekdays')
        ) THEN 'weekdays go with at, and are numbers from 1 (Monday) to 7'
        WHEN p_step ? 'until' AND jsonb_typeof(p_step -> 'until') <> 'string'
            THEN 'until is a time, or where one stands, such as "{{appointment.at}}"'
        WHEN p_step ?| '{offset,on_past}' AND NOT p_step ? 'until' THEN 'offset and on_past go with until'
        WHEN p_step ? 'offset' AND _wa_flow_interval(p_step -> 'offset') IS NULL
            THEN 'offset is a time, such as "-24 hours"'
        WHEN v_for IS NULL AND p_step ?| '{event,buttons,status,timeout,on_timeout}'
            THEN 'event, buttons, status, timeout and on_timeout go with for'
        WHEN v_for IS NULL THEN NULL
        WHEN v_for NOT IN ('reply', 'button', 'status', 'payment', 'event')
            THEN 'for is reply, button, status, payment or event'
        WHEN coalesce(_wa_flow_interval(p_step -> 'timeout') < '1 second', true)
            THEN 'a wait for something has a timeout of a second or more, such as "24 hours"'
        WHEN (v_for = 'event') <> (p_step ? 'event')
            OR p_step ? 'event' AND coalesce(jsonb_typeof(p_step -> 'event') <> 'string', true)
            THEN 'a wait for an event, and no other, names it as event'
        WHEN p_step ? 'buttons' AND (v_for <> 'button' OR jsonb_typeof(p_step -> 'buttons') <> 'array')
            THEN 'buttons go with a wait for a button, as a list of ids or texts'
        WHEN p_step ? 'status' AND (
            v_for <> 'status' OR jsonb_typeof(p_step -> 'status') <> 'array' OR p_step -> 'status' = '[]'
            OR NOT '["accepted", "sent", "delivered", "read", "played", "failed"]'::jsonb
                @> (p_step -> 'status')
        ) THEN 'status goes with a wait for one, as a list of accepted, sent, delivered, read, played, failed'
    END;
END
$$;

COMMENT ON FUNCTION _wa_flow_wait_problem(jsonb) IS
'Internal: what is wrong with a step that waits; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_flow_send_problem(p_step jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN CASE
        WHEN NOT p_step ?| '{text_body,template_name,content}'
            THEN 'a send has a text_body, a template_name, or both (text inside the window, template outside), '
                'or content with its message_type'
        WHEN p_step ? 'content' <> (p_step ? 'message_type') OR p_step ?& '{content,text_body}'
            THEN 'content goes with a message_type, and with no text_body'
        WHEN EXISTS (
            SELECT FROM unnest(ARRAY[
                'text_body', 'template_name', 'template_language', 'message_type', 'phone_number_id',
                'sms_fallback_text'
            ]) k
            WHERE p_step ? k AND (jsonb_typeof(p_step -> k) <> 'string' OR p_step ->> k = '')
        ) THEN 'text_body, template_name and what else is a word are texts that are not empty'
        WHEN p_step ?| '{template_language,template_params}' AND NOT p_step ? 'template_name'
            THEN 'template_language and template_params go with a template_name'
        WHEN p_step ? 'template_params' AND jsonb_typeof(p_step -> 'template_params') NOT IN ('array',
            'object')
            THEN 'template_params are a list, or an object by name or part'
        WHEN p_step ? 'content' AND jsonb_typeof(p_step -> 'content') <> 'object' THEN 'content is an object'
        WHEN p_step ? 'priority' AND p_step ->> 'priority' NOT IN ('high', 'normal', 'low')
            THEN 'priority is high, normal or low'
        WHEN p_step ? 'expires_after'
            AND coalesce(_wa_flow_interval(p_step -> 'expires_after') < '1 minute', true)
            THEN 'expires_after is a time of a minute or more'
    END;
END
$$;

COMMENT ON FUNCTION _wa_flow_send_problem(jsonb) IS
'Internal: what is wrong with a step that sends; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_flow_step_problem(p_step jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_keys record;
    v_stray text;
    v_problem text;
BEGIN
    SELECT k.* INTO v_keys FROM _wa_flow_step_keys() k WHERE k.type = p_step ->> 'type';
    IF NOT FOUND THEN
        RETURN format('there is no type "%s": %s', left(coalesce(p_step ->> 'type', ''), 50),
            (SELECT string_agg(k.type, ', ') FROM _wa_flow_step_keys() k));
    END IF;
    SELECT k INTO v_stray FROM jsonb_object_keys(p_step) k WHERE k <> ALL (v_keys.may || v_keys.must) LIMIT 1;
    IF v_stray IS NOT NULL THEN
        RETURN format('a step of type %s has no "%s", but %s', v_keys.type, left(v_stray, 50),
            array_to_string(v_keys.may, ', '));
    END IF;
    SELECT k INTO v_stray FROM unnest(v_keys.must) k WHERE NOT p_step ? k LIMIT 1;
    IF v_stray IS NOT NULL THEN
        RETURN format('a step of type %s needs "%s"', v_keys.type, v_stray);
    END IF;
    CASE v_keys.type
        WHEN 'send' THEN v_problem := _wa_flow_send_problem(p_step);
        WHEN 'wait' THEN v_problem := _wa_flow_wait_problem(p_step);
        WHEN 'branch' THEN
            IF jsonb_typeof(p_step -> 'cases') <> 'array' OR p_step -> 'cases' = '[]' THEN
                RETURN 'cases are a list of {"when": condition, "goto": step}';
            END IF;
            SELECT coalesce(
                CASE WHEN jsonb_typeof(c.value) <> 'object'
                    OR (c.value - '{when,goto}'::text[]) <> '{}' OR NOT c.value ?& '{when,goto}'
                    THEN 'a case has when and goto' END,
                _wa_flow_condition_problem(c.value -> 'when')
            ) INTO v_problem
            FROM jsonb_array_elements(p_step -> 'cases') c (value)
            ORDER BY 1 LIMIT 1;
        WHEN 'set' THEN
            IF jsonb_typeof(p_step -> 'values') <> 'object' THEN
                v_problem := 'values are an object of names and what they become';
            ELSIF p_step -> 'values' ?| '{contact,conversation,reply,outcome,run,event}' THEN
                v_problem := 'contact, conversation, reply, outcome, event and run are not for being set';
            END IF;
        ELSE NULL;
    END CASE;
    RETURN v_problem;
END
$$;

COMMENT ON FUNCTION _wa_flow_step_problem(jsonb) IS
'Internal: what is wrong with a step by itself; NULL when nothing is.';

CREATE OR REPLACE FUNCTION _wa_flow_targets(p_step jsonb, p_following text)
RETURNS TABLE (target text, key text)
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    SELECT p_step ->> k.key, k.key
    FROM unnest(ARRAY['next', 'on_refused', 'on_timeout', 'on_past', 'else']) k (key)
    WHERE p_step ? k.key
    UNION ALL
    SELECT c.value ->> 'goto', 'goto' FROM jsonb_array_elements(
        CASE WHEN jsonb_typeof(p_step -> 'cases') = 'array' THEN p_step -> 'cases' ELSE '[]' END
    ) c (value)
    UNION ALL
    -- What is not said otherwise goes on with the step that follows.
    SELECT coalesce(p_following, 'end'), 'next'
    WHERE NOT p_step ?| '{next,else}' AND p_step ->> 'type' <> 'end'
$$;

COMMENT ON FUNCTION _wa_flow_targets(jsonb, text) IS
'Internal: the steps to which a step may lead, and by which of its keys; the second argument is the one '
'that follows it.';

CREATE OR REPLACE FUNCTION _wa_flow_problem(p_definition jsonb) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_keys CONSTANT text[] := ARRAY[
        'name', 'description', 'category', 'trigger', 'key', 'interrupts', 'limits', 'steps', 'version',
            'state'
    ];
    c_events CONSTANT text := '^(reply|payment|event:.{1,100})$';
    v_steps jsonb;
    v_stray text;
    v_names text[];
    v_step record;
    v_problem text;
    v_reached text[];
    v_more text[];
    v_loop text[];
    v_less text[];
BEGIN
    IF jsonb_typeof(p_definition) IS DISTINCT FROM 'object' THEN
        RETURN ARRAY[NULL, 'a definition is a JSON object'];
    END IF;
    SELECT k INTO v_stray FROM jsonb_object_keys(p_definition) k WHERE k <> ALL (c_keys) LIMIT 1;
    v_steps := p_definition -> 'steps';
    v_problem := CASE
        WHEN v_stray IS NOT NULL
            THEN format('a definition has no "%s", but %s', left(v_stray, 50), array_to_string(c_keys, ', '))
        WHEN coalesce(p_definition ->> 'name', '') !~ '^[A-Za-z][A-Za-z0-9_.-]{0,99}$'
            THEN 'name is a word of letters, digits and _ . -'
        WHEN p_definition ? 'category'
            AND p_definition ->> 'category' NOT IN ('utility', 'marketing', 'authentication')
            THEN 'category is utility, marketing or authentication'
        WHEN p_definition ? 'key' AND jsonb_typeof(p_definition -> 'key') <> 'string'
            THEN 'key is the path of a value in the context, such as order_id'
        WHEN p_definition ? 'trigger' AND NOT (
            jsonb_typeof(p_definition -> 'trigger') = 'object' AND (
                p_definition -> 'trigger' IN ('{}', '{"message": "first"}', '{"message": "any"}')
                OR (p_definition -> 'trigger') - 'text'::text = '{}'
                AND jsonb_typeof(p_definition #> '{trigger,text}') = 'array'
                OR (p_definition -> 'trigger') - 'event'::text = '{}'
                AND jsonb_typeof(p_definition #> '{trigger,event}') = 'string'
            )
        ) THEN 'trigger is {"text": ["hello"]}, {"message": "first"}, {"message": "any"} or {"event": "name"}'
        WHEN p_definition ? 'limits' AND NOT (
            jsonb_typeof(p_definition -> 'limits') = 'object'
            AND (p_definition -> 'limits') - '{visits,sends_per_hour,age}'::text[] = '{}'
            AND coalesce(p_definition #>> '{limits,visits}', '1') ~ '^[1-9][0-9]{0,3}$'
            AND coalesce(p_definition #>> '{limits,sends_per_hour}', '1') ~ '^[1-9][0-9]{0,3}$'
            AND (NOT (p_definition -> 'limits') ? 'age'
                OR _wa_flow_interval(p_definition #> '{limits,age}') BETWEEN '1 minute' AND '10 years')
        ) THEN 'limits are visits and sends_per_hour, numbers from 1 to 9999, and age, such as "90 days"'
        WHEN p_definition ? 'interrupts' AND jsonb_typeof(p_definition -> 'interrupts') <> 'object'
            THEN 'interrupts are an object of events and the steps that they lead to'
        WHEN jsonb_typeof(v_steps) IS DISTINCT FROM 'array' OR v_steps = '[]'
            OR jsonb_array_length(v_steps) > 200
            THEN 'steps are a list of 1 to 200 objects'
    END;
    IF v_problem IS NOT NULL THEN
        RETURN ARRAY[NULL, v_problem];
    END IF;
    SELECT format('%s leads to events of the names reply, payment and event:NAME only', left(k, 50))
    INTO v_problem
    FROM jsonb_object_keys(coalesce(p_definition -> 'interrupts', '{}')) k WHERE k !~ c_events LIMIT 1;
    IF v_problem IS NOT NULL THEN
        RETURN ARRAY[NULL, v_problem];
    END IF;

    SELECT array_agg(s.value ->> 'name' ORDER BY s.n) INTO v_names
    FROM jsonb_array_elements(v_steps) WITH ORDINALITY s (value, n);
    FOR v_step IN
        SELECT coalesce(s.value ->> 'name', format('number %s', s.n)) AS name, s.value, s.n,
            v_names[s.n::integer + 1] AS following
        FROM jsonb_array_elements(v_steps) WITH ORDINALITY s (value, n)
        ORDER BY s.n
    LOOP
        v_problem := CASE
            WHEN jsonb_typeof(v_step.value) <> 'object' THEN 'a step is an object'
            WHEN v_step.name !~ '^[a-z][a-z0-9_]{0,62}$' OR v_step.name = 'end'
                AND v_step.value ->> 'type' <> 'end'
                THEN 'the name of a step is a word of small letters, digits and _, and not "end"'
            WHEN array_position(v_names, v_step.name) < v_step.n THEN 'there are two steps of this name'
            ELSE _wa_flow_step_problem(v_step.value)
        END;
        IF v_problem IS NULL THEN
            SELECT format('%s names "%s", which is no step', t.key, left(coalesce(t.target, ''), 63))
            INTO v_problem
            FROM _wa_flow_targets(v_step.value, v_step.following) t
            WHERE t.target IS NULL OR t.target <> ALL (v_names || 'end'::text) LIMIT 1;
        END IF;
        IF v_problem IS NOT NULL THEN
            RETURN ARRAY[left(v_step.name, 63), v_problem];
        END IF;
    END LOOP;
    SELECT format('interrupts name "%s", which is no step', left(i.value, 63)) INTO v_problem
    FROM jsonb_each_text(coalesce(p_definition -> 'interrupts', '{}')) i
    WHERE i.value <> ALL (v_names || 'end'::text) LIMIT 1;
    IF v_problem IS NOT NULL THEN
        RETURN ARRAY[NULL, v_problem];
    END IF;

    -- Every step is reached from the first one, or from an interrupt.
    v_reached := v_names[1:1] || ARRAY(
        SELECT i.value FROM jsonb_each_text(coalesce(p_definition -> 'interrupts', '{}')) i
    );
    LOOP
        v_more := ARRAY(
            SELECT DISTINCT t.target
            FROM jsonb_array_elements(v_steps) WITH ORDINALITY s (value, n)
            CROSS JOIN LATERAL _wa_flow_targets(s.value, v_names[s.n::integer + 1]) t
            WHERE s.value ->> 'name' = ANY (v_reached) AND t.target <> ALL (v_reached)
        );
        EXIT WHEN v_more = '{}';
        v_reached := v_reached || v_more;
    END LOOP;
    SELECT n INTO v_stray FROM unnest(v_names) n WHERE n <> ALL (v_reached) LIMIT 1;
    IF v_stray IS NOT NULL THEN
        RETURN ARRAY[v_stray, 'no step leads here'];
    END IF;

    -- Take away waits, and again and again what leads nowhere: what is left goes round without waiting.
    v_loop := ARRAY(SELECT s.value ->> 'name' FROM jsonb_array_elements(v_steps) s (value)
        WHERE s.value ->> 'type' NOT IN ('wait', 'end'));
    LOOP
        v_less := ARRAY(
            SELECT s.value ->> 'name'
            FROM jsonb_array_elements(v_steps) WITH ORDINALITY s (value, n)
            WHERE s.value ->> 'name' = ANY (v_loop) AND EXISTS (
                SELECT FROM _wa_flow_targets(s.value, v_names[s.n::integer + 1]) t
                WHERE t.target = ANY (v_loop)
            )
            ORDER BY s.n
        );
        EXIT WHEN v_less = v_loop OR v_less = '{}';
        v_loop := v_less;
    END LOOP;
    IF v_less <> '{}' THEN
        RETURN ARRAY[v_less[1], 'from here it goes round without a wait'];
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_flow_problem(jsonb) IS
'Internal: what is wrong with a definition: the step, NULL where none is meant, and a sentence; NULL when '
'nothing is.';

-- What of the context a definition looks at is found here once, so that a run reads no more than it needs.
CREATE OR REPLACE FUNCTION _wa_flow_plan(p_definition jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'first', p_definition #>> '{steps,0,name}',
        'steps', (
            SELECT jsonb_object_agg(s.value ->> 'name', s.value || jsonb_build_object(
                'next', coalesce(s.value ->> 'next', p_definition #>> ARRAY['steps', s.n::text, 'name'],
                    'end')
            ) || CASE s.value ->> 'type' WHEN 'send' THEN jsonb_build_object(
                'message', s.value - '{name,type,next,note,on_refused}'::text[]
            ) ELSE '{}' END)
            FROM jsonb_array_elements(p_definition -> 'steps') WITH ORDINALITY s (value, n)
        ),
        'interrupts', coalesce(p_definition -> 'interrupts', '{}'),
        'visits', coalesce((p_definition #>> '{limits,visits}')::integer, 25),
        'sends_per_hour', coalesce((p_definition #>> '{limits,sends_per_hour}')::integer, 10),
        'age', coalesce(p_definition #>> '{limits,age}', '90 days'),
        'reads_contact', p_definition::text ~ '(contact|conversation)[.]',
        'reads_outcome', p_definition::text ~ 'outcome[.]',
        'reads_run', p_definition::text ~ 'run[.]'
    )
$$;

COMMENT ON FUNCTION _wa_flow_plan(jsonb) IS 'Internal: a definition as the engine reads it.';
