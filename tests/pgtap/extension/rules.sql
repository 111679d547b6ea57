-- Tests sql/extension/rules.sql.
BEGIN;
SELECT no_plan();

-- The window, at its edges.
SELECT ok(
    _wa_window_open('2026-01-01 12:00Z', '2026-01-02 11:59:59.999Z', '0'),
    'open until 24 hours after the message'
);
SELECT ok(NOT _wa_window_open('2026-01-01 12:00Z', '2026-01-02 12:00Z', '0'), 'closed at 24 hours sharp');
SELECT ok(
    _wa_window_open('2026-01-01 12:00Z', '2026-01-02 11:58:59Z', '60 s'), 'the margin closes it early: before'
);
SELECT ok(
    NOT _wa_window_open('2026-01-01 12:00Z', '2026-01-02 11:59Z', '60 s'), 'the margin closes it early: after'
);
SELECT is(_wa_window_open(NULL, now(), '0'), FALSE, 'a customer who never wrote has no window');
SELECT ok(
    _wa_window_open('2026-03-28 12:00 Europe/Berlin', '2026-03-29 12:30 Europe/Berlin', '0'),
    '24 hours are hours, not a day of the clock'
);

-- States, waits, ids.
SELECT results_eq(
    $$ SELECT state FROM unnest('{played,failed,queued,read,sent,delivered,accepted}'::text[]) AS state
        ORDER BY _wa_status_rank(state) $$,
    ARRAY['queued', 'accepted', 'sent', 'failed', 'delivered', 'read', 'played'], 'states in their order'
);
SELECT is(_wa_status_rank('held'), _wa_status_rank('accepted'), 'held counts as accepted');
SELECT is(_wa_status_rank('warning'), NULL, 'an unknown state has no rank');
SELECT is(_wa_backoff(1, 0), interval '5 s', 'the first wait is at least 5 s');
SELECT is(_wa_backoff(1, 1), interval '10 s', 'and at most 10 s');
SELECT is(_wa_backoff(2, 0), interval '10 s', 'it doubles');
SELECT is(_wa_backoff(1000000, 1), interval '15 min', 'up to 15 minutes');
SELECT ok(
    bool_and(_wa_backoff(attempt, chance / 10.0) BETWEEN interval '5 s' AND interval '15 min'),
    'no wait is outside 5 s to 15 min'
) FROM generate_series(-1, 40) AS attempt, generate_series(0, 10) AS chance;

SELECT matches(
    _wa_uuid7(now())::text, '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-', 'a version 7 UUID'
);
SELECT is(
    left(_wa_uuid7('2022-02-22 19:22:22Z')::text, 18), '017f22e2-79b0-7000',
    'the time of the example in RFC 9562'
);
SELECT is(
    (SELECT array_agg(step ORDER BY id) FROM (
        SELECT step, _wa_uuid7('2026-01-01 00:00:00.998Z'::timestamptz + step * interval '1 us') AS id
        FROM generate_series(1, 3000) AS step) AS made),
    (SELECT array_agg(step) FROM generate_series(1, 3000) AS step),
    'microseconds sort, over the end of a second too'
);
SELECT is(count(DISTINCT _wa_uuid7('2026-01-01Z')), 1000::bigint, 'ids of one moment differ')
FROM generate_series(1, 1000);

SELECT is(_wa_to_timestamp('"1749416383"'), timestamptz '2025-06-08 20:59:43Z', 'seconds in a string');
SELECT is(_wa_to_timestamp('1749416383'), timestamptz '2025-06-08 20:59:43Z', 'seconds in a number');
SELECT is(_wa_to_timestamp(value), NULL, 'no plausible time: ' || value::text)
FROM (VALUES ('"soon"'::jsonb), ('0'), ('-1749416383'), ('1749416383000'), ('"9999999999"'), ('null'), ('{}'),
    ('1e400')) AS v (value);

SELECT is(_wa_word_key(word), key, 'compared as ' || key || ': ' || btrim(word, E'\n'))
FROM (VALUES ('STOP', 'STOP'), ('stop', 'STOP'), (' Stop! ', 'STOP'), ('«Stop».', 'STOP'), ('🛑 Stop', 'STOP'),
    ('Stop ✋', 'STOP'), ('stóp', 'STOP'), ('ＳＴＯＰ！', 'STOP'), (E'\nstop\u00a0', 'STOP'), (E'st\u200bop', 'STOP'),
    ('OPT_OUT', 'OPT OUT'), ('opt-out', 'OPT OUT'), ('stop   all', 'STOP ALL'), ('Отмена.', 'ОТМЕНА'),
    ('подписка', 'ПОДПИСКА'), ('ёж', 'ЕЖ'), ('İptal', 'IPTAL'), ('ıptal', 'IPTAL'), ('Se désabonner', 'SE DESABONNER'),
    ('إِيقَاف', 'ايقاف'), ('रोकें।', 'रोकें'), ('取消。', '取消'), (repeat(' ', 60) || 'stop' || repeat(E'\n', 60000), 'STOP'),
    ('Stop 🙏', 'STOP'), ('STOP ❗️❗️', 'STOP'), ('✋🏽 stop', 'STOP'), ('Stop 👎🏿 all', 'STOP ALL'), ('stop 🇧🇷', 'STOP'),
    ('„Stop“', 'STOP'), ('『停止』', '停止'), ('/stop', 'STOP'), ('#STOP', 'STOP'), ('بند کریں۔', 'بند کریں'),
    (E'stop\u2028', 'STOP'), (E'\u061cstop\u00ad', 'STOP'), (E's\u20ddt\u1abfop\u3164', 'STOP'), ('𝐒𝐓𝐎𝐏', 'STOP'),
    ('Ⓢⓣⓞⓟ', 'STOP'), (E'stop\U000e0067\U000e007f', 'STOP'), (E'stop\u000ball', 'STOP ALL'), ('opt–out', 'OPT OUT'),
    ('s’abonner', 'S''ABONNER'), ('στάματα', 'ΣΤΑΜΑΤΑ'), ('ΤΕΛΟΣ', 'ΤΕΛΟΣ'), ('τέλος', 'ΤΕΛΟΣ'), ('одјава', 'ОДЈАВА'),
    ('тоқтату', 'ТОҚТАТУ'), ('դադար', 'ԴԱԴԱՐ'), ('schließen', 'SCHLIESSEN'), ('Đăng', 'DANG'), ('đăng', 'DANG'),
    ('ŁÓDŹ', 'LODZ'), ('עֲצוֹר', 'עצור')) AS v (word, key);
SELECT is(_wa_word_key(word), NULL, 'no word: ' || coalesce(left(word, 20), 'NULL'))
FROM unnest(ARRAY['', ' ', '...', E'\u200f', NULL, '👍', repeat('stop ', 30)]) AS word;
SELECT isnt(_wa_word_key(word), 'STOP', 'not STOP: ' || word)
FROM unnest(ARRAY['stop it', 'nonstop', 'STOPP', 'éstop', 'STOP_42', 'bus stop', 'stop stop']) AS word;

-- Template texts.
SELECT is(
    _wa_template_placeholders('Hi {{2}}, {{1}} and {{ 2 }} {{10}}'), '{1,2,10}', 'numbers in their order'
);
SELECT is(_wa_template_placeholders('{{name}} {{code}} {{name}}'), '{name,code}', 'names as they come');
SELECT is(_wa_template_placeholders('none {1} {{}} {{a b}}'), '{}', 'no placeholders');
SELECT is(_wa_template_placeholders(NULL), '{}', 'no text');
SELECT is(_wa_check_template_text(E'M\u00fcnchen    4'), NULL, 'four blanks in a row are fine');
SELECT is(_wa_check_template_text(repeat('x', 1024)), NULL, 'so are 1024 characters');
SELECT matches(_wa_check_template_text(value), said, 'refused: ' || said)
FROM (VALUES (NULL, 'missing'), ('', 'empty'), ('  ', 'empty'), (E'a\nb', 'newline'), (E'a\tb', 'tab'),
    ('a     b', '4 spaces'), (repeat('x', 1025), '1025 characters; at most 1024')) AS v (value, said);

-- Contents: what passes.
CREATE FUNCTION pg_temp.buttons(VARIADIC p_titles text[]) RETURNS jsonb
LANGUAGE sql
RETURN (SELECT jsonb_build_object('type', 'button', 'body', '{"text": "x"}'::jsonb,
    'action', jsonb_build_object(
    'buttons', jsonb_agg(jsonb_build_object('type', 'reply', 'reply', jsonb_build_object(
        'id', place, 'title', title)) ORDER BY place)))
FROM (SELECT place::text AS place, title FROM unnest(p_titles) WITH ORDINALITY AS t (title, place)) AS made);
CREATE FUNCTION pg_temp.list(p_sections int, p_rows int) RETURNS jsonb
LANGUAGE sql
RETURN (SELECT jsonb_build_object('type', 'list', 'body', '{"text": "x"}'::jsonb,
    'action', jsonb_build_object(
    'button', 'Choose', 'sections', jsonb_agg(jsonb_build_object('title', 'S' || section, 'rows', (
        SELECT jsonb_agg(jsonb_build_object('id', section || '-' || place, 'title', 'T'))
        FROM generate_series(1, p_rows) AS place)))))
FROM generate_series(1, p_sections) AS section);

CREATE TEMPORARY TABLE fine (type text, content jsonb);
INSERT INTO fine VALUES
('text', '{"body": "hello", "preview_url": true}'),
('text', jsonb_build_object('body', repeat('😀', 4096))),
('image', '{"id": "1", "caption": "c"}'),
('image', jsonb_build_object('link', 'https://x.example/a?b', 'caption', repeat('c', 1024))),
('document', '{"link": "http://x.example", "filename": "a.pdf"}'),
('audio', '{"id": "1", "voice": true}'),
('video', '{"id": "1"}'),
('sticker', '{"id": "1"}'),
('location', '{"latitude": -90, "longitude": "180.0", "name": "Pole"}'),
('contacts',
    '[{"name": {"formatted_name": "Ann"}, "phones": [{"phone": "+15551234567"}], "birthday": "2000-01-31"}]'),
('reaction', '{"message_id": "wamid.x", "emoji": ""}'),
('template', '{"name": "t", "language": {"code": "en_US"}, "components": []}'),
('interactive', pg_temp.buttons('A', 'B', 'C')),
('interactive', pg_temp.buttons('A')
    || '{"header": {"type": "image", "image": {"id": "1"}}, "footer": {"text": "f"}}'),
('interactive', pg_temp.list(10, 1)),
('interactive', pg_temp.list(1, 10) #- '{action,sections,0,title}'),
('interactive', pg_temp.list(1, 1)
    || jsonb_build_object('body', jsonb_build_object('text', repeat('x', 4096)))),
('interactive', '{"type": "cta_url", "body": {"text": "x"}, "action": {"name": "cta_url",
    "parameters": {"display_text": "Open", "url": "https://x.example/"}}}'),
('interactive', '{"type": "flow", "body": {"text": "x"}, "action": {"name": "flow",
    "parameters": {"flow_message_version": "3", "flow_id": "1", "flow_cta": "Start", "mode": "published"}}}'),
('interactive',
    '{"type": "location_request_message", "body": {"text": "x"}, "action": {"name": "send_location"}}'),
('interactive', '{"type": "product", "action": {"catalog_id": "1", "product_retailer_id": "2"}}'),
('interactive', '{"type": "product_list", "header": {"type": "text", "text": "h"}, "body": {"text": "x"},
    "action": {"catalog_id": "1", "sections":
        [{"title": "S", "product_items": [{"product_retailer_id": "2"}]}]}}'),
('interactive', '{"type": "catalog_message", "body": {"text": "x"}, "action": {"name": "catalog_message"}}'),
('interactive', '{"type": "order_details", "body": {"text": "x"}, "action": {"name": "review_and_pay"}}');
SELECT is(
    _wa_check_content(type, content), NULL, format('fine: %s %s', type, left(content::text, 60))
) FROM fine;

-- Contents: what does not, and what is said.
CREATE TEMPORARY TABLE wrong (type text, content jsonb, said text);
INSERT INTO wrong VALUES
('fax', '{}', 'no type of message'),
(NULL, '{}', 'no type of message'),
('text', NULL, 'must be an object'),
('text', '"hello"', 'must be an object'),
('text', '{}', 'text.body is missing'),
('text', '{"body": null}', 'text.body is missing'),
('text', '{"body": 5}', 'text.body must be a string'),
('text', '{"body": " \n"}', 'text.body must not be empty'),
('text', jsonb_build_object('body', repeat('x', 4097)), 'text.body has 4097 characters; at most 4096'),
('text', '{"body": "x", "preview_url": "yes"}', 'text.preview_url'),
('image', '{}', 'image must have id or link'),
('image', '{"id": "1", "link": "https://x.example/"}', 'not both'),
('image', '{"link": "ftp://x.example/"}', 'image.link must be an http or https URL'),
('image', '{"link": "https:// x"}', 'image.link must be an http or https URL'),
('image', '{"id": ""}', 'image.id must not be empty'),
('image', '{"id": "1", "filename": "x"}', 'image.filename'),
('video', jsonb_build_object('id', '1', 'caption', repeat('x', 1025)),
    'video.caption has 1025 characters; at most 1024'),
('audio', '{"id": "1", "caption": "x"}', 'audio.caption is not allowed'),
('sticker', '{"id": "1", "caption": "x"}', 'sticker.caption is not allowed'),
('audio', '{"id": "1", "voice": "yes"}', 'audio.voice'),
('location', '{"latitude": 1}', 'location.longitude is missing'),
('location', '{"latitude": 90.1, "longitude": 0}', 'location.latitude must lie between -90 and 90'),
('location', '{"latitude": 0, "longitude": "east"}', 'location.longitude must be a number'),
('contacts', '{}', 'contacts must be an array'),
('contacts', '[]', 'contacts has 0 elements; 1 to 257'),
('contacts', (SELECT jsonb_agg('{"name": {"formatted_name": "x"}}'::jsonb) FROM generate_series(1, 258)),
    'contacts has 258 elements'),
('contacts', '[{"name": {"formatted_name": "x"}}, {"name": {}}]',
    'contacts\[1\].name.formatted_name is missing'),
('contacts', '[{"name": {"formatted_name": "x"}, "birthday": "yesterday"}]', 'birthday'),
('contacts', '[{"name": {"formatted_name": "x"}, "phones": "1"}]', 'phones must be an array'),
('reaction', '{"emoji": "x"}', 'reaction.message_id is missing'),
('reaction', '{"message_id": "x"}', 'reaction.emoji must be a string'),
('template', '{"name": "x"}', 'template.language.code is missing'),
('interactive', '{}', 'interactive.type is missing'),
('interactive', '{"type": "button", "body": {"text": "x"}}', 'interactive.action must be an object'),
('interactive', pg_temp.buttons('A') - 'body', 'interactive.body.text is missing'),
('interactive', pg_temp.buttons('A', 'B', 'C', 'D'), 'buttons has 4 elements; 1 to 3'),
('interactive', pg_temp.buttons('A', 'A'), 'title is used twice'),
('interactive', jsonb_set(pg_temp.buttons('A', 'B'), '{action,buttons,1,reply,id}', '"1"'),
    'id is used twice'),
('interactive', pg_temp.buttons(repeat('x', 21)), 'reply.title has 21 characters; at most 20'),
('interactive', jsonb_set(pg_temp.buttons('A'), '{action,buttons,0,reply,id}', to_jsonb(repeat('x', 257))),
    'at most 256'),
('interactive', jsonb_set(pg_temp.buttons('A'), '{body,text}', to_jsonb(repeat('x', 1025))), 'at most 1024'),
('interactive', pg_temp.buttons('A') ||
    jsonb_build_object('footer', jsonb_build_object('text', repeat('x', 61))),
    'footer.text has 61 characters; at most 60'),
('interactive', pg_temp.buttons('A') || '{"header": {"type": "audio"}}', 'header.type must be text, image'),
('interactive', pg_temp.buttons('A') || '{"header": {"type": "image", "image": {}}}',
    'header.image must have id or link'),
('interactive', pg_temp.list(1, 1) || '{"header": {"type": "image", "image": {"id": "1"}}}',
    'header.type must be text here'),
('interactive', pg_temp.list(11, 1), 'sections has 11 elements; 1 to 10'),
('interactive', pg_temp.list(2, 6), '12 rows in total; at most 10'),
('interactive', pg_temp.list(2, 1) #- '{action,sections,1,title}', 'sections\[1\].title is missing'),
('interactive', jsonb_set(pg_temp.list(2, 1), '{action,sections,1,rows,0,id}', '"1-1"'), 'id is used twice'),
('interactive', jsonb_set(pg_temp.list(1, 1), '{action,sections,0,rows,0,title}', to_jsonb(repeat('x', 25))),
    'at most 24'),
('interactive',
    jsonb_set(pg_temp.list(1, 1), '{action,sections,0,rows,0,description}', to_jsonb(repeat('x', 73))),
    'at most 72'),
('interactive', jsonb_set(pg_temp.list(1, 1), '{action,sections,0,rows}', '[]'), 'not empty'),
('interactive', jsonb_set(pg_temp.list(1, 1), '{action,button}', to_jsonb(repeat('x', 21))), 'at most 20'),
('interactive', '{"type": "cta_url", "body": {"text": "x"}, "action": {"name": "cta_url",
    "parameters": {"display_text": "Open", "url": "x.example"}}}', 'parameters.url must be an http'),
('interactive', '{"type": "flow", "body": {"text": "x"}, "action": {"name": "flow", "parameters":
    {"flow_message_version": "3", "flow_cta": "x"}}}', 'either flow_id or flow_name'),
('interactive', '{"type": "flow", "body": {"text": "x"}, "action": {"name": "flow", "parameters":
    {"flow_message_version": "2", "flow_cta": "x", "flow_id": "1"}}}', 'flow_message_version must be "3"'),
('interactive', '{"type": "location_request_message", "body": {"text": "x"}, "action": {"name": "x"}}',
    'action.name must be send_location'),
('interactive', '{"type": "product", "action": {"catalog_id": "1"}}', 'product_retailer_id is missing'),
('interactive', '{"type": "product_list", "body": {"text": "x"}, "action": {"catalog_id": "1"}}',
    'header is missing');
SELECT matches(_wa_check_content(type, content), said, format('%s: %s', type, said)) FROM wrong;

SELECT * FROM finish();
ROLLBACK;
