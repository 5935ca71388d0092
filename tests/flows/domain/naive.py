"""The SecondStat rules of the design once more, one record at a time, in Decimal and dicts, sharing no product code.

Slow and plain on purpose: it gives the bytes that the product is compared with.
"""

import json
from decimal import Decimal, localcontext

TYPES = {
    "e": str, "E": int, "s": str, "a": int, "p": str, "q": str, "f": int, "l": int, "T": int, "m": bool, "on": bool,
}  # fmt: skip
TRADE = ("s", "a", "p", "q", "f", "l", "T", "m")
LARGEST = Decimal(2**80) / 10**8


def read(value):
    """A record's fields, None for what is no record. `null` is a missing field, but for `e` and `E` a wrong type."""
    try:
        record = json.loads(value.decode(), parse_constant=lambda name: int("no JSON"))
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (AttributeError, ValueError, RecursionError):
        return None
    if type(record) is not dict or "e" not in record:
        return None
    record = {name: got for name, got in record.items() if got is not None or name in ("e", "E")}
    if any(name in record and type(record[name]) is not kind for name, kind in TYPES.items()):
        return None
    return record


def amount(text):
    """A decimal in plain notation with at most 8 decimals, None for what is none."""
    whole, point, fraction = text.partition(".")
    digits = set(whole + fraction)
    if not whole or not digits <= set("0123456789") or len(fraction) > 8 or (point and not fraction):
        return None
    return Decimal(text) if len(whole + fraction) <= 40 and Decimal(text) < LARGEST else None


class NaiveStats:
    """One partition. `published` is every (JSON text with revision) in order; `rejected` the indexes that went to the DLQ."""

    def __init__(self, lateness=200, horizon=1_800_000):
        self.lateness, self.horizon = lateness, horizon
        self.watermark = 0
        self.seen = set()
        self.trades = {}  # (second, symbol) -> list of trades
        self.revision = {}  # (second, symbol) -> last published revision
        self.dirty, self.pending = set(), set()  # published and touched again; not published yet
        self.published, self.rejected = [], []
        self.duplicates = self.invalid_rows = self.late = 0
        self.final = {}

    def run(self, values, received=None):
        for index, value in enumerate(values):
            if not self.take(value, received[index] if received else None):
                self.rejected.append(index)
        return self

    def take(self, value, received):
        """Process one record; False if it belongs to the DLQ."""
        record = read(value)
        if record is None:
            return False
        kind, event = record["e"], record.get("E")
        if event is not None and not 0 < event < 2**53:
            return False
        if event is not None and received is not None and event > received + 600_000:
            return False
        good = True
        if kind == "aggTrade":
            if (
                record.get("f") == record.get("l") == -1
                and amount(record.get("p", "")) == amount(record.get("q", "")) == 0
            ):
                self.invalid_rows += 1
                return True
            if not self.valid(record, event):
                return False
            good = self.trade(record)
        elif kind == "heartbeat":
            if event is None:
                return False
        elif kind != "subscription" or not record.get("s") or "on" not in record:
            return False
        if event is not None:
            self.watermark = max(self.watermark, event)
        closing = {key for key in self.pending if self.closes(key[0])}
        self.pending -= closing
        if closing or (kind == "heartbeat" and self.dirty):
            for key in sorted(closing | self.dirty):
                self.revision[key] = self.revision.get(key, -1) + 1
                self.emit(key)
            self.dirty.clear()
        return good

    def closes(self, second):
        return second + 1000 + self.lateness <= self.watermark

    @staticmethod
    def valid(record, event):
        if any(name not in record for name in TRADE) or not record["s"]:
            return False
        if not 0 <= record["a"] < 2**63 or not 0 <= record["f"] <= record["l"] < 2**63 or not 0 < record["T"] < 2**53:
            return False
        if not amount(record["p"]) or not amount(record["q"]):
            return False
        return event is None or event >= record["T"] - 1000

    def trade(self, record):
        ident = (record["s"], record["a"])
        if ident in self.seen:
            self.duplicates += 1
            return True
        self.seen.add(ident)
        second = record["T"] // 1000 * 1000
        if second + 1000 + self.horizon <= self.watermark:
            self.late += 1
            return False
        key = (second, record["s"])
        self.trades.setdefault(key, []).append(record)
        (self.dirty if key in self.revision else self.pending).add(key)
        return True

    def emit(self, key):
        second, symbol = key
        trades = sorted(self.trades[key], key=lambda t: t["a"])
        with localcontext() as context:
            context.prec = 100
            price = [Decimal(t["p"]) for t in trades]
            size = [Decimal(t["q"]) for t in trades]
            taker = [not t["m"] for t in trades]
            quote = [p * q for p, q in zip(price, size, strict=True)]
            stat = {
                "symbol": symbol,
                "timestamp": second,
                "open": f"{price[0]:.8f}",
                "high": f"{max(price):.8f}",
                "low": f"{min(price):.8f}",
                "close": f"{price[-1]:.8f}",
                "volume": f"{sum(size):.8f}",
                "quote_volume": f"{sum(quote):.16f}",
                "trade_count": sum(t["l"] - t["f"] + 1 for t in trades),
                "taker_buy_volume": f"{sum((q for q, b in zip(size, taker, strict=True) if b), Decimal(0)):.8f}",
                "taker_buy_quote_volume": f"{sum((q for q, b in zip(quote, taker, strict=True) if b), Decimal(0)):.16f}",
                "first_trade_id": trades[0]["a"],
                "last_trade_id": trades[-1]["a"],
            }
        self.final[key] = json.dumps(stat, separators=(",", ":"), ensure_ascii=False).encode()
        stat["revision"] = self.revision[key]
        self.published.append(json.dumps(stat, separators=(",", ":"), ensure_ascii=False).encode())
