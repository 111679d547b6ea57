-- Tests sql/queue/control.sql.
BEGIN;
SELECT plan(39);
\ir ../world.psql
UPDATE wa_phone_numbers SET throughput = 1000;
CREATE FUNCTION pg_temp.outcomes(p_reference text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', status, error_code), ', ' ORDER BY id) FROM wa_outbound_queue
        WHERE reference = p_reference
$$;
CREATE FUNCTION pg_temp.sends() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(q.reference, ' ' ORDER BY c.n) FROM world.claim() c JOIN wa_outbound_queue q
        ON q.id = c.queue_id
$$;

-- cancelling
SELECT world.queue(n) FROM generate_series(1, 4) n;
SELECT is(cancel_wa_messages(reference => '1'), 1, 'by reference');
SELECT is(cancel_wa_messages(phone => '+54 9 11 4000-0002'), 1, 'by phone, in any usual form');
SELECT is(cancel_wa_messages(ids => (SELECT array_agg(id) FROM wa_outbound_queue WHERE reference = '3')), 1,
    'by id');
SELECT is(cancel_wa_messages(reference => '1'), 0, 'what was cancelled is not cancelled again');
SELECT is(cancel_wa_messages(phone => '+5491199999999'), 0, 'a stranger has nothing to cancel');
SELECT is(pg_temp.sends(), '4', 'the rest is sent');
SELECT is(cancel_wa_messages(reference => '4'), 0, 'what is being sent is not touched');
SELECT is(pg_temp.outcomes('4'), 'sending', 'it goes on');
SELECT ok(processed_at IS NOT NULL, 'a cancelled row says when') FROM wa_outbound_queue WHERE reference = '1';
SELECT throws_ok('SELECT cancel_wa_messages()', '22023', NULL, 'all of them at once is not what NULL means');
SELECT throws_ok($$ SELECT cancel_wa_messages(reference => '1', phone => '+5491140000001') $$, '22023', NULL,
    'one way of naming them');
SELECT world.accept_all();

-- rescheduling
SELECT world.queue(11);
INSERT INTO wa_outbound_queue (phone, template_name, expires_at, reference) VALUES (world.customer(12),
    'hello', 'infinity', '12');
SELECT is(reschedule_wa_messages(clock_timestamp() + interval '2 hours', reference => '11'), 1,
    'a row is moved');
SELECT reschedule_wa_messages(clock_timestamp() + interval '2 hours', phone => world.customer(12));
SELECT is(pg_temp.sends(), NULL, 'and waits');
SELECT is(world.reason(id), 'scheduled', 'as explained') FROM wa_outbound_queue WHERE reference = '11';
SELECT is(round(extract(epoch FROM expires_at - clock_timestamp()) / 3600), 26::numeric,
    'its expiry moves along')
FROM wa_outbound_queue WHERE reference = '11';
SELECT is(expires_at, 'infinity', 'infinity stays') FROM wa_outbound_queue WHERE reference = '12';
SELECT world.later('2 hours');
SELECT is(pg_temp.sends(), '11 12', 'at its time it goes');
SELECT is(reschedule_wa_messages(now(), reference => '11'), 0, 'what is being sent is not moved');
SELECT throws_ok($$ SELECT reschedule_wa_messages(NULL, reference => '11') $$, '22004', NULL,
    'a time must be given');
SELECT world.refuse(id, 131026) FROM wa_outbound_queue WHERE status = 'sending';

-- retrying
SELECT is(retry_wa_messages(reference => '11'), 1, 'a failed row is queued again');
SELECT results_eq($$ SELECT status, retry_count, error_code, last_error FROM wa_outbound_queue
    WHERE reference = '11' $$,
    $$ VALUES ('pending', 0, NULL, NULL) $$, 'as new');
SELECT is(pg_temp.sends(), '11', 'and sent');
SELECT is(retry_wa_messages(reference => '11'), 0, 'what is being sent is not queued again');
SELECT world.accept_all();
SELECT is(retry_wa_messages(reference => '11'), 0, 'nor what was sent');
SELECT results_eq($$ SELECT status, state, error_code FROM wa_messages WHERE reference = '11' $$,
    $$ VALUES ('sent', 'accepted', NULL::integer) $$, 'its entry in the ledger is the same one');
SELECT is(retry_wa_messages(phone => world.customer(12)), 1, 'by phone');
SELECT is(retry_wa_messages(reference => '1'), 1, 'what was cancelled may be sent after all');
SELECT is(pg_temp.sends(), '12 1', 'both go');
SELECT world.accept_all();
INSERT INTO wa_outbound_queue (phone, template_name, expires_at, reference)
VALUES (world.customer(21), 'hello', clock_timestamp() + interval '1 minute', '21');
SELECT world.later('2 minutes');
SELECT world.maintain();
SELECT is(pg_temp.outcomes('21'), 'failed expired', 'a row that expired');
SELECT is(retry_wa_messages(reference => '21'), 1, 'may be sent');
SELECT is(pg_temp.sends(), '21', 'with a new life');
SELECT world.wrote(22), world.say(22);
SELECT cancel_wa_messages(reference => '22');
UPDATE wa_conversation_windows SET last_customer_message_at = now() - interval '2 days';
SELECT throws_ok($$ SELECT retry_wa_messages(reference => '22') $$, 'WA101', NULL,
    'a retried row is judged anew');
SELECT is(pg_temp.outcomes('22'), 'cancelled', 'and stays what it was');

-- a contact who opts out
SELECT world.wrote(30);
SELECT world.queue(30, 'sale'), world.queue(30), world.say(30);
SELECT opt_out_wa_contact(world.customer(30));
SELECT is(pg_temp.outcomes('30'), 'cancelled opted_out, pending, pending',
    'an opt-out of marketing cancels marketing');
SELECT opt_out_wa_contact(world.customer(30), 'all');
SELECT is(pg_temp.outcomes('30'), 'cancelled opted_out, cancelled opted_out, cancelled opted_out',
    'one of all cancels all');

-- other tenants
SELECT create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001');
CREATE ROLE wa_control_other IN ROLE wa_app;
SELECT add_wa_organization_role('0b0b0b0b-0000-4000-8000-000000000001', 'wa_control_other');
CREATE ROLE wa_control_admin IN ROLE wa_admin;
CREATE TEMPORARY TABLE ours (id uuid, home uuid);
GRANT SELECT ON ours TO PUBLIC;
SET LOCAL wa.organization_id = '0b0b0b0b-0000-4000-8000-000000000001';
SELECT set_config('wa.organization_id', (SELECT id::text FROM wa_organizations WHERE is_default), true);
INSERT INTO ours SELECT world.queue(40), current_wa_organization();
SELECT set_config('wa.organization_id', '', true);
SET LOCAL ROLE wa_control_other;
SELECT is(cancel_wa_messages(ids => (SELECT array_agg(id) FROM ours)), 0,
    'another tenant cancels nothing of ours');
SELECT is(reschedule_wa_messages(now() + interval '1 day', ids => (SELECT array_agg(id) FROM ours)), 0,
    'moves nothing');
SELECT is(retry_wa_messages(ids => (SELECT array_agg(id) FROM ours)), 0, 'retries nothing');
SELECT throws_ok('SELECT * FROM ours, explain_wa_message(ours.id)', 'P0002', NULL, 'and is told nothing');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
