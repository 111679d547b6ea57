-- Tests sql/conversations/conversations.sql, sql/queue/freeform.sql.
BEGIN;
SELECT plan(23);

SELECT register_wa_phone_number('1001', '15550783881', 'waba',
    is_test => true) IS NOT NULL AS test_number \gset
SELECT register_wa_phone_number('1002', '15550783882', 'waba') IS NOT NULL AS real_number \gset
CREATE ROLE wa_tap_app IN ROLE wa_app;

SELECT is(can_send_freeform_wa('+15551234567'), false, 'nobody wrote: no free-form');
SELECT lives_ok(
    $$ SELECT update_wa_conversation('+15551234567', 'somebody', true) $$,
        'an admin opens a window of a test number'
);
SELECT is(can_send_freeform_wa('+15551234567'), true, 'then free-form may go');
SELECT is(can_send_freeform_wa('+1 (555) 123-4567'), true,
    'any usual form of the number is the same customer');
SELECT results_eq(
    $$ SELECT is_within_24h, is_sendable, phone_number_id, unread_count FROM wa_conversations $$,
    $$ VALUES (true, true, '1001', 0) $$, 'the conversation shows the window'
);
SELECT is(
    (SELECT meta ->> 'user' FROM audit_log WHERE event = 'window_opened_by_hand'), 'somebody', 'it is audited'
);

UPDATE wa_conversation_windows SET last_customer_message_at = '2026-01-01 12:00:00+00';
SELECT is(can_send_freeform_wa('+15551234567', '1001', at), expected, what)
FROM (VALUES
    (timestamptz '2026-01-02 11:58:59+00', true, 'open until the margin before the end'),
    ('2026-01-02 11:59:00+00', false, 'closed at the margin'),
    ('2026-01-02 12:00:00+00', false, 'closed at the end')
) edge (at, expected, what);
SELECT is((SELECT is_within_24h FROM wa_conversations), false, 'the flag follows the clock');
SELECT is(
    (SELECT window_expires_at FROM wa_conversations), '2026-01-02 12:00:00+00'::timestamptz,
        'and says when it ended'
);

UPDATE wa_conversation_windows SET last_customer_message_at = now(),
    window_denied_at = now() + interval '1 second';
SELECT is(can_send_freeform_wa('+15551234567'), false, 'the provider said that the window is closed');
UPDATE wa_conversation_windows SET last_customer_message_at = now() + interval '2 seconds';
SELECT is(can_send_freeform_wa('+15551234567'), true, 'a later message of the customer opens it again');

SELECT is(can_send_freeform_wa('+15551234567', '1002'), false, 'a window belongs to one business number');
SELECT throws_ok(
    $$ SELECT can_send_freeform_wa('+15551234567', '9999') $$, 'WA010', NULL,
        'an unknown business number is an error'
);
SELECT opt_out_wa_contact('+15551234567', 'marketing') \g /dev/null
SELECT is(can_send_freeform_wa('+15551234567'), true, 'an opt-out from marketing does not stop replies');
SELECT opt_out_wa_contact('+15551234567', 'all') \g /dev/null
SELECT is(can_send_freeform_wa('+15551234567'), false, 'one from everything does');

UPDATE wa_organizations SET default_number_id = (SELECT id
    FROM wa_phone_numbers WHERE phone_number_id = '1002');
SELECT throws_ok(
    $$ SELECT update_wa_conversation('+15557654321', 'x', true) $$, 'WA501', NULL,
    'other numbers have no window opened by hand'
);
UPDATE wa_organizations SET allow_manual_window = true;
SELECT lives_ok(
    $$ SELECT update_wa_conversation('+15557654321', 'x', true) $$, 'unless the organization allows it'
);

SET LOCAL ROLE wa_tap_app;
SELECT throws_ok(
    $$ SELECT update_wa_conversation('+15551234567', 'x', true) $$, '42501', NULL,
        'an application may not open windows'
);
SELECT lives_ok(
    $$ SELECT update_wa_conversation('+15551234567', 'x', false) $$, 'but record that it wrote itself'
);
SELECT is(can_send_freeform_wa('+15557654321'), true, 'an application may ask');
SELECT is(
    (SELECT count(*) FROM wa_conversations WHERE last_business_message_at IS NOT NULL), 1::bigint,
    'and read conversations'
);
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
