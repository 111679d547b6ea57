"""What `make` puts together, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib

import pytest
from harness import CHECKOUT, Database
from product import Product, load_build

BUILD = load_build()


def test_version_is_the_same_everywhere() -> None:
    version = BUILD.version_of(CHECKOUT)
    meta = json.loads((CHECKOUT / "META.json").read_text())
    assert meta["version"] == version
    assert meta["provides"]["pg_whatsapp"]["version"] == version
    assert tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"] == version
    assert f"## [{version}]" in (CHECKOUT / "CHANGELOG.md").read_text()


def test_every_source_is_in_the_manifest() -> None:
    listed = {str(path) for path in BUILD.read_manifest(CHECKOUT)}
    tracked = subprocess.run(
        ["git", "ls-files", "sql/*.sql"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert set(tracked.stdout.split()) <= listed


def test_make_builds_again_when_any_source_changed() -> None:
    script = f"build/pg_whatsapp--{BUILD.version_of(CHECKOUT)}.sql"
    sources = [str(path) for path in BUILD.read_manifest(CHECKOUT)]
    text = "".join((CHECKOUT / source).read_text() for source in sources)
    sources += [*BUILD.INCLUDE.findall(text), "sql/manifest", "sql/grants"]
    touched = [part for source in sources for part in ("--what-if", source)]
    done = subprocess.run(
        ["make", "--dry-run", "--debug=v", *touched, script],
        cwd=CHECKOUT,
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bin/build-extension script" in done.stdout
    newer = re.findall(rf"Prerequisite '(.+)' is newer than target '{script}'", done.stdout)
    assert set(sources) <= set(newer)


def test_loading_the_script_by_psql_stops_at_once(pg: object, bare_db: Database) -> None:
    script = CHECKOUT / f"build/pg_whatsapp--{BUILD.version_of(CHECKOUT)}.sql"
    done = subprocess.run(
        [bare_db.server.bindir / "psql", "-X", "-d", bare_db.dsn, "-f", script],
        capture_output=True,
        text=True,
    )
    assert "CREATE EXTENSION pg_whatsapp CASCADE" in done.stdout
    assert bare_db.query("SELECT FROM pg_class WHERE relname = '_wa_scripts'") == []


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("shop/tables.sql", "@@include plpython/absent.py@@\n", "plpython/absent.py does not exist"),
        ("shop/tables.sql", "  @@include plpython/x.py@@\n", "malformed"),
        ("shop/tables.sql", "SELECT '$wa_script$';\n", "delimiter"),
        ("shop/a.sql", "SELECT '@extschema@';\n", "no schema names"),
        ("shop/garden/a.sql", "SELECT 1;\n", "neither sql/ROOM/NAME.sql nor sql/packs/PACK/NAME.sql"),
        ("Shop.sql", "SELECT 1;\n", "neither sql/ROOM/NAME.sql nor sql/packs/PACK/NAME.sql"),
    ],
)
def test_build_refuses_sources_that_it_cannot_carry(
    product: Product, path: str, text: str, complaint: str
) -> None:
    product.write(path, text)
    with pytest.raises(product.build.BuildError, match=complaint):
        product.assemble("7.0.0")


def test_build_refuses_a_body_that_would_end_early(product: Product) -> None:
    (product.root / "plpython").mkdir()
    (product.root / "plpython/body.py").write_text("x = '$plpython$'\n")
    product.write("extension/body.sql", "@@include plpython/body.py@@\n")
    with pytest.raises(product.build.BuildError, match=r"body\.py"):
        product.assemble("7.0.0")


@pytest.mark.parametrize("line", ["orders r r r r", "orders() r r x r r", "[a", "orders.note r . . ."])
def test_build_refuses_grants_that_it_cannot_read(product: Product, line: str) -> None:
    product.write_grants(f"[orders]\n{line}\n")
    with pytest.raises(product.build.BuildError, match="not an object and five or six cells"):
        product.assemble("7.0.0")


def test_build_refuses_a_listed_file_that_is_absent_and_one_listed_twice(product: Product) -> None:
    product.manifest.append("orders/absent.sql")
    with pytest.raises(product.build.BuildError, match=r"absent\.sql"):
        product.assemble("7.0.0")
    product.manifest[-1] = "orders/orders.sql"
    with pytest.raises(product.build.BuildError, match="twice"):
        product.assemble("7.0.0")


def test_includes_arrive_verbatim(product: Product) -> None:
    (product.root / "plpython").mkdir()
    (product.root / "plpython/body.py").write_text("a = r'\\1'\nb = '\\n'\n")
    product.write(
        "extension/body.sql", "DO LANGUAGE plpython3u $plpython$\n@@include plpython/body.py@@\n$plpython$;\n"
    )
    assert (
        "$plpython$\na = r'\\1'\nb = '\\n'\n$plpython$;"
        in product.assemble("7.0.0")["pg_whatsapp--7.0.0.sql"]
    )


def test_names_found_by_the_build_are_those_that_the_catalogue_has(db: Database) -> None:
    found = {
        name for row in db.query("SELECT unnest(objects) AS name FROM wa_migrations") for name in row.values()
    }
    made = db.query(
        """
        SELECT 'relation ' || relname AS name FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
            AND relname <> 'wa_migrations' AND NOT relispartition
        UNION
        SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        EXCEPT
        SELECT coalesce('function ' || p.proname, 'relation ' || c.relname)
        FROM pg_depend AS d
        LEFT JOIN pg_proc AS p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
        LEFT JOIN pg_class AS c ON c.oid = d.objid
        WHERE d.deptype = 'e' AND d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
        """
    )
    assert {row["name"] for row in made} == {name for name in found if not name.startswith("type ")}
