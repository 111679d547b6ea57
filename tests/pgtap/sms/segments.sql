-- Tests sql/sms/segments.sql.
BEGIN;
SELECT plan(16);

CREATE FUNCTION pg_temp.counted(p_text text) RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' ', c.encoding, c.units, c.segments) FROM count_wa_sms_segments(p_text) c
$$;
SELECT is(pg_temp.counted(repeat('a', 160)), 'GSM-7 160 1', '160 letters are one segment');
SELECT is(pg_temp.counted(repeat('a', 161)), 'GSM-7 161 2', 'one more are two, of 153');
SELECT is(pg_temp.counted(repeat('a', 306)), 'GSM-7 306 2', 'which end at 306');
SELECT is(pg_temp.counted(repeat('a', 307)), 'GSM-7 307 3', 'and go on with a third');
SELECT is(pg_temp.counted('äöüñ¿Ç£¥€ ΔΦ' || chr(10)), 'GSM-7 14 1', 'GSM-7 has these; the euro takes two');
SELECT is(pg_temp.counted(repeat('€', 80)), 'GSM-7 160 1', 'eighty of them fill a segment');
SELECT is(pg_temp.counted(repeat('€', 81)), 'GSM-7 162 2', 'the next begins another');
SELECT is(pg_temp.counted(repeat('a', 152) || '€' || repeat('a', 152)), 'GSM-7 306 3',
    'a character of two lies in one segment');
SELECT is(pg_temp.counted('^{}\[~]|'), 'GSM-7 16 1', 'as do brackets');
SELECT is(pg_temp.counted('ç'), 'UCS-2 1 1', 'a small c with a cedilla is not of it');
SELECT is(pg_temp.counted(repeat('ж', 70)), 'UCS-2 70 1', '70 of others are one segment');
SELECT is(pg_temp.counted(repeat('ж', 71)), 'UCS-2 71 2', 'more are several of 67');
SELECT is(pg_temp.counted(repeat('ж', 135)), 'UCS-2 135 3', 'to the letter');
SELECT is(pg_temp.counted(repeat('😀', 35)), 'UCS-2 70 1', 'an emoji is two units');
SELECT is(pg_temp.counted(repeat('ж', 66) || '😀' || 'ж'), 'UCS-2 69 1', 'that fit');
SELECT is(pg_temp.counted(repeat('ж', 66) || '😀' || repeat('ж', 66)), 'UCS-2 134 3', 'and are not torn apart');

SELECT * FROM finish();
ROLLBACK;
