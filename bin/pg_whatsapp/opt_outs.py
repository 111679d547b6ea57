"""Opt-outs from CSV files and into them. What is wrong with a line the database says."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pg_whatsapp import db
from pg_whatsapp.config import Settings
from pg_whatsapp.errors import WaError

LINES_AT_ONCE = 500
COLUMNS = ("phone", "user_id", "scope", "reason", "source", "opt_out_date")
_ALSO_CALLED = {"phone_number": "phone", "phonenumber": "phone", "date": "opt_out_date"}


@dataclass
class Imported:
    """What became of a file: how many lines were added, known, superseded or refused, and why the last."""

    outcomes: Counter[str] = field(default_factory=Counter)
    #: Number of the line in the file, and what is wrong with it.
    bad_lines: list[tuple[int, str]] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line of counts."""
        return ", ".join(
            f"{self.outcomes[name]} {name}" for name in ("added", "known", "superseded", "refused")
        )


def _shown(text: str) -> str:
    """What bytes that are no UTF-8 were read as can be written nowhere."""
    return text.encode("utf-8", "backslashreplace").decode()


def _problem(names: list[str], row: list[str]) -> str | None:
    """What is wrong with a line before anybody asks what its values mean."""
    if any(value.strip() for value in row[len(names) :]):
        return "it has more values than the first line names columns"
    if any(_shown(value) != value for value in row):
        return "it is not UTF-8: save the file as that"
    return None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str], str | None]]:
    """The lines of a file: number, values by the columns that we know, what is wrong. Raises WaError."""
    # What is not UTF-8 spoils its line, not the file; Excel writes a mark before the first one.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        head = file.readline()
        separator = ";" if ";" in head and "," not in head else ","
        names = [name.strip().lower() for name in next(csv.reader([head], delimiter=separator), [])]
        names = [_ALSO_CALLED.get(name.replace(" ", "_"), name) for name in names]
        may_have = f"It may have: {', '.join(COLUMNS)}."
        if not {"phone", "user_id"} & set(names):
            raise WaError(
                f"{path.name} does not begin with a line of column names, phone or user_id among them",
                may_have,
            )
        # One that is misspelt would be left out, and the opt-out be of another scope.
        unknown = sorted({_shown(name) for name in names if name and name not in COLUMNS})
        if unknown:
            raise WaError(f"{path.name} has columns that mean nothing here: {', '.join(unknown)}", may_have)
        rows = csv.reader(file, delimiter=separator)
        number = 2
        try:
            for row in rows:
                given = zip(names, row, strict=False)
                line = {
                    name: value.replace("\0", "\ufffd") for name, value in given if name and value.strip()
                }
                if any(value.strip() for value in row):
                    yield number, line, _problem(names, row)
                number = rows.line_num + 2
        except csv.Error as error:
            raise WaError(
                f"{path.name}, line {number}: {error}",
                "What stands before it was imported: correct it, repeat.",
            ) from error


async def import_file(
    settings: Settings, path: Path, organization: str | None, tell: Callable[[str], None]
) -> Imported:
    """Record the opt-outs of a file, some hundred lines a transaction; the same file again adds nothing.

    tell gets a line of progress now and then.
    """
    done = Imported()

    async def work(connection: db.Connection) -> None:
        all_lines = _lines(path)
        while lines := list(islice(all_lines, LINES_AT_ONCE)):
            good = [(number, line) for number, line, problem in lines if problem is None]
            cursor = await connection.execute(
                "SELECT n, outcome, problem FROM import_wa_opt_outs(%s::jsonb)",
                (json.dumps([line for _, line in good]),),
            )
            bad = [(number, problem) for number, _, problem in lines if problem is not None]
            done.outcomes["refused"] += len(bad)
            for n, outcome, problem in await cursor.fetchall():
                done.outcomes[outcome] += 1
                if problem is not None:
                    bad.append((good[n - 1][0], problem))
            done.bad_lines += sorted(bad)
            if done.outcomes.total() % (20 * LINES_AT_ONCE) == 0:
                tell(f"{done.outcomes.total()} lines: {done.summary}")

    await db.once(settings.conninfo, "optouts", work, organization=organization)
    return done


async def _exported(connection: db.Connection) -> AsyncIterator[bytes]:
    async with connection.cursor().copy(
        "COPY (SELECT * FROM export_wa_opt_outs()) TO STDOUT (FORMAT csv, HEADER)"
    ) as copy:
        async for part in copy:
            yield bytes(part)


async def export_file(settings: Settings, path: Path | None, organization: str | None) -> int:
    """Write the opt-outs in force to a file, whole or not at all, or to standard output; returns how many."""

    async def work(connection: db.Connection) -> int:
        count = -1
        if path is None:
            async for part in _exported(connection):
                count += 1
                sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            return count
        half = path.with_name(f".{path.name}.{os.getpid()}")
        # Numbers of people: for nobody else's eyes.
        file = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            async for part in _exported(connection):
                count += 1
                while part:
                    part = part[os.write(file, part) :]
            os.fsync(file)
            half.replace(path)
        finally:
            os.close(file)
            half.unlink(missing_ok=True)
        return count

    return await db.once(settings.conninfo, "optouts", work, organization=organization)
