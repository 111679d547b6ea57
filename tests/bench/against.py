"""Two versions of the product side by side: this checkout and another commit, by the same measuring code.

What is measured is reached from outside only (INSERT, `wa`, HTTP, tables that applications read), so that
another version can be. The sink is this checkout's for both.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import CHECKOUT, Database

from bench.drain import MESSAGES, drain_ours, ours
from bench.ground import ACCOUNT, Ground, as_role, settle
from bench.http_load import WEBHOOKS, receive
from bench.insert import BULK, insert_at_once, insert_singly
from bench.rounds import Bench
from bench.table import Line

ROUNDS = 7
SECONDS = 6
AT_LEAST = 0.95
Measure = Callable[[Bench, Ground], float]
Figure = Callable[[Bench], Iterator[Line]]


def _drain(bench: Bench, ground: Ground) -> float:
    return ours(bench, 0, bench.size(MESSAGES), ground=ground)


def _lanes(bench: Bench, ground: Ground) -> float:
    with ground.database() as database:
        for statement in MORE_NUMBERS, THEIR_WINDOWS:
            database.query(statement)
        return drain_ours(bench, database, bench.ground.sink(0), bench.size(MESSAGES), queue=_fill_lanes)


def _fill_lanes(database: Database, count: int) -> None:
    with as_role(database, "bench_app") as connection:
        connection.execute(FILL_LANES.encode(), {"rows": count})


def _insert(clients: int) -> Measure:
    def measure(bench: Bench, ground: Ground) -> float:
        with ground.database() as database:
            settle(database)
            return insert_singly(database, clients, bench.size(SECONDS))

    return measure


def _bulk(bench: Bench, ground: Ground) -> float:
    with ground.database() as database:
        settle(database)
        return insert_at_once(database, bench.size(BULK))


def _webhooks(bench: Bench, ground: Ground) -> float:
    return receive(bench, ground, bench.size(WEBHOOKS))


LANES = 200
MORE_NUMBERS = f"""
SELECT register_wa_phone_number(
    (200000000000000 + n)::text, '+1 650 556 0' || lpad(n::text, 3, '0'), '{ACCOUNT}', throughput => 100000
)
FROM generate_series(1, {LANES}) n
"""
#: Contact n has its window, and gets its message, from number n % 200.
THEIR_WINDOWS = f"""
INSERT INTO wa_conversation_windows (organization_id, number_id, contact_id, last_customer_message_at)
SELECT c.organization_id, p.id, c.id, clock_timestamp()
FROM generate_series(0, {MESSAGES - 1}) n
JOIN wa_contacts c ON c.phone_e164 = '+1' || 6502000000 + n
JOIN wa_phone_numbers p ON p.phone_number_id = (200000000000001 + n % {LANES})::text
"""
FILL_LANES = f"""
INSERT INTO wa_outbound_queue (phone, phone_number_id, text_body, template_name, template_params)
SELECT '+1' || 6502000000 + n, 200000000000001 + n %% {LANES},
    CASE WHEN n / {LANES} %% 2 = 0 THEN 'Hello, thank you for your order. It will leave our house today.' END,
    CASE WHEN n / {LANES} %% 2 = 1 THEN 'order_update' END,
    CASE WHEN n / {LANES} %% 2 = 1 THEN jsonb_build_array('Ann', 'A-' || n) END
FROM generate_series(0, %(rows)s - 1) n
"""
#: By the names that the figures have without --against: each line's name, unit and measurement.
LINES: dict[str, list[tuple[str, str, Measure]]] = {
    "drain": [("drain, 0 ms, 1 process", "msg/s", _drain)],
    "lanes": [(f"drain of {LANES} numbers, 0 ms, 1 process", "msg/s", _lanes)],
    "insert": [("INSERT, 1 client", "rows/s", _insert(1)), ("INSERT, 8 clients", "rows/s", _insert(8))],
    "bulk": [("bulk INSERT, known contacts", "rows/s", _bulk)],
    "webhooks": [("status webhooks until applied", "POST/s", _webhooks)],
}


@contextmanager
def figures(ref: str) -> Iterator[dict[str, Figure]]:
    """The figures against that commit; its checkout and its server are there meanwhile."""
    # It would lead the other checkout's programs to this one's product.
    os.environ.pop("PYTHONPATH", None)
    with worktree(CHECKOUT, ref) as checkout:
        name = f"{ref} ({_git(checkout, 'rev-parse', '--short', 'HEAD')})"
        print(f"against {name}: {make_environment(checkout)}", flush=True)
        with _ground(checkout, name) as ground:
            yield {figure: partial(compare, name, ground, lines) for figure, lines in LINES.items()}


@contextmanager
def _ground(checkout: Path, name: str) -> Iterator[Ground]:
    with ExitStack() as stack:
        try:
            ground = Ground(checkout)
            stack.callback(ground.close)
            # What every line needs.
            _ = ground.base
        except (Exception, pytest.fail.Exception) as error:
            raise SystemExit(f"{name} cannot be set up: {error}") from error
        yield ground


def compare(name: str, ground: Ground, lines: list[tuple[str, str, Measure]], bench: Bench) -> Iterator[Line]:
    """The lines of one figure; an error names the side that it happened on."""
    for figure, unit, measure in lines:
        sides = {
            "this checkout": partial(_named, "this checkout", measure, bench, bench.ground),
            name: partial(_named, name, measure, bench, ground),
        }
        mine, its = bench.rounds(sides, warm_up=True).values()
        yield Line(figure, mine, unit, name, its, at_least=AT_LEAST, is_paired=True)


def _named(side: str, measure: Measure, bench: Bench, ground: Ground) -> float:
    try:
        return measure(bench, ground)
    except Exception as error:
        raise RuntimeError(f"{side}: {error}") from error


@contextmanager
def worktree(repository: Path, ref: str) -> Iterator[Path]:
    """A checkout of that commit in a temporary directory, removed in the end."""
    with tempfile.TemporaryDirectory(prefix="pg_whatsapp-bench-") as folder:
        checkout = Path(folder, "checkout")
        commit = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
        _git(repository, "worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            yield checkout
        finally:
            _git(repository, "worktree", "remove", "--force", "--force", str(checkout))


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def make_environment(checkout: Path) -> str:
    """Make the other checkout's .venv; says whose packages it has.

    With the same pins it is a new one that only points at this one's packages, so that both run the same
    files. Lines of a .pth file are not followed further: that by which our own package is installed does not
    count there.
    """
    if pins(checkout) == pins(CHECKOUT):
        venv.create(checkout / ".venv", symlinks=True)
        [packages] = (checkout / ".venv").glob("lib/python*/site-packages")
        (packages / "bench.pth").write_text(f"{checkout / 'bin'}\n{sysconfig.get_path('purelib')}\n")
        told = "same packages, from this checkout's .venv"
    else:
        done = subprocess.run([checkout / "bin/setup"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"bin/setup of the other checkout: {done.stdout}{done.stderr}")
        told = "other packages, in a .venv of its own"
    check_product(checkout)
    return told


def pins(checkout: Path) -> tuple[Any, ...]:
    """What decides whether two versions can share packages; the metadata of ours tells `wa` its version."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    return project["version"], project["requires-python"], sorted(project["dependencies"])


def check_product(checkout: Path) -> None:
    """Refuse a checkout whose Python would not find its own product."""
    done = subprocess.run(
        [checkout / ".venv/bin/python", "-c", "import pg_whatsapp; print(pg_whatsapp.__path__[0])"],
        cwd=checkout, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0 or not Path(done.stdout.strip()).is_relative_to(checkout):
        raise SystemExit(f"the other checkout does not run its own product: {done.stdout}{done.stderr}")
