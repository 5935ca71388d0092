"""What time it is at the exchange, as far as one connection can tell: the E of heartbeats.

A heartbeat promises that trades of its partitions up to E minus the allowed lateness have been read. So its E is the
largest seen on the connection; it goes on with the monotonic clock only while the socket has nothing to read, and at
most 3 s past the last sign of life, so that a dead line stills it.
"""

MAX_SILENCE_S = 3.0


class HeartbeatClock:
    """Times in s are of a monotonic clock, event times in ms."""

    def __init__(self) -> None:
        self._event_time = 0  # the largest E
        self._event_at_s = 0.0  # when it was seen
        self._alive_at_s = 0.0
        self._given = 0

    def saw_event(self, event_time_ms: int, now_s: float) -> None:
        """An event of the exchange was read."""
        if event_time_ms > self._event_time:
            self._event_time, self._event_at_s = event_time_ms, now_s

    def saw_life(self, now_s: float) -> None:
        """A byte or a pong was read."""
        self._alive_at_s = now_s

    def event_time_ms(self, now_s: float, socket_is_idle: bool) -> int | None:
        """The E of a heartbeat sent now; None before the first event. Never goes back."""
        if not self._event_time:
            return None
        event_time = self._event_time
        if socket_is_idle:
            until_s = min(now_s, self._alive_at_s + MAX_SILENCE_S)
            event_time += max(0, int((until_s - self._event_at_s) * 1000))
        self._given = max(self._given, event_time)
        return self._given
