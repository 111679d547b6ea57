-- Tests sql/media/cleanup.sql, sql/media/blobs.sql.
-- What goes when, in whatever store, and nothing that is in use.
BEGIN;
SELECT plan(46);
\ir files.psql
CREATE FUNCTION pg_temp.left_of(p_id text) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce((SELECT m.status || CASE WHEN m.blob_id IS NULL THEN '' ELSE ' with bytes' END
        FROM wa_media m WHERE m.provider_media_id = p_id), 'nothing')
$$;
CREATE FUNCTION pg_temp.garbage() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM wa_media_garbage';

-- bytes are there once, and as long as anybody has them
SELECT world.send_in(id) FROM unnest(ARRAY['A', 'B', 'C']) id;
SELECT world.store(id, 'picture') FROM unnest(ARRAY['A', 'B']) id;
SELECT world.store('C', 'other');
SELECT is((SELECT count(*) FROM wa_media_blobs), 2::bigint, 'the same bytes are there once');
SET LOCAL ROLE wa_media_app;
SELECT throws_ok('DELETE FROM wa_media', '42501', NULL, 'an application ends files, and deletes none');
SET LOCAL ROLE wa_media_admin;
DELETE FROM wa_media WHERE provider_media_id = 'A';
SELECT is((SELECT count(*) FROM wa_media_blobs), 2::bigint, 'as long as a file has them');
DELETE FROM wa_media WHERE provider_media_id = 'B';
SELECT is((SELECT count(*) FROM wa_media_blobs), 1::bigint, 'a file that is deleted leaves no bytes');
RESET ROLE;
SELECT is((SELECT bytes FROM wa_media_usages), 5::bigint, 'the rest counts');

-- links and files that expire
SELECT l.id AS link, l.token FROM create_wa_media_signature((world.file('C')).id) l \gset
SET LOCAL ROLE wa_media_app;
UPDATE wa_media SET expires_at = clock_timestamp() WHERE provider_media_id = 'C';
RESET ROLE;
SELECT is((SELECT outcome FROM verify_wa_media_signature(:'link', :'token')), 'gone',
    'a file that is ended is gone at once');
UPDATE wa_media SET expires_at = NULL WHERE provider_media_id = 'C';
SELECT is((SELECT outcome FROM open_wa_media(:'link', :'token', 'a', 'b')), 'ok', 'one that somebody opens');
UPDATE wa_media SET expires_at = clock_timestamp() WHERE provider_media_id = 'C';
UPDATE wa_media_signatures SET expires_at = clock_timestamp();
SET LOCAL ROLE wa_media_admin;
SELECT is(cleanup_expired_wa_media(), 0, 'may be being read');
RESET ROLE;
UPDATE wa_media_openings SET opened_at = opened_at - interval '1 hour';
SELECT is(cleanup_expired_wa_media(), 2, 'then link and bytes go');
SELECT is(pg_temp.left_of('C'), 'deleted', 'and it is known that they were there');
SELECT is((SELECT count(*) FROM wa_media_chunks), 0::bigint, 'none are left');
SELECT is((SELECT bytes FROM wa_media_usages), 0::bigint, 'nor count');

-- files without messages
SELECT world.send_in('D');
SELECT world.store('D', 'picture');
SELECT is(cleanup_expired_wa_media(), 0, 'a file of a message stays');
SELECT l.id AS link2 FROM create_wa_media_signature((world.file('D')).id) l \gset
UPDATE wa_messages SET created_at = created_at - interval '3 days';
SELECT ok(delete_wa_messages_before(now() - interval '2 days') > 0, 'its message is deleted');
SELECT is((world.file('D')).message_id, NULL, 'it has none any more');
SELECT is(cleanup_expired_wa_media() || pg_temp.left_of('D'), '1stored with bytes',
    'while a link is good, it stays; another without a message goes');
UPDATE wa_media_signatures SET access_count = max_access WHERE id = :'link2';
SELECT is(cleanup_expired_wa_media(), 1, 'then it goes, too');
SELECT is(pg_temp.left_of('D'), 'nothing', 'altogether');

-- with the messages of the organization
UPDATE wa_organizations SET message_retention = interval '90 days';
SELECT world.send_in('E');
UPDATE wa_media SET id = overlay(id::text PLACING '018' FROM 1)::uuid WHERE provider_media_id = 'E';
SELECT is(cleanup_expired_wa_media(), 0, 'an id that says it is old is not enough');
UPDATE wa_media SET created_at = created_at - interval '91 days' WHERE provider_media_id = 'E';
SELECT is(cleanup_expired_wa_media(), 1, 'files go when their messages go');
SELECT create_wa_media('mine', 'text/plain', 'a.txt') AS mine \gset
UPDATE wa_media SET id = overlay(id::text PLACING '018' FROM 1)::uuid, created_at = created_at - interval '91 days'
WHERE id = :'mine';
SELECT id AS mine FROM wa_media WHERE direction = 'outbound' \gset
SELECT world.wrote(1);
INSERT INTO wa_outbound_queue (phone, type, content, scheduled_at)
VALUES (world.customer(1), 'document', jsonb_build_object('media_id', :'mine'), now() + interval '1 day');
SELECT ok(used_at > now() + interval '23 hours', 'a file of yours is used when its message is due')
FROM wa_media WHERE id = :'mine';
UPDATE wa_media SET used_at = now() - interval '91 days', expires_at = now() WHERE id = :'mine';
SELECT is(cleanup_expired_wa_media(), 0, 'what a message waits to be sent with stays, whatever was said');
UPDATE wa_outbound_queue SET status = 'cancelled';
SELECT is(cleanup_expired_wa_media(), 2, 'and goes, bytes and all, when none does');
SELECT is((SELECT count(*) FROM wa_media WHERE direction = 'outbound'), 0::bigint, 'nothing is left of it');

-- what nobody fetched
SELECT world.send_in('F');
UPDATE wa_media SET next_attempt_at = next_attempt_at - interval '8 days' WHERE provider_media_id = 'F';
SELECT is(cleanup_expired_wa_media(), 0, 'what nobody fetched in time');
SELECT is(pg_temp.left_of('F'), 'failed', 'has failed');

-- bytes outside of the database
UPDATE wa_installations SET media_store = 'directory', media_location = '/srv/files';
SELECT world.send_in(id, 'document', '{"mime_type": "text/plain"}') FROM unnest(ARRAY['G', 'H']) id;
SELECT count(*) FROM claim_wa_media();
SELECT is(world.bring('G', 'outside', NULL), 'stored', 'a file in a directory');
SELECT is(world.bring('H', 'outside', NULL), 'stored', 'once for two');
SELECT results_eq('SELECT store, location, is_complete FROM wa_media_blobs',
    $$ VALUES ('directory', '/srv/files', true) $$, 'the database knows where it is');
UPDATE wa_installations SET media_store = 'database', media_location = NULL;
SELECT l.id AS link3, l.token AS token3 FROM create_wa_media_signature((world.file('G')).id) l \gset
SELECT results_eq(format('SELECT outcome, store, location, object_key FROM open_wa_media(%L, %L)', :'link3', :'token3'),
    $$ SELECT 'ok', 'directory', '/srv/files', organization_id || '/' || id FROM wa_media_blobs $$,
    'also when others go elsewhere by now');
DELETE FROM wa_media WHERE provider_media_id = 'G';
SELECT is(pg_temp.garbage(), 0::bigint, 'it is kept while a file has it');
DELETE FROM wa_media WHERE provider_media_id = 'H';
SELECT is(pg_temp.garbage(), 1::bigint, 'then it is to be deleted');
SET LOCAL ROLE wa_media_dispatcher;
SELECT results_eq('SELECT store, location, object_key ~ blob_id::text FROM claim_wa_media_garbage()',
    $$ VALUES ('directory', '/srv/files', true) $$, 'by a dispatcher');
SELECT is((SELECT count(*) FROM claim_wa_media_garbage()), 0::bigint, 'one at a time');
RESET ROLE;
SELECT end_wa_media_garbage(organization_id, blob_id, 'the store answers: no') FROM wa_media_garbage;
SELECT ok(error ~ 'no' AND due_at > now(), 'who cannot, says so, and tries again') FROM wa_media_garbage;
SELECT end_wa_media_garbage(organization_id, blob_id) FROM wa_media_garbage;
SELECT is(pg_temp.garbage(), 0::bigint, 'until it is gone');
UPDATE wa_installations SET media_store = 's3', media_location = 's3://bucket/some/prefix';
SELECT world.send_in('I', 'document', '{"mime_type": "text/plain"}');
SELECT count(*) FROM claim_wa_media();
SELECT verdict FROM wa_media m
CROSS JOIN begin_wa_media_store(m.organization_id, m.id, m.attempts, sha256('never'), 5, NULL)
WHERE m.provider_media_id = 'I';
UPDATE wa_media_blobs SET created_at = created_at - interval '25 hours';
SELECT is(cleanup_expired_wa_media(), 1, 'what somebody began to write, and did not end');
SELECT is(pg_temp.garbage(), 1::bigint, 'is deleted, too, whether or not it got there');
DELETE FROM wa_media_garbage;
UPDATE wa_media SET next_attempt_at = now() WHERE provider_media_id = 'I';
SELECT count(*) FROM claim_wa_media();
SELECT is(world.bring('I', 'never', NULL), 'stored', 'another attempt has its own place');
UPDATE wa_installations SET media_store = 'database', media_location = NULL;
CREATE TEMPORARY TABLE gone AS SELECT create_wa_organization('Gone') AS id;
INSERT INTO wa_media_blobs (organization_id, id, sha256, size, store, location, is_own, is_complete)
SELECT id, gen_random_uuid(), sha256('x'), 1, 'directory', '/srv/files', false, true FROM gone;
INSERT INTO wa_media (organization_id, direction, media_type, status, next_attempt_at, blob_id)
SELECT g.id, 'inbound', 'image', 'stored', NULL, b.id FROM gone g JOIN wa_media_blobs b ON b.organization_id = g.id;
DELETE FROM wa_organizations o USING gone g WHERE o.id = g.id;
SELECT is((SELECT count(*) FROM wa_media_garbage JOIN gone ON organization_id = id), 1::bigint,
    'an organization that is deleted leaves no bytes anywhere');

SELECT throws_ok(format('UPDATE wa_installations SET media_store = %L, media_location = %L', store, location), '23514',
    NULL, concat_ws(' ', store, location, 'is no place'))
FROM (VALUES ('directory', NULL), ('directory', 'relative'), ('s3', '/x'), ('s3', NULL), ('database', '/x'),
    ('elsewhere', NULL)) x (store, location);

SELECT * FROM finish();
ROLLBACK;
