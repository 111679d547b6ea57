-- Something for every statement of the documents to find; comes after pgtap/world.psql.
SELECT install_wa_pack('profiles');
SELECT install_wa_pack('events');
INSERT INTO profiles (role_id, full_name) VALUES ('user', 'Una'), ('admin', 'Ada');
UPDATE wa_phone_numbers SET is_test = true;
UPDATE wa_templates SET provider_template_id = '9001' WHERE name IN ('hello', 'order');
INSERT INTO wa_templates (name, category, status, body_text, parameters) VALUES
('refused', 'MARKETING', 'REJECTED', 'No', '[]'),
('event_reminder_24h', 'UTILITY', 'APPROVED', 'Hi {{1}}! Your event {{2}} starts at {{3}}. See you there!',
    '["attendee_name", "event_name", "event_time"]');
UPDATE wa_templates SET provider_template_id = '9002' WHERE name = 'event_reminder_24h';

-- One customer wrote two hours ago, another did and it is over.
INSERT INTO wa_conversation_windows (contact_id, number_id, last_customer_message_at)
SELECT world.contact('+15551234567'), id, clock_timestamp() - interval '2 hours' FROM wa_phone_numbers;
SELECT world.wrote(8);

SELECT world.queue(n) FROM generate_series(1, 4) n;
SELECT world.queue(7);
SELECT world.queue(n, 'order', '["Una", "a box"]') FROM unnest('{5,6,9}'::integer[]) n;
SELECT world.say(8, 'Anything else?');
INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+15551234567', 'Thank you for your inquiry!');
INSERT INTO wa_outbound_queue (phone, type, content)
VALUES ('+15551234567', 'image', '{"link": "https://example.org/map.jpg"}');
INSERT INTO wa_outbound_queue (phone, template_name, template_params) VALUES ('+15551234567', 'code', '["123456"]');
SELECT count(*) FROM world.claim();
SELECT CASE WHEN reference IN ('4', '6') THEN world.refuse(id, 131026) ELSE world.accept(id, 'wamid.' || id) END
FROM wa_outbound_queue;
-- One is still to go.
SELECT world.queue(10);

-- Delivered and read, which changes neither what was sent nor that it was.
SELECT _wa_apply_statuses(current_wa_organization(), array_agg(jsonb_populate_record(NULL::_wa_webhook_atoms,
    jsonb_build_object('kind', 'status', 'at', clock_timestamp(), 'received_at', clock_timestamp(),
        'payload', jsonb_build_object('id', m.wa_message_id, 'status', s)))))
FROM wa_messages m, unnest('{sent,delivered,read}'::text[]) s
WHERE m.reference = '1' OR m.reference = '2' AND s <> 'read';

UPDATE wa_conversation_windows SET last_customer_message_at = clock_timestamp() - interval '25 hours'
WHERE contact_id = world.contact(world.customer(8));
UPDATE wa_messages SET created_at = created_at - ago, sent_at = sent_at - ago, claimed_at = claimed_at - ago,
    queued_at = queued_at - ago
FROM (VALUES ('7', interval '8 days'), ('9', interval '2 days')) t (n, ago) WHERE reference = n;
UPDATE wa_outbound_queue q SET created_at = m.queued_at, change_no = change_no + 1
FROM wa_messages m WHERE m.queue_id = q.id;
INSERT INTO wa_messages (number_id, contact_id, phone_e164, wa_message_id, direction, message_type, status,
    state, content_text, created_at, provider_at)
SELECT n.id, world.contact('+15551234567'), '+15551234567', 'wamid.in.' || d, 'inbound', 'text', 'received',
    'received', 'Where is it?', clock_timestamp() - d * interval '1 day', clock_timestamp() - d * interval '1 day'
FROM wa_phone_numbers n, generate_series(0, 1) d;

INSERT INTO wa_automation_flows (phone_e164, flow_type, status, trigger_data, created_at) VALUES
('+15551234567', 'payment_reminder', 'active', '{"payment_link_url": "https://pay.example/1"}', now() - interval '1 day'),
('+15551234567', 'payment_reminder', 'active', '{"payment_link_url": "https://pay.example/2"}', now()),
('+15551234567', 'welcome', 'completed', '{}', now()),
(world.customer(1), 'welcome', 'active', '{}', now());
INSERT INTO siren_templates (name) VALUES ('ORDER_WHATSAPP_24H'), ('ORDER_EMAIL');
INSERT INTO siren_events (template_id, status)
SELECT t.id, s FROM siren_templates t,
    unnest(CASE WHEN t.name LIKE '%WHATSAPP%' THEN '{pending,pending,sent}' ELSE '{pending}' END::text[]) s;
INSERT INTO timeline_entries (event_type, source, content)
SELECT e, s, jsonb_build_object('action', a)
FROM (VALUES ('SYSTEM', 'WHATSAPP', 'LEAD_CREATED', 3), ('SYSTEM', 'WEB', 'LEAD_CREATED', 1),
    ('SYSTEM', 'WHATSAPP', 'LEAD_LOST', 1), ('MESSAGE', 'WHATSAPP', 'LEAD_CREATED', 1)) t (e, s, a, n),
    generate_series(1, t.n);

WITH file AS (
    INSERT INTO wa_media (direction, media_type, status, next_attempt_at)
    VALUES ('inbound', 'image', 'stored', NULL) RETURNING id
)
INSERT INTO wa_media_signatures (media_id, token_hash, expires_at)
SELECT f.id, sha256('token'), clock_timestamp() + e
FROM file f, unnest('{-8 days,-1 hour,1 hour}'::interval[]) e;

INSERT INTO ai_events (id, name, start_date, status) VALUES
('e0e0e0e0-0000-4000-8000-000000000001', 'Tech Summit', now() + interval '30 days', 'draft');
INSERT INTO orders (id, event_id) VALUES
('e0e0e0e0-0000-4000-8000-000000000002', 'e0e0e0e0-0000-4000-8000-000000000001');
INSERT INTO attendees (order_id, attendee_info) SELECT 'e0e0e0e0-0000-4000-8000-000000000002', i
FROM unnest(ARRAY['{"name": "Ada", "phone": "+15551234567"}', '{"name": "Una", "phone": "+54 9 11 4000-0001"}',
    '{"name": "Nemo"}']::jsonb[]) i;
INSERT INTO ai_tasks (id, event_id, task_type, scheduled_for, template_name) VALUES
('e0e0e0e0-0000-4000-8000-000000000003', 'e0e0e0e0-0000-4000-8000-000000000001', 'send_reminder',
    now() + interval '29 days', 'event_reminder_24h');
