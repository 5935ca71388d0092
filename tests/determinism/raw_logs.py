"""Raw logs to compute, by Kafka partition, and what the naive reference makes of them."""

import gzip
import hashlib
import json
import random
from dataclasses import dataclass
from functools import cache, cached_property

from naive import NaiveStats

from flows.partitioning import partition_of

PARTITIONS = 8
MIDNIGHT = 1_723_161_600_000
CHINESE = "币安人生USDT"
SYMBOLS = [
    "BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "TRXUSDT", "AVAXUSDT", "LINKUSDT",
    "LTCUSDT", "DOTUSDT", CHINESE, "1000SATSUSDT",
]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One record of the log; `timestamp` and `received_ms` in ms, None: no such header."""

    key: str | None
    value: bytes | None
    timestamp: int
    received_ms: int | None


class Log:
    """Eight partitions of entries."""

    def __init__(self, name):
        self.name = name
        self.partitions = [[] for _ in range(PARTITIONS)]

    def trade(self, record, received=None, timestamp=None):
        """A record of a symbol, on the symbol's partition; it is received 30 ms after its E."""
        event = record.get("E")
        received = event + 30 if received is None and event is not None else received
        entry = Entry(record["s"], encode(record), timestamp or event or record["T"], received)
        self.partitions[partition_of(record["s"], PARTITIONS)].append(entry)

    def heartbeats(self, event_ms):
        for partition in range(PARTITIONS):
            self.put(partition, encode({"e": "heartbeat", "E": event_ms}), event_ms)

    def put(self, partition, value, timestamp, received=None, key=None):
        """Any bytes on any partition."""
        self.partitions[partition].append(Entry(key, value, timestamp, received or timestamp + 30))

    @cached_property
    def naive(self):
        """The reference, a partition each."""
        return [
            NaiveStats().run([e.value for e in entries], [e.received_ms for e in entries])
            for entries in self.partitions
        ]

    @cached_property
    def final(self):
        """{(timestamp, symbol): JSON without revision}."""
        return {key: text for naive in self.naive for key, text in naive.final.items()}

    @property
    def symbols(self):
        return {symbol for _, symbol in self.final}


def encode(record):
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def digest(final):
    """The sha256 of a final state, its seconds sorted by (timestamp, symbol)."""
    return hashlib.sha256(b"\n".join(final[key] for key in sorted(final))).hexdigest()


class Market:
    """Trades of symbols with prices on a random walk and ids without holes."""

    def __init__(self, rng):
        self.rng = rng
        self.prices = {symbol: rng.randint(10**4, 7 * 10**12) for symbol in SYMBOLS}
        self.ids = {symbol: (rng.randint(1, 4 * 10**9), rng.randint(1, 6 * 10**9)) for symbol in SYMBOLS}

    def trade(self, symbol, at_ms, lag_ms=1):
        """The next trade of a symbol, of the time `at_ms`, told `lag_ms` later."""
        rng = self.rng
        price = self.prices[symbol] = max(1, self.prices[symbol] + rng.randint(-1000, 1000))
        size = rng.choice([rng.randint(1, 10**8), rng.randint(1, 10**13)])
        agg_id, first = self.ids[symbol]
        last = first + rng.choice([0, 0, 0, 1, 7])
        self.ids[symbol] = agg_id + 1, last + 1
        return {
            "e": "aggTrade", "E": at_ms + lag_ms, "s": symbol, "a": agg_id, "p": decimal(rng, price),
            "q": decimal(rng, size), "f": first, "l": last, "T": at_ms, "m": rng.random() < 0.5, "M": True,
        }  # fmt: skip


def decimal(rng, amount):
    """8 decimals as the exchange writes them, or as short as can be."""
    text = f"{amount // 10**8}.{amount % 10**8:08d}"
    return text if rng.random() < 0.5 else text.rstrip("0").rstrip(".")


def backfilled(trade):
    """The same trade as REST gives it: no E."""
    return {name: value for name, value in trade.items() if name != "E"}


@cache
def realistic(seed, seconds=40, rate=60, middle_ms=MIDNIGHT):
    """What ingest writes: heartbeats every 100 ms, Zipf symbols, subscriptions, two lost connections with backfill."""
    rng = random.Random(seed)
    log, market, start = Log(f"realistic-{seed}-{seconds}s"), Market(rng), middle_ms - seconds * 500
    for symbol in SYMBOLS:
        log.trade({"e": "subscription", "s": symbol, "on": True, "E": start - 500})
    weights = [1 / rank for rank in range(1, len(SYMBOLS) + 1)]
    cuts = {int(seconds * 0.3): 0, int(seconds * 0.7): 1}  # second -> which half of the partitions loses its line
    held, cut = [], None
    for tick in range(seconds * 10):
        now = start + tick * 100
        if tick % 10 == 0 and tick // 10 in cuts:
            cut, until = cuts[tick // 10], now + rng.randint(1500, 4000)
        for _ in range(rng.randint(0, rate // 5)):
            symbol = rng.choices(SYMBOLS, weights)[0]
            trade = market.trade(symbol, now + rng.randint(0, 99), rng.choice([0, 1, 2, 8, 60]))
            if cut is not None and partition_of(symbol, PARTITIONS) % 2 == cut:
                held.append(trade)
            else:
                log.trade(trade)
        if cut is not None and now >= until:
            half = len(held) // 2
            for trade in held[:half]:  # the last of them come again, live, as the new connection overlaps
                log.trade(backfilled(trade), received=now)
            for trade in held[max(0, half - 5) :]:
                log.trade(trade, received=now)
            held, cut = [], None
        for partition in range(PARTITIONS):
            # Even partitions' heartbeats go on through the cut, as after 30 s: the backfill makes revisions there.
            if cut is None or partition % 2 != cut or cut == 0:
                log.put(partition, encode({"e": "heartbeat", "E": now + 99}), now + 99)
    log.trade({"e": "subscription", "s": SYMBOLS[0], "on": False, "E": start + seconds * 1000})
    log.heartbeats(start + seconds * 1000 + 5000)
    return log


def recorded(path, *, late=400, before_ms=None):
    """A recording of combined frames as an import writes it: a heartbeat a partition for each second with trades.

    Each `late`th trade comes 3 s later, over REST, and makes a revision; with 0 none does.
    """
    name = path.name.partition(".")[0]
    log, second, held = Log(f"{name}-{before_ms}" if before_ms else name), 0, []
    with gzip.open(path) as lines:
        for number, line in enumerate(lines, 1):
            value = line.partition(b'"data":')[2].rstrip()[:-1]
            record = json.loads(value)
            if before_ms and record["T"] >= before_ms:
                break
            if second and record["E"] // 1000 > second:
                log.heartbeats(second * 1000 + 999)
            second = max(second, record["E"] // 1000)
            while held and held[0]["T"] + 3000 <= record["E"]:
                log.trade(backfilled(held.pop(0)), received=record["E"])
            if late and number % late == 0:
                held.append(record)
            else:
                log.put(partition_of(record["s"], PARTITIONS), value, record["E"], key=record["s"])
    log.heartbeats(second * 1000 + 2500)
    for trade in held:
        log.trade(backfilled(trade), received=second * 1000)
    log.heartbeats(second * 1000 + 5000)
    return log
