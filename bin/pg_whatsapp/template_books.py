"""Where templates that were fetched or submitted are written down: for the role of a session, or for a call.

`wa templates` has the rights of an application; a dispatcher has none of its own, only those of a row of
wa_provider_calls that it holds.
"""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple, Protocol

import orjson

from pg_whatsapp import db


class Draft(NamedTuple):
    """A template that may go to review, with the request for it; one with a problem is kept back."""

    template_id: Any
    name: str
    language: str
    provider_id: str | None
    request: dict[str, Any]
    problem: str | None


class Standing(NamedTuple):
    """How a template stands after it was submitted."""

    status: str
    category: str
    reason: str | None


class Books(Protocol):
    """What the work on an account's templates asks of the database, and tells it."""

    async def begin(self) -> str | None:
        """Begin a sync; the cursor to go on after."""

    async def advance(self, cursor: str | None, templates: list[Any]) -> None:
        """Store a page, and how far the sync came."""

    async def finish(self) -> None:
        """End a sync that saw every page."""

    async def store(self, templates: list[Any]) -> None:
        """Store what the provider says of some templates."""

    async def drafts(self, names: list[str] | None) -> list[Draft]:
        """What may go to review."""

    async def record(self, template_id: Any, status: int, answer: dict[str, Any]) -> str:
        """What the provider's answer to a submission means."""

    async def standing(self, template_id: Any) -> Standing | None:
        """How a submitted template stands now."""


class SessionBooks:
    """For the role of a session, whose organization is set."""

    def __init__(self, connection: db.Connection, waba_id: str) -> None:
        self._connection = connection
        self._waba_id = waba_id

    async def _rows(self, statement: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(statement, params)).fetchall()

    async def begin(self) -> str | None:
        """As Books."""
        [(cursor,)] = await self._rows("SELECT begin_wa_template_sync(%s)", self._waba_id)
        return None if cursor is None else str(cursor)

    async def advance(self, cursor: str | None, templates: list[Any]) -> None:
        """As Books."""
        async with self._connection.transaction():
            await self.store(templates)
            await self._rows(
                "SELECT advance_wa_template_sync(%s, %s, %s)", self._waba_id, cursor, len(templates)
            )

    async def finish(self) -> None:
        """As Books."""
        await self._rows("SELECT finish_wa_template_sync(%s)", self._waba_id)

    async def store(self, templates: list[Any]) -> None:
        """As Books."""
        await self._rows("SELECT upsert_wa_templates(%s, %s::jsonb)", self._waba_id, _json(templates))

    async def drafts(self, names: list[str] | None) -> list[Draft]:
        """As Books."""
        rows = await self._rows(
            "SELECT template_id, name, language, provider_template_id, request, problem"
            " FROM get_wa_template_submissions(%s, %s)",
            self._waba_id,
            names,
        )
        return [Draft._make(row) for row in rows]

    async def record(self, template_id: Any, status: int, answer: dict[str, Any]) -> str:
        """As Books."""
        [(outcome,)] = await self._rows(
            "SELECT record_wa_template_submission(%s, %s, %s, %s::jsonb)",
            template_id,
            self._waba_id,
            status,
            _json(answer),
        )
        return str(outcome)

    async def standing(self, template_id: Any) -> Standing | None:
        """As Books."""
        rows = await self._rows(
            "SELECT status, category, rejected_reason FROM wa_templates WHERE id = %s", template_id
        )
        return Standing._make(rows[0]) if rows else None


class CallBooks:
    """For a call that a dispatcher holds; the database raises WA252 once another one has it."""

    def __init__(self, link: db.Link, organization: str, call_id: str, attempt: int) -> None:
        self._link = link
        self._call = (organization, call_id, attempt)

    async def begin(self) -> str | None:
        """As Books."""
        [(cursor,)] = await self._link.fetch(
            "SELECT begin_wa_template_sync_for(%s::uuid, %s::uuid, %s)", *self._call
        )
        return None if cursor is None else str(cursor)

    async def advance(self, cursor: str | None, templates: list[Any]) -> None:
        """As Books."""
        await self._link.fetch(
            "SELECT advance_wa_template_sync_for(%s::uuid, %s::uuid, %s, %s, %s::jsonb)",
            *self._call,
            cursor,
            _json(templates),
        )

    async def finish(self) -> None:
        """As Books."""
        await self._link.fetch("SELECT finish_wa_template_sync_for(%s::uuid, %s::uuid, %s)", *self._call)

    async def store(self, templates: list[Any]) -> None:
        """As Books."""
        await self._link.fetch(
            "SELECT store_wa_template_for(%s::uuid, %s::uuid, %s, %s::jsonb)", *self._call, _json(templates)
        )

    async def drafts(self, names: list[str] | None) -> list[Draft]:
        """As Books; the call itself says which."""
        assert names is None  # noqa: S101
        rows = await self._link.fetch(
            "SELECT template_id, name, language, provider_template_id, request, problem"
            " FROM get_wa_template_submissions_for(%s::uuid, %s::uuid, %s)",
            *self._call,
        )
        return [Draft._make(row) for row in rows]

    async def record(self, template_id: Any, status: int, answer: dict[str, Any]) -> str:
        """As Books."""
        [(outcome,)] = await self._link.fetch(
            "SELECT record_wa_template_submission_for(%s::uuid, %s::uuid, %s, %s, %s, %s::jsonb)",
            *self._call,
            template_id,
            status,
            _json(answer),
        )
        return str(outcome)

    async def standing(self, template_id: Any) -> Standing | None:
        """As Books."""
        rows = await self._link.fetch(
            "SELECT status, category, rejected_reason"
            " FROM get_wa_submitted_template_for(%s::uuid, %s::uuid, %s, %s)",
            *self._call,
            template_id,
        )
        return Standing._make(rows[0]) if rows else None


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
