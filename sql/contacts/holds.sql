-- Legal holds, as the rooms below see them that take old things away.

-- A call in a condition: SQL, so that it is inlined. Holds are few, and the index of those in force is small.
CREATE OR REPLACE FUNCTION _wa_is_held(p_org uuid, p_contact_id bigint) RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT exists(
        SELECT FROM wa_contact_holds h
        WHERE h.organization_id = p_org AND h.contact_id = p_contact_id AND h.released_at IS NULL
    );
END;

COMMENT ON FUNCTION _wa_is_held(uuid, bigint) IS
'Internal: whether a contact is under a legal hold: then nothing of it is deleted or emptied.';
