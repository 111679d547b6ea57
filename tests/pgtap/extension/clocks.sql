-- Tests sql/extension/hours.sql.
BEGIN;
SELECT plan(36);

-- 21:00 to 08:00 every day, by the clocks of the zones given.
CREATE FUNCTION pg_temp.allowed(
    p_at text, p_zones text[], p_to time DEFAULT '08:00', p_from time DEFAULT '21:00',
        p_days integer DEFAULT 254
) RETURNS text LANGUAGE sql AS $$
    SELECT to_char(_wa_allowed_from(ARRAY[p_days], ARRAY[p_from], ARRAY[p_to], NULL, p_zones, 0,
        (p_at::timestamp AT TIME ZONE p_zones[1])) AT TIME ZONE p_zones[1], 'YYYY-MM-DD HH24:MI:SS')
$$;

-- six zones, over a usual night and over both changes of the clock
SELECT is(pg_temp.allowed('2026-06-01 12:00', ARRAY['Europe/Madrid']), '2026-06-01 12:00:00',
    'at noon it may go');
SELECT is(pg_temp.allowed('2026-06-01 21:00', ARRAY['Europe/Madrid']), '2026-06-02 08:00:00',
    'the first quiet minute is quiet');
SELECT is(pg_temp.allowed('2026-06-01 20:59:59', ARRAY['Europe/Madrid']), '2026-06-01 20:59:59',
    'the one before is not');
SELECT is(pg_temp.allowed('2026-06-02 08:00', ARRAY['Europe/Madrid']), '2026-06-02 08:00:00',
    'nor is the minute in which it ends');
SELECT is(pg_temp.allowed('2026-06-02 07:59:59.999999', ARRAY['Europe/Madrid']), '2026-06-02 08:00:00',
    'but the last moment is');
SELECT is(pg_temp.allowed(d || ' 22:30', ARRAY[z]), to_char(d::date + 1, 'YYYY-MM-DD') || ' 08:00:00',
    format('%s over the change of %s', z, d))
FROM (VALUES ('2026-03-28', 'Europe/Madrid'), ('2026-10-24', 'Europe/Madrid'), ('2026-03-07',
    'America/New_York'),
    ('2026-10-31', 'America/New_York'), ('2026-10-03', 'Australia/Lord_Howe'), ('2026-04-04',
        'Australia/Lord_Howe'),
    ('2026-09-05', 'America/Santiago'), ('2026-04-04', 'America/Santiago'), ('2026-06-01', 'Asia/Kolkata'),
    ('2026-06-01', 'Asia/Kathmandu')) v (d, z);
SELECT is(pg_temp.allowed('2026-03-28 22:30', ARRAY['Europe/Madrid'], '02:30'), '2026-03-29 03:00:00',
    'an end that the clock leaves out is when it is put forward');
SELECT is(_wa_allowed_from(ARRAY[254], ARRAY[time '21:00'], ARRAY[time '02:30'], NULL, '{Europe/Madrid}', 0,
    '2026-10-24 22:30+02'), timestamptz '2026-10-25 02:30+02',
    'an end that the clock shows twice is the first of them');
SELECT is(_wa_allowed_from(ARRAY[254], ARRAY[time '21:00'], ARRAY[time '02:30'], NULL, '{Europe/Madrid}', 0,
    '2026-10-25 02:15+01'), timestamptz '2026-10-25 02:30+01',
    'and a quiet time that the clock shows again is quiet again');
SELECT is(_wa_allowed_from(ARRAY[254], ARRAY[time '02:30'], ARRAY[time '06:00'], NULL, '{Europe/Madrid}', 0,
    '2026-10-25 02:45+02'), timestamptz '2026-10-25 02:00+01',
    'put back to before the quiet time the clock allows it once more');

-- days
SELECT is(pg_temp.allowed('2026-06-07 23:00', ARRAY['Asia/Kolkata'], p_days => 1 << 7), '2026-06-08 08:00:00',
    'a night that begins on Sunday lasts into Monday');
SELECT is(pg_temp.allowed('2026-06-08 23:00', ARRAY['Asia/Kolkata'], p_days => 1 << 7), '2026-06-08 23:00:00',
    'that of Monday is not meant');
SELECT is(pg_temp.allowed('2026-06-06 10:00', ARRAY['Asia/Kolkata'], '24:00', '00:00', (1 << 6) | (1 << 7)),
    '2026-06-08 00:00:00', 'a weekend');
SELECT is(pg_temp.allowed('2026-06-06 10:00', ARRAY['Asia/Kolkata'], '24:00', '00:00'), NULL,
    'where every hour is quiet there is none');
SELECT is(_wa_allowed_from(NULL, NULL, NULL, ARRAY[date '2026-12-25', '2026-12-26'],
    '{Asia/Tokyo,America/New_York}', 0, '2026-12-24 18:00+00'), timestamptz '2026-12-27 05:00+00',
    'a holiday lasts from the first midnight to the last, wherever the number may be');

-- several zones
SELECT is(pg_temp.allowed('2026-06-01 19:00', ARRAY['Europe/Madrid', 'Atlantic/Canary']),
    '2026-06-01 19:00:00',
    'both clocks allow it');
SELECT is(pg_temp.allowed('2026-06-01 08:30', ARRAY['Europe/Madrid', 'Atlantic/Canary']),
    '2026-06-01 09:00:00',
    'the later morning counts');
SELECT is(pg_temp.allowed('2026-06-01 20:30', ARRAY['Atlantic/Canary', 'Europe/Madrid']),
    '2026-06-02 08:00:00',
    'and the earlier evening');
SELECT is(pg_temp.allowed('2026-06-01 12:00', ARRAY['Europe/Madrid', 'Pacific/Auckland'], '09:00', '17:00'),
    NULL,
    'opposite sides of the world have no office hour in common');
SELECT is(_wa_allowed_from(ARRAY[254], ARRAY[time '21:00'], ARRAY[time '08:00'], NULL, '{UTC}', 3,
    '2026-06-01 18:30+00'), timestamptz '2026-06-02 11:00+00',
        'with hours to both sides the day is shorter by as many');

-- what the library knows
SELECT is(z.zones, '{Europe/Berlin}', 'a country without areas') FROM _wa_phone_zones() z
    WHERE z.prefix = '+49';
SELECT is(z.zones, '{America/New_York}', 'an area of a country') FROM _wa_phone_zones() z
    WHERE z.prefix = '+1212';
SELECT ok(z.zones @> '{Asia/Kamchatka,Europe/Moscow}', 'a country of many zones') FROM _wa_phone_zones() z
    WHERE z.prefix = '+7';
SELECT ok(z.zones @> '{Europe/Madrid,Atlantic/Canary}', 'a region stands for its country')
FROM _wa_phone_zones() z WHERE z.prefix = 'ES';
SELECT is(array_agg(z.prefix ORDER BY z.prefix), '{+34822,+617,+749,+77}',
    'areas of fixed lines are told apart, and so are countries that share a code')
FROM _wa_phone_zones() z WHERE z.prefix IN ('+34822', '+617', '+749', '+77');
SELECT is_empty($$ SELECT z.prefix FROM _wa_phone_zones() z
    WHERE z.prefix IN ('+346', '+347', '+474', '+5939', '+614', '+642', '+79', '+9768') $$,
    'of mobiles none: they are carried about their country');
SELECT ok('+1212' = ANY (_wa_zone_prefixes('+12125550123', NULL)) AND 'US' = ANY (_wa_zone_prefixes(NULL,
    'US.1349')),
    'both are found by how a number or user id begins');

SELECT * FROM finish();
ROLLBACK;
