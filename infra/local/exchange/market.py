"""A seeded market: random walks near real prices, Zipf popularity, bursts. Pure: no clock, no I/O."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from infra.local.exchange.trade import UNIT, Trade

# base, price in USDT, decimals of the price, decimals of the quantity; the most popular first
_PAIRS = """
BTC 92000 2 5, ETH 3100 2 4, SOL 140 2 3, XRP 2.1 4 1, BNB 900 2 3, DOGE 0.15 5 0, ADA 0.45 4 1,
TRX 0.28 4 1, AVAX 14 2 2, LINK 13.5 2 2, SUI 1.6 4 1, PEPE 0.0000048 8 0, LTC 85 2 3,
SHIB 0.0000088 8 0, DOT 2.4 3 2, BCH 540 1 3, UNI 6.2 3 2, NEAR 1.9 3 1, APT 2.4 3 2, TON 1.6 3 2,
ICP 4.1 3 2, FIL 1.6 3 2, ARB 0.21 4 1, OP 0.32 3 2, ETC 13.6 2 2, ATOM 2.5 3 2, HBAR 0.14 5 0,
XLM 0.25 4 0, INJ 5.9 2 2, AAVE 180 2 3, TAO 300 1 4, RENDER 1.8 3 2, WIF 0.38 3 2, FET 0.26 4 1,
SEI 0.13 4 1, TIA 0.62 4 2, BONK 0.0000098 8 0, FLOKI 0.000046 8 0, WLD 0.62 3 1, JUP 0.24 4 1,
ENA 0.27 4 2, ALGO 0.14 4 0, VET 0.013 5 0, GRT 0.044 4 0, LDO 0.64 4 2, CRV 0.39 3 1, STX 0.32 4 1,
IMX 0.29 3 1, RUNE 0.66 3 1, SAND 0.14 4 0
"""
DAILY_VOLATILITY = 0.03
BURST_MS = (500, 6000)  # how long a burst lasts
BURST_FACTOR = (3, 25)  # how much busier the symbol is in it
_TABLE = 4096


@dataclass(frozen=True)
class Pair:
    """What the exchange lists: a symbol, its grid of prices and quantities (in 1e-8 units) and its first price."""

    base: str
    tick: int
    lot: int
    price: int
    quote: str = "USDT"

    @property
    def symbol(self) -> str:
        """As `BTCUSDT`."""
        return self.base + self.quote


@dataclass(frozen=True)
class Position:
    """Where a symbol's history ends: its last ids, price and trade time."""

    agg_id: int
    trade_id: int
    price: int
    trade_ms: int


def pairs(count: int) -> list[Pair]:
    """The `count` most popular pairs: real ones, then made-up ones (the first of these has a Chinese name)."""
    listed = []
    for line in _PAIRS.split(","):
        base, price, price_decimals, lot_decimals = line.split()
        tick, lot = 10 ** (8 - int(price_decimals)), 10 ** (8 - int(lot_decimals))
        listed.append(Pair(base, tick, lot, round(float(price) * UNIT) // tick * tick))
    made = ["币安人生", *(f"SIM{number:04}" for number in range(1, count))]
    cents = UNIT // 10_000
    while len(listed) < count:
        number = len(listed)
        listed.append(Pair(made[number - 50], cents, UNIT // 100, (1 + number % 97) * UNIT // 10))
    return listed[:count]


class Book:
    """One symbol's walk: the next ids, the price in ticks."""

    __slots__ = ("agg_id", "anchor", "pair", "pull", "sigma", "size", "ticks", "trade_id", "trade_ms")

    def __init__(self, pair: Pair, position: Position) -> None:
        self.pair = pair
        self.anchor = pair.price // pair.tick
        self.ticks = max(1, position.price // pair.tick)
        self.agg_id, self.trade_id, self.trade_ms = position.agg_id, position.trade_id, position.trade_ms
        self.sigma = self.pull = 0.0
        self.size = 60 * UNIT * UNIT / (pair.price * pair.lot)  # lots of a trade worth 60 USDT


class Market:
    """Makes trades. `positions` continue symbols that have a history; others start at ids drawn from the seed."""

    def __init__(
        self, listed: Iterable[Pair], seed: int, rate: float, positions: dict[str, Position] | None = None
    ) -> None:
        known = positions or {}
        resumed = sum(position.agg_id for position in known.values())
        self._rng = rng = random.Random(f"{seed}:{resumed}")  # noqa: S311 - a restart walks on differently
        self.books = [Book(pair, known.get(pair.symbol) or self._start(pair, seed)) for pair in listed]
        self._weights = [1 / rank for rank in range(1, len(self.books) + 1)]
        self._boosts: dict[int, tuple[float, int]] = {}  # book number -> factor, until ms
        self._cumulated = list(accumulate(self._weights))
        self._shuffle_at_ms = 0
        self._normal = [rng.gauss(0, 1) for _ in range(_TABLE)]
        self._sizes = [rng.lognormvariate(0, 1.6) for _ in range(_TABLE)]
        self._delays = [min(180, int(rng.expovariate(1 / 6))) for _ in range(256)]
        self.rate = 0.0
        self.set_rate(rate)

    @staticmethod
    def _start(pair: Pair, seed: int) -> Position:
        first = random.Random(f"{seed}:{pair.symbol}").randrange(10**6, 4 * 10**9)  # noqa: S311
        return Position(first, first + first // 3, pair.price, 0)

    def set_rate(self, rate: float) -> None:
        """Trades a second over all symbols; each symbol's volatility a day stays what it is."""
        self.rate = rate
        total = sum(self._weights)
        for book, weight in zip(self.books, self._weights, strict=True):
            a_day = max(1e4, 86_400 * rate * weight / total)
            book.sigma, book.pull = DAILY_VOLATILITY / a_day**0.5, 1 / a_day

    def trades(self, count: int, after_ms: int, until_ms: int) -> list[Trade]:
        """The next `count` trades, with event times spread evenly over (after_ms, until_ms]."""
        if until_ms >= self._shuffle_at_ms:
            self._burst(until_ms)
        span = until_ms - after_ms
        chosen = self._rng.choices(self.books, cum_weights=self._cumulated, k=count)
        return [self._trade(book, after_ms + span * number // count) for number, book in enumerate(chosen, start=1)]

    def _trade(self, book: Book, event_ms: int) -> Trade:
        bits = self._rng.getrandbits(52)
        ticks = book.ticks
        step = ticks * book.sigma * self._normal[bits & 4095] + (book.anchor - ticks) * book.pull
        # Rounding up or down by chance keeps the walk unbiased on coarse grids.
        moved = int((step + (bits >> 42) / 1024) // 1)
        book.ticks = ticks = max(1, ticks + moved)
        pair = book.pair
        quantity = pair.lot * (1 + int(book.size * self._sizes[(bits >> 12) & 4095]))
        pieces = (1, 1, 1, 1, 1, 2, 2, 3)[(bits >> 24) & 7]
        book.trade_ms = trade_ms = max(book.trade_ms, event_ms - self._delays[(bits >> 27) & 255])
        book.agg_id = agg_id = book.agg_id + 1
        first_id = book.trade_id + 1
        book.trade_id += pieces
        seller = moved < 0 or (moved == 0 and bool(bits & (1 << 36)))
        return Trade(pair.symbol, event_ms, agg_id, ticks * pair.tick, quantity, first_id, pieces, trade_ms, seller)

    def _burst(self, now_ms: int) -> None:
        self._shuffle_at_ms = now_ms + 500
        self._boosts = {number: boost for number, boost in self._boosts.items() if boost[1] > now_ms}
        if self._rng.random() < 0.4:
            number = self._rng.randrange(len(self.books))
            self._boosts[number] = self._rng.uniform(*BURST_FACTOR), now_ms + self._rng.randint(*BURST_MS)
        weights = self._weights.copy()
        for number, (factor, _) in self._boosts.items():
            weights[number] *= factor
        self._cumulated = list(accumulate(weights))
