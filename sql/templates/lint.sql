-- What Meta's review would say of a template. Nothing here refuses one: a draft may be unfinished.

CREATE OR REPLACE FUNCTION _wa_template_words(p_kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_kind
    WHEN 'opt_out' THEN
    -- Each opts out where a customer presses or writes it: wa_default_keywords.
    '\m(?:stop|unsubscribe|opt[ -]?out|no more (?:messages|news)|baja|dejar de recibir|parar|descadastrar|'
    'abmelden|abbestellen|stopp|désabonner|désinscrire|arrêt|disiscriviti|berhenti)\M'
    WHEN 'promotional' THEN
    '\m(?:sale|sales|discount|discounts|promo|promotion|coupon|voucher|special offer|offers?|deal|deals|'
    'bargain|giveaway|free gift|buy now|shop now|order now|limited time|don''t miss|exclusive|cashback|'
    'upgrade now|descuento|oferta|ofertas|promoción|cupón|rebajas|desconto|promoção|cupom|rabatt|angebot|'
    'gutschein|réduction|promotion|soldes|sconto|offerta|diskon|promosi)\M|[0-9]+ ?% (?:off|de descuento|'
    'de desconto|rabatt|de réduction|di sconto)'
END;

COMMENT ON FUNCTION _wa_template_words(text) IS
'Internal: a pattern of the words that show a way out (opt_out) or advertise (promotional), in the larger '
'languages of Europe and America.';

-- Customers would be sent there, by a template that Meta lets nobody change for a day.
CREATE OR REPLACE FUNCTION _wa_has_example_url(p_buttons jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT coalesce(bool_or(b.value ->> 'url' ~* '^https?://([^/]*\.)?example\.(com|org|net)\M'), false)
    FROM jsonb_array_elements(p_buttons) b;
END;

COMMENT ON FUNCTION _wa_has_example_url(jsonb) IS
'Internal: whether a button leads to one of the domains that exist for examples only.';

CREATE OR REPLACE FUNCTION _wa_lint_template_text(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    WITH body AS (
        SELECT btrim((p_template).body_text, E' \t\r\n') AS text, v.variable, v.count,
            (
                SELECT count(*)
                FROM regexp_matches(regexp_replace((p_template).body_text, v.variable, ' ', 'g'), '\w+', 'g')
            ) AS words,
            concat_ws(' ', (p_template).header_text, (p_template).body_text, (p_template).footer_text, (
                SELECT string_agg(b.value ->> 'text', ' ') FROM jsonb_array_elements((p_template).buttons) b
            )) AS everything
        FROM (
            SELECT p.variable,
                (SELECT count(*) FROM regexp_matches((p_template).body_text, p.variable, 'g')) AS count
            FROM (SELECT '\{\{\s*[A-Za-z0-9_]+\s*\}\}' AS variable) p
        ) v
    )
    SELECT f.rule, 'warning', f.message, f.hint
    FROM body b
    CROSS JOIN LATERAL (VALUES
        (
            'variable_at_start', b.text ~ ('^' || b.variable), 'the body begins with a variable',
            'Begin with a word, for example "Hi {{1}}, ...".'
        ),
        (
            'variable_at_end', b.text ~ (b.variable || '[.,;:!?\s]*$'), 'the body ends with a variable',
            'End with words, for example "... {{3}}. Thank you for your order."'
        ),
        (
            'adjacent_variables', b.text ~ (b.variable || '\s*' || b.variable),
            'two variables stand next to each other', 'Put words between them, or make one value of the two.'
        ),
        (
            'variable_ratio',
            b.count > 0 AND b.words < 2 * b.count + 1,
            format('%s variables in %s words', b.count, b.words),
            format('Add words: about %s are needed for so many variables.', 2 * b.count + 1)
        ),
        (
            'opt_out_hint',
            (p_template).category = 'MARKETING' AND b.everything !~* _wa_template_words('opt_out'),
            'a MARKETING template without a way to opt out',
            'Add a footer such as "Reply STOP to unsubscribe", or a quick reply "Stop".'
        ),
        (
            'promotional_words',
            (p_template).category = 'UTILITY' AND b.everything ~* _wa_template_words('promotional'),
            format('"%s" in a UTILITY template',
                lower((regexp_match(b.everything, _wa_template_words('promotional'), 'i'))[1])),
            'Meta makes it MARKETING, or rejects it: leave the advertising out, or choose that category.'
        ),
        (
            'whitespace', b.text ~ '\t|\n\s*\n\s*\n|     ',
            'the body has tabs, more than two line breaks or four spaces in a row', 'Meta refuses them.'
        )
    ) f (rule, is_found, message, hint)
    -- The words of an authentication template are Meta's.
    WHERE f.is_found AND (p_template).category <> 'AUTHENTICATION'
$$;

COMMENT ON FUNCTION _wa_lint_template_text(wa_templates) IS
'Internal: what the review would object to in the words and variables of a template.';

CREATE OR REPLACE FUNCTION _wa_lint_template_lengths(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT 'length', 'warning', format('%s has %s characters; %s are allowed', l.what, l.has, l.allowed),
        'Shorten it.'
    FROM (
        SELECT t.what, char_length(t.words) AS has, t.allowed
        FROM (VALUES
            ('the header', (p_template).header_text, 60), ('the body', (p_template).body_text, 1024),
            ('the footer', (p_template).footer_text, 60)
        ) t (what, words, allowed)
        -- The words of an authentication template are Meta's.
        WHERE (p_template).category <> 'AUTHENTICATION'
        UNION ALL
        SELECT format('the %s of button %s', k.key, b.place - 1), char_length(b.value ->> k.key), k.allowed
        FROM jsonb_array_elements((p_template).buttons) WITH ORDINALITY b (value, place)
        CROSS JOIN (VALUES ('text', 25), ('autofill_text', 25), ('url', 2000)) k (key, allowed)
    ) l
    WHERE l.has > l.allowed
$$;

COMMENT ON FUNCTION _wa_lint_template_lengths(wa_templates) IS
'Internal: which parts of a template are too long.';

CREATE OR REPLACE FUNCTION _wa_lint_template_buttons(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    WITH button AS (
        SELECT upper(b.value ->> 'type') AS type, b.value ->> 'text' AS text, b.value ->> 'url' AS url,
            b.place - 1 AS index
        FROM jsonb_array_elements((p_template).buttons) WITH ORDINALITY b (value, place)
    )
    SELECT 'button_count', 'warning', format('%s %s buttons; %s are allowed', k.has, k.type, k.allowed),
        'Leave some out.'
    FROM (
        SELECT b.type, count(*) AS has,
            CASE b.type WHEN 'URL' THEN 2 WHEN 'PHONE_NUMBER' THEN 1 WHEN 'COPY_CODE' THEN 1 ELSE 10 END
            AS allowed
        FROM button b GROUP BY b.type
    ) k
    WHERE k.has > k.allowed
    UNION ALL
    SELECT 'button_text', 'warning', format('button %s has no text', b.index),
        'Give it the text that the customer taps.'
    FROM button b
    WHERE b.type IN ('URL', 'QUICK_REPLY', 'PHONE_NUMBER', 'FLOW') AND coalesce(b.text, '') !~ '\S'
    UNION ALL
    SELECT 'button_url', 'warning',
        format('the url of button %s does not begin with an address, or goes on after its variable', b.index),
        'For example "https://pay.example.com/{{1}}": the address is fixed, the variable its end.'
    FROM button b
    WHERE b.type = 'URL'
        AND b.url !~* '^https?://[^/{}\s]+\.[^/{}\s]+(/[^{}\s]*(\{\{\s*[a-z0-9_]+\s*\}\})?)?$'
    UNION ALL
    SELECT 'button_label', 'notice', format('Meta does not show the text of button %s', b.index),
        'A button that copies a code is labelled by WhatsApp, in the language of the customer.'
    FROM button b
    WHERE b.type = 'COPY_CODE' AND b.text ~ '\S' AND (p_template).provider_template_id IS NULL
    UNION ALL
    SELECT 'example_url', 'warning', 'a button leads to example.com',
        'Put your own address there; until then it is not submitted.'
    WHERE _wa_has_example_url((p_template).buttons)
$$;

COMMENT ON FUNCTION _wa_lint_template_buttons(wa_templates) IS
'Internal: what the review would object to in the buttons of a template.';

CREATE OR REPLACE FUNCTION _wa_lint_template_declaration(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    SELECT f.rule, f.severity, f.message, f.hint
    FROM (SELECT (p_template).*) t
    CROSS JOIN LATERAL (VALUES
        (
            'name_characters', 'warning', t.name !~ '^[A-Za-z0-9_]+$',
            'the name has other characters than letters, digits and underscores',
            format('For example "%s".', trim('_' FROM regexp_replace(lower(t.name), '[^a-z0-9]+', '_', 'g')))
        ),
        (
            'language_code', 'warning', t.language !~ '^[a-z]{2,3}(_[A-Z]{2,3})?$',
            format('"%s" is not a language of Meta''s form', t.language), 'For example en, en_US, pt_BR.'
        ),
        (
            'header_format', 'warning',
            regexp_replace(t.header_text, '\{\{.*\}\}', '') ~ '[\n\r*_~`\u2600-\u27BF\U0001F000-\U0001FAFF]',
            'the header has line breaks, emphasis or an emoji', 'Meta takes plain text there.'
        ),
        (
            'header_example', 'warning', t.header_format IN ('IMAGE', 'VIDEO', 'GIF', 'DOCUMENT')
            AND _wa_template_component(t.components, 'HEADER') #> '{example,header_handle,0}' IS NULL,
            format('the %s header has no sample file', lower(t.header_format)),
            'Upload one to Meta and give its handle in components: {"type": "HEADER", "format": "IMAGE", '
            '"example": {"header_handle": ["..."]}}.'
        ),
        (
            'name_case', 'notice', t.name <> lower(t.name),
            format('Meta will know it as "%s"', lower(t.name)),
            'Names are sent in small letters; here they match in either case.'
        )
    ) f (rule, severity, is_found, message, hint)
    WHERE f.is_found
    UNION ALL
    SELECT 'example', 'notice', 'no example for ' || string_agg(s.name, ', ' ORDER BY s.turn),
        'Reviewers see made-up ones; parameters takes {"name": "...", "example": "..."}.'
    FROM _wa_template_slots(p_template) WITH ORDINALITY s (part, place, name, example, turn)
    WHERE s.example IS NULL AND (p_template).category <> 'AUTHENTICATION'
        AND (p_template).provider_template_id IS NULL
        AND (s.part IN ('body', 'button') OR s.part = 'header' AND (p_template).header_format = 'TEXT')
    HAVING count(*) > 0
    UNION ALL
    SELECT 'unused_parameter', 'notice',
        format('parameters declares %s, which the template does not take', string_agg(d.name, ', ')),
        'Values of that name are left out.'
    FROM (
        SELECT coalesce(e.value ->> 'name', e.value #>> '{}') AS name
        FROM jsonb_array_elements((p_template).parameters) e
    ) d
    WHERE NOT EXISTS (SELECT FROM _wa_template_slots(p_template) s WHERE s.name = d.name)
    HAVING count(*) > 0
$$;

COMMENT ON FUNCTION _wa_lint_template_declaration(wa_templates) IS
'Internal: what is worth knowing about name, language, header and declared parameters of a template.';

-- Cloud API, Authentication templates: Meta has the words, the template says whether it warns, in how many
-- minutes the code expires, and which button takes it.
CREATE OR REPLACE FUNCTION _wa_lint_authentication(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    WITH part AS (
        SELECT _wa_template_component((p_template).components, 'BODY') AS body,
            _wa_template_component((p_template).components, 'FOOTER') AS footer
        WHERE (p_template).category = 'AUTHENTICATION' AND (p_template).provider_template_id IS NULL
    ),
    button AS (
        SELECT b.place - 1 AS index, b.value, upper(b.value ->> 'type') AS type,
            upper(b.value ->> 'otp_type') AS otp_type, b.value -> 'supported_apps' AS apps
        FROM part p, jsonb_array_elements((p_template).buttons) WITH ORDINALITY b (value, place)
    )
    SELECT 'authentication_text', 'notice', 'Meta words authentication templates itself',
        'Header, body and footer text are not sent to the review; the button is, with '
        'add_security_recommendation of the body and code_expiration_minutes of the footer in components.'
    FROM part
    UNION ALL
    SELECT 'authentication_footer', 'notice', 'the text of the footer is left out',
        'components take {"type": "FOOTER", "code_expiration_minutes": 10}; Meta writes "This code expires '
        'in 10 minutes.", in the language of the template.'
    FROM part p WHERE p.footer ->> 'text' ~ '\S' AND NOT p.footer ? 'code_expiration_minutes'
    UNION ALL
    SELECT 'code_expiration', 'warning', 'code_expiration_minutes of the footer is no number from 1 to 90',
        'For example {"type": "FOOTER", "code_expiration_minutes": 10}.'
    FROM part p
    WHERE p.footer ? 'code_expiration_minutes'
        AND NOT p.footer @? '$.code_expiration_minutes
            ? (@.type() == "number" && @ >= 1 && @ <= 90 && @.floor() == @)'
    UNION ALL
    SELECT 'security_recommendation', 'warning',
        'add_security_recommendation of the body is not true or false',
        'true adds "For your security, do not share this code."'
    FROM part p WHERE jsonb_typeof(p.body -> 'add_security_recommendation') <> 'boolean'
    UNION ALL
    SELECT 'authentication_button', 'warning', 'the buttons are not one of the type OTP',
        'Leave buttons out for one that copies the code, or give [{"type": "OTP", "otp_type": "COPY_CODE"}].'
    FROM button b HAVING count(*) > 1 OR bool_or(b.type <> 'OTP')
    UNION ALL
    SELECT 'otp_type', 'warning',
        format('otp_type of button %s is not COPY_CODE, ONE_TAP or ZERO_TAP', b.index),
        'COPY_CODE works everywhere; the others fill the code into your Android app.'
    FROM button b
    WHERE b.type = 'OTP' AND b.otp_type IN ('COPY_CODE', 'ONE_TAP', 'ZERO_TAP') IS NOT TRUE
    UNION ALL
    SELECT 'otp_apps', 'warning',
        format('button %s names no app that may take the code, or more than five', b.index),
        '"supported_apps": [{"package_name": "com.shop.app", "signature_hash": "K8a/AINcGX7"}], the hash has '
        '11 characters.'
    FROM button b
    WHERE b.otp_type IN ('ONE_TAP', 'ZERO_TAP') AND NOT b.value ?& '{package_name,signature_hash}' AND (
        b.apps @? '$[0]' IS NOT TRUE OR b.apps @? '$[5]' OR b.apps @? '$[*] ? (!(exists (@.package_name)
            && @.signature_hash like_regex "^.{11}$"))'
    )
    UNION ALL
    SELECT 'otp_terms', 'warning', format('button %s does not accept the terms of zero-tap', b.index),
        '"zero_tap_terms_accepted": true says that customers expect the code to be filled in for them.'
    FROM button b
    WHERE b.otp_type = 'ZERO_TAP' AND b.value -> 'zero_tap_terms_accepted' IS DISTINCT FROM 'true'
$$;

COMMENT ON FUNCTION _wa_lint_authentication(wa_templates) IS
'Internal: what the review would object to in a draft of an authentication template, and what is left out of '
'it.';

CREATE OR REPLACE FUNCTION _wa_lint_template(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT f.rule, f.severity, f.message, f.hint
    FROM (
        SELECT 1 AS turn, l.* FROM _wa_lint_template_text(p_template) l
        UNION ALL
        SELECT 2, l.* FROM _wa_lint_template_lengths(p_template) l
        UNION ALL
        SELECT 3, l.* FROM _wa_lint_template_buttons(p_template) l
        UNION ALL
        SELECT 4, l.* FROM _wa_lint_authentication(p_template) l
        UNION ALL
        SELECT 5, l.* FROM _wa_lint_template_declaration(p_template) l
    ) f
    ORDER BY f.severity = 'notice', f.turn
$$;

COMMENT ON FUNCTION _wa_lint_template(wa_templates) IS 'Internal: all findings of lint_wa_template().';

CREATE OR REPLACE FUNCTION lint_wa_template(p_template text, p_language text DEFAULT NULL)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT l.rule, l.severity, l.message, l.hint
    FROM _wa_lint_template(_wa_require_template(_wa_caller_organization(), p_template, p_language)) l;
END
$$;

COMMENT ON FUNCTION lint_wa_template(text, text) IS
'What Meta''s review would object to (warning) and what is worth knowing (notice), with the way out. No row: '
'nothing was found.';

CREATE OR REPLACE FUNCTION lint_wa_template(p_template_id uuid)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT l.rule, l.severity, l.message, l.hint
    FROM wa_templates t
    CROSS JOIN LATERAL _wa_lint_template(t) l
    WHERE t.organization_id = _wa_caller_organization() AND t.id = p_template_id;
END
$$;

COMMENT ON FUNCTION lint_wa_template(uuid) IS
'The same for a row: SELECT t.name, l.* FROM wa_templates t CROSS JOIN lint_wa_template(t.id) l.';
