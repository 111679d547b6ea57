"""The extension's functions in a server: phone numbers by both paths, wild webhooks, order of states."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import phonenumbers
import plpython_source
import psycopg
import pytest
from harness import GROUPS, Database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# The fixture only carries a connection; nothing of one example is seen by the next.
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
parse = plpython_source.load("parse_phone").make_phone_parser(phonenumbers)


@pytest.fixture
def connection(make_database: Callable[..., Database]) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database that has the extension and nothing else."""
    database = make_database(bare=True)
    with database.connect() as made:
        made.execute("CREATE EXTENSION pg_whatsapp CASCADE")
        yield made


def test_the_fast_path_gives_what_the_library_gives(connection: psycopg.Connection[Any]) -> None:
    """Every prefix of the fast path's list, many numbers of each, and numbers that just miss it."""
    (definition,) = connection.execute(
        "SELECT pg_get_functiondef('_wa_is_canonical_phone'::regproc)"
    ).fetchone() or ("",)
    prefixes = sorted(set(re.findall(r"'(\+[0-9]+)'", definition)))
    assert len(prefixes) > 100
    chance = random.Random(7)  # noqa: S311  the same numbers at every run
    phones = {
        prefix + "".join(chance.choices("0123456789", k=length - len(prefix)))
        for prefix in prefixes
        for length in range(10, 16)
        for _ in range(40)
    }
    rows = connection.execute(
        "SELECT p, _wa_is_canonical_phone(p), try_normalize_phone_e164(p),"
        " (_wa_parse_phone(p, 'AR', NULL)).e164 FROM unnest(%s::text[]) AS p",
        [sorted(phones)],
    ).fetchall()
    assert [phone for phone, canonical, _, slow in rows if canonical and slow != phone] == []
    assert [phone for phone, _, result, slow in rows if result != slow] == []
    assert sum(canonical for _, canonical, _, _ in rows) > 3000


def test_the_server_reads_numbers_as_the_source_does(connection: psycopg.Connection[Any]) -> None:
    cases = [("11 1234-5678", "AR", None), ("15 512-3456", "AR", "221"), ("(415) 555-2671", None, None)]
    for case in cases:
        row = connection.execute("SELECT * FROM _wa_parse_phone(%s, %s, %s)", case).fetchone()
        assert row == parse(*case)
    version = connection.execute("SELECT wa_phonenumbers_version()").fetchone()
    assert version == (phonenumbers.__version__,)


# wa_api itself only looks at keys; what is asked runs as their roles.
@pytest.mark.parametrize("group", [group for group in GROUPS if group != "wa_api"])
def test_every_group_may_normalise(
    make_database: Callable[..., Database], make_role: Callable[..., str], group: str
) -> None:
    database = make_database(bare=True)
    with database.connect() as superuser:
        superuser.execute('CREATE SCHEMA "Odd name"')
        superuser.execute('CREATE EXTENSION pg_whatsapp SCHEMA "Odd name" CASCADE')
        superuser.execute('GRANT USAGE ON SCHEMA "Odd name" TO PUBLIC')
    call = """SELECT "Odd name".normalize_phone_e164('11 1234-5678', 'AR')"""
    assert database.query(call, user=make_role(group)) == [{"normalize_phone_e164": "+5491112345678"}]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.query(call, user=make_role())


wild_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
wild_atoms = st.dictionaries(st.sampled_from(["id", "type", "from", "status", "x\0"]), wild_json) | wild_json


@shared
@given(
    st.lists(wild_atoms, max_size=4), wild_json, wild_json, st.sampled_from(["messages", "statuses", "polls"])
)
def test_no_body_makes_the_splitter_raise(
    connection: psycopg.Connection[Any], atoms: list[Any], number: Any, time: Any, key: str
) -> None:
    value = {key: atoms, "metadata": {"phone_number_id": number}, "contacts": atoms}
    raw = json.dumps(
        {"entry": [{"id": number, "time": time, "changes": [{"field": number, "value": value}]}]}
    )
    rows = connection.execute(
        "SELECT log_id, count(*) FROM _wa_split_webhooks(ARRAY[1, 2], ARRAY[%s, %s])"
        " GROUP BY log_id ORDER BY log_id",
        [raw.encode(), b"no json"],
    ).fetchall()
    assert rows[-1] == (2, 1)


@shared
@given(st.binary())
def test_no_bytes_make_the_splitter_raise(connection: psycopg.Connection[Any], raw: bytes) -> None:
    assert connection.execute("SELECT kind FROM _wa_split_webhook(%s)", [raw]).fetchall()


STATES = ("queued", "accepted", "held", "sent", "failed", "delivered", "read", "played")


def test_the_last_state_does_not_depend_on_the_order_of_arrival(connection: psycopg.Connection[Any]) -> None:
    ranks = dict(
        connection.execute(
            "SELECT s, _wa_status_rank(s) FROM unnest(%s::text[]) AS s", [list(STATES)]
        ).fetchall()
    )

    def outcome(states: tuple[str, ...]) -> int:
        current = ranks["queued"]
        for state in states:
            current = max(current, ranks[state])
        return int(current)

    for wanted, states in [
        ("read", ("sent", "delivered", "read")),
        ("delivered", ("sent", "failed", "delivered")),
        ("failed", ("accepted", "sent", "failed")),
        ("played", ("read", "failed", "played", "sent")),
    ]:
        assert {outcome(order) for order in permutations(states + states[:1])} == {ranks[wanted]}
    assert ranks["accepted"] == ranks["held"]
    assert list(dict.fromkeys(sorted(ranks.values()))) == list(range(1, 8))
