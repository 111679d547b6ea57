-- What happened, for dashboards and analysts: figures by day in the organization's time zone. Exact at any
-- moment: roll-ups, and the ledger for what changed since. Views with the owner's rights, as in masked.sql,
-- without phone numbers, names or texts.

CREATE OR REPLACE VIEW _wa_message_figures AS
SELECT
    r.organization_id, r.quarter_at, r.day, r.phone_number_id, r.direction, r.is_echo, r.message_type,
    r.template_name, r.status, r.country, r.pricing_category, r.charge, r.messages, r.delivered, r.seen,
    r.queued, r.queue_time, r.charged_at, r.charged_on, r.is_service
FROM wa_message_rollups r
WHERE NOT EXISTS (
    SELECT FROM _wa_stale_quarters s
    WHERE s.organization_id = r.organization_id AND s.quarter_at = r.quarter_at
)
UNION ALL
SELECT
    l.organization_id, l.quarter_at, l.day, l.phone_number_id, l.direction, l.is_echo, l.message_type,
    l.template_name, l.status, l.country, l.pricing_category, l.charge, l.messages, l.delivered, l.seen,
    l.queued, l.queue_time, l.charged_at, l.charged_on, l.is_service
FROM _wa_message_lines l;

CREATE OR REPLACE VIEW _wa_response_figures AS
SELECT
    r.organization_id, r.quarter_at, r.day, r.phone_number_id, r.role, r.responses, r.response_time,
    r.longest_time
FROM wa_response_rollups r
WHERE NOT EXISTS (
    SELECT FROM _wa_stale_answer_quarters s
    WHERE s.organization_id = r.organization_id AND s.quarter_at = r.quarter_at
)
UNION ALL
SELECT
    l.organization_id, l.quarter_at, l.day, l.phone_number_id, l.role, l.responses, l.response_time,
    l.longest_time
FROM _wa_answer_lines l;

COMMENT ON VIEW _wa_message_figures IS 'Internal: messages by quarter hour, exact.';
COMMENT ON VIEW _wa_response_figures IS 'Internal: answers by quarter hour, exact.';

CREATE OR REPLACE VIEW wa_daily_messages WITH (security_barrier = true) AS
SELECT
    f.organization_id, f.day, f.phone_number_id, f.direction, f.is_echo, f.message_type, f.template_name,
    f.status, sum(f.messages)::bigint AS messages
FROM _wa_message_figures f
WHERE f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY
    f.organization_id, f.day, f.phone_number_id, f.direction, f.is_echo, f.message_type, f.template_name,
    f.status;

-- Rates are percentages: delivered of those sent, read of those delivered.
CREATE OR REPLACE VIEW wa_daily_delivery WITH (security_barrier = true) AS
SELECT
    f.organization_id, f.day, f.phone_number_id, f.template_name,
    sum(f.messages)::bigint AS messages,
    coalesce(sum(f.messages) FILTER (WHERE f.status = 'sent'), 0)::bigint AS sent,
    coalesce(sum(f.messages) FILTER (WHERE f.status = 'failed'), 0)::bigint AS failed,
    sum(f.delivered)::bigint AS delivered,
    sum(f.seen)::bigint AS seen,
    round(sum(f.delivered) * 100 / nullif(sum(f.messages) FILTER (WHERE f.status = 'sent'), 0), 2)
        AS delivery_rate,
    round(sum(f.seen) * 100 / nullif(sum(f.delivered), 0), 2) AS read_rate,
    round(extract(EPOCH FROM sum(f.queue_time)) / nullif(sum(f.queued), 0), 3) AS avg_queue_seconds
FROM _wa_message_figures f
WHERE f.direction = 'outbound' AND NOT f.is_echo
    AND f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY f.organization_id, f.day, f.phone_number_id, f.template_name;

CREATE OR REPLACE VIEW wa_daily_response_times WITH (security_barrier = true) AS
SELECT
    f.organization_id, f.day, f.phone_number_id, f.role, sum(f.responses)::bigint AS responses,
    round(extract(EPOCH FROM sum(f.response_time)) / sum(f.responses), 3) AS avg_response_seconds,
    round(extract(EPOCH FROM max(f.longest_time)), 3) AS longest_response_seconds
FROM _wa_response_figures f
WHERE f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY f.organization_id, f.day, f.phone_number_id, f.role;

-- Of each conversation only its newest run is known, from its first message to how it ended.
CREATE OR REPLACE VIEW wa_conversation_metrics WITH (security_barrier = true) AS
SELECT
    w.organization_id, n.phone_number_id, count(*) AS conversations,
    count(*) FILTER (WHERE w.state = 'active') AS active,
    count(*) FILTER (WHERE w.state = 'waiting') AS waiting,
    count(*) FILTER (WHERE w.state = 'completed') AS completed,
    count(*) FILTER (WHERE w.state = 'expired') AS expired,
    round(count(*) FILTER (WHERE w.state = 'completed') * 100.0
        / nullif(count(*) FILTER (WHERE w.state IN ('completed', 'expired')), 0), 2) AS completion_rate,
    round(avg(extract(EPOCH FROM w.state_changed_at - w.opened_at))
        FILTER (WHERE w.state IN ('completed', 'expired')), 3) AS avg_duration_seconds
FROM wa_conversation_windows w
JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
WHERE w.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY w.organization_id, n.phone_number_id;

CREATE OR REPLACE VIEW wa_unread_counts WITH (security_barrier = true) AS
SELECT
    w.organization_id, n.phone_number_id, count(*) AS conversations, sum(w.unread_count)::bigint AS messages
FROM wa_conversation_windows w
JOIN wa_phone_numbers n ON n.organization_id = w.organization_id AND n.id = w.number_id
WHERE w.unread_count > 0 AND w.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY w.organization_id, n.phone_number_id;

-- Judged by the window as it was when the message was claimed. The window of now stands beside it: it is what
-- a query of the conversations shows.
CREATE OR REPLACE VIEW wa_message_compliance WITH (security_barrier = true) AS
SELECT
    m.organization_id, m.id, m.contact_id, _wa_mask_phone(m.phone_e164) AS phone, m.phone_number_id,
    m.message_type, m.template_name, m.status, m.created_at, m.is_within_24h_at_claim,
    _wa_window_open(w.last_customer_message_at, clock_timestamp(), interval '0') AS is_within_24h_now,
    CASE
        WHEN m.status <> 'sent' THEN 'NOT_SENT'
        WHEN m.template_name IS NOT NULL OR m.is_within_24h_at_claim THEN 'COMPLIANT'
        WHEN NOT m.is_within_24h_at_claim THEN 'VIOLATION'
        ELSE 'UNKNOWN'
    END AS compliance_status
FROM wa_messages m
LEFT JOIN wa_conversation_windows w ON w.organization_id = m.organization_id
    AND w.contact_id = m.contact_id AND w.number_id = m.number_id
WHERE m.direction = 'outbound' AND NOT _wa_is_sms(m.template_name, m.template_category)
    AND m.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[]);

COMMENT ON VIEW wa_daily_messages IS
'Messages by day in the organization''s time zone, business number, direction, type, template and status.';
COMMENT ON VIEW wa_daily_delivery IS
'Outbound messages by day, number and template: sent, failed, delivered, read, the rates in percent, and the '
'seconds from queueing to sending.';
COMMENT ON COLUMN wa_daily_delivery.delivery_rate IS 'Percentage of sent messages that were delivered.';
COMMENT ON COLUMN wa_daily_delivery.read_rate IS 'Percentage of delivered messages that were read.';
COMMENT ON VIEW wa_daily_response_times IS
'Time from a customer''s first unanswered message to the first free-form answer within 24 hours, by day of '
'the answer and number.';
COMMENT ON COLUMN wa_daily_response_times.role IS
'Who answered: metadata ->> ''role'' of the queued row, if the application gives it.';
COMMENT ON VIEW wa_conversation_metrics IS
'Conversations by business number as they are now: active, waiting, how they ended and how long they took.';
COMMENT ON COLUMN wa_conversation_metrics.completion_rate IS
'Percentage of ended conversations that were completed; the others expired.';
COMMENT ON COLUMN wa_conversation_metrics.avg_duration_seconds IS
'From opening to the end, of completed and expired conversations.';
COMMENT ON VIEW wa_unread_counts IS
'Conversations with messages that nobody has read or answered, and how many messages, by number.';
COMMENT ON VIEW wa_message_compliance IS
'Outbound messages by WhatsApp and whether the 24-hour rule was kept, by the window at the time of the '
'claim.';
COMMENT ON COLUMN wa_message_compliance.is_within_24h_now IS
'The window as it is now, which may have opened or closed since.';
