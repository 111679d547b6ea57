"""What `wa doctor` asks of keys, the audit log, archives and time zones."""

from __future__ import annotations

import stat

from pg_whatsapp import errors
from pg_whatsapp.secrets import load_box

from .report import Check, Finding, Patient, lasted

UNSEALED_TOO_LONG_S = 600.0
# Rows are to be in the archive a day before retention takes them, and it runs daily.
UNARCHIVED_TOO_LONG_S = 2 * 86400.0


async def _master_key(patient: Patient) -> Finding:
    try:
        box = load_box(patient.settings)
    except errors.SecretKeyError as error:
        return Finding("master key", False, str(error), error.hint)
    rows = await patient.list(
        "SELECT key_id FROM wa_secrets WHERE is_active UNION SELECT key_id FROM wa_event_secrets"
    )
    needed = {key_id for (key_id,) in rows}
    if box is None:
        hint = "Set WA_SECRET_KEY or WA_SECRET_KEY_FILE to the key that sealed the stored secrets."
        text = "not set" if needed else "not set, nothing is sealed"
        return Finding("master key", not needed, text, hint)
    missing = needed - box.key_ids
    if missing:
        hint = "Add the older keys to WA_SECRET_KEY_FILE, or set those secrets again."
        return Finding("master key", False, f"{len(missing)} older keys missing", hint)
    file = patient.settings.secret_key_file
    mode = stat.S_IMODE(file.stat().st_mode) if file and patient.settings.secret_key is None else 0
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        hint = f"chmod 600 {file}; who reads it opens every stored token."
        return Finding("master key", False, f"opens all, and others may read its file ({mode:04o})", hint)
    return Finding("master key", True, "opens all")


async def _audit_log(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT name, problems, problem, unsealed,"
        " extract(epoch FROM clock_timestamp() - oldest_unsealed_at)::float8,"
        " extract(epoch FROM clock_timestamp() - checked_at)::float8"
        " FROM get_wa_audit_health() ORDER BY problems DESC"
    )
    broken = [row for row in rows if row[1]]
    if broken:
        text = f"{broken[0][1]} rows are not what was written, with {broken[0][0]}: {broken[0][2]}"
        return Finding("audit log", False, text, "SELECT * FROM verify_wa_audit_log(); names them all.")
    late_s = max((row[4] for row in rows if row[4] is not None), default=0.0)
    jobs = await patient.list("SELECT name FROM wa_jobs WHERE next_run_at IS NOT NULL")
    # Where no jobs run at all, their own line says so.
    if late_s > UNSEALED_TOO_LONG_S and jobs:
        text = f"{sum(row[3] for row in rows)} rows without a seal, the oldest for {lasted(late_s)}"
        hint = "SELECT * FROM wa_job_health WHERE name = 'audit'; says why they are not sealed."
        if ("audit",) not in jobs:
            hint = "SELECT * FROM schedule_wa_jobs(); takes up the jobs that an upgrade brought."
        return Finding("audit log", False, text, hint)
    checks = [row[5] for row in rows if row[5] is not None]
    text = f"whole when checked {lasted(max(checks))} ago" if checks else "not checked yet"
    acknowledged = next((f", but for {row[2]}" for row in rows if row[2]), "")
    return Finding("audit log", True, text + acknowledged)


async def _archive(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT name, extract(epoch FROM late)::float8 FROM get_wa_archive_health()"
        " ORDER BY late DESC NULLS LAST"
    )
    if not rows:
        return Finding("archive", True, "none is kept")
    name, late_s = rows[0]
    if (late_s or 0.0) > UNARCHIVED_TOO_LONG_S:
        text = f"a row of {name} waits for {lasted(late_s)}, and retention with it"
        return Finding("archive", False, text, "bin/wa archive run, daily by cron or a timer.")
    return Finding("archive", True, f"of {len(rows)} organizations, nothing is late")


async def _time_zones(patient: Patient) -> Finding:
    rows = await patient.list(
        """
        SELECT z.place, z.name, count(*) FROM (
            SELECT 'organization', time_zone FROM wa_organizations
            UNION ALL SELECT 'account', account_time_zone FROM wa_phone_numbers
            UNION ALL SELECT 'prefix', time_zone FROM wa_zone_prefixes
            UNION ALL SELECT 'contact', time_zone FROM wa_contacts
        ) AS z (place, name)
        WHERE z.name IS NOT NULL AND z.name NOT IN (SELECT n.name FROM pg_catalog.pg_timezone_names AS n)
        GROUP BY z.place, z.name ORDER BY count(*) DESC, z.place, z.name
        """
    )
    if not rows:
        return Finding("time zones", True, "the server has all that are set")
    place, name, count = rows[0]
    text = f"{name} of {count} {place}s is none that the server has" + (
        f", and {len(rows) - 1} more" if len(rows) > 1 else ""
    )
    hint = (
        "Others count in their place. Install the system's older names (tzdata-legacy), or set one of"
        " pg_timezone_names."
    )
    return Finding("time zones", False, text, hint)


CHECKS: tuple[Check, ...] = (_master_key, _audit_log, _archive, _time_zones)
