"""Every file of tests/pgtap as a test: run by pg_prove in a database of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import Database

FILES = sorted(Path(__file__).parent.glob("pgtap/*.sql"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pgtap(path: Path, db: Database) -> None:
    done = subprocess.run(
        ["pg_prove", "--verbose", "--psql-bin", db.server.bindir / "psql", path],
        env=os.environ | db.env,
        cwd=path.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}\n{done.stderr}", pytrace=False)
