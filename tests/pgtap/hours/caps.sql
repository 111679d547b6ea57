-- Tests sql/hours/rules.sql, sql/hours/waits.sql.
-- What might make a cap count too few.
BEGIN;
SELECT plan(15);
\ir ../world.psql
\ir ../customers.psql
UPDATE wa_organizations SET rate_limit_per_minute = NULL;
INSERT INTO wa_contact_caps (purpose, messages, days) VALUES ('marketing', 2, 60);
CREATE TEMPORARY TABLE sent (name text, id uuid);

-- messages that are gone
SELECT throws_ok($$ UPDATE wa_organizations SET message_retention = '59 days' $$, 'WA060',
    'messages kept for 59 days, and a cap over 60 days', 'messages are kept for as long as a cap counts');
SELECT lives_ok($$ UPDATE wa_organizations SET message_retention = '60 days' $$, 'no longer than that');
SELECT lives_ok($$ UPDATE wa_organizations SET message_retention = NULL $$, 'or for good');
SELECT throws_ok($$ UPDATE wa_contact_caps SET days = days + 1; UPDATE wa_organizations SET message_retention = '60 days' $$,
    'WA060', NULL, 'whichever comes first');

-- two contacts that turn out to be one
SELECT world.writes(1, 'by number');
SELECT world.told(NULL, 'AR.9100000001', 10, '{"type": "text", "text": {"body": "by id"}}');
SELECT world.queue(1, 'sale') \g /dev/null
INSERT INTO wa_outbound_queue (phone, template_name) VALUES ('AR.9100000001', 'sale');
SELECT is(world.claimed(), 2, 'one to each');
SELECT world.accept_all();
SELECT world.writes(1, 'me, too', 'AR.9100000001', 20);
SELECT throws_ok($$ SELECT world.queue(1, 'sale') $$, 'WA131', NULL, 'are two to the one that they are');

-- what failed after it was sent, on its way, and twice in one claim
SELECT world.queue(2, 'sale'), world.queue(2, 'sale'), world.queue(2, 'sale') \g /dev/null
SELECT is(world.claimed(1), 1, 'one is on its way');
SELECT is(world.claimed(), 1, 'one more may go');
SELECT world.accept_all();
INSERT INTO sent SELECT 'failed', m.queue_id FROM wa_messages m
WHERE m.contact_id = world.contact(world.customer(2)) ORDER BY m.id LIMIT 1;
SELECT world.told_all(jsonb_build_array(jsonb_build_object('id', m.wa_message_id, 'status', 'failed', 'timestamp',
    extract(epoch FROM now())::bigint::text, 'recipient_id', world.wa_id(2), 'errors', '[{"code": 131026, "title": "x"}]'::jsonb)),
    'statuses') FROM wa_messages m JOIN sent s ON s.id = m.queue_id WHERE s.name = 'failed';
SELECT world.later('61 seconds');
SELECT is(world.claimed(), 1, 'what failed gives its place back');
SELECT world.accept_all();
SELECT throws_ok($$ SELECT world.queue(2, 'sale') $$, 'WA131', NULL, 'once');

-- one cap that holds and one that refuses
INSERT INTO wa_contact_caps (purpose, messages, days, on_full) VALUES ('all', 1, 1, 'refuse');
SELECT world.queue(3) \g /dev/null
SELECT is(world.claimed(), 1, 'the first goes');
SELECT lives_ok($$ SELECT world.queue(3) $$, 'while it may fail the next waits');
SELECT world.accept_all();
SELECT throws_ok($$ SELECT world.queue(3, 'sale') $$, 'WA131', NULL, 'then it is refused, though another cap has room');
SELECT lives_ok($$ SELECT world.queue(3, 'code', '["1"]') $$, 'a code is no matter of caps');

-- a person who was erased comes again as somebody who gets nothing
SELECT erase_wa_contact(world.customer(2), 'asked') \g /dev/null
SELECT world.writes(2, 'me again', NULL, 30);
SELECT throws_ok($$ SELECT world.queue(2, 'sale') $$, 'WA102', NULL, 'an erasure makes no room');

SELECT * FROM finish();
ROLLBACK;
