"""`wa optouts`: who asked not to be written to, from a file and into one."""

from __future__ import annotations

from pathlib import Path

import click

from pg_whatsapp.cli_tools import for_organization, run, settings, writing

FAILED = 1


def import_opt_outs(path: Path, organization: str | None) -> bool:
    """Import a file, show what became of it; whether all of its lines were good."""
    from pg_whatsapp import opt_outs

    done = run(opt_outs.import_file(settings(), path, organization, lambda line: click.echo(line, err=True)))
    for number, problem in done.bad_lines:
        click.echo(f"line {number}: {problem}", err=True)
    click.echo(f"{path.name}: {done.summary}")
    return not done.bad_lines


@click.group()
def optouts() -> None:
    """Who asked not to be written to, from a file and into one."""


@optouts.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@for_organization
def import_command(file: Path, organization: str | None) -> None:
    """Record the opt-outs of a CSV file.

    Its first line names the columns: phone or user_id; scope (marketing unless it says utility,
    authentication, sms or all), reason, source, opt_out_date (ISO 8601). Bad lines are told by their number,
    the others are kept, and the exit status is 1. The file may be imported again, also after an interruption:
    what is in force already stays as it is, and consent that was given after the date of a line, too.
    """
    if not import_opt_outs(file, organization):
        raise click.exceptions.Exit(FAILED)


@optouts.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@for_organization
def export_command(file: Path, organization: str | None) -> None:
    """Write the opt-outs in force to a CSV file (- is standard output), as `import` reads them."""
    from pg_whatsapp import opt_outs

    target = None if str(file) == "-" else file
    with writing("the opt-outs"):
        count = run(opt_outs.export_file(settings(), target, organization))
    click.echo(f"{count} opt-outs", err=True)
