-- What Meta's review would say of a template. Nothing here refuses one: a draft may be unfinished.

CREATE OR REPLACE FUNCTION _wa_template_words(p_kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_kind
    WHEN 'opt_out' THEN
    '\m(?:stop|unsubscribe|opt[ -]?out|no more (?:messages|news)|baja|cancelar|dejar de recibir|sair|parar|'
    'descadastrar|abmelden|abbestellen|stopp|désabonner|désinscrire|arrêt|disiscriviti|annulla|berhenti)\M'
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

CREATE OR REPLACE FUNCTION _wa_lint_template(p_template wa_templates)
RETURNS TABLE (rule text, severity text, message text, hint text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    WITH part AS (
        SELECT t.body_text AS body, btrim(t.body_text, E' \t\r\n') AS trimmed,
            '\{\{\s*[A-Za-z0-9_]+\s*\}\}' AS variable,
            concat_ws(' ', t.header_text, t.body_text, t.footer_text, (
                SELECT string_agg(b.value ->> 'text', ' ') FROM jsonb_array_elements(t.buttons) b
            )) AS everything,
            t.*
        FROM (SELECT (p_template).*) t
    ),
    counted AS (
        SELECT p.*,
            (SELECT count(*) FROM regexp_matches(p.body, p.variable, 'g')) AS variables,
            (SELECT count(*) FROM regexp_matches(regexp_replace(p.body, p.variable, ' ', 'g'), '\w+', 'g')) AS words
        FROM part p
    ),
    found (turn, rule, severity, message, hint) AS (
        SELECT 1, 'name_case', 'notice', format('Meta will know it as "%s"', lower(c.name)),
            'Names are sent in small letters; here they match in either case.'
        FROM counted c WHERE c.name <> lower(c.name)
        UNION ALL
        SELECT 2, 'name_characters', 'warning',
            'the name has other characters than letters, digits and underscores',
            format('For example "%s".', trim('_' FROM regexp_replace(lower(c.name), '[^a-z0-9]+', '_', 'g')))
        FROM counted c WHERE c.name !~ '^[A-Za-z0-9_]+$'
        UNION ALL
        SELECT 3, 'language_code', 'warning', format('"%s" is not a language of Meta''s form', c.language),
            'For example en, en_US, pt_BR.'
        FROM counted c WHERE c.language !~ '^[a-z]{2,3}(_[A-Z]{2,3})?$'
        UNION ALL
        SELECT 4, 'variable_at_start', 'warning', 'the body begins with a variable',
            'Begin with a word, for example "Hi {{1}}, ...".'
        FROM counted c WHERE c.trimmed ~ ('^' || c.variable)
        UNION ALL
        SELECT 5, 'variable_at_end', 'warning', 'the body ends with a variable',
            'End with words, for example "... {{3}}. Thank you for your order."'
        FROM counted c WHERE c.trimmed ~ (c.variable || '[[:punct:]\s]*$') AND c.trimmed !~ '\w[^{}]*$'
        UNION ALL
        SELECT 6, 'adjacent_variables', 'warning', 'two variables stand next to each other',
            'Put words between them, or make one value of the two.'
        FROM counted c WHERE c.body ~ (c.variable || '\s*' || c.variable)
        UNION ALL
        SELECT 7, 'variable_ratio', 'warning',
            format('%s variables in %s words', c.variables, c.words),
            format('Add words: Meta wants about %s for so many variables.', 2 * c.variables + 1)
        FROM counted c WHERE c.category <> 'AUTHENTICATION' AND c.words < 2 * c.variables + 1
            AND c.variables > 0
        UNION ALL
        SELECT 8, 'opt_out_hint', 'warning', 'a MARKETING template without a way to opt out',
            'Add a footer such as "Reply STOP to unsubscribe", or a quick reply "Stop".'
        FROM counted c WHERE c.category = 'MARKETING' AND c.everything !~* _wa_template_words('opt_out')
        UNION ALL
        SELECT 9, 'promotional_words', 'warning',
            format('"%s" in a UTILITY template', lower((regexp_match(
                c.everything, _wa_template_words('promotional'), 'i'
            ))[1])),
            'Meta makes it MARKETING, or rejects it: leave the advertising out, or choose that category.'
        FROM counted c WHERE c.category = 'UTILITY' AND c.everything ~* _wa_template_words('promotional')
        UNION ALL
        SELECT 10, 'length', 'warning', format('%s has %s characters; %s are allowed', l.what, l.has, l.allowed),
            'Shorten it.'
        FROM counted c
        CROSS JOIN LATERAL (
            SELECT 'the header' AS what, char_length(c.header_text) AS has, 60 AS allowed
            UNION ALL
            SELECT 'the body', char_length(c.body), 1024
            UNION ALL
            SELECT 'the footer', char_length(c.footer_text), 60
            UNION ALL
            SELECT format('the text of button %s', b.place - 1), char_length(b.value ->> 'text'), 25
            FROM jsonb_array_elements(c.buttons) WITH ORDINALITY b (value, place)
            UNION ALL
            SELECT format('the url of button %s', b.place - 1), char_length(b.value ->> 'url'), 2000
            FROM jsonb_array_elements(c.buttons) WITH ORDINALITY b (value, place)
        ) l
        WHERE l.has > l.allowed
        UNION ALL
        SELECT 11, 'header_format', 'warning', 'the header has line breaks, emphasis or an emoji',
            'Meta takes plain text there.'
        FROM counted c
        WHERE regexp_replace(c.header_text, c.variable, '', 'g')
            ~ '[\n\r*_~`\u2600-\u27BF\U0001F000-\U0001FAFF]'
        UNION ALL
        SELECT 12, 'whitespace', 'warning', 'the body has tabs, more than two line breaks or four spaces in a row',
            'Meta refuses them.'
        FROM counted c WHERE c.body ~ '\t|\n\s*\n\s*\n|     '
        UNION ALL
        SELECT 13, 'button_count', 'warning', format('%s %s buttons; %s are allowed', k.has, k.type, k.allowed),
            'Leave some out.'
        FROM (
            SELECT upper(b.value ->> 'type') AS type, count(*) AS has,
                CASE upper(b.value ->> 'type') WHEN 'URL' THEN 2 WHEN 'PHONE_NUMBER' THEN 1
                    WHEN 'COPY_CODE' THEN 1 ELSE 10 END AS allowed
            FROM counted c, jsonb_array_elements(c.buttons) b
            GROUP BY upper(b.value ->> 'type')
        ) k
        WHERE k.has > k.allowed
        UNION ALL
        SELECT 14, 'button_text', 'warning', format('button %s has no text', b.place - 1),
            'Give it the text that the customer taps.'
        FROM counted c, jsonb_array_elements(c.buttons) WITH ORDINALITY b (value, place)
        WHERE upper(b.value ->> 'type') IN ('URL', 'QUICK_REPLY', 'PHONE_NUMBER', 'FLOW')
            AND coalesce(b.value ->> 'text', '') !~ '\S'
        UNION ALL
        SELECT 15, 'button_url', 'warning',
            format('the url of button %s does not begin with an address, or goes on after its variable',
                b.place - 1),
            'For example "https://pay.example.com/{{1}}": the address is fixed, the variable its end.'
        FROM counted c, jsonb_array_elements(c.buttons) WITH ORDINALITY b (value, place)
        WHERE upper(b.value ->> 'type') = 'URL'
            AND b.value ->> 'url' !~* ('^https?://[^/{}\s]+\.[^/{}\s]+(/[^{}\s]*(' || c.variable || ')?)?$')
        UNION ALL
        SELECT 16, 'example_url', 'warning', format('the url of button %s is only an example', b.place - 1),
            'Put your own address there.'
        FROM counted c, jsonb_array_elements(c.buttons) WITH ORDINALITY b (value, place)
        WHERE b.value ->> 'url' ~* '^https?://([^/]*\.)?example\.(com|org|net)\M'
        UNION ALL
        SELECT 17, 'header_example', 'warning', format('the %s header has no sample file', lower(c.header_format)),
            'Upload one to Meta and give its handle: components, HEADER, "example": {"header_handle": ["..."]}.'
        FROM counted c
        WHERE c.header_format IN ('IMAGE', 'VIDEO', 'GIF', 'DOCUMENT')
            AND _wa_template_component(c.components, 'HEADER') #> '{example,header_handle,0}' IS NULL
        UNION ALL
        SELECT 18, 'example', 'notice',
            format('no example for %s', string_agg(DISTINCT s.name, ', ')),
            'Reviewers see made-up ones; parameters takes {"name": "...", "example": "..."}.'
        FROM counted c, _wa_template_slots(p_template) s
        WHERE s.example IS NULL AND coalesce(c.header_format, 'TEXT') = 'TEXT' AND c.category <> 'AUTHENTICATION'
        HAVING count(*) > 0
        UNION ALL
        SELECT 19, 'unused_parameter', 'notice',
            format('parameters declares %s, which the template does not take', string_agg(d.name, ', ')),
            'Values of that name are left out.'
        FROM (
            SELECT coalesce(d.value ->> 'name', d.value #>> '{}') AS name
            FROM counted c, jsonb_array_elements(c.parameters) d
        ) d
        WHERE NOT EXISTS (SELECT FROM _wa_template_slots(p_template) s WHERE s.name = d.name)
        HAVING count(*) > 0
        UNION ALL
        SELECT 20, 'authentication_text', 'notice', 'Meta words authentication templates itself',
            'Header, body and footer are not sent to the review; only the button is.'
        FROM counted c WHERE c.category = 'AUTHENTICATION' AND c.provider_template_id IS NULL
    )
    SELECT f.rule, f.severity, f.message, f.hint FROM found f ORDER BY f.severity DESC, f.turn, f.message
$$;

COMMENT ON FUNCTION _wa_lint_template(wa_templates) IS
'Internal: the findings of lint_wa_template().';

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

REVOKE ALL ON FUNCTION _wa_template_words(text), _wa_lint_template(wa_templates),
lint_wa_template(text, text), lint_wa_template(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lint_wa_template(text, text), lint_wa_template(uuid) TO wa_app, wa_admin;
