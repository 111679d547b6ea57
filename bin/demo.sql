-- What bin/demo has psql run, each part by its name.

--- install
CREATE EXTENSION pg_whatsapp CASCADE;
SELECT count(*) AS steps FROM migrate_wa();

--- roles
CREATE ROLE shop LOGIN IN ROLE wa_app;
CREATE ROLE sender LOGIN IN ROLE wa_dispatcher;
CREATE ROLE listener LOGIN IN ROLE wa_receiver;

--- number
SELECT register_wa_phone_number('106540352242922', '+1 650 555 0100', '102290129340398');

--- region
-- National forms such as (650) 555-0101 are understood from here on.
UPDATE wa_organizations SET default_region = 'US';

--- queue_templates
INSERT INTO wa_outbound_queue (phone, template_name, template_params, reference) VALUES
    ('+16505550102', 'order_shipped', '["Ben", "A-1042"]', 'shipped'),
    ('+16505550105', 'order_shipped', '["Eve", "A-1043"]', 'phone unreachable'),
    ('+16505550106', 'order_shipped', '["Finn", "A-1044"]', 'provider failed once'),
    ('+16505550107', 'order_shipped', '["Gus", "A-1045"]', 'answer lost');

INSERT INTO wa_outbound_queue (phone, template_name, template_params, reference, priority)
SELECT '+1650555' || n, 'spring_sale', jsonb_build_array('customer ' || n), 'campaign', 'low'
FROM generate_series(1201, 1230) n;

INSERT INTO wa_outbound_queue (phone, template_name, template_params, scheduled_at, reference)
VALUES ('+16505550104', 'spring_sale', '["Dan"]', now() + interval '1 day', 'sale tomorrow');

--- answer
SELECT can_send_freeform_wa('+16505550101') AS may_answer_ann,
    can_send_freeform_wa('+16505550103') AS may_write_to_cleo;

INSERT INTO wa_outbound_queue (phone, text_body, reference)
VALUES ('(650) 555-0101', 'Hello Ann! It left this morning.', 'answer');

INSERT INTO wa_outbound_queue (phone, type, content, reference) VALUES ('+16505550101', 'interactive', '{
    "type": "button", "body": {"text": "Shall we ring the bell?"},
    "action": {"buttons": [
        {"type": "reply", "reply": {"id": "yes", "title": "Yes"}},
        {"type": "reply", "reply": {"id": "no", "title": "No"}}
    ]}
}', 'question');

--- outside_window
INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+16505550103', 'Do you still need us?');

--- recorded
INSERT INTO wa_outbound_queue (phone, text_body, reference, on_refusal)
VALUES ('+16505550103', 'Do you still need us?', 'window closed', 'record');

--- after_stop
INSERT INTO wa_outbound_queue (phone, template_name, template_params)
VALUES ('+16505550104', 'spring_sale', '["Dan"]');

--- outcome
SELECT coalesce(q.reference, '(confirms the STOP)') AS message, q.type, count(*) AS messages, q.status AS queue, q.retry_count AS retries,
    m.state, coalesce(q.error_code, m.error_code::text) AS error,
    (SELECT string_agg(h.value ->> 'state', ', ' ORDER BY h.ordinality)
        FROM jsonb_array_elements(m.state_history) WITH ORDINALITY h) AS reported
FROM wa_outbound_queue q
LEFT JOIN wa_messages m ON m.organization_id = q.organization_id AND m.queue_id = q.id
GROUP BY 1, 2, 4, 5, 6, 7, 8
ORDER BY min(q.id::text);

--- deviations
-- What should become of each message, against what has.
WITH expected (message, messages, queue, state, error) AS (VALUES
    ('(confirms the STOP)', 1, 'sent', 'read', NULL),
    ('answer', 1, 'sent', 'read', NULL),
    ('answer lost', 1, 'sent', 'read', NULL),
    ('campaign', 30, 'sent', 'read', NULL),
    ('phone unreachable', 1, 'sent', 'failed', '131026'),
    ('provider failed once', 1, 'sent', 'read', NULL),
    ('question', 1, 'sent', 'read', NULL),
    ('sale tomorrow', 1, 'cancelled', NULL, 'opted_out'),
    ('shipped', 1, 'sent', 'read', NULL),
    ('window closed', 1, 'failed', 'failed', 'window_closed')),
found AS (
    SELECT coalesce(q.reference, '(confirms the STOP)'), count(*)::int, q.status::text, m.state::text,
        coalesce(q.error_code::text, m.error_code::text)
    FROM wa_outbound_queue q
    LEFT JOIN wa_messages m ON m.organization_id = q.organization_id AND m.queue_id = q.id
    GROUP BY 1, 3, 4, 5)
(SELECT 'expected', * FROM expected EXCEPT ALL SELECT 'expected', * FROM found)
UNION ALL (SELECT 'found', * FROM found EXCEPT ALL SELECT 'found', * FROM expected);

--- inbound
SELECT c.profile_name AS customer, m.message_type, m.content_text, m.provider_at
FROM wa_messages m JOIN wa_contacts c ON c.id = m.contact_id
WHERE m.direction = 'inbound' ORDER BY m.id;

--- look_around
psql                                                        -- as the owner of the tables or a wa_admin
SELECT * FROM wa_queue_health;                              -- what waits, why, until when
SELECT id, phone, status, last_error FROM wa_outbound_queue ORDER BY created_at DESC LIMIT 20;
SELECT * FROM explain_wa_message('<id>');                   -- why one message has not gone, and the way out
SELECT preview_wa_request('<id>');                          -- the request that Meta gets
SELECT phone_e164, is_within_24h, window_expires_at, unread_count FROM wa_conversations;
SELECT direction, message_type, state, content_text FROM wa_messages ORDER BY id DESC LIMIT 20;
SELECT * FROM read_wa_events('me');                         -- your application's feed
SELECT event, entity, meta, created_at FROM audit_log ORDER BY id DESC LIMIT 20;
