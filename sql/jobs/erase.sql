-- What errors of jobs may hold of a person, and taking it away.

CREATE OR REPLACE FUNCTION _wa_erase_job_runs_of(p_pattern text) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
BEGIN
    UPDATE wa_job_runs r SET error = regexp_replace(r.error, p_pattern, '0', 'g') WHERE r.error ~ p_pattern;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_job_runs_of(text) IS
'Internal: takes what matches a pattern out of errors of jobs; returns how many.';
