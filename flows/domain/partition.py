"""The SecondStat core: a pure function of the records of one Kafka partition, taken one at a time in log order.

For each record: validate, drop duplicates, apply, raise the watermark W to its event time E, close every second
with start + 1000 + allowed lateness ≤ W, in (timestamp, symbol) order. How records are chunked never shows.
"""

import pickle
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flows.domain.errors import InvalidRecord
from flows.domain.intervals import IdIntervals
from flows.domain.market import NO_TIME, SECOND_MS, LogRecord, scaled
from flows.domain.packed import find, merged, pack
from flows.domain.second_stat import Accumulator, AccumulatorRow, SecondStat

MAX_AHEAD_MS = 10 * 60 * 1000  # of an event time before the time we received it
MAX_TRADE_AFTER_EVENT_MS = 1000
MAX_INT = 1 << 63
NEVER = 1 << 63
STATE_VERSION = 2
COMPRESSED_VERSION = 1  # the same with pickled and compressed published seconds


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that goes to the DLQ: its place in the chunk, and why."""

    index: int
    reason: str


Output = SecondStat | Rejected


class PartitionStats:
    """All state of one partition, and the records it publishes."""

    def __init__(self, allowed_lateness_ms: int, revision_horizon_ms: int) -> None:
        self.close_after_ms = SECOND_MS + allowed_lateness_ms
        self.horizon_ms = SECOND_MS + revision_horizon_ms
        self.watermark = 0
        self.ids: dict[str, IdIntervals] = {}
        self.counts: Counter[str] = Counter()  # what was seen and dropped, for metrics; not part of the state
        self._open: dict[int, dict[str, Accumulator]] = {}
        self.next_close = NEVER  # the watermark at which a second is to be published
        self._published: dict[int, bytes] = {}  # seconds within the horizon, as flows.domain.packed has them
        self._oldest, self._newest = NEVER, -NEVER  # of the published seconds
        self._forgotten = -NEVER  # the newest second that an earlier, shorter horizon has dropped
        self._whole_from = -NEVER
        self._dirty: dict[int, dict[str, Accumulator]] = {}

    def process(self, records: Iterable[tuple[LogRecord | InvalidRecord, int | None]]) -> list[Output]:
        """Take (record, received_ms) pairs in log order; return what they publish and reject, in order.

        `received_ms` is None where the log does not say it. Undecodable records come as InvalidRecord.
        """
        out: list[Output] = []
        for index, (record, received_ms) in enumerate(records):
            try:
                if isinstance(record, InvalidRecord):
                    raise record
                self._take(record, received_ms, out)
            except InvalidRecord as error:
                self.counts["rejected"] += 1
                out.append(Rejected(index, str(error)))
        return out

    def begin_amid(self, first_ms: int) -> None:
        """The log goes back to this time only: seconds that may have begun before are not published."""
        self._whole_from = -(-(first_ms + SECOND_MS) // SECOND_MS) * SECOND_MS

    def take_sums(self, sums: Iterable[tuple[str, int, AccumulatorRow]]) -> None:
        """Take the sums of trades that `flows.runs` found valid and new, and of seconds that are not closed.

        `sums` are (symbol, second, what its trades sum up to). Their ids and W are set by the caller.
        """
        for symbol, second, row in sums:
            stat = self._accumulator(second, symbol)
            if stat is None:
                self._open.setdefault(second, {})[symbol] = Accumulator.of(row)
                self.next_close = min(self.next_close, second + self.close_after_ms)
            else:
                stat.merge(row)

    def is_due(self, revises: bool) -> bool:
        """Whether something is to be published; `revises`: a heartbeat came since the last time, or a second closes."""
        return self.next_close <= self.watermark or (revises and bool(self._dirty))

    @property
    def is_reopened(self) -> bool:
        """Whether a published second counts as not closed: after a restart with a greater allowed lateness."""
        return max(self._newest, self._forgotten) + self.close_after_ms > self.watermark

    def is_published(self, second: int) -> bool:
        """Whether what such a second holds may be told."""
        return second >= self._whole_from

    def keep(self, seconds: dict[int, bytes]) -> None:
        """Take seconds that were published and not known here, ascending and packed (`flows.domain.packed`)."""
        self._published |= seconds
        self._oldest, self._newest = min(self._oldest, *seconds), max(self._newest, *seconds)
        self._forget()

    def _take(self, record: LogRecord, received_ms: int | None, out: list[Output]) -> None:
        event_time = record.event_time
        if event_time != NO_TIME:
            _check_time("E", event_time)
            if received_ms is not None and event_time > received_ms + MAX_AHEAD_MS:
                raise InvalidRecord(f"E {event_time} is more than 10 min ahead of received_ms {received_ms}")
        too_late: InvalidRecord | None = None
        is_heartbeat = False
        if record.event_type == "aggTrade":
            if is_invalid_row(record):
                self.counts["invalid_rows"] += 1
                return
            too_late = self._trade(record)
        elif record.event_type == "heartbeat":
            if event_time == NO_TIME:
                raise InvalidRecord("heartbeat without E")
            is_heartbeat = True
        elif record.event_type == "subscription":
            self._subscription(record)
        else:
            raise InvalidRecord(f"unknown event type {record.event_type[:40]!r}")
        self.watermark = max(self.watermark, event_time)
        if self.is_due(is_heartbeat):
            self.publish(out)
        if too_late is not None:
            raise too_late

    def _trade(self, record: LogRecord) -> InvalidRecord | None:
        """Apply a trade; returns the error of one that is too late, which still counts as seen."""
        symbol, agg_id, trade_time, price, quantity, trades = checked_trade(record)
        ids = self.ids.get(symbol)
        if ids is None:
            self.ids[symbol] = IdIntervals(agg_id)
        elif ids.end == agg_id:
            ids.end += 1
        elif not ids.add(agg_id):
            self.counts["duplicates"] += 1
            return None
        self.counts["trades"] += 1
        second = trade_time - trade_time % SECOND_MS
        if second <= self._last_dropped:
            self.counts["late"] += 1
            return InvalidRecord(f"too late: second {second} is beyond the revision horizon at W {self.watermark}")
        stat = self._accumulator(second, symbol)
        if stat is None:
            stat = self._open.setdefault(second, {})[symbol] = Accumulator(agg_id, price)
            self.next_close = min(self.next_close, second + self.close_after_ms)
        stat.add(agg_id, price, quantity, trades, bool(record.is_buyer_maker))
        return None

    def _accumulator(self, second: int, symbol: str) -> Accumulator | None:
        """Where a trade of this second goes; fetches a published second back and marks it dirty."""
        if found := self._open.get(second, {}).get(symbol):
            return found
        if found := self._dirty.get(second, {}).get(symbol):
            return found
        packed = self._published.get(second)
        row = find(packed, symbol) if packed else None
        if row is None:
            return None
        dirty = self._dirty.setdefault(second, {})[symbol] = Accumulator.of(row)
        dirty.revision += 1
        return dirty

    def _subscription(self, record: LogRecord) -> None:
        if not record.symbol or record.on is None:
            raise InvalidRecord("subscription without s or on")
        if record.on and (ids := self.ids.get(record.symbol)):
            ids.unowed += 1

    def publish(self, out: list[Output]) -> None:
        """Close what W has passed and publish dirty seconds again, all in (timestamp, symbol) order."""
        closing = [second for second in self._open if second + self.close_after_ms <= self.watermark]
        for second in sorted({*closing, *self._dirty}):
            stats = self._dirty.pop(second, {})
            if second + self.close_after_ms <= self.watermark:
                stats |= self._open.pop(second, {})
            new = {symbol: stats[symbol].row() for symbol in sorted(stats)}
            if self.is_published(second):
                out.extend(SecondStat(symbol, second, *row) for symbol, row in new.items())
            packed = self._published.get(second)
            self._published[second] = merged(packed, new) if packed else pack(new)
            self._oldest, self._newest = min(self._oldest, second), max(self._newest, second)
        self.next_close = min(self._open, default=NEVER) + self.close_after_ms
        self._forget()

    @property
    def _last_dropped(self) -> int:
        """The newest second for which every trade is too late."""
        return max(self.watermark - self.horizon_ms, self._forgotten)

    def _forget(self) -> None:
        last_dropped = self._last_dropped
        if self._oldest > last_dropped:
            return
        for second in [s for s in self._published if s <= last_dropped]:
            del self._published[second]
        self._oldest = min(self._published, default=NEVER)

    def snapshot(self) -> bytes:
        """The whole state as bytes; `restore` reads them."""
        self._forget()
        state = {
            "version": STATE_VERSION,
            "watermark": self.watermark,
            "ids": {symbol: (ids.intervals(), ids.unowed) for symbol, ids in self.ids.items()},
            "open": _rows(self._open),
            "dirty": _rows(self._dirty),
            "published": self._published,
            "forgotten": self._last_dropped,
            "whole_from": self._whole_from,
        }
        return pickle.dumps(state, protocol=5)

    def restore(self, snapshot: bytes) -> None:
        """Take over the state of a snapshot. Raises ValueError for one of a version that this code does not know."""
        state: dict[str, Any] = pickle.loads(snapshot)  # noqa: S301 - our own recovery store
        if state["version"] not in (COMPRESSED_VERSION, STATE_VERSION):
            raise ValueError(f"snapshot of version {state['version']}, this code reads {STATE_VERSION}")
        self.watermark = state["watermark"]
        self.ids = {symbol: IdIntervals.of(*ids) for symbol, ids in state["ids"].items()}
        self._open = _accumulators(state["open"])
        self._dirty = _accumulators(state["dirty"])
        self._published = state["published"]
        if state["version"] == COMPRESSED_VERSION:
            self._published = {second: pack(_unpickled(rows)) for second, rows in self._published.items()}
        self._oldest = min(self._published, default=NEVER)
        self._newest = max(self._published, default=-NEVER)
        self._forgotten = state.get("forgotten", -NEVER)
        self._whole_from = state.get("whole_from", -NEVER)
        self.next_close = min(self._open, default=NEVER) + self.close_after_ms

    @property
    def final_before(self) -> int:
        """Seconds below this start are final: past the horizon, with every revision published."""
        longest_ms = max(self.horizon_ms, self.close_after_ms)
        return min(self.watermark - longest_ms + 1, min(self._dirty, default=NEVER))

    def open_stats(self) -> list[SecondStat]:
        """What the seconds that are still open hold so far, in (timestamp, symbol) order: none of it is published."""
        return [
            stats[symbol].stat(symbol, second)
            for second, stats in sorted(self._open.items())
            for symbol in sorted(stats)
        ]

    @property
    def holes(self) -> int:
        """Runs of ids that are owed and missing, over all symbols."""
        return sum(max(0, ids.holes - ids.unowed) for ids in self.ids.values())


def is_invalid_row(record: LogRecord) -> bool:
    """The exchange's own invalid rows: p = q = "0" and f = l = −1 (seen in REST and public files)."""
    if record.first_trade_id != -1 or record.last_trade_id != -1:
        return False
    return bool(record.price and record.quantity) and scaled(record.price or "") == scaled(record.quantity or "") == 0


def checked_trade(record: LogRecord) -> tuple[str, int, int, int, int, int]:
    """(symbol, aggregate id, trade time, price, quantity, raw trades) of a trade. Raises InvalidRecord."""
    symbol, agg_id, trade_time = record.symbol, record.agg_id, record.trade_time
    first, last = record.first_trade_id, record.last_trade_id
    if not symbol:
        raise InvalidRecord("aggTrade without s")
    if agg_id is None or not 0 <= agg_id < MAX_INT:
        raise InvalidRecord(f"a is {agg_id}")
    if first is None or last is None or not 0 <= first <= last < MAX_INT:
        raise InvalidRecord(f"f is {first}, l is {last}")
    if record.price is None or record.quantity is None or record.is_buyer_maker is None:
        raise InvalidRecord("aggTrade without p, q or m")
    if trade_time is None:
        raise InvalidRecord("aggTrade without T")
    _check_time("T", trade_time)
    event_time = record.event_time
    if event_time != NO_TIME and trade_time - event_time > MAX_TRADE_AFTER_EVENT_MS:
        raise InvalidRecord(f"E {event_time} is more than 1 s before T {trade_time}")
    price, quantity = scaled(record.price), scaled(record.quantity)
    if price == 0 or quantity == 0:
        raise InvalidRecord(f"p is {record.price}, q is {record.quantity}")
    return symbol, agg_id, trade_time, price, quantity, last - first + 1


def _check_time(name: str, time_ms: int) -> None:
    if not 0 < time_ms < 1 << 53:
        raise InvalidRecord(f"{name} is {time_ms}")


def _unpickled(rows: bytes) -> dict[str, AccumulatorRow]:
    found: dict[str, AccumulatorRow] = pickle.loads(zlib.decompress(rows))  # noqa: S301 - our own recovery store
    return found


def _rows(seconds: dict[int, dict[str, Accumulator]]) -> dict[int, dict[str, AccumulatorRow]]:
    return {second: {s: a.row() for s, a in stats.items()} for second, stats in seconds.items()}


def _accumulators(rows: dict[int, dict[str, AccumulatorRow]]) -> dict[int, dict[str, Accumulator]]:
    return {second: {s: Accumulator.of(r) for s, r in stats.items()} for second, stats in rows.items()}
