-- What else the HTTP API lists and changes: templates, opt-outs.

CREATE OR REPLACE FUNCTION _wa_template_json(p_template wa_templates) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN jsonb_build_object(
    'id', (p_template).id, 'name', (p_template).name, 'language', (p_template).language,
    'category', (p_template).category, 'approval_status', (p_template).approval_status,
    'status', (p_template).status, 'rejected_reason', (p_template).rejected_reason,
    'provider_template_id', (p_template).provider_template_id, 'waba_id', (p_template).waba_id,
    'header_text', (p_template).header_text, 'body_text', (p_template).body_text,
    'footer_text', (p_template).footer_text, 'buttons', (p_template).buttons,
    'parameters', (p_template).parameters, 'quality_score', (p_template).quality_score,
    'blocked_reason', (p_template).blocked_reason, 'blocked_until', (p_template).blocked_until,
    'is_sendable', _wa_is_template_sendable(
        (p_template).status, (p_template).blocked_at, (p_template).blocked_until, clock_timestamp()
    ),
    'created_at', (p_template).created_at, 'updated_at', (p_template).updated_at
);

COMMENT ON FUNCTION _wa_template_json(wa_templates) IS 'Internal: a template as the HTTP API shows it.';

-- A cursor holds name and language, too: the template that it stands for may go before the next page.
CREATE OR REPLACE FUNCTION list_wa_templates(
    p_approval_status text DEFAULT NULL, p_name text DEFAULT NULL, p_limit integer DEFAULT 100,
    p_cursor text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 500;
    v_org uuid := current_wa_organization();
    v_after jsonb := _wa_open_cursor(p_cursor, '[[]".*"[]]')::jsonb;
    v_items jsonb;
    v_last jsonb;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    IF p_approval_status NOT IN ('pending', 'approved', 'rejected') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('no approval status is called "%s"', left(p_approval_status, 100)),
            DETAIL = 'It is what the list is narrowed to.',
            HINT = 'There are pending, approved and rejected.';
    END IF;
    SELECT coalesce(jsonb_agg(_wa_template_json(t.template) ORDER BY t.n), '[]'),
        jsonb_agg(t.place) FILTER (WHERE t.n = p_limit) -> 0
    INTO v_items, v_last
    FROM (
        SELECT x AS template, jsonb_build_array(lower(x.name), x.language, x.id) AS place,
            row_number() OVER (ORDER BY lower(x.name), x.language, x.id) AS n
        FROM wa_templates x
        WHERE x.organization_id = v_org
            AND (v_after IS NULL OR (lower(x.name), x.language, x.id)
                > (v_after ->> 0, v_after ->> 1, (v_after ->> 2)::uuid))
            AND (p_approval_status IS NULL OR x.approval_status = p_approval_status)
            AND (p_name IS NULL OR lower(x.name) = lower(p_name))
        ORDER BY lower(x.name), x.language, x.id
        LIMIT p_limit + 1
    ) t;
    RETURN jsonb_build_object(
        'templates', CASE WHEN jsonb_array_length(v_items) > p_limit THEN v_items - p_limit ELSE v_items END,
        'next', CASE WHEN jsonb_array_length(v_items) > p_limit THEN _wa_write_cursor(v_last::text) END
    );
END
$$;

COMMENT ON FUNCTION list_wa_templates(text, text, integer, text) IS
'Templates by name and language: those with an approval status, or of a name. A page of at most 500, and '
'the cursor of the next one.';

CREATE OR REPLACE FUNCTION create_wa_template(
    p_request jsonb, p_idempotency_key text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_operation CONSTANT text := 'template';
    c_keys CONSTANT text[] := '{name,category,language,body_text,header_text,footer_text,buttons,parameters}';
    v_org uuid := current_wa_organization();
    v_before jsonb;
    v_stray text;
    v_id uuid;
    v_template wa_templates;
BEGIN
    IF p_idempotency_key IS NOT NULL THEN
        v_before := begin_wa_idempotent_request(
            p_idempotency_key, c_operation, sha256(convert_to(p_request::text, 'UTF8'))
        );
        IF v_before IS NOT NULL THEN
            SELECT t.* INTO v_template FROM wa_templates t
            WHERE t.organization_id = v_org AND t.id = (v_before ->> 'id')::uuid;
            RETURN CASE WHEN FOUND THEN _wa_template_json(v_template) ELSE v_before END;
        END IF;
    END IF;
    SELECT k INTO v_stray FROM jsonb_object_keys(p_request) k WHERE k <> ALL (c_keys) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a template has no %I', left(v_stray, 100)),
            DETAIL = format('Its value is %s.', left((p_request -> v_stray)::text, 60)),
            HINT = format('It may have %s.', array_to_string(c_keys, ', '));
    ELSIF coalesce(btrim(p_request ->> 'name'), '') = ''
        OR coalesce(btrim(p_request ->> 'body_text'), '') = ''
    THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a template needs a name and a body_text',
            DETAIL = format('It has %s.', coalesce(
                (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(p_request) k), 'nothing')),
            HINT = format('It may have %s.', array_to_string(c_keys, ', '));
    ELSIF EXISTS (
        SELECT FROM wa_templates t
        WHERE t.organization_id = v_org AND lower(t.name) = lower(p_request ->> 'name')
            AND t.language = coalesce(p_request ->> 'language', 'en') AND t.waba_id IS NULL
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '23505',
            MESSAGE = 'there is a template of that name in that language',
            DETAIL = format('It is %s, %s.',
                left(p_request ->> 'name', 100), coalesce(p_request ->> 'language', 'en')),
            HINT = 'Change that one, or choose another name.';
    END IF;
    v_template := jsonb_populate_record(NULL::wa_templates, jsonb_build_object(
        'organization_id', v_org, 'language', 'en', 'category', 'UTILITY', 'approval_status', 'pending',
        'parameters', '[]'::jsonb, 'buttons', '[]'::jsonb
    ) || p_request || jsonb_build_object('category', upper(coalesce(p_request ->> 'category', 'UTILITY'))));
    IF v_template.category NOT IN ('MARKETING', 'UTILITY', 'AUTHENTICATION') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('no category of templates is called "%s"', left(p_request ->> 'category', 100)),
            DETAIL = 'Meta has three.',
            HINT = 'There are MARKETING, UTILITY and AUTHENTICATION.';
    END IF;
    v_id := _wa_add_template(v_template);
    SELECT t.* INTO v_template FROM wa_templates t WHERE t.organization_id = v_org AND t.id = v_id;
    IF p_idempotency_key IS NOT NULL THEN
        PERFORM end_wa_idempotent_request(
            p_idempotency_key, c_operation, jsonb_build_object('id', v_template.id)
        );
    END IF;
    RETURN _wa_template_json(v_template);
END
$$;

COMMENT ON FUNCTION create_wa_template(jsonb, text) IS
'Makes a draft of a template from an object with name, body_text and what else a template has, and returns '
'it as the HTTP API shows it.';

CREATE OR REPLACE FUNCTION list_wa_opt_outs(
    p_limit integer DEFAULT 100, p_cursor text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 1000;
    v_org uuid := current_wa_organization();
    v_before bigint := coalesce(_wa_read_cursor(p_cursor), 9223372036854775807);
    v_items jsonb;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'id', x.id, 'phone', coalesce(x.phone_e164, x.phone_number), 'user_id', x.user_id, 'scope', x.scope,
        'reason', x.reason, 'source', x.source, 'opt_out_date', x.opt_out_date
    ) ORDER BY x.id DESC), '[]') INTO v_items
    FROM (
        SELECT o.*, c.phone_e164, c.user_id
        FROM wa_opt_outs o
        JOIN wa_contacts c ON c.organization_id = v_org AND c.id = o.contact_id
        WHERE o.organization_id = v_org AND o.revoked_at IS NULL AND o.id < v_before
            AND _wa_is_reachable_contact(v_org, o.contact_id)
        ORDER BY o.id DESC
        LIMIT p_limit + 1
    ) x;
    RETURN jsonb_build_object(
        'opt_outs', CASE WHEN jsonb_array_length(v_items) > p_limit THEN v_items - p_limit ELSE v_items END,
        'next', CASE WHEN jsonb_array_length(v_items) > p_limit
            THEN _wa_write_cursor(v_items -> (p_limit - 1) ->> 'id') END
    );
END
$$;

COMMENT ON FUNCTION list_wa_opt_outs(integer, text) IS
'Who asked not to be written to, the latest first. A page of at most 1,000, and the cursor of the next one.';

CREATE OR REPLACE FUNCTION get_wa_consent(p_phone text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_contact_id bigint := _wa_find_contact(v_org, p_phone);
BEGIN
    PERFORM _wa_require_reachable_contact(v_org, v_contact_id);
    RETURN jsonb_build_object(
        'is_opted_out', is_wa_opted_out(p_phone, 'all'),
        'is_opted_out_of_marketing', is_wa_opted_out(p_phone, 'marketing'),
        'opt_outs', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'scope', o.scope, 'reason', o.reason, 'source', o.source, 'opt_out_date', o.opt_out_date
            ) ORDER BY o.id DESC), '[]')
            FROM wa_opt_outs o
            WHERE o.organization_id = v_org AND o.contact_id = v_contact_id AND o.revoked_at IS NULL
        )
    );
END
$$;

COMMENT ON FUNCTION get_wa_consent(text) IS
'Whether a phone number or user id asked not to be written to, at all or with marketing, since when and '
'why.';
