-- Tests sql/api/messages.sql.
BEGIN;
SELECT plan(14);
\ir ../world.psql
CREATE ROLE wa_messages_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT world.wrote(1);
SELECT world.queue(1) AS sent, world.queue(2) AS failed, world.queue(3) AS waiting \gset
SELECT count(*) FROM world.claim() \gset
SELECT world.accept(:'sent', 'wamid.1'), world.refuse(:'failed', 131026);
SELECT world.queue(4) AS pending \gset
SET LOCAL ROLE wa_messages_app;

SELECT results_eq(format($$ SELECT m #>> '{queued,status}', m #>> '{message,state}', m #>> '{message,wa_message_id}',
    m #>> '{explanation,reason}', jsonb_typeof(m -> 'history') FROM get_wa_message(%L) m $$, :'sent'),
    $$ VALUES ('sent', 'accepted', 'wamid.1', 'sent', 'array') $$, 'a message with its history');
SELECT is(get_wa_message(:'failed') #>> '{queued,error_code}', '131026', 'one that failed, and why');
SELECT is(get_wa_message(:'pending') -> 'message', 'null', 'one that has not gone is in no ledger');
SELECT ok(get_wa_message(:'pending') #>> '{explanation,explanation}' <> '', 'why it has not is told');
SELECT is(get_wa_message((get_wa_message(:'sent') #>> '{message,id}')) #>> '{queued,id}', :'sent',
    'the id in the ledger finds it, too');
SELECT throws_ok($$ SELECT get_wa_message('1x') $$, 'P0002', 'no message with the id "1x"', 'any other id finds none');
SELECT throws_ok($$ SELECT get_wa_message('00000000-0000-4000-8000-000000000000') $$, 'P0002', NULL, 'nor a strange one');
SELECT throws_ok($$ SELECT get_wa_message(NULL) $$, 'P0002', NULL, 'nor none');

SELECT is(cancel_wa_message(:'pending') ->> 'status', 'cancelled', 'a pending one is taken back');
SELECT is(cancel_wa_message(:'pending') ->> 'status', 'cancelled', 'and stays so');
SELECT throws_ok(format('SELECT cancel_wa_message(%L)', :'waiting'), 'WA201',
    'the message is sending and can no longer be cancelled', 'one that was claimed is not');
SELECT throws_ok(format('SELECT cancel_wa_message(%L)', :'sent'), 'WA201', NULL, 'nor one that was sent');
SELECT throws_ok('SELECT cancel_wa_message(gen_random_uuid())', 'P0002', NULL, 'nor one that is not there');
SELECT set_eq($$ SELECT DISTINCT k FROM get_wa_message((SELECT id::text FROM wa_outbound_queue LIMIT 1)) m,
    jsonb_object_keys(m -> 'queued') k WHERE k IN ('change_no', 'contact_id', 'attempt', 'organization_id') $$,
    '{}'::text[], 'what is ours alone is not shown');

SELECT * FROM finish();
