-- Tests sql/api/exposition.sql.
BEGIN;
SELECT plan(12);
\ir ../world.psql
CREATE ROLE wa_exposition_app IN ROLE wa_app;
CREATE ROLE wa_exposition_web IN ROLE wa_api;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT world.wrote(1);
SELECT world.queue(1), world.queue(2);
SELECT count(*) FROM world.claim() \gset
SELECT world.queue(3);
SELECT create_wa_organization('other') AS other \gset
SELECT set_config('wa.organization_id', (SELECT id::text FROM wa_organizations WHERE is_default), true);
SELECT add_wa_organization_role(current_wa_organization(), 'wa_exposition_app');
SELECT trigger_wa_panic('x', :'other');
SET LOCAL ROLE wa_exposition_app;
SELECT results_eq($$ SELECT value FROM wa_metrics WHERE name = 'wa_queue_due' $$, 'VALUES (1::double precision)', 'what is due');
SELECT results_eq($$ SELECT value FROM wa_metrics WHERE name = 'wa_queue_in_flight' $$, 'VALUES (2::double precision)',
    'what is being sent');
SELECT results_eq($$ SELECT labels ->> 'phone_number_id' FROM wa_metrics WHERE name = 'wa_number_stopped' $$, $$ VALUES ('100') $$,
    'by business number');
SELECT results_eq($$ SELECT value FROM wa_metrics WHERE name = 'wa_panic_active' $$, 'VALUES (0::double precision)',
    'an application sees its own organization');
SELECT results_eq($$ SELECT value FROM wa_metrics WHERE name = 'wa_dispatchers' $$, 'VALUES (1::double precision)', 'who sends');
SELECT results_eq($$ SELECT value FROM wa_metrics WHERE name = 'wa_sending_enabled' $$, 'VALUES (1::double precision)',
    'whether anybody may');
SELECT is_empty($$ SELECT FROM wa_metrics WHERE name = 'wa_number_last_webhook_seconds' $$, 'what never was is not told');
RESET ROLE;
SET LOCAL ROLE wa_exposition_web;
SELECT results_eq($$ SELECT labels ->> 'organization', value FROM wa_metrics WHERE name = 'wa_panic_active' ORDER BY 1 $$,
    $$ VALUES ('default', 0::double precision), ('other', 1) $$, 'the web server sees all');
RESET ROLE;
SELECT is_empty('SELECT name FROM wa_metrics GROUP BY name HAVING count(DISTINCT help) > 1', 'a name has one meaning');
SELECT is_empty($$ SELECT name FROM wa_metrics, jsonb_object_keys(labels) k GROUP BY name
    HAVING count(DISTINCT k) <> max((SELECT count(*) FROM jsonb_object_keys(labels))) $$, 'and one set of labels');
SELECT is_empty($$ SELECT name, labels FROM wa_metrics GROUP BY name, labels HAVING count(*) > 1 $$, 'and each sample is there once');
SELECT is_empty($$ SELECT FROM wa_metrics WHERE name !~ '^wa_[a-z_]+$' OR help = '' $$, 'names are names');

SELECT * FROM finish();
