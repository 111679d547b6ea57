"""When the database took a call, by the dispatcher's own clock."""

from __future__ import annotations

import pytest
from pg_whatsapp.server_clock import ServerClock

# The server's clock reads this at the dispatcher's 0.
AHEAD_S = 1_800_000_000.0


def moment(clock: ServerClock, asked_at: float, delay_s: float, answered_after_s: float = 0.5) -> float:
    """What the clock says of a call that the server took delay_s after it was made."""
    return clock.moment(AHEAD_S + asked_at + delay_s, asked_at, asked_at + answered_after_s)


def test_a_call_that_needed_longer_to_the_server_was_taken_later() -> None:
    clock = ServerClock()
    assert moment(clock, 1.0, 0.001) == pytest.approx(1.0)
    assert moment(clock, 2.0, 0.2) == pytest.approx(2.199, abs=1e-6)
    assert moment(clock, 3.0, 0.001) == pytest.approx(3.0, abs=1e-6)


def test_the_quickest_call_of_late_counts() -> None:
    clock = ServerClock()
    moment(clock, 1.0, 0.3)
    moment(clock, 2.0, 0.0)
    assert moment(clock, 11.5, 0.1) == pytest.approx(11.6, abs=1e-6)
    # Ten seconds and another ten later nothing is known of it any more.
    assert moment(clock, 32.0, 0.1) == pytest.approx(32.0, abs=1e-6)


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_a_clock_that_was_set_moves_it_no_further_than_the_call(by_s: float) -> None:
    clock = ServerClock()
    moment(clock, 1.0, 0.0)
    assert 2.0 <= moment(clock, 2.0, by_s) <= 2.5
    assert 3.0 <= moment(clock, 3.0, by_s + 0.1) <= 3.5
