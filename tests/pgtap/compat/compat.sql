-- Tests sql/compat/translation.sql, sql/compat/whatsapp_queue.sql, sql/compat/whatsapp_delivery_logs.sql,
-- sql/compat/whatsapp_analytics.sql, sql/compat/rate_limits.sql, sql/compat/whatsapp_templates.sql,
-- sql/compat/whatsapp_config.sql, sql/compat/whatsapp_configurations.sql, sql/compat/whatsapp_messages.sql,
-- sql/compat/whatsapp_conversations.sql, sql/compat/whatsapp_opt_ins.sql, sql/compat/whatsapp_audit_logs.sql,
-- sql/compat/whatsapp_media.sql, sql/compat/whatsapp_broadcast_lists.sql, sql/queue/changes.sql,
-- sql/templates/write.sql.
BEGIN;
SELECT plan(76);
\ir ../world.psql

CREATE ROLE wa_tap_app IN ROLE wa_app;
CREATE ROLE wa_tap_analyst IN ROLE wa_analyst;
GRANT USAGE ON SCHEMA world TO wa_tap_app;

-- whatsapp_config
SELECT results_eq(
    'SELECT user_id, phone_number_id, business_account_id, status, rate_limit_tier, access_token_encrypted
    FROM whatsapp_config',
    $$ VALUES (current_wa_organization(), '100', '200', 'active', NULL::text, NULL::text) $$,
    'the configuration is the default number; its tier is not known yet'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_config (phone_number_id, business_account_id) VALUES ('101', '200') $$,
    '23505', NULL, 'there is one for each organization'
);
SELECT set_wa_secret('access_token', NULL, '\x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
    'key', 'f1f2') \g /dev/null
SELECT is((SELECT access_token_encrypted FROM whatsapp_config), 'sealed:f1f2',
    'of a stored token it shows the fingerprint');
UPDATE wa_phone_numbers SET pause_scope = 'number', pause_reason = 'a test';
SELECT is((SELECT status FROM whatsapp_config), 'paused', 'a paused number is not active');
UPDATE wa_phone_numbers SET pause_scope = NULL, status = 'BANNED';
SELECT is((SELECT status FROM whatsapp_config), 'banned', 'nor is one that Meta has stopped');
UPDATE wa_phone_numbers SET status = 'CONNECTED';
SELECT create_wa_organization('other', '0b0b0b0b-0000-4000-8000-000000000002') \g /dev/null
SELECT throws_ok(
    $$ INSERT INTO whatsapp_config (user_id, phone_number_id, business_account_id)
    VALUES ('0b0b0b0b-0000-4000-8000-000000000002', '300', '400') $$,
    'WA301', NULL, 'one works for one organization at a time'
);
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000002';
SELECT throws_ok(
    $$ INSERT INTO whatsapp_config (phone_number_id, business_account_id, access_token_encrypted)
    VALUES ('300', '400', 'EAAGm0PX4ZCps') $$,
    'WA502', NULL, 'a token that is not sealed does not come in'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_config (phone_number_id, business_account_id, status) VALUES ('3', '4', 'off') $$,
    '23514', NULL, 'a number is registered as active'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_config (phone_number_id) VALUES ('300') $$, '23502', NULL, 'it needs an account'
);
SELECT results_eq(
    $$ INSERT INTO whatsapp_config (phone_number_id, business_account_id, rate_limit_tier)
    VALUES ('300', '400', 'tier_10000') RETURNING phone_number_id, rate_limit_tier, status $$,
    $$ VALUES ('300', 'tier_10000', 'active') $$, 'the first number of another organization'
);
SELECT results_eq(
    $$ SELECT messaging_limit, tier_limit FROM wa_portfolios WHERE portfolio_id = '400' $$,
    $$ VALUES ('TIER_10K', 10000) $$, 'with its tier'
);
SELECT results_eq(
    'SELECT phone_number_id, is_active, is_default FROM whatsapp_configurations WHERE tenant_id = '
    'current_wa_organization()', $$ VALUES ('300', true, true) $$, 'whatsapp_configurations has it too'
);
SELECT set_config('wa.organization_id', id::text, true) FROM wa_organizations WHERE is_default \g /dev/null
SELECT add_wa_organization_role(current_wa_organization(), r)
FROM unnest('{wa_tap_app, wa_tap_analyst}'::name[]) r \g /dev/null

-- whatsapp_templates
SELECT results_eq(
    $$ INSERT INTO whatsapp_templates (template_name, category, template_body, variables)
    VALUES ('visit', 'UTILITY', 'Hi {{1}}, see you at {{2}} o''clock', '["name", "time"]')
    RETURNING language, status, variables, body, meta_template_id $$,
    $$ VALUES ('en', 'pending', '["name", "time"]'::jsonb, 'Hi {{1}}, see you at {{2}} o''clock', NULL::text) $$,
    'a template, with the defaults'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_templates (template_name, category, template_body)
    VALUES ('visit', 'UTILITY', 'Again') $$, '23505', NULL, 'once a name and language'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_templates (template_name, category, template_body) VALUES ('x', 'SPAM', 'x') $$,
    '23514', NULL, 'an unknown category'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_templates (template_name, category, template_body, status)
    VALUES ('x', 'UTILITY', 'x', 'new') $$, '23514', NULL, 'an unknown status'
);
SELECT throws_ok($$ INSERT INTO whatsapp_templates (template_name, category) VALUES ('x', 'UTILITY') $$,
    '23502', NULL, 'no body');
SELECT results_eq(
    $$ INSERT INTO whatsapp_templates (name, category, language, header, body, footer, buttons)
    VALUES ('payment_reminder', 'TRANSACTIONAL', 'en', 'Payment Reminder',
    'Hi {{1}}, your booking {{2}} has a pending payment of {{3}}. Pay now: {{4}}', 'Travel Management System',
    '[{"type": "url", "text": "Pay Now", "url": "{{5}}"}]')
    RETURNING template_name, category, header, footer, buttons -> 0 ->> 'text' $$,
    $$ VALUES ('payment_reminder', 'UTILITY', 'Payment Reminder', 'Travel Management System', 'Pay Now') $$,
    'the other way of writing one, with its category of old'
);
SELECT results_eq(
    $$ UPDATE whatsapp_templates SET status = 'approved', meta_template_id = '77', body = 'Hi {{1}}, at {{2}}!'
    WHERE name = 'visit' RETURNING status, template_body $$,
    $$ VALUES ('approved', 'Hi {{1}}, at {{2}}!') $$, 'approved, and with another text'
);
SELECT is((SELECT status FROM wa_templates WHERE name = 'visit'), 'APPROVED', 'which the queue goes by');
SELECT throws_ok(
    $$ UPDATE whatsapp_templates SET created_at = '2020-01-01' WHERE name = 'visit' $$, 'WA202', NULL,
    'its age stays'
);

-- whatsapp_queue, as the application
SET LOCAL ROLE wa_tap_app;
SELECT results_eq(
    $$ INSERT INTO whatsapp_queue (event_id, recipient_phone, template_name, template_variables)
    VALUES ('e0e0e0e0-0000-4000-8000-000000000001', '+54 9 11 4000-0001', 'visit',
    '{"time": "ten", "name": "Ada"}')
    RETURNING user_id, event_id::text, recipient_phone, priority, status, retry_count, error_message, sent_at $$,
    $$ VALUES (current_wa_organization(), 'e0e0e0e0-0000-4000-8000-000000000001', '+5491140000001', 5, 'queued',
    0, NULL::text, NULL::timestamptz) $$,
    'a message of an event, with the defaults'
);
SELECT ok(scheduled_for = now() AND id IS NOT NULL AND created_at = now(), 'due now') FROM whatsapp_queue;
SELECT is((SELECT cancel_wa_messages(reference => 'event:e0e0e0e0-0000-4000-8000-000000000001')), 1,
    'the event''s messages are found by reference');
SELECT results_eq('SELECT status, error_message FROM whatsapp_queue', $$ VALUES ('failed', 'cancelled') $$,
    'a cancelled one shows as failed');
SELECT throws_ok(
    format($$ INSERT INTO whatsapp_queue (recipient_phone, template_name, %s)
    VALUES ('+5491140000001', 'hello', %L) $$, c, v), state, NULL, format('%s %s', c, v)
) FROM (VALUES ('priority', '0', '23514'), ('priority', '11', '23514'), ('status', 'pending', '23514'),
    ('status', 'sent', 'WA202'), ('status', 'sending', 'WA202'), ('retry_count', '1', 'WA202'),
    ('template_variables', '{"name": "Ada"}', 'WA005')) x (c, v, state);
SELECT throws_ok($$ INSERT INTO whatsapp_queue (template_name) VALUES ('hello') $$, '23502', NULL,
    'no recipient');
SELECT throws_ok(
    $$ INSERT INTO whatsapp_queue (recipient_phone, template_name) VALUES ('+5491140000001', 'draft') $$,
    'WA103', NULL, 'what the queue refuses is refused here too'
);
INSERT INTO whatsapp_queue (recipient_phone, template_name, priority)
SELECT '+549114000010' || n % 10, 'hello', n FROM generate_series(1, 10) n;
SELECT results_eq(
    $$ SELECT v.priority, q.priority FROM whatsapp_queue v JOIN wa_outbound_queue q USING (id)
    WHERE v.template_name = 'hello' ORDER BY 1 $$,
    $$ VALUES (1, 'low'), (2, 'low'), (3, 'low'), (4, 'normal'), (5, 'normal'), (6, 'normal'), (7, 'normal'),
    (8, 'high'), (9, 'high'), (10, 'high') $$, 'ten priorities read back as written, 10 the most urgent'
);
UPDATE wa_outbound_queue SET priority = 'low' WHERE metadata ->> 'priority' = '9';
SELECT results_eq('SELECT count(*)::integer FROM whatsapp_queue WHERE priority = 1', 'VALUES (2)',
    'a priority that was changed since does not');
UPDATE wa_outbound_queue SET metadata = '{"priority": "at once", "event_id": "the party"}'
WHERE metadata ->> 'priority' = '9';
SELECT results_eq('SELECT event_id, count(*)::integer FROM whatsapp_queue WHERE priority = 1 GROUP BY 1',
    'VALUES (NULL::uuid, 2)', 'metadata of another meaning is passed over');
SELECT results_eq(
    $$ INSERT INTO whatsapp_queue (recipient_phone, template_name, template_variables)
    VALUES ('+5491140000002', 'order', '{"2": "two", "1": "one"}') RETURNING template_variables $$,
    $$ VALUES ('["one", "two"]'::jsonb) $$, 'values by number go in their order'
);
SELECT is((SELECT count(*) FROM whatsapp_queue WHERE status = 'queued' AND scheduled_for <= clock_timestamp()),
    11::bigint, 'what is due');

SELECT results_eq(
    $$ UPDATE whatsapp_queue SET scheduled_for = scheduled_for + interval '1 hour', priority = 8
    WHERE priority = 7 RETURNING priority, scheduled_for $$,
    $$ VALUES (8, now() + interval '1 hour') $$, 'later, and more urgent'
);
SELECT is((SELECT expires_at FROM wa_outbound_queue WHERE scheduled_at > now()), now() + interval '25 hours',
    'its expiry moves along');
SELECT throws_ok(
    format('UPDATE whatsapp_queue SET %I = %L WHERE priority = 10', c, v), state, NULL,
    format('set %s = %s', c, v)
) FROM (VALUES ('status', 'sending', 'WA202'), ('status', 'sent', 'WA202'), ('status', 'lost', '23514'),
    ('retry_count', '1', 'WA202'), ('sent_at', 'now', 'WA202'), ('recipient_phone', '+15551234567', 'WA202'),
    ('error_message', 'x', 'WA202'), ('priority', '12', '23514')) x (c, v, state);
SELECT results_eq(
    $$ UPDATE whatsapp_queue SET status = 'failed', error_message = 'WhatsApp not configured'
    WHERE priority = 10 RETURNING status, error_message $$,
    $$ VALUES ('failed', 'WhatsApp not configured') $$, 'to give one up is to cancel it'
);
SELECT results_eq(
    $$ UPDATE whatsapp_queue SET status = 'queued' WHERE priority = 10 RETURNING status, error_message $$,
    $$ VALUES ('queued', NULL::text) $$, 'and it can be queued again'
);
SELECT results_eq(
    $$ UPDATE whatsapp_queue SET status = 'failed' WHERE priority = 2 RETURNING status $$,
    $$ VALUES ('failed') $$, 'given up without a reason'
);
SELECT results_eq(
    $$ UPDATE whatsapp_queue SET status = 'queued', scheduled_for = now() + interval '5 minutes'
    WHERE priority = 2 RETURNING status, scheduled_for $$,
    $$ VALUES ('queued', now() + interval '5 minutes') $$, 'queued again, for later'
);
UPDATE whatsapp_queue SET status = 'failed' WHERE scheduled_for = now() + interval '5 minutes';
RESET ROLE;

-- what becomes of them
SELECT cancel_wa_messages(ids => array_agg(id)) FROM wa_outbound_queue WHERE template_name = 'order'
\g /dev/null
SELECT world.claimed() \g /dev/null
SELECT id AS good FROM whatsapp_queue WHERE priority = 6 \gset
SELECT id AS bad FROM whatsapp_queue WHERE priority = 4 \gset
SELECT id AS lost FROM whatsapp_queue WHERE priority = 3 \gset
SELECT world.accept(:'good', 'wamid.good') \g /dev/null
SELECT world.accept(:'lost', 'wamid.lost') \g /dev/null
SELECT world.refuse(:'bad', 131026) \g /dev/null
SELECT _wa_apply_statuses(current_wa_organization(), array_agg(jsonb_populate_record(NULL::_wa_webhook_atoms,
    jsonb_build_object('kind', 'status', 'at', clock_timestamp(), 'received_at', clock_timestamp(), 'payload',
    s::jsonb)))) FROM unnest(ARRAY[
        '{"id": "wamid.good", "status": "delivered"}',
        '{"id": "wamid.lost", "status": "failed", "errors": [{"code": 131049, "title": "Not delivered"}]}'
    ]) s \g /dev/null
SELECT results_eq(
    $$ SELECT priority, status, sent_at IS NOT NULL, error_message IS NOT NULL FROM whatsapp_queue
    WHERE priority IN (3, 4, 6) ORDER BY priority $$,
    $$ VALUES (3, 'failed', true, false), (4, 'failed', false, true), (6, 'sent', true, false) $$,
    'sent, refused, and accepted but never delivered'
);
SELECT results_eq(
    $$ SELECT l.status, l.meta_message_id, l.error_code FROM whatsapp_delivery_logs l
    JOIN whatsapp_queue q ON q.id = l.queue_id ORDER BY 1 $$,
    $$ VALUES ('delivered', 'wamid.good', NULL), ('failed', 'wamid.lost', '131049') $$,
    'what was reported of each'
);
SET LOCAL ROLE wa_tap_analyst;
SELECT results_eq(
    'SELECT date, total_sent, successful, failed, avg_queue_time_seconds < 60 FROM whatsapp_analytics',
    'VALUES (current_date, 2::bigint, 1::bigint, 1::bigint, true)',
    'the analyst''s day: two went out, one arrived'
);
RESET ROLE;

-- rate_limits
SET LOCAL ROLE wa_tap_app;
SELECT throws_ok(
    $$ INSERT INTO rate_limits (user_id, service, endpoint, count)
    VALUES ('0b0b0b0b-0000-4000-8000-000000000002', 'whatsapp', 'send_message', 1) $$, '42501', NULL,
    'another organization is not charged'
);
SELECT throws_ok($$ INSERT INTO rate_limits (service, endpoint, count) VALUES ('sms', 'send_message', 1) $$,
    '23514', NULL, 'nor another service');
INSERT INTO rate_limits (service, endpoint, count) VALUES ('whatsapp', 'send_message', 2);
SELECT is((SELECT sum(count) FROM rate_limits), 2::bigint, 'what somebody else sent is charged');
SELECT throws_ok($$ INSERT INTO rate_limits (service, endpoint, count)
    VALUES ('whatsapp', 'send_message', 2147483647) $$, '23514', NULL, 'but no number that nobody can send');
INSERT INTO rate_limits (service, endpoint, count)
SELECT 'whatsapp', 'send_message', 1000000 FROM generate_series(1, 2200);
RESET ROLE;
SELECT lives_ok($$ SELECT * FROM claim_wa_messages('00000000-0000-0000-0000-000000000001', 10) $$,
    'and however often it is charged, claims go on');
SELECT cmp_ok((SELECT sum(count) FROM rate_limits), '>', 2000000000::bigint, 'with the limit used up');

-- who and when of an audit row
SET LOCAL ROLE wa_tap_app;
INSERT INTO audit_log (actor, event, entity, meta, created_at)
VALUES ('compliance_officer', 'looked', 'compliance', '{"why": "asked"}', '2000-01-01');
INSERT INTO whatsapp_audit_logs (actor, action, created_at) VALUES ('somebody', 'looked', '2000-01-01');
RESET ROLE;
SELECT results_eq(
    $$ SELECT actor, session_role = session_user, database_role, created_at > now() - interval '1 minute'
    FROM audit_log WHERE event = 'looked' ORDER BY id $$,
    $$ VALUES ('compliance_officer', true, 'wa_tap_app', true), ('somebody', true, 'wa_tap_app', true) $$,
    'are what they are beside what the row says'
);

-- messages, conversations, consent, audit
SELECT world.wrote(5);
INSERT INTO wa_messages (number_id, contact_id, phone_e164, wa_message_id, direction, message_type, status,
    state, content_text, provider_at)
SELECT n.id, world.contact(world.customer(5)), world.customer(5), 'wamid.in', 'inbound', 'text', 'received',
    'received', 'Hello', now() - interval '1 minute' FROM wa_phone_numbers n WHERE phone_number_id = '100';
SELECT results_eq(
    $$ SELECT direction, message_type, status, text, sent_at, conversation_id IS NOT NULL FROM whatsapp_messages
    WHERE direction = 'INBOUND' $$,
    $$ VALUES ('INBOUND', 'TEXT', 'RECEIVED', 'Hello', now() - interval '1 minute', true) $$,
    'a message in capitals'
);
SELECT is((SELECT count(*) FROM whatsapp_messages WHERE direction = 'OUTBOUND'
    AND date(sent_at) = current_date), 2::bigint, 'messages sent today');
SET LOCAL ROLE wa_tap_app;
SELECT results_eq(
    $$ UPDATE whatsapp_conversations SET state = 'COMPLETED' WHERE phone_number = world.customer(5)
    RETURNING state $$, $$ VALUES ('COMPLETED') $$, 'a conversation is completed'
);
SELECT throws_ok($$ UPDATE whatsapp_conversations SET state = 'WAITING' WHERE state = 'COMPLETED' $$, 'WA203',
    NULL, 'from there it does not go anywhere');
SELECT throws_ok($$ UPDATE whatsapp_conversations SET state = 'LOST' $$, '23514', NULL, 'an unknown state');
SELECT throws_ok($$ UPDATE whatsapp_conversations SET unread_count = 0 WHERE state = 'COMPLETED';
    UPDATE whatsapp_conversations SET phone_number = 'x' $$, 'WA202', NULL, 'the rest follows from messages');
SELECT opt_out_wa_contact(world.customer(5)) \g /dev/null
SELECT results_eq(
    $$ INSERT INTO whatsapp_opt_ins (phone_number, source) VALUES (world.customer(5), 'form')
    RETURNING scope, source, is_active $$, $$ VALUES ('marketing', 'form', true) $$, 'consent lifts an opt-out'
);
SELECT results_eq(
    $$ INSERT INTO whatsapp_audit_logs (action, details) VALUES ('call', '{"a": 1}')
    RETURNING actor::text COLLATE "default", action, details $$,
    $$ VALUES (session_user::text COLLATE "default", 'call', '{"a": 1}'::jsonb) $$, 'an entry for the audit'
);

-- files and lists
SELECT results_eq(
    $$ INSERT INTO whatsapp_broadcast_lists (name, description) VALUES ('guides', 'of the season')
    RETURNING name, recipient_count, tenant_id $$,
    $$ VALUES ('guides', 0::bigint, current_wa_organization()) $$, 'a broadcast list is made'
);
SELECT add_wa_broadcast_members('guides', ARRAY['+5491140000001', '+5491140000002']) \g /dev/null
SELECT results_eq(
    $$ UPDATE whatsapp_broadcast_lists SET name = 'all guides' RETURNING name, recipient_count $$,
    $$ VALUES ('all guides', 2::bigint) $$, 'renamed, with two on it'
);
SELECT is(delete_wa_broadcast_list('all guides'), 2, 'and deleted');
SELECT is((SELECT count(*) FROM whatsapp_broadcast_lists), 0::bigint, 'it is gone then');
RESET ROLE;
INSERT INTO wa_media (direction, media_type, mime_type, status, next_attempt_at, sha256)
VALUES ('inbound', 'image', 'image/jpeg', 'stored', NULL, sha256('x'));
SELECT results_eq(
    'SELECT direction, media_type, mime_type, status, length(sha256) FROM whatsapp_media',
    $$ VALUES ('INBOUND', 'IMAGE', 'image/jpeg', 'STORED', 64) $$, 'a file'
);

SELECT * FROM finish();
ROLLBACK;
