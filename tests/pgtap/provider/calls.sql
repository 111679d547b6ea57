-- Tests sql/provider/calls.sql, sql/provider/seam.sql, sql/conversations/reading.sql,
-- sql/api/provider_calls.sql.
BEGIN;
SELECT plan(74);
\ir ../world.psql
CREATE ROLE wa_calls_app IN ROLE wa_app;
CREATE ROLE wa_calls_dispatcher IN ROLE wa_dispatcher;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true);
SELECT register_wa_phone_number('102', '+1 555 123 4569', '201', provider => '360dialog');
CREATE FUNCTION world.received(p_n integer, p_wamid text, p_ago interval DEFAULT '1 minute', p_type text DEFAULT 'text',
    p_number text DEFAULT '100') RETURNS void LANGUAGE sql AS $$
    SELECT world.wrote(p_n, p_ago, p_number);
    UPDATE wa_conversation_windows w SET unread_count = unread_count + 1
    FROM wa_phone_numbers n
    WHERE n.phone_number_id = p_number AND w.number_id = n.id AND w.contact_id = world.contact(world.customer(p_n));
    INSERT INTO wa_messages (number_id, phone_number_id, contact_id, phone_e164, wa_message_id, direction,
        message_type, status, state, provider_at)
    SELECT n.id, n.phone_number_id, world.contact(world.customer(p_n)), world.customer(p_n), p_wamid, 'inbound',
        p_type, 'received', 'received', clock_timestamp() - p_ago
    FROM wa_phone_numbers n WHERE n.phone_number_id = p_number
$$;
CREATE FUNCTION world.unread(p_n integer) RETURNS integer LANGUAGE sql AS $$
    SELECT sum(unread_count)::integer FROM wa_conversations WHERE phone_e164 = world.customer(p_n)
$$;
CREATE TABLE world.claims AS SELECT * FROM claim_wa_provider_calls(0, (SELECT schema_version FROM wa_version()));
GRANT ALL ON world.claims TO PUBLIC;
CREATE FUNCTION world.calls(p_limit integer DEFAULT 100) RETURNS text LANGUAGE sql AS $$
    DELETE FROM world.claims;
    INSERT INTO world.claims SELECT * FROM claim_wa_provider_calls(p_limit, (SELECT schema_version FROM wa_version()));
    SELECT string_agg(path || ' ' || (body::jsonb ->> 'message_id'), ', ' ORDER BY path, body) FROM world.claims
$$;
CREATE FUNCTION world.told(p_more jsonb, p_attempt integer DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT array_to_string(complete_wa_provider_calls(jsonb_agg(jsonb_build_object(
        'org', organization_id, 'call', call_id, 'attempt', coalesce(p_attempt, attempt)
    ) || p_more)), ',', 'nothing') FROM world.claims
$$;
CREATE FUNCTION world.due() RETURNS void LANGUAGE sql AS $$
    UPDATE wa_provider_calls SET next_attempt_at = clock_timestamp() - interval '1 second'
    WHERE state = 'pending'
$$;
SELECT world.received(1, 'wamid.a', '2 minutes'), world.received(1, 'wamid.b'),
    world.received(1, 'wamid.c', '0', 'reaction');

-- marking
SET LOCAL ROLE wa_calls_app;
SELECT results_eq(
    $$ SELECT phone_number_id, marked FROM mark_wa_read(world.customer(1)) $$, $$ VALUES ('100', 3) $$,
    'a conversation is marked'
);
SELECT is(world.unread(1), 0, 'here at once');
SELECT results_eq(
    $$ SELECT kind, state, path, body FROM wa_provider_calls $$,
    $$ VALUES ('mark_read', 'pending', '/100/messages',
        '{"status": "read", "message_id": "wamid.b", "messaging_product": "whatsapp"}'::jsonb) $$,
    'and the provider is to be told of the latest message that can be read'
);
SELECT mark_wa_read(world.customer(1)), mark_wa_read(world.customer(1));
SELECT is((SELECT count(*) FROM wa_provider_calls), 1::bigint, 'once, however often it is asked for');
SELECT throws_ok($$ SELECT mark_wa_read(world.customer(9)) $$, 'P0002', NULL, 'a stranger has no conversation');
SELECT throws_ok($$ SELECT mark_wa_read(world.customer(1), p_phone_number_id => '101') $$, 'P0002', NULL,
    'nor one with another number');
SELECT throws_ok($$ SELECT mark_wa_read(world.customer(1), p_phone_number_id => '9') $$, 'WA010', NULL,
    'nor one with a number that is not registered');
SELECT throws_ok($$ UPDATE wa_provider_calls SET state = 'done' $$, '42501', NULL, 'rows are ours to write');
SELECT throws_ok($$ SELECT claim_wa_provider_calls(1, '') $$, '42501', NULL, 'and dispatchers'' to take');

-- claiming
SET LOCAL ROLE wa_calls_dispatcher;
SELECT ok(has_wa_provider_calls(), 'a call is due');
SELECT is(world.calls(), '/100/messages wamid.b', 'a dispatcher gets it');
SELECT is((SELECT body::jsonb ? 'typing_indicator' FROM world.claims), false, 'with no word of typing');
SELECT ok(NOT has_wa_provider_calls(), 'nothing is left');
SELECT is(world.told('{"outcome": "answered", "status": 200}', 7), 'nothing', 'another attempt ends nothing');
SELECT is(world.told('{"outcome": "answered", "status": 200, "answer": {"success": true}}'), 'done', 'the answer does');
SELECT is(world.told('{"outcome": "no_answer"}'), 'nothing', 'once');
SET LOCAL ROLE wa_calls_app;
SELECT mark_wa_read(world.customer(1));
SELECT is((SELECT count(*) FROM wa_provider_calls), 1::bigint, 'what was told is not told again');
RESET ROLE;
SELECT world.received(1, 'wamid.d', '0');
SELECT is(world.unread(1), 1, 'the next message is unread');

-- typing
SELECT is((SELECT marked FROM mark_wa_read(world.customer(1), p_typing => true)), 1, 'typing marks, too');
SELECT is(world.calls(), '/100/messages wamid.d', 'and is told');
SELECT is((SELECT body::jsonb -> 'typing_indicator' FROM world.claims), '{"type": "text"}', 'with the indicator');
SELECT mark_wa_read(world.customer(1), p_typing => true);
SELECT is(world.told('{"outcome": "answered", "status": 200}'), 'nothing',
    'what was changed meanwhile is not done by the answer to what was before');
SELECT is(world.calls(), '/100/messages wamid.d', 'but called anew');
UPDATE wa_provider_calls SET passing_until = clock_timestamp() WHERE state = 'pending';
SELECT world.due();
SELECT is(world.calls(), '/100/messages wamid.d', 'a lease that ran out is made again');
SELECT is((SELECT body::jsonb ? 'typing_indicator' FROM world.claims), false, 'without what is too late');

-- failing
SELECT is(_wa_call_wait('answered', 400, '{"error": {"code": 2200}}', 1, NULL, 0.5, 'meta'), NULL,
    'a refusal with a code of no rule is final');
SELECT isnt(_wa_call_wait('answered', 400, '{"error": {"code": 2200, "is_transient": true}}', 1, NULL, 0.5, 'meta'), NULL,
    'unless it says that it passes');
SELECT is(world.told('{"outcome": "no_answer", "error": "TimeoutException"}'), 'pending', 'no answer: tried again');
SELECT is(world.calls(), NULL, 'not at once');
SELECT mark_wa_read(world.customer(1), p_typing => true);
SELECT is(world.calls(), NULL, 'nor because somebody asks again');
SELECT world.due(), world.calls();
SELECT is(world.told('{"outcome": "answered", "status": 429, "retry_after": 1800}'), 'pending', 'too many calls');
SELECT ok((SELECT next_attempt_at > clock_timestamp() + interval '29 minutes' FROM wa_provider_calls
    WHERE state = 'pending'), 'the provider says when');
SELECT world.due(), world.calls();
SELECT is(world.told('{"outcome": "answered", "status": 400, "answer": {"error": {"code": 80007}}}'), 'pending',
    'so does the rule of a code');
SELECT world.due(), world.calls();
SELECT is(world.told('{"outcome": "answered", "status": 401, "answer": {"error": {"code": 190, "message": "Dead."}}}'),
    'failed', 'a dead token is final');
SELECT is((SELECT error FROM wa_provider_calls WHERE state = 'failed'), '190: Dead.', 'with the reason');
SELECT is((SELECT value FROM wa_metrics WHERE name = 'wa_provider_calls_failed_recent'), 1::double precision,
    'which monitors see');
SELECT is((mark_wa_read(world.customer(1))).marked, 0, 'what failed may be asked for again');
SELECT is(world.calls(), '/100/messages wamid.d', 'and is called again');
SELECT is(world.told('{"outcome": "no_token", "error": "no token"}'), 'pending', 'another process may have the token');
SELECT world.due(), world.calls(), world.told('{"outcome": "no_token"}'), world.due(), world.calls();
SELECT is(world.told('{"outcome": "no_token", "error": "no token"}'), 'failed', 'but hardly the third time');
SELECT mark_wa_read(world.customer(1));
UPDATE wa_provider_calls SET give_up_at = clock_timestamp(), error = 'TimeoutException' WHERE state = 'pending';
SELECT is(world.calls(), NULL, 'what is too late is not called');
SELECT is((SELECT error FROM wa_provider_calls ORDER BY created_at DESC LIMIT 1),
    'not done in time, at last: TimeoutException', 'and says so');
SELECT world.received(1, 'wamid.n', '0');
SELECT mark_wa_read(world.customer(1));
UPDATE wa_provider_calls SET arguments = arguments || '{"most": 2}' WHERE state = 'pending';
SELECT is(world.calls(), '/100/messages wamid.n', 'what the provider counts is called');
SELECT world.due();
SELECT is(world.calls(), '/100/messages wamid.n', 'and again where a process died over it');
SELECT world.due();
SELECT is(world.calls(), NULL, 'but no more often than it may be');
SELECT is((SELECT error FROM wa_provider_calls ORDER BY created_at DESC LIMIT 1),
    'made 2 times, at last: nothing was heard', 'which is told');

-- which can be marked
SELECT world.received(2, 'wamid.old', '31 days');
SELECT results_eq($$ SELECT marked, call_id FROM mark_wa_read(world.customer(2)) $$, $$ VALUES (1, NULL::uuid) $$,
    'what is older than 30 days is marked here alone');
SELECT world.received(3, 'wamid.e', p_number => '102');
SELECT mark_wa_read(world.customer(3));
SELECT is(world.calls(), '/messages wamid.e', '360dialog has its own path');
UPDATE wa_phone_numbers SET provider = 'twilio' WHERE phone_number_id = '102';
SELECT throws_ok($$ SELECT mark_wa_read(world.customer(3)) $$, '0A000', NULL, 'Twilio cannot be told');
SELECT world.received(4, 'wamid.t1', p_number => '101'), world.received(4, 'wamid.t2', '1 hour');
SET LOCAL wa.is_test_only = true;
SELECT throws_ok($$ SELECT mark_wa_read(world.customer(1)) $$, 'WA605', NULL, 'a test key marks on test numbers');
SELECT is((mark_wa_read(world.customer(4))).phone_number_id, '101', 'only');
SELECT throws_ok(format($$ SELECT get_wa_provider_call(%L) $$, (SELECT id FROM wa_provider_calls
    WHERE phone_number_id = '100' LIMIT 1)), 'P0002', NULL, 'and sees their calls alone');
SET LOCAL wa.is_test_only = false;
SELECT is(get_wa_provider_call((mark_wa_read(world.customer(4))).call_id) ->> 'state', 'pending', 'a call is shown');
SELECT is(world.unread(4), 1, 'of several numbers the newest conversation is meant');

-- one tenant beside another
SELECT world.received(n, 'wamid.' || n) FROM generate_series(11, 30) n;
SELECT mark_wa_read(world.customer(n)) FROM generate_series(11, 30) n;
SELECT world.calls();
SELECT is((SELECT count(*) FROM world.claims), 3::bigint,
    'few at a time of each organization, of which one is under way already');
SELECT is((SELECT count(*) FROM claim_wa_provider_calls(100, (SELECT schema_version FROM wa_version()))), 0::bigint,
    'and no more while those are under way');
DELETE FROM wa_phone_numbers n WHERE n.phone_number_id = '102';
UPDATE wa_provider_calls SET state = 'pending', ended_at = NULL, next_attempt_at = '-infinity'
WHERE phone_number_id = '102';
SELECT renew_wa_provider_calls(array_agg(organization_id), array_agg(call_id), array_agg(attempt), '0 seconds')
FROM world.claims;
SELECT is((SELECT count(*) FROM world.claims c JOIN wa_provider_calls p ON p.id = c.call_id
    WHERE p.next_attempt_at > clock_timestamp()), 0::bigint, 'what is handed back is due');
SELECT world.calls();
SELECT is((SELECT error FROM wa_provider_calls WHERE phone_number_id = '102'),
    'the business number is not registered any more', 'a number that is gone is a reason');

-- counting after marking
SELECT world.received(5, 'wamid.f', '10 minutes');
SELECT mark_wa_read(world.customer(5));
SELECT world.received(5, 'wamid.g', '0');
INSERT INTO wa_messages (number_id, contact_id, direction, message_type, status, state, provider_at, wa_message_id)
SELECT number_id, contact_id, 'outbound', 'text', 'sent', 'sent', clock_timestamp() - interval '1 hour', 'wamid.h'
FROM wa_messages WHERE wa_message_id = 'wamid.g';
SELECT _wa_record_business_messages(current_wa_organization(), ARRAY(SELECT id FROM wa_messages
    WHERE wa_message_id = 'wamid.h'));
SELECT is(world.unread(5), 1, 'a late echo counts nothing again that was marked');

-- assigning
SELECT is((assign_wa_conversation(world.customer(5), ' ann ')).former, NULL, 'a conversation is assigned');
SELECT is(search_wa_conversations(p_assigned_to => 'ann') #>> '{conversations,0,phone}', world.customer(5), 'and found');
SELECT is((assign_wa_conversation(world.customer(5), NULL)).former, 'ann', 'and given up');
SELECT results_eq(
    $$ SELECT status, assigned_to, phone_e164 FROM read_wa_events('x') WHERE kind = 'conversation' $$,
    $$ VALUES ('assigned', NULL::text, world.customer(5)), ('assigned', NULL, world.customer(5)) $$,
    'applications hear of it, with how it stands'
);
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'conversation_assigned'), 2::bigint, 'and the audit log does');

-- where the session names a user
INSERT INTO wa_users (display_name, role, external_id, phone_e164) VALUES
    ('Ann', 'sales', 'ann', NULL), ('Bob', 'field_staff', 'bob', NULL), ('Cy', 'operations', 'cy', '+16505550199');
SELECT set_config('wa.acting_user', 'bob', true);
SELECT throws_ok($$ SELECT mark_wa_read(world.customer(5)) $$, 'WA621', NULL, 'who may not send marks nothing as read');
SELECT set_config('wa.acting_user', 'ann', true);
SELECT lives_ok($$ SELECT assign_wa_conversation(world.customer(5), 'ann') $$, 'who may send takes a conversation');
SELECT throws_ok($$ SELECT assign_wa_conversation(world.customer(5), 'cy') $$, 'WA621', NULL,
    'but gives it to nobody else');
SELECT set_config('wa.acting_user', 'cy', true);
SELECT is((assign_wa_conversation(world.customer(5), '+1 650 555 0199')).former, 'ann', 'who assigns staff takes it over');
SELECT throws_ok($$ SELECT assign_wa_conversation(world.customer(5), 'bob') $$, 'WA621', NULL,
    'and gives it to nobody who may not answer');
SELECT set_config('wa.acting_user', '', true);
SELECT is((assign_wa_conversation(world.customer(5), 'ann')).former, '+1 650 555 0199', 'a program says it itself');

-- secrets
RESET ROLE;
DELETE FROM wa_provider_calls;
CREATE FUNCTION pg_temp.registered(p_pin text) RETURNS integer LANGUAGE sql AS $$
    SELECT set_wa_secret('registration_pin', '100', sha256(p_pin::bytea), 'k', p_pin);
    SELECT request_wa_number_registration('100');
    SELECT count(*)::integer FROM wa_provider_calls WHERE kind = 'register_number' AND leased_until IS NULL
$$;
SELECT is(pg_temp.registered('1'), 1, 'a number is to be registered');
SELECT world.calls();
SELECT is((SELECT path FROM world.claims WHERE kind = 'register_number'), '/100/register', 'and is');
SELECT is(pg_temp.registered('2'), 1, 'with another PIN it is to be called anew');
SELECT is(world.told('{"outcome": "answered", "status": 400, "answer": {"error": {"code": 133005}}}'), 'nothing',
    'whatever is said of the one before');

SELECT * FROM finish();
ROLLBACK;
