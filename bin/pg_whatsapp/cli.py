"""The `wa` command: arguments, exit status. Each command imports what it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import psycopg

from pg_whatsapp import __version__, log
from pg_whatsapp.cli_archive import archive
from pg_whatsapp.cli_audit import audit
from pg_whatsapp.cli_events import events
from pg_whatsapp.cli_flows import flows
from pg_whatsapp.cli_media import media
from pg_whatsapp.cli_numbers import numbers
from pg_whatsapp.cli_optouts import import_opt_outs, optouts
from pg_whatsapp.cli_secrets import secrets
from pg_whatsapp.cli_tools import echo_table as _echo_table
from pg_whatsapp.cli_tools import for_organization as _for_organization
from pg_whatsapp.cli_tools import run as _run
from pg_whatsapp.cli_tools import settings as _settings
from pg_whatsapp.cli_tools import writing
from pg_whatsapp.errors import WaError, from_database

if TYPE_CHECKING:
    import httpx

    from pg_whatsapp.web import Part

T = TypeVar("T")
FAILED = 1
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MESSAGES_AT_ONCE = 200
EVENTS_AT_ONCE = 100
FILES_AT_ONCE = 8
CALLS_AT_ONCE = 32


class _Group(click.Group):
    """Turns our errors into one line on standard error and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (WaError, psycopg.Error) as problem:
            error = problem if isinstance(problem, WaError) else from_database(problem)
            click.echo(f"wa: {error}", err=True)
            if error.hint:
                click.echo(f"  {error.hint}", err=True)
            if getattr(error, "sqlstate", None) == "WA301":
                click.echo("  Commands take --organization, or WA_ORGANIZATION, for that.", err=True)
            ctx.exit(FAILED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wa")
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="Form of the log on standard error.",
)
def wa(log_format: str) -> None:
    """WhatsApp messaging inside PostgreSQL: send, receive, administer.

    The database is named by DATABASE_URL or the PG* variables. Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    log.configure(log_format)


wa.add_command(archive)
wa.add_command(audit)
wa.add_command(events)
wa.add_command(flows)
wa.add_command(media)
wa.add_command(numbers)
wa.add_command(optouts)
wa.add_command(secrets)


@wa.command()
@click.option(
    "--concurrency",
    type=click.IntRange(1, 2000),
    help=f"Requests in flight.  [default: {MESSAGES_AT_ONCE}; of --only events {EVENTS_AT_ONCE},"
    f" of --only files {FILES_AT_ONCE}, of --only calls {CALLS_AT_ONCE}]",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 5000),
    default=500,
    show_default=True,
    help="Most messages a claim takes.",
)
@click.option(
    "--drain", is_flag=True, help="Stop when nothing is due within a minute and nothing is in flight."
)
@click.option(
    "--only",
    type=click.Choice(["messages", "events", "files", "calls"]),
    help="Only send messages, push events, fetch and upload files, or call the provider for the rest.",
)
@click.option("--companion", is_flag=True, hidden=True)
@click.pass_context
def dispatch(
    ctx: click.Context, concurrency: int | None, batch: int, drain: bool, only: str | None, companion: bool
) -> None:
    """Send what is queued, until stopped; fetch and upload files; push events to where they are subscribed;
    mark as read, and fetch and submit templates, where an application asked for it.

    SIGTERM finishes what is in flight and hands the rest back; a second signal ends at once. Any number of
    dispatchers may share a database. Tokens come from `wa secrets set`, else from WHATSAPP_ACCESS_TOKEN.
    """
    from pg_whatsapp import dispatch_parts as parts
    from pg_whatsapp.dispatcher import Dispatcher
    from pg_whatsapp.numbers import register_from_environment
    from pg_whatsapp.process import serve
    from pg_whatsapp.secrets import load_box, require_box
    from pg_whatsapp.transport import open_transport

    settings = _settings()
    box = load_box(settings)
    if only == "events":
        _run(
            parts.push_events(
                settings, require_box(settings), concurrency or EVENTS_AT_ONCE, drain, companion
            )
        )
        return
    if only == "files":
        _run(parts.work_on_files(settings, box, concurrency or FILES_AT_ONCE, drain, companion))
        return
    if only == "calls":
        _run(parts.call_provider(settings, box, concurrency or CALLS_AT_ONCE, drain, companion))
        return
    beside = () if only else parts.companions(_global_options(ctx), box.key_id_list if box else [])

    async def work() -> None:
        http = open_transport()
        try:
            await register_from_environment(settings)
            await serve(
                Dispatcher(
                    settings,
                    box,
                    http,
                    concurrency=concurrency or MESSAGES_AT_ONCE,
                    batch=batch,
                    drain=drain,
                    companions=beside,
                )
            )
        finally:
            await http.aclose()

    _run(work())


def _global_options(ctx: click.Context) -> list[str]:
    """The options before the command, for a process that is to log as this one does."""
    return ["--log-format", ctx.find_root().params["log_format"]]


@wa.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8800, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--only",
    type=click.Choice(["webhook", "api", "metrics"]),
    help="Only this part, in a process and with a database login of its own: as it belongs in production.",
)
@click.option("--tls-cert", type=_FILE, help="Serve HTTPS with this certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, help="Its private key; without, it is in the same file.")
@click.option(
    "--client-ca", type=_FILE, help="Take only clients with a certificate of this authority (PEM): mTLS."
)
@click.option(
    "--client-name",
    "client_names",
    multiple=True,
    metavar="NAME",
    help="Of those, only the one of this name: an authority signs for many. May be repeated.",
)
def serve(
    host: str,
    port: int,
    only: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    client_names: tuple[str, ...],
) -> None:
    """Receive webhooks at /api/whatsapp/webhook and serve the HTTP API beside it, until stopped.

    Answers a webhook 200 once the body is stored durably. Secrets come from `wa secrets set` and from
    WHATSAPP_APP_SECRET and WHATSAPP_VERIFY_TOKEN. Put a TLS proxy in front: where WA_TRUSTED_PROXIES names
    its address (or network, several with commas), the X-Forwarded-For that it sets tells the source.
    WA_MOST_PER_SOURCE bounds the requests that a source has under way; unset, nothing does, for all of
    Meta's may come through one proxy. WA_WEBHOOK_CLIENT_HEADER ("Name: value") is what the proxy sets where a
    webhook came with a good client certificate; without it webhooks are refused then.
    """
    if tls_cert is None and (tls_key or client_ca):
        raise click.UsageError("--tls-key and --client-ca need --tls-cert")
    if client_names and client_ca is None:
        raise click.UsageError("--client-name needs --client-ca")
    from pg_whatsapp.client_certificates import Tls
    from pg_whatsapp.numbers import register_from_environment
    from pg_whatsapp.readiness import Readiness
    from pg_whatsapp.web import Web, check_login
    from pg_whatsapp.web import serve as run

    settings = _settings()
    paths = {"api": "/api/whatsapp", "metrics": "/metrics"}
    has_webhook = only in (None, "webhook")
    # Before the API, which answers at every path that is left.
    parts: list[Part] = [Readiness(settings, has_health=not has_webhook)]
    if has_webhook:
        from pg_whatsapp.receiver import Receiver
        from pg_whatsapp.secrets import load_box

        parts.append(Receiver(settings, load_box(settings)))
        _run(check_login(settings, is_alone=only == "webhook"))
        _run(register_from_environment(settings))
    if only in (None, "api"):
        from pg_whatsapp.api.part import Api
        from pg_whatsapp.media_http import MediaLinks

        parts += [MediaLinks(settings), Api(settings)]
    if only == "metrics":
        from pg_whatsapp.exposition import Exposition

        parts.append(Exposition(settings))
    path = paths.get(only or "", "/api/whatsapp/webhook")
    tls = Tls(tls_cert, tls_key, client_ca, client_names) if tls_cert else None
    run(Web(parts), settings, path, host, port, tls)


@wa.command()
@click.option("--schema", help="Schema for a new extension; default: the first of the search_path.")
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run, change nothing.")
def migrate(schema: str | None, dry_run: bool) -> None:
    """Install or upgrade the extension and its schema, in one transaction."""
    from pg_whatsapp.migrate import migrate as run

    for line in _run(run(_settings(), schema, dry_run)):
        click.echo(line)


@wa.command()
@click.option(
    "--pending",
    type=click.Choice(["fail", "keep"]),
    default="fail",
    show_default=True,
    help="What becomes of messages that were due: the original may have sent them. "
    "'keep' only if it had stopped before this copy was taken.",
)
@click.option(
    "--optouts",
    "opt_outs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Record these first: what `wa optouts export` wrote since the copy was taken.",
)
@click.option(
    "--erasures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `wa erasures export` wrote last: whoever was erased since is erased again.",
)
@_for_organization
def adopt(pending: str, opt_outs: Path | None, erasures: Path | None, organization: str | None) -> None:
    """Make this database the one that sends, after a restore, a clone or a promotion.

    Who opted out since the copy was taken is opted out here once --optouts says so, before anything is sent.
    It goes by --organization; of further organizations `wa optouts import` does the same before.
    """
    from pg_whatsapp import db
    from pg_whatsapp.erasures import read, reapply

    exports = "[]" if erasures is None else read(erasures)

    # Before it is adopted: a dispatcher that waits for that sends at once.
    if opt_outs is not None and not import_opt_outs(opt_outs, organization):
        raise WaError("not adopted: lines of the file are bad", "Correct or remove them, then repeat.")
    for of, identities, contacts in _run(reapply(_settings(), exports)):
        click.echo(f"erased again in {of}: {contacts} contacts, {identities} hashes were new")

    async def work(connection: db.Connection) -> list[tuple[Any, ...]]:
        return await (await connection.execute("SELECT * FROM adopt_wa_database(%s)", (pending,))).fetchall()

    for action, messages in _run(db.once(_settings().conninfo, "adopt", work)):
        click.echo(f"{action}: {messages}")


@wa.group()
def erasures() -> None:
    """Who was erased, by keyed hashes, for databases that are restored from backups."""


@erasures.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
def export_erasures(file: Path) -> None:
    """Write who was erased, of all organizations, to FILE, for its owner's eyes; - is standard output.

    Beside each backup: `wa adopt --erasures FILE` erases them again in what is restored. No number stands in
    it, but the keys of the hashes do: keep it as safe as a backup.
    """
    from pg_whatsapp.erasures import export

    target = None if str(file) == "-" else file
    with writing("who was erased"):
        count = _run(export(_settings(), target))
    click.echo(f"{count} hashes", err=target is None)


@wa.command()
def doctor() -> None:
    """Say what is wrong, one line each, with the way out."""
    from pg_whatsapp.doctor import examine

    findings = _run(examine(_settings()))
    for finding in findings:
        click.echo(f"{finding.mark} {finding.name}: {finding.text}")
        if finding.hint and (finding.warns or not finding.is_good):
            click.echo(f"     {finding.hint}")
    if not all(finding.is_good for finding in findings):
        raise click.exceptions.Exit(FAILED)


@wa.group()
def keys() -> None:
    """Keys of the HTTP API: what each may do is what its database role may."""


@keys.command("create")
@click.argument("name")
@click.option("--role", required=True, help="Database role of its requests; you must be a member of it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    # As the database names them; a test compares.
    type=click.Choice(["send", "read", "media", "templates", "metrics", "admin"]),
    default=["send", "read"],
    show_default=True,
    help="May be repeated.",
)
@click.option("--expires", metavar="TIME", help="When it ends, as in 2027-01-31 or 2027-01-31T12:00Z.")
@click.option("--test", "is_test", is_flag=True, help="Reaches business numbers with is_test only.")
@click.option("--requests-per-minute", type=click.IntRange(min=1), help="So many, and no more.")
@_for_organization
def create_key(
    name: str,
    role: str,
    scopes: tuple[str, ...],
    expires: str | None,
    is_test: bool,
    requests_per_minute: int | None,
    organization: str | None,
) -> None:
    """Make a key for the application NAME and print it: it is told this once only."""
    from pg_whatsapp import keys as work

    key_id, key = _run(
        work.create(
            _settings(), name, role, list(scopes), expires, is_test, requests_per_minute, organization
        )
    )
    click.echo(f"id {key_id}; the next line is told once only", err=True)
    click.echo(key)


@keys.command("list")
@_for_organization
def list_keys(organization: str | None) -> None:
    """Show the keys: their beginning, role, scopes, state and last use."""
    from pg_whatsapp import keys as work

    _echo_table(_run(work.list_keys(_settings(), organization)), "no keys")


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@_for_organization
def revoke_key(key_id: str, organization: str | None) -> None:
    """End a key: the next request with it is refused."""
    from pg_whatsapp import keys as work

    if not _run(work.revoke(_settings(), key_id, organization)):
        raise WaError(f"no key {key_id} that you may end", "wa keys list shows them.")
    click.echo("revoked")


@wa.group()
def templates() -> None:
    """Message templates."""


@templates.command("sync")
@click.option("--waba", help="Only this business account.")
@_for_organization
def sync_templates(waba: str | None, organization: str | None) -> None:
    """Read the provider's templates into wa_templates. Interrupted, it goes on where it stopped."""
    from pg_whatsapp.secrets import load_box
    from pg_whatsapp.templates import sync

    settings = _settings()
    box = load_box(settings)
    synced = _run(_with_transport(lambda http: sync(settings, box, http, waba, organization)))
    for account, count in synced.items():
        click.echo(f"account {account}: {count} templates")


@templates.command("submit")
@click.argument("names", nargs=-1)
@click.option("--waba", help="Only to this business account.")
@_for_organization
def submit_templates(names: tuple[str, ...], waba: str | None, organization: str | None) -> None:
    """Hand drafts to the provider's review: all that never were, or those with these NAMES.

    By name, a rejected, approved or paused template is submitted again with its present text. May be repeated
    after an interruption. What the review would object to is told by lint_wa_template().
    """
    from pg_whatsapp.secrets import load_box
    from pg_whatsapp.templates import submit

    settings = _settings()
    box = load_box(settings)
    done = _run(_with_transport(lambda http: submit(settings, box, http, waba, names, organization)))
    if not done:
        click.echo("nothing to submit")
    for one in done:
        reason = f": {one.reason}" if one.reason else ""
        state = ", ".join(filter(None, (one.outcome, one.status, one.category)))
        click.echo(f"{one.name} ({one.language}): {state}{reason}")
    missing = {name.lower() for name in names} - {one.name.lower() for one in done}
    if missing:
        click.echo(f"not a template that can be submitted now: {', '.join(sorted(missing))}", err=True)
    # Kept back among all drafts is as it should be; asked for by name, it is not done.
    bad = {"refused", "kept back"} if names else {"refused"}
    if missing or any(one.outcome in bad for one in done):
        raise click.exceptions.Exit(FAILED)


@templates.command("list")
@click.option("--status", help="Only those in this state, for example APPROVED.")
@_for_organization
def list_templates(status: str | None, organization: str | None) -> None:
    """Show the templates: category, state, quality, and what is the matter."""
    from pg_whatsapp.templates import list_templates as rows

    _echo_table(_run(rows(_settings(), status, organization)), "no templates")


async def _with_transport(work: Callable[[httpx.AsyncBaseTransport], Awaitable[T]]) -> T:
    from pg_whatsapp.transport import open_transport

    http = open_transport()
    try:
        return await work(http)
    finally:
        await http.aclose()


@wa.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="Stand in for the Graph API.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def simulate(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Stand in for the Graph API."""
    from wa_simulator.cli import simulate as command

    # Its options live with it; only what is asked for is imported.
    command.main(list(arguments), prog_name="simulate", parent=ctx.parent)


def main() -> None:
    """Entry point of the `wa` command."""
    try:
        wa(prog_name="wa")
    except asyncio.CancelledError:
        raise SystemExit(FAILED) from None
