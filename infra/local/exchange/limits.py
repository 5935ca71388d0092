"""How much a client may ask for: messages, connection attempts, request weight. Pure: callers bring the time."""

from collections import defaultdict, deque
from dataclasses import dataclass, field

BAN_AFTER = 20  # refusals in one minute before 429 becomes 418
BAN_S = 120.0


class SlidingWindow:
    """At most `limit` events in any `window_s` seconds; a limit of 0 is none."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._events: deque[float] = deque()

    def allow(self, now_s: float) -> bool:
        """Count an event and say whether it is within the limit."""
        if not self._limit:
            return True
        while self._events and self._events[0] <= now_s - self._window_s:
            self._events.popleft()
        if len(self._events) >= self._limit:
            return False
        self._events.append(now_s)
        return True


class ConnectionAttempts:
    """Connection attempts by address."""

    def __init__(self, limit: int, window_s: float = 300.0) -> None:
        self._windows: defaultdict[str, SlidingWindow] = defaultdict(lambda: SlidingWindow(limit, window_s))

    def allow(self, address: str, now_s: float) -> bool:
        """Count an attempt and say whether it may go on."""
        return self._windows[address].allow(now_s)


@dataclass
class Verdict:
    """What became of a request: its status (200, 429 or 418), the weight used this minute, seconds to stay away."""

    status: int
    used: int
    retry_after_s: int = 0


@dataclass
class _Account:
    minute: int = -1
    used: int = 0
    refused: int = 0
    banned_until_s: float = field(default=0.0)


class RequestWeights:
    """Request weight by address and minute; a limit of 0 is none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)

    def spend(self, address: str, weight: int, now_s: float) -> Verdict:
        """Charge a request; refused ones lead to a ban when there are many of them."""
        account = self._accounts[address]
        if now_s < account.banned_until_s:
            return Verdict(418, account.used, int(account.banned_until_s - now_s) + 1)
        minute = int(now_s // 60)
        if minute != account.minute:
            account.minute, account.used, account.refused = minute, 0, 0
        account.used += weight
        if not self.limit or account.used <= self.limit:
            return Verdict(200, account.used)
        account.refused += 1
        if account.refused > BAN_AFTER:
            account.banned_until_s = now_s + BAN_S
            return Verdict(418, account.used, int(BAN_S))
        return Verdict(429, account.used, int(60 - now_s % 60) + 1)
