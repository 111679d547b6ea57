-- To whom and where a queued message goes. A row belongs to the contact whose number or user id it was queued
-- to; contacts change both, and numbers are handed on.

-- Called by the claim only for rows whose address is not that of their contact at first sight: its cost is
-- no matter. The claim holds the row's lock, so that neither its owner nor a merge of contacts can change it.
CREATE OR REPLACE FUNCTION _wa_readdress(p_org uuid, p_id uuid, p_contact_id bigint, p_phone text)
RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_address text := _wa_address_of(p_org, p_contact_id, p_phone);
    v_contact_id bigint;
BEGIN
    IF v_address = p_phone THEN
        RETURN p_phone;
    ELSIF v_address IS NOT NULL THEN
        UPDATE wa_outbound_queue q SET phone = v_address, change_no = q.change_no + 1
        WHERE q.organization_id = p_org AND q.id = p_id;
        RETURN v_address;
    END IF;
    IF NOT EXISTS (
        SELECT FROM wa_contacts c WHERE c.organization_id = p_org AND c.id = p_contact_id
    ) THEN
        -- It was queued while its contact became one with another, which it was not judged as: once more.
        SELECT c.contact_id INTO v_contact_id FROM _wa_contact_of(p_org, p_phone) c;
    END IF;
    IF v_contact_id IS NULL THEN
        PERFORM _wa_fail_messages(p_org, ARRAY[p_id], 'recipient_changed',
            _wa_refusal_text('recipient_changed'));
    ELSE
        UPDATE wa_queue_inflight SET contact_id = v_contact_id
        WHERE organization_id = p_org AND queue_id = p_id;
        PERFORM _wa_requeue(p_org, ARRAY[p_id], NULL, NULL, false);
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION _wa_readdress(uuid, uuid, bigint, text) IS
'Internal: where a row that is being granted goes, which its phone tells from then on. NULL when it cannot: '
'it has failed then (recipient_changed), or waits again because its contact has become part of another.';

CREATE OR REPLACE FUNCTION _wa_recipients_of(p_org uuid, p_ids uuid[])
RETURNS TABLE (queue_id uuid, contact_id bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    v_rest record;
BEGIN
    RETURN QUERY
    SELECT q.id, c.id FROM _wa_queue_rows(p_org, p_ids) q
    JOIN wa_contacts c ON c.organization_id = p_org AND c.id = q.contact_id;

    -- Never claimed, or its contact has become part of another: who had the number when it was queued.
    SELECT array_agg(q.id ORDER BY q.id) AS ids,
        array_agg(CASE WHEN NOT _wa_is_user_id(q.phone) THEN q.phone END ORDER BY q.id) AS phones,
        array_agg(CASE WHEN _wa_is_user_id(q.phone) THEN q.phone END ORDER BY q.id) AS user_ids,
        array_agg(q.created_at ORDER BY q.id) AS ats
    INTO v_rest
    FROM _wa_queue_rows(p_org, p_ids) q
    WHERE NOT EXISTS (
        SELECT FROM wa_contacts c WHERE c.organization_id = p_org AND c.id = q.contact_id
    );
    IF v_rest.ids IS NOT NULL THEN
        RETURN QUERY
        SELECT v_rest.ids[r.n], r.contact_id
        FROM _wa_resolve_contacts(p_org, v_rest.phones, v_rest.user_ids, 'queue', v_rest.ats) r;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_recipients_of(uuid, uuid[]) IS
'Internal: the contact that each row of the queue is for, whoever has its number by now.';
