-- Tests sql/sending/failures.sql, sql/sending/errors.sql, sql/sending/statuses.sql, sql/templates/blocks.sql,
-- sql/sending/dispatchers.sql.
BEGIN;
SELECT plan(56);
\ir ../world.psql
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200');
SELECT register_wa_phone_number('102', '+1 555 123 4569', '202');

-- Every code of the table: a template and, where it matters, a reply is answered with it.
CREATE FUNCTION pg_temp.follows(
    p_code integer, p_status integer, p_again integer DEFAULT 0, p_subcode integer DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid;
    v_said text;
    v_customer integer := 100000 + nextval('pg_temp.customers');
BEGIN
    v_id := world.queue(v_customer, 'sale');
    FOR v_try IN 0 .. p_again LOOP
        UPDATE wa_phone_numbers SET pause_scope = NULL, paused_until = NULL;
        PERFORM world.later('2 hours');
        UPDATE wa_outbound_queue SET expires_at = clock_timestamp() + interval '1 day',
            change_no = change_no + 1
        WHERE id = v_id;
        IF NOT EXISTS (SELECT FROM world.claim() c WHERE c.queue_id = v_id) THEN
            RAISE EXCEPTION 'code %: not claimed: %', p_code, world.reason(v_id);
        END IF;
        PERFORM world.refuse(v_id, p_code, p_status, p_subcode);
    END LOOP;
    SELECT concat_ws(' ', q.status, q.error_code, 'try ' || nullif(q.retry_count, 0),
        'wait ' || CASE WHEN d.due_at > clock_timestamp()
            THEN round(extract(epoch FROM d.due_at - clock_timestamp()) / 60) || 'm' END,
        (SELECT string_agg(n.phone_number_id || ' ' || n.pause_scope
            || coalesce(' ' || round(extract(epoch FROM n.paused_until - clock_timestamp()) / 60) || 'm', ''),
                ', '
            ORDER BY n.id) FROM wa_phone_numbers n WHERE n.pause_scope IS NOT NULL),
        (SELECT 'template stopped' || coalesce(' '
            || round(extract(epoch FROM t.blocked_until - clock_timestamp()) / 60) || 'm', '')
            FROM wa_templates t WHERE t.name = 'sale' AND t.blocked_at IS NOT NULL),
        (SELECT 'opted out of ' || string_agg(o.scope, ' and ' ORDER BY o.scope) FROM wa_opt_outs o
            WHERE o.contact_id = world.contact(world.customer(v_customer)))
    ) INTO v_said
    FROM wa_outbound_queue q LEFT JOIN wa_queue_due d ON d.queue_id = q.id WHERE q.id = v_id;
    UPDATE wa_phone_numbers SET pause_scope = NULL, paused_until = NULL;
    UPDATE wa_templates SET blocked_reason = NULL, blocked_at = NULL, blocked_until = NULL;
    DELETE FROM wa_outbound_queue WHERE id = v_id;
    RETURN v_said;
END
$$;
CREATE TEMPORARY SEQUENCE customers;
CREATE TEMPORARY VIEW metas AS SELECT * FROM wa_error_rules WHERE provider = 'meta';

SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action IN ('fail', 'fail_recipient') AND f <> 'failed ' || r.code
$$, 'what cannot succeed fails with its code, and nothing else happens');
SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action = 'retry' AND f <> 'pending try 1 wait ' || coalesce(extract(minute FROM r.wait), 0) || 'm'
$$, 'what may succeed later waits and is tried again');
SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action = 'stop_template' AND f <> concat_ws(' ', 'failed', r.code, 'template stopped',
        round(extract(epoch FROM r.wait) / 60) || 'm')
$$, 'what is wrong with a template stops the template, for a time where it passes');
SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action = 'pause_number' AND f <> concat_ws(' ', 'pending try 1', '100 number',
        round(extract(epoch FROM r.wait) / 60) || 'm')
$$, 'what is wrong with the number pauses the number; the message waits');
SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action = 'pause_account' AND f <> 'pending try 1 100 account, 101 account'
$$, 'what is wrong with the account pauses all its numbers');
SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action = 'pause_token' AND f <> 'pending try 1 100 token, 101 token, 102 token'
$$, 'what is wrong with the token pauses every number that has it');

-- A token that was replaced a moment ago pauses nothing: dispatchers read the new one in some seconds.
CREATE FUNCTION pg_temp.refused(p_used uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid := world.queue(100000 + nextval('pg_temp.customers')::integer, 'sale');
    v_said text;
BEGIN
    PERFORM FROM world.claim();
    PERFORM world.complete(v_id, jsonb_build_object('outcome', 'answered', 'status', 401, 'number', '100',
        'secret_id', p_used, 'answer', '{"error": {"code": 190, "message": "expired"}}'::jsonb));
    SELECT concat_ws(' ', q.status, CASE WHEN d.due_at > clock_timestamp() + interval '1 second' THEN 'later' END, (
        SELECT string_agg(n.pause_scope, ' ') FROM wa_phone_numbers n WHERE n.phone_number_id = '100'))
    INTO v_said FROM wa_outbound_queue q LEFT JOIN wa_queue_due d ON d.queue_id = q.id WHERE q.id = v_id;
    UPDATE wa_phone_numbers SET pause_scope = NULL, paused_until = NULL;
    DELETE FROM wa_outbound_queue WHERE id = v_id;
    RETURN v_said;
END
$$;
CREATE TEMPORARY TABLE tokens AS SELECT set_wa_secret('access_token', '100', sha256('a'), 'k', 'a') AS old;
SELECT is(pg_temp.refused(old), 'pending token', 'a refusal of the token that is stored pauses') FROM tokens;
SELECT is(pg_temp.refused(NULL), 'pending later', 'one of the environment''s, used before, does not') FROM tokens;
SELECT set_wa_secret('access_token', '100', sha256('b'), 'k', 'b');
SELECT is(pg_temp.refused(old), 'pending later', 'nor one of the token before') FROM tokens;
UPDATE wa_secrets SET created_at = created_at - interval '2 minutes';
SELECT is(pg_temp.refused(old), 'pending token', 'unless the new one has long been read') FROM tokens;
DELETE FROM wa_secrets;

SELECT is_empty($$
    SELECT r.code, f FROM metas r, pg_temp.follows(r.code, coalesce(r.http_status, 400), 0, r.subcode) f
    WHERE r.action = 'wait_account' AND f <> 'pending try 1 wait 5m 100 account 5m, 101 account 5m'
$$, 'what the account did too often makes all its numbers wait');
SELECT is(pg_temp.follows(130429, 400), 'pending try 1 wait 0m 100 number 0m',
    'throughput makes the number wait a second');
SELECT is(pg_temp.follows(131057, 500), 'pending try 1 wait 1m 100 number 1m', 'maintenance a minute');
SELECT is(pg_temp.follows(131050, 400), 'failed 131050 opted out of marketing',
    'a customer who stopped marketing is opted out of it');
SELECT is(pg_temp.follows(131049, 400), 'failed 131049', 'marketing that the provider holds back has failed');
SELECT ok(until BETWEEN clock_timestamp() + interval '23 hours' AND clock_timestamp() + interval '24 hours',
    'and its recipient gets none for a day') FROM wa_contact_cool_offs;
SELECT is(pg_temp.follows(131047, 400), 'failed window_closed', 'outside the window fails as such');
SELECT is(pg_temp.follows(131056, 400), 'pending try 1 wait 0m', 'the pair rate makes the recipient wait');
SELECT is_empty($$
    SELECT r.code FROM metas r WHERE r.action NOT IN ('fail', 'fail_recipient', 'retry',
        'stop_template',
        'pause_number', 'pause_account', 'pause_token', 'wait_account') AND r.code NOT IN (130429, 131057,
        131050, 131049, 131047, 131056)
$$, 'that is every code of the table');
SELECT is(pg_temp.follows(100, 400, 0, 33), 'pending try 1 100 number',
    'a number that is gone, or that the token has no right to, is paused, and its messages wait');
SELECT is(pg_temp.follows(100, 400, 0, 2388024), 'failed 100', 'with another subcode the code alone counts');
SELECT is(pg_temp.follows(190, 401, 0, 463), 'pending try 1 100 token, 101 token, 102 token',
    'as it does where the subcode repeats it');
SELECT is(pg_temp.follows(999999, 400), 'failed 999999', 'an unknown code of a 4xx fails');
SELECT is(pg_temp.follows(999999, 500), 'pending try 1 wait 0m', 'one of a 5xx is tried again');
SELECT is(pg_temp.follows(999999, 401), 'pending try 1 100 token, 101 token, 102 token',
    'one of a 401 pauses the token');
SELECT is(pg_temp.follows(999999, 429), 'pending try 1 wait 0m 100 number 0m',
    'one of a 429 pauses the number');
SELECT is(pg_temp.follows(131053, 400, 1), 'failed 131053 try 1',
    'retries end after as many as the rule allows');
SELECT matches(pg_temp.follows(1, 400, 2), '^pending try 3 ', 'not earlier');
SELECT is(pg_temp.follows(1, 400, 3), 'failed 1 try 3', 'nor later');
SELECT matches(pg_temp.follows(131000, 500, 9), '^pending try 10 wait (8|9|10|11|12|13|14|15)m$',
    'backoff grows to a quarter of an hour');
SELECT matches(pg_temp.follows(131056, 400, 3), '^pending try 4 wait 4m$',
    'a recipient''s wait to the power of four');
SELECT matches(pg_temp.follows(130429, 400, 5), '^pending try 6 wait 1m 100 number 1m$',
    'a number''s doubles');

-- a wait that the provider asks for
CREATE TEMPORARY TABLE one AS SELECT world.queue(1) AS id;
SELECT world.claimed();
SELECT world.complete(id, '{"outcome": "answered", "status": 503, "retry_after": 120,
    "answer": {"error": {"code": 2, "message": "busy"}}}') FROM one;
SELECT ok(world.held_for(id) BETWEEN 100 AND 120, 'Retry-After is honoured') FROM one;
SELECT is(world.reason(id), 'retry', 'and explained') FROM one;
SELECT matches(explanation, 'busy', 'with the last error') FROM one, explain_wa_message(id);
SELECT world.later('2 minutes');
SELECT is(world.claimed(), 1, 'then it is tried again');
SELECT world.complete(id, '{"outcome": "answered", "status": 429, "retry_after": 40, "answer": null}')
    FROM one;
SELECT is(world.reason(id), 'paused', 'without any JSON too') FROM one;
SELECT ok(world.held_for(id) BETWEEN 39 AND 80, 'for the number as a whole') FROM one;
SELECT world.later('80 seconds');
SELECT is(world.claimed(), 1, 'and the pause ends by itself');
UPDATE wa_outbound_queue SET expires_at = clock_timestamp() + interval '1 second', change_no = change_no + 1
    FROM one
WHERE one.id = wa_outbound_queue.id;
SELECT world.refuse(id, 131000, 500) FROM one;
SELECT is(world.outcome(id), 'failed 131000', 'a message that would expire before its next try fails at once')
    FROM one;
SELECT results_eq('SELECT status, state, error_code, error_message
    FROM wa_messages m JOIN one ON m.queue_id = one.id',
    $$ VALUES ('failed', 'failed', 131000, '(#131000) refused') $$, 'the ledger says why');

-- what could not be sent at all
CREATE TEMPORARY TABLE two AS SELECT world.queue(2) AS id;
SELECT world.claimed();
SELECT world.complete(id, '{"outcome": "not_sent", "error": "ConnectError"}') FROM two;
SELECT is(world.outcome(id), 'pending', 'no connection: it is tried again') FROM two;
SELECT matches(last_error, 'ConnectError', 'and says what it was') FROM wa_outbound_queue JOIN two USING (id);

-- outside the window, with a template to fall back on
SELECT world.wrote(3);
INSERT INTO wa_outbound_queue (phone, text_body, fallback_template_name, reference)
VALUES (world.customer(3), 'hi', 'hello', 'three');
SELECT is((SELECT body ->> 'type' FROM world.claim()), 'text', 'as far as we know the window is open');
SELECT world.refuse(id, 131047) FROM wa_outbound_queue WHERE reference = 'three';
SELECT is(can_send_freeform_wa(world.customer(3)), false,
    'the provider knows better: from now on it counts as closed');
SELECT world.later('1 second');
SELECT world.claimed();
SELECT world.later('1 second');
SELECT is((SELECT body #>> '{template,name}' FROM world.claim()), 'hello',
    'and the message goes as its fall-back');
SELECT world.refuse(id, 131047) FROM wa_outbound_queue WHERE reference = 'three';
SELECT is(world.outcome(id), 'failed window_closed', 'which has none itself') FROM wa_outbound_queue
    WHERE reference = 'three';
SELECT world.wrote(3);
SELECT ok(can_send_freeform_wa(world.customer(3)), 'when the customer writes the window is open again');

-- pauses
SELECT world.queue(4);
CREATE TEMPORARY TABLE four AS SELECT queue_id AS id FROM world.claim();
SELECT world.refuse(id, 190, 401) FROM four;
SELECT world.queue(5, p_number => '102');
SELECT world.later('20 hours');
SELECT is(world.claimed(), 0, 'a pause for a dead token lasts');
SELECT matches((SELECT pause_reason FROM wa_queue_health WHERE phone_number_id = '100'), 'refused.*190',
    'wa_queue_health tells the cause');
SELECT resume_wa_number('102');
SELECT world.later('1 second');
SELECT is((SELECT string_agg(number, ',') FROM world.claim()), '102',
    'resume_wa_number() lifts it for a number');
SELECT throws_ok($$ SELECT resume_wa_number('999') $$, 'WA010', NULL, 'one that exists');
SELECT resume_wa_number('100');
SELECT world.later('1 second');
SELECT ok(bool_or(queue_id = four.id), 'and the message that met the error goes after all')
    FROM world.claim(), four;

-- a long pause is not shortened by a short one
SELECT _wa_pause_number(organization_id, id, 'number', 'spam', clock_timestamp() + interval '6 hours')
FROM wa_phone_numbers WHERE phone_number_id = '100';
SELECT _wa_pause_number(organization_id, id, 'number', 'busy', clock_timestamp() + interval '1 second')
FROM wa_phone_numbers WHERE phone_number_id = '100';
SELECT is((SELECT pause_reason FROM wa_phone_numbers WHERE phone_number_id = '100'), 'spam',
    'a short pause does not end a long one');
SELECT _wa_pause_number(organization_id, id, 'token', 'expired', NULL) FROM wa_phone_numbers
    WHERE phone_number_id = '100';
SELECT is((SELECT paused_until FROM wa_phone_numbers WHERE phone_number_id = '100'), NULL,
    'one without an end replaces it');
SELECT _wa_pause_number(organization_id, id, 'number', 'busy', clock_timestamp() + interval '1 second')
FROM wa_phone_numbers WHERE phone_number_id = '100';
SELECT is((SELECT pause_reason FROM wa_phone_numbers WHERE phone_number_id = '100'), 'expired', 'and stays');

SELECT * FROM finish();
ROLLBACK;
