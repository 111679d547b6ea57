-- The audit log: the one way in for every room, what a row says of its writer, and that none is changed.

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
        -- Anybody may set the setting; of the web server's login only it is believed.
        'caller', CASE WHEN pg_has_role(session_user, 'wa_api', 'MEMBER')
            THEN nullif(current_setting('wa.caller', true), '') END
    ));
    NEW.session_role := session_user;
    -- _wa_caller(), which is not everybody's to call.
    NEW.database_role := coalesce(nullif(current_setting('role'), 'none'), session_user::text);
    NEW.client_address := coalesce(
        CASE WHEN pg_has_role(session_user, 'wa_api', 'MEMBER')
            THEN left(nullif(current_setting('wa.client_address', true), ''), 100) END,
        host(inet_client_addr()));
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
        NEW.created_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_audit_log__sign() IS
'When an audit row was written, by which login, as which role and from where is what it was, not what the '
'row says; the actor is the writer''s word. What came over HTTP tells the key, and the user whom the request '
'named, in its meta.';

CREATE OR REPLACE TRIGGER sign BEFORE INSERT ON audit_log
FOR EACH ROW EXECUTE FUNCTION tg_audit_log__sign();

-- Whoever writes waits for nothing and computes nothing: sealing comes later, and finds its rows by these.
CREATE OR REPLACE FUNCTION tg_audit_log__await_seal() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_audit_unsealed (organization_id, audit_id) SELECT n.organization_id, n.id FROM new_rows n;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_audit_log__await_seal() IS 'Notes the new rows for seal_wa_audit_log().';

CREATE OR REPLACE TRIGGER await_seal AFTER INSERT ON audit_log
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tg_audit_log__await_seal();

-- Grants say the same; this holds where a DBA granted more later, and against TRUNCATE, which row security
-- does not see. Invoker, so that retention and erasure, functions of the owner, go through.
CREATE OR REPLACE FUNCTION tg_audit_log__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'WA080',
            MESSAGE = format('the audit log is only added to: no %s', TG_OP),
            DETAIL = format('Role "%s" does not own the table.', current_user),
            HINT = 'wa_organizations.audit_retention says how long rows are kept.';
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_audit_log__keep() IS
'Raises WA080 when any role but the owner changes or deletes rows of the audit log.';

CREATE OR REPLACE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION tg_audit_log__keep();

-- Forged webhook requests, and names of users that are nobody's, come in floods. The first of a subject in a
-- minute is a row at once; the others are counted apart and become one more row when the minute is over, so
-- that no row of the log ever changes.
CREATE OR REPLACE FUNCTION _wa_audit_repeated(
    p_org uuid, p_event text, p_subject text, p_reason text, p_count integer
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_minute timestamptz := date_trunc('minute', clock_timestamp());
    v_further bigint;
BEGIN
    INSERT INTO wa_audit_counts AS c (organization_id, event, subject, minute, reason)
    -- A body that was stored by hand has no source.
    VALUES (p_org, p_event, left(coalesce(p_subject, ''), 200), v_minute, left(p_reason, 200))
    ON CONFLICT (organization_id, event, subject, minute) DO UPDATE SET
        further = c.further + p_count, reason = excluded.reason
    RETURNING c.further INTO v_further;
    IF v_further = 0 THEN
        PERFORM _wa_audit_counted(
            p_org, p_event, left(p_subject, 200), v_minute, left(p_reason, 200), p_count
        );
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_audit_repeated(uuid, text, text, text, integer) IS
'Internal: notes what may come often: a row for the first of a subject and minute, and one for the further '
'ones.';

CREATE OR REPLACE FUNCTION _wa_audit_rejection(p_org uuid, p_source text, p_reason text, p_count integer)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit_repeated(p_org, 'webhook_rejected', p_source, p_reason, p_count)
$$;

COMMENT ON FUNCTION _wa_audit_rejection(uuid, text, text, integer) IS
'Internal: notes refused webhook requests, or parts of them.';

-- By session, so that none waits for another's transaction, which may be long.
CREATE OR REPLACE FUNCTION _wa_audit_unknown_user(p_org uuid, p_name text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit_repeated(p_org, 'unknown_user', pg_backend_pid()::text, p_name, 1)
    WHERE NOT EXISTS (
        SELECT FROM audit_log a
        WHERE a.organization_id = p_org AND a.created_at > clock_timestamp() - interval '1 minute'
            AND a.event = 'unknown_user' AND a.entity_id = left(p_name, 200)
    )
$$;

COMMENT ON FUNCTION _wa_audit_unknown_user(uuid, text) IS
'Internal: notes that a session named a user who is none: the first in a minute by name, others by number.';

CREATE OR REPLACE FUNCTION _wa_audit_counted(
    p_org uuid, p_event text, p_subject text, p_minute timestamptz, p_reason text, p_count bigint
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit(p_org, p_event, x.entity, x.entity_id, x.meta || jsonb_build_object('count', p_count))
    FROM (
        SELECT 'wa_users' AS entity, p_reason AS entity_id, '{}'::jsonb AS meta WHERE p_event = 'unknown_user'
        UNION ALL
        SELECT 'wa_webhook_logs',
            concat_ws(' ', p_subject, to_char(p_minute AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')),
            jsonb_build_object('source', p_subject, 'reason', p_reason)
        WHERE p_event = 'webhook_rejected'
    ) x
$$;

COMMENT ON FUNCTION _wa_audit_counted(uuid, text, text, timestamptz, text, bigint) IS
'Internal: the audit row of so many of the same; of users without a name that one of them was given.';

-- Deleting takes each count from whoever might add to it: what comes later begins a new one.
CREATE OR REPLACE FUNCTION _wa_close_audit_counts(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_count wa_audit_counts;
    v_rows integer := 0;
BEGIN
    FOR v_count IN
        DELETE FROM wa_audit_counts c WHERE (c.organization_id, c.event, c.subject, c.minute) IN (
            SELECT o.organization_id, o.event, o.subject, o.minute FROM wa_audit_counts o
            WHERE o.minute < date_trunc('minute', p_now) ORDER BY o.minute LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        )
        RETURNING c.*
    LOOP
        IF v_count.further > 0 THEN
            PERFORM _wa_audit_counted(
                v_count.organization_id, v_count.event, nullif(v_count.subject, ''), v_count.minute,
                v_count.reason, v_count.further
            );
            v_rows := v_rows + 1;
        END IF;
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_close_audit_counts(timestamptz, integer) IS
'Internal: turns the counts of minutes that are over into rows of the audit log; returns how many.';

-- Definer: what was counted and is no row yet has no grants.
CREATE OR REPLACE FUNCTION get_wa_rejections(p_since timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (
        -- Anybody who may write to the log may have written the row, with any number.
        SELECT coalesce(sum(CASE jsonb_typeof(a.meta -> 'count')
            WHEN 'number' THEN least(greatest((a.meta ->> 'count')::numeric, 1), 1000000000) ELSE 1 END), 0)::bigint
        FROM audit_log a
        WHERE a.organization_id = ANY (_wa_visible_organizations())
            AND a.event = 'webhook_rejected' AND a.created_at >= p_since
    ) + (
        SELECT coalesce(sum(c.further), 0)::bigint FROM wa_audit_counts c
        WHERE c.organization_id = ANY (_wa_visible_organizations()) AND c.event = 'webhook_rejected'
            AND c.minute >= p_since
    );
END
$$;

COMMENT ON FUNCTION get_wa_rejections(timestamptz) IS
'How many webhook requests, or parts of them, were refused since then.';

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
