-- The six group roles. Grants go to these, people and services become members. Roles belong to the whole
-- server: another database may have made them, so an existing one is left exactly as it is.
DO $roles$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['wa_admin', 'wa_app', 'wa_dispatcher', 'wa_receiver', 'wa_analyst', 'wa_api'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION
                -- Two databases of one server may install at the same time.
                WHEN duplicate_object OR unique_violation THEN
                    NULL;
            END;
        END IF;
    END LOOP;
END;
$roles$;
