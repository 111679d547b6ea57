-- Tests sql/extension/webhook_bytes.sql.
BEGIN;
SELECT plan(14);

SELECT is(
    _wa_hmac_sha256_hex('what do ya want for nothing?', 'Jefe'),
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843', 'the test vector of RFC 4231'
);
SELECT ok(
    verify_wa_signature('{}', 'sha256=' || _wa_hmac_sha256_hex('{}', 'new'), ARRAY['old', 'new', NULL]),
    'any of several secrets will do'
);
SELECT ok(
    NOT verify_wa_signature('{} ', 'sha256=' || _wa_hmac_sha256_hex('{}', 'k'), ARRAY['k']), 'one byte more'
);
SELECT is(verify_wa_signature('{}', NULL, ARRAY['k']), FALSE, 'no header: false, not NULL');
SELECT is(verify_wa_signature(NULL, 'sha256=zz', NULL), FALSE, 'garbage: false, not an error');

CREATE TEMPORARY TABLE made AS
SELECT * FROM _wa_split_webhook(convert_to($json${"object": "whatsapp_business_account", "entry": [
    {"id": 1, "time": 1739321024, "changes": [
        {"field": "messages", "value": {
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
            "contacts": [{"wa_id": "16505551234", "profile": {"name": "A\u0000B"}}],
            "statuses": [{"id": "wamid.S", "status": "read", "recipient_id": "16505551234"}],
            "messages": [{"id": "wamid.M", "from": "16505551234", "type": "text"}, "broken"]}},
        {"field": "account_alerts", "value": {"entity_id": 5}}]}]}$json$, 'UTF8'));
SELECT results_eq(
    'SELECT atom, kind, dedupe_key IS NOT NULL, error IS NOT NULL FROM made ORDER BY atom',
    $$ VALUES (1, 'status', TRUE, FALSE), (2, 'message', TRUE, FALSE), (3, 'message', TRUE, TRUE),
        (4, 'account', TRUE, FALSE) $$,
    'a row per atom, in the order of the body'
);
SELECT results_eq(
    $$ SELECT DISTINCT waba_id, entry_time FROM made $$,
    $$ VALUES ('1', timestamptz '2025-02-12 00:43:44+00') $$, 'account and time come from the entry'
);
SELECT is(payload ->> 'entity_id', '5', 'numbers stay numbers') FROM made WHERE kind = 'account';
SELECT is(contact #>> '{profile,name}', U&'A\FFFDB', 'a NUL is replaced') FROM made WHERE atom = 2;
SELECT matches(note, 'U\+FFFD', 'and noted') FROM made WHERE atom = 2;
SELECT is(error, 'the atom is not an object', 'a broken atom says so') FROM made WHERE atom = 3;
SELECT is(phone_number_id, '106540352242922', 'the number comes from the metadata') FROM made WHERE atom = 1;

SELECT results_eq(
    $$ SELECT kind, error FROM _wa_split_webhook('\xff') $$,
    $$ VALUES ('error', 'the body is not UTF-8') $$, 'what is no text is one row'
);
SELECT results_eq(
    $$ SELECT log_id, atom, kind 
        FROM _wa_split_webhooks(ARRAY[7, 8], ARRAY['{"messages": [{}, {}]}', 'x']::bytea[]) $$,
    $$ VALUES (7::bigint, 1, 'message'), (7, 2, 'message'), (8, 1, 'error') $$,
    'a batch keeps its bodies apart'
);

SELECT * FROM finish();
ROLLBACK;
