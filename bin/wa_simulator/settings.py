"""The switches of the simulator, all of them changeable while it runs (``POST /_simulator/settings``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import ControlError


@dataclass(slots=True)
class Settings:
    """Every switch with its default; durations are in milliseconds or seconds as the name says."""

    # what is enforced
    auto_register: bool = True
    window: str = "async"  # 'async': failed status 131047; 'sync': refused with 131047; 'off'
    throughput: bool = True
    pair: bool = True
    tier: bool = False
    limit_jitter_ms: int = 250
    throttle_status: int = 400
    rewrite_wa_id: bool = True
    check_message_ids: bool = True
    check_media_ids: bool = False
    hold_templates: float = 0.0
    message_status: bool = True
    auto_approve_templates: bool = False
    template_category: str = ""  # what new templates get, whatever was asked for
    media_url_ttl_s: int = 300
    answer_delay_ms: int = 0

    # webhooks: where to, what, when
    webhook_url: str | None = None
    statuses: tuple[str, ...] = ("sent", "delivered", "read")
    sent_after_ms: int = 20
    delivered_after_ms: int = 80
    read_after_ms: int = 200
    webhook_delay_ms: int = 0
    webhook_jitter_ms: int = 0
    shuffle: float = 0.0
    repeat: float = 0.0
    repeat_after_ms: int = 200
    skip_delivered: float = 0.0
    fail: float = 0.0
    fail_code: int = 131026
    before_answer: bool = False
    batch_max: int = 1
    batch_wait_ms: int = 0
    shape: str = "v24"
    pricing_on: str = "sent"
    identity: str = "phone"  # 'phone', 'both' (phone and user id), 'user_id' (no phone anywhere)
    escape_slashes: bool = False
    retry_first_ms: int = 50
    retry_max_ms: int = 5000
    retry_for_s: int = 7 * 24 * 3600
    webhook_timeout_s: float = 10.0
    webhook_connections: int = 8

    def update(self, changes: dict[str, Any]) -> None:
        """Apply ``changes``; all of them or, when one is wrong, none.

        Raises ControlError for unknown names, wrong types and values outside a switch's range.
        """
        checked = {name: _checked(name, value) for name, value in changes.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """All switches as JSON-ready values."""
        return asdict(self)


_TYPES = {f.name: str(f.type) for f in fields(Settings)}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "window": ("async", "sync", "off"),
    "template_category": ("", "MARKETING", "UTILITY", "AUTHENTICATION"),
    "throttle_status": (400, 429),
    "shape": ("v23", "v24"),
    "pricing_on": ("sent", "delivered"),
    "identity": ("phone", "both", "user_id"),
}
_PROBABILITIES = ("hold_templates", "shuffle", "repeat", "skip_delivered", "fail")
_AT_LEAST_ONE = ("batch_max", "webhook_connections", "retry_first_ms")


def _checked(name: str, value: Any) -> Any:
    kind = _TYPES.get(name)
    if kind is None:
        raise ControlError(f"unknown setting {name!r}; there are: {', '.join(sorted(_TYPES))}")
    if kind == "bool":
        valid = isinstance(value, bool)
    elif kind == "int":
        valid = isinstance(value, int) and not isinstance(value, bool) and value >= (name in _AT_LEAST_ONE)
    elif kind == "float":
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        valid = valid and (name not in _PROBABILITIES or value <= 1)
    elif kind == "str | None":
        valid = value is None or (isinstance(value, str) and value.startswith(("http://", "https://")))
    elif kind == "str":
        valid = isinstance(value, str)
    else:
        known = {"sent", "delivered", "read"}
        valid = isinstance(value, (list, tuple)) and all(item in known for item in value)
        value = tuple(value) if valid else value
    if not valid or (name in _CHOICES and value not in _CHOICES[name]):
        allowed = f" (one of {_CHOICES[name]})" if name in _CHOICES else ""
        raise ControlError(f"setting {name!r} does not take {value!r}{allowed}; it is of type {kind}")
    return value
