"""Requests and answers about events: the feed, and the URLs that they are pushed to."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from pg_whatsapp.api.answers import Told, told
from pg_whatsapp.api.models import Asked, Time
from pg_whatsapp.client import results

DAY_H = 24
# Those of test events lie below zero.
Id = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]


class Acknowledgement(Asked):
    """How far a consumer has dealt with events."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"position": 42}]})

    position: int = Field(strict=True, ge=0, le=2**63 - 1)


class SubscriptionWish(Asked):
    """Where events are pushed to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://shop.example.com/whatsapp", "kinds": ["message", "status.failed"]}]
        }
    )

    url: str = Field(max_length=2000)
    kinds: list[str] = Field(["message", "status"], min_length=1, max_length=50)


class SubscriptionChange(Asked):
    """What of a subscription is changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kinds": ["message"]}]})

    url: str | None = Field(None, max_length=2000)
    kinds: list[str] | None = Field(None, min_length=1, max_length=50)


class Resumption(Asked):
    """From where a subscription goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"from_now": True}]})

    from_now: StrictBool = Field(False, description="Pass over what happened meanwhile.")


class Rotation(Asked):
    """How long the former secret signs beside the new one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_hours": 24}]})

    overlap_hours: float = Field(DAY_H, strict=True, ge=0, le=30 * DAY_H)


class ResendWish(Asked):
    """Which events are pushed again: these, or all that failed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"event_ids": [17, 18]}]})

    event_ids: list[Id] | None = Field(None, max_length=10_000)
    since: Time | None = None


if TYPE_CHECKING:
    Events = results.Events
else:
    Events = told(results.Events)


class Acknowledged(Told):
    """How far a consumer has acknowledged."""

    position: int


class Subscription(Told):
    """A URL that events are pushed to, and whether they get there."""

    id: UUID
    url: str
    kinds: list[str]
    state: Literal["active", "disabled", "gone"]
    state_reason: str | None
    state_changed_at: datetime
    failing_since: datetime | None
    failures: int
    last_error: str | None
    retry_at: datetime | None
    last_success_at: datetime | None
    waiting: int
    oldest_due_at: datetime | None
    oldest_unread_at: datetime | None


class Subscriptions(Told):
    """All of an organization."""

    subscriptions: list[Subscription]


class NewSubscription(Told):
    """A subscription with the secret that signs what is pushed. It is told only here."""

    id: UUID
    secret: str


class NewSecret(Told):
    """A new secret, told only here."""

    secret: str
    former_valid_until: datetime


class Tested(Told):
    """A test event, under whose id the deliveries tell what was answered."""

    event_id: int


class Resent(Told):
    """How many are pushed again."""

    deliveries: int


class Delivery(Told):
    """What became of an event at a subscription."""

    event_id: int
    webhook_id: str
    type: str
    position: int | None
    state: Literal["waiting", "sending", "delivered", "failed"]
    attempts: int
    next_attempt_at: datetime | None = Field(
        description="null while an earlier one of its conversation waits."
    )
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None
    duration_ms: int | None
    http_status: int | None
    answer: str | None
    error: str | None
    created_at: datetime
    ended_at: datetime | None


class Deliveries(Told):
    """A page of deliveries, the latest first."""

    deliveries: list[Delivery]
    next: str | None


class Deleted(Told):
    """Something that is no more."""

    id: UUID
