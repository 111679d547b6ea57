-- The rows that go, as requests.

CREATE OR REPLACE FUNCTION _wa_requests(
    p_org wa_organizations, p_number wa_phone_numbers, p_ids uuid[], p_contact_ids bigint[],
    p_template_ids uuid[], p_classes smallint[], p_starts timestamptz[], p_now timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision, start_in_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_path text := _wa_request_path((p_number).provider, (p_number).phone_number_id, (p_number).waba_id);
    v_takes_uploads boolean := EXISTS (
        SELECT FROM wa_providers p WHERE p.name = (p_number).provider AND p.upload_path IS NOT NULL
    );
BEGIN
    RETURN QUERY
    SELECT
        (p_org).id, q.id, q.attempt,
        (p_org).id || ':' || (p_number).id || ':' || u.contact_id || ':' || _wa_priority_of(u.class),
        (p_number).phone_number_id, (p_number).provider,
        v_path,
        _wa_build_request(
            q.id, q.attempt, a.phone, q.type, q.text_body, n.content, q.reply_to, t.template, c.components
        )::text,
        30::double precision,
        extract(epoch FROM u.start_at - p_now)::double precision
    FROM unnest(p_ids, p_contact_ids, p_template_ids, p_classes, p_starts)
        WITH ORDINALITY u (id, contact_id, template_id, class, start_at, place)
    CROSS JOIN LATERAL (
        SELECT x.* FROM wa_outbound_queue x WHERE x.organization_id = (p_org).id AND x.id = u.id LIMIT 1
    ) q
    LEFT JOIN LATERAL (
        SELECT x AS template FROM wa_templates x
        WHERE x.organization_id = (p_org).id AND x.id = u.template_id LIMIT 1
    ) t ON true
    -- Consent was judged for the contact, so it is the contact that the request goes to, whatever became of
    -- the number meanwhile. Nearly always one look at it tells that nothing did.
    LEFT JOIN LATERAL (
        SELECT x.phone_e164, x.phone_key, x.user_id FROM wa_contacts x
        WHERE x.organization_id = (p_org).id AND x.id = u.contact_id LIMIT 1
    ) p ON true
    -- OFFSET, here and below: evaluated once a row, though the request names it more than once; only so is
    -- _wa_build_request() a part of this plan instead of a call for each row.
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN _wa_named_file(q.type, q.content) IS NULL OR (t.template).id IS NOT NULL THEN q.content
            WHEN v_takes_uploads
                THEN _wa_provider_content((p_org).id, q.content, (p_number).phone_number_id, p_now)
            ELSE _wa_linked_content((p_org).id, q.content)
        END AS content
        OFFSET 0
    ) n
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN q.phone = p.phone_e164 OR q.phone = p.user_id OR _wa_phone_key(q.phone) = p.phone_key
                THEN q.phone
            ELSE _wa_readdress((p_org).id, q.id, u.contact_id, q.phone)
        END AS phone
        OFFSET 0
    ) a
    CROSS JOIN LATERAL (
        SELECT _wa_request_components(
            q.type, q.content, q.template_params, q.fallback_template_params, t.template
        ) AS components
        OFFSET 0
    ) c
    WHERE CASE
        WHEN a.phone IS NULL THEN false
        WHEN (t.template).id IS NULL OR c.components IS NOT NULL THEN true
        ELSE _wa_is_fit(
            (p_org).id, q.id, u.contact_id, t.template,
            _wa_queued_params(q.type, q.content, q.template_params, q.fallback_template_params)
        )
    END
    ORDER BY u.place;
END
$$;

COMMENT ON FUNCTION _wa_requests(
    wa_organizations, wa_phone_numbers, uuid[], bigint[], uuid[], smallint[], timestamptz[], timestamptz
) IS 'Internal: the requests of rows that were put in flight, and in how many seconds each may start.';

-- A row that its provider cannot send ends here, and its request never leaves.
CREATE OR REPLACE FUNCTION _wa_translated_requests(
    p_org wa_organizations, p_number wa_phone_numbers, p_ids uuid[], p_contact_ids bigint[],
    p_template_ids uuid[], p_classes smallint[], p_starts timestamptz[], p_now timestamptz
)
RETURNS TABLE (
    organization_id uuid, queue_id uuid, attempt integer, order_key text, phone_number_id text, provider text,
    path text, body text, timeout_s double precision, start_in_s double precision
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_made record;
    v_bodies jsonb[];
BEGIN
    SELECT array_agg(r.queue_id) AS ids, array_agg(r.attempt) AS attempts,
        array_agg(r.order_key) AS order_keys, array_agg(r.path) AS paths,
        array_agg(r.body::jsonb) AS requests, array_agg(r.timeout_s) AS timeouts,
        array_agg(r.start_in_s) AS starts
    INTO v_made
    FROM _wa_requests(
        p_org, p_number, p_ids, p_contact_ids, p_template_ids, p_classes, p_starts, p_now
    ) r;
    IF v_made.ids IS NULL THEN
        RETURN;
    END IF;
    v_bodies := _wa_translate_requests(p_number, v_made.requests);
    PERFORM _wa_fail_messages((p_org).id, array_agg(u.id), 'unsupported', u.body ->> 'problem')
    FROM unnest(v_made.ids, v_bodies) u (id, body)
    WHERE u.body ? 'problem'
    GROUP BY u.body ->> 'problem';
    IF FOUND THEN
        PERFORM _wa_release_in_order((p_org).id, array_agg(p_contact_ids[array_position(p_ids, u.id)]))
        FROM unnest(v_made.ids, v_bodies) u (id, body)
        WHERE u.body ? 'problem';
    END IF;
    RETURN QUERY
    SELECT (p_org).id, u.id, u.attempt, u.order_key, (p_number).phone_number_id, (p_number).provider, u.path,
        u.body::text, u.timeout_s, u.start_in_s
    FROM unnest(
        v_made.ids, v_made.attempts, v_made.order_keys, v_made.paths, v_bodies, v_made.timeouts, v_made.starts
    ) WITH ORDINALITY u (id, attempt, order_key, path, body, timeout_s, start_in_s, n)
    WHERE NOT u.body ? 'problem'
    ORDER BY u.n;
END
$$;

COMMENT ON FUNCTION _wa_translated_requests(
    wa_organizations, wa_phone_numbers, uuid[], bigint[], uuid[], smallint[], timestamptz[], timestamptz
) IS 'Internal: as _wa_requests(), in the form of a provider that has its own.';

-- Rare: the template was changed, by hand or by Meta, while messages with it waited. Called for what did not
-- fit, with the template that it did not fit, so that another change now cannot leave the row in between.
CREATE OR REPLACE FUNCTION _wa_is_fit(
    p_org uuid, p_id uuid, p_contact_id bigint, p_template wa_templates, p_params jsonb
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_built record := _wa_build_template(p_template, p_params);
BEGIN
    IF v_built.problem IS NULL THEN
        RETURN true;
    END IF;
    PERFORM _wa_fail_messages(p_org, ARRAY[p_id], 'template_changed', format(
        'the values do not fit the template "%s" (%s) any more: %s', p_template.name, p_template.language,
        v_built.problem[2]
    ));
    PERFORM _wa_release_in_order(p_org, ARRAY[p_contact_id]);
    RETURN false;
END
$$;

COMMENT ON FUNCTION _wa_is_fit(uuid, uuid, bigint, wa_templates, jsonb) IS
'Internal: whether values fit a template; ends the message that gives them if they do not '
'(template_changed).';
