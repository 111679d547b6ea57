-- Tokens and secrets. The database keeps ciphertext only; the key is with the processes that need the values.

CREATE OR REPLACE FUNCTION set_wa_secret(
    p_name text, p_phone_number_id text, p_ciphertext bytea, p_key_id text, p_fingerprint text,
    p_keep_previous boolean DEFAULT false
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_id uuid;
BEGIN
    IF EXISTS (
        SELECT FROM wa_number_routes r
        WHERE r.phone_number_id = p_phone_number_id AND r.organization_id <> v_org
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format(
                'business number %s is not registered for organization %s', p_phone_number_id, v_org
            ),
            DETAIL = 'Another organization has it.',
            HINT = 'SET wa.organization_id to the organization of the number; the ciphertext is bound to it.';
    END IF;
    IF length(p_ciphertext) < 28 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'the secret does not look encrypted',
            DETAIL = format('It has %s bytes; nonce and tag alone have 28.', length(p_ciphertext)),
            HINT = 'Use bin/wa secrets set; a plain value must never reach the database.';
    END IF;
    IF NOT p_keep_previous THEN
        UPDATE wa_secrets SET is_active = false
        WHERE organization_id = v_org AND name = p_name AND is_active
            AND phone_number_id IS NOT DISTINCT FROM p_phone_number_id;
    END IF;
    INSERT INTO wa_secrets (organization_id, name, phone_number_id, ciphertext, key_id, fingerprint)
    VALUES (v_org, p_name, p_phone_number_id, p_ciphertext, p_key_id, p_fingerprint)
    RETURNING id INTO v_id;
    PERFORM _wa_audit(v_org, 'secret_set', 'wa_secrets', v_id::text, jsonb_build_object(
        'name', p_name, 'phone_number_id', p_phone_number_id, 'key_id', p_key_id,
        'kept_previous', p_keep_previous
    ));
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION set_wa_secret(text, text, bytea, text, text, boolean) IS
'Stores an encrypted secret of the current organization (wa_secrets.name says which there are), for one '
'number or (NULL) all. The previous one is retired, or stays valid beside it while a change is under way.';

CREATE OR REPLACE FUNCTION list_wa_secrets() RETURNS TABLE (
    organization_id uuid, id uuid, name text, phone_number_id text, key_id text, fingerprint text,
    is_active boolean,
    created_at timestamptz, created_by text
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, s.id, s.name, s.phone_number_id, s.key_id, s.fingerprint, s.is_active,
        s.created_at,
        s.created_by
    FROM wa_secrets s
    ORDER BY s.organization_id, s.name, s.phone_number_id NULLS FIRST, s.created_at;
END
$$;

COMMENT ON FUNCTION list_wa_secrets() IS
'Which secrets are stored: names, numbers and fingerprints, never a value. Equal fingerprints are equal '
'values.';

CREATE OR REPLACE FUNCTION get_wa_credentials() RETURNS TABLE (
    organization_id uuid, phone_number_id text, waba_id text, provider text, secret_id uuid, ciphertext bytea,
    key_id text, sealed_for text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, coalesce(n.phone_number_id, s.phone_number_id), n.waba_id, n.provider, s.id,
        s.ciphertext, s.key_id, s.phone_number_id
    FROM (
        SELECT DISTINCT ON (a.organization_id, a.phone_number_id) a.*
        FROM wa_secrets a
        WHERE a.name = 'access_token' AND a.is_active
        ORDER BY a.organization_id, a.phone_number_id, a.created_at DESC
    ) s
    LEFT JOIN wa_phone_numbers n ON n.organization_id = s.organization_id
        AND (s.phone_number_id IS NULL OR n.phone_number_id = s.phone_number_id)
    ORDER BY s.organization_id, s.phone_number_id NULLS FIRST, n.id;
END
$$;

COMMENT ON FUNCTION get_wa_credentials() IS
'For the dispatcher, and for commands about templates: the newest encrypted access token of each number and '
'of each organization, with the numbers that it serves. A number''s own goes before its organization''s. '
'sealed_for is the number that is bound into the ciphertext, NULL for all.';

CREATE OR REPLACE FUNCTION get_wa_environment_organization() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT o.id FROM wa_organizations o WHERE o.is_default
$$;

COMMENT ON FUNCTION get_wa_environment_organization() IS
'For the dispatcher: whose numbers the access token of its environment is for, the default organization.';

-- Processes read tokens again every few seconds, so what was stored just now may not have been used yet.
CREATE OR REPLACE FUNCTION _wa_has_newer_token(p_org uuid, p_phone_number_id text, p_used_id uuid)
RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM wa_secrets s
    WHERE s.organization_id = p_org AND s.name = 'access_token' AND s.is_active
        AND (s.phone_number_id = p_phone_number_id OR s.phone_number_id IS NULL)
        AND s.id IS DISTINCT FROM p_used_id AND s.created_at > clock_timestamp() - interval '1 minute'
);

COMMENT ON FUNCTION _wa_has_newer_token(uuid, text, uuid) IS
'Internal: whether within the last minute another token was stored for a business number than the one that '
'was used (NULL: that of the environment).';

CREATE OR REPLACE FUNCTION get_wa_webhook_secrets() RETURNS TABLE (
    organization_id uuid, name text, ciphertext bytea, key_id text, phone_number_id text, secret_id uuid
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, s.name, s.ciphertext, s.key_id, s.phone_number_id, s.id
    FROM wa_secrets s
    WHERE s.name NOT IN ('access_token', 'registration_pin') AND s.is_active
    ORDER BY s.organization_id, s.name, s.created_at DESC;
END
$$;

COMMENT ON FUNCTION get_wa_webhook_secrets() IS
'For the receiver: every valid secret but access tokens and PINs, encrypted.';

CREATE OR REPLACE FUNCTION get_wa_public_urls() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT o.public_url FROM wa_organizations o WHERE o.public_url IS NOT NULL
    UNION
    SELECT i.public_url FROM wa_installations i WHERE i.public_url IS NOT NULL
$$;

COMMENT ON FUNCTION get_wa_public_urls() IS
'For the receiver: the addresses under which it may be reached from outside, which some providers sign.';

-- Compared with what was read, and one row at a time: what somebody has set anew meanwhile stays.
CREATE OR REPLACE FUNCTION _wa_reseal_secret(
    p_organization_id uuid, p_secret_id uuid, p_from bytea, p_ciphertext bytea, p_key_id text,
    p_fingerprint text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_secrets s SET ciphertext = p_ciphertext, key_id = p_key_id, fingerprint = p_fingerprint
    WHERE s.organization_id = p_organization_id AND s.id = p_secret_id AND s.ciphertext = p_from;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION _wa_reseal_secret(uuid, uuid, bytea, bytea, text, text) IS
'Internal: reseal_wa_secret() of a secret that is no subscription''s.';
