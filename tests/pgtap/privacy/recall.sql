-- Tests sql/privacy/recall.sql, sql/privacy/keys.sql.
BEGIN;
SELECT plan(34);
\ir ../world.psql
\ir ../customers.psql

-- Whoever was erased under a former key is known again, however often it was changed.
SELECT world.writes(n, 'hello') FROM generate_series(1, 4) n \g /dev/null
SELECT erase_wa_contact(world.customer(1), 'first') \g /dev/null
SELECT rotate_wa_privacy_key('erasure') \g /dev/null
SELECT erase_wa_contact(world.customer(2), 'second') \g /dev/null
SELECT rotate_wa_privacy_key('erasure') \g /dev/null
SELECT rotate_wa_privacy_key('erasure') \g /dev/null
SELECT world.writes(n, 'again', NULL, 10) FROM generate_series(1, 5) n \g /dev/null
SELECT is(world.opt_outs(world.found(n)), 'all by erasure', 'erased under key ' || n || ', known under the fourth')
FROM generate_series(1, 2) n;
SELECT is(coalesce(world.opt_outs(world.found(n)), ''), '', 'nobody else is') FROM generate_series(3, 5) n;
SELECT erase_wa_contact(world.customer(1), 'once more') \g /dev/null
SELECT is((SELECT count(DISTINCT key_version) FROM wa_erased_identities), 3::bigint, 'an erasure uses the newest key');
SELECT world.writes(1, 'and again', NULL, 20);
SELECT is(world.opt_outs(world.found(1)), 'all by erasure', 'either knows the person');

-- Another database, which has keys of its own, takes all of them along.
SELECT jsonb_agg(e)::text AS good FROM export_wa_erasures() e \gset
SELECT ok(:'good' !~ '5491140000', 'no number stands in an export');
DELETE FROM wa_erased_identities;
DELETE FROM wa_privacy_keys WHERE purpose = 'erasure';
SELECT _wa_make_privacy_key(current_wa_organization(), 'erasure', 1);
UPDATE wa_contact_identities SET valid_from = clock_timestamp();
SELECT results_eq(format('SELECT identities, contacts FROM reapply_wa_erasures(%L)', :'good'),
    'VALUES (3::bigint, 0::bigint)', 'who came later is no new case');
SELECT is((SELECT array_agg(version ORDER BY version) FROM wa_privacy_keys WHERE purpose = 'erasure'), '{1,2,3,4,5}',
    'keys get new versions beside its own');
SELECT is((SELECT count(*) FROM reapply_wa_erasures(:'good')), 0::bigint, 'taken once');
UPDATE wa_contact_identities SET valid_from = clock_timestamp() - interval '1 day';
SELECT is((SELECT contacts FROM reapply_wa_erasures('[]')), 2::bigint, 'who was there before is erased');
SELECT world.writes(n, 'back', NULL, 30) FROM generate_series(1, 3) n \g /dev/null
SELECT is(world.opt_outs(world.found(n)), 'all by erasure', 'and known') FROM generate_series(1, 2) n;
SELECT is(coalesce(world.opt_outs(world.found(3)), ''), '', 'nobody else');

-- Of a file that is broken nothing is taken, and of its keys nothing is told.
CREATE TEMP TABLE before AS SELECT (SELECT count(*) FROM wa_privacy_keys) AS keys,
    (SELECT jsonb_agg(e ORDER BY hash) FROM wa_erased_identities e) AS identities;
CREATE FUNCTION pg_temp.refusal(p_exports jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_detail text;
BEGIN
    PERFORM * FROM reapply_wa_erasures(p_exports);
    RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(' ', SQLSTATE, CASE WHEN concat(SQLERRM, v_detail) ~ '[0-9a-f]{16}' THEN 'leaks' END);
END
$$;
SELECT is(pg_temp.refusal(d), '22023', 'refused: ' || what)
FROM (SELECT :'good'::jsonb) g (g) CROSS JOIN LATERAL (VALUES
    ('no array', g -> 0), ('no object', '["x"]'), ('no organization', jsonb_set(g, '{0,organization_id}', '"x"')),
    ('no identities', g #- '{0,identities}'), ('identities that are none', jsonb_set(g, '{0,identities,0}', '"x"')),
    ('a hash that is none', jsonb_set(g, '{0,identities,0,hash}', '"zz"')),
    ('a short hash', jsonb_set(g, '{0,identities,0,hash}', '"ab"')),
    ('no time', jsonb_set(g, '{0,identities,0,erased_at}', 'null')),
    ('a time for ever', jsonb_set(g, '{0,identities,0,erased_at}', '"infinity"')),
    ('a hash without its key', g #- '{0,identities,0,version}'),
    ('a key without a version', g #- '{0,keys,0,version}'),
    ('half of a key', jsonb_set(g, '{0,keys,0,inner}', '"3636"')),
    ('halves of two keys', jsonb_set(g, '{0,keys,0,inner}', g #> '{0,keys,1,inner}'))) v (what, d);
SELECT is((SELECT count(*) FROM wa_privacy_keys), keys, 'no key came of it') FROM before;
SELECT is((SELECT jsonb_agg(e ORDER BY hash) FROM wa_erased_identities e), identities, 'nor an identity') FROM before;
SELECT is(pg_temp.refusal(jsonb_set(:'good', '{0,identities,0,erased_at}', '"2999-01-01"')), 'taken',
    'a clock that was ahead');
SELECT cmp_ok((SELECT max(erased_at) FROM wa_erased_identities), '<=', clock_timestamp(), 'erases nobody who comes later');
SELECT is(pg_temp.refusal(NULL), '22023', 'nothing at all');
SELECT throws_ok($$ SELECT rotate_wa_privacy_key('other') $$, '22023', NULL, 'two purposes have keys');

SELECT * FROM finish();
ROLLBACK;
