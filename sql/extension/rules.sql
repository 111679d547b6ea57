-- Rules of sending that need no table: windows, states, priorities, backoff, ids. What a message may contain
-- is in content.sql.

-- Stable, as adding an interval to a time is: declared immutable it could not be inlined.
CREATE FUNCTION _wa_window_open(p_last_customer_at timestamptz, p_now timestamptz, p_margin interval)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(p_now < p_last_customer_at + interval '24 hours' - p_margin, FALSE);
COMMENT ON FUNCTION _wa_window_open(timestamptz, timestamptz, interval) IS
'Whether the 24-hour customer service window is open at p_now; it closes p_margin early and was never open '
'for NULL.';

CREATE FUNCTION _wa_status_rank(p_state text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_state
    WHEN 'queued' THEN 1
    WHEN 'accepted' THEN 2
    WHEN 'held' THEN 2
    WHEN 'sent' THEN 3
    -- Another device of the customer may still get what failed on the first: a later delivery wins.
    WHEN 'failed' THEN 4
    WHEN 'delivered' THEN 5
    WHEN 'read' THEN 6
    WHEN 'played' THEN 7
END;
COMMENT ON FUNCTION _wa_status_rank(text) IS
'Order of delivery states: a state changes only to one of a higher rank. NULL for a state that is not '
'known.';

-- Half of each delay is fixed, half by chance, so that what failed together does not come back together.
CREATE FUNCTION _wa_backoff(p_attempt int, p_random double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs =>
    least(900, 5 * 2 ^ least(greatest(p_attempt, 1), 10)) * (0.5 + least(greatest(p_random, 0), 1) / 2));
COMMENT ON FUNCTION _wa_backoff(int, double precision) IS
'Wait before the next try after failed try number p_attempt (from 1): 5 s to 10 s, doubling, never above 15 '
'min. p_random is a number from 0 to 1.';

-- Lists of characters rather than classes, and letters told one by one where they are not ASCII: classes and
-- upper() depend on the database's locale. NFKD takes full-width forms and accents apart; marks of Latin,
-- Greek, Cyrillic and Hebrew letters, vowel signs of Arabic and what is not seen go, those that spell Indian
-- words stay; emoji and other signs are blanks.
CREATE FUNCTION _wa_word_key(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(btrim(
    p_text, E' \t\r\n\x0b\f.!\u00a0\u3000\u200b\u200c\u200d\u200e\u200f\u2060\ufeff'
)) <= 100 THEN nullif(regexp_replace(
    btrim(
        translate(
            upper(CASE WHEN octet_length(p_text) = length(p_text) THEN p_text ELSE regexp_replace(
                regexp_replace(
                    replace(replace(normalize(p_text, nfkd), 'ß', 'SS'), 'ẞ', 'SS'),
                    E'[\u00ad\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7'
                    '\u061c\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u115f\u1160\u180b-\u180f\u1ab0-\u1aff'
                    '\u1dc0-\u1dff\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20ff\ufe00-\ufe0f'
                    '\ufe20-\ufe2f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]', '', 'g'
                ),
                E'[\u0085\u1680\u2010-\u2015\u2028\u2029\u2190-\u2bff\u3030\u303d\U0001f000-\U0001faff]',
                ' ', 'g'
            ) END COLLATE "C"),
            E'абвгдежзиклмнопрстуфхцчшщъыьэюяіґєђјљњћџѕәғқңөұүһӏ'
            'αβγδεζηθικλμνξοπρσςτυφχψω'
            'աբգդեզէըթժիլխծկհձղճմյնշոչպջռսվտրցւփքօֆ'
            'ıđĐłŁøæœəþð’‘ʼ´`_-\t\r\n\x0b\f',
            'АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯІҐЄЂЈЉЊЋЏЅӘҒҚҢӨҰҮҺӀ'
            'ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΣΤΥΦΧΨΩ'
            'ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔՕՖ'
            'IDDLLØÆŒƏÞÐ''''''''''       '
        ),
        ' .,;:!?¡¿"''«»“”„‚‹›()[]{}<>*~/\|#@=+^&%$…•·。、，！？।॥؟،؛۔։「」『』【】《》〈〉'
    ),
    '  +', ' ', 'g'
), '') END;
COMMENT ON FUNCTION _wa_word_key(text) IS
'A whole short text as keywords are compared: in capitals, without accents, full-width forms, and blanks, '
'punctuation, emoji and signs around it, with one blank for several and for - and _, as payloads have them. '
'NULL for a long text, or when nothing is left.';

-- Cyrillic, Greek and Armenian capitals that look like Latin ones.
CREATE FUNCTION _wa_latin_twin(p_word_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(p_word_key) > length(p_word_key) THEN (
    SELECT t.word FROM (SELECT translate(
        p_word_key,
        'АВЕЅІӀЈКМНОРСТУҮХҺԚԛԜԝԀԁΑΒΕΖΗΙΚΜΝΟΡΤΥΧՕՏՍ',
        'ABESIIJKMHOPCTYYXHQQWWDDABEZHIKMNOPTYXOSU'
    )) t (word)
    WHERE octet_length(t.word) = length(t.word)
) END;
COMMENT ON FUNCTION _wa_latin_twin(text) IS
'The word in Latin letters that one with letters of other alphabets looks like; NULL where it looks like '
'none.';

-- RFC 9562 section 6.2, method 3: the 12 bits behind the milliseconds hold the fraction of the millisecond.
-- p_at stands once only, so that a call with clock_timestamp() can be inlined.
CREATE FUNCTION _wa_uuid7(p_at timestamptz) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (overlay(lpad(to_hex((date_part('epoch', p_at) * 4096000)::bigint), 15, '0'), '7', 13, 0)
    || right(gen_random_uuid()::text, 17))::uuid;
COMMENT ON FUNCTION _wa_uuid7(timestamptz) IS
'A version 7 UUID for a time: sorts by that time to the microsecond, by chance within one.';

CREATE FUNCTION _wa_uuid7_floor(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (overlay(lpad(to_hex((date_part('epoch', p_at) * 4096000)::bigint), 15, '0'), '7', 13, 0)
    || repeat('0', 16))::uuid;
COMMENT ON FUNCTION _wa_uuid7_floor(timestamptz) IS
'The lowest id that _wa_uuid7() gives at that time.';

CREATE FUNCTION _wa_to_timestamp(p_value jsonb) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(p_value) IN ('string', 'number')
    AND p_value #>> '{}' ~ '^[0-9]{10}(\.[0-9]{1,6})?$'
    AND (p_value #>> '{}')::numeric BETWEEN 1230768000 AND 4102444800
    THEN to_timestamp((p_value #>> '{}')::double precision) END;
COMMENT ON FUNCTION _wa_to_timestamp(jsonb) IS
'A time that a webhook gives in Unix seconds, as string or number; NULL unless it lies between 2009 and '
'2100.';

-- HMAC-SHA256, RFC 2104: its two keyed blocks are made once, with the key.
CREATE FUNCTION _wa_keyed_hash(p_inner bytea, p_outer bytea, p_text text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(p_outer || sha256(p_inner || convert_to(p_text, 'UTF8')));
COMMENT ON FUNCTION _wa_keyed_hash(bytea, bytea, text) IS
'HMAC-SHA256 of a text under a key that is given as its inner and outer block; NULL for NULL.';

CREATE FUNCTION _wa_hash_of(p_inner bytea, p_outer bytea, p_phone text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN length(p_phone) > 5
    THEN left(encode(_wa_keyed_hash(p_inner, p_outer, _wa_phone_key(p_phone)), 'hex'), 32) END;
COMMENT ON FUNCTION _wa_hash_of(bytea, bytea, text) IS
'What analysts see in place of a telephone number or user id: the same for all spellings of one. '
'NULL for none, and for the first digits that are left of an erased person''s.';
