"""Errors of the `wa` command, and of the client.

WaError
├── ConfigError          a setting is missing or wrong
│   └── SecretKeyError   the master key is missing or malformed
├── DatabaseError        the database refused, and said why; below by the groups of wa_sqlstates
│   ├── InputError            what was given makes no sense (WA001 to WA099, WA7.., 22023, ...)
│   ├── PolicyError           WhatsApp's rules forbid it: window, consent, template (WA1..)
│   ├── StateError            too late, or not in this state (WA2.., WA8..)
│   ├── TenantError           for whom: no organization, several, a foreign one (WA3..)
│   ├── InstallationError     which database, which release (WA4..)
│   │   ├── NotAdoptedError       this database may not send (WA401)
│   │   └── VersionMismatchError  this program and the schema do not fit (WA402)
│   ├── RightsError           the role may not do this (WA5.., 42501)
│   └── ApiError              what is asked over HTTP (WA6..)
│       └── LimitError            too many requests with the key
├── UnavailableError  no connection, after waiting for one
├── SealError            a stored secret cannot be opened with the keys at hand
└── ProviderError        the provider answered with an error, outside of sending

Each carries one line that may be shown and logged: no message text, phone number or secret in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg


class WaError(Exception):
    """Root of the errors that end a command with exit status 1."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        #: The way out, when there is one to tell. Tracebacks show it, too.
        self.hint = hint
        if hint:
            self.add_note(hint)


class ConfigError(WaError):
    """A setting is missing or wrong."""


class SecretKeyError(ConfigError):
    """The master key is missing or malformed."""


class UnavailableError(WaError):
    """No connection to the database."""


class SealError(WaError):
    """A stored secret cannot be opened with the keys at hand."""

    def __init__(self, message: str, hint: str | None = None, key_id: str | None = None) -> None:
        super().__init__(message, hint)
        #: The key that it was sealed with. Apart from the text, of which logs hide what looks like a number.
        self.key_id = key_id


class ProviderError(WaError):
    """The provider answered with an error, outside of sending."""

    def __init__(
        self, message: str, hint: str | None = None, status: int = 0, answer: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint)
        #: Its HTTP status, 0 where it did not answer, and its body.
        self.status = status
        self.answer = answer or {}


class DatabaseError(WaError):
    """The database refused, and said why."""

    def __init__(self, message: str, hint: str | None = None, sqlstate: str | None = None) -> None:
        super().__init__(message, hint)
        self.sqlstate = sqlstate


class InputError(DatabaseError):
    """What was given makes no sense to the database."""


class PolicyError(DatabaseError):
    """WhatsApp's rules forbid it: the window, consent or the template's state."""


class StateError(DatabaseError):
    """Too late, or not in this state."""


class TenantError(DatabaseError):
    """No organization, several and none chosen, or a foreign one."""


class InstallationError(DatabaseError):
    """This database, or its release, is not the one that it takes."""


class RightsError(DatabaseError):
    """The role may not do this."""


class ApiError(DatabaseError):
    """A key, its scope or its role, or a request that was made before."""


class LimitError(ApiError):
    """Too many requests with the key."""

    def __init__(self, message: str, hint: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message, hint)
        #: When the next one may come.
        self.retry_after_s = retry_after_s


class NotAdoptedError(InstallationError):
    """This database may not send (WA401): a copy, or a standby that was promoted."""


class VersionMismatchError(InstallationError):
    """This program and the schema do not fit together (WA402)."""


# The longest beginning that fits decides. A test holds it to the groups of wa_sqlstates.
_BY_SQLSTATE: dict[str, type[DatabaseError]] = {
    "WA0": InputError,
    "WA1": PolicyError,
    "WA2": StateError,
    "WA3": TenantError,
    "WA4": InstallationError,
    "WA401": NotAdoptedError,
    "WA402": VersionMismatchError,
    "WA5": RightsError,
    "WA6": ApiError,
    "WA7": InputError,
    "WA8": StateError,
    "0A000": InputError,
    "22": InputError,
    "23": InputError,
    "25001": InstallationError,
    "2BP01": InstallationError,
    "42501": RightsError,
    "42704": InputError,
    "42710": InstallationError,
    "42883": InputError,
    "55000": InstallationError,
    "55P03": InstallationError,
    "P0002": InputError,
}
_MISSING = {"42883": "function", "42P01": "table", "3F000": "schema"}
_ROLES = (
    "Connect as a member of the role that may: wa_dispatcher for dispatch, wa_receiver for serve,"
    " the owner of the schema for migrate, wa_admin for all else."
)


def class_of(sqlstate: str | None) -> type[DatabaseError]:
    """The exception for an SQLSTATE; DatabaseError for one that we do not raise by design."""
    fitting = [start for start in _BY_SQLSTATE if (sqlstate or "").startswith(start)]
    return _BY_SQLSTATE[max(fitting, key=len)] if fitting else DatabaseError


def from_database(error: psycopg.Error, *, with_detail: bool = False) -> DatabaseError:
    """The error to show for a psycopg error: its message and hint.

    DETAIL quotes values, so it is left out unless with_detail says that it can only name objects.
    """
    state = error.sqlstate
    kind = class_of(state)
    hint = error.diag.message_hint
    # PostgreSQL's own would speak of type casts.
    if state in _MISSING:
        hint = "Is the schema migrated? bin/wa migrate creates and upgrades it."
    elif state == "42501" and hint is None:
        hint = _ROLES
    message = error.diag.message_primary or type(error).__name__
    if with_detail and error.diag.message_detail:
        message = f"{message}: {error.diag.message_detail}"
    return kind(message, hint, state)
