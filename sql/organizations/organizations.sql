-- Which organization a role works for. Comes before the tables whose defaults and policies call it.

-- In PL/pgSQL for its cached plan: defaults and policies call it for every statement.
CREATE OR REPLACE FUNCTION _wa_sole_organization() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids uuid[] := ARRAY(SELECT o.id FROM wa_organizations o LIMIT 2);
BEGIN
    RETURN CASE WHEN cardinality(v_ids) = 1 THEN v_ids[1] END;
END
$$;

COMMENT ON FUNCTION _wa_sole_organization() IS
'The only organization, or NULL when there are several. Definer: it must look past row security.';

CREATE OR REPLACE FUNCTION _wa_choose_organization(p_role name, p_organizations uuid[]) RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_setting text := nullif(current_setting('wa.organization_id', true), '');
    v_is_admin boolean := pg_has_role(p_role, 'wa_admin', 'MEMBER');
    v_chosen uuid;
BEGIN
    IF v_setting IS NULL THEN
        IF v_is_admin OR cardinality(p_organizations) = 0 THEN
            v_chosen := _wa_sole_organization();
        -- One organization, if through several roles.
        ELSIF p_organizations[1] = ALL (p_organizations) THEN
            RETURN p_organizations[1];
        END IF;
        IF v_chosen IS NOT NULL THEN
            RETURN v_chosen;
        END IF;
        IF v_is_admin OR cardinality(p_organizations) > 1 THEN
            RAISE EXCEPTION USING ERRCODE = 'WA301',
                MESSAGE = format('role "%s" may work for several organizations and none is chosen', p_role),
                DETAIL = CASE WHEN v_is_admin THEN 'A wa_admin may work for each.'
                    ELSE format('They are: %s.', array_to_string(p_organizations, ', ')) END,
                HINT = 'SET wa.organization_id = ''<uuid>'' (in a transaction: SET LOCAL).';
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'WA302',
            MESSAGE = format('role "%s" belongs to no organization', p_role),
            DETAIL = 'wa_organization_roles names neither the role nor one that it is a member of, or the name '
                'is that of a role which was dropped since.',
            HINT = 'Ask a wa_admin: SELECT add_wa_organization_role(organization_id, role_name).';
    END IF;
    BEGIN
        v_chosen := v_setting::uuid;
    EXCEPTION WHEN invalid_text_representation THEN
        RAISE EXCEPTION USING ERRCODE = 'WA303',
            MESSAGE = format('wa.organization_id is not a UUID: "%s"', left(v_setting, 100)),
            DETAIL = 'It is a setting of the session, of the role or of the database.',
            HINT = 'SET wa.organization_id to the id of one of your organizations, or RESET it.';
    END;
    IF v_is_admin OR v_chosen = ANY (p_organizations)
        OR (cardinality(p_organizations) = 0 AND v_chosen = _wa_sole_organization())
    THEN
        RETURN v_chosen;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'WA302',
        MESSAGE = format('role "%s" does not belong to organization %s', p_role, v_chosen),
        DETAIL = format('It belongs to: %s.',
            coalesce(nullif(array_to_string(p_organizations, ', '), ''), 'none')),
        HINT = 'Choose one of your own organizations, or ask a wa_admin for add_wa_organization_role().';
END
$$;

COMMENT ON FUNCTION _wa_choose_organization(name, uuid[]) IS
'Internal: the organization that a role works for, of those that it belongs to. wa.organization_id only '
'chooses among them.';

CREATE OR REPLACE FUNCTION _wa_is_bound_role(p_role name) RETURNS boolean
LANGUAGE sql STABLE
RETURN (
    SELECT t.typacl @> makeaclitem(to_regrole(quote_ident(p_role)), t.typowner, 'USAGE', false)
    FROM pg_type t WHERE t.oid = '_wa_bound_role'::regtype
);

COMMENT ON FUNCTION _wa_is_bound_role(name) IS
'Internal: whether a role is one that was added to an organization, not another that took its name.';

-- One at a time: two grants on one object at once fail. What the name was given before it changed hands goes.
CREATE OR REPLACE FUNCTION tg_wa_organization_roles__bind() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_lock('roles');
    -- NULL where there is no such role.
    IF NOT _wa_is_bound_role(NEW.role_name) THEN
        DELETE FROM wa_organization_roles r
        WHERE r.role_name = NEW.role_name AND r.organization_id <> NEW.organization_id;
        EXECUTE format('GRANT USAGE ON DOMAIN _wa_bound_role TO %I', NEW.role_name);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_organization_roles__bind() IS
'Marks the role that is added to an organization, so that none that takes its name later is taken for it.';

CREATE OR REPLACE TRIGGER bind BEFORE INSERT OR UPDATE ON wa_organization_roles
FOR EACH ROW EXECUTE FUNCTION tg_wa_organization_roles__bind();

CREATE OR REPLACE FUNCTION tg_wa_organization_roles__unbind() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_lock('roles');
    IF to_regrole(quote_ident(OLD.role_name)) IS NOT NULL
        AND NOT EXISTS (SELECT FROM wa_organization_roles r WHERE r.role_name = OLD.role_name)
    THEN
        EXECUTE format('REVOKE USAGE ON DOMAIN _wa_bound_role FROM %I', OLD.role_name);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_organization_roles__unbind() IS
'Takes the mark from a role that belongs to no organization any more; it can be dropped then.';

CREATE OR REPLACE TRIGGER unbind AFTER UPDATE OR DELETE ON wa_organization_roles
FOR EACH ROW EXECUTE FUNCTION tg_wa_organization_roles__unbind();

-- By the role in force, so that it serves inside a host's own SECURITY DEFINER function too.
CREATE OR REPLACE FUNCTION current_wa_organization() RETURNS uuid
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN _wa_choose_organization(current_user, ARRAY(
        SELECT r.organization_id FROM wa_organization_roles r
        WHERE pg_has_role(to_regrole(quote_ident(r.role_name)), 'MEMBER')
            AND _wa_is_bound_role(r.role_name)
    ));
END
$$;

COMMENT ON FUNCTION current_wa_organization() IS
'The organization that the current role works for. wa.organization_id only chooses among those that the '
'role belongs to; with several and none chosen it raises WA301, with a foreign one WA302.';

CREATE OR REPLACE FUNCTION _wa_caller() RETURNS name
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name;

COMMENT ON FUNCTION _wa_caller() IS
'Internal: who calls a SECURITY DEFINER function: the role that was set, else the session''s user.';

CREATE OR REPLACE FUNCTION _wa_organizations_of(p_role name) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN ARRAY(
        SELECT r.organization_id FROM wa_organization_roles r
        WHERE pg_has_role(p_role, to_regrole(quote_ident(r.role_name)), 'MEMBER')
            AND _wa_is_bound_role(r.role_name)
    );
END
$$;

COMMENT ON FUNCTION _wa_organizations_of(name) IS
'Internal: the organizations that a role was added to, itself or by a role that it is a member of.';

CREATE OR REPLACE FUNCTION _wa_caller_organization() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN _wa_choose_organization(_wa_caller(), _wa_organizations_of(_wa_caller()));
END
$$;

COMMENT ON FUNCTION _wa_caller_organization() IS
'Internal: current_wa_organization() for SECURITY DEFINER functions, in which current_user is the owner.';

CREATE OR REPLACE FUNCTION _wa_visible_organizations() RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF pg_has_role(_wa_caller(), 'wa_admin', 'MEMBER') THEN
        RETURN ARRAY(SELECT o.id FROM wa_organizations o);
    END IF;
    RETURN ARRAY[_wa_caller_organization()];
END
$$;

COMMENT ON FUNCTION _wa_visible_organizations() IS
'The organizations whose rows the current role may see: all for wa_admin, else the one it works for.';

CREATE OR REPLACE FUNCTION _wa_chosen_organizations() RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN CASE WHEN nullif(current_setting('wa.organization_id', true), '') IS NULL
        THEN _wa_visible_organizations() ELSE ARRAY[_wa_caller_organization()] END;
END
$$;

COMMENT ON FUNCTION _wa_chosen_organizations() IS
'Internal: the organization that was chosen, or all that the current role may see.';

CREATE OR REPLACE FUNCTION create_wa_organization(
    p_name text, p_id uuid DEFAULT gen_random_uuid(), p_default_region text DEFAULT NULL
) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_organizations (id, name, default_region) VALUES (p_id, p_name, upper(p_default_region))
    RETURNING id
$$;

COMMENT ON FUNCTION create_wa_organization(text, uuid, text) IS
'Makes a tenant, with the host''s own id if given. From the second one on, every role needs '
'add_wa_organization_role().';

CREATE OR REPLACE FUNCTION add_wa_organization_role(p_organization_id uuid, p_role_name name) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF to_regrole(quote_ident(p_role_name)) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '42704',
            MESSAGE = format('role "%s" does not exist', p_role_name),
            DETAIL = 'pg_roles has no role of that name, small and capital letters told apart.',
            HINT = 'CREATE ROLE it first.';
    END IF;
    INSERT INTO wa_organization_roles (organization_id, role_name) VALUES (p_organization_id, p_role_name)
    ON CONFLICT (organization_id, role_name) DO UPDATE SET role_name = excluded.role_name;
END
$$;

COMMENT ON FUNCTION add_wa_organization_role(uuid, name) IS
'Lets a role, and every member of it, work for an organization; also one that has taken the name of a role '
'that was dropped. For wa_admin.';

CREATE OR REPLACE FUNCTION _wa_bind_role(p_role name, p_org uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_organizations uuid[] := _wa_organizations_of(p_role);
BEGIN
    IF cardinality(v_organizations) = 0 AND _wa_sole_organization() = p_org THEN
        PERFORM add_wa_organization_role(p_org, p_role);
    ELSIF p_org <> ALL (v_organizations) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA302',
            MESSAGE = format('role "%s" does not belong to organization %s', p_role, p_org),
            DETAIL = format('It belongs to: %s.',
                coalesce(nullif(array_to_string(v_organizations, ', '), ''), 'none')),
            HINT = 'Ask a wa_admin: SELECT add_wa_organization_role(organization_id, role_name).';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_bind_role(name, uuid) IS
'Internal: adds a role to the sole organization, for which it could work without; raises WA302 for one of '
'another organization.';

INSERT INTO wa_organizations (name, is_default, rate_limit_per_minute)
SELECT 'default', true, NULL
WHERE NOT EXISTS (SELECT FROM wa_organizations);

CREATE OR REPLACE FUNCTION _wa_offer_default_number(p_org uuid, p_number_id bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_organizations SET default_number_id = p_number_id WHERE id = p_org AND default_number_id IS NULL
$$;

COMMENT ON FUNCTION _wa_offer_default_number(uuid, bigint) IS
'Internal: makes a number the default of an organization that has none.';

CREATE OR REPLACE FUNCTION _wa_note_retention_preview(p_org uuid, p_now timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_organizations SET retention_previewed_at = p_now WHERE id = p_org
$$;

COMMENT ON FUNCTION _wa_note_retention_preview(uuid, timestamptz) IS
'Internal: what retention would take of an organization was counted.';

CREATE OR REPLACE FUNCTION _wa_public_url(p_org uuid) RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(
    (SELECT o.public_url FROM wa_organizations o WHERE o.id = p_org),
    (SELECT i.public_url FROM wa_installations i LIMIT 1)
);

COMMENT ON FUNCTION _wa_public_url(uuid) IS
'Internal: where an organization''s bin/wa serve is reached from outside; NULL where nobody said.';

CREATE OR REPLACE FUNCTION _wa_seed_settings(
    p_org uuid, p_media boolean, p_templates boolean, p_retention_days integer
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_organizations o SET
        media_contact_quota = CASE WHEN p_media THEN o.media_contact_quota ELSE 0 END,
        sends_templates = o.sends_templates AND coalesce(p_templates, true),
        message_retention = coalesce(make_interval(days => p_retention_days), o.message_retention)
    WHERE o.id = p_org
$$;

COMMENT ON FUNCTION _wa_seed_settings(uuid, boolean, boolean, integer) IS
'Internal: settings of an organization as register_wa_first_number() is told them.';
