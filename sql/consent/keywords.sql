-- Words that opt out and in: which a message says, and what follows from it. The words are rows
-- (default_words.sql, wa_keywords), compared as whole messages by _wa_word_key().

-- wa_keywords is given its key by us: an index must not hang on a function of the extension.
CREATE OR REPLACE FUNCTION tg_wa_keywords__key() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.word_key := _wa_word_key(NEW.word);
    IF NEW.word_key IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA051', TABLE = 'wa_keywords',
            MESSAGE = format('"%s" is no word that a message could be', left(NEW.word, 80)),
            DETAIL = 'It is longer than 100 characters, or nothing but blanks and punctuation.',
            HINT = 'A keyword is a whole short message, such as STOP or NO MORE OFFERS.';
    ELSIF coalesce(_wa_latin_twin(NEW.word_key), NEW.word_key) IN ('STOP', 'UNSUBSCRIBE')
        AND NEW.meaning <> 'stop'
    THEN
        RAISE EXCEPTION USING ERRCODE = 'WA051', TABLE = 'wa_keywords',
            MESSAGE = format('%s opts out, whatever it answers', NEW.word_key),
            DETAIL = format('The meaning given is %s.', NEW.meaning),
            HINT = 'Its scope may be set, here or for all such words in wa_organizations.stop_scopes.';
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_keywords__key() IS
'Fills word_key, by which words are compared; refuses what no message could match, and to take STOP and '
'UNSUBSCRIBE away (WA051).';

CREATE OR REPLACE TRIGGER key BEFORE INSERT OR UPDATE ON wa_keywords
FOR EACH ROW EXECUTE FUNCTION tg_wa_keywords__key();

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_keywords
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('word_key');
CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_consent_texts
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('scope language');

-- A set of at most one, so that it is inlined into a join; look-ups by key, none for a long text. What is no
-- keyword as it is written, and looks like one in Latin letters, is that: some write STOP on other keyboards.
CREATE OR REPLACE FUNCTION _wa_keyword(p_org uuid, p_text text)
RETURNS TABLE (meaning text, scope text, language text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT k.meaning, k.scope, k.language
    FROM unnest(ARRAY[_wa_word_key(p_text)]) w (word_key)
    CROSS JOIN LATERAL (
        SELECT x.meaning, x.scope, x.language FROM wa_keywords x
        WHERE x.organization_id = p_org AND x.word_key = w.word_key
        UNION ALL
        SELECT x.meaning, x.scope, x.language FROM wa_default_keywords x WHERE x.word_key = w.word_key
        UNION ALL
        SELECT x.meaning, x.scope, x.language FROM wa_keywords x
        WHERE x.organization_id = p_org AND x.word_key = _wa_latin_twin(w.word_key)
        UNION ALL
        SELECT x.meaning, x.scope, x.language FROM wa_default_keywords x
        WHERE x.word_key = _wa_latin_twin(w.word_key)
        LIMIT 1
    ) k;
END;

COMMENT ON FUNCTION _wa_keyword(uuid, text) IS
'Internal: the keyword that a whole text is, or looks like, for an organization: its own before ours; no row '
'when it is none.';

-- Who is asked may say CANCEL, END or QUIT to what he is asked. Whatever else waits for an answer of a
-- contact
-- is to be added here.
CREATE OR REPLACE FUNCTION _wa_awaits_answer(p_org uuid, p_contact_id bigint, p_reply_to text) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_messages m
        WHERE m.organization_id = p_org AND m.wa_message_id = p_reply_to AND m.direction = 'outbound'
            AND m.contact_id = p_contact_id
            AND CASE m.message_type
                WHEN 'interactive' THEN true
                WHEN 'template' THEN coalesce(m.template_category, 'MARKETING') <> 'MARKETING'
                ELSE false
            END
    ) OR EXISTS (
        -- OFFSET: the index of the contact serves, also in a plan made while there was no flow.
        SELECT FROM (
            SELECT f.organization_id, f.wait FROM wa_automation_flows f
            WHERE f.contact_id = p_contact_id AND f.status IN ('active', 'paused')
                AND f.definition_version IS NOT NULL
            OFFSET 0
        ) f
        WHERE f.organization_id = p_org AND f.wait ->> 'for' IN ('reply', 'button')
    )
$$;

COMMENT ON FUNCTION _wa_awaits_answer(uuid, bigint, text) IS
'Internal: whether what a contact wrote answers a question of ours: in reply to a message with buttons or a '
'list, or to a template that is no offer; or where a flow waits for what the contact says.';

-- A typed word stands alone and is unqualified, so it is taken at its word. A button counts by its label,
-- else
-- by its payload. STOP under an offer means offers; CANCEL and its like answer the question of a template
-- that
-- is known to be no offer. A button of a conversation says no more than its label does, and leaves the
-- conversation alone. Buttons take no opt-out back: their START may begin anything. Of a
-- caption only what always opts out counts, and CONFIRM: the rest may be what the picture shows.
-- A set of at most one, so that it is inlined into a join; a template is looked up for a reply with a
-- keyword.
CREATE OR REPLACE FUNCTION _wa_said_word(
    p_org uuid, p_type text, p_text text, p_content jsonb, p_contact_id bigint, p_reply_to text
) RETURNS TABLE (meaning text, scope text, language text, said text)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT d.meaning, d.scope, d.language, d.said
    FROM (
        SELECT
            CASE
                WHEN k.stop IS NOT NULL THEN 'stop'
                WHEN k.is_cancel AND CASE p_type
                    WHEN 'text' THEN NOT _wa_awaits_answer(p_org, p_contact_id, p_reply_to)
                    WHEN 'button' THEN coalesce(t.category, 'MARKETING') = 'MARKETING'
                END THEN 'stop'
                WHEN k.is_confirmation THEN 'confirm'
                WHEN p_type = 'text' AND k.is_start THEN 'start'
            END AS meaning,
            -- NULL: what STOP covers.
            CASE
                WHEN p_type = 'text' THEN k.scope
                WHEN p_type = 'button' AND (k.stop IS NULL OR t.category = 'MARKETING')
                    THEN coalesce(k.scope, 'marketing')
                WHEN p_type = 'interactive' THEN coalesce(k.scope, 'marketing')
                ELSE k.scope
            END AS scope,
            k.language, k.said
        FROM (
            SELECT
                CASE WHEN 'stop' IN (l.meaning, y.meaning) THEN 'stop' END AS stop,
                'cancel' IN (l.meaning, y.meaning) AS is_cancel,
                'confirm' IN (l.meaning, y.meaning) AS is_confirmation, l.meaning = 'start' AS is_start,
                CASE WHEN l.meaning IN ('stop', 'cancel') THEN l.scope
                    WHEN y.meaning IN ('stop', 'cancel') THEN y.scope END AS scope,
                coalesce(l.language, y.language) AS language, b.label AS said,
                coalesce(l.meaning, y.meaning) IS NOT NULL AS is_word
            FROM (
                SELECT p_text AS label, p_content ->> 'payload' AS payload
                WHERE p_type IN ('text', 'button', 'caption')
                UNION ALL
                SELECT r.reply ->> 'title', r.reply ->> 'id'
                FROM (SELECT coalesce(p_content -> 'button_reply', p_content -> 'list_reply') AS reply) r
                WHERE p_type = 'interactive'
            ) b
            LEFT JOIN LATERAL _wa_keyword(p_org, b.label) l ON true
            LEFT JOIN LATERAL _wa_keyword(p_org, b.payload) y ON true
        ) k
        LEFT JOIN LATERAL (
            SELECT m.template_category AS category FROM wa_messages m
            WHERE m.organization_id = p_org AND m.wa_message_id = p_reply_to AND m.direction = 'outbound'
            LIMIT 1
        ) t ON p_type = 'button'
        WHERE k.is_word
    ) d
    WHERE d.meaning IS NOT NULL;
END;

COMMENT ON FUNCTION _wa_said_word(uuid, text, text, jsonb, bigint, text) IS
'Internal: the keyword that an inbound message is: stop (with its scope; NULL is what STOP covers), start or '
'confirm; no row when it is none, or answers a question.';

-- Only its row type is used: a keyword that was said, in the arrays that heeding takes.
CREATE OR REPLACE VIEW _wa_said_words AS
SELECT
    NULL::bigint AS contact_id, NULL::timestamptz AS at, NULL::text AS meaning, NULL::text[] AS scopes,
    NULL::text AS source, NULL::jsonb AS proof, NULL::uuid AS confirmation_id, NULL::text AS phone
WHERE false;

COMMENT ON VIEW _wa_said_words IS 'Internal: the shape of a keyword that was said. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_heed_stops(p_org uuid, p_words _wa_said_words[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_opt_outs AS o (
        organization_id, contact_id, scope, phone_number, reason, source, opt_out_date, is_keyword, proof,
        confirmation_id, revoked_at, revoked_source
    )
    SELECT DISTINCT ON (w.contact_id, s.scope, r.is_taken_back)
        p_org, w.contact_id, s.scope, coalesce(c.phone_e164, w.phone),
        CASE w.source WHEN 'button' THEN 'the customer pressed a button that opts out'
            ELSE 'the customer wrote a word that opts out' END,
        w.source, w.at, true, w.proof,
        -- On what stops free-form messages, so that it does not stop this one.
        CASE WHEN NOT r.is_taken_back
            AND (s.scope IN ('utility', 'all') OR NOT w.scopes && '{utility,all}') THEN w.confirmation_id END,
        CASE WHEN r.is_taken_back THEN clock_timestamp() END, CASE WHEN r.is_taken_back THEN 'keyword' END
    FROM unnest(p_words) w
    JOIN wa_contacts c ON c.organization_id = p_org AND c.id = w.contact_id
    -- Of SMS beside all of it: each is lifted by itself.
    CROSS JOIN unnest(w.scopes) s (scope)
    -- The last word counts, also when an earlier one is delivered late.
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM wa_consent_events e
            WHERE e.organization_id = p_org AND e.contact_id = w.contact_id AND e.event = 'returned'
                AND e.occurred_at > w.at AND (s.scope <> 'sms' OR EXISTS (
                    SELECT FROM wa_messages m
                    JOIN wa_phone_numbers n ON n.organization_id = p_org AND n.id = m.number_id
                    WHERE m.organization_id = p_org AND m.wa_message_id = e.wa_message_id
                        AND n.channel = 'sms'
                ))
        ) AS is_taken_back
    ) r
    WHERE w.meaning = 'stop' AND ('all' <> ALL (w.scopes) OR s.scope IN ('all', 'sms'))
    ORDER BY w.contact_id, s.scope, r.is_taken_back, w.at DESC
    ON CONFLICT (organization_id, contact_id, scope, is_keyword) WHERE revoked_at IS NULL
    DO UPDATE SET last_asked_at = excluded.opt_out_date
    WHERE excluded.opt_out_date > greatest(o.opt_out_date, o.last_asked_at)
$$;

COMMENT ON FUNCTION _wa_heed_stops(uuid, _wa_said_words[]) IS
'Internal: opt-outs of those words that opt out. Before it, those that return must have been recorded.';

CREATE OR REPLACE FUNCTION _wa_heed_starts(p_org uuid, p_words _wa_said_words[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH lifted AS (
        UPDATE wa_opt_outs o SET revoked_at = clock_timestamp(), revoked_source = 'keyword'
        FROM (
            SELECT DISTINCT ON (w.contact_id, k.is_sms) w.contact_id, k.is_sms, w.at, w.proof
            FROM unnest(p_words) w
            CROSS JOIN LATERAL (SELECT 'sms' = ANY (w.scopes) AS is_sms) k
            WHERE w.meaning = 'start'
            ORDER BY w.contact_id, k.is_sms, w.at DESC
        ) s
        WHERE o.organization_id = p_org AND o.contact_id = s.contact_id AND o.revoked_at IS NULL
            AND o.is_keyword AND greatest(o.opt_out_date, o.last_asked_at) < s.at
            -- Carriers and providers, too, refuse SMS until START comes by SMS.
            AND (s.is_sms OR o.scope <> 'sms')
        RETURNING o.contact_id, o.scope, s.proof, s.at
    )
    INSERT INTO wa_opt_ins (organization_id, contact_id, scope, source, proof, opted_in_at)
    SELECT p_org, l.contact_id, l.scope, 'keyword', l.proof, l.at FROM lifted l
$$;

COMMENT ON FUNCTION _wa_heed_starts(uuid, _wa_said_words[]) IS
'Internal: lifts what earlier words opted out of, and nothing else; that is an opt-in to those scopes. What '
'STOP by SMS stopped of SMS, START by SMS alone lifts.';

CREATE OR REPLACE FUNCTION _wa_heed_confirmations(p_org uuid, p_words _wa_said_words[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_confirmed record;
BEGIN
    FOR v_confirmed IN
        -- Times of messages have whole seconds.
        UPDATE wa_opt_in_requests r SET confirmed_at = w.at
        FROM unnest(p_words) w
        WHERE w.meaning = 'confirm' AND r.organization_id = p_org AND r.contact_id = w.contact_id
            AND r.confirmed_at IS NULL
            AND w.at >= date_trunc('second', r.requested_at) AND w.at < r.expires_at
        RETURNING r.contact_id, r.scope, r.source, w.at, r.proof || jsonb_build_object(
            'request_id', r.id, 'requested_at', r.requested_at, 'confirmed_by', w.proof ->> 'text',
            'wa_message_id', w.proof ->> 'wa_message_id'
        ) AS proof
    LOOP
        PERFORM _wa_opt_in_contacts(
            p_org, ARRAY[v_confirmed.contact_id], v_confirmed.scope, v_confirmed.source, v_confirmed.proof,
            v_confirmed.at
        );
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_heed_confirmations(uuid, _wa_said_words[]) IS
'Internal: opt-ins that were asked for and are confirmed in time; what was asked for later stays opted out.';

CREATE OR REPLACE FUNCTION _wa_heed_keywords(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_words _wa_said_words[] := ARRAY(
        SELECT ROW(
            m.contact_id, m.provider_at, w.meaning, CASE WHEN w.scope IS NULL THEN (
                SELECT o.stop_scopes || CASE WHEN n.channel = 'sms' THEN '{sms}'::text[] ELSE '{}' END
                FROM wa_organizations o
                LEFT JOIN wa_phone_numbers n ON n.organization_id = o.id AND n.id = m.number_id
                WHERE o.id = p_org
            ) ELSE ARRAY[w.scope] END,
            CASE WHEN m.message_type IN ('button', 'interactive') THEN 'button' ELSE 'keyword' END,
            jsonb_strip_nulls(jsonb_build_object(
                'text', coalesce(CASE WHEN p.word IS NOT NULL THEN m.content_text END, w.said),
                'language', w.language, 'wa_message_id', m.wa_message_id
            )),
            gen_random_uuid(), m.phone_e164
        )::_wa_said_words
        FROM _wa_messages_of(p_org, p_message_ids) m
        -- What the provider itself heeds (STOP, START), by words that only it was told of.
        CROSS JOIN LATERAL (SELECT m.metadata ->> 'opt_out_type' AS word) p
        CROSS JOIN LATERAL _wa_said_word(
            p_org, CASE
                WHEN p.word IS NOT NULL THEN 'text'
                WHEN m.message_type IN ('text', 'button', 'interactive') THEN m.message_type
                -- What was changed into a word says it, too.
                WHEN m.content #>> '{message,type}' = 'text' THEN 'text'
                ELSE 'caption'
            END, coalesce(p.word, m.content_text), m.content, m.contact_id, m.reply_to
        ) w
        WHERE m.group_id IS NULL AND (p.word IS NOT NULL OR m.message_type IN (
            'text', 'button', 'interactive', 'edit', 'image', 'video', 'audio', 'document', 'sticker'
        ))
    );
BEGIN
    IF cardinality(v_words) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO wa_consent_events (
        organization_id, contact_id, event, scope, source, phone_number, text_shown, language, wa_message_id,
        proof, occurred_at
    )
    SELECT p_org, w.contact_id, 'returned', 'all', w.source, w.phone, w.proof ->> 'text',
        w.proof ->> 'language', w.proof ->> 'wa_message_id', w.proof, w.at
    FROM unnest(v_words) w WHERE w.meaning = 'start';
    PERFORM _wa_heed_stops(p_org, v_words);
    PERFORM _wa_heed_starts(p_org, v_words);
    PERFORM _wa_heed_confirmations(p_org, v_words);
END
$$;

COMMENT ON FUNCTION _wa_heed_keywords(uuid, bigint[]) IS
'Internal: words that opt out, typed as the whole text or pressed as a button; a typed START takes them '
'back, '
'CONFIRM makes an opt-in of what was asked. What is said in a group is said by somebody to others: it opts '
'nobody out.';
