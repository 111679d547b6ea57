"""`wa media`: files of yours, to be sent."""

from __future__ import annotations

from pathlib import Path

import click

from pg_whatsapp.cli_tools import for_organization, run, settings


@click.group()
def media() -> None:
    """Files of yours, to be sent."""


@media.command("upload")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--type", "mime_type", help="Its MIME type; else what its bytes, or its name, tell.")
@click.option(
    "--number",
    metavar="ID|default",
    help="Have it uploaded to the provider for this business number now, not when a message needs it.",
)
@for_organization
def upload_media(file: Path, mime_type: str | None, number: str | None, organization: str | None) -> None:
    """Keep FILE and print its id: content of a message with it is {"media_id": ID}.

    The same file with the same name keeps its id. The provider gets it when a message needs it, once in 30
    days for a number; a running `wa dispatch` does that.
    """
    from pg_whatsapp.media_upload import upload

    kept = run(
        upload(
            settings(),
            file,
            mime_type=mime_type,
            for_number=number is not None,
            number=None if number == "default" else number,
            organization=organization,
        )
    )
    click.echo(kept.media_id)
    if kept.number is not None:
        there = f", {kept.provider_media_id} there" if kept.provider_media_id else ""
        click.echo(f"for {kept.number}: {kept.status}{there}", err=True)
