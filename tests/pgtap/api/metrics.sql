-- Tests sql/api/metrics.sql.
BEGIN;
SELECT plan(9);
\ir ../world.psql
CREATE ROLE wa_metrics_app IN ROLE wa_app;
GRANT USAGE ON SCHEMA world TO PUBLIC;
SELECT world.wrote(1);
SELECT world.queue(1) AS sent, world.queue(2) AS failed \gset
SELECT count(*) FROM world.claim() \gset
SELECT world.accept(:'sent', 'wamid.1'), world.refuse(:'failed', 131026);
SELECT world.queue(3);
SET LOCAL ROLE wa_metrics_app;
SELECT get_wa_metrics() AS m \gset
SELECT is(:'m'::jsonb #>> '{queue,due}', '1', 'what is due');
SELECT is(:'m'::jsonb #>> '{queue,dispatchers}', '1', 'who sends it');
SELECT is(:'m'::jsonb -> 'daily' #>> '{0,successful_sends}', '1', 'what was sent today');
SELECT is(:'m'::jsonb -> 'daily' #>> '{0,failed_sends}', '1', 'and what failed');
SELECT is(:'m'::jsonb #>> '{conversations,open_windows}', '1', 'windows that are open');
SELECT is(:'m'::jsonb -> 'templates', '{"approved": 4, "pending": 1}', 'templates by their approval');
SELECT is(:'m'::jsonb #>> '{webhooks,pending}', '0', 'webhooks that wait');
RESET ROLE;
SELECT is(check_wa_readiness() ->> 'is_ready', 'true', 'an installation that is whole is ready');
UPDATE wa_migrations SET version = '0.0.1';
SELECT is(check_wa_readiness() ->> 'is_ready', 'false', 'one of another release is not');

SELECT * FROM finish();
