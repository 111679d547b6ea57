-- Erasing a person: each room takes its own away, a part at a time, so that no transaction is long however
-- much somebody has written. The row of the erasure says how far it came; whoever goes on with it locks that
-- row first and skips it where somebody else has, so that each part is done once.

CREATE OR REPLACE FUNCTION _wa_require_known(p_org uuid, p_phone text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_contact_id bigint := _wa_find_contact(p_org, p_phone);
BEGIN
    IF v_contact_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WA070',
            MESSAGE = 'nobody is known by this number or user id',
            DETAIL = format('It ends in "%s".', right(p_phone, 2)),
            HINT = 'Give the number with its country code, or the user id; who was erased is known no more.';
    END IF;
    RETURN v_contact_id;
END
$$;

COMMENT ON FUNCTION _wa_require_known(uuid, text) IS
'Internal: the contact of a number or user id; raises WA070 where there is none.';

CREATE OR REPLACE FUNCTION _wa_require_keep(p_keep jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET standard_conforming_strings = on
AS $$
BEGIN
    IF jsonb_typeof(p_keep) IS DISTINCT FROM 'object' OR EXISTS (
        SELECT FROM jsonb_each(p_keep) k
        WHERE k.key <> 'consent' OR coalesce(k.value ->> 'reason', '') = ''
            OR coalesce(k.value ->> 'until', '') !~ '^\d{4}-\d\d-\d\d$'
            -- A day that no calendar has is none; after one that is over it would go with the next run.
            OR coalesce(_wa_read_time(k.value ->> 'until'), '-infinity') < current_date
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA072',
            MESSAGE = 'what is to be kept is not said as it has to be',
            DETAIL = 'consent may be kept, with a reason and the last day, which is not over.',
            HINT = 'p_keep => ''{"consent": {"reason": "proof, § 7a UWG", "until": "2031-12-31"}}''';
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_require_keep(jsonb) IS
'Internal: raises WA072 unless it says what the law keeps of an erased person, why and until when.';

-- Steps in an order that finds what is to go: who the person is stands in the contact, so that comes last.
CREATE OR REPLACE FUNCTION _wa_erase_part(
    p_erasure wa_erasures, p_addresses text[], p_who text[], p_limit integer,
    OUT changed integer, OUT next_place text, OUT is_waiting boolean
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := p_erasure.organization_id;
    v_contact_id bigint := p_erasure.contact_id;
    v_pattern text := _wa_person_pattern(p_who);
    v_part record;
BEGIN
    changed := 0;
    is_waiting := false;
    CASE p_erasure.step
        WHEN 1 THEN
            -- An answer that comes later would be recorded with what it is about.
            is_waiting := _wa_has_inflight_of(v_org, v_contact_id);
            PERFORM _wa_cancel_due(v_org, ARRAY[v_contact_id], 'all', 'the contact is being erased');
        WHEN 2 THEN
            v_part := _wa_erase_messages_of(
                v_org, v_contact_id, coalesce(p_erasure.place, '0')::bigint, p_limit
            );
            next_place := v_part.last_id::text;
            changed := coalesce(v_part.changed, 0) + _wa_erase_queue_rows(v_org, v_part.queue_ids)
                + coalesce(_wa_erase_own_media(v_org, v_part.media_ids), 0);
        WHEN 3 THEN
            v_part := _wa_erase_queue_of(v_org, v_contact_id, p_addresses, p_limit);
            changed := coalesce(v_part.changed, 0)
                + coalesce(_wa_erase_own_media(v_org, v_part.media_ids), 0);
            next_place := CASE WHEN v_part.changed > 0 THEN 'more' END;
        WHEN 4 THEN
            changed := coalesce(_wa_erase_media_of(v_org, v_contact_id, p_limit), 0);
            next_place := CASE WHEN changed > 0 THEN 'more' END;
        WHEN 5 THEN
            v_part := _wa_erase_webhooks_of(v_org, p_who, coalesce(p_erasure.place, '0')::bigint, p_limit);
            changed := coalesce(v_part.changed, 0);
            is_waiting := v_part.is_waiting;
            next_place := coalesce(v_part.last_id::text, CASE WHEN is_waiting THEN p_erasure.place END);
        WHEN 6 THEN
            changed := _wa_erase_statuses_of(v_org, p_who) + _wa_erase_late_results_of(v_org, p_who)
                + _wa_erase_timeline_of(v_org, v_contact_id, v_pattern)
                + _wa_erase_provider_calls_of(v_org, ARRAY(
                    SELECT w.id::text FROM wa_conversation_windows w
                    WHERE w.organization_id = v_org AND w.contact_id = v_contact_id
                ), v_pattern)
                + _wa_erase_conversations_of(v_org, v_contact_id)
                + _wa_erase_deliveries_of(v_org, v_contact_id) + _wa_erase_account_events_of(v_org, v_pattern)
                + _wa_erase_flow_records_of(v_org, v_contact_id)
                + _wa_erase_flows_of(v_org, p_addresses, v_pattern) + _wa_erase_campaigns_of(v_org, v_contact_id)
                + _wa_erase_requests_of(v_org, v_pattern) + _wa_erase_audit_of(v_org, p_who, v_pattern)
                + _wa_erase_job_runs_of(v_pattern);
        ELSE
            changed := _wa_erase_consent_of(v_org, v_contact_id, v_pattern, p_erasure.keep ? 'consent')
                + _wa_erase_contact_of(v_org, v_contact_id) + _wa_erase_archive_of(v_org, v_contact_id);
    END CASE;
END
$$;

COMMENT ON FUNCTION _wa_erase_part(wa_erasures, text[], text[], integer) IS
'Internal: the next part of an erasure: how many rows were changed, from where the step goes on, and whether '
'it has to wait.';

CREATE OR REPLACE FUNCTION _wa_advance_erasure(p_org uuid, p_id bigint, p_budget integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    c_last CONSTANT integer := 7;
    c_chunk CONSTANT integer := 1000;
    v_erasure wa_erasures;
    v_known record;
    v_part record;
    v_spent integer := 0;
BEGIN
    SELECT * INTO v_erasure FROM wa_erasures e
    WHERE e.organization_id = p_org AND e.id = p_id AND e.state = 'running'
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND OR _wa_is_held(p_org, v_erasure.contact_id) THEN
        RETURN 0;
    END IF;
    v_known := _wa_identities_of(p_org, v_erasure.contact_id);
    WHILE v_spent < p_budget AND v_erasure.state = 'running' LOOP
        -- What came in meanwhile. Whoever has looked the contact up and commits after this leaves a message
        -- of it, by which run_wa_erasures() sees it: no lock here, which a caller could hold for long.
        IF v_erasure.step = c_last AND _wa_has_messages_of(p_org, v_erasure.contact_id) THEN
            v_erasure.step := 1;
            v_erasure.place := NULL;
        END IF;
        -- At most one chunk beyond the budget, and one row in twenty where all are looked at.
        v_part := _wa_erase_part(
            v_erasure, coalesce(v_known.addresses, '{}'), coalesce(v_known.who, '{}'),
            CASE WHEN v_erasure.step = 5 THEN 20 * c_chunk ELSE c_chunk END
        );
        v_spent := v_spent + greatest(v_part.changed, 1) + CASE WHEN v_part.next_place IS NULL THEN 0
            WHEN v_erasure.step = 5 THEN c_chunk ELSE 0 END;
        v_erasure.counts := v_erasure.counts || jsonb_build_object(
            _wa_erasure_step(v_erasure.step),
            coalesce((v_erasure.counts ->> _wa_erasure_step(v_erasure.step))::bigint, 0) + v_part.changed
        );
        v_erasure.place := v_part.next_place;
        EXIT WHEN v_part.is_waiting;
        IF v_part.next_place IS NULL THEN
            IF v_erasure.step = c_last THEN
                v_erasure.state := 'done';
            ELSE
                v_erasure.step := v_erasure.step + 1;
            END IF;
        END IF;
    END LOOP;
    UPDATE wa_erasures e SET
        state = v_erasure.state, step = v_erasure.step, place = v_erasure.place, counts = v_erasure.counts,
        done_at = CASE WHEN v_erasure.state = 'done' THEN clock_timestamp() END
    WHERE e.organization_id = p_org AND e.id = p_id;
    RETURN v_spent;
END
$$;

COMMENT ON FUNCTION _wa_advance_erasure(uuid, bigint, integer) IS
'Internal: goes on with an erasure until about so many rows were changed, it is done, or has to wait; '
'returns how many. Nothing of a contact under a legal hold is touched.';

CREATE OR REPLACE FUNCTION _wa_erasure_step(p_step integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (ARRAY['waiting', 'messages', 'queue', 'media', 'webhooks', 'other', 'contact'])[p_step];

COMMENT ON FUNCTION _wa_erasure_step(integer) IS 'Internal: the name of a step of an erasure.';

CREATE OR REPLACE FUNCTION _wa_remember_erased(p_org uuid, p_contact_id bigint, p_erasure_id bigint)
RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_erased_identities AS x (organization_id, hash, key_version, erasure_id)
    SELECT p_org, h.hash, h.key_version, p_erasure_id
    FROM (
        SELECT array_agg(i.kind) AS kinds, array_agg(i.value) AS vals FROM wa_contact_identities i
        WHERE i.organization_id = p_org AND i.contact_id = p_contact_id AND i.is_current
            AND i.kind IN ('phone', 'user_id')
    ) i
    CROSS JOIN LATERAL _wa_identity_hashes(p_org, i.kinds, i.vals) h
    WHERE h.key_version = (
        SELECT max(k.version) FROM wa_privacy_keys k WHERE k.organization_id = p_org AND k.purpose = 'erasure'
    )
    ON CONFLICT (organization_id, hash) DO UPDATE SET
        erasure_id = excluded.erasure_id, erased_at = excluded.erased_at
$$;

COMMENT ON FUNCTION _wa_remember_erased(uuid, bigint, bigint) IS
'Internal: keeps hashes of what a contact is known by, for it is being erased.';

-- The hashes first: whoever makes a contact of a number or id of the person from now on finds it opted out.
CREATE OR REPLACE FUNCTION _wa_begin_erasure(p_org uuid, p_contact_id bigint, p_reason text, p_keep jsonb)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO wa_erasures (organization_id, contact_id, reason, keep)
    VALUES (p_org, p_contact_id, p_reason, p_keep)
    ON CONFLICT (contact_id, organization_id) WHERE state = 'running' DO NOTHING
    RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        -- What it is to keep as well, it still can.
        UPDATE wa_erasures e SET keep = e.keep || p_keep
        WHERE e.organization_id = p_org AND e.contact_id = p_contact_id AND e.state = 'running'
        RETURNING e.id INTO v_id;
        RETURN coalesce(v_id, (
            SELECT max(e.id) FROM wa_erasures e WHERE e.organization_id = p_org AND e.contact_id = p_contact_id
        ));
    END IF;
    PERFORM _wa_remember_erased(p_org, p_contact_id, v_id);
    PERFORM _wa_opt_out_contacts(p_org, ARRAY[p_contact_id], '{all}', NULL, 'erasure');
    PERFORM _wa_audit(p_org, 'contact_erased', 'wa_contacts', p_contact_id::text,
        jsonb_build_object('erasure', v_id, 'keep', p_keep));
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_begin_erasure(uuid, bigint, text, jsonb) IS
'Internal: records that a contact is erased from now on, opts it out and cancels what is queued; returns the '
'erasure, the one under way where there is one.';

CREATE OR REPLACE FUNCTION erase_wa_contact(p_phone text, p_reason text, p_keep jsonb DEFAULT '{}')
RETURNS wa_erasures
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    c_at_once CONSTANT integer := 20000;
    v_org uuid := _wa_caller_organization();
    v_contact_id bigint := _wa_require_known(v_org, p_phone);
    v_erasure wa_erasures;
BEGIN
    PERFORM _wa_require_acting_user(v_org, 'admin');
    PERFORM _wa_require_keep(p_keep);
    IF coalesce(p_reason, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'an erasure needs a reason',
            DETAIL = 'p_reason is empty.',
            HINT = 'For example the number of the request: p_reason => ''request 2031-17''.';
    END IF;
    IF _wa_is_held(v_org, v_contact_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA071',
            MESSAGE = 'the contact is under a legal hold',
            DETAIL = (
                SELECT format('Since %s: %s', h.held_at, h.reason) FROM wa_contact_holds h
                WHERE h.organization_id = v_org AND h.contact_id = v_contact_id AND h.released_at IS NULL
            ),
            HINT = 'release_wa_contact() ends it, once the reason is gone.';
    END IF;
    v_erasure.id := _wa_begin_erasure(v_org, v_contact_id, p_reason, p_keep);
    PERFORM _wa_advance_erasure(v_org, v_erasure.id, c_at_once);
    SELECT * INTO v_erasure FROM wa_erasures e WHERE e.organization_id = v_org AND e.id = v_erasure.id;
    RETURN v_erasure;
END
$$;

COMMENT ON FUNCTION erase_wa_contact(text, text, jsonb) IS
'Erases what is stored about a person, found by number or user id, in every table and store; figures stay, '
'and so do an opt-out and a keyed hash by which the person is known again. Returns the row of the erasure: '
'done at once, or running, then the job "erasures" goes on with it. p_keep: what the law says must stay, '
'without names: {"consent": {"reason": "…", "until": "2031-12-31"}}. Raises WA070 where nobody is known, '
'WA071 under a legal hold.';

-- Values of columns stand in pg_statistic, the most common ones and bounds of the others, until the next
-- ANALYZE that sees rows without them. By the job only: its locks would keep VACUUM out for as long as a
-- caller's transaction is open.
CREATE OR REPLACE FUNCTION _wa_renew_statistics() RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_table regclass;
    v_erasures integer;
BEGIN
    IF NOT EXISTS (SELECT FROM wa_erasures e WHERE e.state = 'done' AND e.statistics_at IS NULL) THEN
        RETURN 0;
    END IF;
    FOR v_table IN
        SELECT DISTINCT c.oid FROM wa_personal_data d
        JOIN pg_class c ON c.oid = to_regclass(quote_ident(d.table_name))
        WHERE d.kind <> 'none' AND d.treatment <> 'keep'
    LOOP
        EXECUTE format('ANALYZE %s', v_table);
    END LOOP;
    UPDATE wa_erasures e SET statistics_at = clock_timestamp()
    WHERE e.state = 'done' AND e.statistics_at IS NULL;
    GET DIAGNOSTICS v_erasures = ROW_COUNT;
    RETURN v_erasures;
END
$$;

COMMENT ON FUNCTION _wa_renew_statistics() IS
'Internal: makes the planner''s statistics anew where somebody was erased since; returns for how many.';

CREATE OR REPLACE FUNCTION run_wa_erasures(p_budget integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_erasure record;
    v_spent integer := 0;
BEGIN
    -- Recorded after all, by a transaction that was open all the while: it begins anew.
    UPDATE wa_erasures e SET state = 'running', step = 1, place = NULL, done_at = NULL, statistics_at = NULL
    WHERE e.state = 'done' AND e.done_at > clock_timestamp() - interval '7 days'
        AND e.contact_id IS NOT NULL AND _wa_has_messages_of(e.organization_id, e.contact_id)
        AND NOT EXISTS (
            SELECT FROM wa_erasures r
            WHERE r.organization_id = e.organization_id AND r.contact_id = e.contact_id
                AND (r.state = 'running' OR r.id > e.id)
        );
    FOR v_erasure IN
        SELECT e.organization_id, e.id, e.contact_id, e.keep FROM wa_erasures e
        WHERE e.state = 'done' AND _wa_read_time(e.keep #>> '{consent,until}') < current_date
        ORDER BY e.organization_id, e.id
        FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_spent := v_spent + _wa_erase_consent_of(
            v_erasure.organization_id, v_erasure.contact_id, 'x', false
        );
        UPDATE wa_erasures e SET keep = e.keep - 'consent'
        WHERE e.organization_id = v_erasure.organization_id AND e.id = v_erasure.id;
    END LOOP;
    FOR v_erasure IN
        SELECT e.organization_id, e.id FROM wa_erasures e WHERE e.state = 'running'
        ORDER BY e.requested_at, e.organization_id, e.id
    LOOP
        EXIT WHEN v_spent >= p_budget;
        -- What fails with one, or is locked by somebody, is undone and noted; the others go on.
        BEGIN
            v_spent := v_spent + _wa_advance_erasure(
                v_erasure.organization_id, v_erasure.id, p_budget - v_spent
            );
        EXCEPTION WHEN OTHERS THEN
            IF _wa_is_passing_error(SQLSTATE) THEN
                RAISE;
            END IF;
            PERFORM _wa_note_fault(
                v_erasure.organization_id, 'erasure', v_erasure.id::text, SQLSTATE, SQLERRM
            );
        END;
    END LOOP;
    PERFORM _wa_renew_statistics();
    RETURN v_spent;
END
$$;

COMMENT ON FUNCTION run_wa_erasures(integer) IS
'Goes on with erasures, the oldest first, until about so many rows were changed; returns how many. Also ends '
'what was kept of the erased for a time, and makes statistics anew. The job "erasures" calls it.';
