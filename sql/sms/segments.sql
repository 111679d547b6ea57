-- Into how many parts an SMS goes, which is what it costs (3GPP TS 23.038 and 23.040; Twilio counts alike).

CREATE OR REPLACE FUNCTION count_wa_sms_segments(p_text text, OUT encoding text, OUT units integer,
    OUT segments integer)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    c_basic CONSTANT text := '@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&''()*+,-./0123456789:;<=>?¡'
        'ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà' || chr(10) || chr(13);
    c_extended CONSTANT text := '^{}\[~]|€' || chr(12);
    v_is_gsm boolean := translate(p_text, c_basic || c_extended, '') = '';
    v_single CONSTANT integer := CASE WHEN v_is_gsm THEN 160 ELSE 70 END;
    -- Each of several begins with a header that says which it is.
    v_several CONSTANT integer := CASE WHEN v_is_gsm THEN 153 ELSE 67 END;
    v_free integer := 0;
    v_unit integer;
    v_char text;
BEGIN
    encoding := CASE WHEN v_is_gsm THEN 'GSM-7' ELSE 'UCS-2' END;
    units := 0;
    segments := 0;
    -- A character of two units does not lie in two parts.
    FOREACH v_char IN ARRAY string_to_array(p_text, NULL) LOOP
        v_unit := CASE
            WHEN v_is_gsm THEN CASE WHEN strpos(c_extended, v_char) > 0 THEN 2 ELSE 1 END
            WHEN ascii(v_char) > 65535 THEN 2
            ELSE 1
        END;
        units := units + v_unit;
        IF v_free < v_unit THEN
            segments := segments + 1;
            v_free := v_several;
        END IF;
        v_free := v_free - v_unit;
    END LOOP;
    IF units <= v_single THEN
        segments := 1;
    END IF;
END
$$;

COMMENT ON FUNCTION count_wa_sms_segments(text) IS
'The encoding of a text as SMS (GSM-7, or UCS-2 where a character is not of that), its length in units '
'of it, '
'and into how many segments it goes.';
