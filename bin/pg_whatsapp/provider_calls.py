"""Makes the calls of the provider that are no messages: marks as read, templates, business numbers.

It knows no policy: the database hands out what is to be called now, and is told what was answered. Every call
may be repeated, so what was under way when the process died is simply made again.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import httpx
import orjson

from pg_whatsapp import __version__, errors, templates
from pg_whatsapp.config import Settings
from pg_whatsapp.credentials import Credentials
from pg_whatsapp.db import Link
from pg_whatsapp.leased import LeasedWorker
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.secrets import SecretBox
from pg_whatsapp.template_books import CallBooks
from pg_whatsapp.transport import Outcome, post

_CLAIM = """
    SELECT organization_id::text, call_id::text, attempt, kind, phone_number_id, provider, waba_id, path,
    body, arguments, timeout_s FROM claim_wa_provider_calls(%s, %s)
"""
_COMPLETE = "SELECT complete_wa_provider_calls(%s::jsonb)"
_SECRETS = "SELECT * FROM get_wa_call_secrets(%s, %s, %s)"
_RENEW = "SELECT renew_wa_provider_calls(%s::uuid[], %s::uuid[], %s::int[], %s::interval)"
POLL_S = 0.5


class ProviderCall(NamedTuple):
    """What claim_wa_provider_calls() hands out."""

    organization: str
    call_id: str
    attempt: int
    kind: str
    number: str
    provider: str
    waba_id: str
    path: str | None
    body: str | None
    arguments: dict[str, Any]
    timeout_s: float


class ProviderCaller(LeasedWorker[ProviderCall]):
    """Makes calls until stop(), or with drain until none is due."""

    def __init__(
        self,
        settings: Settings,
        box: SecretBox | None,
        http: httpx.AsyncBaseTransport,
        *,
        concurrency: int = 32,
        drain: bool = False,
    ) -> None:
        super().__init__(
            "provider",
            "call",
            [Link(settings.conninfo, "provider calls")],
            Credentials(settings, box),
            concurrency=concurrency,
            poll_s=POLL_S,
            drain=drain,
        )
        self._settings = settings
        self._box = box
        self._http = http

    async def _start_claimed(self) -> int:
        rows = await self._link.fetch(_CLAIM, self._concurrency - len(self._held), __version__)
        for row in rows:
            call = ProviderCall._make(row)
            self._start(call, partial(self._make, call))
        return len(rows)

    async def _lease(self, held: list[ProviderCall], span: str) -> None:
        if held:
            organizations, ids, attempts = zip(*(call[:3] for call in held), strict=True)
            await self._link.fetch(_RENEW, list(organizations), list(ids), list(attempts), span)

    async def _make(self, call: ProviderCall) -> None:
        if call.path is not None and call.body is not None:
            result = await self._post(call, call.path, call.body)
        else:
            result = await self._work_on_templates(call)
        mine = {"org": call.organization, "call": call.call_id, "attempt": call.attempt}
        ((states,),) = await self._link.fetch(_COMPLETE, orjson.dumps([mine | result]).decode())
        if states == ["failed"]:
            self._logger.warning(
                "a call failed, wa_provider_calls.error says why",
                kind=call.kind,
                phone_number_id=call.number,
                http_status=result.get("status"),
            )

    async def _post(self, call: ProviderCall, path: str, body: str) -> dict[str, Any]:
        endpoint = self._credentials.endpoint(call.organization, call.number, call.provider)
        if endpoint is None:
            return _without_token()
        secrets: list[str] = []
        try:
            if call.arguments.get("secrets"):
                body = await self._with_secrets(call, body, secrets)
        except errors.WaError as error:
            return {"outcome": "no_token", "error": str(error)}
        method = call.arguments.get("method", "POST")
        content = b"" if method == "GET" else body.encode()
        reply = await post(self._http, endpoint.url(path), endpoint.headers, content, call.timeout_s, method)
        if reply.outcome is not Outcome.ANSWERED:
            return {"outcome": "no_answer", "error": reply.error}
        answer = _hide(reply.answer, secrets)
        return {
            "outcome": "answered",
            "status": reply.status,
            "answer": answer,
            "retry_after": reply.retry_after,
            "result": answer if call.arguments.get("keep") else None,
        }

    async def _with_secrets(self, call: ProviderCall, body: str, opened: list[str]) -> str:
        """The body with the secrets that belong in it, each also put into opened. Raises WaError."""
        values = orjson.loads(body)
        rows = await self._link.fetch(_SECRETS, call.organization, call.call_id, call.attempt)
        for name, place, form, ciphertext, key_id, sealed_for in rows:
            if ciphertext is None:
                # The default organization's: another one would have it told to a URL of its own.
                is_ours = self._credentials.is_of_environment(call.organization)
                secret = self._settings.secret(name) if is_ours else None
                if secret is None:
                    raise errors.ConfigError(f"no {name} is stored for the business number")
            elif self._box is None:
                raise errors.ConfigError("bin/wa dispatch has no master key to open what is stored")
            else:
                await self._box.learn([key_id])
                secret = self._box.open(call.organization, name, sealed_for, bytes(ciphertext), key_id)
            opened.append(secret)
            target = values
            for step in place[:-1]:
                target = target.setdefault(step, {})
            if form == "header":
                header, shown = PROVIDERS[call.provider].secret_header(secret)
                opened.append(shown)
                target[place[-1]] = {header: shown}
            else:
                target[place[-1]] = secret
        return orjson.dumps(values).decode()

    async def _work_on_templates(self, call: ProviderCall) -> dict[str, Any]:
        token = self._credentials.token(call.organization, call.number, call.provider)
        if token is None:
            return _without_token()
        account = templates.Account(call.organization, call.waba_id, token, call.provider)
        books = CallBooks(self._link, call.organization, call.call_id, call.attempt)
        told: dict[str, Any] = {"waba_id": call.waba_id}
        try:
            if call.kind == "sync_templates":
                count = await templates.sync_account(books, self._settings, self._http, account)
                return {"outcome": "done", "result": told | {"templates": count}}
            done = await templates.submit_drafts(books, self._settings, self._http, account)
            return {"outcome": "done", "result": told | {"templates": [one._asdict() for one in done]}}
        except errors.ProviderError as error:
            return {
                "outcome": "answered" if error.status else "no_answer",
                "status": error.status or None,
                "answer": error.answer,
                "error": str(error),
            }


def _hide(answer: Any, secrets: list[str]) -> Any:
    """An answer may quote what it was asked with, and is kept where others read it."""
    text = orjson.dumps(answer).decode()
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(orjson.dumps(secret).decode()[1:-1], "[hidden]")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # The digits of a PIN stood in a number.
        return None


def _without_token() -> dict[str, Any]:
    return {"outcome": "no_token", "error": "there is no access token for the business number"}
