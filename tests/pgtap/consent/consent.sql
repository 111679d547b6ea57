-- Tests sql/consent/consent.sql, sql/queue/opt_outs.sql.
BEGIN;
SELECT plan(32);

SELECT register_wa_phone_number('100', '+1 555 123 4567', '200', is_test => true);
INSERT INTO wa_templates (name, category, body_text, status) VALUES
('sale', 'MARKETING', 'Sale', 'APPROVED'), ('receipt', 'UTILITY', 'Receipt', 'APPROVED');

CREATE FUNCTION pg_temp.queue(p_phone text, p_template text, p_on_refusal text DEFAULT NULL)
RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO wa_outbound_queue (phone, template_name, reference, on_refusal)
    VALUES (p_phone, p_template, p_template, p_on_refusal) RETURNING id
$$;
CREATE FUNCTION pg_temp.outcome(p_template text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(':', status, error_code), ',' ORDER BY id)
    FROM wa_outbound_queue WHERE phone = '+5491112345678' AND template_name = p_template
$$;

SELECT is(is_wa_opted_out('+5491112345678'), false, 'an unknown number has not opted out');
SELECT pg_temp.queue('+5491112345678', 'sale');
SELECT pg_temp.queue('+5491112345678', 'receipt');
SELECT pg_temp.queue('+5491187654321', 'sale');
SELECT is(opt_out_wa_contact('+54 9 11 1234-5678', p_reason => 'asked at the desk'), true,
    'an opt-out in any usual form of the number');
SELECT is(pg_temp.outcome('sale'), 'cancelled:opted_out', 'cancels queued marketing');
SELECT is(pg_temp.outcome('receipt'), 'pending', 'leaves other messages');
SELECT is((SELECT status FROM wa_outbound_queue WHERE phone = '+5491187654321'), 'pending',
    'and other people''s');
SELECT is(opt_out_wa_contact('+5491112345678'), false, 'a second opt-out is not new');
SELECT throws_ok(call, '22023', NULL, 'nobody''s consent: ' || call) FROM unnest(ARRAY['SELECT opt_out_wa_contact(NULL)',
    'SELECT opt_in_wa_contact(NULL)', 'SELECT request_wa_opt_in(NULL)']) call;
SELECT is((SELECT count(*) FROM wa_opt_outs), 1::bigint, 'and leaves one row');
SELECT results_eq('SELECT scope, phone_number, reason, source FROM wa_opt_outs',
    $$ VALUES ('marketing', '+5491112345678', 'asked at the desk', 'admin') $$,
    'which says who, what, why and where');
SELECT ok(is_wa_opted_out('+541112345678'), 'it holds for every spelling of the number');
SELECT ok(NOT is_wa_opted_out('+5491112345678', 'all'), 'other messages may still be sent');
SELECT throws_ok($$ SELECT pg_temp.queue('+5491112345678', 'sale') $$, 'WA102', NULL, 'marketing is refused');
SELECT lives_ok($$ SELECT pg_temp.queue('+5491112345678', 'sale', 'record') $$,
    'or recorded where the row says so');
SELECT is(pg_temp.outcome('sale'), 'cancelled:opted_out,failed:opted_out', 'as failed, with the reason');
SELECT lives_ok($$ SELECT pg_temp.queue('+5491112345678', 'receipt') $$, 'a receipt is not refused');

SELECT ok(opt_out_wa_contact('+5491112345678', 'all', p_source => 'keyword'), 'a wider opt-out is new');
SELECT is(pg_temp.outcome('receipt'), 'cancelled:opted_out,cancelled:opted_out', 'and cancels everything');
SELECT throws_ok($$ SELECT pg_temp.queue('+5491112345678', 'receipt') $$, 'WA102', NULL,
    'nothing may be sent any more');

SELECT ok(opt_in_wa_contact('+5491112345678', 'marketing', 'form', '{"form": "spring"}'),
    'consent to marketing lifts that opt-out');
SELECT ok(is_wa_opted_out('+5491112345678'), 'but not the one of everything');
SELECT ok(opt_in_wa_contact('+5491112345678', 'all', 'keyword'), 'consent to everything does');
SELECT ok(NOT is_wa_opted_out('+5491112345678'), 'then marketing may be sent again');
SELECT lives_ok($$ SELECT pg_temp.queue('+5491112345678', 'sale') $$, 'and is accepted');
SELECT results_eq('SELECT scope, source, proof FROM wa_opt_ins ORDER BY id',
    $$ VALUES ('marketing', 'form', '{"form": "spring"}'::jsonb), ('all', 'keyword', '{}') $$,
    'every consent is kept with its proof');
SELECT is((SELECT count(*) FROM wa_opt_outs WHERE revoked_at IS NOT NULL), 2::bigint,
    'lifted opt-outs are kept');

SELECT throws_ok($$ SELECT opt_out_wa_contact('+5491112345678', 'some') $$, '22023', NULL,
    'an opt-out has one of five scopes');
SELECT throws_ok($$ SELECT opt_out_wa_contact('nobody') $$, '22023', NULL, 'a number must be one');
SELECT ok(opt_out_wa_contact('AR.1234567890abc', 'all'), 'a user id can opt out before any message');

INSERT INTO wa_opt_outs (contact_id, scope)
SELECT id, 'marketing' FROM wa_contacts WHERE phone_e164 = '+5491112345678';
SELECT matches(pg_temp.outcome('sale'), 'cancelled:opted_out$',
    'a row written by hand cancels what is queued too');
SELECT results_eq(
    $$ SELECT event, count(*), bool_or(meta::text ~ '12345678') FROM audit_log
        WHERE event LIKE 'contact%' GROUP BY event
        ORDER BY event $$,
    $$ VALUES ('contact_opted_in', 2::bigint, false), ('contact_opted_out', 4, false) $$,
    'each call is audited, without the number'
);

SELECT * FROM finish();
ROLLBACK;
