-- Inbound messages: read for the ledger, then what follows from them: the window that they open, the words
-- that opt out (consent/keywords.sql), and what system messages change.

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
    -- The edited message lies within, under the name of its type.
    WHEN 'edit' THEN coalesce(
        p_content #>> '{message,text,body}',
        p_content #>> ARRAY['message', p_content #>> '{message,type}', 'caption']
    )
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
        PERFORM _wa_refuse_atoms(p_atoms, 'the message has no id');
    END IF;
    v_contact_ids := _wa_resolve_atoms(p_org, p_atoms, 'webhook');
    IF array_position(v_contact_ids, NULL) IS NOT NULL THEN
        PERFORM _wa_refuse_atoms(p_atoms, 'the message names no sender');
    END IF;

    v_ids := _wa_record_messages(p_org, ARRAY(
        SELECT ROW(
            'inbound', a.number_id, a.phone_number_id, v_contact_ids[a.n], a.phone, a.phone_key, a.user_id,
            a.payload ->> 'group_id', a.payload ->> 'id', t.type, t.content, t.content_text, t.reply_to,
            a.payload -> 'referral',
            CASE WHEN a.payload #>> '{errors,0,code}' ~ '^[0-9]{1,9}$'
                THEN (a.payload #>> '{errors,0,code}')::integer END,
            a.payload #>> '{errors,0,title}',
            coalesce(a.payload #>> '{errors,0,error_data,details}', a.payload #>> '{errors,0,message}'),
            a.payload - ARRAY[
                'id', 'from', 'from_user_id', 'timestamp', 'type', 'group_id', 'referral', t.type
            ],
            a.at
        )::_wa_told_messages
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL _wa_read_message(a.payload) t
        ORDER BY a.n
    ));
    IF v_ids IS NULL THEN
        RETURN;
    END IF;
    PERFORM _wa_update_profiles(
        p_org, array_agg(v_contact_ids[a.n]), array_agg(a.at),
        array_agg(jsonb_build_object(
            'profile_name', a.contact #> '{profile,name}', 'username', a.contact #> '{profile,username}',
            'wa_id', a.contact -> 'wa_id',
            'parent_user_id', coalesce(a.payload ->> 'from_parent_user_id', a.contact ->> 'parent_user_id'),
            'identity_hash', coalesce(a.contact ->> 'identity_key_hash', a.payload #>> '{identity,hash}')
        ))
    )
    FROM _wa_number_atoms(p_atoms) a
    WHERE a.contact IS NOT NULL OR a.payload ? 'from_parent_user_id';
    PERFORM _wa_record_customer_messages(p_org, v_ids);
    PERFORM _wa_release_from_limit(p_org, v_contact_ids);
    PERFORM _wa_heed_keywords(p_org, v_ids);
    PERFORM _wa_apply_system_messages(p_org, v_ids);
END
$$;

COMMENT ON FUNCTION _wa_apply_messages(uuid, _wa_webhook_atoms[]) IS
'Internal: records inbound messages, each once, and everything that follows from them.';

CREATE OR REPLACE FUNCTION _wa_apply_system_messages(p_org uuid, p_message_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message record;
    v_contact_id bigint;
BEGIN
    FOR v_message IN
        SELECT m.id, m.phone_e164, m.user_id, m.content, m.provider_at
        FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.message_type = 'system'
            AND m.content ->> 'type' IN ('user_changed_number', 'user_changed_user_id')
        ORDER BY m.provider_at, m.id
    LOOP
        -- Its contact is read anew: the change before this one may have made it part of another.
        SELECT m.contact_id INTO v_contact_id FROM _wa_messages_of(p_org, ARRAY[v_message.id]) m;
        v_contact_id := _wa_change_number(
            p_org, v_contact_id, v_message.phone_e164,
            nullif(v_message.user_id, v_message.content ->> 'user_id'),
            _wa_inbound_phone(coalesce(v_message.content ->> 'wa_id', v_message.content ->> 'new_wa_id')),
            v_message.content ->> 'user_id', v_message.provider_at
        );
        IF v_message.content ->> 'parent_user_id' IS NOT NULL THEN
            PERFORM _wa_change_parent_id(
                p_org, v_contact_id, v_message.content ->> 'previous_parent_user_id',
                v_message.content ->> 'parent_user_id', v_message.provider_at
            );
        END IF;
    END LOOP;
    PERFORM _wa_set_identity_hashes(p_org, array_agg(h.contact_id), array_agg(h.hash))
    FROM (
        SELECT DISTINCT ON (m.contact_id) m.contact_id,
            coalesce(m.content ->> 'identity_key_hash', m.content ->> 'identity',
                m.metadata #>> '{identity,hash}') AS hash
        FROM _wa_messages_of(p_org, p_message_ids) m
        WHERE m.message_type = 'system'
            AND m.content ->> 'type' IN ('customer_identity_changed', 'user_identity_changed')
        ORDER BY m.contact_id, m.provider_at DESC
    ) h
    WHERE h.hash IS NOT NULL
    HAVING count(*) > 0;
END
$$;

COMMENT ON FUNCTION _wa_apply_system_messages(uuid, bigint[]) IS
'Internal: what system messages say of a customer: a new number, a new user id, a new identity key.';
