-- Keys of the HTTP API: making, listing, revoking them, and which role a key may speak for.

CREATE OR REPLACE FUNCTION _wa_api_role_problem(p_role name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_reached record;
BEGIN
    IF to_regrole(quote_ident(p_role)) IS NULL THEN
        RETURN 'it does not exist';
    END IF;
    -- What it is a member of, it may become.
    SELECT r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.oid = o.owner AS is_owner
    INTO v_reached
    FROM pg_catalog.pg_roles r
    CROSS JOIN (SELECT c.relowner AS owner FROM pg_class c WHERE c.oid = 'wa_api_keys'::regclass) o
    WHERE (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.oid = o.owner
            OR r.rolname IN ('wa_admin', 'wa_dispatcher', 'wa_receiver', 'wa_api'))
        AND CASE WHEN r.rolname = p_role THEN true
            -- A superuser counts as a member of every role; it is found by its own row.
            ELSE NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.rolname = p_role)
                AND pg_has_role(p_role, r.oid, 'MEMBER') END
    ORDER BY r.rolname = p_role DESC, r.rolsuper DESC, r.rolname
    LIMIT 1;
    RETURN CASE WHEN FOUND THEN
        CASE WHEN v_reached.rolname = p_role THEN 'it'
            ELSE format('it is a member of "%s", which', v_reached.rolname) END
        || CASE
            WHEN v_reached.rolsuper THEN ' is a superuser'
            WHEN v_reached.rolbypassrls THEN ' bypasses row security'
            WHEN v_reached.is_owner THEN ' owns the tables'
            WHEN v_reached.rolcreaterole THEN ' may make roles'
            ELSE ' serves every organization'
        END
    END;
END
$$;

COMMENT ON FUNCTION _wa_api_role_problem(name) IS
'Internal: why no key may speak for a role: it sees more than one organization, or could come to; else '
'NULL.';

CREATE OR REPLACE FUNCTION _wa_require_api_role(p_role name, p_org uuid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_problem text := _wa_api_role_problem(p_role);
BEGIN
    IF v_problem IS NULL AND p_org <> ALL (_wa_organizations_of(p_role)) THEN
        v_problem := 'it does not belong to the organization';
    END IF;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA603',
            MESSAGE = format('no request may run as role "%s": %s', p_role, v_problem),
            DETAIL = format('The organization is %s.', p_org),
            HINT = 'Give the key a role of its own: CREATE ROLE … NOLOGIN IN ROLE wa_app, then '
                'add_wa_organization_role() and create_wa_api_key().';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_api_role(name, uuid) IS
'Internal: raises WA603 for a role that no key of that organization may speak for.';

-- What answers the internet must not be able to become anybody else.
CREATE OR REPLACE FUNCTION get_wa_other_roles() RETURNS name []
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT CASE WHEN (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = session_user)
        THEN ARRAY['superuser'::name]
        ELSE ARRAY(
            SELECT r.rolname FROM pg_catalog.pg_roles r
            WHERE r.rolname NOT IN (session_user, 'wa_receiver')
                AND pg_has_role(session_user, r.oid, 'MEMBER')
            ORDER BY r.rolname
        ) END
$$;

COMMENT ON FUNCTION get_wa_other_roles() IS
'The roles that the session''s login may take beside wa_receiver; "superuser" for one.';

-- The hash is all that is kept. Of a key of 256 random bits a plain one cannot be turned round.
CREATE OR REPLACE FUNCTION create_wa_api_key(
    p_name text, p_role name, p_scopes text [] DEFAULT '{send,read}', p_expires_at timestamptz DEFAULT NULL,
    p_is_test boolean DEFAULT false, p_requests_per_minute integer DEFAULT NULL
) RETURNS TABLE (id uuid, api_key text, prefix text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET standard_conforming_strings = on
AS $$
#variable_conflict use_column
DECLARE
    c_scopes CONSTANT text [] := '{send,read,media,templates,metrics,admin}';
    v_org uuid := _wa_caller_organization();
    v_random bytea;
BEGIN
    IF p_name IS NULL OR p_name !~ '\S' OR length(p_name) > 100 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an API key needs a name of at most 100 characters',
            DETAIL = format('The name has %s.', coalesce(length(p_name)::text, 'none')),
            HINT = 'Name the application that will use it.';
    END IF;
    IF p_scopes IS NULL OR cardinality(p_scopes) = 0 OR NOT p_scopes <@ c_scopes THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'no such scopes of an API key',
            DETAIL = format('They are %s.',
                coalesce(left(array_to_string(p_scopes, ', ', 'NULL'), 200), 'NULL')),
            HINT = format('There are %s.', array_to_string(c_scopes, ', '));
    END IF;
    IF p_expires_at <= clock_timestamp() OR p_requests_per_minute <= 0 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an API key that could never be used',
            DETAIL = format('It expires at %s and has %s requests a minute.',
                coalesce(p_expires_at::text, 'no time'),
                coalesce(p_requests_per_minute::text, 'any number of')),
            HINT = 'Leave both away for a key without an end and without a limit.';
    END IF;
    IF to_regrole(quote_ident(p_role)) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '42704',
            MESSAGE = format('role "%s" does not exist', p_role),
            DETAIL = 'A request with the key runs as this role.',
            HINT = 'CREATE ROLE it first, IN ROLE wa_app.';
    END IF;
    IF NOT pg_has_role(_wa_caller(), p_role, 'MEMBER') THEN
        RAISE EXCEPTION USING ERRCODE = '42501',
            MESSAGE = format('"%s" may make no key for role "%s"', _wa_caller(), p_role),
            DETAIL = 'Only a member of a role may let others act as it.',
            HINT = format('Ask for: GRANT %I TO %I.', p_role, _wa_caller());
    END IF;
    -- So that a role which takes the name later is not taken for it.
    PERFORM _wa_bind_role(p_role, v_org);
    PERFORM _wa_require_api_role(p_role, v_org);
    v_random := sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
    );
    api_key := format('wa_%s_%s', CASE WHEN p_is_test THEN 'test' ELSE 'live' END,
        translate(encode(v_random, 'base64'), E'+/=\n', '-_'));
    prefix := left(api_key, 12);
    INSERT INTO wa_api_keys AS k (
        organization_id, name, prefix, secret_hash, role_name, scopes, is_test, requests_per_minute,
        expires_at, created_by
    ) VALUES (
        v_org, p_name, prefix, sha256(convert_to(api_key, 'UTF8')), p_role,
        ARRAY(SELECT DISTINCT s FROM unnest(p_scopes) s ORDER BY s), coalesce(p_is_test, false),
        p_requests_per_minute, p_expires_at, _wa_caller()
    ) RETURNING k.id INTO id;
    PERFORM _wa_audit(v_org, 'api_key_created', 'wa_api_keys', id::text,
        jsonb_build_object('name', p_name, 'role', p_role, 'scopes', to_jsonb(p_scopes), 'by', _wa_caller()));
    RETURN NEXT;
END
$$;

COMMENT ON FUNCTION create_wa_api_key(text, name, text [], timestamptz, boolean, integer) IS
'Makes a key of the HTTP API and returns it, which is the only time that it is told. Its requests run as '
'the role, of which the caller must be a member, in the caller''s organization; never as one that sees '
'several.';

CREATE OR REPLACE FUNCTION revoke_wa_api_key(p_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    UPDATE wa_api_keys k SET revoked_at = clock_timestamp(), revoked_by = _wa_caller()
    WHERE k.organization_id = v_org AND k.id = p_id AND k.revoked_at IS NULL
        AND (pg_has_role(_wa_caller(), 'wa_admin', 'MEMBER')
            OR to_regrole(quote_ident(k.role_name)) IS NULL
            OR pg_has_role(_wa_caller(), k.role_name, 'MEMBER'));
    IF FOUND THEN
        PERFORM _wa_audit(v_org, 'api_key_revoked', 'wa_api_keys', p_id::text,
            jsonb_build_object('by', _wa_caller()));
    END IF;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION revoke_wa_api_key(uuid) IS
'Ends a key: the next request with it is refused. False where there is no such key, or it ended before, or '
'its role is none of the caller''s.';

CREATE OR REPLACE FUNCTION list_wa_api_keys()
RETURNS TABLE (
    id uuid, name text, prefix text, role_name name, scopes text [], is_test boolean,
    requests_per_minute integer, state text, expires_at timestamptz, last_used_at timestamptz,
    created_at timestamptz, created_by text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT k.id, k.name, k.prefix, k.role_name, k.scopes, k.is_test, k.requests_per_minute,
        CASE
            WHEN k.revoked_at IS NOT NULL THEN 'revoked'
            WHEN k.expires_at <= clock_timestamp() THEN 'expired'
            WHEN _wa_api_role_problem(k.role_name) IS NOT NULL
                OR k.organization_id <> ALL (_wa_organizations_of(k.role_name))
            THEN 'role refused' ELSE 'valid' END,
        k.expires_at, k.last_used_at, k.created_at, k.created_by
    FROM wa_api_keys k
    WHERE k.organization_id = _wa_caller_organization()
    ORDER BY k.created_at, k.id
$$;

COMMENT ON FUNCTION list_wa_api_keys() IS
'The keys of the caller''s organization, without what would open anything.';

CREATE OR REPLACE TRIGGER audit_change
AFTER INSERT OR DELETE
OR UPDATE OF name, role_name, scopes, is_test, requests_per_minute, expires_at, revoked_at
ON wa_api_keys FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id', 'secret_hash last_used_at');
