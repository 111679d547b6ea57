-- 360dialog, which takes and tells what the Cloud API does, at other paths: it knows the number by its key.

INSERT INTO wa_providers (name, send_path, upload_path, media_path, errors_of, features, number_calls) VALUES
('360dialog', '/messages', '/media', '/{media}', 'meta', '{receipts,templates}', '{
    "webhook_of_number": {"path": "/v1/configs/webhook", "body": {"url": "{url}"},
        "secrets": [{"name": "webhook_header", "at": ["headers"], "form": "header"}]},
    "profile": {"path": "/whatsapp_business_profile"},
    "block": {"path": "/block_users"}
}')
ON CONFLICT (name) DO UPDATE SET
send_path = excluded.send_path, upload_path = excluded.upload_path, media_path = excluded.media_path,
errors_of = excluded.errors_of, features = excluded.features,
number_calls = excluded.number_calls;
