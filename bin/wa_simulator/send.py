"""The endpoint that takes messages."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from .emitter import Emitter
from .errors import GraphError
from .faults import Faults, Rule
from .http import CUT, Answer, Request, Response, json_response
from .ids import canonical_wa_id, new_wamid
from .journal import Entry, Journal, Read
from .limits import Limits
from .settings import Settings
from .state import Number, State, Template
from .statuses import Statuses
from .validation.checks import json_object
from .validation.messages import Outgoing, Receipt, addressee, parse
from .validation.template import check_status, check_template

_HTML_503 = (
    b"<!DOCTYPE html><html><head><title>Error</title></head>"
    b"<body><h1>Sorry, something went wrong.</h1></body></html>"
)


class Sender:
    """Checks, limits, accepts and answers send requests."""

    def __init__(
        self,
        state: State,
        settings: Settings,
        journal: Journal,
        faults: Faults,
        limits: Limits,
        statuses: Statuses,
        emitter: Emitter,
        access_token: str | None,
    ) -> None:
        self.state = state
        self.settings = settings
        self.journal = journal
        self.faults = faults
        self.limits = limits
        self.statuses = statuses
        self.emitter = emitter
        self.access_token = access_token
        self.answers: Counter[str] = Counter()

    # credentials

    def authorize(self, request: Request, number: Number | None = None) -> None:
        """Refuse a request without the right bearer token: GraphError 190.

        Where no token is set, any will do.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise GraphError(190, "An access token is required to request this resource.")
        accepted = self._tokens(number)
        if accepted and not any(hmac.compare_digest(token.encode(), known.encode()) for known in accepted):
            raise GraphError(190, "Error validating access token: the session is invalid.")

    def _tokens(self, number: Number | None) -> list[str]:
        if number is not None:
            token = number.access_token or self.access_token
            return [token] if token else []
        others = [other.access_token for other in self.state.numbers.values()]
        return [known for known in (self.access_token, *others) if known]

    def number_of(self, request: Request, phone_number_id: str | None) -> Number:
        """The business number of a request, once its credential was checked."""
        if phone_number_id is None:
            key = request.headers.get("d360-api-key")
            if not key:
                raise GraphError(190, "The header D360-API-KEY is missing.")
            return self.state.number_for_key(key)
        known = self.state.numbers.get(phone_number_id)
        self.authorize(request, known)
        return known or self.state.number(phone_number_id)

    # the endpoint

    def handle(
        self, request: Request, phone_number_id: str | None, version: int, *, marketing: bool = False
    ) -> Answer | Awaitable[Answer]:
        """Answer a POST to ``/messages`` (``/marketing_messages``); None as the id means a 360dialog key."""
        try:
            number = self.number_of(request, phone_number_id)
            body = json_object(request.body)
            rule = self.faults.pick(number.phone_number_id, addressee(body))
            if rule is not None and (refusal := self._refuse_by(rule)) is not None:
                return refusal
            message = parse(body, marketing=marketing)
            if isinstance(message, Receipt):
                return self._receipt(number, message)
            entry = self._accept(request, body, number, message, version, marketing, rule)
        except GraphError as error:
            self.answers[str(error.code)] += 1
            return error.response(throttle_status=self.settings.throttle_status)
        if rule is not None:
            self.faults.hit(rule)
        answer = json_response(self._success(entry, message))
        self.answers["200"] += 1
        if rule is None and not self.settings.before_answer and not self.settings.answer_delay_ms:
            return answer
        return self._answer_later(entry, number, answer, rule)

    def _receipt(self, number: Number, receipt: Receipt) -> Answer:
        if self.settings.check_message_ids and receipt.message_id not in self.state.message_ids:
            raise GraphError(131009, "Param message_id is not a message that was received.")
        self.journal.mark_read(Read(time.time(), number.phone_number_id, receipt.message_id, receipt.typing))
        self.answers["200"] += 1
        return json_response({"success": True})

    def _refuse_by(self, rule: Rule) -> Answer | Awaitable[Answer] | None:
        """What a rule that acts before acceptance answers; None for one that acts afterwards."""
        if rule.mode == "cut_before":
            self.faults.hit(rule)
            return CUT
        if rule.mode == "hang_before":
            self.faults.hit(rule)
            return _hang(rule.seconds)
        if rule.mode == "edge_error":
            # As 360dialog words what Meta never saw: its Messaging API, ErrorResp.
            self.faults.hit(rule)
            return json_response({"error": rule.details}, rule.status or 502)
        if rule.mode == "http_503_html":
            self.faults.hit(rule)
            headers = {"Retry-After": str(round(rule.retry_after))} if rule.retry_after is not None else None
            return Response(rule.status or 503, _HTML_503, "text/html; charset=utf-8", headers)
        code = {"http_500_json": 131000, "throttle": 130429, "pair": 131056, "error": rule.code}.get(
            rule.mode
        )
        if code is None:
            return None
        self.faults.hit(rule)
        throttle_status = rule.status or self.settings.throttle_status
        return GraphError(code, rule.details, subcode=rule.subcode, status=rule.status).response(
            throttle_status=throttle_status, retry_after=rule.retry_after
        )

    # acceptance

    def _accept(
        self,
        request: Request,
        body: dict[str, Any],
        number: Number,
        message: Outgoing,
        version: int,
        marketing: bool,
        rule: Rule | None,
    ) -> Entry:
        now = time.time()
        template = self._check_registries(number, message, version, marketing)
        wa_id = self.state.shown_wa_id(message.digits) if message.digits is not None else None
        recipient = message.recipient if message.to is None else None
        if message.digits is not None and message.digits == number.display_phone:
            raise GraphError(131021, "The recipient is the business number itself.")
        if message.digits is not None and canonical_wa_id(message.digits) in number.blocked:
            raise GraphError(130403, "The business has blocked this user.")
        failure = self._limits(number, message, wa_id, recipient, now)
        if rule is not None and rule.mode == "fail_status":
            failure = rule.code
        if failure is None:
            failure = self._reaction_failure(message) or self.statuses.failure()
        held = failure is None and template is not None and self.statuses.held()
        voice = message.type == "audio" and message.content.get("voice") is True
        planned = ["failed"] if failure is not None else self.statuses.plan(message.type, voice=voice)
        entry = Entry(
            time=now,
            number=number.phone_number_id,
            to=message.to,
            recipient=message.recipient,
            wa_id=wa_id,
            wamid=new_wamid(),
            callback=message.callback,
            type=message.type,
            category=_category(template, marketing),
            template=template.name if template is not None else None,
            sha256=hashlib.sha256(request.body).hexdigest(),
            statuses=["held"] if held else planned,
            errors=[failure] if failure is not None else [],
        )
        self.journal.accept(entry)
        if not held and not self.settings.before_answer:
            self.statuses.emit(entry, number, planned)
        return entry

    def _check_registries(
        self, number: Number, message: Outgoing, version: int, marketing: bool
    ) -> Template | None:
        if number.status != "CONNECTED":
            raise GraphError(133010, f"The phone number is {number.status}, not CONNECTED.")
        template = None
        if message.type == "template":
            content = message.content
            name, language = content["name"], content["language"]["code"]
            template = check_status(self.state.template(number, name, language), name, language)
            check_template(content, template, version, message.media_ids)
            if marketing and template.category != "MARKETING":
                raise GraphError(131055, "Only marketing templates can be sent by this endpoint.")
            if template.category == "AUTHENTICATION" and message.to is None:
                raise GraphError(131062, "An authentication template needs a phone number.")
        if self.settings.check_media_ids:
            for media_id in message.media_ids:
                if media_id not in self.state.media:
                    raise GraphError(100, f"Media with ID {media_id} was not found.")
        return template

    def _limits(
        self, number: Number, message: Outgoing, wa_id: str | None, recipient: str | None, now: float
    ) -> int | None:
        """Charge the limits; returns the code of a failed status to come, if there is to be one."""
        settings, limits = self.settings, self.limits
        in_window = message.group or self.state.window_open(number, wa_id, recipient)
        jitter = settings.limit_jitter_ms / 1000
        clock = time.monotonic()
        if settings.throughput and not limits.throughput.take(
            number.phone_number_id, number.throughput, clock, jitter
        ):
            limits.refused["throughput"] += 1
            raise GraphError(130429, "Cloud API message throughput has been reached.")
        customer = canonical_wa_id(wa_id) if wa_id else (recipient or message.to or "")
        if settings.pair and not limits.pair.take(number.phone_number_id, customer, clock, jitter):
            limits.refused["pair"] += 1
            raise GraphError(
                131056, "Too many messages sent from this number to the same customer in a short time."
            )
        if message.type != "template" and not in_window and settings.window != "off":
            limits.refused["window"] += 1
            if settings.window == "sync":
                raise GraphError(131047, "More than 24 hours have passed since the customer last wrote.")
            return 131047
        if (
            settings.tier
            and not in_window
            and not limits.tier.take(number.portfolio, customer, number.tier, clock)
        ):
            limits.refused["tier"] += 1
            raise GraphError(131048, "The messaging limit of the portfolio has been reached.")
        return None

    def _reaction_failure(self, message: Outgoing) -> int | None:
        if message.type != "reaction" or not self.settings.check_message_ids:
            return None
        target = message.content["message_id"]
        sent = self.journal.by_wamid.get(target)
        known = target in self.state.message_ids or (sent is not None and sent.type != "reaction")
        return None if known else 131009

    def _success(self, entry: Entry, message: Outgoing) -> dict[str, Any]:
        contact: dict[str, Any] = {"input": message.to or message.recipient}
        if entry.wa_id is not None:
            contact["wa_id"] = entry.wa_id
        if message.recipient is not None:
            contact["user_id"] = message.recipient
        result: dict[str, Any] = {"id": entry.wamid}
        if message.group:
            result["group_id"] = message.to
        if entry.type == "template" and self.settings.message_status:
            held = entry.statuses == ["held"]
            result["message_status"] = "held_for_quality_assessment" if held else "accepted"
        return {"messaging_product": "whatsapp", "contacts": [contact], "messages": [result]}

    async def _answer_later(
        self, entry: Entry, number: Number, answer: Response, rule: Rule | None
    ) -> Answer:
        if self.settings.before_answer and entry.statuses != ["held"]:
            first, rest = entry.statuses[:1], entry.statuses[1:]
            if first:
                await self.emitter.deliver([self.statuses.atom(entry, number, first[0])], 5.0)
            self.statuses.emit(entry, number, rest)
        if self.settings.answer_delay_ms:
            await asyncio.sleep(self.settings.answer_delay_ms / 1000)
        if rule is None or rule.mode == "fail_status":
            return answer
        if rule.mode == "cut_after":
            return CUT
        if rule.mode == "garbage":
            return Response(200, b"\x1f\x8bnot the JSON you expect <", "application/json")
        if rule.mode == "hang_after":
            return await _hang(rule.seconds)
        await asyncio.sleep(rule.seconds)
        return answer


async def _hang(seconds: float) -> Answer:
    await asyncio.sleep(seconds)
    return CUT


def _category(template: Template | None, marketing: bool) -> str | None:
    if template is None:
        return None
    return "marketing_lite" if marketing else template.category.lower()
