"""A running HTTP API with roles, keys and clients, for its tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from harness import Database
from wa_process import WaProcess

BASE = "/api/whatsapp"
EVERY_SCOPE = ["send", "read", "media", "templates", "metrics", "admin"]


class ApiServer:
    """`wa serve --only api` with a login of its own, and an application's role whose keys it takes."""

    def __init__(self, database: Database, make_role: Callable[..., str], *only: str, **env: str) -> None:
        self.db = database
        self.role = make_role("wa_app", login=False)
        self.login = make_role("wa_api", self.role)
        self.key = self.make_key()
        self.process = WaProcess(
            "serve", *(only or ("--only", "api")), "--port", "0", database=database, user=self.login, **env
        )
        try:
            line = self.process.logged("serving")
        except AssertionError:
            self.process.kill()
            raise
        self.url = f"http://{line['host']}:{line['port']}"
        self.client = self.client_of(self.key)

    def make_key(self, *scopes: str, role: str | None = None, **more: Any) -> str:
        """A key of the application's role, with every scope unless some are named."""
        names = "".join(f", {name} => %s" for name in more)
        [row] = self.db.query(
            "SELECT api_key FROM create_wa_api_key('test', %s, %s" + names + ")",
            role or self.role,
            list(scopes) or EVERY_SCOPE,
            *more.values(),
        )
        return str(row["api_key"])

    def client_of(self, key: str, **headers: str) -> httpx.Client:
        """A client that sends a key."""
        return httpx.Client(
            base_url=self.url, timeout=120, headers={"authorization": f"Bearer {key}", **headers}
        )

    def stop(self) -> int:
        """End it in order; the exit status."""
        self.client.close()
        self.process.signal()
        return self.process.wait()
