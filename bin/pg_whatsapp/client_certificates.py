"""Client certificates of whoever sends webhooks, seen by `wa serve` itself or by a proxy in front of it.

With TLS of its own, `serve --client-ca FILE` takes no connection without a certificate that this authority
signed; --client-name says whose, for an authority signs for many. Behind a proxy, WA_WEBHOOK_CLIENT_HEADER is
the header, "Name: value", that it sets where it has seen a good one; it counts from WA_TRUSTED_PROXIES only.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from pg_whatsapp.config import Settings
from pg_whatsapp.errors import ConfigError
from pg_whatsapp.header_line import HEADER_LINE

#: In the scope of a request: the address at the other end of the connection, which may be a proxy's.
PEER = "pg_whatsapp.peer"


@dataclass(frozen=True)
class Tls:
    """TLS of the server's own; with client_ca, of clients with a certificate only."""

    certificate: Path
    key: Path | None
    client_ca: Path | None = None
    client_names: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise ConfigError where a file is not what it should be: uvicorn would end with a traceback."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the certificates cannot be used: {error.strerror or type(error).__name__}",
                "--tls-cert is PEM with the chain, --tls-key its key without a password, --client-ca PEM.",
            ) from None


def names_of(certificate: Mapping[str, Any] | None) -> set[str]:
    """Common name and DNS names of a certificate, in lower case; as ssl.SSLSocket.getpeercert() gives it."""
    if not certificate:
        return set()
    common = {
        value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
    }
    others = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return {name.lower() for name in common | others}


class ProxyWord:
    """Whether a trusted proxy says that a request came with a good client certificate."""

    def __init__(self, line: str, proxies: str | None) -> None:
        found = HEADER_LINE.fullmatch(line)
        if found is None or not line.isascii():
            raise ConfigError(
                "WA_WEBHOOK_CLIENT_HEADER is no header", 'It looks like "X-SSL-Client-Verify: SUCCESS".'
            )
        self._name, self._value = found[1].lower().encode(), found[2].encode()
        try:
            self._networks: list[IPv4Network | IPv6Network] = [
                ip_network(part.strip(), strict=False) for part in (proxies or "").split(",") if part.strip()
            ]
        except ValueError:
            self._networks = []
        if not self._networks:
            raise ConfigError(
                "WA_WEBHOOK_CLIENT_HEADER needs the proxies' addresses in WA_TRUSTED_PROXIES",
                "From anybody else the header would be a word of his own. Networks may be named, * may not.",
            )

    def is_given(self, scope: Scope) -> bool:
        """Whether the connection is a proxy's, and the request has the header once, with the value."""
        peer = scope.get(PEER)
        values = [value for name, value in scope["headers"] if name == self._name]
        if not peer or len(values) != 1 or not hmac.compare_digest(values[0], self._value):
            return False
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        # A socket that listens on IPv6 and IPv4 alike has ::ffff:10.0.0.5 for 10.0.0.5.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


def load_proxy_word(settings: Settings) -> ProxyWord | None:
    """That of WA_WEBHOOK_CLIENT_HEADER, None where it is unset. Raises ConfigError."""
    if settings.webhook_client_header is None:
        return None
    return ProxyWord(settings.webhook_client_header, settings.trusted_proxies)


def keep_peer(app: ASGIApp) -> ASGIApp:
    """The application with the connection's address in its scope, before anything takes another for it."""

    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            scope[PEER] = scope["client"][0]
        await app(scope, receive, send)

    return with_peer
