"""Command line of the benchmark: python -m bench, or make bench ARGS="..."."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from harness import CHECKOUT

from bench import (
    against,
    api,
    arrivals,
    audit,
    crowd,
    drain,
    flows,
    held,
    history,
    hostile,
    http_load,
    insert,
    memory,
    pickup,
    retention,
    shapes,
    snapshot,
    waiting,
)
from bench.ground import Ground
from bench.rounds import Bench
from bench.table import Line, render

Figure = Callable[[Bench], Iterator[Line]]
FIGURES: dict[str, Figure] = {
    "sink": http_load.sink_capacity,
    "drain": drain.without_latency,
    "latency": drain.with_latency,
    "pickup": pickup.pickup,
    "insert": insert.single_rows,
    "bulk": insert.bulk,
    "snapshot": snapshot.old_snapshot,
    "webhooks": http_load.webhooks,
    "crowd": crowd.crowd,
    "memory": memory.memory,
    "shapes": shapes.shapes,
    "arrivals": arrivals.arrivals,
    "hostile": hostile.hostile,
    "api": api.api,
    "audit": audit.sealing,
    "flows": flows.flows,
    "history": history.history,
    "retention": retention.retention,
}
#: The figures that can be measured in part.
CASES: dict[str, list[str]] = {
    "shapes": [cause.name for cause in waiting.CAUSES] + [case.name for case in held.CASES],
    "arrivals": [setting.name for setting in arrivals.SETTINGS],
}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices={**FIGURES, **against.LINES},
        help="only this figure; may be repeated",
    )
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAMES",
        help="only these of "
        + "; of ".join(f"{figure}: {', '.join(names)}" for figure, names in CASES.items())
        + "; may be repeated, or separated by commas",
    )
    parser.add_argument(
        "--rounds",
        "--runs",
        type=int,
        help=f"rounds of each figure (3; with --against {against.ROUNDS}, or more)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small rounds, one or two: shows that it runs, no more"
    )
    parser.add_argument(
        "--history", type=int, default=10_000_000, help="messages made beforehand (10 million)"
    )
    parser.add_argument(
        "--against",
        metavar="REF",
        help=f"compare this checkout with another commit, alternating: {', '.join(against.LINES)}; "
        f"the median of the rounds' ratios is to be at least {against.AT_LEAST}",
    )
    return parser


def main() -> int:
    """Run the chosen figures; exit status 1 if a target was missed or a figure failed."""
    parser = arguments()
    args = parser.parse_args()
    least = against.ROUNDS if args.against else 1
    if args.rounds is not None and args.rounds < least:
        parser.error(f"--rounds is at least {least}" + (" with --against" if args.against else ""))
    if unknown := set(args.only or ()) - set(against.LINES if args.against else FIGURES):
        parser.error(f"{'not' if args.against else 'only'} with --against: {', '.join(sorted(unknown))}")
    cases = tuple(name for names in args.case or () for name in names.split(","))
    having = [figure for figure in CASES if set(cases) & set(CASES[figure])]
    if unknown := set(cases) - {name for figure in args.only or CASES for name in CASES.get(figure, ())}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if cases and args.against:
        parser.error("--case is not for --against")
    # As for Ctrl-C: what was made for the benchmark is removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with ExitStack() as stack:
        figures = stack.enter_context(against.figures(args.against)) if args.against else FIGURES
        ground = Ground()
        stack.callback(ground.close)
        bench = Bench(
            ground,
            # With two of them each side comes first once.
            runs=(2 if args.against else 1) if args.quick else args.rounds or (least if args.against else 3),
            scale=10 if args.quick else 1,
            cases=cases,
            history=min(args.history, 200_000) if args.quick else args.history,
        )
        return run(bench, {name: figures[name] for name in args.only or having or figures})


def run(bench: Bench, figures: dict[str, Figure]) -> int:
    """Measure, print and keep the figures; the exit status."""
    lines: list[Line] = []
    failed: list[str] = []
    machine = bench.ground.machine()
    print(json.dumps(machine, indent=2), flush=True)
    for name, figure in figures.items():
        print(f"== {name}", flush=True)
        try:
            for line in figure(bench):
                lines.append(line)
                print("   " + " | ".join(filter(None, line.cells())), flush=True)
        except Exception as error:
            # The figures before and after it took long to measure.
            traceback.print_exc()
            failed.append(f"{name} ({str(error).partition(chr(10))[0]})")
    print("\n" + render(lines))
    target = CHECKOUT / "build/bench" / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    target.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "command": sys.argv[1:],
        "machine": machine,
        "failed": failed,
        "lines": [line.record() for line in lines],
        "raw": bench.raw,
    }
    target.write_text(json.dumps(record, indent=1))
    print(f"\nraw figures: {target.relative_to(CHECKOUT)}")
    if failed:
        print(f"not measured because of an error: {'; '.join(failed)}", file=sys.stderr)
    return 0 if not failed and all(line.is_good for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
