"""Whether messages move: webhooks, files, the queue, events, calls to the provider, and who does it."""

from __future__ import annotations

import time

from .report import DUE_TOO_LONG_S, Check, Finding, Patient, lasted

# Windows close a minute early; clocks further apart than this eat into that.
MOST_SKEW_S = 5.0
UNPROCESSED_TOO_LONG_S = 60.0
SILENT_TOO_LONG_S = 300.0


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


async def _webhooks(patient: Patient) -> Finding:
    silent_s, waiting_s, unresolved, refused, unheard_s = await patient.ask(
        """
        SELECT extract(epoch FROM clock_timestamp() - l.last_at)::float8,
            extract(epoch FROM clock_timestamp() - (
                SELECT w.received_at FROM wa_webhook_logs w WHERE w.status = 'pending' ORDER BY w.id LIMIT 1
            ))::float8,
            (SELECT count(*) FROM wa_webhook_errors WHERE resolved_at IS NULL),
            get_wa_rejections(clock_timestamp() - interval '1 hour'),
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


async def _provider_calls(patient: Patient) -> Finding:
    failed, why, waits_s = await patient.ask(
        "SELECT count(*) FILTER (WHERE state = 'failed'), max(error) FILTER (WHERE state = 'failed'),"
        " coalesce(extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE state = 'pending')),"
        " 0)::float8 FROM wa_provider_calls"
        " WHERE state = 'pending' OR (state = 'failed' AND ended_at > clock_timestamp() - interval '1 hour')"
    )
    hint = "SELECT kind, phone_number_id, error FROM wa_provider_calls WHERE state <> 'done';"
    if failed:
        return Finding("provider calls", False, f"{failed} failed within an hour, for example: {why}", hint)
    if waits_s > DUE_TOO_LONG_S:
        return Finding("provider calls", False, f"one waits for {lasted(waits_s)}", hint)
    return Finding("provider calls", True, "none fails")


async def _faults(patient: Patient) -> Finding:
    # A lock that was waited for in vain for a moment is what traffic brings; one that lasts stops somebody.
    rows = await patient.list(
        "SELECT work, sqlstate, error FROM wa_faults WHERE last_at > clock_timestamp() - interval '1 hour'"
        " AND (sqlstate <> '55P03' OR last_at - first_at > interval '5 seconds') ORDER BY last_at DESC"
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


#: The clocks by what the numbers' provider answered before.
CHECKS: tuple[Check, ...] = (
    _clocks,
    _webhooks,
    _files,
    _queue,
    _events,
    _provider_calls,
    _faults,
    _dispatcher,
)
