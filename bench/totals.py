"""Exact totals and a checksum over published SecondStats, as the peers make them.

Native, as the peers' counting is: it took 5 µs a stat in Python, more than all that makes and publishes one.
"""

# Numba knows other integers than mypy does.
# mypy: disable-error-code="assignment,arg-type,return-value,no-any-return"

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.domain.market import SCALE
from flows.run_scan import Bytes, Ints, Wide, native, text

_HEAD, _REVISION = np.uint64(len('{"symbol":"')), text('"revision":0}')
# How far it is from the end of a value to the next: from the symbol on, each of those that are counted.
_GAPS = np.array(
    [
        len(between)
        for between in (
            '","timestamp":', ',"open":"', '","high":"', '","low":"', '","close":"', '","volume":"',
            '","quote_volume":"', '","trade_count":', ',"taker_buy_volume":"',
        )
    ],
    np.uint64,
)  # fmt: skip
_TIMESTAMP, _VOLUME = 0, 5
_1, _3 = np.uint64(1), np.uint64(3)
_QUOTE, _SPACE, _ZERO, _POINT = (ord(c) for c in '" 0.')


def _crc_table() -> Wide:
    rows = np.arange(256, dtype=np.int64)
    for _ in range(8):
        rows = np.where(rows & 1, (rows >> 1) ^ 0xEDB88320, rows >> 1)
    return rows.astype(np.uint64)


# Unsigned, as places below are: signed ones cost native code twice as much.
_CRC, _BYTE, _8, _ALL = _crc_table(), np.uint64(0xFF), np.uint64(8), np.uint64(0xFFFFFFFF)


@native
def _crc(crc: int, byte: int) -> int:
    return _CRC[(crc ^ np.uint64(byte)) & _BYTE] ^ (crc >> _8)


@native
def _count(data: Bytes, ends: Ints) -> tuple[int, int, int]:
    """(Whole volume, sum of the CRC-32, the first text that is a revision or -1) of texts of SecondStats."""
    volumes, check = 0, np.uint64(0)
    at = np.uint64(0)
    for row in range(len(ends)):
        end = np.uint64(ends[row])
        for i in range(len(_REVISION)):
            if data[end - np.uint64(len(_REVISION) - i)] != _REVISION[i]:
                return volumes, np.int64(check), row
        crc = _ALL
        at += _HEAD
        while data[at] != _QUOTE:
            crc = _crc(crc, data[at])
            at += _1
        for field in range(len(_GAPS)):
            at += _GAPS[field]
            stop = at
            while data[stop] == _POINT or _ZERO <= data[stop] <= _ZERO + 9:
                stop += _1
            last = stop - _3 if field == _TIMESTAMP else stop  # seconds, not ms
            while at < last - _1 and (data[at] == _ZERO or data[at] == _POINT):
                at += _1
            crc = _crc(crc, _SPACE)
            value = 0
            while at < last:
                byte = np.int64(data[at])
                if byte != _POINT:
                    crc = _crc(crc, byte)
                    value = value * 10 + byte - _ZERO
                at += _1
            if field == _VOLUME:
                volumes += value
            at = stop
        check += crc ^ _ALL
        at = end
    return volumes, np.int64(check), -1


class Totals:
    """Totals over stats, each counted once."""

    def __init__(self) -> None:
        self.stats = self.volume = self.check = 0

    def add(self, texts: Sequence[bytes]) -> None:
        """Count published SecondStats. Raises ValueError for a revision: the peers count each second once."""
        data = np.frombuffer(b"".join(texts), np.uint8)
        volume, check, revised = _count(data, np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts))))
        if revised >= 0:
            raise ValueError(f"revised: {texts[revised].decode()}; take a topic without late trades")
        self.volume += volume
        self.check += check
        self.stats += len(texts)

    def merge(self, other: "Totals") -> None:
        """Count what another process has counted."""
        self.stats += other.stats
        self.volume += other.volume
        self.check += other.check

    def line(self, peer: str, messages: int, seconds: float) -> dict[str, Any]:
        """The result as the peers print it."""
        whole, part = divmod(self.volume, SCALE)
        return {
            "peer": peer,
            "messages": messages,
            "seconds": round(seconds, 3),
            "rate": round(messages / seconds),
            "stats": self.stats,
            "volume_sum": f"{whole}.{part:08d}",
            "check": str(self.check),
        }
