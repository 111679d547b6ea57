-- What requests over HTTP hold of a person, and taking it away.

-- Results are ids; a key is the caller's own word.
CREATE OR REPLACE FUNCTION _wa_erase_requests_of(p_org uuid, p_pattern text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_idempotent_requests r
    WHERE r.organization_id = p_org AND (r.idempotency_key ~ p_pattern OR r.result::text ~ p_pattern);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_requests_of(uuid, text) IS
'Internal: deletes what is remembered of requests that match a pattern; returns how many.';

CREATE OR REPLACE FUNCTION _wa_export_requests_of(p_org uuid, p_pattern text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(r) - 'organization_id' - 'body_hash' ORDER BY r.created_at), '[]')
    FROM wa_idempotent_requests r
    WHERE r.organization_id = p_org AND (r.idempotency_key ~ p_pattern OR r.result::text ~ p_pattern)
$$;

COMMENT ON FUNCTION _wa_export_requests_of(uuid, text) IS
'Internal: what is remembered of requests that match a pattern.';
