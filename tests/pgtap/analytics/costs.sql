-- Tests sql/analytics/costs.sql.
-- The month's free messages and what the others cost, by delivery, in the time zone of the account.
BEGIN;
SELECT plan(31);
\ir ../world.psql

-- Free-form messages, delivered at a moment; sent a minute before, or when it is said.
CREATE FUNCTION world.service(
    p_delivered timestamptz, p_messages integer DEFAULT 1, p_pricing jsonb DEFAULT NULL, p_state text DEFAULT 'delivered',
    p_phone text DEFAULT NULL, p_created timestamptz DEFAULT NULL, p_number text DEFAULT '100', p_template text DEFAULT NULL,
    p_group text DEFAULT NULL, p_echo boolean DEFAULT false
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO wa_messages (number_id, phone_number_id, contact_id, phone_e164, wa_message_id, direction, message_type,
        template_name, group_id, is_echo, status, state, pricing, sent_at, delivered_at, created_at)
    SELECT n.id, p_number, world.contact(world.customer(1)), coalesce(p_phone, world.customer(1)),
        'wamid.' || gen_random_uuid(), 'outbound', CASE WHEN p_template IS NULL THEN 'text' ELSE 'template' END, p_template,
        p_group, p_echo, 'sent', p_state, p_pricing, c.at, CASE p_state WHEN 'sent' THEN NULL ELSE p_delivered END, c.at
    FROM generate_series(1, p_messages) g
    CROSS JOIN (SELECT coalesce(p_created, p_delivered - interval '1 minute') AS at) c
    LEFT JOIN wa_phone_numbers n ON n.phone_number_id = p_number
$$;
CREATE FUNCTION world.allowances() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', a.month, a.phone_number_id, a.delivered, a.remaining), ', ' ORDER BY a.month,
        a.phone_number_id)
    FROM wa_service_allowances a
$$;
CREATE FUNCTION world.costs() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', c.day, c.category, c.country, c.charge, c.delivered, coalesce(c.cost::text, '?')), ', '
        ORDER BY c.day, c.category, c.country, c.charge, c.phone_number_id)
    FROM wa_daily_costs c
$$;
-- The same from the ledger, and from what was rolled up.
CREATE FUNCTION world.rolled() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_before text := world.costs() || world.allowances();
BEGIN
    PERFORM roll_up_wa_analytics();
    RETURN CASE WHEN v_before = world.costs() || world.allowances() THEN 'the same' ELSE world.costs() END;
END
$$;
SELECT load_wa_rates(E'country,category,currency,valid_from,rate\nAR,service,USD,2026-10-01,0.01\n'
    'AR,service,USD,2026-11-01,0.02\nBR,service,USD,2026-10-01,0.5\nAR,utility,USD,2026-10-01,0.03');

-- What counts.
SELECT world.service('2026-09-30 23:59+00', 3);
SELECT is(world.costs(), NULL, 'before October 2026 free-form messages are free, and nobody tells of them');
SELECT world.service('2026-10-02 10:00+00', 4), world.service('2026-10-02 10:00+00', p_state => 'sent'),
    world.service('2026-10-02 10:00+00', p_template => 'hello'), world.service('2026-10-02 10:00+00', p_group => 'g'),
    world.service('2026-10-02 10:00+00', p_echo => true),
    world.service('2026-10-02 10:00+00', p_pricing => '{"type": "free_entry_point", "category": "referral_conversion"}'),
    world.service('2026-10-02 10:00+00', p_pricing => '{"type": "free_entry_point", "category": "service"}'),
    world.service('2026-10-02 10:00+00', p_pricing => '{"type": "regular", "category": "utility"}');
SELECT is(world.allowances(), '2026-10-01 100 4 996',
    'delivered free-form messages count; templates, groups, echoes, other categories and entry points do not');
SELECT is(world.costs(), '2026-10-02 referral_conversion AR free 1 0, 2026-10-02 service AR free 1 0, '
    '2026-10-02 service AR free 4 0, 2026-10-02 utility AR paid 1 0.03', 'each with its cost');
SELECT is(world.rolled(), 'the same', 'rolled up, too');
UPDATE wa_messages SET state = 'read', read_at = sent_at + interval '2 minutes' WHERE state = 'sent' AND template_name IS NULL;
SELECT is(world.allowances(), '2026-10-01 100 5 995', 'a delivery that is known by the reading counts');
DELETE FROM wa_messages;

-- The thousandth.
SELECT world.service('2026-10-05 10:00+00', 999, '{"billable": true, "type": "regular", "category": "service"}');
SELECT world.service('2026-10-06 10:00+00', 3, '{"billable": true, "type": "regular", "category": "service"}');
SELECT is(world.costs(), '2026-10-05 service AR free 999 0, 2026-10-06 service AR free 1 0, 2026-10-06 service AR paid 2 0.02',
    'the first thousand are free, whatever is said of them');
SELECT is(world.allowances(), '2026-10-01 100 1002 0', 'and nothing is left');
SELECT is((SELECT used_up_at FROM wa_service_allowances), timestamptz '2026-10-06 10:00+00', 'since then');
SELECT world.service('2026-10-07 10:00+00', 2), world.service('2026-10-07 10:00+00', 2,
    '{"billable": false, "type": "free_customer_service", "category": "service"}');
SELECT matches(world.costs(), '2026-10-07 service AR free 2 0, 2026-10-07 service AR paid 2 0.02$',
    'beyond, what the provider calls free is free, and what it says nothing of is paid');
SELECT world.service('2026-10-08 10:00+00', 1, '{"billable": true, "type": "regular", "category": "service"}', 'sent');
SELECT matches(world.costs(), '2026-10-08 service AR paid 0 0.00$', 'what is not delivered costs nothing yet');
SELECT is(world.allowances(), '2026-10-01 100 1006 0', 'nor does it count');
SELECT is(world.rolled(), 'the same', 'rolled up, too');
-- A late status of an earlier day takes a place of its own.
SELECT world.service('2026-10-01 10:00+00', 5);
SELECT matches(world.costs(), '2026-10-05 service AR free 995 0, 2026-10-05 service AR paid 4 0.04, '
    '2026-10-06 service AR paid 3', 'who was delivered before comes before, whenever it is told');
SELECT is(world.rolled(), 'the same', 'rolled up, too');
DELETE FROM wa_messages;

-- Several numbers; in a quarter hour by country.
INSERT INTO wa_portfolios (portfolio_id) VALUES ('B');
INSERT INTO wa_phone_numbers (phone_number_id, display_phone, waba_id, portfolio_id) VALUES ('200', '2', 'B', 'B');
SELECT world.service('2026-10-05 10:00+00', 999), world.service('2026-10-05 11:00+00', 1, p_phone => '+5511987654321'),
    world.service('2026-10-05 11:05+00', 1), world.service('2026-10-05 10:00+00', 1, p_number => '200');
SELECT is(world.allowances(), '2026-10-01 100 1001 0, 2026-10-01 200 1 999', 'each number has its own allowance');
SELECT is(world.costs(), '2026-10-05 service AR free 1000 0, 2026-10-05 service AR free 1 0, 2026-10-05 service BR paid 1 0.5',
    'countries have their rates');
SELECT is((SELECT sum(delivered) FROM wa_daily_costs), 1002::numeric, 'nothing is counted twice');
DELETE FROM wa_messages;

-- The edge of the month, in the zone of the account.
SELECT is(set_wa_account_time_zone((SELECT waba_id FROM wa_phone_numbers WHERE phone_number_id = '100'),
    'America/Argentina/Buenos_Aires'), 1, 'an account bills in its time zone');
SELECT world.service('2026-11-01 02:59:59+00', 1000), world.service('2026-11-01 02:59:59+00', 2),
    world.service('2026-11-01 03:00:00+00', 1000), world.service('2026-11-01 03:00:00+00', 1),
    world.service('2026-11-01 03:00:00+00', 1, p_number => '200');
SELECT is(world.allowances(), '2026-10-01 100 1002 0, 2026-11-01 100 1001 0, 2026-11-01 200 1 999',
    'its month ends at its midnight, that of other accounts at theirs');
SELECT is(world.costs(), '2026-10-31 service AR free 1000 0, 2026-10-31 service AR paid 2 0.02, '
    '2026-11-01 service AR free 1000 0, 2026-11-01 service AR free 1 0, 2026-11-01 service AR paid 1 0.02',
    'and so do its rates');
SELECT is(world.rolled(), 'the same', 'rolled up, too');
SELECT world.service('2026-11-01 03:00:00+00', 1, p_created => '2026-10-30 12:00+00');
SELECT matches(world.allowances(), '^2026-10-01 100 1002 0, 2026-11-01 100 1002 0', 'what counts is the delivery');
SELECT is(set_wa_account_time_zone((SELECT waba_id FROM wa_phone_numbers WHERE phone_number_id = '100'), NULL), 1,
    'back to the zone of the organization');
SELECT is(world.allowances(), '2026-11-01 100 2004 0, 2026-11-01 200 1 999', 'months are cut anew, also of what was rolled up');
UPDATE wa_organizations SET time_zone = 'America/Argentina/Buenos_Aires';
SELECT matches(world.allowances(), '^2026-10-01 100 1002 0, 2026-11-01 100 1002 0', 'and with the organization''s zone');
UPDATE wa_organizations SET time_zone = 'UTC';
SELECT is(world.rolled(), 'the same', 'rolled up, too');
SELECT throws_ok($$ SELECT set_wa_account_time_zone('nobody', 'UTC') $$, 'WA010', NULL, 'an account that nobody knows is named');
SELECT throws_ok($$ SELECT set_wa_account_time_zone('B', 'CET') $$, 'WA061', NULL, 'and a zone that is none');
DELETE FROM wa_messages;

-- Volume tiers.
SELECT load_wa_rates(E'country,category,currency,valid_from,rate,region,volume_from\n'
    'AR,utility,USD,2026-10-01,0.03,Argentina,0\nAR,utility,USD,2026-10-01,0.02,Argentina,250001');
SELECT throws_ok($$ SELECT load_wa_rates(
    E'country,category,currency,valid_from,rate,volume_from\nAR,utility,USD,2026-10-01,0.03,5') $$, 'WA032', NULL,
    'a rate by volume says of which market');
SELECT _wa_set_volume_tier(current_wa_organization(), n.waba_id, jsonb_build_object('tier_update_time', 1791000000, 'pricing_category',
    'UTILITY', 'tier', t.tier, 'effective_month', '2026-10', 'region', 'Argentina') || t.more, clock_timestamp())
FROM wa_phone_numbers n CROSS JOIN (VALUES ('250001:2000000', '{}'::jsonb), ('1:250000', '{"tier_update_time": 1790000000}'),
    ('x', '{"tier_update_time": 1792000000}'), ('9:9', '{"effective_month": "soon"}')) t (tier, more)
WHERE n.phone_number_id = '100';
SELECT results_eq('SELECT tier, volume_from, volume_to, month FROM wa_volume_tiers',
    $$ VALUES ('250001:2000000', 250001::bigint, 2000000::bigint, date '2026-10-01') $$,
    'the tier that was told last is kept; what cannot be read is passed over');
SELECT world.service(d::timestamptz, p_template => 'hello', p_pricing => '{"type": "regular", "category": "utility"}')
FROM unnest(ARRAY['2026-10-31 12:00+00', '2026-11-01 12:00+00']) d;
SELECT is(world.costs(), '2026-10-31 utility AR paid 1 0.02, 2026-11-01 utility AR paid 1 0.03',
    'in the month of the tier its rate holds');

SELECT * FROM finish();
ROLLBACK;
