-- The class of a row that waits: its priority, and whether the organization's rate limit counts it.
-- Expressions, which every query takes in.

CREATE OR REPLACE FUNCTION _wa_is_metered(p_template_id uuid, p_category text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_template_id IS NOT NULL AND p_category IS DISTINCT FROM 'AUTHENTICATION';

COMMENT ON FUNCTION _wa_is_metered(uuid, text) IS
'Internal: whether the organization''s rate limit counts a message: templates other than authentication. '
'Free-form messages are replies inside a window by rule.';

CREATE OR REPLACE FUNCTION _wa_queue_class(p_priority text, p_is_metered boolean) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (CASE p_priority WHEN 'high' THEN 1 WHEN 'normal' THEN 3 ELSE 5 END + p_is_metered::integer)::smallint;

COMMENT ON FUNCTION _wa_queue_class(text, boolean) IS
'Internal: the class of a due row: 1, 3, 5 for high, normal, low; one more when the organization''s rate '
'counts it.';

CREATE OR REPLACE FUNCTION _wa_priority_of(p_class integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (p_class + 1) / 2;

COMMENT ON FUNCTION _wa_priority_of(integer) IS 'Internal: the priority of a class: 1 high, 2 normal, 3 low.';

CREATE OR REPLACE FUNCTION _wa_first_class(p_priority integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 2 * p_priority - 1;

COMMENT ON FUNCTION _wa_first_class(integer) IS
'Internal: the unmetered class of a priority; the next one is its metered class.';

CREATE OR REPLACE FUNCTION _wa_is_metered_class(p_class integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_class % 2 = 0;

COMMENT ON FUNCTION _wa_is_metered_class(integer) IS
'Internal: whether the organization''s rate limit counts the messages of a class.';

CREATE OR REPLACE FUNCTION _wa_last_class() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 6;

COMMENT ON FUNCTION _wa_last_class() IS 'Internal: classes are counted from 1 to this one.';

CREATE OR REPLACE FUNCTION _wa_priority_weight(p_priority integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_priority WHEN 1 THEN 7.0 WHEN 2 THEN 2.0 ELSE 1.0 END::double precision;

COMMENT ON FUNCTION _wa_priority_weight(integer) IS
'Internal: the share of a priority while all have rows to send: 7 high, 2 normal, 1 low.';
