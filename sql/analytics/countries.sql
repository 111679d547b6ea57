-- Which country a message goes to or comes from, without asking a library for each: prices go by the calling
-- code, and by the area code where several countries share +1.

-- In PL/pgSQL, so that its tables are not copied into every plan that calls it. Listed are the area codes of
-- +1 outside of the United States; territories that share another country's calling code and rate (Guernsey,
-- Svalbard, …) count as that country.
CREATE OR REPLACE FUNCTION _wa_country(p_phone text, p_user_id text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN CASE
        WHEN p_phone LIKE '+1%' THEN coalesce(jsonb
        '{"204": "CA", "226": "CA", "236": "CA", "242": "BS", "246": "BB", "249": "CA", "250": "CA", '
        ' "257": "CA", "263": "CA", "264": "AI", "268": "AG", "273": "CA", "284": "VG", "289": "CA", '
        ' "306": "CA", "340": "VI", "343": "CA", "345": "KY", "354": "CA", "365": "CA", "367": "CA", '
        ' "368": "CA", "382": "CA", "403": "CA", "416": "CA", "418": "CA", "428": "CA", "431": "CA", '
        ' "437": "CA", "438": "CA", "441": "BM", "450": "CA", "468": "CA", "473": "GD", "474": "CA", '
        ' "506": "CA", "514": "CA", "519": "CA", "548": "CA", "579": "CA", "581": "CA", "584": "CA", '
        ' "587": "CA", "600": "CA", "604": "CA", "613": "CA", "622": "CA", "633": "CA", "639": "CA", '
        ' "647": "CA", "649": "TC", "658": "JM", "664": "MS", "670": "MP", "671": "GU", "672": "CA", '
        ' "683": "CA", "684": "AS", "705": "CA", "709": "CA", "721": "SX", "742": "CA", "753": "CA", '
        ' "758": "LC", "767": "DM", "778": "CA", "780": "CA", "782": "CA", "784": "VC", "787": "PR", '
        ' "807": "CA", "809": "DO", "819": "CA", "825": "CA", "829": "DO", "849": "DO", "867": "CA", '
        ' "868": "TT", "869": "KN", "873": "CA", "876": "JM", "879": "CA", "902": "CA", "905": "CA", '
        ' "939": "PR", "942": "CA"}'
        ->> substr(p_phone, 3, 3), 'US')
        WHEN p_phone LIKE '+77%' THEN 'KZ'
        WHEN p_phone LIKE '+7%' THEN 'RU'
        WHEN p_phone LIKE '+%' THEN jsonb
        '{"20": "EG", "211": "SS", "212": "MA", "213": "DZ", "216": "TN", "218": "LY", "220": "GM", '
        ' "221": "SN", "222": "MR", "223": "ML", "224": "GN", "225": "CI", "226": "BF", "227": "NE", '
        ' "228": "TG", "229": "BJ", "230": "MU", "231": "LR", "232": "SL", "233": "GH", "234": "NG", '
        ' "235": "TD", "236": "CF", "237": "CM", "238": "CV", "239": "ST", "240": "GQ", "241": "GA", '
        ' "242": "CG", "243": "CD", "244": "AO", "245": "GW", "246": "IO", "247": "AC", "248": "SC", '
        ' "249": "SD", "250": "RW", "251": "ET", "252": "SO", "253": "DJ", "254": "KE", "255": "TZ", '
        ' "256": "UG", "257": "BI", "258": "MZ", "260": "ZM", "261": "MG", "262": "RE", "263": "ZW", '
        ' "264": "NA", "265": "MW", "266": "LS", "267": "BW", "268": "SZ", "269": "KM", "27": "ZA", '
        ' "290": "SH", "291": "ER", "297": "AW", "298": "FO", "299": "GL", "30": "GR", "31": "NL", "32": '
        ' "BE", "33": "FR", "34": "ES", "350": "GI", "351": "PT", "352": "LU", "353": "IE", "354": "IS", '
        ' "355": "AL", "356": "MT", "357": "CY", "358": "FI", "359": "BG", "36": "HU", "370": "LT", '
        ' "371": "LV", "372": "EE", "373": "MD", "374": "AM", "375": "BY", "376": "AD", "377": "MC", '
        ' "378": "SM", "380": "UA", "381": "RS", "382": "ME", "383": "XK", "385": "HR", "386": "SI", '
        ' "387": "BA", "389": "MK", "39": "IT", "40": "RO", "41": "CH", "420": "CZ", "421": "SK", "423": '
        ' "LI", "43": "AT", "44": "GB", "45": "DK", "46": "SE", "47": "NO", "48": "PL", "49": "DE", '
        ' "500": "FK", "501": "BZ", "502": "GT", "503": "SV", "504": "HN", "505": "NI", "506": "CR", '
        ' "507": "PA", "508": "PM", "509": "HT", "51": "PE", "52": "MX", "53": "CU", "54": "AR", "55": '
        ' "BR", "56": "CL", "57": "CO", "58": "VE", "590": "GP", "591": "BO", "592": "GY", "593": "EC", '
        ' "594": "GF", "595": "PY", "596": "MQ", "597": "SR", "598": "UY", "599": "CW", "60": "MY", '
        ' "61": "AU", "62": "ID", "63": "PH", "64": "NZ", "65": "SG", "66": "TH", "670": "TL", "672": '
        ' "NF", "673": "BN", "674": "NR", "675": "PG", "676": "TO", "677": "SB", "678": "VU", "679": '
        ' "FJ", "680": "PW", "681": "WF", "682": "CK", "683": "NU", "685": "WS", "686": "KI", "687": '
        ' "NC", "688": "TV", "689": "PF", "690": "TK", "691": "FM", "692": "MH", "81": "JP", "82": "KR", '
        ' "84": "VN", "850": "KP", "852": "HK", "853": "MO", "855": "KH", "856": "LA", "86": "CN", '
        ' "880": "BD", "886": "TW", "90": "TR", "91": "IN", "92": "PK", "93": "AF", "94": "LK", "95": '
        ' "MM", "960": "MV", "961": "LB", "962": "JO", "963": "SY", "964": "IQ", "965": "KW", "966": '
        ' "SA", "967": "YE", "968": "OM", "970": "PS", "971": "AE", "972": "IL", "973": "BH", "974": '
        ' "QA", "975": "BT", "976": "MN", "977": "NP", "98": "IR", "992": "TJ", "993": "TM", "994": '
        ' "AZ", "995": "GE", "996": "KG", "998": "UZ"}'
        ->> substr(p_phone, 2, CASE WHEN substr(p_phone, 2, 2) = ANY (ARRAY[
            '20', '27', '30', '31', '32', '33', '34', '36', '39', '40', '41', '43', '44', '45', '46', '47',
            '48', '49', '51', '52', '53', '54', '55', '56', '57', '58', '60', '61', '62', '63', '64', '65',
            '66', '81', '82', '84', '86', '90', '91', '92', '93', '94', '95', '98'
        ]) THEN 2 ELSE 3 END)
        WHEN p_phone IS NULL THEN substring(p_user_id FROM '^([A-Z]{2})[.]')
    END;
END
$$;

COMMENT ON FUNCTION _wa_country(text, text) IS
'Internal: ISO country of a phone number in E.164, else of a business-scoped user id, which starts with it; '
'NULL where neither tells.';

-- The flag first, where it is sent; Meta means to replace it by the type. Before July 2025 (CBP) a
-- conversation was paid for, not its messages.
CREATE OR REPLACE FUNCTION _wa_charge(p_pricing jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN coalesce(jsonb_typeof(p_pricing), 'null') <> 'object' THEN NULL
    WHEN p_pricing ->> 'pricing_model' = 'CBP' THEN 'unknown'
    WHEN p_pricing ->> 'billable' = 'false' THEN 'free'
    WHEN p_pricing ->> 'billable' = 'true' THEN 'paid'
    WHEN p_pricing ->> 'type' LIKE 'free\_%' THEN 'free'
    WHEN p_pricing ->> 'type' = 'regular' THEN 'paid'
    ELSE 'unknown'
END;

COMMENT ON FUNCTION _wa_charge(jsonb) IS
'Internal: paid, free or unknown, by the pricing object of a status webhook; NULL without one.';
