-- Drafts to Meta's review: the request that asks for it, and what the answer means.

CREATE OR REPLACE FUNCTION _wa_template_text_example(
    p_part text, p_is_named boolean, p_names text[], p_samples text[]
) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN cardinality(p_names) = 0 THEN '{}'
    WHEN p_is_named THEN jsonb_build_object('example', jsonb_build_object(
        p_part || '_text_named_params', (
            SELECT jsonb_agg(jsonb_build_object('param_name', n.name, 'example', n.sample) ORDER BY n.place)
            FROM unnest(p_names, p_samples) WITH ORDINALITY n (name, sample, place)
        )
    ))
    ELSE jsonb_build_object('example', jsonb_build_object(
        p_part || '_text',
        CASE p_part WHEN 'body' THEN jsonb_build_array(to_jsonb(p_samples)) ELSE to_jsonb(p_samples) END
    ))
END;

COMMENT ON FUNCTION _wa_template_text_example(text, boolean, text[], text[]) IS
'Internal: the example that Meta demands for the variables of a header or a body; {} where there are none.';

CREATE OR REPLACE FUNCTION _wa_template_request_button(p_button jsonb, p_sample text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT p_button || jsonb_build_object('type', upper(p_button ->> 'type'))
    || CASE upper(p_button ->> 'type')
        -- Each button counts its variable from 1.
        WHEN 'URL' THEN CASE WHEN u.url <> p_button ->> 'url' OR u.url LIKE '%{{1}}%' THEN jsonb_build_object(
            'url', u.url,
            'example', coalesce(p_button -> 'example', jsonb_build_array(replace(u.url, '{{1}}', p_sample)))
        ) ELSE '{}' END
        WHEN 'COPY_CODE'
            THEN jsonb_build_object('example', coalesce(p_button -> 'example', to_jsonb(p_sample)))
        ELSE '{}'
    END
    FROM (SELECT regexp_replace(p_button ->> 'url', '\{\{[^}]*\}\}', '{{1}}', 'g') AS url) u;
END;

COMMENT ON FUNCTION _wa_template_request_button(jsonb, text) IS
'Internal: a button as Meta takes it at creation, with its example.';

CREATE OR REPLACE FUNCTION _wa_template_request(p_template wa_templates) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_is_named boolean := p_template.parameter_format = 'NAMED';
    v_samples jsonb := _wa_template_samples(p_template);
    v_body text[];
    v_header text[];
    v_buttons jsonb;
    v_components jsonb;
BEGIN
    SELECT coalesce(array_agg(v_samples ->> s.name ORDER BY s.place) FILTER (WHERE s.part = 'body'), '{}'),
        coalesce(array_agg(v_samples ->> s.name) FILTER (WHERE s.part = 'header'), '{}'),
        coalesce(jsonb_object_agg(s.place, v_samples ->> s.name) FILTER (WHERE s.part = 'button'), '{}')
    INTO v_body, v_header, v_buttons
    FROM _wa_template_slots(p_template) s;
    SELECT jsonb_agg(CASE upper(c.value ->> 'type')
        WHEN 'BUTTONS' THEN jsonb_build_object('type', 'BUTTONS', 'buttons', (
            SELECT jsonb_agg(
                _wa_template_request_button(b.value, coalesce(v_buttons ->> (b.place - 1)::text, 'SAMPLE'))
                ORDER BY b.place
            )
            FROM jsonb_array_elements(c.value -> 'buttons') WITH ORDINALITY b (value, place)
        ))
        WHEN 'BODY' THEN c.value || CASE WHEN c.value ? 'text'
            THEN _wa_template_text_example('body', v_is_named, p_template.body_placeholders, v_body)
            || c.value || jsonb_build_object('text', regexp_replace(
                c.value ->> 'text', '\{\{\s*([A-Za-z0-9_]+)\s*\}\}', '{{\1}}', 'g'
            ))
            ELSE '{}' END
        WHEN 'HEADER' THEN CASE WHEN p_template.header_format = 'TEXT'
            THEN _wa_template_text_example('header', v_is_named, p_template.header_placeholders, v_header)
            ELSE '{}' END || c.value || CASE WHEN p_template.header_placeholders <> '{}' AND NOT v_is_named
            THEN jsonb_build_object('text', regexp_replace(c.value ->> 'text', '\{\{[^}]*\}\}', '{{1}}'))
            ELSE '{}' END
        ELSE c.value
    END ORDER BY c.place)
    INTO v_components
    FROM jsonb_array_elements(CASE WHEN p_template.category = 'AUTHENTICATION'
        THEN _wa_authentication_components(p_template) ELSE p_template.components END
    ) WITH ORDINALITY c (value, place);
    RETURN jsonb_build_object(
        'name', lower(p_template.name), 'language', p_template.language, 'category', p_template.category,
        'parameter_format', lower(p_template.parameter_format), 'components', v_components
    );
END
$$;

COMMENT ON FUNCTION _wa_template_request(wa_templates) IS
'Internal: what asks Meta to review a template: its name in small letters, its components with an example '
'for each variable.';

CREATE OR REPLACE FUNCTION _wa_authentication_components(p_template wa_templates) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN jsonb_build_array(
    '{"type": "BODY", "add_security_recommendation": true}'::jsonb
    || (coalesce(_wa_template_component((p_template).components, 'BODY'), '{}') - 'text' - 'example')
) || CASE WHEN _wa_template_component((p_template).components, 'FOOTER') ? 'code_expiration_minutes'
    THEN jsonb_build_array(_wa_template_component((p_template).components, 'FOOTER') - 'text') ELSE '[]' END
|| jsonb_build_array(coalesce(
    _wa_template_component((p_template).components, 'BUTTONS'),
    '{"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE"}]}'
));

COMMENT ON FUNCTION _wa_authentication_components(wa_templates) IS
'Internal: the components of an authentication template, whose texts Meta words: a button that copies the '
'code unless the template has another.';

CREATE OR REPLACE FUNCTION _wa_template_submissions(p_org uuid, p_waba_id text, p_names text[])
RETURNS TABLE (
    template_id uuid, name text, language text, provider_template_id text, request jsonb, problem text
)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    WITH account AS (
        -- A template of every account goes to the one of the default number, else to the first.
        SELECT n.waba_id
        FROM wa_organizations o
        JOIN wa_phone_numbers n ON n.organization_id = o.id
        WHERE o.id = p_org
        ORDER BY n.id = o.default_number_id DESC, n.id
        LIMIT 1
    )
    SELECT t.id, t.name, t.language, t.provider_template_id, _wa_template_request(t),
        CASE WHEN _wa_has_example_url(t.buttons)
            THEN 'a button still leads to example.com, put your own address there' END
    FROM wa_templates t
    WHERE t.organization_id = p_org
        AND CASE WHEN p_names IS NULL THEN t.provider_template_id IS NULL AND t.status = 'PENDING'
            ELSE lower(t.name) IN (SELECT lower(n) FROM unnest(p_names) n) AND (
                t.provider_template_id IS NULL OR t.status IN ('REJECTED', 'APPROVED', 'PAUSED')
            )
        END
        AND (t.waba_id = p_waba_id OR t.waba_id IS NULL AND p_waba_id = (SELECT a.waba_id FROM account a)
            AND NOT EXISTS (
                SELECT FROM wa_templates o
                WHERE o.organization_id = t.organization_id AND lower(o.name) = lower(t.name)
                    AND o.language = t.language AND o.waba_id = p_waba_id
            ))
    ORDER BY t.created_at, t.name, t.language
$$;

COMMENT ON FUNCTION _wa_template_submissions(uuid, text, text[]) IS
'Internal: get_wa_template_submissions() of an organization.';

CREATE OR REPLACE FUNCTION get_wa_template_submissions(p_waba_id text, p_names text[] DEFAULT NULL)
RETURNS TABLE (
    template_id uuid, name text, language text, provider_template_id text, request jsonb, problem text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    -- A copy must not hand in what the original hands in.
    SELECT _wa_require_installation();
    SELECT * FROM _wa_template_submissions(_wa_caller_organization(), p_waba_id, p_names)
$$;

COMMENT ON FUNCTION get_wa_template_submissions(text, text[]) IS
'The templates of an account that can go to Meta''s review, with the request for each: drafts that were '
'never submitted; or by name, then also those to be created again or edited (Meta takes edits of rejected, '
'approved and paused ones). One with a problem is not to be sent. Raises WA401 in a copy.';

CREATE OR REPLACE FUNCTION _wa_record_template_submission(
    p_org uuid, p_template_id uuid, p_waba_id text, p_http_status integer, p_answer jsonb
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_error jsonb := p_answer -> 'error';
    v_code integer := (v_error ->> 'code')::integer;
    v_subcode integer := (v_error ->> 'error_subcode')::integer;
BEGIN
    IF p_http_status BETWEEN 200 AND 299 AND p_answer ? 'id' THEN
        -- The webhook with Meta's decision may have been faster: then the row knows more than this answer.
        UPDATE wa_templates t SET
            name = lower(t.name), waba_id = p_waba_id, provider_template_id = p_answer ->> 'id',
            status = CASE WHEN t.provider_template_id = p_answer ->> 'id' THEN t.status
                ELSE upper(coalesce(p_answer ->> 'status', 'PENDING')) END,
            previous_category = coalesce(
                nullif(t.category, _wa_template_category(p_answer ->> 'category')), t.previous_category
            ),
            category = coalesce(_wa_template_category(p_answer ->> 'category'), t.category),
            rejected_reason = CASE WHEN t.provider_template_id = p_answer ->> 'id' THEN t.rejected_reason END
        WHERE t.organization_id = p_org AND t.id = p_template_id;
        RETURN 'submitted';
    ELSIF p_http_status BETWEEN 200 AND 299 THEN
        RETURN 'edited';
    ELSIF v_subcode = 2388024 THEN
        UPDATE wa_templates t SET name = lower(t.name)
        WHERE t.organization_id = p_org AND t.id = p_template_id;
        RETURN 'exists';
    ELSIF (v_code = 100 AND v_subcode IS DISTINCT FROM 33) OR v_code BETWEEN 131008 AND 131009
        OR v_code BETWEEN 132000 AND 132999
    THEN
        -- Nothing of it is at Meta, but to whoever wrote it, it is as rejected as by a reviewer.
        UPDATE wa_templates t SET status = 'REJECTED', rejected_reason = left(concat_ws(
            ': ', concat_ws('/', v_code, v_subcode), v_error ->> 'error_user_title',
            coalesce(v_error ->> 'error_user_msg', v_error #>> '{error_data,details}', v_error ->> 'message')
        ), 1000)
        WHERE t.organization_id = p_org AND t.id = p_template_id AND t.provider_template_id IS NULL;
        RETURN 'refused';
    END IF;
    RETURN 'failed';
END
$$;

COMMENT ON FUNCTION _wa_record_template_submission(uuid, uuid, text, integer, jsonb) IS
'Internal: record_wa_template_submission() for an organization.';

CREATE OR REPLACE FUNCTION record_wa_template_submission(
    p_template_id uuid, p_waba_id text, p_http_status integer, p_answer jsonb
) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_record_template_submission(
        _wa_caller_organization(), p_template_id, p_waba_id, p_http_status, p_answer
    )
$$;

COMMENT ON FUNCTION record_wa_template_submission(uuid, text, integer, jsonb) IS
'Records Meta''s answer to a request of get_wa_template_submissions() and says what it was: submitted; '
'edited or exists (read the template back with upsert_wa_templates()); refused, with the reason in the row; '
'failed, which is not the template''s fault.';
