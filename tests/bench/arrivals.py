"""How much of a limit is used, and whether it is kept, by when the messages arrive at the provider."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench.ground import NUMBER, dispatcher, fill, settle
from bench.rounds import Bench
from bench.table import Line
from bench.waiting import queue, templates

SECONDS = 300


@dataclass(frozen=True)
class Setting:
    """A limit, and how many dispatchers share it."""

    name: str
    limit: int
    window_s: int
    processes: int
    #: Percent of the limit that are to be used.
    at_least: float

    @property
    def at_most(self) -> float:
        """The most messages in any window: the limit, and the greater of two messages and 2 %."""
        return self.limit + max(2, self.limit * 0.02)


SETTINGS = [
    *(Setting(f"80x{n}", 80, 1, n, at_least=97) for n in (1, 2, 4)),
    *(Setting(f"20x{n}", 20, 1, n, at_least=95) for n in (1, 2, 4)),
    *(Setting(f"minute-x{n}", 50, 60, n, at_least=97) for n in (1, 2)),
]


def arrivals(bench: Bench) -> Iterator[Line]:
    """Mean use of each limit, and the most messages in any window of its length."""
    for setting in SETTINGS:
        if not bench.wants(setting.name):
            continue
        # Whole windows, or a burst at the start of the last would count as better use; two of them at least.
        windows = max(2, bench.size(SECONDS) // setting.window_s)
        seconds = windows * setting.window_s
        times = measure(bench, setting, seconds)
        what = f"{setting.name}: {setting.limit} in {setting.window_s} s, {setting.processes} dispatchers"
        yield Line(
            f"{what}, use", [use(times, setting.limit / setting.window_s, seconds)], "%",
            at_least=setting.at_least,
        )  # fmt: skip
        yield Line(
            f"{what}, most in {setting.window_s} s", [most_within(times, setting.window_s)], "messages",
            at_most=setting.at_most,
        )  # fmt: skip


def measure(bench: Bench, setting: Setting, seconds: int) -> list[float]:
    """When messages arrived at the sink during so many seconds, in order."""
    sink = bench.ground.sink(0)
    with bench.ground.database() as database, ExitStack() as stack:
        database.query("SELECT set_wa_sending(false)")
        count = setting.limit * (seconds // setting.window_s + 3)
        if setting.window_s == 1:
            database.query(
                "UPDATE wa_phone_numbers SET throughput = %s WHERE phone_number_id = %s",
                setting.limit,
                NUMBER,
            )
            fill(database, count)
        else:
            # Replies are not counted.
            database.query("UPDATE wa_organizations SET rate_limit_per_minute = %s", setting.limit)
            queue(database, templates(), count)
        settle(database)
        for worker in [stack.enter_context(dispatcher(database, sink)) for _ in range(setting.processes)]:
            worker.logged("dispatching")
        database.query("SELECT set_wa_sending(true)")
        time.sleep(seconds + 2)
        return sorted(float(a["time"]) for a in sink.call("GET", "arrivals")["arrivals"])


def use(times: list[float], per_s: float, seconds: float) -> float:
    """Percent of a limit used in the seconds after the first arrival; times are in order."""
    return 100 * sum(at < times[0] + seconds for at in times) / (per_s * seconds) if times else 0.0


def most_within(times: list[float], seconds: float) -> int:
    """The largest number of arrivals less than so many seconds apart; times are in order."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
