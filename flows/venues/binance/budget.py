"""How much may be asked of the exchange: connection attempts and REST weight. Pure: callers bring the time in s."""

from collections import deque

ATTEMPTS = 240  # connections from this address in 5 minutes; the exchange allows 300
ATTEMPTS_WINDOW_S = 300.0
WEIGHT_A_MINUTE = 6000  # until the exchange has said its own
MINUTE_S = 60.0
SHARE = 0.9  # of the weight: other processes at this address ask the exchange too


class SlidingBudget:
    """At most `limit` in any `window_s` seconds."""

    def __init__(self, limit: float, window_s: float) -> None:
        self.limit = limit
        self._window_s = window_s
        self._spent: deque[tuple[float, float]] = deque()
        self.used = 0.0

    def delay_s(self, amount: float, now_s: float) -> float:
        """Seconds until `amount` may be spent; 0 when it may be now."""
        while self._spent and self._spent[0][0] <= now_s - self._window_s:
            self.used -= self._spent.popleft()[1]
        if not self._spent or self.used + amount <= self.limit:
            return 0.0
        freed = 0.0
        for at_s, spent in self._spent:
            freed += spent
            if self.used - freed + amount <= self.limit:
                return at_s + self._window_s - now_s
        return self._spent[-1][0] + self._window_s - now_s

    def spend(self, amount: float, now_s: float) -> None:
        """Book what is spent now."""
        self._spent.append((now_s, amount))
        self.used += amount


def connection_attempts() -> SlidingBudget:
    """The budget that all connections of a process share."""
    return SlidingBudget(ATTEMPTS, ATTEMPTS_WINDOW_S)


class WeightBudget:
    """REST weight that all requests of a process share.

    Never above SHARE of the limit in any 60 s of our own, so in no minute of the exchange's; its count by address,
    which knows of other processes, and its refusals come on top.
    """

    def __init__(self, limit: int = WEIGHT_A_MINUTE) -> None:
        self._own = SlidingBudget(limit * SHARE, MINUTE_S)
        self._stay_away_until_s = 0.0

    @property
    def used(self) -> float:
        """Weight spent in the last minute, as of the last request."""
        return self._own.used

    def set_limit(self, a_minute: int) -> None:
        """The exchange's own limit; above WEIGHT_A_MINUTE it is not used up."""
        self._own.limit = min(a_minute, WEIGHT_A_MINUTE) * SHARE

    def delay_s(self, weight: int, now_s: float) -> float:
        """Seconds until a request of this weight may be sent; 0 when it may be now."""
        return max(self._stay_away_until_s - now_s, self._own.delay_s(weight, now_s), 0.0)

    def spend(self, weight: int, now_s: float) -> None:
        """Book a request that is sent now."""
        self._own.spend(weight, now_s)

    def reported(self, used: int, next_request: int, now_s: float, left_of_minute_s: float) -> None:
        """The exchange's count of this minute: near the limit, wait for the next."""
        if used + next_request > self._own.limit:
            self._stay_away_until_s = max(self._stay_away_until_s, now_s + left_of_minute_s)

    def refused(self, retry_after_s: float, now_s: float) -> None:
        """HTTP 429 or 418: nothing is sent before its Retry-After."""
        self._stay_away_until_s = max(self._stay_away_until_s, now_s + retry_after_s)
