-- How far a conversation is: the states between which it may go, and the end of those that nobody pursues.

CREATE OR REPLACE FUNCTION _wa_next_conversation_states(p_state text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_state
    WHEN 'active' THEN ARRAY['waiting', 'completed', 'expired']
    WHEN 'waiting' THEN ARRAY['active', 'completed', 'expired']
    ELSE ARRAY['active']
END;

COMMENT ON FUNCTION _wa_next_conversation_states(text) IS
'Internal: the states that may follow. What is completed or expired can only become active again.';

CREATE OR REPLACE FUNCTION tg_wa_conversation_windows__state() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_next text[] := _wa_next_conversation_states(OLD.state);
BEGIN
    IF NEW.state <> ALL (v_next) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA203',
            MESSAGE = format('conversation %s is %s and cannot become %s', OLD.id, OLD.state, NEW.state),
            DETAIL = format('It became %s at %s.', OLD.state, OLD.state_changed_at),
            HINT = format('From %s it may become: %s.', OLD.state, array_to_string(v_next, ', '));
    END IF;
    NEW.state_changed_at := clock_timestamp();
    NEW.updated_at := NEW.state_changed_at;
    IF OLD.state IN ('completed', 'expired') THEN
        NEW.opened_at := NEW.state_changed_at;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION tg_wa_conversation_windows__state() IS
'Refuses a state that may not follow (WA203); notes when the state changed and when the conversation opened.';

-- WHEN: recording a message names the column and hardly ever changes it.
CREATE OR REPLACE TRIGGER state BEFORE UPDATE OF state ON wa_conversation_windows
FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
EXECUTE FUNCTION tg_wa_conversation_windows__state();

-- With the caller's rights, row security included.
CREATE OR REPLACE FUNCTION _wa_set_conversation_state(p_org uuid, p_id bigint, p_state text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_conversation_windows w SET state = p_state WHERE w.organization_id = p_org AND w.id = p_id
$$;

COMMENT ON FUNCTION _wa_set_conversation_state(uuid, bigint, text) IS
'Internal: sets the state of a conversation; one that may not follow is refused (WA203).';

-- Never waits: a conversation that is being written to at this moment is skipped, and is no longer stale.
CREATE OR REPLACE FUNCTION expire_wa_conversations() RETURNS integer
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    WITH stale AS MATERIALIZED (
        SELECT w.organization_id, w.id FROM wa_conversation_windows w
        WHERE w.state IN ('active', 'waiting')
            AND w.state_changed_at < clock_timestamp() - interval '24 hours'
            AND greatest(w.last_customer_message_at, w.last_business_message_at,
                w.state_changed_at)
            < clock_timestamp() - interval '24 hours'
        ORDER BY w.state_changed_at
        LIMIT 10000
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    expired AS (
        UPDATE wa_conversation_windows w SET state = 'expired'
        FROM stale s
        WHERE w.organization_id = s.organization_id AND w.id = s.id
        RETURNING 1
    )
    SELECT count(*)::integer FROM expired
$$;

COMMENT ON FUNCTION expire_wa_conversations() IS
'A job: open conversations of every organization in which nothing happened for 24 hours become expired, up '
'to 10000 a call; returns how many.';
