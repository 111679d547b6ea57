-- What a business has to be able to say of itself, as rows: what was consented to, refused, erased, kept.

-- Windows: judged as in wa_message_compliance, by the window at the time of the claim.
CREATE OR REPLACE FUNCTION report_wa_compliance(
    p_from timestamptz, p_to timestamptz DEFAULT clock_timestamp()
)
RETURNS TABLE (topic text, item text, row_count bigint, first_at timestamptz, last_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    IF p_from IS NULL OR p_to IS NULL OR p_from >= p_to THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a report needs a time that begins before it ends',
            DETAIL = format('From %s to %s.', coalesce(p_from::text, 'NULL'), coalesce(p_to::text, 'NULL')),
            HINT = 'SELECT * FROM report_wa_compliance(now() - interval ''90 days'', now());';
    END IF;
    RETURN QUERY
    SELECT f.topic, f.item, count(*), min(f.at), max(f.at)
    FROM (
        SELECT 'opt_in', i.scope || ' by ' || i.source, i.opted_in_at FROM wa_opt_ins i
        WHERE i.organization_id = v_org
        UNION ALL
        SELECT 'opt_out', o.scope || ' by ' || o.source, o.opt_out_date FROM wa_opt_outs o
        WHERE o.organization_id = v_org
        UNION ALL
        SELECT 'opt_out_lifted', o.scope || ' by ' || o.revoked_source, o.revoked_at FROM wa_opt_outs o
        WHERE o.organization_id = v_org AND o.revoked_at IS NOT NULL
        UNION ALL
        SELECT 'refused', q.error_code, q.processed_at FROM wa_outbound_queue q
        WHERE q.organization_id = v_org AND q.status IN ('failed', 'cancelled')
            AND q.error_code ~ '^[a-z_]+$'
        UNION ALL
        SELECT 'erasure', e.state, e.requested_at FROM wa_erasures e WHERE e.organization_id = v_org
        UNION ALL
        SELECT 'kept_of_erased', k.key || ' until ' || (k.value ->> 'until'), e.requested_at
        FROM wa_erasures e CROSS JOIN LATERAL jsonb_each(e.keep) k WHERE e.organization_id = v_org
        UNION ALL
        SELECT 'hold', CASE WHEN h.released_at IS NULL THEN 'in force' ELSE 'released' END, h.held_at
        FROM wa_contact_holds h WHERE h.organization_id = v_org
        UNION ALL
        SELECT 'export', a.event, a.created_at FROM audit_log a
        WHERE a.organization_id = v_org AND a.event = 'contact_exported'
        UNION ALL
        SELECT 'account_event', concat_ws(' ', v.field, v.event), v.occurred_at FROM wa_account_events v
        WHERE v.organization_id = v_org
        UNION ALL
        SELECT 'template_sent', m.template_category, m.created_at FROM wa_messages m
        WHERE m.organization_id = v_org AND m.direction = 'outbound' AND m.status = 'sent'
            AND m.template_name IS NOT NULL AND m.template_category IS NOT NULL AND m.created_at >= p_from AND m.created_at < p_to
        UNION ALL
        SELECT 'window', CASE
            WHEN m.is_within_24h_at_claim THEN 'kept'
            WHEN NOT m.is_within_24h_at_claim THEN 'broken' ELSE 'not known' END, m.created_at
        FROM wa_messages m
        WHERE m.organization_id = v_org AND m.direction = 'outbound' AND m.status = 'sent'
            AND NOT m.is_echo AND m.template_name IS NULL
            AND NOT _wa_is_sms(m.template_name, m.template_category)
            AND m.created_at >= p_from AND m.created_at < p_to
    ) f (topic, item, at)
    WHERE f.at >= p_from AND f.at < p_to
    GROUP BY f.topic, f.item
    UNION ALL
    -- What is counted as it is now.
    SELECT 'template_category', t.category || CASE
        WHEN t.correct_category <> t.category THEN ', to become ' || t.correct_category
        WHEN t.previous_category <> t.category THEN ', was ' || t.previous_category ELSE '' END,
        count(*), min(t.created_at), max(t.updated_at)
    FROM wa_templates t WHERE t.organization_id = v_org
    GROUP BY 1, 2
    UNION ALL
    SELECT 'retention', r.kind || coalesce(' after ' || r.keep::text, ' for good'), r.row_count, r.oldest_at,
        NULL
    FROM _wa_retention_counts(v_org, p_to) r
    UNION ALL
    SELECT 'window', 'broken', 0, NULL, NULL WHERE NOT EXISTS (
        SELECT FROM wa_messages m
        WHERE m.organization_id = v_org AND m.direction = 'outbound' AND m.status = 'sent'
            AND NOT m.is_echo AND m.template_name IS NULL AND NOT m.is_within_24h_at_claim
            AND NOT _wa_is_sms(m.template_name, m.template_category)
            AND m.created_at >= p_from AND m.created_at < p_to
    )
    ORDER BY 1, 2;
END
$$;

COMMENT ON FUNCTION report_wa_compliance(timestamptz, timestamptz) IS
'What happened to consent, refusals, erasures, holds and policy between two times, by topic and item, with '
'how many, the first and the last; template categories and what retention has yet to take, as they are now. '
'window, broken: free-form messages by WhatsApp that went out with the window closed; 0 says that there was '
'none.';
