-- What customers' own messages tell of them: name, user name, wa_id and identity key.

-- The newest message's word counts, whatever the order of arrival; the ledger tells whether there is a newer
-- one.
CREATE OR REPLACE FUNCTION _wa_update_profiles(
    p_org uuid, p_contact_ids bigint[], p_ats timestamptz[], p_profiles jsonb[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_told record;
    v_is_newest boolean;
BEGIN
    FOR v_told IN
        SELECT t.*, c.parent_user_id AS former_parent_id
        FROM (
            SELECT DISTINCT ON (u.contact_id) u.contact_id, u.at, p.*
            FROM unnest(p_contact_ids, p_ats, p_profiles) u (contact_id, at, profile)
            CROSS JOIN LATERAL jsonb_to_record(u.profile) AS p (
                profile_name text, username text, wa_id text, parent_user_id text, identity_hash text
            )
            ORDER BY u.contact_id, u.at DESC
        ) t
        CROSS JOIN LATERAL (
            SELECT k.profile_name, k.username, k.wa_id, k.parent_user_id, k.identity_hash FROM wa_contacts k
            WHERE k.organization_id = p_org AND k.id = t.contact_id LIMIT 1
        ) c
        WHERE (c.profile_name, c.username, c.wa_id, c.parent_user_id, c.identity_hash) IS DISTINCT FROM (
            coalesce(t.profile_name, c.profile_name), coalesce(t.username, c.username),
            coalesce(t.wa_id, c.wa_id), coalesce(t.parent_user_id, c.parent_user_id),
            coalesce(t.identity_hash, c.identity_hash)
        )
    LOOP
        v_is_newest := NOT EXISTS (
            SELECT FROM wa_messages m
            WHERE m.organization_id = p_org AND m.contact_id = v_told.contact_id AND m.direction = 'inbound'
                AND m.message_type <> 'system' AND m.provider_at > v_told.at
        );
        UPDATE wa_contacts c SET
            profile_name = CASE WHEN v_is_newest THEN coalesce(v_told.profile_name, c.profile_name)
                ELSE coalesce(c.profile_name, v_told.profile_name) END,
            username = CASE WHEN v_is_newest THEN coalesce(v_told.username, c.username)
                ELSE coalesce(c.username, v_told.username) END,
            wa_id = CASE WHEN v_is_newest THEN coalesce(v_told.wa_id, c.wa_id)
                ELSE coalesce(c.wa_id, v_told.wa_id) END,
            parent_user_id = coalesce(v_told.parent_user_id, c.parent_user_id),
            identity_hash = CASE WHEN v_is_newest THEN coalesce(v_told.identity_hash, c.identity_hash)
                ELSE coalesce(c.identity_hash, v_told.identity_hash) END,
            updated_at = clock_timestamp()
        WHERE c.organization_id = p_org AND c.id = v_told.contact_id;
        IF v_told.parent_user_id <> coalesce(v_told.former_parent_id, '') THEN
            PERFORM _wa_add_parent_id(p_org, v_told.contact_id, v_told.parent_user_id, v_told.at);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_update_profiles(uuid, bigint[], timestamptz[], jsonb[]) IS
'Internal: takes what messages of contacts tell of them, at their times: {"profile_name", "username", '
'"wa_id", "parent_user_id", "identity_hash"}, each or NULL.';

CREATE OR REPLACE FUNCTION _wa_set_identity_hashes(p_org uuid, p_contact_ids bigint[], p_hashes text[])
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_contacts c SET identity_hash = h.hash, updated_at = clock_timestamp()
    FROM unnest(p_contact_ids, p_hashes) h (contact_id, hash)
    WHERE c.organization_id = p_org AND c.id = h.contact_id AND c.identity_hash IS DISTINCT FROM h.hash
$$;

COMMENT ON FUNCTION _wa_set_identity_hashes(uuid, bigint[], text[]) IS
'Internal: the identity keys of contacts, as the provider told their change.';
