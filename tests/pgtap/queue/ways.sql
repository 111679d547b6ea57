-- Tests sql/queue/admission.sql.
-- What becomes of a message does not depend on the company it is queued in: alone, among its like, or among
-- rows of every make, which are queued by different statements of the insert's trigger.
BEGIN;
SELECT plan(7);
\ir ../world.psql
SELECT register_wa_phone_number('101', '+1 555 123 4568', '201');
INSERT INTO wa_templates (name, language, category, status, body_text) VALUES
('greeting', 'es', 'UTILITY', 'APPROVED', 'Hola'), ('greeting', 'pt_BR', 'UTILITY', 'APPROVED', 'Oi'),
('lone', 'de_CH', 'UTILITY', 'APPROVED', 'Grüezi');
UPDATE wa_organizations SET default_language = 'pt_BR', on_refusal = 'record';
SELECT world.wrote(n) FROM generate_series(1, 3) n;
SELECT world.wrote(4, '25 hours');
SELECT world.wrote(5, '1 hour', '101');
SELECT world.wrote(6, '23:59:30');
SELECT opt_out_wa_contact(world.customer(2), 'marketing'), opt_out_wa_contact(world.customer(3), 'all');

-- make: text without a number, usual otherwise, another make. Rows with one label differ by their customer only:
-- 1 open, 2 no marketing, 3 opted out, 4 closed, 5 open on another number, 6 about to close, 7 known, 8 new.
CREATE TABLE world.inserts (make integer, label text, row jsonb);
SELECT world.contact(world.customer(7));
INSERT INTO world.inserts VALUES
(1, 'text', '{"text_body": "Hello"}'),
(1, 'text later', '{"text_body": "Hello", "scheduled_at": "2199-01-01", "expires_at": "infinity"}'),
(1, 'text of many characters', jsonb_build_object('text_body', repeat('ä', 4096), 'priority', 'high')),
(2, 'text from a number', '{"text_body": "Hello", "phone_number_id": "101"}'),
(2, 'template', '{"template_name": "Order", "template_params": ["Ann", 42], "priority": "low"}'),
(2, 'marketing', '{"template_name": "sale", "phone_number_id": "100"}'),
(2, 'not approved', '{"template_name": "draft"}'),
(2, 'default language', '{"template_name": "greeting"}'),
(2, 'language without a region', '{"template_name": "greeting", "template_language": "es_MX"}'),
(2, 'any region', '{"template_name": "greeting", "template_language": "pt"}'),
(2, 'the only region', '{"template_name": "lone", "template_language": "de"}'),
(2, 'authentication', '{"template_name": "code", "template_params": ["123456"]}'),
(2, 'values by component', '{"template_name": "order", "template_params": {"body": ["Ann", "A-1"]}}'),
(3, 'fall-back', '{"text_body": "Hello", "fallback_template_name": "hello"}'),
(3, 'image', '{"type": "image", "content": {"link": "https://example.com/a.png"}}'),
(3, 'text as content', '{"type": "text", "content": {"body": "Hello"}}'),
(3, 'template as content', '{"type": "template", "content": {"name": "hello", "language": {"code": "en"}}}');

CREATE FUNCTION world.insert_all(p_where text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO wa_outbound_queue (phone, text_body, template_name, template_language, template_params, type,
            content, phone_number_id, priority, scheduled_at, expires_at, fallback_template_name, reference)
        SELECT world.customer(c), r.text_body, r.template_name, r.template_language, r.template_params, r.type,
            r.content, r.phone_number_id, coalesce(r.priority, ''normal''),
            coalesce(r.scheduled_at, clock_timestamp()), r.expires_at, r.fallback_template_name,
            i.label || '' to '' || c
        FROM world.inserts i
        CROSS JOIN generate_series(1, 8) c
        CROSS JOIN LATERAL jsonb_populate_record(NULL::wa_outbound_queue, i.row) r
        WHERE %s', p_where
    );
END
$$;

-- Everything that is decided when a row is queued.
CREATE VIEW world.decided AS
SELECT q.reference, q.status, q.error_code, q.type, q.phone, d.queue_id IS NOT NULL AS is_due, n.phone_number_id,
    d.class, d.contact_id, t.name, t.language, d.due_at > clock_timestamp() AS is_later
FROM wa_outbound_queue q
LEFT JOIN wa_queue_due d ON d.queue_id = q.id
LEFT JOIN wa_phone_numbers n ON n.id = d.number_id
LEFT JOIN wa_templates t ON t.id = d.template_id;

-- Customer 8 is new in each way, so the contact of the first way is gone again before the next.
CREATE FUNCTION world.decide(p_ways text[]) RETURNS SETOF world.decided LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        FOR n IN 1..cardinality(p_ways) LOOP
            PERFORM world.insert_all(p_ways[n]);
        END LOOP;
        RETURN QUERY SELECT * FROM world.decided;
        RAISE EXCEPTION USING ERRCODE = 'P0099';
    EXCEPTION WHEN SQLSTATE 'P0099' THEN
        NULL;
    END;
END
$$;
CREATE TABLE world.alone AS SELECT * FROM world.decide(ARRAY(
    SELECT format('i.label = %L AND c = %s', i.label, c)
    FROM world.inserts i CROSS JOIN generate_series(1, 8) c ORDER BY i.make, i.label, c
));
UPDATE world.alone SET contact_id = NULL WHERE phone = world.customer(8);

CREATE FUNCTION world.others(p_ways text[]) RETURNS TABLE (reference text) LANGUAGE sql AS $$
    WITH other AS (
        SELECT d.reference, d.status, d.error_code, d.type, d.phone, d.is_due, d.phone_number_id, d.class,
            CASE WHEN d.phone <> world.customer(8) THEN d.contact_id END AS contact_id, d.name, d.language,
            d.is_later
        FROM world.decide(p_ways) d
    )
    SELECT coalesce(a.reference, o.reference) FROM world.alone a
    FULL JOIN other o ON a.reference = o.reference
    WHERE a IS DISTINCT FROM o
$$;

SELECT is(count(*), 136::bigint, 'every insert to every customer was decided') FROM world.alone;
SELECT results_eq($$ SELECT DISTINCT status, error_code FROM world.alone ORDER BY 1, 2 $$,
    $$ VALUES ('failed', 'opted_out'), ('failed', 'template_unavailable'), ('failed', 'window_closed'),
        ('pending', NULL) $$, 'all verdicts are among them');
SELECT is(count(*), 0::bigint, 'what is due is what was not refused') FROM world.alone
WHERE is_due <> (status = 'pending');
SELECT is_empty($$ SELECT * FROM world.others(ARRAY['i.make = 1', 'i.make = 2', 'i.make = 3']) $$,
    'among their like');
SELECT is_empty($$ SELECT * FROM world.others(ARRAY['i.make < 3', 'i.make = 3']) $$,
    'texts among templates');
SELECT is_empty($$ SELECT * FROM world.others(ARRAY['true']) $$, 'all in one statement');
SELECT is_empty($$ SELECT * FROM world.others(ARRAY['c < 8', 'c = 8']) $$,
    'new customers in a statement of their own');
SELECT * FROM finish();
ROLLBACK;
