-- What consent holds of a person, and taking it away. That somebody asked not to be written to stays.

CREATE OR REPLACE FUNCTION _wa_erased_proof(p_proof jsonb, p_pattern text, p_keep boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    -- Of releases before 0.3, and by hand, a proof may be no object.
    WHEN p_keep THEN regexp_replace(
        (CASE jsonb_typeof(p_proof) WHEN 'object' THEN p_proof - 'wa_message_id' ELSE p_proof END)::text,
        p_pattern, '0', 'g'
    )::jsonb
    ELSE '{}'
END;

COMMENT ON FUNCTION _wa_erased_proof(jsonb, text, boolean) IS
'Internal: what stays of a proof once its person is erased: nothing, or where the law says so all but names.';

-- p_keep: the law says that proofs stay. Then only what names the person goes out of them.
CREATE OR REPLACE FUNCTION _wa_erase_consent_of(
    p_org uuid, p_contact_id bigint, p_pattern text, p_keep boolean
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
    v_changed integer := 0;
BEGIN
    UPDATE wa_opt_outs o SET
        phone_number = NULL, reason = NULL, proof = _wa_erased_proof(o.proof, p_pattern, p_keep)
    WHERE o.contact_id = p_contact_id AND o.organization_id = p_org AND (
        num_nonnulls(o.phone_number, o.reason) > 0
        OR o.proof <> _wa_erased_proof(o.proof, p_pattern, p_keep)
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_changed := v_changed + v_rows;
    UPDATE wa_opt_ins i SET proof = _wa_erased_proof(i.proof, p_pattern, p_keep)
    WHERE i.contact_id = p_contact_id AND i.organization_id = p_org
        AND i.proof <> _wa_erased_proof(i.proof, p_pattern, p_keep);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_changed := v_changed + v_rows;
    UPDATE wa_opt_in_requests r SET proof = _wa_erased_proof(r.proof, p_pattern, p_keep)
    WHERE r.contact_id = p_contact_id AND r.organization_id = p_org
        AND r.proof <> _wa_erased_proof(r.proof, p_pattern, p_keep);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_changed := v_changed + v_rows;
    -- The one change that the record knows: that it is the owner's is why this function may.
    UPDATE wa_consent_events e SET
        phone_number = NULL, reason = NULL, wa_message_id = NULL, acting_user = NULL,
        text_shown = CASE WHEN p_keep THEN regexp_replace(e.text_shown, p_pattern, '0', 'g') END,
        proof = _wa_erased_proof(e.proof, p_pattern, p_keep)
    WHERE e.contact_id = p_contact_id AND e.organization_id = p_org
        AND (
            num_nonnulls(e.phone_number, e.reason, e.wa_message_id, e.acting_user) > 0
            OR e.text_shown IS DISTINCT FROM
            CASE WHEN p_keep THEN regexp_replace(e.text_shown, p_pattern, '0', 'g') END
            OR e.proof <> _wa_erased_proof(e.proof, p_pattern, p_keep)
        );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_changed + v_rows;
END
$$;

COMMENT ON FUNCTION _wa_erase_consent_of(uuid, bigint, text, boolean) IS
'Internal: empties what the consent of a contact tells of the person, or where proofs are to be kept takes '
'out of them what matches the pattern; returns how many rows.';

CREATE OR REPLACE FUNCTION _wa_export_consent_of(p_org uuid, p_contact_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object(
        'opt_ins', (
            SELECT coalesce(jsonb_agg(to_jsonb(i) - 'organization_id' ORDER BY i.id), '[]')
            FROM wa_opt_ins i WHERE i.organization_id = p_org AND i.contact_id = p_contact_id
        ),
        'opt_outs', (
            SELECT coalesce(jsonb_agg(to_jsonb(o) - 'organization_id' ORDER BY o.id), '[]')
            FROM wa_opt_outs o WHERE o.organization_id = p_org AND o.contact_id = p_contact_id
        ),
        'consent_events', (
            SELECT coalesce(jsonb_agg(to_jsonb(e) - 'organization_id' ORDER BY e.id), '[]')
            FROM wa_consent_events e WHERE e.organization_id = p_org AND e.contact_id = p_contact_id
        ),
        'opt_in_requests', (
            SELECT coalesce(jsonb_agg(to_jsonb(r) - 'organization_id' ORDER BY r.id), '[]')
            FROM wa_opt_in_requests r WHERE r.organization_id = p_org AND r.contact_id = p_contact_id
        )
    )
$$;

COMMENT ON FUNCTION _wa_export_consent_of(uuid, bigint) IS 'Internal: the consent of a contact.';
