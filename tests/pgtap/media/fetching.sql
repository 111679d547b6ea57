-- Tests sql/media/fetching.sql, sql/media/types.sql.
-- Files that come in: who fetches them when, what is taken, and what is said of the rest.
BEGIN;
SELECT plan(71);
\ir files.psql

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
            f.status, f.direction, m.wa_message_id, f.contact_id = m.contact_id
        FROM wa_media f JOIN wa_messages m ON m.id = f.message_id ORDER BY f.provider_media_id $$,
    $$ VALUES ('M1', 'image', 'image/jpeg', NULL, sha256('picture'), '100', 'pending', 'inbound', 'wamid.1', true),
        ('M2', 'document', NULL, 'secret.pdf', NULL, '100', 'pending', 'inbound', 'wamid.2', true) $$,
    'files of inbound messages wait to be fetched, other messages have none'
);

-- claiming
SET LOCAL ROLE wa_media_dispatcher;
SELECT results_eq('SELECT phone_number_id, attempt, provider, path FROM claim_wa_media(1)',
    $$ VALUES ('100', 1, 'meta', '/M1?phone_number_id=100') $$, 'a dispatcher is told whom to ask');
SELECT is((SELECT array_agg(path) FROM claim_wa_media()), ARRAY['/M2?phone_number_id=100'],
    'nobody else gets the same');
SELECT is((SELECT count(*) FROM claim_wa_media()), 0::bigint, 'until the lease is over');
RESET ROLE;
SELECT renew_wa_media(array_agg(organization_id), array_agg(id), array_agg(attempts), '10 minutes') FROM wa_media;
SELECT ok(bool_and(leased_until > clock_timestamp() + interval '9 minutes'), 'who is at it keeps it')
FROM wa_media;
SELECT renew_wa_media(array_agg(organization_id), array_agg(id), array_agg(attempts + 1), '0 seconds')
FROM wa_media;
SELECT ok(bool_and(leased_until > clock_timestamp() + interval '9 minutes'), 'who had it once cannot give it away')
FROM wa_media;
SELECT renew_wa_media(array_agg(organization_id), array_agg(id), array_agg(attempts), '0 seconds') FROM wa_media;
SELECT is((SELECT max(attempt) FROM claim_wa_media()), 2, 'what is handed back is tried again at once');
SELECT is(_wa_media_path('360dialog', '100', '200', 'M1'), '/M1', '360dialog knows the number by its key');
SELECT is(_wa_media_path('meta', '100', '200', '../me'), NULL, 'an id that is a path is none');

-- the old way in, for small files and programs of one's own
SELECT is(world.store('M1', 'another'), 'pending', 'bytes with another hash are not kept');
SELECT ok((world.file('M1')).error ~ 'hash' AND (world.file('M1')).next_attempt_at > clock_timestamp()
    AND (world.file('M1')).leased_until IS NULL,
    'it says so and is fetched again later');
SELECT is(world.store('M1', 'picture'), 'stored', 'the right ones are');
SELECT is(world.store('M1', 'picture'), NULL, 'once');
SELECT is(convert_from(world.bytes_of((world.file('M1')).id), 'UTF8'), 'picture', 'byte by byte');
SELECT is(fail_wa_media(organization_id, id, 'late'), NULL, 'a file that is there cannot fail') FROM wa_media
WHERE provider_media_id = 'M1';
SELECT is(fail_wa_media(organization_id, id, 'HTTP 500'), 'pending',
    'one that could not be had is tried again')
FROM wa_media WHERE provider_media_id = 'M2';
SELECT is(round(extract(epoch FROM (world.file('M2')).next_attempt_at - clock_timestamp()) / 60), 2::numeric,
    'later each time');
SELECT is(fail_wa_media(organization_id, id, 'x', false, attempts - 1), NULL, 'an attempt that is over says nothing')
FROM wa_media WHERE provider_media_id = 'M2';
UPDATE wa_media SET created_at = created_at - interval '8 days' WHERE provider_media_id = 'M2';
SELECT is(fail_wa_media(organization_id, id, 'HTTP 404'), 'failed', 'until the provider no longer has it')
FROM wa_media WHERE provider_media_id = 'M2';
SELECT is(world.store('M2', 'x'), NULL, 'then it is over');
SELECT throws_ok($$ SELECT store_wa_media(organization_id, id, NULL) FROM wa_media $$, '22004', NULL,
    'nothing is no file');

-- as our dispatcher does
SELECT world.send_in('A', 'image', '{"mime_type": "image/jpeg"}');
SELECT count(*) FROM claim_wa_media();
SELECT is(world.begin('A', (5 << 20) + 1), 'failed', 'an image of more than 5 MiB is not fetched');
SELECT ok((world.file('A')).error ~ '5242881 bytes', 'and says so');
SELECT world.send_in('B', 'document', '{"mime_type": "application/pdf", "filename": "a.pdf"}');
SELECT count(*) FROM claim_wa_media();
SELECT results_eq(
    $$ SELECT b.verdict, b.max_size, b.timeout_s > 30, b.least_per_s FROM wa_media m
        CROSS JOIN begin_wa_media_download(m.organization_id, m.id, 1, 3000000, 'x/y', NULL) b
        WHERE m.provider_media_id = 'B' $$,
    'VALUES (''go'', 3000000::bigint, true, 16384)', 'as much as the provider says may come');
SELECT is((SELECT b.verdict FROM wa_media m
    CROSS JOIN begin_wa_media_download(m.organization_id, m.id, 0, 1, NULL, NULL) b
    WHERE m.provider_media_id = 'B'), NULL, 'not for an attempt that is over');
SELECT is((world.file('B')).mime_type, 'application/pdf', 'what the webhook told counts');
CREATE TEMPORARY TABLE large AS SELECT
    decode(repeat(md5('x'), 98304), 'hex') || '\x2550'::bytea AS content;
SELECT is(world.bring('B', content, 'application/pdf'), 'stored', 'a file of one and a half mebibytes is stored')
FROM large;
SELECT is((SELECT array_agg(octet_length(c.content) ORDER BY c.n) FROM wa_media_chunks c
    WHERE c.blob_id = (world.file('B')).blob_id), ARRAY[1048576, 524290], 'in rows of a mebibyte');
SELECT ok(world.bytes_of((world.file('B')).id) = content
    AND (world.file('B')).sha256 = sha256(content) AND (world.file('B')).file_size = octet_length(content),
    'whole, with its hash and size') FROM large;
SELECT world.send_in('C', 'document', '{"mime_type": "application/pdf", "filename": "b.pdf"}', 2);
SELECT count(*) FROM claim_wa_media();
SELECT is(world.bring('C', content, 'application/pdf'), 'stored', 'the same again') FROM large;
SELECT is((world.file('C')).blob_id, (world.file('B')).blob_id, 'is there once');
SELECT is((SELECT bytes FROM wa_media_usages), 1572866 + 7::bigint, 'and counts once');

-- bytes that are not what was told
CREATE FUNCTION pg_temp.try(p_type text, p_mime text, p_found text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_id text := 'T' || nextval('pg_temp.tries');
    v_state text;
BEGIN
    PERFORM world.send_in(v_id, p_type, jsonb_strip_nulls(jsonb_build_object('mime_type', p_mime)), 3);
    PERFORM FROM claim_wa_media(100);
    v_state := world.bring(v_id, convert_to(v_id, 'UTF8'), p_found);
    RETURN concat_ws(' ', v_state, CASE v_state WHEN 'stored' THEN (world.file(v_id)).mime_type
        ELSE (world.file(v_id)).error END);
END
$$;
CREATE SEQUENCE pg_temp.tries;
SELECT is(pg_temp.try('image', 'image/jpeg', 'text/html'), 'failed told to be image/jpeg, the bytes are text/html',
    'a page is no picture');
SELECT is(pg_temp.try('image', 'image/jpeg', NULL),
    'failed told to be image/jpeg, the bytes are of no known type', 'nor is what nobody knows');
SELECT is(pg_temp.try('image', 'image/jpeg', 'image/png'), 'stored image/png',
    'one kind of picture for another is kept as what it is');
SELECT is(pg_temp.try('image', NULL, 'image/png'), 'stored image/png', 'or where nothing was told');
SELECT is(pg_temp.try('audio', 'audio/ogg; codecs=opus', 'audio/ogg; codecs=opus'),
    'stored audio/ogg; codecs=opus', 'a voice note');
SELECT is(pg_temp.try('audio', 'audio/mp4', 'video/mp4'), 'stored audio/mp4', 'sound in a container of video');
SELECT is(pg_temp.try('audio', 'audio/aac', NULL), 'stored audio/aac', 'sound may look like nothing');
SELECT matches(pg_temp.try('audio', 'audio/aac', 'application/pdf'), '^failed', 'but not like something else');
SELECT matches(pg_temp.try('video', 'video/mp4', 'image/png'), '^failed', 'a picture is no film');
SELECT matches(pg_temp.try('sticker', 'image/webp', 'image/png'), '^failed', 'stickers are WebP');
SELECT is(pg_temp.try('document', 'application/pdf', 'application/pdf'), 'stored application/pdf', 'a PDF');
SELECT matches(pg_temp.try('document', 'application/pdf', 'application/zip'), '^failed', 'no PDF');
SELECT matches(pg_temp.try('document', 'application/pdf', NULL), '^failed', 'nor that');
SELECT is(pg_temp.try('document', 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
    'application/zip'), 'stored application/vnd.openxmlformats-officedocument.wordprocessingml.document',
    'Office documents are archives');
SELECT matches(pg_temp.try('document', 'text/plain', 'application/x-msdownload'), '^failed',
    'a program does not pass for a text');
SELECT is(pg_temp.try('document', 'text/plain', NULL), 'stored text/plain', 'a text looks like nothing');
SELECT is(pg_temp.try('document', 'application/x-own', 'application/zip'), 'stored application/x-own',
    'what is unknown may be anything');
SELECT is((SELECT count(*) FROM wa_media WHERE status = 'failed' AND next_attempt_at IS NOT NULL), 0::bigint,
    'what would be the same the next time is not fetched again');

-- who dies on the way
SELECT world.send_in('D', 'document', '{"mime_type": "text/plain"}');
SELECT count(*) FROM claim_wa_media();
CREATE TEMPORARY TABLE begun AS SELECT m.organization_id, m.id, b.* FROM wa_media m
CROSS JOIN begin_wa_media_store(m.organization_id, m.id, 1, sha256('lost'), 4, NULL) b
WHERE m.provider_media_id = 'D';
SELECT is(finish_wa_media_store(organization_id, id, 1, blob_id, NULL), 'pending',
    'what was not written is not stored') FROM begun;
SELECT is((world.file('D')).error, 'not all bytes were written', 'and says so');
UPDATE wa_media SET next_attempt_at = clock_timestamp() WHERE provider_media_id = 'D';
SELECT is((SELECT attempt FROM claim_wa_media()), 2, 'another attempt');
SELECT ok(write_wa_media_chunk(organization_id, blob_id, 0, 'lost'), 'who comes late writes') FROM begun;
SELECT is(finish_wa_media_store(organization_id, id, 1, blob_id, NULL), NULL, 'in vain') FROM begun;
SELECT is((SELECT count(*) FROM wa_media_blobs b JOIN begun g ON g.blob_id = b.id), 0::bigint, 'and it goes');
SELECT ok(NOT write_wa_media_chunk(organization_id, (world.file('B')).blob_id, 0, 'x'),
    'bytes that are complete stay as they are') FROM begun;

-- quotas
UPDATE wa_organizations SET media_contact_quota = 100, media_quota = NULL;
SELECT world.send_in('Q1', 'document', '{"mime_type": "text/plain"}', 5);
SELECT world.send_in('Q2', 'document', '{"mime_type": "text/plain"}', 5);
SELECT world.send_in('Q3', 'document', '{"mime_type": "text/plain"}', 6);
SELECT count(*) FROM claim_wa_media();
SELECT is(world.begin('Q1', 60), 'go', 'a contact may send some');
SELECT is(world.begin('Q2', 60), 'on_demand', 'what is under way counts');
SELECT is(world.begin('Q3', 60), 'go', 'another one has his own');
SELECT is((world.file('Q2')).status || ' ' || (world.file('Q2')).error,
    'on_demand quota: 60 bytes of 100 were fetched from the contact in 24 hours', 'it says so');
SELECT is(world.bring('Q1', convert_to(repeat('x', 60), 'UTF8'), NULL), 'stored', 'the first is there');
SET LOCAL ROLE wa_media_app;
SELECT is(fetch_wa_media((SELECT id FROM wa_media WHERE provider_media_id = 'Q2')), 'pending', 'who asks gets it');
RESET ROLE;
SELECT count(*) FROM claim_wa_media();
SELECT is(world.begin('Q2', 60), 'go', 'whatever the quota says');
UPDATE wa_media SET created_at = created_at - interval '25 hours' WHERE provider_media_id IN ('Q1', 'Q2');
UPDATE wa_organizations SET media_quota = (SELECT bytes + 100 FROM wa_media_usages);
SELECT world.send_in('Q4', 'document', '{"mime_type": "text/plain"}', 5);
SELECT count(*) FROM claim_wa_media();
SELECT is(world.begin('Q4', 60), 'on_demand', 'an organization has its own, with what is under way');
UPDATE wa_media SET leased_until = NULL, status = 'failed', next_attempt_at = NULL WHERE provider_media_id IN ('Q2', 'Q3');
SELECT fetch_wa_media((world.file('Q4')).id);
UPDATE wa_media SET is_wanted = false WHERE provider_media_id = 'Q4';
SELECT count(*) FROM claim_wa_media();
SELECT is(world.begin('Q4', 60), 'go', 'which is of use when others go');

-- on demand
SELECT is(fetch_wa_media((world.file('B')).id), 'stored', 'what is there needs no fetching');
SELECT throws_ok($$ SELECT fetch_wa_media((world.file('M2')).id) $$, 'WA031', NULL,
    'what the provider has forgotten cannot be had');

-- each in turn
CREATE TEMPORARY TABLE other AS SELECT create_wa_organization('Other') AS id;
UPDATE wa_media SET status = 'failed', next_attempt_at = NULL WHERE status = 'pending';
INSERT INTO wa_media (organization_id, direction, media_type, provider_media_id, phone_number_id, next_attempt_at)
SELECT (SELECT id FROM wa_organizations WHERE is_default), 'inbound', 'image', 'X' || n, '100',
    clock_timestamp() - interval '1 hour' FROM generate_series(1, 20) n
UNION ALL SELECT id, 'inbound', 'image', 'Y', '101', clock_timestamp() FROM other;
SELECT ok('/Y?phone_number_id=101' IN (SELECT path FROM claim_wa_media(2)),
    'nobody''s many files keep another organization waiting');
SELECT is((SELECT count(*) FROM claim_wa_media(10)), 3::bigint, 'of which few are under way at a time');
SELECT is((SELECT count(*) FROM claim_wa_media(10)), 0::bigint, 'and no more meanwhile');

SELECT * FROM finish();
ROLLBACK;
