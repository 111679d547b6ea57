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

-- A list of characters rather than a class: classes depend on the database's locale.
CREATE FUNCTION _wa_bare_word(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(p_text) <= 40
    THEN translate(
        upper(btrim(p_text, E' \t\r\n\u00a0.,;:!?¡¿"''`´«»“”‘’()[]{}<>*_~-–—…🛑🚫⛔❌✋🔕\ufe0f') COLLATE "C"),
        '_-éêÉÊ', '  EEEE'
    ) END;
COMMENT ON FUNCTION _wa_bare_word(text) IS
'A short text in capitals without blanks, punctuation and signs around it, with blanks for - and _, as '
'payloads have them, and without the accents of opt-out words; NULL for a long one.';

CREATE FUNCTION _wa_is_opt_out_word(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(_wa_bare_word(p_text) IN ('STOP', 'UNSUBSCRIBE', 'CANCEL', 'END', 'QUIT'), FALSE);
COMMENT ON FUNCTION _wa_is_opt_out_word(text) IS
'Whether a whole typed text says no more messages: STOP, UNSUBSCRIBE, CANCEL, END or QUIT.';

-- The label of Meta's own button is "Stop promotions". Words that end other things, too, are not here
-- (CANCEL, END, QUIT, SAIR, CANCELAR): on a button they may answer its question. "Not interested" refuses one
-- offer.
CREATE FUNCTION _wa_opt_out_scope(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN _wa_bare_word(p_text) ~ (
    '^(STOP|STOP ?ALL|UNSUBSCRIBE|UNSUBSCRIBE ME|OPT ?OUT|(STOP|NO MORE) (ALL )?MESSAGES'
    '|BAJA|DEJAR DE RECIBIR|PARAR|DESCADASTRAR|ABMELDEN|ABBESTELLEN|STOPP'
    '|(SE )?DES(ABONNER|INSCRIRE)|ARRET|DISISCRIVITI|BERHENTI'
    '|(STOP|NO MORE|UNSUBSCRIBE FROM|OPT ?OUT OF) (ALL )?(MARKETING|PROMOTIONS?|PROMOS?|OFFERS|ADS'
    '|ADVERTISING|NEWS|NEWSLETTERS?|(MARKETING|PROMOTIONAL) MESSAGES))$'
) THEN CASE WHEN _wa_bare_word(p_text) ~ ' (MARKETING|PROMO|OFFERS|ADS|ADVERTISING|NEWS)'
        THEN 'marketing' ELSE 'all' END END;
COMMENT ON FUNCTION _wa_opt_out_scope(text) IS
'What a whole text, the label of a button or its payload refuses, whatever it answers: all (STOP, '
'UNSUBSCRIBE and their like), marketing (STOP PROMOTIONS and its like) or NULL, nothing.';

CREATE FUNCTION _wa_is_opt_in_word(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(_wa_bare_word(p_text) = 'START', FALSE);
COMMENT ON FUNCTION _wa_is_opt_in_word(text) IS
'Whether a whole typed text takes an opt-out back: START.';

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
