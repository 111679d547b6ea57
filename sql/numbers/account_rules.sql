-- What events of accounts and numbers change. An event that comes late does not undo a newer one about the
-- same thing.

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

CREATE OR REPLACE FUNCTION _wa_event_numbers(p_org uuid, p_event wa_account_events) RETURNS bigint[]
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT coalesce(array_agg(n.id), '{}')
    FROM wa_phone_numbers n
    CROSS JOIN LATERAL (
        SELECT regexp_replace(
            coalesce(p_event.payload ->> 'display_phone_number', p_event.payload ->> 'phone_number', ''),
            '[^0-9]', '', 'g'
        ) AS digits
    ) d
    WHERE n.organization_id = p_org AND n.waba_id = p_event.waba_id
        AND (d.digits = '' OR regexp_replace(n.display_phone, '[^0-9]', '', 'g') = d.digits)
$$;

COMMENT ON FUNCTION _wa_event_numbers(uuid, wa_account_events) IS
'Internal: the numbers that an event is about: the one it names, else all of its account.';

CREATE OR REPLACE FUNCTION _wa_is_overtaken(p_org uuid, p_event wa_account_events) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT EXISTS (
        SELECT FROM wa_account_events l
        WHERE l.organization_id = p_org AND l.field = p_event.field AND l.occurred_at > p_event.occurred_at
            AND l.waba_id IS NOT DISTINCT FROM p_event.waba_id
            AND (l.field <> 'account_update' OR l.event IS NOT DISTINCT FROM p_event.event)
            AND coalesce(l.payload ->> 'display_phone_number', l.payload ->> 'phone_number')
            IS NOT DISTINCT FROM coalesce(
                p_event.payload ->> 'display_phone_number', p_event.payload ->> 'phone_number'
            )
    )
$$;

COMMENT ON FUNCTION _wa_is_overtaken(uuid, wa_account_events) IS
'Internal: whether a newer event of the same kind about the same number or account is known.';

CREATE OR REPLACE FUNCTION _wa_apply_account_event(p_org uuid, p_event wa_account_events) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_numbers bigint[] := _wa_event_numbers(p_org, p_event);
    v_value jsonb := p_event.payload;
BEGIN
    IF _wa_is_overtaken(p_org, p_event) THEN
        RETURN;
    END IF;
    CASE p_event.field
        WHEN 'phone_number_quality_update' THEN
            PERFORM _wa_set_messaging_limit(p_org, v_numbers, coalesce(
                v_value ->> 'max_daily_conversations_per_business', v_value ->> 'current_limit'
            ));
            UPDATE wa_phone_numbers SET
                quality_rating = CASE p_event.event WHEN 'FLAGGED' THEN 'RED' ELSE 'UNKNOWN' END,
                updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (v_numbers)
                AND p_event.event IN ('FLAGGED', 'UNFLAGGED');
        WHEN 'business_capability_update' THEN
            PERFORM _wa_set_messaging_limit(p_org, v_numbers, coalesce(
                v_value ->> 'max_daily_conversations_per_business',
                v_value ->> 'max_daily_conversation_per_phone'
            ));
        WHEN 'phone_number_name_update' THEN
            UPDATE wa_phone_numbers SET
                verified_name = CASE
                    WHEN v_value ->> 'decision' = 'APPROVED'
                        THEN coalesce(v_value ->> 'requested_verified_name', verified_name)
                    ELSE verified_name
                END,
                name_status = v_value ->> 'decision', updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (v_numbers);
        WHEN 'business_username_update' THEN
            UPDATE wa_phone_numbers SET
                username = CASE v_value ->> 'status' WHEN 'deleted' THEN NULL ELSE v_value ->> 'username' END,
                updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (v_numbers)
                AND v_value ->> 'status' IN ('approved', 'deleted');
        WHEN 'account_review_update' THEN
            CASE v_value ->> 'decision'
                WHEN 'REJECTED' THEN
                    PERFORM _wa_pause_account(p_org, v_numbers, 'the provider rejected the account');
                WHEN 'APPROVED' THEN
                    PERFORM _wa_resume_account(p_org, v_numbers, 'the provider rejected the account');
                ELSE NULL;
            END CASE;
        WHEN 'account_update' THEN
            PERFORM _wa_apply_account_update(p_org, p_event, v_numbers);
        ELSE NULL;
    END CASE;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_event(uuid, wa_account_events) IS
'Internal: what one event changes in numbers and portfolios. Most are only kept.';

CREATE OR REPLACE FUNCTION _wa_apply_account_update(p_org uuid, p_event wa_account_events, p_numbers bigint[])
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_restriction record;
    v_reason constant text := 'the provider disabled the account';
BEGIN
    IF p_event.event = 'ACCOUNT_DELETED' OR p_event.payload #>> '{ban_info,waba_ban_state}' = 'DISABLE' THEN
        PERFORM _wa_pause_account(p_org, p_numbers, v_reason);
    ELSIF p_event.payload #>> '{ban_info,waba_ban_state}' = 'REINSTATE' THEN
        PERFORM _wa_resume_account(p_org, p_numbers, v_reason);
    ELSIF p_event.event = 'ACCOUNT_RESTRICTION' THEN
        FOR v_restriction IN
            -- Where no end is told, sending is tried again after a day; the answer will tell.
            SELECT r ->> 'restriction_type' AS type,
                coalesce(_wa_to_timestamp(r -> 'expiration'),
                    p_event.occurred_at + interval '24 hours') AS ends_at
            FROM jsonb_path_query(p_event.payload, '$.restriction_info[*]') r
        LOOP
            UPDATE wa_phone_numbers SET
                templates_blocked_until = CASE v_restriction.type
                    WHEN 'RESTRICTED_BIZ_INITIATED_MESSAGING' THEN v_restriction.ends_at
                        ELSE templates_blocked_until
                END,
                replies_blocked_until = CASE v_restriction.type
                    WHEN 'RESTRICTED_CUSTOMER_INITIATED_MESSAGING' THEN v_restriction.ends_at
                        ELSE replies_blocked_until
                END,
                updated_at = clock_timestamp()
            WHERE organization_id = p_org AND id = ANY (p_numbers);
        END LOOP;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_update(uuid, wa_account_events, bigint[]) IS
'Internal: bans pause an account, reinstatement resumes it, restrictions block templates or replies until '
'they end.';

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
