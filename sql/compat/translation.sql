-- The names that host applications may know from elsewhere: whatsapp_queue and others, one view each over our
-- own tables, a file each. They hold nothing but views and triggers that translate, with what is below; every
-- rule stays in the room of its table. The triggers run with the caller's rights.

CREATE OR REPLACE FUNCTION _wa_row_uuid(p_organization_id uuid, p_id bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (left(p_organization_id::text, 18) || lpad(to_hex(p_id), 16, '0'))::uuid;

COMMENT ON FUNCTION _wa_row_uuid(uuid, bigint) IS
'Internal: a UUID for a row that has a number for its id: the first half of the organization''s, then the '
'number.';

CREATE OR REPLACE FUNCTION _wa_uuid_or_null(p_text text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN p_text ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' THEN p_text::uuid END;

COMMENT ON FUNCTION _wa_uuid_or_null(text) IS 'Internal: a UUID, or NULL for what is none.';

CREATE OR REPLACE FUNCTION _wa_require_columns(p_view text, p_row jsonb, VARIADIC p_columns text[])
RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_column text;
BEGIN
    FOREACH v_column IN ARRAY p_columns LOOP
        IF p_row -> v_column = 'null' THEN
            RAISE EXCEPTION USING ERRCODE = '23502', TABLE = p_view, COLUMN = v_column,
                MESSAGE = format('%s.%s must not be NULL', p_view, v_column),
                DETAIL = format('The row: %s.', left(p_row::text, 500)),
                HINT = format('Needed: %s.', array_to_string(p_columns, ', '));
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_require_columns(text, jsonb, text[]) IS
'Internal: raises 23502 unless every one of these columns of a view''s row has a value.';

CREATE OR REPLACE FUNCTION _wa_require_value(
    p_view text, p_column text, p_value text, VARIADIC p_allowed text[]
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_value <> ALL (p_allowed) THEN
        RAISE EXCEPTION USING ERRCODE = '23514', TABLE = p_view, COLUMN = p_column,
            CONSTRAINT = format('%s_%s_check', p_view, p_column),
            MESSAGE = format('%s.%s must not be "%s"', p_view, p_column, left(p_value, 100)),
            DETAIL = format('%s of %s takes %s values.', p_column, p_view, cardinality(p_allowed)),
            HINT = format('Allowed: %s.', array_to_string(p_allowed, ', '));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_value(text, text, text, text[]) IS
'Internal: raises 23514 unless a column of a view has one of the values allowed, or none.';

CREATE OR REPLACE FUNCTION _wa_refuse_changes(
    p_view text, p_old jsonb, p_new jsonb, p_hint text, VARIADIC p_open text[]
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_fixed text;
BEGIN
    SELECT string_agg(o.key, ', ' ORDER BY o.key) INTO v_fixed
    FROM jsonb_each(p_old - p_open) o
    WHERE o.value IS DISTINCT FROM p_new -> o.key;
    IF v_fixed IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA202', TABLE = p_view,
            MESSAGE = format('cannot change %s of %s', v_fixed, p_view),
            DETAIL = format('The row: %s.', left(p_old::text, 500)),
            HINT = p_hint;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_refuse_changes(text, jsonb, jsonb, text, text[]) IS
'Internal: raises WA202 if an update of a view changes any but the columns that are open to it.';
