-- Consent of two contacts that turn out to be one, or might be.

CREATE OR REPLACE FUNCTION _wa_merge_consent_of(p_org uuid, p_from bigint, p_into bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- One request in force per scope is enough; the other stays as history.
    UPDATE wa_opt_outs f SET revoked_at = clock_timestamp(), revoked_source = 'merged'
    FROM wa_opt_outs i
    WHERE f.organization_id = p_org AND f.contact_id = p_from AND f.revoked_at IS NULL
        AND i.organization_id = p_org AND i.contact_id = p_into AND i.revoked_at IS NULL
            AND i.scope = f.scope AND i.is_keyword = f.is_keyword;
    UPDATE wa_opt_outs SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_opt_ins SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_opt_in_requests SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
    UPDATE wa_consent_events SET contact_id = p_into WHERE organization_id = p_org AND contact_id = p_from;
END
$$;

COMMENT ON FUNCTION _wa_merge_consent_of(uuid, bigint, bigint) IS
'Internal: moves the consent of a contact to the one that it merges with; an opt-out of either holds.';

-- Taking an opt-out back takes back that contact's alone: START does where a word set it.
CREATE OR REPLACE FUNCTION _wa_share_opt_outs_of(p_org uuid, p_one bigint, p_other bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_opt_outs (
        organization_id, contact_id, scope, phone_number, reason, source, opt_out_date, is_keyword, proof
    )
    SELECT p_org, u.contact_id, o.scope, o.phone_number,
        'a contact that may be the same person asked not to be written to', 'shared',
        greatest(o.opt_out_date, o.last_asked_at), o.is_keyword, o.proof
    FROM (VALUES (p_one, p_other), (p_other, p_one)) u (contact_id, other_id)
    JOIN wa_opt_outs o ON o.organization_id = p_org AND o.contact_id = u.other_id AND o.revoked_at IS NULL
    ORDER BY u.contact_id, o.scope
    ON CONFLICT (organization_id, contact_id, scope, is_keyword) WHERE revoked_at IS NULL DO NOTHING
$$;

COMMENT ON FUNCTION _wa_share_opt_outs_of(uuid, bigint, bigint) IS
'Internal: an opt-out of either of two contacts that may be one person holds for both.';
