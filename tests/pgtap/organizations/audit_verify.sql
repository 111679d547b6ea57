-- Tests sql/organizations/audit_verify.sql.
-- Only the owner can do any of this.
BEGIN;
SELECT plan(42);

INSERT INTO audit_log (event, meta) SELECT 'e' || i, jsonb_build_object('i', i) FROM generate_series(1, 20) i;
SELECT seal_wa_audit_log();
CREATE FUNCTION pg_temp.id(p_i integer) RETURNS bigint LANGUAGE sql AS $$
    SELECT a.id FROM audit_log a WHERE a.event = 'e' || p_i
$$;
-- Positions of the twenty rows, so that a finding names the row by its number.
CREATE TEMP TABLE rows AS
SELECT s.position, s.audit_id, substr(a.event, 2)::integer AS i
FROM wa_audit_seals s JOIN audit_log a ON a.id = s.audit_id WHERE a.event ~ '^e\d+$';
CREATE FUNCTION pg_temp.wrong(p_anchors jsonb DEFAULT '[]') RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', v.problem, coalesce(r.i, q.i)), ', ' ORDER BY coalesce(r.i, q.i), v.problem)
    FROM verify_wa_audit_log(p_anchors) v
    LEFT JOIN rows r ON r.position = v.position
    LEFT JOIN rows q ON q.audit_id = v.audit_id
$$;
SELECT is(pg_temp.wrong(), NULL, 'all is well');
SAVEPOINT well;

-- changed
UPDATE audit_log SET actor = 'another' WHERE event = 'e3';
UPDATE audit_log SET meta = '{"i": 7.0}' WHERE event = 'e7';
SELECT is(pg_temp.wrong(), 'changed 3, changed 7', 'changed rows are named');
ROLLBACK TO well;
UPDATE audit_log SET created_at = created_at + interval '1 microsecond' WHERE event = 'e3';
UPDATE audit_log SET session_role = 'another' WHERE event = 'e4';
UPDATE audit_log SET database_role = 'another' WHERE event = 'e5';
UPDATE audit_log SET client_address = '192.0.2.9' WHERE event = 'e6';
UPDATE audit_log SET entity = 'x' WHERE event = 'e7';
UPDATE audit_log SET entity_id = '' WHERE event = 'e8';
UPDATE audit_log SET event = 'forged' WHERE event = 'e9';
UPDATE audit_log SET meta = meta || '{"j": 1}' WHERE event = 'e10';
UPDATE audit_log SET meta = '{}' WHERE event = 'e11';
SELECT is(pg_temp.wrong(), (SELECT string_agg('changed ' || i, ', ' ORDER BY i) FROM generate_series(3, 11) i),
    'whichever column it was');
ROLLBACK TO well;
UPDATE audit_log SET actor = 'erased' WHERE event = 'e3';
SELECT is(pg_temp.wrong(), 'changed 3', 'also to what erasure would leave');
ROLLBACK TO well;

-- Whoever knows the form can make the seal fit, but not those that follow.
UPDATE audit_log SET meta = '{"i": 100}' WHERE event = 'e5';
UPDATE wa_audit_seals s SET leaf = _wa_audit_leaf(a.organization_id, a.id, a.created_at, a.event, a.entity,
    a.session_role, a.database_role, a.actor, a.entity_id, a.client_address, a.meta, s.salt, s.field_salts, s.erased)
FROM audit_log a WHERE a.id = s.audit_id AND a.event = 'e5';
SELECT is(pg_temp.wrong(), 'changed 5', 'a row that was changed with its seal');
UPDATE wa_audit_seals s SET hash = _wa_audit_link((
    SELECT b.hash FROM wa_audit_seals b WHERE b.position = s.position - 1), s.position, s.leaf)
WHERE s.audit_id = pg_temp.id(5);
SELECT is(pg_temp.wrong(), 'changed 6', 'with the link made anew, the next one does not fit');
ROLLBACK TO well;

-- the end
DELETE FROM wa_audit_heads WHERE organization_id = current_wa_organization();
UPDATE audit_log SET actor = 'another' WHERE event = 'e3';
SELECT is(pg_temp.wrong(), 'cut off', 'that the chain''s end is not noted any more');
SELECT check_wa_audit_log();
SELECT cmp_ok((SELECT problems FROM get_wa_audit_health() WHERE organization_id = current_wa_organization()), '>', 0,
    'the nightly check sees it');
TRUNCATE wa_audit_heads, wa_audit_seals, wa_audit_unsealed, audit_log;
SELECT is(pg_temp.wrong(), 'cut off', 'nothing of all of it is left');
ROLLBACK TO well;

-- removed
DELETE FROM audit_log WHERE event IN ('e4', 'e20');
SELECT is(pg_temp.wrong(), 'removed 4, removed 20', 'removed rows are named');
ROLLBACK TO well;
DELETE FROM wa_audit_seals WHERE audit_id IN (pg_temp.id(4), pg_temp.id(5));
DELETE FROM audit_log WHERE event IN ('e4', 'e5');
SELECT is(pg_temp.wrong(), 'removed 5', 'rows with their seals, up to the last of them');
SELECT matches((SELECT detail FROM verify_wa_audit_log()), '^positions \d+ to \d+ are missing', 'with all positions');
ROLLBACK TO well;
INSERT INTO audit_log (event) VALUES ('unsealed');
DELETE FROM audit_log WHERE event = 'unsealed';
SELECT is(pg_temp.wrong(), 'removed', 'before it was sealed');
SELECT seal_wa_audit_log();
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'audit_row_missing'), 1::bigint, 'which the log keeps');
ROLLBACK TO well;

-- reordered
UPDATE audit_log a SET event = b.event, meta = b.meta, created_at = b.created_at
FROM audit_log b
WHERE (a.event, b.event) IN (('e5', 'e9'), ('e9', 'e5'));
SELECT is((SELECT count(*) FROM verify_wa_audit_log() WHERE problem = 'reordered'), 2::bigint,
    'two rows that changed places');
ROLLBACK TO well;
ALTER TABLE wa_audit_seals DROP CONSTRAINT wa_audit_seals_pkey;
UPDATE wa_audit_seals s SET position = o.position FROM rows r, rows o
WHERE r.audit_id = s.audit_id AND (r.i, o.i) IN ((5, 9), (9, 5));
SELECT is((SELECT string_agg(DISTINCT v.problem, ', ') FROM verify_wa_audit_log() v
    JOIN rows r ON r.position = v.position AND r.i IN (5, 9)), 'reordered', 'two seals that changed places');
ROLLBACK TO well;
ALTER TABLE wa_audit_seals DROP CONSTRAINT wa_audit_seals_audit_key;
UPDATE wa_audit_seals s SET audit_id = o.audit_id, leaf = o.leaf, salt = o.salt
FROM wa_audit_seals o JOIN rows r ON r.audit_id = o.audit_id, rows q
WHERE q.audit_id = s.audit_id AND (q.i, r.i) IN ((5, 6), (6, 5));
SELECT is((SELECT string_agg(DISTINCT v.problem, ', ') FROM verify_wa_audit_log() v
    JOIN rows r ON r.position = v.position AND r.i IN (5, 6)), 'reordered', 'neighbours, whose hashes stayed');
ROLLBACK TO well;

-- added
ALTER TABLE audit_log DISABLE TRIGGER await_seal;
INSERT INTO audit_log (event) VALUES ('smuggled');
SELECT matches(pg_temp.wrong(), '^added$', 'a row that nobody sealed');
ROLLBACK TO well;

-- cut off
CREATE TEMP TABLE anchor AS SELECT jsonb_agg(jsonb_build_object(
    'organization_id', h.organization_id, 'position', h.position, 'hash', h.hash)) AS heads
FROM get_wa_audit_health() h;
SELECT is(pg_temp.wrong((SELECT heads FROM anchor)), NULL, 'an anchor that fits');
SAVEPOINT anchored;
DELETE FROM wa_audit_seals WHERE audit_id IN (SELECT audit_id FROM rows WHERE i > 17);
DELETE FROM audit_log WHERE event IN ('e18', 'e19', 'e20');
SELECT is(pg_temp.wrong(), 'cut off 20', 'the end is missing');
SELECT matches((SELECT detail FROM verify_wa_audit_log()), '^positions \d+ to \d+ are missing', 'with all positions');
UPDATE wa_audit_heads h SET position = s.position, hash = s.hash
FROM wa_audit_seals s WHERE s.audit_id = pg_temp.id(17);
SELECT is(pg_temp.wrong(), NULL, 'with the head set back, nothing inside of the database tells');
SELECT is(pg_temp.wrong((SELECT heads FROM anchor)), 'cut off 20', 'the anchor does');
INSERT INTO audit_log (event) SELECT 'e' || i FROM generate_series(18, 20) i;
SELECT seal_wa_audit_log();
SELECT is(pg_temp.wrong((SELECT heads FROM anchor)), 'changed 20', 'also where others were put in their place');
SELECT _wa_audit(current_wa_organization(), 'database_adopted', 'wa_installations', NULL,
    jsonb_build_object('sealed_position', (SELECT position FROM rows WHERE i = 17)));
SELECT is(pg_temp.wrong((SELECT heads FROM anchor)), 'restored 20', 'a restore explains it, and is named');
ROLLBACK TO anchored;
SELECT is((SELECT v.problem FROM verify_wa_audit_log(jsonb_build_array(jsonb_build_object('organization_id',
    '0b0b0b0b-0000-4000-8000-000000000009', 'position', 3, 'hash', repeat('a', 64)))) v), 'removed',
    'an organization that is gone');
SELECT throws_ok($$ SELECT * FROM verify_wa_audit_log('[{"position": 1}]') $$, '22023', NULL, 'what is no anchor');
SELECT throws_ok($$ SELECT * FROM verify_wa_audit_log('{}') $$, '22023', NULL, 'nor this');

-- by the job
SELECT cmp_ok(check_wa_audit_log(7), '=', 7, 'checked in parts');
SELECT is((SELECT checked_at FROM get_wa_audit_health()), NULL, 'until it is through');
UPDATE audit_log SET meta = '{}' WHERE event = 'e19';
SELECT cmp_ok(check_wa_audit_log(), '>', 7, 'the rest');
SELECT matches((SELECT problems || problem FROM get_wa_audit_health() WHERE checked_at IS NOT NULL),
    '^1changed position \d+ row \d+$', 'what it found can be seen');
UPDATE audit_log SET meta = '{"i": 19}' WHERE event = 'e19';
SELECT check_wa_audit_log(7);
SELECT is((SELECT problems FROM get_wa_audit_health()), 1, 'until another round is through');
SELECT check_wa_audit_log();
SELECT is((SELECT problems FROM get_wa_audit_health()), 0, 'and found nothing');

-- what was looked into is counted no more, and still named
SELECT throws_ok($$ SELECT acknowledge_wa_audit_problems(' ') $$, '22023', NULL, 'not without a reason');
SELECT is(acknowledge_wa_audit_problems('nothing'), 0, 'nothing to acknowledge');
DELETE FROM audit_log WHERE event = 'e4';
SELECT check_wa_audit_log();
SELECT is((SELECT problems FROM get_wa_audit_health()), 1, 'a removed row is counted');
SELECT is(acknowledge_wa_audit_problems('case 7'), 1, 'until it is acknowledged');
SELECT results_eq('SELECT problems, problem FROM get_wa_audit_health()', $$ VALUES (0, '1 acknowledged') $$, 'by then');
SELECT is(pg_temp.wrong(), 'removed 4', 'who looks for it finds it');
SELECT is((SELECT meta ->> 'reason' FROM audit_log WHERE event = 'audit_problems_acknowledged'), 'case 7',
    'and who acknowledged it, and why');
DELETE FROM audit_log WHERE event = 'e5';
SELECT check_wa_audit_log();
SELECT is((SELECT problems FROM get_wa_audit_health()), 1, 'another one counts');

SELECT * FROM finish();
ROLLBACK;
