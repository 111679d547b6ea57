-- Definitions: stored as versions that never change, activated, retired, listed.

CREATE OR REPLACE FUNCTION _wa_require_flow_definition(p_definition jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_problem text[] := _wa_flow_problem(p_definition);
    v_step jsonb;
BEGIN
    IF v_problem IS NOT NULL THEN
        SELECT s.value INTO v_step
        FROM jsonb_array_elements(CASE WHEN v_problem[1] IS NOT NULL THEN p_definition -> 'steps'
            ELSE '[]' END)
            s (value)
        WHERE s.value ->> 'name' = v_problem[1];
        RAISE EXCEPTION USING ERRCODE = 'WA701', TABLE = 'wa_flow_definitions',
            MESSAGE = format('flow "%s"%s: %s', left(coalesce(p_definition ->> 'name', ''), 100),
                ', step ' || v_problem[1], v_problem[2]),
            DETAIL = format('Given: %s.', left(coalesce(v_step, p_definition - 'steps', p_definition)::text,
                300)),
            HINT = 'docs/flows.md shows each type of step, docs/flows.schema.json is the schema.';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_flow_definition(jsonb) IS
'Internal: raises WA701 for a definition that is none, with the step that is at fault.';

CREATE OR REPLACE FUNCTION _wa_flow_as_json(p_definition wa_flow_definitions) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'name', p_definition.name, 'description', p_definition.description, 'category', p_definition.category,
        'trigger', nullif(p_definition.trigger, '{}'), 'key', p_definition.key,
        'interrupts', nullif(p_definition.interrupts, '{}'), 'limits', nullif(p_definition.limits, '{}')
    )) || jsonb_build_object('steps', p_definition.steps)
$$;

COMMENT ON FUNCTION _wa_flow_as_json(wa_flow_definitions) IS
'Internal: a definition as store_wa_flow() takes it.';

CREATE OR REPLACE FUNCTION _wa_flow_templates_problem(p_org uuid, p_steps jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN (
        SELECT string_agg(DISTINCT CASE
            WHEN t.id IS NULL THEN format('there is no template "%s"', s.value ->> 'template_name')
            ELSE _wa_template_problem(t, v_now)
        END, '; ')
        FROM jsonb_array_elements(p_steps) s (value)
        LEFT JOIN LATERAL _wa_pick_template(
            p_org, s.value ->> 'template_name', s.value ->> 'template_language', NULL
        ) t ON true
        WHERE s.value ? 'template_name' AND (t.id IS NULL OR _wa_template_problem(t, v_now) IS NOT NULL)
    );
END
$$;

COMMENT ON FUNCTION _wa_flow_templates_problem(uuid, jsonb) IS
'Internal: which templates of these steps may not be sent yet, and why; NULL when all may.';

-- Whoever writes a row writes a whole version: what the engine reads is made here, from what is given.
CREATE OR REPLACE FUNCTION tg_wa_flow_definitions__keep() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_problem text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM _wa_require_flow_definition(_wa_flow_as_json(NEW));
        NEW.plan := _wa_flow_plan(_wa_flow_as_json(NEW));
        NEW.checksum := encode(sha256(convert_to(_wa_flow_as_json(NEW)::text, 'UTF8')), 'hex');
        NEW.version := coalesce(NEW.version, (
            SELECT max(d.version) FROM wa_flow_definitions d
            WHERE d.organization_id = NEW.organization_id AND d.name = NEW.name
        ) + 1, 1);
    ELSIF (to_jsonb(OLD) - '{state,state_reason,activated_at,retired_at}'::text[])
        <> (to_jsonb(NEW) - '{state,state_reason,activated_at,retired_at}'::text[])
    THEN
        RAISE EXCEPTION USING ERRCODE = 'WA803', TABLE = 'wa_flow_definitions',
            MESSAGE = format('version %s of flow "%s" does not change', OLD.version, OLD.name),
            DETAIL = 'Runs under way go by it.',
            HINT = 'store_wa_flow() adds another version.';
    END IF;
    IF NEW.state = 'active' AND (TG_OP = 'INSERT' OR OLD.state <> 'active') THEN
        v_problem := _wa_flow_templates_problem(NEW.organization_id, NEW.steps);
        IF v_problem IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'WA801', TABLE = 'wa_flow_definitions',
                MESSAGE = format('flow "%s" stays a draft: %s', NEW.name, v_problem),
                DETAIL = format('Version %s.', NEW.version),
                HINT = 'bin/wa templates submit hands drafts to review; activate_wa_flow() again once approved.';
        END IF;
        UPDATE wa_flow_definitions d SET state = 'retired', retired_at = clock_timestamp()
        WHERE d.organization_id = NEW.organization_id AND d.name = NEW.name AND d.state = 'active';
        NEW.activated_at := clock_timestamp();
        NEW.retired_at := NULL;
        NEW.state_reason := NULL;
    ELSIF NEW.state = 'retired' AND (TG_OP = 'INSERT' OR OLD.state <> 'retired') THEN
        NEW.retired_at := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_flow_definitions__keep() IS
'Checks a new version (WA701) and makes of it what the engine reads; lets nothing but its state change '
'(WA803), and makes it active only with templates that may be sent (WA801).';

CREATE OR REPLACE TRIGGER keep BEFORE INSERT OR UPDATE ON wa_flow_definitions
FOR EACH ROW EXECUTE FUNCTION tg_wa_flow_definitions__keep();
CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_flow_definitions
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('name version', 'plan steps');
CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_flow_functions
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('name');

CREATE OR REPLACE FUNCTION store_wa_flow(p_definition jsonb, p_activate boolean DEFAULT true)
RETURNS wa_flow_definitions
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_row wa_flow_definitions;
    v_problem text;
BEGIN
    PERFORM _wa_require_flow_definition(p_definition);
    -- Two at once: one version after the other.
    PERFORM _wa_lock('flow definitions ' || v_org);
    v_row.organization_id := v_org;
    v_row.name := p_definition ->> 'name';
    v_row.description := p_definition ->> 'description';
    v_row.category := coalesce(p_definition ->> 'category', 'utility');
    v_row.trigger := coalesce(p_definition -> 'trigger', '{}');
    v_row.key := p_definition ->> 'key';
    v_row.interrupts := coalesce(p_definition -> 'interrupts', '{}');
    v_row.limits := coalesce(p_definition -> 'limits', '{}');
    v_row.steps := p_definition -> 'steps';
    v_row.checksum := encode(sha256(convert_to(_wa_flow_as_json(v_row)::text, 'UTF8')), 'hex');
    SELECT d.version INTO v_row.version FROM wa_flow_definitions d
    WHERE d.organization_id = v_org AND d.name = v_row.name AND d.checksum = v_row.checksum
    ORDER BY d.version DESC LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO wa_flow_definitions AS d (
            organization_id, name, version, description, category, trigger, key, interrupts, limits, steps,
            plan, checksum
        )
        SELECT v_org, v_row.name, coalesce(max(o.version), 0) + 1, v_row.description, v_row.category,
            v_row.trigger, v_row.key, v_row.interrupts, v_row.limits, v_row.steps, '{}', v_row.checksum
        FROM wa_flow_definitions o WHERE o.organization_id = v_org AND o.name = v_row.name
        RETURNING d.version INTO v_row.version;
    END IF;
    IF p_activate THEN
        v_problem := _wa_flow_templates_problem(v_org, v_row.steps);
        UPDATE wa_flow_definitions d SET
            state = CASE WHEN v_problem IS NULL THEN 'active' ELSE d.state END, state_reason = v_problem
        WHERE d.organization_id = v_org AND d.name = v_row.name AND d.version = v_row.version
            AND d.state <> 'active';
    END IF;
    SELECT d.* INTO v_row FROM wa_flow_definitions d
    WHERE d.organization_id = v_org AND d.name = v_row.name AND d.version = v_row.version;
    RETURN v_row;
END
$$;

COMMENT ON FUNCTION store_wa_flow(jsonb, boolean) IS
'Adds a version of a flow, {"name", "steps", …}, and makes it the active one, unless p_activate is false or '
'a template of it is not approved yet: then it is a draft, and state_reason says why. What is stored '
'unchanged is no new version. Raises WA701, with the step, for what is no definition.';

CREATE OR REPLACE FUNCTION _wa_flow_version(p_org uuid, p_name text, p_version integer)
RETURNS wa_flow_definitions
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_row wa_flow_definitions;
BEGIN
    SELECT d.* INTO v_row FROM wa_flow_definitions d
    WHERE d.organization_id = p_org AND d.name = p_name AND (p_version IS NULL OR d.version = p_version)
    ORDER BY p_version IS NULL AND d.state = 'active' DESC, d.version DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA702',
            MESSAGE = format('there is no flow "%s"%s', left(p_name, 100), ' of version ' || p_version),
            DETAIL = (
                SELECT format('There are: %s.', coalesce(string_agg(DISTINCT d.name, ', '), 'none'))
                FROM wa_flow_definitions d WHERE d.organization_id = p_org
            ),
            HINT = 'store_wa_flow() adds one, install_wa_default_flows() those to begin with.';
    END IF;
    RETURN v_row;
END
$$;

COMMENT ON FUNCTION _wa_flow_version(uuid, text, integer) IS
'Internal: a version of a flow; without a number the active one, else the newest. Raises WA702.';

CREATE OR REPLACE FUNCTION activate_wa_flow(p_name text, p_version integer DEFAULT NULL)
RETURNS wa_flow_definitions
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_row wa_flow_definitions;
BEGIN
    PERFORM _wa_lock('flow definitions ' || v_org);
    v_row := _wa_flow_version(v_org, p_name, coalesce(p_version, (
        SELECT max(d.version) FROM wa_flow_definitions d WHERE d.organization_id = v_org AND d.name = p_name
    )));
    UPDATE wa_flow_definitions d SET state = 'active'
    WHERE d.organization_id = v_org AND d.name = p_name AND d.version = v_row.version AND d.state <> 'active';
    RETURN _wa_flow_version(v_org, p_name, v_row.version);
END
$$;

COMMENT ON FUNCTION activate_wa_flow(text, integer) IS
'Makes a version, or the newest, the one that new runs take; runs of others go on with theirs. Raises WA801 '
'while a template of it may not be sent.';

CREATE OR REPLACE FUNCTION retire_wa_flow(p_name text, p_cancel boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_cancelled integer := 0;
BEGIN
    PERFORM _wa_flow_version(v_org, p_name, NULL);
    UPDATE wa_flow_definitions d SET state = 'retired'
    WHERE d.organization_id = v_org AND d.name = p_name AND d.state <> 'retired';
    IF p_cancel THEN
        UPDATE wa_automation_flows f SET status = 'cancelled', outcome = 'retired'
        WHERE f.organization_id = v_org AND f.flow_type = p_name AND f.definition_version IS NOT NULL
            AND f.status IN ('active', 'paused');
        GET DIAGNOSTICS v_cancelled = ROW_COUNT;
    END IF;
    RETURN v_cancelled;
END
$$;

COMMENT ON FUNCTION retire_wa_flow(text, boolean) IS
'No run of the flow is started any more; those under way go on with their version, or with p_cancel are '
'cancelled. Returns how many were.';

CREATE OR REPLACE FUNCTION export_wa_flow(p_name text, p_version integer DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_flow_as_json(_wa_flow_version(_wa_caller_organization(), p_name, p_version))
$$;

COMMENT ON FUNCTION export_wa_flow(text, integer) IS
'A version of a flow, or the active one, as store_wa_flow() takes it.';

-- It runs with the owner's rights: nobody may be able to put another one in its place.
CREATE OR REPLACE FUNCTION list_wa_flow_function(
    p_name text, p_function regprocedure, p_description text DEFAULT NULL
) RETURNS wa_flow_functions
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := current_wa_organization();
    v_row wa_flow_functions;
BEGIN
    PERFORM _wa_require_flow_function(p_function);
    INSERT INTO wa_flow_functions AS f (organization_id, name, function_name, description)
    SELECT v_org, p_name, format('%I.%I', n.nspname, p.proname), p_description
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = p_function
    ON CONFLICT (organization_id, name) DO UPDATE SET
        function_name = excluded.function_name, description = excluded.description
    RETURNING f.* INTO v_row;
    RETURN v_row;
END
$$;

COMMENT ON FUNCTION list_wa_flow_function(text, regprocedure, text) IS
'Lets flows of the organization call a function (jsonb) RETURNS jsonb by a name. Its owner must be the '
'owner of the schema, a member of wa_admin, or a superuser: it runs with the rights of the schema''s owner.';

CREATE OR REPLACE FUNCTION _wa_require_flow_function(p_function oid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_function record;
BEGIN
    SELECT p.oid::regprocedure AS name, p.proargtypes[0] = 'jsonb'::regtype AND p.pronargs = 1
            AND p.prorettype = 'jsonb'::regtype AND p.prokind = 'f' AND NOT p.proretset AS fits,
        pg_get_userbyid(p.proowner) AS owner,
        pg_has_role(p.proowner, 'wa_admin', 'MEMBER') OR p.proowner = (
            SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'wa_flow_functions'::regclass
        ) AS is_trusted
    INTO v_function
    FROM pg_catalog.pg_proc p WHERE p.oid = p_function;
    IF NOT coalesce(v_function.fits AND v_function.is_trusted, false) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA704',
            MESSAGE = format('%s is no function that a flow may call',
                coalesce(v_function.name::text, 'what is named')),
            DETAIL = CASE WHEN v_function.fits THEN format('It belongs to %s.', v_function.owner)
                ELSE 'It is not (jsonb) RETURNS jsonb, or not there.' END,
            HINT = 'CREATE FUNCTION name(jsonb) RETURNS jsonb, by a wa_admin; then list_wa_flow_function().';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_flow_function(oid) IS
'Internal: raises WA704 for a function that takes or returns something else, or that a stranger may '
'replace.';
