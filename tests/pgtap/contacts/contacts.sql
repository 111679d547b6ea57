-- Tests sql/contacts/contacts.sql, sql/contacts/joins.sql.
BEGIN;
SELECT plan(19);

CREATE FUNCTION pg_temp.seen(p_phone text, p_user_id text, p_at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE sql AS $$
    SELECT r.contact_id FROM wa_organizations o
    CROSS JOIN LATERAL _wa_resolve_contacts(o.id, ARRAY[p_phone], ARRAY[p_user_id], 'test', ARRAY[p_at]) r
$$;
CREATE FUNCTION pg_temp.found(p_recipient text) RETURNS bigint
LANGUAGE sql AS $$ SELECT _wa_find_contact(o.id, p_recipient) FROM wa_organizations o $$;

SELECT is(
    pg_temp.seen('+551187654321', NULL), pg_temp.seen('+5511987654321', NULL),
        'Brazil''s ninth digit: one contact'
);
SELECT is(pg_temp.seen('+541151234567', NULL), pg_temp.seen('+5491151234567', NULL),
    'Argentina''s 9: one contact');
SELECT is(pg_temp.seen('+5215512345678', NULL), pg_temp.seen('+525512345678', NULL),
    'Mexico''s 1: one contact');
SELECT is(pg_temp.seen('+999123', NULL), pg_temp.found('+999123'),
    'an id is not refused because no plan knows it');
SELECT is(pg_temp.found('+15550000000'), NULL, 'nobody has that number');

SELECT isnt(pg_temp.seen(NULL, 'US.1'), pg_temp.seen('+15551110001', NULL), 'two customers,
    as far as is known');
SELECT is(pg_temp.seen('+15551110001', 'US.1'), pg_temp.found('US.1'),
    'number and user id together join them');
SELECT is(pg_temp.found('+1 555 111 0001'), pg_temp.found('US.1'), 'both find the same contact from then on');
SELECT is(
    (SELECT count(*) FROM wa_contacts WHERE 'US.1' = user_id OR phone_e164 = '+15551110001'), 1::bigint,
    'and only one is left'
);
SELECT is((SELECT count(*) FROM audit_log WHERE event = 'contact_merged'), 1::bigint,
    'the one that went is audited');

-- A person has one user id in each portfolio.
SELECT isnt(pg_temp.seen('+15551110002', 'US.21'), pg_temp.seen('+15551110002', 'US.22', now()),
    'another user id with a known number is another person''s');
INSERT INTO wa_portfolios (portfolio_id) VALUES ('one'), ('two');
SELECT is(pg_temp.seen('+15551110001', 'US.2'), pg_temp.found('US.1'),
    'unless there are several portfolios: then it joins');

-- Two people, and the number changes hands.
SELECT isnt(pg_temp.seen('+15551110003', 'US.3'), pg_temp.seen('+15551110004', 'US.4'), 'two people');
SELECT is(pg_temp.seen('+15551110003', 'US.4', now()), pg_temp.found('US.4'),
    'the number goes to the other one');
SELECT isnt(pg_temp.found('US.3'), pg_temp.found('US.4'), 'who stay two people');
SELECT is(
    pg_temp.seen('+15551110003', NULL, now() - interval '1 hour'), pg_temp.found('US.3'),
    'what was sent before belongs to the former holder'
);

SELECT _wa_learn_wa_id(o.id, ARRAY[pg_temp.seen('+15551110005', NULL)], ARRAY['+15551110005'],
    ARRAY['15551110099'])
    FROM wa_organizations o \g /dev/null
SELECT is(pg_temp.found('+15551110099'), pg_temp.found('+15551110005'),
    'the provider''s answer is a second number');
SELECT is(
    (SELECT phone_e164 FROM wa_contacts WHERE wa_id = '15551110099'), '+15551110005', 'what is dialled stays'
);
SELECT bag_eq(
    $$ SELECT r.n, r.contact_id = pg_temp.found('US.1') FROM wa_organizations o
        CROSS JOIN LATERAL _wa_resolve_contacts(
        o.id, ARRAY['+15551110001', NULL, '+15551110001', NULL], ARRAY[NULL, 'US.2', NULL, NULL],
            'test') r $$,
    $$ VALUES (1, true), (2, true), (3, true), (4, NULL) $$, 'a batch keeps its places'
);

SELECT * FROM finish();
ROLLBACK;
