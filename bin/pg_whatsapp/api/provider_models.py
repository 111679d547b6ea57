"""Requests and answers about what the provider is called for, whose conversations are, and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from pg_whatsapp.api.answers import Told, told
from pg_whatsapp.api.models import Asked
from pg_whatsapp.client import results


class ReadWish(Asked):
    """How a conversation is marked as read."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"typing": True}]})

    typing: StrictBool = Field(False, description="Show the customer for 25 seconds that somebody types.")
    phone_number_id: str | None = Field(None, description="Business number; else of the newest conversation.")


class Assignment(Asked):
    """Who looks after a conversation."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "agent-7"}]})

    user: str | None = Field(max_length=200, description="As your system calls the user; null: nobody.")
    phone_number_id: str | None = Field(None, description="Business number; else of the newest conversation.")


class TemplateSyncWish(Asked):
    """Whose templates are fetched."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"waba_id": "102290129340398"}]})

    waba_id: str | None = Field(None, description="WhatsApp business account; else each.", max_length=100)


class TemplateSubmissionWish(Asked):
    """Which templates go to review."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "order_confirmation", "language": "en"}]}
    )

    name: str | None = Field(None, description="Else all drafts that never were.", max_length=512)
    language: str | None = Field(None, max_length=20)


if TYPE_CHECKING:
    MarkedRead = results.MarkedRead
    Assigned = results.Assigned
    ProviderCall = results.ProviderCall
else:
    MarkedRead = told(results.MarkedRead)
    Assigned = told(results.Assigned)
    ProviderCall = told(results.ProviderCall)


class ProviderCalls(Told):
    """Calls that were asked for, one for each account."""

    calls: list[ProviderCall]


class KeptFile(Told):
    """A file that is kept, to be named by messages as content {"media_id": id}."""

    id: UUID


class DeletedFile(Told):
    """A file that was deleted."""

    id: UUID
    former_status: str


#: The body of an upload in the OpenAPI document.
FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
