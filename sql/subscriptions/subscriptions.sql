-- Subscriptions to events: made, changed, paused, tried out and ended; and how they stand.

CREATE OR REPLACE FUNCTION _wa_event_types() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[
    'message.received', 'message.echo', 'status.accepted', 'status.held', 'status.sent', 'status.failed',
    'status.delivered', 'status.read', 'status.played', 'conversation.assigned'
];

COMMENT ON FUNCTION _wa_event_types() IS 'Internal: the types of events that are pushed.';

CREATE OR REPLACE FUNCTION _wa_event_type(p_kind text, p_status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_kind IN ('status', 'conversation') THEN p_kind || '.' || p_status
    WHEN p_status = 'received' THEN 'message.received'
    ELSE 'message.echo'
END;

COMMENT ON FUNCTION _wa_event_type(text, text) IS
'Internal: the type of an event of wa_events; echo is what the business sent outside of the queue.';

CREATE OR REPLACE FUNCTION _wa_require_event_kinds(p_kinds text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_unknown text[] := ARRAY(
        SELECT left(coalesce(k.kind, 'NULL'), 50) FROM unnest(p_kinds) k (kind)
        WHERE k.kind IS NULL OR k.kind <> ALL ('{message,status,conversation}'::text[] || _wa_event_types())
    );
BEGIN
    IF coalesce(cardinality(p_kinds), 0) = 0 OR cardinality(v_unknown) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'there are no events of these kinds',
            DETAIL = CASE WHEN cardinality(v_unknown) > 0
                THEN format('Unknown: %s.', array_to_string(v_unknown[1:5], ', ')) ELSE 'None is given.' END,
            HINT = format('message, status and conversation stand for all of theirs; %s.',
                array_to_string(_wa_event_types(), ', '));
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_event_kinds(text[]) IS
'Internal: raises 22023 for kinds of events that do not exist.';

CREATE OR REPLACE FUNCTION _wa_lock_event_subscription(p_org uuid, p_id uuid) RETURNS wa_event_subscriptions
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_subscription wa_event_subscriptions;
BEGIN
    PERFORM _wa_require_live_key('Events are pushed');
    SELECT * INTO v_subscription FROM wa_event_subscriptions s
    WHERE s.organization_id = p_org AND s.id = p_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA040',
            MESSAGE = 'there is no such event subscription',
            DETAIL = format('The subscription is %s.', coalesce(p_id::text, 'NULL')),
            HINT = 'SELECT id, url, state FROM wa_event_subscriptions;';
    END IF;
    RETURN v_subscription;
END
$$;

COMMENT ON FUNCTION _wa_lock_event_subscription(uuid, uuid) IS
'Internal: a subscription, which nobody else changes or claims from until the end of the transaction; raises '
'WA040 where there is none, WA605 for a test key.';

-- By the time of the event, too: after a restore its number may be given to another one.
CREATE OR REPLACE FUNCTION _wa_webhook_id(p_subscription_id uuid, p_event_id bigint, p_at timestamptz)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN 'evt_' || left(encode(sha256(convert_to(
    concat_ws(' ', p_subscription_id, p_event_id, extract(EPOCH FROM p_at)), 'UTF8'
)), 'hex'), 32);

COMMENT ON FUNCTION _wa_webhook_id(uuid, bigint, timestamptz) IS
'Internal: the webhook-id of an event at a subscription: the same again should its delivery be made anew.';

-- Through the index in the order of keys, whatever the planner knows of the table.
CREATE OR REPLACE FUNCTION _wa_first_event_of(
    p_org uuid, p_subscription_id uuid, p_order_key text, OUT event_id bigint, OUT next_attempt_at timestamptz
)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT f.event_id, f.next_attempt_at
    FROM (
        SELECT d.organization_id, d.event_id, d.next_attempt_at FROM wa_event_deliveries d
        WHERE d.subscription_id = p_subscription_id AND d.order_key = p_order_key
            AND d.state IN ('waiting', 'sending')
        ORDER BY d.position
        OFFSET 0
    ) f
    WHERE f.organization_id = p_org
    LIMIT 1
$$;

COMMENT ON FUNCTION _wa_first_event_of(uuid, uuid, text) IS
'Internal: the first of the deliveries with a key that have not ended.';

-- Every change of the deliveries of a subscription is made under its lock, and at most one of each key has a
-- time: the one that is due, or on its way.
CREATE OR REPLACE FUNCTION _wa_release_event_order(
    p_org uuid, p_subscription_id uuid, p_order_keys text[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_key text;
    v_event_id bigint;
BEGIN
    FOR v_key IN SELECT DISTINCT u.order_key FROM unnest(p_order_keys) u (order_key) LOOP
        SELECT f.event_id INTO v_event_id FROM _wa_first_event_of(p_org, p_subscription_id, v_key) f;
        UPDATE wa_event_deliveries d SET next_attempt_at = p_now
        WHERE d.organization_id = p_org AND d.subscription_id = p_subscription_id AND d.event_id = v_event_id;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_release_event_order(uuid, uuid, text[], timestamptz) IS
'Internal: makes the first delivery of each key due, whose last one has ended.';

CREATE OR REPLACE FUNCTION _wa_release_waiting_events(p_org uuid, p_subscription_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_release_event_order(p_org, p_subscription_id, ARRAY(
        SELECT d.order_key FROM wa_event_deliveries d
        WHERE d.organization_id = p_org AND d.subscription_id = p_subscription_id
            AND d.state IN ('waiting', 'sending')
        GROUP BY d.order_key
        HAVING min(d.next_attempt_at) = 'infinity'
    ), clock_timestamp());
END
$$;

COMMENT ON FUNCTION _wa_release_waiting_events(uuid, uuid) IS
'Internal: makes the first delivery of each key due, unless one of the key is due or on its way already.';

CREATE OR REPLACE FUNCTION _wa_keep_event_secret(
    p_org uuid, p_subscription_id uuid, p_ciphertext bytea, p_key_id text, p_fingerprint text
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF length(p_ciphertext) < 28 OR p_ciphertext IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'the secret does not look encrypted',
            DETAIL = format('It has %s bytes; nonce and tag alone have 28.',
                coalesce(length(p_ciphertext), 0)),
            HINT = 'Use bin/wa events; a plain value must never reach the database.';
    END IF;
    INSERT INTO wa_event_secrets (organization_id, subscription_id, ciphertext, key_id, fingerprint)
    VALUES (p_org, p_subscription_id, p_ciphertext, p_key_id, p_fingerprint);
END
$$;

COMMENT ON FUNCTION _wa_keep_event_secret(uuid, uuid, bytea, text, text) IS
'Internal: stores an encrypted secret of a subscription.';

CREATE OR REPLACE FUNCTION create_wa_event_subscription(
    p_id uuid, p_url text, p_kinds text[], p_ciphertext bytea, p_key_id text, p_fingerprint text
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    c_most CONSTANT integer := 50;
BEGIN
    PERFORM _wa_require_live_key('Events are pushed');
    PERFORM _wa_require_outside_url(p_url);
    PERFORM _wa_require_event_kinds(p_kinds);
    IF (SELECT count(*) >= c_most FROM wa_event_subscriptions s WHERE s.organization_id = v_org) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA241',
            MESSAGE = format('the organization has %s event subscriptions, more are not served', c_most),
            DETAIL = 'Each is looked at twice a second.',
            HINT = 'SELECT delete_wa_event_subscription(id) of those that are not needed.';
    END IF;
    -- So that who delivers need not wait for it; see _wa_try_lock().
    PERFORM _wa_lock('events ' || v_org);
    INSERT INTO wa_event_subscriptions (organization_id, id, url, kinds, read_position, starts_after_id)
    SELECT v_org, p_id, p_url, p_kinds,
        coalesce((
            SELECT e.position FROM wa_events e
            WHERE e.organization_id = v_org AND e.position IS NOT NULL ORDER BY e.position DESC LIMIT 1
        ), 0),
        coalesce((SELECT max(e.id) FROM wa_events e WHERE e.organization_id = v_org), 0);
    PERFORM _wa_keep_event_secret(v_org, p_id, p_ciphertext, p_key_id, p_fingerprint);
    PERFORM _wa_audit(v_org, 'event_subscription_created', 'wa_event_subscriptions', p_id::text,
        jsonb_build_object('kinds', p_kinds, 'key_id', p_key_id));
    RETURN p_id;
END
$$;

COMMENT ON FUNCTION create_wa_event_subscription(uuid, text, text[], bytea, text, text) IS
'Pushes events from now on to a URL, signed with an encrypted secret that is bound to this id. bin/wa events '
'subscribe makes both. Raises WA041 for a URL that is not called.';

CREATE OR REPLACE FUNCTION change_wa_event_subscription(
    p_id uuid, p_url text DEFAULT NULL, p_kinds text[] DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_subscription wa_event_subscriptions := _wa_lock_event_subscription(_wa_caller_organization(), p_id);
BEGIN
    v_subscription.url := coalesce(p_url, v_subscription.url);
    v_subscription.kinds := coalesce(p_kinds, v_subscription.kinds);
    PERFORM _wa_require_outside_url(v_subscription.url);
    PERFORM _wa_require_event_kinds(v_subscription.kinds);
    UPDATE wa_event_subscriptions s SET url = v_subscription.url, kinds = v_subscription.kinds, retry_at = NULL
    WHERE s.organization_id = v_subscription.organization_id AND s.id = p_id;
    PERFORM _wa_audit(v_subscription.organization_id, 'event_subscription_changed', 'wa_event_subscriptions',
        p_id::text, jsonb_build_object('kinds', v_subscription.kinds, 'is_new_url', p_url IS NOT NULL));
END
$$;

COMMENT ON FUNCTION change_wa_event_subscription(uuid, text, text[]) IS
'Gives a subscription another URL, for what waits too, or other kinds, for events that were not read yet.';

CREATE OR REPLACE FUNCTION rotate_wa_event_secret(
    p_id uuid, p_ciphertext bytea, p_key_id text, p_fingerprint text,
    p_overlap interval DEFAULT interval '24 hours'
) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_until timestamptz := clock_timestamp() + p_overlap;
BEGIN
    IF p_overlap IS NULL OR p_overlap < interval '0' OR p_overlap > interval '30 days' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'a former secret cannot stay valid for that long',
            DETAIL = format('Given: %s.', coalesce(p_overlap::text, 'NULL')),
            HINT = 'From 0 to 30 days.';
    END IF;
    PERFORM _wa_lock_event_subscription(v_org, p_id);
    -- Two at a time: one from before the last change goes.
    DELETE FROM wa_event_secrets c
    WHERE c.organization_id = v_org AND c.subscription_id = p_id AND c.valid_until IS NOT NULL;
    UPDATE wa_event_secrets c SET valid_until = v_until
    WHERE c.organization_id = v_org AND c.subscription_id = p_id;
    PERFORM _wa_keep_event_secret(v_org, p_id, p_ciphertext, p_key_id, p_fingerprint);
    PERFORM _wa_audit(v_org, 'event_secret_rotated', 'wa_event_subscriptions', p_id::text,
        jsonb_build_object('key_id', p_key_id, 'former_valid_until', v_until));
    RETURN v_until;
END
$$;

COMMENT ON FUNCTION rotate_wa_event_secret(uuid, bytea, text, text, interval) IS
'Signs with another encrypted secret from now on, and with the former one beside it until the time that is '
'returned. bin/wa events rotate makes it.';

CREATE OR REPLACE FUNCTION _wa_set_event_subscription_state(
    p_org uuid, p_id uuid, p_state text, p_reason text
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_event_subscriptions s SET
        state = p_state, state_reason = p_reason, state_changed_at = clock_timestamp()
    WHERE s.organization_id = p_org AND s.id = p_id;
    SELECT _wa_audit(p_org, 'event_subscription_' || coalesce(p_reason, 'resumed'), 'wa_event_subscriptions',
        p_id::text, jsonb_build_object('state', p_state))
$$;

COMMENT ON FUNCTION _wa_set_event_subscription_state(uuid, uuid, text, text) IS
'Internal: changes the state of a subscription and leaves an audit row.';

CREATE OR REPLACE FUNCTION pause_wa_event_subscription(p_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    PERFORM _wa_lock_event_subscription(v_org, p_id);
    PERFORM _wa_set_event_subscription_state(v_org, p_id, 'disabled', 'paused');
END
$$;

COMMENT ON FUNCTION pause_wa_event_subscription(uuid) IS
'Pushes nothing more to a subscription; what happens meanwhile is pushed when it is resumed, as far as '
'events are kept.';

CREATE OR REPLACE FUNCTION resume_wa_event_subscription(p_id uuid, p_from_now boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    PERFORM _wa_lock_event_subscription(v_org, p_id);
    UPDATE wa_event_subscriptions s SET
        failures = 0, failing_since = NULL, retry_at = NULL, last_error = NULL,
        starts_after_id = CASE WHEN p_from_now THEN greatest(s.starts_after_id, (
            SELECT max(e.id) FROM wa_events e WHERE e.organization_id = v_org
        )) ELSE s.starts_after_id END
    WHERE s.organization_id = v_org AND s.id = p_id;
    IF p_from_now THEN
        UPDATE wa_event_deliveries d SET
            state = 'failed', error = 'passed over when the subscription was resumed',
            ended_at = clock_timestamp()
        WHERE d.organization_id = v_org AND d.subscription_id = p_id AND d.state = 'waiting';
    ELSE
        -- What has to wait for its turn goes on waiting for it, unless retention took the one before.
        UPDATE wa_event_deliveries d SET next_attempt_at = clock_timestamp()
        WHERE d.organization_id = v_org AND d.subscription_id = p_id AND d.state = 'waiting'
            AND d.next_attempt_at < 'infinity';
        PERFORM _wa_release_waiting_events(v_org, p_id);
    END IF;
    PERFORM _wa_set_event_subscription_state(v_org, p_id, 'active', NULL);
END
$$;

COMMENT ON FUNCTION resume_wa_event_subscription(uuid, boolean) IS
'Pushes again to a subscription that was paused, disabled or gone: all that happened meanwhile, or with '
'p_from_now only what happens from now on.';

CREATE OR REPLACE FUNCTION delete_wa_event_subscription(p_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    PERFORM _wa_lock_event_subscription(v_org, p_id);
    DELETE FROM wa_event_subscriptions s WHERE s.organization_id = v_org AND s.id = p_id;
    PERFORM _wa_audit(v_org, 'event_subscription_deleted', 'wa_event_subscriptions', p_id::text, '{}');
END
$$;

COMMENT ON FUNCTION delete_wa_event_subscription(uuid) IS
'Ends a subscription, with its secrets and the list of its deliveries.';

CREATE OR REPLACE FUNCTION _wa_require_active_event_subscription(p_org uuid, p_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_subscription wa_event_subscriptions := _wa_lock_event_subscription(p_org, p_id);
BEGIN
    IF v_subscription.state <> 'active' THEN
        RAISE EXCEPTION USING ERRCODE = 'WA240',
            MESSAGE = 'nothing is pushed to this event subscription',
            DETAIL = format('It is %s: %s.', v_subscription.state, v_subscription.state_reason),
            HINT = format('SELECT resume_wa_event_subscription(%L);', p_id);
    END IF;
    -- Whoever asks for an attempt wants it now.
    UPDATE wa_event_subscriptions s SET retry_at = NULL WHERE s.organization_id = p_org AND s.id = p_id;
END
$$;

COMMENT ON FUNCTION _wa_require_active_event_subscription(uuid, uuid) IS
'Internal: locks a subscription to which something is to be pushed now; raises WA240 where nothing is.';

CREATE OR REPLACE FUNCTION test_wa_event_subscription(p_id uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_event_id bigint;
BEGIN
    PERFORM _wa_require_active_event_subscription(v_org, p_id);
    SELECT least(min(d.event_id), 0) - 1 INTO v_event_id FROM wa_event_deliveries d
    WHERE d.organization_id = v_org AND d.subscription_id = p_id AND d.event_id < 0;
    INSERT INTO wa_event_deliveries (
        organization_id, subscription_id, event_id, webhook_id, type, order_key, next_attempt_at
    )
    VALUES (
        v_org, p_id, v_event_id, _wa_webhook_id(p_id, v_event_id, clock_timestamp()), 'test',
        'test:' || v_event_id, clock_timestamp()
    );
    RETURN v_event_id;
END
$$;

COMMENT ON FUNCTION test_wa_event_subscription(uuid) IS
'Pushes a test event; returns its event_id, under which wa_event_deliveries tells what was answered.';

CREATE OR REPLACE FUNCTION resend_wa_event_deliveries(
    p_id uuid, p_event_ids bigint[] DEFAULT NULL, p_since timestamptz DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_again integer;
BEGIN
    PERFORM _wa_require_active_event_subscription(v_org, p_id);
    UPDATE wa_event_deliveries d SET
        state = 'waiting', attempts = 0, first_attempt_at = NULL, next_attempt_at = 'infinity', ended_at = NULL
    WHERE d.organization_id = v_org AND d.subscription_id = p_id AND d.state IN ('delivered', 'failed')
        AND (d.event_id = ANY (p_event_ids) OR (p_event_ids IS NULL AND d.state = 'failed'))
        AND (p_since IS NULL OR d.created_at >= p_since);
    GET DIAGNOSTICS v_again = ROW_COUNT;
    PERFORM _wa_release_waiting_events(v_org, p_id);
    RETURN v_again;
END
$$;

COMMENT ON FUNCTION resend_wa_event_deliveries(uuid, bigint[], timestamptz) IS
'Pushes events again under the webhook-id that they had: those with these ids, whatever became of them, or '
'all that failed; of either only those that happened since a time, if one is given. Returns how many.';

CREATE OR REPLACE VIEW wa_event_subscription_health WITH (security_invoker = true) AS
SELECT
    s.organization_id, s.id, s.url, s.kinds, s.state, s.state_reason, s.state_changed_at, s.failing_since,
    s.failures, s.last_error, s.retry_at, s.last_success_at, coalesce(w.waiting, 0) AS waiting,
    w.oldest_due_at,
    least(
        (
            SELECT e.created_at FROM wa_events e
            WHERE e.organization_id = s.organization_id AND e.position > s.read_position
            ORDER BY e.position LIMIT 1
        ),
        (
            SELECT e.created_at FROM wa_events e
            WHERE e.organization_id = s.organization_id AND e.position IS NULL AND e.id > s.starts_after_id
            ORDER BY e.id LIMIT 1
        )
    ) AS oldest_unread_at
FROM wa_event_subscriptions s
LEFT JOIN LATERAL (
    SELECT count(*) AS waiting,
        min(d.next_attempt_at) FILTER (WHERE d.next_attempt_at <= clock_timestamp()) AS oldest_due_at
    FROM wa_event_deliveries d
    WHERE d.organization_id = s.organization_id AND d.subscription_id = s.id
        AND d.state IN ('waiting', 'sending')
) w ON true;

COMMENT ON VIEW wa_event_subscription_health IS
'One row per event subscription: whether it gets through, since when and why not, when it is tried next, how '
'many deliveries wait, since when one is due that was not tried, and when the first event happened that '
'nobody has looked at for it.';

-- Not of how pushing goes, which changes with every event.
CREATE OR REPLACE TRIGGER audit_change
AFTER INSERT OR DELETE OR UPDATE OF url, kinds, state, state_reason ON wa_event_subscriptions
FOR EACH ROW EXECUTE FUNCTION tg_audit_change(
    'id', 'read_position starts_after_id failures failing_since last_error retry_at last_success_at'
);

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_event_secrets
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('subscription_id id', 'ciphertext');
