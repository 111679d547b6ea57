-- What analysts may read: contact ids for joins, the last two digits of a phone number and a keyed hash of
-- it, the same wherever the organization has it; no text, names or values. The hash is made only where it is
-- asked for. These views run with the owner's rights, because an analyst may read none of the tables; each
-- one therefore filters by the organizations that the reader may see, and is a barrier for conditions that
-- would look past that filter.

CREATE OR REPLACE VIEW wa_contacts_masked WITH (security_barrier = true) AS
SELECT
    c.organization_id, c.id AS contact_id, _wa_mask_phone(c.phone_e164) AS phone,
    c.phone_e164 IS NOT NULL AS has_phone, c.user_id IS NOT NULL AS has_user_id, c.created_at, c.updated_at,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, coalesce(c.phone_key, c.user_id)) FROM wa_privacy_keys k
        WHERE k.organization_id = c.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_contacts c
WHERE c.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_conversations_masked WITH (security_barrier = true) AS
SELECT
    w.organization_id, w.id, w.contact_id, w.number_id, n.phone_number_id,
    _wa_mask_phone(c.phone_e164) AS phone, w.last_customer_message_at, w.last_business_message_at,
    _wa_window_open(w.last_customer_message_at, clock_timestamp(), interval '0') AS is_within_24h,
    w.entry_point_opened_at, w.entry_point_expires_at, w.unread_count, w.created_at, w.updated_at, w.state,
    w.state_changed_at, w.opened_at,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, coalesce(c.phone_key, c.user_id)) FROM wa_privacy_keys k
        WHERE k.organization_id = w.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_conversation_windows w
JOIN wa_contacts c ON c.organization_id = w.organization_id AND c.id = w.contact_id
JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
WHERE w.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_messages_masked WITH (security_barrier = true) AS
SELECT
    m.organization_id, m.id, m.contact_id, m.number_id, m.phone_number_id,
    _wa_mask_phone(m.phone_e164) AS phone, m.direction, m.message_type, m.template_name, m.template_language,
    m.template_category, m.status, m.state, m.is_within_24h_at_claim, m.is_echo,
    m.group_id IS NOT NULL AS is_in_group, m.reply_to IS NOT NULL AS is_reply,
    m.referral IS NOT NULL AS is_referred, m.pricing, m.error_code, m.error_title, m.queued_at, m.claimed_at,
    m.sent_at, m.delivered_at, m.read_at, m.played_at, m.failed_at, m.edited_at, m.deleted_at, m.provider_at,
    m.created_at, m.updated_at,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, coalesce(m.phone_e164, m.user_id)) FROM wa_privacy_keys k
        WHERE k.organization_id = m.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_messages m
WHERE m.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_message_statuses_masked WITH (security_barrier = true) AS
SELECT
    s.organization_id, s.id, s.message_id, s.status, s.occurred_at, s.received_at,
    _wa_mask_phone(s.recipient_id) AS recipient, s.error_code, s.error_title, s.pricing,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, coalesce('+' || s.recipient_id, s.recipient_user_id))
        FROM wa_privacy_keys k
        WHERE k.organization_id = s.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_message_statuses s
WHERE s.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_outbound_queue_masked WITH (security_barrier = true) AS
SELECT
    q.organization_id, q.id, coalesce(q.contact_id, d.contact_id, i.contact_id, m.contact_id) AS contact_id,
    _wa_mask_phone(q.phone) AS phone, q.type, q.template_name, q.template_language, q.priority, q.status,
    q.scheduled_at, q.expires_at, q.phone_number_id, q.retry_count, q.attempt, q.error_code, q.claimed_at,
    q.processed_at, q.created_at,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, q.phone) FROM wa_privacy_keys k
        WHERE k.organization_id = q.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_outbound_queue q
LEFT JOIN wa_queue_due d ON d.organization_id = q.organization_id AND d.queue_id = q.id
LEFT JOIN wa_queue_inflight i ON i.organization_id = q.organization_id AND i.queue_id = q.id
LEFT JOIN wa_messages m ON m.organization_id = q.organization_id AND m.queue_id = q.id
WHERE q.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_templates_masked WITH (security_barrier = true) AS
SELECT
    t.organization_id, t.id, t.waba_id, t.name, t.language, t.category, t.approval_status, t.status,
    t.rejected_reason, t.quality_score, t.parameter_format, t.is_enabled, t.blocked_at, t.blocked_until,
    t.created_at, t.updated_at, t.synced_at
FROM wa_templates t
WHERE t.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_opt_ins_masked WITH (security_barrier = true) AS
SELECT i.organization_id, i.id, i.contact_id, i.scope, i.source, i.opted_in_at
FROM wa_opt_ins i
WHERE i.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_opt_outs_masked WITH (security_barrier = true) AS
SELECT
    o.organization_id, o.id, o.contact_id, o.scope, _wa_mask_phone(o.phone_number) AS phone, o.source,
    o.opt_out_date, o.revoked_at, o.revoked_source,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, o.phone_number) FROM wa_privacy_keys k
        WHERE k.organization_id = o.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_opt_outs o
WHERE o.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_consent_events_masked WITH (security_barrier = true) AS
SELECT
    e.organization_id, e.id, e.contact_id, e.event, e.scope, e.source, e.language, e.occurred_at,
    e.recorded_at, e.text_shown IS NOT NULL AS has_text, e.wa_message_id IS NOT NULL AS has_message,
    _wa_mask_phone(coalesce(c.phone_e164, e.phone_number)) AS phone,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, coalesce(c.phone_key, c.user_id, e.phone_number))
        FROM wa_privacy_keys k
        WHERE k.organization_id = e.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_consent_events e
LEFT JOIN wa_contacts c ON c.organization_id = e.organization_id AND c.id = e.contact_id
WHERE e.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_phone_numbers_masked WITH (security_barrier = true) AS
SELECT
    n.organization_id, n.id, n.phone_number_id, _wa_mask_phone(n.display_phone) AS phone, n.waba_id,
    n.portfolio_id, n.provider, n.throughput, n.is_test, n.status, n.quality_rating, n.pause_scope,
    n.paused_at, n.paused_until, n.created_at
FROM wa_phone_numbers n
WHERE n.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_account_events_masked WITH (security_barrier = true) AS
SELECT e.organization_id, e.id, e.waba_id, e.phone_number_id, e.field, e.event, e.occurred_at, e.received_at
FROM wa_account_events e
WHERE e.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_automation_flows_masked WITH (security_barrier = true) AS
SELECT
    f.organization_id, f.id, _wa_mask_phone(coalesce(f.phone_e164, f.user_id)) AS phone, f.flow_type,
    f.current_step, f.status, f.next_action_at, f.retry_count, f.created_at, f.updated_at, f.ended_at,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, coalesce(f.phone_e164, f.user_id)) FROM wa_privacy_keys k
        WHERE k.organization_id = f.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM wa_automation_flows f
WHERE f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW siren_events_masked WITH (security_barrier = true) AS
SELECT
    e.organization_id, e.id, e.template_id, t.name AS template_name, t.channel,
    _wa_mask_phone(e.phone_e164) AS phone, e.status, e.scheduled_at, e.sent_at, e.retry_count, e.created_at,
    e.updated_at,
    (
        SELECT _wa_hash_of(k.inner_pad, k.outer_pad, e.phone_e164) FROM wa_privacy_keys k
        WHERE k.organization_id = e.organization_id AND k.purpose = 'analysts'
    ) AS phone_hash
FROM siren_events e
JOIN siren_templates t ON t.organization_id = e.organization_id AND t.id = e.template_id
WHERE e.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW timeline_entries_masked WITH (security_barrier = true) AS
SELECT
    t.organization_id, t.id, t.event_type, t.source, t.content ->> 'action' AS action, t.entity_type,
    t.actor_role, t.conversation_id, t.message_id, t.occurred_at, t.created_at
FROM timeline_entries t
WHERE t.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_media_masked WITH (security_barrier = true) AS
SELECT
    f.organization_id, f.id, f.message_id, f.direction, f.phone_number_id, f.media_type, f.mime_type,
    f.file_size, f.status, f.attempts, f.stored_at, f.expires_at, f.created_at
FROM wa_media f
WHERE f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

CREATE OR REPLACE VIEW wa_broadcast_lists_masked WITH (security_barrier = true) AS
SELECT
    l.organization_id, l.id,
    (
        SELECT count(*) FROM wa_broadcast_members m
        WHERE m.organization_id = l.organization_id AND m.list_id = l.id
    ) AS members, l.created_at, l.updated_at
FROM wa_broadcast_lists l
WHERE l.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

COMMENT ON VIEW wa_contacts_masked IS
'Customers for analysts: id, the last two digits and a keyed hash; no names, no ids of the provider.';
COMMENT ON COLUMN wa_contacts_masked.phone_hash IS
'Keyed hash of the number, else of the user id: within the organization the same in all views and for all '
'spellings, until rotate_wa_privacy_key(''analysts''). NULL once erased.';
COMMENT ON VIEW wa_conversations_masked IS 'Conversations and their windows for analysts.';
COMMENT ON VIEW wa_messages_masked IS
'The message ledger for analysts: kinds, states, times and costs, no content.';
COMMENT ON VIEW wa_message_statuses_masked IS 'Reported statuses for analysts.';
COMMENT ON VIEW wa_outbound_queue_masked IS 'The outbound queue for analysts: no text, values or references.';
COMMENT ON VIEW wa_templates_masked IS 'Templates for analysts: names and states, no text.';
COMMENT ON VIEW wa_opt_ins_masked IS 'Proofs of consent for analysts, without the proof itself.';
COMMENT ON VIEW wa_opt_outs_masked IS 'Opt-outs for analysts, without the reason given.';
COMMENT ON VIEW wa_consent_events_masked IS
'The record of consent for analysts: what happened, how and when; whether there is a text or message that '
'proves it, not what it says, nor who noted it.';
COMMENT ON VIEW wa_phone_numbers_masked IS 'Business numbers for analysts.';
COMMENT ON VIEW wa_account_events_masked IS 'Account events for analysts, without their payload.';
COMMENT ON VIEW wa_automation_flows_masked IS 'Automation flows for analysts, without what triggered them.';
COMMENT ON VIEW siren_events_masked IS 'Notifications for analysts: kinds, states and times.';
COMMENT ON VIEW timeline_entries_masked IS
'The timeline for analysts: what was done to which kind of object, no content beyond the action.';
COMMENT ON VIEW wa_media_masked IS 'Files for analysts: kinds, sizes and states, no names.';
COMMENT ON VIEW wa_broadcast_lists_masked IS 'Broadcast lists for analysts: their sizes.';
