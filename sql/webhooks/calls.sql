-- Calls, in both directions.

CREATE OR REPLACE FUNCTION _wa_apply_calls(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_ids bigint[];
    v_started bigint[];
BEGIN
    IF EXISTS (
        SELECT FROM unnest(p_atoms) a
        WHERE coalesce(a.payload ->> 'id', '') = '' OR num_nonnulls(
            a.payload ->> 'from', a.payload ->> 'from_user_id', a.payload ->> 'to',
            a.payload ->> 'to_user_id', a.contact ->> 'wa_id',
            a.contact ->> 'user_id'
        ) = 0
    ) THEN
        PERFORM _wa_refuse_atoms(p_atoms, 'the call has no id or no customer');
    END IF;
    v_contact_ids := _wa_resolve_atoms(p_org, p_atoms, 'call');
    -- One of each call, with all that the batch tells of it.
    v_started := _wa_record_calls(p_org, ARRAY(
        SELECT ROW(
            CASE WHEN bool_or(_wa_is_customer_call(a.payload, a.display_phone)) THEN 'inbound'
                ELSE 'outbound' END,
            min(a.number_id), min(a.phone_number_id), min(v_contact_ids[a.n]), min(a.phone),
            min(a.phone_key), min(a.user_id), NULL, a.payload ->> 'id', 'call',
            jsonb_object_agg(coalesce(a.payload ->> 'event', 'unknown'), a.payload - 'id'), NULL, NULL, NULL,
            NULL, NULL, NULL, NULL, min(a.at)
        )::_wa_told_messages
        FROM _wa_number_atoms(p_atoms) a
        GROUP BY a.payload ->> 'id'
    ));
    IF v_started IS NOT NULL THEN
        PERFORM _wa_record_customer_messages(p_org, v_started);
        PERFORM _wa_record_business_messages(p_org, v_started);
        PERFORM _wa_take_early_statuses(p_org, v_started);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_calls(uuid, _wa_webhook_atoms[]) IS
'Internal: records calls; one that the customer makes opens the window.';
