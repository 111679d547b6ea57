"""`wa doctor`: what is wrong, one line each, with the way out."""

from __future__ import annotations

import psycopg

from pg_whatsapp import db, errors
from pg_whatsapp.config import Settings

from . import installation, numbers, privacy, traffic
from .report import Check, Finding, Patient

CHECKS: tuple[Check, ...] = (*installation.CHECKS, *privacy.CHECKS, *numbers.CHECKS, *traffic.CHECKS)


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks; a check that cannot be made is a finding too. Raises WaError without a database."""

    async def work(connection: db.Connection) -> list[Finding]:
        patient = Patient(connection, settings)
        findings = []
        for check in CHECKS:
            try:
                findings.append(await check(patient))
            except psycopg.Error as error:
                refusal = errors.from_database(error)
                name = check.__name__.lstrip("_").replace("_", " ")
                hint = refusal.hint or "Run it as a member of wa_admin."
                findings.append(Finding(name, False, f"cannot be checked: {refusal}", hint))
        return findings

    return await db.once(settings.conninfo, "doctor", work)
