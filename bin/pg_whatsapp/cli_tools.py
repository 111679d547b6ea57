"""What the commands of `wa` share: settings, an event loop, tables on standard output."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pg_whatsapp.errors import WaError

if TYPE_CHECKING:
    from pg_whatsapp.config import Settings

T = TypeVar("T")

for_organization = click.option(
    "--organization",
    envvar="WA_ORGANIZATION",
    metavar="ID|NAME",
    help="Which, for a role that may work for several; also by WA_ORGANIZATION.",
)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Says of a file that could not be written why. Raises WaError."""
    try:
        yield
    except OSError as error:
        raise WaError(f"{what} could not be written: {error.strerror}") from None


def settings() -> Settings:
    """Those of the environment; raises ConfigError."""
    from pg_whatsapp.config import load

    return load()


def echo_table(rows: Sequence[Mapping[str, Any]], nothing: str) -> None:
    """Rows in columns under their names; `nothing` when there are none."""
    if not rows:
        click.echo(nothing)
        return
    table = [list(rows[0])] + [["" if v is None else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end."""
    import uvloop

    return uvloop.run(work)
