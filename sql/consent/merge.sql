-- Consent of two contacts that turn out to be one.

CREATE OR REPLACE FUNCTION _wa_merge_consent_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- One request in force per scope is enough; the other stays as history.
    UPDATE wa_opt_outs f SET revoked_at = clock_timestamp(), revoked_source = 'merged'
    FROM wa_opt_outs i
    WHERE f.organization_id = p_org AND f.contact_id = p_from AND f.revoked_at IS NULL
        AND i.organization_id = p_org AND i.contact_id = p_into AND i.revoked_at IS NULL
            AND i.scope = f.scope;
    UPDATE wa_opt_outs SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_opt_ins SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
END
$$;

COMMENT ON FUNCTION _wa_merge_consent_of(uuid, bigint, bigint) IS
'Internal: moves the consent of a contact to the one that it merges with; an opt-out of either holds.';
