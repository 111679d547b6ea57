"""What `wa doctor` asks of providers: whether each number's token is good, and what time it is there."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from pg_whatsapp.config import Settings
from pg_whatsapp.credentials import Credentials, Endpoint
from pg_whatsapp.db import Link
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.transport import open_transport, parse_answer, read_body

TIMEOUT_S = 10.0
AT_ONCE = 10
# Meta's error codes (reference of the Graph API): access token expired, revoked or malformed.
TOKEN_CODES = {0, 190}
RIGHTS_CODES = {3, 10, 100, 200}


class Number(NamedTuple):
    """A registered business number."""

    organization: str
    phone_number_id: str
    provider: str
    account: str


class Answer(NamedTuple):
    """What came of asking about a number: problem is None when it can send.

    skew_s: seconds by which the provider's clock is ahead of this machine's; None where it gave no time.
    """

    number: Number
    problem: str | None
    hint: str | None = None
    skew_s: float | None = None
    is_asked: bool = True


async def ask(settings: Settings, box: SecretBox | None, numbers: list[Number]) -> list[Answer]:
    """Ask about each number with the token that a dispatcher would use for it; sends nothing.

    Of a provider that tells nothing of its numbers it is seen whether there is a token of the right form.
    """
    credentials = Credentials(settings, box)
    link = Link(settings.conninfo, "doctor tokens")
    link.give_up_at = time.monotonic()
    http = open_transport()
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: Number) -> Answer:
        async with room:
            kind = PROVIDERS.get(number.provider)
            path = kind.question(number.phone_number_id) if kind else None
            how = f"bin/wa secrets set access_token --number {number.phone_number_id}"
            key = (number.organization, number.phone_number_id, number.provider)
            endpoint, token = credentials.endpoint(*key), credentials.token(*key)
            if kind is None or endpoint is None or token is None:
                return Answer(number, "no token that can be used", how, is_asked=path is not None)
            if path is None:
                problem, way_out = kind.misfit(number.account, token) or (None, None)
                return Answer(number, problem, way_out, is_asked=False)
            return await _ask_one(http, number, endpoint, path)

    try:
        await credentials.refresh(link)
        return await asyncio.gather(*map(one, numbers))
    finally:
        await link.drop()
        await http.aclose()


async def _ask_one(http: httpx.AsyncBaseTransport, number: Number, endpoint: Endpoint, path: str) -> Answer:
    request = httpx.Request(
        "GET",
        endpoint.url(path),
        headers=endpoint.headers,
        extensions={"timeout": {"read": TIMEOUT_S}},
    )
    before = time.time()
    try:
        response = await http.handle_async_request(request)
        skew_s = measure_skew(response.headers.get("date"), before, time.time())
        try:
            content = await read_body(response)
        finally:
            await response.aclose()
    except Exception as error:
        name = type(error.__cause__ or error).__name__
        return Answer(number, f"no answer ({name})", "Can this machine reach the provider?")
    problem, hint = judge(response.status_code, parse_answer(content), number.phone_number_id)
    return Answer(number, problem, hint, skew_s)


def judge(status: int, answer: Any, phone_number_id: str) -> tuple[str | None, str | None]:
    """What is wrong by an answer of the Graph API about a number, and the way out; None if nothing."""
    body = answer if isinstance(answer, dict) else {}
    if status == 200 and body:
        state = body.get("status", "CONNECTED")
        if state != "CONNECTED":
            return f"the number is {state}", "WhatsApp Manager says why; only a connected number sends."
        health = body.get("health_status")
        if isinstance(health, dict) and health.get("can_send_message") == "BLOCKED":
            return "the provider lets it send nothing", "WhatsApp Manager, health of the number, says why."
        return None, None
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    said = f"HTTP {status}" + (f", code {code}" if code is not None else "")
    if status == 401 or code in TOKEN_CODES:
        return (
            f"the token is refused ({said})",
            f"bin/wa secrets set access_token --number {phone_number_id}, with a token of a system user.",
        )
    if code in RIGHTS_CODES:
        return (
            f"the token may not see the number ({said})",
            "Give the token's system user the account and whatsapp_business_messaging; is the id right?",
        )
    return f"unexpected answer ({said})", "Try again later."


def measure_skew(date: str | None, before: float, after: float) -> float | None:
    """Seconds that a Date header is ahead of our clock, which showed before and after around the answer.

    None where the header is absent or unreadable, 0 where the truth may lie between.
    """
    try:
        stamp = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    # The header has whole seconds, cut off: its time lies in [stamp, stamp + 1).
    if stamp > after:
        return stamp - after
    return min(stamp + 1 - before, 0.0)
