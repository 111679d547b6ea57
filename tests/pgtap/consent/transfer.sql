-- Tests sql/consent/transfer.sql.
BEGIN;
SELECT plan(19);
\ir ../world.psql

SELECT results_eq(
    $$ SELECT n, outcome FROM import_wa_opt_outs('[
        {"phone": "+5491140000001", "scope": "all", "opt_out_date": "2026-01-31"},
        {"phone": "+54 9 11 4000-0001", "scope": "ALL"},
        {"phone": "+5491140000001"},
        {"phone": "5.49114E+12"}, {"phone": "nobody"}, {"phone": ""}, {}, {"user_id": "?"},
        {"phone": "+5491140000002", "scope": "some"},
        {"phone": "+5491140000002", "opt_out_date": "31/01/2026"},
        {"phone": "+5491140000002", "opt_out_date": "2026-13-31"},
        {"phone": "+5491140000002", "opt_out_date": "2999-01-31"},
        {"user_id": "AR.1234567890abc", "scope": "utility", "source": "keyword"}
    ]') $$,
    $$ VALUES (1, 'added'), (2, 'known'), (3, 'added'), (4, 'refused'), (5, 'refused'), (6, 'refused'), (7, 'refused'),
        (8, 'refused'), (9, 'refused'), (10, 'refused'), (11, 'refused'), (12, 'refused'), (13, 'added') $$,
    'a verdict for each line; good ones are kept');
SELECT results_eq($$ SELECT phone, user_id, scope, source FROM export_wa_opt_outs() ORDER BY scope, phone $$,
    $$ VALUES ('+5491140000001', NULL::text, 'all', 'import'), ('+5491140000001', NULL, 'marketing', 'import'),
        (NULL, 'AR.1234567890abc', 'utility', 'keyword') $$,
    'exported are those in force');
SELECT is((SELECT opt_out_date FROM wa_opt_outs WHERE scope = 'all'), timestamptz '2026-01-31 00:00Z',
    'at their own date');
SELECT is((SELECT is_keyword FROM wa_opt_outs WHERE scope = 'utility'), true, 'START lifts what a word had set');
SELECT is((SELECT string_agg(x.outcome, ',') FROM import_wa_opt_outs((
    SELECT jsonb_agg(to_jsonb(e)) FROM export_wa_opt_outs() e)) x), 'known,known,known', 'what was exported is known');
SELECT is((SELECT count(*) FROM wa_consent_events), 3::bigint, 'and leaves no second record');

-- Consent that came later stands.
SELECT opt_in_wa_contact('+5491140000001', 'all') \g /dev/null
SELECT is((SELECT outcome FROM import_wa_opt_outs(
    '[{"phone": "+5491140000001", "scope": "all", "opt_out_date": "2026-01-31"}]')), 'superseded', 'a file of before it');
SELECT ok(NOT is_wa_opted_out('+5491140000001'), 'takes nothing back');
SELECT is((SELECT outcome FROM import_wa_opt_outs('[{"phone": "+5491140000001"}]')), 'added', 'one of now does');
INSERT INTO wa_opt_ins (contact_id, scope, source, opted_in_at)
VALUES (world.contact('+5491140000003'), 'marketing', 'keyword', '2026-03-01');
SELECT is((SELECT outcome FROM import_wa_opt_outs(
    '[{"phone": "+5491140000003", "opt_out_date": "2026-02-01", "source": "crm"}]')), 'added',
    'START after it lifted no opt-out that somebody else had set');

SELECT is((SELECT problem FROM import_wa_opt_outs('[{"phone": "+5491140000001", "scop": "all"}]')),
    'it has something that means nothing here: scop', 'a misspelt scope is no opt-out of another one');
SELECT throws_ok($$ SELECT * FROM import_wa_opt_outs('{}') $$, '22023', NULL, 'an array');
SELECT is((SELECT meta - 'source' FROM audit_log WHERE event = 'opt_outs_imported' ORDER BY id LIMIT 1),
    '{"added": 3, "known": 1, "refused": 9}'::jsonb, 'audited by its counts');

-- A restored database has the opt-out, and is told of the one that came later.
SELECT is((SELECT string_agg(x.outcome, ',') FROM import_wa_opt_outs('[
    {"phone": "+5491140000004", "source": "keyword", "opt_out_date": "2026-03-01"},
    {"phone": "+5491140000004", "source": "keyword", "opt_out_date": "2026-03-05"}]') x), 'added,known', 'of two lines');
SELECT results_eq($$ SELECT opt_out_date, last_asked_at FROM wa_opt_outs
    WHERE contact_id = world.contact('+5491140000004') $$,
    $$ VALUES (timestamptz '2026-03-01Z', timestamptz '2026-03-05Z') $$, 'the first and the last time are kept');
SELECT import_wa_opt_outs('[{"phone": "+5491140000004", "source": "keyword", "opt_out_date": "2026-03-09"},
    {"phone": "+5491140000004", "source": "keyword", "opt_out_date": "2026-03-02"}]') \g /dev/null
SELECT is((SELECT last_asked_at FROM wa_opt_outs WHERE contact_id = world.contact('+5491140000004')),
    timestamptz '2026-03-09Z', 'and the last of another file, so that a START of before it lifts nothing');
SELECT import_wa_opt_outs('[{"phone": "+5491140000004", "source": "keyword"}]') \g /dev/null
SELECT is((SELECT last_asked_at FROM wa_opt_outs WHERE contact_id = world.contact('+5491140000004')),
    timestamptz '2026-03-09Z', 'a line without a date asks for nothing again');
-- What is exported is taken, whoever was erased.
SELECT is((erase_wa_contact('+5491140000004', 'request')).state, 'done', 'somebody is erased');
SELECT is_empty($$ SELECT x.problem FROM import_wa_opt_outs((
    SELECT jsonb_agg(to_jsonb(e)) FROM export_wa_opt_outs() e)) x WHERE x.outcome <> 'known' $$, 'no line is wrong');

SELECT * FROM finish();
ROLLBACK;
