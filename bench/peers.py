"""The peers of the SecondStats benchmark that need nothing but this project's packages.

    python -m bench.peers raw|orjson|fold --bootstrap B --topic T --n N

`raw` and `orjson` compute nothing: consuming, and consuming and decoding, are the ceiling of a plain Python loop.
`fold` is the job as Bytewax's manual teaches it: EventClock, TumblingWindower, fold_window, Decimal.
"""

import argparse
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from confluent_kafka import Consumer, TopicPartition

from bench.flow_run import CountSink, ends
from bench.totals import Totals
from flows.connectors.kafka_sink import RecordColumns
from flows.domain.second_stat import SecondStat

START = datetime(2020, 1, 1, tzinfo=UTC)


def consume(bootstrap: str, topic: str, n: int, decode: bool) -> tuple[float, Totals]:
    """Seconds to read n messages, and to decode them."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-limit",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 4_000_000,
            "queued.min.messages": 500_000,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends(bootstrap, topic)])
    seen, began = 0, 0.0
    while seen < n:
        batch = consumer.consume(10_000, 1.0)
        if batch and not seen:
            began = time.perf_counter()
        for message in batch:
            value = message.value()
            if decode:
                orjson.loads(value)
        seen += len(batch)
    seconds = time.perf_counter() - began
    consumer.close()
    return seconds, Totals()


class _Stat:
    """The trades of a window so far."""

    def __init__(self) -> None:
        self.ids: tuple[int, int] | None = None
        self.volume = self.quote = self.buy = self.buy_quote = Decimal(0)
        self.trades = 0

    def add(self, trade: dict[str, Any]) -> "_Stat":
        """One more trade."""
        price, quantity, number = Decimal(trade["p"]), Decimal(trade["q"]), trade["a"]
        if self.ids is None:
            self.symbol, self.second = trade["s"], trade["T"] // 1000
            self.ids = (number, number)
            self.open = self.high = self.low = self.close = price
        else:
            if number < self.ids[0]:
                self.ids, self.open = (number, self.ids[1]), price
            if number > self.ids[1]:
                self.ids, self.close = (self.ids[0], number), price
            self.high, self.low = max(self.high, price), min(self.low, price)
        self.volume += quantity
        self.quote += price * quantity
        self.trades += trade["l"] - trade["f"] + 1
        if not trade["m"]:
            self.buy += quantity
            self.buy_quote += price * quantity
        return self

    def published(self) -> RecordColumns:
        """As the product publishes it."""
        assert self.ids is not None
        amounts = (self.open, self.high, self.low, self.close, self.volume)
        o, h, low, c, volume = (int(amount.scaleb(8)) for amount in amounts)
        quote, buy, buy_quote = int(self.quote.scaleb(16)), int(self.buy.scaleb(8)), int(self.buy_quote.scaleb(16))
        stat = SecondStat(
            self.symbol, self.second * 1000, o, h, low, c, volume, quote, self.trades, buy, buy_quote, *self.ids, 0
        )
        columns = RecordColumns("")
        columns.extend([b""], [stat.to_json()], [stat.timestamp])
        return columns


def fold(bootstrap: str, topic: str, _n: int) -> tuple[float, Totals]:
    """Seconds of the flow of the manual, and what it counted."""
    began: list[float] = []
    totals = Totals()

    def parse(message: Any) -> tuple[str, dict[str, Any]]:
        if not began:
            began.append(time.perf_counter())
        trade = orjson.loads(message.value)
        return trade["s"], trade

    flow = Dataflow("fold")
    source = KafkaSource([bootstrap], [topic], tail=False, batch_size=1000)
    trades = op.map("parse", op.input("in", flow, source), parse)
    clock = win.EventClock(
        lambda trade: datetime.fromtimestamp(trade["T"] / 1000, UTC),
        timedelta(milliseconds=200),
        now_getter=lambda: START,  # its clock moves with the wall clock otherwise, and a replay would be late
    )
    windower = win.TumblingWindower(length=timedelta(seconds=1), align_to=START)
    stats = win.fold_window("w", trades, clock, windower, _Stat, _Stat.add, lambda left, _: left, ordered=False)
    op.output("out", op.map("published", stats.down, lambda item: ("", item[1][1].published())), CountSink(totals))
    run_main(flow)
    return time.perf_counter() - began[0], totals


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("peer", choices=("raw", "orjson", "fold"))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--n", type=int, required=True)
    args = parser.parse_args()
    if args.peer == "fold":
        seconds, totals = fold(args.bootstrap, args.topic, args.n)
    else:
        seconds, totals = consume(args.bootstrap, args.topic, args.n, args.peer == "orjson")
    print(json.dumps(totals.line(args.peer, args.n, seconds)), flush=True)


if __name__ == "__main__":
    main()
