-- What an opt-out does to the queue.

-- In a trigger, so that a row written by hand has the same effect as the function.
CREATE OR REPLACE FUNCTION tg_wa_opt_outs__cancel_queued() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_cancel_due(o.organization_id, array_agg(o.contact_id), o.scope, 'the contact opted out')
    FROM added o
    WHERE o.revoked_at IS NULL
    GROUP BY o.organization_id, o.scope;
    -- Once for what was said, however many scopes it has, and only where nothing else stops it.
    INSERT INTO wa_outbound_queue (
        organization_id, id, phone, text_body, phone_number_id, priority, idempotency_key, on_refusal,
        metadata
    )
    SELECT DISTINCT ON (o.confirmation_id) o.organization_id, o.confirmation_id,
        coalesce(c.phone_e164, c.user_id), t.body, m.phone_number_id, 'high', 'opt-out:' || o.confirmation_id,
        'record', jsonb_build_object('confirms', 'opt-out', 'wa_message_id', m.wa_message_id)
    FROM added o
    JOIN wa_organizations g ON g.id = o.organization_id AND g.confirms_opt_outs
    JOIN wa_contacts c ON c.organization_id = o.organization_id AND c.id = o.contact_id
    JOIN wa_messages m
        ON m.organization_id = o.organization_id AND m.wa_message_id = o.proof ->> 'wa_message_id'
    JOIN wa_conversation_windows w
        ON w.organization_id = o.organization_id AND w.contact_id = o.contact_id AND w.number_id = m.number_id
    CROSS JOIN LATERAL (
        SELECT _wa_consent_text(
            o.organization_id, CASE o.scope WHEN 'marketing' THEN 'marketing' ELSE 'all' END,
            o.proof ->> 'language'
        ) AS body
    ) t
    WHERE o.confirmation_id IS NOT NULL AND o.revoked_at IS NULL AND t.body IS NOT NULL
        AND num_nonnulls(c.phone_e164, c.user_id) > 0
        AND _wa_can_reply(w.last_customer_message_at, w.window_denied_at, clock_timestamp(), g.window_margin)
        AND NOT EXISTS (
            SELECT FROM wa_opt_outs x
            WHERE x.organization_id = o.organization_id AND x.contact_id = o.contact_id
                AND x.revoked_at IS NULL AND x.scope IN ('all', 'utility')
                AND x.confirmation_id IS DISTINCT FROM o.confirmation_id
        )
    ORDER BY o.confirmation_id, o.scope
    ON CONFLICT (organization_id, idempotency_key) DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_outs__cancel_queued() IS
'Cancels what is queued to a contact and covered by the scope, and queues the message that confirms a word '
'or '
'a button, in the transaction of the opt-out.';

CREATE OR REPLACE TRIGGER cancel_queued AFTER INSERT ON wa_opt_outs
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_outs__cancel_queued();
