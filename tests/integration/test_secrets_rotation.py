"""`wa secrets rotate`: another master key while all runs; and what a ciphertext in another row is worth.

Tests sql/subscriptions/resealing.sql.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Database
from pg_whatsapp.errors import SealError
from pg_whatsapp.secrets import SecretBox
from simulated import NUMBER, wait_until
from test_serve import Serving, message, prepare, signature
from wa_process import KEY, wa

OLD = KEY
NEW = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(OLD)
    return file


def store(db: Database, keys: Path, name: str, value: str, *arguments: str) -> None:
    done = wa("secrets", "set", name, *arguments, database=db, stdin=value, WA_SECRET_KEY_FILE=str(keys))
    assert done.returncode == 0, done.stderr


def key_ids(db: Database) -> set[str]:
    return {
        row["key_id"]
        for row in db.query("SELECT key_id FROM wa_secrets UNION SELECT key_id FROM wa_event_secrets")
    }


def rotate(db: Database, **env: str) -> Any:
    return wa("secrets", "rotate", database=db, **env)


def test_all_is_sealed_anew_and_only_the_new_key_is_needed(db: Database, keys: Path) -> None:
    prepare(db)
    for name in ("access_token", "app_secret", "verify_token"):
        store(db, keys, name, f"first-{name}")
        store(db, keys, name, f"value-{name}", "--number", NUMBER)
    store(db, keys, "app_secret", "second-app_secret")
    done = wa("events", "subscribe", "https://example.org/x", database=db, WA_SECRET_KEY_FILE=str(keys))
    assert done.returncode == 0, done.stderr
    before = key_ids(db)
    keys.write_text(f"{NEW}\n{OLD}\n")
    done = rotate(db, WA_SECRET_KEY_FILE=str(keys))
    assert (done.returncode, done.stdout) == (0, "sealed anew: 8\n"), done.stderr
    assert len(key_ids(db)) == 1
    assert key_ids(db).isdisjoint(before)
    # Again, there is nothing to do; nor is the old key needed any more.
    assert rotate(db, WA_SECRET_KEY=NEW).stdout == "sealed anew: 0\n"
    box = SecretBox([base64.b64decode(NEW)])
    opened = {
        box.open(*row.values())
        for row in db.query(
            "SELECT organization_id::text, name, phone_number_id, ciphertext, key_id FROM wa_secrets"
        )
    }
    assert opened == {
        *(f"{n}-{s}" for n in ("first", "value") for s in ("access_token", "app_secret", "verify_token")),
        "second-app_secret",
    }
    # Who did it, from which fingerprint to which, and no value.
    audited = db.query("SELECT meta, session_role FROM audit_log WHERE event = 'setting_changed'")
    changes = [row for row in audited if "fingerprint" in row["meta"]["new"]]
    assert len(changes) == 8
    assert all(row["meta"]["old"]["fingerprint"] != row["meta"]["new"]["fingerprint"] for row in changes)
    assert not [value for value in opened if value in str(audited)]


def test_what_does_not_open_stays_and_is_named(db: Database, keys: Path) -> None:
    prepare(db)
    store(db, keys, "app_secret", "of-the-old")
    keys.write_text(base64.b64encode(os.urandom(32)).decode())
    store(db, keys, "verify_token", "of-a-lost-one")
    lost = db.query("SELECT ciphertext FROM wa_secrets WHERE name = 'verify_token'")
    done = rotate(db, WA_SECRET_KEY=f"{NEW}\n{OLD}")
    assert (done.returncode, done.stdout) == (1, "sealed anew: 1\n")
    assert "left as it is: verify_token" in done.stderr
    assert "1 stored secrets do not open" in done.stderr
    assert db.query("SELECT ciphertext FROM wa_secrets WHERE name = 'verify_token'") == lost


def test_it_can_be_stopped_anywhere_and_repeated(db: Database, keys: Path) -> None:
    prepare(db)
    for i in range(5):
        store(db, keys, "app_secret", f"value-{i}", "--number", f"10{i}")
    # The third is not let go through: the transaction of each is its own.
    db.query(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.phone_number_id = '103' THEN RAISE 'stopped here'; END IF; RETURN NEW; END $$"
    )
    db.query("CREATE TRIGGER stop BEFORE UPDATE ON wa_secrets FOR EACH ROW EXECUTE FUNCTION stop()")
    assert rotate(db, WA_SECRET_KEY=f"{NEW} {OLD}").returncode == 1
    assert len(key_ids(db)) == 2
    # Everything opens meanwhile, for those who have both keys.
    box = SecretBox([base64.b64decode(NEW), bytes.fromhex(OLD)])
    rows = "SELECT organization_id::text, name, phone_number_id, ciphertext, key_id FROM wa_secrets"
    assert {box.open(*row.values()) for row in db.query(rows)} == {f"value-{i}" for i in range(5)}
    db.query("DROP TRIGGER stop ON wa_secrets")
    assert rotate(db, WA_SECRET_KEY=f"{NEW} {OLD}").returncode == 0
    assert len(key_ids(db)) == 1


def test_what_is_set_meanwhile_stays(db: Database, keys: Path) -> None:
    prepare(db)
    store(db, keys, "app_secret", "before")
    [row] = db.query("SELECT * FROM get_wa_sealed_secrets('', 0)")
    db.query("UPDATE wa_secrets SET ciphertext = ciphertext || 'x'")
    answer = db.query(
        "SELECT reseal_wa_secret(%s, %s, %s, %s, 'k', 'f') AS done",
        *(row["organization_id"], row["secret_id"], row["ciphertext"], b"y" * 40),
    )
    assert answer == [{"done": False}]


def test_a_running_receiver_takes_the_new_key_without_a_restart(db: Database, keys: Path) -> None:
    prepare(db)
    store(db, keys, "app_secret", "one-secret")
    serving = Serving(db, WA_SECRET_KEY_FILE=str(keys))
    try:
        body = message("wamid.1")
        assert serving.post(body, signature(body, "one-secret")).status_code == 200
        keys.write_text(f"{NEW}\n{OLD}\n")
        assert rotate(db, WA_SECRET_KEY_FILE=str(keys)).returncode == 0
        keys.write_text(NEW)
        store(db, keys, "app_secret", "two-secret", "--keep-previous")
        body = message("wamid.2")
        wait_until(lambda: serving.post(body, signature(body, "two-secret")).status_code == 200)
        assert serving.post(body, signature(body, "one-secret")).status_code == 200
        assert NEW not in "".join(serving.process.raw)
    finally:
        assert serving.stop() == 0


def test_a_command_gives_the_key(db: Database, tmp_path: Path) -> None:
    command = tmp_path / "key"
    command.write_text(f"#!/bin/sh\necho {NEW}; echo nothing to show >&2")
    command.chmod(0o700)
    done = wa("secrets", "set", "app_secret", database=db, stdin="x" * 8, WA_SECRET_KEY_COMMAND=str(command))
    assert done.returncode == 0, done.stderr
    for wrong in ("/nonexistent", "false", "'", f"{command} x; false"):
        done = wa("secrets", "rotate", database=db, WA_SECRET_KEY_COMMAND=wrong)
        if wrong.startswith(str(command)):
            # No shell: what follows is an argument.
            assert done.returncode == 0
        else:
            assert (done.returncode, "WA_SECRET_KEY_COMMAND" in done.stderr) == (1, True)
        assert "nothing to show" not in done.stderr


def test_a_ciphertext_in_another_row_opens_nowhere(db: Database, keys: Path) -> None:
    prepare(db)
    store(db, keys, "access_token", "token-of-all")
    store(db, keys, "access_token", "token-of-one", "--number", NUMBER)
    store(db, keys, "app_secret", "secret-of-all")
    db.query("SELECT create_wa_organization('other', '0b0b0b0b-0000-4000-8000-000000000002')")
    box = SecretBox([bytes.fromhex(OLD)])
    rows = db.query("SELECT organization_id::text, name, phone_number_id, ciphertext, key_id FROM wa_secrets")
    places = [(r["organization_id"], r["name"], r["phone_number_id"]) for r in rows]
    places.append(("0b0b0b0b-0000-4000-8000-000000000002", "access_token", None))
    for row in rows:
        for place in places:
            if place == (row["organization_id"], row["name"], row["phone_number_id"]):
                assert box.open(*place, row["ciphertext"], row["key_id"])
            else:
                with pytest.raises(SealError):
                    box.open(*place, row["ciphertext"], row["key_id"])


def test_an_administrator_of_one_organization_is_asked_of_that_one(
    db: Database, keys: Path, make_role: Callable[..., str]
) -> None:
    prepare(db)
    store(db, keys, "app_secret", "of-the-default")
    for group in ("wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst"):
        done = wa("secrets", "rotate", database=db, user=make_role(group), WA_SECRET_KEY=f"{NEW} {OLD}")
        assert (done.returncode, "permission denied" in done.stderr) == (1, True)
    db.query("SELECT create_wa_organization('other', '0b0b0b0b-0000-4000-8000-000000000002')")
    done = wa(
        "secrets", "rotate", "--organization", "other",
        database=db, user=make_role("wa_admin"), WA_SECRET_KEY=f"{NEW} {OLD}",
    )  # fmt: skip
    assert done.stdout == "sealed anew: 0\n"
    done = wa("secrets", "rotate", database=db, user=make_role("wa_admin"), WA_SECRET_KEY=f"{NEW} {OLD}")
    assert done.stdout == "sealed anew: 1\n"
