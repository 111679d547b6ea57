-- What events of accounts and numbers change. An event that comes late does not undo a newer one about the
-- same thing.

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
    -- Of each category and region, so that one does not overtake another.
    IF p_event.event = 'VOLUME_BASED_PRICING_TIER_UPDATE' THEN
        PERFORM _wa_set_volume_tier(
            p_org, p_event.waba_id, v_value -> 'volume_tier_info', p_event.occurred_at
        );
        RETURN;
    END IF;
    IF _wa_is_overtaken(p_org, p_event) THEN
        RETURN;
    END IF;
    CASE p_event.field
        WHEN 'phone_number_quality_update' THEN
            PERFORM _wa_set_messaging_limit(p_org, v_numbers, coalesce(
                v_value ->> 'max_daily_conversations_per_business', v_value ->> 'current_limit'
            ));
            PERFORM _wa_set_quality(
                p_org, v_numbers, CASE p_event.event WHEN 'FLAGGED' THEN 'RED' WHEN 'UNFLAGGED' THEN 'UNKNOWN' END
            );
        WHEN 'business_capability_update' THEN
            PERFORM _wa_set_messaging_limit(p_org, v_numbers, coalesce(
                v_value ->> 'max_daily_conversations_per_business',
                v_value ->> 'max_daily_conversation_per_phone'
            ));
        WHEN 'phone_number_name_update' THEN
            PERFORM _wa_set_verified_name(
                p_org, v_numbers, v_value ->> 'decision', v_value ->> 'requested_verified_name'
            );
        WHEN 'business_username_update' THEN
            CASE v_value ->> 'status'
                WHEN 'approved' THEN
                    PERFORM _wa_set_number_username(p_org, v_numbers, v_value ->> 'username');
                WHEN 'deleted' THEN
                    PERFORM _wa_set_number_username(p_org, v_numbers, NULL);
                ELSE NULL;
            END CASE;
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
            PERFORM _wa_restrict_numbers(
                p_org, p_numbers,
                CASE v_restriction.type
                    WHEN 'RESTRICTED_BIZ_INITIATED_MESSAGING' THEN v_restriction.ends_at
                END,
                CASE v_restriction.type
                    WHEN 'RESTRICTED_CUSTOMER_INITIATED_MESSAGING' THEN v_restriction.ends_at
                END
            );
        END LOOP;
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_apply_account_update(uuid, wa_account_events, bigint[]) IS
'Internal: bans pause an account, reinstatement resumes it, restrictions block templates or replies until '
'they end.';
