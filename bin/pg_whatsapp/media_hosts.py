"""Where a provider's files may be: at hosts of the provider, and nowhere that leads inside.

A token goes along, and what comes back is kept, so a redirect or a forged answer must lead nowhere else.
Where the API is, the operator said; that may be anywhere. All else is a list, over TLS, at addresses of the
internet, which outside.py sees to.
"""

from __future__ import annotations

import httpx

from pg_whatsapp.providers import PROVIDERS


class ElsewhereError(Exception):
    """The URL leads away from the provider, or inside; nothing was sent."""


def located(url: str, provider: str, base_url: str) -> httpx.URL:
    """The URL under which a file is to be had, of the one that the provider told. Raises ElsewhereError."""
    try:
        told = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ElsewhereError("the provider gave no URL") from error
    return PROVIDERS[provider].located(told, base_url)


def is_of_api(url: httpx.URL, base_url: str) -> bool:
    """Whether a URL is where the provider's API is, as the operator said."""
    base = httpx.URL(base_url)
    return (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)


def require_provider(url: httpx.URL, provider: str) -> None:
    """Raise ElsewhereError unless the URL is at one of the provider's other hosts."""
    if url.scheme != "https" or url.userinfo or url.port not in (None, 443):
        raise ElsewhereError("the file is at an address that is none of the provider's")
    host = url.host.rstrip(".")
    if not any(host == one or host.endswith(f".{one}") for one in PROVIDERS[provider].media_hosts):
        raise ElsewhereError("the file is at a host that is none of the provider's")
