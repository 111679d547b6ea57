-- The record of consent: written by triggers, so that no way of changing consent misses it, and kept.

CREATE OR REPLACE FUNCTION tg_wa_opt_outs__record() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_consent_events (
        organization_id, contact_id, event, scope, source, phone_number, reason, text_shown, language,
        wa_message_id, proof, acting_user, occurred_at
    )
    SELECT a.organization_id, a.contact_id, 'opt_out', a.scope, a.source, a.phone_number, a.reason,
        a.proof ->> 'text', a.proof ->> 'language', a.proof ->> 'wa_message_id', a.proof,
        nullif(current_setting('wa.acting_user', true), ''), a.opt_out_date
    FROM added a;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_outs__record() IS 'Records each opt-out in wa_consent_events.';

-- A row changed by hand may also come into force again, or get another scope.
CREATE OR REPLACE FUNCTION tg_wa_opt_outs__record_change() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_consent_events (
        organization_id, contact_id, event, scope, source, phone_number, acting_user, occurred_at
    )
    SELECT n.organization_id, n.contact_id, e.event, e.scope, e.source, n.phone_number,
        nullif(current_setting('wa.acting_user', true), ''), e.at
    FROM former o
    JOIN changed n ON n.organization_id = o.organization_id AND n.id = o.id
    CROSS JOIN LATERAL (
        SELECT 'lifted' AS event, o.scope, coalesce(n.revoked_source, 'unknown') AS source,
            coalesce(n.revoked_at, clock_timestamp()) AS at
        WHERE o.revoked_at IS NULL AND (n.revoked_at IS NOT NULL OR n.scope <> o.scope)
        UNION ALL
        SELECT 'opt_out', n.scope, n.source, clock_timestamp()
        WHERE n.revoked_at IS NULL AND (o.revoked_at IS NOT NULL OR n.scope <> o.scope)
    ) e;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_outs__record_change() IS
'Records in wa_consent_events that opt-outs were lifted, or came into force again.';

CREATE OR REPLACE FUNCTION tg_wa_opt_ins__record() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_consent_events (
        organization_id, contact_id, event, scope, source, phone_number, text_shown, language, wa_message_id,
        proof, acting_user, occurred_at
    )
    SELECT a.organization_id, a.contact_id, 'opt_in', a.scope, a.source, c.phone_e164, a.proof ->> 'text',
        a.proof ->> 'language', a.proof ->> 'wa_message_id', a.proof,
        nullif(current_setting('wa.acting_user', true), ''), a.opted_in_at
    FROM added a
    JOIN wa_contacts c ON c.organization_id = a.organization_id AND c.id = a.contact_id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_ins__record() IS 'Records each opt-in in wa_consent_events.';

CREATE OR REPLACE FUNCTION tg_wa_opt_in_requests__record() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_consent_events (
        organization_id, contact_id, event, scope, source, phone_number, text_shown, language, proof,
        acting_user, occurred_at
    )
    SELECT a.organization_id, a.contact_id, 'requested', a.scope, a.source, c.phone_e164, a.proof ->> 'text',
        a.proof ->> 'language', a.proof || jsonb_build_object('request_id', a.id),
        nullif(current_setting('wa.acting_user', true), ''), a.requested_at
    FROM added a
    JOIN wa_contacts c ON c.organization_id = a.organization_id AND c.id = a.contact_id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_in_requests__record() IS
'Records in wa_consent_events that an opt-in was asked for.';

-- Rights alone would do, until somebody grants more. Invoker: our own functions come as the owner.
CREATE OR REPLACE FUNCTION tg_wa_consent_events__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'WA121', TABLE = 'wa_consent_events',
            MESSAGE = format('%s of wa_consent_events: what was recorded of consent stays as it is', TG_OP),
            DETAIL = format('You are %s.', current_user),
            HINT = 'opt_in_wa_contact() and opt_out_wa_contact() record what is so from now on.';
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_consent_events__keep() IS
'Lets nobody but the owner of wa_consent_events change or delete a row.';

CREATE OR REPLACE TRIGGER record AFTER INSERT ON wa_opt_outs
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_outs__record();

CREATE OR REPLACE TRIGGER record_change AFTER UPDATE ON wa_opt_outs
REFERENCING OLD TABLE AS former NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_outs__record_change();

CREATE OR REPLACE TRIGGER record AFTER INSERT ON wa_opt_ins
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_ins__record();

CREATE OR REPLACE TRIGGER record AFTER INSERT ON wa_opt_in_requests
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_in_requests__record();

CREATE OR REPLACE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON wa_consent_events
FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_consent_events__keep();
