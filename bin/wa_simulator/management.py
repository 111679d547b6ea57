"""The management side of the API: numbers, accounts, templates."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

from .errors import ControlError, GraphError
from .http import Request, Response, json_response
from .settings import Settings
from .state import Number, State, Template, unknown_object
from .validation.checks import json_object, needed
from .validation.template_create import check_components, check_new_template

_EDITABLE: Final = ("APPROVED", "REJECTED", "PAUSED")
_TIER_NAMES: Final = (
    (0, "TIER_NOT_SET"),
    (50, "TIER_50"),
    (250, "TIER_250"),
    (1000, "TIER_1K"),
    (2000, "TIER_2K"),
)
_TIER_NAMES_HIGH: Final = ((10_000, "TIER_10K"), (100_000, "TIER_100K"))


def tier_name(limit: int) -> str:
    """The name of a messaging limit of ``limit`` customers a day."""
    for value, name in _TIER_NAMES + _TIER_NAMES_HIGH:
        if limit <= value:
            return name
    return "TIER_UNLIMITED"


def number_json(number: Number) -> dict[str, Any]:
    """A number as the API shows it, with all fields."""
    return {
        "id": number.phone_number_id,
        "display_phone_number": f"+{number.display_phone}",
        "verified_name": number.verified_name,
        "status": number.status,
        "quality_rating": number.quality_rating,
        "throughput": {"level": "STANDARD" if number.throughput <= 80 else "HIGH"},
        "code_verification_status": "VERIFIED",
        "name_status": "APPROVED",
        "platform_type": "CLOUD_API",
        "account_mode": "SANDBOX",
        "whatsapp_business_manager_messaging_limit": tier_name(number.tier),
        "messaging_limit_tier": tier_name(number.tier),
        "is_official_business_account": False,
        "health_status": {
            "can_send_message": "AVAILABLE" if number.status == "CONNECTED" else "BLOCKED",
            "entities": [],
        },
    }


def template_json(template: Template) -> dict[str, Any]:
    """A template as the API lists it, with all fields."""
    shown: dict[str, Any] = {
        "name": template.name,
        "parameter_format": template.parameter_format,
        "components": template.components,
        "language": template.language,
        "status": template.status,
        "category": template.category,
        "quality_score": {"score": template.quality},
        "rejected_reason": template.rejected_reason,
        "id": template.id,
    }
    if template.message_send_ttl_seconds is not None:
        shown["message_send_ttl_seconds"] = template.message_send_ttl_seconds
    return shown


def channel_template_json(template: Template) -> dict[str, Any]:
    """A template as 360dialog lists it: an id of its own, Meta's beside it."""
    return {
        "id": f"{template.id}WT",
        "external_id": template.id,
        "name": template.name,
        "language": template.language,
        "namespace": "d1e2c3b4_simulated",
        "status": template.status.lower(),
        "category": template.category,
        "quality_score": {"score": template.quality},
        "rejected_reason": None if template.rejected_reason == "NONE" else template.rejected_reason,
        "components": template.components,
    }


def _pick(shown: dict[str, Any], request: Request, default: tuple[str, ...] | None = None) -> dict[str, Any]:
    fields = request.query.get("fields")
    names = fields.split(",") if fields else default
    return (
        shown
        if names is None
        else {key: value for key, value in shown.items() if key in names or key == "id"}
    )


class Management:
    """Endpoints on numbers, accounts and templates; ``on_template`` hears of status changes."""

    def __init__(
        self, state: State, settings: Settings, on_template: Callable[[Template, str | None], None]
    ) -> None:
        self._state = state
        self._settings = settings
        self._on_template = on_template

    def node(self, request: Request, object_id: str) -> Response:
        """GET or POST of a number, an account or a template by its id."""
        template = self._template(object_id)
        if request.method == "POST":
            if template is None:
                raise unknown_object(object_id)
            return self._edit(request, template)
        if template is not None:
            return json_response(_pick(template_json(template), request))
        if object_id in self._state.wabas:
            waba = {"id": object_id, "name": "Simulated account", "currency": "USD", "timezone_id": "1"}
            return json_response(_pick(waba, request))
        number = self._state.number(object_id)
        default = (
            "verified_name",
            "code_verification_status",
            "display_phone_number",
            "quality_rating",
            "throughput",
        )
        return json_response(_pick(number_json(number), request, (*default, "platform_type")))

    def _template(self, object_id: str) -> Template | None:
        return next((found for found in self._state.templates.values() if found.id == object_id), None)

    def phone_numbers(self, request: Request, waba_id: str) -> Response:
        """GET /{waba_id}/phone_numbers."""
        waba_id = self._state.waba(waba_id)
        numbers = [
            number for number in self._state.numbers.values() if self._state.waba_of(number) == waba_id
        ]
        shown = [_pick(number_json(number), request) for number in numbers]
        return json_response(self._page(request, shown, [number.phone_number_id for number in numbers]))

    def webhook_config(self, request: Request, number: Number) -> Response:
        """Where 360dialog sends a number's webhooks, with which headers: docs.360dialog.com, Webhook URL."""
        if request.method == "POST":
            body = json_object(request.body)
            url, headers = needed(body, "url", ""), body.get("headers") or {}
            try:
                number = self._state.register_number(
                    {
                        "phone_number_id": number.phone_number_id,
                        "webhook_url": url,
                        "webhook_headers": headers,
                    }
                )
            except ControlError as error:
                raise GraphError(100, str(error)) from None
        return json_response({"url": number.webhook_url, "headers": number.webhook_headers or {}})

    def list_templates(self, request: Request, waba_id: str) -> Response:
        """GET /{waba_id}/message_templates, with filters and paging."""
        query = request.query
        templates = []
        for template in self._state.templates_of(self._state.waba(waba_id)):
            values = {
                "name": template.name,
                "language": template.language,
                "category": template.category,
                "status": template.status,
                "quality_score": template.quality,
            }
            if all(key not in query or query[key].upper() == value.upper() for key, value in values.items()):
                templates.append(template)
        shown = [_pick(template_json(template), request) for template in templates]
        return json_response(self._page(request, shown, [template.id for template in templates]))

    @staticmethod
    def _page(request: Request, shown: list[dict[str, Any]], ids: list[str]) -> dict[str, Any]:
        query = request.query
        try:
            limit = max(1, min(1000, int(query.get("limit", "25"))))
        except ValueError:
            raise GraphError(100, "Param limit must be an integer.") from None
        start = _after(query["after"], ids) if query.get("after") else 0
        page = shown[start : start + limit]
        answer: dict[str, Any] = {"data": page}
        if page:
            last = start + len(page) - 1
            answer["paging"] = {"cursors": {"before": _cursor(ids[start]), "after": _cursor(ids[last])}}
            if last + 1 < len(shown):
                following = urlencode({**query, "limit": limit, "after": _cursor(ids[last])})
                host = request.headers.get("host", "localhost")
                answer["paging"]["next"] = f"http://{host}{request.path}?{following}"
        return answer

    def create_template(self, request: Request, waba_id: str) -> Response:
        """POST /{waba_id}/message_templates."""
        values = json_object(request.body)
        waba_id = self._state.waba(waba_id)
        if "components" in values:
            values["components"] = _upper(values["components"])
        check_new_template(values)
        name = values["name"]
        if (waba_id, name, values["language"]) in self._state.templates:
            raise GraphError(
                100, "There is already content in this language for this template.", subcode=2388024
            )
        known = ("name", "language", "category", "components", "parameter_format", "message_send_ttl_seconds")
        kept = {key: values[key] for key in known if key in values}
        category = self._settings.template_category or str(values["category"]).upper()
        template = self._put(waba_id, {**kept, "category": category, "status": "PENDING"})
        answer = {"id": template.id, "status": "PENDING", "category": template.category}
        if self._settings.auto_approve_templates:
            self.set_status(template, "APPROVED", None)
        return json_response(answer)

    # 360dialog's, by the key of a number: docs.360dialog.com, Create and manage Template Messages

    def list_channel_templates(self, request: Request, number: Number) -> Response:
        """GET /v1/configs/templates, by offset; states in small letters."""
        try:
            limit = int(request.query.get("limit", "1000"))
            offset = int(request.query.get("offset", "0"))
            filters = json_object(request.query.get("filters", "{}").encode())
        except ValueError:
            raise GraphError(100, "limit and offset must be integers.") from None
        name = filters.get("business_templates.name")
        found = [t for t in self._state.templates_of(self._state.waba_of(number)) if name in (None, t.name)]
        page = found[offset : offset + limit]
        return json_response(
            {
                "count": len(page),
                "filters": filters,
                "limit": limit,
                "offset": offset,
                "sort": ["id"],
                "total": len(found),
                "waba_templates": [channel_template_json(template) for template in page],
            }
        )

    def create_channel_template(self, request: Request, number: Number) -> Response:
        """POST /v1/configs/templates; what is wrong with it is told under meta, without a code."""
        waba_id = self._state.waba_of(number)
        try:
            answer = self.create_template(request, waba_id)
        except GraphError as error:
            exists = error.subcode == 2388024
            words = "Template with this name and language already exists" if exists else error.details
            meta = {"success": False, "http_code": 400, "developer_message": words}
            return json_response({"meta": meta}, 400)
        made = self._template(str(json_object(answer.body)["id"]))
        assert made is not None  # noqa: S101
        return json_response(channel_template_json(made) | {"status": "submitted"}, 201)

    def delete_channel_template(self, name: str, number: Number) -> Response:
        """DELETE /v1/configs/templates/{name}."""
        found = [t for t in self._state.templates_of(self._state.waba_of(number)) if t.name == name]
        for template in found:
            self._state.change(
                "template_delete", waba_id=template.waba_id, name=name, language=template.language
            )
            self._on_template(replace(template, status="DELETED"), None)
        meta = {"success": bool(found), "http_code": 200 if found else 404, "developer_message": "success"}
        return json_response({"meta": meta}, 200 if found else 404)

    def _put(self, waba_id: str, values: dict[str, Any]) -> Template:
        try:
            return self._state.put_template(waba_id, values)
        except ControlError as error:
            raise GraphError(100, str(error)) from None

    def set_status(
        self, template: Template, status: str, reason: str | None, *, tell: bool = True
    ) -> Template:
        """Change the status of a template and (``tell``) send the webhook that says so."""
        changed = replace(template, status=status, rejected_reason=reason or "NONE")
        values = {name: getattr(changed, name) for name in changed.__slots__}
        changed = self._state.put_template(template.waba_id, values)
        if tell:
            self._on_template(changed, reason)
        return changed

    def _edit(self, request: Request, template: Template) -> Response:
        values = json_object(request.body)
        if template.status not in _EDITABLE:
            raise GraphError(100, f"A template that is {template.status} cannot be edited.")
        known = ("category", "components", "message_send_ttl_seconds", "parameter_format")
        kept = {key: values[key] for key in known if key in values}
        if "components" in kept:
            kept["components"] = _upper(kept["components"])
            check_components(kept["components"], template.category)
        # What runs stays in use; what was rejected is looked at again.
        if template.status == "REJECTED":
            kept |= {"status": "PENDING", "rejected_reason": "NONE"}
        self._put(template.waba_id, {"name": template.name, "language": template.language, **kept})
        return json_response({"success": True})

    def unpause(self, template_id: str) -> Response:
        """POST /{template_id}/unpause."""
        template = self._template(template_id)
        if template is None:
            raise unknown_object(template_id)
        if template.status != "PAUSED":
            raise GraphError(100, "The template is not paused.")
        self.set_status(template, "APPROVED", None)
        return json_response({"success": True})

    def delete_templates(self, request: Request, waba_id: str) -> Response:
        """DELETE /{waba_id}/message_templates?name=…[&hsm_id=…]."""
        query = request.query
        if "name" not in query:
            raise GraphError(131008, "The parameter name is required.")
        found = [
            template
            for template in self._state.templates_of(self._state.waba(waba_id))
            if template.name == query["name"] and query.get("hsm_id", template.id) == template.id
        ]
        if not found:
            raise GraphError(100, "There is no such template.")
        for template in found:
            self._state.change(
                "template_delete", waba_id=template.waba_id, name=template.name, language=template.language
            )
            self._on_template(replace(template, status="DELETED"), None)
        return json_response({"success": True})


def _upper(components: Any) -> list[dict[str, Any]]:
    """Components with their types as the API lists them; either case is accepted."""
    if not isinstance(components, list) or not all(isinstance(part, dict) for part in components):
        raise GraphError(100, "Param components must be an array of objects.")
    return [{**part, "type": str(part.get("type", "")).upper()} for part in components]


def _cursor(object_id: str) -> str:
    return base64.urlsafe_b64encode(f"after:{object_id}".encode()).decode()


def _after(cursor: str, ids: list[str]) -> int:
    """The position after ``cursor``; GraphError 131059 for one that was never given out."""
    try:
        prefix, _, object_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        if prefix != "after":
            raise ValueError
        return ids.index(object_id) + 1
    except (ValueError, binascii.Error):
        raise GraphError(131059, "The paging cursor is not valid; start again without one.") from None
