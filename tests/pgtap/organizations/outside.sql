-- Tests sql/organizations/outside.sql.
BEGIN;
SELECT plan(59);

CREATE FUNCTION pg_temp.verdict(p_url text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_detail text;
BEGIN
    PERFORM _wa_require_outside_url(p_url);
    RETURN 'good';
EXCEPTION WHEN SQLSTATE 'WA041' THEN
    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
    RETURN CASE
        WHEN v_detail ~ 'form' AND v_detail ~ 'address' THEN 'odd address'
        WHEN v_detail ~ 'address' THEN 'inside' WHEN v_detail ~ 'http,' THEN 'plain'
        WHEN v_detail ~ 'port' THEN 'port' ELSE 'malformed' END;
END
$$;

SELECT is(pg_temp.verdict(url), verdict, left(url, 60)) FROM (
    VALUES
    ('https://example.com', 'good'), ('https://example.com/', 'good'), ('https://a-b.example.co:8443/x/y?z=1&q=%20', 'good'),
    ('https://my_service.example/[1]', 'good'), ('https://93.184.216.34/hook', 'good'),
    ('https://[2606:2800:220:1::1]/hook', 'good'), ('https://localhost/hook', 'good'),
    ('http://example.com/', 'plain'), ('ftp://example.com/', 'malformed'), ('//example.com/', 'malformed'),
    ('example.com', 'malformed'), ('', 'malformed'), ('https://', 'malformed'), ('https:///x', 'malformed'),
    ('https://user@example.com/', 'malformed'), ('https://user:word@example.com/', 'malformed'),
    ('https://example.com@127.0.0.1/', 'malformed'), ('https://example.com\@127.0.0.1/', 'malformed'),
    ('https://example.com/#fragment', 'malformed'), ('https://example.com/a b', 'malformed'),
    (E'https://example.com/\n', 'malformed'), (E'https://example.com/a\nHost: b', 'malformed'),
    ('https://exämple.com/', 'malformed'), ('https://127。0。0。1/', 'malformed'), ('https://example.com./', 'malformed'),
    ('https://.example.com/', 'malformed'), ('https://exa%6dple.com/', 'malformed'), ('https://[::1', 'malformed'),
    ('https://example.com:/', 'malformed'), ('https://example.com:0/', 'port'), ('https://example.com:65536/', 'port'),
    ('https://example.com/' || repeat('a', 2000), 'malformed'),
    ('https://127.0.0.1/', 'inside'), ('https://10.1.2.3/', 'inside'), ('https://169.254.169.254/latest', 'inside'),
    ('https://0.0.0.0/', 'inside'), ('https://[::]/', 'inside'), ('https://[::1]/', 'inside'),
    ('https://[fe80::1]/', 'inside'), ('https://[fd00:ec2::254]/', 'inside'), ('https://[::ffff:127.0.0.1]/', 'inside'),
    ('https://[::ffff:7f00:1]/', 'inside'), ('https://[64:ff9b::7f00:1]/', 'inside'),
    ('https://[2002:7f00:1::]/', 'inside'), ('https://[ff02::1]/', 'inside'),
    ('https://127.1/', 'odd address'), ('https://2130706433/', 'odd address'), ('https://0x7f.1/', 'odd address'),
    ('https://0x7f000001/', 'odd address'), ('https://0177.0.0.1/', 'odd address'), ('https://127.0.0.0x1/', 'odd address'),
    ('https://1.2.3.4.5/', 'odd address'), ('https://[1.2.3.4]/', 'odd address')
) u (url, verdict);
SELECT is(pg_temp.verdict(NULL), 'malformed', 'nothing is no URL');

CREATE ROLE wa_outside_dispatcher IN ROLE wa_dispatcher;
CREATE ROLE wa_outside_app IN ROLE wa_app;
SET LOCAL ROLE wa_outside_app;
SELECT throws_ok('UPDATE wa_installations SET outside_plain_http = true', '42501', NULL,
    'an application allows itself nothing');
RESET ROLE;
UPDATE wa_installations SET outside_plain_http = true, outside_networks = '{10.0.0.0/8,64:ff9b::/96}';
SELECT results_eq(
    $$ SELECT pg_temp.verdict(u) FROM unnest('{http://example.com/,https://10.1.2.3/,https://[64:ff9b::7f00:1]/,https://127.0.0.1/}'::text[]) u $$,
    $$ VALUES ('good'), ('good'), ('good'), ('inside') $$, 'an administrator allows what is meant, and no more'
);
SELECT results_eq(
    $$ SELECT event, meta FROM audit_log WHERE event = 'outside_rules_changed' $$,
    $$ VALUES ('outside_rules_changed', '{"old": {"networks": [], "plain_http": false},
        "new": {"networks": ["10.0.0.0/8", "64:ff9b::/96"], "plain_http": true}}'::jsonb) $$,
    'which leaves a trace'
);
SET LOCAL ROLE wa_outside_dispatcher;
SELECT results_eq('SELECT allows_plain_http, allowed_networks, cardinality(refused_networks) > 20 FROM get_wa_outside_rules()',
    $$ VALUES (true, '{10.0.0.0/8,64:ff9b::/96}'::text[], true) $$, 'processes are told the rules');
RESET ROLE;
SELECT is((SELECT count(*) FROM _wa_inner_networks() n
        WHERE family(n.network) = 6 AND n.network >>= inet '2606:2800:220:1::1'), 0::bigint, 'the internet is outside');

SELECT * FROM finish();
ROLLBACK;
