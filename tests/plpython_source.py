"""The PL/Python sources as ordinary modules; the build puts the same files into the server's functions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

DIRECTORY = Path(__file__).resolve().parent.parent / "plpython"


def load(name: str) -> ModuleType:
    """The module made of plpython/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"plpython_{name}", DIRECTORY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
