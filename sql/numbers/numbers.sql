-- Business numbers: registering, pausing, resuming.

CREATE OR REPLACE FUNCTION register_wa_phone_number(
    phone_number_id text, display_phone text, waba_id text, provider text DEFAULT 'meta',
    throughput integer DEFAULT 80, is_test boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
BEGIN
    RETURN _wa_register_number(_wa_caller_organization(), $1, $2, $3, $4, $5, $6);
END
$$;

COMMENT ON FUNCTION register_wa_phone_number(text, text, text, text, integer, boolean) IS
'Registers a business number for the current organization, or changes it; returns its id. The first one '
'becomes the organization''s default. Rows that waited for a number get it.';

CREATE OR REPLACE FUNCTION _wa_register_number(
    p_org uuid, p_phone_number_id text, p_display_phone text, p_waba_id text, p_provider text,
    p_throughput integer, p_is_test boolean
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_id bigint;
    v_channel text := (
        SELECT CASE WHEN p_phone_number_id !~ p.whatsapp_ids THEN 'sms' ELSE 'whatsapp' END
        FROM wa_providers p WHERE p.name = p_provider
    );
BEGIN
    IF coalesce(p_phone_number_id, '') = '' OR coalesce(p_waba_id, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'phone_number_id and waba_id must not be empty',
            DETAIL = format('Given: phone_number_id %L, waba_id %L.', p_phone_number_id, p_waba_id),
            HINT = 'Both are shown in the WhatsApp manager under API setup.';
    END IF;
    -- Both go into the paths of requests.
    IF EXISTS (
        SELECT FROM unnest(ARRAY[p_phone_number_id, p_waba_id]) i (id) WHERE i.id ~ E'[/?#%\\\\[:space:]]|^[.]+$'
    ) THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'phone_number_id and waba_id are no ids',
            DETAIL = format('Given: phone_number_id %L, waba_id %L.', left(p_phone_number_id, 100),
                left(p_waba_id, 100)),
            HINT = 'They have no blanks and nothing that means something in a URL, as / ? # and % do.';
    END IF;
    IF NOT EXISTS (SELECT FROM wa_providers p WHERE p.name = p_provider) THEN
        RAISE EXCEPTION USING ERRCODE = '0A000',
            MESSAGE = format('provider "%s" is not supported by this release', p_provider),
            DETAIL = format('The number is %s.', p_phone_number_id),
            HINT = format('Supported: %s.', _wa_providers_with(NULL));
    END IF;
    INSERT INTO wa_portfolios (organization_id, portfolio_id) VALUES (p_org, p_waba_id)
    ON CONFLICT DO NOTHING;
    INSERT INTO wa_phone_numbers (
        organization_id, phone_number_id, display_phone, phone_e164, waba_id, portfolio_id, provider,
        throughput, is_test, account_time_zone, channel
    )
    VALUES (
        p_org, p_phone_number_id, p_display_phone,
        try_normalize_phone_e164('+' || ltrim(p_display_phone, '+')),
        p_waba_id, p_waba_id, p_provider, p_throughput, p_is_test, (
            SELECT _wa_known_zone(n.account_time_zone) FROM wa_phone_numbers n
            WHERE n.organization_id = p_org AND n.waba_id = p_waba_id LIMIT 1
        ), v_channel
    )
    ON CONFLICT (organization_id, phone_number_id) DO UPDATE SET
        display_phone = excluded.display_phone, phone_e164 = excluded.phone_e164, waba_id = excluded.waba_id,
        provider = excluded.provider, channel = excluded.channel, throughput = excluded.throughput,
        is_test = excluded.is_test,
        updated_at = clock_timestamp()
    RETURNING id INTO v_id;
    -- The routes' primary key makes it impossible that two organizations own one number.
    INSERT INTO wa_number_routes (phone_number_id, organization_id, number_id, waba_id)
    VALUES (p_phone_number_id, p_org, v_id, p_waba_id)
    ON CONFLICT (phone_number_id) DO UPDATE SET waba_id = excluded.waba_id
    WHERE wa_number_routes.organization_id = p_org;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '23505',
            MESSAGE = format('phone number id %s is registered by another organization', p_phone_number_id),
            DETAIL = format('You work for %s.', p_org),
            HINT = 'A business number belongs to one organization; remove it there first.';
    END IF;
    IF v_channel = 'whatsapp' THEN
        PERFORM _wa_offer_default_number(p_org, v_id);
    END IF;
    RETURN v_id;
END
$$;

COMMENT ON FUNCTION _wa_register_number(uuid, text, text, text, text, integer, boolean) IS
'Internal: register_wa_phone_number() for a given organization.';

-- Two processes that start at once may both find none: they register the same number with the same settings.
CREATE OR REPLACE FUNCTION register_wa_first_number(
    p_phone_number_id text, p_display_phone text, p_waba_id text, p_provider text DEFAULT 'meta',
    p_media boolean DEFAULT true, p_templates boolean DEFAULT true, p_retention_days integer DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_before text := current_setting('wa.organization_id', true);
    v_org uuid := (
        SELECT o.id FROM wa_organizations o
        WHERE o.is_default AND NOT EXISTS (SELECT FROM wa_phone_numbers n WHERE n.organization_id = o.id)
    );
BEGIN
    IF v_org IS NULL THEN
        RETURN false;
    END IF;
    PERFORM set_config('wa.organization_id', v_org::text, true);
    PERFORM register_wa_phone_number(p_phone_number_id, p_display_phone, p_waba_id, p_provider);
    PERFORM _wa_seed_settings(v_org, p_media, p_templates, p_retention_days);
    PERFORM set_config('wa.organization_id', coalesce(v_before, ''), true);
    RETURN true;
END
$$;

COMMENT ON FUNCTION register_wa_first_number(text, text, text, text, boolean, boolean, integer) IS
'Registers a number for the default organization where that has none, and says whether it did; the processes '
'call it with what their environment names. Without p_media no file of a contact is fetched by itself, '
'without p_templates none are sent; with p_retention_days messages are kept as long.';

CREATE OR REPLACE FUNCTION _wa_token_fingerprint(p_org uuid, p_phone_number_id text) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT s.fingerprint FROM wa_secrets s
    WHERE s.organization_id = p_org AND s.name = 'access_token' AND s.is_active
        AND (s.phone_number_id = p_phone_number_id OR s.phone_number_id IS NULL)
    ORDER BY s.phone_number_id NULLS LAST, s.created_at DESC
    LIMIT 1
$$;

CREATE OR REPLACE FUNCTION _wa_pause_number(
    p_org uuid, p_number_id bigint, p_scope text, p_reason text, p_until timestamptz
) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers n
    SET pause_scope = p_scope, pause_reason = p_reason, paused_at = clock_timestamp(), paused_until = p_until,
        updated_at = clock_timestamp()
    FROM wa_phone_numbers me
    WHERE me.organization_id = p_org AND me.id = p_number_id AND n.organization_id = p_org
        AND CASE p_scope
            WHEN 'number' THEN n.id = me.id
            WHEN 'account' THEN n.waba_id = me.waba_id
            ELSE _wa_token_fingerprint(p_org, n.phone_number_id)
                IS NOT DISTINCT FROM _wa_token_fingerprint(p_org, me.phone_number_id)
        END
        AND (n.pause_scope IS NULL OR n.paused_until < coalesce(p_until, 'infinity'))
$$;

COMMENT ON FUNCTION _wa_token_fingerprint(uuid, text) IS
'Internal: tells which stored token a number sends with; NULL means the token of the dispatcher''s '
'environment.';
COMMENT ON FUNCTION _wa_pause_number(uuid, bigint, text, text, timestamptz) IS
'Internal: pauses a number, its account, or every number with its token, until a time or (NULL) until '
'resumed.';

CREATE OR REPLACE FUNCTION resume_wa_number(p_phone_number_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE wa_phone_numbers
    SET pause_scope = NULL, pause_reason = NULL, paused_at = NULL, paused_until = NULL,
        updated_at = clock_timestamp()
    WHERE phone_number_id = p_phone_number_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('no business number with the id "%s"', left(p_phone_number_id, 100)),
            DETAIL = (
                SELECT 'There are: ' || coalesce(string_agg(n.phone_number_id, ', '), 'none') || '.'
                FROM wa_phone_numbers n
            ),
            HINT = 'SELECT phone_number_id, pause_scope, pause_reason FROM wa_phone_numbers;';
    END IF;
    RETURN true;
END
$$;

COMMENT ON FUNCTION resume_wa_number(text) IS
'Ends the pause of a business number, for example after a new token or a settled payment.';

CREATE OR REPLACE FUNCTION _wa_bring_back_pauses(p_now timestamptz, p_by interval) RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    UPDATE wa_phone_numbers n SET
        paused_until = CASE WHEN n.paused_at > p_now THEN n.paused_until - p_by ELSE n.paused_until END,
        paused_at = least(n.paused_at, p_now), last_webhook_at = least(n.last_webhook_at, p_now)
    WHERE n.paused_at > p_now OR n.last_webhook_at > p_now
$$;

COMMENT ON FUNCTION _wa_bring_back_pauses(timestamptz, interval) IS
'Internal: pauses that began in what is the future, now that the clock was set back, end as soon as they '
'would have.';

CREATE OR REPLACE FUNCTION get_wa_phone_number_status(p_phone_number_id text)
RETURNS TABLE (
    phone_number_id text, display_phone text, verified_name text, quality_rating text, messaging_limit text,
    status text, is_paused boolean, pause_reason text, paused_until timestamptz, last_webhook_at timestamptz
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
    SELECT n.phone_number_id, n.display_phone, n.verified_name, n.quality_rating, p.messaging_limit, n.status,
        n.pause_scope IS NOT NULL AND coalesce(n.paused_until > clock_timestamp(), true), n.pause_reason,
        n.paused_until, n.last_webhook_at
    FROM wa_phone_numbers n
    JOIN wa_portfolios p ON p.organization_id = n.organization_id AND p.portfolio_id = n.portfolio_id
    WHERE n.phone_number_id = p_phone_number_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('no business number with the id "%s"', left(p_phone_number_id, 100)),
            DETAIL = (
                SELECT 'There are: ' || coalesce(string_agg(n.phone_number_id, ', '), 'none') || '.'
                FROM wa_phone_numbers n
            ),
            HINT = 'SELECT phone_number_id, display_phone FROM wa_phone_numbers;';
    END IF;
END
$$;

COMMENT ON FUNCTION get_wa_phone_number_status(text) IS
'Quality rating, messaging limit and state of a business number, as Meta last told them, and whether it is '
'paused.';

-- Not of last_webhook_at, which changes with the traffic.
CREATE OR REPLACE TRIGGER audit_change
AFTER INSERT OR DELETE OR UPDATE OF phone_number_id, channel, display_phone, phone_e164, waba_id,
    portfolio_id, provider, throughput, is_test, status, quality_rating, verified_name, name_status,
    username, pause_scope, pause_reason, paused_until, templates_blocked_until, replies_blocked_until,
    account_time_zone, business_profile
ON wa_phone_numbers
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('phone_number_id', 'last_webhook_at profile_read_at');

CREATE OR REPLACE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON wa_portfolios
FOR EACH ROW EXECUTE FUNCTION tg_audit_change('portfolio_id');
