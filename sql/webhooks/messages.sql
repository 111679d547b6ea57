-- Inbound messages: the ledger row, the window it opens, the words that opt out, and what edits and system
-- messages change.

CREATE OR REPLACE FUNCTION _wa_message_text(p_type text, p_content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_type
    WHEN 'text' THEN p_content ->> 'body'
    WHEN 'button' THEN p_content ->> 'text'
    WHEN 'reaction' THEN p_content ->> 'emoji'
    WHEN 'interactive' THEN coalesce(
        p_content #>> '{button_reply,title}', p_content #>> '{list_reply,title}',
        p_content #>> '{nfm_reply,body}'
    )
    WHEN 'order' THEN p_content ->> 'text'
    WHEN 'system' THEN p_content ->> 'body'
    WHEN 'edit' THEN coalesce(p_content #>> '{message,text,body}', p_content #>> '{message,image,caption}')
    WHEN 'location' THEN p_content ->> 'name'
    ELSE p_content ->> 'caption'
END;

COMMENT ON FUNCTION _wa_message_text(text, jsonb) IS
'Internal: the words of a message that a person would read; NULL if none.';

-- Returns a set so that a query takes it in instead of calling it for each row.
CREATE OR REPLACE FUNCTION _wa_read_message(p_message jsonb) RETURNS TABLE (
    type text, content jsonb, content_text text, reply_to text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
    SELECT t.type, t.content, _wa_message_text(t.type, t.content),
        coalesce(t.content ->> 'original_message_id', t.content ->> 'message_id',
            p_message #>> '{context,id}')
    FROM (
        SELECT coalesce(p_message ->> 'type', 'unknown') AS type,
            coalesce(nullif(p_message -> (p_message ->> 'type'), 'null'), '{}') AS content
    ) t;
END;

COMMENT ON FUNCTION _wa_read_message(jsonb) IS
'Internal: the type of a message, the object named after it, its words, and the message that it is about.';

CREATE OR REPLACE FUNCTION _wa_apply_messages(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_ids bigint[];
BEGIN
    IF EXISTS (SELECT FROM unnest(p_atoms) a WHERE coalesce(a.payload ->> 'id', '') = '') THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the message has no id';
    END IF;
    SELECT array_agg(r.contact_id ORDER BY r.n) INTO v_contact_ids
    FROM (
        SELECT array_agg(_wa_inbound_phone(coalesce(a.payload ->> 'from', a.contact ->> 'wa_id'))
            ORDER BY a.n) AS phones,
            array_agg(_wa_inbound_user_id(
                coalesce(a.payload ->> 'from_user_id', a.contact ->> 'user_id'), a.payload ->> 'from'
            ) ORDER BY a.n) AS user_ids,
            array_agg(a.at ORDER BY a.n) AS ats
        FROM _wa_number_atoms(p_atoms) a
    ) s
    CROSS JOIN LATERAL _wa_resolve_contacts(p_org, s.phones, s.user_ids, 'webhook', s.ats) r;
    IF array_position(v_contact_ids, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'the message names no sender';
    END IF;

    WITH recorded AS (
        INSERT INTO wa_messages (
            organization_id, number_id, phone_number_id, contact_id, customer_id, phone_e164, user_id,
            group_id,
            wa_message_id, direction, message_type, content, content_text, status, state, reply_to, referral,
            error_code,
            error_title, error_message, metadata, provider_at
        )
        SELECT
            p_org, a.number_id, a.phone_number_id, c.id, c.customer_id,
            -- In the spelling under which the contact is known, so that ledger and conversations join by
            -- number.
            CASE WHEN i.contact_id = c.id THEN c.phone_e164 ELSE p.phone END,
            coalesce(a.payload ->> 'from_user_id', a.contact ->> 'user_id'), a.payload ->> 'group_id',
            a.payload ->> 'id', 'inbound', t.type, t.content, t.content_text, 'received', 'received',
            t.reply_to, a.payload -> 'referral',
            CASE WHEN a.payload #>> '{errors,0,code}' ~ '^[0-9]{1,9}$'
                THEN (a.payload #>> '{errors,0,code}')::integer END,
            a.payload #>> '{errors,0,title}',
            coalesce(a.payload #>> '{errors,0,error_data,details}', a.payload #>> '{errors,0,message}'),
            a.payload - ARRAY[
                'id', 'from', 'from_user_id', 'timestamp', 'type', 'group_id', 'referral', t.type
            ],
            a.at
        FROM _wa_number_atoms(p_atoms) a
        -- LIMIT keeps each a look-up by its index, whatever the statistics say while the tables grow.
        CROSS JOIN LATERAL (
            SELECT k.id, k.customer_id, k.phone_e164 FROM wa_contacts k
            WHERE k.organization_id = p_org AND k.id = v_contact_ids[a.n] LIMIT 1
        ) c
        CROSS JOIN LATERAL (
            SELECT _wa_inbound_phone(coalesce(a.payload ->> 'from', a.contact ->> 'wa_id')) AS phone
        ) p
        LEFT JOIN LATERAL (
            SELECT k.contact_id FROM wa_contact_identities k
            WHERE k.organization_id = p_org AND k.kind = 'phone' AND k.is_current
                AND k.value = _wa_phone_key(p.phone)
            LIMIT 1
        ) i ON true
        CROSS JOIN LATERAL _wa_read_message(a.payload) t
        ORDER BY a.n
        ON CONFLICT (organization_id, wa_message_id) DO NOTHING
        RETURNING id, phone_number_id, message_type, content, provider_at
    ),
    filed AS (
        INSERT INTO wa_media (
            organization_id, id, message_id, direction, phone_number_id, provider_media_id, media_type,
            mime_type, filename, sha256
        )
        SELECT p_org, _wa_uuid7(clock_timestamp()), r.id, 'inbound', r.phone_number_id,
            r.content ->> 'id', r.message_type, r.content ->> 'mime_type', r.content ->> 'filename',
            _wa_read_sha256(r.content ->> 'sha256')
        FROM recorded r
        WHERE r.message_type IN ('image', 'video', 'audio', 'document', 'sticker') AND r.content ->> 'id' <> ''
    ),
    announced AS (
        INSERT INTO wa_events (organization_id, kind, message_id, status, occurred_at)
        SELECT p_org, 'message', r.id, 'received', r.provider_at FROM recorded r ORDER BY r.id
    )
    SELECT array_agg(r.id) INTO v_ids FROM recorded r;
    IF v_ids IS NULL THEN
        RETURN;
    END IF;
    PERFORM _wa_update_profiles(p_org, p_atoms, v_contact_ids);
    PERFORM _wa_record_customer_messages(p_org, v_ids);
    PERFORM _wa_heed_keywords(p_org, v_ids);
    PERFORM _wa_mark_amended(p_org, v_ids);
    PERFORM _wa_apply_system_messages(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_apply_messages(uuid, _wa_webhook_atoms[]) IS
'Internal: records inbound messages, each once, and everything that follows from them.';

-- The newest message's word counts, whatever the order of arrival; the ledger tells whether there is a newer
-- one.
CREATE OR REPLACE FUNCTION _wa_update_profiles(
    p_org uuid, p_atoms _wa_webhook_atoms[], p_contact_ids bigint[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_told record;
    v_is_newest boolean;
BEGIN
    FOR v_told IN
        SELECT DISTINCT ON (p_contact_ids[a.n]) p_contact_ids[a.n] AS contact_id, a.at,
            a.contact #>> '{profile,name}' AS profile_name, a.contact #>> '{profile,username}' AS username,
            a.contact ->> 'wa_id' AS wa_id,
            coalesce(a.payload ->> 'from_parent_user_id', a.contact ->> 'parent_user_id') AS parent_user_id,
            coalesce(a.contact ->> 'identity_key_hash', a.payload #>> '{identity,hash}') AS identity_hash
        FROM _wa_number_atoms(p_atoms) a
        WHERE a.contact IS NOT NULL
        ORDER BY p_contact_ids[a.n], a.at DESC
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM wa_contacts c
            WHERE c.organization_id = p_org AND c.id = v_told.contact_id
                AND (c.profile_name, c.username, c.wa_id, c.parent_user_id, c.identity_hash)
                IS NOT DISTINCT FROM (
                    coalesce(v_told.profile_name, c.profile_name), coalesce(v_told.username, c.username),
                    coalesce(v_told.wa_id, c.wa_id), coalesce(v_told.parent_user_id, c.parent_user_id),
                    coalesce(v_told.identity_hash, c.identity_hash)
                )
        );
        v_is_newest := NOT EXISTS (
            SELECT FROM wa_messages m
            WHERE m.organization_id = p_org AND m.contact_id = v_told.contact_id AND m.direction = 'inbound'
                AND m.message_type <> 'system' AND m.provider_at > v_told.at
        );
        UPDATE wa_contacts c SET
            profile_name = CASE WHEN v_is_newest THEN coalesce(v_told.profile_name, c.profile_name)
                ELSE coalesce(c.profile_name, v_told.profile_name) END,
            username = CASE WHEN v_is_newest THEN coalesce(v_told.username, c.username)
                ELSE coalesce(c.username, v_told.username) END,
            wa_id = CASE WHEN v_is_newest THEN coalesce(v_told.wa_id, c.wa_id)
                ELSE coalesce(c.wa_id, v_told.wa_id) END,
            parent_user_id = coalesce(v_told.parent_user_id, c.parent_user_id),
            identity_hash = CASE WHEN v_is_newest THEN coalesce(v_told.identity_hash, c.identity_hash)
                ELSE coalesce(c.identity_hash, v_told.identity_hash) END,
            updated_at = clock_timestamp()
        WHERE c.organization_id = p_org AND c.id = v_told.contact_id;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_update_profiles(uuid, _wa_webhook_atoms[], bigint[]) IS
'Internal: name, user name, wa_id and identity key of customers, as their newest message tells.';

-- The word stands alone and is unqualified, so it is taken at its word: no message at all (scope all). Meta's
-- own switch for offers only is user_preferences, which sets the scope marketing.
CREATE OR REPLACE FUNCTION _wa_heed_keywords(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_out bigint[];
    v_in bigint[];
BEGIN
    SELECT array_agg(k.contact_id) FILTER (WHERE k.is_out), array_agg(k.contact_id)
        FILTER (WHERE NOT k.is_out)
    INTO v_out, v_in
    FROM (
        SELECT DISTINCT ON (m.contact_id) m.contact_id, m.provider_at, m.id,
            _wa_is_opt_out_word(m.content_text) AS is_out
        FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.message_type = 'text'
            AND m.group_id IS NULL
            AND (_wa_is_opt_out_word(m.content_text) OR _wa_is_opt_in_word(m.content_text))
        ORDER BY m.contact_id, m.provider_at DESC, _wa_is_opt_out_word(m.content_text) DESC
    ) k
    -- The last word counts, also when an earlier one is delivered late.
    WHERE NOT EXISTS (
        SELECT FROM wa_messages l
        WHERE l.organization_id = p_org AND l.contact_id = k.contact_id AND l.direction = 'inbound'
            AND l.message_type = 'text' AND l.group_id IS NULL AND l.id <> k.id
            AND CASE WHEN k.is_out
                THEN l.provider_at > k.provider_at AND _wa_is_opt_in_word(l.content_text)
                ELSE l.provider_at >= k.provider_at AND _wa_is_opt_out_word(l.content_text)
            END
    );
    IF v_out IS NOT NULL THEN
        PERFORM _wa_opt_out_contacts(p_org, v_out, 'all', 'the customer wrote a word that opts out',
            'keyword');
    END IF;
    IF v_in IS NOT NULL THEN
        PERFORM _wa_opt_in_contacts(p_org, v_in, 'all', 'keyword', jsonb_build_object('text', 'START'));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_heed_keywords(uuid, bigint[]) IS
'Internal: STOP, UNSUBSCRIBE, CANCEL, END or QUIT as the whole typed text opts out, START takes it back.';

-- Works from either side: an edit or deletion may come before what it is about.
CREATE OR REPLACE FUNCTION _wa_mark_amended(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_wamid text;
BEGIN
    FOR v_wamid IN
        SELECT e.wamid
        FROM _wa_messages_of(p_org, p_message_ids) m
        CROSS JOIN LATERAL (
            SELECT m.reply_to AS wamid WHERE m.message_type IN ('edit', 'revoke')
            UNION ALL
            (
                SELECT a.reply_to FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = m.wa_message_id
                    AND a.message_type IN ('edit', 'revoke') LIMIT 1
            )
        ) e
        GROUP BY e.wamid
        ORDER BY e.wamid
    LOOP
        UPDATE wa_messages o SET
            edited_at = (
                SELECT max(a.provider_at) FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = v_wamid AND a.message_type = 'edit'
            ),
            deleted_at = (
                SELECT min(a.provider_at) FROM wa_messages a
                WHERE a.organization_id = p_org AND a.reply_to = v_wamid AND a.message_type = 'revoke'
            ),
            updated_at = clock_timestamp()
        WHERE o.organization_id = p_org AND o.wa_message_id = v_wamid;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_mark_amended(uuid, bigint[]) IS
'Internal: marks the originals of edits and deletions; their content stays as it was.';

CREATE OR REPLACE FUNCTION _wa_apply_system_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message record;
BEGIN
    FOR v_message IN
        SELECT m.id, m.phone_e164, m.user_id, m.content, m.provider_at
        FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.message_type = 'system'
            AND m.content ->> 'type' IN ('user_changed_number', 'user_changed_user_id')
        ORDER BY m.provider_at, m.id
    LOOP
        PERFORM _wa_change_number(
            p_org, v_message.phone_e164,
            coalesce(v_message.content ->> 'previous_user_id',
                nullif(v_message.user_id, v_message.content ->> 'user_id')),
            _wa_inbound_phone(coalesce(v_message.content ->> 'wa_id', v_message.content ->> 'new_wa_id')),
            v_message.content ->> 'user_id', v_message.provider_at
        );
    END LOOP;
    UPDATE wa_contacts c SET identity_hash = h.hash, updated_at = clock_timestamp()
    FROM (
        SELECT DISTINCT ON (m.contact_id) m.contact_id,
            coalesce(m.content ->> 'identity_key_hash', m.content ->> 'identity',
                m.metadata #>> '{identity,hash}') AS hash
        FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.message_type = 'system'
            AND m.content ->> 'type' IN ('customer_identity_changed', 'user_identity_changed')
        ORDER BY m.contact_id, m.provider_at DESC
    ) h
    WHERE c.organization_id = p_org AND c.id = h.contact_id AND h.hash IS NOT NULL
        AND c.identity_hash IS DISTINCT FROM h.hash;
END
$$;

COMMENT ON FUNCTION _wa_apply_system_messages(uuid, bigint[]) IS
'Internal: what system messages say of a customer: a new number, a new user id, a new identity key.';
