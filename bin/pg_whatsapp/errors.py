"""Errors of the `wa` command.

WaError
├── ConfigError          a setting is missing or wrong
│   └── SecretKeyError   the master key is missing or malformed
├── DatabaseError        the database refused, and said why
│   ├── NotAdoptedError       this database may not send (WA401)
│   └── VersionMismatchError  this program and the schema do not fit (WA402)
├── UnavailableError  no connection, after waiting for one
├── SealError            a stored secret cannot be opened with the keys at hand
└── ProviderError        the provider answered with an error, outside of sending

Each carries one line that may be shown and logged: no message text, phone number or secret in it.
"""

from __future__ import annotations

import psycopg


class WaError(Exception):
    """Root of the errors that end a command with exit status 1."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        #: The way out, when there is one to tell.
        self.hint = hint


class ConfigError(WaError):
    """A setting is missing or wrong."""


class SecretKeyError(ConfigError):
    """The master key is missing or malformed."""


class UnavailableError(WaError):
    """No connection to the database."""


class SealError(WaError):
    """A stored secret cannot be opened with the keys at hand."""


class ProviderError(WaError):
    """The provider answered with an error, outside of sending."""


class DatabaseError(WaError):
    """The database refused, and said why."""

    def __init__(self, message: str, hint: str | None = None, sqlstate: str | None = None) -> None:
        super().__init__(message, hint)
        self.sqlstate = sqlstate


class NotAdoptedError(DatabaseError):
    """This database may not send (WA401): a copy, or a standby that was promoted."""


class VersionMismatchError(DatabaseError):
    """This program and the schema do not fit together (WA402)."""


_BY_SQLSTATE = {"WA401": NotAdoptedError, "WA402": VersionMismatchError}
_MISSING = {"42883": "function", "42P01": "table", "3F000": "schema"}


def from_database(error: psycopg.Error, *, with_detail: bool = False) -> DatabaseError:
    """The error to show for a psycopg error: its message and hint.

    DETAIL quotes values, so it is left out unless with_detail says that it can only name objects.
    """
    state = error.sqlstate
    kind = _BY_SQLSTATE.get(state or "", DatabaseError)
    hint = error.diag.message_hint
    if state in _MISSING and not hint:
        hint = "Is the schema migrated? bin/wa migrate creates and upgrades it."
    message = error.diag.message_primary or type(error).__name__
    if with_detail and error.diag.message_detail:
        message = f"{message}: {error.diag.message_detail}"
    return kind(message, hint, state)
