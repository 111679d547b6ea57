-- Tests sql/ledger/media.sql.
BEGIN;
SELECT plan(47);
\ir ../world.psql

CREATE ROLE wa_media_app IN ROLE wa_app;
CREATE ROLE wa_media_admin IN ROLE wa_admin;
CREATE ROLE wa_media_dispatcher IN ROLE wa_dispatcher;
CREATE ROLE wa_media_receiver IN ROLE wa_receiver;
GRANT USAGE ON SCHEMA world TO PUBLIC;
CREATE FUNCTION world.receive(p_messages jsonb) RETURNS void LANGUAGE sql AS $$
    SELECT ingest_wa_webhook(convert_to(jsonb_build_object('object', 'whatsapp_business_account', 'entry',
        jsonb_build_array(jsonb_build_object('id', '200', 'changes', jsonb_build_array(jsonb_build_object(
            'field', 'messages', 'value', jsonb_build_object('messaging_product', 'whatsapp',
                'metadata', '{"display_phone_number": "15551234567", "phone_number_id": "100"}'::jsonb,
                'messages', p_messages)))))
        )::text, 'UTF8'));
    SELECT process_wa_webhooks()
$$;
CREATE FUNCTION world.file(p_provider_id text) RETURNS wa_media LANGUAGE sql AS $$
    SELECT m FROM wa_media m WHERE m.provider_media_id = p_provider_id
$$;
CREATE FUNCTION world.store(p_provider_id text, p_content text) RETURNS text LANGUAGE sql AS $$
    SELECT store_wa_media(m.organization_id, m.id, convert_to(p_content, 'UTF8'))
    FROM wa_media m WHERE m.provider_media_id = p_provider_id
$$;

-- what comes in
SELECT world.receive(jsonb_build_array(
    jsonb_build_object('from', '5491140000001', 'id', 'wamid.1', 'timestamp', '1790000000', 'type', 'image',
        'image', jsonb_build_object('id', 'M1', 'mime_type', 'image/jpeg',
            'sha256', encode(sha256('picture'), 'base64'), 'caption', 'Look')),
    jsonb_build_object('from', '5491140000001', 'id', 'wamid.2', 'timestamp', '1790000000',
        'type', 'document', 'document',
        jsonb_build_object('id', 'M2', 'filename', 'secret.pdf', 'sha256', 'no hash')),
    '{"from": "5491140000001", "id": "wamid.3", "timestamp": "1790000000", "type": "text",
        "text": {"body": "no file"}}'::jsonb,
    '{"from": "5491140000001", "id": "wamid.4", "timestamp": "1790000000",
        "type": "video", "video": {}}'::jsonb
));
SELECT results_eq(
    $$ SELECT f.provider_media_id, f.media_type, f.mime_type, f.filename, f.sha256, f.phone_number_id,
            f.status, f.direction, m.wa_message_id
        FROM wa_media f JOIN wa_messages m ON m.id = f.message_id ORDER BY f.provider_media_id $$,
    $$ VALUES ('M1', 'image', 'image/jpeg', NULL, sha256('picture'), '100', 'pending', 'inbound', 'wamid.1'),
        ('M2', 'document', NULL, 'secret.pdf', NULL, '100', 'pending', 'inbound', 'wamid.2') $$,
    'files of inbound messages wait to be fetched, other messages have none'
);

-- fetching
SET LOCAL ROLE wa_media_dispatcher;
SELECT results_eq('SELECT provider_media_id, phone_number_id, attempt FROM claim_wa_media(1)',
    $$ VALUES ('M1', '100', 1) $$, 'a dispatcher is told what to fetch');
SELECT is((SELECT array_agg(provider_media_id) FROM claim_wa_media()), ARRAY['M2'],
    'nobody else gets the same');
SELECT is((SELECT count(*) FROM claim_wa_media()), 0::bigint, 'until the lease is over');
RESET ROLE;
UPDATE wa_media SET next_attempt_at = next_attempt_at - interval '6 minutes';
SELECT is((SELECT max(attempt) FROM claim_wa_media()), 2, 'after that it is tried again');
SELECT is(world.store('M1', 'another'), 'pending', 'bytes with another hash are not kept');
SELECT ok((world.file('M1')).error ~ 'hash' AND (world.file('M1')).next_attempt_at > clock_timestamp(),
    'it says so and is fetched again later');
SELECT is(world.store('M1', 'picture'), 'stored', 'the right ones are');
SELECT is(world.store('M1', 'picture'), NULL, 'once');
SELECT is((SELECT convert_from(content, 'UTF8') FROM wa_media_contents), 'picture', 'byte by byte');
SELECT is(fail_wa_media(organization_id, id, 'late'), NULL, 'a file that is there cannot fail') FROM wa_media
WHERE provider_media_id = 'M1';
SELECT is(fail_wa_media(organization_id, id, 'HTTP 500'), 'pending',
    'one that could not be had is tried again')
FROM wa_media WHERE provider_media_id = 'M2';
SELECT is(round(extract(epoch FROM (world.file('M2')).next_attempt_at - clock_timestamp()) / 60), 2::numeric,
    'later each time');
UPDATE wa_media SET created_at = created_at - interval '8 days' WHERE provider_media_id = 'M2';
SELECT is(fail_wa_media(organization_id, id, 'HTTP 404'), 'failed', 'until the provider no longer has it')
FROM wa_media WHERE provider_media_id = 'M2';
SELECT is(world.store('M2', 'x'), NULL, 'then it is over');
SELECT throws_ok($$ SELECT store_wa_media(organization_id, id, NULL) FROM wa_media $$, '22004', NULL,
    'nothing is no file');

-- links
CREATE TEMPORARY TABLE ids AS SELECT
    (SELECT id FROM wa_messages WHERE wa_message_id = 'wamid.1') AS with_file,
    (SELECT id FROM wa_messages WHERE wa_message_id = 'wamid.3') AS without_file,
    (world.file('M1')).id AS file, (world.file('M2')).id AS failed;
GRANT SELECT ON ids TO PUBLIC;
SET LOCAL ROLE wa_media_app;
SELECT is(max_access, 1, 'a link is good for one opening') FROM (
    SELECT s.* FROM ids, create_wa_media_signature(with_file) l JOIN wa_media_signatures s ON s.id = l.id
) x;
SELECT throws_ok('SELECT create_wa_media_signature(without_file) FROM ids', 'WA031', NULL,
    'a message without a file has no link');
SELECT throws_ok('SELECT create_wa_media_signature(failed) FROM ids', 'WA031', NULL,
    'nor has a file that could not be had');
SELECT throws_ok('SELECT create_wa_media_signature(with_file, 0) FROM ids', '22023', NULL,
    'a link can be opened at least once');
SELECT throws_ok('SELECT create_wa_media_signature(with_file, 1, 0) FROM ids', '22023', NULL,
    'for at least a minute');
SELECT throws_ok('SELECT content FROM wa_media_contents', '42501', NULL, 'without a link there are no bytes');
SELECT l.id AS link, l.token, l.path FROM ids,
    create_wa_media_signature(message_id => with_file, max_access => 2, ttl_minutes => 60) l \gset
SELECT is(:'path', '/api/whatsapp/media/' || :'link' || '?token=' || :'token', 'the path is that of the API');
SELECT is_empty(format('SELECT 1 FROM wa_media_signatures s WHERE s::text ~ %L', :'token'),
    'the token is stored nowhere');
SELECT l.id AS by_file, l.token AS file_token
FROM ids, create_wa_media_signature(file, ttl_minutes => 5) l \gset
SELECT throws_ok(format('SELECT open_wa_media(%L, %L)', :'link', :'token'), '42501', NULL,
    'only the web server opens links');

SET LOCAL ROLE wa_media_receiver;
SELECT results_eq(
    format('SELECT outcome, content, accesses_left FROM open_wa_media(%L, %L)', :'link', 'wrong'),
    $$ VALUES ('not_found', NULL::bytea, NULL::integer) $$, 'a wrong token opens nothing');
SELECT is((SELECT outcome FROM open_wa_media(gen_random_uuid(), :'token')), 'not_found',
    'which is what an unknown link answers');
SELECT is((SELECT outcome FROM open_wa_media(:'link', NULL)), 'not_found', 'no token is a wrong one');
SELECT results_eq(
    format('SELECT outcome, mime_type, file_size, accesses_left FROM verify_wa_media_signature(%L, %L)',
        :'link', :'token'),
    $$ VALUES ('ok', 'image/jpeg', 7::bigint, 2) $$, 'a look does not count'
);
SELECT results_eq(
    format('SELECT outcome, content, accesses_left FROM open_wa_media(%L, %L)', :'link', :'token'),
    $$ VALUES ('ok', 'picture'::bytea, 1) $$, 'an opening does'
);
SELECT is((SELECT outcome FROM open_wa_media(:'link', :'token')), 'ok', 'until the last');
SELECT results_eq(format('SELECT outcome, content FROM open_wa_media(%L, %L)', :'link', :'token'),
    $$ VALUES ('used_up', NULL::bytea) $$, 'then it is used up');
RESET ROLE;
SELECT results_eq($$ SELECT count(*), bool_and(entity_id = (SELECT file::text FROM ids)) FROM audit_log
    WHERE event = 'media_opened' $$, 'VALUES (2::bigint, true)', 'each opening is in the audit log');
UPDATE wa_media_signatures SET expires_at = clock_timestamp() WHERE id = :'by_file';
SELECT is((SELECT outcome FROM open_wa_media(:'by_file', :'file_token')), 'expired', 'time ends it, too');

SELECT world.receive('[{"from": "5491140000001", "id": "wamid.5", "timestamp": "1790000000", "type": "audio",
    "audio": {"id": "M5", "voice": true}}]');
SELECT l.id AS early, l.token AS early_token
FROM create_wa_media_signature((world.file('M5')).message_id) l \gset
SELECT is((SELECT outcome FROM open_wa_media(:'early', :'early_token')), 'not_ready',
    'a link may come before the file');
SELECT world.store('M5', 'voice');
SELECT is((SELECT outcome FROM open_wa_media(:'early', :'early_token')), 'ok', 'and was not used up by that');

-- cleaning up
SELECT set_config('world.kept', (SELECT count(*)::text FROM wa_media_signatures), true);
UPDATE wa_media SET expires_at = clock_timestamp() WHERE provider_media_id = 'M5';
SELECT is((SELECT outcome FROM verify_wa_media_signature(:'early', :'early_token')), 'used_up',
    'a used link stays so');
SET LOCAL ROLE wa_media_admin;
SELECT is(cleanup_expired_wa_media(), 2, 'a link and a file have expired');
RESET ROLE;
SELECT is(current_setting('world.kept')::integer - (SELECT count(*) FROM wa_media_signatures), 1::bigint,
    'the link is gone');
SELECT results_eq('SELECT provider_media_id, status, (SELECT count(*) FROM wa_media_contents)
    FROM wa_media WHERE expires_at IS NOT NULL', $$ VALUES ('M5', 'deleted', 1::bigint) $$,
    'of the file it is known that it was there');
SET LOCAL ROLE wa_media_app;
UPDATE wa_media_signatures SET expires_at = now() WHERE id = :'link';
SELECT throws_ok('DELETE FROM wa_media', '42501', NULL, 'an application ends files and links, and deletes none');
SET LOCAL ROLE wa_media_admin;
DELETE FROM wa_media_signatures WHERE expires_at < now() - interval '7 days';
SELECT ok(NOT EXISTS (SELECT FROM wa_media_signatures WHERE expires_at < now() - interval '7 days')
    AND EXISTS (SELECT FROM wa_media_signatures), 'links that are over can be deleted by hand');
DELETE FROM wa_media WHERE provider_media_id = 'M1';
RESET ROLE;
SELECT is((SELECT count(*) FROM wa_media_contents), 0::bigint, 'a file that is deleted leaves no bytes');
UPDATE wa_organizations SET message_retention = interval '90 days';
UPDATE wa_media SET id = overlay(id::text PLACING '018' FROM 1)::uuid WHERE provider_media_id = 'M2';
SELECT is(cleanup_expired_wa_media(), 0, 'an id that says it is old is not enough');
UPDATE wa_media SET created_at = created_at - interval '91 days' WHERE provider_media_id = 'M2';
SELECT is(cleanup_expired_wa_media(), 1, 'files go when their messages go');
SELECT world.receive('[{"from": "5491140000001", "id": "wamid.6", "timestamp": "1790000000",
    "type": "sticker", "sticker": {"id": "M6"}}]');
UPDATE wa_media SET next_attempt_at = next_attempt_at - interval '8 days' WHERE provider_media_id = 'M6';
SELECT is(cleanup_expired_wa_media(), 0, 'what nobody fetched in time');
SELECT is((world.file('M6')).status, 'failed', 'has failed');

INSERT INTO wa_media (direction, media_type) SELECT 'outbound', 'image' FROM generate_series(1, 2000);
SELECT is((SELECT count(*) FROM wa_media WHERE id < _wa_uuid7_floor(now() - interval '1 day')), 0::bigint,
    'a row by hand gets an id of its time');

SELECT * FROM finish();
ROLLBACK;
