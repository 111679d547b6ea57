-- Tests sql/api/conversations.sql.
BEGIN;
SELECT plan(32);
\ir ../world.psql
CREATE ROLE wa_conversations_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true);
SELECT world.wrote(n) FROM generate_series(1, 4) n;
SELECT world.wrote(5, '23 hours 50 minutes');
SELECT world.wrote(1, '0', '101');
UPDATE wa_contacts SET profile_name = 'Ann Archer' WHERE phone_e164 = world.customer(1);
UPDATE wa_contacts SET profile_name = 'Bo 100%', username = 'bo' WHERE phone_e164 = world.customer(2);
UPDATE wa_conversation_windows SET unread_count = 2 WHERE contact_id = world.contact(world.customer(3));
UPDATE wa_conversation_windows SET state = 'waiting' WHERE contact_id = world.contact(world.customer(4));
INSERT INTO wa_messages (number_id, phone_number_id, contact_id, phone_e164, wa_message_id, direction, message_type,
    status, state, content_text)
SELECT n.id, n.phone_number_id, c.id, c.phone_e164, 'wamid.' || s, 'inbound', 'text', 'received', 'received',
    'Message ' || s || CASE s WHEN 3 THEN ' about refunds' ELSE '' END
FROM generate_series(1, 7) s
JOIN wa_contacts c ON c.phone_e164 = world.customer((ARRAY[1, 2, 3, 4, 5, 1, 1])[s])
JOIN wa_phone_numbers n ON n.phone_number_id = CASE s WHEN 7 THEN '101' ELSE '100' END
ORDER BY s;
CREATE FUNCTION world.found(p jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg((c #>> '{last_message,text}'), ', ' ORDER BY n)
    FROM jsonb_array_elements(p -> 'conversations') WITH ORDINALITY x (c, n)
$$;
SET LOCAL ROLE wa_conversations_app;

-- the list
SELECT is(world.found(search_wa_conversations()),
    'Message 7, Message 6, Message 5, Message 4, Message 3 about refunds, Message 2',
    'conversations by their latest message, one a business number');
SELECT is(world.found(search_wa_conversations(p_search => '+54 9 11 4000-0002')), 'Message 2', 'one by its number');
SELECT is(world.found(search_wa_conversations(p_search => '40000003')), 'Message 3 about refunds', 'by a part of it');
SELECT is(world.found(search_wa_conversations(p_search => 'archer')), 'Message 7, Message 6', 'by a name');
SELECT is(world.found(search_wa_conversations(p_search => '100%')), 'Message 2', 'which may hold anything');
SELECT is(world.found(search_wa_conversations(p_search => '%')), 'Message 2', 'and stands for itself');
SELECT is(world.found(search_wa_conversations(p_search => 'bo')), 'Message 2', 'by a user name');
SELECT is(world.found(search_wa_conversations(p_search => 'refunds')), 'Message 3 about refunds', 'by what was said');
SELECT is(world.found(search_wa_conversations(p_search => 'refunds unicorn')), NULL, 'all words count');
SELECT is(world.found(search_wa_conversations(p_search => '   ')), world.found(search_wa_conversations()),
    'no words are no search');
SELECT is(world.found(search_wa_conversations(p_state => 'waiting')), 'Message 4', 'those in a state');
SELECT is(world.found(search_wa_conversations(p_is_unread => true)), 'Message 3 about refunds', 'unread ones');
SELECT is(world.found(search_wa_conversations(p_is_unread => false, p_phone_number_id => '101')), 'Message 7',
    'those of a number, of both at once');
SELECT is(world.found(search_wa_conversations(p_closing_within => '15 minutes')), 'Message 5',
    'those whose window closes soon');
SELECT throws_ok($$ SELECT search_wa_conversations(p_state => 'gone') $$, '22023', NULL, 'a state is a known one');
SELECT throws_ok($$ SELECT search_wa_conversations(p_limit => 0) $$, '22023', 'limit must be 1 to 200, not 0', 'a page holds something');
SELECT throws_ok($$ SELECT search_wa_conversations(p_limit => 201) $$, '22023', NULL, 'and not too much');
SELECT throws_ok($$ SELECT search_wa_conversations(p_limit => NULL) $$, '22023', NULL, 'nor nothing in particular');

-- pages
SELECT search_wa_conversations(p_limit => 4) AS page \gset
SELECT is(world.found(:'page'::jsonb), 'Message 7, Message 6, Message 5, Message 4', 'a page is full');
SELECT is(world.found(search_wa_conversations(p_limit => 4, p_cursor => :'page'::jsonb ->> 'next')),
    'Message 3 about refunds, Message 2', 'the next one goes on');
SELECT is(search_wa_conversations(p_limit => 6) ->> 'next', NULL, 'the last one has none after it');
SELECT throws_ok($$ SELECT search_wa_conversations(p_cursor => 'MQ') $$, '22023', 'that is no cursor of ours', 'a cursor is ours');
SELECT throws_ok($$ SELECT search_wa_conversations(p_cursor => '%%%') $$, '22023', NULL, 'or none');

-- one
SELECT get_wa_conversation('+5491140000001', 2) AS thread \gset
SELECT results_eq(format($$ SELECT string_agg(m ->> 'text', ', ' ORDER BY n), jsonb_array_length(%1$L::jsonb -> 'conversations')
    FROM jsonb_array_elements(%1$L::jsonb -> 'messages') WITH ORDINALITY x (m, n) $$, :'thread'),
    $$ VALUES ('Message 7, Message 6', 2) $$, 'what was said, newest first, with all numbers');
SELECT is(get_wa_conversation('+5491140000001', 2, :'thread'::jsonb ->> 'next') #>> '{messages,0,text}', 'Message 1',
    'page by page');
SELECT is(get_wa_conversation('+5491140000001', 2, :'thread'::jsonb ->> 'next') ->> 'next', NULL, 'to the end');
SELECT is(jsonb_array_length(get_wa_conversation('+5491140000001', p_phone_number_id => '101') -> 'messages'), 1,
    'or with one number only');
SELECT throws_ok($$ SELECT get_wa_conversation('+5491140009999') $$, 'P0002', NULL, 'who is not known has none');

-- a test key
SELECT set_config('wa.is_test_only', 'true', true);
SELECT is(world.found(search_wa_conversations()), 'Message 7', 'a test key sees test numbers only');
SELECT is(jsonb_array_length(get_wa_conversation('+5491140000001') -> 'messages'), 1, 'and what was said with them');
SELECT is(get_wa_conversation('+5491140000001') #>> '{conversations,0,phone_number_id}', '101', 'and how it stands');
SELECT is(jsonb_array_length(get_wa_conversation('+5491140000001') -> 'conversations'), 1, 'with them alone');

SELECT * FROM finish();
