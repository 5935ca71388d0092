"""A portfolio through recorded seconds: rows in, pushes out, by the rules of the live ones; pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from api.profile.portfolio import Holding, Push
from api.profile.prices import SECOND_MS, Quote


class Scene(NamedTuple):
    """What is to be pushed when the recorded clock shows `at_ms`."""

    at_ms: int
    push: Push


class Script:
    """A user's holdings, as they are at the start, with quotes of their own: the live ones are not touched.

    Rows are `recorded.Rows`, in order. A price's age is counted by the recorded clock.
    """

    def __init__(self, user: str, holdings: Iterable[Holding], stale_after_ms: int) -> None:
        """`user` as for a Push."""
        self._user = user
        self._stale_after_ms = stale_after_ms
        self._holdings = [holding.priced_by(Quote(holding.quote.symbol)) for holding in holdings]
        self._quotes = {holding.quote.symbol.upper().encode(): holding.quote for holding in self._holdings}
        self.at_ms = 0  # what was told is the state of then

    @property
    def symbols(self) -> list[str]:
        """In upper case."""
        return sorted(symbol.decode() for symbol in self._quotes)

    def begin(self, begin_ms: int, known: Iterable[bytes]) -> Scene | None:
        """Before the first second: the last prices known then, if any."""
        known = list(known)
        for row in known:
            self._apply(row)
        self.at_ms = begin_ms
        return self._scene(begin_ms) if known else None

    def play(self, rows: Iterable[bytes], until_ms: int) -> Iterator[Scene]:
        """The rows of all seconds up to `until_ms`: a scene at the end of each, and whenever a price turns stale."""
        end_ms = 0
        for row in rows:
            of_ms = int(row[: row.index(b"\t")]) + SECOND_MS
            if of_ms != end_ms:
                if end_ms:
                    yield self._scene(end_ms)
                yield from self._turning_stale(of_ms)
                end_ms = of_ms
            self._apply(row)
        if end_ms:
            yield self._scene(end_ms)
        yield from self._turning_stale(until_ms + 1)
        self.at_ms = max(self.at_ms, until_ms)

    def _apply(self, row: bytes) -> None:
        timestamp, symbol, close = row.split(b"\t")
        self._quotes[symbol].apply_close(close.decode(), int(timestamp))

    def _scene(self, at_ms: int) -> Scene:
        for quote in self._quotes.values():
            quote.check_age(at_ms, self._stale_after_ms)
        self.at_ms = at_ms
        return Scene(at_ms, Push(self._user, self._holdings, is_replay=True))

    def _turning_stale(self, before_ms: int) -> Iterator[Scene]:
        """Between the last scene and this time, in which nothing was traded."""
        if before_ms - self.at_ms <= SECOND_MS:
            return
        turns = {quote.stale_from(self._stale_after_ms) for quote in self._quotes.values() if quote.price is not None}
        for at_ms in sorted({-(-turn // SECOND_MS) * SECOND_MS for turn in turns}):
            if self.at_ms < at_ms < before_ms:
                yield self._scene(at_ms)
