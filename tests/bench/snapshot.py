"""Whether the claim slows down while dead rows pile up, above all where an old snapshot keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

from harness import Database

from bench import by_hand
from bench.ground import fill, settle
from bench.rounds import Bench
from bench.table import Line

CLAIMS = 20_000
BATCH = 100
FIFTHS = 5


def old_snapshot(bench: Bench) -> Iterator[Line]:
    """The same work with and without a transaction held open throughout."""
    firsts: dict[bool, list[float]] = {False: [], True: []}
    lasts: dict[bool, list[float]] = {False: [], True: []}

    def measure(is_held: bool) -> float:
        rates = _rates(bench, is_held)
        bench.note(
            "fifths, transaction held open" if is_held else "fifths", rows_per_s=[int(r) for r in rates]
        )
        firsts[is_held].append(rates[0])
        lasts[is_held].append(rates[-1])
        return rates[-1] / rates[0]

    bench.rounds(
        {
            "last fifth of claims against first": lambda: measure(False),
            "the same, transaction held open": lambda: measure(True),
        }
    )
    yield Line("claims, last fifth", lasts[False], "rows/s", "first fifth", firsts[False])
    yield Line(
        "claims, transaction held open, last fifth",
        lasts[True],
        "rows/s",
        "first fifth",
        firsts[True],
        at_least=0.8,
    )


def _rates(bench: Bench, is_held: bool) -> list[float]:
    """Rows claimed and completed in a second, by fifths; never more than a batch is in the queue."""
    batches = max(FIFTHS, bench.size(CLAIMS) // BATCH)
    spent = [0.0] * FIFTHS
    with bench.ground.database() as database, ExitStack() as stack:
        settle(database)
        if is_held:
            holder = stack.enter_context(database.connect(autocommit=False))
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT FROM wa_queue_due")
        connection, dispatcher = stack.enter_context(by_hand.hand(database))
        for n in range(batches):
            fill(database, BATCH, first=n * BATCH)
            connection.execute("SELECT maintain_wa_dispatch(%s)", (dispatcher,))
            began = monotonic()
            rows = by_hand.claim(connection, dispatcher, BATCH)
            if len(rows) != BATCH:
                raise RuntimeError(f"{len(rows)} of {BATCH} claimed")
            by_hand.answer(connection, dispatcher, rows, by_hand.ACCEPTED)
            spent[n * FIFTHS // batches] += monotonic() - began
        _check(database, batches * BATCH)
    return [batches * BATCH / FIFTHS / seconds for seconds in spent]


def _check(database: Database, count: int) -> None:
    sent = database.query("SELECT count(*) AS n FROM wa_outbound_queue WHERE status = 'sent'")[0]["n"]
    if sent != count:
        raise RuntimeError(f"{sent} of {count} sent")
