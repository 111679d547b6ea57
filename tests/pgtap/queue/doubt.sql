-- Tests sql/queue/settling.sql, sql/sending/failures.sql.
BEGIN;
SELECT plan(7);
\ir ../world.psql


-- callback data that was stored in time but not processed yet
CREATE TEMPORARY TABLE again AS SELECT world.queue(1) AS id;
UPDATE wa_outbound_queue SET on_unknown = 'retry', expires_at = 'infinity';
SELECT world.claimed();
SELECT world.complete(id, '{"outcome": "unknown", "error": "ReadError"}') FROM again;
SELECT ingest_wa_webhook('{"object": "whatsapp_business_account", "entry": []}');
SELECT world.later('16 minutes');
UPDATE wa_webhook_logs SET received_at = received_at - interval '10 minutes';
UPDATE wa_phone_numbers SET last_webhook_at = clock_timestamp();
SELECT world.maintain();
SELECT is(world.outcome(id), 'sending', 'nothing is sent again while webhooks wait to be processed')
FROM again;
SELECT process_wa_webhooks();
SELECT world.later('2 minutes');
SELECT world.maintain();
SELECT is(world.outcome(id), 'pending', 'it is once they are') FROM again;
DELETE FROM wa_outbound_queue;

-- a claim whose answer was lost
CREATE TEMPORARY TABLE claims AS SELECT world.queue(2) AS held, world.queue(3) AS lost, world.queue(4) AS other;
SELECT is(world.claimed(), 3, 'three are claimed');
UPDATE wa_queue_inflight SET dispatcher_id = '00000000-0000-0000-0000-000000000002'
FROM claims WHERE queue_id = other;
SELECT is(release_wa_claims('00000000-0000-0000-0000-000000000001', ARRAY[held]), 1, 'one is handed back')
FROM claims;
SELECT is(world.outcome(held), 'sending', 'not what the dispatcher holds') FROM claims;
SELECT is(world.outcome(lost), 'pending', 'but what it never got') FROM claims;
SELECT is(world.outcome(other), 'sending', 'and nothing of another dispatcher') FROM claims;

SELECT * FROM finish();
ROLLBACK;
