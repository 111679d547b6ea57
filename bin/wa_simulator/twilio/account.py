"""Accounts at Twilio: takes messages as the Message resource does, tells what became of them, and speaks as
customers do.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import os
import re
import time
from collections.abc import Awaitable
from email.utils import formatdate
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from wa_simulator.checked import checked
from wa_simulator.client import Client
from wa_simulator.errors import ControlError
from wa_simulator.faults import Faults, Rule
from wa_simulator.http import CUT, Answer, Request, Response, json_response
from wa_simulator.journal import Entry, Journal
from wa_simulator.settings import Settings

from .callbacks import Callbacks
from .errors import TwilioError
from .segments import count_segments

_ADDRESS: Final = re.compile(r"(?:whatsapp:)?\+[1-9][0-9]{6,14}|whatsapp:[A-Z]{2}\.[A-Za-z0-9.]{1,128}")
_SID: Final = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
_LONGEST_BODY: Final = 1600
_WINDOW_S: Final = 24 * 3600
_STOP: Final = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT"})
_START: Final = frozenset({"START", "YES", "UNSTOP"})
_ORDER: Final = ("sent", "delivered", "read")


class Account(BaseModel):
    """What the control API sets of an account; senders None: any number of its may send."""

    model_config = ConfigDict(extra="forbid")

    sid: Annotated[str, Field(pattern="^AC[0-9a-f]{32}$")]
    auth_token: str
    inbound_url: str | None = None
    senders: list[str] | None = None
    #: ContentSid to the names of its variables.
    contents: dict[str, list[str]] = {}
    #: Resources of the Content API, each with its approval_requests; they may be sent, too.
    templates: list[dict[str, Any]] = []
    routes: dict[str, str] = {}


class Said(BaseModel):
    """What a customer does; docs/simulator.md tells the fields."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    account: str | None = None
    sender: str = Field(alias="from")
    to: str
    text: str = ""
    name: str = "Customer"
    fields: dict[str, str] = {}
    media_type: str | None = None
    media_base64: str = ""
    sid: str | None = None
    signed: Literal["valid", "wrong", "missing"] = "valid"
    as_url: str | None = None


def new_sid(prefix: str) -> str:
    """An identifier of Twilio's kind."""
    return prefix + os.urandom(16).hex()


class Twilio:
    """The accounts, and the paths under which they are asked."""

    def __init__(self, settings: Settings, journal: Journal, faults: Faults, client: Client) -> None:
        self._settings = settings
        self._journal = journal
        self._faults = faults
        self._accounts: dict[str, Account] = {}
        self._windows: dict[tuple[str, str], float] = {}
        self._stopped: set[tuple[str, str]] = set()
        self._media: dict[str, tuple[str, bytes]] = {}
        #: The fields of each message that was taken, by its sid.
        self.messages: dict[str, dict[str, str]] = {}
        self.callbacks = Callbacks(settings, client)

    # control

    def set_account(self, values: dict[str, Any]) -> dict[str, Any]:
        """Make or change an account."""
        old = self._accounts.get(str(values.get("sid")))
        account = checked(Account, (old.model_dump() if old else {}) | values)
        for template in account.templates:
            account.contents[template["sid"]] = list(template.get("variables") or {})
        self._accounts[account.sid] = account
        self.callbacks.routes |= account.routes
        return {"sid": account.sid}

    async def speak(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write to a number as a customer does."""
        said = checked(Said, values)
        account = self._accounts.get(said.account or next(iter(self._accounts), ""))
        if account is None or account.inbound_url is None:
            raise ControlError("no such account, or it has no inbound_url")
        sid = said.sid or new_sid("MM" if said.media_type else "SM")
        self._hear(said)
        fields = self._message_fields(said, account, sid)
        delivery = await self.callbacks.post(
            account.inbound_url, fields, account.auth_token, signed=said.signed, as_url=said.as_url
        )
        return {"sid": sid, **delivery.as_dict()}

    def _hear(self, said: Said) -> None:
        pair = (said.to, said.sender)
        self._windows[pair] = time.time()
        word = said.text.strip().upper()
        if not said.sender.startswith("whatsapp:") and word in _STOP:
            self._stopped.add(pair)
        elif word in _START:
            self._stopped.discard(pair)

    def _message_fields(self, said: Said, account: Account, sid: str) -> dict[str, str]:
        is_whatsapp = said.sender.startswith("whatsapp:")
        fields = {
            "AccountSid": account.sid,
            "ApiVersion": "2010-04-01",
            "MessageSid": sid,
            "SmsMessageSid": sid,
            "SmsSid": sid,
            "SmsStatus": "received",
            "From": said.sender,
            "To": said.to,
            "Body": said.text,
            "NumSegments": str(count_segments(said.text)),
            "NumMedia": "0",
        }
        if is_whatsapp:
            fields |= {
                "WaId": said.sender.removeprefix("whatsapp:+"),
                "ProfileName": said.name,
                "MessageType": "text",
                "ChannelMetadata": "{}",
            }
        if said.media_type is not None:
            media = new_sid("ME")
            try:
                content = base64.b64decode(said.media_base64, validate=True)
            except binascii.Error:
                raise ControlError("media_base64 is not base64") from None
            self._media[media] = (said.media_type, content)
            fields |= {
                "NumMedia": "1",
                "MediaContentType0": said.media_type,
                "MediaUrl0": f"https://api.twilio.com/2010-04-01/Accounts/{account.sid}/Messages/{sid}/Media/{media}",
            }
        return fields | said.fields

    # the API

    def handle(self, request: Request, segments: list[str]) -> Answer | Awaitable[Answer]:
        """Answer a request below /2010-04-01/Accounts."""
        try:
            account = self._authorized(request, segments[0])
            match segments[1:]:
                case ["Messages.json"] if request.method == "POST":
                    return self._send(request, account)
                case ["Messages", _, "Media", media] if request.method == "GET" and media in self._media:
                    # To where it is, without a token, for a while.
                    return Response(302, headers={"Location": f"/_twilio/{media}"})
            raise TwilioError(20404)
        except TwilioError as error:
            return error.response()

    def list_contents(self, request: Request) -> Answer:
        """A page of the contents of the account that asks, with what the review says of them."""
        try:
            account = self._authorized(request)
        except TwilioError as error:
            return error.response()
        query = request.query
        size, number = int(query.get("PageSize", "50")), int(query.get("Page", "0"))
        rows = account.templates[number * size : (number + 1) * size]
        more = f"{request.base_url}{request.path}?PageSize={size}&Page={number + 1}&PageToken=PT{number + 1}"
        has_more = len(account.templates) > (number + 1) * size
        meta = {
            "key": "contents", "page": number, "page_size": size, "next_page_url": more if has_more else None
        }  # fmt: skip
        shown = [{"account_sid": account.sid, **row} for row in rows]
        return json_response({"meta": meta, "contents": shown})

    def give_media(self, media: str) -> Answer:
        """The bytes of a file, at the address that a redirect named."""
        if media not in self._media:
            return Response(404)
        content_type, content = self._media[media]
        return Response(200, content, content_type)

    def _authorized(self, request: Request, sid: str | None = None) -> Account:
        """The account of a request, which it may name; raises TwilioError."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        for account in self._accounts.values():
            wanted = base64.b64encode(f"{account.sid}:{account.auth_token}".encode()).decode()
            if (
                scheme.lower() == "basic"
                and sid in (None, account.sid)
                and hmac.compare_digest(given, wanted)
            ):
                return account
        raise TwilioError(20003)

    def _send(self, request: Request, account: Account) -> Answer | Awaitable[Answer]:
        fields: dict[str, str] = {}
        if request.headers.get("content-type", "").partition(";")[0] == "application/x-www-form-urlencoded":
            fields = dict(parse_qsl(request.body.decode("latin-1"), keep_blank_values=True))
        to = fields.get("To", "")
        rule = self._faults.pick(fields.get("From", ""), "".join(c for c in to if c.isdigit()))
        if rule is not None and (refusal := self._refuse_by(rule)) is not None:
            return refusal
        self._check(account, fields)
        entry = self._accept(account, request, fields, rule)
        answer = json_response(self._resource(account, entry, fields), 201)
        if rule is not None:
            self._faults.hit(rule)
        if rule is None and not self._settings.answer_delay_ms:
            return answer
        return self._answer_later(answer, rule)

    def _refuse_by(self, rule: Rule) -> Answer | Awaitable[Answer] | None:
        code = {"http_500_json": 20500, "throttle": 20429, "pair": 63018, "error": rule.code}.get(rule.mode)
        if code is not None:
            self._faults.hit(rule)
            return TwilioError(code, status=rule.status).response(rule.retry_after)
        if rule.mode == "cut_before":
            self._faults.hit(rule)
            return CUT
        if rule.mode == "hang_before":
            self._faults.hit(rule)
            return _hang(rule.seconds)
        if rule.mode == "http_503_html":
            self._faults.hit(rule)
            return Response(rule.status or 503, b"<html>upstream connect error</html>", "text/html")
        return None

    async def _answer_later(self, answer: Response, rule: Rule | None) -> Answer:
        await asyncio.sleep(self._settings.answer_delay_ms / 1000)
        if rule is None or rule.mode == "fail_status":
            return answer
        if rule.mode == "cut_after":
            return CUT
        if rule.mode == "garbage":
            return Response(201, b"\x1f\x8bnot the JSON you expect <", "application/json")
        if rule.mode == "hang_after":
            return await _hang(rule.seconds)
        await asyncio.sleep(rule.seconds)
        return answer

    def _check(self, account: Account, fields: dict[str, str]) -> None:
        to, sender = fields.get("To", ""), fields.get("From") or fields.get("MessagingServiceSid", "")
        if not to:
            raise TwilioError(21604)
        if not sender:
            raise TwilioError(21603)
        if not _ADDRESS.fullmatch(to):
            raise TwilioError(21211)
        is_whatsapp = to.startswith("whatsapp:")
        if "From" in fields and sender.startswith("whatsapp:") != is_whatsapp:
            raise TwilioError(21910)
        if sender == to:
            raise TwilioError(63031)
        if account.senders is not None and sender not in account.senders:
            raise TwilioError(63007 if is_whatsapp else 21606)
        if (sender, to) in self._stopped:
            raise TwilioError(21610)
        self._check_content(account, fields, is_whatsapp)
        callback = fields.get("StatusCallback")
        if callback is not None and not re.match(r"https?://[^/\s]+/", callback):
            raise TwilioError(21609)
        if is_whatsapp and self._settings.window == "sync" and not self._may_write_freely(fields):
            raise TwilioError(63016)

    def _check_content(self, account: Account, fields: dict[str, str], is_whatsapp: bool) -> None:
        if not any(fields.get(name) for name in ("Body", "MediaUrl", "ContentSid")):
            raise TwilioError(21619)
        if len(fields.get("Body", "")) > _LONGEST_BODY:
            raise TwilioError(21617)
        if "MediaUrl" in fields and urlsplit(fields["MediaUrl"]).scheme not in ("http", "https"):
            raise TwilioError(21620)
        if "ContentSid" not in fields:
            return
        sid = fields["ContentSid"]
        if not (_SID.fullmatch(sid) and sid.startswith("HX") and sid in account.contents):
            raise TwilioError(21655)
        try:
            values = json.loads(fields.get("ContentVariables", "{}"))
        except ValueError:
            raise TwilioError(21656) from None
        wanted = account.contents[sid]
        if not isinstance(values, dict) or any(not isinstance(values.get(name), str) for name in wanted):
            raise TwilioError(21656, "The ContentVariables parameter lacks a variable of the template.")

    def _may_write_freely(self, fields: dict[str, str]) -> bool:
        since = self._windows.get((fields.get("From", ""), fields["To"]), 0.0)
        return "ContentSid" in fields or time.time() - since < _WINDOW_S

    def _accept(self, account: Account, request: Request, fields: dict[str, str], rule: Rule | None) -> Entry:
        is_whatsapp = fields["To"].startswith("whatsapp:")
        failure = rule.code if rule is not None and rule.mode == "fail_status" else None
        if failure is None and is_whatsapp and self._settings.window == "async":
            failure = None if self._may_write_freely(fields) else 63016
        statuses: list[str] = [
            one for one in _ORDER if one in self._settings.statuses and (is_whatsapp or one != "read")
        ]
        callback = fields.get("StatusCallback", "")
        query = dict(parse_qsl(urlsplit(callback).query))
        kind = "template" if "ContentSid" in fields else "media" if "MediaUrl" in fields else "text"
        entry = Entry(
            time=time.time(),
            number=fields.get("From") or fields["MessagingServiceSid"],
            to=fields["To"].removeprefix("whatsapp:"),
            recipient=None,
            wa_id="".join(c for c in fields["To"] if c.isdigit()),
            wamid=new_sid("MM" if "MediaUrl" in fields else "SM"),
            callback=query.get("callback"),
            type=kind if is_whatsapp else "sms",
            category=None,
            template=fields.get("ContentSid"),
            sha256=sha256(request.body).hexdigest(),
            statuses=["failed"] if failure is not None else statuses,
            errors=[failure] if failure is not None else [],
        )
        self._journal.accept(entry)
        self.messages[entry.wamid] = fields
        if callback:
            for status, delay_s in zip(entry.statuses, self._delays(entry.statuses), strict=True):
                self._tell(account, entry, fields, status, delay_s)
        return entry

    def _delays(self, statuses: list[str]) -> list[float]:
        settings = self._settings
        after = {
            "sent": settings.sent_after_ms,
            "delivered": settings.delivered_after_ms,
            "read": settings.read_after_ms,
            "failed": settings.sent_after_ms,
        }
        return [(after[status] + settings.webhook_delay_ms) / 1000 for status in statuses]

    def _tell(
        self, account: Account, entry: Entry, fields: dict[str, str], status: str, delay_s: float
    ) -> None:
        is_whatsapp = fields["To"].startswith("whatsapp:")
        shown = "undelivered" if status == "failed" else status
        told = {
            "AccountSid": account.sid,
            "ApiVersion": "2010-04-01",
            "MessageSid": entry.wamid,
            "SmsSid": entry.wamid,
            "MessageStatus": shown,
            "SmsStatus": shown,
            "From": entry.number,
            "To": fields["To"],
        }
        if is_whatsapp:
            told |= {"ChannelPrefix": "whatsapp", "ChannelToAddress": fields["To"].removeprefix("whatsapp:")}
        if status == "read":
            told["EventType"] = "READ"
        if status == "failed":
            told |= {"ErrorCode": str(entry.errors[0]), "ErrorMessage": "It was not delivered."}
        for _ in range(2 if self._settings.repeat else 1):
            self.callbacks.schedule(
                fields["StatusCallback"],
                told,
                account.auth_token,
                delay_s,
                lambda: self._journal.delivered(entry.wamid, status),
            )

    async def tell_again(self, values: dict[str, Any]) -> dict[str, Any]:
        """Post a status of a message now: {"sid", "status"}, with other "fields" and "signed" or "as_url"."""
        fields = self.messages.get(str(values.get("sid")))
        entry = self._journal.by_wamid.get(str(values.get("sid")))
        account = next(iter(self._accounts.values()), None)
        if fields is None or entry is None or account is None:
            raise ControlError("no such message")
        told = {
            "AccountSid": account.sid,
            "MessageSid": entry.wamid,
            "MessageStatus": str(values.get("status", "delivered")),
            "From": entry.number,
            "To": fields["To"],
            **values.get("fields", {}),
        }
        delivery = await self.callbacks.post(
            fields["StatusCallback"].partition("#")[0],
            told,
            account.auth_token,
            signed=values.get("signed", "valid"),
            as_url=values.get("as_url"),
        )
        return delivery.as_dict()

    @staticmethod
    def _resource(account: Account, entry: Entry, fields: dict[str, str]) -> dict[str, Any]:
        now = formatdate(entry.time)
        return {
            "account_sid": account.sid,
            "api_version": "2010-04-01",
            "body": fields.get("Body", ""),
            "date_created": now,
            "date_sent": None,
            "date_updated": now,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": fields.get("From"),
            "messaging_service_sid": fields.get("MessagingServiceSid"),
            "num_media": "1" if "MediaUrl" in fields else "0",
            "num_segments": str(count_segments(fields.get("Body", ""))) if entry.type == "sms" else "1",
            "price": None,
            "price_unit": "USD",
            "sid": entry.wamid,
            "status": "queued",
            "to": fields["To"],
            "uri": f"/2010-04-01/Accounts/{account.sid}/Messages/{entry.wamid}.json",
        }


async def _hang(seconds: float) -> Answer:
    await asyncio.sleep(seconds)
    return CUT
