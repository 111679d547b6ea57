"""A signature speaks for its owner only: whose secret signed a webhook decides of whom it is believed.

Tests sql/webhooks/signers.sql, sql/webhooks/store.sql.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest
from harness import Database
from simulated import wait_until
from test_serve import Serving, serve, signature
from wa_process import KEY, wa
from webhook_bodies import body, message, value

__all__ = ["serve"]
ENVIRONMENT = "00000000-0000-0000-0000-000000000000"
CUSTOMER = "5491140000001"


class Tenants:
    """The default organization with number 100 of account 200, and B with number 300 of account 400."""

    def __init__(self, db: Database) -> None:
        self.db = db
        [row] = db.query(
            "SELECT current_wa_organization()::text AS a, create_wa_organization('b')::text AS b"
        )
        self.a, self.b = row["a"], row["b"]
        for org, number, account in ((self.a, "100", "200"), (self.b, "300", "400"), (self.b, "301", "401")):
            with db.connect() as session:
                session.execute("SELECT set_config('wa.organization_id', %s, false)", (org,))
                session.execute(
                    "SELECT register_wa_phone_number(%s, '+1 555 123 4567', %s)", (number, account)
                )

    def secret(self, org: str, number: str | None = None, mark: str | None = None) -> str:
        with self.db.connect() as session:
            session.execute("SELECT set_config('wa.organization_id', %s, false)", (org,))
            row = session.execute(
                "SELECT set_wa_secret('app_secret', %s, %s, 'key', %s)::text",
                (number, b"x" * 40, mark or f"mark of {org} {number}"),
            ).fetchone()
        assert row is not None
        return str(row[0])

    def take(self, signers: list[str] | None, *bodies: bytes) -> list[tuple[str | None, str]]:
        """Store and process bodies; what was refused of them: SQLSTATE and kind."""
        signed_by = None if signers is None else ["{" + ",".join(signers) + "}"] * len(bodies)
        self.db.query(
            "SELECT ingest_wa_webhooks(%s::bytea[], NULL, 'meta', %s::text[])", list(bodies), signed_by
        )
        self.db.query("SELECT process_wa_webhooks()")
        return self.refused()

    def refused(self) -> list[tuple[str | None, str]]:
        rows = self.db.query(
            "SELECT sqlstate, kind FROM wa_webhook_errors WHERE resolved_at IS NULL ORDER BY log_id, atom"
        )
        return [(row["sqlstate"], row["kind"]) for row in rows]

    def messages(self) -> list[str]:
        rows = self.db.query("SELECT wa_message_id AS m FROM wa_messages ORDER BY 1")
        return [row["m"] for row in rows]


@pytest.fixture
def tenants(db: Database) -> Tenants:
    return Tenants(db)


def stop(number: str, wamid: str = "wamid.1") -> bytes:
    return message(wamid, CUSTOMER, int(time.time()), content="STOP", number=number)


def test_a_tenants_secret_says_nothing_of_anothers_number(tenants: Tenants) -> None:
    of_a, of_b = tenants.secret(tenants.a), tenants.secret(tenants.b)
    template = body(
        "message_template_status_update",
        {"event": "DISABLED", "message_template_name": "hello", "message_template_language": "en_US",
         "message_template_id": 1},
        account="400",
    )  # fmt: skip
    assert tenants.take([of_a], stop("300"), template) == [("WA503", "message"), ("WA503", "account")]
    assert tenants.messages() == []
    assert tenants.db.query("SELECT 1 FROM wa_opt_outs UNION ALL SELECT 1 FROM wa_account_events") == []
    [audited] = tenants.db.query(
        "SELECT organization_id::text AS org, sum(n)::integer AS count FROM ("
        " SELECT organization_id, (meta ->> 'count')::bigint AS n FROM audit_log"
        " WHERE event = 'webhook_rejected'"
        " UNION ALL SELECT organization_id, further FROM wa_audit_counts) AS r GROUP BY 1"
    )
    assert audited == {"org": tenants.b, "count": 2}
    # Its own go on, in the same batch and in the same body.
    mixed = b'{"object": "whatsapp_business_account", "entry": [%s, %s]}' % (
        entry(stop("300", "wamid.2")),
        entry(stop("100", "wamid.3")),
    )
    assert tenants.take([of_a], mixed)[2:] == [("WA503", "message")]
    assert tenants.take([of_b], stop("300", "wamid.4"))[3:] == []
    assert tenants.messages() == ["wamid.3", "wamid.4"]


def entry(one: bytes) -> bytes:
    return one[one.index(b'"entry": [') + len(b'"entry": [') : -2]


def test_the_environments_secret_is_the_default_organizations(tenants: Tenants) -> None:
    assert tenants.take([ENVIRONMENT], stop("100", "wamid.1"), stop("300", "wamid.2")) == [
        ("WA503", "message")
    ]
    assert tenants.messages() == ["wamid.1"]


def test_a_numbers_secret_speaks_for_its_business_account(tenants: Tenants) -> None:
    of_300 = tenants.secret(tenants.b, "300")
    assert tenants.take([of_300], stop("300", "wamid.1"), stop("301", "wamid.2")) == [("WA503", "message")]
    # The account that a body claims for a number changes nothing.
    forged = body("messages", value("301", messages=[]), account="400").replace(
        b'"messages": []',
        b'"messages": [{"id": "wamid.3", "from": "1", "type": "text", "text": {"body": "x"}}]',
    )
    assert ("WA503", "message") in tenants.take([of_300], forged)[1:]
    assert tenants.messages() == ["wamid.1"]


def test_what_was_refused_is_taken_once_the_app_is_shared(tenants: Tenants) -> None:
    assert tenants.take([ENVIRONMENT], stop("300")) == [("WA503", "message")]
    assert [row["phone_number_id"] for row in tenants.db.query("SELECT * FROM get_wa_unheard_numbers()")] == [
        "300",
        "301",
    ]
    tenants.db.query("SELECT share_wa_app(%s)", tenants.a)
    assert tenants.db.query("SELECT * FROM get_wa_unheard_numbers()") == []
    tenants.db.query("SELECT replay_wa_webhooks()")
    assert tenants.refused() == []
    assert tenants.messages() == ["wamid.1"]
    assert tenants.db.query("SELECT 1 FROM wa_opt_outs")
    tenants.db.query("SELECT unshare_wa_app(%s)", tenants.a)
    assert tenants.take([ENVIRONMENT], stop("300", "wamid.2")) == [("WA503", "message")]
    tenants.db.query("SELECT share_wa_app(%s, %s)", tenants.a, tenants.b)
    assert tenants.take([ENVIRONMENT], stop("300", "wamid.3"))[1:] == []


def test_who_stores_the_same_secret_is_spoken_for(tenants: Tenants) -> None:
    of_a = tenants.secret(tenants.a, mark="same")
    assert tenants.take([of_a], stop("300")) == [("WA503", "message")]
    tenants.secret(tenants.b, mark="same")
    tenants.db.query("SELECT replay_wa_webhooks()")
    assert tenants.refused() == []


def test_what_was_stored_without_a_look_is_taken_at_its_word(tenants: Tenants) -> None:
    assert tenants.take(None, stop("100", "wamid.1"), stop("300", "wamid.2")) == []


def test_sharing_names_organizations_that_there_are(tenants: Tenants) -> None:
    with pytest.raises(psycopg.Error) as raised:
        tenants.db.query("SELECT share_wa_app(%s)", ENVIRONMENT)
    assert raised.value.sqlstate == "WA302"


def test_a_receiver_remembers_whose_secret_it_was(
    db: Database, serve: Callable[..., Serving], make_role: Callable[..., str]
) -> None:
    tenants = Tenants(db)
    admin = make_role("wa_admin")
    for org, secret in (
        (tenants.a, "of a"),
        (tenants.b, "of b"),
        (tenants.b, "of all"),
        (tenants.a, "of all"),
    ):
        more = ["--keep-previous"]
        done = wa(
            "secrets", "set", "app_secret", *more, database=db, user=admin, stdin=secret, WA_SECRET_KEY=KEY,
            PGOPTIONS=f"-c wa.organization_id={org}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    serving = serve(db, make_role("wa_receiver"), WA_SECRET_KEY=KEY, WHATSAPP_APP_SECRET="of the environment")

    def post(secret: str, number: str, wamid: str) -> int:
        one = stop(number, wamid)
        return serving.post(one, signature(one, secret)).status_code

    cases: list[tuple[str, str, bool]] = [
        ("of a", "100", True), ("of a", "300", False), ("of b", "300", True), ("of b", "100", False),
        ("of all", "100", True), ("of all", "300", True), ("of the environment", "100", True),
        ("of the environment", "300", False),
    ]  # fmt: skip
    for n, (secret, number, _) in enumerate(cases):
        wait_until(lambda secret=secret, number=number, n=n: post(secret, number, f"wamid.{n}") == 200)
    wait_until(lambda: not db.query("SELECT 1 FROM wa_webhook_logs WHERE status = 'pending'"))
    assert tenants.messages() == [f"wamid.{n}" for n, (*_, is_taken) in enumerate(cases) if is_taken]
