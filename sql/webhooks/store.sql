-- Webhooks: stored byte for byte, durably, before anything is read of them; taken apart and processed
-- afterwards, and as often as needed.

-- Only its row type is used: one atom of a webhook with what is known of it, in the arrays that processing
-- hands on.
CREATE OR REPLACE VIEW _wa_webhook_atoms AS
SELECT
    NULL::bigint AS log_id, NULL::integer AS atom, NULL::integer AS place, NULL::text AS kind,
    NULL::text AS field,
    NULL::uuid AS organization_id, NULL::bigint AS number_id, NULL::text AS waba_id,
    NULL::text AS phone_number_id,
    NULL::text AS display_phone, NULL::timestamptz AS received_at, NULL::timestamptz AS at,
    NULL::jsonb AS payload,
    NULL::jsonb AS contact, NULL::text AS dedupe_key, NULL::text AS error
WHERE false;

COMMENT ON VIEW _wa_webhook_atoms IS 'Internal: the shape of an atom while it is processed. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_number_atoms(p_atoms _wa_webhook_atoms[]) RETURNS TABLE (
    n bigint, number_id bigint, phone_number_id text, display_phone text, at timestamptz, payload jsonb,
    contact jsonb
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT a.n, a.number_id, a.phone_number_id, a.display_phone, a.at, a.payload, a.contact
    FROM unnest(p_atoms) WITH ORDINALITY a (
        log_id, atom, place, kind, field, organization_id, number_id, waba_id, phone_number_id, display_phone,
        received_at, at, payload, contact, dedupe_key, error, n
    );
END;

COMMENT ON FUNCTION _wa_number_atoms(_wa_webhook_atoms[]) IS
'Internal: atoms with their places in the array.';

CREATE OR REPLACE FUNCTION ingest_wa_webhooks(p_bodies bytea[], p_sources text[],
    p_provider text DEFAULT 'meta')
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    -- The sender gets its 200 after this commit, which must therefore reach the disk.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    WITH stored AS (
        INSERT INTO wa_webhook_logs (body, source, provider)
        SELECT b.body, b.source, p_provider
        FROM unnest(p_bodies, p_sources) WITH ORDINALITY b (body, source, n)
        WHERE b.n <= cardinality(p_bodies)
        ORDER BY b.n
        RETURNING id
    )
    SELECT array_agg(s.id ORDER BY s.id) INTO v_ids FROM stored s;
    RETURN coalesce(v_ids, '{}');
END
$$;

COMMENT ON FUNCTION ingest_wa_webhooks(bytea[], text[], text) IS
'Stores webhook bodies as they arrived, with their sources (addresses); returns their ids in order. Durable '
'at commit even where synchronous_commit is off.';

CREATE OR REPLACE FUNCTION ingest_wa_webhook(p_body bytea, p_source text DEFAULT NULL,
    p_provider text DEFAULT 'meta')
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT (ingest_wa_webhooks(ARRAY[p_body], ARRAY[p_source], p_provider))[1]
$$;

COMMENT ON FUNCTION ingest_wa_webhook(bytea, text, text) IS
'Stores one webhook body as it arrived; returns its id. process_wa_webhooks() reads it.';

CREATE OR REPLACE FUNCTION process_wa_webhooks(p_limit integer DEFAULT 500) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    c_tables CONSTANT regclass[] := ARRAY[
        'wa_contacts', 'wa_contact_identities', 'wa_conversation_windows', 'wa_messages',
        'wa_message_statuses', 'wa_events', 'wa_webhook_logs'
    ]::regclass[];
    v_ids bigint[];
BEGIN
    -- One processor at a time: bodies are read in the order of arrival, and a second one would only wait for
    -- rows.
    PERFORM pg_advisory_xact_lock(hashtextextended('wa_webhooks', 0));
    PERFORM _wa_analyze_grown(c_tables);
    PERFORM _wa_analyze_refilled(c_tables);
    PERFORM _wa_attach_orphan_statuses(clock_timestamp());
    v_ids := ARRAY(
        SELECT l.id FROM wa_webhook_logs l WHERE l.status = 'pending' ORDER BY l.id LIMIT greatest(p_limit, 0)
    );
    PERFORM _wa_process_logs(v_ids);
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION process_wa_webhooks(integer) IS
'Processes stored webhook bodies, oldest first; returns how many. What cannot be processed is kept in '
'wa_webhook_errors and does not stop the rest. One call at a time works, others wait.';

CREATE OR REPLACE FUNCTION replay_wa_webhooks(p_log_ids bigint[] DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('wa_webhooks', 0));
    IF p_log_ids IS NULL THEN
        v_ids := ARRAY(
            SELECT DISTINCT e.log_id FROM wa_webhook_errors e WHERE e.resolved_at IS NULL ORDER BY e.log_id
                LIMIT 10000
        );
    ELSE
        v_ids := ARRAY(SELECT l.id FROM wa_webhook_logs l WHERE l.id = ANY (p_log_ids) ORDER BY l.id);
    END IF;
    PERFORM _wa_process_logs(v_ids);
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION replay_wa_webhooks(bigint[]) IS
'Processes stored bodies once more: the given ones, or all with unresolved errors; returns how many. What '
'was processed before changes nothing twice.';

-- Everything here is found by an index. Without the setting, a plan made while a table was nearly empty reads
-- all of it until the next ANALYZE, for every row.
CREATE OR REPLACE FUNCTION _wa_process_logs(p_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_atoms _wa_webhook_atoms[];
    v_org uuid;
BEGIN
    IF cardinality(p_ids) = 0 THEN
        RETURN;
    END IF;
    v_atoms := _wa_read_atoms(p_ids);
    INSERT INTO wa_webhook_errors (log_id, atom, kind, sqlstate, error, payload)
    SELECT DISTINCT ON (a.log_id, a.atom) a.log_id, a.atom, a.kind, CASE WHEN a.organization_id IS NULL
        THEN 'WA010' END,
        a.error, a.payload
    FROM unnest(v_atoms) a
    WHERE a.error IS NOT NULL
    ON CONFLICT (log_id, atom) DO UPDATE SET
        error = excluded.error, sqlstate = excluded.sqlstate, occurred_at = clock_timestamp(),
        resolved_at = NULL;

    FOR v_org IN
        SELECT DISTINCT a.organization_id FROM unnest(v_atoms) a WHERE a.error IS NULL ORDER BY 1
    LOOP
        PERFORM _wa_apply_atoms_safely(v_org, ARRAY(
            SELECT a::_wa_webhook_atoms FROM unnest(v_atoms) a
            WHERE a.organization_id = v_org AND a.error IS NULL
            ORDER BY a.place, a.log_id, a.atom
        ));
    END LOOP;
    UPDATE wa_phone_numbers n SET last_webhook_at = v_started
    WHERE (n.organization_id, n.id) IN (SELECT a.organization_id, a.number_id FROM unnest(v_atoms) a)
        AND (n.last_webhook_at IS NULL OR n.last_webhook_at < v_started - interval '10 seconds');

    UPDATE wa_webhook_errors SET resolved_at = clock_timestamp()
    WHERE log_id = ANY (p_ids) AND resolved_at IS NULL AND occurred_at < v_started;
    UPDATE wa_webhook_logs l SET
        status = CASE
            WHEN coalesce(f.failed, 0) = 0 THEN 'processed' WHEN f.failed < c.atoms THEN 'partial'
                ELSE 'failed'
        END,
        attempts = l.attempts + 1, atoms = coalesce(c.atoms, 0), failed_atoms = coalesce(f.failed, 0),
        error = f.error,
        processed_at = clock_timestamp()
    FROM unnest(p_ids) i (id)
    LEFT JOIN (
        SELECT a.log_id, count(DISTINCT a.atom) AS atoms FROM unnest(v_atoms) a GROUP BY a.log_id
    ) c ON c.log_id = i.id
    LEFT JOIN (
        SELECT e.log_id, count(*) AS failed, min(e.error) AS error
        FROM wa_webhook_errors e WHERE e.log_id = ANY (p_ids) AND e.resolved_at IS NULL
        GROUP BY e.log_id
    ) f ON f.log_id = i.id
    WHERE l.id = i.id;
END
$$;

COMMENT ON FUNCTION _wa_process_logs(bigint[]) IS
'Internal: processes the given stored bodies and records how each went.';

CREATE OR REPLACE FUNCTION _wa_read_atoms(p_ids bigint[]) RETURNS _wa_webhook_atoms[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- Not LANGUAGE sql, which would plan this anew in every transaction, at the cost of thirty bodies.
    RETURN (
        SELECT coalesce(array_agg(ROW(
            s.log_id, s.atom,
            CASE s.kind
                WHEN 'message' THEN CASE WHEN s.payload ->> 'type' IN ('edit', 'revoke', 'system') THEN 2
                    ELSE 1 END
                WHEN 'echo' THEN 3 WHEN 'call' THEN 4 WHEN 'status' THEN 5 WHEN 'call_status' THEN 5 ELSE 6
            END,
            s.kind, s.field, o.organization_id, o.number_id, s.waba_id, s.phone_number_id, s.display_phone,
            l.received_at,
            -- A clock that runs ahead must not lengthen a window.
            least(coalesce(
                _wa_to_timestamp(s.payload -> 'timestamp'),
                _wa_to_timestamp(s.payload #> '{metadata,timestamp}'),
                s.entry_time, l.received_at
            ), l.received_at),
            s.payload, s.contact, s.dedupe_key,
            coalesce(s.error, CASE
                WHEN o.organization_id IS NULL AND s.phone_number_id IS NOT NULL
                    THEN 'the business number is not registered'
                WHEN o.organization_id IS NULL THEN 'no number of the business account is registered'
            END)
        )::_wa_webhook_atoms), '{}')
        FROM (
            SELECT array_agg(w.id ORDER BY w.id) AS ids, array_agg(w.body ORDER BY w.id) AS bodies
            FROM wa_webhook_logs w WHERE w.id = ANY (p_ids)
        ) b
        CROSS JOIN LATERAL _wa_split_webhooks(b.ids, b.bodies) s
        -- A join could be planned as a walk through all that was ever received.
        CROSS JOIN LATERAL (SELECT w.received_at FROM wa_webhook_logs w WHERE w.id = s.log_id LIMIT 1) l
        LEFT JOIN LATERAL (
            SELECT r.organization_id, r.number_id FROM wa_number_routes r
                WHERE r.phone_number_id = s.phone_number_id
            UNION ALL
            -- Events of an account name no number; every tenant of the account is told.
            SELECT DISTINCT r.organization_id, NULL::bigint FROM wa_number_routes r
            WHERE s.phone_number_id IS NULL AND r.waba_id = s.waba_id
        ) o ON true
    );
END
$$;

COMMENT ON FUNCTION _wa_read_atoms(bigint[]) IS
'Internal: takes stored bodies apart and finds the tenant and number of each atom; those that cannot go on '
'have an error.';

-- The whole batch at once; when something in it fails, its halves, so that one bad atom costs little and
-- harms no other.
CREATE OR REPLACE FUNCTION _wa_apply_atoms_safely(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_count integer := cardinality(p_atoms);
    v_state text;
    v_message text;
BEGIN
    BEGIN
        PERFORM _wa_apply_atoms(p_org, p_atoms);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        -- Stored for replay, except what has nothing to do with the atom: then the whole batch stays pending.
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
        IF left(v_state, 2) IN ('25', '40', '53', '55', '57', '58') THEN
            RAISE;
        END IF;
    END;
    IF v_count = 1 THEN
        INSERT INTO wa_webhook_errors (log_id, atom, kind, sqlstate, error, payload)
        VALUES (p_atoms[1].log_id, p_atoms[1].atom, p_atoms[1].kind, v_state, v_message, p_atoms[1].payload)
        ON CONFLICT (log_id, atom) DO UPDATE SET
            error = excluded.error, sqlstate = excluded.sqlstate, occurred_at = clock_timestamp(),
            resolved_at = NULL;
    ELSE
        PERFORM _wa_apply_atoms_safely(p_org, p_atoms[1:v_count / 2]);
        PERFORM _wa_apply_atoms_safely(p_org, p_atoms[v_count / 2 + 1:v_count]);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_atoms_safely(uuid, _wa_webhook_atoms[]) IS
'Internal: applies what can be applied of a batch and keeps the rest in wa_webhook_errors.';

CREATE OR REPLACE FUNCTION _wa_apply_atoms(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_group record;
BEGIN
    PERFORM _wa_settle_echoes(p_org, p_atoms);
    FOR v_group IN
        SELECT a.place, array_agg(a::_wa_webhook_atoms ORDER BY a.log_id, a.atom) AS atoms
        FROM unnest(p_atoms) a GROUP BY a.place ORDER BY a.place
    LOOP
        CASE v_group.place
            WHEN 1, 2 THEN PERFORM _wa_apply_messages(p_org, v_group.atoms);
            WHEN 3 THEN PERFORM _wa_apply_echoes(p_org, v_group.atoms);
            WHEN 4 THEN PERFORM _wa_apply_calls(p_org, v_group.atoms);
            WHEN 5 THEN PERFORM _wa_apply_statuses(p_org, v_group.atoms);
            ELSE PERFORM _wa_apply_account_events(p_org, v_group.atoms);
        END CASE;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_apply_atoms(uuid, _wa_webhook_atoms[]) IS
'Internal: applies atoms of one organization, messages before statuses.';

CREATE OR REPLACE FUNCTION record_wa_webhook_rejection(p_source text, p_reason text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit_rejection(p_source, p_reason)
$$;

COMMENT ON FUNCTION record_wa_webhook_rejection(text, text) IS
'Counts a webhook request with a wrong or missing signature: one audit_log row per source and minute, in '
'the default organization.';
