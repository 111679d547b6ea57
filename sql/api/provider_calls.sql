-- Calls of the provider as the HTTP API shows them to whoever asked for one.

CREATE OR REPLACE FUNCTION get_wa_provider_call(p_id uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_call jsonb;
BEGIN
    SELECT jsonb_build_object(
        'id', c.id, 'kind', c.kind, 'phone_number_id', c.phone_number_id, 'state', c.state,
        'attempts', c.attempts, 'next_attempt_at', c.next_attempt_at, 'give_up_at', c.give_up_at,
        'http_status', c.http_status, 'error', c.error, 'result', c.result, 'created_at', c.created_at,
        'ended_at', c.ended_at
    ) INTO v_call
    FROM wa_provider_calls c
    WHERE c.organization_id = current_wa_organization() AND c.id = p_id
        AND (NOT _wa_is_test_only() OR c.phone_number_id IN (
            SELECT n.phone_number_id FROM wa_phone_numbers n
            WHERE n.organization_id = current_wa_organization() AND n.is_test));
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'P0002',
            MESSAGE = 'no call of the provider with that id',
            DETAIL = format('Asked for was %s.', coalesce(p_id::text, 'NULL')),
            HINT = 'Those that ended are kept for a week: SELECT id, kind, state FROM wa_provider_calls;';
    END IF;
    RETURN v_call;
END
$$;

COMMENT ON FUNCTION get_wa_provider_call(uuid) IS
'A row of wa_provider_calls as the HTTP API shows it: whether it is done, why not, when it is tried next.';
