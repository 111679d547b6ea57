-- Tests sql/ledger/timeline.sql.
BEGIN;
SELECT plan(9);

CREATE ROLE wa_timeline_app IN ROLE wa_app;
CREATE ROLE wa_timeline_analyst IN ROLE wa_analyst;
SET LOCAL ROLE wa_timeline_app;
INSERT INTO timeline_entries (event_type, source, entity_type, entity_id, content) VALUES
('SYSTEM', 'WHATSAPP', 'lead', 'L1', '{"action": "LEAD_CREATED", "name": "Ana Secret"}'),
('SYSTEM', 'WEB', 'lead', 'L2', '{"action": "LEAD_CREATED"}'),
('INCIDENT', 'WHATSAPP', 'trip', 'TRP123', '{"text": "Vehicle breakdown"}');
SELECT is(
    (SELECT count(*) FROM timeline_entries
        WHERE event_type = 'SYSTEM' AND content ->> 'action' = 'LEAD_CREATED' AND source = 'WHATSAPP'),
    1::bigint, 'leads that came from WhatsApp can be counted'
);
SELECT ok(actor <> '' AND occurred_at <= clock_timestamp(), 'an entry says who and when by itself')
FROM timeline_entries WHERE entity_id = 'L1';
SELECT throws_ok($$ INSERT INTO timeline_entries (event_type) VALUES ('System') $$, '23514', NULL,
    'what would not be counted is refused');
SELECT throws_ok($$ INSERT INTO timeline_entries (event_type, source) VALUES ('SYSTEM', 'WhatsApp') $$,
    '23514', NULL, 'also by its source');
SELECT throws_ok($$ INSERT INTO timeline_entries (event_type, entity_type) VALUES ('SYSTEM', 'lead') $$,
    '23514', NULL, 'an object has a kind and an id');
SELECT throws_ok($$ UPDATE timeline_entries SET content = '{}' $$, '42501', NULL,
    'an application does not change what happened');
SELECT throws_ok('DELETE FROM timeline_entries', '42501', NULL, 'nor take it back');
SET LOCAL ROLE wa_timeline_analyst;
SELECT results_eq(
    'SELECT event_type, source, action, entity_type FROM timeline_entries_masked ORDER BY id',
    $$ VALUES ('SYSTEM', 'WHATSAPP', 'LEAD_CREATED', 'lead'), ('SYSTEM', 'WEB', 'LEAD_CREATED', 'lead'),
        ('INCIDENT', 'WHATSAPP', NULL, 'trip') $$,
    'analysts count by action'
);
SELECT unalike((SELECT string_agg(t::text, ' ') FROM timeline_entries_masked t), '%Ana Secret%',
    'and see no content');

SELECT * FROM finish();
ROLLBACK;
