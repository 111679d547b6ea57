"""The Python client on connections of its own and of the caller, with pools, schemas and organizations.

Tests bin/pg_whatsapp/client/database.py.
"""

from __future__ import annotations

import asyncio

import psycopg
import psycopg_pool
import pytest
from client_world import ANN, Ways, count, ways
from harness import Database
from pg_whatsapp import errors
from pg_whatsapp.client import AsyncClient, Client
from psycopg.conninfo import make_conninfo

__all__ = ["ways"]


def test_a_connection_of_the_caller_keeps_its_transaction(ways: Ways) -> None:
    with psycopg.connect(ways.conninfo) as connection:
        client = Client.using(connection)
        client.send_message(ANN, template_name="hello")
        assert count(ways.db) == 0
        connection.rollback()
        assert count(ways.db) == 0
        client.send_message(ANN, template_name="hello")
        with pytest.raises(errors.PolicyError), connection.transaction():
            client.send_message(ANN, "outside of the window")
        client.send_message(ANN, template_name="hello")
        client.close()
        connection.commit()
        assert count(ways.db) == 2

    async def wait() -> None:
        async with await psycopg.AsyncConnection.connect(ways.conninfo) as connection:
            waiting = AsyncClient.using(connection)
            await waiting.send_message(ANN, template_name="hello")
            await connection.rollback()
            await waiting.send_message(ANN, template_name="hello")
            await waiting.close()

    asyncio.run(wait())
    assert count(ways.db) == 3


def test_of_a_pool_each_call_is_a_transaction(ways: Ways) -> None:
    with psycopg_pool.ConnectionPool(ways.conninfo, min_size=0, max_size=1, open=True) as pool:
        client = Client.using(pool)
        with pytest.raises(errors.PolicyError):
            client.send_message(ANN, "outside of the window")
        client.send_message(ANN, template_name="hello")
    assert count(ways.db) == 1

    async def wait() -> None:
        async with psycopg_pool.AsyncConnectionPool(
            ways.conninfo, min_size=0, max_size=1, open=False
        ) as pool:
            await AsyncClient.using(pool).send_message(ANN, template_name="hello")

    asyncio.run(wait())
    assert count(ways.db) == 2


def test_many_at_once_and_after_a_restart(ways: Ways) -> None:
    async def wait() -> int:
        async with AsyncClient.connect(ways.conninfo) as client:
            await asyncio.gather(*(client.send_message(ANN, template_name="hello") for _ in range(30)))
            rows = ways.db.query(
                "SELECT count(pg_terminate_backend(pid, 10000)) AS n FROM pg_stat_activity"
                " WHERE usename = %s AND datname = current_database()",
                psycopg.conninfo.conninfo_to_dict(ways.conninfo)["user"],
            )
            await client.send_message(ANN, template_name="hello")
            return int(rows[0]["n"])

    # Eight of its own at most.
    assert 1 <= asyncio.run(wait()) <= 8
    assert count(ways.db) == 31
    with Client.connect(ways.conninfo) as client:
        client.list_templates()
        ways.db.query(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s"
            " AND datname = current_database()",
            psycopg.conninfo.conninfo_to_dict(ways.conninfo)["user"],
        )
        client.list_templates()


def test_the_schema_is_found_and_no_search_path_needed(odd_schema_db: Database) -> None:
    conninfo = make_conninfo(odd_schema_db.dsn, options="-c search_path=")
    with Client.connect(conninfo) as client:
        assert client.list_templates().items == []
    with psycopg.connect(conninfo) as connection:
        assert Client.using(connection).try_normalize_phone_e164(ANN) == ANN
        assert connection.execute("SHOW search_path").fetchone() == ("",)


def test_a_role_of_several_organizations_chooses(ways: Ways) -> None:
    user = str(psycopg.conninfo.conninfo_to_dict(ways.conninfo)["user"])
    [row] = ways.db.query("SELECT create_wa_organization('b')::text AS id")
    ways.db.query("SELECT add_wa_organization_role(%s, %s)", row["id"], user)
    with Client.connect(ways.conninfo) as client, pytest.raises(errors.TenantError) as caught:
        client.list_templates()
    assert caught.value.sqlstate == "WA301"
    with Client.connect(ways.conninfo, organization=row["id"]) as client:
        assert client.list_templates().items == []

    async def wait() -> None:
        async with AsyncClient.connect(ways.conninfo, organization=row["id"]) as waiting:
            assert (await waiting.list_templates()).items == []

    asyncio.run(wait())


def test_a_database_without_us(bare_db: Database) -> None:
    with Client.connect(bare_db.dsn) as client, pytest.raises(errors.InstallationError) as caught:
        client.get_metrics()
    assert "bin/wa migrate" in str(caught.value.hint)
