-- Tests sql/consent/keywords.sql, sql/consent/default_words.sql, sql/queue/opt_outs.sql.
BEGIN;
SELECT plan(80);
\ir ../world.psql
\ir ../customers.psql

CREATE FUNCTION pg_temp.refused(p_n integer) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(o.scope, ',' ORDER BY o.scope) FROM wa_opt_outs o
    WHERE o.contact_id = world.contact(world.customer(p_n)) AND o.revoked_at IS NULL
$$;
CREATE FUNCTION pg_temp.queued(p_n integer) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(':', coalesce(q.template_name, q.text_body), q.status, q.error_code), ','
        ORDER BY q.created_at, q.id)
    FROM wa_outbound_queue q WHERE q.phone = world.customer(p_n)
$$;
-- In reply to a message of ours, of a type and, where it is a template, a category.
CREATE FUNCTION pg_temp.answers(p_n integer, p_text text, p_type text, p_category text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wa_messages (direction, message_type, template_category, status, state, wa_message_id, contact_id)
    VALUES ('outbound', p_type, p_category, 'sent', 'delivered', 'wamid.ours' || p_n,
        world.contact(world.customer(p_n)));
    PERFORM world.told(p_n, NULL, 0, jsonb_build_object('type', 'text', 'text', jsonb_build_object('body', p_text),
        'context', jsonb_build_object('id', 'wamid.ours' || p_n)));
    RETURN coalesce(pg_temp.refused(p_n), 'nothing');
END
$$;

-- The words.
SELECT cmp_ok(count(DISTINCT language), '>=', 20::bigint, 'words of twenty languages') FROM wa_default_keywords;
SELECT is_empty($$
    SELECT language FROM unnest('{en,es,pt,hi,id,ar,ru,de,it,fr,tr,ur,bn,ms,nl,te,mr,ta,gu,sw}'::text[]) AS l (language)
    WHERE NOT EXISTS (
        SELECT FROM wa_default_consent_texts t WHERE t.language = l.language AND t.scope = 'all'
    ) OR NOT EXISTS (
        SELECT FROM wa_default_consent_texts t WHERE t.language = l.language AND t.scope = 'marketing'
    )$$, 'each has its confirmations');
SELECT is_empty('SELECT word FROM wa_default_keywords WHERE word_key IS DISTINCT FROM _wa_word_key(word)',
    'each word has its key');
SELECT is((SELECT meaning FROM _wa_keyword(current_wa_organization(), word)), meaning, word || ' is ' || meaning)
FROM (VALUES ('Stop!', 'stop'), ('unsubscribe', 'stop'), ('ОТПИСАТЬСЯ', 'stop'), ('إيقاف', 'stop'), ('रोकें', 'stop'),
    ('退订', 'stop'), ('Cancel', 'cancel'), ('End.', 'cancel'), ('quit', 'cancel'), ('Cancelar', 'cancel'),
    ('İptal', 'cancel'), ('Start', 'start'), ('confirmo', 'confirm')) AS v (word, meaning);
SELECT is((SELECT meaning FROM _wa_keyword(current_wa_organization(), word)), NULL, 'no keyword: ' || word)
FROM unnest(ARRAY['please stop', 'stop it', 'do not stop', 'end of the week', 'fine', 'acha', 'ok', 'son', '',
    'Stop. Start.']) AS word;
-- Letters of another keyboard that look the same; words of those alphabets come first.
SELECT is((SELECT meaning FROM _wa_keyword(current_wa_organization(), word)), meaning, 'looks like ' || latin)
FROM (VALUES ('ЅТОР', 'stop', 'STOP'), ('ѕtор', 'stop', 'stop'), ('UNЅUВЅСRІВЕ', 'stop', 'UNSUBSCRIBE'),
    ('ЅТАRТ', 'start', 'START'), ('ΕΝD', 'cancel', 'END'), ('СТОП', 'stop', 'nothing: it is Russian')) v (word, meaning, latin);
SELECT is((SELECT meaning FROM _wa_keyword(current_wa_organization(), word)), NULL, 'looks like none: ' || word)
FROM unnest('{НЕТ,ΝΑΙ,ΟΧΙ,ТОР,please ЅТОР}'::text[]) word;
SELECT throws_ok($$ INSERT INTO wa_keywords (word, meaning) VALUES ('ЅТОР', 'nothing') $$, 'WA051', NULL,
    'nor can it be taken away');

-- STOP: stored, cancelled, confirmed, in the transaction of the message.
SELECT world.writes(1, 'Hello');
SELECT world.queue(1, 'sale') \g /dev/null
SELECT world.queue(1, 'hello') \g /dev/null
SELECT world.queue(1, 'code', '["1"]') \g /dev/null
SELECT world.say(1, 'Hi') \g /dev/null
SELECT world.writes(1, ' ＳＴＯＰ! ', NULL, 10);
SELECT is(pg_temp.refused(1), 'marketing,utility', 'STOP covers all but authentication');
SELECT is(pg_temp.queued(1),
    'sale:cancelled:opted_out,hello:cancelled:opted_out,code:pending,Hi:cancelled:opted_out,'
    'You will get no more messages from us. Write START to get them again.:pending',
    'what it covers is cancelled, and it is confirmed once');
SELECT results_eq(
    $$ SELECT event, scope, source, phone_number, text_shown, occurred_at = to_timestamp(extract(epoch FROM
        now() - interval '10 minutes')::bigint + 10) FROM wa_consent_events ORDER BY scope $$,
    $$ VALUES ('opt_out', 'marketing', 'keyword', world.customer(1), ' ＳＴＯＰ! ', true),
        ('opt_out', 'utility', 'keyword', world.customer(1), ' ＳＴＯＰ! ', true) $$,
    'the record has who, when, how and the words');
SELECT throws_ok($$ SELECT world.say(1, 'Again') $$, 'WA102', NULL, 'nothing proactive is taken');
SELECT lives_ok($$ SELECT world.queue(1, 'code', '["2"]') $$, 'a code is');
SELECT ok(is_wa_opted_out(world.customer(1)) AND is_wa_opted_out(world.customer(1), 'utility')
    AND NOT is_wa_opted_out(world.customer(1), 'authentication') AND NOT is_wa_opted_out(world.customer(1), 'all'),
    'asked by scope');
SELECT is((SELECT count(*) FROM world.claim() c WHERE c.body ->> 'type' = 'text'), 1::bigint,
    'the confirmation is sent');
SELECT world.accept_all();
SELECT world.writes(1, 'stop', NULL, 20);
SELECT is((SELECT count(*) FROM wa_outbound_queue WHERE phone = world.customer(1) AND priority = 'high'), 1::bigint,
    'STOP again is not confirmed again');

-- A person may answer who writes again, and nobody else.
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, text_body, sent_by) VALUES (world.customer(1), 'Sorry', 'ann') $$,
    'WA102', NULL, 'STOP itself is nothing to answer, also the second time');
SELECT world.writes(1, 'Where is my order?', NULL, 30);
SELECT throws_ok($$ SELECT world.say(1, 'An offer') $$, 'WA102', NULL, 'a program still may not');
SELECT throws_ok($$ INSERT INTO wa_outbound_queue (phone, template_name, sent_by)
    VALUES (world.customer(1), 'hello', 'ann') $$, 'WA102', NULL, 'nor a person with a template');
SELECT lives_ok($$ INSERT INTO wa_outbound_queue (phone, text_body, sent_by, reference)
    VALUES (world.customer(1), 'Here', 'ann', 'answer') $$, 'a person may answer');
SELECT is((SELECT count(*) FROM world.claim() c WHERE c.body #>> '{text,body}' = 'Here'), 1::bigint, 'and it is sent');
SELECT world.accept_all();
INSERT INTO wa_outbound_queue (phone, text_body, sent_by, reference)
VALUES (world.customer(1), 'And more', 'ann', 'late');
SELECT world.writes(1, 'STOP!', NULL, 40);
SELECT is(world.claimed(), 0, 'not after another STOP');
SELECT is((SELECT error_code FROM wa_outbound_queue WHERE reference = 'late'), 'opted_out', 'what it had written fails');

-- START lifts what a word set, only.
SELECT opt_out_wa_contact(world.customer(1), 'utility', 'asked by phone') \g /dev/null
SELECT world.writes(1, 'Start', NULL, 50);
SELECT is(pg_temp.refused(1), 'utility', 'START leaves what was asked by phone');
SELECT results_eq($$ SELECT scope, source, proof ->> 'text' FROM wa_opt_ins ORDER BY scope $$,
    $$ VALUES ('marketing', 'keyword', 'Start'), ('utility', 'keyword', 'Start') $$, 'it agrees to what it lifts');
SELECT opt_in_wa_contact(world.customer(1), 'utility') \g /dev/null
SELECT is(pg_temp.refused(1), NULL, 'an opt-in lifts the other');
SELECT world.writes(1, 'STOP', NULL, 45);
SELECT is(pg_temp.refused(1), NULL, 'a STOP of before START, told late, is recorded and taken back');
SELECT is((SELECT count(*) FROM wa_consent_events WHERE event = 'opt_out' AND occurred_at = to_timestamp(
    extract(epoch FROM now() - interval '10 minutes')::bigint + 45)), 2::bigint, 'it is in the record');

-- CANCEL and its like answer what they are asked; STOP always opts out.
SELECT is(pg_temp.answers(11, 'Cancel', 'interactive'), 'nothing', 'CANCEL to a question with buttons');
SELECT is(pg_temp.answers(12, 'cancelar', 'template', 'UTILITY'), 'nothing', 'to a template that is no offer');
SELECT is(pg_temp.answers(13, 'End', 'template', 'MARKETING'), 'marketing,utility', 'to an offer it opts out');
SELECT is(pg_temp.answers(14, 'quit', 'text'), 'marketing,utility', 'to a text it does');
SELECT is(pg_temp.answers(15, 'Stop', 'interactive'), 'marketing,utility', 'STOP does to a question');
SELECT is(pg_temp.answers(16, 'Отписаться', 'template', 'UTILITY'), 'marketing,utility', 'in any language');
SELECT is((SELECT text_body FROM wa_outbound_queue WHERE phone = world.customer(16)),
    'Вы больше не будете получать от нас сообщения. Напишите START, чтобы получать их снова.', 'confirmed in it');

-- Below a picture, and what a message was changed into.
CREATE FUNCTION pg_temp.shows(p_n integer, p_caption text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM world.told(p_n, NULL, 0, jsonb_build_object('type', 'image', 'image', jsonb_build_object('id', '1',
        'mime_type', 'image/jpeg', 'sha256', 'x', 'caption', p_caption)));
    RETURN coalesce(pg_temp.refused(p_n), 'nothing');
END
$$;
SELECT is(pg_temp.shows(17, 'STOP'), 'marketing,utility', 'STOP below a picture');
SELECT is(pg_temp.shows(18, 'Ende'), 'nothing', 'a weaker word may be what the picture shows');
SELECT world.told(19, NULL, 0, '{"type": "edit", "edit": {"original_message_id": "wamid.x", "message":
    {"type": "text", "text": {"body": "Stop"}, "context": {"id": "wamid.x"}}}}');
SELECT is(pg_temp.refused(19), 'marketing,utility', 'a message that was changed into STOP');
SELECT is((SELECT source FROM wa_opt_outs WHERE contact_id = world.contact(world.customer(19)) LIMIT 1), 'keyword',
    'is one that was typed');

-- An organization's own.
INSERT INTO wa_keywords (word, meaning, scope) VALUES ('Genug jetzt', 'stop', 'all'), ('cancel', 'nothing', NULL);
INSERT INTO wa_consent_texts (scope, language, body) VALUES ('all', 'en', 'Bye.');
SELECT world.writes(21, 'GENUG JETZT!');
SELECT is(pg_temp.refused(21) || ' ' || pg_temp.queued(21), 'all Bye.:pending', 'a word and a text of its own');
SELECT throws_ok($$ SELECT world.queue(21, 'code', '["1"]') $$, 'WA102', NULL, 'all stops codes, too');
SELECT world.writes(22, 'Cancel');
SELECT is(pg_temp.refused(22), NULL, 'a word of ours that means nothing to it');
SELECT throws_ok($$ INSERT INTO wa_keywords (word, meaning) VALUES ('stop', 'nothing') $$, 'WA051', NULL,
    'STOP always opts out');
UPDATE wa_organizations SET stop_scopes = '{marketing}', confirms_opt_outs = false;
SELECT world.writes(23, 'STOP');
SELECT is(pg_temp.refused(23) || coalesce(pg_temp.queued(23), ''), 'marketing',
    'what STOP covers and whether it is confirmed can be set');

-- Double opt-in.
SELECT request_wa_opt_in(world.customer(31), 'marketing', 'shop', '{"text": "Offers by WhatsApp?"}') \g /dev/null
SELECT world.writes(31, 'yes', NULL, 601);
SELECT is((SELECT count(*) FROM wa_opt_ins i WHERE i.contact_id = world.contact(world.customer(31))), 0::bigint,
    'an answer to something else confirms nothing');
SELECT world.writes(31, 'Confirm', NULL, 602);
SELECT results_eq($$ SELECT scope, source, proof ->> 'text', proof ->> 'confirmed_by' FROM wa_opt_ins
    WHERE contact_id = world.contact(world.customer(31)) $$,
    $$ VALUES ('marketing', 'shop', 'Offers by WhatsApp?', 'Confirm') $$, 'the word does, with what was shown as proof');

-- Whole seconds tell no order: in doubt nobody is written to.
SELECT world.writes(32, 'Stop promotions', NULL, 5);
SELECT request_wa_opt_in(world.customer(32), 'marketing', 'shop') \g /dev/null
UPDATE wa_opt_in_requests SET requested_at = now() - interval '20 minutes' WHERE confirmed_at IS NULL;
SELECT world.writes(32, 'Confirm', NULL, 5);
SELECT is(pg_temp.refused(32), 'marketing', 'CONFIRM in the second of a STOP lifts nothing');
SELECT request_wa_opt_in(world.customer(32), 'marketing', 'shop') \g /dev/null
UPDATE wa_opt_in_requests SET requested_at = now() - interval '20 minutes' WHERE confirmed_at IS NULL;
SELECT world.writes(32, 'Confirm', NULL, 6);
SELECT is(pg_temp.refused(32), NULL, 'one of a second later does');

-- The switch in WhatsApp counts from when it was pressed.
CREATE FUNCTION pg_temp.resumes(p_n integer, p_at integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ingest_wa_webhooks(ARRAY[convert_to(jsonb_build_object('object', 'whatsapp_business_account', 'entry',
        jsonb_build_array(jsonb_build_object('id', '200', 'changes', jsonb_build_array(jsonb_build_object(
            'field', 'user_preferences', 'value', jsonb_build_object(
                'metadata', '{"phone_number_id": "100"}'::jsonb, 'user_preferences', jsonb_build_array(
                    jsonb_build_object('wa_id', world.wa_id(p_n), 'category', 'marketing_messages', 'value', 'resume',
                        'timestamp', extract(epoch FROM now() - interval '10 minutes')::bigint + p_at))))))
        ))::text, 'UTF8')], NULL);
    PERFORM process_wa_webhooks();
    RETURN coalesce(pg_temp.refused(p_n), 'nothing');
END
$$;
SELECT world.writes(33, 'STOP', NULL, 20);
SELECT is(pg_temp.resumes(33, 10), 'marketing', 'told late, it lifts no STOP that came after it');
SELECT is(pg_temp.resumes(33, 30), 'nothing', 'pressed after it, it does');

SELECT * FROM finish();
ROLLBACK;
