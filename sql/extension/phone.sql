-- Telephone numbers: one function reads what people type, one key tells which spellings are one subscriber.

CREATE FUNCTION _wa_python_dir() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT config.setting || '/pg_whatsapp/python' FROM pg_config() AS config WHERE config.name = 'SHAREDIR';
END;
COMMENT ON FUNCTION _wa_python_dir() IS
'Directory on the server that holds the Python packages shipped with pg_whatsapp.';

-- The definitions of the included file are made once a session; after that the first two lines are all that
-- runs. Not parallel safe: finding the directory runs a query, which PL/Python wraps in a subtransaction.
CREATE FUNCTION _wa_parse_phone(
    p_phone text, p_region text, p_area_code text, OUT e164 text, OUT problem text, OUT hint text
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
if "parse_phone" in SD:
    return SD["parse_phone"](p_phone, p_region, p_area_code)
@@include plpython/parse_phone.py@@
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    SD["parse_phone"] = make_phone_parser(import_phonenumbers(directory))
except ImportError:
    plpy.error("the phonenumbers library is missing on the server", sqlstate="58P01",
               hint="Run make install of pg_whatsapp for this server.")
return SD["parse_phone"](p_phone, p_region, p_area_code)
$plpython$;
COMMENT ON FUNCTION _wa_parse_phone(text, text, text) IS
'Reads a telephone number with the phonenumbers library: E.164, or what is wrong and what to do about it.';

CREATE FUNCTION _wa_phone_readings(p_phone text, p_region text, p_area_code text) RETURNS text[]
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
if "phone_readings" in SD:
    return SD["phone_readings"](p_phone, p_region, p_area_code)
@@include plpython/parse_phone.py@@
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    SD["phone_readings"] = make_phone_functions(import_phonenumbers(directory))[1]
except ImportError:
    plpy.error("the phonenumbers library is missing on the server", sqlstate="58P01",
               hint="Run make install of pg_whatsapp for this server.")
return SD["phone_readings"](p_phone, p_region, p_area_code)
$plpython$;
COMMENT ON FUNCTION _wa_phone_readings(text, text, text) IS
'All numbers in E.164 that a text may mean: first that of try_normalize_phone_e164, NULL for none, and last, '
'maybe again, the digits as they stand, which no numbering plan need have.';

CREATE FUNCTION _wa_phone_doubt(
    p_e164 text, p_region text, p_area_code text, OUT meant text, OUT reason text
)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
if "phone_doubt" in SD:
    return SD["phone_doubt"](p_e164, p_region, p_area_code)
@@include plpython/parse_phone.py@@
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    SD["phone_doubt"] = make_phone_functions(import_phonenumbers(directory))[2]
except ImportError:
    plpy.error("the phonenumbers library is missing on the server", sqlstate="58P01",
               hint="Run make install of pg_whatsapp for this server.")
return SD["phone_doubt"](p_e164, p_region, p_area_code)
$plpython$;
COMMENT ON FUNCTION _wa_phone_doubt(text, text, text) IS
'Whether a stored number looks misread by earlier rules: what was probably meant, and why; NULLs if not.';

CREATE FUNCTION wa_phonenumbers_version() RETURNS text
LANGUAGE plpython3u STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $plpython$
@@include plpython/parse_phone.py@@
directory = plpy.execute("SELECT _wa_python_dir() AS directory")[0]["directory"]
try:
    return import_phonenumbers(directory).__version__
except ImportError:
    return None
$plpython$;
COMMENT ON FUNCTION wa_phonenumbers_version() IS
'Release of the phonenumbers library that this session uses, NULL where it is missing.';

-- Complete mobile numbers of common countries, by length and first digits, that the library returns as they
-- are. A test holds the list against the library; what is not listed is merely slower. No regular expression:
-- ten times the cost.
CREATE FUNCTION _wa_is_canonical_phone(p_phone text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(p_phone, '0123456789', '') = '+' AND CASE length(p_phone)
    WHEN 11 THEN
        left(p_phone, 4) IN (
            '+452', '+453', '+454', '+455', '+456', '+457', '+458', '+459', '+474', '+479', '+658', '+659'
        )
    WHEN 12 THEN
        left(p_phone, 3) IN (
            '+12', '+13', '+14', '+15', '+16', '+17', '+18', '+19', '+74', '+77', '+79'
        )
        OR left(p_phone, 4) IN (
            '+276', '+277', '+278', '+316', '+324', '+336', '+337', '+346', '+347', '+348', '+349', '+407',
            '+417', '+467', '+484', '+485', '+486', '+487', '+488', '+519', '+569', '+601', '+614', '+628',
            '+666', '+668', '+669', '+843', '+845', '+847', '+848', '+849', '+947'
        )
        OR left(p_phone, 5) IN (
            '+5023', '+5024', '+5025', '+5036', '+5037', '+5043', '+5048', '+5049', '+5066', '+5067', '+5068',
            '+5076', '+5916', '+5917', '+5989'
        )
    WHEN 13 THEN
        left(p_phone, 4) IN (
            '+201', '+393', '+442', '+447', '+491', '+522', '+523', '+524', '+525', '+526', '+527', '+528',
            '+529', '+573', '+584', '+601', '+628', '+639', '+817', '+818', '+819', '+821', '+905', '+916',
            '+917', '+918', '+919', '+923'
        )
        OR left(p_phone, 5) IN (
            '+2126', '+2127', '+2332', '+2335', '+2541', '+2547', '+2556', '+2557', '+2567', '+3519', '+5511',
            '+5512', '+5513', '+5514', '+5515', '+5516', '+5517', '+5518', '+5519', '+5521', '+5522', '+5524',
            '+5527', '+5528', '+5531', '+5532', '+5533', '+5534', '+5535', '+5537', '+5538', '+5541', '+5542',
            '+5543', '+5544', '+5545', '+5546', '+5547', '+5548', '+5549', '+5551', '+5553', '+5554', '+5555',
            '+5561', '+5562', '+5563', '+5564', '+5565', '+5566', '+5567', '+5568', '+5569', '+5571', '+5573',
            '+5574', '+5575', '+5577', '+5579', '+5581', '+5582', '+5583', '+5584', '+5585', '+5586', '+5587',
            '+5588', '+5589', '+5591', '+5592', '+5593', '+5594', '+5595', '+5596', '+5597', '+5598', '+5599',
            '+5939', '+5959', '+9665', '+9715', '+9725'
        )
    WHEN 14 THEN
        left(p_phone, 4) IN (
            '+491', '+549', '+628'
        )
        OR left(p_phone, 5) IN (
            '+2347', '+2348', '+2349', '+5511', '+5512', '+5513', '+5514', '+5515', '+5516', '+5517', '+5518',
            '+5519', '+5521', '+5522', '+5524', '+5527', '+5528', '+5531', '+5532', '+5533', '+5534', '+5535',
            '+5537', '+5538', '+5541', '+5542', '+5543', '+5544', '+5545', '+5546', '+5547', '+5548', '+5549',
            '+5551', '+5553', '+5554', '+5555', '+5561', '+5562', '+5563', '+5564', '+5565', '+5566', '+5567',
            '+5568', '+5569', '+5571', '+5573', '+5574', '+5575', '+5577', '+5579', '+5581', '+5582', '+5583',
            '+5584', '+5585', '+5586', '+5587', '+5588', '+5589', '+5591', '+5592', '+5593', '+5594', '+5595',
            '+5596', '+5597', '+5598', '+5599', '+8613', '+8615', '+8618', '+8619', '+8801'
        )
    ELSE FALSE
END;
COMMENT ON FUNCTION _wa_is_canonical_phone(text) IS
'Whether a text is a number that normalize_phone_e164 gives back unchanged, told without the library; false '
'decides nothing.';

CREATE FUNCTION _wa_require_phone(p_phone text, p_region text, p_area_code text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path FROM CURRENT
AS $$
DECLARE
    v_parsed record;
BEGIN
    SELECT * INTO v_parsed FROM _wa_parse_phone(p_phone, p_region, p_area_code);
    IF v_parsed.problem IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'invalid phone number: ' || v_parsed.problem,
            -- The value stands in DETAIL, which our processes never log.
            DETAIL = format('The value is "%s"%s.', left(p_phone, 60),
                CASE WHEN p_region IS NULL THEN '' ELSE format(', the region "%s"', left(p_region, 10)) END),
            HINT = v_parsed.hint;
    END IF;
    RETURN v_parsed.e164;
END;
$$;
COMMENT ON FUNCTION _wa_require_phone(text, text, text) IS
'The slow path of normalize_phone_e164: E.164, or error 22023 with the value in its detail.';

CREATE FUNCTION normalize_phone_e164(
    p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN CASE WHEN _wa_is_canonical_phone(p_phone) THEN p_phone
    ELSE _wa_require_phone(p_phone, p_region, p_area_code) END;
COMMENT ON FUNCTION normalize_phone_e164(text, text, text) IS
'A telephone number as people and WhatsApp write it, in E.164 with +. Region (ISO 3166) reads national '
'forms, area code completes local ones (Argentina: 11); a mobile with its country code and no + is known as '
'such. Error 22023 says what is wrong, also with what a program made of a number; NULL stays NULL.';

CREATE FUNCTION try_normalize_phone_e164(
    p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN CASE WHEN _wa_is_canonical_phone(p_phone) THEN p_phone
    ELSE (_wa_parse_phone(p_phone, p_region, p_area_code)).e164 END;
COMMENT ON FUNCTION try_normalize_phone_e164(text, text, text) IS
'As normalize_phone_e164, with NULL for what is no telephone number.';

-- Brazil: only mobiles from before the ninth digit (6 to 9 in front) exist in both spellings. A newer mobile
-- such as 9 5xxx-xxxx would collide with the landline 5xxx-xxxx, another subscriber. Runs for every row that
-- is inserted, hence no regular expression and nothing that would keep it from being inlined.
CREATE FUNCTION _wa_phone_key(p_e164 text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE left(p_e164, 3)
    WHEN '+55' THEN CASE WHEN length(p_e164) = 13 AND substr(p_e164, 6, 1) IN ('6', '7', '8', '9')
        THEN left(p_e164, 5) || '9' || substr(p_e164, 6) ELSE p_e164 END
    WHEN '+54' THEN CASE WHEN length(p_e164) = 13 AND substr(p_e164, 4, 1) <> '9'
        THEN '+549' || substr(p_e164, 4) ELSE p_e164 END
    WHEN '+52' THEN CASE WHEN length(p_e164) = 14 AND substr(p_e164, 4, 1) = '1'
        THEN '+52' || substr(p_e164, 5) ELSE p_e164 END
    -- Lengths and digits that only former numbers have: today's are not looked up.
    WHEN '+22' THEN CASE WHEN length(p_e164) = 12 AND substr(p_e164, 4, 1) IN ('5', '9')
        THEN _wa_renumbered(p_e164) ELSE p_e164 END
    WHEN '+24' THEN CASE WHEN length(p_e164) = 11 OR substr(p_e164, 4, 2) = '10'
        THEN _wa_renumbered(p_e164) ELSE p_e164 END
    WHEN '+84' THEN CASE WHEN length(p_e164) = 13 AND substr(p_e164, 4, 1) = '1'
        THEN _wa_renumbered(p_e164) ELSE p_e164 END
    ELSE p_e164
END;
COMMENT ON FUNCTION _wa_phone_key(text) IS
'One key for all spellings of a subscriber in E.164: Brazil with the ninth digit, Argentina with the 9, '
'Mexico without the 1, renumbered countries with the current number.';

CREATE FUNCTION _wa_is_user_id(p_value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(p_value ~ '^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$', FALSE);
COMMENT ON FUNCTION _wa_is_user_id(text) IS
'Whether a text has the form of a business-scoped user id, such as US.13491208655302741918 or US.ENT.1181.';

CREATE FUNCTION _wa_mask_phone(p_phone text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(p_phone) > 5 THEN '******' || right(p_phone, 2)
    WHEN p_phone IS NOT NULL THEN '******' END;
COMMENT ON FUNCTION _wa_mask_phone(text) IS
'A telephone number or user id of which only the last two characters can be seen; its length cannot. Of an '
'erased one (see _wa_first_digits) nothing.';

-- By no more digits than _wa_country() looks at: the calling code, with +1 the area.
CREATE FUNCTION _wa_first_digits(p_phone text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN p_phone LIKE '+1%' THEN left(p_phone, 5) WHEN p_phone LIKE '+7%' THEN left(p_phone, 3)
    WHEN p_phone LIKE '+%' THEN left(p_phone, 4)
    ELSE coalesce(substring(p_phone FROM '^[A-Z]{2}[.]'), CASE WHEN p_phone IS NOT NULL THEN '' END) END;
COMMENT ON FUNCTION _wa_first_digits(text) IS
'What is left of the number, or user id, of an erased person: as much as tells the country, which prices go '
'by.';

CREATE FUNCTION _wa_phone_spellings(p_key text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_key ~ '^[+]55[0-9]{2}9[0-9]{8}$' THEN ARRAY[p_key, left(p_key, 5) || substr(p_key, 7)]
    WHEN p_key ~ '^[+]549[0-9]{10}$' THEN ARRAY[p_key, '+54' || substr(p_key, 5)]
    WHEN p_key ~ '^[+]52[0-9]{10}$' THEN ARRAY[p_key, '+521' || substr(p_key, 4)]
    ELSE ARRAY[p_key]
END;
COMMENT ON FUNCTION _wa_phone_spellings(text) IS
'The spellings of a number that have the given key (see _wa_phone_key), former numbers apart.';

-- A longer number, or id, is another's. In JSON, digits of an escaped control character may stand before it.
CREATE FUNCTION _wa_person_pattern(p_who text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT '(?:' || coalesce(string_agg(CASE WHEN w.who ~ '^[+]?[0-9]+$'
        THEN '(?:(?<![0-9])|(?<=\\u00[01][0-9a-f]))(?:(?:00|011|[+])' || s.gap || ')?'
            || array_to_string(string_to_array(ltrim(w.who, '+'), NULL), s.gap) || '(?![0-9])'
        ELSE '(?<![A-Za-z0-9])' || regexp_replace(w.who, '([^A-Za-z0-9[:alpha:]])', '\\\1', 'g')
            || '(?![A-Za-z0-9])' END, '|'), '(?!)') || ')'
    -- What people write between digits, and what phones put there unseen.
    FROM (
        SELECT E'[ ()./\u00a0\u2009\u202f\u2010-\u2015\u200b-\u200f\u202a-\u202e\u2060-\u2069-]{0,3}'
    ) s (gap)
    LEFT JOIN unnest(p_who) w (who) ON w.who <> ''
    GROUP BY s.gap
);
COMMENT ON FUNCTION _wa_person_pattern(text[]) IS
'A regular expression that finds telephone numbers, also as people group them, and user ids in a text, but '
'not as a part of longer ones; of nobody it finds nothing.';
