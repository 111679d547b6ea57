-- Tests sql/contacts/readings.sql.
BEGIN;
SELECT plan(42);
\ir ../world.psql
CREATE ROLE wa_readings_app IN ROLE wa_app;
UPDATE wa_organizations SET default_region = 'DE';

CREATE FUNCTION pg_temp.wrote(p_from text, p_text text DEFAULT 'Hello', p_ago interval DEFAULT '0') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ingest_wa_webhook(convert_to(jsonb_build_object(
        'object', 'whatsapp_business_account', 'entry', jsonb_build_array(jsonb_build_object('id', '200', 'changes',
            jsonb_build_array(jsonb_build_object('field', 'messages', 'value', jsonb_build_object(
                'messaging_product', 'whatsapp',
                'metadata', '{"display_phone_number": "15551234567", "phone_number_id": "100"}'::jsonb,
                'messages', jsonb_build_array(jsonb_build_object(
                    'from', p_from, 'id', 'wamid.' || gen_random_uuid(), 'type', 'text',
                    'timestamp', extract(epoch FROM clock_timestamp() - p_ago)::bigint::text,
                    'text', jsonb_build_object('body', p_text)
                ))
            ))))))::text, 'UTF8'));
    PERFORM process_wa_webhooks();
END
$$;
CREATE FUNCTION pg_temp.queued(p_phone text, p_text text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_phone text;
    v_message text;
BEGIN
    INSERT INTO wa_outbound_queue (phone, template_name, text_body)
    VALUES (p_phone, CASE WHEN p_text IS NULL THEN 'hello' END, p_text) RETURNING phone INTO v_phone;
    RETURN v_phone;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS v_message = MESSAGE_TEXT;
    RETURN SQLSTATE || ': ' || v_message;
END
$$;
CREATE FUNCTION pg_temp.found(p_recipient text) RETURNS bigint LANGUAGE sql AS $$
    SELECT _wa_find_contact(current_wa_organization(), p_recipient)
$$;

-- as WhatsApp writes it
SELECT is(pg_temp.queued('4915123456789'), '+4915123456789', 'a mobile with its country code and no plus');
SELECT is(pg_temp.queued('0151 23456789'), '+4915123456789', 'is who is dialled so at home');
SELECT is(pg_temp.queued('tel:+49-1512-3456789'), '+4915123456789', 'and who a link names');
SELECT is(pg_temp.queued('''+4915123456789'), '+4915123456789', 'and a spreadsheet''s text');
SELECT is(pg_temp.queued(E'\u202a+49\u00a015123456789\u202c'), '+4915123456789',
    'and one with marks that nobody sees');
SELECT is(
    (SELECT count(*) FROM wa_contacts WHERE phone_e164 LIKE '+49%'), 1::bigint, 'all of them are one contact'
);

-- what a program made of it
SELECT is(
    pg_temp.queued('491701234567.0'),
    'WA001: not a phone number: it is a number with decimals or thousands, as a program writes it',
    'decimals are not read as digits'
);
SELECT is(pg_temp.queued('4.9E+11'), 'WA001: not a phone number: a program has rounded it, digits are lost',
    'a rounded number is nobody');
SELECT is(pg_temp.queued('12'), 'WA001: not a phone number or business-scoped user id',
    'other nonsense is what it was');
SELECT results_eq(
    $$ SELECT status, error_sqlstate, error FROM enqueue_wa_messages('[
        {"phone": 491701234567.0, "template_name": "hello"}, {"phone": 4.9E+11, "template_name": "hello"},
        {"phone": 491701234567, "template_name": "hello"}]') $$,
    $$ VALUES ('refused', 'WA001',
        'not a phone number: it is a number with decimals or thousands, as a program writes it'),
    ('refused', 'WA001', 'not a phone number: a program has rounded it, digits are lost'),
    ('pending', NULL, NULL) $$,
    'nor in JSON; a whole number there is one'
);
SELECT throws_ok(
    $$ SELECT enqueue_wa_message('491701234567.0', template_name => 'hello') $$, 'WA001',
    'not a phone number: it is a number with decimals or thousands, as a program writes it', 'nor by function'
);
SELECT throws_ok(
    $$ INSERT INTO whatsapp_queue (recipient_phone, template_name) VALUES ('491701234567.0', 'hello') $$, 'WA001',
    'not a phone number: it is a number with decimals or thousands, as a program writes it', 'nor by the view'
);
SELECT throws_ok(
    $$ SELECT opt_out_wa_contact('491701234567.0') $$, '22023',
    'invalid phone number: it is a number with decimals or thousands, as a program writes it',
    'nobody is opted out in place of another'
);
SELECT is(can_send_freeform_wa('491701234567.0'), false, 'nobody has that number');

-- two people who may be meant
UPDATE wa_organizations SET default_region = 'BR';
SELECT is(pg_temp.queued('4741234567'), '+554741234567', 'ten digits are a number of the region');
SELECT is(pg_temp.queued('+4742345678'), '+4742345678', 'somebody in Norway');
SELECT is(pg_temp.queued('4742345678'), '+4742345678', 'is known by those digits, and nobody in Brazil is');
SELECT pg_temp.wrote('4741234567');
SELECT is(pg_temp.queued('4741234567', 'Hello'), '+4741234567', 'who wrote is preferred');
SELECT ok(can_send_freeform_wa('4741234567'), 'may be answered');
SELECT is(pg_temp.queued('+554741234567'), '+554741234567', 'a plus leaves no choice');
INSERT INTO wa_broadcast_lists (name) VALUES ('all');
SELECT add_wa_broadcast_members('all', ARRAY['4741234567']) \g /dev/null
SELECT is((SELECT phone FROM wa_broadcast_recipients), '+4741234567', 'also on a list');
SELECT is(cancel_wa_messages(phone => '4741234567'), 1, 'also when cancelling');
UPDATE wa_organizations SET default_region = 'DE';

-- what was misread before
SELECT world.contact('+494915123456780') \g /dev/null
SELECT is(pg_temp.queued('4915123456780'), '+4915123456780', 'a contact that was misread attracts nobody');
SELECT opt_out_wa_contact('+494915123456781', 'all') \g /dev/null
SELECT is(pg_temp.queued('4915123456781'), 'WA102: the contact asked not to be written to',
    'unless those digits asked not to be written to');
SELECT ok(is_wa_opted_out('4915123456781', 'all'), 'and are told so');
SELECT ok(opt_in_wa_contact('4915123456781', 'all'), 'until they agree');
SELECT is(pg_temp.queued('4915123456781'), '+4915123456781', 'from then on they are who they are');
SELECT world.contact('+4917012345670'), world.contact('+491701234567'), world.contact('+49490000000000'),
    world.contact('+494915123456')
\g /dev/null
SELECT pg_temp.wrote('494915123456782');
SELECT results_eq(
    $$ SELECT phone_e164, probably_meant, reason, is_opted_out FROM find_misread_wa_phones() ORDER BY 1 $$,
    $$ VALUES
    ('+4917012345670', '+491701234567', 'decimals were read as digits: there is a contact without the last 0', false),
    ('+49490000000000', NULL, 'a program had rounded it', false),
    ('+494915123456780', '+4915123456780', 'a number with its country code was read as a national one', false),
    ('+494915123456781', '+4915123456781', 'a number with its country code was read as a national one', false) $$,
    'what is stored misread is told, but not of whoever wrote'
);
SELECT is((SELECT count(*) FROM find_misread_wa_phones(1)), 0::bigint, 'only so many are looked at');
SELECT opt_out_wa_contact('+494915123456780') \g /dev/null
SELECT is((SELECT array_agg(phone_e164) FROM find_misread_wa_phones() WHERE is_opted_out),
    ARRAY['+494915123456780'], 'and where an opt-out stands at the wrong number');

-- renumbered countries
SELECT pg_temp.wrote('22507123456');
SELECT is(pg_temp.queued('+22507123456', 'Hello'), '+22507123456', 'the number that a customer wrote from');
SELECT is(pg_temp.queued('22507123456', 'Hello'), '+22507123456', 'as WhatsApp writes it');
SELECT is(pg_temp.queued('+2250707123456', 'Hello'), '+2250707123456', 'as it is dialled today');
SELECT is(pg_temp.found('+225 07 12 34 56'), pg_temp.found('+225 07 07 12 34 56'), 'one contact');
SELECT is(pg_temp.queued('+2290197123456'), '+2290197123456', 'known by the current number first');
SELECT pg_temp.wrote('22997123456', 'STOP');
SELECT is(pg_temp.queued('+2290197123456'), 'WA102: the contact asked not to be written to',
    'STOP from the former reaches the current');
SELECT pg_temp.wrote('2250707123456', 'STOP', '1 minute');
SELECT is(pg_temp.queued('22507123456', 'Hello'), 'WA102: the contact asked not to be written to',
    'and from the current the former');
SELECT pg_temp.wrote('2250707123456', 'START');
SELECT is(pg_temp.queued('22507123456', 'Hello'), '+22507123456', 'so does START');
SELECT is((SELECT count(*) FROM wa_contacts WHERE phone_e164 ~ '^\+(225|229)'), 2::bigint, 'two people in all');

-- in no plan, but somebody wrote from it
SELECT is(pg_temp.queued('+22520212223'), 'WA001: not a phone number or business-scoped user id',
    'a number that no plan has');
SELECT pg_temp.wrote('22520212223');
SELECT is(pg_temp.queued('+22520212223', 'Hello'), '+22520212223', 'is one when it wrote');
SELECT is(pg_temp.queued('22520212223', 'Hello'), '+22520212223', 'also without plus');

SELECT * FROM finish();
ROLLBACK;
