-- Tests sql/consent/consent.sql, sql/privacy/holds.sql, sql/people/users.sql.
-- What applications, analysts and services of one organization try against consent, holds, erasures and people.
BEGIN;
SELECT plan(60);
\ir ../world.psql
\ir ../customers.psql
CREATE ROLE forged_app IN ROLE wa_app;
CREATE ROLE forged_analyst IN ROLE wa_analyst;
CREATE ROLE forged_dispatcher IN ROLE wa_dispatcher;
CREATE ROLE forged_receiver IN ROLE wa_receiver;
GRANT USAGE ON SCHEMA world TO forged_app;
SELECT add_wa_organization_role(current_wa_organization(), r) FROM unnest('{forged_app,forged_analyst}'::name[]) r;

-- Nobody but an administrator writes any of it, and analysts and services do not read it either.
CREATE FUNCTION pg_temp.states(p_role name, p_statements text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_statement text;
    v_done text := '';
BEGIN
    FOREACH v_statement IN ARRAY p_statements LOOP
        BEGIN
            EXECUTE format('SET LOCAL ROLE %I', p_role);
            EXECUTE v_statement;
            RAISE 'done' USING ERRCODE = '00001';
        EXCEPTION
            WHEN insufficient_privilege THEN NULL;
            WHEN OTHERS THEN v_done := concat_ws(' ', v_done, SQLSTATE, v_statement);
        END;
    END LOOP;
    RETURN v_done;
END
$$;
SELECT is(pg_temp.states('forged_app', ARRAY[
    format('INSERT INTO %I DEFAULT VALUES', t), format('UPDATE %I SET organization_id = organization_id', t),
    format('DELETE FROM %I', t), format('TRUNCATE %I', t)]), '', 'an application does not write ' || t)
FROM unnest('{wa_opt_outs,wa_opt_ins,wa_consent_events,wa_opt_in_requests,wa_keywords,wa_consent_texts,wa_contact_holds,
    wa_erasures,wa_erased_identities,wa_privacy_keys,wa_archive_keys,wa_archive_files,wa_users,wa_role_overrides}'::text[]) t;
SELECT is(pg_temp.states('forged_app', ARRAY(SELECT 'TABLE ' || quote_ident(t))), '', 'nor does it read ' || t)
FROM unnest('{wa_erased_identities,wa_privacy_keys,wa_archive_keys}'::text[]) t;
SELECT is(pg_temp.states(r, ARRAY(SELECT 'TABLE ' || quote_ident(t) FROM unnest('{wa_opt_outs,wa_opt_ins,wa_consent_events,
    wa_opt_in_requests,wa_contact_holds,wa_erasures,wa_erased_identities,wa_privacy_keys,wa_archive_keys,wa_users}'::text[]) t)),
    '', r || ' reads none of it') FROM unnest('{forged_analyst,forged_dispatcher,forged_receiver}'::name[]) r;
SELECT is(pg_temp.states(r, ARRAY[$$ SELECT opt_out_wa_contact('+16505550100') $$, $$ SELECT opt_in_wa_contact('+16505550100') $$,
    $$ SELECT request_wa_opt_in('+16505550100') $$, $$ SELECT import_wa_opt_outs('[]') $$, $$ SELECT export_wa_opt_outs() $$,
    $$ SELECT export_wa_contact('+16505550100') $$, $$ SELECT erase_wa_contact('+16505550100', 'x') $$,
    $$ SELECT hold_wa_contact('+16505550100', 'x') $$, $$ SELECT release_wa_contact('+16505550100') $$]), '',
    r || ' calls nothing of it') FROM unnest('{forged_analyst,forged_dispatcher,forged_receiver}'::name[]) r;
SELECT is(pg_temp.states(r, ARRAY['SELECT run_wa_erasures()', 'SELECT export_wa_erasures()',
    $$ SELECT reapply_wa_erasures('[]') $$, $$ SELECT rotate_wa_privacy_key('erasure') $$, 'SELECT run_wa_retention()',
    $$ SELECT read_wa_archive_rows('queue') $$, $$ SELECT get_wa_archive_keys('{1}') $$,
    $$ SELECT set_wa_role_permission('sales', 'admin', true) $$, 'SELECT check_wa_audit_log()', 'SELECT seal_wa_audit_log()',
    $$ SELECT _wa_opt_in_contacts(current_wa_organization(), '{1}', 'all', 'x') $$,
    $$ SELECT _wa_erase_contact_of(current_wa_organization(), 1) $$]), '', 'and nothing that is an administrator''s: ' || r)
FROM unnest('{forged_app,forged_analyst,forged_dispatcher,forged_receiver}'::name[]) r;

-- The message that confirms an opt-out is its text, not whatever has its id.
UPDATE wa_organizations SET confirms_opt_outs = false;
SELECT world.writes(1, 'STOP');
SELECT confirmation_id AS id FROM wa_opt_outs WHERE contact_id = world.found(1) AND confirmation_id IS NOT NULL \gset
SET LOCAL ROLE forged_app;
SELECT throws_ok(format($$ INSERT INTO wa_outbound_queue (id, phone, text_body) VALUES (%L, %L, 'Buy!') $$, :'id',
    world.customer(1)), 'WA102', NULL, 'its id lets no other text through');
SELECT throws_ok(format($$ INSERT INTO wa_outbound_queue (id, phone, text_body, metadata, idempotency_key)
    VALUES (%L, %L, 'Buy!', '{"confirms": "opt-out"}', %L) $$, :'id', world.customer(1), 'opt-out:' || :'id'), 'WA102', NULL,
    'whatever else it says of itself');
RESET ROLE;
UPDATE wa_organizations SET confirms_opt_outs = true;
SELECT world.writes(2, 'STOP');
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE metadata ? 'confirms' AND status = 'pending'), 1::bigint, 'ours waits');
SET LOCAL ROLE forged_app;
DO $$ BEGIN
    UPDATE wa_outbound_queue SET text_body = 'Buy!' WHERE metadata ? 'confirms';
EXCEPTION WHEN OTHERS THEN NULL;
END $$;
RESET ROLE;
SELECT is((SELECT string_agg(c.body #>> '{text,body}', ',') FROM world.claim() c),
    'You will get no more messages from us. Write START to get them again.', 'and goes as it is');

-- Who confirms an opt-in is who was asked, in time, with the word.
SELECT request_wa_opt_in(world.customer(n), 'marketing', 'form') FROM generate_series(11, 14) n \g /dev/null
UPDATE wa_opt_in_requests SET requested_at = requested_at - interval '2 days', expires_at = expires_at - interval '2 days'
WHERE contact_id = world.contact(world.customer(12));
SELECT world.told(15, NULL, 700, '{"type": "text", "text": {"body": "CONFIRM"}}');
SELECT world.told(12, NULL, 700, '{"type": "text", "text": {"body": "CONFIRM"}}');
SELECT world.told(13, NULL, 700, '{"type": "text", "text": {"body": "I will confirm later"}}');
SELECT world.told(14, NULL, -7200, '{"type": "text", "text": {"body": "CONFIRM"}}');
SELECT is((SELECT count(*) FROM wa_opt_ins), 0::bigint, 'not another person, nor late, in a sentence, or before it was asked');
SELECT world.told(11, NULL, 700, '{"type": "text", "text": {"body": "Confirm!"}}');
SELECT is((SELECT array_agg(contact_id) FROM wa_opt_ins), ARRAY[world.found(11)], 'who does it is opted in');
SELECT world.told(11, NULL, 701, '{"type": "text", "text": {"body": "CONFIRM"}}');
SELECT is((SELECT count(*) FROM wa_opt_ins), 1::bigint, 'once');
SELECT throws_ok(format('SELECT request_wa_opt_in(%L, p_valid_for => %L::interval)', world.customer(16), u), 'WA050', NULL,
    'no request for ' || coalesce(u, 'ever')) FROM unnest('{NULL,0,-1 hour,31 days}'::text[]) u;
SELECT throws_ok(format('SELECT %s(%L, %L)', f, world.customer(16), s), '22023', NULL, format('%s of the scope "%s"', f, s))
FROM unnest('{opt_out_wa_contact,opt_in_wa_contact,request_wa_opt_in}'::text[]) f, unnest('{ALL," all",everything}'::text[]) s;
SELECT opt_out_wa_contact(world.customer(17), 'all') \g /dev/null
SELECT throws_ok($$ SELECT world.queue(17, 'code', '["1"]') $$, 'WA102', NULL, 'an opt-out of all stops codes, too');

-- Names of users that are nearly somebody's are nobody's.
INSERT INTO wa_users (display_name, role, external_id, phone_e164) VALUES ('Ann', 'manager', 'ann', '+5491140000099');
SELECT is(has_wa_permission(who, 'admin'), false, 'not ' || translate(left(who, 20), E'\r\n', '  '))
FROM unnest(ARRAY['Ann', ' ann', 'ann ', E'ann\n', E'ann\r\nX: y', '', '%', 'ann%', repeat('a', 65536), '5491140000099',
    '+5491140000099x', 'ａｎｎ']) who;

SELECT * FROM finish();
ROLLBACK;
