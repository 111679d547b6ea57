-- Tests sql/conversations/states.sql.
BEGIN;
SELECT plan(23);
\ir ../world.psql

CREATE ROLE wa_tap_app IN ROLE wa_app;

-- An inbound message of a customer, so many hours ago by the provider's clock.
CREATE FUNCTION world.inbound(p_n integer, p_ago interval DEFAULT '0') RETURNS void LANGUAGE sql AS $$
    WITH m AS (
        INSERT INTO wa_messages (number_id, contact_id, phone_e164, wa_message_id, direction, message_type,
            status, state, provider_at)
        SELECT n.id, world.contact(world.customer(p_n)), world.customer(p_n), 'in.' || gen_random_uuid(),
            'inbound', 'text', 'received', 'received', clock_timestamp() - p_ago
        FROM wa_phone_numbers n WHERE n.phone_number_id = '100'
        RETURNING id
    )
    SELECT _wa_record_customer_messages(current_wa_organization(), ARRAY(SELECT id FROM m))
$$;
CREATE FUNCTION world.state(p_n integer) RETURNS text LANGUAGE sql AS $$
    SELECT state FROM wa_conversations WHERE phone_e164 = world.customer(p_n)
$$;
CREATE FUNCTION world.become(p_n integer, p_state text) RETURNS void LANGUAGE sql AS $$
    UPDATE wa_conversation_windows SET state = p_state WHERE contact_id = world.contact(world.customer(p_n))
$$;
-- Moves the times of the states too.
CREATE FUNCTION world.a_day_later(p_hours integer DEFAULT 25) RETURNS void LANGUAGE sql AS $$
    SELECT world.later(make_interval(hours => p_hours));
    UPDATE wa_conversation_windows SET state_changed_at = state_changed_at - make_interval(hours => p_hours),
        opened_at = opened_at - make_interval(hours => p_hours)
$$;

SELECT world.inbound(1);
SELECT is(world.state(1), 'active', 'a customer wrote: the conversation is active');

CREATE TEMPORARY TABLE step (n integer, from_state text, to_state text, is_legal boolean);
INSERT INTO step
SELECT row_number() OVER (), f, t, (f, t) IN (
    ('active', 'waiting'), ('active', 'completed'), ('active', 'expired'), ('waiting', 'active'),
    ('waiting', 'completed'), ('waiting', 'expired'), ('completed', 'active'), ('expired', 'active')
)
FROM unnest(ARRAY['active', 'waiting', 'completed', 'expired']) f
CROSS JOIN unnest(ARRAY['active', 'waiting', 'completed', 'expired']) t
WHERE f <> t;
CREATE FUNCTION world.try_step(p_from text, p_to text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wa_conversation_windows (contact_id, number_id, state)
    SELECT world.contact('+15005550006'), id, p_from FROM wa_phone_numbers LIMIT 1;
    UPDATE wa_conversation_windows SET state = p_to WHERE contact_id = world.contact('+15005550006');
    RAISE SQLSTATE 'P0999';
EXCEPTION
    WHEN SQLSTATE 'P0999' THEN RETURN 'done';
    WHEN OTHERS THEN RETURN sqlstate;
END
$$;
SELECT is(world.try_step(from_state, to_state), CASE WHEN is_legal THEN 'done' ELSE 'WA203' END,
    format('%s to %s', from_state, to_state))
FROM step ORDER BY n;

SELECT world.become(1, 'completed');
SELECT throws_ok($$ SELECT world.become(1, 'done') $$, 'WA203', NULL, 'a state that does not exist');
SELECT world.inbound(1, '1 hour');
SELECT is(world.state(1), 'completed', 'a message from before it was completed comes late: it stays');
UPDATE wa_conversation_windows SET opened_at = opened_at - interval '1 hour';
SELECT world.inbound(1, '-1 second');
SELECT is(world.state(1), 'active', 'the customer writes again: it is active again');
SELECT ok(opened_at > now() - interval '1 minute', 'and began anew') FROM wa_conversations
WHERE phone_e164 = world.customer(1);

SELECT world.inbound(2);
SELECT world.become(2, 'waiting');
SELECT world.inbound(3);
SELECT world.become(3, 'completed');
SELECT is(expire_wa_conversations(), 0, 'nothing expires within a day');
SELECT world.a_day_later();
SELECT world.inbound(4);
SELECT update_wa_conversation(world.customer(2), 'somebody', false) \g /dev/null
SELECT is(expire_wa_conversations(), 1, 'one had neither a message nor a change of state');
SELECT results_eq(
    $$ SELECT world.state(n) FROM generate_series(1, 4) n $$,
    $$ VALUES ('expired'), ('waiting'), ('completed'), ('active') $$,
    'the business has written to the second, the third is done, the fourth is new'
);
SELECT is(expire_wa_conversations(), 0, 'again: nothing is left');

SET LOCAL ROLE wa_tap_app;
SELECT lives_ok(
    $$ UPDATE wa_conversation_windows SET state = 'completed' WHERE state = 'active' $$,
    'an application completes a conversation'
);
SELECT throws_ok('SELECT expire_wa_conversations()', '42501', NULL, 'but expiring is a job of the database');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
