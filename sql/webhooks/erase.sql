-- What raw webhooks hold of a person, and taking it away. A body may tell of several people, and of several
-- organizations: only the atoms of this one at this organization's numbers go, the rest can be replayed.

-- What was not processed yet is waited for: the ledger has to know of it first.
CREATE OR REPLACE FUNCTION _wa_erase_webhooks_of(
    p_org uuid, p_who text[], p_after bigint, p_limit integer, OUT last_id bigint, OUT changed integer,
    OUT is_waiting boolean
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_own text[] := ARRAY(
        SELECT unnest(ARRAY[n.phone_number_id, n.waba_id]) FROM wa_phone_numbers n
        WHERE n.organization_id = p_org
    );
    v_pattern text := _wa_person_pattern(p_who);
    v_ids bigint[];
    v_redacted bigint[];
BEGIN
    SELECT array_agg(f.id) FILTER (WHERE NOT f.waits), coalesce(bool_or(f.waits), false)
    INTO v_ids, is_waiting
    FROM (
        SELECT l.id, bool_or(l.status = 'pending') OVER (ORDER BY l.id) AS waits
        FROM (
            SELECT w.id, w.status FROM wa_webhook_logs w WHERE w.id > p_after ORDER BY w.id LIMIT p_limit
        ) l
    ) f;
    v_ids := _wa_bounded_logs(v_ids);
    last_id := (SELECT max(i.id) FROM unnest(v_ids) i (id));
    is_waiting := is_waiting AND last_id IS NULL;
    WITH redacted AS MATERIALIZED (
        SELECT r.log_id, r.body
        FROM (
            SELECT array_agg(l.id ORDER BY l.id) AS ids,
                _wa_translate_webhooks(
                    array_agg(l.provider ORDER BY l.id), array_agg(l.body ORDER BY l.id)
                ) AS bodies
            FROM wa_webhook_logs l WHERE l.id = ANY (v_ids)
            OFFSET 0
        ) b
        CROSS JOIN LATERAL _wa_redact_webhooks(b.ids, b.bodies, p_who, v_own) r
    ),
    written AS (
        UPDATE wa_webhook_logs l SET
            body = r.body, provider = 'meta', error = regexp_replace(l.error, v_pattern, '0', 'g')
        FROM redacted r WHERE l.id = r.log_id
        RETURNING l.id
    )
    SELECT array_agg(w.id), count(*) INTO v_redacted, changed FROM written w;
    UPDATE wa_webhook_errors e SET payload = NULL, error = regexp_replace(e.error, v_pattern, '0', 'g')
    WHERE e.log_id = ANY (v_redacted) AND (e.payload::text ~ v_pattern OR e.error ~ v_pattern);
END
$$;

COMMENT ON FUNCTION _wa_erase_webhooks_of(uuid, text[], bigint, integer) IS
'Internal: takes the atoms of a person out of the next raw webhooks: the last one''s id (NULL: none is '
'left), how many were changed, and whether one that is not processed yet stands in the way.';

CREATE OR REPLACE FUNCTION _wa_erase_account_events_of(p_org uuid, p_pattern text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_account_events v SET payload = '{}'
    WHERE v.organization_id = p_org AND v.payload::text ~ p_pattern;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_account_events_of(uuid, text) IS
'Internal: empties account events that match a pattern; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_account_events_of(p_org uuid, p_pattern text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(v) - 'organization_id' ORDER BY v.id), '[]')
    FROM wa_account_events v WHERE v.organization_id = p_org AND v.payload::text ~ p_pattern
$$;

COMMENT ON FUNCTION _wa_export_account_events_of(uuid, text) IS
'Internal: account events that match a pattern.';

CREATE OR REPLACE FUNCTION _wa_export_webhooks_of(p_org uuid, p_who text[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'received_at', l.received_at, 'atoms', r.atoms
    ) ORDER BY l.id), '[]')
    FROM wa_webhook_logs l
    CROSS JOIN LATERAL _wa_redact_webhooks(
        ARRAY[l.id], _wa_translate_webhooks(ARRAY[l.provider], ARRAY[l.body]), p_who, ARRAY(
        SELECT unnest(ARRAY[n.phone_number_id, n.waba_id]) FROM wa_phone_numbers n
        WHERE n.organization_id = p_org
    )) r
$$;

COMMENT ON FUNCTION _wa_export_webhooks_of(uuid, text[]) IS
'Internal: what raw webhooks tell of a person.';
