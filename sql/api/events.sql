-- Events over HTTP: the feed to be read, and the URLs that they are pushed to.

CREATE OR REPLACE FUNCTION get_wa_events(p_consumer text, p_limit integer DEFAULT 100) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 1000;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    IF length(p_consumer) > 200 THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'the name of a consumer has at most 200 characters',
            DETAIL = format('This one has %s.', length(p_consumer)),
            HINT = 'Any short text will do.';
    END IF;
    RETURN (
        SELECT jsonb_build_object(
            -- Also those that a test key is not shown: all up to there may be acknowledged.
            'position', max(e.position),
            'events', coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.position) FILTER (
                WHERE NOT _wa_is_test_only() OR e.phone_number_id IN (
                    SELECT n.phone_number_id FROM wa_phone_numbers n
                    WHERE n.organization_id = current_wa_organization() AND n.is_test)
            ), '[]')
        )
        FROM read_wa_events(p_consumer, p_limit) e
    );
END
$$;

COMMENT ON FUNCTION get_wa_events(text, integer) IS
'A page of at most 1,000 of what read_wa_events() gives a consumer, and the position to acknowledge by '
'ack_wa_events() once they are dealt with; until then it is the same page again.';

CREATE OR REPLACE FUNCTION get_wa_event_subscription(p_id uuid) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_subscription jsonb;
BEGIN
    SELECT to_jsonb(h) - 'organization_id' INTO v_subscription FROM wa_event_subscription_health h
    WHERE h.organization_id = current_wa_organization() AND h.id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA040',
            MESSAGE = 'there is no such event subscription',
            DETAIL = format('The subscription is %s.', coalesce(p_id::text, 'NULL')),
            HINT = 'SELECT id, url, state FROM wa_event_subscriptions;';
    END IF;
    RETURN v_subscription;
END
$$;

COMMENT ON FUNCTION get_wa_event_subscription(uuid) IS
'A subscription and how it stands, as wa_event_subscription_health tells; raises WA040 where there is none.';

CREATE OR REPLACE FUNCTION list_wa_event_subscriptions() RETURNS jsonb
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT jsonb_build_object('subscriptions', coalesce(
        jsonb_agg(to_jsonb(h) - 'organization_id' ORDER BY h.url, h.id), '[]'
    ))
    FROM wa_event_subscription_health h
    WHERE h.organization_id = current_wa_organization()
$$;

COMMENT ON FUNCTION list_wa_event_subscriptions() IS
'All subscriptions of the organization, at most 50, as get_wa_event_subscription() shows one.';

CREATE OR REPLACE FUNCTION list_wa_event_deliveries(
    p_id uuid, p_state text DEFAULT NULL, p_limit integer DEFAULT 100, p_cursor text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_most CONSTANT integer := 500;
    -- Ids of test events lie below zero, which cursors do not know.
    c_shift CONSTANT bigint := 1000000000000;
    v_before bigint := _wa_read_cursor(p_cursor) - c_shift;
    v_page jsonb;
    v_place bigint;
    v_count integer;
BEGIN
    PERFORM _wa_require_page(p_limit, c_most);
    PERFORM get_wa_event_subscription(p_id);
    IF p_state NOT IN ('waiting', 'sending', 'delivered', 'failed') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('no state of a delivery is called "%s"', left(p_state, 100)),
            DETAIL = 'It is what the list is narrowed to.',
            HINT = 'There are waiting, sending, delivered and failed.';
    END IF;
    SELECT coalesce(jsonb_agg(p.item ORDER BY p.n) FILTER (WHERE p.n <= p_limit), '[]'),
        min(p.event_id) FILTER (WHERE p.n <= p_limit), count(*)
    INTO v_page, v_place, v_count
    FROM (
        SELECT d.event_id, row_number() OVER (ORDER BY d.event_id DESC) AS n,
            to_jsonb(d) - 'organization_id' - 'subscription_id' - 'order_key' || jsonb_build_object(
                'next_attempt_at', CASE WHEN d.ended_at IS NULL THEN nullif(d.next_attempt_at, 'infinity') END
            ) AS item
        FROM wa_event_deliveries d
        WHERE d.organization_id = current_wa_organization() AND d.subscription_id = p_id
            AND (v_before IS NULL OR d.event_id < v_before) AND (p_state IS NULL OR d.state = p_state)
        ORDER BY d.event_id DESC LIMIT p_limit + 1
    ) p;
    RETURN jsonb_build_object(
        'deliveries', v_page,
        'next', CASE WHEN v_count > p_limit THEN _wa_write_cursor((v_place + c_shift)::text) END
    );
END
$$;

COMMENT ON FUNCTION list_wa_event_deliveries(uuid, text, integer, text) IS
'What became of events at a subscription, the latest first, a page of at most 500 and the cursor of the next '
'one. Raises WA040 where there is no such subscription.';
