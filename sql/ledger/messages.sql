-- Reading the ledger.

-- Plans are kept from a time when the table may have been empty, and = ANY (ids) looks dear then beside a
-- walk through any index that has the organization in it. One look-up by key for each id never does.
CREATE OR REPLACE FUNCTION _wa_messages_of(p_org uuid, p_ids bigint[]) RETURNS SETOF wa_messages
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.* FROM unnest(p_ids) u (id)
    CROSS JOIN LATERAL (
        SELECT w.* FROM wa_messages w WHERE w.organization_id = p_org AND w.id = u.id LIMIT 1
    ) m;
END;

COMMENT ON FUNCTION _wa_messages_of(uuid, bigint[]) IS 'Internal: messages, each looked up by its key.';

CREATE OR REPLACE FUNCTION get_wa_message_history(p_phone text, p_limit integer DEFAULT 50)
RETURNS SETOF wa_messages
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
BEGIN
    RETURN QUERY
    SELECT m.* FROM wa_messages m
    WHERE m.organization_id = v_org AND m.contact_id = _wa_find_contact(v_org, p_phone)
    ORDER BY m.id DESC
    LIMIT greatest(p_limit, 0);
END
$$;

COMMENT ON FUNCTION get_wa_message_history(text, integer) IS
'The latest messages with a phone number (any usual form) or user id, in both directions, newest first; none '
'for a customer who is not known.';
