"""Made-up aggTrade records, written as the exchange writes them: Zipf-like symbols, random walks, exact amounts."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

SCALE = 100_000_000
EPOCH_MS = 1_700_000_000_000


@dataclass
class _Symbol:
    name: str
    price: int  # in ticks
    tick: int
    lot: int
    mean_lots: float
    agg_id: int
    raw_id: int
    traded_ms: int = 0


class Trades:
    """An endless supply; the same for the same seed."""

    def __init__(self, symbols: int = 200, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 - data, not secrets
        self._weights = list(accumulate((i + 1) ** -0.95 for i in range(symbols)))
        self._symbols = [self._symbol(i) for i in range(symbols)]
        self.names = [symbol.name for symbol in self._symbols]

    def _symbol(self, rank: int) -> _Symbol:
        start = 65_000.0 * (rank + 1) ** -2
        tick, lot = (1_000_000, 1_000) if start > 100 else (10_000, 1_000_000)
        return _Symbol(
            f"C{rank:04d}USDT",
            max(1, round(start * SCALE / tick)),
            tick,
            lot,
            500 / start * SCALE / lot,  # about 500 USDT a trade
            self._random.randrange(1_000_000, 900_000_000),
            self._random.randrange(900_000_000, 2_000_000_000),
        )

    def take(self, event_times_ms: list[int]) -> Iterator[tuple[str, bytes, int]]:
        """(symbol, value, event time) of one trade for each event time, which ascend."""
        rnd = self._random
        chosen = rnd.choices(self._symbols, cum_weights=self._weights, k=len(event_times_ms))
        for s, event in zip(chosen, event_times_ms, strict=True):
            s.traded_ms = max(s.traded_ms, event - int(rnd.random() * 6))
            s.price = max(1, s.price + int(rnd.random() * 5) - 2)
            last = s.raw_id + int(rnd.random() * 3)
            p, q = s.price * s.tick, s.lot * (1 + int(rnd.expovariate(1.0) * s.mean_lots))
            value = (
                f'{{"e":"aggTrade","E":{event},"s":"{s.name}","a":{s.agg_id},"p":"{p // SCALE}.{p % SCALE:08d}",'
                f'"q":"{q // SCALE}.{q % SCALE:08d}","f":{s.raw_id},"l":{last},"T":{s.traded_ms},'
                f'"m":{"true" if rnd.random() < 0.5 else "false"},"M":true}}'
            )
            s.agg_id += 1
            s.raw_id = last + 1
            yield s.name, value.encode(), event
