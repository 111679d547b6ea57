"""What the API lets a business do with its number: register, have webhooks sent, profile, block customers."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final
from urllib.parse import urlencode

from .client import Client, NoAnswerError
from .errors import ControlError, GraphError
from .http import Request, Response, json_response
from .ids import canonical_wa_id
from .state import Number, State
from .validation.checks import child, json_object, needed, needed_child, only, text

_PIN: Final = re.compile(r"[0-9]{6}")
_MOST_GUESSES: Final = 5
_MOST_USERS: Final = 1000
_VERIFY_WITHIN_S: Final = 10.0
# Business profiles, developers.facebook.com, and the same at docs.360dialog.com: WABA Profile Info.
_PROFILE: Final = {"about": 139, "address": 256, "description": 512, "email": 128}
_INDUSTRIES: Final = (
    "UNDEFINED OTHER AUTO BEAUTY APPAREL EDU ENTERTAIN EVENT_PLAN FINANCE GROCERY GOVT HOTEL HEALTH NONPROFIT"
    " PROF_SERVICES RETAIL TRAVEL RESTAURANT NOT_A_BIZ ALCOHOL ONLINE_GAMBLING PHYSICAL_GAMBLING OTC_DRUGS"
)
_VERTICALS: Final = frozenset(_INDUSTRIES.split())
_PROFILE_KEYS: Final = frozenset(
    {*_PROFILE, "vertical", "websites", "profile_picture_handle", "messaging_product"}
)


class Numbers:
    """Endpoints on a business number."""

    def __init__(self, state: State, client: Client) -> None:
        self._state = state
        self._client = client

    def _change(self, number: Number, **values: Any) -> Number:
        try:
            return self._state.register_number({"phone_number_id": number.phone_number_id, **values})
        except ControlError as error:
            raise GraphError(100, str(error)) from None

    def register(self, request: Request, number: Number) -> Response:
        """POST /{phone_number_id}/register: the first PIN is set, later ones must be the same."""
        body = _of_whatsapp(request)
        only(body, frozenset({"messaging_product", "pin", "data_localization_region"}), "")
        pin = needed(body, "pin", "")
        if not _PIN.fullmatch(pin):
            raise GraphError(100, "Param pin must be 6 characters long.")
        if number.pin_guesses >= _MOST_GUESSES:
            raise GraphError(133008, "Too many attempts with a wrong PIN; try again later.")
        if number.pin not in (None, pin):
            self._change(number, pin_guesses=number.pin_guesses + 1)
            raise GraphError(133005, "Two-step verification PIN mismatch.")
        self._change(number, pin=pin, pin_guesses=0, status="CONNECTED")
        return json_response({"success": True})

    async def subscribe(self, request: Request, waba_id: str) -> Response:
        """POST /{waba_id}/subscribed_apps, with a URL for all of the account or without."""
        body = json_object(request.body) if request.body else {}
        only(body, frozenset({"override_callback_uri", "verify_token"}), "")
        if "override_callback_uri" in body:
            url = await self._verified(body, "")
            for number in list(self._state.numbers.values()):
                if self._state.waba_of(number) == waba_id:
                    self._change(number, webhook_url=url)
        return json_response({"success": True})

    async def configure(self, request: Request, number: Number) -> Response:
        """POST /{phone_number_id} with webhook_configuration: where the number's webhooks go."""
        configuration = needed_child(json_object(request.body), "webhook_configuration", "")
        if configuration.get("override_callback_uri") == "":
            self._change(number, webhook_url=None)
        else:
            self._change(number, webhook_url=await self._verified(configuration, "webhook_configuration"))
        return json_response({"success": True})

    async def _verified(self, values: dict[str, Any], path: str) -> str:
        """A URL that answers the request for verification with the challenge, as Meta asks it."""
        url = needed(values, "override_callback_uri", path)
        token = needed(values, "verify_token", path)
        if not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
            raise GraphError(100, "Param override_callback_uri must be a URL with https.")
        challenge = str(secrets.randbelow(10**9))
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        try:
            status, body = await self._client.get(f"{url}?{query}", _VERIFY_WITHIN_S)
        except NoAnswerError:
            raise GraphError(2200, "The callback URL did not answer.") from None
        if status != 200 or body.decode(errors="replace").strip() != challenge:
            raise GraphError(2200, f"The callback URL answered {status}, or without the challenge.")
        return url

    def profile(self, request: Request, number: Number) -> Response:
        """GET or POST of whatsapp_business_profile."""
        if request.method == "GET":
            wanted = (request.query.get("fields") or "about").split(",")
            known = {*_PROFILE_KEYS, "profile_picture_url"}
            if unknown := [name for name in wanted if name not in known]:
                raise GraphError(100, f"Tried accessing nonexisting field ({unknown[0]}).")
            shown = {name: value for name, value in number.profile.items() if name in wanted}
            return json_response({"data": [{"messaging_product": "whatsapp", **shown}]})
        body = _of_whatsapp(request)
        only(body, _PROFILE_KEYS, "")
        for key, maximum in _PROFILE.items():
            text(body, key, "", maximum=maximum, required=key == "about" and key in body)
        if "vertical" in body and body["vertical"] not in _VERTICALS:
            raise GraphError(100, "Param vertical must be one of the industries.")
        sites = body.get("websites", [])
        if not isinstance(sites, list) or len(sites) > 2:
            raise GraphError(100, "Param websites must be an array of at most 2 URLs.")
        for site in sites:
            if not (isinstance(site, str) and site.startswith(("http://", "https://")) and len(site) <= 256):
                raise GraphError(100, "Param websites must have URLs with http:// or https://.")
        changed = {key: value for key, value in body.items() if key != "messaging_product"}
        if handle := changed.pop("profile_picture_handle", None):
            changed["profile_picture_url"] = f"https://pps.example/{handle}"
        self._change(number, profile=number.profile | changed)
        return json_response({"success": True})

    def block(self, request: Request, number: Number) -> Response:
        """GET, POST or DELETE of block_users; what fails for one of them is told beside what worked."""
        if request.method == "GET":
            shown = [{"messaging_product": "whatsapp", "wa_id": wa_id} for wa_id in number.blocked]
            return json_response({"data": [{"block_users": shown}], "paging": {"cursors": {}}})
        body = _of_whatsapp(request)
        only(body, frozenset({"messaging_product", "block_users"}), "")
        users = body.get("block_users")
        if not isinstance(users, list) or not 1 <= len(users) <= _MOST_USERS:
            raise GraphError(100, f"Param block_users must be an array of 1 to {_MOST_USERS} users.")
        done: list[dict[str, str]] = []
        failed: list[dict[str, Any]] = []
        why = "Only users who have messaged you in the last 24 hours can be blocked."
        blocked = list(number.blocked)
        for user in users:
            given = needed(child({"user": user}, "user", "block_users") or {}, "user", "block_users")
            wa_id = canonical_wa_id(re.sub(r"\D", "", given))
            if request.method == "POST" and not self._state.window_open(number, wa_id, None):
                failed.append({"input": given, "errors": [{"code": 139103, "message": why}]})
                continue
            done.append({"input": given, "wa_id": wa_id})
            if request.method == "DELETE":
                blocked = [one for one in blocked if one != wa_id]
            elif wa_id not in blocked:
                blocked.append(wa_id)
        self._change(number, blocked=blocked)
        key = "added_users" if request.method == "POST" else "removed_users"
        answer: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "block_users": {key: done} | ({"failed_users": failed} if failed else {}),
        }
        if not failed:
            return json_response(answer)
        error = {
            "message": "(#139100) Failed to block/unblock users",
            "type": "OAuthException",
            "code": 139100,
            "error_data": {"details": why},
        }
        return json_response(answer | {"error": error}, 400)


def _of_whatsapp(request: Request) -> dict[str, Any]:
    """The JSON body, which must say that it is about WhatsApp."""
    body = json_object(request.body)
    if needed(body, "messaging_product", "") != "whatsapp":
        raise GraphError(100, "Param messaging_product must be one of {WHATSAPP}.")
    return body
