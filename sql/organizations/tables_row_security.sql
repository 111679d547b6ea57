-- A role sees and writes the rows of its own organization only; wa_admin sees all. Which organization that is
-- comes from role membership (current_wa_organization()), never from a setting alone. Policies hold no
-- subquery, so that tables can be distributed by tenant; for wa_admin the planner drops the first one (x OR
-- true).

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'wa_portfolios', 'wa_phone_numbers', 'wa_volume_tiers', 'wa_number_routes', 'wa_provider_calls',
        'wa_lanes', 'wa_lane_states',
        'wa_queue_holds', 'wa_lane_slowdowns', 'wa_sms_fallbacks', 'wa_rate_limits',
        'wa_pair_rates', 'wa_tier_usages', 'wa_faults', 'wa_late_results', 'wa_contacts', 'wa_contact_identities', 'wa_conversation_windows',
        'wa_quiet_hours', 'wa_quiet_days', 'wa_zone_prefixes', 'wa_contact_caps', 'wa_contact_cool_offs',
        'wa_wait_rechecks', 'wa_users', 'wa_role_overrides',
        'wa_opt_ins', 'wa_opt_outs', 'wa_consent_events', 'wa_opt_in_requests', 'wa_keywords', 'wa_consent_texts',
        'wa_panic_modes', 'wa_templates', 'wa_messages', 'wa_message_statuses',
        'wa_events', 'wa_event_consumers', 'wa_outbound_queue', 'wa_queue_due', 'wa_queue_inflight',
        'wa_account_events', 'wa_app_shares', 'audit_log',
        'wa_audit_unsealed', 'wa_audit_seals', 'wa_audit_heads', 'wa_audit_counts', 'wa_secrets', 'wa_template_syncs',
        'wa_automation_flows', 'wa_flow_definitions', 'wa_flow_steps', 'wa_flow_events', 'wa_flow_functions',
        'siren_templates', 'siren_events', 'timeline_entries',
        'wa_broadcast_lists', 'wa_broadcast_members',
        'wa_api_keys', 'wa_api_key_uses', 'wa_idempotent_requests',
        'wa_event_subscriptions', 'wa_event_secrets', 'wa_event_deliveries',
        'wa_media', 'wa_media_blobs', 'wa_media_chunks', 'wa_media_garbage', 'wa_media_usages',
        'wa_media_signatures', 'wa_media_openings', 'wa_media_uploads',
        'wa_message_rollups', 'wa_response_rollups', 'wa_rollup_marks', 'wa_rollup_horizons', 'wa_rates',
        'wa_contact_holds', 'wa_privacy_keys', 'wa_erasures', 'wa_erased_identities', 'wa_retention_marks',
        'wa_archive_keys', 'wa_archive_files', 'wa_retention_stragglers'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (organization_id = current_wa_organization())'
            ' WITH CHECK (organization_id = current_wa_organization())', v_table
        );
        EXECUTE format('CREATE POLICY admin ON %I TO wa_admin USING (true) WITH CHECK (true)', v_table);
    END LOOP;
END
$$;

ALTER TABLE wa_organizations ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON wa_organizations USING (id = current_wa_organization())
WITH CHECK (id = current_wa_organization());
CREATE POLICY admin ON wa_organizations TO wa_admin USING (true) WITH CHECK (true);

-- A role sees its own memberships.
ALTER TABLE wa_organization_roles ENABLE ROW LEVEL SECURITY;
CREATE POLICY member ON wa_organization_roles FOR SELECT
USING (pg_has_role(to_regrole(quote_ident(role_name)), 'MEMBER'));
CREATE POLICY admin ON wa_organization_roles TO wa_admin USING (true) WITH CHECK (true);
