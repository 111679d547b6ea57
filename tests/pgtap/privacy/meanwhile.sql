-- Tests sql/privacy/erasing.sql, sql/privacy/holds.sql.
-- What happens to somebody while an erasure is under way.
BEGIN;
SELECT plan(14);
\ir ../world.psql
\ir ../customers.psql
CREATE FUNCTION pg_temp.traces(p_n integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_table text;
    v_rows bigint;
    v_found bigint := 0;
BEGIN
    FOR v_table IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
        AND c.relkind = 'r' AND c.relname <> '_wa_scripts' LOOP
        EXECUTE format('SELECT count(*) FROM %I t WHERE t::text LIKE %L', v_table, '%' || world.wa_id(p_n) || '%') INTO v_rows;
        v_found := v_found + v_rows;
    END LOOP;
    RETURN v_found;
END
$$;

-- on its way to the provider
SELECT world.writes(n, 'hello') FROM generate_series(1, 3) n \g /dev/null
SELECT world.say(n, 'on its way ' || world.wa_id(n)) FROM generate_series(1, 2) n \g /dev/null
SELECT is(world.claimed(), 2, 'two are being sent');
SELECT is((erase_wa_contact(world.customer(n), 'r')).state, 'running', 'an erasure waits for what is being sent')
FROM generate_series(1, 2) n;
SELECT ok(bool_and(is_wa_opted_out(world.customer(n), 'all')), 'nothing more is') FROM generate_series(1, 2) n;
SELECT hold_wa_contact(world.customer(2), 'case 1') \g /dev/null
SELECT world.accept(queue_id) FROM wa_queue_inflight i WHERE i.contact_id = world.found(1);
SELECT world.refuse(queue_id, 131026) FROM wa_queue_inflight i WHERE i.contact_id = world.found(2);
SELECT run_wa_erasures() \g /dev/null
SELECT is(pg_temp.traces(1), 0::bigint, 'what was sent goes as soon as that is known');
SELECT cmp_ok(pg_temp.traces(2), '>', 0::bigint, 'a hold that came meanwhile keeps the other');
SELECT is(erase_wa_contact.id, NULL, 'which is not erased a second time, either')
FROM (SELECT 1) x LEFT JOIN LATERAL (SELECT e.id FROM wa_erasures e WHERE e.contact_id = world.found(2) AND e.state = 'done')
    erase_wa_contact ON true;
SELECT throws_ok($$ SELECT erase_wa_contact(world.customer(2), 'again') $$, 'WA071', NULL, 'nor by somebody else');
SELECT release_wa_contact(world.customer(2)) \g /dev/null
SELECT run_wa_erasures() \g /dev/null
SELECT is(pg_temp.traces(2), 0::bigint, 'until it is released');

-- what the provider tells of it later
CREATE TEMP TABLE known AS SELECT count(*) AS contacts FROM wa_contacts;
SELECT lives_ok(format($f$ SELECT world.told_all('[{"id": "wamid.%s", "status": "read", "timestamp": "1700000000",
    "recipient_id": "%s"}]', 'statuses') $f$, gen_random_uuid(), world.wa_id(1)), 'a status of an erased message');
SELECT is((SELECT count(*) FROM wa_webhook_errors), 0::bigint, 'is no fault');
SELECT is((SELECT count(*) FROM wa_contacts), contacts, 'and makes nobody known') FROM known;

-- two at once, and one of somebody who is held from the start
SELECT is((SELECT count(DISTINCT (erase_wa_contact(world.customer(3), 'r')).id) FROM generate_series(1, 1)), 1::bigint, 'one erasure');
SELECT is((SELECT count(*) FROM wa_erasures WHERE state = 'running'), 0::bigint, 'and all are done');

SELECT * FROM finish();
ROLLBACK;
