"""`wa secrets` against a database: what is stored, who may, and what never shows."""

from __future__ import annotations

from collections.abc import Callable

from harness import Database
from simulated import NUMBER
from wa_process import KEY, wa

VALUE = "EAAG-a-long-secret-value"


def test_a_secret_is_stored_sealed_and_listed_without_its_value(
    db: Database, make_role: Callable[..., str]
) -> None:
    admin = make_role("wa_admin")
    db.query("SELECT register_wa_phone_number(%s, '+15550783881', '102290129340398')", NUMBER)
    stored = wa(
        "secrets", "set", "access_token", "--number", NUMBER,
        database=db, user=admin, stdin=f"{VALUE}\n", WA_SECRET_KEY=KEY,
    )  # fmt: skip
    assert stored.returncode == 0, stored.stderr
    fingerprint = stored.stdout.split()[-1]
    again = wa(
        "secrets", "set", "access_token", "--from-env", "MY_TOKEN",
        database=db, user=admin, WA_SECRET_KEY=KEY, MY_TOKEN=VALUE,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stdout.split()[-1] == fingerprint
    listed = wa("secrets", "list", database=db, user=admin)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count(fingerprint) == 2
    assert NUMBER in listed.stdout
    for text in (stored.stdout, stored.stderr, listed.stdout, str(db.query("SELECT * FROM audit_log"))):
        assert VALUE not in text
    for row in db.query("SELECT ciphertext FROM wa_secrets"):
        assert VALUE.encode() not in bytes(row["ciphertext"])


def test_only_an_administrator_stores_and_lists(db: Database, make_role: Callable[..., str]) -> None:
    for group in ("wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst"):
        user = make_role(group)
        done = wa("secrets", "set", "app_secret", database=db, user=user, stdin=VALUE, WA_SECRET_KEY=KEY)
        assert done.returncode == 1
        assert "permission denied" in done.stderr
        assert VALUE not in done.stderr
        assert wa("secrets", "list", database=db, user=user).returncode == 1
    assert db.query("SELECT 1 FROM wa_secrets") == []


def test_nothing_stored_is_said(db: Database) -> None:
    assert wa("secrets", "list", database=db).stdout == "nothing stored\n"


def test_an_unset_variable_is_named(db: Database) -> None:
    done = wa(
        "secrets", "set", "app_secret", "--from-env", "NOT_SET_ANYWHERE", database=db, WA_SECRET_KEY=KEY
    )
    assert done.returncode == 1
    assert "NOT_SET_ANYWHERE" in done.stderr
