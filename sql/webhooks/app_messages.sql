-- What the business wrote outside the queue: messages from the WhatsApp Business app, which come as echoes.

CREATE OR REPLACE FUNCTION _wa_apply_echoes(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_ids bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a
        WHERE coalesce(a.payload ->> 'id', '') = ''
            OR num_nonnulls(
                a.payload ->> 'to', a.payload ->> 'to_user_id', a.payload ->> 'to_parent_user_id',
                a.payload ->> 'group_id'
            ) = 0
    ) THEN
        PERFORM _wa_refuse_atoms(p_atoms, 'the echo has no id or no recipient');
    END IF;
    v_contact_ids := _wa_resolve_atoms(p_org, p_atoms, 'echo');
    v_ids := _wa_record_messages(p_org, ARRAY(
        SELECT ROW(
            'outbound', a.number_id, a.phone_number_id, v_contact_ids[a.n], a.phone, a.phone_key, a.user_id,
            a.payload ->> 'group_id', a.payload ->> 'id', t.type, t.content, t.content_text, t.reply_to,
            NULL, NULL, NULL, NULL,
            a.payload - ARRAY['id', 'from', 'to', 'to_user_id', 'timestamp', 'type', 'group_id', t.type],
            a.at
        )::_wa_told_messages
        FROM _wa_number_atoms(p_atoms) a
        CROSS JOIN LATERAL _wa_read_message(a.payload) t
        ORDER BY a.n
    ));
    IF v_ids IS NOT NULL THEN
        PERFORM _wa_record_business_messages(p_org, v_ids);
        PERFORM _wa_take_early_statuses(p_org, v_ids);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_echoes(uuid, _wa_webhook_atoms[]) IS
'Internal: records messages that were sent from the WhatsApp Business app.';
