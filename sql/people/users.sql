-- Finding a person by what is known of him, and what he may do.

CREATE OR REPLACE FUNCTION tg_wa_users__prepare() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF NEW.phone_e164 IS NOT NULL THEN
        NEW.phone_e164 := (
            SELECT normalize_phone_e164(NEW.phone_e164, o.default_region, o.default_area_code)
            FROM wa_organizations o WHERE o.id = NEW.organization_id
        );
    END IF;
    IF NOT EXISTS (SELECT FROM _wa_default_permissions() d WHERE d.role = NEW.role)
        AND NOT EXISTS (
            SELECT FROM wa_role_overrides x WHERE x.organization_id = NEW.organization_id
                AND x.role = NEW.role
        )
    THEN
        RAISE EXCEPTION USING ERRCODE = 'WA062', TABLE = 'wa_users',
            MESSAGE = format('no role "%s"', left(NEW.role, 100)),
            DETAIL = (
                SELECT format('There are %s.', string_agg(DISTINCT r.role, ', ' ORDER BY r.role))
                FROM (
                    SELECT d.role FROM _wa_default_permissions() d
                    UNION
                    SELECT x.role FROM wa_role_overrides x WHERE x.organization_id = NEW.organization_id
                ) r
            ),
            HINT = 'set_wa_role_permission() makes another one.';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_users__prepare() IS
'Stores a person''s number in E.164; refuses a role that is none (WA062).';

CREATE OR REPLACE TRIGGER prepare BEFORE INSERT OR UPDATE ON wa_users
FOR EACH ROW EXECUTE FUNCTION tg_wa_users__prepare();

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_users
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id', 'created_at', 'display_name phone_e164 external_id');

CREATE OR REPLACE FUNCTION _wa_is_user_role(p_role name) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce((
    SELECT t.typacl @> makeaclitem(to_regrole(quote_ident(p_role)), t.typowner, 'USAGE', false)
    FROM pg_type t WHERE t.oid = '_wa_user_role'::regtype
), false);

COMMENT ON FUNCTION _wa_is_user_role(name) IS
'Internal: whether a role is the one that was named for somebody, not another that took its name.';

CREATE OR REPLACE FUNCTION tg_wa_users__bind() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_lock('roles');
    IF TG_OP <> 'DELETE' AND NEW.is_active AND NOT _wa_is_user_role(NEW.role_name)
        AND to_regrole(quote_ident(NEW.role_name)) IS NOT NULL
    THEN
        -- Whom the name meant before it changed hands.
        UPDATE wa_users u SET is_active = false
        WHERE u.role_name = NEW.role_name AND u.id <> NEW.id AND u.is_active;
        EXECUTE format('GRANT USAGE ON DOMAIN _wa_user_role TO %I', NEW.role_name);
    END IF;
    IF TG_OP <> 'INSERT' AND to_regrole(quote_ident(OLD.role_name)) IS NOT NULL
        AND NOT EXISTS (SELECT FROM wa_users u WHERE u.role_name = OLD.role_name AND u.is_active)
    THEN
        EXECUTE format('REVOKE USAGE ON DOMAIN _wa_user_role FROM %I', OLD.role_name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_users__bind() IS
'Marks the database role of a person, so that none that takes its name later is taken for it, and takes the '
'mark from one that nobody active has.';

CREATE OR REPLACE TRIGGER bind AFTER INSERT OR UPDATE OF role_name, is_active OR DELETE ON wa_users
FOR EACH ROW EXECUTE FUNCTION tg_wa_users__bind();

-- The first of these that finds somebody: ids cannot be chosen by anybody but the organization.
CREATE OR REPLACE FUNCTION _wa_user_of(p_org uuid, p_user text) RETURNS SETOF wa_users
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT u.*
    FROM wa_users u
    WHERE u.organization_id = p_org AND (
        u.id::text = lower(p_user) OR u.external_id = p_user
        OR u.phone_e164 = CASE WHEN left(p_user, 1) = '+' THEN try_normalize_phone_e164(p_user) END
        OR (u.role_name = p_user AND _wa_is_user_role(u.role_name))
    )
    ORDER BY u.id::text = lower(p_user) DESC, u.external_id IS NOT DISTINCT FROM p_user DESC,
        u.role_name IS DISTINCT FROM p_user DESC
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_user_of(uuid, text) IS
'Internal: the person whom an id, an external id, a telephone number with + or a database role names; no row '
'where it names nobody.';

CREATE OR REPLACE FUNCTION has_wa_permission(p_user text, p_permission text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    RETURN coalesce((
        SELECT u.is_active AND _wa_role_may(v_org, u.role, p_permission) FROM _wa_user_of(v_org, p_user) u
    ), false);
END
$$;

COMMENT ON FUNCTION has_wa_permission(text, text) IS
'Whether somebody of the caller''s organization may do something. The person is named by id, external id, '
'telephone number with + or database role; whom nothing names may nothing.';

-- Restricts and never grants: what the key, its scopes and its database role do not allow is refused before.
CREATE OR REPLACE FUNCTION _wa_require_user(p_org uuid, p_user text, p_permission text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_user wa_users;
    v_refuses boolean;
BEGIN
    IF p_user IS NULL OR NOT EXISTS (SELECT FROM wa_users u WHERE u.organization_id = p_org) THEN
        RETURN;
    END IF;
    SELECT u.* INTO v_user FROM _wa_user_of(p_org, p_user) u;
    IF FOUND THEN
        IF v_user.is_active AND _wa_role_may(p_org, v_user.role, p_permission) THEN
            RETURN;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'WA621',
            MESSAGE = CASE WHEN v_user.is_active
                THEN format('the role %s does not permit "%s"', v_user.role, p_permission)
                ELSE 'the user is no longer active' END,
            DETAIL = format('It concerns user %s.', v_user.id),
            HINT = 'set_wa_role_permission() changes what a role permits, UPDATE wa_users what the user is.';
    END IF;
    SELECT o.unknown_users = 'refuse' INTO v_refuses FROM wa_organizations o WHERE o.id = p_org;
    IF v_refuses THEN
        RAISE EXCEPTION USING ERRCODE = 'WA622',
            MESSAGE = 'the request names a user who is none of yours',
            DETAIL = format('It names %s.', quote_literal(left(p_user, 100))),
            HINT = 'INSERT INTO wa_users, or set wa_organizations.unknown_users to allow.';
    END IF;
    PERFORM _wa_audit_unknown_user(p_org, p_user);
END
$$;

COMMENT ON FUNCTION _wa_require_user(uuid, text, text) IS
'Internal: raises WA621 where the role of the user whom a request names does not permit it, WA622 where '
'nobody is named so and the organization refuses that; else leaves an audit row: the first name of a session '
'in a minute, and how many others. Nothing is asked of an organization without users.';

-- Over HTTP the request's scope was asked for before; an application names the user by the same setting.
CREATE OR REPLACE FUNCTION _wa_require_acting_user(p_org uuid, p_permission text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_user(p_org, nullif(current_setting('wa.acting_user', true), ''), p_permission);
END
$$;

COMMENT ON FUNCTION _wa_require_acting_user(uuid, text) IS
'Internal: raises as _wa_require_user() does where the session names a user (wa.acting_user, X-User-ID) '
'whose role does not permit this. For what people do by hand: not for each message that a program queues.';

CREATE OR REPLACE FUNCTION _wa_is_acting_user(p_org uuid, p_user text) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT a.name = p_user OR EXISTS (
        SELECT FROM _wa_user_of(p_org, a.name) u JOIN _wa_user_of(p_org, p_user) x ON x.id = u.id
    )
    FROM (SELECT nullif(current_setting('wa.acting_user', true), '')) a (name)
$$;

COMMENT ON FUNCTION _wa_is_acting_user(uuid, text) IS
'Internal: whether a name is that of the user whom the session names, or another of the same person.';
