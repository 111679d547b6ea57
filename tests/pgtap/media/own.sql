-- Tests sql/media/own.sql, sql/media/uploads.sql, sql/sending/uploads.sql.
-- Files of yours: kept, named by messages, uploaded when they are needed.
BEGIN;
SELECT plan(56);
\ir files.psql
UPDATE wa_organizations SET rate_limit_per_minute = NULL;
SELECT world.wrote(n) FROM generate_series(1, 9) n;
CREATE FUNCTION pg_temp.send(p_n integer, p_type text, p_media_id text, p_more jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE sql AS $$
    INSERT INTO wa_outbound_queue (phone, type, content)
    VALUES (world.customer(p_n), p_type, jsonb_build_object('media_id', p_media_id) || p_more) RETURNING id
$$;
CREATE FUNCTION pg_temp.refused(p_type text, p_media_id text, p_more jsonb DEFAULT '{}') RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_temp.send(1, p_type, p_media_id, p_more);
    RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
CREATE FUNCTION pg_temp.answer(p_status integer, p_answer jsonb, p_error text DEFAULT NULL) RETURNS text
LANGUAGE sql AS $$
    SELECT complete_wa_media_upload(u.organization_id, u.id, u.attempts, p_status, p_answer, p_error)
    FROM wa_media_uploads u WHERE u.leased_until > clock_timestamp()
$$;

-- kept
SET LOCAL ROLE wa_media_app;
SELECT create_wa_media('%PDF-1.4 invoice', 'application/pdf', 'invoice.pdf') AS pdf \gset
SELECT results_eq(format('SELECT direction, media_type, mime_type, filename, file_size, status FROM wa_media WHERE id = %L',
    :'pdf'), $$ VALUES ('outbound', 'document', 'application/pdf', 'invoice.pdf', 16::bigint, 'stored') $$,
    'a file of yours is kept');
SELECT is(create_wa_media('%PDF-1.4 invoice', 'application/pdf', 'invoice.pdf'), :'pdf', 'once');
SELECT isnt(create_wa_media('%PDF-1.4 invoice', 'application/pdf', 'other.pdf'), :'pdf', 'under each name');
SELECT create_wa_media('picture', 'image/jpeg') AS picture \gset
SELECT is(media_type, 'image', 'it goes as what it is') FROM wa_media WHERE id = :'picture';
SELECT throws_ok($$ SELECT create_wa_media('x', 'image/gif') $$, 'WA033', NULL, 'WhatsApp takes no GIF');
SELECT throws_ok($$ SELECT create_wa_media('x', 'nonsense') $$, 'WA033', NULL, 'nor what is no type');
SELECT throws_ok($$ SELECT create_wa_media(NULL, 'image/png') $$, '22004', NULL, 'nothing is no file');
SELECT throws_ok($$ SELECT create_wa_media('', 'image/png') $$, 'WA033', NULL, 'nor is an empty one');
SELECT throws_ok($$ SELECT create_wa_media(decode(repeat('00', 5242881), 'hex'), 'image/png') $$, 'WA033', NULL,
    'nor a picture of more than 5 MiB');
RESET ROLE;
SELECT is((SELECT count(*) FROM wa_media_blobs), 2::bigint, 'bytes are there once');

-- kept in parts
SET LOCAL ROLE wa_media_app;
SELECT blob_id AS part, media_id AS none, store FROM begin_wa_media(sha256('voice'), 5, 'audio/ogg', 'a.ogg',
    'audio/ogg; codecs=opus') \gset
SELECT is(:'store'::text, 'database', 'a file is begun');
SELECT throws_ok(format('SELECT finish_wa_media(%L, %L, %L, NULL)', :'part', 'audio/ogg', 'a.ogg'), 'WA031', NULL,
    'is not there before its bytes are');
SELECT ok(NOT append_wa_media(:'part', 0, 'voices'), 'of which there are as many as was said');
SELECT ok(append_wa_media(:'part', 0, 'voice'), 'written');
SELECT ok(append_wa_media(:'part', 0, 'voice'), 'twice, if need be');
SELECT finish_wa_media(:'part', 'audio/ogg', 'a.ogg', 'audio/ogg; codecs=opus') AS voice \gset
SELECT is(finish_wa_media(:'part', 'audio/ogg', 'a.ogg', 'audio/ogg; codecs=opus'), :'voice', 'and done');
SELECT ok(NOT append_wa_media(:'part', 0, 'noise'), 'then nothing is changed');
SELECT is(media_id, :'voice', 'the same again is there') FROM begin_wa_media(sha256('voice'), 5, 'audio/ogg', 'a.ogg',
    'audio/ogg; codecs=opus');
SELECT throws_ok($$ SELECT begin_wa_media(sha256('v'), 1, 'audio/ogg', NULL, 'audio/ogg') $$, 'WA033', NULL,
    'Ogg without Opus is not taken');
SELECT throws_ok($$ SELECT begin_wa_media(sha256('v'), 1, 'image/png', NULL, 'application/pdf') $$, 'WA033', NULL,
    'nor what is not what its name says');
SELECT throws_ok($$ SELECT begin_wa_media(sha256('v'), 1, NULL, NULL, NULL) $$, 'WA033', NULL, 'nor what has none');
RESET ROLE;
SELECT world.send_in('IN', 'document', '{"mime_type": "text/plain"}');
SELECT count(*) FROM claim_wa_media();
SELECT is(world.bring('IN', 'voice', NULL), 'stored', 'a customer sends what an application says it has');
SELECT ok(NOT is_own AND id <> :'part', 'its word does not count for that') FROM wa_media_blobs
WHERE id = (world.file('IN')).blob_id;

-- named
SELECT matches(pg_temp.refused('image', gen_random_uuid()::text), '^WA031 ', 'a message names a file that is there');
SELECT matches(pg_temp.refused('image', 'x'), '^WA008 image.media_id', 'by its id');
SELECT matches(pg_temp.refused('image', :'picture', '{"link": "https://x.example/a.png"}'), '^WA008 ',
    'and in no other way beside that');
SELECT matches(pg_temp.refused('image', :'pdf'), '^WA033 ', 'of the right type');
SELECT is(pg_temp.refused('document', :'picture', '{"filename": "a.jpg"}'), 'taken', 'anything may go as a document');
SELECT cancel_wa_messages(phone => world.customer(1));

-- waits for its upload, and those behind it
SELECT pg_temp.send(1, 'document', :'pdf', '{"caption": "Here"}') AS first \gset
SELECT world.say(1, 'As you see') AS second \gset
SELECT world.say(2, 'You do not wait') AS third \gset
SELECT is((SELECT array_agg(queue_id) FROM world.claim()), ARRAY[:'third'::uuid],
    'a message whose file has to be uploaded waits, and what comes after it to the same customer');
SELECT is(world.reason(:'first'), 'file', 'it says why');
SELECT is(world.reason(:'second'), 'in_order', 'so does the other');
SELECT is(held, 2::bigint, 'both count as held') FROM wa_queue_health WHERE phone_number_id = '100';
SELECT ok(next_due_at <= clock_timestamp() + interval '2 seconds', 'something is to come') FROM get_wa_next_due();
SELECT is(preview_wa_request(:'first') #>> '{document,caption}', 'Here', 'its request can be looked at');
SET LOCAL ROLE wa_media_dispatcher;
SELECT results_eq('SELECT phone_number_id, attempt, provider, path, mime_type, size, store,
        read_wa_media_blob(organization_id, blob_id, 0) FROM claim_wa_media_uploads()',
    $$ VALUES ('100', 1, 'meta', '/100/media', 'application/pdf', 16::bigint, 'database', '%PDF-1.4 invoice'::bytea) $$,
    'a dispatcher is told what to upload, and where to');
SELECT is((SELECT count(*) FROM claim_wa_media_uploads()), 0::bigint, 'one of them');
RESET ROLE;
SELECT is(pg_temp.answer(500, '{"error": {"code": 131016, "message": "busy"}}'), 'pending', 'a busy provider is asked again');
SELECT is(error, 'busy (HTTP 500, code 131016)', 'and it is known why') FROM wa_media_uploads;
SELECT world.later('2 seconds');
SELECT is((SELECT array_agg(queue_id) FROM world.claim()), ARRAY[:'second'::uuid],
    'what does not get there at once holds up nobody');
UPDATE wa_media_uploads SET next_attempt_at = now();
SELECT count(*) FROM claim_wa_media_uploads();
SELECT is(pg_temp.answer(200, '{"id": "777"}'), 'uploaded', 'the provider has it');
SELECT world.accept(:'second'), world.accept(:'third');
SELECT results_eq('SELECT queue_id, body -> ''document'' FROM world.claim()',
    format($$ VALUES (%L::uuid, '{"caption": "Here", "id": "777"}'::jsonb) $$, :'first'),
    'the message goes, with the id that the file has there');
SELECT world.accept(:'first', 'wamid.own');
SELECT is((SELECT count(*) FROM wa_messages m CROSS JOIN create_wa_media_signature(m.id) WHERE m.wa_message_id = 'wamid.own'),
    1::bigint, 'the message in the ledger leads to its file');
SELECT pg_temp.send(3, 'document', :'pdf') AS again \gset
SELECT is((SELECT body #>> '{document,id}' FROM world.claim()), '777', 'another message does not wait');
SELECT world.accept(:'again');
UPDATE wa_media_uploads SET expires_at = now() + interval '10 minutes';
SELECT pg_temp.send(4, 'document', :'pdf') AS stale \gset
SELECT is(world.claimed(), 0, 'before the provider forgets it');
SELECT is((SELECT attempt FROM claim_wa_media_uploads()), 1, 'it is uploaded again');
SELECT is(pg_temp.answer(400, '{"error": {"code": 100, "message": "no"}}'), 'failed', 'what the provider refuses');
SELECT is(world.outcome(:'stale'), 'failed upload_failed', 'fails what waits for it');
SELECT is(last_error, 'no (HTTP 400, code 100)', 'and says why') FROM wa_outbound_queue WHERE id = :'stale';
SELECT pg_temp.send(5, 'document', :'pdf') AS next \gset
SELECT is(world.claimed() || ' ' || world.outcome(:'next'), '0 failed upload_failed', 'as it does the next, for a moment');
UPDATE wa_media_uploads SET changed_at = now() - interval '2 minutes';
SELECT retry_wa_messages(ids => ARRAY[:'next'::uuid]);
SELECT is(world.claimed() || ' ' || world.reason(:'next'), '0 file', 'later it is tried again');
UPDATE wa_media_uploads SET status = 'failed', next_attempt_at = NULL, leased_until = NULL, changed_at = now() - interval '2 minutes';
SELECT world.maintain();
SELECT is((SELECT hold_id FROM wa_queue_due WHERE queue_id = :'next'), NULL,
    'what was locked when its upload ended is let go by the heartbeat');
SELECT cancel_wa_messages(ids => ARRAY[:'next'::uuid]);

-- gone meanwhile
SELECT pg_temp.send(6, 'image', :'picture') AS lost \gset
UPDATE wa_media SET status = 'deleted', blob_id = NULL WHERE id = :'picture';
SELECT is(world.claimed() || ' ' || world.outcome(:'lost'), '0 failed file_gone', 'a file that is gone fails its message');

-- ahead of time
SET LOCAL ROLE wa_media_app;
SELECT results_eq(format('SELECT phone_number_id, status, provider_media_id FROM upload_wa_media(%L)', :'voice'),
    $$ VALUES ('100', 'pending', NULL) $$, 'a file can be uploaded before a message needs it');
SELECT throws_ok(format('SELECT upload_wa_media(%L, %L)', :'voice', '999'), 'WA010', NULL, 'for a number that there is');
SELECT throws_ok('SELECT upload_wa_media(gen_random_uuid())', 'WA031', NULL, 'and a file');
RESET ROLE;
SELECT throws_ok('DELETE FROM wa_phone_numbers', 'WA204', NULL, 'a number whose messages wait for files stays')
FROM (SELECT pg_temp.send(7, 'audio', :'voice'), world.claimed()) x;

SELECT * FROM finish();
ROLLBACK;
