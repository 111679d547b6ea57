"""The client in each of its ways beside a running HTTP API, for its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_server import ApiServer
from client_ways import Driven, every_way
from harness import Database
from pg_whatsapp import errors
from psycopg.conninfo import make_conninfo

ANN = "+5491140000001"


@dataclass
class Ways:
    """A running API, a role of the application, and clients by NAMES."""

    api: ApiServer
    conninfo: str
    clients: dict[str, Driven]

    @property
    def db(self) -> Database:
        return self.api.db

    def same(self, ask: Callable[[Driven], Any]) -> Any:
        """What every way answers alike."""
        answers = [ask(client) for client in self.clients.values()]
        for answer in answers[1:]:
            assert answer == answers[0]
        return answers[0]

    def refusals(self, ask: Callable[[Driven], Any]) -> list[errors.WaError]:
        """How each way refuses."""
        found = []
        for client in self.clients.values():
            with pytest.raises(errors.WaError) as caught:
                ask(client)
            found.append(caught.value)
        return found


@pytest.fixture
def ways(world: Database, make_role: Callable[..., str]) -> Iterator[Ways]:
    api = ApiServer(world, make_role)
    conninfo = make_conninfo(world.dsn, user=make_role(api.role))
    with every_way(conninfo, api.url, api.key) as clients:
        yield Ways(api, conninfo, clients)
    assert api.stop() == 0
    world.query("DELETE FROM wa_organization_roles")


def count(db: Database) -> int:
    return int(db.query("SELECT count(*) AS n FROM wa_outbound_queue")[0]["n"])
