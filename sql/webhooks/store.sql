-- Webhooks: stored byte for byte, durably, before anything is read of them; taken apart and processed
-- afterwards, and as often as needed.

CREATE OR REPLACE FUNCTION ingest_wa_webhooks(
    p_bodies bytea[], p_sources text[], p_provider text DEFAULT 'meta', p_signed_by text[] DEFAULT NULL
)
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
        INSERT INTO wa_webhook_logs (body, source, provider, signed_by)
        SELECT b.body, b.source, p_provider, b.signed_by::uuid[]
        FROM unnest(p_bodies, p_sources, p_signed_by) WITH ORDINALITY b (body, source, signed_by, n)
        WHERE b.n <= cardinality(p_bodies)
        ORDER BY b.n
        RETURNING id
    )
    SELECT array_agg(s.id ORDER BY s.id) INTO v_ids FROM stored s;
    RETURN coalesce(v_ids, '{}');
END
$$;

COMMENT ON FUNCTION ingest_wa_webhooks(bytea[], text[], text, text[]) IS
'Stores webhook bodies as they arrived, with their sources (addresses) and the secrets that signed them (ids '
'of wa_secrets, as the text of an array for each body; zeros for that of the environment); returns their ids '
'in order. Durable at commit even where synchronous_commit is off.';

CREATE OR REPLACE FUNCTION ingest_wa_webhook(p_body bytea, p_source text DEFAULT NULL,
    p_provider text DEFAULT 'meta')
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT (ingest_wa_webhooks(ARRAY[p_body], ARRAY[p_source], p_provider))[1]
$$;

COMMENT ON FUNCTION ingest_wa_webhook(bytea, text, text) IS
'Stores one webhook body as it arrived; returns its id. process_wa_webhooks() reads it.';

-- A body is some ten times as large while it is worked on, and PostgreSQL holds no value of more than a
-- gigabyte. Sizes are read without the bodies.
CREATE OR REPLACE FUNCTION _wa_bounded_logs(p_ids bigint[]) RETURNS bigint[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(array_agg(s.id ORDER BY s.id), '{}')
    FROM (
        SELECT l.id, row_number() OVER before AS n, sum(octet_length(l.body)) OVER before AS bytes
        FROM wa_webhook_logs l
        WHERE l.id = ANY (p_ids)
        WINDOW before AS (ORDER BY l.id)
    ) s
    WHERE s.n = 1 OR s.bytes <= 16 * 1024 * 1024
$$;

COMMENT ON FUNCTION _wa_bounded_logs(bigint[]) IS
'Internal: the first of the given bodies, as many as are worked on at once: 16 MiB, or one.';

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
    PERFORM _wa_lock('webhooks');
    PERFORM _wa_analyze_grown(c_tables);
    PERFORM _wa_analyze_refilled(c_tables);
    PERFORM _wa_attach_orphan_statuses(clock_timestamp());
    -- Few at a time: what is locked among them is found within the time that it may take.
    PERFORM _wa_process_logs(_wa_bounded_logs(_wa_locked_out_logs(least(greatest(p_limit, 0), 64))));
    v_ids := _wa_bounded_logs(ARRAY(
        SELECT l.id FROM wa_webhook_logs l WHERE l.status = 'pending' ORDER BY l.id LIMIT greatest(p_limit, 0)
    ));
    PERFORM _wa_process_logs(v_ids);
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION process_wa_webhooks(integer) IS
'Processes stored webhook bodies, oldest first, up to so many or 16 MiB of them; returns how many, 0 when '
'none is left. What cannot be processed is kept in wa_webhook_errors and does not stop the rest; what '
'somebody''s lock stopped is tried again after some seconds. One call at a time works, others wait.';

CREATE OR REPLACE FUNCTION replay_wa_webhooks(p_log_ids bigint[] DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_ids bigint[];
    v_now bigint[];
    v_count integer := 0;
BEGIN
    PERFORM _wa_lock('webhooks');
    IF p_log_ids IS NULL THEN
        v_ids := ARRAY(
            SELECT DISTINCT e.log_id FROM wa_webhook_errors e WHERE e.resolved_at IS NULL ORDER BY e.log_id
                LIMIT 10000
        );
    ELSE
        v_ids := ARRAY(SELECT l.id FROM wa_webhook_logs l WHERE l.id = ANY (p_log_ids) ORDER BY l.id);
    END IF;
    WHILE cardinality(v_ids) > 0 LOOP
        v_now := _wa_bounded_logs(v_ids[:500]);
        EXIT WHEN v_now = '{}';
        PERFORM _wa_process_logs(v_now);
        v_count := v_count + cardinality(v_now);
        v_ids := v_ids[cardinality(v_now) + 1:];
    END LOOP;
    RETURN v_count;
END
$$;

COMMENT ON FUNCTION replay_wa_webhooks(bigint[]) IS
'Processes stored bodies once more: the given ones, or all with unresolved errors; returns how many. What '
'was processed before changes nothing twice.';

-- Bodies with parts that waited for a lock in vain, when it is time to try them again.
CREATE OR REPLACE FUNCTION _wa_locked_out_logs(p_limit integer) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT x.log_id
        FROM (
            SELECT e.log_id FROM wa_webhook_errors e
            WHERE e.sqlstate = '55P03' AND e.resolved_at IS NULL
                -- Not longer than it ever takes: the clock may have been set back.
                AND e.try_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '31 seconds'
            ORDER BY e.try_at
            LIMIT p_limit
        ) x
        ORDER BY x.log_id
    );
END
$$;

COMMENT ON FUNCTION _wa_locked_out_logs(integer) IS
'Internal: bodies of which somebody''s lock stopped a part that is to be tried again now.';

-- Everything here is found by an index. Without the setting, a plan made while a table was nearly empty reads
-- all of it until the next ANALYZE, for every row. With it, what small tables are read for whole (as secrets
-- are) counts as dear beyond measure, and would be compiled anew each time.
CREATE OR REPLACE FUNCTION _wa_process_logs(p_ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off
SET plan_cache_mode = force_generic_plan
-- A tenant that has rows of its own locked must not stop the webhooks of the others.
SET lock_timeout = '200ms'
AS $$
DECLARE
    v_started timestamptz := clock_timestamp();
    v_atoms _wa_webhook_atoms[];
    v_of_org _wa_webhook_atoms[];
    v_locked_out uuid[] := _wa_locked_out('webhook');
    v_org uuid;
BEGIN
    IF cardinality(p_ids) = 0 THEN
        RETURN;
    END IF;
    v_atoms := _wa_mark_foreign(_wa_read_atoms(p_ids));
    INSERT INTO wa_webhook_errors (log_id, atom, kind, sqlstate, error, payload)
    SELECT DISTINCT ON (a.log_id, a.atom) a.log_id, a.atom, a.kind, CASE WHEN a.organization_id IS NULL
        THEN 'WA010' WHEN a.error = _wa_foreign_problem() THEN 'WA503' END,
        a.error, a.payload
    FROM unnest(v_atoms) a
    WHERE a.error IS NOT NULL
    ON CONFLICT (log_id, atom) DO UPDATE SET
        error = excluded.error, sqlstate = excluded.sqlstate, occurred_at = clock_timestamp(),
        resolved_at = NULL;
    PERFORM _wa_audit_rejection(f.organization_id, f.source, _wa_foreign_problem(), f.atoms)
    FROM (
        SELECT a.organization_id, count(*)::integer AS atoms,
            (SELECT w.source FROM wa_webhook_logs w WHERE w.id = min(a.log_id)) AS source
        FROM unnest(v_atoms) a WHERE a.error = _wa_foreign_problem()
        GROUP BY a.organization_id
    ) f;

    FOR v_org IN
        SELECT DISTINCT a.organization_id FROM unnest(v_atoms) a WHERE a.error IS NULL ORDER BY 1
    LOOP
        v_of_org := ARRAY(
            SELECT a::_wa_webhook_atoms FROM unnest(v_atoms) a
            WHERE a.organization_id = v_org AND a.error IS NULL
        );
        PERFORM _wa_apply_atoms_safely(
            v_org, v_of_org, CASE WHEN v_org = ANY (v_locked_out) THEN '10ms' ELSE '200ms' END,
            clock_timestamp() + interval '500 milliseconds'
        );
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
    SELECT _wa_audit_rejection(o.id, p_source, p_reason, 1)
    FROM wa_organizations o
    ORDER BY o.is_default DESC, o.created_at, o.id
    LIMIT 1
$$;

COMMENT ON FUNCTION record_wa_webhook_rejection(text, text) IS
'Counts a webhook request with a wrong or missing signature: one audit_log row per source and minute, in '
'the default organization.';
