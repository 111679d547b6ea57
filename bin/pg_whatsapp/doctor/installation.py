"""Whether the database is installed as it should be: release, roles, switches, jobs, standbys."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import psycopg

from pg_whatsapp import __version__, errors

from .report import Check, Finding, Patient

ROLES = ("wa_admin", "wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst", "wa_api")


async def _server(patient: Patient) -> Finding:
    number = patient.connection.info.server_version
    text = f"PostgreSQL {number // 10000}.{number % 10000}"
    return Finding("server", number >= 150000, text, "PostgreSQL 15 or newer is needed.")


async def _versions(patient: Patient) -> Finding:
    extension, schema, available = await patient.ask(
        "SELECT v.extension_version, v.schema_version, a.default_version FROM wa_version() v"
        " LEFT JOIN pg_available_extensions a ON a.name = 'pg_whatsapp'"
    )
    text = f"program {__version__}, extension {extension}, schema {schema}, server's files {available}"
    if not extension == schema == available:
        return Finding("versions", False, text, "bin/wa migrate brings both to the release of the files.")
    fits = __version__.split(".")[:2] == extension.split(".")[:2]
    return Finding("versions", fits, text, "Run the bin/wa of the schema's release, or upgrade the schema.")


async def _migrations(patient: Patient) -> Finding:
    rows = await patient.list("SELECT step FROM plan_wa_migration() WHERE action <> 'unchanged'")
    text = f"{len(rows)} pending" if rows else "none pending"
    return Finding("migrations", not rows, text, "bin/wa migrate; with --dry-run it shows the SQL.")


async def _phone_rules(patient: Patient) -> Finding:
    [release] = await patient.ask("SELECT wa_phonenumbers_version()")
    try:
        ours = version("phonenumbers")
    except PackageNotFoundError:
        ours = None
    is_good = release is not None and ours in (None, release)
    text = f"phonenumbers {release} on the server" + ("" if is_good else f", {ours} with this program")
    return Finding(
        "phone rules", is_good, text, "make install on the server puts this release beside the extension."
    )


async def _misread(patient: Patient) -> Finding:
    rows = await patient.list("SELECT contact_id, reason FROM find_misread_wa_phones()")
    if not rows:
        return Finding("numbers of contacts", True, "none looks misread")
    contact, reason = rows[0]
    text = f"{len(rows)} look misread, the first is contact {contact}: {reason}"
    hint = (
        "SELECT * FROM find_misread_wa_phones(); says what was meant. Nothing changes by itself: queue to the"
        " right number, and opt it out, too, where is_opted_out is true."
    )
    return Finding("numbers of contacts", False, text, hint)


async def _roles(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT n.name FROM unnest(%s::text[]) n (name) LEFT JOIN pg_roles r ON r.rolname = n.name"
        " WHERE r.oid IS NULL OR NOT has_schema_privilege(r.oid, current_schema(), 'USAGE')",
        list(ROLES),
    )
    wrong = ", ".join(name for (name,) in rows)
    if wrong:
        return Finding("roles", False, f"missing, or without the schema: {wrong}", "bin/wa migrate")
    rows = await patient.list(
        "SELECT DISTINCT r.role_name FROM wa_organization_roles r"
        " WHERE NOT coalesce(_wa_is_bound_role(r.role_name), false) ORDER BY 1"
    )
    if rows:
        return Finding(
            "roles",
            False,
            f"named for an organization, but not since they were made: {', '.join(name for (name,) in rows)}",
            "SELECT add_wa_organization_role(organization_id, role_name); for those that are meant,"
            " DELETE FROM wa_organization_roles for the others.",
        )
    rows = await patient.list(
        "SELECT DISTINCT u.role_name::text FROM wa_users u"
        " WHERE u.is_active AND u.role_name IS NOT NULL AND NOT _wa_is_user_role(u.role_name) ORDER BY 1"
    )
    if rows:
        return Finding(
            "roles",
            False,
            f"people's, but not since they were named: {', '.join(name for (name,) in rows)}",
            "UPDATE wa_users SET role_name = role_name; for those that are meant, to NULL for the others.",
        )
    return Finding("roles", True, f"all {len(ROLES)} are there")


async def _grants(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT format('%%s on %%s to %%s', string_agg(privilege, ', '), object, role_name)"
        " FROM get_wa_later_grants() GROUP BY object, role_name ORDER BY object, role_name"
    )
    if not rows:
        return Finding("grants", True, "those that it comes with")
    # Whoever gave them had a reason; nothing is broken.
    more = f" and {len(rows) - 1} more; get_wa_later_grants() lists them" if len(rows) > 1 else ""
    return Finding("grants", True, f"beyond those that it comes with: {rows[0][0]}{more}")


async def _adopted(patient: Patient) -> Finding:
    try:
        await patient.connection.execute("SELECT _wa_require_installation()")
    except psycopg.Error as error:
        refusal = errors.from_database(error)
        return Finding("database", False, str(refusal), refusal.hint)
    return Finding("database", True, "is the one that sends")


async def _kill_switch(patient: Patient) -> Finding:
    rows = await patient.list("SELECT is_sending_enabled FROM wa_installations")
    is_enabled = all(enabled for (enabled,) in rows)
    text = "off" if is_enabled else "sending is switched off"
    return Finding("kill switch", is_enabled, text, "SELECT set_wa_sending(true);")


async def _panic(patient: Patient) -> Finding:
    [active] = await patient.ask(
        "SELECT count(*) FROM wa_panic_modes WHERE active AND coalesce(auto_resolve_at, 'infinity') > now()"
    )
    return Finding("panic", not active, f"{active} active" if active else "off", "SELECT resolve_wa_panic();")


async def _pg_cron(patient: Patient) -> Finding:
    [may_look] = await patient.ask(
        "SELECT (SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_extension e, pg_namespace n"
        " WHERE e.extname = 'pg_cron' AND n.nspname = 'cron')"
    )
    if may_look is None:
        return Finding("pg_cron", True, "not in this database; sending does not need it")
    if not may_look:
        return Finding("pg_cron", True, "in this database, but not for this role; see jobs")
    jobs, failed = await patient.ask(
        r"""
        SELECT count(*), count(*) FILTER (WHERE d.status = 'failed' OR NOT j.active)
        FROM cron.job j
        LEFT JOIN LATERAL (
            SELECT r.status FROM cron.job_run_details r WHERE r.jobid = j.jobid
            ORDER BY r.start_time DESC NULLS LAST LIMIT 1
        ) d ON true
        WHERE j.database = current_database() AND j.command ~ '\mwa_|_wa\M|_wa_'
        """
    )
    text = f"{jobs} jobs of ours, {failed} failed at last or switched off"
    return Finding("pg_cron", not failed, text, "cron.job_run_details says why, cron.job what runs.")


async def _jobs(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT name, is_scheduled AND is_enabled, is_overdue, last_error IS NOT NULL FROM wa_job_health"
        " ORDER BY name"
    )
    runs = [row for row in rows if row[1]]
    if not runs:
        return Finding(
            "jobs", True, "not scheduled, nothing is deleted; SELECT schedule_wa_jobs(); starts them"
        )
    overdue = [name for name, _, is_overdue, _ in runs if is_overdue]
    failed = [name for name, _, _, has_failed in runs if has_failed]
    text = f"{len(runs)} scheduled"
    text += f"; overdue: {', '.join(overdue)}" if overdue else ""
    text += f"; failed at last: {', '.join(failed)}" if failed else ""
    hint = "SELECT * FROM wa_job_health; says why. bin/wa dispatch runs them, or pg_cron."
    return Finding("jobs", not overdue and not failed, text, hint)


async def _standbys(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT application_name, sync_state FROM pg_stat_replication"
        " WHERE state IS DISTINCT FROM 'backup'"
        " AND application_name NOT IN ('pg_basebackup', 'pg_receivewal')"
    )
    if any(state is None for _, state in rows):
        return Finding("standbys", True, f"{len(rows)}; their kind is shown to members of pg_monitor")
    lagging = sorted(name for name, state in rows if state == "async")
    if lagging:
        text = (
            f"{len(lagging)} asynchronous ({', '.join(lagging)}): promoted, one may lack the last messages; "
            "bin/wa adopt marks what is in doubt"
        )
        return Finding("standbys", True, text)
    return Finding("standbys", True, f"{len(rows)} synchronous" if rows else "none")


CHECKS: tuple[Check, ...] = (
    _server,
    _versions,
    _migrations,
    _phone_rules,
    _misread,
    _roles,
    _grants,
    _adopted,
    _kill_switch,
    _panic,
    _pg_cron,
    _jobs,
    _standbys,
)
