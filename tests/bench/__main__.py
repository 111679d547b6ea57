"""Command line of the benchmark: python -m bench, or make bench ARGS="..."."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator

from harness import CHECKOUT

from bench import drain, history, http_load, insert, memory, pickup, snapshot
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
    "memory": memory.memory,
    "history": history.history,
}


def main() -> int:
    """Run the chosen figures; exit status 1 if a target was missed or a figure failed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=FIGURES, help="only this figure; may be repeated")
    parser.add_argument("--runs", type=int, default=3, help="rounds of each figure (3)")
    parser.add_argument("--quick", action="store_true", help="one small round: shows that it runs, no more")
    parser.add_argument(
        "--history", type=int, default=10_000_000, help="messages made beforehand (10 million)"
    )
    args = parser.parse_args()
    ground = Ground()
    lines: list[Line] = []
    failed: list[str] = []
    try:
        bench = Bench(
            ground,
            runs=1 if args.quick else args.runs,
            scale=10 if args.quick else 1,
            history=min(args.history, 200_000) if args.quick else args.history,
        )
        machine = ground.machine()
        print(json.dumps(machine, indent=2), flush=True)
        for name in args.only or FIGURES:
            print(f"== {name}", flush=True)
            try:
                for line in FIGURES[name](bench):
                    lines.append(line)
                    print("   " + " | ".join(filter(None, line.cells())), flush=True)
            except Exception:
                # The figures before and after it took long to measure.
                traceback.print_exc()
                failed.append(name)
    finally:
        ground.close()
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
        print(f"not measured because of an error: {', '.join(failed)}", file=sys.stderr)
    return 0 if not failed and all(line.is_good for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
