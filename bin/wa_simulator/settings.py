"""The switches of the simulator, all of them changeable while it runs (``POST /_simulator/settings``)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from .checked import checked

Probability = Annotated[float, Field(ge=0, le=1)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://")]


class Settings(BaseModel):
    """Every switch with its default; durations are in milliseconds or seconds as the name says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    # what is enforced
    auto_register: bool = True
    window: Literal["async", "sync", "off"] = "async"  # a failed status 131047, refused with 131047, allowed
    throughput: bool = True
    pair: bool = True
    tier: bool = False
    limit_jitter_ms: NonNegativeInt = 250
    throttle_status: Literal[400, 429] = 400
    rewrite_wa_id: bool = True
    check_message_ids: bool = True
    check_media_ids: bool = False
    hold_templates: Probability = 0.0
    message_status: bool = True
    auto_approve_templates: bool = False
    # what new templates get, whatever was asked for
    template_category: Literal["", "MARKETING", "UTILITY", "AUTHENTICATION"] = ""
    media_url_ttl_s: NonNegativeInt = 300
    answer_delay_ms: NonNegativeInt = 0

    # webhooks: where to, what, when
    webhook_url: HttpUrl | None = None
    statuses: list[Literal["sent", "delivered", "read"]] = ["sent", "delivered", "read"]
    sent_after_ms: NonNegativeInt = 20
    delivered_after_ms: NonNegativeInt = 80
    read_after_ms: NonNegativeInt = 200
    webhook_delay_ms: NonNegativeInt = 0
    webhook_jitter_ms: NonNegativeInt = 0
    shuffle: Probability = 0.0
    repeat: Probability = 0.0
    repeat_after_ms: NonNegativeInt = 200
    skip_delivered: Probability = 0.0
    fail: Probability = 0.0
    fail_code: NonNegativeInt = 131026
    before_answer: bool = False
    batch_max: PositiveInt = 1
    batch_wait_ms: NonNegativeInt = 0
    shape: Literal["v23", "v24"] = "v24"
    pricing_on: Literal["sent", "delivered"] = "sent"
    identity: Literal["phone", "both", "user_id"] = "phone"  # 'user_id': no phone anywhere
    escape_slashes: bool = False
    retry_first_ms: PositiveInt = 50
    retry_max_ms: NonNegativeInt = 5000
    retry_for_s: NonNegativeInt = 7 * 24 * 3600
    webhook_timeout_s: NonNegativeFloat = 10.0
    webhook_connections: PositiveInt = 8

    def update(self, changes: dict[str, Any]) -> None:
        """Apply ``changes``; all of them or, when one is wrong, none.

        Raises ControlError for unknown names, wrong types and values outside a switch's range.
        """
        new = checked(Settings, self.model_dump() | changes)
        for name in changes:
            setattr(self, name, getattr(new, name))
