-- The limits on sending: what each of them is, what was used of it, charging and giving back. A claim charges
-- the number's throughput (pace.sql), the organization's minute, the pair rate and the portfolio's messaging
-- limit; each is read and written under the lock that claim.sql names.

-- Meta's pair rate (About the platform): one message in 6 seconds to a recipient; up to 45 at once are
-- borrowed from the time after, which has to pass before the next. A burst is given 5 seconds, and a debt a
-- quarter of a second more, so that what arrives late at the provider is still inside.
CREATE OR REPLACE FUNCTION _wa_pair_interval() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '6 seconds';

CREATE OR REPLACE FUNCTION _wa_pair_burst() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 45;

CREATE OR REPLACE FUNCTION _wa_pair_burst_time() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '5 seconds';

CREATE OR REPLACE FUNCTION _wa_pair_slack() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '250 milliseconds';

-- How many more messages to a recipient may go now, from what its pair was charged.
CREATE OR REPLACE FUNCTION _wa_pair_room(
    p_burst_started_at timestamptz, p_burst_count integer, p_clear_at timestamptz, p_now timestamptz
) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_clear_at IS NULL OR p_clear_at + _wa_pair_slack() <= p_now THEN _wa_pair_burst()
    WHEN p_now < p_burst_started_at + _wa_pair_burst_time() THEN _wa_pair_burst() - p_burst_count
    ELSE 0
END;

CREATE OR REPLACE FUNCTION _wa_tier_window() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '24 hours';

-- How often a limit that is reached is counted anew while places come free one by one.
CREATE OR REPLACE FUNCTION _wa_tier_recheck() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '5 seconds';

-- A minute, and what some messages may be later than others on the way to the provider.
CREATE OR REPLACE FUNCTION _wa_rate_window() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '60.5 seconds';

COMMENT ON FUNCTION _wa_pair_interval() IS
'Internal: how long one message to a recipient counts for the pair rate.';
COMMENT ON FUNCTION _wa_pair_burst() IS 'Internal: how many messages to a recipient may go at once.';
COMMENT ON FUNCTION _wa_pair_burst_time() IS 'Internal: how long such a burst may take.';
COMMENT ON FUNCTION _wa_pair_slack() IS 'Internal: how long a burst''s debt is waited for beyond its end.';
COMMENT ON FUNCTION _wa_pair_room(timestamptz, integer, timestamptz, timestamptz) IS
'Internal: how many more messages to a recipient the pair rate allows now; NULLs for one never written to.';
COMMENT ON FUNCTION _wa_tier_window() IS
'Internal: how long a recipient counts for the messaging limit of a portfolio.';
COMMENT ON FUNCTION _wa_tier_recheck() IS
'Internal: how long a reached messaging limit is not counted anew, at least.';
COMMENT ON FUNCTION _wa_rate_window() IS
'Internal: the time that an organization''s rate_limit_per_minute is counted over.';

CREATE OR REPLACE FUNCTION _wa_window_used(
    p_taken_at timestamptz[], p_taken integer[], p_now timestamptz, p_window interval
) RETURNS integer
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (
        SELECT least(coalesce(sum(u.n), 0), 2147483647)::integer FROM unnest(p_taken_at, p_taken) u (t, n)
        WHERE u.t >= p_now - p_window
    );
END
$$;

COMMENT ON FUNCTION _wa_window_used(timestamptz[], integer[], timestamptz, interval) IS
'Internal: how much was taken inside a sliding window.';

CREATE OR REPLACE FUNCTION _wa_window_free_at(p_taken_at timestamptz[], p_now timestamptz, p_window interval)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
AS $$
    SELECT min(t) + p_window + interval '1 millisecond' FROM unnest(p_taken_at) t WHERE t >= p_now - p_window
$$;

COMMENT ON FUNCTION _wa_window_free_at(timestamptz[], timestamptz, interval) IS
'Internal: when the oldest taking leaves a sliding window.';

-- Neighbours closer than a hundredth of the window are kept as one, at the later time: the log stays short
-- and errs on the side of the limit.
CREATE OR REPLACE FUNCTION _wa_window_add(
    INOUT p_taken_at timestamptz[], INOUT p_taken integer[], p_now timestamptz, p_window interval, p_n integer
)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
BEGIN
    IF p_n <= 0 THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(u.t ORDER BY u.t), '{}'), coalesce(array_agg(u.n ORDER BY u.t), '{}')
    INTO p_taken_at, p_taken
    FROM unnest(p_taken_at, p_taken) u (t, n) WHERE u.t >= p_now - p_window;
    IF p_taken_at[cardinality(p_taken_at)] > p_now - p_window / 100 THEN
        p_taken[cardinality(p_taken)] := least(p_taken[cardinality(p_taken)]::bigint + p_n, 2147483647);
        p_taken_at[cardinality(p_taken_at)] := p_now;
    ELSE
        p_taken := p_taken || p_n;
        p_taken_at := p_taken_at || p_now;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_window_add(timestamptz[], integer[], timestamptz, interval, integer) IS
'Internal: the log of a sliding window with one more taking, without what has left the window.';

CREATE OR REPLACE FUNCTION _wa_rate_state(p_org uuid) RETURNS SETOF wa_rate_limits
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT r.organization_id, r.scope, r.scope_id, r.version, r.taken_at, r.taken, r.updated_at
    FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = 'organization' AND r.scope_id = ''
    ORDER BY r.version DESC
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_rate_state(uuid) IS
'Internal: what was used of an organization''s minute; no row before its first charge.';

-- What somebody else sent is charged without the organization's lock, which an application would keep from
-- claims until its commit: a row a second, beside the state that claims write under it.
CREATE OR REPLACE FUNCTION _wa_sent_elsewhere(p_org uuid, p_now timestamptz)
RETURNS TABLE (charged_at timestamptz, count integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT r.taken_at[1], r.taken[1] FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = 'organization' AND r.scope_id > ''
        AND r.taken_at[1] BETWEEN p_now - _wa_rate_window() AND p_now + interval '5 seconds';
END;

COMMENT ON FUNCTION _wa_sent_elsewhere(uuid, timestamptz) IS
'Internal: what applications charged to an organization''s minute.';

CREATE OR REPLACE FUNCTION _wa_charge_elsewhere(p_org uuid, p_at timestamptz, p_n integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rate_limits AS r (organization_id, scope, scope_id, version, taken_at, taken)
    VALUES (
        p_org, 'organization', floor(extract(epoch FROM p_at))::bigint::text, 1, ARRAY[p_at], ARRAY[p_n]
    )
    ON CONFLICT (organization_id, scope, scope_id, version) DO UPDATE SET
        taken_at = ARRAY[greatest(r.taken_at[1], p_at)],
        taken = ARRAY[least(r.taken[1]::bigint + p_n, 2147483647)::integer];
    DELETE FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = 'organization' AND r.scope_id IN (
        SELECT x.scope_id FROM wa_rate_limits x
        WHERE x.organization_id = p_org AND x.scope = 'organization' AND x.scope_id > ''
            AND x.taken_at[1] < p_at - interval '2 minutes'
        FOR UPDATE SKIP LOCKED
    );
END
$$;

COMMENT ON FUNCTION _wa_charge_elsewhere(uuid, timestamptz, integer) IS
'Internal: charges an organization''s minute for messages that somebody else sent.';

CREATE OR REPLACE FUNCTION _wa_metered_room(p_org wa_organizations, p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF (p_org).rate_limit_per_minute IS NULL THEN
        RETURN 1000000;
    END IF;
    RETURN greatest(0, (p_org).rate_limit_per_minute - coalesce((
        SELECT _wa_window_used(r.taken_at, r.taken, p_now, _wa_rate_window())
        FROM _wa_rate_state((p_org).id) r
    ), 0)::bigint - coalesce((SELECT sum(e.count) FROM _wa_sent_elsewhere((p_org).id, p_now) e), 0));
END
$$;

COMMENT ON FUNCTION _wa_metered_room(wa_organizations, timestamptz) IS
'Internal: how many messages that the organization''s minute counts may still go now; the caller holds its '
'lock.';

CREATE OR REPLACE FUNCTION _wa_metered_free_at(p_org uuid, p_now timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT least(
        (SELECT _wa_window_free_at(r.taken_at, p_now, _wa_rate_window()) FROM _wa_rate_state(p_org) r),
        (SELECT _wa_window_free_at(array_agg(e.charged_at), p_now, _wa_rate_window())
        FROM _wa_sent_elsewhere(p_org, p_now) e)
    )
$$;

COMMENT ON FUNCTION _wa_metered_free_at(uuid, timestamptz) IS
'Internal: when the organization''s minute lets go of its oldest messages.';

CREATE OR REPLACE FUNCTION _wa_charge_organization(p_org uuid, p_at timestamptz, p_n integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM _wa_write_rate(p_org, 'organization', '', r.version, w.p_taken_at, w.p_taken)
    FROM (SELECT) one
    LEFT JOIN LATERAL _wa_rate_state(p_org) r ON true
    CROSS JOIN LATERAL _wa_window_add(
        coalesce(r.taken_at, '{}'), coalesce(r.taken, '{}'), p_at, _wa_rate_window(), p_n
    ) w;
END
$$;

COMMENT ON FUNCTION _wa_charge_organization(uuid, timestamptz, integer) IS
'Internal: charges an organization''s rate limit at the time when the messages will have gone; the caller '
'holds its lock.';

CREATE OR REPLACE FUNCTION _wa_write_rate(
    p_org uuid, p_scope text, p_scope_id text, p_old_version bigint, p_taken_at timestamptz[],
    p_taken integer[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_rate_limits (organization_id, scope, scope_id, version, taken_at, taken)
    VALUES (p_org, p_scope, p_scope_id, coalesce(p_old_version, 0) + 1, p_taken_at, p_taken);
    DELETE FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = p_scope AND r.scope_id = p_scope_id
        AND r.version = p_old_version;
END
$$;

COMMENT ON FUNCTION _wa_write_rate(uuid, text, text, bigint, timestamptz[], integer[]) IS
'Internal: writes the next version of a used limit and removes the last.';

-- Contacts in one order everywhere: lanes of one portfolio can charge the same recipients, no deadlock.
CREATE OR REPLACE FUNCTION _wa_charge_pairs(
    p_org uuid, p_number_id bigint, p_contact_ids bigint[], p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO wa_pair_rates AS r (
        organization_id, number_id, contact_id, burst_started_at, burst_count, clear_at
    )
    SELECT p_org, p_number_id, u.contact_id, p_now, count(*), p_now + _wa_pair_interval() * count(*)
    FROM unnest(p_contact_ids) u (contact_id)
    GROUP BY u.contact_id
    ORDER BY u.contact_id
    ON CONFLICT (organization_id, number_id, contact_id) DO UPDATE SET
        burst_started_at = CASE WHEN r.clear_at <= p_now THEN p_now ELSE r.burst_started_at END,
        burst_count = CASE WHEN r.clear_at <= p_now THEN 0 ELSE r.burst_count END + excluded.burst_count,
        clear_at = greatest(r.clear_at, p_now) + _wa_pair_interval() * excluded.burst_count,
        wait_until = NULL;
END
$$;

COMMENT ON FUNCTION _wa_charge_pairs(uuid, bigint, bigint[], timestamptz) IS
'Internal: charges the pair rate of a number for messages to contacts.';

CREATE OR REPLACE FUNCTION _wa_charge_portfolio(
    p_org uuid, p_portfolio_id text, p_contact_ids bigint[], p_template_ids uuid[], p_open boolean[],
    p_now timestamptz
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    IF array_remove(p_template_ids, NULL) <> '{}' THEN
        INSERT INTO wa_tier_usages (organization_id, portfolio_id, contact_id, last_at)
        SELECT DISTINCT p_org, p_portfolio_id, u.contact_id, p_now
        FROM unnest(p_contact_ids, p_template_ids, p_open) u (contact_id, template_id, is_open)
        WHERE u.template_id IS NOT NULL AND NOT u.is_open
        ORDER BY u.contact_id
        ON CONFLICT (organization_id, portfolio_id, contact_id) DO UPDATE SET last_at = excluded.last_at;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_charge_portfolio(uuid, text, bigint[], uuid[], boolean[], timestamptz) IS
'Internal: charges a portfolio''s messaging limit for the recipients of templates outside their window.';

CREATE OR REPLACE FUNCTION _wa_refund_pairs(p_org uuid, p_ids uuid[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_pair_rates r
    SET clear_at = r.clear_at - _wa_pair_interval() * i.n, burst_count = greatest(0, r.burst_count - i.n)
    FROM (
        SELECT l.number_id, l.contact_id, c.n
        FROM (
            SELECT f.number_id, f.contact_id, count(*)::integer AS n FROM wa_queue_inflight f
            WHERE f.organization_id = p_org AND f.queue_id = ANY (p_ids)
            GROUP BY f.number_id, f.contact_id
            ORDER BY f.contact_id, f.number_id
        ) c
        CROSS JOIN LATERAL (
            SELECT x.number_id, x.contact_id FROM wa_pair_rates x
            WHERE x.organization_id = p_org AND x.number_id = c.number_id AND x.contact_id = c.contact_id
            LIMIT 1 FOR NO KEY UPDATE
        ) l
    ) i
    WHERE r.organization_id = p_org AND r.number_id = i.number_id AND r.contact_id = i.contact_id
$$;

COMMENT ON FUNCTION _wa_refund_pairs(uuid, uuid[]) IS
'Internal: gives back the pair rate of rows that were granted but never started.';

-- A count costs as much as there are recipients: one of the last seconds serves, with what was charged since,
-- as long as the limit is not near. No older: a claim that found no limit adds nothing, and may commit after
-- one was set and counted.
CREATE OR REPLACE FUNCTION _wa_tier_usage(
    p_org uuid, p_portfolio_id text, p_enough integer, p_now timestamptz,
    OUT version bigint, OUT counted_at timestamptz, OUT used integer, OUT free_at timestamptz
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    SELECT r.version, r.taken_at[1], r.taken[1] INTO version, counted_at, used FROM wa_rate_limits r
    WHERE r.organization_id = p_org AND r.scope = 'portfolio' AND r.scope_id = p_portfolio_id
    ORDER BY r.version DESC LIMIT 1;
    IF used <= p_enough AND counted_at > p_now - interval '10 seconds' THEN
        RETURN;
    END IF;
    counted_at := p_now;
    SELECT count(*), min(u.last_at) + _wa_tier_window() INTO used, free_at
    FROM wa_tier_usages u
    WHERE u.organization_id = p_org AND u.portfolio_id = p_portfolio_id
        AND u.last_at > p_now - _wa_tier_window();
END
$$;

COMMENT ON FUNCTION _wa_tier_usage(uuid, text, integer, timestamptz) IS
'Internal: how many recipients of the last 24 hours a portfolio has: exactly, with when the first of them '
'stops counting, or no fewer than there are where that is at most p_enough. The caller holds the '
'portfolio''s lock.';

-- A function in FROM, which every query takes in.
CREATE OR REPLACE FUNCTION _wa_tier_use(
    p_org uuid, p_portfolio_id text, p_contact_id bigint, p_now timestamptz
) RETURNS TABLE (last_at timestamptz)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT k.last_at FROM wa_tier_usages k
    WHERE k.organization_id = p_org AND k.portfolio_id = p_portfolio_id AND k.contact_id = p_contact_id
        AND k.last_at > p_now - _wa_tier_window()
    LIMIT 1;
END;

COMMENT ON FUNCTION _wa_tier_use(uuid, text, bigint, timestamptz) IS
'Internal: when a recipient was counted for the messaging limit, if that still counts: it needs no other '
'place in it.';

CREATE OR REPLACE FUNCTION tg_wa_portfolios__forget_usage() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    DELETE FROM wa_rate_limits r
    WHERE r.organization_id = NEW.organization_id AND r.scope = 'portfolio' AND r.scope_id = NEW.portfolio_id;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_portfolios__forget_usage() IS
'Makes claims count the recipients anew: nothing was added to the count while there was no limit.';

CREATE OR REPLACE TRIGGER forget_usage AFTER UPDATE OF tier_limit ON wa_portfolios
FOR EACH ROW WHEN (OLD.tier_limit IS NULL) EXECUTE FUNCTION tg_wa_portfolios__forget_usage();
