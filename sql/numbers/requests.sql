-- What applications have the provider told of business numbers, and asked: as rows of wa_provider_calls, made
-- by a process beside the dispatcher.

CREATE OR REPLACE FUNCTION _wa_require_number(p_org uuid, p_phone_number_id text) RETURNS wa_phone_numbers
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    v_number wa_phone_numbers;
BEGIN
    SELECT * INTO v_number FROM wa_phone_numbers n
    WHERE n.organization_id = p_org AND n.phone_number_id = p_phone_number_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WA010',
            MESSAGE = format('no business number with the id "%s"', left(p_phone_number_id, 100)),
            DETAIL = (
                SELECT 'There are: ' || coalesce(string_agg(n.phone_number_id, ', '), 'none') || '.'
                FROM wa_phone_numbers n WHERE n.organization_id = p_org
            ),
            HINT = 'SELECT phone_number_id, display_phone FROM wa_phone_numbers;';
    END IF;
    RETURN v_number;
END
$$;

COMMENT ON FUNCTION _wa_require_number(uuid, text) IS
'Internal: the business number of an organization with this id; raises WA010 where there is none.';

CREATE OR REPLACE FUNCTION _wa_ask_about_number(
    p_org uuid, p_phone_number_id text, p_kind text, p_call text, p_body jsonb DEFAULT '{}',
    p_arguments jsonb DEFAULT '{}', p_subject text DEFAULT NULL, p_path_end text DEFAULT ''
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_number wa_phone_numbers := _wa_require_number(p_org, p_phone_number_id);
    v_call jsonb := _wa_number_calls(v_number.provider) -> p_call;
BEGIN
    IF v_call IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '0A000',
            MESSAGE = format('the provider "%s" cannot be asked for that', v_number.provider),
            DETAIL = format('It is about %s, of the number %s.', p_call, v_number.phone_number_id),
            HINT = 'Do it in the provider''s console.';
    END IF;
    RETURN _wa_ask_provider(
        p_org, p_kind, concat_ws(' ', v_number.phone_number_id, p_subject), v_number.phone_number_id,
        interval '1 hour',
        p_arguments
        || jsonb_strip_nulls(jsonb_build_object('secrets', v_call -> 'secrets', 'most', v_call -> 'most')),
        replace(replace(v_call ->> 'path', '{number}', v_number.phone_number_id), '{account}', v_number.waba_id)
        || p_path_end,
        coalesce(v_call -> 'body', '{}') || p_body
    );
END
$$;

COMMENT ON FUNCTION _wa_ask_about_number(uuid, text, text, text, jsonb, jsonb, text, text) IS
'Internal: has one of _wa_number_calls() made for a business number; the id of the call. Raises WA010 and '
'0A000.';

CREATE OR REPLACE FUNCTION request_wa_number_registration(p_phone_number_id text) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_number wa_phone_numbers := _wa_require_number(v_org, p_phone_number_id);
BEGIN
    IF NOT EXISTS (
        SELECT FROM wa_secrets s
        WHERE s.organization_id = v_org AND s.name = 'registration_pin' AND s.is_active
            AND (s.phone_number_id = v_number.phone_number_id OR s.phone_number_id IS NULL)
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'WA253',
            MESSAGE = 'no registration PIN is stored for the business number',
            DETAIL = format('The number is %s.', v_number.phone_number_id),
            HINT = 'bin/wa numbers register takes it, seals it and asks for the registration.';
    END IF;
    RETURN _wa_ask_about_number(v_org, v_number.phone_number_id, 'register_number', 'register');
END
$$;

COMMENT ON FUNCTION request_wa_number_registration(text) IS
'Has dispatchers register a business number with its provider by the PIN that is stored sealed: the row of '
'wa_provider_calls that tells what comes of it. Raises WA253 where no PIN is.';

CREATE OR REPLACE FUNCTION request_wa_webhook_subscription(
    p_phone_number_id text, p_url text DEFAULT NULL, p_whole_account boolean DEFAULT false
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_call text := CASE WHEN p_url IS NULL THEN 'subscribe_account'
        WHEN p_whole_account THEN 'webhook_of_account' ELSE 'webhook_of_number' END;
    v_body jsonb;
BEGIN
    -- Meta takes https only; http is for simulators on this machine.
    IF NOT (length(p_url) <= 2000 AND p_url ~ '^(https://|http://(localhost|127[.]0[.]0[.]1)[:/])[^\s]+$') THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = 'webhooks cannot be sent to that URL',
            DETAIL = format('It is %L.', left(p_url, 100)),
            HINT = 'https:// and the public name of bin/wa serve, with /api/whatsapp/webhook.';
    END IF;
    SELECT replace((c.call -> 'body')::text, '"{url}"', to_jsonb(p_url)::text)::jsonb INTO v_body
    FROM (
        SELECT _wa_number_calls(n.provider) -> v_call AS call
        FROM _wa_require_number(v_org, p_phone_number_id) n
    ) c;
    RETURN _wa_ask_about_number(
        v_org, p_phone_number_id, 'subscribe_webhooks', v_call, coalesce(v_body, '{}'), '{}', v_call
    );
END
$$;

COMMENT ON FUNCTION request_wa_webhook_subscription(text, text, boolean) IS
'Has dispatchers subscribe our app to the webhooks of a number''s account; with p_url, send those of the '
'number, or of its whole account, there instead of where the app has them sent. The verify token (at '
'360dialog: the webhook header) is that of bin/wa secrets. The row of wa_provider_calls that tells what '
'comes of it.';

CREATE OR REPLACE FUNCTION _wa_ask_for_profile(p_org uuid, p_phone_number_id text) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT _wa_ask_about_number(
        p_org, p_phone_number_id, 'read_profile', 'profile', '{}', '{"method": "GET", "keep": true}', NULL,
        '?fields=about,address,description,email,profile_picture_url,websites,vertical'
    )
$$;

COMMENT ON FUNCTION _wa_ask_for_profile(uuid, text) IS
'Internal: has the profile of a business number read; the id of the call.';

CREATE OR REPLACE FUNCTION request_wa_business_profile(p_phone_number_id text) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_ask_for_profile(_wa_caller_organization(), p_phone_number_id)
$$;

COMMENT ON FUNCTION request_wa_business_profile(text) IS
'Has dispatchers read the profile that customers see of a business number into '
'wa_phone_numbers.business_profile: the row of wa_provider_calls that tells what comes of it.';

CREATE OR REPLACE FUNCTION _wa_profile_problem(p_profile jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
SET standard_conforming_strings = on
AS $$
    SELECT CASE
        WHEN coalesce(jsonb_typeof(p_profile), 'null') <> 'object' OR p_profile = '{}' THEN 'nothing is given'
        ELSE coalesce((
            SELECT CASE
                WHEN r.key IS NULL THEN format('"%s" is no part of a profile', left(f.key, 100))
                WHEN jsonb_typeof(f.value) <> r.type THEN format('%s is no %s', f.key, r.type)
                WHEN r.type = 'string' AND NOT length(f.value #>> '{}') BETWEEN r.fewest AND r.most
                    THEN format('%s has %s to %s characters', f.key, r.fewest, r.most)
                WHEN f.key = 'email' AND f.value #>> '{}' !~ '^$|^[^@\s]+@[^@\s]+[.][^@\s]+$'
                    THEN 'email is no address'
                WHEN f.key = 'vertical' AND f.value #>> '{}' !~ '^[A-Z][A-Z_]+$' THEN 'vertical is no industry'
                WHEN f.key = 'websites' AND (
                    jsonb_array_length(f.value) > 2 OR EXISTS (
                        SELECT FROM jsonb_array_elements(f.value) w (site)
                        WHERE jsonb_typeof(w.site) <> 'string' OR length(w.site #>> '{}') > 256
                            OR w.site #>> '{}' !~ '^https?://[^\s]+$'
                    )
                ) THEN 'websites are up to two URLs of up to 256 characters, with http:// or https://'
            END
            FROM jsonb_each(p_profile) f (key, value)
            LEFT JOIN (
                VALUES ('about', 'string', 1, 139), ('address', 'string', 0, 256),
                ('description', 'string', 0, 512), ('email', 'string', 0, 128),
                ('vertical', 'string', 1, 40), ('profile_picture_handle', 'string', 1, 10000),
                ('websites', 'array', NULL, NULL)
            ) r (key, type, fewest, most) ON r.key = f.key
            ORDER BY 1 NULLS LAST LIMIT 1
        ))
    END
$$;

COMMENT ON FUNCTION _wa_profile_problem(jsonb) IS
'Internal: what the provider would not take of a business profile; NULL where nothing.';

CREATE OR REPLACE FUNCTION set_wa_business_profile(p_phone_number_id text, p_profile jsonb) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_problem text := _wa_profile_problem(p_profile);
BEGIN
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023',
            MESSAGE = format('not a business profile: %s', v_problem),
            DETAIL = format('Given: %s', left(p_profile::text, 200)),
            HINT = 'As in {"about": "Open daily", "email": "hello@example.com", "websites": '
                '["https://example.com"]}; also address, description, vertical, profile_picture_handle.';
    END IF;
    RETURN _wa_ask_about_number(
        _wa_caller_organization(), p_phone_number_id, 'set_profile', 'profile',
        '{"messaging_product": "whatsapp"}' || p_profile
    );
END
$$;

COMMENT ON FUNCTION set_wa_business_profile(text, jsonb) IS
'Has dispatchers change the parts that are given of the profile that customers see of a business number; '
'what is not given stays. The row of wa_provider_calls that tells what comes of it; the profile is read '
'anew then. Raises 22023 for what the provider would not take.';

CREATE OR REPLACE FUNCTION _wa_ask_to_block(p_phone_number_id text, p_phone text, p_method text) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_org uuid := _wa_caller_organization();
    v_phone text := (
        SELECT normalize_phone_e164(p_phone, o.default_region, o.default_area_code) FROM wa_organizations o
        WHERE o.id = v_org
    );
BEGIN
    -- One kind for both, so that of a customer the last word counts, also while the one before waits.
    RETURN _wa_ask_about_number(
        v_org, p_phone_number_id, 'block_user', 'block',
        jsonb_build_object('messaging_product', 'whatsapp', 'block_users', jsonb_build_array(
            jsonb_build_object('user', v_phone)
        )),
        jsonb_build_object('method', p_method, 'keep', true), v_phone
    );
END
$$;

COMMENT ON FUNCTION _wa_ask_to_block(text, text, text) IS
'Internal: has a customer blocked or unblocked; the id of the call.';

CREATE OR REPLACE FUNCTION block_wa_user(p_phone_number_id text, p_phone text) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_ask_to_block(p_phone_number_id, p_phone, 'POST')
$$;

CREATE OR REPLACE FUNCTION unblock_wa_user(p_phone_number_id text, p_phone text) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_ask_to_block(p_phone_number_id, p_phone, 'DELETE')
$$;

CREATE OR REPLACE FUNCTION request_wa_blocked_users(p_phone_number_id text) RETURNS uuid
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT _wa_ask_about_number(
        _wa_caller_organization(), p_phone_number_id, 'list_blocked', 'block', '{}',
        '{"method": "GET", "keep": true}', NULL, '?limit=1000'
    )
$$;

COMMENT ON FUNCTION block_wa_user(text, text) IS
'Has dispatchers block a customer at a business number: neither can write to the other any more, and the '
'customer is not told. The provider takes it for who has written within 24 hours. The row of '
'wa_provider_calls that tells what comes of it.';
COMMENT ON FUNCTION unblock_wa_user(text, text) IS
'Has dispatchers end what block_wa_user() began; the row of wa_provider_calls that tells what comes of it.';
COMMENT ON FUNCTION request_wa_blocked_users(text) IS
'Has dispatchers ask whom a business number has blocked, the first thousand: the row of wa_provider_calls '
'whose result has them, for a week.';

-- What the calls brought, into our rows.
CREATE OR REPLACE FUNCTION tg_wa_provider_calls__take_profile() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF new.kind = 'set_profile' THEN
        PERFORM _wa_ask_for_profile(new.organization_id, new.phone_number_id);
        RETURN NULL;
    END IF;
    UPDATE wa_phone_numbers n
    SET business_profile = (new.result #> '{data,0}') - 'messaging_product', profile_read_at = new.ended_at,
        updated_at = clock_timestamp()
    WHERE n.organization_id = new.organization_id AND n.phone_number_id = new.phone_number_id
        AND jsonb_typeof(new.result #> '{data,0}') = 'object';
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION tg_wa_provider_calls__take_profile() IS
'Takes a business profile that was read into wa_phone_numbers; one that was set is read.';

CREATE OR REPLACE TRIGGER take_profile AFTER UPDATE OF state ON wa_provider_calls
FOR EACH ROW WHEN (new.state = 'done' AND new.kind IN ('read_profile', 'set_profile'))
EXECUTE FUNCTION tg_wa_provider_calls__take_profile();
