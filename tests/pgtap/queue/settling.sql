-- Tests sql/queue/settling.sql, sql/ledger/outcomes.sql, sql/ledger/statuses.sql.
BEGIN;
SELECT plan(31);
\ir ../world.psql

CREATE FUNCTION pg_temp.unknown(p_n integer, p_on_unknown text DEFAULT NULL)
    RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := world.queue(p_n);
BEGIN
    UPDATE wa_outbound_queue SET on_unknown = p_on_unknown, expires_at = 'infinity' WHERE id = v_id;
    PERFORM world.claimed();
    PERFORM world.complete(v_id, '{"outcome": "unknown", "error": "ReadError"}');
    RETURN v_id;
END
$$;
CREATE FUNCTION pg_temp.callback(p_id uuid, p_wamid text, p_attempt integer DEFAULT 1)
    RETURNS void LANGUAGE sql AS $$
    SELECT _wa_settle_from_callback(current_wa_organization(), ARRAY[p_id], ARRAY[p_attempt], ARRAY[p_wamid])
$$;
CREATE FUNCTION pg_temp.webhook_arrives() RETURNS void LANGUAGE sql AS $$
    UPDATE wa_phone_numbers SET last_webhook_at = clock_timestamp()
$$;

-- a dispatcher that reports nothing
CREATE TEMPORARY TABLE lost AS SELECT world.queue(1) AS id;
SELECT world.claimed();
SELECT world.maintain();
SELECT is(world.reason(id), 'sending', 'while its lease runs a row is being sent') FROM lost;
SELECT world.later('61 seconds');
SELECT is(world.maintain() ->> 'lost', '1', 'a lease that ran out is noticed');
SELECT is(world.reason(id), 'outcome_unknown', 'its outcome is unknown') FROM lost;
SELECT is(world.claimed(), 0, 'it is not sent again');
SELECT is(world.accept(id, 'wamid.late'), 1, 'an answer that comes late is welcome') FROM lost;
SELECT is(world.outcome(id), 'sent', 'and settles it') FROM lost;
SELECT pg_temp.callback(id, 'wamid.late') FROM lost;
SELECT is((SELECT count(*) FROM wa_messages), 1::bigint, 'callback data of the same message adds nothing');

-- the wait, while webhooks arrive
CREATE TEMPORARY TABLE quiet AS SELECT pg_temp.unknown(2) AS id;
SELECT pg_temp.webhook_arrives();
SELECT world.later('14 minutes');
SELECT pg_temp.webhook_arrives();
SELECT world.maintain();
SELECT is(world.reason(id), 'outcome_unknown', 'for a quarter of an hour it waits') FROM quiet;
SELECT world.later('61 seconds');
SELECT world.maintain();
SELECT is(world.outcome(id), 'failed outcome_unknown', 'then it fails') FROM quiet;
SELECT is((SELECT status || ' ' || error_title FROM wa_messages WHERE queue_id = quiet.id),
    'failed outcome_unknown', 'in the ledger too') FROM quiet;
SELECT pg_temp.callback(id, 'wamid.back') FROM quiet;
SELECT is(world.outcome(id), 'sent', 'callback data that comes later corrects it') FROM quiet;
SELECT results_eq('SELECT m.status, m.state, m.wa_message_id, m.error_title
    FROM wa_messages m JOIN quiet ON m.queue_id = quiet.id',
    $$ VALUES ('sent', 'accepted', 'wamid.back', NULL) $$, 'in one entry of the ledger');

-- the wait, while none arrive
CREATE TEMPORARY TABLE silent AS SELECT pg_temp.unknown(3) AS id;
UPDATE wa_phone_numbers SET last_webhook_at = NULL;
SELECT world.later('2 hours');
SELECT world.maintain();
SELECT is(world.reason(id), 'outcome_unknown', 'silence of all webhooks tells nothing') FROM silent;
SELECT world.later('21 hours');
SELECT world.maintain();
SELECT is(world.reason(id), 'outcome_unknown', 'for a day') FROM silent;
SELECT world.later('61 minutes');
SELECT world.maintain();
SELECT is(world.outcome(id), 'failed outcome_unknown', 'then it fails') FROM silent;

-- sent again, where the row asks for it
CREATE TEMPORARY TABLE again AS SELECT pg_temp.unknown(4, 'retry') AS id;
SELECT pg_temp.webhook_arrives();
SELECT world.later('16 minutes');
SELECT pg_temp.webhook_arrives();
SELECT world.maintain();
SELECT is(world.outcome(id), 'pending', 'a row may ask to be sent again') FROM again;
SELECT results_eq('SELECT attempt FROM world.claim()', 'VALUES (2)', 'as another attempt');
SELECT pg_temp.callback(id, 'wamid.first') FROM again;
SELECT is(world.outcome(id), 'sent', 'callback data of the first attempt settles it while the second is on its way')
    FROM again;
SELECT is(world.accept(id, 'wamid.second'), 0, 'what the second brought is passed over') FROM again;

-- callback data before the answer
CREATE TEMPORARY TABLE quick AS SELECT world.queue(5) AS id;
SELECT world.claimed();
SELECT pg_temp.callback(id, 'wamid.quick') FROM quick;
SELECT is(world.outcome(id), 'sent', 'callback data may come before the answer') FROM quick;
SELECT is(world.accept(id, 'wamid.quick'), 0, 'which then has nothing to add') FROM quick;
CREATE TEMPORARY TABLE waiting AS SELECT pg_temp.unknown(6) AS id;
SELECT pg_temp.callback(id, 'wamid.waiting') FROM waiting;
SELECT is(world.outcome(id), 'sent', 'callback data settles what is unknown') FROM waiting;
SELECT is((SELECT count(*) FROM wa_queue_inflight), 0::bigint, 'nothing is left in flight');
CREATE TEMPORARY TABLE refused AS SELECT world.queue(7) AS id;
SELECT world.claimed();
SELECT world.refuse(id, 131026) FROM refused;
SELECT pg_temp.callback(id, 'wamid.refused') FROM refused;
SELECT is(world.outcome(id), 'failed 131026', 'callback data does not revive what the provider refused')
    FROM refused;
CREATE TEMPORARY TABLE future AS SELECT pg_temp.unknown(8) AS id;
SELECT pg_temp.callback(id, 'wamid.future', 9) FROM future;
SELECT is(world.reason(id), 'outcome_unknown', 'nor is an attempt believed that was never made') FROM future;
SELECT is((SELECT count(*) FROM wa_queue_health WHERE outcome_unknown = 1), 1::bigint,
    'wa_queue_health counts what is unknown');

-- a person's decision
SELECT pg_temp.webhook_arrives();
SELECT world.later('16 minutes');
SELECT pg_temp.webhook_arrives();
SELECT world.maintain();
SELECT is(retry_wa_messages(ids => ARRAY[id]), 1, 'what failed as unknown may be sent again by hand')
    FROM future;
SELECT results_eq('SELECT attempt FROM world.claim()', 'VALUES (2)', 'as another attempt');
SELECT pg_temp.callback(id, 'wamid.future') FROM future;
SELECT is(world.outcome(id), 'sent', 'and its first callback data still counts') FROM future;
SELECT is((SELECT count(*) FROM wa_messages WHERE queue_id = future.id), 1::bigint, 'one message, one entry')
    FROM future;
SELECT is((SELECT max(n) FROM (SELECT count(*) AS n FROM wa_messages GROUP BY queue_id) x), 1::bigint,
    'of every row');

SELECT * FROM finish();
ROLLBACK;
