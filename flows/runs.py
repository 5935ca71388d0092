"""Chunks of the raw log through the core: in runs of plain trades where it can, by rows where it must.

A run is a stretch of consecutive records in which each is a heartbeat, or a trade written exactly as the exchange (or
the backfill) writes it, valid, with an id above those seen of its symbol, and of a second that is not closed yet.
Inside one the order of records does not show, so it is taken as sums by symbol and second: what would have been
published on the way gets no more trades, and is published in the same order at the end. Whatever is not plain goes by
rows through `PartitionStats.process`, which alone decides what a record means.

A run goes on over chunks. Its sums stay in arrays until their second is published, or until `settle` hands them to the
`PartitionStats`, which is behind by as much; its watermark and counts never are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flows.domain.intervals import IdIntervals
from flows.domain.partition import MAX_INT, Output, PartitionStats, Rejected
from flows.domain.second_stat import AccumulatorRow, SecondStat
from flows.records import decode_trades
from flows.run_close import LONGEST_JSON, LONGEST_PACKED, drop, pack, render
from flows.run_scan import (
    AFTER,
    BY_ROWS,
    END,
    FULL,
    HEARTBEATS,
    JUMPS,
    LONGEST_NAME,
    N_JUMPS,
    N_SUMS,
    N_SYMBOLS,
    NAME_LENGTH,
    NEW,
    NEWEST,
    NO_IDS,
    NO_RECEIVED,
    SECOND,
    SINCE,
    SLOTS,
    STATE,
    SYMBOL,
    TABLE,
    TRADES,
    WATERMARK,
    Bytes,
    Ints,
    Wide,
    scan,
)

SHORTEST = 32  # records that are worth a scan
MOST_ROWS = 1024
Writer = Callable[[Bytes, Ints, Ints, Wide, Bytes, Ints], int]


class Chunk:
    """Records of one partition, in one piece for the scan."""

    def __init__(self, values: Sequence[bytes], received_ms: Sequence[int | None]) -> None:
        self.data = np.frombuffer(b"".join(values), np.uint8)
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        self.ends: Ints = np.cumsum(lengths)
        self.starts: Ints = self.ends - lengths
        self.received_ms: Ints = np.array([NO_RECEIVED if ms is None else ms for ms in received_ms], np.int64)


@dataclass(frozen=True, slots=True)
class Closed:
    """SecondStats of revision 0 that were published together, in order: column-wise, and their JSON."""

    keys: list[bytes]  # the symbols in UTF-8
    seconds: list[int]
    json: list[bytes]
    sums: Ints
    quotes: Wide

    def stats(self) -> list[SecondStat]:
        """The same as records."""
        return [
            SecondStat(key.decode(), second, *row)
            for key, second, row in zip(self.keys, self.seconds, _rows(self.sums, self.quotes), strict=True)
        ]


class TradeRuns:
    """Takes chunks of a partition's log to its `PartitionStats`, with the same results as record by record."""

    def __init__(self, stats: PartitionStats) -> None:
        self.stats = stats
        self._names: list[str] = []
        self._keys: list[bytes] = []  # the same in UTF-8
        self._rank: Ints = np.empty(0, np.int64)  # of each symbol in the order of their names
        self._behind = True  # whether `stats` may know of more than the arrays do
        self._state = np.zeros(STATE, np.int64)
        self._table = np.full(TABLE, -1, np.int32)
        self._texts = np.zeros((SLOTS, LONGEST_NAME), np.uint8)
        self._symbols = np.empty((SLOTS, 4), np.int64)
        self._sums = np.empty((SLOTS, 12), np.int64)
        self._quotes = np.empty((SLOTS, 4), np.uint64)
        self._jumps = np.empty((JUMPS, 3), np.int64)
        self._text: Bytes = np.empty(0, np.uint8)

    def warm_up(self) -> None:
        """Load the native code now, or compile it (seconds, once on a machine): no trade shall wait."""
        self._scan(Chunk([b""], [None]), 0)
        nothing = self._sums[:0]
        self._written(render, LONGEST_JSON, nothing, self._quotes[:0])
        self._written(pack, LONGEST_PACKED, nothing, self._quotes[:0])
        drop(0, self._symbols, self._sums, self._quotes, 0)

    def process(self, values: Sequence[bytes | None], received_ms: Sequence[int | None]) -> list[Output]:
        """What the records publish and reject, in order; `received_ms` is None where the log does not say it."""
        out: list[Output] = []
        for output in self.take(values, received_ms):
            if isinstance(output, Closed):
                out += output.stats()
            else:
                out.append(output)
        return out

    def take(self, values: Sequence[bytes | None], received_ms: Sequence[int | None]) -> list[Output | Closed]:
        """The same, with the seconds that runs published as Closed."""
        out: list[Output | Closed] = []
        if len(values) < SHORTEST or None in values or self.stats.is_reopened:
            self._by_rows(values, received_ms, 0, len(values), out)
            return out
        chunk = Chunk(values, received_ms)  # type: ignore[arg-type]
        at, since, rows = 0, 0, 1
        while at < len(values):
            if self._behind:
                self._catch_up()
            at, why = self._scan(chunk, at)
            if why == NEW:
                self._look_up(len(self._names))
                continue
            if self._state[TRADES] or self._state[HEARTBEATS]:
                self._publish(out)
            if why == FULL:
                self._make_room()
            elif why != END:
                # What can't be scanned may go on: the more of it, the fewer tries.
                rows = 1 if at - since >= SHORTEST else min(2 * rows, MOST_ROWS)
                at = since = self._by_rows(values, received_ms, at, at + rows, out)
        if self._state[N_JUMPS]:
            self._settle_ids()
        return out

    def settle(self) -> None:
        """Hand over all that the arrays hold, so that `stats` has the whole state."""
        self._settle_ids()
        if held := int(self._state[N_SUMS]):
            sums = self._sums[:held]
            names = self._names
            keys = [(names[symbol], second) for symbol, second in sums[:, : SECOND + 1].tolist()]
            rows = _rows(sums, self._quotes[:held])
            self.stats.take_sums((symbol, second, row) for (symbol, second), row in zip(keys, rows, strict=True))
            self._state[N_SUMS] = 0
            self._symbols[:, NEWEST] = -1

    def _by_rows(
        self,
        values: Sequence[bytes | None],
        received_ms: Sequence[int | None],
        start: int,
        stop: int,
        out: list[Output | Closed],
    ) -> int:
        self.settle()
        self._behind = True
        part = slice(start, stop)
        for output in self.stats.process(zip(decode_trades(values[part]), received_ms[part], strict=True)):
            if isinstance(output, Rejected) and start:
                out.append(Rejected(start + output.index, output.reason))
            else:
                out.append(output)
        return min(stop, len(values))

    def _scan(self, chunk: Chunk, begin: int) -> tuple[int, int]:
        end, why = scan(
            chunk.data, chunk.starts, chunk.ends, chunk.received_ms, begin,
            self.stats.close_after_ms, self.stats.horizon_ms, self._state, self._table, self._texts,
            self._symbols, self._sums, self._quotes, self._jumps,
        )  # fmt: skip
        return end, why

    def _publish(self, out: list[Output | Closed]) -> None:
        """Note what a scan took, and publish what it closed: natively if all of it is held here alone."""
        stats, state = self.stats, self._state
        stats.counts["trades"] += int(state[TRADES])
        heartbeats = int(state[HEARTBEATS])
        state[TRADES] = state[HEARTBEATS] = 0
        stats.watermark = int(state[WATERMARK])
        held, below = int(state[N_SUMS]), stats.watermark - stats.close_after_ms + 1
        closed = np.flatnonzero(self._sums[:held, SECOND] < below)
        is_cut = len(closed) > 0 and not stats.is_published(int(self._sums[closed, SECOND].min()))
        if is_cut or stats.is_due(heartbeats > 0 or len(closed) > 0):
            self.settle()
            published: list[Output] = []
            stats.publish(published)
            out += published
            return
        if not len(closed):
            return
        if len(self._rank) < len(self._names):
            order = sorted(range(len(self._names)), key=self._names.__getitem__)
            self._rank = np.empty(len(order), np.int64)
            self._rank[order] = np.arange(len(order))
        closed = closed[np.lexsort((self._rank[self._sums[closed, SYMBOL]], self._sums[closed, SECOND]))]
        sums, quotes = self._sums[closed], self._quotes[closed]
        json, ends = self._written(render, LONGEST_JSON, sums, quotes)
        keys = [*map(self._keys.__getitem__, sums[:, SYMBOL].tolist())]
        out.append(Closed(keys, sums[:, SECOND].tolist(), _cut(json, ends.tolist()), sums, quotes))
        packed, ends = self._written(pack, LONGEST_PACKED, sums, quotes)
        last = np.flatnonzero(np.append(sums[1:, SECOND] != sums[:-1, SECOND], True))
        stats.keep(dict(zip(sums[last, SECOND].tolist(), _cut(packed, ends[last].tolist()), strict=True)))
        state[N_SUMS] = drop(below, self._symbols, self._sums, self._quotes, held)

    def _written(self, write: Writer, longest: int, sums: Ints, quotes: Wide) -> tuple[bytes, Ints]:
        """What a native writer makes of the sums, and where each one's part ends."""
        if len(self._text) < longest * len(sums):
            self._text = np.empty(longest * len(sums), np.uint8)
        ends = np.empty(len(sums), np.int64)
        length = write(self._texts, self._symbols, sums, quotes, self._text, ends)
        return self._text[:length].tobytes(), ends

    def _look_up(self, start: int) -> None:
        """Fill in what `stats` knows of the symbols from this one on."""
        for symbol in range(start, int(self._state[N_SYMBOLS])):
            text = self._texts[symbol, : self._symbols[symbol, NAME_LENGTH]].tobytes()
            try:
                name = text.decode()
            except UnicodeDecodeError:
                name = ""
            self._names.append(name)
            self._keys.append(text)
            self._symbols[symbol, SINCE] = self._symbols[symbol, AFTER] = self._known(name)

    def _catch_up(self) -> None:
        """Take over what `stats` has learnt by rows."""
        fresh = [*map(self._known, self._names)]
        self._symbols[: len(fresh), SINCE] = self._symbols[: len(fresh), AFTER] = fresh
        self._state[WATERMARK] = self.stats.watermark
        self._behind = False

    def _known(self, name: str) -> int:
        """What SINCE and AFTER are for a symbol by its name, "" if that is not UTF-8."""
        if not name:
            return BY_ROWS
        ids = self.stats.ids.get(name)
        if ids is None:
            return NO_IDS
        return ids.end if ids.end < MAX_INT else BY_ROWS

    def _settle_ids(self) -> None:
        known = self.stats.ids
        symbols = self._symbols[: len(self._names)]
        moved = np.flatnonzero(symbols[:, SINCE] != symbols[:, AFTER])
        for symbol, since in zip(moved.tolist(), symbols[moved, SINCE].tolist(), strict=True):
            if self._names[symbol] not in known:
                known[self._names[symbol]] = IdIntervals(since)
        for symbol, after, came in self._jumps[: self._state[N_JUMPS]].tolist():
            ids = known[self._names[symbol]]
            ids.end = after
            ids.extend(came, came + 1)
        for symbol, after in zip(moved.tolist(), symbols[moved, AFTER].tolist(), strict=True):
            known[self._names[symbol]].end = after
        symbols[:, SINCE] = symbols[:, AFTER]
        self._state[N_JUMPS] = 0

    def _make_room(self) -> None:
        """After a scan that found no place: forget the sums, and the symbols if there are as many as may be."""
        self.settle()
        if self._state[N_SYMBOLS] == SLOTS:
            self._table[:] = -1
            self._names.clear()
            self._keys.clear()
            self._rank = self._rank[:0]
            self._state[N_SYMBOLS] = 0


def _rows(sums: Ints, quotes: Wide) -> Iterable[AccumulatorRow]:
    for (_, _, open_, high, low, close, volume, count, buys, first, last, _), (
        low64,
        high64,
        buys_low,
        buys_high,
    ) in zip(sums.tolist(), quotes.tolist(), strict=True):
        quote, buys_quote = low64 + (high64 << 64), buys_low + (buys_high << 64)
        yield open_, high, low, close, volume, quote, count, buys, buys_quote, first, last, 0


def _cut(text: bytes, ends: list[int]) -> list[bytes]:
    return [text[start:end] for start, end in pairwise([0, *ends])]


if __name__ == "__main__":  # after installing: compiled once, so that no first start has to
    TradeRuns(PartitionStats(200, 0)).warm_up()
