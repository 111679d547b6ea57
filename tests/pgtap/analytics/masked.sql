-- Tests sql/analytics/masked.sql.
BEGIN;
SELECT plan(20);

SELECT register_wa_phone_number('100', '+1 555 123 4567', '200', is_test => true);
INSERT INTO wa_templates (name, category, body_text, status) VALUES ('hello', 'UTILITY', 'Dear {{1}}',
    'APPROVED');
INSERT INTO wa_outbound_queue (phone, template_name, template_params, reference, metadata)
VALUES ('+5491112345678', 'hello', '["Ana Secret"]', 'order of Ana Secret', '{"note": "Ana Secret"}');
SELECT opt_out_wa_contact('+5491112345678', 'marketing', 'Ana Secret said so');
SELECT opt_in_wa_contact('+5491187654321', 'marketing', 'form', '{"name": "Ana Secret"}');
INSERT INTO wa_messages (contact_id, phone_e164, direction, message_type, status, state, content,
    content_text)
SELECT id, phone_e164, 'inbound', 'text', 'received', 'received', '{"body": "Ana Secret"}', 'Ana Secret'
FROM wa_contacts
WHERE phone_e164 = '+5491112345678';
UPDATE wa_contacts SET profile_name = 'Ana Secret', username = 'Ana Secret', customer_id = 'Ana Secret';
INSERT INTO wa_account_events (field, payload, dedupe_key, occurred_at) VALUES ('security',
    '{"x": "Ana Secret"}', 'k', now());

CREATE FUNCTION pg_temp.everything() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_view text;
    v_rows text;
    v_all text := '';
BEGIN
    FOR v_view IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
        AND c.relkind = 'v' AND has_table_privilege('wa_analyst', c.oid, 'SELECT') ORDER BY 1 LOOP
        EXECUTE format('SELECT string_agg(v::text, '' '') FROM %I v', v_view) INTO v_rows;
        v_all := concat_ws(' ', v_all, v_view, v_rows);
    END LOOP;
    RETURN v_all;
END
$$;
CREATE ROLE wa_masked_analyst IN ROLE wa_analyst;
CREATE ROLE wa_masked_app IN ROLE wa_app;

CREATE TEMP TABLE plain AS SELECT encode(sha256('+5491112345678'), 'hex') AS hash;
GRANT SELECT ON plain TO PUBLIC;
SET LOCAL ROLE wa_masked_analyst;
SELECT unalike(pg_temp.everything(), '%Ana Secret%', 'no view shows a text, name or value');
SELECT unalike(pg_temp.everything(), '%12345678%', 'nor a phone number');
SELECT unalike(pg_temp.everything(), '%5551234567%', 'not even a business number');
SELECT is((SELECT phone FROM wa_messages_masked), '******78', 'the last two digits are shown');
SELECT is(
    (SELECT count(*)
        FROM wa_outbound_queue_masked q JOIN wa_messages_masked m USING (organization_id, contact_id)
        JOIN wa_contacts_masked c USING (organization_id, contact_id)), 1::bigint,
    'rows join by contact'
);
SELECT ok((SELECT length(phone_hash) = 32 FROM wa_messages_masked), 'a hash stands for the number');
SELECT is((SELECT count(DISTINCT h.phone_hash) FROM (
    SELECT phone_hash FROM wa_messages_masked
    UNION ALL SELECT phone_hash FROM wa_outbound_queue_masked
    UNION ALL SELECT phone_hash FROM wa_opt_outs_masked
    UNION ALL SELECT phone_hash FROM wa_consent_events_masked WHERE phone = '******78'
    UNION ALL SELECT phone_hash FROM wa_contacts_masked WHERE phone = '******78') h), 1::bigint,
    'the same in each view');
SELECT is((SELECT count(DISTINCT phone_hash) FROM wa_contacts_masked), 2::bigint, 'another one for another');
SELECT is((SELECT count(*) FROM wa_messages_masked, plain WHERE starts_with(hash, phone_hash)), 0::bigint,
    'not one that anybody can make');
SELECT throws_ok('SELECT * FROM wa_privacy_keys', '42501', NULL, 'whose key is nobody''s');
SELECT results_eq('SELECT type, template_name, status FROM wa_outbound_queue_masked',
    $$ VALUES ('template', 'hello', 'pending') $$,
    'what is counted is there');
SELECT is((SELECT count(*) FROM wa_opt_outs_masked WHERE revoked_at IS NULL), 1::bigint,
    'opt-outs can be counted');
SELECT is((SELECT event || ' ' || phone || ' ' || has_text FROM wa_consent_events_masked WHERE event = 'opt_out'),
    'opt_out ******78 false', 'how consent was given and taken back, without words');
SELECT is((SELECT count(*) FROM wa_templates_masked), 1::bigint, 'templates too');
SELECT is_empty($$
    SELECT c.oid::regclass FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm')
        AND c.relname ~ '^(wa_|audit_log)'
        AND c.relname NOT LIKE '%\_masked' AND c.relname NOT LIKE 'wa\_daily\_%'
        AND c.relname NOT IN ('wa_migrations', 'wa_packs', 'wa_message_compliance', 'wa_unread_counts',
            'wa_conversation_metrics', 'wa_service_allowances')
        AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
            OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
$$, 'an analyst has no right on anything else');
SELECT throws_ok('SELECT 1 FROM wa_messages', '42501', NULL, 'a table is refused');
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, text_body) VALUES ('+5491112345678', 'x') $$,
    '42501', NULL,
    'an analyst queues nothing');
SELECT throws_ok($$ SELECT opt_out_wa_contact('+5491112345678') $$, '42501', NULL, 'and changes nothing');
SET LOCAL ROLE wa_masked_app;
SELECT throws_ok('SELECT 1 FROM wa_messages_masked', '42501', NULL, 'the masked views are for analysts');
RESET ROLE;
SELECT is_empty($$
    SELECT c.oid::regclass FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v' AND has_table_privilege('wa_analyst', c.oid,
        'SELECT')
        AND NOT coalesce(c.reloptions @> '{security_barrier=true}', false)
$$, 'every view that an analyst reads is a security barrier');

SELECT * FROM finish();
ROLLBACK;
