-- User ids of contacts: which of several counts, and parent ids.

-- Linked portfolios share a parent id (Meta, Business-scoped user IDs). It finds its contact as every user id
-- does.
CREATE OR REPLACE FUNCTION _wa_is_parent_id(p_user_id text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substr(p_user_id, 3, 5) = '.ENT.';

COMMENT ON FUNCTION _wa_is_parent_id(text) IS
'Internal: whether a user id is one of linked portfolios, such as US.ENT.1181.';

-- A person has one user id in each business portfolio, so that with several of those a number may come with
-- several.
CREATE OR REPLACE FUNCTION _wa_is_another_user_id(p_org uuid, p_contact_id bigint, p_user_id text)
RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.kind = 'user_id'
            AND i.valid_to IS NULL AND i.value <> p_user_id AND NOT _wa_is_parent_id(i.value)
    ) AND NOT _wa_is_parent_id(p_user_id)
    AND (SELECT count(*) FROM wa_portfolios f WHERE f.organization_id = p_org) < 2
$$;

COMMENT ON FUNCTION _wa_is_another_user_id(uuid, bigint, text) IS
'Internal: whether a user id cannot be a contact''s, as it has another one of the only portfolio.';

CREATE OR REPLACE FUNCTION _wa_choose_user_id(p_org uuid, p_contact_id bigint) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_contacts c SET user_id = i.value, updated_at = clock_timestamp()
    FROM (
        SELECT x.value FROM wa_contact_identities x
        WHERE x.organization_id = p_org AND x.contact_id = p_contact_id AND x.kind = 'user_id'
            AND x.is_current
        ORDER BY _wa_is_parent_id(x.value), x.valid_to IS NULL DESC, x.valid_from DESC, x.id DESC
        LIMIT 1
    ) i
    WHERE c.organization_id = p_org AND c.id = p_contact_id AND c.user_id IS DISTINCT FROM i.value
$$;

COMMENT ON FUNCTION _wa_choose_user_id(uuid, bigint) IS
'Internal: which of its user ids a contact is written to at: the newest one that no event replaced, a '
'parent id only if there is no other.';

CREATE OR REPLACE FUNCTION _wa_add_user_id(
    p_org uuid, p_contact_id bigint, p_user_id text, p_source text, p_at timestamptz
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_contact_identities (organization_id, contact_id, kind, value, source, valid_from)
    VALUES (p_org, p_contact_id, 'user_id', p_user_id, p_source, p_at)
    ON CONFLICT (organization_id, kind, value) WHERE is_current DO NOTHING;

    SELECT _wa_choose_user_id(p_org, p_contact_id)
$$;

COMMENT ON FUNCTION _wa_add_user_id(uuid, bigint, text, text, timestamptz) IS
'Internal: gives a contact one more user id.';

CREATE OR REPLACE FUNCTION _wa_add_parent_id(
    p_org uuid, p_contact_id bigint, p_parent_id text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_other_id bigint;
BEGIN
    PERFORM _wa_add_user_id(p_org, p_contact_id, p_parent_id, 'webhook', p_at);
    v_other_id := (_wa_lock_contacts(p_org, NULL, p_parent_id, p_at)).by_user;
    IF v_other_id <> p_contact_id THEN
        PERFORM _wa_follow_user_id(p_org, v_other_id, p_contact_id, p_at);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_add_parent_id(uuid, bigint, text, timestamptz) IS
'Internal: a contact has this parent id; another that it finds is the same person.';

CREATE OR REPLACE FUNCTION _wa_change_parent_id(
    p_org uuid, p_contact_id bigint, p_old text, p_new text, p_at timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_old <> p_new THEN
        PERFORM _wa_add_parent_id(p_org, p_contact_id, p_old, p_at - interval '1 second');
        UPDATE wa_contact_identities SET valid_to = least(valid_to, p_at)
        WHERE organization_id = p_org AND contact_id = p_contact_id AND kind = 'user_id' AND value = p_old
            AND is_current;
    END IF;
    PERFORM _wa_add_parent_id(p_org, p_contact_id, p_new, p_at);
    UPDATE wa_contacts SET parent_user_id = p_new, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = p_contact_id AND parent_user_id IS DISTINCT FROM p_new;
END
$$;

COMMENT ON FUNCTION _wa_change_parent_id(uuid, bigint, text, text, timestamptz) IS
'Internal: an event names a contact''s parent id, and the one that it replaced or NULL.';
