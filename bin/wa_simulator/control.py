"""The control API under ``/_simulator/``; docs/simulator.md describes it."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

import orjson

from .client import NoAnswerError
from .errors import ControlError
from .http import Answer, Request, json_response
from .journal import Entry
from .management import template_json
from .platform import Platform
from .webhooks import encode

_PAGE = 1000


class Control:
    """Routes control requests."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._routes: dict[
            tuple[str, str], Callable[[Request], dict[str, Any] | Awaitable[dict[str, Any]]]
        ] = {
            ("GET", "health"): lambda request: {"status": "ok"},
            ("GET", "faults"): self._list_faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._remove_faults,
            ("POST", "customer"): self._customer,
            ("GET", "journal"): self._journal,
            ("GET", "numbers"): self._list_numbers,
            ("POST", "numbers"): self._add_number,
            ("GET", "templates"): self._list_templates,
            ("POST", "templates"): self._add_template,
            ("POST", "held"): self._held,
            ("GET", "settings"): lambda request: self._platform.settings.model_dump(),
            ("POST", "settings"): self._change_settings,
            ("POST", "webhook"): self._webhook,
            ("POST", "verify"): self._verify,
            ("POST", "twilio"): lambda request: self._platform.twilio.set_account(self._body(request)),
            ("POST", "twilio_customer"): lambda request: self._platform.twilio.speak(self._body(request)),
            ("POST", "twilio_status"): lambda request: self._platform.twilio.tell_again(self._body(request)),
            ("GET", "twilio_messages"): lambda request: dict(self._platform.twilio.messages),
            ("GET", "stats"): lambda request: self._platform.stats(),
            ("POST", "reset"): self._reset,
        }

    def handle(self, request: Request, name: str) -> Answer | Awaitable[Answer]:
        """Answer a request to ``/_simulator/name``."""
        route = self._routes.get((request.method, name))
        if route is None:
            known = any(path == name for _, path in self._routes)
            return json_response({"error": f"no {request.method} {name}"}, 405 if known else 404)
        return self._run(route, request)

    async def _run(
        self, route: Callable[[Request], dict[str, Any] | Awaitable[dict[str, Any]]], request: Request
    ) -> Answer:
        try:
            result = route(request)
            return json_response(result if isinstance(result, dict) else await result)
        except ControlError as error:
            return json_response({"error": str(error)}, 400)

    @staticmethod
    def _body(request: Request) -> dict[str, Any]:
        if not request.body:
            return {}
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise ControlError(f"not JSON: {error}") from None
        if not isinstance(body, dict):
            raise ControlError("the body must be a JSON object")
        return body

    # faults

    def _list_faults(self, _: Request) -> dict[str, Any]:
        faults = self._platform.faults
        return {
            "faults": [rule.as_dict() for rule in faults.rules],
            "hits": dict(faults.hits),
        }

    def _add_fault(self, request: Request) -> dict[str, Any]:
        body = self._body(request)
        if "seed" in body:
            seed = body.pop("seed")
            if not isinstance(seed, int):
                raise ControlError("seed must be an integer")
            self._platform.faults.seed(seed)
        rules = body.get("faults", [body] if body else [])
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise ControlError("faults must be an array of objects")
        return {"faults": [self._platform.faults.add(rule).as_dict() for rule in rules]}

    def _remove_faults(self, request: Request) -> dict[str, Any]:
        rule_id = request.query.get("id")
        if rule_id is not None and not rule_id.isdigit():
            raise ControlError("id must be an integer")
        return {"removed": self._platform.faults.remove(int(rule_id) if rule_id is not None else None)}

    # customers

    async def _customer(self, request: Request) -> dict[str, Any]:
        return await self._platform.customers.speak(self._body(request), request.base_url)

    # journal

    def _journal(self, request: Request) -> dict[str, Any]:
        query = request.query
        journal = self._platform.journal
        try:
            since = float(query["since"]) if "since" in query else None
            limit = max(1, min(10_000, int(query.get("limit", _PAGE))))
            after = int(query.get("after", "0"))
        except ValueError:
            raise ControlError("since, limit and after are numbers") from None
        matching = journal.find(
            callback_prefix=query.get("callback"),
            to=query.get("to"),
            number=query.get("number"),
            since=since,
            wamid=query.get("wamid"),
        )
        if query.get("format") == "reads":
            reads = [read for read in journal.reads if query.get("number") in (None, read.number)]
            return {"reads": [asdict(read) for read in reads[after : after + limit]], "total": len(reads)}
        if query.get("format") == "summary":
            return journal.summary(matching)
        found = list(matching)
        page = found[after : after + limit]
        answer: dict[str, Any] = {"entries": [_shown(entry) for entry in page], "total": len(found)}
        if after + len(page) < len(found):
            answer["after"] = after + len(page)
            answer["next"] = f"{request.path}?{urlencode({**query, 'after': answer['after']})}"
        return answer

    # registries

    def _list_numbers(self, _: Request) -> dict[str, Any]:
        hidden = ("access_token", "api_key", "webhook_headers", "platform_secret", "pin")
        return {
            "numbers": [
                {key: value for key, value in asdict(number).items() if key not in hidden}
                for number in self._platform.state.numbers.values()
            ]
        }

    def _add_number(self, request: Request) -> dict[str, Any]:
        number = self._platform.state.register_number(self._body(request))
        return {"phone_number_id": number.phone_number_id, "display_phone": number.display_phone}

    def _list_templates(self, _: Request) -> dict[str, Any]:
        templates = self._platform.state.templates.values()
        return {
            "templates": [{"waba_id": template.waba_id, **template_json(template)} for template in templates]
        }

    def _add_template(self, request: Request) -> dict[str, Any]:
        body = self._body(request)
        tell, reason = bool(body.pop("webhook", False)), body.pop("reason", None)
        waba_id = str(body.pop("waba_id", self._platform.state.default_waba))
        template = self._platform.state.put_template(waba_id, body)
        if tell:
            self._platform.tell_template(template, reason)
        return {"id": template.id, "status": template.status, "waba_id": template.waba_id}

    def _held(self, request: Request) -> dict[str, Any]:
        body = self._body(request)
        action, wamid = body.get("action"), body.get("wamid")
        if action not in ("release", "drop"):
            raise ControlError("action is release or drop")
        changed = 0
        for entry in self._platform.journal.find(wamid=wamid):
            if entry.statuses != ["held"]:
                continue
            failed = action == "drop"
            planned = ["failed"] if failed else self._platform.statuses.plan(entry.type)
            self._platform.journal.replan(entry, planned, [132015] if failed else [])
            self._platform.statuses.emit(entry, self._platform.state.numbers[entry.number], planned)
            changed += 1
        return {"changed": changed}

    # settings and state

    def _change_settings(self, request: Request) -> dict[str, Any]:
        body = self._body(request)
        self._platform.settings.update(body)
        self._platform.state.change("settings", **body)
        return self._platform.settings.model_dump()

    def _reset(self, request: Request) -> dict[str, Any]:
        body = self._body(request)
        what = body.get("what", ["journal", "state", "faults", "limits", "settings", "webhooks"])
        unknown = self._platform.reset(what) if isinstance(what, list) else ["what"]
        if unknown:
            raise ControlError(f"cannot reset {', '.join(map(str, unknown))}")
        return {"reset": what}

    # webhooks

    async def _webhook(self, request: Request) -> dict[str, Any]:
        body = self._body(request)
        emitter = self._platform.emitter
        if "raw_base64" in body:
            try:
                raw = base64.b64decode(body["raw_base64"], validate=True)
            except (TypeError, binascii.Error):
                raise ControlError("raw_base64 is not base64") from None
        elif "raw" in body:
            raw = str(body["raw"]).encode()
        else:
            raw = encode(body.get("body", {}), escape_slashes=self._platform.settings.escape_slashes)
        headers = emitter.sign(raw, self._platform.state.numbers.get(str(body.get("number"))))
        kind = body.get("signature", "valid")
        if kind == "missing":
            headers.pop("X-Hub-Signature-256", None)
        elif kind == "wrong":
            headers["X-Hub-Signature-256"] = "sha256=" + secrets.token_hex(32)
        elif kind != "valid":
            headers["X-Hub-Signature-256"] = str(kind)
        wait_s = float(body.get("wait_s", 10.0))
        delivery = await emitter.deliver_raw(raw, headers, wait_s, retry=bool(body.get("retry", False)))
        return delivery.as_dict()

    async def _verify(self, request: Request) -> dict[str, Any]:
        url, token = (
            self._platform.settings.webhook_url,
            self._body(request).get("verify_token", self._platform.verify_token),
        )
        if url is None or token is None:
            raise ControlError("verification needs a webhook URL and a verify token")
        challenge = str(secrets.randbelow(10**10))
        query = urlencode({"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token})
        try:
            status, answer = await self._platform.client.get(
                f"{url}{'&' if '?' in url else '?'}{query}", 10.0
            )
        except NoAnswerError:
            return {"verified": False, "status": None}
        return {"verified": status == 200 and answer == challenge.encode(), "status": status}


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        **entry.record(),
        "delivered": sorted(entry.delivered),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.time)),
    }
