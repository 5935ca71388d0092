"""Faults on demand.

`POST /sim/faults` (loopback only) takes a JSON object, or an array of them: {"fault": "skip", "rate": 0.01}.
Those that last take `duration_ms` (default: until cleared), `rate` (the share of trades or requests hit, default 1),
`count` (stop after that many hits) and `symbols` (default: all).

| fault | does | also takes |
| --- | --- | --- |
| `cut` | resets the TCP connections of all clients now | `streams`: only of those that listen to one of these |
| `blackhole` | keeps them open, but neither sends nor reads; what falls into it is lost | `streams` |
| `serverShutdown` | sends the event that comes before a planned stop | `close_after_ms`: then closes the connections |
| `duplicates` | sends frames twice | |
| `reorder` | sends frames late, after later ones | `delay_ms`, default 50 |
| `skip` | does not send trades that REST has | `rest`: false, and REST's aggTrades lacks them too |
| `raw_ids` | makes trades whose `f` and `l` do not join those of their neighbours | `by`, default 1 |
| `stragglers` | makes trades with an old trade time `T` | `late_ms`, default 3000 |
| `bad_frames` | sends malformed frames besides the trades | `kinds`: of truncated, types, decimals, invalid_row |
| `clock_skew` | shifts `E` | `offset_ms` |
| `rest_errors` | fails REST requests | `status` (default 500), `retry_after_s`, `path`: only paths with this in it |
| `clear` | ends all faults, black holes too | `of`: only this one |
"""

import heapq
import random
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from infra.local.exchange.trade import Trade
from infra.local.exchange.wire import agg_trade, retimed

LASTING = ("duplicates", "reorder", "skip", "raw_ids", "stragglers", "bad_frames", "clock_skew", "rest_errors")
AT_ONCE = ("cut", "blackhole", "serverShutdown")
_OPTIONS: dict[str, dict[str, Any]] = {
    "duplicates": {},
    "reorder": {"delay_ms": 50},
    "skip": {"rest": True},
    "raw_ids": {"by": 1},
    "stragglers": {"late_ms": 3000},
    "bad_frames": {"kinds": ["truncated", "types", "decimals", "invalid_row"]},
    "clock_skew": {"offset_ms": 0},
    "rest_errors": {"status": 500, "retry_after_s": 1, "path": ""},
}
_COMMON: dict[str, Any] = {"duration_ms": 0, "rate": 1.0, "count": 0, "symbols": []}


class BadFault(ValueError):
    """The order can't be carried out; the message says why."""


def options(order: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The defaults overlaid with the order's values; BadFault for unknown names and wrong types."""
    given = {name: value for name, value in order.items() if name != "fault"}
    for name, value in given.items():
        if name not in defaults:
            raise BadFault(f"unknown option {name!r}; known: {', '.join(sorted(defaults))}")
        wanted = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(defaults[name], bool):
            raise BadFault(f"{name} must be like {defaults[name]!r}")
    return {**defaults, **given}


class _Fault:
    """A lasting fault: when it ends and whom it hits."""

    def __init__(self, chosen: dict[str, Any], now_ms: int) -> None:
        self.options = chosen
        self.until_ms = now_ms + chosen["duration_ms"] if chosen["duration_ms"] else None
        self.left = chosen["count"] or None
        self._symbols = {symbol.upper() for symbol in chosen["symbols"]}

    def hits(self, symbol: str, now_ms: int, rng: random.Random) -> bool:
        if self.left == 0 or (self.until_ms is not None and now_ms >= self.until_ms):
            return False
        if self._symbols and symbol not in self._symbols:
            return False
        if rng.random() >= self.options["rate"]:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class Faults:
    """The faults that last. The ones that happen at once are the app's business: it knows the connections."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"faults:{seed}")  # noqa: S311 - a simulation
        self._active: dict[str, _Fault] = {}
        self._held: list[tuple[int, int, Trade]] = []  # reordered frames: due ms, number, trade
        self._number = count()
        self._unsent: set[tuple[str, int]] = set()
        self.hits: dict[str, int] = dict.fromkeys(LASTING, 0)

    def set(self, order: dict[str, Any], now_ms: int) -> None:
        """Start a lasting fault, in place of the one of its name; BadFault if the order is wrong."""
        name = order["fault"]
        self._active[name] = _Fault(options(order, _COMMON | _OPTIONS[name]), now_ms)

    def clear(self, name: str = "") -> None:
        """End one fault, or all."""
        if name:
            self._active.pop(name, None)
        else:
            self._active.clear()

    def state(self) -> dict[str, Any]:
        """What is active, and how often each fault has hit."""
        return {"active": {name: fault.options for name, fault in self._active.items()}, "hits": self.hits}

    def _hit(self, name: str, symbol: str, now_ms: int) -> dict[str, Any] | None:
        fault = self._active.get(name)
        if fault is None or not fault.hits(symbol, now_ms, self._rng):
            return None
        self.hits[name] += 1
        return fault.options

    def skew_ms(self, now_ms: int) -> int:
        """What is added to event times."""
        fault = self._active.get("clock_skew")
        if fault is None or (fault.until_ms is not None and now_ms >= fault.until_ms):
            return 0
        return int(fault.options["offset_ms"])

    def rest_error(self, path: str, now_ms: int) -> tuple[int, int] | None:
        """(status, Retry-After) to fail a REST request with."""
        fault = self._active.get("rest_errors")
        if fault is None or fault.options["path"] not in path or not self._hit("rest_errors", "", now_ms):
            return None
        return fault.options["status"], fault.options["retry_after_s"]

    def altered(self, trades: list[Trade], now_ms: int) -> list[Trade]:
        """The trades as they happen, for history and stream alike."""
        if not self._active or not trades:
            return trades
        return [self._alter(trade, now_ms) for trade in trades]

    def _alter(self, trade: Trade, now_ms: int) -> Trade:
        if late := self._hit("stragglers", trade.symbol, now_ms):
            trade_ms = trade.trade_ms - late["late_ms"]
            wire = trade.wire and retimed(trade.wire, trade.event_ms, trade_ms)
            trade = trade._replace(trade_ms=trade_ms, wire=wire)
        if shift := self._hit("raw_ids", trade.symbol, now_ms):
            trade = trade._replace(first_id=trade.first_id + shift["by"], wire=None)
        if skip := self._hit("skip", trade.symbol, now_ms):
            self._unsent.add((trade.symbol, trade.agg_id))
            trade = trade._replace(listed=skip["rest"])
        return trade

    def deliveries(self, trades: Iterable[Trade], now_ms: int) -> Iterable[Trade]:
        """What goes out on the stream now, in this order."""
        if not self._active and not self._held and not self._unsent:
            return trades
        return self._disturbed(trades, now_ms)

    def _disturbed(self, trades: Iterable[Trade], now_ms: int) -> Iterator[Trade]:
        skew_ms = self.skew_ms(now_ms)
        for original in trades:
            trade = original
            if (trade.symbol, trade.agg_id) in self._unsent:
                self._unsent.discard((trade.symbol, trade.agg_id))
                continue
            if skew_ms:
                self.hits["clock_skew"] += 1
                event_ms = trade.event_ms + skew_ms
                wire = trade.wire and retimed(trade.wire, event_ms, trade.trade_ms)
                trade = trade._replace(event_ms=event_ms, wire=wire)
            if bad := self._hit("bad_frames", trade.symbol, now_ms):
                yield self._malformed(trade, self._rng.choice(bad["kinds"]))
            if late := self._hit("reorder", trade.symbol, now_ms):
                heapq.heappush(self._held, (now_ms + late["delay_ms"], next(self._number), trade))
                continue
            yield trade
            if self._hit("duplicates", trade.symbol, now_ms):
                yield trade
        while self._held and self._held[0][0] <= now_ms:
            yield heapq.heappop(self._held)[2]

    @staticmethod
    def _malformed(trade: Trade, kind: str) -> Trade:
        """A bad frame beside a good trade; it stands for no individual trades."""
        payload = agg_trade(trade)
        if kind == "truncated":
            payload = payload[: len(payload) // 2]
        elif kind == "types":
            payload = payload.replace(b'"p":"', b'"p":["', 1).replace(b'","q"', b'"],"q"', 1)
        elif kind == "decimals":
            payload = payload.replace(b'","f":', b'000000001","f":', 1)
        else:
            payload = agg_trade(trade._replace(price=0, quantity=0, first_id=-1, trade_count=1, wire=None))
        return trade._replace(wire=payload, trade_count=0)
