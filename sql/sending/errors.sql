-- What to do about each error of the provider. Meta's error-codes page names the codes; the actions are our
-- judgement. Existing rows are left alone: they may have been changed by an operator.
-- The page says nothing of subcodes; answers and Meta's OpenAPI have them. One changes what is to be done:
-- 100 with 33 is about the object in the path, the number. Others repeat their codes: of 190 (expired 463,
-- password changed 460, no valid session 467 and 492), of 200 (1349174 to 1349176), of 4 and 80007 (2446079)
-- and of 130429 (2494055).

INSERT INTO wa_error_rules (code, http_status, title, action, max_retries, wait) VALUES
(0, 401, 'App user cannot be authenticated', 'pause_token', NULL, NULL),
(1, 400, 'Invalid request or server error', 'retry', 3, NULL),
(2, 503, 'Temporary downtime or overload', 'retry', NULL, NULL),
(3, 500, 'Capability or permission problem', 'pause_token', NULL, NULL),
(4, 400, 'App call rate limit', 'wait_account', NULL, '5 minutes'),
(10, 403, 'Permission missing or removed', 'pause_token', NULL, NULL),
(17, 400, 'Account request limit', 'wait_account', NULL, '5 minutes'),
(33, 400, 'Business phone number deleted or unknown', 'pause_number', NULL, NULL),
(100, 400, 'Invalid parameter', 'fail', NULL, NULL),
(190, 401, 'Access token expired or revoked', 'pause_token', NULL, NULL),
(368, 403, 'Account restricted for a policy violation', 'pause_account', NULL, NULL),
(803, 404, 'Business phone number unknown', 'pause_number', NULL, NULL),
(80007, 400, 'Account rate limit', 'wait_account', NULL, '5 minutes'),
(130403, NULL, 'Business blocked this user', 'fail_recipient', NULL, NULL),
(130429, 400, 'Throughput of the number reached', 'wait_number', NULL, '1 second'),
(130472, 400, 'User is part of a marketing experiment', 'fail', NULL, NULL),
(130497, 403, 'Account may not message this country', 'fail_recipient', NULL, NULL),
(131000, 500, 'Unknown error', 'retry', NULL, NULL),
(131005, 403, 'Access denied', 'pause_token', NULL, NULL),
(131008, 400, 'Required parameter missing', 'fail', NULL, NULL),
(131009, 400, 'Parameter value invalid', 'fail', NULL, NULL),
(131016, 500, 'Service unavailable', 'retry', NULL, NULL),
(131020, NULL, 'Group has a single member', 'fail', NULL, NULL),
(131021, 400, 'Recipient is the sender', 'fail', NULL, NULL),
(131026, 400, 'Message undeliverable', 'fail_recipient', NULL, NULL),
(131030, 400, 'Recipient not in the test list', 'fail', NULL, NULL),
(131031, 403, 'Account locked', 'pause_account', NULL, NULL),
(131037, 400, 'Display name not approved', 'pause_number', NULL, NULL),
(131041, NULL, 'Group unknown', 'fail', NULL, NULL),
(131042, 400, 'Payment problem', 'pause_account', NULL, NULL),
(131043, NULL, 'Message expired', 'fail', NULL, NULL),
(131045, 500, 'Number registration problem', 'pause_number', NULL, NULL),
(131047, 400, 'More than 24 hours since the customer''s last message', 'need_template', NULL, NULL),
(131048, 400, 'Spam rate limit', 'pause_number', NULL, '6 hours'),
(131049, 400, 'Not delivered to keep the ecosystem healthy', 'fail', NULL, NULL),
(131050, 400, 'User stopped marketing messages', 'opt_out', NULL, NULL),
(131051, 400, 'Unsupported message type', 'fail', NULL, NULL),
(131052, 400, 'Media could not be downloaded', 'fail', NULL, NULL),
(131053, 400, 'Media could not be uploaded', 'retry', 1, NULL),
(131055, 400, 'Method not allowed', 'fail', NULL, NULL),
(131056, 400, 'Pair rate limit', 'wait_recipient', NULL, NULL),
(131057, 500, 'Account in maintenance', 'wait_number', NULL, '60 seconds'),
(131059, 400, 'Bad paging cursor', 'fail', NULL, NULL),
(131060, NULL, 'Message unavailable', 'fail', NULL, NULL),
(131062, 400, 'User id not accepted as recipient', 'fail', NULL, NULL),
(131063, 400, 'Marketing is disabled on Cloud API', 'stop_template', NULL, NULL),
(131064, 400, 'Limit because of misclassified templates', 'pause_number', NULL, '6 hours'),
(132000, 400, 'Parameter count does not match', 'fail', NULL, NULL),
(132001, 404, 'Template does not exist in this language', 'stop_template', NULL, NULL),
(132005, 400, 'Translated text too long', 'fail', NULL, NULL),
(132007, 400, 'Template violates content policy', 'stop_template', NULL, NULL),
(132008, 400, 'Parameter value invalid', 'fail', NULL, NULL),
(132012, 400, 'Parameter format does not match', 'fail', NULL, NULL),
(132015, 400, 'Template paused', 'stop_template', NULL, '3 hours'),
(132016, 400, 'Template disabled', 'stop_template', NULL, NULL),
(132018, 400, 'Template parameters invalid', 'fail', NULL, NULL),
(132068, 400, 'Flow blocked', 'stop_template', NULL, NULL),
(132069, 400, 'Flow throttled', 'stop_template', NULL, '1 hour'),
(133000, 500, 'Incomplete deregistration', 'pause_number', NULL, NULL),
(133004, 503, 'Server temporarily unavailable', 'retry', NULL, NULL),
(133005, 400, 'PIN does not match', 'fail', NULL, NULL),
(133006, 400, 'Number needs verification', 'pause_number', NULL, NULL),
(133008, 400, 'Too many PIN guesses', 'fail', NULL, NULL),
(133009, 400, 'PIN guessed too fast', 'fail', NULL, NULL),
(133010, 400, 'Number not registered', 'pause_number', NULL, NULL),
(133015, 400, 'Number deleted too recently', 'pause_number', NULL, '5 minutes'),
(133016, 400, 'Registration limit', 'pause_number', NULL, NULL),
(134011, 400, 'Payments terms not accepted', 'fail', NULL, NULL),
(134100, 400, 'Not a marketing template', 'fail', NULL, NULL),
(134101, 400, 'Template still syncing', 'retry', NULL, '10 minutes'),
(134102, 500, 'Template unavailable', 'stop_template', NULL, '1 hour'),
(135000, 400, 'Generic user error', 'retry', 1, NULL),
(137000, NULL, 'Identity hash does not match', 'fail', NULL, NULL),
(139200, NULL, 'Direct Send blocked', 'fail', NULL, NULL)
ON CONFLICT (code, subcode) DO NOTHING;

INSERT INTO wa_error_rules (code, subcode, http_status, title, action) VALUES
(100, 33, 400, 'Business phone number unknown, or the token has no right to it', 'pause_number')
ON CONFLICT (code, subcode) DO NOTHING;

CREATE OR REPLACE FUNCTION classify_wa_error(
    p_code integer, p_http_status integer, p_subcode integer DEFAULT NULL
)
RETURNS wa_error_rules
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $$
    SELECT r.code, r.http_status, r.title, r.action, r.max_retries, r.wait, r.subcode FROM (
        SELECT e.*, CASE e.subcode WHEN 0 THEN 2 ELSE 1 END AS preference
        FROM wa_error_rules e WHERE e.code = p_code AND e.subcode IN (0, p_subcode)
        UNION ALL
        SELECT
            p_code, p_http_status,
            coalesce('Error ' || p_code, 'HTTP status ' || p_http_status, 'Unknown error'),
            CASE
                WHEN p_code BETWEEN 200 AND 299 THEN 'pause_token'
                WHEN p_code IS NULL AND p_http_status BETWEEN 200 AND 399 THEN 'unknown'
                WHEN p_http_status IN (401, 403) THEN 'pause_token'
                WHEN p_http_status = 429 THEN 'wait_number'
                WHEN p_http_status = 408 THEN 'unknown'
                WHEN p_http_status >= 500 AND p_code IS NULL THEN 'unknown'
                WHEN p_http_status >= 500 THEN 'retry'
                ELSE 'fail'
            END,
            NULL, NULL, coalesce(p_subcode, 0), 3
    ) r (code, http_status, title, action, max_retries, wait, subcode, preference)
    ORDER BY r.preference
    LIMIT 1
$$;

COMMENT ON FUNCTION classify_wa_error(integer, integer, integer) IS
'The rule for an error code and subcode of the provider: that of wa_error_rules, else one by HTTP status. '
'A 5xx answer without an error code leaves the outcome unknown.';

-- Only its row type is used: an error that a message met, with the action of its rule, until when that lasts
-- (NULL: until somebody ends it) and what the error says.
CREATE OR REPLACE VIEW _wa_met_errors AS
SELECT
    NULL::text AS action, NULL::bigint AS number_id, NULL::bigint AS contact_id, NULL::uuid AS template_id,
    NULL::integer AS code, NULL::text AS title, NULL::timestamptz AS at, NULL::timestamptz AS until
WHERE false;

COMMENT ON VIEW _wa_met_errors IS
'Internal: the shape of an error that is to be acted on. Never has rows.';

CREATE OR REPLACE FUNCTION _wa_apply_error_actions(p_org uuid, p_errors _wa_met_errors[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM _wa_deny_windows(p_org, array_agg(e.contact_id), array_agg(e.number_id), array_agg(e.at))
    FROM unnest(p_errors) e
    WHERE e.action = 'need_template'
    HAVING count(*) > 0;

    PERFORM _wa_opt_out_contacts(p_org, array_agg(e.contact_id), 'marketing', e.title, 'provider')
    FROM unnest(p_errors) e
    WHERE e.action = 'opt_out'
    GROUP BY e.title;

    -- What is over by now, as a late status may tell it, stops nothing.
    PERFORM _wa_block_templates(
        p_org, array_agg(e.template_id), array_agg(format('%s (code %s)', e.title, e.code)), array_agg(e.until)
    )
    FROM unnest(p_errors) e
    WHERE e.action = 'stop_template' AND coalesce(e.until > v_now, true)
    HAVING count(*) > 0;

    PERFORM _wa_pause_number(p_org, d.number_id, d.scope, d.reason, d.until)
    FROM (
        SELECT DISTINCT e.number_id, split_part(e.action, '_', 2) AS scope, e.until,
            e.title || CASE WHEN e.action LIKE 'pause%' THEN format(' (code %s)', e.code) ELSE '' END AS reason
        FROM unnest(p_errors) e
        WHERE e.action IN ('wait_number', 'wait_account', 'pause_number', 'pause_account', 'pause_token')
            AND coalesce(e.until > v_now, true)
    ) d;

    PERFORM _wa_slow_down(p_org, array_agg(e.number_id), v_now)
    FROM unnest(p_errors) e
    WHERE e.action = 'wait_number'
    HAVING count(*) > 0;

    -- In the order in which claims charge recipients.
    PERFORM FROM wa_pair_rates r
    WHERE r.organization_id = p_org AND (r.number_id, r.contact_id) IN (
        SELECT e.number_id, e.contact_id FROM unnest(p_errors) e WHERE e.action = 'wait_recipient'
    )
    ORDER BY r.contact_id, r.number_id
    FOR NO KEY UPDATE;
    -- Of the recipient's burst nothing is left.
    UPDATE wa_pair_rates r SET clear_at = greatest(r.clear_at, w.until), burst_count = _wa_pair_burst()
    FROM (
        SELECT e.number_id, e.contact_id, max(e.until) AS until FROM unnest(p_errors) e
        WHERE e.action = 'wait_recipient'
        GROUP BY e.number_id, e.contact_id
    ) w
    WHERE r.organization_id = p_org AND r.number_id = w.number_id AND r.contact_id = w.contact_id;
END
$$;

COMMENT ON FUNCTION _wa_apply_error_actions(uuid, _wa_met_errors[]) IS
'Internal: what an error means beyond its message, whether an answer or a status brought it: the window is '
'closed, the customer wants no marketing, a template or number must stop, a recipient is to be spared.';

CREATE OR REPLACE FUNCTION _wa_next_try(
    p_action text, p_retry_count integer, p_wait interval, p_now timestamptz
) RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
    SELECT CASE
        -- The pause, or the fall-back, is what the message waits for.
        WHEN p_action IN ('pause_number', 'pause_account', 'pause_token', 'need_template') THEN p_now
        WHEN p_action = 'wait_number'
            THEN p_now + coalesce(p_wait, interval '1 second') * power(2, least(p_retry_count, 8))
        WHEN p_action = 'wait_account' THEN p_now + coalesce(p_wait, interval '5 minutes')
        ELSE greatest(
            p_now + _wa_backoff(p_retry_count + 1, random()), p_now + p_wait,
            -- Meta asks for 4^n seconds.
            CASE WHEN p_action = 'wait_recipient'
                THEN p_now + interval '1 second' * least(power(4, p_retry_count + 1), 3600) END
        )
    END
$$;

COMMENT ON FUNCTION _wa_next_try(text, integer, interval, timestamptz) IS
'Internal: when a message that met an error is tried again, if it is.';

CREATE OR REPLACE FUNCTION _wa_answer_errors(p_org uuid, p_errors jsonb, p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
    v_met record;
BEGIN
    SELECT
        array_agg(ROW(
            e.verdict, e.number_id, e.contact_id, e.template_id, e.code, e.error, p_now,
            CASE WHEN e.verdict LIKE 'wait%' THEN d.due_at ELSE p_now + make_interval(secs => e.wait_s) END
        )::_wa_met_errors) AS errors,
        array_agg(e.id) FILTER (WHERE NOT f.fails) AS again,
        array_agg(d.due_at) FILTER (WHERE NOT f.fails) AS due_ats,
        array_agg(e.error) FILTER (WHERE NOT f.fails) AS reasons,
        array_agg(e.id) FILTER (WHERE f.fails) AS failed,
        array_agg(CASE
            WHEN e.verdict = 'need_template' THEN 'window_closed'
            WHEN e.code IS NULL AND e.verdict = 'fail' THEN 'refused'
            ELSE coalesce(e.code::text, 'expired')
        END) FILTER (WHERE f.fails) AS codes,
        array_agg(e.error) FILTER (WHERE f.fails) AS causes
    INTO v_met
    FROM jsonb_to_recordset(p_errors) AS e (
        id uuid, verdict text, code integer, error text, max_retries integer, wait_s double precision,
        retry_count integer, number_id bigint, contact_id bigint, template_id uuid, expires_at timestamptz,
        has_fallback boolean, is_open boolean
    )
    CROSS JOIN LATERAL (
        SELECT _wa_next_try(e.verdict, e.retry_count, make_interval(secs => e.wait_s), p_now) AS due_at
    ) d
    CROSS JOIN LATERAL (
        SELECT coalesce(
            e.verdict IN ('fail', 'fail_recipient', 'opt_out', 'stop_template')
            OR (e.verdict = 'need_template' AND NOT e.has_fallback)
            OR e.retry_count >= e.max_retries
            OR (e.expires_at <= d.due_at AND e.verdict NOT LIKE 'pause%'), false
        ) AS fails
    ) f
    WHERE e.is_open;
    IF v_met.errors IS NULL THEN
        RETURN;
    END IF;
    PERFORM _wa_apply_error_actions(p_org, v_met.errors);
    PERFORM _wa_fail_messages(p_org, array_agg(u.id), u.code, u.cause)
    FROM unnest(v_met.failed, v_met.codes, v_met.causes) u (id, code, cause)
    GROUP BY u.code, u.cause;
    IF v_met.again IS NOT NULL THEN
        PERFORM _wa_requeue(p_org, v_met.again, v_met.due_ats, v_met.reasons, true);
    END IF;
END
$$;

COMMENT ON FUNCTION _wa_answer_errors(uuid, jsonb, timestamptz) IS
'Internal: what the answers to refused messages mean by wa_error_rules; each fails or is tried again.';
