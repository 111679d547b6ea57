-- The audit log: the one way in for every room, and what is counted instead of listed.

CREATE OR REPLACE FUNCTION _wa_audit(p_org uuid, p_event text, p_entity text, p_entity_id text, p_meta jsonb)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO audit_log (organization_id, event, entity, entity_id, meta)
    VALUES (p_org, p_event, p_entity, p_entity_id, p_meta)
$$;

COMMENT ON FUNCTION _wa_audit(uuid, text, text, text, jsonb) IS
'Internal: leaves an audit row: what happened to what; who did it is the user of the session.';

-- Invoker: what our own functions write comes as the owner, who alone could change the rows anyway.
CREATE OR REPLACE FUNCTION tg_audit_log__sign() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- A name that the caller gave; it grants nothing.
    NEW.meta := NEW.meta || jsonb_strip_nulls(jsonb_build_object(
        'acting_user', nullif(current_setting('wa.acting_user', true), ''),
        'caller', nullif(current_setting('wa.caller', true), '')
    ));
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
        NEW.created_at := clock_timestamp();
        IF NEW.actor <> session_user AND NOT pg_has_role('wa_admin', 'MEMBER') THEN
            NEW.meta := NEW.meta || jsonb_build_object('actor', NEW.actor);
            NEW.actor := session_user;
        END IF;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_audit_log__sign() IS
'When an audit row was written is what it was, not what the row says, and so is who did, but for what a '
'wa_admin writes on behalf of others: an actor that was given is kept in its meta. What came over HTTP '
'tells the key, and the user whom the request named, there, too.';

CREATE OR REPLACE TRIGGER sign BEFORE INSERT ON audit_log
FOR EACH ROW EXECUTE FUNCTION tg_audit_log__sign();

-- Forged webhook requests are counted, one row per source and minute: a flood must not fill the log.
CREATE OR REPLACE FUNCTION _wa_audit_rejection(p_org uuid, p_source text, p_reason text, p_count integer)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO audit_log AS a (organization_id, event, entity, entity_id, meta)
    VALUES (
        p_org, 'webhook_rejected', 'wa_webhook_logs',
        concat_ws(' ', left(p_source, 200),
            to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')),
        jsonb_build_object('source', left(p_source, 200), 'reason', left(p_reason, 200), 'count', p_count)
    )
    ON CONFLICT (organization_id, entity_id) WHERE event = 'webhook_rejected' DO UPDATE SET
        meta = a.meta || jsonb_build_object(
            'reason', excluded.meta -> 'reason', 'count', (a.meta ->> 'count')::bigint + p_count
        )
$$;

COMMENT ON FUNCTION _wa_audit_rejection(uuid, text, text, integer) IS
'Internal: counts refused webhook requests, or parts of them, in a row per source and minute.';

-- In a trigger, so that a row written by hand leaves the same trace as set_wa_sending().
CREATE OR REPLACE FUNCTION tg_wa_installations__audit() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO audit_log (organization_id, event, entity, meta)
    SELECT o.id, CASE WHEN NEW.is_sending_enabled THEN 'sending_enabled' ELSE 'sending_disabled' END,
        'wa_installations', jsonb_build_object('note', NEW.sending_note)
    FROM wa_organizations o;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_installations__audit() IS
'Leaves an audit row with every organization when the kill switch is thrown: it stops them all.';

CREATE OR REPLACE TRIGGER audit AFTER UPDATE ON wa_installations
FOR EACH ROW WHEN (OLD.is_sending_enabled IS DISTINCT FROM NEW.is_sending_enabled)
EXECUTE FUNCTION tg_wa_installations__audit();

CREATE OR REPLACE FUNCTION _wa_delete_audit(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_rows integer;
BEGIN
    WITH expired AS (
        SELECT a.organization_id, a.id
        FROM wa_organizations o
        CROSS JOIN LATERAL (
            SELECT a.organization_id, a.id FROM audit_log a
            WHERE a.organization_id = o.id AND a.created_at < p_now - o.audit_retention LIMIT p_limit
        ) a
        LIMIT p_limit
    )
    DELETE FROM audit_log a USING expired e WHERE a.organization_id = e.organization_id AND a.id = e.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_audit(timestamptz, integer) IS
'Internal: deletes audit rows where the organization set an end for them.';
