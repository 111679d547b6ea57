-- Meta's Cloud API, whose requests, answers and webhooks are those that all others are translated from and
-- to.

INSERT INTO wa_providers (name, send_path, upload_path, media_path, features, number_calls) VALUES
('meta', '/{number}/messages', '/{number}/media', '/{media}?phone_number_id={number}',
'{receipts,templates}', '{
    "register": {"path": "/{number}/register", "body": {"messaging_product": "whatsapp"}, "most": 3,
        "secrets": [{"name": "registration_pin", "at": ["pin"]}]},
    "subscribe_account": {"path": "/{account}/subscribed_apps", "body": {}},
    "webhook_of_account": {"path": "/{account}/subscribed_apps", "body": {"override_callback_uri": "{url}"},
        "secrets": [{"name": "verify_token", "at": ["verify_token"]}]},
    "webhook_of_number": {"path": "/{number}",
        "body": {"webhook_configuration": {"override_callback_uri": "{url}"}},
        "secrets": [{"name": "verify_token", "at": ["webhook_configuration", "verify_token"]}]},
    "profile": {"path": "/{number}/whatsapp_business_profile"},
    "block": {"path": "/{number}/block_users"}
}')
ON CONFLICT (name) DO UPDATE SET
send_path = excluded.send_path, upload_path = excluded.upload_path, media_path = excluded.media_path,
features = excluded.features, number_calls = excluded.number_calls;

-- What to do about each error. Meta's error-codes page names the codes; the actions are our judgement.
-- Existing rows are left alone: they may have been changed by an operator.
-- The page says nothing of subcodes; answers and Meta's OpenAPI have them. One changes what is to be done:
-- 100 with 33 is about the object in the path, the number. Others repeat their codes: of 190 (expired 463,
-- password changed 460, no valid session 467 and 492), of 200 (1349174 to 1349176), of 4 and 80007 (2446079)
-- and of 130429 (2494055).

INSERT INTO wa_error_rules (code, http_status, title, action, max_retries, wait, allows_sms)
SELECT r.code, r.http_status, r.title, r.action, r.max_retries, r.wait::interval, r.code IN (
    130472, 130497, 131026, 131047, 131062, 131063, 132001, 132007, 132015, 132016, 132068, 132069
)
FROM (VALUES
(0, 401, 'App user cannot be authenticated', 'pause_token', NULL::integer, NULL),
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
(131049, 400, 'Not delivered to keep the ecosystem healthy', 'cool_off', NULL, '24 hours'),
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
) r (code, http_status, title, action, max_retries, wait)
ON CONFLICT (provider, code, subcode) DO NOTHING;

INSERT INTO wa_error_rules (code, subcode, http_status, title, action) VALUES
(100, 33, 400, 'Business phone number unknown, or the token has no right to it', 'pause_number')
ON CONFLICT (provider, code, subcode) DO NOTHING;
