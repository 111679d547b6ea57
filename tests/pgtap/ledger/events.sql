-- Tests sql/ledger/events.sql.
BEGIN;
SELECT plan(12);

SELECT register_wa_phone_number('1001', '15550783881', 'waba') IS NOT NULL AS number \gset
CREATE ROLE wa_tap_app IN ROLE wa_app;
CREATE FUNCTION pg_temp.happen(p_wamid text) RETURNS void LANGUAGE sql AS $$
    WITH message AS (
        INSERT INTO wa_messages (direction, message_type, status, state, wa_message_id, content_text)
        VALUES ('inbound', 'text', 'received', 'received', p_wamid, 'Hello') RETURNING organization_id, id
    )
    INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
    SELECT organization_id, 'message', id, 'received', now() FROM message
$$;
SELECT pg_temp.happen('wamid.' || n) FROM generate_series(1, 3) n \g /dev/null

SET LOCAL ROLE wa_tap_app;
SELECT results_eq(
    $$ SELECT position, wa_message_id, content_text FROM read_wa_events('crm', 2) $$,
    $$ VALUES (1::bigint, 'wamid.1', 'Hello'), (2, 'wamid.2', 'Hello') $$, 'events come in order,
        with their message'
);
SELECT results_eq(
    $$ SELECT position FROM read_wa_events('crm', 2) $$, $$ VALUES (1::bigint), (2) $$,
    'what is not acknowledged comes again'
);
SELECT is(ack_wa_events('crm', 2), 2::bigint, 'an acknowledgement moves on');
SELECT results_eq(
    $$ SELECT wa_message_id FROM read_wa_events('crm') $$, $$ VALUES ('wamid.3') $$, 'then the rest comes'
);
SELECT results_eq(
    $$ SELECT count(*) FROM read_wa_events('bi') $$, $$ VALUES (3::bigint) $$,
        'another consumer has a place of its own'
);
SELECT is(ack_wa_events('crm', 1), 2::bigint, 'it never moves back');
SELECT is(ack_wa_events('crm', 99), 3::bigint, 'nor past what there is');
SET LOCAL wa.is_test_only = true;
SELECT is((SELECT count(*) FROM read_wa_events('bi')), 3::bigint, 'a test key has consumers of its own');
SELECT is(ack_wa_events('bi', 3), 3::bigint, 'which acknowledge');
SET LOCAL wa.is_test_only = false;
SELECT is((SELECT count(*) FROM read_wa_events('bi')), 3::bigint, 'nothing for those of others');
SELECT throws_ok($$ SELECT ack_wa_events('unknown', 1) $$, '22023', NULL, 'an unknown consumer is an error');
SELECT throws_ok($$ SELECT * FROM read_wa_events('') $$, '22023', NULL, 'a consumer needs a name');

SELECT * FROM finish();
ROLLBACK;
