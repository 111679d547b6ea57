-- Telephone numbers: one function reads what people type, one key tells which spellings are one subscriber.

CREATE FUNCTION _wa_python_dir() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT config.setting || '/pg_whatsapp/python' FROM pg_config() AS config WHERE config.name = 'SHAREDIR';
END;
COMMENT ON FUNCTION _wa_python_dir() IS
'Directory on the server that holds the Python packages shipped with pg_whatsapp.';
REVOKE ALL ON FUNCTION _wa_python_dir() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_python_dir() TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- The definitions of the included file are made once a session; after that the first two lines are all that runs.
-- Not parallel safe: finding the directory runs a query, which PL/Python wraps in a subtransaction.
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
REVOKE ALL ON FUNCTION _wa_parse_phone(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_parse_phone(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

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
REVOKE ALL ON FUNCTION wa_phonenumbers_version() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_phonenumbers_version() TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- Complete numbers of common countries that the library returns as they are. A test holds the list against the
-- library; what is not listed is merely slower.
CREATE FUNCTION _wa_is_canonical_phone(p_phone text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN p_phone ~ ('^\+(?:1[2-9][0-9]{9}|7[479][0-9]{9}|5(?:1[9][0-9]{8}|2[2-9][0-9]{9}|49[1-9][0-9]{9}'
    '|5[1-9][1-9][0-9]{8,9}|69[0-9]{8}|73[0-9]{9}|84[0-9]{9}|0[2345][2-9][0-9]{7}|9[13][679][0-9]{7,8})'
    '|2(?:01[0-9]{9}|7[6-8][0-9]{8}|12[67][0-9]{8}|33[25][0-9]{8}|34[7-9][0-9]{9}|54[17][0-9]{8}|5[56]7[0-9]{8})'
    '|3(?:16[0-9]{8}|24[0-9]{8}|3[67][0-9]{8}|4[6-9][0-9]{8}|93[0-9]{9}|519[0-9]{8})'
    '|4(?:07[0-9]{8}|17[0-9]{8}|4[27][0-9]{9}|5[2-9][0-9]{7}|67[0-9]{8}|7[49][0-9]{7}|8[4-8][0-9]{8}|91[5-7][0-9]{8,9})'
    '|6(?:01[0-9]{8,9}|14[0-9]{8}|28[0-9]{8,11}|39[0-9]{9}|5[89][0-9]{7}|6[689][0-9]{8})'
    '|8(?:1[789]0[0-9]{8}|210[0-9]{8}|4[35789][0-9]{8}|6(?:1[3-689][0-9]|17[0-8])[0-9]{8}|801[0-9]{9})'
    '|9(?:05[0-9]{9}|1[6-9][0-9]{9}|23[0-9]{9}|47[0-9]{8}|665[0-9]{8}|715[0-9]{8}|725[0-9]{8}))$');
COMMENT ON FUNCTION _wa_is_canonical_phone(text) IS
'Whether a text is a number that normalize_phone_e164 gives back unchanged, told without the library; false decides nothing.';
REVOKE ALL ON FUNCTION _wa_is_canonical_phone(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_is_canonical_phone(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

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
REVOKE ALL ON FUNCTION _wa_require_phone(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_require_phone(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION normalize_phone_e164(p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN CASE WHEN _wa_is_canonical_phone(p_phone) THEN p_phone
    ELSE _wa_require_phone(p_phone, p_region, p_area_code) END;
COMMENT ON FUNCTION normalize_phone_e164(text, text, text) IS
'A telephone number as people write it, in E.164 with +. Region (ISO 3166) reads national forms, area code completes local '
'ones (Argentina: 11). Error 22023 says what is wrong; NULL stays NULL.';
REVOKE ALL ON FUNCTION normalize_phone_e164(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION normalize_phone_e164(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION try_normalize_phone_e164(p_phone text, p_region text DEFAULT NULL, p_area_code text DEFAULT NULL)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN CASE WHEN _wa_is_canonical_phone(p_phone) THEN p_phone
    ELSE (_wa_parse_phone(p_phone, p_region, p_area_code)).e164 END;
COMMENT ON FUNCTION try_normalize_phone_e164(text, text, text) IS
'As normalize_phone_e164, with NULL for what is no telephone number.';
REVOKE ALL ON FUNCTION try_normalize_phone_e164(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION try_normalize_phone_e164(text, text, text)
TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

-- Brazil: only mobiles from before the ninth digit (6 to 9 in front) exist in both spellings. A newer mobile such as
-- 9 5xxx-xxxx would collide with the landline 5xxx-xxxx, another subscriber.
CREATE FUNCTION _wa_phone_key(p_e164 text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE left(p_e164, 3)
    WHEN '+55' THEN CASE WHEN length(p_e164) = 13 AND p_e164 ~ '^\+55[1-9][1-9][6-9][0-9]{7}$'
        THEN left(p_e164, 5) || '9' || substr(p_e164, 6) ELSE p_e164 END
    WHEN '+54' THEN CASE WHEN length(p_e164) = 13 AND p_e164 ~ '^\+54[1-8][0-9]{9}$'
        THEN '+549' || substr(p_e164, 4) ELSE p_e164 END
    WHEN '+52' THEN CASE WHEN length(p_e164) = 14 AND p_e164 ~ '^\+521[0-9]{10}$'
        THEN '+52' || substr(p_e164, 5) ELSE p_e164 END
    ELSE p_e164
END;
COMMENT ON FUNCTION _wa_phone_key(text) IS
'One key for all spellings of a subscriber in E.164: Brazil with the ninth digit, Argentina with the 9, Mexico without the 1.';
REVOKE ALL ON FUNCTION _wa_phone_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_phone_key(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_is_user_id(p_value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(p_value ~ '^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$', FALSE);
COMMENT ON FUNCTION _wa_is_user_id(text) IS
'Whether a text has the form of a business-scoped user id, such as US.13491208655302741918 or US.ENT.1181.';
REVOKE ALL ON FUNCTION _wa_is_user_id(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_is_user_id(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;

CREATE FUNCTION _wa_mask_phone(p_phone text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN '******' || CASE WHEN length(p_phone) > 4 THEN right(p_phone, 2) ELSE '' END;
COMMENT ON FUNCTION _wa_mask_phone(text) IS
'A telephone number or user id of which only the last two characters can be seen; its length cannot.';
REVOKE ALL ON FUNCTION _wa_mask_phone(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _wa_mask_phone(text) TO wa_admin, wa_app, wa_dispatcher, wa_receiver, wa_analyst;
