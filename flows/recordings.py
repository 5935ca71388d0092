"""Recorded trades as records of the raw log: frames of the exchange, or Binance's public aggTrades files.

A line is one of
- a frame, combined or bare: an aggTrade (kept byte for byte), or a trade (`@trade`), which is grouped into aggTrades;
- a row of a public CSV: `aggregate id, price, quantity, first id, last id, time in ms or µs, buyer is maker[, best]`.
  It has no event time, as a backfilled trade, and its symbol is that of the file's name (`BTCUSDT-aggTrades-….csv`);
  in a .zip, of the name of the file within.
A symbol that a file has both aggTrades and trades of is told by the kind that comes first: both would count it twice.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from flows.domain.errors import InvalidRecord, InvalidSymbol
from flows.domain.market import NO_TIME
from flows.domain.partition import checked_trade, is_invalid_row
from flows.records import RawTrade, decode_trades
from flows.trade_groups import TradeGroups, decode_trade
from infra.recorded_lines import RecordedFile, TornFile, payload

_SYMBOL_OF_FILE = re.compile(r"([^\W_]{2,30})-aggTrades-", re.IGNORECASE)
_FROM_MS, _MICROSECONDS_FROM = 10**11, 10**14  # as times in ms 1973, and the year 5138
_EVENT = re.compile(rb'\s*\{\s*"e"\s*:\s*"(\w+)"')


class Recorded(NamedTuple):
    """One trade as it goes into the raw log."""

    time_ms: int  # Kafka's timestamp: E, or T where there is none
    trade_ms: int
    symbol: str
    agg_id: int
    value: bytes


class BadLine(NamedTuple):
    """A line that can't be used. `torn`: nothing could be read from here on."""

    file: Path
    number: int
    reason: str
    torn: bool = False


class RecordingFile:
    """Iterate over it for its trades, in its order; `told` gets each bad line, `skipped` counts frames of other kinds.

    Raises InvalidSymbol for a CSV whose symbol is not known, and OSError.
    """

    def __init__(self, path: Path, told: Callable[[BadLine], None], symbol: str | None = None) -> None:
        self.file = RecordedFile(path)
        self.skipped = self.lines = 0
        self._told = told
        self._given = symbol
        self._member, self._symbol, self._began = "", "", 0  # the file in a .zip, and its lines before
        self._kinds: dict[str, bytes] = {}  # of the frames that a symbol is told by
        self._groups = TradeGroups()

    def __iter__(self) -> Iterator[Recorded]:
        try:
            for line in self.file:
                self.lines += 1
                try:
                    yield from self._line(line)
                except (InvalidRecord, ValueError) as error:
                    self._bad(str(error))
        except TornFile as error:
            self.lines += 1
            self._bad(str(error), torn=True)
        for value in self._groups.rest():
            yield _recorded(value)

    def _bad(self, reason: str, torn: bool = False) -> None:
        self._told(BadLine(self.file.path, self.lines, reason, torn))

    def _line(self, line: bytes) -> Iterator[Recorded]:
        if self._member != self.file.member:
            self._member, self._began = self.file.member, self.lines - 1
            found = _SYMBOL_OF_FILE.match(Path(self._member).name) or _SYMBOL_OF_FILE.match(self.file.path.name)
            self._symbol = (found.group(1) if found else self._given or "").upper()
        if self.lines == self._began + 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line[:1].isspace() and line[:1] not in (b"{", b"["):
            if row := self._row(line.decode().strip()):
                yield row
            return
        if not line.strip():
            return
        data = payload(line)
        event = _EVENT.match(data)
        kind = event.group(1) if event else _kind(data)
        if kind == b"aggTrade":
            one = _recorded(data)
            if self._kinds.setdefault(one.symbol, kind) == kind:
                yield one
                return
        elif kind == b"trade":
            trade = decode_trade(data)
            if self._kinds.setdefault(trade.s, kind) == kind:
                for value in self._groups.add(trade):
                    yield _recorded(value)
                return
        self.skipped += 1

    def _row(self, text: str) -> Recorded | None:
        cells = text.split(",")
        if not 7 <= len(cells) <= 8:
            raise InvalidRecord(f"neither a frame nor 7 or 8 columns: {text[:60]!r}")
        if self.lines == self._began + 1 and not cells[0].isdigit() and not cells[5].strip().isdigit():
            return None  # a header
        if not self._symbol:
            name = self.file.member
            raise InvalidSymbol(f"{name}: whose trades? It is not named SYMBOL-aggTrades-…; say --symbol")
        agg_id, price, quantity, first, last, time, maker = (cell.strip() for cell in cells[:7])
        are_whole = all(cell.isascii() and cell.isdigit() for cell in (agg_id, time))
        if not are_whole or maker.lower() not in ("true", "false"):
            raise InvalidRecord(f"not a row of aggTrades: {text[:60]!r}")
        time_ms = int(time) // 1000 if int(time) >= _MICROSECONDS_FROM else int(time)
        if not _FROM_MS <= time_ms < _MICROSECONDS_FROM:
            raise InvalidRecord(f"the time {time} is neither in ms nor in µs")
        head = msgspec.json.encode(self._symbol).decode()
        value = (
            f'{{"e":"aggTrade","s":{head},"a":{agg_id},"p":"{price}","q":"{quantity}","f":{first},"l":{last},'
            f'"T":{time_ms},"m":{maker.lower()},"M":true}}'
        )
        return _recorded(value.encode())


def _kind(data: bytes) -> bytes:
    """The kind of an object whose fields come in another order; empty for an array, or an answer."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"bad JSON: {error}") from error
    return str(found.get("e", "")).encode() if isinstance(found, dict) else b""


def _recorded(value: bytes) -> Recorded:
    """A trade that the core will take, or one of the exchange's invalid rows. Raises InvalidRecord."""
    (trade,) = decode_trades([value])
    if isinstance(trade, InvalidRecord):
        raise trade
    return Recorded(*_checked(trade), value)


def _checked(trade: RawTrade) -> tuple[int, int, str, int]:
    """(timestamp, T, symbol, a)."""
    if is_invalid_row(trade) and trade.symbol and trade.agg_id is not None and trade.trade_time is not None:
        symbol, agg_id, trade_ms = trade.symbol, trade.agg_id, trade.trade_time
    else:
        symbol, agg_id, trade_ms, *_ = checked_trade(trade)
    time_ms = trade_ms if trade.event_time == NO_TIME else trade.event_time
    if not 0 < time_ms < 1 << 53:
        raise InvalidRecord(f"E is {time_ms}")
    return time_ms, trade_ms, symbol, agg_id
