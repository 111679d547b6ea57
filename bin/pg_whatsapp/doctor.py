"""`wa doctor`: what is wrong, one line each, with the way out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, LiteralString, NamedTuple

import psycopg

from pg_whatsapp import __version__, db, doctor_provider, errors
from pg_whatsapp.config import Settings
from pg_whatsapp.secrets import load_box

# Windows close a minute early; clocks further apart than this eat into that.
MOST_SKEW_S = 5.0
# Longer than that, and nothing moves: somebody should look.
DUE_TOO_LONG_S = 120.0
UNPROCESSED_TOO_LONG_S = 60.0
SILENT_TOO_LONG_S = 300.0
ROLES = ("wa_admin", "wa_app", "wa_dispatcher", "wa_receiver", "wa_analyst", "wa_api")


class Finding(NamedTuple):
    """One line of the report; hint is the way out of what is wrong."""

    name: str
    is_good: bool
    text: str
    hint: str | None = None


@dataclass
class Patient:
    """What is examined; skews: what the provider's clock is ahead of ours, in seconds, per answer."""

    connection: db.Connection
    settings: Settings
    skews: list[float] = field(default_factory=list)

    async def ask(self, statement: LiteralString, *params: Any) -> tuple[Any, ...]:
        """The one row of a query."""
        return (await self.list(statement, *params))[0]

    async def list(self, statement: LiteralString, *params: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return await (await self.connection.execute(statement, params)).fetchall()


Check = Callable[[Patient], Awaitable[Finding]]


def lasted(seconds: float) -> str:
    """A time span for people: 40 s, 12 min, 5 h, 3 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


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
    return Finding("roles", True, "all five are there")


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


async def _key(patient: Patient) -> Finding:
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
    text = f"{len(missing)} older keys missing" if missing else "opens all"
    hint = "Add the older keys to WA_SECRET_KEY_FILE, or set those secrets again."
    return Finding("master key", not missing, text, hint)


async def _numbers(patient: Patient) -> Finding:
    known, paused, off, restricted = await patient.ask(
        "SELECT count(*), count(*) FILTER (WHERE pause_scope IS NOT NULL"
        " AND coalesce(paused_until, 'infinity') > clock_timestamp()),"
        " count(*) FILTER (WHERE status <> 'CONNECTED'),"
        " count(*) FILTER (WHERE"
        " greatest(templates_blocked_until, replies_blocked_until) > clock_timestamp())"
        " FROM wa_phone_numbers"
    )
    if not known:
        return Finding("numbers", False, "none registered", "SELECT register_wa_phone_number(...);")
    # 360dialog signs nothing that an app secret could check.
    deaf = await patient.list(
        "SELECT n.phone_number_id FROM wa_phone_numbers n WHERE n.provider = '360dialog' AND NOT EXISTS ("
        " SELECT FROM wa_secrets s WHERE s.organization_id = n.organization_id AND s.is_active"
        " AND s.name IN ('webhook_header', 'platform_secret')"
        " AND coalesce(s.phone_number_id, n.phone_number_id) = n.phone_number_id) ORDER BY 1"
    )
    if deaf:
        return Finding(
            "numbers",
            False,
            f"{len(deaf)} of 360dialog whose webhooks no stored secret lets in",
            f"bin/wa secrets set webhook_header --number {deaf[0][0]}, with the header told to 360dialog.",
        )
    has_secret = patient.settings.app_secret is not None
    unheard = await patient.list("SELECT phone_number_id FROM get_wa_unheard_numbers(%s)", has_secret)
    [of_meta] = await patient.ask("SELECT count(*) FROM wa_phone_numbers WHERE provider = 'meta'")
    # Without any secret at all the webhooks' line says so.
    if unheard and len(unheard) < of_meta:
        return Finding(
            "numbers",
            False,
            f"{len(unheard)} whose webhooks no secret may sign, the first is {unheard[0][0]}",
            f"bin/wa secrets set app_secret --number {unheard[0][0]}, or SELECT share_wa_app(owner) where one"
            " Meta app serves several organizations; then replay_wa_webhooks().",
        )
    return Finding(
        "numbers",
        not (paused or off or restricted),
        f"{known} registered, {paused} paused"
        + (f", {off} not connected" if off else "")
        + (f", {restricted} restricted by Meta" if restricted else ""),
        "SELECT phone_number_id, status, pause_reason, templates_blocked_until, replies_blocked_until FROM"
        " wa_phone_numbers; says why; resume_wa_number(phone_number_id) ends a pause, an UPDATE the others.",
    )


async def _tokens(patient: Patient) -> Finding:
    rows = await patient.list("SELECT organization_id::text, phone_number_id, provider FROM wa_phone_numbers")
    numbers = [doctor_provider.Number(*row) for row in rows]
    asked = [number for number in numbers if number.provider == "meta"]
    try:
        box = load_box(patient.settings)
    except errors.SecretKeyError as error:
        return Finding("tokens", False, "stored tokens cannot be opened", error.hint)
    answers = await doctor_provider.ask(patient.settings, box, asked)
    patient.skews += [answer.skew_s for answer in answers if answer.skew_s is not None]
    bad = [answer for answer in answers if answer.problem]
    others = len(numbers) - len(asked)
    unasked = f"; {others} of another provider not asked" if others else ""
    if bad:
        text = "; ".join(f"{answer.number.phone_number_id}: {answer.problem}" for answer in bad)
        return Finding("tokens", False, text + unasked, bad[0].hint)
    return Finding("tokens", True, f"{len(asked)} accepted by the provider{unasked}")


async def _webhooks(patient: Patient) -> Finding:
    silent_s, waiting_s, unresolved, refused, unheard_s = await patient.ask(
        """
        SELECT extract(epoch FROM clock_timestamp() - l.last_at)::float8,
            extract(epoch FROM clock_timestamp() - (
                SELECT w.received_at FROM wa_webhook_logs w WHERE w.status = 'pending' ORDER BY w.id LIMIT 1
            ))::float8,
            (SELECT count(*) FROM wa_webhook_errors WHERE resolved_at IS NULL),
            (SELECT coalesce(sum(coalesce((meta ->> 'count')::int, 1)), 0) FROM audit_log
                WHERE event = 'webhook_rejected' AND created_at > clock_timestamp() - interval '1 hour'),
            extract(epoch FROM clock_timestamp() - (
                SELECT max(h.last_claim_at) FROM wa_queue_health h
                WHERE h.last_claim_at > coalesce(l.last_at, '-infinity')
            ))::float8
        FROM (SELECT max(w.received_at) AS last_at FROM (
            SELECT received_at FROM wa_webhook_logs ORDER BY id DESC LIMIT 1) w) l
        """
    )
    came = "none has ever come" if silent_s is None else f"last came {lasted(silent_s)} ago"
    refusals = f", {refused} refused in the last hour for their signature" if refused else ""
    where = "The app's callback URL must lead to bin/wa serve, and the app be subscribed to messages."
    if waiting_s is not None and waiting_s > UNPROCESSED_TOO_LONG_S:
        text = f"one waits unprocessed for {lasted(waiting_s)}"
        return Finding("webhooks", False, text, "Start bin/wa serve, or SELECT process_wa_webhooks();")
    if unresolved:
        hint = "wa_webhook_errors says what is wrong; then SELECT replay_wa_webhooks();"
        return Finding("webhooks", False, f"{unresolved} parts could not be processed", hint)
    if silent_s is None:
        if refused:
            where = "Set the app's secret: bin/wa secrets set app_secret; for 360dialog webhook_header."
        return Finding("webhooks", False, came + refusals, where)
    if unheard_s is not None and unheard_s > SILENT_TOO_LONG_S:
        return Finding("webhooks", False, f"{came}, though messages were sent since{refusals}", where)
    return Finding("webhooks", True, came + refusals)


async def _files(patient: Patient) -> Finding:
    late, why, undeleted, why_not = await patient.ask(
        "SELECT (SELECT count(*) FROM wa_media m"
        "   WHERE m.status = 'pending' AND m.created_at < now() - interval '10 minutes'),"
        " (SELECT max(m.error) FROM wa_media m WHERE m.status = 'pending'),"
        " (SELECT count(*) FROM wa_media_garbage g WHERE g.attempts > 1),"
        " (SELECT max(g.error) FROM wa_media_garbage g)"
    )
    if late:
        text = f"{late} could not be fetched within ten minutes, for example: {why or 'nobody has tried'}"
        return Finding("files", False, text, "SELECT id, error FROM wa_media WHERE status = 'pending';")
    if undeleted:
        text = f"{undeleted} cannot be deleted from their store, for example: {why_not}"
        return Finding("files", False, text, "Can bin/wa dispatch reach wa_installations.media_location?")
    return Finding("files", True, "none waits")


async def _pg_cron(patient: Patient) -> Finding:
    [there] = await patient.ask("SELECT to_regclass('cron.job_run_details') IS NOT NULL")
    if not there:
        return Finding("pg_cron", True, "not in this database; sending does not need it")
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


async def _clocks(patient: Patient) -> Finding:
    before = time.time()
    [theirs] = await patient.ask("SELECT extract(epoch FROM clock_timestamp())::float8")
    database_s = theirs - (before + time.time()) / 2
    skews = {"database": database_s}
    if patient.skews:
        skews["provider"] = max(patient.skews, key=abs)
    text = ", ".join(f"{name} {skew:+.1f} s" for name, skew in skews.items()) + " from here"
    values = [0.0, *skews.values()]
    is_good = max(values) - min(values) <= MOST_SKEW_S
    return Finding("clocks", is_good, text, "Run a time service (chrony) here and on the database's machine.")


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


async def _queue(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT phone_number_id, extract(epoch FROM clock_timestamp() - oldest_due_at)::float8, hold_reason,"
        " coalesce(extract(epoch FROM clock_timestamp() - last_claim_at)::float8, 'infinity')"
        " FROM wa_queue_health WHERE oldest_due_at IS NOT NULL ORDER BY oldest_due_at"
    )
    if not rows:
        return Finding("queue", True, "nothing is due")
    # A long queue that moves is no illness.
    stuck = [row for row in rows if row[1] > DUE_TOO_LONG_S and row[3] > DUE_TOO_LONG_S]
    number, due_s, reason, _ = (stuck or rows)[0]
    text = f"the oldest due message waits for {lasted(due_s)}"
    if not stuck:
        return Finding("queue", True, text)
    text += f" at number {number or '(none)'}" + (f": {reason}" if reason else "")
    hint = "SELECT * FROM wa_queue_health; and explain_wa_message(id) say why."
    return Finding("queue", False, text, hint)


async def _events(patient: Patient) -> Finding:
    rows = await patient.list(
        """
        SELECT id::text, state_reason IS DISTINCT FROM 'paused' AND (
                state <> 'active' OR failing_since < clock_timestamp() - interval '1 hour'
            ),
            concat_ws(', ', state_reason, last_error),
            CASE WHEN state = 'active' AND failing_since IS NULL THEN
                extract(epoch FROM clock_timestamp() - least(oldest_due_at, oldest_unread_at))::float8 END
        FROM wa_event_subscription_health ORDER BY failing_since, id
        """
    )
    bad = [row for row in rows if row[1]]
    if bad:
        text = f"{len(bad)} of {len(rows)} do not get through, the first is {bad[0][0]}: {bad[0][2]}"
        hint = "SELECT * FROM wa_event_subscription_health; resume_wa_event_subscription(id) once mended."
        return Finding("event subscriptions", False, text, hint)
    waits_s = max((row[3] for row in rows if row[3] is not None), default=0.0)
    if waits_s > DUE_TOO_LONG_S:
        text = f"an event waits for {lasted(waits_s)}"
        hint = "Is a bin/wa dispatch running that has WA_SECRET_KEY?"
        return Finding("event subscriptions", False, text, hint)
    return Finding("event subscriptions", True, f"{len(rows)}, all well" if rows else "none")


async def _faults(patient: Patient) -> Finding:
    rows = await patient.list(
        "SELECT work, sqlstate, error FROM wa_faults WHERE last_at > clock_timestamp() - interval '1 hour'"
        " ORDER BY last_at DESC"
    )
    [late] = await patient.ask("SELECT count(*) FROM wa_late_results")
    if not rows and not late:
        return Finding("faults", True, "none within an hour")
    text = f"{len(rows)} kinds within an hour"
    if rows:
        work, sqlstate, error = rows[0]
        text += f", the last in {work}: {sqlstate} {error}"
    if late:
        text += f"; {late} answers wait to be recorded"
    hint = "SELECT * FROM wa_faults; 55P03 is a lock that somebody holds: pg_locks says who."
    return Finding("faults", False, text, hint)


async def _dispatcher(patient: Patient) -> Finding:
    [alive] = await patient.ask(
        "SELECT count(*) FROM wa_dispatchers"
        " WHERE stopped_at IS NULL AND seen_at > clock_timestamp() - interval '15 seconds'"
    )
    return Finding("dispatcher", alive > 0, f"{alive} alive", "Start one: bin/wa dispatch")


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
    _key,
    _numbers,
    _tokens,
    _webhooks,
    _files,
    _pg_cron,
    _jobs,
    _clocks,
    _standbys,
    _queue,
    _events,
    _faults,
    _dispatcher,
)


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
