-- Webhooks: stored byte for byte, durably, before anything is read of them; taken apart and processed
-- afterwards, and as often as needed.

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
            SELECT a::_wa_webhook_atoms FROM unnest(v_atoms) a WHERE a.organization_id = v_org AND a.error IS NULL
        ));
    END LOOP;
    PERFORM _wa_note_webhooks(a.organization_id, array_agg(DISTINCT a.number_id), v_started)
    FROM unnest(v_atoms) a
    WHERE a.number_id IS NOT NULL
    GROUP BY a.organization_id;

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

CREATE OR REPLACE FUNCTION record_wa_webhook_rejection(p_source text, p_reason text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_audit_rejection(p_source, p_reason)
$$;

COMMENT ON FUNCTION record_wa_webhook_rejection(text, text) IS
'Counts a webhook request with a wrong or missing signature: one audit_log row per source and minute, in '
'the default organization.';
