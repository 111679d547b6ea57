-- What a provider can be told of a business number, and asked: the path and the body of each request, and
-- which sealed secrets go into the body where. {number} and {account} are those of the number, "{url}" is
-- what the caller gives; secrets are put in by the process that makes the call, so that none is in a row.

CREATE OR REPLACE FUNCTION _wa_number_calls(p_provider text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT p.number_calls FROM wa_providers p WHERE p.name = p_provider
$$;

COMMENT ON FUNCTION _wa_number_calls(text) IS
'Internal: the calls about business numbers that a provider knows, by name.';

CREATE OR REPLACE FUNCTION get_wa_call_secrets(p_organization_id uuid, p_call_id uuid, p_attempt integer)
RETURNS TABLE (
    name text, place text[], form text, ciphertext bytea, key_id text, sealed_for text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT w.secret ->> 'name', ARRAY(SELECT jsonb_array_elements_text(w.secret -> 'at')),
        coalesce(w.secret ->> 'form', 'text'), s.ciphertext, s.key_id, s.phone_number_id
    FROM wa_provider_calls c
    CROSS JOIN LATERAL jsonb_array_elements(c.arguments -> 'secrets') w (secret)
    LEFT JOIN LATERAL (
        SELECT k.ciphertext, k.key_id, k.phone_number_id FROM wa_secrets k
        WHERE k.organization_id = c.organization_id AND k.name = w.secret ->> 'name' AND k.is_active
            AND (k.phone_number_id = c.phone_number_id OR k.phone_number_id IS NULL)
        ORDER BY k.phone_number_id NULLS LAST, k.created_at DESC LIMIT 1
    ) s ON true
    WHERE c.organization_id = p_organization_id AND c.id = p_call_id AND c.attempts = p_attempt
        AND c.leased_until IS NOT NULL AND w.secret ->> 'name' <> 'access_token'
$$;

COMMENT ON FUNCTION get_wa_call_secrets(uuid, uuid, integer) IS
'For dispatchers: the sealed secrets that go into the body of a call that the process holds, and where; no '
'ciphertext where none is stored.';
