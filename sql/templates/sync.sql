-- Templates as the provider has them: pages of its API, and the webhooks that change them.

CREATE OR REPLACE FUNCTION _wa_sync_organizations(p_waba_id text) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_organizations uuid[] := ARRAY(
        SELECT DISTINCT n.organization_id FROM wa_phone_numbers n
        WHERE n.waba_id = p_waba_id AND n.organization_id = ANY (_wa_chosen_organizations())
        ORDER BY 1
    );
BEGIN
    IF v_organizations = '{}' THEN
        RETURN ARRAY[current_wa_organization()];
    END IF;
    RETURN v_organizations;
END
$$;

COMMENT ON FUNCTION _wa_sync_organizations(text) IS
'Internal: the organization that was chosen, or all visible ones with a number of the account; the current '
'one while no number is registered. What one token reads is not to be written to another organization.';

CREATE OR REPLACE FUNCTION _wa_template_category(p_category text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN upper(p_category) IN ('MARKETING', 'UTILITY', 'AUTHENTICATION') THEN upper(p_category)
    WHEN upper(p_category) = 'OTP' THEN 'AUTHENTICATION'
    WHEN p_category IS NOT NULL THEN 'MARKETING'
END;

COMMENT ON FUNCTION _wa_template_category(text) IS
'Internal: a category of the provider as one of ours; an unknown one counts as MARKETING, which opt-outs '
'stop.';

CREATE OR REPLACE FUNCTION _wa_begin_template_sync(p_orgs uuid[], p_waba_id text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_cursor text;
BEGIN
    INSERT INTO wa_template_syncs AS s (organization_id, waba_id)
    SELECT o.id, p_waba_id FROM unnest(p_orgs) o (id)
    ON CONFLICT (organization_id, waba_id) DO UPDATE SET
        started_at = clock_timestamp(), after_cursor = NULL, finished_at = NULL, templates = 0
    -- A cursor of the provider does not keep for long.
    WHERE s.finished_at IS NOT NULL OR s.started_at < clock_timestamp() - interval '1 hour';
    SELECT s.after_cursor INTO v_cursor
    FROM wa_template_syncs s
    WHERE s.waba_id = p_waba_id AND s.organization_id = ANY (p_orgs)
    ORDER BY s.started_at DESC
    LIMIT 1;
    RETURN v_cursor;
END
$$;

COMMENT ON FUNCTION _wa_begin_template_sync(uuid[], text) IS
'Internal: begin_wa_template_sync() for organizations.';

CREATE OR REPLACE FUNCTION begin_wa_template_sync(p_waba_id text) RETURNS text
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_begin_template_sync(_wa_sync_organizations(p_waba_id), p_waba_id)
$$;

COMMENT ON FUNCTION begin_wa_template_sync(text) IS
'Starts fetching the templates of an account, or goes on with a fetch that broke off less than an hour ago; '
'returns the cursor to go on after, NULL for the first page.';

CREATE OR REPLACE FUNCTION _wa_advance_template_sync(
    p_orgs uuid[], p_waba_id text, p_cursor text, p_templates integer
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_template_syncs SET after_cursor = p_cursor, templates = templates + p_templates
    WHERE waba_id = p_waba_id AND organization_id = ANY (p_orgs) AND finished_at IS NULL
$$;

COMMENT ON FUNCTION _wa_advance_template_sync(uuid[], text, text, integer) IS
'Internal: advance_wa_template_sync() for organizations.';

CREATE OR REPLACE FUNCTION advance_wa_template_sync(p_waba_id text, p_cursor text, p_templates integer)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_advance_template_sync(_wa_sync_organizations(p_waba_id), p_waba_id, p_cursor, p_templates)
$$;

COMMENT ON FUNCTION advance_wa_template_sync(text, text, integer) IS
'Records that the page up to a cursor is stored; to be called in the transaction that stored it.';

CREATE OR REPLACE FUNCTION _wa_finish_template_sync(p_orgs uuid[], p_waba_id text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_missing integer;
BEGIN
    UPDATE wa_templates t SET status = 'MISSING'
    FROM wa_template_syncs s
    WHERE s.waba_id = p_waba_id AND s.organization_id = ANY (p_orgs)
        AND s.finished_at IS NULL AND t.organization_id = s.organization_id AND t.waba_id = p_waba_id
        AND t.status <> 'MISSING' AND (t.synced_at IS NULL OR t.synced_at < s.started_at)
        AND t.created_at < s.started_at
        -- A draft is not missing: it was never there.
        AND (t.provider_template_id IS NOT NULL OR t.approval_status = 'approved');
    GET DIAGNOSTICS v_missing = ROW_COUNT;
    UPDATE wa_template_syncs SET finished_at = clock_timestamp(), after_cursor = NULL
    WHERE waba_id = p_waba_id AND organization_id = ANY (p_orgs) AND finished_at IS NULL;
    RETURN v_missing;
END
$$;

COMMENT ON FUNCTION _wa_finish_template_sync(uuid[], text) IS
'Internal: finish_wa_template_sync() for organizations.';

CREATE OR REPLACE FUNCTION finish_wa_template_sync(p_waba_id text) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_finish_template_sync(_wa_sync_organizations(p_waba_id), p_waba_id)
$$;

COMMENT ON FUNCTION finish_wa_template_sync(text) IS
'Ends a fetch that saw every page: templates of the account that were not seen become MISSING and are not '
'sent any more; drafts stay. Returns how many.';

-- Definer: no role reaches the locks. It is that of the caller's own organization, or of all for wa_admin.
CREATE OR REPLACE FUNCTION _wa_lock_template_sync(p_waba_id text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_lock(format('templates %s %s', v.id, p_waba_id))
    FROM (SELECT u.id FROM unnest(_wa_chosen_organizations()) u (id) ORDER BY u.id) v
$$;

COMMENT ON FUNCTION _wa_lock_template_sync(text) IS
'Internal: one at a time of what stores fetched templates of an account, until the end of the transaction.';

-- Some providers have several contents of one name and language. An approved one keeps the row, of several
-- the first that a fetch brings. One that is gone is MISSING at the end of the fetch, and another takes its
-- place in the next.
CREATE OR REPLACE FUNCTION _wa_has_better_template(
    p_org uuid, p_waba_id text, p_id uuid, p_provider_id text, p_status text
) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_templates t
        WHERE t.organization_id = p_org AND t.id = p_id AND t.status = 'APPROVED'
            AND t.provider_template_id <> p_provider_id
            AND (p_status <> 'APPROVED' OR t.synced_at >= (
                SELECT s.started_at FROM wa_template_syncs s
                WHERE s.organization_id = p_org AND s.waba_id = p_waba_id AND s.finished_at IS NULL
            ))
    )
$$;

COMMENT ON FUNCTION _wa_has_better_template(uuid, text, uuid, text, text) IS
'Internal: whether our row is that of another content of the provider with the same name and language, '
'which is to keep it.';

-- Two fetches at once would both find a template missing and both insert it: the caller has the lock.
CREATE OR REPLACE FUNCTION _wa_store_templates(p_orgs uuid[], p_waba_id text, p_templates jsonb)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid;
    v_row record;
    v_id uuid;
    v_stored integer := 0;
BEGIN
    FOREACH v_org IN ARRAY p_orgs LOOP
        FOR v_row IN
            SELECT e.value ->> 'id' AS provider_id, e.value ->> 'name' AS name,
                replace(e.value ->> 'language', '-', '_') AS language, upper(e.value ->> 'status') AS status,
                _wa_template_category(e.value ->> 'category') AS category,
                CASE WHEN jsonb_typeof(e.value -> 'components') = 'array' THEN e.value -> 'components' END
                AS components,
                nullif(e.value ->> 'rejected_reason', 'NONE') AS rejected_reason,
                coalesce(e.value #>> '{quality_score,score}', e.value ->> 'quality_score') AS quality,
                e.value ->> 'previous_category' AS previous_category,
                e.value ->> 'correct_category' AS correct_category
            FROM jsonb_array_elements(p_templates) e
            -- What has no name yet, as a draft at the provider, cannot be sent.
            WHERE e.value ->> 'name' <> '' AND e.value ->> 'language' <> ''
                AND e.value ->> 'status' IS NOT NULL AND e.value ->> 'category' IS NOT NULL
        LOOP
            v_stored := v_stored + 1;
            -- Looked up first: in the UPDATE it could be asked for every row of the table.
            v_id := _wa_find_provider_template(
                v_org, p_waba_id, v_row.provider_id, v_row.name, v_row.language
            );
            CONTINUE WHEN _wa_has_better_template(v_org, p_waba_id, v_id, v_row.provider_id, v_row.status);
            UPDATE wa_templates t SET
                waba_id = p_waba_id, provider_template_id = v_row.provider_id, language = v_row.language,
                status = v_row.status, category = v_row.category,
                components = coalesce(v_row.components, t.components),
                -- The webhook says more than this word does.
                rejected_reason = CASE
                    WHEN split_part(t.rejected_reason, ':', 1) = v_row.rejected_reason THEN t.rejected_reason
                    ELSE v_row.rejected_reason
                END,
                quality_score = v_row.quality,
                previous_category = coalesce(
                    v_row.previous_category, nullif(t.category, v_row.category), t.previous_category
                ),
                correct_category = v_row.correct_category,
                -- What the provider calls approved after it had refused it may be tried again.
                blocked_at = CASE WHEN v_row.status <> 'APPROVED' THEN t.blocked_at END,
                blocked_until = CASE WHEN v_row.status <> 'APPROVED' THEN t.blocked_until END,
                blocked_reason = CASE WHEN v_row.status <> 'APPROVED' THEN t.blocked_reason END,
                synced_at = clock_timestamp()
            WHERE t.organization_id = v_org AND t.id = v_id;
            CONTINUE WHEN FOUND;
            INSERT INTO wa_templates (
                organization_id, waba_id, provider_template_id, name, language, status, category, body_text,
                components,
                rejected_reason, quality_score, previous_category, correct_category, created_by, synced_at
            )
            VALUES (
                v_org, p_waba_id, v_row.provider_id, v_row.name, v_row.language, v_row.status, v_row.category,
                '', coalesce(v_row.components, '[]'), v_row.rejected_reason, v_row.quality,
                v_row.previous_category, v_row.correct_category, 'sync', clock_timestamp()
            );
        END LOOP;
    END LOOP;
    RETURN v_stored;
END
$$;

COMMENT ON FUNCTION _wa_store_templates(uuid[], text, jsonb) IS
'Internal: upsert_wa_templates() for organizations.';

CREATE OR REPLACE FUNCTION upsert_wa_templates(p_waba_id text, p_templates jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_lock_template_sync(p_waba_id);
    RETURN _wa_store_templates(_wa_sync_organizations(p_waba_id), p_waba_id, p_templates);
END
$$;

COMMENT ON FUNCTION upsert_wa_templates(text, jsonb) IS
'Stores a page of the provider''s template list (the data array). A template made here before its approval '
'is recognised by name and language and keeps its name and declared parameters. Returns how many were '
'stored.';

CREATE OR REPLACE FUNCTION _wa_find_provider_template(
    p_org uuid, p_waba_id text, p_provider_id text, p_name text, p_language text
) RETURNS uuid
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT t.id
    FROM wa_templates t
    WHERE t.organization_id = p_org AND (t.waba_id = p_waba_id OR t.waba_id IS NULL)
        AND (t.provider_template_id = p_provider_id
            OR lower(t.name) = lower(p_name) AND t.language = replace(p_language, '-', '_'))
    ORDER BY (t.provider_template_id = p_provider_id) IS TRUE DESC, t.waba_id IS NULL
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_find_provider_template(uuid, text, text, text, text) IS
'Internal: our row of a template that the provider names; NULL when there is none.';

-- Told by shape: one of Meta's own pages shows a quality event under the field of status events.
CREATE OR REPLACE FUNCTION _wa_template_event_kind(p_value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN NOT p_value ?| ARRAY['message_template_id', 'message_template_name'] THEN NULL
    WHEN p_value ? 'new_quality_score' THEN 'quality'
    WHEN p_value ? 'new_category' THEN 'category'
    WHEN p_value ? 'message_template_element' THEN 'components'
    WHEN p_value ? 'event' THEN 'status'
END;

COMMENT ON FUNCTION _wa_template_event_kind(jsonb) IS
'Internal: what a webhook says about a template: quality, category, components or status; NULL when nothing.';

CREATE OR REPLACE FUNCTION _wa_template_event_buttons(p_buttons jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'type', upper(b.value ->> 'message_template_button_type'),
        'text', b.value ->> 'message_template_button_text',
        'url', b.value ->> 'message_template_button_url',
        'phone_number', b.value ->> 'message_template_button_phone_number'
    )) ORDER BY b.place), '[]')
    FROM jsonb_array_elements(CASE jsonb_typeof(p_buttons) WHEN 'array' THEN p_buttons END)
    WITH ORDINALITY b (value, place);
END;

COMMENT ON FUNCTION _wa_template_event_buttons(jsonb) IS
'Internal: the buttons of a components webhook as the template list writes them.';

CREATE OR REPLACE FUNCTION _wa_apply_template_events(
    p_org uuid, p_waba_id text, p_occurred_at timestamptz[], p_values jsonb[]
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event record;
    v_template wa_templates;
    v_changed integer := 0;
BEGIN
    FOR v_event IN
        SELECT e.occurred_at, e.value, _wa_template_event_kind(e.value) AS kind
        FROM unnest(p_occurred_at, p_values) e (occurred_at, value)
        WHERE _wa_template_event_kind(e.value) IS NOT NULL
        ORDER BY e.occurred_at
    LOOP
        SELECT t.* INTO v_template
        FROM _wa_find_provider_template(
            p_org, p_waba_id, v_event.value ->> 'message_template_id',
            v_event.value ->> 'message_template_name',
            v_event.value ->> 'message_template_language'
        ) f
        JOIN wa_templates t ON t.organization_id = p_org AND t.id = f;
        -- Unknown ones come with the next sync; events from before a sync or before a later event are
        -- history.
        CONTINUE WHEN NOT FOUND OR v_event.occurred_at < date_trunc('second', v_template.synced_at)
            OR EXISTS (
            SELECT FROM wa_account_events a
            WHERE a.organization_id = p_org AND a.occurred_at > v_event.occurred_at
                AND a.payload ->> 'message_template_id' = v_event.value ->> 'message_template_id'
                AND _wa_template_event_kind(a.payload) = v_event.kind
        );
        v_changed := v_changed + 1;
        PERFORM _wa_apply_template_event(v_template, v_event.kind, v_event.value);
    END LOOP;
    RETURN v_changed;
END
$$;

COMMENT ON FUNCTION _wa_apply_template_events(uuid, text, timestamptz[], jsonb[]) IS
'Internal: lets webhook values about templates of an account change their rows. Call it after the events '
'are in wa_account_events: one that is older than another of its kind there changes nothing, whatever the '
'order of arrival.';

CREATE OR REPLACE FUNCTION _wa_apply_template_event(p_template wa_templates, p_kind text, p_value jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event text := upper(p_value ->> 'event');
BEGIN
    UPDATE wa_templates t SET
        provider_template_id = coalesce(t.provider_template_id, p_value ->> 'message_template_id'),
        status = CASE
            WHEN p_kind <> 'status' THEN t.status
            WHEN v_event IN ('REINSTATED', 'UNARCHIVED') THEN 'APPROVED'
            ELSE v_event
        END,
        rejected_reason = CASE
            WHEN p_kind = 'status' THEN nullif(concat_ws(
                ': ', nullif(p_value ->> 'reason', 'NONE'), p_value #>> '{rejection_info,reason}',
                p_value #>> '{rejection_info,recommendation}'
            ), '')
            ELSE t.rejected_reason
        END,
        quality_score = CASE WHEN p_kind = 'quality' THEN p_value ->> 'new_quality_score'
            ELSE t.quality_score END,
        category = coalesce(CASE p_kind
            WHEN 'category' THEN _wa_template_category(p_value ->> 'new_category')
            WHEN 'status' THEN _wa_template_category(p_value ->> 'message_template_category')
        END, t.category),
        previous_category = CASE
            WHEN p_kind = 'category' THEN coalesce(p_value ->> 'previous_category', t.previous_category)
            ELSE t.previous_category
        END,
        -- An announced category is named as the correct one; once it is done, nothing is announced any more.
        correct_category = CASE WHEN p_kind = 'category' THEN p_value ->> 'correct_category'
            ELSE t.correct_category END,
        header_text = CASE
            WHEN p_kind = 'components' AND coalesce(t.header_format, 'TEXT') = 'TEXT'
                THEN p_value ->> 'message_template_title'
            ELSE t.header_text
        END,
        header_format = CASE
            WHEN p_kind = 'components' AND t.header_format = 'TEXT'
                AND p_value ->> 'message_template_title' IS NULL
                THEN NULL
            ELSE t.header_format
        END,
        body_text = CASE
            WHEN p_kind = 'components' THEN coalesce(p_value ->> 'message_template_element', t.body_text)
            ELSE t.body_text
        END,
        footer_text = CASE
            WHEN p_kind = 'components' THEN p_value ->> 'message_template_footer' ELSE t.footer_text
        END,
        buttons = CASE
            WHEN p_kind = 'components' THEN _wa_template_event_buttons(p_value -> 'message_template_buttons')
            ELSE t.buttons
        END
    WHERE t.organization_id = p_template.organization_id AND t.id = p_template.id;
END
$$;

COMMENT ON FUNCTION _wa_apply_template_event(wa_templates, text, jsonb) IS
'Internal: writes what one webhook value of a known kind says about a template.';
