"""The audit log's chain: under many writers, computed by another program, against whoever owns the tables."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Database
from wa_process import KEY, wa

WRITERS = 16
ROWS = 40


def findings(db: Database) -> list[tuple[Any, ...]]:
    return [
        (row["problem"], row["position"], row["audit_id"])
        for row in db.query("SELECT * FROM verify_wa_audit_log()")
    ]


def seal(db: Database) -> None:
    while db.query("SELECT seal_wa_audit_log() AS n")[0]["n"]:
        pass


# -- many writers


def test_sixteen_writers_with_rollbacks_and_long_transactions(db: Database) -> None:
    """What is committed is sealed once, what is not never; and nothing before what it was written after."""
    other = db.query("SELECT create_wa_organization('other')::text AS id")[0]["id"]
    [default] = db.query("SELECT id::text FROM wa_organizations WHERE is_default")
    orgs = (default["id"], other)
    done = threading.Event()
    committed: list[list[tuple[str, int]]] = [[] for _ in range(WRITERS)]
    failed: list[BaseException] = []

    def write(n: int) -> None:
        chance = random.Random(n)  # noqa: S311
        with db.connect(autocommit=False) as connection:
            for i in range(ROWS):
                org = chance.choice(orgs)
                rows = []
                for _ in range(chance.choice((1, 1, 3))):
                    (row,) = connection.execute(
                        "INSERT INTO audit_log (organization_id, event, meta) VALUES (%s, 'w', %s)"
                        " RETURNING id",
                        (org, json.dumps({"n": n, "i": i})),
                    ).fetchall()
                    rows.append((org, row[0]))
                # One in four stays open while many others come and go.
                if n % 4 == 0 and i % 10 == 0:
                    connection.execute("SELECT pg_sleep(0.1)")
                if chance.random() < 0.3:
                    connection.rollback()
                else:
                    connection.commit()
                    committed[n] += rows

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    def keep_sealing() -> None:
        with db.connect() as connection:
            while not done.is_set():
                connection.execute("SELECT seal_wa_audit_log(37)")
                assert connection.execute("SELECT * FROM verify_wa_audit_log()").fetchall() == []

    # One that was begun before all the others and ends after them.
    with db.connect(autocommit=False) as late:
        (first,) = late.execute(
            "INSERT INTO audit_log (organization_id, event) VALUES (%s, 'late') RETURNING id", (other,)
        ).fetchall()
        sealers = [threading.Thread(target=run, args=(keep_sealing,)) for _ in range(2)]
        writers = [threading.Thread(target=run, args=(lambda n=n: write(n),)) for n in range(WRITERS)]
        for thread in sealers + writers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in sealers:
            thread.join()
        assert failed == []
        seal(db)
        # Nobody waits for it.
        assert db.query("SELECT count(*) AS n FROM wa_audit_unsealed") == [{"n": 0}]
        late.commit()
    seal(db)
    assert findings(db) == []
    sealed = db.query(
        "SELECT s.organization_id::text AS org, s.position, s.audit_id, a.meta FROM wa_audit_seals s"
        " JOIN audit_log a USING (organization_id) WHERE a.id = s.audit_id AND a.event IN ('w', 'late')"
        " ORDER BY s.position"
    )
    expected = sorted([one for rows in committed for one in rows] + [(other, first[0])])
    assert sorted((row["org"], row["audit_id"]) for row in sealed) == expected
    assert [row for row in sealed if row["org"] == other][-1]["audit_id"] == first[0]
    for org in orgs:
        positions = db.query("SELECT position FROM wa_audit_seals WHERE organization_id = %s ORDER BY 1", org)
        assert [row["position"] for row in positions] == list(range(1, len(positions) + 1))
        # Of each writer, who writes one after the other, in its order.
        for rows in committed:
            mine = {i for o, i in rows if o == org}
            order = [r["audit_id"] for r in sealed if r["org"] == org and r["audit_id"] in mine]
            assert order == sorted(mine)


def test_a_writer_waits_for_no_sealer_and_no_other_writer(db: Database) -> None:
    db.query("INSERT INTO audit_log (event) VALUES ('x')")
    with db.connect(autocommit=False) as sealer, db.connect(autocommit=False) as one, db.connect() as two:
        sealer.execute("SELECT seal_wa_audit_log()")
        for connection in (one, two):
            connection.execute("SET lock_timeout = '1ms'")
            connection.execute("INSERT INTO audit_log (event) VALUES ('y')")
        # A second sealer passes on: waiting would be noted as a fault of the organization.
        two.execute("SELECT seal_wa_audit_log()")
        assert db.query("SELECT work, sqlstate FROM wa_faults") == []
        one.commit()
        sealer.commit()
    seal(db)
    assert findings(db) == []


# -- by another program


def netstring(text: str | None) -> bytes:
    raw = None if text is None else text.encode()
    return b"-," if raw is None else str(len(raw)).encode() + b":" + raw + b","


def copied(db: Database, table: str) -> list[dict[str, str | None]]:
    """A table as COPY gives it, with the settings of somebody else."""
    with db.connect() as connection:
        connection.execute("SET DateStyle = ISO; SET TimeZone = 'UTC'; SET bytea_output = hex")
        names = [
            name
            for (name,) in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                " AND NOT attisdropped ORDER BY attnum",
                (table,),
            )
        ]
        with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:  # type: ignore[arg-type]
            return [dict(zip(names, row, strict=True)) for row in copy.rows()]


def microseconds(at: str) -> str:
    from datetime import UTC, datetime

    since = datetime.fromisoformat(at) - datetime(1970, 1, 1, tzinfo=UTC)
    return str((since.days * 86400 + since.seconds) * 1000000 + since.microseconds)


def members(meta: str) -> dict[str, str]:
    """The members of an object with the text that jsonb prints for each, which is what is hashed."""
    found, decoder, at = {}, json.JSONDecoder(parse_float=Decimal), 1
    while meta[at] != "}":
        key, at = decoder.raw_decode(meta, at)
        at += 2
        _, end = decoder.raw_decode(meta, at)
        found[key] = meta[at:end]
        at = end + 2 if meta[end] == "," else end
    return found


def leaf(row: dict[str, Any], seal: dict[str, Any]) -> bytes:
    fields = {n: row[n] for n in ("actor", "entity_id", "client_address") if row[n] is not None}
    if row["meta"].startswith("{"):
        fields |= {f"meta.{key}": value for key, value in members(row["meta"]).items()}
    else:
        fields["meta"] = row["meta"]
    salts = json.loads(seal["field_salts"])
    digests = json.loads(seal["erased"])
    for name, value in fields.items():
        if name in salts:
            salt = bytes.fromhex(salts[name])
        elif seal["salt"] is not None:
            salt = sha256(bytes.fromhex(seal["salt"][2:]) + name.encode()).digest()
        else:
            assert value == "erased"
            continue
        digests.append(sha256(salt + netstring(name) + value.encode()).hexdigest())
    text = b"".join(
        netstring(value)
        for value in (
            "pg_whatsapp audit 1", row["organization_id"], row["id"], microseconds(row["created_at"]),
            row["event"], row["entity"], row["session_role"], row["database_role"], *sorted(digests),
        )
    )  # fmt: skip
    return sha256(text).digest()


def test_another_program_computes_the_same(db: Database) -> None:
    metas = [
        {},
        {"a": 1, "b": [None, True, {"c": "é\n\"\\😀"}], "zz": 0.10, "Z": "x", "é": 1e30, "erased": "erased"},
        [1, 2], "text", 5, {"phone": "+5491150001111", "who": "Ann", "list": ["+5491150001111"]},
    ]  # fmt: skip
    for i, meta in enumerate(metas):
        db.query(
            "INSERT INTO audit_log (actor, event, entity, entity_id, meta) VALUES (%s, %s, %s, %s, %s)",
            *(f"actor {i}\t", f"line\nbreak {i}", None if i % 2 else "1:x,", "" if i % 3 else None),
            json.dumps(meta),
        )
    seal(db)
    [org] = db.query("SELECT id FROM wa_organizations")
    db.query("SELECT _wa_audit_forget(%s, ARRAY['+5491150001111'])", org["id"])
    seal(db)
    assert findings(db) == []
    rows = {row["id"]: row for row in copied(db, "audit_log")}
    seals = sorted(copied(db, "wa_audit_seals"), key=lambda one: int(one["position"] or 0))
    assert len(seals) == len(rows) >= len(metas)
    assert [one for one in seals if one["erased"] != "[]"]
    chain = bytes(32)
    for one in seals:
        found = leaf(rows[one["audit_id"]], one)
        chain = sha256(chain + int(one["position"] or 0).to_bytes(8, "big") + found).digest()
        assert "\\x" + found.hex() == one["leaf"]
        assert "\\x" + chain.hex() == one["hash"]
    [head] = db.query("SELECT hash FROM get_wa_audit_health()")
    assert head["hash"] == chain.hex()


# -- anchors


def anchor(db: Database, *arguments: str, **env: str) -> Any:
    return wa("audit", *arguments, database=db, **({"WA_SECRET_KEY": KEY} | env))


def test_an_anchor_finds_what_the_owner_made_to_fit(db: Database, tmp_path: Path) -> None:
    """The whole chain made anew, which nothing inside of the database can tell from the true one."""
    file = tmp_path / "anchors"
    db.query("INSERT INTO audit_log (event, actor) SELECT 'e' || i, 'me' FROM generate_series(1, 5) i")
    assert anchor(db, "anchor", "--file", str(file)).returncode == 0
    printed = anchor(db, "anchor")
    assert printed.returncode == 0
    file.write_text(file.read_text() + printed.stdout)
    well = anchor(db, "verify", "--anchor", str(file))
    assert (well.returncode, "2 anchors fit" in well.stdout) == (0, True), well.stderr
    db.query("UPDATE audit_log SET actor = 'another' WHERE event = 'e3'")
    changed = anchor(db, "verify")
    assert (changed.returncode, "changed" in changed.stdout) == (1, True)
    db.query("DELETE FROM wa_audit_seals")
    db.query("DELETE FROM wa_audit_heads")
    db.query("INSERT INTO wa_audit_unsealed SELECT organization_id, id FROM audit_log")
    seal(db)
    assert anchor(db, "verify").returncode == 0
    found = anchor(db, "verify", "--anchor", str(file))
    assert found.returncode == 1
    assert "the chain has another hash at the position of the anchor" in found.stdout


def test_only_anchors_of_a_trusted_key_count(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "anchors"
    db.query("INSERT INTO audit_log (event) VALUES ('x')")
    file.write_text(anchor(db, "anchor").stdout)
    line = json.loads(file.read_text())
    assert anchor(db, "public-key").stdout.strip() == line["public_key"]
    other = "ff" * 32
    assert "not trusted" in anchor(db, "verify", "--anchor", str(file), WA_SECRET_KEY=other).stderr
    # After the master key was changed: with the older one at hand, or its public key.
    for env, arguments in (
        ({"WA_SECRET_KEY": f"{other} {KEY}"}, ()),
        ({"WA_SECRET_KEY": other}, ("--public-key", line["public_key"].upper())),
        ({"WA_SECRET_KEY": ""}, ("--public-key", line["public_key"])),
    ):
        assert anchor(db, "verify", "--anchor", str(file), *arguments, **env).returncode == 0
    line["heads"][0]["position"] += 1
    for text, why in (
        (json.dumps(line), "its signature does not fit"),
        ("{}", "is no anchor"),
        ("nonsense", "is no anchor"),
        ("\n", "holds no anchor"),
    ):
        file.write_text(text)
        refused = anchor(db, "verify", "--anchor", str(file))
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr


def test_a_copy_that_takes_over_says_where_it_was_taken(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "anchors"
    db.query("SELECT adopt_wa_database('keep')")
    db.query("INSERT INTO audit_log (event) SELECT 'e' || i FROM generate_series(1, 5) i")
    seal(db)
    [taken] = db.query("SELECT position FROM get_wa_audit_health()")
    # What came after the copy was taken, and stands in the anchor.
    with db.connect(autocommit=False) as after:
        after.execute("INSERT INTO audit_log (event) VALUES ('lost')")
        after.execute("SELECT seal_wa_audit_log()")
        (head,) = after.execute(
            "SELECT jsonb_build_object('organization_id', organization_id, 'position', position,"
            " 'hash', hash) FROM get_wa_audit_health()"
        ).fetchall()
        after.rollback()
    db.query("UPDATE wa_installations SET system_identifier = '1'")
    db.query("SELECT adopt_wa_database('keep')")
    seal(db)
    [row] = db.query("SELECT meta FROM audit_log WHERE event = 'database_adopted' ORDER BY id DESC LIMIT 1")
    assert row["meta"]["from"]["system_identifier"] == "1"
    assert row["meta"]["sealed_position"] == taken["position"]
    assert findings(db) == []
    [found] = db.query("SELECT * FROM verify_wa_audit_log(%s)", json.dumps([head[0]]))
    assert found["problem"] == "restored"
    file.write_text(anchor(db, "anchor").stdout)
    assert anchor(db, "verify", "--anchor", str(file)).returncode == 0


# -- who may


def test_nobody_but_the_owner_gets_at_the_chain(db: Database, make_role: Callable[..., str]) -> None:
    db.query("INSERT INTO audit_log (event) VALUES ('x')")
    seal(db)
    for group in ("wa_admin", "wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst", "wa_api"):
        with db.connect(user=make_role(group)) as session:
            for table in (
                "audit_log", "wa_audit_seals", "wa_audit_heads", "wa_audit_unsealed", "wa_audit_counts",
            ):  # fmt: skip
                for statement in ("UPDATE {} SET organization_id = NULL", "DELETE FROM {}", "TRUNCATE {}"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        session.execute(statement.format(table))  # type: ignore[arg-type]
                if table != "audit_log":
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        session.execute(f"INSERT INTO {table} DEFAULT VALUES")  # type: ignore[arg-type]
            for call in (
                "SELECT _wa_audit_forget(NULL, '{x}')", "SELECT _wa_seal_audit(NULL, 1, true)",
                "SELECT _wa_delete_audit(now(), 1)", "ALTER TABLE audit_log DISABLE TRIGGER keep",
            ):  # fmt: skip
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(call)  # type: ignore[arg-type]
    assert findings(db) == []


def test_a_tenant_verifies_its_own_and_learns_of_no_other(
    db: Database, make_role: Callable[..., str]
) -> None:
    other = db.query("SELECT create_wa_organization('other')::text AS id")[0]["id"]
    role = make_role("wa_app")
    db.query("SELECT add_wa_organization_role(%s, %s)", other, role)
    db.query("INSERT INTO audit_log (organization_id, event) SELECT id, 'x' FROM wa_organizations")
    seal(db)
    heads = db.query("SELECT organization_id::text, position, repeat('0', 64) AS hash FROM wa_audit_heads")
    db.query("UPDATE audit_log SET event = 'y' WHERE event = 'x'")
    own = db.query("SELECT * FROM verify_wa_audit_log(%s)", json.dumps(heads), user=role)
    assert {str(row["organization_id"]) for row in own} == {other}
    assert {row["problem"] for row in own} == {"changed"}
    assert len(db.query("SELECT * FROM get_wa_audit_health()", user=role)) == 1


def test_nothing_of_the_clients_setting_is_believed(db: Database, make_role: Callable[..., str]) -> None:
    with db.connect(user=make_role("wa_app")) as session:
        session.execute("SET wa.client_address = '192.0.2.1'")
        session.execute("SET wa.caller = 'key:of another'")
        session.execute("INSERT INTO audit_log (event) VALUES ('x')")
    [row] = db.query("SELECT client_address, meta FROM audit_log WHERE event = 'x'")
    assert row["client_address"] != "192.0.2.1"
    assert "caller" not in row["meta"]


def test_a_row_written_into_the_gap_of_identities_is_found_out(db: Database) -> None:
    """Only the owner may name an id, and a seal cannot be made for it."""
    db.query("INSERT INTO audit_log (event) VALUES ('x'), ('y')")
    seal(db)
    db.query("ALTER TABLE audit_log DISABLE TRIGGER ALL")
    db.query("INSERT INTO audit_log (id, event) OVERRIDING SYSTEM VALUE VALUES (-1, 'forged')")
    assert findings(db) == [("added", None, -1)]
