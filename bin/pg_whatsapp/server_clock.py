"""When something happened at the database, told by this process's clock."""

from __future__ import annotations

from math import inf

# As long as two clocks agree within a millisecond, whatever sets them right.
_KEEP_S = 10.0


class ServerClock:
    """Where the database's clock stands beside this process's monotonic one.

    A call is taken by the server after it was made: server time less the time of asking is the distance of
    the clocks, and what the call needed to get there. The least of late is nearest to the distance.
    """

    def __init__(self) -> None:
        self._since = -inf
        self._least = inf
        self._least_before = inf

    def moment(self, server_s: float, asked_at: float, answered_at: float) -> float:
        """The monotonic time at which the server took a call.

        server_s is its time then, in seconds since 1970; the answer is between asking and being answered,
        whatever happened to a clock.
        """
        age_s = asked_at - self._since
        if age_s > _KEEP_S:
            self._least_before = self._least if age_s < 2 * _KEEP_S else inf
            self._since, self._least = asked_at, inf
        self._least = min(self._least, server_s - asked_at)
        return min(answered_at, max(asked_at, server_s - min(self._least, self._least_before)))
