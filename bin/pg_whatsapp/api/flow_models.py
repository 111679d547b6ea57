"""Requests and answers about flows: their runs, what steers them, their definitions."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from pg_whatsapp.api.answers import Told
from pg_whatsapp.api.models import Asked, Json, Time

Status = Literal["active", "paused", "completed", "cancelled", "failed"]


class FlowStart(Asked):
    """A flow to start for a customer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "flow": "order_confirmation",
                    "phone": "+15551234567",
                    "context": {"order_id": "ORD-1", "order_details": "two cups"},
                }
            ]
        }
    )

    flow: str = Field(max_length=100)
    phone: str = Field(description="Phone number with country code, or a user id.", max_length=100)
    context: Json = Field(default_factory=dict, description="What its steps take their values from.")
    key: str | None = Field(None, description="What it is about: it is started once.", max_length=200)


class FlowAction(Asked):
    """What is done with a run."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "pause", "reason": "the customer rang"}]}
    )

    action: Literal["pause", "resume", "cancel", "advance"]
    step: str | None = Field(None, description="Of advance: the step to go on at.", max_length=63)
    reason: str | None = Field(None, max_length=500)


class FlowDefinition(Asked):
    """A definition to store; docs/flows.schema.json describes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "definition": {
                        "name": "hello",
                        "steps": [{"name": "greet", "type": "send", "text_body": "Hello!"}],
                    }
                }
            ]
        }
    )

    definition: Json
    activate: StrictBool = Field(True, description="Have new runs take it, once its templates are approved.")


class FlowEvent(Asked):
    """Something that happened at the host."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "shipped", "key": "ORD-1", "data": {"carrier": "UPS"}}]}
    )

    name: str = Field(min_length=1, max_length=100)
    key: str | None = Field(None, description="The key with which runs were started.", max_length=200)
    phone: str | None = Field(None, description="The customer, for whom it may start flows.", max_length=100)
    data: Json = Field(default_factory=dict)
    event_id: str | None = Field(None, description="Yours: what comes twice counts once.", max_length=200)


class FlowPreview(Asked):
    """A flow to be looked through without being started."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"flow": "order_confirmation", "phone": "+15551234567"}]}
    )

    flow: str = Field(max_length=100)
    phone: str | None = Field(None, max_length=100)
    context: Json = Field(default_factory=dict)
    events: Json = Field(default_factory=dict, description="What comes at waits, by the names of the steps.")


class FlowRun(Told):
    """A run of a flow."""

    id: UUID
    flow: str
    version: int | None = Field(description="null: the engine leaves it to the host.")
    phone: str | None
    key: str | None
    status: Status
    step: str
    outcome: str | None
    error: str | None
    context: dict[str, Any]
    next_action_at: Time | None
    created_at: Time
    ended_at: Time | None


class FlowStep(Told):
    """What a run did, or waited for."""

    step_no: int
    step: str
    visit: int
    type: str
    outcome: str
    message_id: UUID | None
    detail: Any
    entered_at: Time
    ended_at: Time


class FlowRunWhole(FlowRun):
    """A run, where it stands, and what it did."""

    state: str
    explanation: str | None
    way_out: str | None
    steps: list[FlowStep]


class FlowRuns(Told):
    """A page of runs."""

    flows: list[FlowRun]
    next: str | None


class StoredFlow(Told):
    """A version of a flow."""

    name: str
    version: int
    state: Literal["draft", "active", "retired"]
    state_reason: str | None
    definition: dict[str, Any]
    created_at: Time


class StoredFlows(Told):
    """The flows that there are."""

    definitions: list[StoredFlow]


class PreviewedStep(Told):
    """What a flow would do at a step."""

    n: int
    at: Time
    step: str
    type: str
    what: str | None
    why: str | None
    cost: float | None
    currency: str | None


class PreviewedFlow(Told):
    """What a flow would do."""

    steps: list[PreviewedStep]


class FlowEventTaken(Told):
    """An event that was recorded."""

    id: int | None = Field(description="null: it came before.")


class ProcessedFlows(Told):
    """How many runs were carried on."""

    processed: int
