-- Keyed hashes of what persons are known by. A plain hash of a phone number hides nothing: all numbers of a
-- country are hashed in minutes. With a key that only the owner can read, neither applications nor analysts
-- can tell whose a hash is.

CREATE OR REPLACE FUNCTION _wa_make_privacy_key(p_org uuid, p_purpose text, p_version integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_inner bytea := decode(repeat('36', 64), 'hex');
    v_outer bytea := decode(repeat('5c', 64), 'hex');
    -- 366 random bits, of which the hash makes 256.
    v_key bytea := sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    );
BEGIN
    FOR v_n IN 0..31 LOOP
        v_inner := set_byte(v_inner, v_n, get_byte(v_key, v_n) # 54);
        v_outer := set_byte(v_outer, v_n, get_byte(v_key, v_n) # 92);
    END LOOP;
    INSERT INTO wa_privacy_keys (organization_id, purpose, version, inner_pad, outer_pad)
    VALUES (p_org, p_purpose, p_version, v_inner, v_outer)
    ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION _wa_make_privacy_key(uuid, text, integer) IS
'Internal: makes a key of an organization, in the form in which HMAC uses it.';

CREATE OR REPLACE FUNCTION tg_wa_organizations__make_keys() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_make_privacy_key(NEW.id, p.purpose, 1)
    FROM unnest(ARRAY['erasure', 'analysts']) p (purpose);
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_organizations__make_keys() IS 'Gives a new organization the keys of its hashes.';

CREATE OR REPLACE TRIGGER make_keys AFTER INSERT ON wa_organizations
FOR EACH ROW EXECUTE FUNCTION tg_wa_organizations__make_keys();

-- Those that were there before.
SELECT _wa_make_privacy_key(o.id, p.purpose, 1)
FROM wa_organizations o
CROSS JOIN unnest(ARRAY['erasure', 'analysts']) p (purpose)
WHERE NOT EXISTS (
    SELECT FROM wa_privacy_keys k WHERE k.organization_id = o.id AND k.purpose = p.purpose
);

CREATE OR REPLACE FUNCTION rotate_wa_privacy_key(p_purpose text) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_version integer;
BEGIN
    IF p_purpose IS NULL OR p_purpose NOT IN ('erasure', 'analysts') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('purpose must be erasure or analysts, not "%s"', left(p_purpose, 100)),
            DETAIL = 'Hashes of the erased have one key, those that analysts see another.',
            HINT = 'SELECT rotate_wa_privacy_key(''erasure'');';
    END IF;
    -- One rotation at a time: the organization's row is locked.
    PERFORM FROM wa_organizations o WHERE o.id = v_org FOR NO KEY UPDATE;
    SELECT max(k.version) + 1 INTO v_version FROM wa_privacy_keys k
    WHERE k.organization_id = v_org AND k.purpose = p_purpose;
    PERFORM _wa_make_privacy_key(v_org, p_purpose, v_version);
    IF p_purpose = 'analysts' THEN
        DELETE FROM wa_privacy_keys k
        WHERE k.organization_id = v_org AND k.purpose = p_purpose AND k.version < v_version;
    END IF;
    PERFORM _wa_audit(v_org, 'privacy_key_rotated', 'wa_privacy_keys', p_purpose,
        jsonb_build_object('version', v_version));
    RETURN v_version;
END
$$;

COMMENT ON FUNCTION rotate_wa_privacy_key(text) IS
'Makes a new key and returns its version. erasure: former keys stay beside it, so that who was erased is '
'known again. analysts: the former one goes, and with it the way from hashes that analysts kept to new ones.';

CREATE OR REPLACE FUNCTION _wa_identity_hashes(p_org uuid, p_kinds text[], p_values text[])
RETURNS TABLE (n bigint, key_version integer, hash bytea)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT u.n, k.version, _wa_keyed_hash(k.inner_pad, k.outer_pad, u.kind || ':' || u.value)
    FROM unnest(p_kinds, p_values) WITH ORDINALITY u (kind, value, n)
    JOIN wa_privacy_keys k ON k.organization_id = p_org AND k.purpose = 'erasure'
$$;

COMMENT ON FUNCTION _wa_identity_hashes(uuid, text[], text[]) IS
'Internal: hashes of identities, as wa_contact_identities holds them, under every key that there was.';
