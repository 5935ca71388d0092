"""Every trade ever made, in append-only files of fixed-size rows, one file a symbol.

A row is written to the operating system before its frame is sent, so no id that anybody saw can come again after a
`kill -9`. A row torn by a crash is cut off at the next start. `a` rises within a file; trade times may step back a
little (stragglers), and the file's header keeps by how much, so that searches by time reach back far enough.
"""

import fcntl
import os
import re
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local.exchange.trade import Trade

_MAGIC = b"SIMEXCH1"
_HEADER = struct.Struct("<8sq")  # magic, how far trade times step back (ms)
_HEADER_SIZE = 64
_ROW = struct.Struct("<qqqqqI")  # agg_id, trade_ms, price, quantity, first_id, trade_count << 2 | listed << 1 | maker
_BLOCK = 2048  # rows read at once
_SYMBOL = re.compile(r"\w{1,50}")


class HistoryInUse(RuntimeError):
    """Another exchange writes to this directory."""


class SymbolHistory:
    """One symbol's file."""

    def __init__(self, path: Path, symbol: str) -> None:
        self.symbol = symbol
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._fd).st_size
        if size < _HEADER_SIZE:
            os.pwrite(self._fd, _HEADER.pack(_MAGIC, 0).ljust(_HEADER_SIZE, b"\0"), 0)
            size = _HEADER_SIZE
        magic, self._disorder_ms = _HEADER.unpack(os.pread(self._fd, _HEADER.size, 0))
        if magic != _MAGIC:
            raise ValueError(f"{path} is no history of this exchange")
        self._rows = (size - _HEADER_SIZE) // _ROW.size
        os.ftruncate(self._fd, self._offset(self._rows))
        self.last = self._read(self._rows - 1) if self._rows else None
        self._latest_ms = max((t.trade_ms for t in self._range(max(0, self._rows - 100), self._rows)), default=0)

    def __len__(self) -> int:
        return self._rows

    def append(self, trades: Iterable[Trade]) -> None:
        """Write trades; those with an id that is not above the last one are left out."""
        packed = bytearray()
        last = self.last
        for trade in trades:
            if last is not None and trade.agg_id <= last.agg_id:
                continue
            last = trade
            behind = self._latest_ms - trade.trade_ms
            if behind <= 0:
                self._latest_ms = trade.trade_ms
            elif behind > self._disorder_ms:
                self._disorder_ms = behind
                os.pwrite(self._fd, _HEADER.pack(_MAGIC, behind), 0)
            packed += _ROW.pack(
                trade.agg_id,
                trade.trade_ms,
                trade.price,
                trade.quantity,
                trade.first_id,
                trade.trade_count << 2 | trade.listed << 1 | trade.buyer_is_maker,
            )
        offset = self._offset(self._rows)
        while packed:
            written = os.pwrite(self._fd, packed, offset)
            offset += written
            del packed[:written]
        self.last = last
        self._rows = (offset - _HEADER_SIZE) // _ROW.size

    def from_id(self, agg_id: int) -> Iterator[Trade]:
        """Trades with ids from `agg_id` on, in order of ids."""
        return self._range(bisect_left(range(self._rows), agg_id, key=lambda n: self._read(n).agg_id), self._rows)

    def between(self, start_ms: int, end_ms: int) -> Iterator[Trade]:
        """Trades with start_ms ≤ T ≤ end_ms, in order of ids."""
        # Rows before this one are all older than start_ms, those after `end + disorder` all younger.
        first = bisect_left(range(self._rows), start_ms - self._disorder_ms, key=lambda n: self._read(n).trade_ms)
        for trade in self._range(first, self._rows):
            if trade.trade_ms > end_ms + self._disorder_ms:
                return
            if start_ms <= trade.trade_ms <= end_ms:
                yield trade

    def before(self, moment_ms: int) -> Iterator[Trade]:
        """Trades with T < moment_ms, the last one first."""
        # Rows from this one on are not older than the moment.
        end = bisect_left(range(self._rows), moment_ms + self._disorder_ms, key=lambda n: self._read(n).trade_ms)
        return (trade for trade in self._backwards(end) if trade.trade_ms < moment_ms)

    def newest_first(self) -> Iterator[Trade]:
        """All trades, the last one first."""
        return self._backwards(self._rows)

    def _backwards(self, rows: int) -> Iterator[Trade]:
        for end in range(rows, 0, -_BLOCK):
            yield from reversed(list(self._range(max(0, end - _BLOCK), end)))

    def close(self) -> None:
        """Close the file; all rows are with the operating system already."""
        os.close(self._fd)

    @staticmethod
    def _offset(row: int) -> int:
        return _HEADER_SIZE + row * _ROW.size

    def _read(self, row: int) -> Trade:
        return next(self._range(row, row + 1))

    def _range(self, first: int, end: int) -> Iterator[Trade]:
        symbol = self.symbol
        for start in range(first, end, _BLOCK):
            block = os.pread(self._fd, min(_BLOCK, end - start) * _ROW.size, self._offset(start))
            for agg_id, trade_ms, price, quantity, first_id, bits in _ROW.iter_unpack(block):
                yield Trade(
                    symbol,
                    trade_ms,
                    agg_id,
                    price,
                    quantity,
                    first_id,
                    bits >> 2,
                    trade_ms,
                    bool(bits & 1),
                    bool(bits & 2),
                )


class History:
    """The files of all symbols in `directory`, held by one process at a time (else HistoryInUse)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "trades"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise HistoryInUse(f"another exchange uses {directory}") from error
        self._files: dict[str, SymbolHistory] = {}

    def symbol(self, symbol: str) -> SymbolHistory:
        """The history of a symbol, empty at first."""
        file = self._files.get(symbol)
        if file is None:
            if not _SYMBOL.fullmatch(symbol):
                raise ValueError(f"not a symbol: {symbol!r}")
            file = self._files[symbol] = SymbolHistory(self._directory / f"{symbol}.rows", symbol)
        return file

    def append(self, trades: Iterable[Trade]) -> None:
        """Write trades of any symbols; they keep their order within each."""
        grouped: dict[str, list[Trade]] = {}
        for trade in trades:
            grouped.setdefault(trade.symbol, []).append(trade)
        for symbol, group in grouped.items():
            self.symbol(symbol).append(group)

    def newest(self, symbol: str, limit: int) -> list[Trade]:
        """The last `limit` listed trades, in order of ids."""
        listed = (trade for trade in self.symbol(symbol).newest_first() if trade.listed)
        return list(islice(listed, limit))[::-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files and let the directory go."""
        for file in self._files.values():
            file.close()
        self._lock.close()
