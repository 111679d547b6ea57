-- What answers of the provider that could not be recorded hold of a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_erase_late_results_of(p_org uuid, p_who text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    DELETE FROM wa_late_results r
    WHERE r.organization_id = p_org AND EXISTS (
        SELECT FROM unnest(p_who) w (who) WHERE position(w.who IN r.result::text || coalesce(r.error, '')) > 0
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_late_results_of(uuid, text[]) IS
'Internal: deletes answers about a person that were not recorded; returns how many. What is in flight was '
'waited for, so that nothing needs them any more.';
