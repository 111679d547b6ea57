-- Broadcast lists: who is on them.

CREATE OR REPLACE FUNCTION tg_wa_broadcast_lists__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_broadcast_lists__keep() IS 'Notes the time of a change.';

CREATE OR REPLACE TRIGGER keep BEFORE UPDATE ON wa_broadcast_lists
FOR EACH ROW EXECUTE FUNCTION tg_wa_broadcast_lists__keep();

CREATE OR REPLACE FUNCTION _wa_broadcast_list(p_org uuid, p_list text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint := (
        SELECT l.id FROM wa_broadcast_lists l WHERE l.organization_id = p_org AND l.name = p_list
    );
BEGIN
    IF v_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA030',
            MESSAGE = format('there is no broadcast list "%s"', left(p_list, 100)),
            DETAIL = (
                SELECT 'There are: ' || coalesce(string_agg(l.name, ', ' ORDER BY l.name), 'none') || '.'
                FROM (
                    SELECT x.name FROM wa_broadcast_lists x WHERE x.organization_id = p_org
                    ORDER BY x.name LIMIT 10
                ) l
            ),
            HINT = 'INSERT INTO wa_broadcast_lists (name) VALUES (…) makes one.';
    END IF;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_broadcast_list(uuid, text) IS
'Internal: the list of that name; raises WA030 if there is none.';

-- Definer: contacts that are not known yet are made. Two calls at once may add the same contact: the second
-- waits at the primary key and then finds it there.
CREATE OR REPLACE FUNCTION add_wa_broadcast_members(p_list text, p_phones text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_list_id bigint := _wa_broadcast_list(v_org, p_list);
    v_phones text[];
    v_user_ids text[];
    v_added integer;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'broadcast');
    SELECT array_agg(CASE WHEN NOT _wa_is_user_id(p.phone)
            THEN coalesce(_wa_read_phone(v_org, p.phone), _wa_given_phone(v_org, p.phone)) END ORDER BY p.n),
        array_agg(CASE WHEN _wa_is_user_id(p.phone) THEN p.phone END ORDER BY p.n)
    INTO v_phones, v_user_ids
    FROM unnest(p_phones) WITH ORDINALITY p (phone, n)
    WHERE p.phone IS NOT NULL;

    INSERT INTO wa_broadcast_members (organization_id, list_id, contact_id)
    SELECT DISTINCT v_org, v_list_id, r.contact_id
    FROM _wa_resolve_contacts(v_org, coalesce(v_phones, '{}'), v_user_ids, 'broadcast') r
    ON CONFLICT (organization_id, list_id, contact_id) DO NOTHING;
    GET DIAGNOSTICS v_added = ROW_COUNT;
    RETURN v_added;
END
$$;

COMMENT ON FUNCTION add_wa_broadcast_members(text, text[]) IS
'Puts phone numbers, in any usual form, and user ids on a list by its name; returns how many were not on it.';

CREATE OR REPLACE FUNCTION remove_wa_broadcast_members(p_list text, p_phones text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_list_id bigint := _wa_broadcast_list(v_org, p_list);
    v_removed integer;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'broadcast');
    DELETE FROM wa_broadcast_members m
    WHERE m.organization_id = v_org AND m.list_id = v_list_id AND m.contact_id IN (
        SELECT _wa_find_contact(v_org, p.phone) FROM unnest(p_phones) p (phone)
    );
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    RETURN v_removed;
END
$$;

COMMENT ON FUNCTION remove_wa_broadcast_members(text, text[]) IS
'Takes phone numbers and user ids off a list; returns how many were on it.';

-- Definer: whoever may delete in the table may also lock it against everybody.
CREATE OR REPLACE FUNCTION delete_wa_broadcast_list(p_list text) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_list_id bigint := _wa_broadcast_list(v_org, p_list);
    v_members integer;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'broadcast');
    DELETE FROM wa_broadcast_members m WHERE m.organization_id = v_org AND m.list_id = v_list_id;
    GET DIAGNOSTICS v_members = ROW_COUNT;
    DELETE FROM wa_broadcast_lists l WHERE l.organization_id = v_org AND l.id = v_list_id;
    RETURN v_members;
END
$$;

COMMENT ON FUNCTION delete_wa_broadcast_list(text) IS
'Deletes a list by its name; returns how many were on it. The contacts stay.';

CREATE OR REPLACE VIEW wa_broadcast_recipients WITH (security_invoker = true) AS
SELECT
    m.organization_id, m.list_id, l.name AS list_name, m.contact_id,
    coalesce(c.phone_e164, c.user_id) AS phone, c.profile_name,
    m.contact_id IN (
        SELECT o.contact_id FROM wa_opt_outs o
        WHERE o.organization_id = m.organization_id AND o.contact_id = m.contact_id
            AND o.revoked_at IS NULL
    ) AS is_opted_out,
    m.added_at
FROM wa_broadcast_members m
JOIN wa_broadcast_lists l ON l.organization_id = m.organization_id AND l.id = m.list_id
JOIN wa_contacts c ON c.organization_id = m.organization_id AND c.id = m.contact_id
-- Whose number has gone to somebody else, and whose user id is not known, is a member but no recipient.
WHERE num_nonnulls(c.phone_e164, c.user_id) > 0;

COMMENT ON VIEW wa_broadcast_recipients IS
'The members of every list who can be written to: phone is what the queue takes, '
'is_opted_out says who must get no marketing.';
