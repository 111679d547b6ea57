"""The check of X-Hub-Signature-256, from the same source file that the database's function is made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from pg_whatsapp.errors import ConfigError

Verify = Callable[[bytes | None, str | None, Iterable[str | None] | None], bool]

_FILE = "verify_wa_signature.py"
_HERE = Path(__file__).resolve().parent
# In a checkout, and in an installed package that brings a copy.
_PLACES = (_HERE.parents[1] / "plpython", _HERE / "plpython")


def load_verify() -> Verify:
    """verify_signature(body, header, secrets) -> bool; raises ConfigError if the source file is not there."""
    for place in _PLACES:
        if (place / _FILE).is_file():
            spec = importlib.util.spec_from_file_location("pg_whatsapp_verify_wa_signature", place / _FILE)
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return cast(Verify, module.verify_signature)
    raise ConfigError(f"plpython/{_FILE} is missing", "Run wa from a complete checkout or installation.")
