-- Tests sql/organizations/identities.sql.
BEGIN;
\ir ../world.psql
SELECT plan(8);

SELECT is(get_wa_installation_number(), 0, 'an installation has the number 0 unless it was given one');
SELECT throws_ok($$SELECT set_wa_installation_number(3)$$, '55000',
    'rows of this installation have numbers already', 'an installation in use keeps its number');

-- As right after migrate_wa().
DO $$
DECLARE
    v_name name;
BEGIN
    FOR v_name IN SELECT s.sequence_name FROM _wa_identity_sequences() s LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', v_name);
    END LOOP;
END
$$;
SELECT throws_ok($$SELECT set_wa_installation_number(8192)$$, '22023', NULL, 'there are 8192 numbers');
SELECT throws_ok($$SELECT set_wa_installation_number(NULL)$$, '22023', NULL, 'NULL is none of them');
SELECT lives_ok($$SELECT set_wa_installation_number(8191)$$, 'before its first use it is given one');
SELECT is(get_wa_installation_number(), 8191, 'it knows its number');
SELECT is(
    (SELECT array_agg(DISTINCT s.start_value) FROM _wa_identity_sequences() s), ARRAY[9006099743113217],
    'every table counts from there'
);
INSERT INTO audit_log (event) VALUES ('first');
SELECT is(
    (SELECT max(a.id) FROM audit_log a WHERE a.event = 'first'), 9006099743113217,
    'the first row has the first number, which a double can hold'
);

SELECT * FROM finish();
ROLLBACK;
