"""What a client says to have its portfolio replayed, and what it is told about that; pure.

{"type":"replay","from":"2026-01-27T10:00:00Z","to":1769508300000,"speed":60}
{"type":"pause"}  {"type":"resume"}  {"type":"stop"}
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from flows.domain.errors import InvalidRange
from flows.domain.market import SECOND_MS
from flows.domain.times import iso, parse_time

FASTEST = 10**12  # times real time; no float holds every number that JSON does


class Refusal(Exception):
    """Why a replay can't be played (on), in words for the user; `earliest_ms`: what could be."""

    def __init__(self, message: str, earliest_ms: int | None = None) -> None:
        super().__init__(message)
        self.earliest_ms = earliest_ms

    def text(self) -> bytes:
        """The message that says so."""
        more = {} if self.earliest_ms is None else {"Earliest": self.earliest_ms}
        return _json({"type": "error", "Message": str(self), **more})


@dataclass(frozen=True)
class ReplayRequest:
    """Recorded seconds that lie wholly in [begin_ms, end_ms), both whole seconds; `speed` None: as fast as possible."""

    begin_ms: int
    end_ms: int
    speed: float | None


def parse_request(message: dict[Any, Any], now_ms: int) -> ReplayRequest:
    """The range and speed of a `replay` message. Raises Refusal."""
    start_ms, to_ms = _time(message, "from"), _time(message, "to")
    end_ms = min(to_ms, now_ms) // SECOND_MS * SECOND_MS  # what is to come isn't recorded
    begin_ms = -(-max(0, start_ms) // SECOND_MS) * SECOND_MS
    if begin_ms >= end_ms:
        past = f" that is past (now is {iso(now_ms)})" if to_ms > now_ms else ""
        raise Refusal(f"the range is empty: there is no whole second{past} in {iso(start_ms)} to {iso(to_ms)}")
    return ReplayRequest(begin_ms, end_ms, _speed(message.get("speed", 1)))


def ended(reason: str, begin_ms: int, end_ms: int, pushes: int) -> bytes:
    """The message after the last push, when [begin_ms, end_ms) was played: `reason` is "end", "stopped" or "failed"."""
    return _json({"type": "replay_ended", "Reason": reason, "From": begin_ms, "To": end_ms, "Pushes": pushes})


def _time(message: dict[Any, Any], name: str) -> int:
    match message.get(name):
        case bool():
            pass
        case int(time_ms):
            return time_ms
        case str(text):
            try:
                return parse_time(text)
            except InvalidRange as error:
                raise Refusal(f'"{name}": {error}') from error
    raise Refusal(f'"{name}" must be an ISO time or epoch ms, like "2026-01-27T10:00:00Z" or 1769508000000')


def _speed(value: object) -> float | None:
    match value:
        case bool():
            pass
        case int() | float() if 0 <= value < math.inf:
            return float(min(value, FASTEST)) or None
        case "max":
            return None
    raise Refusal('"speed" must be a positive number (1 is real time), or "max"')


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
