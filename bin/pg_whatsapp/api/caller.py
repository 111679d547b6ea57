"""Who asks: the API key or token of a request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import LiteralString

from starlette.requests import Request

from pg_whatsapp.api.problems import Problem
from pg_whatsapp.api.tokens import Issuer

LONGEST_KEY = 4096
_HINT = "Send it as: Authorization: Bearer wa_live_…, or in the header apikey."


@dataclass(frozen=True)
class Caller:
    """Of a key its SHA-256, of a token its claims; the user that the request names, and its source."""

    key_hash: bytes | None
    user: str | None
    claims: tuple[str, str | None, str, list[str]] | None = field(default=None, compare=False)
    address: str | None = field(default=None, compare=False)

    def opening(self, scope: str) -> tuple[LiteralString, tuple[object, ...]]:
        """The statement that lets a transaction run as this caller, with its values.

        Its last column is for which organization.
        """
        if self.claims is not None:
            subject, organization, role, scopes = self.claims
            values = (subject, organization, role, scopes, scope, self.user)
            return (
                "SELECT set_config('wa.client_address', %s, true), open_wa_api_token(%s, %s, %s, %s, %s, %s),"
                " current_setting('wa.organization_id')",
                (self.address or "", *values),
            )
        return (
            "SELECT set_config('wa.client_address', %s, true), open_wa_api_request(%s, %s, %s),"
            " current_setting('wa.organization_id')",
            (self.address or "", self.key_hash, scope, self.user),
        )


def read_caller(request: Request, issuer: Issuer | None) -> Caller:
    """The caller of a request; raises Problem 401 where it brings no key, or a token that is not good."""
    given = request.headers.get("authorization", "")
    scheme, _, key = given.partition(" ")
    if scheme.lower() != "bearer":
        key = ""
    key = key.strip() or request.headers.get("apikey", "").strip()
    if not key or len(key) > LONGEST_KEY:
        raise Problem(401, "WA601", "the request brings no API key", _HINT)
    user = request.headers.get("x-user-id") or None
    address = request.client.host if request.client else None
    if issuer is not None and key.count(".") == 2:
        return Caller(None, user, issuer.read(key), address)
    return Caller(hashlib.sha256(key.encode()).digest(), user, address=address)
