-- Tests sql/numbers/panic.sql, sql/organizations/audit.sql.
BEGIN;
SELECT plan(26);

SELECT register_wa_phone_number('100', '+1 555 123 4567', '200', is_test => true);
SELECT register_wa_phone_number('101', '+1 555 123 4568', '200', is_test => true);
SELECT adopt_wa_database('keep');
SELECT start_wa_dispatcher('00000000-0000-0000-0000-000000000001', 'here', 1,
    (SELECT schema_version FROM wa_version()));
INSERT INTO wa_templates (name, category, body_text, status) VALUES ('hello', 'UTILITY', 'Hello', 'APPROVED');
CREATE FUNCTION pg_temp.claimed(p_number text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wa_outbound_queue (phone, template_name, phone_number_id)
    SELECT '+54911' || (10000000 + count(*)), 'hello', p_number FROM wa_outbound_queue;
    RETURN (
        SELECT count(*) FROM claim_wa_messages('00000000-0000-0000-0000-000000000001', 10)
        WHERE phone_number_id = p_number
    );
END
$$;
-- A lane that is stopped is looked at again within a second; the test moves that moment.
CREATE FUNCTION pg_temp.a_second_passes() RETURNS void LANGUAGE sql AS $$
    UPDATE wa_lane_states SET look_again_at = '-infinity',
        held_until = CASE WHEN held_until <= clock_timestamp() + interval '1 second' THEN '-infinity'
            ELSE held_until END
$$;

SELECT is(pg_temp.claimed('100'), 1::bigint, 'without panic a message is claimed');
SELECT throws_ok($$ SELECT trigger_wa_panic(' ') $$, '22023', NULL, 'a panic needs a reason');
SELECT is(trigger_wa_panic('the template is wrong'), 1, 'a panic stops the one organization there is');
SELECT is(pg_temp.claimed('100'), 0::bigint, 'from then on nothing is claimed');
SELECT is(pg_temp.claimed('101'), 0::bigint, 'from any number');
SELECT results_eq('SELECT active, reason, triggered_by, integration FROM wa_panic_modes',
    $$ VALUES (true, 'the template is wrong', session_user::text COLLATE "default", 'whatsapp') $$,
    'it says why and by whom');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE status = 'pending'), 2::bigint, 'nothing is lost');
SELECT is(resolve_wa_panic(), 1, 'resolving ends it');
SELECT pg_temp.a_second_passes();
SELECT ok(pg_temp.claimed('100') > 0, 'and what waited is claimed');
SELECT results_eq('SELECT active, resolved_by, resolved_at IS NOT NULL FROM wa_panic_modes',
    $$ VALUES (false, session_user::text COLLATE "default", true) $$, 'the stop is kept as history');
SELECT is(resolve_wa_panic(), 0, 'there is nothing more to resolve');

SELECT is(trigger_wa_panic('this number', p_phone_number_id => '100'), 1, 'a panic can be about one number');
SELECT is(pg_temp.claimed('100'), 0::bigint, 'which is stopped');
SELECT ok(pg_temp.claimed('101') > 0, 'while another sends');
SELECT is(resolve_wa_panic(p_phone_number_id => '101'), 0, 'resolving another number leaves it');
SELECT is(resolve_wa_panic(p_phone_number_id => '100'), 1, 'resolving the number ends it');
SELECT throws_ok($$ SELECT trigger_wa_panic('x', p_phone_number_id => '999') $$, 'WA010', NULL,
    'an unknown number is told');

SELECT trigger_wa_panic('for a while', p_auto_resolve => interval '1 hour');
SELECT is(pg_temp.claimed('100'), 0::bigint, 'a stop with an end stops as well');
SELECT is(resolve_wa_panic(), 1, 'it can be ended early');
SELECT pg_temp.a_second_passes();
SELECT ok(pg_temp.claimed('100') > 0, 'and sending goes on within a second, not at the end once set');
SELECT trigger_wa_panic('for a while', p_auto_resolve => interval '1 hour');
SELECT is(_wa_expire_panics(clock_timestamp()), 0, 'before its end it stays');
SELECT is(_wa_expire_panics(clock_timestamp() + interval '61 minutes'), 1,
    'after its end it is recorded as over');
SELECT is(resolved_by, 'auto_resolve', 'by itself') FROM wa_panic_modes WHERE resolved_by <> session_user;

SELECT set_wa_sending(false, 'maintenance');
SELECT is(pg_temp.claimed('101'), 0::bigint, 'the kill switch stops every number');
SELECT set_wa_sending(true);
SELECT results_eq(
    $$ SELECT event, count(*) FROM audit_log WHERE event ~ '^(panic|sending)' GROUP BY event ORDER BY event $$,
    $$ VALUES ('panic_resolved', 4::bigint), ('panic_triggered', 4), ('sending_disabled', 1),
    ('sending_enabled', 1) $$,
    'each of these is audited'
);
SELECT is((SELECT DISTINCT actor FROM audit_log), session_user::text COLLATE "default", 'with who did it');

SELECT * FROM finish();
ROLLBACK;
