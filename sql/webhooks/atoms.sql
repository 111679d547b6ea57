-- Atoms: what webhook bodies fall into (a message, a status, an event), read once, put in order once, and
-- applied set by set.

-- Only its row type is used: one atom of a webhook with what is known of it, in the arrays that processing
-- hands on. phone, phone_key and user_id name the customer of a message, echo or call.
CREATE OR REPLACE VIEW _wa_webhook_atoms AS
SELECT
    NULL::bigint AS log_id, NULL::integer AS atom, NULL::integer AS place, NULL::text AS kind,
    NULL::text AS field,
    NULL::uuid AS organization_id, NULL::bigint AS number_id, NULL::text AS waba_id,
    NULL::text AS phone_number_id,
    NULL::text AS display_phone, NULL::timestamptz AS received_at, NULL::timestamptz AS at,
    NULL::jsonb AS payload,
    NULL::jsonb AS contact, NULL::text AS dedupe_key, NULL::text AS error, NULL::text AS phone,
    NULL::text AS phone_key, NULL::text AS user_id
WHERE false;

COMMENT ON VIEW _wa_webhook_atoms IS 'Internal: the shape of an atom while it is processed. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_number_atoms(p_atoms _wa_webhook_atoms[]) RETURNS TABLE (
    n bigint, kind text, field text, number_id bigint, waba_id text, phone_number_id text,
    display_phone text, received_at timestamptz, at timestamptz, payload jsonb, contact jsonb,
    dedupe_key text, phone text, phone_key text, user_id text
)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT a.n, a.kind, a.field, a.number_id, a.waba_id, a.phone_number_id, a.display_phone, a.received_at,
        a.at, a.payload, a.contact, a.dedupe_key, a.phone, a.phone_key, a.user_id
    FROM unnest(p_atoms) WITH ORDINALITY a (
        log_id, atom, place, kind, field, organization_id, number_id, waba_id, phone_number_id, display_phone,
        received_at, at, payload, contact, dedupe_key, error, phone, phone_key, user_id, n
    );
END;

COMMENT ON FUNCTION _wa_number_atoms(_wa_webhook_atoms[]) IS
'Internal: atoms with their places in the array.';

-- The order in which atoms are applied is decided here: messages, what changes messages or customers, then
-- what the business did, then what became of it. Within a place they go by arrival and as the body has them,
-- which is the order of every array of atoms from _wa_read_atoms() on.
CREATE OR REPLACE FUNCTION _wa_atom_place(p_kind text, p_type text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_kind
    WHEN 'message' THEN CASE WHEN p_type IN ('edit', 'revoke', 'system') THEN 2 ELSE 1 END
    WHEN 'echo' THEN 3 WHEN 'call' THEN 4 WHEN 'status' THEN 5 WHEN 'call_status' THEN 5 ELSE 6
END;

COMMENT ON FUNCTION _wa_atom_place(text, text) IS
'Internal: the place of an atom in the order in which a batch is applied, by its kind and type.';

CREATE OR REPLACE FUNCTION _wa_is_customer_call(p_call jsonb, p_display_phone text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_call ->> 'direction'
    WHEN 'USER_INITIATED' THEN true
    WHEN 'BUSINESS_INITIATED' THEN false
    ELSE coalesce(p_call ->> 'from', '')
        <> regexp_replace(coalesce(p_display_phone, '-'), '[^0-9]', '', 'g')
END;

COMMENT ON FUNCTION _wa_is_customer_call(jsonb, text) IS
'Internal: whether the customer made a call, rather than the business.';

-- System messages name their customer outside (from, from_user_id), in their own part, or both. In that of a
-- change stand the new number and the new user id: they are not the sender's, unless nothing else names him.
CREATE OR REPLACE FUNCTION _wa_system_user_id(p_message jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_message #>> '{system,type}' IN ('user_changed_number', 'user_changed_user_id') THEN coalesce(
        p_message #>> '{system,previous_user_id}',
        nullif(p_message ->> 'from_user_id', p_message #>> '{system,user_id}'),
        CASE WHEN p_message ->> 'from' IS NULL THEN coalesce(
            p_message #>> '{system,previous_parent_user_id}', p_message #>> '{system,user_id}',
            p_message #>> '{system,parent_user_id}'
        ) END
    )
    ELSE coalesce(
        p_message ->> 'from_user_id', p_message #>> '{system,user_id}',
        p_message #>> '{system,parent_user_id}'
    )
END;

COMMENT ON FUNCTION _wa_system_user_id(jsonb) IS
'Internal: the user id of the customer whom a system message is about, as it was before a change.';

-- Returns a set so that a query takes it in instead of calling it for each row.
CREATE OR REPLACE FUNCTION _wa_atom_customer(
    p_kind text, p_payload jsonb, p_contact jsonb, p_display_phone text
) RETURNS TABLE (said text, user_id text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
    SELECT
        CASE p_kind
            WHEN 'message' THEN coalesce(
                p_payload ->> 'from', p_contact ->> 'wa_id',
                CASE WHEN p_payload ? 'system' AND num_nonnulls(
                    p_payload ->> 'from_user_id', p_payload #>> '{system,previous_user_id}',
                    p_payload #>> '{system,previous_parent_user_id}'
                ) = 0 THEN p_payload #>> '{system,wa_id}' END
            )
            WHEN 'echo' THEN p_payload ->> 'to'
            WHEN 'call' THEN coalesce(
                p_payload ->> CASE WHEN _wa_is_customer_call(p_payload, p_display_phone) THEN 'from'
                    ELSE 'to' END, p_contact ->> 'wa_id'
            )
        END,
        CASE p_kind
            WHEN 'message' THEN CASE WHEN p_payload ? 'system' THEN _wa_system_user_id(p_payload)
                ELSE coalesce(
                    p_payload ->> 'from_user_id', p_contact ->> 'user_id',
                    CASE WHEN p_payload ->> 'from' IS NULL THEN p_payload ->> 'from_parent_user_id' END
                ) END
            WHEN 'echo' THEN coalesce(
                p_payload ->> 'to_user_id',
                CASE WHEN p_payload ->> 'to' IS NULL THEN p_payload ->> 'to_parent_user_id' END
            )
            WHEN 'call' THEN coalesce(
                p_payload ->> CASE WHEN _wa_is_customer_call(p_payload, p_display_phone) THEN 'from_user_id'
                    ELSE 'to_user_id' END, p_contact ->> 'user_id'
            )
        END;
END;

COMMENT ON FUNCTION _wa_atom_customer(text, jsonb, jsonb, text) IS
'Internal: the customer of a message, echo or call as the webhook names him: what ought to be a number, and '
'the user id.';

CREATE OR REPLACE FUNCTION _wa_read_atoms(p_ids bigint[]) RETURNS _wa_webhook_atoms[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    -- Not LANGUAGE sql, which would plan this anew in every transaction, at the cost of thirty bodies.
    RETURN (
        SELECT coalesce(array_agg(ROW(
            s.log_id, s.atom, t.place, s.kind, s.field, o.organization_id, o.number_id, s.waba_id,
            s.phone_number_id, s.display_phone, l.received_at,
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
            END),
            p.phone, _wa_phone_key(p.phone),
            -- A sender id that is no number is taken as a user id, rather than lost.
            coalesce(nullif(p.user_id, ''), CASE WHEN p.phone IS NULL THEN nullif(p.said, '') END)
        )::_wa_webhook_atoms ORDER BY t.place, s.log_id, s.atom), '{}')
        FROM (
            SELECT array_agg(w.id ORDER BY w.id) AS ids,
                _wa_translate_webhooks(
                    array_agg(w.provider ORDER BY w.id), array_agg(w.body ORDER BY w.id)
                ) AS bodies
            FROM wa_webhook_logs w WHERE w.id = ANY (p_ids)
            OFFSET 0
        ) b
        CROSS JOIN LATERAL _wa_split_webhooks(b.ids, b.bodies) s
        CROSS JOIN LATERAL (SELECT _wa_atom_place(s.kind, s.payload ->> 'type') AS place) t
        -- OFFSET: a number is read once, not wherever it is named above.
        CROSS JOIN LATERAL (
            SELECT c.said, c.user_id, _wa_inbound_phone(c.said) AS phone
            FROM _wa_atom_customer(s.kind, s.payload, s.contact, s.display_phone) c
            OFFSET 0
        ) p
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
'Internal: takes stored bodies apart, finds tenant, number and customer of each atom and puts them in order; '
'those that cannot go on have an error.';

CREATE OR REPLACE FUNCTION _wa_resolve_atoms(p_org uuid, p_atoms _wa_webhook_atoms[], p_source text)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (
        SELECT array_agg(r.contact_id ORDER BY r.n)
        FROM (
            SELECT array_agg(CASE WHEN g.has_customer THEN a.phone END ORDER BY a.n) AS phones,
                array_agg(CASE WHEN g.has_customer THEN a.user_id END ORDER BY a.n) AS user_ids,
                array_agg(a.at ORDER BY a.n) AS ats,
                array_agg(CASE WHEN g.has_customer THEN a.phone_key END ORDER BY a.n) AS keys,
                array_agg(a.payload ->> 'id' ORDER BY a.n) AS wamids
            FROM _wa_number_atoms(p_atoms) a
            -- What the business writes to a group goes to no customer.
            CROSS JOIN LATERAL (
                SELECT a.kind <> 'echo' OR a.payload ->> 'group_id' IS NULL AS has_customer
            ) g
        ) s
        CROSS JOIN LATERAL _wa_resolve_contacts(
            p_org, s.phones, s.user_ids, p_source, s.ats, s.keys, s.wamids
        ) r
    );
END
$$;

COMMENT ON FUNCTION _wa_resolve_atoms(uuid, _wa_webhook_atoms[], text) IS
'Internal: the contacts of messages, echoes or calls, in their order; made where there is none.';

-- The whole batch at once; when something in it fails, its halves, so that one bad atom costs little and
-- harms no other. The batch may wait for a lock, its parts hardly: what is locked for long is found fast.
-- When that has taken until p_until all the same, what is left is tried in large parts, and those that fail
-- come first next time, before what is known to be locked.
CREATE OR REPLACE FUNCTION _wa_apply_atoms_safely(
    p_org uuid, p_atoms _wa_webhook_atoms[], p_patience text, p_until timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_count integer := cardinality(p_atoms);
BEGIN
    BEGIN
        PERFORM set_config('lock_timeout', p_patience, true);
        PERFORM _wa_apply_atoms(p_org, p_atoms);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        -- Stored for replay, except what has nothing to do with the atom: then the whole batch stays pending.
        IF _wa_is_passing_error(SQLSTATE) THEN
            RAISE;
        ELSIF SQLSTATE = '55P03' THEN
            PERFORM _wa_note_fault(p_org, 'webhook', '', SQLSTATE, SQLERRM);
        END IF;
        IF v_count = 1 OR (SQLSTATE = '55P03' AND clock_timestamp() > p_until) THEN
            PERFORM _wa_keep_atoms(p_atoms, SQLSTATE, SQLERRM);
            RETURN;
        END IF;
    END;
    PERFORM _wa_apply_atoms_safely(p_org, p_atoms[1:v_count / 2], '10ms', p_until);
    PERFORM _wa_apply_atoms_safely(p_org, p_atoms[v_count / 2 + 1:v_count], '10ms', p_until);
END
$$;

COMMENT ON FUNCTION _wa_apply_atoms_safely(uuid, _wa_webhook_atoms[], text, timestamptz) IS
'Internal: applies what can be applied of a batch and keeps the rest in wa_webhook_errors; p_patience is the '
'lock_timeout of the whole.';

CREATE OR REPLACE FUNCTION _wa_keep_atoms(p_atoms _wa_webhook_atoms[], p_sqlstate text, p_error text)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_webhook_errors AS e (log_id, atom, kind, sqlstate, error, payload, tries, try_at)
    SELECT DISTINCT ON (a.log_id, a.atom) a.log_id, a.atom, a.kind, p_sqlstate, p_error, a.payload, 1,
        CASE WHEN p_sqlstate = '55P03' THEN clock_timestamp()
            + CASE WHEN cardinality(p_atoms) > 1 THEN interval '0' ELSE interval '500 milliseconds' END END
    FROM unnest(p_atoms) a
    ON CONFLICT (log_id, atom) DO UPDATE SET
        error = excluded.error, sqlstate = excluded.sqlstate, occurred_at = clock_timestamp(),
        resolved_at = NULL, tries = least(e.tries, 1000) + 1,
        -- One that was locked by itself waits longer each time, so that others are not behind it.
        try_at = CASE WHEN cardinality(p_atoms) > 1 THEN excluded.try_at
            ELSE excluded.try_at
                + least(interval '30 seconds', interval '500 ms' * 2 ^ least(e.tries, 10)) END
$$;

COMMENT ON FUNCTION _wa_keep_atoms(_wa_webhook_atoms[], text, text) IS
'Internal: keeps atoms that could not be applied, with the reason.';

CREATE OR REPLACE FUNCTION _wa_apply_atoms(p_org uuid, p_atoms _wa_webhook_atoms[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_place integer;
    v_atoms _wa_webhook_atoms[];
BEGIN
    PERFORM _wa_settle_callbacks(p_org, p_atoms);
    FOR v_place IN SELECT DISTINCT a.place FROM unnest(p_atoms) a ORDER BY a.place LOOP
        v_atoms := ARRAY(SELECT a::_wa_webhook_atoms FROM unnest(p_atoms) a WHERE a.place = v_place);
        CASE v_place
            WHEN 1, 2 THEN PERFORM _wa_apply_messages(p_org, v_atoms);
            WHEN 3 THEN PERFORM _wa_apply_echoes(p_org, v_atoms);
            WHEN 4 THEN PERFORM _wa_apply_calls(p_org, v_atoms);
            WHEN 5 THEN PERFORM _wa_apply_statuses(p_org, v_atoms);
            ELSE PERFORM _wa_apply_account_events(p_org, v_atoms);
        END CASE;
    END LOOP;
END
$$;

COMMENT ON FUNCTION _wa_apply_atoms(uuid, _wa_webhook_atoms[]) IS
'Internal: applies atoms of one organization in their order, all of one place at once.';

CREATE OR REPLACE FUNCTION _wa_refuse_atoms(p_atoms _wa_webhook_atoms[], p_problem text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '22023',
        MESSAGE = p_problem,
        DETAIL = format('Kind %s, %s at once.', p_atoms[1].kind, cardinality(p_atoms)),
        HINT = 'It stays in wa_webhook_errors; replay_wa_webhooks() tries it again.';
END
$$;

COMMENT ON FUNCTION _wa_refuse_atoms(_wa_webhook_atoms[], text) IS
'Internal: raises for atoms of which one lacks what it cannot be recorded without.';
