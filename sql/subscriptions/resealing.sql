-- Everything that is sealed, sealed anew with another master key: here, in the last room that has secrets.

-- The key is with the process that asks; what it seals anew goes back by reseal_wa_secret().
CREATE OR REPLACE FUNCTION get_wa_sealed_secrets(p_key_id text, p_version integer) RETURNS TABLE (
    organization_id uuid, secret_id uuid, name text, belongs_to text, ciphertext bytea, key_id text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT x.*
    FROM (
        SELECT s.organization_id, s.id, s.name, s.phone_number_id, s.ciphertext, s.key_id FROM wa_secrets s
        UNION ALL
        SELECT c.organization_id, c.id, 'event_secret', c.subscription_id::text, c.ciphertext, c.key_id
        FROM wa_event_secrets c
    ) x (organization_id, id, name, belongs_to, ciphertext, key_id)
    WHERE x.organization_id = ANY (_wa_chosen_organizations())
        AND (x.key_id <> p_key_id OR get_byte(x.ciphertext, 0) <> p_version)
    ORDER BY x.organization_id, x.name, x.belongs_to, x.id;
END
$$;

COMMENT ON FUNCTION get_wa_sealed_secrets(text, integer) IS
'For bin/wa secrets rotate: what is sealed with another key than this one, or in another form, also what is '
'retired: its name and the number, or subscription, that it belongs to.';

CREATE OR REPLACE FUNCTION reseal_wa_secret(
    p_organization_id uuid, p_secret_id uuid, p_from bytea, p_ciphertext bytea, p_key_id text,
    p_fingerprint text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '5s'
AS $$
BEGIN
    IF (
        p_organization_id = ANY (_wa_chosen_organizations()) AND length(p_ciphertext) >= 28
    ) IS NOT TRUE THEN
        RETURN false;
    END IF;
    IF _wa_reseal_secret(
        p_organization_id, p_secret_id, p_from, p_ciphertext, p_key_id, p_fingerprint
    ) THEN
        RETURN true;
    END IF;
    UPDATE wa_event_secrets c SET ciphertext = p_ciphertext, key_id = p_key_id, fingerprint = p_fingerprint
    WHERE c.organization_id = p_organization_id AND c.id = p_secret_id AND c.ciphertext = p_from;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION reseal_wa_secret(uuid, uuid, bytea, bytea, text, text) IS
'Puts the same secret, sealed with another key, in the place of what was read; false if that is not there '
'any more. The audit log has both fingerprints.';
