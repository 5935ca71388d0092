"""A log as nasty as the exchange, the network and other people's bytes make it, over midnight."""

import random
from functools import cache

from raw_logs import CHINESE, MIDNIGHT, PARTITIONS, SYMBOLS, Entry, Log, Market, backfilled, encode

QUIET = "DOTUSDT"


def good(now):
    return {"e": "aggTrade", "E": now, "s": "BTCUSDT", "a": 5, "p": "1", "q": "1", "f": 1, "l": 1, "T": now, "m": True}


def poison(now):
    """(what is wrong, value, received_ms) of each kind of record that belongs to the DLQ."""
    wrong = {
        "a missing": ("a", None), "a negative": ("a", -1), "a text": ("a", "5"), "a float": ("a", 5.0), "a true": ("a", True),
        "a huge": ("a", 2**63), "p a number": ("p", 1.5), "p empty": ("p", ""), "p zero": ("p", "0"), "p exponent": ("p", "1e5"),
        "p sign": ("p", "+1"), "p negative": ("p", "-1"), "p no whole": ("p", ".5"), "p no fraction": ("p", "5."),
        "p nine decimals": ("p", "1.000000001"), "p underscore": ("p", "1_0"), "p Arabic digits": ("p", "١"), "p space": ("p", " 1"),
        "p too large": ("p", "12089258196146291.74706176"), "q nan": ("q", "NaN"), "q zero": ("q", "0.00000000"),
        "f negative": ("f", -1), "l before f": ("l", 0), "T zero": ("T", 0), "T text": ("T", "1"), "m number": ("m", 1),
        "s empty": ("s", ""), "s list": ("s", []), "E zero": ("E", 0), "E null": ("E", None), "E negative": ("E", -(2**63)),
        "E far": ("E", 2**53), "E a second before T": ("T", now + 1001), "e unknown": ("e", "trade"), "e a number": ("e", 1),
    }  # fmt: skip
    for name, (field, value) in wrong.items():
        record = {**good(now), field: value}
        if name == "a missing":
            del record["a"]
        yield name, encode(record), None
    yield "E 10 min ahead", encode(good(now)), now - 600_001
    yield "heartbeat 10 min ahead", encode({"e": "heartbeat", "E": now + 700_000}), now
    yield "heartbeat without E", b'{"e":"heartbeat"}', None
    yield "subscription without on", encode({"e": "subscription", "s": "BTCUSDT", "E": now}), None
    yield "subscription without s", encode({"e": "subscription", "on": True, "E": now}), None
    texts = [
        b"", b"{", b"null", b"[]", b"1", b"{}", b"\xff\xfe", b'{"e":"heartbeat","E":1,}', b"{'e':'heartbeat'}", b"[" * 2000,
        b'{"e":"heartbeat","E":%d}{"e":"heartbeat","E":%d}' % (now, now), b'{"e":"heartbeat","E":%d}\n{}' % now,
        b'{"e":"heartbeat","z":[{}', b"{}]}", b'{"e":"heartbeat","x":"\xc3","E":%d}' % now, b'{"e":"heartbeat","x":NaN}',
        b'\xef\xbb\xbf{"e":"heartbeat","E":%d}' % now, b"x" * 100_000,
    ]  # fmt: skip
    for text in texts:
        yield f"text {text[:20]!r}", text, None
    yield "no value", None, None


def invalid_row(symbol, now):
    """The exchange's own invalid row: counted and skipped, does not move the watermark."""
    return {
        "e": "aggTrade",
        "E": now,
        "s": symbol,
        "a": 1,
        "p": "0",
        "q": "0.00",
        "f": -1,
        "l": -1,
        "T": now,
        "m": True,
    }


@cache
def adversarial(seed, seconds=30):
    """Poison on every partition; the quiet symbol's trades are 3 s late, each a surprise."""
    rng = random.Random(seed)
    log, market, start = Log(f"adversarial-{seed}-{seconds}s"), Market(rng), MIDNIGHT - seconds * 500
    lively = [symbol for symbol in SYMBOLS if symbol != QUIET]
    recent, reordered = [], []
    for tick in range(seconds * 20):
        now = start + tick * 50
        for _ in range(rng.choice([0, 1, 2, 2, 3, 25])):
            symbol = CHINESE if rng.random() < 0.1 else rng.choice(lively)
            at = now - rng.choice([0] * 30 + [40, 700, 1500, 4000, 9000])  # a trade time, many of them equal
            recent.append(market.trade(symbol, at, now - at))
            reordered.append(recent[-1])
        if tick % 160 == 0:
            reordered.append(market.trade(QUIET, now - 3000, 3000))
        if rng.random() < 0.3:
            rng.shuffle(reordered)
        while len(reordered) > rng.randint(0, 30):
            log.trade(reordered.pop(0))
        nuisances(log, market, lively, recent, now)
        for partition in range(PARTITIONS):
            if rng.random() < 0.4:
                log.put(partition, encode({"e": "heartbeat", "E": now - rng.choice([0, 0, 0, 300])}), now)
                if rng.random() < 0.1:  # nobody says when it was received
                    log.partitions[partition].append(Entry(None, encode({"e": "heartbeat", "E": now}), now, None))
        if tick % 100 == 50:
            put_poison(log, rng, now)
    for trade in reordered:
        log.trade(trade)
    end = start + seconds * 1000
    log.heartbeats(end + 5000)
    # Beyond the horizon: what is older than 30 min goes to the DLQ, what is just within makes a revision.
    horizon = 1_800_000
    for symbol in rng.sample(lively, 4):
        log.trade(market.trade(symbol, end + horizon, 0))
        log.trade(market.trade(symbol, start, 10), received=end + horizon)
        log.trade(market.trade(symbol, end - 1, 10), received=end + horizon)
    log.heartbeats(end + horizon + 5000)
    return log


def put_poison(log, rng, now):
    for _, value, received in poison(now):
        log.put(rng.randrange(PARTITIONS), value, now, received, key=rng.choice([None, "BTCUSDT"]))


def nuisances(log, market, lively, recent, now):
    """Duplicates, backfill, the exchange's invalid rows, holes and subscriptions, now and then."""
    rng = market.rng
    if recent and rng.random() < 0.2:
        again = rng.choice([recent[-1], rng.choice(recent)])
        log.trade(rng.choice([again, backfilled(again)]), received=now)
    if rng.random() < 0.05:
        log.trade(backfilled(market.trade(rng.choice(lively), now - rng.randint(0, 8000))), received=now)
    if rng.random() < 0.1:
        log.trade(invalid_row(rng.choice(SYMBOLS), now + 5000))
    if rng.random() < 0.05:  # ids that never come
        symbol = rng.choice(lively)
        agg_id, first = market.ids[symbol]
        market.ids[symbol] = agg_id + rng.randint(1, 5), first + 9
    if rng.random() < 0.02:
        log.trade({"e": "subscription", "s": rng.choice(SYMBOLS), "on": rng.random() < 0.5, "E": now})
