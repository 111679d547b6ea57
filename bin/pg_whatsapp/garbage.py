"""Garbage collection in processes that hold hundreds of requests at once."""

from __future__ import annotations

import gc

COLLECT_AFTER = 20_000


def collect_rarely() -> None:
    """Collect less often, and never look at what is loaded already.

    By default Python looks at everything that is under way every few milliseconds, 6 % of a dispatcher's
    time.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
