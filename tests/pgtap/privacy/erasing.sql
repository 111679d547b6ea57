-- Tests sql/privacy/erasing.sql, sql/privacy/merge.sql, sql/privacy/keys.sql, sql/privacy/recall.sql, sql/privacy/export.sql,
-- sql/contacts/erase.sql, sql/conversations/erase.sql, sql/consent/erase.sql, sql/ledger/erase.sql,
-- sql/queue/erase.sql, sql/sending/erase.sql, sql/media/erase.sql, sql/webhooks/erase.sql,
-- sql/subscriptions/erase.sql, sql/flows/erase.sql, sql/campaigns/erase.sql, sql/access/erase.sql,
-- sql/organizations/erase.sql, sql/jobs/erase.sql, sql/provider/erase.sql.
BEGIN;
\ir ../world.psql
\ir ../customers.psql
SELECT plan(79);

-- Customer 1 is to be erased, customer 2 stays; both are in one webhook body.
SELECT world.told_all(jsonb_build_array(
    world.message(1, NULL, 0, '{"type": "text", "text": {"body": "planted by one"}}'),
    world.message(2, NULL, 0, jsonb_build_object('type', 'text', 'text', jsonb_build_object('body',
        'planted by two: call +54 9 11 4000-0001')))
));
SELECT world.say(1, 'planted answer');
SELECT world.claimed();
SELECT world.accept_all();
SELECT world.later('1 minute');
SELECT world.queue(1, 'order', '["planted", "value"]');
SELECT world.claimed();
SELECT world.accept_all();
INSERT INTO wa_outbound_queue (phone, template_name, template_params, scheduled_at, idempotency_key) VALUES
(world.customer(1), 'order', '["planted", "later"]', now() + interval '1 hour', 'planted key');
INSERT INTO timeline_entries (event_type, actor, content, conversation_id)
SELECT 'MESSAGE', 'planted actor of +5491140000001', '{"action": "SAID", "note": "planted note"}', w.id
FROM wa_conversation_windows w WHERE w.contact_id = world.found(1);
INSERT INTO wa_automation_flows (phone_e164, flow_type, trigger_data)
VALUES (world.customer(1), 'pay', '{"url": "planted"}');
SELECT opt_in_wa_contact(world.customer(1), 'marketing', 'form', '{"text": "planted proof"}');
SELECT opt_out_wa_contact(world.customer(1), 'marketing', 'planted reason');
SELECT _wa_audit(current_wa_organization(), 'note', NULL, NULL, '{"about": "+5491140000001"}');

CREATE FUNCTION pg_temp.stored(p_text text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_table text;
    v_found text := '';
    v_rows bigint;
BEGIN
    FOR v_table IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
        AND c.relkind = 'r' AND c.relname <> '_wa_scripts' ORDER BY 1
    LOOP
        EXECUTE format('SELECT count(*) FROM %I t WHERE t::text LIKE %L OR t::text LIKE %L', v_table,
            '%' || p_text || '%', '%' || encode(convert_to(p_text, 'UTF8'), 'hex') || '%') INTO v_rows;
        v_found := v_found || CASE WHEN v_rows > 0 THEN format('%s:%s ', v_table, v_rows) ELSE '' END;
    END LOOP;
    RETURN btrim(v_found);
END
$$;

CREATE TEMP TABLE before AS
SELECT (SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_messages d) AS messages,
    (SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_costs d) AS costs,
    (SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_response_times d) AS answers,
    (SELECT jsonb_agg(d ORDER BY d::text) FROM wa_conversation_metrics d) AS conversations;
CREATE TEMP TABLE one AS SELECT world.found(1) AS id;

SELECT isnt(pg_temp.stored('5491140000001'), '', 'the number is all over the place');
SELECT throws_ok($$ SELECT erase_wa_contact('+15550001111', 'x') $$, 'WA070', NULL, 'nobody of that number');
SELECT throws_ok($$ SELECT erase_wa_contact(world.customer(1), '') $$, '22023', NULL, 'a reason is needed');
SELECT throws_ok($$ SELECT erase_wa_contact(world.customer(1), 'x', '{"consent": {}}') $$, 'WA072', NULL,
    'what is kept has a reason and an end');

-- Export
CREATE TEMP TABLE export AS SELECT export_wa_contact('+54 9 11 4000-0001', true) AS doc;
SELECT is((SELECT doc #>> '{contact,phone_e164}' FROM export), world.customer(1), 'an export says who');
SELECT is((SELECT count(*) FROM export, jsonb_array_elements(doc -> 'messages') m
    WHERE m ->> 'content_text' IN ('planted by one', 'planted answer')), 2::bigint, 'what was said');
SELECT ok((SELECT bool_and(doc::text LIKE '%' || w || '%') FROM export, unnest(ARRAY['planted proof',
    'planted reason', 'planted note', 'planted key', 'later', 'SAID', '+5491140000001']) w), 'and the rest');
SELECT is((SELECT count(*) FROM export, jsonb_array_elements(doc -> 'webhooks') w
    WHERE w::text LIKE '%planted by one%'), 1::bigint, 'with what raw webhooks tell');
SELECT ok((SELECT doc::text NOT LIKE '%planted by two%' FROM export), 'of nobody else');
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'contact_exported'), 1::bigint, 'it is audited');

-- Hold
SELECT is((hold_wa_contact(world.customer(1), 'case 7')).reason, 'case 7', 'a legal hold');
SELECT throws_ok($$ SELECT erase_wa_contact(world.customer(1), 'request 1') $$, 'WA071', NULL,
    'keeps what there is');
SELECT ok(release_wa_contact(world.customer(1)), 'until it is released');
SELECT ok(NOT release_wa_contact(world.customer(1)), 'once');

-- Erasure
CREATE TEMP TABLE erased AS SELECT * FROM erase_wa_contact('+54 9 11 4000-0001', 'request 1');
SELECT is((SELECT state FROM erased), 'done', 'a person with little is erased at once');
SELECT is(pg_temp.stored('5491140000001'), '', 'the number stands in no table');
SELECT is(pg_temp.stored('planted by one'), '', 'nor what the person said');
SELECT is(regexp_replace(pg_temp.stored('planted'), ':\d+', '', 'g'), 'wa_messages wa_webhook_logs',
    'nor anything else that was planted');
SELECT is((SELECT count(*) FROM wa_messages WHERE content_text LIKE 'planted by two%'), 1::bigint,
    'what somebody else said stays');
SELECT ok((SELECT bool_and(convert_from(body, 'UTF8') LIKE '%planted by two%') FROM wa_webhook_logs),
    'also in a body that was both''s');
SELECT is(world.outcome(id), 'cancelled opted_out', 'what was queued is cancelled') FROM wa_outbound_queue
WHERE scheduled_at > now() + interval '30 minutes';
SELECT is((SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_messages d), messages, 'figures stay') FROM before;
SELECT is((SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_costs d), costs, 'and costs') FROM before;
SELECT is((SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_response_times d), answers, 'and answers')
FROM before;
SELECT is((SELECT jsonb_agg(d ORDER BY d::text) FROM wa_conversation_metrics d), conversations,
    'and conversations') FROM before;
SELECT roll_up_wa_analytics();
SELECT is((SELECT jsonb_agg(d ORDER BY d::text) FROM wa_daily_messages d), messages, 'also rolled up')
FROM before;
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'contact_erased'), 1::bigint, 'it is audited');
SELECT throws_ok($$ SELECT export_wa_contact(world.customer(1)) $$, 'WA070', NULL, 'nobody is known any more');

-- Replay makes nothing of it again.
SELECT replay_wa_webhooks(ARRAY(SELECT id FROM wa_webhook_logs));
SELECT is(pg_temp.stored('5491140000001'), '', 'a replay brings nothing back');
SELECT is((SELECT count(*) FROM wa_webhook_errors), 0::bigint, 'and finds what is left valid');

-- The person comes again.
SELECT world.writes(1, 'here I am again');
SELECT isnt(world.found(1), (SELECT id FROM one), 'who writes again is a new contact');
SELECT is(world.opt_outs(world.found(1)), 'all by erasure', 'opted out until asked otherwise');
SELECT throws_ok($$ SELECT world.queue(1) $$, 'WA102', NULL, 'not written to');
SELECT rotate_wa_privacy_key('erasure');
SELECT lives_ok($$ SELECT erase_wa_contact(world.customer(1), 'request 2') $$, 'erased again');
SELECT throws_ok($$ SELECT world.queue(1) $$, 'WA102', NULL, 'an application that has the number cannot, either');
SELECT opt_in_wa_contact(world.customer(1), 'all', 'web form');
SELECT lives_ok($$ SELECT world.queue(1) $$, 'after an opt-in it can');

-- A database from before the erasure.
CREATE TEMP TABLE kept AS SELECT jsonb_agg(e) AS exports FROM export_wa_erasures() e;
DELETE FROM wa_erased_identities;
DELETE FROM wa_privacy_keys WHERE purpose = 'erasure' AND version > 1;
UPDATE wa_contact_identities SET valid_from = valid_from - interval '1 day';
SELECT is((SELECT contacts FROM kept, reapply_wa_erasures(exports)), 1::bigint, 'an export erases again');
SELECT is(pg_temp.stored('5491140000001'), '', 'all of it');

-- Who came again and was erased again after the backup was taken.
SELECT world.writes(8, 'hello');
SELECT erase_wa_contact(world.customer(8), 'request 8', '{"consent": {"reason": "law", "until": "2199-12-31"}}') \g /dev/null
SELECT world.writes(8, 'hello again');
SELECT opt_in_wa_contact(world.customer(8), 'all', 'form', '{"text": "I agree"}') \g /dev/null
UPDATE wa_contact_identities SET valid_from = clock_timestamp() WHERE contact_id = world.found(8);
SAVEPOINT backup;
SELECT erase_wa_contact(world.customer(8), 'request 9', '{"consent": {"reason": "law", "until": "2199-12-31"}}') \g /dev/null
SELECT jsonb_agg(e)::text AS exported FROM export_wa_erasures() e \gset
ROLLBACK TO backup;
SELECT is((SELECT sum(contacts) FROM reapply_wa_erasures(:'exported')), 1::numeric, 'a second erasure is made again, too');
SELECT is(pg_temp.stored('5491140000008'), '', 'of everything');
SELECT is((SELECT proof FROM wa_opt_ins WHERE source = 'form' ORDER BY id DESC LIMIT 1), '{"text": "I agree"}',
    'but for what the law keeps');

-- A number that is the beginning of somebody else's.
SELECT * FROM _wa_resolve_contacts(current_wa_organization(), '{+493012345,+4930123456}', '{NULL,NULL}', 'test') \g /dev/null
INSERT INTO timeline_entries (event_type, actor, content) SELECT 'NOTE', a, jsonb_build_object('about', a)
FROM unnest('{+493012345,+4930123456,+1493012345}'::text[]) a;
INSERT INTO timeline_entries (event_type, content) SELECT 'NOTE', jsonb_build_object('grouped', a)
FROM unnest(ARRAY['+49 (30) 123-45', '0049 30/12345', E'\u202a+49\u00a030\u00a012345\u202c', '+49 (30) 123-456']) a;
SELECT _wa_audit(current_wa_organization(), 'about', NULL, a, '{}') FROM unnest('{+493012345,+4930123456}'::text[]) a;
INSERT INTO wa_idempotent_requests (caller, idempotency_key, body_hash, result)
SELECT 'x', 'for ' || a, '', '{}' FROM unnest('{+493012345,+4930123456}'::text[]) a;
INSERT INTO siren_templates (name, channel, body_text) VALUES ('alarm', 'whatsapp', 'x');
INSERT INTO siren_events (template_id, phone_e164, context) SELECT t.id, '+15550009999', jsonb_build_object('customer', a)
FROM siren_templates t, unnest('{+493012345,+4930123456}'::text[]) a WHERE t.name = 'alarm';
SELECT is((erase_wa_contact('+493012345', 'request 10')).state, 'done', 'whose number is the beginning of another''s');
SELECT is((SELECT string_agg(content ->> 'about', ' ' ORDER BY id) FROM timeline_entries WHERE content ? 'about'),
    '+4930123456 +1493012345', 'is erased, and nobody else');
SELECT is((SELECT string_agg(content ->> 'grouped', ' ') FROM timeline_entries WHERE content ? 'grouped'),
    '+49 (30) 123-456', 'however it was grouped');
SELECT is((SELECT string_agg(entity_id, ' ') FROM audit_log WHERE event = 'about'), '+4930123456', 'in the audit log');
SELECT is((SELECT string_agg(concat_ws(' ', e.phone_e164, e.context ->> 'customer'), ', ' ORDER BY e.context ->> 'customer' = '0')
    FROM siren_events e), '+15550009999 +4930123456, +15550009999 0', 'in what others were told of the person');
SELECT is((SELECT string_agg(idempotency_key, ' ') FROM wa_idempotent_requests WHERE caller = 'x'), 'for +4930123456',
    'in requests');
SELECT is(export_wa_contact('+4930123456') #>> '{audit,0,entity_id}', '+4930123456', 'which an export has, too');

-- Digits in JSON whatever stands before them.
SELECT opt_in_wa_contact(world.customer(9), 'all', 'form', jsonb_build_object('text', E'\u0001' || world.wa_id(9),
    'number', world.wa_id(9)::bigint, 'less', -world.wa_id(9)::bigint, 'part', (world.wa_id(9) || '.5')::numeric)) \g /dev/null
SELECT is((erase_wa_contact(world.customer(9), 'request 11', '{"consent": {"reason": "law", "until": "2199-12-31"}}')).state,
    'done', 'a proof with all kinds of numbers');
SELECT is(pg_temp.stored(world.wa_id(9)), '', 'has none of them any more');

-- One that cannot be erased stops no other; nor does what was said of it.
SELECT throws_ok(format($f$ SELECT erase_wa_contact(world.customer(2), 'x', '{"consent": {"reason": "x", "until": %s}}') $f$,
    to_jsonb(u)), 'WA072', NULL, u || ' is no day until which anything could be kept')
FROM unnest('{2024-12-31,2031-02-31,0000-01-01,2031-13-01,infinity,tomorrow}'::text[]) u;
SELECT throws_ok($$ SELECT opt_in_wa_contact(world.customer(2), 'all', 'form', '"yes"') $$, '22023', NULL,
    'a proof is an object');
INSERT INTO wa_opt_ins (contact_id, scope, source, proof) SELECT world.contact(world.customer(n)), 'all', 'before', p
FROM (VALUES (41, '"yes"'::jsonb), (42, '["yes"]')) v (n, p);
SELECT is((erase_wa_contact(world.customer(n), 'r', '{"consent": {"reason": "law", "until": "2199-12-31"}}')).state, 'done',
    'also one of another kind, of former releases') FROM unnest('{41,42}'::int[]) n;
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
SELECT world.writes(n, 'hello') FROM unnest('{43,44}'::int[]) n;
SELECT _wa_begin_erasure(current_wa_organization(), world.found(n), 'r', '{}') FROM unnest('{43,44}'::int[]) n \g /dev/null
SELECT world.found(43) AS stuck \gset
CREATE TRIGGER stuck BEFORE UPDATE ON wa_contacts FOR EACH ROW WHEN (OLD.id = :stuck) EXECUTE FUNCTION pg_temp.fail();
UPDATE wa_erasures SET keep = '{"consent": {"reason": "of another release", "until": "2031-02-31"}}'
WHERE reason = 'request 11';
SELECT lives_ok('SELECT run_wa_erasures()', 'one that fails');
SELECT is((SELECT string_agg(e.state, ' ' ORDER BY e.id) FROM wa_erasures e WHERE e.reason = 'r' AND e.keep = '{}'),
    'running done', 'does not stop those behind it');
SELECT is((SELECT error FROM wa_faults WHERE work = 'erasure'), 'not this one', 'and is told');
DROP TRIGGER stuck ON wa_contacts;

-- Two contacts turn out to be one: what was said of either counts for both.
CREATE FUNCTION pg_temp.meet(p_n integer, p_id text, p_what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM world.writes(p_n, 'by number');
    PERFORM world.told(NULL, p_id, 10, '{"type": "text", "text": {"body": "by id"}}');
    EXECUTE p_what;
    PERFORM world.writes(p_n, 'me, too ' || p_n, p_id, 20);
END
$$;
SELECT pg_temp.meet(51, 'AR.5100000001', $$ SELECT hold_wa_contact(world.customer(51), 'case 8') $$);
SELECT pg_temp.meet(52, 'AR.5200000001', $$ SELECT hold_wa_contact('AR.5200000001', 'case 9') $$);
SELECT pg_temp.meet(53, 'AR.5300000001', $$ SELECT hold_wa_contact(world.customer(53), 'case 10'),
    hold_wa_contact('AR.5300000001', 'case 11') $$);
SELECT is(world.found(n), world.found('AR.' || n || '00000001'), 'a held contact becomes one with another')
FROM generate_series(51, 53) n;
SELECT throws_ok(format('SELECT erase_wa_contact(world.customer(%s), %L)', n, 'x'), 'WA071', NULL, 'which is held then')
FROM generate_series(51, 53) n;
SELECT is(release_wa_contact(world.customer(n)), true, 'until it is released') FROM generate_series(51, 53) n;
SELECT pg_temp.meet(54, 'AR.5400000001', $$ SELECT _wa_begin_erasure(current_wa_organization(), world.found(54), 'm', '{}') $$);
SELECT _wa_begin_erasure(current_wa_organization(), world.found(54), 'again',
    '{"consent": {"reason": "law", "until": "2199-12-31"}}') \g /dev/null
SELECT is((SELECT keep FROM wa_erasures WHERE contact_id = world.found(54)),
    '{"consent": {"reason": "law", "until": "2199-12-31"}}', 'what is to be kept may be said later');
SELECT pg_temp.meet(55, 'AR.5500000001', $$ SELECT _wa_begin_erasure(current_wa_organization(),
    world.found('AR.5500000001'), 'm', '{}') $$);
SELECT pg_temp.meet(56, 'AR.5600000001', $$ SELECT _wa_begin_erasure(current_wa_organization(), u, 'm', '{}')
    FROM unnest(ARRAY[world.found(56), world.found('AR.5600000001')]) u $$);
SELECT run_wa_erasures();
SELECT is(concat(pg_temp.stored(world.wa_id(n)), pg_temp.stored('AR.' || n), pg_temp.stored('me, too ' || n)), '',
    'who is being erased is, with what the other one had') FROM generate_series(54, 56) n;
SELECT is((SELECT string_agg(DISTINCT state, ',') FROM wa_erasures WHERE reason = 'm'), 'done', 'and that is that');
SELECT world.told(NULL, 'AR.' || n || '00000001', 30, '{"type": "text", "text": {"body": "again"}}'),
    world.writes(n, 'again', NULL, 30) FROM generate_series(54, 56) n;
SELECT is(world.opt_outs(world.found(n)) || world.opt_outs(world.found('AR.' || n || '00000001')), 'all by erasureall by erasure',
    'known again by either') FROM generate_series(54, 56) n;

SELECT * FROM finish();
ROLLBACK;
