-- Consent: who asked not to be written to, and who agreed. The queue acts on it (queue/opt_outs.sql).

CREATE OR REPLACE FUNCTION _wa_consent_contact(p_org uuid, p_phone text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_user_id boolean := _wa_is_user_id(p_phone);
    v_contact_id bigint := _wa_find_contact(p_org, p_phone);
BEGIN
    IF v_contact_id IS NULL THEN
        SELECT r.contact_id INTO v_contact_id
        FROM wa_organizations o
        CROSS JOIN LATERAL _wa_resolve_contacts(
            p_org,
            ARRAY[CASE WHEN NOT v_is_user_id
                THEN normalize_phone_e164(p_phone, o.default_region, o.default_area_code) END],
            ARRAY[CASE WHEN v_is_user_id THEN p_phone END],
            'consent'
        ) r
        WHERE o.id = p_org;
    END IF;
    RETURN v_contact_id;
END
$$;

COMMENT ON FUNCTION _wa_consent_contact(uuid, text) IS
'Internal: the contact of a phone number or user id; made when there is none, so that consent can come '
'before contact.';

CREATE OR REPLACE FUNCTION _wa_require_scope(p_scope text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_scope IS NULL OR p_scope NOT IN ('marketing', 'all') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('scope must be marketing or all, not "%s"', left(p_scope, 100)),
            DETAIL = 'An opt-out has one scope, an opt-in too.',
            HINT = 'marketing covers MARKETING templates, all covers every message.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_scope(text) IS 'Internal: raises 22023 unless it is a scope of consent.';

CREATE OR REPLACE FUNCTION _wa_opt_out_contacts(
    p_org uuid, p_contact_ids bigint[], p_scope text, p_reason text, p_source text
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH added AS (
        INSERT INTO wa_opt_outs (organization_id, contact_id, scope, phone_number, reason, source)
        SELECT c.organization_id, c.id, p_scope, c.phone_e164, p_reason, p_source
        FROM wa_contacts c
        WHERE c.organization_id = p_org AND c.id = ANY (p_contact_ids)
        ON CONFLICT (organization_id, contact_id, scope) WHERE revoked_at IS NULL DO NOTHING
        RETURNING 1
    )
    SELECT count(*)::integer FROM added
$$;

COMMENT ON FUNCTION _wa_opt_out_contacts(uuid, bigint[], text, text, text) IS
'Internal: records that contacts asked not to be written to; returns how many had not asked before.';

CREATE OR REPLACE FUNCTION _wa_opt_in_contacts(
    p_org uuid, p_contact_ids bigint[], p_scope text, p_source text, p_proof jsonb DEFAULT '{}'
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_opt_ins (organization_id, contact_id, scope, source, proof)
    SELECT c.organization_id, c.id, p_scope, p_source, coalesce(p_proof, '{}')
    FROM wa_contacts c
    WHERE c.organization_id = p_org AND c.id = ANY (p_contact_ids);

    WITH lifted AS (
        UPDATE wa_opt_outs SET revoked_at = clock_timestamp(), revoked_source = p_source
        WHERE organization_id = p_org AND contact_id = ANY (p_contact_ids) AND revoked_at IS NULL
            AND (p_scope = 'all' OR scope = p_scope)
        RETURNING 1
    )
    SELECT count(*)::integer FROM lifted
$$;

COMMENT ON FUNCTION _wa_opt_in_contacts(uuid, bigint[], text, text, jsonb) IS
'Internal: records consent and lifts the opt-outs that it covers (all lifts every one, marketing only that '
'scope); returns how many were lifted.';

CREATE OR REPLACE FUNCTION opt_out_wa_contact(
    p_phone text, p_scope text DEFAULT 'marketing', p_reason text DEFAULT NULL, p_source text DEFAULT 'admin'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
    v_is_new boolean;
BEGIN
    PERFORM _wa_require_scope(p_scope);
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    v_is_new := _wa_opt_out_contacts(v_org, ARRAY[v_contact_id], p_scope, p_reason, p_source) > 0;
    PERFORM _wa_audit(v_org, 'contact_opted_out', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('scope', p_scope, 'source', p_source, 'is_new', v_is_new));
    RETURN v_is_new;
END
$$;

COMMENT ON FUNCTION opt_out_wa_contact(text, text, text, text) IS
'Stops marketing (or, with scope all, every message) to a phone number or user id and cancels what is '
'queued. True when it was not stopped before. The contact need not exist yet.';

CREATE OR REPLACE FUNCTION opt_in_wa_contact(
    p_phone text, p_scope text DEFAULT 'marketing', p_source text DEFAULT 'admin', p_proof jsonb DEFAULT '{}'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
    v_lifted integer;
BEGIN
    PERFORM _wa_require_scope(p_scope);
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    v_lifted := _wa_opt_in_contacts(v_org, ARRAY[v_contact_id], p_scope, p_source, p_proof);
    PERFORM _wa_audit(v_org, 'contact_opted_in', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('scope', p_scope, 'source', p_source, 'opt_outs_lifted', v_lifted));
    RETURN v_lifted > 0;
END
$$;

COMMENT ON FUNCTION opt_in_wa_contact(text, text, text, jsonb) IS
'Records consent with its proof and lifts the opt-outs that it covers: all lifts every one, marketing '
'leaves an opt-out of all in force. True when one was lifted.';

-- A set of at most one, so that it is inlined into a join.
CREATE OR REPLACE FUNCTION _wa_opt_out_of(p_org uuid, p_contact_id bigint, p_category text)
RETURNS TABLE (is_opted_out boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT true FROM wa_opt_outs x
    WHERE x.organization_id = p_org AND x.contact_id = p_contact_id AND x.revoked_at IS NULL
        AND (x.scope = 'all' OR p_category = 'MARKETING')
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_opt_out_of(uuid, bigint, text) IS
'Internal: whether a contact may not get a template of a category, or (NULL) a free-form message; no row '
'when it may.';

CREATE OR REPLACE FUNCTION _wa_is_opted_out(p_org uuid, p_contact_id bigint, p_scope text) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_opt_outs o
        WHERE o.organization_id = p_org AND o.contact_id = p_contact_id AND o.revoked_at IS NULL
            AND (o.scope = 'all' OR o.scope = p_scope)
    )
$$;

COMMENT ON FUNCTION _wa_is_opted_out(uuid, bigint, text) IS
'Internal: whether a contact opted out of a scope; an opt-out of all covers every scope.';

CREATE OR REPLACE FUNCTION is_wa_opted_out(p_phone text, p_scope text DEFAULT 'marketing') RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    PERFORM _wa_require_scope(p_scope);
    RETURN _wa_is_opted_out(v_org, _wa_find_contact(v_org, p_phone), p_scope);
END
$$;

COMMENT ON FUNCTION is_wa_opted_out(text, text) IS
'Whether a phone number or user id may not get marketing; with scope all: whether it may get nothing at all.';
