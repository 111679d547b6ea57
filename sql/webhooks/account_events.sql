-- What the provider tells besides messages: kept as it came, once, then applied by the room that it is about.

CREATE OR REPLACE FUNCTION _wa_apply_account_events(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event wa_account_events;
    v_new bigint[];
BEGIN
    WITH stored AS (
        INSERT INTO wa_account_events (
            organization_id, waba_id, phone_number_id, field, event, payload, dedupe_key, occurred_at,
            received_at
        )
        SELECT
            p_org, a.waba_id, a.phone_number_id, coalesce(a.field, a.kind),
            CASE a.kind
                WHEN 'errors' THEN 'error ' || coalesce(a.payload ->> 'code', '')
                WHEN 'user_preference' THEN a.payload ->> 'value'
                ELSE coalesce(
                    a.payload ->> 'event', a.payload ->> 'decision', a.payload #>> '{alert_info,alert_type}',
                    a.payload ->> 'status', a.payload ->> 'action', a.payload ->> 'type'
                )
            END,
            -- The contact tells who it was where the element itself does not.
            a.payload || CASE WHEN a.contact IS NULL THEN '{}'
                ELSE jsonb_build_object('contact', a.contact) END,
            a.dedupe_key, a.at, a.received_at
        FROM _wa_number_atoms(p_atoms) a
        ORDER BY a.at, a.n
        ON CONFLICT (organization_id, dedupe_key) DO NOTHING
        RETURNING id
    )
    SELECT array_agg(s.id) INTO v_new FROM stored s;
    PERFORM _wa_apply_preferences(p_org, v_new);
    FOR v_event IN
        SELECT e.* FROM wa_account_events e
        WHERE e.organization_id = p_org AND e.id = ANY (v_new)
            AND e.field NOT IN ('messages', 'user_preferences')
        ORDER BY e.occurred_at, e.id
    LOOP
        IF v_event.field LIKE '%template%' THEN
            PERFORM _wa_apply_template_events(
                p_org, v_event.waba_id, ARRAY[v_event.occurred_at], ARRAY[v_event.payload]
            );
        ELSE
            PERFORM _wa_apply_account_event(p_org, v_event);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_events(uuid, _wa_webhook_atoms[]) IS
'Internal: stores events of accounts, numbers, templates and preferences, each once, and applies the new '
'ones.';

CREATE OR REPLACE FUNCTION _wa_apply_preferences(p_org uuid, p_event_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_preferences record;
    v_contact_ids bigint[];
BEGIN
    SELECT array_agg(_wa_inbound_phone(p.phone)) AS phones,
        array_agg(_wa_inbound_user_id(p.user_id, p.phone)) AS user_ids,
        array_agg(p.occurred_at) AS ats, array_agg(p.event) AS choices
    INTO v_preferences
    FROM (
        SELECT DISTINCT ON (c.phone, c.user_id) c.phone, c.user_id, e.occurred_at, e.event
        FROM wa_account_events e
        CROSS JOIN LATERAL (
            SELECT coalesce(e.payload ->> 'wa_id', e.payload #>> '{contact,wa_id}') AS phone,
                coalesce(e.payload ->> 'user_id', e.payload #>> '{contact,user_id}',
                    e.payload ->> 'parent_user_id') AS user_id
        ) c
        WHERE e.organization_id = p_org AND e.id = ANY (p_event_ids) AND e.field = 'user_preferences'
            AND e.event IN ('stop', 'resume', 'signup') AND num_nonnulls(c.phone, c.user_id) > 0
            -- The last choice counts, also when an earlier one is delivered late; but not that of another who
            -- has the number by now.
            AND NOT EXISTS (
                SELECT FROM wa_account_events l
                CROSS JOIN LATERAL (
                    SELECT coalesce(l.payload ->> 'wa_id', l.payload #>> '{contact,wa_id}') AS phone,
                        coalesce(l.payload ->> 'user_id', l.payload #>> '{contact,user_id}') AS user_id
                ) k
                WHERE l.organization_id = p_org AND l.field = 'user_preferences'
                    AND l.occurred_at > e.occurred_at
                    AND l.event IN ('stop', 'resume', 'signup')
                    AND coalesce(k.user_id = c.user_id, k.phone = c.phone)
            )
        ORDER BY c.phone, c.user_id, e.occurred_at DESC, e.event DESC
    ) p;
    IF v_preferences.phones IS NULL THEN
        RETURN;
    END IF;
    v_contact_ids := ARRAY(
        SELECT r.contact_id FROM _wa_resolve_contacts(
            p_org, v_preferences.phones, v_preferences.user_ids, 'preference', v_preferences.ats
        ) r
        ORDER BY r.n
    );
    -- With the time of the choice: what was asked for after it, by whichever way, stands.
    PERFORM _wa_opt_out_contacts(
        p_org, array_agg(c.contact_id), '{marketing}', 'the customer stopped marketing messages',
        'user_preferences', '{}', false, c.at
    )
    FROM unnest(v_contact_ids, v_preferences.choices, v_preferences.ats) c (contact_id, choice, at)
    WHERE c.choice = 'stop'
    GROUP BY c.at ORDER BY c.at;
    PERFORM _wa_opt_in_contacts(
        p_org, array_agg(c.contact_id), 'marketing', 'user_preferences',
        jsonb_build_object('preference', c.choice), c.at
    )
    FROM unnest(v_contact_ids, v_preferences.choices, v_preferences.ats) c (contact_id, choice, at)
    WHERE c.choice IN ('resume', 'signup')
    GROUP BY c.choice, c.at ORDER BY c.at;
END
$$;

COMMENT ON FUNCTION _wa_apply_preferences(uuid, bigint[]) IS
'Internal: a customer''s choice to stop or resume marketing messages becomes an opt-out or consent.';
