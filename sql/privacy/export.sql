-- All that is stored about a person, for the person.

CREATE OR REPLACE FUNCTION export_wa_contact(p_phone text, p_with_webhooks boolean DEFAULT false)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint := _wa_require_known(v_org, p_phone);
    v_known record := _wa_identities_of(v_org, v_contact_id);
    v_pattern text := _wa_person_pattern(v_known.who);
    v_export jsonb;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'admin');
    v_export := jsonb_build_object('exported_at', clock_timestamp(), 'organization', (
            SELECT o.name FROM wa_organizations o WHERE o.id = v_org
        ))
        || _wa_export_contact_of(v_org, v_contact_id)
        || jsonb_build_object(
            'conversations', _wa_export_conversations_of(v_org, v_contact_id),
            'consent', _wa_export_consent_of(v_org, v_contact_id),
            'queue', _wa_export_queue_of(v_org, v_contact_id, v_known.addresses),
            'files', _wa_export_media_of(v_org, v_contact_id),
            'lists', _wa_export_campaigns_of(v_org, v_contact_id),
            'deliveries', _wa_export_deliveries_of(v_org, v_contact_id),
            'account_events', _wa_export_account_events_of(v_org, v_pattern),
            'requests', _wa_export_requests_of(v_org, v_pattern),
            'audit', _wa_export_audit_of(v_org, v_pattern)
        )
        || _wa_export_ledger_of(v_org, v_contact_id, v_known.who, v_pattern)
        || _wa_export_flows_of(v_org, v_known.addresses, v_pattern)
        || _wa_export_flow_records_of(v_org, v_contact_id)
        || jsonb_build_object('holds', (
            SELECT coalesce(jsonb_agg(to_jsonb(h) - 'organization_id' ORDER BY h.id), '[]')
            FROM wa_contact_holds h WHERE h.organization_id = v_org AND h.contact_id = v_contact_id
        ));
    IF p_with_webhooks THEN
        v_export := v_export || jsonb_build_object('webhooks', _wa_export_webhooks_of(v_org, v_known.who));
    END IF;
    PERFORM _wa_audit(v_org, 'contact_exported', 'wa_contacts', v_contact_id::text, '{}');
    RETURN v_export;
END
$$;

COMMENT ON FUNCTION export_wa_contact(text, boolean) IS
'All that is stored about a person, found by number or user id, as one document; the export is audited. Raw '
'webhooks, which tell the same as messages and statuses, are read only if p_with_webhooks says so: all of '
'them have to be looked through. Bytes of files are had by links. Raises WA070 where nobody is known.';
