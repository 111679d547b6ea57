-- What installations hold since 0.3.0, to be run after rows_new.sql.
UPDATE wa_installations SET outside_networks = '{10.0.0.0/8}', outside_plain_http = true;
SELECT create_wa_event_subscription('e0e0e0e0-0000-4000-8000-000000000009', 'https://example.com/hook',
    '{message,status}', decode(repeat('ab', 40), 'hex'), 'key', 'print');
SELECT test_wa_event_subscription('e0e0e0e0-0000-4000-8000-000000000009');
