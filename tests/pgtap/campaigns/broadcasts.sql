-- Tests sql/campaigns/broadcasts.sql.
BEGIN;
SELECT plan(15);

SELECT register_wa_phone_number('100', '+1 555 123 4567', '200', is_test => true);
INSERT INTO wa_templates (name, category, body_text, status) VALUES ('sale', 'MARKETING', 'Sale', 'APPROVED');
CREATE ROLE wa_broadcasts_app IN ROLE wa_app;
SET LOCAL ROLE wa_broadcasts_app;

INSERT INTO wa_broadcast_lists (name) VALUES ('spring'), ('empty');
SELECT throws_ok($$ INSERT INTO wa_broadcast_lists (name) VALUES ('spring') $$, '23505', NULL,
    'a name stands for one list');
SELECT is(
    add_wa_broadcast_members('spring', ARRAY['+54 9 11 1234-5678', '+5491187654321', 'AR.1234567890abc']), 3,
    'numbers in any form and user ids are put on a list');
SELECT is(add_wa_broadcast_members('spring', ARRAY['+541112345678', '+15551230000', '+15551230000']), 1,
    'who is on it already is not counted again');
SELECT results_eq('SELECT phone FROM wa_broadcast_recipients WHERE list_name = ''spring'' ORDER BY phone',
    $$ VALUES ('+15551230000'), ('+5491112345678'), ('+5491187654321'), ('AR.1234567890abc') $$,
    'everyone is on it once');
SELECT is(add_wa_broadcast_members('spring', '{}'), 0, 'nobody is nobody');
SELECT throws_ok($$ SELECT add_wa_broadcast_members('autumn', ARRAY['+15551230000']) $$, 'WA030', NULL,
    'the list must exist');
SELECT throws_ok($$ SELECT remove_wa_broadcast_members('autumn', ARRAY['+15551230000']) $$, 'WA030', NULL,
    'also to take somebody off it');
SELECT throws_ok($$ SELECT add_wa_broadcast_members('spring', ARRAY['nobody']) $$, '22023', NULL,
    'a number must be one');

SELECT opt_out_wa_contact('+5491187654321');
SELECT results_eq('SELECT phone FROM wa_broadcast_recipients WHERE is_opted_out',
    $$ VALUES ('+5491187654321') $$, 'who opted out is known');
SELECT lives_ok($$
    INSERT INTO wa_outbound_queue (phone, template_name)
    SELECT phone, 'sale' FROM wa_broadcast_recipients WHERE list_name = 'spring' AND NOT is_opted_out
$$, 'the rest can be written to');
SELECT is(remove_wa_broadcast_members('spring', ARRAY['+54 11 1234 5678', '+15550000000']), 1,
    'one who was on it is taken off');
SELECT is((SELECT count(*) FROM wa_broadcast_recipients), 3::bigint, 'and nobody else');
RESET ROLE;
SELECT is((SELECT array_agg(members ORDER BY members) FROM wa_broadcast_lists_masked), ARRAY[0, 3]::bigint[],
    'analysts see how long a list is');

-- two contacts turn out to be one
SELECT add_wa_broadcast_members('spring', ARRAY['+15559990001']);
SELECT _wa_merge_contacts(
    current_wa_organization(), _wa_find_contact(current_wa_organization(), '+15559990001'),
    _wa_find_contact(current_wa_organization(), 'AR.1234567890abc')
);
SELECT is((SELECT count(*) FROM wa_broadcast_members), 3::bigint, 'one contact stays on the list once');
DELETE FROM wa_broadcast_lists;
SELECT is((SELECT count(*) FROM wa_broadcast_members), 0::bigint, 'a list that goes leaves nobody behind');

SELECT * FROM finish();
ROLLBACK;
