-- Webhooks that Meta did not sign: 360dialog shows a secret that somebody stored, and may speak for the
-- numbers of that secret only.

-- The secret of a number speaks for the number, one of an organization for all of its numbers; either for the
-- business account only where no other organization has a number of it. Numbers of other providers are not
-- 360dialog's to speak for.
CREATE OR REPLACE FUNCTION _wa_overreaching(p_bodies bytea[], p_secrets text[]) RETURNS bigint[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(array_agg(DISTINCT s.log_id), '{}')
    FROM (
        SELECT array_agg(b.n ORDER BY b.n) AS places, array_agg(b.body ORDER BY b.n) AS bodies
        FROM unnest(p_bodies) WITH ORDINALITY b (body, n)
    ) x
    CROSS JOIN LATERAL _wa_split_webhooks(x.places, x.bodies) s
    WHERE (s.phone_number_id IS NOT NULL OR s.waba_id IS NOT NULL)
        AND (
            NOT EXISTS (
                SELECT FROM wa_number_routes r
                JOIN wa_phone_numbers n ON n.organization_id = r.organization_id AND n.id = r.number_id
                JOIN wa_secrets k ON k.organization_id = r.organization_id
                WHERE k.id = ANY (p_secrets[s.log_id::integer]::uuid[]) AND n.provider = '360dialog'
                    AND (k.phone_number_id IS NULL OR k.phone_number_id = r.phone_number_id)
                    AND CASE WHEN s.phone_number_id IS NULL THEN r.waba_id = s.waba_id
                        ELSE r.phone_number_id = s.phone_number_id END
            )
            OR EXISTS (
                SELECT FROM wa_number_routes r
                WHERE s.phone_number_id IS NULL AND r.waba_id = s.waba_id AND NOT EXISTS (
                    SELECT FROM wa_secrets k
                    WHERE k.organization_id = r.organization_id AND k.id = ANY (p_secrets[s.log_id::integer]::uuid[])
                )
            )
        )
$$;

COMMENT ON FUNCTION _wa_overreaching(bytea[], text[]) IS
'Internal: the places of bodies that speak for a number, or an account, that none of their secrets is for.';

CREATE OR REPLACE FUNCTION ingest_wa_vouched_webhooks(p_bodies bytea[], p_sources text[], p_secrets text[])
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_refused bigint[] := _wa_overreaching(p_bodies, p_secrets);
    v_places bigint[] := ARRAY(
        SELECT n FROM generate_series(1, cardinality(p_bodies)) n WHERE n <> ALL (v_refused) ORDER BY n
    );
    v_ids bigint[];
BEGIN
    v_ids := ingest_wa_webhooks(
        ARRAY(SELECT p_bodies[n] FROM unnest(v_places) WITH ORDINALITY p (n, place) ORDER BY place),
        ARRAY(SELECT p_sources[n] FROM unnest(v_places) WITH ORDINALITY p (n, place) ORDER BY place),
        '360dialog'
    );
    RETURN ARRAY(
        SELECT v_ids[array_position(v_places, n)] FROM generate_series(1, cardinality(p_bodies)) n ORDER BY n
    );
END
$$;

COMMENT ON FUNCTION ingest_wa_vouched_webhooks(bytea[], text[], text[]) IS
'As ingest_wa_webhooks(), for bodies of 360dialog with the secrets (ids of wa_secrets, as the text of an '
'array for each body) that their requests showed. NULL instead of an id: not stored, it speaks for a number '
'that none of these secrets is for.';
