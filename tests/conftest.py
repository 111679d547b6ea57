"""Fixtures that all tests share: one private server, and a database per test cloned from a template.

Under pytest-xdist each worker has a server of its own, because tests make roles and put files into it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from harness import CHECKOUT, Database, Server, cluster_command, exported
from psycopg import sql

# Set by a developer: the directory of a server that `bin/cluster start` made, to save the start of one.
# Not for workers of pytest-xdist, who do not get it.
REUSED_CLUSTER = os.environ.get("WA_TEST_CLUSTER")


def pytest_configure() -> None:
    """Keep the settings of the person who runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("WHATSAPP_", "WA_", "PG")) or name == "DATABASE_URL":
            del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a server of its own as slow."""
    for item in items:
        if "make_server" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to tell: record_property("told", ...)."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "told":
                terminalreporter.write_line(f"{report.nodeid}: {text}")


@pytest.fixture(scope="session")
def pg() -> Iterator[Server]:
    """The private server that all tests share, with this checkout's extension installed."""
    if REUSED_CLUSTER:
        cluster_command("install", "--dir", REUSED_CLUSTER)
        yield Server(exported(cluster_command("env", "--dir", REUSED_CLUSTER)))
        return
    server = Server(exported(cluster_command("start", "--owner", str(os.getpid()))))
    yield server
    cluster_command("stop", "--dir", server.directory)


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Makes a private server of its own: make_server(fsync='on', shared_preload_libraries='pg_cron')."""
    made: list[Server] = []

    def make(**settings: str) -> Server:
        chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        made.append(Server(exported(cluster_command("start", "--owner", str(os.getpid()), *chosen))))
        return made[-1]

    yield make
    for server in made:
        cluster_command("stop", "--dir", server.directory)


@pytest.fixture
def make_role(pg: Server) -> Iterator[Callable[..., str]]:
    """Makes a login role: make_role('wa_app', 'wa_analyst') is a member of these groups; returns its name."""
    made: list[str] = []

    def make(*groups: str, login: bool = True) -> str:
        name = f"wa_test_role_{uuid4().hex[:8]}"
        kind = sql.SQL("LOGIN" if login else "NOLOGIN")
        pg.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(name), kind))
        made.append(name)
        for group in groups:
            pg.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name)))
        return name

    yield make
    for name in made:
        pg.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def make_database(pg: Server, make_role: Callable[..., str]) -> Iterator[Callable[..., Database]]:
    """Makes databases: make_database() a clone with the extension, make_database(bare=True) an empty one.

    They go before the roles of the same test, so that what these own or were granted goes with them.
    """
    made: list[Database] = []

    def make(schema: str = "public", *, bare: bool = False) -> Database:
        made.append(pg.create_database(template=None if bare else pg.template(schema), schema=schema))
        return made[-1]

    yield make
    for database in made:
        pg.drop_database(database)


@pytest.fixture
def db(make_database: Callable[..., Database]) -> Database:
    """A fresh database with the extension in schema public, migrated."""
    return make_database()


@pytest.fixture
def world(db: Database) -> Database:
    """A database with the number, templates and shorthands of the pgTAP tests."""
    with db.connect() as connection:
        connection.execute((CHECKOUT / "tests/pgtap/world.psql").read_bytes())
    return db


@pytest.fixture
def session(db: Database) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    """Opens sessions of `db` with explicit transactions; what they left open is rolled back."""
    made: list[psycopg.Connection[Any]] = []

    def make() -> psycopg.Connection[Any]:
        # A test that waits for itself fails instead of hanging.
        made.append(db.connect(autocommit=False, options="-c lock_timeout=60s"))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def bare_db(make_database: Callable[..., Database]) -> Database:
    """A fresh empty database."""
    return make_database(bare=True)


@pytest.fixture
def odd_schema_db(make_database: Callable[..., Database]) -> Database:
    """A fresh database with the extension in a schema whose name needs quotes, migrated."""
    return make_database(schema="odd name-1")
