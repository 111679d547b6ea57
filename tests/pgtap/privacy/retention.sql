-- Tests sql/privacy/retention.sql, sql/ledger/retention.sql, sql/queue/retention.sql,
-- sql/webhooks/retention.sql, sql/sending/retention.sql.
BEGIN;
SELECT plan(25);
\ir ../world.psql
-- That texts go before is in texts.sql.
UPDATE wa_organizations SET message_retention = interval '90 days', text_retention = NULL;

-- a sent, a failed and a cancelled message, statuses, events and webhooks of each of two organizations
SELECT world.queue(1), world.queue(2), world.queue(3);
SELECT cancel_wa_messages(reference => '3');
SELECT world.accept(queue_id) FROM world.claim(1);
SELECT world.refuse(queue_id, 131026) FROM world.claim(1);
INSERT INTO wa_outbound_queue (id, phone, template_name, scheduled_at, reference) VALUES
('ffffffff-0000-4000-8000-000000000001', world.customer(4), 'hello', now(), 'own id'),
(DEFAULT, world.customer(5), 'hello', now() + interval '100 days', 'far ahead');
SELECT world.accept(queue_id) FROM world.claim(1);
INSERT INTO wa_message_statuses (message_id, wa_message_id, status, occurred_at)
SELECT id, wa_message_id, 'delivered', now() FROM wa_messages WHERE wa_message_id IS NOT NULL;
SELECT * FROM read_wa_events('reader', 0);
SELECT ingest_wa_webhook('{}'), ingest_wa_webhook('{}');
UPDATE wa_webhook_logs SET status = 'processed' WHERE id = (SELECT min(id) FROM wa_webhook_logs);
SELECT opt_out_wa_contact(world.customer(1));
SELECT opt_in_wa_contact(world.customer(2), 'all', 'form');
INSERT INTO audit_log (event) VALUES ('looked');
INSERT INTO wa_account_events (field, dedupe_key, occurred_at) VALUES ('account_update', 'x', now());

CREATE FUNCTION world.rows() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ',
        (SELECT count(*) FROM wa_outbound_queue), (SELECT count(*) FROM wa_messages),
        (SELECT count(*) FROM wa_message_statuses), (SELECT count(*) FROM wa_events),
        (SELECT count(*) FROM wa_webhook_logs))
$$;

-- Everything so long ago, ids included.
CREATE FUNCTION world.age(p_by interval) RETURNS void LANGUAGE sql AS $$
    ALTER TABLE wa_outbound_queue DISABLE TRIGGER USER;
    UPDATE wa_queue_due d SET queue_id = _wa_uuid7(q.created_at - p_by)
    FROM wa_outbound_queue q WHERE q.id = d.queue_id;
    UPDATE wa_outbound_queue q SET
        id = CASE WHEN q.id::text LIKE 'f%' THEN q.id
            ELSE coalesce((SELECT d.queue_id FROM wa_queue_due d, wa_contacts c
                WHERE c.id = d.contact_id AND c.phone_e164 = q.phone), _wa_uuid7(q.created_at - p_by)) END,
        created_at = q.created_at - p_by, processed_at = q.processed_at - p_by;
    ALTER TABLE wa_outbound_queue ENABLE TRIGGER USER;
    UPDATE wa_messages SET created_at = created_at - p_by;
    UPDATE wa_message_statuses SET received_at = received_at - p_by;
    UPDATE wa_events SET created_at = created_at - p_by;
    UPDATE wa_webhook_logs SET received_at = received_at - p_by;
    UPDATE audit_log SET created_at = created_at - p_by;
    UPDATE wa_account_events SET received_at = received_at - p_by;
$$;

SELECT is(world.rows(), '5 3 2 3 2', 'what there is');
SELECT is(run_wa_retention(), 0, 'nothing is old enough');
SELECT world.age('89 days');
SELECT is(run_wa_retention(), 0, 'nor on the 89th day');
SELECT world.age('2 days');
UPDATE wa_organizations SET message_retention = NULL;
UPDATE wa_installations SET webhook_log_retention = NULL;
SELECT is(run_wa_retention(), 0, 'nor where everything is kept');
UPDATE wa_organizations SET message_retention = '90 days';
SELECT is(run_wa_retention(1), 5, 'one of each kind at a time');
SELECT is(world.rows(), '4 2 1 2 1', 'raw webhooks are not kept for longer than messages');
SELECT cmp_ok(run_wa_retention(), '>', 0, 'the rest in one go');
SELECT is(world.rows(), '1 0 0 1 1', 'what is left');
SELECT is(run_wa_retention(), 0, 'and stays');
SELECT is((SELECT reference FROM wa_outbound_queue), 'far ahead', 'a message that is still to be sent');
SELECT is((SELECT position FROM wa_events), 3::bigint, 'the newest event, from which the next one is counted');
SELECT is((SELECT status FROM wa_webhook_logs), 'pending', 'a webhook that was not processed yet');
SELECT is((SELECT count(*) FROM wa_opt_outs), 1::bigint, 'opt-outs are kept for good');
SELECT is((SELECT count(*) FROM wa_opt_ins), 1::bigint, 'opt-ins too');
SELECT cmp_ok((SELECT count(*) FROM audit_log), '>', 0::bigint, 'and the audit log');
UPDATE wa_organizations SET audit_retention = '1 year';
SELECT seal_wa_audit_log();
SELECT is(run_wa_retention(), 0, 'unless an end is set');
UPDATE wa_organizations SET audit_retention = '30 days';
SELECT cmp_ok(run_wa_retention(), '>', 0, 'and reached');
SELECT is((SELECT count(*) FROM audit_log WHERE created_at < now() - interval '30 days')
    + (SELECT count(*) FROM wa_account_events), 0::bigint, 'then audit and account events go');

-- the next event comes after those that are gone
SELECT world.queue(6);
SELECT world.accept_all() FROM world.claim();
SELECT is((SELECT max(position) FROM read_wa_events('reader')), 4::bigint, 'positions go on');

-- each organization for itself
SELECT create_wa_organization('north', '0b0b0b0b-0000-4000-8000-000000000002');
UPDATE wa_organizations SET message_retention = '2 days' WHERE name = 'north';
SELECT set_config('wa.organization_id', '0b0b0b0b-0000-4000-8000-000000000002', true);
INSERT INTO wa_messages (direction, message_type, status, state, created_at) VALUES
('inbound', 'text', 'received', 'received', now() - interval '3 days'), ('inbound', 'text', 'received', 'received',
    now());
SELECT run_wa_retention();
SELECT results_eq($$ SELECT o.name, count(*) FROM wa_messages m JOIN wa_organizations o ON o.id = m.organization_id
    GROUP BY 1 ORDER BY 1 $$, $$ VALUES ('default', 1::bigint), ('north', 1) $$, 'each by its own time');
SELECT throws_ok($$ UPDATE wa_organizations SET message_retention = '1 day' $$, '23514', NULL, 'two days at least');

-- what was charged to limits
RESET wa.organization_id;
SELECT cmp_ok((SELECT count(*) FROM wa_pair_rates), '>', 0::bigint, 'charged');
SELECT is(clean_wa_rate_windows(), 0, 'counts for a while');
SELECT world.later('3 days');
SELECT clean_wa_rate_windows();
SELECT is((SELECT count(*) FROM wa_pair_rates) + (SELECT count(*) FROM wa_tier_usages), 0::bigint, 'and is forgotten');

-- every job of the list, for all organizations, by a role that belongs to none
SELECT count(*) FROM install_wa_pack('events');
SELECT count(*) FROM schedule_wa_jobs();
UPDATE wa_jobs SET next_run_at = now();
CREATE ROLE wa_retention_dispatcher IN ROLE wa_dispatcher;
SET LOCAL ROLE wa_retention_dispatcher;
CREATE TEMPORARY TABLE ran AS SELECT (r).* FROM (SELECT run_due_wa_job() AS r FROM generate_series(1, 10)) r;
RESET ROLE;
SELECT results_eq('SELECT job, status, error FROM ran ORDER BY job',
    $$ SELECT name, 'done', NULL::text FROM wa_jobs ORDER BY name $$, 'all jobs run');

SELECT * FROM finish();
ROLLBACK;
