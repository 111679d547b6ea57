"""Which token goes with which business number."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import httpx
import psycopg

from pg_whatsapp import log
from pg_whatsapp.config import Settings
from pg_whatsapp.db import Link
from pg_whatsapp.errors import SealError
from pg_whatsapp.providers import PROVIDERS
from pg_whatsapp.secrets import SecretBox

_logger = log.get("credentials")


class Endpoint:
    """Where the requests of one number go and what identifies us there."""

    __slots__ = ("base_url", "encode", "headers", "prefix", "secret_id", "urls")

    def __init__(
        self,
        base_url: str,
        prefix: str,
        headers: httpx.Headers,
        encode: Callable[[str], bytes],
        secret_id: str | None,
    ) -> None:
        #: The provider's API, without version.
        self.base_url = base_url
        self.prefix = prefix
        self.headers = headers
        #: The bytes to post of a request's JSON.
        self.encode = encode
        #: Which stored token it is; None for that of the environment.
        self.secret_id = secret_id
        self.urls: dict[str, httpx.URL] = {}

    def url(self, path: str) -> httpx.URL:
        """The URL of a path; parsed once, since a number has few."""
        url = self.urls.get(path)
        if url is None:
            url = self.urls[path] = httpx.URL(self.prefix + path)
        return url


class _Token(NamedTuple):
    value: str
    secret_id: str | None


class Credentials:
    """Tokens by number: the number's own, else its organization's, else WHATSAPP_ACCESS_TOKEN.

    That of the environment is the default organization's: whoever registers a number must not send on it.
    """

    def __init__(self, settings: Settings, box: SecretBox | None) -> None:
        self._settings = settings
        self._box = box
        self._tokens: dict[tuple[str, str | None], _Token] = {}
        self._of_environment: str | None = None
        self._endpoints: dict[tuple[str, str, str], Endpoint | None] = {}
        self._complained: set[str] = set()

    async def refresh(self, link: Link) -> None:
        """Read the stored tokens again; what is in use stays in use when the database cannot be asked."""
        try:
            rows = await link.fetch(
                "SELECT DISTINCT organization_id::text, sealed_for, ciphertext, key_id, secret_id::text"
                " FROM get_wa_credentials()"
            )
            if self._of_environment is None:
                [[self._of_environment]] = await link.fetch("SELECT get_wa_environment_organization()::text")
                self._endpoints.clear()
        except psycopg.Error as error:
            _logger.warning("stored tokens not read", **log.describe(error))
            return
        if self._box is not None:
            await self._box.learn(row[3] for row in rows)
        tokens: dict[tuple[str, str | None], _Token] = {}
        for organization, number, ciphertext, key_id, secret_id in rows:
            token = self._open(organization, number, bytes(ciphertext), key_id, secret_id)
            if token is not None:
                tokens[organization, number] = _Token(token, secret_id)
        if tokens != self._tokens:
            self._tokens = tokens
            self._endpoints.clear()

    def _open(
        self, organization: str, number: str | None, ciphertext: bytes, key_id: str, secret_id: str
    ) -> str | None:
        if self._box is None:
            self._complain(
                "key", "tokens are stored but there is no master key: set WA_SECRET_KEY or WA_SECRET_KEY_FILE"
            )
            return None
        try:
            return self._box.open(organization, "access_token", number, ciphertext, key_id)
        except SealError as error:
            self._complain(secret_id, str(error), key_id=error.key_id, hint=error.hint)
            return None

    def endpoint(self, organization: str, number: str, provider: str) -> Endpoint | None:
        """Where and as whom to send for a number; None, logged once, without token or provider."""
        key = (organization, number, provider)
        try:
            return self._endpoints[key]
        except KeyError:
            endpoint = self._endpoints[key] = self._make(organization, number, provider)
            return endpoint

    def token(self, organization: str, number: str, provider: str) -> str | None:
        """The token of a number; None where there is none."""
        found = self._find(organization, number, provider)
        return None if found is None else found.value

    def is_of_environment(self, organization: str) -> bool:
        """Whether the secrets of the environment are an organization's."""
        return organization == self._of_environment

    def _find(self, organization: str, number: str, provider: str) -> _Token | None:
        from_environment = self._settings.access_token
        token = self._tokens.get((organization, number)) or self._tokens.get((organization, None))
        # The token of the environment was meant for the provider of the environment.
        if (
            token is None
            and from_environment is not None
            and self.is_of_environment(organization)
            and provider == self._settings.provider
        ):
            token = _Token(from_environment.get_secret_value(), None)
        return token

    def _make(self, organization: str, number: str, provider: str) -> Endpoint | None:
        token = self._find(organization, number, provider)
        kind = PROVIDERS.get(provider)
        if kind is None:
            self._complain(provider, "this release cannot send through the provider", provider=provider)
            return None
        if token is None:
            self._complain(
                number,
                "no access token, messages wait",
                phone_number_id=number,
                hint="bin/wa secrets set access_token --number ID",
            )
            return None
        if not (token.value.isascii() and token.value.isprintable()):
            self._complain(
                number, "the access token has characters that no header can hold", phone_number_id=number
            )
            return None
        base_url = self._settings.base_url(provider)
        prefix = kind.prefix(base_url, self._settings.api_version)
        headers = httpx.Headers(kind.headers(token.value))
        return Endpoint(base_url, prefix, headers, kind.encode, token.secret_id)

    def _complain(self, about: str, message: str, **facts: object) -> None:
        if about not in self._complained:
            self._complained.add(about)
            _logger.error(message, **facts)
