-- Whose secret signed a webhook, and for whom that speaks. Every organization may store a secret, and whoever
-- knows one can sign anything with it: a body is believed of the numbers of its signer only.

CREATE OR REPLACE FUNCTION _wa_environment_signer() RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '00000000-0000-0000-0000-000000000000'::uuid;

COMMENT ON FUNCTION _wa_environment_signer() IS
'Internal: stands in wa_webhook_logs.signed_by for the secret of the receiver''s environment, which is the '
'default organization''s.';

-- A secret of a number speaks for its business account, one of an organization for all of its numbers. Equal
-- secrets are one: who stores the secret of a shared app has shown that it knows it.
CREATE OR REPLACE FUNCTION _wa_may_speak(
    p_signed_by uuid[], p_org uuid, p_phone_number_id text, p_waba_id text
) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    -- What a body says of the account counts only where it names no number.
    v_waba_id text := coalesce(
        (SELECT r.waba_id FROM wa_number_routes r WHERE r.phone_number_id = p_phone_number_id), p_waba_id);
BEGIN
    RETURN EXISTS (
        SELECT FROM (
            SELECT k.organization_id, k.phone_number_id FROM wa_secrets k WHERE k.id = ANY (p_signed_by)
            UNION ALL
            SELECT e.organization_id, e.phone_number_id
            FROM wa_secrets k
            JOIN wa_secrets e ON e.fingerprint = k.fingerprint AND e.name = k.name
            WHERE k.id = ANY (p_signed_by)
            UNION ALL
            SELECT o.id, NULL FROM wa_organizations o
            WHERE o.is_default AND _wa_environment_signer() = ANY (p_signed_by)
        ) s
        WHERE (
            s.organization_id = p_org AND (s.phone_number_id IS NULL OR EXISTS (
                SELECT FROM wa_number_routes r
                WHERE r.phone_number_id = s.phone_number_id AND r.organization_id = p_org
                    AND r.waba_id = v_waba_id
            ))
        ) OR EXISTS (
            SELECT FROM wa_app_shares h
            WHERE h.organization_id = s.organization_id AND coalesce(h.with_id, p_org) = p_org
        )
    );
END
$$;

COMMENT ON FUNCTION _wa_may_speak(uuid[], uuid, text, text) IS
'Internal: whether one of the secrets that signed a body may speak for a number, or for a business account, '
'of an organization.';

CREATE OR REPLACE FUNCTION _wa_foreign_problem() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'signed with the secret of somebody who may not speak for this number';

COMMENT ON FUNCTION _wa_foreign_problem() IS 'Internal: what is said of a part that its signer may not send.';

-- Nearly always all may: each combination of a batch is asked for once.
CREATE OR REPLACE FUNCTION _wa_mark_foreign(p_atoms _wa_webhook_atoms[]) RETURNS _wa_webhook_atoms[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_foreign record;
BEGIN
    SELECT array_agg(d.signed_by::text) AS signed_by, array_agg(d.organization_id) AS orgs,
        array_agg(d.phone_number_id) AS numbers, array_agg(d.waba_id) AS accounts
    INTO v_foreign
    FROM (
        SELECT DISTINCT l.signed_by, a.organization_id, a.phone_number_id, a.waba_id
        FROM unnest(p_atoms) a
        -- What was believed once, is: its secret may be gone since.
        CROSS JOIN LATERAL (
            SELECT w.signed_by FROM wa_webhook_logs w WHERE w.id = a.log_id AND w.status <> 'processed' LIMIT 1
        ) l
        WHERE a.error IS NULL AND l.signed_by IS NOT NULL
        OFFSET 0
    ) d
    WHERE NOT _wa_may_speak(d.signed_by, d.organization_id, d.phone_number_id, d.waba_id);
    IF v_foreign.orgs IS NULL THEN
        RETURN p_atoms;
    END IF;
    RETURN (
        SELECT array_agg(ROW(
            a.log_id, a.atom, a.place, a.kind, a.field, a.organization_id, a.number_id, a.waba_id,
            a.phone_number_id, a.display_phone, a.received_at, a.at, a.payload, a.contact, a.dedupe_key,
            CASE WHEN a.error IS NULL AND EXISTS (
                SELECT
                FROM unnest(v_foreign.signed_by, v_foreign.orgs, v_foreign.numbers, v_foreign.accounts)
                    f (signed_by, org, number, account)
                WHERE f.org = a.organization_id AND f.number IS NOT DISTINCT FROM a.phone_number_id
                    AND f.account IS NOT DISTINCT FROM a.waba_id AND f.signed_by = (
                        SELECT w.signed_by::text FROM wa_webhook_logs w
                        WHERE w.id = a.log_id AND w.status <> 'processed')
            ) THEN _wa_foreign_problem() ELSE a.error END,
            a.phone, a.phone_key, a.user_id
        )::_wa_webhook_atoms ORDER BY a.n)
        FROM unnest(p_atoms) WITH ORDINALITY a (
            log_id, atom, place, kind, field, organization_id, number_id, waba_id, phone_number_id,
            display_phone, received_at, at, payload, contact, dedupe_key, error, phone, phone_key, user_id, n
        )
    );
END
$$;

COMMENT ON FUNCTION _wa_mark_foreign(_wa_webhook_atoms[]) IS
'Internal: gives an error to atoms of a signer who may not speak for their number or account.';

CREATE OR REPLACE FUNCTION share_wa_app(p_owner_id uuid, p_with_id uuid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM wa_organizations o WHERE o.id = p_owner_id)
        OR (p_with_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM wa_organizations o WHERE o.id = p_with_id))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'WA302',
            MESSAGE = 'there is no such organization',
            DETAIL = format('Owner %s, organization %s.', p_owner_id, p_with_id),
            HINT = 'SELECT id, name FROM wa_organizations;';
    END IF;
    INSERT INTO wa_app_shares (organization_id, with_id)
    SELECT p_owner_id, p_with_id
    WHERE NOT EXISTS (
        SELECT FROM wa_app_shares h
        WHERE h.organization_id = p_owner_id AND h.with_id IS NOT DISTINCT FROM p_with_id
    );
    PERFORM _wa_audit(p_owner_id, 'app_shared', 'wa_app_shares', p_with_id::text, '{}');
END
$$;

COMMENT ON FUNCTION share_wa_app(uuid, uuid) IS
'States that the Meta app of one organization (its app_secret, or the receiver''s environment for the '
'default one) also sends the webhooks of another, or (NULL) of all: what it signs is believed of their '
'numbers. '
'replay_wa_webhooks() then takes what was refused.';

CREATE OR REPLACE FUNCTION unshare_wa_app(p_owner_id uuid, p_with_id uuid DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    DELETE FROM wa_app_shares h
    WHERE h.organization_id = p_owner_id AND h.with_id IS NOT DISTINCT FROM p_with_id;
    IF FOUND THEN
        PERFORM _wa_audit(p_owner_id, 'app_unshared', 'wa_app_shares', p_with_id::text, '{}');
    END IF;
    RETURN FOUND;
END
$$;

COMMENT ON FUNCTION unshare_wa_app(uuid, uuid) IS
'Takes back what share_wa_app() stated; whether it had been.';

CREATE OR REPLACE FUNCTION get_wa_unheard_numbers(p_has_environment_secret boolean DEFAULT true)
RETURNS TABLE (organization_id uuid, phone_number_id text, waba_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT n.organization_id, n.phone_number_id, n.waba_id
    FROM wa_phone_numbers n
    JOIN wa_organizations o ON o.id = n.organization_id
    WHERE n.provider = 'meta' AND n.organization_id = ANY (_wa_visible_organizations())
        AND NOT (o.is_default AND p_has_environment_secret)
        AND NOT _wa_may_speak(
            ARRAY(SELECT k.id FROM wa_secrets k WHERE k.name = 'app_secret' AND k.is_active)
                || CASE WHEN p_has_environment_secret THEN ARRAY[_wa_environment_signer()] END,
            n.organization_id, n.phone_number_id, n.waba_id
        )
    ORDER BY n.organization_id, n.phone_number_id
$$;

COMMENT ON FUNCTION get_wa_unheard_numbers(boolean) IS
'Business numbers at Meta whose webhooks no secret may sign: their organization has stored no app_secret, '
'and nobody shares an app with it. p_has_environment_secret: whether the receiver''s environment has one, '
'which is the default organization''s.';

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_app_shares
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('with_id');
