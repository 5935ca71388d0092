"""Chunks of the raw log through the core: in runs of plain trades where it can, by rows where it must.

A run is a stretch of consecutive records in which each is a heartbeat, or a trade written exactly as the exchange (or
the backfill) writes it, valid, with ids that follow each other symbol by symbol, and of a second that is not closed
yet. Inside one the order of records does not show, so it is taken as sums by symbol and second: what would have been
published on the way gets no more trades, and is published in the same order at the end. Whatever is not plain goes by
rows through `PartitionStats.process`, which alone decides what a record means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.domain.partition import Output, PartitionStats, Rejected
from flows.domain.second_stat import AccumulatorRow
from flows.records import decode_trades
from flows.run_scan import NO_RECEIVED, SLOTS, TABLE, Ints, scan

SHORTEST = 32  # records that are worth a scan
MOST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Run:
    """A run as `PartitionStats.take_run` takes it, and the record after its last one."""

    end: int
    watermark: int
    heartbeats: bool
    ids: list[tuple[str, int, int]]
    sums: list[tuple[str, int, AccumulatorRow]]


class Chunk:
    """Records of one partition, in one piece for the scan."""

    def __init__(self, values: Sequence[bytes], received_ms: Sequence[int | None]) -> None:
        self.data = b"".join(values)
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        self.ends: Ints = np.cumsum(lengths)
        self.starts: Ints = self.ends - lengths
        self.received_ms: Ints = np.array([NO_RECEIVED if ms is None else ms for ms in received_ms], np.int64)


class TradeRuns:
    """Takes chunks of a partition's log to its `PartitionStats`, with the same results as record by record."""

    def __init__(self, stats: PartitionStats) -> None:
        self.stats = stats
        self._table = np.empty(TABLE, np.int32)
        self._symbols = np.empty((SLOTS, 5), np.int64)
        self._sums = np.empty((SLOTS, 12), np.int64)
        self._quotes = np.empty((SLOTS, 4), np.uint64)

    def warm_up(self) -> None:
        """Load the native code now, or compile it (seconds, once on a machine): no trade shall wait."""
        self._scan(Chunk([b""], [None]), 0)

    def process(self, values: Sequence[bytes | None], received_ms: Sequence[int | None]) -> list[Output]:
        """What the records publish and reject, in order; `received_ms` is None where the log does not say it."""
        out: list[Output] = []
        at, rows = 0, 1
        if len(values) < SHORTEST or None in values:
            at = self._rows(values, received_ms, 0, len(values), out)
        else:
            chunk = Chunk(values, received_ms)  # type: ignore[arg-type]
        while at < len(values):
            run = self._scan(chunk, at)
            if run.end - at < SHORTEST:
                # What can't be scanned may go on: the more of it, the fewer tries.
                at = self._rows(values, received_ms, at, max(run.end, at + rows), out)
                rows = min(2 * rows, MOST_ROWS)
            elif self.stats.take_run(run.ids, run.sums, run.watermark, run.heartbeats, out):
                at, rows = run.end, 1
            else:
                at = self._rows(values, received_ms, at, run.end, out)
        return out

    def _rows(
        self,
        values: Sequence[bytes | None],
        received_ms: Sequence[int | None],
        start: int,
        stop: int,
        out: list[Output],
    ) -> int:
        part = slice(start, stop)
        for output in self.stats.process(zip(decode_trades(values[part]), received_ms[part], strict=True)):
            if isinstance(output, Rejected) and start:
                out.append(Rejected(start + output.index, output.reason))
            else:
                out.append(output)
        return min(stop, len(values))

    def _scan(self, chunk: Chunk, begin: int) -> Run:
        """The run at record `begin`; it ends there if there is none."""
        stats = self.stats
        end, watermark, n_symbols, n_sums, heartbeats = scan(
            np.frombuffer(chunk.data, np.uint8), chunk.starts, chunk.ends, chunk.received_ms, begin, stats.watermark,
            stats.close_after_ms, stats.horizon_ms, self._table,
            self._symbols, self._sums, self._quotes,
        )  # fmt: skip
        symbols = self._symbols[:n_symbols].tolist()
        try:
            names = [chunk.data[start:stop].decode() for start, stop, *_ in symbols]
        except UnicodeDecodeError:
            return Run(begin, watermark, False, [], [])
        ids = [(name, first, after) for name, (_, _, first, after, _) in zip(names, symbols, strict=True)]
        sums = [
            (
                names[symbol],
                second,
                (*amounts, low + (high << 64), count, buys, buys_low + (buys_high << 64), first, last, 0),
            )
            for (symbol, second, *amounts, count, buys, first, last, _), (low, high, buys_low, buys_high) in zip(
                self._sums[:n_sums].tolist(), self._quotes[:n_sums].tolist(), strict=True
            )
        ]
        return Run(end, watermark, heartbeats, ids, sums)


if __name__ == "__main__":  # after installing: compiled once, so that no first start has to
    TradeRuns(PartitionStats(200, 0)).warm_up()
