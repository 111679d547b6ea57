-- Fetching templates and handing drafts to review, asked for by applications and done by a process beside
-- the dispatcher: as rows of wa_provider_calls. What that process may do, it may for a call that it holds.

CREATE OR REPLACE FUNCTION _wa_template_accounts(p_org uuid, p_waba_id text)
RETURNS TABLE (waba_id text, phone_number_id text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_is_known boolean;
BEGIN
    -- Of an account's numbers one whose token is stored, else the default one, else the first.
    RETURN QUERY
    SELECT DISTINCT ON (n.waba_id) n.waba_id, n.phone_number_id
    FROM wa_organizations o
    JOIN wa_phone_numbers n ON n.organization_id = o.id AND _wa_has_feature(n.provider, 'templates')
        AND n.waba_id = coalesce(p_waba_id, n.waba_id)
    WHERE o.id = p_org AND (n.is_test OR NOT _wa_is_test_only())
    ORDER BY n.waba_id, (
        SELECT true FROM wa_secrets s
        WHERE s.organization_id = p_org AND s.name = 'access_token' AND s.is_active
            AND s.phone_number_id = n.phone_number_id LIMIT 1
    ) NULLS LAST, n.id = o.default_number_id DESC, n.id;
    IF FOUND THEN
        RETURN;
    END IF;
    -- Why there is none.
    SELECT true INTO v_is_known FROM wa_phone_numbers n
    WHERE n.organization_id = p_org AND n.waba_id = coalesce(p_waba_id, n.waba_id) LIMIT 1;
    IF v_is_known IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = 'no business number of that account',
            DETAIL = format('The account is %s.', coalesce(left(p_waba_id, 100), 'any')),
            HINT = 'SELECT phone_number_id, waba_id FROM wa_phone_numbers;';
    END IF;
    PERFORM _wa_require_reachable_number(p_org, NULL);
    RAISE EXCEPTION USING ERRCODE = '0A000',
        MESSAGE = 'the provider of the account has no templates that can be read or submitted',
        DETAIL = format('The account is %s; it can be done at: %s.', coalesce(left(p_waba_id, 100), 'any'),
            _wa_providers_with('templates')),
        HINT = 'Of other providers keep wa_templates as they have them in their console.';
END
$$;

COMMENT ON FUNCTION _wa_template_accounts(uuid, text) IS
'Internal: the accounts of an organization (NULL: all) whose templates can be read, each with the number '
'whose token serves. Raises WA010, 0A000, WA605 where there is none.';

CREATE OR REPLACE FUNCTION request_wa_template_sync(p_waba_id text DEFAULT NULL)
RETURNS TABLE (call_id uuid, waba_id text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_ask_provider(v.org, 'sync_templates', a.waba_id, a.phone_number_id, interval '1 hour'),
        a.waba_id
    FROM (SELECT _wa_caller_organization() AS org) v
    CROSS JOIN LATERAL _wa_template_accounts(v.org, p_waba_id) a
$$;

COMMENT ON FUNCTION request_wa_template_sync(text) IS
'Has dispatchers fetch the templates of an account (NULL: of each), as bin/wa templates sync does at once: '
'the rows of wa_provider_calls that tell what comes of it; that which waits already, if one does.';

CREATE OR REPLACE FUNCTION request_wa_template_submission(
    p_name text DEFAULT NULL, p_language text DEFAULT NULL
) RETURNS TABLE (call_id uuid, waba_id text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
    v_template wa_templates;
BEGIN
    IF p_name IS NOT NULL THEN
        v_template := _wa_require_template(v_org, p_name, p_language);
    END IF;
    RETURN QUERY
    SELECT _wa_ask_provider(
        v_org, 'submit_templates', concat_ws(' ', a.waba_id, lower(p_name), p_language), a.phone_number_id,
        interval '1 hour', jsonb_build_object('name', p_name, 'language', p_language)
    ), a.waba_id
    FROM _wa_template_accounts(v_org, v_template.waba_id) a
    WHERE EXISTS (
        SELECT FROM _wa_template_submissions(
            v_org, a.waba_id, CASE WHEN p_name IS NOT NULL THEN ARRAY[p_name] END
        ) s
        WHERE s.language = coalesce(p_language, s.language)
    );
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA251',
            MESSAGE = CASE WHEN p_name IS NULL THEN 'there is no draft to be submitted'
                ELSE format('template "%s" cannot be submitted now', left(p_name, 100)) END,
            DETAIL = CASE WHEN p_name IS NULL THEN 'All have been, or there is none.'
                ELSE format('It is %s at account %s.', v_template.status, v_template.waba_id) END,
            HINT = 'Drafts can be, and rejected, approved or paused templates by name; those under review '
                'cannot.';
    END IF;
END
$$;

COMMENT ON FUNCTION request_wa_template_submission(text, text) IS
'Has dispatchers hand drafts to Meta''s review, as bin/wa templates submit does at once: all that were never '
'submitted, or the template of a name (in one language or all). The rows of wa_provider_calls, one an '
'account, that tell what comes of it; raises WA251 where there is nothing to submit.';

CREATE OR REPLACE FUNCTION _wa_account_of_call(p_org uuid, p_call_id uuid, p_attempt integer, p_kind text)
RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_waba_id text;
BEGIN
    SELECT n.waba_id INTO v_waba_id
    FROM wa_provider_calls c
    JOIN wa_phone_numbers n ON n.organization_id = c.organization_id AND n.phone_number_id = c.phone_number_id
    WHERE c.organization_id = p_org AND c.id = p_call_id AND c.attempts = p_attempt
        AND c.leased_until IS NOT NULL AND c.kind = p_kind;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA252',
            MESSAGE = 'another process has this call by now',
            DETAIL = format('It was attempt %s of call %s.', p_attempt, p_call_id),
            HINT = 'Leave it: what was done so far counts, and is gone on from.';
    END IF;
    RETURN v_waba_id;
END
$$;

COMMENT ON FUNCTION _wa_account_of_call(uuid, uuid, integer, text) IS
'Internal: the account of a call that the caller holds; raises WA252 where it does not.';

CREATE OR REPLACE FUNCTION begin_wa_template_sync_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer
) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_begin_template_sync(
        ARRAY[p_organization_id],
        _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'sync_templates')
    )
$$;

COMMENT ON FUNCTION begin_wa_template_sync_for(uuid, uuid, integer) IS
'For dispatchers: begin_wa_template_sync() for the account of a call that the process holds.';

CREATE OR REPLACE FUNCTION _wa_store_templates_of_call(p_org uuid, p_waba_id text, p_templates jsonb)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_lock(format('templates %s %s', p_org, p_waba_id));
    RETURN _wa_store_templates(ARRAY[p_org], p_waba_id, p_templates);
END
$$;

COMMENT ON FUNCTION _wa_store_templates_of_call(uuid, text, jsonb) IS
'Internal: stores templates of an account, one at a time as upsert_wa_templates() does.';

CREATE OR REPLACE FUNCTION advance_wa_template_sync_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer, p_cursor text, p_templates jsonb
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_waba_id text := _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'sync_templates');
    v_stored integer := _wa_store_templates_of_call(p_organization_id, v_waba_id, p_templates);
BEGIN
    PERFORM _wa_advance_template_sync(
        ARRAY[p_organization_id], v_waba_id, p_cursor, jsonb_array_length(p_templates)
    );
    RETURN v_stored;
END
$$;

COMMENT ON FUNCTION advance_wa_template_sync_for(uuid, uuid, integer, text, jsonb) IS
'For dispatchers: stores a page of templates and how far the sync came, for a call that the process holds.';

CREATE OR REPLACE FUNCTION finish_wa_template_sync_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer
) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_finish_template_sync(
        ARRAY[p_organization_id],
        _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'sync_templates')
    )
$$;

COMMENT ON FUNCTION finish_wa_template_sync_for(uuid, uuid, integer) IS
'For dispatchers: finish_wa_template_sync() for the account of a call that the process holds.';

CREATE OR REPLACE FUNCTION get_wa_template_submissions_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer
) RETURNS TABLE (
    template_id uuid, name text, language text, provider_template_id text, request jsonb, problem text
)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT s.template_id, s.name, s.language, s.provider_template_id, s.request, s.problem
    FROM wa_provider_calls c
    CROSS JOIN LATERAL _wa_template_submissions(
        p_organization_id, _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'submit_templates'),
        CASE WHEN c.arguments ->> 'name' IS NOT NULL THEN ARRAY[c.arguments ->> 'name'] END
    ) s
    WHERE c.organization_id = p_organization_id AND c.id = p_call_id
        AND s.language = coalesce(c.arguments ->> 'language', s.language)
$$;

COMMENT ON FUNCTION get_wa_template_submissions_for(uuid, uuid, integer) IS
'For dispatchers: get_wa_template_submissions() as a call that the process holds asks for them.';

CREATE OR REPLACE FUNCTION record_wa_template_submission_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer, p_template_id uuid, p_http_status integer,
    p_answer jsonb
) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_record_template_submission(
        p_organization_id, p_template_id,
        _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'submit_templates'),
        p_http_status, p_answer
    )
$$;

COMMENT ON FUNCTION record_wa_template_submission_for(uuid, uuid, integer, uuid, integer, jsonb) IS
'For dispatchers: record_wa_template_submission() for a call that the process holds.';

CREATE OR REPLACE FUNCTION store_wa_template_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer, p_templates jsonb
) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_store_templates_of_call(
        p_organization_id,
        _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'submit_templates'), p_templates
    )
$$;

COMMENT ON FUNCTION store_wa_template_for(uuid, uuid, integer, jsonb) IS
'For dispatchers: upsert_wa_templates() for what the provider says of a submitted template, for a call that '
'the process holds.';

CREATE OR REPLACE FUNCTION get_wa_submitted_template_for(
    p_organization_id uuid, p_call_id uuid, p_attempt integer, p_template_id uuid
) RETURNS TABLE (status text, category text, rejected_reason text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT t.status, t.category, t.rejected_reason FROM wa_templates t
    WHERE t.organization_id = p_organization_id AND t.id = p_template_id
        AND _wa_account_of_call(p_organization_id, p_call_id, p_attempt, 'submit_templates') IS NOT NULL
$$;

COMMENT ON FUNCTION get_wa_submitted_template_for(uuid, uuid, integer, uuid) IS
'For dispatchers: how a submitted template stands, for a call that the process holds.';
