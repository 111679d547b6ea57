"""`wa flows`: definitions of flows, and their runs."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import click

from pg_whatsapp.cli_tools import echo_table, for_organization, run, settings

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def flows() -> None:
    """Flows: what is sent when, until something happens."""


@flows.command("import")
@click.argument("file", type=_FILE)
@click.option("--draft", is_flag=True, help="Only store: new runs take the version that is active now.")
@for_organization
def import_flows(file: Path, draft: bool, organization: str | None) -> None:
    """Store the definition, or the list of them, in FILE: all or none, each as a new version if it changed.

    A version becomes active unless a template of it is not approved yet.
    """
    from pg_whatsapp import flows as work

    echo_table(run(work.store(settings(), work.read(file), not draft, organization)), "no flows")


@flows.command("export")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Else the active one, or the newest.")
@for_organization
def export_flow(name: str, version: int | None, organization: str | None) -> None:
    """Print the definition of a flow, as import takes it."""
    from pg_whatsapp import flows as work

    click.echo(run(work.export(settings(), name, version, organization)))


@flows.command("list")
@click.option("--flow", "name", help="Only runs of this flow.")
@click.option(
    "--status",
    type=click.Choice(["active", "paused", "completed", "cancelled", "failed"]),
    help="Only runs in this state.",
)
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@for_organization
def list_flows(name: str | None, status: str | None, limit: int, organization: str | None) -> None:
    """Show the newest runs: where they stand, and when they act next. No phone number."""
    from pg_whatsapp import flows as work

    echo_table(run(work.list_runs(settings(), name, status, limit, organization)), "no runs")


@flows.command("cancel")
@click.argument("run_id", metavar="RUN", type=click.UUID)
@click.option("--reason", help="Kept with the run.")
@for_organization
def cancel_flow(run_id: UUID, reason: str | None, organization: str | None) -> None:
    """End a run, and take back what it has waiting in the queue."""
    from pg_whatsapp import flows as work

    run(work.cancel(settings(), str(run_id), reason, organization))
    click.echo("cancelled")
