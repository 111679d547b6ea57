-- Tests sql/sending/explain.sql, sql/queue/policy.sql.
BEGIN;
SELECT plan(29);
\ir ../world.psql
SELECT world.wrote(n) FROM generate_series(1, 3) n;

-- previews: what is sent is what was shown
CREATE TEMPORARY TABLE examples (type text, content jsonb);
INSERT INTO examples VALUES
('image', '{"id": "1", "caption": "c"}'),
    ('document', '{"link": "https://x.example/a.pdf", "filename": "a.pdf"}'),
('audio', '{"id": "1"}'), ('video', '{"id": "1"}'), ('sticker', '{"id": "1"}'),
('location', '{"latitude": 1.5, "longitude": -58, "name": "Shop"}'),
('contacts', '[{"name": {"formatted_name": "Eva M", "first_name": "Eva"}}]'),
('interactive', '{"type": "button", "body": {"text": "?"}, "action": {"buttons": [{"type": "reply",
    "reply": {"id": "y", "title": "Yes"}}]}}'),
('interactive', '{"type": "list", "body": {"text": "?"}, "action": {"button": "Choose",
    "sections": [{"rows": [{"id": "1", "title": "One"}]}]}}'),
('interactive', '{"type": "cta_url", "body": {"text": "?"}, "action": {"name": "cta_url",
    "parameters": {"display_text": "Open", "url": "https://x.example"}}}'),
('interactive', '{"type": "flow", "body": {"text": "?"}, "action": {"name": "flow",
    "parameters": {"flow_message_version": "3", "flow_id": "1", "flow_cta": "Start", "flow_token": "t"}}}'),
('interactive', '{"type": "location_request_message", "body": {"text": "?"},
    "action": {"name": "send_location"}}'),
('interactive', '{"type": "product", "action": {"catalog_id": "1", "product_retailer_id": "s"}}'),
('interactive', '{"type": "product_list", "header": {"type": "text", "text": "Ours"}, "body": {"text": "?"},
    "action": {"catalog_id": "1", "sections": [{"title": "S",
    "product_items": [{"product_retailer_id": "s"}]}]}}'),
('interactive', '{"type": "catalog_message", "body": {"text": "?"}, "action": {"name": "catalog_message"}}');
INSERT INTO wa_outbound_queue (phone, type, content, reply_to) SELECT world.customer(1), type, content,
    'wamid.quoted' FROM examples;
SELECT is_empty($$
    SELECT q.type, preview_wa_request(q.id) FROM wa_outbound_queue q
    WHERE preview_wa_request(q.id) <> jsonb_build_object('messaging_product', 'whatsapp', 'recipient_type',
        'individual',
        'to', q.phone, 'type', q.type, q.type, q.content, 'context', '{"message_id": "wamid.quoted"}'::jsonb,
        'biz_opaque_callback_data', 'q:' || q.id || ':1')
$$, 'every type stands under its own name, as it was given');
CREATE TEMPORARY TABLE previews AS SELECT id, preview_wa_request(id) AS body FROM wa_outbound_queue;
SELECT is_empty('SELECT c.body
    FROM world.claim() c JOIN previews p ON p.id = c.queue_id WHERE p.body <> c.body',
    'and is sent as it was shown');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE status = 'sending'), 15::bigint, 'all of them');
SELECT is_empty('SELECT 1 FROM previews p WHERE preview_wa_request(p.id) <> p.body',
    'and shown so while it is being sent');
SELECT world.accept_all();
SELECT is_empty('SELECT 1 FROM previews p WHERE preview_wa_request(p.id) <> p.body', 'and after it was sent');
SELECT world.later('10 minutes');
INSERT INTO wa_outbound_queue (phone, type, content, reply_to, reference)
VALUES (world.customer(1), 'reaction', '{"message_id": "wamid.x", "emoji": "😀"}', 'wamid.quoted', 'reaction'),
(world.customer(1), 'text', '{"body": "see https://x.example", "preview_url": true}', NULL, 'text');
SELECT is(preview_wa_request(id) - 'biz_opaque_callback_data', jsonb_build_object('messaging_product',
    'whatsapp',
    'recipient_type', 'individual', 'to', phone, 'type', 'reaction', 'reaction', content),
    'a reaction quotes by itself')
FROM wa_outbound_queue WHERE reference = 'reaction';
SELECT is(preview_wa_request(id) -> 'text', '{"body": "see https://x.example", "preview_url": true}',
    'a text keeps its preview')
FROM wa_outbound_queue WHERE reference = 'text';
SELECT world.say(2, 'plain');
SELECT is(preview_wa_request(id) -> 'text', '{"body": "plain"}', 'a plain text has only a body')
    FROM wa_outbound_queue WHERE text_body = 'plain';
INSERT INTO wa_templates (name, language, category, status, body_text, header_text, buttons) VALUES
('full', 'es_AR', 'UTILITY', 'APPROVED', 'Hola {{1}}', 'Pedido {{1}}',
    '[{"type": "URL", "text": "Ver", "url": "https://x.example/{{1}}"}]');
INSERT INTO wa_outbound_queue (phone, template_name, template_language, template_params, reference) VALUES
(world.customer(2), 'FULL', 'es_AR', '{"header": ["77"], "body": ["Ana"], "buttons": ["track"]}', 'full');
SELECT is(preview_wa_request(id) -> 'template',
    '{"name": "full", "language": {"code": "es_AR"}, "components": [
    {"type": "header", "parameters": [{"type": "text", "text": "77"}]},
    {"type": "body", "parameters": [{"type": "text", "text": "Ana"}]},
    {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "track"}]}]}',
    'a template with all its components') FROM wa_outbound_queue WHERE reference = 'full';
SELECT world.queue(2, 'code', '["123456"]');
SELECT is(preview_wa_request(id) #>> '{template,components,0,parameters,0,text}', '123456',
    'an authentication template')
FROM wa_outbound_queue WHERE template_name = 'code';
SELECT world.queue(2, 'hello');
SELECT is(preview_wa_request(id) -> 'template', '{"name": "hello", "language": {"code": "en"}}',
    'one without values has no components')
FROM wa_outbound_queue WHERE template_name = 'hello';
INSERT INTO wa_templates (name, language, category, status, body_text) VALUES
('greeting', 'es', 'UTILITY', 'APPROVED', 'Hola'), ('greeting', 'pt_BR', 'UTILITY', 'APPROVED', 'Oi');
INSERT INTO wa_outbound_queue (phone, template_name, template_language, reference) VALUES
(world.customer(2), 'greeting', 'es-MX', 'es'), (world.customer(2), 'greeting', 'pt_br', 'pt');
SELECT results_eq($$ SELECT q.reference, e.reason, preview_wa_request(q.id) #>> '{template,language,code}',
        substring(e.explanation FROM '; (goes.*)') FROM wa_outbound_queue q, explain_wa_message(q.id) e
        WHERE q.template_name = 'greeting' ORDER BY 1 $$,
    $$ VALUES ('es', 'waiting', 'es', 'goes in the language es, for es-MX'), ('pt', 'waiting', 'pt_BR', NULL) $$,
    'a language that stands for the one asked for is said');
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, template_name, template_language) VALUES
    (world.customer(2), 'greeting', 'pt_PT') $$, 'WA002',
    'template "greeting" is not known in language "pt_PT"', 'another region is not sent');
SELECT throws_ok('SELECT preview_wa_request(gen_random_uuid())', 'P0002', NULL,
    'there is nothing to show of what is not there');

-- reasons: claim.sql, limits.sql and settle.sql see them arise; here are the rest
SELECT world.accept_all() FROM world.claim();
SELECT world.later('10 minutes');
SELECT world.queue(10);
SELECT is(world.reason(id), 'waiting', 'due') FROM wa_outbound_queue WHERE reference = '10';
SELECT matches(e.explanation, 'no access token is stored', 'which a missing token may be the reason of')
FROM wa_outbound_queue q, explain_wa_message(q.id) e WHERE q.reference = '10';
SELECT set_wa_secret('access_token', NULL, decode(repeat('00', 40), 'hex'), 'key', 'print') \g /dev/null
SELECT is(e.explanation, 'due; its turn comes with the number''s throughput', 'or not')
FROM wa_outbound_queue q, explain_wa_message(q.id) e WHERE q.reference = '10';
SELECT stop_wa_dispatcher('00000000-0000-0000-0000-000000000001');
SELECT results_eq($$ SELECT e.status, e.reason, e.hint FROM wa_outbound_queue q, explain_wa_message(q.id) e
    WHERE q.reference = '10' $$,
    $$ VALUES ('pending', 'no_dispatcher', 'Start bin/wa dispatch.') $$, 'nobody sends');
SELECT maintain_wa_dispatch('00000000-0000-0000-0000-000000000001');
SELECT is(world.reason(id), 'waiting', 'a heartbeat tells otherwise') FROM wa_outbound_queue
    WHERE reference = '10';
UPDATE wa_dispatchers SET seen_at = clock_timestamp() - interval '31 seconds';
SELECT is(world.reason(id), 'no_dispatcher', 'a dispatcher that was not seen for long does not count')
    FROM wa_outbound_queue WHERE reference = '10';
SELECT maintain_wa_dispatch('00000000-0000-0000-0000-000000000001');
ALTER TABLE wa_opt_outs DISABLE TRIGGER USER;
INSERT INTO wa_opt_outs (contact_id, scope) VALUES (world.contact(world.customer(10)), 'all');
ALTER TABLE wa_opt_outs ENABLE TRIGGER USER;
SELECT results_eq($$ SELECT e.reason, e.explanation FROM wa_outbound_queue q, explain_wa_message(q.id) e
    WHERE q.reference = '10' $$,
    $$ VALUES ('opted_out', 'the contact asked not to be written to; it will fail when it is claimed') $$,
    'what will fail is foretold');
DELETE FROM wa_opt_outs;
SELECT cancel_wa_messages(reference => '10');
SELECT results_eq($$ SELECT e.status, e.reason, e.explanation FROM wa_outbound_queue q,
    explain_wa_message(q.id) e WHERE q.reference = '10' $$,
    $$ VALUES ('cancelled', 'cancelled', 'cancelled') $$, 'cancelled');
SELECT throws_ok('SELECT * FROM explain_wa_message(gen_random_uuid())', 'P0002', NULL,
    'nothing is said of what is not there');

-- the overview
SELECT world.queue(20), world.queue(21), world.queue(22);
INSERT INTO wa_outbound_queue (phone, template_name, scheduled_at, reference)
VALUES (world.customer(23), 'hello', now() + interval '1 hour', '23');
SELECT results_eq($$ SELECT phone_number_id, due, scheduled, held, in_flight, outcome_unknown, hold_reason,
    dispatchers FROM wa_queue_health $$,
    $$ VALUES ('100', 3::bigint, 1::bigint, 0::bigint, 0::bigint, 0::bigint, NULL, 1::bigint) $$,
    'one line per number');
CREATE TEMPORARY TABLE got AS SELECT * FROM world.claim(3);
SELECT world.refuse(queue_id, 131000, 500) FROM got WHERE n = 1;
SELECT world.complete(queue_id, '{"outcome": "unknown"}') FROM got WHERE n = 2;
SELECT results_eq($$ SELECT due, scheduled, held, in_flight, outcome_unknown, hold_reason
    FROM wa_queue_health $$,
    $$ VALUES (0::bigint, 1::bigint, 1::bigint, 1::bigint, 1::bigint, 'retry') $$, 'what became of them');
SELECT ok(held_until > clock_timestamp(), 'until when') FROM wa_queue_health;
CREATE ROLE wa_health_app IN ROLE wa_app;
CREATE ROLE wa_health_other IN ROLE wa_app;
CREATE ROLE wa_health_admin IN ROLE wa_admin;
SELECT add_wa_organization_role(current_wa_organization(), 'wa_health_app');
SELECT create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001');
SELECT add_wa_organization_role('0b0b0b0b-0000-4000-8000-000000000001', 'wa_health_other');
SET LOCAL ROLE wa_health_app;
SELECT is((SELECT count(*) FROM wa_queue_health), 1::bigint, 'an application sees its own numbers');
SET LOCAL ROLE wa_health_other;
SELECT is((SELECT count(*) FROM wa_queue_health), 0::bigint, 'not those of others');
SET LOCAL ROLE wa_health_admin;
SELECT is((SELECT count(*) FROM wa_queue_health), 1::bigint, 'an administrator sees all');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
