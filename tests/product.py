"""A small stand-in product: what the build and migrate_wa() promise is tested over several versions of it."""

from __future__ import annotations

import shutil
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
from harness import CHECKOUT, Database, Server


def load_build() -> ModuleType:
    """The build program as a module."""
    loader = SourceFileLoader("build_extension", str(CHECKOUT / "bin/build-extension"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[loader.name] = module_from_spec(spec)
    loader.exec_module(module)
    return module


class Product:
    """A source tree with our runner and other tables, whose versions are put into the private server."""

    def __init__(self, root: Path, build: ModuleType, server: Server) -> None:
        self.root = root
        self.build = build
        self.server = server
        self.manifest = [f"extension/{name}.sql" for name in ("roles", "safe_schema", "rights", "migrate")]
        (root / "migrations/released").mkdir(parents=True)
        (root / "sql/extension").mkdir(parents=True)
        for path in self.manifest:
            shutil.copy(CHECKOUT / "sql" / path, root / "sql" / path)
        self.write_grants("")

    def write(self, path: str, text: str) -> None:
        """Write a source below sql/, adding it to the manifest, or a migration."""
        folder = self.root if path.startswith("migrations/") else self.root / "sql"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        if folder != self.root and path not in self.manifest:
            self.manifest.append(path)

    def write_grants(self, text: str) -> None:
        """Write who may do what beside our runner's own functions."""
        ours = (CHECKOUT / "sql/grants").read_text().partition("\n[organizations]")[0]
        (self.root / "sql/grants").write_text(f"{ours}\n{text}")

    def assemble(self, version: str) -> dict[str, str]:
        """The build's output for that version, by file name."""
        (self.root / "sql/manifest").write_text("\n".join(self.manifest))
        (self.root / "pg_whatsapp.control").write_text(f"default_version = '{version}'\n")
        files: dict[str, str] = self.build.assemble(self.root)
        return files

    def release(self, version: str) -> None:
        """Build that version and install it into the private server; later versions upgrade from it."""
        files = self.assemble(version)
        target = next(Path(self.server.directory).glob("root/usr/share/postgresql/*/extension"))
        for name, text in files.items():
            (target / name).write_text(text)
            # The server reads it as its own user, whatever the umask of the tests is.
            (target / name).chmod(0o644)
        full = f"pg_whatsapp--{version}.sql"
        (self.root / "migrations/released" / full).write_text(files[full])


def steps(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Call migrate_wa() and return its rows."""
    return connection.execute("SELECT step, action FROM migrate_wa()").fetchall()


def with_packs(database: Database) -> Database:
    """Install every pack that there is; returns the database."""
    database.query(
        "SELECT install_wa_pack(p.name) FROM (SELECT DISTINCT _wa_pack_of(s.name) AS name"
        " FROM _wa_scripts AS s WHERE s.kind = 'pack') AS p"
    )
    return database
