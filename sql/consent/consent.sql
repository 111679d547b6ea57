-- Consent: who asked not to be written to, and who agreed. The queue acts on it (queue/opt_outs.sql).

CREATE OR REPLACE FUNCTION _wa_consent_contact(p_org uuid, p_phone text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_is_user_id boolean := _wa_is_user_id(p_phone);
    v_contact_id bigint := _wa_find_contact(p_org, p_phone);
BEGIN
    -- Not passed over in silence: somebody has asked for something.
    IF p_phone IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'consent is somebody''s: no number or user id was given',
            DETAIL = 'p_phone is NULL.',
            HINT = 'Give the number with its country code, or the user id.';
    END IF;
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

CREATE OR REPLACE FUNCTION _wa_is_scope(p_scope text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_scope IN ('marketing', 'utility', 'authentication', 'sms', 'all');

COMMENT ON FUNCTION _wa_is_scope(text) IS 'Internal: whether it is a scope of consent.';

CREATE OR REPLACE FUNCTION _wa_require_scope(p_scope text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF _wa_is_scope(p_scope) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('scope must be marketing, utility, authentication, sms or all, not "%s"',
                left(p_scope, 100)),
            DETAIL = 'An opt-out has one scope, an opt-in too.',
            HINT = 'A category covers its templates, utility free-form messages, too; sms every SMS, '
                'all everything.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_scope(text) IS 'Internal: raises 22023 unless it is a scope of consent.';

CREATE OR REPLACE FUNCTION _wa_require_proof(p_proof jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF jsonb_typeof(p_proof) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('a proof is a JSON object, not %s', jsonb_typeof(p_proof)),
            DETAIL = format('It begins: %s.', left(p_proof::text, 60)),
            HINT = 'For example: {"text": "I want offers by WhatsApp.", "language": "en", "form": 7}.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_proof(jsonb) IS
'Internal: raises 22023 unless a proof is an object, or NULL.';

-- In the order of contacts, as everywhere. Asked again while it is in force, the latest time is kept: what
-- the
-- contact wrote in between is no message after it.
CREATE OR REPLACE FUNCTION _wa_opt_out_contacts(
    p_org uuid, p_contact_ids bigint[], p_scopes text[], p_reason text, p_source text,
    p_proof jsonb DEFAULT '{}', p_is_keyword boolean DEFAULT false, p_at timestamptz DEFAULT NULL
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH asked AS (
        INSERT INTO wa_opt_outs AS o (
            organization_id, contact_id, scope, phone_number, reason, source, proof, is_keyword, opt_out_date
        )
        SELECT c.organization_id, c.id, s.scope, c.phone_e164, p_reason, p_source, coalesce(p_proof, '{}'),
            p_is_keyword, coalesce(p_at, clock_timestamp())
        FROM wa_contacts c
        CROSS JOIN unnest(p_scopes) s (scope)
        WHERE c.organization_id = p_org AND c.id = ANY (p_contact_ids)
        ORDER BY c.id, s.scope
        ON CONFLICT (organization_id, contact_id, scope, is_keyword) WHERE revoked_at IS NULL
        DO UPDATE SET last_asked_at = excluded.opt_out_date
        WHERE excluded.opt_out_date > greatest(o.opt_out_date, o.last_asked_at)
        RETURNING o.xmax = 0 AS is_new
    )
    SELECT (count(*) FILTER (WHERE a.is_new))::integer FROM asked a
$$;

COMMENT ON FUNCTION _wa_opt_out_contacts(
    uuid, bigint[], text[], text, text, jsonb, boolean, timestamptz
) IS
'Internal: records that contacts asked not to be written to, now or at a given time; returns how many '
'requests were new.';

CREATE OR REPLACE FUNCTION _wa_opt_in_contacts(
    p_org uuid, p_contact_ids bigint[], p_scope text, p_source text, p_proof jsonb DEFAULT '{}',
    p_at timestamptz DEFAULT NULL
) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_opt_ins (organization_id, contact_id, scope, source, proof, opted_in_at)
    SELECT c.organization_id, c.id, p_scope, p_source, coalesce(p_proof, '{}'),
        coalesce(p_at, clock_timestamp())
    FROM wa_contacts c
    WHERE c.organization_id = p_org AND c.id = ANY (p_contact_ids);

    WITH lifted AS (
        UPDATE wa_opt_outs SET revoked_at = clock_timestamp(), revoked_source = p_source
        WHERE organization_id = p_org AND contact_id = ANY (p_contact_ids) AND revoked_at IS NULL
            AND (p_scope = 'all' OR scope = p_scope)
            AND coalesce(greatest(opt_out_date, last_asked_at) < p_at, true)
        RETURNING 1
    )
    SELECT count(*)::integer FROM lifted
$$;

COMMENT ON FUNCTION _wa_opt_in_contacts(uuid, bigint[], text, text, jsonb, timestamptz) IS
'Internal: records consent and lifts the opt-outs that it covers (all lifts every one, another scope only '
'its own), if given a time those from before it; returns how many were lifted.';

CREATE OR REPLACE FUNCTION opt_out_wa_contact(
    p_phone text, p_scope text DEFAULT 'marketing', p_reason text DEFAULT NULL, p_source text DEFAULT 'admin',
    p_proof jsonb DEFAULT '{}'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
    v_is_new boolean;
BEGIN
    PERFORM _wa_require_scope(p_scope);
    PERFORM _wa_require_proof(p_proof);
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    PERFORM _wa_require_reachable_contact(v_org, v_contact_id);
    v_is_new := _wa_opt_out_contacts(
        v_org, ARRAY[v_contact_id], ARRAY[p_scope], p_reason, p_source, p_proof
    ) > 0;
    PERFORM _wa_audit(v_org, 'contact_opted_out', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('scope', p_scope, 'source', p_source, 'is_new', v_is_new));
    RETURN v_is_new;
END
$$;

COMMENT ON FUNCTION opt_out_wa_contact(text, text, text, text, jsonb) IS
'Stops marketing (or utility, authentication, or, with scope all, every message) to a phone number or user '
'id and cancels what is queued. True when somebody had not done so before. The contact need not exist yet.';

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
    PERFORM _wa_require_proof(p_proof);
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    PERFORM _wa_require_reachable_contact(v_org, v_contact_id);
    v_lifted := _wa_opt_in_contacts(v_org, ARRAY[v_contact_id], p_scope, p_source, p_proof);
    PERFORM _wa_audit(v_org, 'contact_opted_in', 'wa_contacts', v_contact_id::text,
        jsonb_build_object('scope', p_scope, 'source', p_source, 'opt_outs_lifted', v_lifted));
    RETURN v_lifted > 0;
END
$$;

COMMENT ON FUNCTION opt_in_wa_contact(text, text, text, jsonb) IS
'Records consent with its proof and lifts the opt-outs that it covers: all lifts every one, another scope '
'leaves an opt-out of all in force. True when one was lifted.';

CREATE OR REPLACE FUNCTION request_wa_opt_in(
    p_phone text, p_scope text DEFAULT 'marketing', p_source text DEFAULT 'admin', p_proof jsonb DEFAULT '{}',
    p_valid_for interval DEFAULT '24 hours'
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint;
    v_id bigint;
BEGIN
    PERFORM _wa_require_scope(p_scope);
    PERFORM _wa_require_proof(p_proof);
    IF (p_valid_for > interval '0' AND p_valid_for <= interval '30 days') IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'WA050',
            MESSAGE = format('an opt-in can be confirmed within up to 30 days, not %s', p_valid_for),
            DETAIL = 'p_valid_for says within which time the contact has to write the word.',
            HINT = 'Leave it out for 24 hours.';
    END IF;
    v_contact_id := _wa_consent_contact(v_org, p_phone);
    INSERT INTO wa_opt_in_requests (organization_id, contact_id, scope, source, proof, expires_at)
    VALUES (v_org, v_contact_id, p_scope, p_source, coalesce(p_proof, '{}'), clock_timestamp() + p_valid_for)
    RETURNING id INTO v_id;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION request_wa_opt_in(text, text, text, jsonb, interval) IS
'Double opt-in: records that an opt-in was asked for, with the text shown as its proof. It counts once the '
'contact writes, or presses, a word of confirmation (CONFIRM and its like, wa_keywords) in time. Asking is a '
'message of yours. Returns the id of the request.';

-- A set of at most one, so that it is inlined into a join.
CREATE OR REPLACE FUNCTION _wa_standing_opt_out(p_org uuid, p_contact_id bigint, p_category text)
RETURNS TABLE (refusal text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT 'opted_out' FROM wa_opt_outs x
    WHERE x.organization_id = p_org AND x.contact_id = p_contact_id AND x.revoked_at IS NULL
        AND x.scope IN ('all', coalesce(lower(p_category), 'utility'))
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_standing_opt_out(uuid, bigint, text) IS
'Internal: whether an opt-out of a template''s category, or (NULL) of free-form messages, stands: what the '
'usual '
'row is asked, whose plan has to stay small. Whatever it stops, _wa_opt_out_of() looks at again.';

CREATE OR REPLACE FUNCTION _wa_consent_text(p_org uuid, p_scope text, p_language text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT t.body
    FROM (
        SELECT coalesce(p_language, o.default_language, 'en') AS asked
        FROM wa_organizations o WHERE o.id = p_org
    ) l
    CROSS JOIN LATERAL (
        SELECT x.language, x.body, true AS is_own FROM wa_consent_texts x
        WHERE x.organization_id = p_org AND x.scope = p_scope
        UNION ALL
        SELECT x.language, x.body, false FROM wa_default_consent_texts x WHERE x.scope = p_scope
    ) t
    WHERE t.language IN (l.asked, split_part(l.asked, '_', 1), 'en')
    ORDER BY t.language = l.asked DESC, t.language = split_part(l.asked, '_', 1) DESC, t.is_own DESC
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_consent_text(uuid, text, text) IS
'Internal: what confirms an opt-out of marketing, or of more (all), in a language, else its main language, '
'else English; the organization''s own before ours.';

-- A set of at most one, so that it is inlined into a join. What is exempt is looked up only where an opt-out
-- stands: the answer of a person to what the contact wrote after it, and the message that confirms it. That
-- is known by its text, too: ids can be chosen by whoever queues.
CREATE OR REPLACE FUNCTION _wa_opt_out_of(
    p_org uuid, p_contact_id bigint, p_category text, p_required text[], p_queue_id uuid,
    p_last_customer_at timestamptz
) RETURNS TABLE (refusal text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT 'opted_out' FROM wa_opt_outs x
    WHERE x.organization_id = p_org AND x.contact_id = p_contact_id AND x.revoked_at IS NULL
        AND x.scope IN ('all', coalesce(lower(p_category), 'utility'))
        AND NOT (p_category IS NULL AND (
            coalesce(x.confirmation_id = p_queue_id, false) AND EXISTS (
                SELECT FROM wa_outbound_queue q
                WHERE q.organization_id = p_org AND q.id = p_queue_id AND q.text_body = _wa_consent_text(
                    p_org, CASE x.scope WHEN 'marketing' THEN 'marketing' ELSE 'all' END,
                    x.proof ->> 'language'
                )
            )
            OR coalesce(p_last_customer_at > greatest(x.opt_out_date, x.last_asked_at), false) AND EXISTS (
                SELECT FROM wa_outbound_queue q
                WHERE q.organization_id = p_org AND q.id = p_queue_id AND q.sent_by IS NOT NULL
            )
        ))
    UNION ALL
    SELECT 'no_opt_in'
    -- CASE: looked up only where it is asked for.
    WHERE CASE WHEN lower(p_category) = ANY (p_required) THEN NOT EXISTS (
        SELECT FROM wa_opt_ins i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id
            AND i.scope IN ('all', lower(p_category))
    ) END
    LIMIT 1;
END;

-- A set of at most one, so that it is inlined into a join. SMS have a consent of their own, and an opt-out
-- of what
-- is said counts for them as for WhatsApp, whichever way it came.
CREATE OR REPLACE FUNCTION _wa_sms_opt_out_of(
    p_channel text, p_org uuid, p_contact_id bigint, p_category text, p_requires_opt_in boolean
) RETURNS TABLE (refusal text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT 'opted_out' FROM wa_opt_outs x
    WHERE p_channel = 'sms' AND x.organization_id = p_org AND x.contact_id = p_contact_id
        AND x.revoked_at IS NULL AND x.scope IN ('all', 'sms', coalesce(lower(p_category), 'utility'))
    UNION ALL
    SELECT 'no_opt_in'
    WHERE CASE WHEN p_channel = 'sms' AND p_requires_opt_in THEN NOT EXISTS (
        SELECT FROM wa_opt_ins i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.scope = 'sms'
    ) END
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_sms_opt_out_of(text, uuid, bigint, text, boolean) IS
'Internal: why an SMS of a category is refused on account of consent; no row when it may go, and for another '
'channel.';

COMMENT ON FUNCTION _wa_opt_out_of(uuid, bigint, text, text[], uuid, timestamptz) IS
'Internal: why a contact may not get a template of a category, or (NULL) a free-form message: opted_out, or '
'no_opt_in where the category is among those that need one; no row when it may.';

-- A word by SMS that we knew of, and that somebody took back otherwise than by SMS: providers hold to it.
CREATE OR REPLACE FUNCTION _wa_is_old_sms_stop(p_org uuid, p_contact_id bigint) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce((
    SELECT o.revoked_source <> 'keyword' FROM wa_opt_outs o
    WHERE o.organization_id = p_org AND o.contact_id = p_contact_id AND o.scope = 'sms' AND o.is_keyword
    ORDER BY o.id DESC LIMIT 1
), false);

COMMENT ON FUNCTION _wa_is_old_sms_stop(uuid, bigint) IS
'Internal: whether a provider that refuses SMS to a contact on account of STOP tells nothing new: that STOP '
'is known, and was lifted by a consent to more.';

CREATE OR REPLACE FUNCTION _wa_is_opted_out(p_org uuid, p_contact_id bigint, p_scope text) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT bool_and(EXISTS (
        SELECT FROM wa_opt_outs o
        WHERE o.organization_id = p_org AND o.contact_id = p_contact_id AND o.revoked_at IS NULL
            AND o.scope IN ('all', s.scope)
    ))
    FROM unnest(
        CASE p_scope WHEN 'all' THEN '{marketing,utility,authentication}' ELSE ARRAY[p_scope] END
    ) s (scope)
$$;

COMMENT ON FUNCTION _wa_is_opted_out(uuid, bigint, text) IS
'Internal: whether a contact opted out of a scope; an opt-out of all covers every scope, and all three '
'categories make up all.';

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
'Whether a phone number or user id may not get marketing, or what the scope says (utility covers free-form '
'messages, too); with scope all: whether it may get nothing at all.';
