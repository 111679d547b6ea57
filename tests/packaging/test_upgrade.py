"""An upgrade keeps the rows, ends where a fresh installation starts, and tells older processes.

While there is no second release, its place is taken by this source tree with changes of the kinds that a
release brings.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from copies import contents, prepare, queue, run, settings, simulator, states
from harness import CHECKOUT, Database, Server
from product import load_build
from psycopg.types.json import Jsonb
from schema_dump import schema_of
from simulated import SimulatorProcess, wait_until
from template_examples import KINDS
from wa_process import WaProcess, wa

BUILD = load_build()
CURRENT = BUILD.version_of(CHECKOUT)
ROWS = CHECKOUT / "tests/packaging/rows.sql"
#: What releases hold that were not there in the first one.
ROWS_SINCE = {"0.2.0": CHECKOUT / "tests/packaging/rows_new.sql"}
# One change of each kind that a release can bring.
TABLES = """
ALTER TABLE wa_contacts ADD COLUMN nickname text;
COMMENT ON COLUMN wa_contacts.nickname IS 'What friends say.';
CREATE INDEX wa_contacts_nickname_idx ON wa_contacts (organization_id, nickname);
CREATE TABLE wa_greetings (
    organization_id uuid NOT NULL DEFAULT current_wa_organization(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    greeting text NOT NULL,
    CONSTRAINT wa_greetings_pkey PRIMARY KEY (organization_id, id)
);
ALTER TABLE wa_greetings ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE wa_greetings IS 'What to say.';
"""
FUNCTIONS = """
CREATE OR REPLACE FUNCTION greet_wa_contact(p_id bigint) RETURNS text
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT 'Hello ' || coalesce(c.nickname, 'you') FROM wa_contacts c WHERE c.id = p_id;
END;
COMMENT ON FUNCTION greet_wa_contact(bigint) IS 'A greeting.';
REVOKE ALL ON FUNCTION greet_wa_contact(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION greet_wa_contact(bigint) TO wa_app;
GRANT SELECT ON wa_greetings TO wa_app;
"""
RULES = """
CREATE FUNCTION _wa_is_greeting(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN lower(p_text) IN ('hello', 'hi');
COMMENT ON FUNCTION _wa_is_greeting(text) IS 'Whether someone says hello.';
REVOKE ALL ON FUNCTION _wa_is_greeting(text) FROM PUBLIC;
"""


def later(part: int) -> str:
    """The version after the current one: part 1 raises the second number, part 2 the third."""
    numbers = [int(number) for number in CURRENT.split(".")]
    numbers[part] += 1
    return ".".join(map(str, [*numbers[: part + 1], *[0] * (2 - part)]))


class Releases:
    """The current release and one to come, installed side by side into a server of their own."""

    def __init__(self, root: Path, server: Server, new: str) -> None:
        self.server = server
        self.new = new
        #: What an upgrade prints of its one step.
        self.step = f"migrations/{CURRENT}--{new}.sql: migrate"
        self.extensions = next(Path(server.directory).glob("root/usr/share/postgresql/*/extension"))
        for directory in ("sql", "plpython", "migrations"):
            shutil.copytree(CHECKOUT / directory, root / directory)
        released = root / "migrations/released"
        released.mkdir(exist_ok=True)
        script = f"pg_whatsapp--{CURRENT}.sql"
        (root / "pg_whatsapp.control").write_text(f"default_version = '{CURRENT}'\n")
        if not (released / script).exists():
            (released / script).write_text(BUILD.assemble(root)[script])
        shutil.copy(released / script, self.extensions)

        (root / "sql/greetings").mkdir()
        (root / "sql/greetings/tables.sql").write_text(TABLES)
        (root / f"migrations/{CURRENT}--{new}.sql").write_text(TABLES)
        (root / "sql/greetings/greetings.sql").write_text(FUNCTIONS)
        (root / "sql/extension/greetings.sql").write_text(RULES)
        with (root / "sql/manifest").open("a") as manifest:
            manifest.write("extension/greetings.sql\ngreetings/tables.sql\ngreetings/greetings.sql\n")
        # A function that stays, with another body.
        health = root / "sql/sending/explain.sql"
        health.write_text(health.read_text().replace("no dispatcher is running", "nobody sends"))
        (root / "pg_whatsapp.control").write_text(f"default_version = '{new}'\n")
        control = self.extensions / "pg_whatsapp.control"
        control.write_text(control.read_text().replace(f"'{CURRENT}'", f"'{new}'"))
        for name, text in BUILD.assemble(root).items():
            (self.extensions / name).write_text(text)
            (self.extensions / name).chmod(0o644)

    def install(self, version: str) -> Database:
        """A database with that release."""
        database = self.server.create_database()
        with database.connect() as connection:
            connection.execute(f"CREATE EXTENSION pg_whatsapp VERSION '{version}' CASCADE")
            connection.execute("SELECT migrate_wa()")
        return database

    def upgrade(self, database: Database) -> str:
        """Bring a database to the new release; what the command printed."""
        done = wa("migrate", database=database)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def make_releases(make_server: Callable[..., Server], tmp_path: Path) -> Callable[[int], Releases]:
    """Makes the pair of releases; the new one differs in that part of the version."""
    return lambda part: Releases(tmp_path / "tree", make_server(), later(part))


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with simulator(tmp_path / "provider") as made:
        yield made


def test_an_upgrade_equals_a_fresh_installation_and_keeps_the_rows(
    make_releases: Callable[[int], Releases],
) -> None:
    releases = make_releases(1)
    upgraded = releases.install(CURRENT)
    run(upgraded.server, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", upgraded.dsn, "-f", ROWS)
    with upgraded.connect() as connection:
        before = contents(connection)
    assert before["wa_outbound_queue"]
    assert before["wa_contacts"]
    assert releases.step in releases.upgrade(upgraded)

    fresh = releases.install(releases.new)
    assert "    nickname text" in [line.rstrip(",") for line in schema_of(fresh)]
    assert schema_of(upgraded) == schema_of(fresh)

    with upgraded.connect() as connection:
        after = contents(connection)
    assert after.pop("wa_greetings") == []
    assert before.pop("wa_migrations") != after.pop("wa_migrations")
    # Its new column is empty.
    assert after.pop("wa_contacts") == [f"{row[:-1]},)" for row in before.pop("wa_contacts")]
    assert after == before
    assert {line.rpartition(": ")[2] for line in releases.upgrade(upgraded).splitlines()} == {"unchanged"}


def test_an_upgrade_that_fails_leaves_the_old_release_at_work(
    make_releases: Callable[[int], Releases], provider: SimulatorProcess
) -> None:
    releases = make_releases(2)
    database = releases.install(CURRENT)
    prepare(database)
    database.query("CREATE TABLE wa_greetings (mine text)")
    before = schema_of(database)
    done = wa("migrate", database=database)
    assert done.returncode == 1
    assert "wa_greetings" in done.stderr
    assert schema_of(database) == before
    queue(database, 1)
    assert wa("dispatch", "--drain", database=database, **settings(provider)).returncode == 0
    assert states(database) == {"sent": 1}


def test_a_dispatcher_goes_on_through_an_upgrade_of_the_third_number(
    make_releases: Callable[[int], Releases], provider: SimulatorProcess
) -> None:
    releases = make_releases(2)
    database = releases.install(CURRENT)
    prepare(database)
    queue(database, 1, 20)
    with WaProcess("dispatch", database=database, **settings(provider)) as process:
        wait_until(lambda: states(database) == {"sent": 20})
        assert releases.step in releases.upgrade(database)
        queue(database, 100, 20)
        wait_until(lambda: states(database) == {"sent": 40})
        process.signal()
        assert process.wait() == 0
    queue(database, 200)
    assert wa("dispatch", "--drain", database=database, **settings(provider)).returncode == 0
    assert states(database) == {"sent": 41}


def test_a_dispatcher_of_an_older_release_stops_and_says_why(
    make_releases: Callable[[int], Releases], provider: SimulatorProcess
) -> None:
    releases = make_releases(1)
    database = releases.install(CURRENT)
    prepare(database)
    queue(database, 1, 3)
    with WaProcess("dispatch", database=database, **settings(provider)) as process:
        wait_until(lambda: states(database) == {"sent": 3})
        assert releases.step in releases.upgrade(database)
        assert process.wait() == 1
    assert f"bin/wa is release {CURRENT}, the schema is release {releases.new}" in "".join(process.raw)
    assert "Start the newer bin/wa." in "".join(process.raw)

    queue(database, 10)
    again = wa("dispatch", "--drain", database=database, **settings(provider))
    assert again.returncode == 1
    assert f"the schema is release {releases.new}: they do not work together" in again.stderr
    assert states(database) == {"sent": 3, "pending": 1}
    report = wa("doctor", database=database, **settings(provider))
    assert report.returncode == 1
    assert "BAD  versions" in report.stdout


def test_a_newer_dispatcher_asks_for_the_upgrade(db: Database) -> None:
    db.query("SELECT adopt_wa_database()")
    with pytest.raises(Exception, match="they do not work together") as refusal:
        db.query("SELECT start_wa_dispatcher(gen_random_uuid(), 'here', 1, %s)", later(1))
    assert "bin/wa migrate" in refusal.value.diag.message_hint  # type: ignore[attr-defined]


def test_a_released_script_is_that_of_the_sources() -> None:
    """From a release on, its sources do not change until the version is raised."""
    script = CHECKOUT / f"migrations/released/pg_whatsapp--{CURRENT}.sql"
    if script.exists():
        assert script.read_text() == BUILD.assemble(CHECKOUT)[script.name]


INBOUND = """
    SELECT ingest_wa_webhook(convert_to(jsonb_build_object('object', 'whatsapp_business_account', 'entry',
        jsonb_build_array(jsonb_build_object('id', '200', 'changes', jsonb_build_array(jsonb_build_object(
            'field', 'messages', 'value', jsonb_build_object('messaging_product', 'whatsapp',
            'metadata', jsonb_build_object('display_phone_number', '15551230001', 'phone_number_id', '100'),
            'messages', jsonb_build_array(jsonb_build_object('from', %s::text, 'from_user_id', %s::text,
                'id', 'wamid.' || gen_random_uuid(), 'timestamp', '1760000000', 'type', 'text', 'text',
                jsonb_build_object('body', %s::text)))))))))::text, 'UTF8'))
"""


def test_an_upgrade_makes_one_contact_of_the_numbers_before_and_after_a_renumbering(
    make_database: Callable[..., Database], pg: Server
) -> None:
    extensions = next(Path(pg.directory).glob("root/usr/share/postgresql/*/extension"))
    shutil.copy(CHECKOUT / "migrations/released/pg_whatsapp--0.1.0.sql", extensions)
    database = make_database(bare=True)
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '0.1.0' CASCADE")
        connection.execute("SELECT migrate_wa()")
        connection.execute("SELECT register_wa_phone_number('100', '+1 555 123 0001', '200')")
        # Known by both numbers; by the former one alone; two people, as their user ids say.
        connection.execute("SELECT opt_out_wa_contact('+2250707123456', 'all')")
        for inbound in (
            ("22507123456", None, "Hello"),
            ("22997123456", None, "STOP"),
            ("22997000000", "BJ.1", "Hello"),
            ("2290197000000", "BJ.2", "Hello"),
        ):
            connection.execute(INBOUND, inbound)
        connection.execute("SELECT process_wa_webhooks()")
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE")
        connection.execute("SELECT migrate_wa()")
        keys = connection.execute("SELECT phone_key, user_id FROM wa_contacts ORDER BY 1, 2").fetchall()
        assert keys == [
            ("+2250707123456", None),
            ("+2290197000000", "BJ.2"),
            ("+2290197123456", None),
            (None, "BJ.1"),
        ]
        for phone in ("22507123456", "+225 07 07 123456", "+22997123456", "+2290197123456"):
            assert connection.execute("SELECT is_wa_opted_out(%s, 'all')", [phone]).fetchone() == (True,)
        wrote = connection.execute(
            "SELECT c.phone_key FROM wa_conversation_windows AS w"
            " JOIN wa_contacts AS c ON c.id = w.contact_id"
            " WHERE w.last_customer_message_at IS NOT NULL AND c.user_id IS NULL ORDER BY 1"
        ).fetchall()
        assert wrote == [("+2250707123456",), ("+2290197123456",)]


RELEASED = [
    version
    for script in sorted((CHECKOUT / "migrations/released").glob("pg_whatsapp--*.sql"))
    if (version := script.stem.partition("--")[2]) != CURRENT
]


@pytest.mark.parametrize("version", RELEASED)
def test_every_release_upgrades_to_a_fresh_installation_and_keeps_its_rows(
    make_database: Callable[..., Database], pg: Server, version: str
) -> None:
    extensions = next(Path(pg.directory).glob("root/usr/share/postgresql/*/extension"))
    shutil.copy(CHECKOUT / f"migrations/released/pg_whatsapp--{version}.sql", extensions)
    upgraded, fresh = make_database(bare=True), make_database(bare=True)
    with upgraded.connect() as connection:
        connection.execute(f"CREATE EXTENSION pg_whatsapp VERSION '{version}' CASCADE")
        connection.execute("SELECT migrate_wa()")
    rows = [ROWS, *(path for since, path in ROWS_SINCE.items() if since <= version)]
    for path in rows:
        run(pg, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", upgraded.dsn, "-f", path)
    with upgraded.connect() as connection:
        before = contents(connection)
        for name, kind in KINDS.items():
            connection.execute(
                "INSERT INTO wa_templates (name, category, body_text, components) VALUES (%s, %s, '', %s)",
                (f"kind {name}", kind.category, Jsonb(kind.components)),
            )
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE")
        connection.execute("SELECT migrate_wa()")
        # What follows from a template is what would follow from it today.
        stale = connection.execute(
            "SELECT t.name FROM wa_templates t WHERE to_jsonb(t) <> to_jsonb(_wa_template_derived(t))"
        ).fetchall()
        connection.execute("DELETE FROM wa_templates WHERE name LIKE 'kind %'")
        after = contents(connection)
        packs = connection.execute("SELECT DISTINCT name FROM wa_packs ORDER BY name").fetchall()
        # Files that have moved since are known by their present names.
        lost = connection.execute(
            "SELECT m.version, m.step FROM wa_migrations AS m"
            " WHERE NOT EXISTS (SELECT FROM _wa_scripts AS s WHERE s.name = m.step)"
        ).fetchall()
    assert (lost, stale) == ([], [])
    fresh.install()
    for (pack,) in packs:
        fresh.query("SELECT * FROM install_wa_pack(%s)", pack)
    assert schema_of(upgraded) == schema_of(fresh)
    assert before["wa_outbound_queue"]
    # A release may bring rules, and change what nobody else has; the others stay as an operator left them. It
    # may also bring jobs, and a changed template leaves an audit row.
    before["wa_error_rules"] = [row for row in before["wa_error_rules"] if not row.startswith("(131049,")]
    # Its batches are smaller now.
    before["wa_jobs"] = [row for row in before.get("wa_jobs", ()) if not row.startswith("(retention,")]
    for table in ("wa_error_rules", "wa_jobs", "audit_log"):
        kept = tuple(old[:-1] for old in before.get(table, ()))
        after[table] = [row for row in after[table] if row.startswith(kept)]
    # Bytes of files have moved; the next test looks for them.
    for table in before.keys() - {"wa_migrations", "wa_packs", "wa_media_contents"}:
        # New columns come last.
        assert [row[: len(old) - 1] for row, old in zip(after[table], before[table], strict=True)] == [
            old[:-1] for old in before[table]
        ], table


# Whose rows are given to a function with a body in standard SQL.
GIVEN_WHOLE = """
    SELECT DISTINCT c.relname FROM pg_class AS c
    JOIN pg_depend AS d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = c.reltype
    JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid AND p.prosqlbody IS NOT NULL
    WHERE c.relkind IN ('r', 'p')
"""
# What PostgreSQL refuses for such a table, since 15.20 and 17.12.
REFUSED = (
    r"ALTER TABLE (\w+)\s[^;]*?"
    r"(?:ADD COLUMN [^,;]*(?:DEFAULT|NOT NULL|GENERATED)|ALTER COLUMN \w+ (?:SET DATA )?TYPE)"
)


@pytest.mark.parametrize("version", RELEASED)
def test_no_step_changes_rows_in_a_way_that_newer_servers_refuse(
    make_database: Callable[..., Database], pg: Server, version: str
) -> None:
    extensions = next(Path(pg.directory).glob("root/usr/share/postgresql/*/extension"))
    shutil.copy(CHECKOUT / f"migrations/released/pg_whatsapp--{version}.sql", extensions)
    old = make_database(bare=True)
    old.query(f"CREATE EXTENSION pg_whatsapp VERSION '{version}' CASCADE")
    old.query("SELECT migrate_wa()")
    given = {row["relname"] for row in old.query(GIVEN_WHOLE)}
    assert given
    [step] = (CHECKOUT / "migrations").glob(f"{version}--*.sql")
    found = re.finditer(REFUSED, re.sub(r"--.*", "", step.read_text()))
    assert [one[0] for one in found if one[1] in given] == []


def test_an_upgrade_keeps_what_was_stored_byte_for_byte(
    make_database: Callable[..., Database], pg: Server
) -> None:
    extensions = next(Path(pg.directory).glob("root/usr/share/postgresql/*/extension"))
    shutil.copy(CHECKOUT / "migrations/released/pg_whatsapp--0.2.0.sql", extensions)
    database = make_database(bare=True)
    large = os.urandom(2_500_000)
    with database.connect() as connection:
        connection.execute("CREATE EXTENSION pg_whatsapp VERSION '0.2.0' CASCADE")
        connection.execute("SELECT migrate_wa()")
        for n, content in enumerate([large, large, b"small", b"", b"failed"]):
            connection.execute(
                "INSERT INTO wa_media (direction, media_type, provider_media_id, filename)"
                " VALUES ('inbound', 'document', %s, 'a.pdf')",
                (f"M{n}",),
            )
            connection.execute(
                "SELECT store_wa_media(organization_id, id, %s) FROM wa_media WHERE provider_media_id = %s",
                (content, f"M{n}"),
            )
        connection.execute("SELECT fail_wa_media(organization_id, id, 'x', true) FROM wa_media")
        links = connection.execute(
            "SELECT m.provider_media_id, l.id, l.token FROM wa_media m, create_wa_media_signature(m.id) l"
            " WHERE m.status = 'stored'"
        ).fetchall()
        connection.execute("ALTER EXTENSION pg_whatsapp UPDATE")
        connection.execute("SELECT migrate_wa()")
        had = {}
        for name, link_id, token in links:
            opened = connection.execute(
                "SELECT outcome FROM open_wa_media(%s, %s)", (link_id, token)
            ).fetchone()
            parts = connection.execute(
                "SELECT read_wa_media(%s, %s, n * 1048576) FROM generate_series(0, 3) AS n", (link_id, token)
            ).fetchall()
            had[name] = (opened, b"".join(part or b"" for (part,) in parts))
        kept = connection.execute("SELECT count(*), sum(size)::integer FROM wa_media_blobs").fetchone()
        usage = connection.execute("SELECT bytes FROM wa_media_usages").fetchone()
    assert had == {
        "M0": (("ok",), large),
        "M1": (("ok",), large),
        "M2": (("ok",), b"small"),
        "M3": (("gone",), b""),
        "M4": (("ok",), b"failed"),
    }
    assert kept == (3, 2_500_000 + 5 + 6)
    assert usage == (2_500_000 + 5 + 6,)
