"""Routes requests: the Graph API's paths, and those of the control API."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Final

from .control import Control
from .errors import GraphError
from .http import Answer, Request
from .media import META_FILES
from .platform import Platform
from .state import unknown_object

_VERSION: Final = re.compile(r"v(\d+)(?:\.\d+)?")
NEWEST_VERSION: Final = 26


class App:
    """The endpoints of a platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._control = Control(platform)

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Route a request."""
        self._platform.requests += 1
        segments = request.path.strip("/").split("/")
        version = NEWEST_VERSION
        if match := _VERSION.fullmatch(segments[0]):
            version = int(match.group(1))
            segments = segments[1:]
        if segments[-1:] == ["messages"] and request.method == "POST" and len(segments) <= 2:
            return self._platform.sender.handle(request, segments[0] if len(segments) == 2 else None, version)
        if segments[:2] == ["2010-04-01", "Accounts"] and len(segments) > 2:
            return self._platform.twilio.handle(request, segments[2:])
        if segments == ["ContentAndApprovals"]:
            return self._platform.twilio.list_contents(request)
        if segments[:1] == ["_twilio"] and len(segments) == 2:
            return self._platform.twilio.give_media(segments[1])
        if segments[:1] == ["_simulator"] and len(segments) == 2:
            return self._control.handle(request, segments[1])
        try:
            return self._graph(request, segments, version)
        except GraphError as error:
            return error.response()

    def _graph(self, request: Request, segments: list[str], version: int) -> Answer | Awaitable[Answer]:
        method = request.method
        match segments:
            case [number_id, "marketing_messages"] if method == "POST":
                return self._platform.sender.handle(request, number_id, version, marketing=True)
            case ["_media", media_id] if method == "GET":
                self._authorize(request)
                return self._platform.media.download(request, media_id)
            case ["configs", "webhook"] if method in ("GET", "POST"):
                return self._platform.management.webhook_config(
                    request, self._platform.sender.number_of(request, None)
                )
            case ["configs", "templates"] if method == "GET":
                return self._platform.management.list_channel_templates(
                    request, self._platform.sender.number_of(request, None)
                )
            case ["configs", "templates"] if method == "POST":
                return self._platform.management.create_channel_template(
                    request, self._platform.sender.number_of(request, None)
                )
            case ["configs", "templates", name] if method == "DELETE":
                return self._platform.management.delete_channel_template(
                    name, self._platform.sender.number_of(request, None)
                )
            case ["whatsapp_business_profile"] if method in ("GET", "POST"):
                return self._platform.numbers.profile(request, self._platform.sender.number_of(request, None))
            case ["block_users"] if method in ("GET", "POST", "DELETE"):
                return self._platform.numbers.block(request, self._platform.sender.number_of(request, None))
            case ["media"] if method == "POST":
                self._platform.sender.number_of(request, None)
                return self._platform.media.upload(request)
            case [media_id] if method == "GET" and "d360-api-key" in request.headers:
                self._authorize(request)
                media = self._platform.state.media.get(media_id)
                if media is not None:
                    return self._platform.media.describe(media, META_FILES)
            case [number_id, "register"] if method == "POST":
                return self._platform.numbers.register(
                    request, self._platform.sender.number_of(request, number_id)
                )
            case [number_id, "whatsapp_business_profile"] if method in ("GET", "POST"):
                return self._platform.numbers.profile(
                    request, self._platform.sender.number_of(request, number_id)
                )
            case [number_id, "block_users"] if method in ("GET", "POST", "DELETE"):
                return self._platform.numbers.block(
                    request, self._platform.sender.number_of(request, number_id)
                )
            case [number_id, "media"] if method == "POST":
                self._platform.sender.number_of(request, number_id)
                return self._platform.media.upload(request)
            case [object_id, *edge] if object_id and len(edge) <= 1:
                self._platform.sender.authorize(request, self._platform.state.numbers.get(object_id))
                return self._object(request, object_id, edge[0] if edge else None)
        raise unknown_object("/".join(segments))

    def _authorize(self, request: Request) -> None:
        """Refuse a request without a bearer token, or a 360dialog key, that is known."""
        if "d360-api-key" in request.headers:
            self._platform.sender.number_of(request, None)
        else:
            self._platform.sender.authorize(request)

    def _object(self, request: Request, object_id: str, edge: str | None) -> Answer | Awaitable[Answer]:
        management = self._platform.management
        match request.method, edge:
            case "GET", None if object_id in self._platform.state.media:
                return self._platform.media.describe(self._platform.state.media[object_id], request.base_url)
            case "POST", None if object_id in self._platform.state.numbers:
                return _answered(
                    self._platform.numbers.configure(request, self._platform.state.numbers[object_id])
                )
            case "GET" | "POST", None:
                return management.node(request, object_id)
            case "DELETE", None:
                return self._platform.media.delete(object_id)
            case "GET", "message_templates":
                return management.list_templates(request, object_id)
            case "POST", "message_templates":
                return management.create_template(request, object_id)
            case "DELETE", "message_templates":
                return management.delete_templates(request, object_id)
            case "GET", "phone_numbers":
                return management.phone_numbers(request, object_id)
            case "POST", "subscribed_apps":
                waba_id = self._platform.state.waba(object_id)
                return _answered(self._platform.numbers.subscribe(request, waba_id))
            case "POST", "unpause":
                return management.unpause(object_id)
        raise unknown_object(f"{object_id}/{edge}" if edge else object_id)


async def _answered(work: Awaitable[Answer]) -> Answer:
    """What an endpoint that has to wait answers, or the error that it raises."""
    try:
        return await work
    except GraphError as error:
        return error.response()
