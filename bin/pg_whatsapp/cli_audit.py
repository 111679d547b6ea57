"""`wa audit`: whether the audit log is what was written."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pg_whatsapp.cli_tools import echo_table, for_organization, run, settings, writing
from pg_whatsapp.errors import WaError


@click.group()
def audit() -> None:
    """The audit log's chain: anchors that are kept elsewhere, and whether the log still fits."""


@audit.command("anchor")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add the line to this file instead of printing it.",
)
@for_organization
def write_anchor(file: Path | None, organization: str | None) -> None:
    """Sign where the chain of each organization ends now, as a line of JSON.

    Keep it where nobody who can write to the database can: a log of another machine, an e-mail, paper. The
    key is derived from the master key (WA_SECRET_KEY and its like); `audit public-key` prints the public one.
    """
    from pg_whatsapp import audit as work
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    line = run(work.anchor(chosen, require_box(chosen), organization)) + b"\n"
    if file is None:
        click.echo(line, nl=False)
        return
    with writing("the anchor"), file.open("ab") as kept:
        kept.write(line)
        kept.flush()
        os.fsync(kept.fileno())


@audit.command("public-key")
def show_public_key() -> None:
    """Print the public key of new anchors, with which anybody can check them."""
    from pg_whatsapp import audit as work
    from pg_whatsapp.secrets import require_box

    click.echo(work.public_keys(require_box(settings()))[0])


@audit.command("verify")
@click.option(
    "--anchor",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of `audit anchor`: tells also when the end was cut off, or all of the chain made anew.",
)
@click.option(
    "--public-key",
    "keys",
    multiple=True,
    metavar="HEX",
    help="Trust anchors that this key signed, instead of those of the master keys at hand. May be repeated.",
)
@for_organization
def verify_log(file: Path | None, keys: tuple[str, ...], organization: str | None) -> None:
    """Compute the chain anew and name what was changed, removed, reordered, added or cut off.

    Exit status 1 if anything was.
    """
    from pg_whatsapp import audit as work
    from pg_whatsapp.secrets import require_box

    chosen = settings()
    anchors = []
    if file is not None:
        anchors = work.read(file.read_bytes(), keys or work.public_keys(require_box(chosen)))
    found, ends = run(work.verify(chosen, anchors, organization))
    if found:
        echo_table(found, "")
        raise WaError(
            f"{len(found)} findings: the audit log is not what was written",
            "docs/security.md says what each means, and what to do.",
        )
    for end in ends:
        waiting = f", {end['unsealed']} rows wait for their seals" if end["unsealed"] else ""
        click.echo(f"{end['name']}: whole up to position {end['position']}{waiting}")
    if anchors:
        click.echo(f"{len(anchors)} anchors fit, the newest of {anchors[-1]['taken_at']}")
