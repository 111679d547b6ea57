"""What every provider is asked for. Where one says nothing, it is as Meta's Cloud API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import httpx

from pg_whatsapp.errors import ConfigError
from pg_whatsapp.providers.templates import Templates


class Webhook(NamedTuple):
    """A request that claims to be a provider's."""

    #: Names in lower case, as in ASGI.
    headers: Mapping[bytes, bytes]
    body: bytes
    scheme: str
    #: Path and query as they came.
    target: str

    @property
    def query(self) -> str:
        """What stands behind the question mark."""
        return self.target.partition("?")[2]


class WebhookKeys(Protocol):
    """What webhooks may be vouched for with."""

    @property
    def public_urls(self) -> Sequence[str]:
        """Where we are reached, as operators stated it."""
        ...

    def named(self, name: str) -> Mapping[str, Sequence[str]]:
        """The secrets of that name (wa_secrets.name), each with the ids under which it is stored."""
        ...


class Provider:
    """One provider; its module overrides what differs."""

    #: As wa_providers names it.
    name: str
    #: Where its API is unless WHATSAPP_API_BASE_URL says otherwise.
    base_url: str
    #: Whether paths begin with a version of the Graph API.
    has_version = False
    content_type = "application/json"
    #: Where files may be, beside the API: these hosts and those below them, over TLS.
    media_hosts: tuple[str, ...] = ()
    #: Whether these want the token, too.
    shows_token_to_hosts = True
    #: Whether the path of a file is the file; else it tells where that is.
    gives_files_at_once = False
    #: The header without which a webhook counts as not signed.
    signature_header: bytes | None = None
    #: Whether the database looks, before a webhook is stored, if its secret is one of the number's.
    vouches_by_number = False
    #: Its own secrets (wa_secrets.name), beside those that every provider may have.
    secret_names: tuple[str, ...] = ()
    #: Whether it signs the address of a webhook, so that ours has to be known (public_url).
    signs_address = False
    #: How its templates are read and submitted; None where they are not.
    templates: Templates | None = None

    def prefix(self, base_url: str, api_version: str) -> str:
        """What stands before the path of a request."""
        return f"{base_url}/{api_version}" if self.has_version else base_url

    def token_headers(self, token: str) -> dict[str, str]:
        """The headers, in lower case, that carry a token."""
        raise NotImplementedError

    def headers(self, token: str) -> dict[str, str]:
        """The headers of a request: the token, what is sent and what is wanted."""
        return {"content-type": self.content_type, "accept": "application/json", **self.token_headers(token)}

    def encode(self, body: str) -> bytes:
        """The bytes to post of a request's JSON."""
        return body.encode()

    def check_secret(self, name: str, value: str) -> None:
        """Raise ConfigError where a secret of its own cannot be right."""

    def question(self, phone_number_id: str) -> str | None:
        """The path that tells whether a business number can send; None where none does."""
        return None

    def misfit(self, account: str, token: str) -> tuple[str, str] | None:
        """What is wrong with a number's account or token by its form, and the way out; None if nothing."""
        return None

    def secret_header(self, secret: str) -> tuple[str, str]:
        """Name and value of the header that a stored secret is, for a request that has a place for one.

        Raises ConfigError.
        """
        raise ConfigError(f"{self.name} has no secret that is a header")

    def located(self, url: httpx.URL, base_url: str) -> httpx.URL:
        """Where a file is to be had that the provider said is at url."""
        return url

    def environment(self, variables: Mapping[str, str]) -> dict[str, Any]:
        """Settings (by the names of config.Settings) that the provider's own variables make."""
        return {}

    def signers(self, webhook: Webhook, keys: WebhookKeys) -> list[str]:
        """The ids of the secrets that vouch for a webhook; none where it is not the provider's."""
        raise NotImplementedError

    def kept(self, webhook: Webhook) -> bytes:
        """What is stored of a webhook: its body, unless the address says something, too."""
        return webhook.body
