-- Tests sql/flows/flows.sql.
BEGIN;
SELECT plan(26);

UPDATE wa_organizations SET default_region = 'AR', default_area_code = '11';
CREATE ROLE wa_automation_app IN ROLE wa_app;
CREATE ROLE wa_automation_admin IN ROLE wa_admin;
CREATE FUNCTION pg_temp.stop_everything() RETURNS void LANGUAGE sql AS $$
    UPDATE wa_automation_flows SET status = 'cancelled' WHERE status = 'active';
    UPDATE siren_events SET status = 'cancelled'
    WHERE status = 'pending' AND template_id IN (SELECT id FROM siren_templates WHERE name LIKE '%WHATSAPP%')
$$;

-- flows
SET LOCAL ROLE wa_automation_app;
INSERT INTO wa_automation_flows (phone_e164, flow_type, current_step, trigger_data) VALUES
('+15551234567', 'payment_link', 'link_sent', '{"payment_link_url": "https://pay.example/1"}'),
('11 1234-5678', 'welcome', 'start', '{}');
SELECT results_eq(
    $$ SELECT current_step, status, trigger_data ->> 'payment_link_url' FROM wa_automation_flows
        WHERE phone_e164 = '+15551234567' AND status = 'active' ORDER BY created_at DESC $$,
    $$ VALUES ('link_sent', 'active', 'https://pay.example/1') $$,
    'a flow is active from the start'
);
SELECT ok(next_action_at <= clock_timestamp(), 'and acts at once unless told otherwise')
FROM wa_automation_flows WHERE flow_type = 'welcome';
SELECT is(phone_e164, '+5491112345678', 'a number is kept in E.164, however it was typed')
FROM wa_automation_flows WHERE flow_type = 'welcome';
SELECT lives_ok(
    $$ INSERT INTO wa_automation_flows (user_id, flow_type) VALUES ('AR.1234567890abc', 'welcome') $$,
    'a customer may be known by user id only');
SELECT throws_ok($$ INSERT INTO wa_automation_flows (flow_type) VALUES ('welcome') $$, '23514', NULL,
    'but must be known');
SELECT throws_ok($$ INSERT INTO wa_automation_flows (phone_e164, flow_type) VALUES ('nobody', 'x') $$,
    '22023', NULL, 'a number must be one');
SELECT throws_ok($$ UPDATE wa_automation_flows SET phone_e164 = 'nobody' $$, '22023', NULL, 'also later');
SELECT throws_ok($$ UPDATE wa_automation_flows SET status = 'asleep' $$, '23514', NULL, 'states are fixed');
SELECT throws_ok($$ UPDATE wa_automation_flows SET trigger_data = '[]' $$, '23514', NULL,
    'what triggered it is an object');

UPDATE wa_automation_flows SET status = 'paused' WHERE user_id IS NOT NULL;
SELECT ok(ended_at IS NULL AND next_action_at IS NOT NULL AND updated_at > created_at,
    'a paused flow keeps its next action')
FROM wa_automation_flows WHERE status = 'paused';
UPDATE wa_automation_flows SET status = 'completed' WHERE flow_type = 'welcome' AND user_id IS NULL;
SELECT ok(ended_at IS NOT NULL AND next_action_at IS NULL, 'one that ended has none')
FROM wa_automation_flows WHERE status = 'completed';

-- notifications
INSERT INTO siren_templates (name) VALUES ('BOOKING_WHATSAPP_REMINDER'), ('BOOKING_EMAIL_REMINDER');
SELECT throws_ok($$ INSERT INTO siren_templates (name) VALUES ('BOOKING_EMAIL_REMINDER') $$, '23505', NULL,
    'a name stands for one template');
INSERT INTO siren_events (template_id, phone_e164, status)
SELECT t.id, '11 1234-5678', s.status
FROM siren_templates t CROSS JOIN (VALUES ('pending'), ('sent')) s (status);
SELECT is(phone_e164, '+5491112345678', 'the number of a notification is normalised too')
FROM siren_events LIMIT 1;
SELECT is((SELECT count(*) FROM siren_events WHERE sent_at IS NOT NULL), 2::bigint,
    'a sent one has its time');
SELECT throws_ok($$ UPDATE siren_events SET status = 'queued' $$, '23514', NULL,
    'states are fixed here, too');
SELECT throws_ok($$ INSERT INTO siren_events (template_id) VALUES (gen_random_uuid()) $$, '23503', NULL,
    'a template must exist');
SELECT throws_ok('DELETE FROM siren_templates', '42501', NULL, 'and is not an application''s to delete');

-- the emergency stop, as an application
SAVEPOINT before_the_stop;
SELECT pg_temp.stop_everything();
SELECT results_eq('SELECT status, count(*) FROM wa_automation_flows GROUP BY status ORDER BY status',
    $$ VALUES ('cancelled', 1::bigint), ('completed', 1), ('paused', 1) $$, 'it cancels active flows only');
SELECT results_eq(
    $$ SELECT t.name, e.status FROM siren_events e JOIN siren_templates t ON t.id = e.template_id
        WHERE e.status <> 'sent' ORDER BY t.name $$,
    $$ VALUES ('BOOKING_EMAIL_REMINDER', 'pending'), ('BOOKING_WHATSAPP_REMINDER', 'cancelled') $$,
    'and what is pending for WhatsApp, nothing else'
);
SELECT ok(ended_at IS NOT NULL AND next_action_at IS NULL, 'a cancelled flow does nothing more')
FROM wa_automation_flows WHERE status = 'cancelled';
ROLLBACK TO before_the_stop;

-- as an administrator of several organizations
RESET ROLE;
SELECT create_wa_organization('away', '0b0b0b0b-0000-4000-8000-000000000001', 'AR') AS away \gset
SELECT set_config('wa.organization_id', :'away', true);
INSERT INTO wa_automation_flows (phone_e164, flow_type) VALUES ('+15557654321', 'welcome');
SELECT set_config('wa.organization_id', '', true);
SET LOCAL ROLE wa_automation_admin;
SELECT pg_temp.stop_everything();
SELECT is((SELECT count(*) FROM wa_automation_flows WHERE status = 'active'), 0::bigint,
    'an administrator stops every organization at once');
SELECT is((SELECT count(*) FROM wa_automation_flows WHERE status = 'cancelled'), 2::bigint,
    'each of them');
SELECT is((SELECT count(*) FROM siren_events WHERE status = 'cancelled'), 1::bigint,
    'with its notifications');
RESET ROLE;

SELECT lives_ok($$
    INSERT INTO audit_log (organization_id, actor, event, entity, entity_id, meta)
    SELECT id, 'compliance_officer', 'whatsapp_policy_violation', 'compliance', 'wa_24h_rule',
        jsonb_build_object('affected_numbers', ARRAY['+15551234567']) FROM wa_organizations WHERE is_default
$$, 'a violation is documented in the audit log');
SELECT is(meta #>> '{affected_numbers,0}', '+15551234567', 'with what it was about') FROM audit_log
WHERE event = 'whatsapp_policy_violation';
SELECT is((SELECT array_agg(DISTINCT phone) FROM wa_automation_flows_masked), ARRAY['******21', '******67',
    '******78', '******bc'], 'analysts see the end of a number only');

SELECT * FROM finish();
ROLLBACK;
