-- Tests sql/ledger/messages.sql.
BEGIN;
SELECT plan(8);
\ir ../world.psql

SELECT world.wrote(1);
INSERT INTO wa_messages (number_id, contact_id, phone_e164, wa_message_id, direction, message_type,
    status, state, content_text)
SELECT n.id, world.contact(world.customer(c)), world.customer(c), format('in.%s.%s', c, i), 'inbound', 'text',
    'received', 'received', format('%s of %s', i, c)
FROM wa_phone_numbers n, generate_series(1, 2) c, generate_series(1, 3) i;
SELECT world.say(1, 'An answer') AS answer \gset
SELECT world.claimed() \g /dev/null
SELECT world.accept(:'answer') \g /dev/null

SELECT results_eq(
    $$ SELECT direction, content_text FROM get_wa_message_history(world.customer(1), 3) $$,
    $$ VALUES ('outbound', 'An answer'), ('inbound', '3 of 1'), ('inbound', '2 of 1') $$,
    'the newest messages with one customer, in both directions'
);
SELECT is((SELECT count(*) FROM get_wa_message_history('+54 9 11 4000-0001')), 4::bigint,
    'the number may be written in any usual form');
SELECT is((SELECT count(*) FROM get_wa_message_history('+15005550006')), 0::bigint, 'none for a stranger');
SELECT is((SELECT count(*) FROM get_wa_message_history(world.customer(1), 0)), 0::bigint, 'a limit of none');

UPDATE wa_phone_numbers SET quality_rating = 'YELLOW', pause_scope = 'number', pause_reason = 'a test',
    paused_until = now() + interval '1 hour';
UPDATE wa_portfolios SET messaging_limit = 'TIER_10K';
SELECT results_eq(
    $$ SELECT quality_rating, messaging_limit, status, is_paused, pause_reason
    FROM get_wa_phone_number_status('100') $$,
    $$ VALUES ('YELLOW', 'TIER_10K', 'CONNECTED', true, 'a test') $$,
    'quality, limit and state of a business number'
);
UPDATE wa_phone_numbers SET paused_until = now() - interval '1 hour';
SELECT is((SELECT is_paused FROM get_wa_phone_number_status('100')), false, 'a pause that is over is none');
UPDATE wa_phone_numbers SET paused_until = NULL;
SELECT is((SELECT is_paused FROM get_wa_phone_number_status('100')), true, 'one without an end goes on');
SELECT throws_ok($$ SELECT get_wa_phone_number_status('999') $$, 'WA010', NULL, 'an unknown id is an error');

SELECT * FROM finish();
ROLLBACK;
