"""Every file of tests/pgtap as a test: run by pg_prove in a database of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import Database

FOLDER = Path(__file__).parent / "pgtap"
FILES = sorted(FOLDER.rglob("*.sql"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))
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


def test_every_tracked_file_is_run() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.sql"], cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout.split()
    assert tracked
    assert {FOLDER / name for name in tracked if (FOLDER / name).exists()} <= set(FILES)
