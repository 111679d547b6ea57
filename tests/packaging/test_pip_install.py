"""`pip install .` gives the wa command, the client and whatsapp_service, without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from harness import CHECKOUT

VERSION = (CHECKOUT / "pg_whatsapp.control").read_text().split("default_version = '")[1].split("'")[0]
LOOK = """
import pathlib, sys
import whatsapp_service
from pg_whatsapp import client
for module in (client, whatsapp_service):
    print(pathlib.Path(module.__file__).is_relative_to(sys.prefix))
print((pathlib.Path(client.__file__).parent.parent / "py.typed").exists())
print(callable(client.Client.connect), whatsapp_service.whatsapp_service.normalize_phone_e164.__name__)
"""


@pytest.mark.slow
def test_a_fresh_environment_has_command_and_client(tmp_path: Path) -> None:
    """What it depends on comes from the environment of the tests, which has the same versions."""
    source, made = tmp_path / "source", tmp_path / "venv"
    # pip leaves files where it builds.
    shutil.copytree(
        CHECKOUT / "bin", source / "bin", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    shutil.copy(CHECKOUT / "pyproject.toml", source)
    run(sys.executable, "-m", "venv", made)
    [site] = made.glob("lib/python*/site-packages")
    run(made / "bin/pip", "install", "-q", "--no-deps", "--disable-pip-version-check", source)
    # Only a path: what is installed there for editing stays out.
    (site / "theirs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run(made / "bin/wa", "--version", cwd=tmp_path) == f"wa, version {VERSION}\n"
    assert run(made / "bin/python", "-c", LOOK, cwd=tmp_path).split("\n")[:-1] == [
        "True", "True", "True", "True normalize_phone_e164"
    ]  # fmt: skip


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program printed; fails with what it complained about."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
