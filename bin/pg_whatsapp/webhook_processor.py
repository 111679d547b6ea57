"""Beside the requests: processing what was stored, counting what was refused, reading secrets."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import LiteralString

import psycopg

from pg_whatsapp import errors, log
from pg_whatsapp.config import Settings
from pg_whatsapp.db import Link
from pg_whatsapp.errors import SealError
from pg_whatsapp.secrets import SecretBox

_logger = log.get("receiver")
# Finds what another receiver stored and could not process, and what was put back for a replay.
POLL_S = 1.0
FAILED_WAIT_S = 1.0
BATCH = 1000
# After a batch that was not full, let more come together: a call costs as much as twenty bodies.
GATHER_S = 0.05
MOST_REJECTIONS = 1000
# The id by which the database knows the secret of the environment (_wa_environment_signer).
ENVIRONMENT = "00000000-0000-0000-0000-000000000000"
REFRESH_SECRETS_EVERY_S = 5.0
# A wrong signature may mean a new secret: look, but not for every forged request.
REFRESH_SECRETS_AT_MOST_EVERY_S = 1.0


class WebhookProcessor:
    """Calls process_wa_webhooks() after each commit, one call at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stored = asyncio.Event()

    def wake(self) -> None:
        """Something was stored."""
        self._stored.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._stored.wait()
            except TimeoutError:
                pass
            self._stored.clear()
            try:
                while done := (await self._link.fetch("SELECT process_wa_webhooks(%s)", BATCH))[0][0]:
                    if done < BATCH:
                        await asyncio.sleep(GATHER_S)
            except (psycopg.Error, errors.WaError) as error:
                _logger.error("webhooks not processed, trying again", **log.describe(error))
                await asyncio.sleep(FAILED_WAIT_S)


class Rejections:
    """Counts refused requests in the audit log, without letting a flood of them queue up."""

    def __init__(self, link: Link, statement: LiteralString, words: str) -> None:
        self._link = link
        self._statement = statement
        self._words = words
        self._waiting: asyncio.Queue[tuple[str, str]] = asyncio.Queue(MOST_REJECTIONS)

    def add(self, source: str, reason: str) -> None:
        """Note one refused request of a source address."""
        _logger.warning(self._words, source=source, reason=reason)
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait((source, reason))

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            source, reason = await self._waiting.get()
            try:
                await self._link.fetch(self._statement, source, reason)
            except (psycopg.Error, errors.WaError) as error:
                _logger.error("refusal not recorded", **log.describe(error))


class WebhookSecrets:
    """What vouches for webhooks, and for whoever sets them up: what is stored, and the environment's."""

    def __init__(self, settings: Settings, box: SecretBox | None, link: Link) -> None:
        self._box = box
        self._link = link
        self._own = {
            name: secret.get_secret_value()
            for name, secret in (("app_secret", settings.app_secret), ("verify_token", settings.verify_token))
            if secret is not None
        }
        #: Where we are reached, as operators stated it.
        self.public_urls: list[str] = []
        # By name, the ids of each value: organizations may share an app, and so a secret.
        self._secrets: dict[str, dict[str, list[str]]] = self._of_environment()
        self._refreshed_at = 0.0

    def named(self, name: str) -> dict[str, list[str]]:
        """The secrets of that name (wa_secrets.name), each with the ids under which it is stored."""
        return self._secrets.get(name, {})

    def _of_environment(self) -> dict[str, dict[str, list[str]]]:
        return {name: {value: [ENVIRONMENT]} for name, value in self._own.items()}

    async def refresh(self) -> bool:
        """Read the stored secrets again unless that was just done; whether anything changed."""
        if monotonic() - self._refreshed_at < REFRESH_SECRETS_AT_MOST_EVERY_S:
            return False
        self._refreshed_at = monotonic()
        rows = await self._link.fetch(
            "SELECT organization_id::text, name, ciphertext, key_id, phone_number_id, secret_id::text"
            " FROM get_wa_webhook_secrets()"
        )
        urls = [row[0] for row in await self._link.fetch("SELECT get_wa_public_urls()")]
        if self._box is not None:
            await self._box.learn(row[3] for row in rows)
        found = self._of_environment()
        for organization, name, ciphertext, key_id, number, secret_id in rows:
            if self._box is None:
                _logger.error(
                    "secrets are stored but there is no master key: set WA_SECRET_KEY or WA_SECRET_KEY_FILE"
                )
                break
            try:
                # A secret speaks for the number that it was sealed for, whatever its row says now.
                value = self._box.open(organization, name, number, bytes(ciphertext), key_id)
            except SealError as error:
                _logger.error(str(error), key_id=error.key_id, hint=error.hint)
                continue
            found.setdefault(name, {}).setdefault(value, []).append(secret_id)
        before = (self._secrets, self.public_urls)
        self._secrets, self.public_urls = found, urls
        return before != (found, urls)

    async def run(self) -> None:
        """Keep the secrets fresh until cancelled."""
        while True:
            try:
                await self.refresh()
            except (psycopg.Error, errors.WaError) as error:
                _logger.warning("stored secrets not read", **log.describe(error))
            await asyncio.sleep(REFRESH_SECRETS_EVERY_S)
