-- What of every table is about a person, and what becomes of it when the person is erased. A column that is
-- not declared here fails tests/packaging/test_personal_data.py, which holds masks, export, erasure, joining
-- and statistics against this list, too: whoever adds a table says here what it is.

-- kind: phone, name, text, id, address or secret of a person; none.
-- treatment: what erasing the person does. null, replace (by what tells nothing of the person), delete (the
-- row goes), hash (a keyed one stays), keep (and why). Columns of one kind, treatment and reason stand in one
-- line. A contact_id of an erased person is a number that leads to an empty row: it joins, and names nobody.
CREATE OR REPLACE VIEW wa_personal_data WITH (security_barrier = true) AS
SELECT d.table_name, c.column_name, d.kind, d.treatment, d.reason
FROM (
    VALUES
    -- Who the customers are
    ('wa_contacts', 'none', 'keep', 'the row stays, empty: figures and proofs count it',
        'organization_id id created_at updated_at'),
    ('wa_contacts', 'phone', 'null', 'who it is', 'phone_e164 phone_key wa_id'),
    ('wa_contacts', 'id', 'null', 'who it is', 'user_id parent_user_id customer_id identity_hash'),
    ('wa_contacts', 'name', 'null', 'who it is', 'profile_name username'),
    ('wa_contacts', 'address', 'null', 'where the person lives, roughly', 'time_zone'),
    ('wa_contact_identities', 'none', 'keep', 'that there was one, and when',
        'organization_id id contact_id kind is_current source valid_from valid_to'),
    ('wa_contact_identities', 'phone', 'replace', 'by the id of the row; numbers and user ids', 'value'),
    ('wa_conversation_windows', 'none', 'keep', 'times and states',
        'organization_id id number_id contact_id last_customer_message_at last_business_message_at '
        'window_denied_at entry_point_opened_at entry_point_expires_at unread_count created_at '
        'updated_at state state_changed_at opened_at read_at read_call_id assigned_to'),
    ('wa_conversation_windows', 'text', 'null', 'which advertisement brought the person', 'entry_point'),
    ('wa_conversation_windows', 'id', 'null', 'who it is', 'user_id'),
    ('wa_opt_ins', 'none', 'keep', 'that consent was given, how and when',
        'organization_id id contact_id scope source opted_in_at'),
    ('wa_opt_ins', 'text', 'replace', 'emptied; kept without names where keep says so', 'proof'),
    ('wa_opt_outs', 'none', 'keep', 'that the person is not to be written to',
        'organization_id id contact_id scope source opt_out_date revoked_at revoked_source is_keyword '
        'last_asked_at confirmation_id'),
    ('wa_opt_outs', 'phone', 'null', 'who it is', 'phone_number'),
    ('wa_opt_outs', 'text', 'null', 'may quote the person', 'reason'),
    ('wa_provider_calls', 'none', 'keep', 'what was called, when, and what came of it; a week long',
        'organization_id id kind phone_number_id path passing_until arguments state attempts '
        'next_attempt_at leased_until give_up_at http_status result created_at created_by ended_at'),
    ('wa_provider_calls', 'id', 'delete', 'wamids hold the number: calls about its conversations go',
        'body passing_body subject error'),
    ('wa_opt_outs', 'text', 'replace', 'emptied; kept without names where keep says so', 'proof'),
    ('wa_consent_events', 'none', 'keep', 'that consent was given or taken back, how and when',
        'organization_id id contact_id event scope source language actor occurred_at recorded_at'),
    ('wa_consent_events', 'phone', 'null', 'who it is', 'phone_number'),
    ('wa_consent_events', 'text', 'null', 'may quote the person', 'reason text_shown'),
    ('wa_consent_events', 'text', 'replace', 'emptied; kept without names where keep says so', 'proof'),
    ('wa_consent_events', 'id', 'null', 'wamids hold the number', 'wa_message_id'),
    ('wa_consent_events', 'name', 'null', 'where it names the person', 'acting_user'),
    ('wa_opt_in_requests', 'none', 'keep', 'that an opt-in was asked for, and confirmed or not',
        'organization_id id contact_id scope source requested_at expires_at confirmed_at'),
    ('wa_opt_in_requests', 'text', 'replace', 'emptied; kept without names where keep says so', 'proof'),
    ('wa_default_keywords', 'none', 'keep', 'words', 'word_key word meaning scope language'),
    ('wa_keywords', 'none', 'keep', 'words',
        'organization_id word_key word meaning scope language created_at'),
    ('wa_default_consent_texts', 'none', 'keep', 'the same for everybody', 'scope language body'),
    ('wa_consent_texts', 'none', 'keep', 'the same for everybody', 'organization_id scope language body'),
    ('wa_broadcast_lists', 'none', 'keep', 'the business''s own',
        'organization_id id name description created_by created_at updated_at'),
    ('wa_broadcast_members', 'id', 'delete', 'nobody is on a list any more',
        'organization_id list_id contact_id added_by added_at'),

    -- Messages
    ('wa_messages', 'none', 'keep', 'kinds, states, times and costs, which figures count',
        'organization_id id queue_id number_id phone_number_id contact_id direction message_type type '
        'template_name template_language template_category status state state_history '
        'is_within_24h_at_claim is_echo pricing error_code error_title queued_at claimed_at sent_at '
        'delivered_at read_at played_at failed_at edited_at deleted_at provider_at created_at '
        'updated_at'),
    ('wa_messages', 'phone', 'replace', 'by the country''s first digits, which costs go by', 'phone_e164'),
    ('wa_messages', 'id', 'replace', 'by the country''s two letters, which costs go by', 'user_id'),
    ('wa_messages', 'id', 'replace', 'wamids hold the number; by the id of the row', 'wa_message_id'),
    ('wa_messages', 'id', 'null', 'leads to the person, or to a message with the number in its wamid',
        'customer_id reply_to reference'),
    ('wa_messages', 'id', 'replace', 'by a word: that it was in a group is counted', 'group_id'),
    ('wa_messages', 'text', 'replace', 'emptied', 'content'),
    ('wa_messages', 'text', 'replace', 'only the role stays, which figures count', 'metadata'),
    ('wa_messages', 'text', 'null', 'what was said, or quotes it', 'content_text referral error_message'),
    ('wa_message_statuses', 'none', 'keep', 'states and times',
        'organization_id id message_id queue_id status occurred_at received_at error_code error_title '
        'pricing'),
    ('wa_message_statuses', 'id', 'replace', 'wamids hold the number; as in wa_messages', 'wa_message_id'),
    ('wa_message_statuses', 'id', 'replace', 'by the id of the row', 'participant'),
    ('wa_message_statuses', 'phone', 'null', 'who it is', 'recipient_id'),
    ('wa_message_statuses', 'id', 'null', 'who it is', 'recipient_user_id'),
    ('wa_message_statuses', 'text', 'null', 'may name the person', 'error_message conversation'),
    ('wa_message_statuses', 'text', 'replace', 'emptied', 'payload'),
    ('wa_events', 'none', 'keep', 'which message, what, when',
        'organization_id id position kind message_id status occurred_at created_at conversation_id'),
    ('wa_event_consumers', 'none', 'keep', 'programs',
        'organization_id consumer acked_position created_at acked_at'),
    ('timeline_entries', 'none', 'keep', 'what was done, to which object of the host',
        'organization_id id event_type source entity_type entity_id actor_role conversation_id '
        'message_id occurred_at created_at'),
    ('timeline_entries', 'name', 'replace', 'where it names the person', 'actor'),
    ('timeline_entries', 'text', 'replace', 'emptied but for its action, where it is the person''s',
        'content'),
    ('wa_outbound_queue', 'none', 'keep', 'kinds, states and times',
        'organization_id id type template_name template_language priority status scheduled_at '
        'expires_at phone_number_id on_refusal on_unknown fallback_template_name '
        'fallback_template_language contact_id retry_count attempt error_code claimed_at processed_at '
        'created_at change_no'),
    ('wa_outbound_queue', 'name', 'null', 'who of the business wrote it', 'sent_by'),
    ('wa_outbound_queue', 'phone', 'replace', 'by the country''s first digits', 'phone'),
    ('wa_outbound_queue', 'text', 'null', 'what was said, or quotes it',
        'text_body template_params content fallback_template_params last_error sms_fallback_text'),
    ('wa_outbound_queue', 'text', 'replace', 'only the role stays', 'metadata'),
    ('wa_outbound_queue', 'id', 'null', 'leads to the person, or holds the number',
        'reply_to idempotency_key reference customer_id wa_message_id'),
    ('wa_queue_due', 'none', 'delete', 'what waits for an erased person is cancelled first',
        'organization_id number_id class due_at queue_id contact_id template_id hold_reason '
        'expires_at hold_id'),
    ('wa_queue_inflight', 'none', 'keep', 'ids and times; it is waited for',
        'organization_id queue_id attempt number_id contact_id class dispatcher_id claimed_at '
        'is_unknown is_within_24h template_id deadline_at'),
    ('wa_sms_fallbacks', 'none', 'keep', 'ids and times, for as long as the SMS',
        'organization_id queue_id cause state reason due_at sms_id created_at category'),
    ('wa_late_results', 'text', 'delete', 'the provider''s answer names the recipient',
        'organization_id queue_id attempt result sqlstate error tries came_at try_at'),
    ('wa_pair_rates', 'none', 'keep', 'a number that names nobody; for two days',
        'organization_id number_id contact_id burst_started_at burst_count clear_at wait_until '
        'awaited_id'),
    ('wa_tier_usages', 'none', 'keep', 'a number that names nobody; for two days',
        'organization_id portfolio_id contact_id last_at'),
    ('wa_queue_holds', 'none', 'keep', 'a number that names nobody; while it is needed',
        'organization_id id number_id kind contact_id reason opens_at tier_limit portfolio_id '
        'passed_id'),

    ('wa_contact_cool_offs', 'none', 'keep', 'a number that names nobody; until it is over',
        'organization_id contact_id until error_code created_at'),

    -- What came in
    ('wa_webhook_logs', 'none', 'keep', 'times and states; the provider''s address',
        'id received_at provider source status attempts atoms failed_atoms processed_at signed_by'),
    ('wa_webhook_logs', 'text', 'replace', 'the person''s atoms are taken out of the body', 'body'),
    ('wa_webhook_logs', 'text', 'replace', 'where it names the person', 'error'),
    ('wa_webhook_errors', 'none', 'keep', 'what failed, when',
        'log_id atom kind sqlstate occurred_at resolved_at tries try_at'),
    ('wa_webhook_errors', 'text', 'null', 'the atom, where it is the person''s', 'payload'),
    ('wa_webhook_errors', 'text', 'replace', 'where it is the person''s atom', 'error'),
    ('wa_account_events', 'none', 'keep', 'about the business''s account',
        'organization_id id waba_id phone_number_id field event dedupe_key occurred_at received_at'),
    ('wa_account_events', 'text', 'replace', 'emptied where it names the person', 'payload'),

    -- Files
    ('wa_media', 'text', 'delete', 'the person''s files, and those that only the person was sent',
        'organization_id id message_id direction phone_number_id provider_media_id media_type '
        'mime_type filename file_size sha256 status attempts next_attempt_at error stored_at '
        'expires_at created_at contact_id blob_id leased_until is_wanted used_at'),
    ('wa_media_blobs', 'text', 'delete', 'with the last file that has them',
        'organization_id id sha256 size store location is_own is_complete created_at'),
    ('wa_media_chunks', 'text', 'delete', 'with the last file that has them',
        'organization_id blob_id n content'),
    ('wa_media_signatures', 'none', 'delete', 'with the file',
        'organization_id id media_id message_id token_hash max_access access_count expires_at '
        'created_by created_at last_accessed_at'),
    ('wa_media_openings', 'address', 'delete', 'with the file; a hash of whoever opened the link',
        'organization_id signature_id client_hash opened_at requests'),
    ('wa_media_uploads', 'none', 'delete', 'what the provider has of a file, with the file',
        'organization_id id sha256 phone_number_id mime_type media_id status provider_media_id '
        'attempts next_attempt_at leased_until error requested_at changed_at expires_at'),
    ('wa_media_garbage', 'none', 'keep', 'until a dispatcher has deleted the bytes',
        'organization_id blob_id store location due_at attempts error'),
    ('wa_media_usages', 'none', 'keep', 'a sum', 'organization_id bytes'),

    -- Flows and notifications
    ('wa_automation_flows', 'none', 'delete', 'with the row',
        'organization_id id flow_type current_step status next_action_at retry_count created_by created_at '
        'updated_at ended_at definition_version contact_id run_key visits step_no step_entered_at wait '
        'seen_events last_queue_id outcome'),
    ('wa_automation_flows', 'phone', 'delete', 'with the row', 'phone_e164'),
    ('wa_automation_flows', 'id', 'delete', 'with the row', 'user_id'),
    ('wa_automation_flows', 'text', 'delete', 'with the row', 'trigger_data last_error variables'),
    ('wa_flow_definitions', 'none', 'keep', 'the business''s own',
        'organization_id name version description category trigger key interrupts limits steps plan state '
        'state_reason checksum created_by created_at activated_at retired_at'),
    ('wa_flow_functions', 'none', 'keep', 'the business''s own',
        'organization_id name function_name description created_by created_at'),
    ('wa_flow_steps', 'none', 'keep', 'steps and times, which figures count',
        'organization_id flow_id step_no contact_id step visit type outcome queue_id entered_at ended_at'),
    ('wa_flow_steps', 'text', 'null', 'may name the person', 'detail'),
    ('wa_flow_events', 'text', 'delete', 'what the person wrote or did; all go after thirty days',
        'organization_id id kind key contact_id data event_id is_matched created_at'),
    ('siren_templates', 'none', 'keep', 'the business''s own',
        'organization_id id name channel template_name body_text is_enabled created_at updated_at'),
    ('siren_events', 'none', 'keep', 'that there was one',
        'organization_id id template_id status scheduled_at sent_at retry_count created_at updated_at'),
    ('siren_events', 'phone', 'null', 'who it is', 'phone_e164'),
    ('siren_events', 'text', 'replace', 'emptied', 'context'),
    ('siren_events', 'text', 'null', 'may name the person', 'error_message'),

    -- Programs of the business, and what they did
    ('wa_api_keys', 'none', 'keep', 'programs and employees of the business',
        'organization_id id name prefix role_name scopes is_test requests_per_minute expires_at '
        'created_at created_by last_used_at revoked_at revoked_by'),
    ('wa_api_keys', 'secret', 'keep', 'of a program; a hash', 'secret_hash'),
    ('wa_api_key_uses', 'none', 'keep', 'counts', 'organization_id key_id minute requests'),
    ('wa_idempotent_requests', 'text', 'delete', 'requests about the person; all go after a day',
        'organization_id caller idempotency_key body_hash result created_at'),
    ('wa_event_subscriptions', 'none', 'keep', 'programs; errors of URLs',
        'organization_id id url kinds state state_reason state_changed_at read_position '
        'starts_after_id failures failing_since last_error retry_at last_success_at created_at '
        'created_by'),
    ('wa_event_secrets', 'secret', 'keep', 'of a program, sealed',
        'organization_id subscription_id id ciphertext key_id fingerprint created_at valid_until'),
    ('wa_event_deliveries', 'none', 'keep', 'which event, when, how it went',
        'organization_id subscription_id event_id webhook_id type position order_key state attempts '
        'next_attempt_at first_attempt_at last_attempt_at duration_ms http_status created_at ended_at'),
    ('wa_event_deliveries', 'text', 'null', 'may quote what the receiver was sent', 'answer error'),
    ('audit_log', 'none', 'keep', 'who of the business did what, when',
        'organization_id id event entity created_at session_role database_role'),
    ('audit_log', 'text', 'replace', 'where it names the person; the chain stays valid',
        'actor entity_id client_address meta'),
    ('wa_audit_seals', 'none', 'keep', 'hashes, and salts, which go with what was erased',
        'organization_id position audit_id salt leaf hash field_salts erased sealed_at'),
    ('wa_audit_heads', 'none', 'keep', 'where a chain ends',
        'organization_id position hash sealed_at checkpoint_position checkpoint_hash checked_position '
        'checked_at problems problem found digest_salt acknowledged'),
    ('wa_audit_unsealed', 'none', 'keep', 'ids', 'organization_id audit_id'),
    ('wa_audit_counts', 'none', 'keep', 'who sent forged webhooks, or named no user; for a minute',
        'organization_id event subject minute further reason'),
    ('wa_faults', 'none', 'keep', 'what failed, when',
        'organization_id work subject sqlstate first_at last_at times'),
    ('wa_faults', 'text', 'replace', 'where it names the person', 'error'),
    ('wa_job_runs', 'none', 'keep', 'what ran, when', 'id job started_at duration row_count ran_by'),
    ('wa_job_runs', 'text', 'replace', 'where it names the person', 'error'),

    -- What is erased, held and hashed
    ('wa_privacy_keys', 'secret', 'keep', 'makes the hashes of numbers; nobody''s but the owner''s',
        'organization_id purpose version inner_pad outer_pad created_at'),
    ('wa_erasures', 'none', 'keep', 'that, when and why somebody was erased',
        'organization_id id contact_id state step place counts keep reason requested_at requested_by '
        'done_at statistics_at'),
    ('wa_erased_identities', 'phone', 'hash', 'keeps the person opted out, also after a restore',
        'hash'),
    ('wa_erased_identities', 'none', 'keep', 'when, and by which key',
        'organization_id key_version erasure_id erased_at'),
    ('wa_retention_marks', 'none', 'keep', 'how far retention came', 'organization_id kind place moved_at'),
    ('wa_retention_stragglers', 'none', 'keep', 'ids, until they are seen to',
        'organization_id kind queue_id name'),
    ('wa_archive_files', 'none', 'keep', 'which file holds what',
        'organization_id kind number state location name began_at kept_at place row_count byte_count '
        'sha256 first_at last_at'),
    ('wa_archive_keys', 'secret', 'delete', 'what was archived of the person opens no more',
        'organization_id id contact_id key created_at'),
    ('wa_contact_holds', 'none', 'keep', 'why somebody is kept; a number that names nobody',
        'organization_id id contact_id reason held_at held_by released_at released_by'),

    -- People who work with the system
    ('wa_users', 'none', 'keep', 'the business''s own people, not its customers',
        'organization_id id role role_name is_active created_at updated_at'),
    ('wa_users', 'name', 'keep', 'an employee: whoever manages users removes them', 'display_name'),
    ('wa_users', 'phone', 'keep', 'an employee: whoever manages users removes them', 'phone_e164'),
    ('wa_users', 'id', 'keep', 'an employee: whoever manages users removes them', 'external_id'),
    ('wa_role_overrides', 'none', 'keep', 'rules', 'organization_id role permission is_allowed'),

    -- The host's own people, in tables of the optional packs
    ('profiles', 'none', 'keep', 'the business''s own people, not its customers',
        'organization_id id role_id created_at'),
    ('profiles', 'name', 'keep', 'an employee: the host erases its own people', 'full_name'),
    ('profiles', 'address', 'keep', 'an employee: the host erases its own people', 'email'),
    ('profiles', 'phone', 'keep', 'an employee: the host erases its own people', 'phone'),
    ('attendees', 'none', 'keep', 'ids', 'id order_id ticket_type created_at organizer_id'),
    ('attendees', 'text', 'keep', 'the host''s own record of a ticket: the host erases it',
        'attendee_info'),
    ('orders', 'none', 'keep', 'ids', 'id event_id status created_at organizer_id'),
    ('ai_events', 'none', 'keep', 'about an event',
        'id organizer_id name start_date time_zone location status reminders created_at'),
    ('ai_tasks', 'none', 'keep', 'about an event',
        'id event_id task_type status scheduled_for template_name metadata created_at organizer_id'),
    ('ai_tasks', 'text', 'keep', 'may pick out an attendee: the host erases it', 'recipient_filter'),

    -- Of the business, of the installation, or counted
    ('wa_organizations', 'none', 'keep', 'settings',
        'id name is_default default_region default_area_code default_number_id rate_limit_per_minute '
        'window_margin allow_manual_window on_refusal on_unknown unknown_grace unknown_grace_silent '
        'order_mode order_wait created_at message_retention audit_retention default_language '
        'time_zone event_delivery_retention public_url media_store media_location media_quota '
        'media_contact_quota text_retention media_retention retention_previewed_at unknown_users '
        'stop_scopes confirms_opt_outs require_opt_in archive_location sms_fallback sms_authentication_after '
        'sms_requires_opt_in sends_templates'),
    ('wa_organization_roles', 'none', 'keep', 'roles', 'organization_id role_name created_at'),
    ('wa_installations', 'none', 'keep', 'settings',
        'is_current system_identifier database_oid timeline_id data_directory_mark adopted_at '
        'adopted_by is_sending_enabled sending_note webhook_log_retention outside_networks '
        'outside_plain_http public_url media_store media_location'),
    ('wa_secrets', 'none', 'keep', 'of the business',
        'organization_id id name phone_number_id key_id fingerprint is_active created_at created_by'),
    ('wa_secrets', 'secret', 'keep', 'of the business, sealed', 'ciphertext'),
    ('wa_locks', 'none', 'keep', 'words of ours', 'name'),
    ('wa_migrations', 'none', 'keep', 'what was installed',
        'version step checksum objects applied_at applied_by'),
    ('wa_packs', 'none', 'keep', 'what was installed',
        'name step version checksum objects installed_at installed_by'),
    ('wa_portfolios', 'none', 'keep', 'of the business',
        'organization_id portfolio_id messaging_limit tier_limit updated_at'),
    ('wa_phone_numbers', 'none', 'keep', 'the business''s own numbers',
        'organization_id id phone_number_id display_phone phone_e164 waba_id portfolio_id provider '
        'throughput is_test status quality_rating verified_name name_status username pause_scope '
        'pause_reason paused_at paused_until templates_blocked_until replies_blocked_until '
        'last_webhook_at created_at updated_at account_time_zone business_profile profile_read_at channel'),
    ('wa_volume_tiers', 'none', 'keep', 'what the provider charges the business',
        'organization_id waba_id category region month tier volume_from volume_to told_at'),
    ('wa_number_routes', 'none', 'keep', 'the business''s own numbers',
        'phone_number_id organization_id number_id waba_id'),
    ('wa_panic_modes', 'none', 'keep', 'about the business''s sending',
        'organization_id id number_id integration reason metadata active triggered_at triggered_by '
        'resolved_at resolved_by auto_resolve_at'),
    ('wa_templates', 'none', 'keep', 'the business''s own texts, the same for everybody',
        'organization_id id waba_id name language category previous_category correct_category '
        'approval_status status rejected_reason quality_score provider_template_id meta_template_id '
        'parameter_format header_text header_format body_text footer_text buttons components '
        'parameters variable_mapping body_placeholders header_placeholders button_parameters '
        'is_enabled blocked_reason blocked_at blocked_until created_by created_at updated_at '
        'synced_at is_plain'),
    ('wa_template_syncs', 'none', 'keep', 'how far a synchronisation came',
        'organization_id waba_id started_at after_cursor finished_at templates'),
    ('wa_app_shares', 'none', 'keep', 'organizations', 'organization_id with_id created_at created_by'),
    ('wa_lanes', 'none', 'keep', 'a lock', 'organization_id number_id'),
    ('wa_lane_states', 'none', 'keep', 'where claims stand',
        'organization_id number_id version cursor_due cursor_id shares share_clock look_again_at '
        'served_at held_until hold_reason next_slot_at is_skipping look_due look_id'),
    ('wa_lane_slowdowns', 'none', 'keep', 'how fast', 'organization_id number_id share slowed_at'),
    ('wa_rate_limits', 'none', 'keep', 'counts',
        'organization_id scope scope_id version taken_at taken updated_at'),
    ('wa_dispatchers', 'none', 'keep', 'processes', 'id host pid version started_at seen_at stopped_at'),
    ('wa_error_rules', 'none', 'keep', 'rules',
        'code http_status title action max_retries wait subcode provider allows_sms'),
    ('wa_providers', 'none', 'keep', 'how providers are asked',
        'name send_path upload_path media_path request_function answer_function webhook_function errors_of '
        'features whatsapp_ids number_calls'),
    ('wa_jobs', 'none', 'keep', 'what runs when',
        'name function_name schedule is_enabled description batch_rows pack scheduled_at next_run_at rest'),
    ('wa_message_rollups', 'none', 'keep', 'counts',
        'organization_id quarter_at line day phone_number_id direction is_echo message_type '
        'template_name status country pricing_category charge messages delivered seen queued '
        'queue_time charged_at charged_on is_service'),
    ('wa_response_rollups', 'none', 'keep', 'counts',
        'organization_id quarter_at line day phone_number_id role responses response_time '
        'longest_time'),
    ('wa_rollup_marks', 'none', 'keep', 'what to count anew',
        'organization_id id quarter_at changes_order'),
    ('wa_rollup_horizons', 'none', 'keep', 'until when was counted', 'organization_id forgotten_before'),
    ('wa_quiet_hours', 'none', 'keep', 'rules',
        'organization_id id channel purpose phone_number_id days from_time to_time created_at'),
    ('wa_quiet_days', 'none', 'keep', 'rules', 'organization_id day purpose name'),
    ('wa_zone_prefixes', 'none', 'keep', 'rules', 'organization_id prefix time_zone'),
    ('wa_phone_zones', 'none', 'keep', 'of countries', 'prefix zones'),
    ('wa_contact_caps', 'none', 'keep', 'rules', 'organization_id purpose messages days on_full'),
    ('wa_wait_rechecks', 'none', 'keep', 'how far a look came', 'organization_id looked_id'),
    ('wa_rates', 'none', 'keep', 'prices',
        'organization_id country category valid_from currency rate created_at region volume_from')
) d (table_name, kind, treatment, reason, columns)
CROSS JOIN LATERAL string_to_table(d.columns, ' ') c (column_name);

COMMENT ON VIEW wa_personal_data IS
'Every column of every table: whether it holds something of a person, of which kind, and what erasing the '
'person does to it, with the reason.';
COMMENT ON COLUMN wa_personal_data.kind IS
'phone, name, text, id, address or secret; none: nothing of a person.';
COMMENT ON COLUMN wa_personal_data.treatment IS
'null, replace, delete (the row), hash or keep.';
