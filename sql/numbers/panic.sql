-- Emergency stops: panic per organization or number.

CREATE OR REPLACE FUNCTION trigger_wa_panic(
    p_reason text, p_organization_id uuid DEFAULT NULL, p_phone_number_id text DEFAULT NULL,
    p_auto_resolve interval DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_visible uuid[] := _wa_panic_organizations(p_organization_id);
    v_stops integer;
BEGIN
    IF coalesce(btrim(p_reason), '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a panic needs a reason',
            DETAIL = format('Given: %L.', p_reason),
            HINT = 'Say what happened, for whoever has to decide when to resume.';
    END IF;
    IF p_phone_number_id IS NULL THEN
        INSERT INTO wa_panic_modes (organization_id, reason, auto_resolve_at)
        SELECT v.id, p_reason, clock_timestamp() + p_auto_resolve FROM unnest(v_visible) v (id);
    ELSE
        INSERT INTO wa_panic_modes (organization_id, number_id, reason, auto_resolve_at)
        SELECT n.organization_id, n.id, p_reason, clock_timestamp() + p_auto_resolve
        FROM wa_phone_numbers n
        WHERE n.organization_id = ANY (v_visible) AND n.phone_number_id = p_phone_number_id;
    END IF;
    GET DIAGNOSTICS v_stops = ROW_COUNT;
    IF v_stops = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format(
                'nothing was stopped: no business number with the id "%s"', left(p_phone_number_id, 100)),
            DETAIL = format('%s organizations were looked through.', cardinality(v_visible)),
            HINT = 'Without p_phone_number_id every number of the organization is stopped.';
    END IF;
    RETURN v_stops;
END
$$;

COMMENT ON FUNCTION trigger_wa_panic(text, uuid, text, interval) IS
'Stops all sending of what the role may see: every organization for wa_admin, its own for others; or only '
'of one organization or number. Nothing is lost; resolve_wa_panic() or the end of p_auto_resolve resumes. '
'Returns the number of stops.';

CREATE OR REPLACE FUNCTION _wa_panic_organizations(p_organization_id uuid) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_visible uuid[] := _wa_visible_organizations();
BEGIN
    IF p_organization_id IS NULL THEN
        RETURN v_visible;
    END IF;
    IF p_organization_id <> ALL (v_visible) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA302',
            MESSAGE = format('role "%s" does not belong to organization %s', current_user, p_organization_id),
            DETAIL = format('It works for: %s.', array_to_string(v_visible, ', ')),
            HINT = 'Name one of your own organizations, or none for all of them.';
    END IF;
    RETURN ARRAY[p_organization_id];
END
$$;

COMMENT ON FUNCTION _wa_panic_organizations(uuid) IS
'Internal: the organizations that an emergency call is about: the one named, else all that the role may see.';

CREATE OR REPLACE FUNCTION resolve_wa_panic(
    p_organization_id uuid DEFAULT NULL, p_phone_number_id text DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_resolved integer;
BEGIN
    UPDATE wa_panic_modes p
    SET active = false, resolved_at = clock_timestamp(), resolved_by = session_user
    WHERE p.organization_id = ANY (_wa_panic_organizations(p_organization_id)) AND p.active
        AND (p_phone_number_id IS NULL OR p.number_id = (
            SELECT n.id FROM wa_phone_numbers n
            WHERE n.organization_id = p.organization_id AND n.phone_number_id = p_phone_number_id
        ));
    GET DIAGNOSTICS v_resolved = ROW_COUNT;
    RETURN v_resolved;
END
$$;

COMMENT ON FUNCTION resolve_wa_panic(uuid, text) IS
'Ends the stops of what the role may see, of one organization with all its numbers, or of one number only. '
'Returns how many it ended.';

CREATE OR REPLACE FUNCTION _wa_expire_panics(p_now timestamptz) RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    -- One that somebody has locked stops nothing any more; its end is recorded later.
    WITH ripe AS (
        SELECT p.organization_id, p.id FROM wa_panic_modes p
        WHERE p.active AND p.auto_resolve_at <= p_now
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    ended AS (
        UPDATE wa_panic_modes p
        SET active = false, resolved_at = p.auto_resolve_at, resolved_by = 'auto_resolve'
        FROM ripe r
        WHERE p.organization_id = r.organization_id AND p.id = r.id
        RETURNING 1
    )
    SELECT count(*)::integer FROM ended
$$;

COMMENT ON FUNCTION _wa_expire_panics(timestamptz) IS
'Internal: records the end of the stops whose time is over; returns how many.';

-- In triggers, so that a row written by hand leaves the same trace as the functions.
CREATE OR REPLACE FUNCTION tg_wa_panic_modes__audit() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_audit(
        NEW.organization_id, CASE WHEN NEW.active THEN 'panic_triggered' ELSE 'panic_resolved' END,
        'wa_panic_modes', NEW.id::text,
        jsonb_build_object(
            'reason', NEW.reason, 'number_id', NEW.number_id, 'auto_resolve_at', NEW.auto_resolve_at,
            'resolved_by', NEW.resolved_by
        )
    );
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_panic_modes__audit() IS 'Leaves an audit row for every stop and every end of one.';

CREATE OR REPLACE TRIGGER audit_insert AFTER INSERT ON wa_panic_modes
FOR EACH ROW EXECUTE FUNCTION tg_wa_panic_modes__audit();
CREATE OR REPLACE TRIGGER audit_update AFTER UPDATE ON wa_panic_modes
FOR EACH ROW WHEN (OLD.active IS DISTINCT FROM NEW.active) EXECUTE FUNCTION tg_wa_panic_modes__audit();

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_panic_modes
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('id');
