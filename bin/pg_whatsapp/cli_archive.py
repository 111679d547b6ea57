"""`wa archive`: what retention is to take, in files first."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from pg_whatsapp.cli_tools import echo_table, for_organization, run, settings
from pg_whatsapp.errors import WaError

_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group()
def archive() -> None:
    """What retention is to take, in compressed files first: in wa_organizations.archive_location.

    A bucket's credentials come from the AWS_* variables, as those of media.
    """


@archive.command("run")
@click.option("--take-over", is_flag=True, help="Another process that was writing is gone: do not wait.")
@for_organization
def write_archive(take_over: bool, organization: str | None) -> None:
    """Archive what retention is to take within a day, then end. Run it daily, or more often."""
    from pg_whatsapp import archive as work

    for name, rows in run(work.write(settings(), organization, take_over)).items():
        click.echo(f"{name}: {rows} rows archived")


@archive.command("list")
@for_organization
def list_archives(organization: str | None) -> None:
    """Show what is in the archives, and since when the oldest row waits that is not."""
    from pg_whatsapp import archive as work

    shown = [
        {name: value for name, value in one.items() if name != "organization_id"}
        for one in run(work.health(settings(), organization))
    ]
    echo_table(shown, "no organization has an archive: wa_organizations.archive_location")


@archive.command("verify")
@for_organization
def verify_archive(organization: str | None) -> None:
    """Read every file and compare checksums and counts; exit status 1 if one is not what was written."""
    from pg_whatsapp import archive as work

    count, wrong = run(work.verify(settings(), organization))
    for line in wrong:
        click.echo(line)
    if wrong:
        raise WaError(
            f"{len(wrong)} of {count} files are not what was written", "Take them from a copy of the archive."
        )
    click.echo(f"{count} files, all as they were written")


@archive.command("restore")
@click.option("--schema", default="wa_archive", show_default=True, help="Where the tables are made.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["messages", "statuses", "queue"]),
    multiple=True,
    help="Only this kind; may be repeated.",
)
@click.option("--since", type=_TIME, help="Only files that hold something from this time (UTC) or later.")
@click.option("--until", type=_TIME, help="Only files that hold something from before this time (UTC).")
@for_organization
def restore_archive(
    schema: str,
    kinds: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    organization: str | None,
) -> None:
    """Put archived rows into tables of a schema of their own, where nothing sends or deletes them.

    Repeating it adds nothing twice. Rows of persons who were erased cannot be read any more. Drop the schema
    when you have seen what you wanted: neither retention nor erasure reaches it.
    """
    from pg_whatsapp import archive as work

    restored = run(
        work.restore(
            settings(), organization, schema, kinds or work.KINDS,
            since and since.replace(tzinfo=UTC), until and until.replace(tzinfo=UTC),
        )
    )  # fmt: skip
    for table, rows in sorted(restored.rows.items()):
        click.echo(f"{schema}.{table}: {rows} rows")
    if restored.erased:
        click.echo(f"{restored.erased} rows are of persons who were erased")
    if not restored.rows:
        click.echo("nothing to restore")
