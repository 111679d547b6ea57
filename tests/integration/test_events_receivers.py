"""Receivers of pushed events: where they may be, what is kept of their answers, whose events they get.

Tests bin/pg_whatsapp/pusher.py and outside.py as a process, with receivers on sockets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from event_sink import Got, Reply, Sink, allow_local, deliveries, drain, happen, subscribe
from harness import Database
from wa_process import KEY, wa

pytestmark = pytest.mark.slow


def test_receivers_lead_nowhere_else(db: Database) -> None:
    allow_local(db)
    with Sink() as inside, Sink(lambda got: Reply(302, (("Location", inside.url),))) as redirecting:
        redirected = subscribe(db, redirecting.url)
        happen(db)
        drain(db)
        [row] = db.query(
            "SELECT state, error FROM wa_event_deliveries WHERE subscription_id = %s", redirected.id
        )
        assert row == {"state": "waiting", "error": "HTTP 302"}
        db.query("SELECT delete_wa_event_subscription(%s)", redirected.id)

        # What was allowed once is asked again with each call.
        forbidden = subscribe(db, inside.url)
        named = subscribe(db, inside.url.replace("127.0.0.1", "localhost"))
        db.query("UPDATE wa_installations SET outside_networks = '{}'")
        happen(db)
        drain(db)
        for one in (forbidden, named):
            [row] = db.query("SELECT error FROM wa_event_deliveries WHERE subscription_id = %s", one.id)
            assert row == {"error": "the address is not allowed"}
        assert inside.connections == 0


def test_of_an_answer_the_beginning_is_kept(db: Database) -> None:
    allow_local(db)

    def answer(got: Got) -> Reply:
        return Reply(422, (), itertools.chain([b"Sorry \0\xff"], itertools.repeat(b"x" * 1000)))

    with Sink(answer) as sink:
        subscribe(db, sink.url)
        happen(db)
        drain(db)
    [row] = db.query("SELECT http_status, answer FROM wa_event_deliveries")
    assert row["http_status"] == 422
    assert row["answer"].startswith("Sorry \ufffd\ufffdxxx")
    assert len(row["answer"]) == 500


def test_certificates_are_checked_against_the_name(db: Database, tmp_path: Path) -> None:
    allow_local(db)
    db.query("UPDATE wa_installations SET outside_plain_http = false, outside_networks = '{127.0.0.0/8,::1}'")
    authority = Authority(tmp_path)
    with (
        Sink(tls=authority.server("localhost")) as right,
        Sink(tls=authority.server("another.example")) as wrong,
    ):
        urls = [sink.url.replace("127.0.0.1", "localhost") for sink in (right, wrong)]
        good, bad = (subscribe(db, url) for url in urls)
        happen(db)
        drain(db, SSL_CERT_FILE=str(authority.path))
        assert deliveries(db, good.id) == {"delivered": 1}
        [row] = db.query("SELECT error FROM wa_event_deliveries WHERE subscription_id = %s", bad.id)
        assert row["error"].startswith("certificate: Hostname mismatch")
        assert wrong.got == []


def test_each_tenant_gets_its_own_events(db: Database, make_role: Callable[..., str]) -> None:
    allow_local(db)
    [row] = db.query("SELECT current_wa_organization()::text AS a, create_wa_organization('b')::text AS b")
    with Sink() as first, Sink() as second:
        for organization, sink in ((row["a"], first), (row["b"], second)):
            subscribe(db, sink.url, "--organization", organization)
            happen(db, contacts=5, organization=organization)
        drain(db)
        for organization, sink in ((row["a"], first), (row["b"], second)):
            assert len(sink.got) == 5
            assert {got.body["organization_id"] for got in sink.got} == {organization}
    # A secret that is moved to a subscription of another tenant's opens nowhere.
    db.query(
        "UPDATE wa_event_secrets c SET ciphertext = o.ciphertext FROM wa_event_secrets o"
        " WHERE o.organization_id <> c.organization_id"
    )
    happen(db, organization=row["a"])
    drain(db)
    [failed] = db.query("SELECT last_error FROM wa_event_subscriptions WHERE organization_id = %s", row["a"])
    assert "does not open" in failed["last_error"]


def test_subscribing_says_what_is_wrong(db: Database) -> None:
    for url, said in (
        ("http://example.com/", "outside_plain_http"),
        ("https://169.254.169.254/", "not called"),
    ):
        done = wa("events", "subscribe", url, database=db, WA_SECRET_KEY=KEY)
        assert done.returncode == 1
        assert said in done.stderr
    assert wa("events", "subscribe", "https://example.com/", database=db).returncode == 1
    done = wa("events", "subscribe", "https://example.com/", "--kinds", "x", database=db, WA_SECRET_KEY=KEY)
    assert "no events of these kinds" in done.stderr
    assert db.query("SELECT * FROM wa_event_subscriptions") == []
