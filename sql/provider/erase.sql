-- What calls to the provider hold of a person, and taking it away: marks of reading name messages.

CREATE OR REPLACE FUNCTION _wa_erase_provider_calls_of(p_org uuid, p_subjects text[], p_pattern text)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_provider_calls c
    WHERE c.organization_id = p_org AND (
        c.subject = ANY (p_subjects) AND c.kind = 'mark_read'
        OR concat_ws(' ', c.subject, c.body, c.passing_body, c.arguments, c.result, c.error) ~ p_pattern
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_provider_calls_of(uuid, text[], text) IS
'Internal: deletes calls about conversations with these ids, or that match a pattern; returns how many.';
