-- What messages cost, on the day of their delivery in the time zone of the number's account, which is how the
-- provider bills. Since October 2026 free-form messages cost, too, but for the first ones of each number and
-- month. Its webhooks do not say reliably which those are, so they are counted.

CREATE OR REPLACE FUNCTION _wa_free_service_messages() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1000;

CREATE OR REPLACE FUNCTION _wa_service_is_charged(p_day date) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_day >= date '2026-10-01';

COMMENT ON FUNCTION _wa_free_service_messages() IS
'Internal: how many delivered free-form messages of a number are free in a month.';
COMMENT ON FUNCTION _wa_service_is_charged(date) IS
'Internal: whether free-form messages that are delivered on this day cost anything.';

-- Free-form messages in the order in which they use the allowance up: that of their delivery, to the quarter
-- hour, and within one first those that the provider calls free.
CREATE OR REPLACE VIEW _wa_service_figures AS
SELECT
    c.*, least(c.delivered, greatest(_wa_free_service_messages() - c.delivered_before, 0)) AS covered
FROM (
    SELECT
        s.*, coalesce(sum(s.delivered) OVER (
            PARTITION BY s.organization_id, s.phone_number_id, s.month
            ORDER BY s.charged_at, array_position(ARRAY['free', 'unknown', 'paid'], s.charge), s.country,
                s.charged_on
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0)::bigint AS delivered_before
    FROM (
        SELECT
            f.organization_id, f.phone_number_id, date_trunc('month', f.charged_on)::date AS month,
            f.charged_on, f.charged_at, coalesce(f.charge, 'unknown') AS charge, f.country,
            sum(f.messages)::bigint AS messages, sum(f.delivered)::bigint AS delivered
        FROM _wa_message_figures f
        WHERE f.is_service AND f.charged_on IS NOT NULL AND _wa_service_is_charged(f.charged_on)
        GROUP BY f.organization_id, f.phone_number_id, f.charged_on, f.charged_at, f.charge, f.country
    ) s
) c;

COMMENT ON VIEW _wa_service_figures IS
'Internal: free-form messages by quarter hour of delivery, and how many of them the allowance covers.';

CREATE OR REPLACE VIEW wa_service_allowances WITH (security_barrier = true) AS
SELECT
    s.organization_id, s.phone_number_id, s.month, sum(s.delivered)::bigint AS delivered,
    _wa_free_service_messages() AS allowance,
    greatest(_wa_free_service_messages() - sum(s.delivered), 0)::bigint AS remaining,
    min(s.charged_at) FILTER (
        WHERE s.delivered_before + s.delivered >= _wa_free_service_messages()
    ) AS used_up_at
FROM _wa_service_figures s
WHERE s.delivered > 0 AND s.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
GROUP BY s.organization_id, s.phone_number_id, s.month;

-- A message is charged on delivery: what was priced and is not delivered is counted, and costs nothing yet.
CREATE OR REPLACE VIEW wa_daily_costs WITH (security_barrier = true) AS
SELECT
    c.organization_id, c.day, c.phone_number_id, c.category, c.country, c.charge, c.messages, c.delivered,
    r.currency, r.rate,
    CASE c.charge WHEN 'free' THEN 0 WHEN 'paid' THEN c.delivered * r.rate END AS cost
FROM (
    SELECT
        f.organization_id, f.charged_on AS day, f.phone_number_id, f.pricing_category AS category, f.country,
        f.charge, sum(f.messages)::bigint AS messages, sum(f.delivered)::bigint AS delivered
    FROM _wa_message_figures f
    WHERE f.direction = 'outbound' AND f.charge IS NOT NULL AND f.charged_on IS NOT NULL
        AND NOT (f.is_service AND _wa_service_is_charged(f.charged_on))
        AND f.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
    GROUP BY f.organization_id, f.charged_on, f.phone_number_id, f.pricing_category, f.country, f.charge
    UNION ALL
    SELECT
        s.organization_id, s.charged_on, s.phone_number_id, 'service', s.country, p.charge,
        sum(p.messages)::bigint, sum(p.delivered)::bigint
    FROM _wa_service_figures s
    CROSS JOIN LATERAL (
        VALUES ('free', s.covered, s.covered), (
            CASE s.charge WHEN 'free' THEN 'free' ELSE 'paid' END,
            s.messages - s.covered, s.delivered - s.covered
        )
    ) p (charge, messages, delivered)
    WHERE p.messages > 0 AND s.organization_id = ANY ((SELECT _wa_visible_organizations())::uuid[])
    GROUP BY s.organization_id, s.charged_on, s.phone_number_id, s.country, p.charge
) c
LEFT JOIN wa_phone_numbers n
    ON n.organization_id = c.organization_id AND n.phone_number_id = c.phone_number_id
LEFT JOIN LATERAL (
    SELECT w.currency, w.rate FROM wa_rates w
    WHERE c.charge = 'paid' AND w.organization_id = c.organization_id AND w.country = c.country
        AND w.category = c.category AND w.valid_from <= c.day AND (
            w.volume_from = 0 OR w.volume_from <= (
                SELECT v.volume_from FROM wa_volume_tiers v
                WHERE v.organization_id = c.organization_id AND v.waba_id = n.waba_id
                    AND v.category = c.category AND v.region = w.region
                    AND v.month = date_trunc('month', c.day)::date
            )
        )
    ORDER BY w.valid_from DESC, w.volume_from DESC LIMIT 1
) r ON true;

COMMENT ON VIEW wa_service_allowances IS
'Free-form messages that were delivered, by business number and month in the time zone of its account, and '
'what is left of those that are free: since October 2026 the first thousand of each number and month.';
COMMENT ON COLUMN wa_service_allowances.used_up_at IS
'The quarter hour in which the last free one was delivered; NULL while some are left.';
COMMENT ON VIEW wa_daily_costs IS
'Priced messages by day, category and country of the customer, and what they cost by wa_rates. The day is '
'that of the delivery in the time zone of the number''s account.';
COMMENT ON COLUMN wa_daily_costs.charge IS
'By the provider: paid, free, or unknown (such as conversations of before July 2025). Of free-form messages '
'since October 2026 the first thousand of a number and month are free, the others are paid unless the '
'provider says free.';
COMMENT ON COLUMN wa_daily_costs.delivered IS 'Messages delivered: those that are charged.';
COMMENT ON COLUMN wa_daily_costs.cost IS
'NULL where no rate is known; 0 only where the provider says free, or the month''s allowance covers it.';
