-- Numbers that countries have changed. WhatsApp goes on to know whoever registered before by the former
-- number (webhooks and wa_id bring it) and reaches them by either, so that both are one subscriber.

-- former is a regular expression for the whole number, current what regexp_replace() makes of it. The one
-- place for both directions: either form finds the contact, since _wa_phone_key() is the current one. Only
-- rules by which every former number has one current one, and no current number looks like a former one,
-- belong here. What Brazil, Argentina and Mexico do with one digit is in _wa_phone_key() itself.
CREATE FUNCTION _wa_renumberings() RETURNS TABLE (
    country text, since date, former text, current text, source text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT r.country, s.since, r.former, r.current, s.source
    FROM (
        VALUES
        -- The operator's digits go in front, and the second digit told the operator. Landlines (2, 3) are
        -- left out: nobody published a rule for them.
        ('CI', '^\+225([04-9][0-3]\d{6})$', '+22501\1'),
        ('CI', '^\+225([04-9][4-6]\d{6})$', '+22505\1'),
        ('CI', '^\+225([04-9][7-9]\d{6})$', '+22507\1'),
        ('BJ', '^\+229([24569]\d{7})$', '+22901\1'),
        -- The zero after the country code became the operator's digit; some dialled without it.
        ('GA', '^\+2410?([256]\d{6})$', '+2416\1'),
        ('GA', '^\+2410?([47]\d{6})$', '+2417\1'),
        -- Mobiles of eleven digits became ones of ten.
        ('VN', '^\+8412([068]\d{7})$', '+847\1'),
        ('VN', '^\+84121(\d{7})$', '+8479\1'),
        ('VN', '^\+84122(\d{7})$', '+8477\1'),
        ('VN', '^\+8412([345]\d{7})$', '+848\1'),
        ('VN', '^\+84127(\d{7})$', '+8481\1'),
        ('VN', '^\+84129(\d{7})$', '+8482\1'),
        ('VN', '^\+8416([2-9]\d{7})$', '+843\1'),
        ('VN', '^\+8418([68]\d{7})$', '+845\1'),
        ('VN', '^\+84199(\d{7})$', '+8459\1')
    ) r (country, former, current)
    JOIN (
        VALUES
        ('CI', date '2021-01-31',
            'ITU T02020000310006; https://artci.ci/en/faq/; the digits of the operators: '
            'https://fr.wikipedia.org/wiki/Liste_des_indicatifs_téléphoniques_en_Côte_d''Ivoire'),
        ('BJ', '2024-11-30', 'ARCEP Bénin; https://fr.allafrica.com/stories/202411300249.html'),
        ('GA', '2019-11-16', 'ARCEP Gabon; http://news.alibreville.com/h/114469.html'),
        ('VN', '2018-09-15', 'https://github.com/google/libphonenumber, migrator/src/data/recipes.csv')
    ) s (country, since, source) USING (country);
END;
COMMENT ON FUNCTION _wa_renumberings() IS
'Renumberings of whole countries: a pattern for former numbers in E.164, what the current one is, since '
'when, and who says so.';

-- PL/pgSQL, so that it is not inlined into each insert: hardly any number comes here.
CREATE FUNCTION _wa_renumbered(p_e164 text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN coalesce(
        (SELECT regexp_replace(p_e164, r.former, r.current) FROM _wa_renumberings() r WHERE p_e164 ~ r.former),
        p_e164
    );
END;
$$;
COMMENT ON FUNCTION _wa_renumbered(text) IS
'The number that a former one in E.164 became; any other number as it is.';
