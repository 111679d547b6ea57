-- Automation: what keeps flows and notifications in order, whoever writes them.

CREATE OR REPLACE FUNCTION _wa_given_phone(p_org uuid, p_phone text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT normalize_phone_e164(p_phone, o.default_region, o.default_area_code)
    FROM wa_organizations o WHERE o.id = p_org AND p_phone IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_given_phone(uuid, text) IS
'Internal: a number that somebody typed, read as the organization reads numbers; NULL for NULL.';

CREATE OR REPLACE FUNCTION _wa_flow_contact(p_org uuid, p_phone text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_id bigint := _wa_find_contact(p_org, p_phone);
    v_phone text;
BEGIN
    IF v_contact_id IS NULL THEN
        v_phone := CASE WHEN NOT _wa_is_user_id(p_phone) THEN _wa_given_phone(p_org, p_phone) END;
        SELECT r.contact_id INTO v_contact_id FROM _wa_resolve_contacts(
            p_org, ARRAY[v_phone], ARRAY[CASE WHEN v_phone IS NULL THEN p_phone END], 'flow'
        ) r;
    END IF;
    RETURN v_contact_id;
END
$$;

COMMENT ON FUNCTION _wa_flow_contact(uuid, text) IS
'Internal: the contact of a number or user id, which is made where there is none.';

-- A flow of which the engine knows a definition becomes a run of it, however it is inserted.
CREATE OR REPLACE FUNCTION _wa_as_flow_run(p_flow wa_automation_flows) RETURNS wa_automation_flows
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_definition record;
BEGIN
    SELECT d.version, d.plan, d.key INTO v_definition FROM wa_flow_definitions d
    WHERE d.organization_id = p_flow.organization_id AND d.name = p_flow.flow_type AND d.state = 'active';
    p_flow.definition_version := v_definition.version;
    IF v_definition.version IS NULL THEN
        RETURN p_flow;
    END IF;
    IF p_flow.current_step = 'start' AND NOT v_definition.plan -> 'steps' ? 'start' THEN
        p_flow.current_step := v_definition.plan ->> 'first';
    ELSIF NOT v_definition.plan -> 'steps' ? p_flow.current_step THEN
        RAISE EXCEPTION USING ERRCODE = 'WA702', TABLE = 'wa_automation_flows',
            MESSAGE = format('flow "%s" has no step "%s"', p_flow.flow_type, left(p_flow.current_step, 63)),
            DETAIL = format('Version %s is active.', v_definition.version),
            HINT = 'Leave current_step out to begin at the first.';
    END IF;
    p_flow.contact_id := coalesce(
        p_flow.contact_id, _wa_flow_contact(p_flow.organization_id, coalesce(p_flow.phone_e164,
            p_flow.user_id))
    );
    p_flow.run_key := left(coalesce(
        p_flow.run_key, p_flow.trigger_data #>> string_to_array(v_definition.key, '.')
    ), 200);
    p_flow.step_entered_at := p_flow.created_at;
    p_flow.next_action_at := coalesce(p_flow.next_action_at, clock_timestamp());
    p_flow.visits := '{}';
    p_flow.step_no := 0;
    p_flow.wait := NULL;
    RETURN p_flow;
END
$$;

COMMENT ON FUNCTION _wa_as_flow_run(wa_automation_flows) IS
'Internal: a new flow as a run of the active definition of its name; as it is where there is none.';

-- Definer: a contact may have to be made. The row must still be one that its writer may write.
CREATE OR REPLACE FUNCTION tg_wa_automation_flows__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
        IF NEW.status IN ('active', 'paused') AND num_nonnulls(NEW.phone_e164, NEW.user_id) > 0 THEN
            NEW := _wa_as_flow_run(NEW);
        ELSE
            NEW.definition_version := NULL;
        END IF;
    ELSE
        NEW.updated_at := clock_timestamp();
        IF NEW.phone_e164 IS DISTINCT FROM OLD.phone_e164 THEN
            NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
        END IF;
        IF NEW.definition_version IS NOT NULL THEN
            -- By hand: its step begins anew. What goes on is looked at at once: what came meanwhile counts.
            IF NEW.current_step <> OLD.current_step AND NEW.step_no = OLD.step_no THEN
                NEW.wait := NULL;
                NEW.step_entered_at := NEW.updated_at;
            END IF;
            IF NEW.status = 'active' AND OLD.status <> 'active' THEN
                NEW.next_action_at := NEW.updated_at;
                NEW.outcome := NULL;
            END IF;
        END IF;
    END IF;
    IF NEW.status IN ('active', 'paused') THEN
        NEW.ended_at := NULL;
    ELSE
        NEW.ended_at := coalesce(NEW.ended_at, clock_timestamp());
        NEW.next_action_at := NULL;
        NEW.wait := NULL;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_automation_flows__keep() IS
'Normalises the number; makes a run of a flow that has a definition; one that ended gets its time and has '
'no next action.';

CREATE OR REPLACE TRIGGER keep BEFORE INSERT OR UPDATE ON wa_automation_flows
FOR EACH ROW EXECUTE FUNCTION tg_wa_automation_flows__keep();

CREATE OR REPLACE FUNCTION tg_siren_templates__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_siren_templates__keep() IS 'Notes the time of a change.';

CREATE OR REPLACE TRIGGER keep BEFORE UPDATE ON siren_templates
FOR EACH ROW EXECUTE FUNCTION tg_siren_templates__keep();

CREATE OR REPLACE FUNCTION tg_siren_events__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
    ELSE
        NEW.updated_at := clock_timestamp();
        IF NEW.phone_e164 IS DISTINCT FROM OLD.phone_e164 THEN
            NEW.phone_e164 := _wa_given_phone(NEW.organization_id, NEW.phone_e164);
        END IF;
    END IF;
    IF NEW.status = 'sent' THEN
        NEW.sent_at := coalesce(NEW.sent_at, clock_timestamp());
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_siren_events__keep() IS
'Normalises the number, and notes the time of a change and of sending.';

CREATE OR REPLACE TRIGGER keep BEFORE INSERT OR UPDATE ON siren_events
FOR EACH ROW EXECUTE FUNCTION tg_siren_events__keep();

-- A flow names its customer by number. Nobody has normalised what the provider tells, hence the try.
CREATE OR REPLACE FUNCTION _wa_readdress_flows_of(p_org uuid, p_contact_ids bigint[], p_phones text[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_reason CONSTANT text := 'the number is no longer this customer''s';
    v_moved record;
BEGIN
    SELECT array_agg(s.former) AS formers, array_agg(try_normalize_phone_e164(c.phone_e164)) AS phones,
        array_agg(c.user_id) AS user_ids
    INTO v_moved
    FROM unnest(p_contact_ids, p_phones) m (contact_id, phone)
    CROSS JOIN LATERAL (SELECT m.phone UNION SELECT _wa_phone_key(m.phone)) s (former)
    JOIN wa_contacts c ON c.organization_id = p_org AND c.id = m.contact_id
    WHERE m.phone IS NOT NULL;
    -- All at once: what goes over to a number must not be taken for its former owner's.
    UPDATE wa_automation_flows f
    SET phone_e164 = CASE WHEN m.is_lost THEN f.phone_e164 ELSE m.phone END,
        user_id = coalesce(m.user_id, f.user_id),
        status = CASE WHEN m.is_lost THEN 'failed' ELSE f.status END,
        last_error = CASE WHEN m.is_lost THEN c_reason ELSE f.last_error END
    FROM (
        SELECT u.*, num_nonnulls(u.phone, u.user_id) = 0 AS is_lost
        FROM unnest(v_moved.formers, v_moved.phones, v_moved.user_ids) u (former, phone, user_id)
    ) m
    WHERE f.organization_id = p_org AND f.phone_e164 = m.former AND f.status IN ('active', 'paused');
    UPDATE siren_events e
    SET phone_e164 = coalesce(m.phone, e.phone_e164),
        status = CASE WHEN m.phone IS NULL THEN 'cancelled' ELSE e.status END,
        error_message = CASE WHEN m.phone IS NULL THEN c_reason ELSE e.error_message END
    FROM unnest(v_moved.formers, v_moved.phones) m (former, phone)
    WHERE e.organization_id = p_org AND e.phone_e164 = m.former AND e.status = 'pending';
END
$$;

COMMENT ON FUNCTION _wa_readdress_flows_of(uuid, bigint[], text[]) IS
'Internal: contacts had these numbers until now. What is under way for them goes on at their present number '
'or user id; without one it ends, for the number is somebody else''s.';

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON siren_templates
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('name');
