-- Tests sql/organizations/audit_chain.sql.
BEGIN;
SELECT plan(30);

SELECT seal_wa_audit_log();
CREATE FUNCTION pg_temp.wrong() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', v.problem, v.position, v.audit_id), ', ' ORDER BY v.position, v.audit_id)
    FROM verify_wa_audit_log() v
$$;
CREATE FUNCTION pg_temp.head() RETURNS wa_audit_heads LANGUAGE sql AS $$
    SELECT h FROM wa_audit_heads h WHERE h.organization_id = current_wa_organization()
$$;
CREATE TEMP TABLE before AS SELECT coalesce((pg_temp.head()).position, 0) AS position;

INSERT INTO audit_log (event, entity, entity_id, meta, created_at) VALUES
('a', NULL, NULL, '{}', clock_timestamp()),
('b', 'e', '1', '{"phone": "+5491150001111", "n": 1.50, "text": "Zoë \"q\" \\ 😀", "deep": {"a": [1, null]}}',
    clock_timestamp()),
('c', E'line\nbreak', '7:x,', '[1, 2]', '2001-02-03 04:05:06.789+00'),
('d', 'e', '2', '{"who": "+5491150001111", "actor": "x"}', 'infinity');
SELECT is((SELECT count(*) FROM wa_audit_unsealed), 4::bigint, 'what is written waits for its seal');
SELECT is(pg_temp.wrong(), NULL, 'which is nothing wrong');
SELECT cmp_ok(seal_wa_audit_log(), '=', 4, 'sealed');
SELECT is((SELECT count(*) FROM wa_audit_unsealed), 0::bigint, 'nothing waits any more');
SELECT is((pg_temp.head()).position, (SELECT position + 4 FROM before), 'the chain has grown by as much');
SELECT is(seal_wa_audit_log(), 0, 'once');
SELECT is(pg_temp.wrong(), NULL, 'all is well');

-- independent of settings
SET LOCAL DateStyle = 'SQL, DMY';
SET LOCAL TimeZone = 'Asia/Kathmandu';
SET LOCAL IntervalStyle = 'sql_standard';
SET LOCAL extra_float_digits = -15;
SET LOCAL bytea_output = 'escape';
SET LOCAL lc_numeric = 'C';
SET LOCAL standard_conforming_strings = off;
SET LOCAL xmlbinary = 'hex';
SELECT is(pg_temp.wrong(), NULL, 'also with other settings of the session');
INSERT INTO audit_log (event, meta) VALUES ('e', '{"at": "now", "n": 0.1}');
SELECT seal_wa_audit_log();
RESET DateStyle; RESET TimeZone; RESET IntervalStyle; RESET extra_float_digits; RESET bytea_output;
RESET standard_conforming_strings;
SELECT is(pg_temp.wrong(), NULL, 'and what was sealed with those, with the usual ones');

-- erasing
SELECT is(_wa_audit_forget(current_wa_organization(), ARRAY['+5491150001111']), 2, 'a person is erased from two rows');
SELECT is((SELECT count(*) FROM audit_log a WHERE a::text LIKE '%5491150001111%'), 0::bigint, 'and is gone');
SELECT results_eq($$ SELECT meta - 'acting_user' FROM audit_log WHERE event IN ('b', 'd') ORDER BY id $$,
    $$ VALUES ('{"n": 1.50, "text": "Zoë \"q\" \\ 😀", "deep": {"a": [1, null]}}'::jsonb), ('{"actor": "x"}') $$,
    'the rest stays');
SELECT is(pg_temp.wrong(), NULL, 'and the chain is valid');
SELECT results_eq($$ SELECT s.salt IS NULL, jsonb_array_length(s.erased), s.field_salts ? 'meta.phone'
    FROM wa_audit_seals s JOIN audit_log a ON a.id = s.audit_id WHERE a.event IN ('b', 'd') ORDER BY a.id $$,
    $$ VALUES (true, 1, false), (true, 1, false) $$, 'nobody can try numbers against the digest');
SELECT is(_wa_audit_forget(current_wa_organization(), ARRAY['+5491150001111']), 0, 'again: nothing is left to do');
SELECT is(_wa_audit_forget(current_wa_organization(), ARRAY['q', '']), 1, 'another field of the same row');
SELECT is(pg_temp.wrong(), NULL, 'still valid');
INSERT INTO audit_log (actor, event, entity_id, meta) VALUES ('Ann Smith', 'f', 'ann smith', '["Ann Smith"]');
INSERT INTO audit_log (event, meta) VALUES ('g', '{"Ann Smith": 1}');
SELECT is(_wa_audit_forget(current_wa_organization(), ARRAY['Ann Smith']), 2,
    'who acted, ids, other JSON, names of keys, of rows that were not sealed yet');
SELECT is((SELECT count(*) FROM audit_log a WHERE a::text ILIKE '%ann smith%'), 0::bigint, 'gone');
SELECT is(pg_temp.wrong(), NULL, 'and valid');
UPDATE audit_log SET meta = meta || '{"phone": "+5491150009999"}' WHERE event = 'b';
SELECT matches(pg_temp.wrong(), '^changed \d+ \d+$', 'something else in the place of what was erased is a change');
UPDATE audit_log SET meta = meta - 'phone' WHERE event = 'b';

-- retention
INSERT INTO audit_log (event, created_at) SELECT 'old', '2000-01-01'::timestamptz + i * interval '1 day'
FROM generate_series(1, 5) i;
-- Begun anew, all of it, with the old rows first.
UPDATE audit_log SET created_at = '1999-01-01' WHERE event <> 'old';
DELETE FROM wa_audit_seals;
DELETE FROM wa_audit_heads;
INSERT INTO wa_audit_unsealed SELECT organization_id, id FROM audit_log ON CONFLICT DO NOTHING;
SELECT seal_wa_audit_log();
CREATE TEMP TABLE kept AS SELECT count(*) AS n FROM audit_log;
UPDATE wa_organizations SET audit_retention = '1 year';
SELECT is(_wa_delete_audit('2001-01-04 12:00+00', 1000), (SELECT n::integer - 2 FROM kept), 'what is old goes');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'old'), 2::bigint, 'what is not stays');
SELECT is(pg_temp.wrong(), NULL, 'and the rest is a chain');
SELECT seal_wa_audit_log();
UPDATE wa_audit_heads SET checkpoint_position = checkpoint_position + 1, checkpoint_hash = (
    SELECT s.hash FROM wa_audit_seals s WHERE s.position = checkpoint_position + 1);
DELETE FROM audit_log a USING wa_audit_seals s, wa_audit_heads h
WHERE s.audit_id = a.id AND s.position = h.checkpoint_position;
DELETE FROM wa_audit_seals s USING wa_audit_heads h WHERE s.position = h.checkpoint_position;
SELECT matches(pg_temp.wrong(), '^cut off \d+$', 'a beginning that retention did not delete is missed');

-- each organization for itself
SELECT create_wa_organization('north', '0b0b0b0b-0000-4000-8000-000000000002');
SELECT create_wa_organization('south', '0b0b0b0b-0000-4000-8000-000000000003');
DO $$ BEGIN WHILE seal_wa_audit_log() > 0 LOOP END LOOP; END $$;
ALTER TABLE wa_audit_seals ADD CONSTRAINT no_north CHECK (organization_id <> '0b0b0b0b-0000-4000-8000-000000000002')
NOT VALID;
INSERT INTO audit_log (organization_id, event)
SELECT o.id, 'x' FROM wa_organizations o CROSS JOIN generate_series(1, CASE o.name WHEN 'south' THEN 1000 ELSE 1 END)
WHERE o.name IN ('north', 'south');
SELECT is(seal_wa_audit_log(300), 300, 'who writes a lot waits for nobody''s share');
SELECT results_eq($$ SELECT work, sqlstate FROM wa_faults
    WHERE organization_id = '0b0b0b0b-0000-4000-8000-000000000002' $$, $$ VALUES ('audit', '23514') $$,
    'what fails is noted');
SELECT results_eq($$ SELECT o.name, count(*) FROM wa_audit_unsealed u JOIN wa_organizations o ON o.id = u.organization_id
    GROUP BY 1 ORDER BY 1 $$, $$ VALUES ('north', 1::bigint), ('south', 700) $$, 'and stops no other');
ALTER TABLE wa_audit_seals DROP CONSTRAINT no_north;
SELECT is(seal_wa_audit_log(), 701, 'until it is mended');
SELECT is((SELECT count(*) FROM verify_wa_audit_log()
    WHERE organization_id <> (SELECT id FROM wa_organizations WHERE is_default)), 0::bigint, 'nothing is lost');

SELECT * FROM finish();
ROLLBACK;
