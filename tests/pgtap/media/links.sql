-- Tests sql/media/links.sql.
BEGIN;
SELECT plan(38);
\ir files.psql
SELECT world.send_in('M1', 'image', jsonb_build_object('mime_type', 'image/jpeg'));
SELECT world.receive('[{"from": "5491140000001", "id": "wamid.T", "timestamp": "1790000000", "type": "text",
    "text": {"body": "no file"}}]');
SELECT world.send_in('M2', 'document', '{"filename": "secret.pdf"}');
SELECT world.store('M1', 'picture');
SELECT fail_wa_media(organization_id, id, 'HTTP 404', true) FROM wa_media WHERE provider_media_id = 'M2';
CREATE TEMPORARY TABLE ids AS SELECT
    (world.file('M1')).message_id AS with_file,
    (SELECT id FROM wa_messages WHERE wa_message_id = 'wamid.T') AS without_file,
    (world.file('M1')).id AS file, (world.file('M2')).id AS failed;
GRANT SELECT ON ids TO PUBLIC;

-- making them
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
SELECT throws_ok('SELECT content FROM wa_media_chunks', '42501', NULL, 'without a link there are no bytes');
SELECT l.id AS link, l.token, l.path, l.url FROM ids,
    create_wa_media_signature(message_id => with_file, max_access => 2, ttl_minutes => 60) l \gset
SELECT is(:'path', '/api/whatsapp/media/' || :'link' || '?token=' || :'token', 'the path is that of the API');
SELECT is(:'url'::text, :'path', 'where nobody said where that is, so is the URL');
SELECT is_empty(format('SELECT 1 FROM wa_media_signatures s WHERE s::text ~ %L', :'token'),
    'the token is stored nowhere');
SELECT l.id AS by_file, l.token AS file_token
FROM ids, create_wa_media_signature(file, ttl_minutes => 5) l \gset
SELECT throws_ok(format('SELECT open_wa_media(%L, %L)', :'link', :'token'), '42501', NULL,
    'only the web server opens links');
RESET ROLE;
UPDATE wa_installations SET public_url = 'https://all.example/wa';
SELECT is(l.url, 'https://all.example/wa' || l.path, 'the installation says where') FROM ids,
    create_wa_media_signature(file) l;
UPDATE wa_organizations SET public_url = 'https://shop.example';
SELECT is(l.url, 'https://shop.example' || l.path, 'or the organization') FROM ids,
    create_wa_media_signature(file) l;
SELECT throws_ok(format('UPDATE wa_organizations SET public_url = %L', bad), '23514', NULL, bad || ' is no such place')
FROM unnest(ARRAY['shop.example', 'https://shop.example/', 'https://shop.example?x=1', 'ftp://shop.example']) bad;

-- opening
SET LOCAL ROLE wa_media_receiver;
SELECT results_eq(
    format('SELECT outcome, store, accesses_left FROM open_wa_media(%L, %L)', :'link', 'wrong'),
    $$ VALUES ('not_found', NULL, NULL::integer) $$, 'a wrong token opens nothing');
SELECT is((SELECT outcome FROM open_wa_media(gen_random_uuid(), :'token')), 'not_found',
    'which is what an unknown link answers');
SELECT is((SELECT outcome FROM open_wa_media(:'link', NULL)), 'not_found', 'no token is a wrong one');
SELECT results_eq(
    format('SELECT outcome, mime_type, file_size, accesses_left, sha256, is_inline
        FROM verify_wa_media_signature(%L, %L)', :'link', :'token'),
    $$ VALUES ('ok', 'image/jpeg', 7::bigint, 2, encode(sha256('picture'), 'hex'), true) $$,
    'a look does not count'
);
SELECT is(read_wa_media(:'link', :'token'), NULL, 'nor gives it bytes');
SELECT results_eq(
    format('SELECT outcome, store, location, accesses_left FROM open_wa_media(%L, %L, %L, %L)', :'link', :'token',
        '10.0.0.1', 'player'),
    $$ VALUES ('ok', 'database', NULL, 1) $$, 'an opening does'
);
SELECT is(read_wa_media(:'link', :'token'), 'picture'::bytea, 'now there are bytes');
SELECT is(read_wa_media(:'link', :'token', 3, 2), 'tu'::bytea, 'or some of them');
SELECT is(read_wa_media(:'link', :'token', 7), ''::bytea, 'and none behind the last');
SELECT is(read_wa_media(:'link', 'wrong'), NULL, 'for that token');
SELECT is((SELECT outcome || accesses_left FROM open_wa_media(:'link', :'token', '10.0.0.1', 'player', true)), 'ok1',
    'who goes on with a part of it, does not count again');
SELECT is((SELECT outcome || accesses_left FROM open_wa_media(:'link', :'token', '10.0.0.2', 'player', true)), 'ok0',
    'who asks for a part from elsewhere, does');
SELECT is((SELECT outcome FROM open_wa_media(:'link', :'token', '10.0.0.1', 'player')), 'used_up',
    'and so does who asks for all of it: it is used up');
SELECT is((SELECT outcome FROM open_wa_media(:'link', :'token', '10.0.0.2', 'player', true)), 'ok',
    'whoever has opened it goes on');
SELECT is((SELECT outcome FROM open_wa_media(:'link', :'token', '10.0.0.3', 'player', true)), 'used_up',
    'nobody else');
RESET ROLE;
SELECT results_eq($$ SELECT count(*), bool_and(entity_id = (SELECT file::text FROM ids)),
    array_agg(meta ->> 'source' ORDER BY id) FROM audit_log WHERE event = 'media_opened' $$,
    'VALUES (2::bigint, true, ARRAY[''10.0.0.1'', ''10.0.0.2''])', 'each opening is in the audit log');
UPDATE wa_media_openings SET opened_at = opened_at - interval '16 minutes';
SELECT is((SELECT outcome FROM open_wa_media(:'link', :'token', '10.0.0.2', 'player', true)), 'used_up',
    'for a quarter of an hour');
UPDATE wa_media_openings SET opened_at = opened_at - interval '1 hour';
SELECT is(read_wa_media(:'link', :'token'), NULL, 'what is being read is read within an hour');
SELECT is((SELECT outcome FROM open_wa_media(:'by_file', :'file_token', 'a', 'b')), 'ok', 'the other link');
UPDATE wa_media_signatures SET expires_at = clock_timestamp() WHERE id = :'by_file';
SELECT is((SELECT outcome FROM open_wa_media(:'by_file', :'file_token', 'a', 'b', true)), 'expired',
    'a link that is taken back is so at once');

SELECT world.send_in('M5', 'audio', '{"voice": true}');
SELECT l.id AS early, l.token AS early_token
FROM create_wa_media_signature((world.file('M5')).message_id) l \gset
SELECT is((SELECT outcome FROM open_wa_media(:'early', :'early_token')), 'not_ready',
    'a link may come before the file');
SELECT world.store('M5', 'voice');
SELECT is((SELECT outcome FROM open_wa_media(:'early', :'early_token')), 'ok', 'and was not used up by that');

-- what a browser may show
SELECT is((SELECT array_agg(t ORDER BY t) FROM unnest(ARRAY['image/png', 'image/svg+xml', 'text/html',
    'application/pdf', 'audio/ogg; codecs=opus', 'video/mp4', NULL]) t WHERE _wa_is_inline(t)),
    ARRAY['audio/ogg; codecs=opus', 'image/png', 'video/mp4'], 'pictures, sound and films, nothing that acts');

SELECT * FROM finish();
ROLLBACK;
