-- Old and new value of what was configured, whoever changed it and by whichever way. Each room puts the
-- trigger on its own tables.

-- Applications read the log. That a number or name became another one, and the same as before, shows all the
-- same; whose it is, only to whoever has the key.
CREATE OR REPLACE FUNCTION _wa_audit_person(p_org uuid, p_value text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT 'sha256:' || encode(sha256(h.digest_salt || convert_to(p_value, 'UTF8')), 'hex')
    FROM wa_audit_heads h WHERE h.organization_id = p_org
$$;

COMMENT ON FUNCTION _wa_audit_person(uuid, text) IS
'Internal: what stands in an organization''s audit log in the place of a number or name: its digest, with a '
'salt that the owner alone can read.';

CREATE OR REPLACE FUNCTION get_wa_audit_digest(p_value text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit_person(_wa_caller_organization(), p_value)
$$;

COMMENT ON FUNCTION get_wa_audit_digest(text) IS
'What stands in the audit log of the caller''s organization in the place of this number (in E.164), name or '
'id of a person: to find who it was.';

CREATE OR REPLACE FUNCTION _wa_audit_hide(p_org uuid, p_row jsonb, p_personal text[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT p_row || coalesce(jsonb_object_agg(c.name, _wa_audit_person(p_org, p_row ->> c.name)), '{}')
    FROM unnest(p_personal) c (name) WHERE p_row ->> c.name IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_audit_hide(uuid, jsonb, text[]) IS
'Internal: a row as it may stand in the audit log: columns of persons by digest.';

-- Definer: whoever may change a setting need not be allowed to write to the log, and cannot leave it out.
CREATE OR REPLACE FUNCTION tg_audit_change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_hidden text[] := string_to_array(coalesce(TG_ARGV[1], ''), ' ') || ARRAY['updated_at', 'organization_id'];
    v_row jsonb := coalesce(to_jsonb(NEW), to_jsonb(OLD));
    v_old jsonb := to_jsonb(OLD) - v_hidden;
    v_new jsonb := to_jsonb(NEW) - v_hidden;
    v_org uuid := coalesce(v_row ->> 'organization_id', v_row ->> TG_ARGV[3]);
    v_personal text[] := string_to_array(TG_ARGV[2], ' ');
    v_entity_id text := (
        SELECT string_agg(v_row ->> k.name, ' ' ORDER BY k.place)
        FROM unnest(string_to_array(TG_ARGV[0], ' ')) WITH ORDINALITY k (name, place)
    );
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT jsonb_object_agg(o.key, o.value), jsonb_object_agg(o.key, v_new -> o.key) INTO v_old, v_new
        FROM jsonb_each(v_old) o WHERE o.value IS DISTINCT FROM v_new -> o.key;
        IF v_old IS NULL THEN
            RETURN NULL;
        END IF;
    ELSE
        v_old := jsonb_strip_nulls(v_old);
        v_new := jsonb_strip_nulls(v_new);
    END IF;
    IF v_personal <> '{}' THEN
        v_old := _wa_audit_hide(v_org, v_old, v_personal);
        v_new := _wa_audit_hide(v_org, v_new, v_personal);
    END IF;
    -- What concerns every organization, and that one of them is gone, stands with the default one. What goes with
    -- its organization leaves no row: there is no log any more that it could stand in.
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    SELECT o.id,
        CASE TG_OP WHEN 'INSERT' THEN 'setting_added' WHEN 'UPDATE' THEN 'setting_changed'
            ELSE 'setting_removed' END,
        TG_TABLE_NAME, v_entity_id,
        CASE WHEN v_old IS NULL THEN '{}' ELSE jsonb_build_object('old', v_old) END
            || CASE WHEN v_new IS NULL THEN '{}' ELSE jsonb_build_object('new', v_new) END
    FROM wa_organizations o
    WHERE CASE WHEN v_org IS NULL OR (TG_OP = 'DELETE' AND TG_ARGV[3] IS NOT NULL)
        THEN o.is_default ELSE o.id = v_org END;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_audit_change() IS
'Leaves an audit row with the old and the new value of what was configured. Arguments: the columns that name '
'the row, those that are left out (secrets, and what changes by itself), those that are a person''s and '
'stand there as get_wa_audit_digest(), and for wa_organizations the column that names the organization.';

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_organizations
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id', 'retention_previewed_at', '', 'id');

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_organization_roles
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('role_name');

CREATE OR REPLACE TRIGGER audit_change
AFTER UPDATE OF webhook_log_retention, public_url, media_store, media_location ON wa_installations
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('is_current');

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_secrets
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id', 'ciphertext');
