"""A private server and throwaway databases for the tests; the fixtures in conftest.py hand these out."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from pytest_postgresql.janitor import DatabaseJanitor

CHECKOUT = Path(__file__).resolve().parent.parent
GROUPS = ("wa_admin", "wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst", "wa_api")


def cluster_command(*args: str, checkout: Path = CHECKOUT) -> str:
    """Run bin/cluster of that checkout and return what it printed; fails the test with its message."""
    done = subprocess.run([checkout / "bin/cluster", *args], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stderr, pytrace=False)
    return done.stdout


def exported(lines: str) -> dict[str, str]:
    """The variables in the `export NAME=VALUE` lines that bin/cluster prints."""
    pairs = (line.removeprefix("export ").partition("=") for line in lines.splitlines())
    return {name: value for name, _, value in pairs}


def free_port() -> int:
    """A port that nobody listens on.

    Below those that the system gives to outgoing connections, so that none takes it before a server does.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


class Database:
    """One database of a private server."""

    def __init__(self, server: Server, name: str, schema: str = "public") -> None:
        self.server = server
        self.name = name
        #: The schema that the extension is in.
        self.schema = schema
        #: libpq connection string of the superuser.
        self.dsn = server.dsn(name)

    @property
    def env(self) -> dict[str, str]:
        """PG* variables for a child process, to be added to its environment."""
        return self.server.env | {"PGDATABASE": self.name}

    def connect(self, **params: Any) -> psycopg.Connection[Any]:
        """A new autocommit connection, as the superuser unless user= is given; use it in a `with`."""
        params.setdefault("autocommit", True)
        return psycopg.connect(self.dsn, **params)

    def query(self, statement: str, *args: Any, user: str | None = None) -> list[dict[str, Any]]:
        """Run one statement on a connection of its own; the rows as dicts, none if it returns nothing."""
        with self.connect(**({"user": user} if user else {})) as connection:
            cursor = connection.cursor(row_factory=dict_row).execute(statement.encode(), args or None)
            return cursor.fetchall() if cursor.description else []

    def faults(self) -> list[dict[str, Any]]:
        """What failed inside, but for locks: is_waiting() tells of these."""
        return self.query(
            "SELECT sqlstate, error FROM wa_faults WHERE sqlstate <> '55P03' UNION ALL"
            " SELECT sqlstate, error FROM wa_webhook_errors WHERE sqlstate <> '55P03'"
        )

    def is_waiting(self) -> bool:
        """Whether something met a lock and is still to be done.

        On a loaded machine a transaction may keep its locks for longer than others wait for them.
        """
        return bool(
            self.query(
                "SELECT 1 FROM wa_late_results UNION ALL"
                " SELECT 1 FROM wa_webhook_errors WHERE sqlstate = '55P03' AND resolved_at IS NULL"
            )
        )

    def install(self) -> None:
        """Create the extension in self.schema and migrate; names script and line if one of ours fails."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.schema)))
            connection.execute(
                sql.SQL("CREATE EXTENSION pg_whatsapp SCHEMA {} CASCADE").format(sql.Identifier(self.schema))
            )
            try:
                connection.execute(
                    sql.SQL("SELECT FROM {}()").format(sql.Identifier(self.schema, "migrate_wa"))
                )
            except psycopg.Error as error:
                # The error's own text repeats the whole script.
                pytest.fail(place_of(error, connection, self.schema), pytrace=False)


def place_of(error: psycopg.Error, connection: psycopg.Connection[Any], schema: str) -> str:
    """An error of migrate_wa() in a few lines: what, and where in which script."""
    lines = [error.diag.message_primary or "", error.diag.message_detail or "", error.diag.message_hint or ""]
    scripts = sql.SQL("SELECT name, body FROM {}").format(sql.Identifier(schema, "_wa_scripts"))
    for name, body in connection.execute(scripts).fetchall():
        if error.diag.internal_query == body:
            line = body.count("\n", 0, int(error.diag.internal_position or 0)) + 1
            lines.append(f"in sql/{name}, line {line} (after includes)")
        elif f'SQL statement "{body}"' in (error.diag.context or ""):
            lines.append(f"in sql/{name}")
    return "\n".join(filter(None, lines))


class Server:
    """A private server; `pg` is the one that all tests share."""

    def __init__(self, env: dict[str, str], checkout: Path = CHECKOUT) -> None:
        #: Where its extension was built, and whose `wa` serves its databases.
        self.checkout = checkout
        #: PG* variables of the superuser.
        self.env = {name: value for name, value in env.items() if name.startswith("PG")}
        self.directory = env["WA_CLUSTER"]
        #: The server's programs (pg_dump, psql, pgbench) in the version that it runs.
        self.bindir = Path(env["WA_CLUSTER_BIN"])

    def dsn(self, database: str = "postgres", **params: str) -> str:
        """Connection string of the superuser."""
        env = self.env
        return make_conninfo(
            **{"host": env["PGHOST"], "port": env["PGPORT"], "user": env["PGUSER"], "dbname": database}
            | params
        )

    def start(self) -> None:
        """Start the server again after stop()."""
        cluster_command("resume", "--dir", self.directory)

    def stop(self, mode: str = "fast") -> None:
        """Stop it, 'fast' or 'immediate' (as a crash), and keep its data."""
        cluster_command("stop", "--keep", "--mode", mode, "--dir", self.directory)

    def restart(self, mode: str = "fast") -> None:
        """Stop and start it; 'immediate' makes it recover as after a crash."""
        cluster_command("restart", "--mode", mode, "--dir", self.directory)

    def execute(self, statement: sql.Composed | LiteralString) -> None:
        """Run one statement as the superuser in the maintenance database."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(statement)

    def janitor(self, name: str, template: str | None = None) -> DatabaseJanitor:
        """What makes and drops a database of that name."""
        env = self.env
        return DatabaseJanitor(
            user=env["PGUSER"], host=env["PGHOST"], port=env["PGPORT"], dbname=name, template_dbname=template
        )  # fmt: skip

    def create_database(self, template: str | None = None, schema: str = "public") -> Database:
        """A new database under a fresh name; drop it with drop_database()."""
        name = f"wa_test_{uuid4().hex[:12]}"
        self.janitor(name, template).init()
        path = sql.SQL(", ").join(map(sql.Identifier, (schema, "tap")))
        # Not copied from the template by CREATE DATABASE.
        self.execute(sql.SQL("ALTER DATABASE {} SET search_path = {}").format(sql.Identifier(name), path))
        return Database(self, name, schema)

    def drop_database(self, database: Database) -> None:
        """Drop it, whoever is connected."""
        self.janitor(database.name).drop()

    def template(self, schema: str = "public") -> str:
        """Name of a database to clone: the extension in that schema, migrated, and pgTAP in schema tap."""
        build = max((CHECKOUT / "build").glob("pg_whatsapp--*.sql"), key=os.path.getmtime).read_bytes()
        name = f"wa_template_{hashlib.sha256(build + schema.encode()).hexdigest()[:12]}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            # Two test runs on one server: the second waits and finds it made.
            connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                return name
            fresh = self.create_database(schema=schema)
            try:
                with fresh.connect() as inside:
                    inside.execute("CREATE SCHEMA tap")
                    inside.execute("CREATE EXTENSION pgtap SCHEMA tap")
                    inside.execute("GRANT USAGE ON SCHEMA tap TO PUBLIC")
                fresh.install()
            except BaseException:
                self.drop_database(fresh)
                raise
            old, new = sql.Identifier(fresh.name), sql.Identifier(name)
            connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new))
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(new))
        return name
