-- What runs wait for: recorded, and brought to the runs that it concerns, in the transaction in which it
-- happens. A run looks for events itself under the lock of its row, before it does anything: whoever records
-- one either sees what the run did before, or is seen by it. Here runs are woken, and what they have waiting
-- is taken back where the event leads elsewhere.

CREATE OR REPLACE FUNCTION _wa_flow_event_fits(
    p_wait jsonb, p_last_queue_id uuid, p_kind text, p_key text, p_data jsonb
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(CASE p_wait ->> 'for'
    WHEN 'reply' THEN p_kind = 'reply'
    WHEN 'button' THEN p_kind = 'reply' AND p_data ? 'button' AND (
        NOT p_wait ? 'buttons' OR p_wait -> 'buttons' ? (p_data ->> 'button')
        OR p_wait -> 'buttons' ? (p_data ->> 'text')
    )
    WHEN 'status' THEN p_kind = 'status' AND p_key = p_last_queue_id::text
        AND coalesce(p_wait -> 'status', '["delivered", "read", "failed"]') ? (p_data ->> 'status')
    WHEN 'payment' THEN p_kind = 'payment'
    WHEN 'event' THEN p_kind = 'event:' || (p_wait ->> 'event')
END, false);

COMMENT ON FUNCTION _wa_flow_event_fits(jsonb, uuid, text, text, jsonb) IS
'Internal: whether an event is what a run waits for, which queued this message last.';

-- By its key, or where it has none by the contact; what became of a message is its contact's.
CREATE OR REPLACE FUNCTION _wa_flow_events_of(
    p_org uuid, p_contact_id bigint, p_run_key text, p_since timestamptz
) RETURNS SETOF wa_flow_events
LANGUAGE sql STABLE
BEGIN ATOMIC
    -- OFFSET: only the index of the contact, or of the key, may serve, also in a plan made while there was
    -- no row.
    SELECT e.* FROM (
        SELECT x.* FROM wa_flow_events x WHERE x.contact_id = p_contact_id OFFSET 0
    ) e
    WHERE e.organization_id = p_org AND e.created_at >= p_since AND (e.key IS NULL OR e.kind = 'status')
    UNION ALL
    SELECT e.* FROM (SELECT x.* FROM wa_flow_events x WHERE x.key = p_run_key OFFSET 0) e
    WHERE e.organization_id = p_org AND e.created_at >= p_since AND e.kind <> 'status';
END;

COMMENT ON FUNCTION _wa_flow_events_of(uuid, bigint, text, timestamptz) IS
'Internal: the events since a time that concern a run of a contact with a key.';

CREATE OR REPLACE FUNCTION _wa_flows_concerned(p_event wa_flow_events) RETURNS TABLE (id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT f.id FROM (
        SELECT x.id, x.organization_id FROM wa_automation_flows x
        WHERE x.contact_id = p_event.contact_id AND x.status IN ('active', 'paused')
            AND x.definition_version IS NOT NULL
        OFFSET 0
    ) f
    WHERE f.organization_id = p_event.organization_id AND (p_event.key IS NULL OR p_event.kind = 'status')
    UNION ALL
    SELECT f.id FROM (
        SELECT x.id, x.organization_id, x.status FROM wa_automation_flows x
        WHERE x.run_key = p_event.key AND x.run_key IS NOT NULL AND x.definition_version IS NOT NULL
        OFFSET 0
    ) f
    WHERE f.organization_id = p_event.organization_id AND p_event.kind <> 'status'
        AND f.status IN ('active', 'paused');
END;

COMMENT ON FUNCTION _wa_flows_concerned(wa_flow_events) IS
'Internal: the runs under way that an event concerns.';

-- Who records webhooks waits for no run: it has all tenants behind it. Whatever is locked is looked at again.
CREATE OR REPLACE FUNCTION _wa_match_flow_event(
    p_event wa_flow_events, p_is_patient boolean, p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_ids uuid[] := ARRAY(SELECT c.id FROM _wa_flows_concerned(p_event) c ORDER BY c.id);
    v_id uuid;
    v_locked uuid[] := '{}';
    v_left uuid[];
BEGIN
    FOREACH v_id IN ARRAY v_ids LOOP
        IF p_is_patient THEN
            PERFORM FROM wa_automation_flows f WHERE f.organization_id = p_event.organization_id
                AND f.id = v_id
            FOR NO KEY UPDATE;
        ELSE
            PERFORM FROM wa_automation_flows f WHERE f.organization_id = p_event.organization_id
                AND f.id = v_id
            FOR NO KEY UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
        END IF;
        v_locked := v_locked || v_id;
    END LOOP;
    -- Read after the lock.
    v_left := ARRAY(
        SELECT f.id FROM unnest(v_locked) u (id)
        JOIN wa_automation_flows f ON f.organization_id = p_event.organization_id AND f.id = u.id
        JOIN wa_flow_definitions d ON d.organization_id = f.organization_id AND d.name = f.flow_type
            AND d.version = f.definition_version
        WHERE f.status = 'active' AND d.interrupts ? p_event.kind
    );
    PERFORM _wa_cancel_referenced(array_agg(p_event.organization_id), array_agg('flow:' || u.id))
    FROM unnest(v_left) u (id) HAVING count(*) > 0;
    UPDATE wa_automation_flows f SET next_action_at = p_now
    FROM unnest(v_locked) u (id)
    WHERE f.organization_id = p_event.organization_id AND f.id = u.id AND f.status = 'active' AND (
        f.id = ANY (v_left) OR _wa_flow_event_fits(f.wait, f.last_queue_id, p_event.kind, p_event.key,
            p_event.data)
    );
    IF p_event.is_matched <> (cardinality(v_locked) = cardinality(v_ids)) THEN
        UPDATE wa_flow_events e SET is_matched = NOT p_event.is_matched
        WHERE e.organization_id = p_event.organization_id AND e.id = p_event.id;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_match_flow_event(wa_flow_events, boolean, timestamptz) IS
'Internal: wakes the runs that wait for an event; takes back what is still pending of those that it leads '
'elsewhere. Waits for locked runs, or leaves the event to be matched again.';

CREATE OR REPLACE FUNCTION _wa_add_flow_event(
    p_org uuid, p_kind text, p_key text, p_contact_id bigint, p_data jsonb, p_event_id text
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event wa_flow_events;
BEGIN
    INSERT INTO wa_flow_events AS e (organization_id, kind, key, contact_id, data, event_id)
    VALUES (p_org, p_kind, p_key, p_contact_id, coalesce(p_data, '{}'), p_event_id)
    ON CONFLICT (organization_id, kind, event_id) WHERE event_id IS NOT NULL DO NOTHING
    RETURNING e.* INTO v_event;
    IF v_event.id IS NOT NULL THEN
        PERFORM _wa_match_flow_event(v_event, p_kind NOT IN ('reply', 'status'), clock_timestamp());
        IF p_kind LIKE 'event:%' AND p_contact_id IS NOT NULL THEN
            PERFORM _wa_start_flow(p_org, d.name, p_contact_id, coalesce(p_data, '{}'), p_key)
            FROM wa_flow_definitions d
            WHERE d.organization_id = p_org AND d.state = 'active'
                AND d.trigger ->> 'event' = substr(p_kind, length('event:') + 1);
        END IF;
    END IF;
    RETURN v_event.id;
END
$$;

COMMENT ON FUNCTION _wa_add_flow_event(uuid, text, text, bigint, jsonb, text) IS
'Internal: the one place at which an event (reply, status, payment, event:NAME) is recorded and brought to '
'runs, once for each event_id; returns its id, NULL for one that came before. One of the host starts flows, '
'too.';

CREATE OR REPLACE FUNCTION add_wa_flow_event(
    p_name text, p_key text DEFAULT NULL, p_phone text DEFAULT NULL, p_data jsonb DEFAULT '{}',
    p_event_id text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
BEGIN
    PERFORM _wa_require_live_key('Flows are run');
    IF coalesce(p_name, '') = '' OR length(p_name) > 100 OR num_nonnulls(p_key, p_phone) = 0
        OR jsonb_typeof(p_data) IS DISTINCT FROM 'object'
    THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an event has a name, a key or a phone, and an object of data',
            DETAIL = format('Given: %L, %L, %s.', left(p_name, 100), left(p_key, 100),
                coalesce(jsonb_typeof(p_data), 'NULL')),
            HINT = 'For example: add_wa_flow_event(''shipped'', ''ORD-1'', p_data => ''{"carrier": "UPS"}'').';
    END IF;
    RETURN _wa_add_flow_event(
        v_org, 'event:' || p_name, p_key,
        CASE WHEN p_phone IS NOT NULL THEN _wa_flow_contact(v_org, p_phone) END, p_data, p_event_id
    );
END
$$;

COMMENT ON FUNCTION add_wa_flow_event(text, text, text, jsonb, text) IS
'Tells flows of something that happened at the host, by the key with which they were started or by the '
'customer''s phone; with a phone it starts flows that it triggers. An event id counts once. Returns its '
'number, NULL for one that came before.';

-- Whatever the ledger tells applications of a message, it tells here: replies, and what became of messages
-- that flows sent. Nothing is kept of customers without a flow.
CREATE OR REPLACE FUNCTION tg_wa_events__tell_flows() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_event record;
BEGIN
    -- Where nobody has flows it ends here.
    IF EXISTS (SELECT FROM wa_flow_definitions) THEN
        FOR v_event IN
            SELECT n.organization_id, n.kind, n.status, m.id, m.contact_id, m.queue_id, m.message_type,
                m.content, m.content_text, m.wa_message_id, m.reply_to, m.error_code, n.occurred_at
            FROM new_rows n
            CROSS JOIN LATERAL (
                SELECT x.* FROM wa_messages x
                WHERE x.organization_id = n.organization_id AND x.id = n.message_id LIMIT 1
            ) m
            WHERE (n.kind = 'message' AND n.status = 'received' OR n.kind = 'status'
                AND m.metadata ? 'flow_id')
                AND EXISTS (
                    SELECT FROM wa_automation_flows f
                    WHERE f.contact_id = m.contact_id AND f.organization_id = n.organization_id
                        AND f.status IN ('active', 'paused') AND f.definition_version IS NOT NULL
                )
            ORDER BY n.id
        LOOP
            PERFORM _wa_add_flow_event(
                v_event.organization_id,
                CASE v_event.kind WHEN 'message' THEN 'reply' ELSE 'status' END,
                CASE v_event.kind WHEN 'status' THEN v_event.queue_id::text END, v_event.contact_id,
                jsonb_strip_nulls(CASE v_event.kind WHEN 'message' THEN jsonb_build_object(
                    'text', left(v_event.content_text, 4096), 'type', v_event.message_type,
                    'button', coalesce(
                        v_event.content #>> '{button_reply,id}', v_event.content #>> '{list_reply,id}',
                        CASE v_event.message_type WHEN 'button'
                            THEN coalesce(v_event.content ->> 'payload', v_event.content ->> 'text') END
                    ),
                    'message_id', v_event.id, 'at', v_event.occurred_at
                ) ELSE jsonb_build_object(
                    'status', v_event.status, 'queue_id', v_event.queue_id, 'error_code', v_event.error_code,
                    'at', v_event.occurred_at
                ) END),
                concat_ws(':', v_event.id, v_event.status)
            );
        END LOOP;
    END IF;
    IF EXISTS (SELECT FROM wa_flow_definitions d WHERE d.state = 'active'
        AND d.trigger ?| '{text,message}') THEN
        PERFORM _wa_start_triggered_flow(n.organization_id, n.message_id)
        FROM new_rows n WHERE n.kind = 'message' AND n.status = 'received';
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_events__tell_flows() IS
'Tells flows of customers'' messages, and of what became of their own; starts those that a message '
'triggers.';

CREATE OR REPLACE TRIGGER tell_flows AFTER INSERT ON wa_events
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_events__tell_flows();

CREATE OR REPLACE FUNCTION _wa_start_triggered_flow(p_org uuid, p_message_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_message record;
    v_name text;
BEGIN
    SELECT m.contact_id, m.content_text, m.message_type, m.phone_e164, m.user_id INTO v_message
    FROM wa_messages m
    WHERE m.organization_id = p_org AND m.id = p_message_id AND m.group_id IS NULL
        AND m.message_type NOT IN ('system', 'reaction', 'edit', 'revoke');
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR v_name IN
        SELECT d.name FROM wa_flow_definitions d
        WHERE d.organization_id = p_org AND d.state = 'active' AND CASE
            WHEN d.trigger ? 'text' THEN EXISTS (
                SELECT FROM jsonb_array_elements_text(d.trigger -> 'text') w (word)
                WHERE lower(btrim(w.word)) = lower(btrim(v_message.content_text))
            )
            WHEN d.trigger ->> 'message' = 'any' THEN true
            WHEN d.trigger ->> 'message' = 'first' THEN NOT EXISTS (
                SELECT FROM wa_messages m
                WHERE m.contact_id = v_message.contact_id AND m.organization_id = p_org
                    AND m.direction = 'inbound' AND m.id < p_message_id
            )
            ELSE false
        END
        ORDER BY d.name
    LOOP
        -- A fault of the definition's is not the message's.
        BEGIN
            PERFORM _wa_start_flow(p_org, v_name, v_message.contact_id, jsonb_strip_nulls(jsonb_build_object(
                'message', jsonb_build_object('id', p_message_id, 'text', v_message.content_text,
                    'type', v_message.message_type)
            )), NULL);
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(p_org, 'flows', 'trigger ' || v_name, SQLSTATE, SQLERRM);
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_start_triggered_flow(uuid, bigint) IS
'Internal: starts the flows that a message of a customer triggers; one that he has already goes on.';

-- Runs that were locked when their event came.
CREATE OR REPLACE FUNCTION _wa_match_late_events(p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_event wa_flow_events;
BEGIN
    FOR v_event IN
        SELECT e.* FROM wa_flow_events e WHERE NOT e.is_matched ORDER BY e.id LIMIT 1000
        FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        PERFORM _wa_match_flow_event(v_event, false, p_now);
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_match_late_events(timestamptz) IS
'Internal: brings events to runs that were locked when they came.';

-- An opt-out ends what it forbids; the queue has cancelled what waited. It waits for nobody: a run that is
-- locked is refused by the queue at its next message.
CREATE OR REPLACE FUNCTION tg_wa_opt_outs__end_flows() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_automation_flows f SET status = 'cancelled', outcome = 'opted_out',
        last_error = 'the contact opted out'
    FROM (
        SELECT x.organization_id, x.id
        FROM added a
        JOIN wa_automation_flows x ON x.organization_id = a.organization_id AND x.contact_id = a.contact_id
            AND x.status IN ('active', 'paused') AND x.definition_version IS NOT NULL
        JOIN wa_flow_definitions d ON d.organization_id = x.organization_id AND d.name = x.flow_type
            AND d.version = x.definition_version
        WHERE a.revoked_at IS NULL AND (a.scope = 'all' OR a.scope = d.category)
        FOR NO KEY UPDATE OF x SKIP LOCKED
    ) o
    WHERE f.organization_id = o.organization_id AND f.id = o.id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_opt_outs__end_flows() IS
'Ends flows of somebody who opts out: those of the scope''s category, or all.';

CREATE OR REPLACE TRIGGER end_flows AFTER INSERT ON wa_opt_outs
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tg_wa_opt_outs__end_flows();

CREATE OR REPLACE FUNCTION _wa_delete_flow_records(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_rows integer;
    v_flows integer;
BEGIN
    DELETE FROM wa_flow_events e
    USING (
        SELECT x.organization_id, x.id FROM wa_flow_events x
        WHERE x.created_at < p_now - interval '30 days' AND NOT _wa_is_held(x.organization_id, x.contact_id)
        ORDER BY x.created_at LIMIT p_limit
    ) o
    WHERE e.organization_id = o.organization_id AND e.id = o.id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    DELETE FROM wa_automation_flows f
    USING (
        SELECT x.organization_id, x.id
        FROM wa_automation_flows x
        JOIN wa_organizations o ON o.id = x.organization_id
        WHERE x.ended_at < p_now - o.message_retention AND x.definition_version IS NOT NULL
            AND NOT _wa_is_held(x.organization_id, x.contact_id)
        ORDER BY x.ended_at LIMIT p_limit
    ) o
    WHERE f.organization_id = o.organization_id AND f.id = o.id;
    GET DIAGNOSTICS v_flows = ROW_COUNT;
    RETURN v_rows + v_flows;
END
$$;

COMMENT ON FUNCTION _wa_delete_flow_records(timestamptz, integer) IS
'Internal: deletes events after thirty days, and runs, with what they did, that ended longer ago than their '
'organization keeps messages.';
