-- What the provider decides about numbers and their accounts; webhooks/account_rules.sql says on which event.

CREATE OR REPLACE FUNCTION _wa_tier_limit(p_limit text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN p_limit = 'TIER_NOT_SET' THEN 250
    WHEN p_limit ~ '^(TIER_)?[0-9]{1,6}[KM]?$' THEN (regexp_replace(p_limit, '[^0-9]', '', 'g'))::integer
        * CASE right(p_limit, 1) WHEN 'K' THEN 1000 WHEN 'M' THEN 1000000 ELSE 1 END
END;

COMMENT ON FUNCTION _wa_tier_limit(text) IS
'Internal: a messaging limit as a number of recipients (TIER_2K or 2000: 2000; never used: 250); NULL for '
'unlimited.';

CREATE OR REPLACE FUNCTION _wa_set_messaging_limit(p_org uuid, p_numbers bigint[], p_limit text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_portfolios p SET messaging_limit = p_limit, tier_limit = _wa_tier_limit(p_limit),
        updated_at = clock_timestamp()
    WHERE p.organization_id = p_org AND p_limit IS NOT NULL AND p.portfolio_id IN (
        SELECT n.portfolio_id FROM wa_phone_numbers n WHERE n.organization_id = p_org
            AND n.id = ANY (p_numbers)
    )
$$;

COMMENT ON FUNCTION _wa_set_messaging_limit(uuid, bigint[], text) IS
'Internal: the messaging limit of the portfolios of these numbers; NULL changes nothing.';

-- Meta is the authority: what it has told stays.
CREATE OR REPLACE FUNCTION _wa_expect_messaging_limit(
    p_org uuid, p_portfolio_id text, p_limit text
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_portfolios p SET messaging_limit = p_limit, tier_limit = _wa_tier_limit(p_limit),
        updated_at = clock_timestamp()
    WHERE p.organization_id = p_org AND p.portfolio_id = p_portfolio_id AND p.messaging_limit IS NULL
        AND p_limit IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_expect_messaging_limit(uuid, text, text) IS
'Internal: the messaging limit of a portfolio of which none is known yet, with the caller''s rights.';

CREATE OR REPLACE FUNCTION set_wa_account_time_zone(p_waba_id text, p_time_zone text) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_numbers integer;
BEGIN
    PERFORM _wa_require_time_zone(p_time_zone);
    UPDATE wa_phone_numbers n SET account_time_zone = p_time_zone, updated_at = clock_timestamp()
    WHERE n.organization_id = v_org AND n.waba_id = p_waba_id;
    GET DIAGNOSTICS v_numbers = ROW_COUNT;
    IF v_numbers = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('no business number of the account "%s"', left(p_waba_id, 100)),
            DETAIL = (
                SELECT 'There are: ' || coalesce(string_agg(DISTINCT n.waba_id, ', '), 'none') || '.'
                FROM wa_phone_numbers n WHERE n.organization_id = v_org
            ),
            HINT = 'SELECT phone_number_id, waba_id FROM wa_phone_numbers;';
    END IF;
    RETURN v_numbers;
END
$$;

COMMENT ON FUNCTION set_wa_account_time_zone(text, text) IS
'Says in which time zone the provider bills a WhatsApp Business account, as its settings show it; NULL: that '
'of the organization. Days and months of costs are cut anew. Returns how many numbers the account has.';

-- Each account has a tier of its own by category, region and month. What was told last holds.
CREATE OR REPLACE FUNCTION _wa_set_volume_tier(
    p_org uuid, p_waba_id text, p_tier jsonb, p_told_at timestamptz
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    INSERT INTO wa_volume_tiers AS v (
        organization_id, waba_id, category, region, month, tier, volume_from, volume_to, told_at
    )
    SELECT
        p_org, p_waba_id, replace(lower(p_tier ->> 'pricing_category'), '-', '_'), p_tier ->> 'region',
        (left(p_tier ->> 'effective_month', 7) || '-01')::date, p_tier ->> 'tier', b.bounds[1]::bigint,
        b.bounds[2]::bigint, coalesce(_wa_to_timestamp(p_tier -> 'tier_update_time'), p_told_at)
    FROM (SELECT regexp_match(p_tier ->> 'tier', '^([0-9]{1,18})(?::([0-9]{1,18}))?') AS bounds) b
    WHERE p_tier ->> 'effective_month' ~ '^[0-9]{4}-(0[1-9]|1[0-2])' AND b.bounds IS NOT NULL
        AND p_waba_id IS NOT NULL AND num_nulls(p_tier ->> 'pricing_category', p_tier ->> 'region') = 0
    ON CONFLICT (organization_id, waba_id, category, region, month) DO UPDATE SET
        tier = excluded.tier, volume_from = excluded.volume_from, volume_to = excluded.volume_to,
        told_at = excluded.told_at
    WHERE v.told_at <= excluded.told_at
$$;

COMMENT ON FUNCTION _wa_set_volume_tier(uuid, text, jsonb, timestamptz) IS
'Internal: takes the volume tier that an account has reached; what says no month or volume is passed over.';

CREATE OR REPLACE FUNCTION _wa_set_quality(p_org uuid, p_numbers bigint[], p_rating text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers SET quality_rating = p_rating, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = ANY (p_numbers) AND p_rating IS NOT NULL
$$;

COMMENT ON FUNCTION _wa_set_quality(uuid, bigint[], text) IS
'Internal: the quality rating of numbers; NULL changes nothing.';

CREATE OR REPLACE FUNCTION _wa_set_verified_name(
    p_org uuid, p_numbers bigint[], p_decision text, p_name text
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers SET
        verified_name = CASE WHEN p_decision = 'APPROVED' THEN coalesce(p_name, verified_name)
            ELSE verified_name END,
        name_status = p_decision, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = ANY (p_numbers)
$$;

COMMENT ON FUNCTION _wa_set_verified_name(uuid, bigint[], text, text) IS
'Internal: what the provider decided about a name; numbers bear one that it approved.';

CREATE OR REPLACE FUNCTION _wa_set_number_username(
    p_org uuid, p_numbers bigint[], p_username text
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers SET username = p_username, updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = ANY (p_numbers)
$$;

COMMENT ON FUNCTION _wa_set_number_username(uuid, bigint[], text) IS
'Internal: the username of numbers; NULL where there is none any more.';

CREATE OR REPLACE FUNCTION _wa_restrict_numbers(
    p_org uuid, p_numbers bigint[], p_templates_until timestamptz, p_replies_until timestamptz
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers SET
        templates_blocked_until = coalesce(p_templates_until, templates_blocked_until),
        replies_blocked_until = coalesce(p_replies_until, replies_blocked_until),
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = ANY (p_numbers)
$$;

COMMENT ON FUNCTION _wa_restrict_numbers(uuid, bigint[], timestamptz, timestamptz) IS
'Internal: until when numbers may send no templates, and no replies; NULL leaves what is set.';

CREATE OR REPLACE FUNCTION _wa_pause_account(p_org uuid, p_numbers bigint[], p_reason text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_pause_number(p_org, n.id, 'account', p_reason, NULL)
    FROM unnest(p_numbers) n (id)
$$;

COMMENT ON FUNCTION _wa_pause_account(uuid, bigint[], text) IS
'Internal: pauses the accounts of these numbers until resumed.';

CREATE OR REPLACE FUNCTION _wa_resume_account(p_org uuid, p_numbers bigint[], p_reason text) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers SET pause_scope = NULL, pause_reason = NULL, paused_at = NULL,
        paused_until = NULL,
        updated_at = clock_timestamp()
    WHERE organization_id = p_org AND id = ANY (p_numbers) AND pause_scope = 'account'
        AND pause_reason = p_reason
$$;

COMMENT ON FUNCTION _wa_resume_account(uuid, bigint[], text) IS
'Internal: ends the pause that was set for this reason; one set for another reason stays.';

CREATE OR REPLACE TRIGGER require_time_zone BEFORE INSERT OR UPDATE OF account_time_zone ON wa_phone_numbers
FOR EACH ROW WHEN (NEW.account_time_zone IS NOT NULL)
EXECUTE FUNCTION tg_require_time_zone('account_time_zone');
