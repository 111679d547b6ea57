"""The providers: one module each, which makes a Provider and calls it PROVIDER.

A provider has two halves. The database's, sql/provider/NAME.sql, says what is asked and what an answer means;
the module here says where the provider is, how a token is shown, and how its webhooks are known to be its.
Nothing else knows a provider by name. A provider of somebody's own is an object that is installed with an
entry point of the group pg_whatsapp.providers, or a module put beside these, and a file of SQL that was run.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from pg_whatsapp.providers.base import Provider

__all__ = ["PROVIDERS", "Provider"]


def _found() -> Iterator[Provider]:
    for module in sorted(iter_modules(__path__), key=lambda module: module.name):
        provider = getattr(import_module(f"{__name__}.{module.name}"), "PROVIDER", None)
        if provider is not None:
            yield provider
    for point in entry_points(group=__name__):
        yield point.load()


#: By the names that wa_phone_numbers.provider has. The one whose webhooks are most comes first. Last come
#: those that do not sign: what somebody chose as their secret may be in requests of others, too.
PROVIDERS: dict[str, Provider] = {
    one.name: one
    for one in sorted(_found(), key=lambda one: (one.name != "meta", one.signature_header is None, one.name))
}
#: Where requests have their token, in lower case.
TOKEN_HEADERS = tuple({header: None for one in PROVIDERS.values() for header in one.token_headers("")})
