-- Tests sql/extension/phone.sql, sql/extension/renumbering.sql.
BEGIN;
SELECT plan(48);

SELECT is(normalize_phone_e164('15551234567'), '+15551234567', 'digits with a country code need no plus');
SELECT is(normalize_phone_e164('+1 (555) 123-4567'), '+15551234567', 'blanks, brackets and dashes go');
SELECT is(normalize_phone_e164('+15551234567'), '+15551234567', 'a possible number need not be a valid one');
SELECT is(normalize_phone_e164('+14155552671', 'nowhere'), '+14155552671', 'with + no region is looked at');
SELECT is(
    normalize_phone_e164('11 1234-5678', 'AR'), '+5491112345678', 'a national Argentine number is a mobile'
);
SELECT is(
    normalize_phone_e164('15 1234-5678', 'AR'), '+5491112345678', '15 stands for the assumed area code'
);
SELECT is(normalize_phone_e164('15 512-3456', 'AR', '221'), '+5492215123456', 'the area code can be given');
SELECT is(normalize_phone_e164('+54 11 1234-5678'), '+541112345678', 'an international landline stays one');
SELECT is(normalize_phone_e164('+52 1 55 1234 5678'), '+525512345678', 'the Mexican 1 goes');
SELECT is(
    normalize_phone_e164('11 8765-4321', 'BR'), '+5511987654321', 'a national Brazilian mobile gets its 9'
);
SELECT is(normalize_phone_e164('+55 11 8765-4321'), '+551187654321', 'an international one is kept');
SELECT is(normalize_phone_e164(NULL), NULL, 'NULL stays NULL');
SELECT is(
    normalize_phone_e164('4915123456789', 'DE'), '+4915123456789', 'a mobile as WhatsApp writes it is no landline'
);
SELECT throws_ok(
    $$ SELECT normalize_phone_e164('491701234567.0', 'DE') $$, '22023',
    'invalid phone number: it is a number with decimals or thousands, as a program writes it',
    'what a spreadsheet made of it is refused'
);
SELECT throws_ok(
    $$ SELECT normalize_phone_e164(to_jsonb(4.9E+11::float8) #>> '{}', 'DE') $$, '22023',
    'invalid phone number: a program has rounded it, digits are lost', 'a rounded one, too, be it written out'
);

SELECT throws_ok(
    $$ SELECT normalize_phone_e164('invalid_number') $$,
    '22023', 'invalid phone number: it contains letters', 'what is no number raises 22023'
);
SELECT throws_ok(
    $$ SELECT normalize_phone_e164('(415) 555-2671') $$,
    '22023', 'invalid phone number: it is a national form and no region is known',
    'a national form needs a region'
);
SELECT throws_ok(
    $$ SELECT normalize_phone_e164('+1 415 555 2671 ext. 7') $$,
    '22023', 'invalid phone number: it has an extension, which WhatsApp cannot reach',
    'extensions are refused'
);

CREATE FUNCTION pg_temp.error_of(p_phone text, p_region text, OUT detail text, OUT hint text)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM normalize_phone_e164(p_phone, p_region);
EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END;
$$;
SELECT is((pg_temp.error_of('12', NULL)).detail, 'The value is "12".', 'the detail names the value');
SELECT is(
    (pg_temp.error_of('12', 'AR')).detail, 'The value is "12", the region "AR".',
    'and the region if there is one'
);
SELECT matches((pg_temp.error_of('12', NULL)).hint, '\+15551234567', 'the hint shows how to write it');

SELECT is(try_normalize_phone_e164('invalid_number'), NULL, 'the trying form gives NULL');
SELECT is(try_normalize_phone_e164('15 1234-5678', 'AR'), '+5491112345678', 'and else the same');
SELECT is(try_normalize_phone_e164(NULL, 'AR'), NULL, 'NULL too');
SELECT matches(wa_phonenumbers_version(), '^\d+\.\d+', 'the release of the library can be asked');

SELECT is(
    _wa_phone_key('+551187654321'), _wa_phone_key('+5511987654321'),
    'Brazil: with and without the ninth digit'
);
SELECT isnt(
    _wa_phone_key('+551151234567'), _wa_phone_key('+5511951234567'), 'Brazil: a landline is somebody else'
);
SELECT is(
    _wa_phone_key('+541112345678'), _wa_phone_key('+5491112345678'), 'Argentina: with and without the 9'
);
SELECT is(_wa_phone_key('+5215512345678'), _wa_phone_key('+525512345678'), 'Mexico: with and without the 1');
SELECT is(_wa_phone_key('+15551234567'), '+15551234567', 'elsewhere the number is its own key');

-- renumbered countries
SELECT is(_wa_phone_key('+22507123456'), '+2250707123456', 'Côte d''Ivoire: Orange');
SELECT is(_wa_phone_key('+22545123456'), '+2250545123456', 'MTN');
SELECT is(_wa_phone_key('+22501123456'), '+2250101123456', 'Moov');
SELECT is(_wa_phone_key('+22520212223'), '+22520212223', 'a landline is left as it is: no rule was published');
SELECT is(_wa_phone_key('+22997123456'), '+2290197123456', 'Benin');
SELECT is(_wa_phone_key('+24107280150'), '+24177280150', 'Gabon: Airtel');
SELECT is(_wa_phone_key('+2416111111'), '+24166111111', 'Gabon: Libertis, dialled without the zero');
SELECT is(_wa_phone_key('+841201234567'), '+84701234567', 'Viet Nam');
SELECT is(
    (SELECT count(*) FROM unnest(ARRAY[
        '+2250707123456', '+2290197123456', '+24166111111', '+84701234567', '+842812345678', '+2348012345678'
    ]) p (phone) WHERE _wa_phone_key(p.phone) <> p.phone),
    0::bigint, 'current numbers are what they are'
);
SELECT is(
    (SELECT count(*) FROM unnest(ARRAY[
        '+22507123456', '+22545123456', '+22501123456', '+22997123456', '+24107280150', '+2416111111',
        '+841201234567'
    ]) p (phone) WHERE normalize_phone_e164(p.phone) = p.phone
        AND normalize_phone_e164(_wa_phone_key(p.phone)) = _wa_phone_key(p.phone)),
    7::bigint, 'former and current forms are read as they stand'
);
SELECT is(
    (SELECT count(*) FROM _wa_renumberings() r WHERE r.source = '' OR r.since IS NULL
        OR r.current ~ r.former), 0::bigint, 'each rule has its date and its source'
);
SELECT is(_wa_phone_key(NULL), NULL, 'no number has no key');

SELECT ok(
    _wa_is_user_id('US.13491208655302741918') AND _wa_is_user_id('US.ENT.11815799212886844830'), 'user ids'
);
SELECT ok(NOT _wa_is_user_id('us.1') AND NOT _wa_is_user_id('US.') AND NOT _wa_is_user_id('+15551234567')
    AND NOT _wa_is_user_id(NULL), 'anything else is none');
SELECT is(_wa_mask_phone('+15551234567'), '******67', 'a mask shows two digits');
SELECT is(_wa_mask_phone('123'), '******', 'and nothing of what is too short');
SELECT is(_wa_mask_phone(_wa_first_digits('+16505550101')), '******', 'nor of what is left of an erased one');
SELECT is(_wa_mask_phone(NULL), NULL, 'nothing is masked as nothing');

SELECT * FROM finish();
ROLLBACK;
