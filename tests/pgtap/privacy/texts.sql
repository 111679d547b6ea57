-- Tests sql/privacy/retention.sql, sql/privacy/holds.sql, sql/contacts/holds.sql.
BEGIN;
\ir ../world.psql
\ir ../customers.psql
SELECT plan(21);

SELECT world.told_all(jsonb_build_array(
    world.message(1, NULL, 0, '{"type": "text", "text": {"body": "said by one"}}'),
    world.message(2, NULL, 0, '{"type": "text", "text": {"body": "said by two"}}')
));
SELECT world.say(1, 'told one'), world.say(2, 'told two');
SELECT world.claimed();
SELECT world.accept_all();
INSERT INTO wa_outbound_queue (id, phone, text_body, metadata)
VALUES ('ffffffff-0000-4000-8000-000000000001', world.customer(1), 'told later', '{"role": "sales", "note": "x"}');
SELECT world.later('1 minute');
SELECT world.claimed();
SELECT world.accept_all();

CREATE FUNCTION world.texts() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', (SELECT count(*) FROM wa_messages WHERE content_text IS NOT NULL OR content <> '{}'),
        (SELECT count(*) FROM wa_outbound_queue WHERE text_body IS NOT NULL),
        (SELECT count(*) FROM wa_webhook_logs))
$$;
CREATE FUNCTION world.age(p_by interval) RETURNS void LANGUAGE sql AS $$
    ALTER TABLE wa_outbound_queue DISABLE TRIGGER USER;
    UPDATE wa_messages SET queue_id = CASE WHEN queue_id::text LIKE 'f%' THEN queue_id
        ELSE _wa_uuid7(created_at - p_by) END, created_at = created_at - p_by;
    UPDATE wa_outbound_queue q SET id = m.queue_id, processed_at = q.processed_at - p_by,
        created_at = q.created_at - p_by
    FROM wa_messages m WHERE m.wa_message_id = q.wa_message_id;
    ALTER TABLE wa_outbound_queue ENABLE TRIGGER USER;
    UPDATE wa_contacts SET created_at = created_at - p_by;
    UPDATE wa_webhook_logs SET received_at = received_at - p_by;
    UPDATE wa_message_statuses SET received_at = received_at - p_by;
    UPDATE wa_events SET created_at = created_at - p_by;
$$;

SELECT is(world.texts(), '5 3 1', 'what was said, both ways, and how it came');
SELECT results_eq('SELECT kind, keep FROM preview_wa_retention() WHERE kind IN (''texts'', ''files'', ''messages'',
    ''webhooks'', ''opt_outs'') ORDER BY 1',
    $$ VALUES ('files', interval '90 days'), ('messages', interval '1 year'), ('opt_outs', NULL),
    ('texts', interval '90 days'), ('webhooks', interval '90 days') $$, 'each kind has its time');
SELECT is(run_wa_retention(), 0, 'nothing is old');
SELECT world.age('91 days');
SELECT is((SELECT row_count FROM preview_wa_retention() WHERE kind = 'texts'), 5::bigint, 'what would go');
SELECT is((SELECT row_count FROM preview_wa_retention() WHERE kind = 'messages'), 0::bigint, 'and what would not');
SELECT is((SELECT row_count FROM preview_wa_retention(now() + interval '1 year') WHERE kind = 'messages'), 5::bigint,
    'at another time');
SELECT is(world.texts(), '5 3 1', 'a preview takes nothing');
CREATE FUNCTION world.would_go() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(row_count::text, ' ' ORDER BY kind) FROM preview_wa_retention(now() + interval '1 year')
    WHERE kind IN ('texts', 'messages', 'statuses', 'queue', 'webhooks')
$$;
SELECT is(world.would_go(), '5 3 0 5 1', 'of whom nothing holds, all goes');
SAVEPOINT unheld;
SELECT hold_wa_contact(world.customer(1), 'case 8');
SELECT is(world.would_go(), '2 1 0 2 0', 'of whom a case holds, nothing: nor a webhook that tells of both');
ROLLBACK TO unheld;

-- After an upgrade.
UPDATE wa_organizations SET retention_previewed_at = NULL, message_retention = NULL;
UPDATE wa_installations SET webhook_log_retention = NULL;
SELECT hold_wa_contact(world.customer(1), 'case 9');
SELECT is(run_wa_retention(), 0, 'the first run only counts');
SELECT is((SELECT meta ->> 'texts' FROM audit_log WHERE event = 'retention_previewed'), '2', 'and says what it found');
SELECT is(run_wa_retention(), 0, 'so does the second on the same day');
UPDATE wa_organizations SET retention_previewed_at = now() - interval '25 hours';
SELECT isnt(run_wa_retention(), 0, 'a day later it begins');
SELECT is(world.texts(), '3 2 1', 'with those who are not under a hold, and bodies that do not tell of them');
SELECT is((SELECT string_agg(content_text, ', ' ORDER BY id) FROM wa_messages),
    'said by one, told one, told later', 'whose texts stay');
SELECT is(run_wa_retention(), 0, 'once');
SELECT release_wa_contact(world.customer(1));
SELECT isnt(run_wa_retention(), 0, 'when the hold ends');
SELECT is(world.texts(), '0 0 0', 'they go as well');
SELECT is((SELECT count(*) FROM wa_messages), 5::bigint, 'the messages stay');
SELECT is((SELECT metadata FROM wa_outbound_queue WHERE id::text LIKE 'f%'), '{"role": "sales"}',
    'with who answered, also under an id that tells no time');
SELECT is((SELECT state FROM wa_messages WHERE queue_id::text LIKE 'f%'), 'accepted', 'and what became of them');

SELECT * FROM finish();
ROLLBACK;
