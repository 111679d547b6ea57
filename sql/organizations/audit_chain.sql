-- The chain of the audit log: rows get their place in it in the background, after their commit.
-- docs/security.md describes the form that is hashed, for whoever computes it elsewhere.

-- With its length in bytes before it, so that no two lists of values make the same text.
CREATE OR REPLACE FUNCTION _wa_netstring(p_text text) RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(octet_length(convert_to(p_text, 'UTF8')) || ':' || p_text, '-') || ',';

COMMENT ON FUNCTION _wa_netstring(text) IS
'Internal: a value with its length before it, "5:value,"; "-," for none.';

-- What may have to be erased. Each goes in as a digest of its own, so that it can be taken out.
CREATE OR REPLACE FUNCTION _wa_audit_fields(
    p_actor text, p_entity_id text, p_client_address text, p_meta jsonb
) RETURNS TABLE (name text, value text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT f.name, f.value
    FROM (VALUES
        ('actor', p_actor), ('entity_id', p_entity_id), ('client_address', p_client_address),
        ('meta', CASE WHEN jsonb_typeof(p_meta) <> 'object' THEN p_meta::text END)
    ) f (name, value)
    WHERE f.value IS NOT NULL
    UNION ALL
    SELECT 'meta.' || m.key, m.value::text
    FROM jsonb_each(CASE WHEN jsonb_typeof(p_meta) = 'object' THEN p_meta ELSE '{}' END) m;
END;

COMMENT ON FUNCTION _wa_audit_fields(text, text, text, jsonb) IS
'Internal: the fields of an audit row that may be erased one by one: actor, entity_id, client_address, and '
'each key of its meta as meta.KEY.';

CREATE OR REPLACE FUNCTION _wa_audit_salt(p_salt bytea, p_field_salts jsonb, p_name text) RETURNS bytea
LANGUAGE sql STABLE
RETURN coalesce(
    decode(p_field_salts ->> p_name, 'hex'), sha256(p_salt || convert_to(p_name, 'UTF8'))
);

COMMENT ON FUNCTION _wa_audit_salt(bytea, jsonb, text) IS
'Internal: the salt of a field: made of the row''s, or kept by itself since another field was erased.';

CREATE OR REPLACE FUNCTION _wa_audit_digest(p_salt bytea, p_field_salts jsonb, p_name text, p_value text)
RETURNS text
LANGUAGE sql STABLE
RETURN encode(sha256(
    _wa_audit_salt(p_salt, p_field_salts, p_name) || convert_to(_wa_netstring(p_name) || p_value, 'UTF8')
), 'hex');

COMMENT ON FUNCTION _wa_audit_digest(bytea, jsonb, text, text) IS
'Internal: the salted digest of a field; NULL without a salt.';

-- Nothing in it depends on a setting of the session: time is a number, JSON is as jsonb prints it.
CREATE OR REPLACE FUNCTION _wa_audit_leaf(
    p_org uuid, p_id bigint, p_created_at timestamptz, p_event text, p_entity text, p_session_role text,
    p_database_role text, p_actor text, p_entity_id text, p_client_address text, p_meta jsonb,
    p_salt bytea, p_field_salts jsonb, p_erased jsonb
) RETURNS bytea
LANGUAGE sql STABLE
RETURN sha256(convert_to(
    _wa_netstring('pg_whatsapp audit 1') || _wa_netstring(p_org::text) || _wa_netstring(p_id::text)
    || _wa_netstring(trim_scale(extract('epoch' FROM p_created_at) * 1000000)::text)
    || _wa_netstring(p_event) || _wa_netstring(p_entity)
    || _wa_netstring(p_session_role) || _wa_netstring(p_database_role)
    || (
        -- By digest, without names: a name may tell as much as a value.
        SELECT string_agg(_wa_netstring(d.digest), '' ORDER BY d.digest COLLATE "C")
        FROM (
            SELECT coalesce(_wa_audit_digest(p_salt, p_field_salts, f.name, f.value), 'without a salt')
            FROM _wa_audit_fields(p_actor, p_entity_id, p_client_address, p_meta) f
            -- What was erased has no salt any more; something else in its place is a change.
            WHERE f.value <> 'erased' OR _wa_audit_salt(p_salt, p_field_salts, f.name) IS NOT NULL
            UNION ALL
            SELECT e.digest FROM jsonb_array_elements_text(p_erased) e (digest)
        ) d (digest)
    ), 'UTF8'));

COMMENT ON FUNCTION _wa_audit_leaf(
    uuid, bigint, timestamptz, text, text, text, text, text, text, text, jsonb, bytea, jsonb, jsonb
) IS 'Internal: SHA-256 of an audit row in its canonical form.';

CREATE OR REPLACE FUNCTION _wa_audit_link(p_before bytea, p_position bigint, p_leaf bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(p_before || int8send(p_position) || p_leaf);

COMMENT ON FUNCTION _wa_audit_link(bytea, bigint, bytea) IS 'Internal: the hash of a place in the chain.';

-- The head's lock makes sealers of one organization take turns; others pass on. A row gets its place only
-- here, after its commit, as events do: one whose transaction commits late comes later, and what committed
-- before another row was begun stands before it. So nothing waits for the oldest transaction, which any
-- tenant could keep open.
CREATE OR REPLACE FUNCTION _wa_seal_audit(p_org uuid, p_limit integer, p_wait boolean) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_head wa_audit_heads;
    v_row record;
    v_ids bigint[];
    v_gone bigint;
BEGIN
    -- Looked at first: ON CONFLICT waits for whoever is changing the row that is there, also where it then
    -- does nothing, and two sealers that go round the organizations would each wait for the other.
    IF NOT EXISTS (SELECT FROM wa_audit_heads h WHERE h.organization_id = p_org) THEN
        INSERT INTO wa_audit_heads (organization_id) VALUES (p_org) ON CONFLICT DO NOTHING;
    END IF;
    IF p_wait THEN
        SELECT h.* INTO v_head FROM wa_audit_heads h WHERE h.organization_id = p_org FOR NO KEY UPDATE;
    ELSE
        SELECT h.* INTO v_head FROM wa_audit_heads h WHERE h.organization_id = p_org
        FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    IF v_head.organization_id IS NULL THEN
        RETURN 0;
    END IF;
    v_ids := ARRAY(
        SELECT u.audit_id FROM wa_audit_unsealed u
        WHERE u.organization_id = p_org ORDER BY u.audit_id LIMIT p_limit
    );
    FOR v_row IN
        SELECT s.id, s.salt, _wa_audit_leaf(
            p_org, s.id, s.created_at, s.event, s.entity, s.session_role, s.database_role, s.actor,
            s.entity_id, s.client_address, s.meta, s.salt, '{}', '[]'
        ) AS leaf
        FROM (
            SELECT a.*, uuid_send(gen_random_uuid()) AS salt FROM audit_log a
            WHERE a.organization_id = p_org AND a.id = ANY (v_ids)
            OFFSET 0
        ) s
        ORDER BY s.id
    LOOP
        v_head.position := v_head.position + 1;
        v_head.hash := _wa_audit_link(v_head.hash, v_head.position, v_row.leaf);
        INSERT INTO wa_audit_seals (organization_id, position, audit_id, salt, leaf, hash)
        VALUES (p_org, v_head.position, v_row.id, v_row.salt, v_row.leaf, v_head.hash);
    END LOOP;
    -- Somebody has taken it out before it was sealed.
    FOREACH v_gone IN ARRAY ARRAY(
        SELECT i.id FROM unnest(v_ids) i (id)
        WHERE NOT EXISTS (SELECT FROM audit_log a WHERE a.organization_id = p_org AND a.id = i.id)
    ) LOOP
        PERFORM _wa_audit(p_org, 'audit_row_missing', 'audit_log', v_gone::text, '{}');
    END LOOP;
    DELETE FROM wa_audit_unsealed u WHERE u.organization_id = p_org AND u.audit_id = ANY (v_ids);
    UPDATE wa_audit_heads h SET position = v_head.position, hash = v_head.hash, sealed_at = clock_timestamp()
    WHERE h.organization_id = p_org AND h.position < v_head.position;
    RETURN cardinality(v_ids);
END
$$;

COMMENT ON FUNCTION _wa_seal_audit(uuid, integer, boolean) IS
'Internal: gives committed audit rows of an organization their places in its chain; returns how many.';

-- Made with the organization, so that no sealer ever waits for another that makes it.
CREATE OR REPLACE FUNCTION tg_wa_organizations__begin_chain() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_audit_heads (organization_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_organizations__begin_chain() IS
'Begins the chain of a new organization''s audit log.';

CREATE OR REPLACE TRIGGER begin_chain AFTER INSERT ON wa_organizations
FOR EACH ROW EXECUTE FUNCTION tg_wa_organizations__begin_chain();

-- Rounds of equal shares, so that one that writes a lot does not keep the others waiting, nor waits for them.
-- What fails with one organization is undone and noted; the others go on.
CREATE OR REPLACE FUNCTION seal_wa_audit_log(p_limit integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid;
    v_orgs uuid[];
    v_failed uuid[] := '{}';
    v_before integer;
    v_done integer := _wa_close_audit_counts(clock_timestamp(), p_limit);
BEGIN
    -- Every organization has its head from the start; where somebody has taken it away, all that miss are made
    -- in one order, before any is locked, and rounds leave those out that another is making.
    INSERT INTO wa_audit_heads (organization_id)
    SELECT DISTINCT u.organization_id FROM wa_audit_unsealed u
    WHERE NOT EXISTS (SELECT FROM wa_audit_heads h WHERE h.organization_id = u.organization_id)
    ORDER BY u.organization_id
    ON CONFLICT DO NOTHING;
    LOOP
        v_before := v_done;
        v_orgs := ARRAY(
            SELECT DISTINCT u.organization_id FROM wa_audit_unsealed u
            JOIN wa_audit_heads h ON h.organization_id = u.organization_id
            WHERE u.organization_id <> ALL (v_failed)
        );
        FOREACH v_org IN ARRAY v_orgs LOOP
            BEGIN
                v_done := v_done
                    + _wa_seal_audit(v_org, greatest((p_limit - v_before) / cardinality(v_orgs), 100), false);
            EXCEPTION WHEN OTHERS THEN
                IF _wa_is_passing_error(SQLSTATE) THEN
                    RAISE;
                END IF;
                v_failed := v_failed || v_org;
                PERFORM _wa_note_fault(v_org, 'audit', '', SQLSTATE, SQLERRM);
            END;
        END LOOP;
        EXIT WHEN v_done = v_before OR v_done >= p_limit;
    END LOOP;
    RETURN v_done;
END
$$;

COMMENT ON FUNCTION seal_wa_audit_log(integer) IS
'Seals audit rows that have none yet, at most about so many; returns how many. The job "audit" calls it.';

CREATE OR REPLACE FUNCTION _wa_delete_audit(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_org record;
    v_rows integer := 0;
BEGIN
    FOR v_org IN
        SELECT o.id, p_now - o.audit_retention AS before FROM wa_organizations o
        WHERE EXISTS (
            SELECT FROM audit_log a WHERE a.organization_id = o.id AND a.created_at < p_now - o.audit_retention
        )
        ORDER BY o.id
    LOOP
        v_rows := v_rows + _wa_delete_audit_of(v_org.id, v_org.before, p_limit - v_rows);
        EXIT WHEN v_rows >= p_limit;
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_audit(timestamptz, integer) IS
'Internal: deletes audit rows where the organization set an end for them.';

-- From the beginning of the chain up to the first row that is not old, or is not there: what somebody has
-- removed stays to be seen. Where it ended is in the head and, so that nobody can move that unnoticed, in the
-- chain itself.
CREATE OR REPLACE FUNCTION _wa_delete_audit_of(p_org uuid, p_before timestamptz, p_limit integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_head wa_audit_heads;
    v_last bigint;
    v_hash bytea;
    v_rows integer;
BEGIN
    PERFORM _wa_seal_audit(p_org, p_limit, false);
    SELECT h.* INTO v_head FROM wa_audit_heads h WHERE h.organization_id = p_org
    FOR NO KEY UPDATE SKIP LOCKED;
    SELECT coalesce(min(x.position) FILTER (WHERE NOT x.is_old) - 1, max(x.position)) INTO v_last
    FROM (
        SELECT s.position, coalesce(a.created_at < p_before, false) AS is_old
        FROM wa_audit_seals s
        LEFT JOIN audit_log a ON a.organization_id = p_org AND a.id = s.audit_id
        WHERE s.organization_id = p_org AND s.position > v_head.checkpoint_position
        ORDER BY s.position LIMIT p_limit
    ) x;
    IF v_last IS NULL OR v_last <= v_head.checkpoint_position THEN
        RETURN 0;
    END IF;
    SELECT s.hash INTO v_hash FROM wa_audit_seals s WHERE s.organization_id = p_org AND s.position = v_last;
    WITH old AS (
        DELETE FROM wa_audit_seals s WHERE s.organization_id = p_org AND s.position <= v_last
        RETURNING s.audit_id
    )
    DELETE FROM audit_log a USING old o WHERE a.organization_id = p_org AND a.id = o.audit_id;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    UPDATE wa_audit_heads h SET checkpoint_position = v_last, checkpoint_hash = v_hash,
        checked_position = greatest(h.checked_position, v_last)
    WHERE h.organization_id = p_org;
    PERFORM _wa_audit(p_org, 'audit_log_deleted', 'audit_log', NULL, jsonb_build_object(
        'through_position', v_last, 'through_hash', encode(v_hash, 'hex'), 'rows', v_rows
    ));
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_delete_audit_of(uuid, timestamptz, integer) IS
'Internal: deletes the oldest sealed audit rows of an organization and leaves a checkpoint, from which the '
'chain is verified on.';

-- Sealed first, so that the digest of what is erased is known. The row's salt would give the salts of all of
-- its fields; only those of the others are kept.
CREATE OR REPLACE FUNCTION _wa_audit_forget(p_org uuid, p_values text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    v_pattern text := _wa_person_pattern(p_values);
    v_row record;
    v_rows integer := 0;
BEGIN
    WHILE _wa_seal_audit(p_org, 10000, true) > 0 LOOP
    END LOOP;
    FOR v_row IN
        SELECT a.id, a.meta, s.position,
            array_agg(f.name) FILTER (WHERE h.hit) AS names,
            jsonb_agg(_wa_audit_digest(s.salt, s.field_salts, f.name, f.value)) FILTER (WHERE h.hit) AS digests,
            jsonb_object_agg(f.name, encode(h.salt, 'hex'))
                FILTER (WHERE NOT h.hit AND h.salt IS NOT NULL) AS salts
        FROM audit_log a
        JOIN wa_audit_seals s ON s.organization_id = p_org AND s.audit_id = a.id
        CROSS JOIN LATERAL _wa_audit_fields(a.actor, a.entity_id, a.client_address, a.meta) f
        CROSS JOIN LATERAL (
            SELECT k.salt, k.salt IS NOT NULL AND concat_ws(' ', f.name, f.value) ~* v_pattern AS hit
            FROM (SELECT _wa_audit_salt(s.salt, s.field_salts, f.name)) k (salt)
        ) h
        WHERE a.organization_id = p_org
        GROUP BY a.id, a.meta, s.position
        HAVING bool_or(h.hit)
    LOOP
        UPDATE audit_log a SET
            actor = CASE WHEN 'actor' = ANY (v_row.names) THEN 'erased' ELSE a.actor END,
            entity_id = CASE WHEN NOT 'entity_id' = ANY (v_row.names) THEN a.entity_id END,
            client_address = CASE WHEN NOT 'client_address' = ANY (v_row.names) THEN a.client_address END,
            meta = CASE
                WHEN 'meta' = ANY (v_row.names) THEN '{}'
                WHEN jsonb_typeof(a.meta) = 'object'
                    THEN a.meta - ARRAY(SELECT substr(n.name, 6) FROM unnest(v_row.names) n (name)
                        WHERE n.name LIKE 'meta.%')
                ELSE a.meta END
        WHERE a.organization_id = p_org AND a.id = v_row.id;
        UPDATE wa_audit_seals s SET
            salt = NULL, field_salts = coalesce(v_row.salts, '{}'), erased = s.erased || v_row.digests
        WHERE s.organization_id = p_org AND s.position = v_row.position;
        v_rows := v_rows + 1;
    END LOOP;
    RETURN v_rows;
END
$$;

COMMENT ON FUNCTION _wa_audit_forget(uuid, text[]) IS
'Internal: erases every field of an organization''s audit rows that holds one of these values, at any place, '
'in any case, and numbers as people group them, too; returns of how many rows. The chain stays valid: '
'digests are kept, their salts are not.';
