-- Statistics that plans need sooner than autovacuum brings them.

-- While a table grows from nothing, plans rest on statistics of its first rows until autovacuum comes by:
-- every index that starts with the organization looks equally good, also to the checks of foreign keys. So a
-- table that has grown fourfold is analysed here, which happens a few times in its life.
CREATE OR REPLACE FUNCTION _wa_analyze_grown(p_tables regclass[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT c.oid FROM pg_class c
        WHERE c.oid = ANY (p_tables)
            AND pg_relation_size(c.oid) / current_setting('block_size')::integer > 4 * greatest(c.relpages, 2)
    LOOP
        EXECUTE format('ANALYZE (SKIP_LOCKED) %s', v_table);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_analyze_grown(regclass[]) IS
'Internal: analyses those of the tables that have grown fourfold since they were last analysed.';

-- A table that had pages but no rows when it was analysed is empty for the planner whatever its size, and
-- among indexes of an empty table one is as good as another: a look-up by key may become a walk through
-- another index. A queue that was emptied and is filled again is such a table.
CREATE OR REPLACE FUNCTION _wa_analyze_refilled(p_tables regclass[], p_rows bigint DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT c.oid FROM pg_class c
        WHERE c.oid = ANY (p_tables) AND c.relpages > 0
            AND coalesce(p_rows, pg_stat_get_live_tuples(c.oid)) > 10 * greatest(c.reltuples, 100)
    LOOP
        EXECUTE format('ANALYZE (SKIP_LOCKED) %s', v_table);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_analyze_refilled(regclass[], bigint) IS
'Internal: analyses those of the tables that have more than ten times the rows that statistics know of, by '
'the count of the server or of the caller.';
