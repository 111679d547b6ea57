-- Handing due deliveries to whoever sends them: which subscription may have something sent now, which of its
-- events, and as what.

-- At most so long a delivery is under way before it counts as lost; that it takes is bounded by its time-out.
CREATE OR REPLACE FUNCTION _wa_event_lease() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '45 seconds';

COMMENT ON FUNCTION _wa_event_lease() IS
'Internal: after so long, a delivery of which nothing was heard is sent again.';

CREATE OR REPLACE FUNCTION _wa_utc(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

COMMENT ON FUNCTION _wa_utc(timestamptz) IS 'Internal: a time as RFC 3339 writes it, in UTC.';

-- The fields are those of read_wa_events(). An event or message that was deleted meanwhile leaves them NULL.
CREATE OR REPLACE FUNCTION _wa_event_payload(p_org uuid, p_event_id bigint, p_type text, p_at timestamptz)
RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT json_build_object(
        'type', p_type, 'timestamp', _wa_utc(coalesce(e.occurred_at, p_at)), 'organization_id', p_org,
        'data', CASE WHEN p_type = 'test' THEN '{}' ELSE json_build_object(
            'position', e.position, 'kind', e.kind, 'status', e.status, 'message_id', e.message_id,
            'queue_id', m.queue_id, 'reference', m.reference, 'wa_message_id', m.wa_message_id,
            'direction', m.direction, 'message_type', m.message_type,
            'contact_id', coalesce(m.contact_id, w.contact_id),
            'phone_e164', coalesce(m.phone_e164, w.phone_e164), 'user_id', coalesce(m.user_id, w.user_id),
            'phone_number_id', coalesce(m.phone_number_id, w.phone_number_id),
            'content_text', m.content_text, 'content', m.content, 'error_code', m.error_code,
            'error_title', m.error_title, 'conversation_id', e.conversation_id, 'assigned_to', w.assigned_to
        ) END
    )
    FROM (SELECT) one
    LEFT JOIN LATERAL (
        SELECT x.* FROM wa_events x WHERE x.organization_id = p_org AND x.id = p_event_id LIMIT 1
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT x.* FROM wa_messages x WHERE x.organization_id = p_org AND x.id = e.message_id LIMIT 1
    ) m ON true
    LEFT JOIN LATERAL (
        SELECT f.* FROM _wa_event_conversation(p_org, e.conversation_id) f WHERE e.conversation_id IS NOT NULL
    ) w ON true
$$;

COMMENT ON FUNCTION _wa_event_payload(uuid, bigint, text, timestamptz) IS
'Internal: the body of a delivery: the event with its message or conversation as it is now.';

CREATE OR REPLACE FUNCTION _wa_read_events_for(p_org uuid, p_id uuid, p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_read integer;
    v_last bigint;
    c_at_once CONSTANT integer := 500;
BEGIN
    WITH unread AS MATERIALIZED (
        SELECT e.id, e.position, e.message_id, e.conversation_id, e.created_at,
            _wa_event_type(e.kind, e.status) AS type
        FROM wa_event_subscriptions s
        CROSS JOIN LATERAL (
            SELECT x.id, x.position, x.message_id, x.conversation_id, x.created_at, x.kind, x.status
            FROM wa_events x
            WHERE x.organization_id = p_org AND x.position > s.read_position
            ORDER BY x.position LIMIT c_at_once
        ) e
        WHERE s.organization_id = p_org AND s.id = p_id
    ),
    wanted AS (
        SELECT u.id, u.position, u.created_at, u.type, coalesce(
            'contact:' || m.contact_id || ':' || coalesce(m.number_id, 0), 'message:' || u.message_id,
            'event:' || u.id
        ) AS order_key
        FROM unread u
        JOIN wa_event_subscriptions s ON s.organization_id = p_org AND s.id = p_id
        LEFT JOIN LATERAL (
            SELECT w.contact_id, w.number_id FROM wa_messages w
            WHERE w.organization_id = p_org AND w.id = u.message_id
            UNION ALL
            SELECT c.contact_id, c.number_id FROM wa_conversation_windows c
            WHERE c.organization_id = p_org AND c.id = u.conversation_id
            LIMIT 1
        ) m ON true
        WHERE u.id > s.starts_after_id
            AND (u.type = ANY (s.kinds) OR split_part(u.type, '.', 1) = ANY (s.kinds))
    ),
    lined_up AS (
        INSERT INTO wa_event_deliveries (
            organization_id, subscription_id, event_id, webhook_id, type, position, order_key,
            next_attempt_at
        )
        SELECT p_org, p_id, w.id, _wa_webhook_id(p_id, w.id, w.created_at), w.type, w.position, w.order_key,
            CASE WHEN row_number() OVER (PARTITION BY w.order_key ORDER BY w.position) = 1 AND (
                SELECT f.event_id FROM _wa_first_event_of(p_org, p_id, w.order_key) f
            ) IS NULL THEN p_now ELSE 'infinity' END
        FROM wanted w
        ON CONFLICT (organization_id, subscription_id, event_id) DO NOTHING
    )
    SELECT count(*), max(u.position) INTO v_read, v_last FROM unread u;
    IF v_read > 0 THEN
        UPDATE wa_event_subscriptions s SET read_position = v_last WHERE s.organization_id = p_org AND s.id = p_id;
    END IF;
    RETURN v_read;
END
$$;

COMMENT ON FUNCTION _wa_read_events_for(uuid, uuid, timestamptz) IS
'Internal: makes deliveries of the next events that a subscription wants; returns how many it looked at.';

-- A subscription, whose row the caller has locked, has enough at hand, or has read what there is.
CREATE OR REPLACE FUNCTION _wa_line_events_up(p_org uuid, p_id uuid, p_needed integer, p_now timestamptz)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    -- Where every conversation waits for a delivery that fails, the rest stays in wa_events.
    c_most_waiting CONSTANT integer := 10000;
    c_most_rounds CONSTANT integer := 5;
    v_has_placed boolean := false;
BEGIN
    FOR v_round IN 1 .. c_most_rounds LOOP
        EXIT WHEN p_needed <= (
            SELECT count(*) FROM (
                SELECT FROM wa_event_deliveries d
                WHERE d.organization_id = p_org AND d.subscription_id = p_id
                    AND d.state IN ('waiting', 'sending') AND d.next_attempt_at < 'infinity'
                    AND d.next_attempt_at <= p_now
                LIMIT p_needed
            ) due
        );
        EXIT WHEN c_most_waiting <= (
            SELECT count(*) FROM (
                SELECT FROM (
                    -- Not through the primary key, which has what has ended, too.
                    SELECT d.organization_id FROM wa_event_deliveries d
                    WHERE d.subscription_id = p_id AND d.state IN ('waiting', 'sending')
                    OFFSET 0
                ) w
                WHERE w.organization_id = p_org
                LIMIT c_most_waiting
            ) waiting
        );
        PERFORM _wa_analyze_grown('{wa_event_deliveries}');
        PERFORM _wa_analyze_refilled('{wa_event_deliveries,wa_events}');
        CONTINUE WHEN _wa_read_events_for(p_org, p_id, p_now) > 0;
        -- Only now, since it walks past all that was placed while somebody's snapshot is old. Whoever reads the
        -- feed may hold the lock for long, and keeps only his own events from being pushed.
        EXIT WHEN v_has_placed
            OR NOT EXISTS (SELECT FROM wa_events e WHERE e.organization_id = p_org AND e.position IS NULL)
            OR NOT _wa_try_lock('events ' || p_org);
        PERFORM _wa_place_events(p_org);
        v_has_placed := true;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_line_events_up(uuid, uuid, integer, timestamptz) IS
'Internal: places new events and makes deliveries of them until so many are due.';

-- Only its row type is used: a delivery as it is handed out.
CREATE OR REPLACE VIEW _wa_event_requests AS
SELECT
    NULL::uuid AS organization_id, NULL::uuid AS subscription_id, NULL::bigint AS event_id,
    NULL::integer AS attempt, NULL::text AS url, NULL::text AS webhook_id, NULL::text AS body,
    NULL::double precision AS timeout_s, NULL::bytea[] AS ciphertexts, NULL::text[] AS key_ids
WHERE false;

COMMENT ON VIEW _wa_event_requests IS
'Internal: the shape of a delivery that is to be sent. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_claim_for_event_subscription(
    p_org uuid, p_id uuid, p_free integer, p_may_try boolean, p_key_ids text[], p_now timestamptz
) RETURNS SETOF _wa_event_requests
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_subscription wa_event_subscriptions;
    v_in_flight record;
    v_is_failing boolean;
    v_most integer;
    v_event_ids bigint[];
    c_timeout_s CONSTANT double precision := 15;
    c_failing_from CONSTANT integer := 3;
    c_most_each CONSTANT integer := 10;
    c_most_together CONSTANT integer := 20;
BEGIN
    SELECT * INTO v_subscription FROM wa_event_subscriptions s
    WHERE s.organization_id = p_org AND s.id = p_id AND s.state = 'active'
        AND (s.retry_at IS NULL OR s.retry_at <= p_now)
    FOR NO KEY UPDATE SKIP LOCKED;
    v_is_failing := v_subscription.failures >= c_failing_from;
    IF NOT FOUND OR (v_is_failing AND NOT p_may_try) THEN
        RETURN;
    END IF;
    -- Others of the organization may be claiming at this moment: about so many, not one to the other.
    SELECT count(*) FILTER (WHERE f.subscription_id = p_id) AS own, count(*) AS together INTO v_in_flight
    FROM wa_event_subscriptions s
    CROSS JOIN LATERAL (
        SELECT d.subscription_id FROM wa_event_deliveries d
        WHERE d.organization_id = p_org AND d.subscription_id = s.id AND d.state = 'sending'
            AND d.next_attempt_at < 'infinity' AND d.next_attempt_at > p_now
            AND d.next_attempt_at <= p_now + _wa_event_lease()
    ) f
    WHERE s.organization_id = p_org;
    v_most := least(
        p_free,
        -- One at least where there is room, however slow the organization's other receivers are.
        greatest(c_most_together - v_in_flight.together, CASE WHEN p_may_try THEN 1 - v_in_flight.own END),
        CASE WHEN v_is_failing THEN 1 ELSE c_most_each END - v_in_flight.own
    );
    IF v_most <= 0 THEN
        RETURN;
    END IF;
    PERFORM _wa_line_events_up(p_org, p_id, v_most, p_now);
    IF v_is_failing THEN
        -- One that was not tried yet tells more than one that may itself be why.
        v_event_ids := ARRAY(
            SELECT d.event_id FROM wa_event_deliveries d
            WHERE d.organization_id = p_org AND d.subscription_id = p_id
                AND d.state IN ('waiting', 'sending') AND d.next_attempt_at < 'infinity'
                AND d.next_attempt_at <= p_now
            ORDER BY d.attempts, d.next_attempt_at LIMIT v_most
        );
    ELSE
        v_event_ids := ARRAY(
            SELECT d.event_id FROM wa_event_deliveries d
            WHERE d.organization_id = p_org AND d.subscription_id = p_id
                AND d.state IN ('waiting', 'sending') AND d.next_attempt_at < 'infinity'
                AND d.next_attempt_at <= p_now
            ORDER BY d.next_attempt_at LIMIT v_most
        );
    END IF;
    RETURN QUERY
    WITH taken AS (
        UPDATE wa_event_deliveries d SET
            state = 'sending', attempts = d.attempts + 1, next_attempt_at = p_now + _wa_event_lease(),
            last_attempt_at = p_now, first_attempt_at = coalesce(d.first_attempt_at, p_now)
        WHERE d.organization_id = p_org AND d.subscription_id = p_id AND d.event_id = ANY (v_event_ids)
        RETURNING d.event_id, d.attempts, d.webhook_id, d.type, d.position, d.created_at
    )
    SELECT p_org, p_id, t.event_id, t.attempts, v_subscription.url, t.webhook_id,
        _wa_event_payload(p_org, t.event_id, t.type, t.created_at), c_timeout_s, c.ciphertexts, c.key_ids
    FROM taken t
    CROSS JOIN (
        SELECT array_agg(k.ciphertext ORDER BY k.created_at DESC) AS ciphertexts,
            array_agg(k.key_id ORDER BY k.created_at DESC) AS key_ids
        FROM wa_event_secrets k
        WHERE k.organization_id = p_org AND k.subscription_id = p_id
            AND k.key_id = ANY (p_key_ids) AND (k.valid_until IS NULL OR k.valid_until > p_now)
    ) c
    ORDER BY t.position;
END
$$;

COMMENT ON FUNCTION _wa_claim_for_event_subscription(
    uuid, uuid, integer, boolean, text[], timestamptz
) IS
'Internal: deliveries of one subscription that go now. p_may_try: whether there is room for one that fails, '
'or whose organization has its share.';

-- By whoever has these keys: what he cannot sign he leaves to others.
CREATE OR REPLACE FUNCTION _wa_due_event_subscriptions(p_key_ids text[], p_now timestamptz)
RETURNS TABLE (organization_id uuid, subscription_id uuid)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT s.organization_id, s.id FROM wa_event_subscriptions s
    WHERE s.state = 'active' AND (s.retry_at IS NULL OR s.retry_at <= p_now)
        AND EXISTS (
            SELECT FROM wa_event_secrets c
            WHERE c.organization_id = s.organization_id AND c.subscription_id = s.id
                AND c.valid_until IS NULL AND c.key_id = ANY (p_key_ids)
        )
        AND coalesce(
            (
                SELECT true FROM wa_event_deliveries d
                WHERE d.organization_id = s.organization_id AND d.subscription_id = s.id
                    AND d.state IN ('waiting', 'sending') AND d.next_attempt_at < 'infinity'
                    AND d.next_attempt_at <= p_now
                LIMIT 1
            ),
            (
                SELECT true FROM wa_events e
                WHERE e.organization_id = s.organization_id AND e.position > s.read_position
                LIMIT 1
            ),
            (
                SELECT true FROM wa_events e
                WHERE e.organization_id = s.organization_id AND e.position IS NULL
                LIMIT 1
            ),
            false
        );
END
$$;

COMMENT ON FUNCTION _wa_due_event_subscriptions(text[], timestamptz) IS
'Internal: subscriptions for which there may be something to push now.';

CREATE OR REPLACE FUNCTION _wa_claim_event_deliveries(
    p_free integer, p_concurrency integer, p_key_ids text[], p_now timestamptz
) RETURNS SETOF _wa_event_requests
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET lock_timeout = '200ms'
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    v_due record;
    v_left integer := p_free;
    v_taken integer;
BEGIN
    -- By chance, so that none is always the last when there are more than can be served.
    FOR v_due IN SELECT d.* FROM _wa_due_event_subscriptions(p_key_ids, p_now) d ORDER BY random() LOOP
        EXIT WHEN v_left <= 0;
        BEGIN
            -- Receivers that fail may take their time for it: half of the places are never theirs.
            RETURN QUERY SELECT * FROM _wa_claim_for_event_subscription(
                v_due.organization_id, v_due.subscription_id, v_left, v_left * 2 > p_concurrency, p_key_ids, p_now
            );
            GET DIAGNOSTICS v_taken = ROW_COUNT;
            v_left := v_left - v_taken;
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(v_due.organization_id, 'events', v_due.subscription_id::text, SQLSTATE,
                SQLERRM);
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_claim_event_deliveries(integer, integer, text[], timestamptz) IS
'Internal: claim_wa_event_deliveries() at a time.';

CREATE OR REPLACE FUNCTION claim_wa_event_deliveries(
    p_free integer, p_concurrency integer, p_key_ids text[], p_version text
) RETURNS SETOF _wa_event_requests
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_require_version(p_version);
    -- A copy must not tell receivers what the original tells them.
    PERFORM _wa_require_installation();
    RETURN QUERY SELECT * FROM _wa_claim_event_deliveries(p_free, p_concurrency, p_key_ids, clock_timestamp());
END
$$;

COMMENT ON FUNCTION claim_wa_event_deliveries(integer, integer, text[], text) IS
'For dispatchers: deliveries to be sent now, at most p_free, with the encrypted secrets that sign them. What '
'is not told to complete_wa_event_deliveries() within 45 seconds is handed out again. p_concurrency is how '
'many the process sends at once, p_key_ids the master keys that it has, p_version its release.';

CREATE OR REPLACE FUNCTION is_wa_event_delivery_due(p_key_ids text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (SELECT FROM _wa_due_event_subscriptions(p_key_ids, clock_timestamp()))
$$;

COMMENT ON FUNCTION is_wa_event_delivery_due(text[]) IS
'For dispatchers: whether a claim with these master keys may find something to push at this moment.';

CREATE OR REPLACE FUNCTION has_wa_event_subscriptions(p_key_ids text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_event_subscriptions s
        JOIN wa_event_secrets c ON c.organization_id = s.organization_id AND c.subscription_id = s.id
        WHERE s.state = 'active' AND c.valid_until IS NULL AND c.key_id = ANY (p_key_ids)
    )
$$;

COMMENT ON FUNCTION has_wa_event_subscriptions(text[]) IS
'For dispatchers: whether events are pushed anywhere by whoever has these master keys.';
