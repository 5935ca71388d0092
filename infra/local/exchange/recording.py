"""Recorded aggTrade frames, played once in order at their own pace with their times moved to now.

Files are .jsonl, .gz, .zst or .zip with one frame a line, combined or bare; several are merged by `E`. Only the digits
of `E` and `T` change. The shift is kept in the data directory: a restart goes on where real time has come to, and what
fell into the pause is in the history but was not sent, as on an exchange that went on without its listener.
"""

import heapq
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra.local.exchange.history import History
from infra.local.exchange.market import Pair
from infra.local.exchange.trade import UNIT, Trade
from infra.local.exchange.wire import retimed
from infra.recorded_lines import RecordedFile, TornFile, payload

logger = logging.getLogger(__name__)

NOTE = "recording.json"  # in the data directory: which recording plays there, since when
_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "TRY")
_SYMBOL = re.compile(r"\w{1,50}")
_DECIMAL = re.compile(r"\d{1,10}(\.\d{1,8})?")


def _units(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"not a decimal: {text!r}")
    whole, _, fraction = text.partition(".")
    return int(whole) * UNIT + int(fraction.ljust(8, "0"))


def _trade(line: bytes) -> Trade | None:
    """The trade of a line, its payload kept byte for byte; None if it is a frame of another kind.

    Raises ValueError, KeyError or TypeError for what is no frame.
    """
    wire = payload(line)
    frame: Any = orjson.loads(wire)
    if not isinstance(frame, dict) or frame.get("e") != "aggTrade":
        return None
    if not _SYMBOL.fullmatch(frame["s"]):
        raise ValueError(f"not a symbol: {frame['s']!r}")
    return Trade(
        frame["s"],
        int(frame["E"]),
        int(frame["a"]),
        _units(frame["p"]),
        _units(frame["q"]),
        int(frame["f"]),
        max(0, int(frame["l"]) - int(frame["f"]) + 1) if frame["f"] >= 0 else 0,
        int(frame["T"]),
        bool(frame["m"]),
        wire=wire,
    )


def read(path: Path) -> Iterator[Trade]:
    """The aggTrades of a file; bad lines are reported by number and left out."""
    number = 0
    try:
        for number, line in enumerate(RecordedFile(path), start=1):
            try:
                trade = _trade(line)
            except (ValueError, KeyError, TypeError) as error:
                logger.warning("%s line %d skipped: %s", path, number, error)
                continue
            if trade is not None:
                yield trade
    except TornFile as error:
        logger.warning("%s ends after line %d: %s", path, number, error)


def merged(paths: Iterable[Path]) -> Iterator[Trade]:
    """The aggTrades of several files in order of `E`."""
    return heapq.merge(*(read(path) for path in paths), key=lambda trade: trade.event_ms)


@dataclass(frozen=True)
class Contents:
    """What recordings hold: their pairs with first prices, and the first and last event time."""

    pairs: list[Pair]
    first_ms: int
    last_ms: int


def survey(paths: list[Path]) -> Contents:
    """Look through recordings; ValueError if there is no aggTrade in them."""
    prices: dict[str, int] = {}
    first_ms = last_ms = None
    for trade in merged(paths):
        prices.setdefault(trade.symbol, trade.price)
        first_ms = trade.event_ms if first_ms is None else first_ms
        last_ms = trade.event_ms
    if first_ms is None or last_ms is None:
        raise ValueError(f"no aggTrade frames in {', '.join(map(str, paths))}")
    return Contents([_pair(symbol, price) for symbol, price in prices.items()], first_ms, last_ms)


def _pair(symbol: str, price: int) -> Pair:
    quote = next((known for known in _QUOTES if symbol.endswith(known)), symbol[-4:])
    return Pair(symbol.removesuffix(quote), 1, 1, price, quote)


class RecordingSource:
    """Plays recordings from `start` on."""

    def __init__(self, paths: list[Path], contents: Contents, directory: Path, speed: float = 1.0) -> None:
        self._frames = merged(paths)
        self._contents, self._speed = contents, speed
        self._note = directory / NOTE
        self._names = sorted(path.name for path in paths)
        self._started_ms = self._noted()
        self._next: Trade | None = None
        self.finished = False

    @property
    def begun(self) -> bool:
        """Whether it has begun to play, now or in an earlier run."""
        return self._started_ms is not None

    def _noted(self) -> int | None:
        if not self._note.exists():
            return None
        note = json.loads(self._note.read_text(encoding="utf-8"))
        if note["files"] != self._names or note["speed"] != self._speed:
            raise ValueError(f"{self._note.parent} holds another recording: take another data directory")
        return int(note["started_ms"])

    def start(self, now_ms: int) -> None:
        """Make this moment the time of the first frame; of no effect once started."""
        if self._started_ms is not None:
            return
        note = {"files": self._names, "speed": self._speed, "started_ms": now_ms}
        fresh = self._note.with_suffix(".new")
        fresh.write_text(json.dumps(note), encoding="utf-8")
        fresh.replace(self._note)
        self._started_ms = now_ms
        seconds = (self._contents.last_ms - self._contents.first_ms) / 1000 / self._speed
        logger.info("playing %s, %.0f s long", ", ".join(self._names), seconds)

    def catch_up(self, history: History, now_ms: int) -> None:
        """Write what fell into the pause since an earlier run to the history, unsent."""
        missed = self.due(now_ms)
        history.append(missed)
        if self.finished:
            logger.warning("this recording was played to its end here; another data directory plays it anew")

    def due(self, now_ms: int) -> list[Trade]:
        """The frames whose moved time has come."""
        trades: list[Trade] = []
        while self._started_ms is not None and not self.finished:
            if self._next is None:
                frame = next(self._frames, None)
                if frame is None:
                    self.finished = True
                    logger.info("the recording has ended")
                    break
                self._next = self._moved(frame, self._started_ms)
            if self._next.event_ms > now_ms:
                break
            trades.append(self._next)
            self._next = None
        return trades

    def _moved(self, frame: Trade, started_ms: int) -> Trade:
        first_ms = self._contents.first_ms
        event_ms = started_ms + int((frame.event_ms - first_ms) / self._speed)
        trade_ms = started_ms + int((frame.trade_ms - first_ms) // self._speed)
        wire = retimed(frame.wire or b"", event_ms, trade_ms)
        return frame._replace(event_ms=event_ms, trade_ms=trade_ms, wire=wire)
