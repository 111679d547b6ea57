"""A ready-made service under a name that applications may know.

    from whatsapp_service import whatsapp_service

It connects when it is first asked, by DATABASE_URL or the PG* variables. Whoever starts anew takes
pg_whatsapp.client, which can do more and says why a number is none.
"""

from __future__ import annotations

import atexit
from functools import cached_property

from pg_whatsapp.client import Client
from pg_whatsapp.errors import ConfigError


class WhatsAppService:
    """Links to files, and phone numbers in E.164."""

    @cached_property
    def client(self) -> Client:
        """The client beneath; closed when the program ends."""
        client = Client.connect()
        atexit.register(client.close)
        return client

    def create_media_signature(self, message_id: int, max_access: int = 1, ttl_minutes: int = 60) -> str:
        """The URL of the file of a message, which opens max_access times within ttl_minutes.

        Raises ConfigError where the database does not know the address of the web server.
        """
        link = self.client.create_media_signature(message_id, max_access=max_access, ttl_minutes=ttl_minutes)
        if link["url"] == link["path"]:
            raise ConfigError(
                "nothing says under which address the web server gives files out",
                "UPDATE wa_organizations SET public_url = 'https://…' does.",
            )
        return link["url"]

    def normalize_phone_e164(self, number: str) -> str | None:
        """A phone number in E.164; None for what is none."""
        return self.client.try_normalize_phone_e164(number)


whatsapp_service = WhatsAppService()
