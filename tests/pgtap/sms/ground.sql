-- Tests sql/sms/ground.sql.
BEGIN;
SELECT plan(20);

INSERT INTO wa_error_rules (provider, code, title, action, allows_sms) VALUES
('meta', 990001, 'allows', 'fail', true), ('meta', 990002, 'does not', 'fail', false);

CREATE FUNCTION pg_temp.verdict(
    p_status text, p_state text, p_queue_code text DEFAULT NULL, p_code integer DEFAULT NULL,
    p_cause text DEFAULT 'failed', p_sends boolean DEFAULT true
) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(_wa_sms_verdict(p_cause, p_status, p_queue_code, p_state, p_code, 'meta', p_sends), 'goes')
$$;
SELECT is(pg_temp.verdict('sent', 'failed', NULL, 990001), 'goes', 'what a status says failed, and allows it');
SELECT is(pg_temp.verdict('sent', 'failed', NULL, 990002), 'failed_otherwise', 'where the code does not');
SELECT is(pg_temp.verdict('sent', 'failed'), 'failed_otherwise', 'or none came');
SELECT is(pg_temp.verdict('failed', 'failed', '990001'), 'goes', 'what the answer says failed');
SELECT is(pg_temp.verdict('failed', 'failed', '990002', 990001), 'failed_otherwise', 'by the answer''s code');
SELECT is(pg_temp.verdict('failed', 'failed', 'window_closed'), 'goes', 'what came too late for a reply');
SELECT is(pg_temp.verdict('failed', 'failed', 'template_unavailable'), 'goes', 'what lost its template');
SELECT is(pg_temp.verdict('failed', 'failed', 'template_unavailable', NULL, 'failed', false), 'failed_otherwise',
    'not where no templates are wanted');
SELECT is(pg_temp.verdict('failed', 'failed', 'outcome_unknown'), 'failed_otherwise', 'never what may have arrived');
SELECT is(pg_temp.verdict('sent', 'read', NULL, 990001), 'delivered', 'nor what has');
SELECT is(pg_temp.verdict('pending', 'failed', NULL, 990001), 'in_reserve', 'queued again, it is not decided');
SELECT is(pg_temp.verdict('sending', 'failed', NULL, 990001), 'in_reserve', 'nor on its way');
SELECT is(pg_temp.verdict('sent', 'accepted'), 'in_reserve', 'nor sent again');
SELECT is(pg_temp.verdict('sent', 'sent', NULL, NULL, 'late'), 'goes', 'but what is late goes without a failure');
SELECT is(pg_temp.verdict('cancelled', 'failed', NULL, 990001), 'cancelled', 'what was cancelled does not');
SELECT is(pg_temp.verdict(NULL, NULL), 'too_late', 'nor what is gone');
SELECT is(_wa_sms_category(current_wa_organization(), gen_random_uuid()), 'UTILITY',
    'an SMS that stands for nothing is utility');

-- how long it is known
INSERT INTO wa_sms_fallbacks (queue_id, cause, state, due_at, sms_id, created_at, category)
SELECT gen_random_uuid(), 'failed', s.state, now(), s.id, now() - interval '31 days', 'MARKETING'
FROM (VALUES ('queued', '00000000-0000-0000-0000-000000000007'::uuid), ('not_sent', NULL)) s (state, id);
SELECT _wa_send_sms_fallbacks(10, now()) \g /dev/null
SELECT results_eq('SELECT state FROM wa_sms_fallbacks', ARRAY['queued'], 'what got no SMS is forgotten after thirty days');
SELECT is(_wa_sms_category(current_wa_organization(), '00000000-0000-0000-0000-000000000007'), 'MARKETING',
    'an SMS stands for what it did, however old');
SELECT _wa_forget_sms(current_wa_organization(), ARRAY['00000000-0000-0000-0000-000000000007'::uuid]) \g /dev/null
SELECT is_empty('SELECT FROM wa_sms_fallbacks', 'until its row is deleted');

SELECT * FROM finish();
ROLLBACK;
