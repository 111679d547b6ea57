-- Tests sql/contacts/joins.sql, sql/contacts/user_ids.sql, sql/contacts/contacts.sql, sql/consent/merge.sql, sql/flows/flows.sql,
-- sql/campaigns/broadcasts.sql.
BEGIN;
SELECT plan(66);
\ir ../world.psql
\ir ../customers.psql

-- Ann moves to the number that Bob had, who has opted out. The event names her new user id.
SELECT world.writes(1, 'Hello', 'US.500'), world.writes(2, 'STOP', 'US.501');
INSERT INTO wa_opt_ins (contact_id, source) VALUES (world.found('US.501'), 'form');
SELECT world.moves(1, 2, 100, '{"user_id": "US.502", "previous_user_id": "US.500"}');
SELECT isnt(world.found('US.500'), world.found('US.501'), 'a number alone makes no one of two people');
SELECT is(world.found(2), world.found('US.502'), 'the number is hers who changed to it');
SELECT is(world.found('US.500'), world.found('US.502'), 'both her user ids are');
SELECT is(world.opt_outs(world.found(2)), NULL, 'his opt-out is not hers');
SELECT is(world.opt_outs(world.found('US.501')), 'marketing by keyword, utility by keyword', 'it stays with him');
SELECT is((SELECT count(*) FROM wa_opt_ins WHERE contact_id = world.found(2)), 0::bigint,
    'nor is his consent hers');
SELECT is(phone_e164, NULL, 'he has no number now') FROM wa_contacts WHERE id = world.found('US.501');
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('US.501', 'Hi') $$, 'WA102', NULL,
    'he is not written to');
SELECT lives_ok($$ SELECT world.say(2) $$, 'she is');

-- The same, and the event names no user ids: they may be one, so that his opt-out holds for both.
SELECT world.writes(11, 'Hello', 'US.511'), world.writes(12, 'STOP', 'US.512');
SELECT world.moves(11, 12);
SELECT isnt(world.found('US.511'), world.found('US.512'), 'without user ids they stay two as well');
SELECT is(world.found(12), world.found('US.511'), 'the number goes over');
SELECT is(world.opt_outs(world.found('US.511')), 'marketing by shared, utility by shared', 'the opt-out holds for who has the number now');
SELECT is(world.opt_outs(world.found('US.512')), 'marketing by keyword, utility by keyword', 'and for who had it');
SELECT world.writes(12, 'START', NULL, 200);
SELECT is(world.opt_outs(world.found(12)), NULL, 'who has it may take back hers');
SELECT is(world.opt_outs(world.found('US.512')), 'marketing by keyword, utility by keyword', 'his stays');
SELECT world.writes(12, 'It is me', 'US.513', 300);
SELECT is(world.found('US.513'), world.found('US.511'), 'a new user id with her new number is hers');

-- The event names the user id that the new number has already: its messages came first.
SELECT world.writes(21, 'Hello', 'US.521'), world.writes(22, 'STOP', 'US.522', 150);
SELECT world.moves(21, 22, 100, '{"user_id": "US.522", "previous_user_id": "US.521"}');
SELECT is(world.found('US.521'), world.found('US.522'), 'user ids that an event links are one person''s');
SELECT is(world.opt_outs(world.found('US.521')), 'marketing by keyword, utility by keyword', 'who has opted out');
SELECT is(phone_e164, world.customer(22), 'with the new number') FROM wa_contacts WHERE user_id = 'US.522';

-- Without user ids it goes by when each became known and wrote.
SELECT world.writes(31), world.writes(32, 'STOP', NULL, 101);
SELECT world.found(31) AS before \gset
SELECT world.moves(31, 32);
SELECT is(world.found(32), :before::bigint, 'who wrote from the new number after the change alone is who changed');
SELECT is(world.opt_outs(:before), 'marketing by keyword, utility by keyword', 'what that number said counts');
SELECT world.writes(33), world.writes(34, 'STOP', NULL, 99);
SELECT world.found(34) AS other \gset
SELECT world.moves(33, 34);
SELECT isnt(world.found(34), :other::bigint, 'who wrote from it before is another');
SELECT is(world.opt_outs(world.found(34)), 'marketing by shared, utility by shared', 'or not: the opt-out holds for both');
SELECT world.writes(35), world.writes(36, 'Hello', NULL, 100);
SELECT world.found(36) AS other \gset
SELECT world.moves(35, 36);
SELECT isnt(world.found(36), :other::bigint, 'so is who wrote in the very second');
SELECT world.writes(37);
SELECT opt_out_wa_contact(world.customer(38), 'all') \g /dev/null
SELECT world.found(38) AS other \gset
SELECT world.moves(37, 38);
SELECT isnt(world.found(38), :other::bigint, 'and who never wrote');
SELECT is(world.opt_outs(world.found(38)), 'all by shared', 'whose opt-out holds for both');
SELECT world.writes(38, 'START', NULL, 200);
SELECT world.writes(39), opt_out_wa_contact(world.customer(39), 'marketing') \g /dev/null
SELECT world.writes(40);
SELECT world.found(40) AS other \gset
SELECT world.moves(39, 40);
SELECT is(world.opt_outs(:other), 'marketing by shared', 'so does the opt-out of who changes');

-- Numbers and user ids that are seen together.
SELECT world.writes(51, 'Hello', 'US.551'), world.writes(52, 'STOP', 'US.552');
SELECT world.writes(52, 'Mine now', 'US.551', 100);
SELECT is(world.found(52), world.found('US.551'), 'a number goes to the user id that writes from it');
SELECT isnt(world.found('US.551'), world.found('US.552'), 'which stays another');
SELECT is(world.opt_outs(world.found(52)), NULL, 'and has not opted out');
SELECT world.writes(NULL, 'Hello', 'US.553'), world.writes(54, 'STOP', 'US.554');
SELECT world.writes(54, 'Mine now', 'US.553', 100);
SELECT isnt(world.found('US.553'), world.found('US.554'), 'also when its number was not known');
SELECT world.writes(NULL, 'Hello', 'US.555'), world.writes(55);
SELECT world.writes(55, 'Me', 'US.555', 100);
SELECT is((SELECT count(*) FROM wa_contacts WHERE id IN (world.found('US.555'), world.found(55))), 1::bigint,
    'one that has only a user id and one that has only a number become one');
SELECT world.writes(56, 'Hello', 'US.556'), world.writes(57, 'STOP');
SELECT world.writes(57, 'Hello', 'US.556', 100);
SELECT is(world.opt_outs(world.found(57)), 'marketing by shared, utility by shared', 'where the other one has no user id, it is in doubt');
SELECT world.writes(58, 'STOP', 'US.558');
INSERT INTO wa_opt_ins (contact_id, source) VALUES (world.found('US.558'), 'form');
SELECT world.writes(58, 'Hello', 'US.559', 100);
SELECT is(world.found(58), world.found('US.559'), 'a new user id takes the number over');
SELECT is(world.opt_outs(world.found(58)), 'marketing by shared, utility by shared', 'in doubt the opt-out holds for it');
SELECT is((SELECT count(*) FROM wa_opt_ins WHERE contact_id = world.found(58)), 0::bigint,
    'consent does not');
SELECT world.writes(58, 'Older', 'US.558', 50);
SELECT is(world.found(58), world.found('US.559'), 'what is older takes nothing back');

-- A user id changes, and nothing else is named.
SELECT world.writes(NULL, 'Hello', 'US.200');
SELECT world.told(NULL, NULL, 100, '{"type": "system", "system":
    {"type": "user_changed_user_id", "user_id": "US.201", "previous_user_id": "US.200"}}');
SELECT is((SELECT count(*) FROM wa_webhook_errors), 0::bigint, 'an event without a sender is understood');
SELECT is(world.found('US.200'), world.found('US.201'), 'both ids are one contact''s');
SELECT is(user_id, 'US.201', 'known by the new one') FROM wa_contacts WHERE id = world.found('US.200');
SELECT lives_ok($$ INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('US.201', 'Hi') $$,
    'the window is open to it');
SELECT world.told(NULL, NULL, 200, '{"type": "system", "system":
    {"type": "user_changed_number", "user_id": "US.202", "previous_user_id": "US.201"}}'::jsonb
    || jsonb_build_object('system', jsonb_build_object('type', 'user_changed_number', 'user_id', 'US.202',
        'previous_user_id', 'US.201', 'wa_id', world.wa_id(61))));
SELECT is(world.found(61), world.found('US.200'), 'so is a number that changes to one that is known first by it');
SELECT world.told(NULL, NULL, 300, '{"type": "system", "system": {"type": "user_identity_changed",
    "user_id": "US.202", "identity_key_hash": "abc"}}');
SELECT is(identity_hash, 'abc', 'so is a new identity key') FROM wa_contacts WHERE id = world.found(61);

-- Delivered again, and in any order.
SELECT count(*) AS contacts FROM wa_contacts \gset
SELECT world.message(71, NULL, 150, '{"type": "text", "text": {"body": "Hello"}}') AS late,
    world.message(72, 'US.572', 150, '{"type": "text", "text": {"body": "Hello"}}') AS later \gset
SELECT world.told_all(jsonb_build_array(:'late'::jsonb, :'later'::jsonb));
SELECT world.moves(71, 73, 100), world.moves(72, 74, 100);
SELECT world.told_all(jsonb_build_array(:'late'::jsonb, :'later'::jsonb));
SELECT is((SELECT count(*) FROM wa_contacts), (:contacts + 2)::bigint, 'a text delivered again makes no contact');
SELECT world.writes(75);
SELECT world.found(75) AS before \gset
SELECT world.told_all(jsonb_build_array(world.change(75, 76, 100), world.change(76, 77, 101)));
SELECT is(world.found(77), :before::bigint, 'two changes at once lead to the last number');
SELECT world.writes(78);
SELECT world.found(78) AS before \gset
SELECT world.moves(79, 80, 101), world.moves(78, 79, 100);
SELECT is(world.found(80), :before::bigint, 'so do two in the wrong order');

-- The answer to what was under way to the old number.
SELECT world.writes(81), world.queue(81, 'hello') AS flown_id \gset
SELECT is(world.claimed() > 0, true, 'a message is under way');
SELECT world.moves(81, 82), world.writes(81, 'Who is this?', NULL, 200);
SELECT world.complete(:'flown_id', jsonb_build_object('outcome', 'answered', 'status', 200, 'answer',
    jsonb_build_object('messages', '[{"id": "wamid.flown"}]'::jsonb, 'contacts',
        jsonb_build_array(jsonb_build_object('wa_id', '5491199999999'))))) \g /dev/null
SELECT is(world.found('+5491199999999'), NULL, 'its answer tells nothing of who has moved');
SELECT world.writes(83), world.writes(84, 'STOP'), world.queue(83, 'hello') AS dialled_id \gset
SELECT is(world.claimed() > 0, true, 'another one');
SELECT world.complete(:'dialled_id', jsonb_build_object('outcome', 'answered', 'status', 200, 'answer',
    jsonb_build_object('messages', '[{"id": "wamid.dialled"}]'::jsonb, 'contacts',
        jsonb_build_array(jsonb_build_object('wa_id', world.wa_id(84)))))) \g /dev/null
SELECT isnt(world.found(83), world.found(84), 'two who have both written are no one for an answer''s sake');
SELECT is(world.opt_outs(world.found(83)), 'marketing by shared, utility by shared', 'an opt-out holds for both');

-- States of what was sent to the former owner, told late.
SELECT world.writes(85, 'Hello', 'US.585'), world.writes(86, 'Hello', 'US.586'), world.queue(86) AS read_id \gset
SELECT is(world.claimed() > 0, true, 'a message is sent');
SELECT world.accept(:'read_id', 'wamid.read') \g /dev/null
UPDATE wa_messages SET sent_at = sent_at - interval '9 minutes' WHERE wa_message_id = 'wamid.read';
SELECT world.moves(85, 86, 100, '{"user_id": "US.587", "previous_user_id": "US.585"}');
SELECT world.told_all(jsonb_build_array(world.message(NULL, NULL, 200, '{"id": "wamid.read", "status": "read",
    "recipient_user_id": "US.586"}'::jsonb || jsonb_build_object('recipient_id', world.wa_id(86)))), 'statuses');
SELECT is((SELECT state FROM wa_messages WHERE wa_message_id = 'wamid.read'), 'read', 'it is read');
SELECT is(world.found(86), world.found('US.587'), 'which takes the number from nobody');

-- Flows and notifications go along.
SELECT world.writes(91), world.writes(92);
INSERT INTO siren_templates (name) VALUES ('reminder');
INSERT INTO wa_automation_flows (phone_e164, flow_type) VALUES (world.customer(91), 'mine'),
(world.customer(92), 'his');
INSERT INTO siren_events (phone_e164, template_id) SELECT world.customer(n), t.id
FROM siren_templates t, unnest(ARRAY[91, 92]) n;
INSERT INTO wa_broadcast_lists (name) VALUES ('spring');
SELECT add_wa_broadcast_members('spring', ARRAY[world.customer(91), world.customer(92)]) \g /dev/null
SELECT world.moves(91, 92);
SELECT results_eq('SELECT flow_type, phone_e164, status FROM wa_automation_flows ORDER BY flow_type DESC',
    $$ VALUES ('mine', world.customer(92), 'active'), ('his', world.customer(92), 'failed') $$,
    'a flow goes on at the new number; one whose customer has none ends');
SELECT results_eq('SELECT phone_e164, status FROM siren_events ORDER BY status DESC',
    $$ VALUES (world.customer(92), 'pending'), (world.customer(92), 'cancelled') $$,
    'so does a notification');
SELECT results_eq('SELECT phone FROM wa_broadcast_recipients', ARRAY[world.customer(92)],
    'a list has the new number once; who has none is no recipient');
SELECT is((SELECT count(*) FROM wa_broadcast_members), 2::bigint, 'though a member');

-- Parent ids are user ids, too.
SELECT world.told(101, 'US.601', 0,
    '{"from_parent_user_id": "US.ENT.1", "type": "text", "text": {"body": "STOP"}}');
SELECT is(world.found('US.ENT.1'), world.found('US.601'), 'a parent id finds its contact');
SELECT is(user_id, 'US.601', 'who is known by his own') FROM wa_contacts WHERE id = world.found(101);
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('US.ENT.1', 'hello') $$, 'WA102',
    NULL, 'his opt-out holds for it');
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('US.ENT.2', 'hello');
SELECT world.told(102, 'US.602', 0,
    '{"from_parent_user_id": "US.ENT.2", "type": "text", "text": {"body": "Hello"}}');
SELECT is(world.found('US.ENT.2'), world.found(102), 'one that was written to before becomes one with his');
SELECT world.told(NULL, NULL, 100, '{"type": "system", "system": {"type": "user_changed_user_id",
    "parent_user_id": "US.ENT.3", "previous_parent_user_id": "US.ENT.2"}}');
SELECT is(world.found('US.ENT.3'), world.found(102), 'so does the one that replaces it, though nothing else is named');
SELECT is(parent_user_id, 'US.ENT.3', 'it is his now') FROM wa_contacts WHERE id = world.found(102);
SELECT is(user_id, 'US.602', 'beside his own') FROM wa_contacts WHERE id = world.found(102);
SELECT world.told(NULL, NULL, 200, '{"from_parent_user_id": "US.ENT.3", "type": "text",
    "text": {"body": "Hello"}}');
SELECT is((SELECT count(*) FROM wa_webhook_errors), 0::bigint, 'who is named by it alone is known');

SELECT * FROM finish();
ROLLBACK;
