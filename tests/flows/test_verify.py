"""SecondStats against the klines of the simulated exchange, which computes those on a path of its own."""

import json
import os
import secrets
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from etl_process import poll_until

from flows.channels import GAPS, create_topics, raw_aggtrade
from flows.clickhouse_etl import SECOND_STATS
from flows.connectors.clickhouse_table import ClickHouseTable, Server
from flows.connectors.log_excerpts import LogExcerpts
from flows.connectors.second_stats_table import SecondStatsTable
from flows.domain.partition import PartitionStats
from flows.domain.second_stat import SecondStat
from flows.partitioning import partition_of
from flows.records import decode_trades
from flows.venues.binance.klines import Kline, KlineClient
from flows.verify import NothingToCompare, Report, against_exchange, compare
from infra.clickhouse.migrate import migrate
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready
from infra.settings import split_address

PAGE = 1000


@dataclass
class Market:
    """A running exchange with some seconds of history."""

    url: str
    start_ms: int
    end_ms: int

    def get(self, path: str, **asked: Any) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(asked)}", timeout=20) as answer:
            return json.loads(answer.read())

    def fault(self, **order: Any) -> None:
        request = urllib.request.Request(f"{self.url}/sim/faults", json.dumps(order).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request, timeout=20).close()

    def trades(self, symbol: str) -> list[dict[str, Any]]:
        """All of [start_ms, end_ms)."""
        rows = self.get("/api/v3/aggTrades", symbol=symbol, startTime=self.start_ms, limit=PAGE)
        while rows and rows[-1]["T"] < self.end_ms:
            page = self.get("/api/v3/aggTrades", symbol=symbol, fromId=rows[-1]["a"] + 1, limit=PAGE)
            rows += page
            if not page:
                break
        return [row for row in rows if row["T"] < self.end_ms]

    def stats(self, symbol: str, keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> list[SecondStat]:
        """What the core makes of the trades that are kept."""
        records = [{"e": "aggTrade", "s": symbol, **row} for row in self.trades(symbol) if keep(row)]
        records.append({"e": "heartbeat", "E": self.end_ms + 10_000})
        decoded = decode_trades([json.dumps(record).encode() for record in records])
        out = PartitionStats(200, 1_800_000).process((record, None) for record in decoded)
        return [stat for stat in out if isinstance(stat, SecondStat)]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    home, port = tmp_path_factory.mktemp("exchange"), free_port()
    command = [sys.executable, "-m", "infra.local.exchange", "--port", str(port), "--data-dir", str(home / "data")]
    part = Part("exchange", [*command, "--rate", "3000"], probe=f"http://{LOOPBACK}:{port}/api/v3/ping")
    process = spawn(part, home / "log")
    try:
        wait_ready(part, process)
        market = Market(f"http://{LOOPBACK}:{port}", 0, 0)
        opened = int(market.get("/api/v3/time")["serverTime"])
        poll_until(lambda: market.get("/api/v3/time")["serverTime"] > opened + 12_000, "some history")
        market.start_ms, market.end_ms = opened // 1000 * 1000 + 1000, opened // 1000 * 1000 + 11_000
        yield market
    finally:
        stop(part, process)


class Checker:
    """A database of its own, with the ends of `against_exchange`."""

    def __init__(self, kafka: str, clickhouse: str, market: Market) -> None:
        self.kafka, self.clickhouse, self.market = kafka, clickhouse, market
        self.database = f"verify_{secrets.token_hex(4)}"
        self.server = Server(*split_address(clickhouse, 8123), "default", "postgres")
        migrate(self.server.connect(), self.database, "market_tickers")

    def store(self, stats: list[SecondStat]) -> None:
        lane = SECOND_STATS
        table = ClickHouseTable(self.server, self.database, lane.table, lane.columns, lane.key, replacing=True)
        data = [[getattr(stat, name) for stat in stats] for name in SecondStat._fields]
        table.insert(table.insert_of(data))

    def report(self, *symbols: str) -> Report:
        with (
            closing(SecondStatsTable(self.server, self.database)) as table,
            closing(KlineClient(self.market.url)) as klines,
            closing(LogExcerpts(self.kafka)) as log,
        ):
            return against_exchange(table, klines, log, self.market.start_ms, self.market.end_ms, symbols)

    def append(self, topic: str, key: str, record: dict[str, Any], partition: int = 0, timestamp: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.kafka})
        producer.produce(
            topic, json.dumps(record, separators=(",", ":")), key, partition=partition, timestamp=timestamp
        )
        assert producer.flush(20) == 0

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "BROKERS": self.kafka,
            "CLICKHOUSE_ADDR": self.clickhouse,
            "CLICKHOUSE_DATABASE": self.database,
            "EXCHANGE_REST_URL": self.market.url,
            "DATA_DIR": "/nonexistent",
        }
        command = [sys.executable, "-m", "tracker", "verify", "--against-exchange", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def checker(kafka: str, clickhouse: str, market: Market) -> Checker:
    return Checker(kafka, clickhouse, market)


def test_all_the_same_through_a_rate_limit(checker: Checker, market: Market) -> None:
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    for symbol in symbols:
        checker.store(market.stats(symbol))
    market.fault(fault="rest_errors", status=429, retry_after_s=1, path="klines", count=2)
    report = checker.report()
    assert (report.differences, report.matched, report.match_rate) == ([], report.seconds, 1.0)
    assert report.symbols == sorted(symbols)
    assert report.seconds >= 25


def test_each_difference_is_found(checker: Checker, market: Market) -> None:
    right = market.stats("BTCUSDT")
    wrong = list(right)
    wrong[2] = right[2]._replace(close=right[2].close + 1, quote_volume=right[2].quote_volume + 10**8, revision=1)
    wrong[4] = right[4]._replace(taker_buy_volume=right[4].taker_buy_volume + 1, revision=1)
    del wrong[6]
    checker.store(right[:6] + right[7:])
    checker.store(wrong)
    report = checker.report("BTCUSDT")
    found = {one.timestamp: (one.kind, sorted(one.fields), one.excused) for one in report.differences}
    assert found == {
        right[2].timestamp: ("differs", ["close", "quote_volume"], ""),
        right[4].timestamp: ("differs", ["taker_buy_volume"], ""),
        right[6].timestamp: ("missing", [], ""),
    }
    assert report.faults == report.differences
    assert report.matched == report.seconds - 3 == len(right) - 3


def test_only_declared_losses_are_excused(checker: Checker, market: Market) -> None:
    symbol = "BNBUSDT"
    trades = market.trades(symbol)
    middle = len(trades) // 2
    gone = range(trades[middle]["a"], trades[middle + 4]["a"] + 1)
    checker.store(market.stats(symbol, lambda row: row["a"] not in gone))
    assert checker.report(symbol).faults

    row = {"symbol": symbol, "first_missing_a": gone[0], "last_missing_a": gone[-1], "reason": "beyond 15 min"}
    create_topics(checker.kafka, [GAPS])
    for state in ("open", "backfilled", "lost"):
        checker.append(GAPS.name, f"{symbol}:{gone[0]}", {**row, "state": state})
        report = checker.report(symbol)
        assert bool(report.faults) == (state != "lost")
    assert {one.excused for one in report.differences} == {f"lost: {gone[0]} to {gone[-1]}: beyond 15 min"}
    assert report.match_rate == 1.0
    assert report.matched < report.seconds


def test_nothing_is_owed_of_a_symbol_while_it_is_off(checker: Checker, market: Market) -> None:
    symbol = "XRPUSDT"
    off, on = market.start_ms + 3500, market.start_ms + 7000
    checker.store(market.stats(symbol, lambda row: not off <= row["T"] < on))
    before = checker.report(symbol)
    assert {one.kind for one in before.faults} == {"missing", "differs"}

    raw = raw_aggtrade(10**9)
    create_topics(checker.kafka, [raw])
    for event_time, is_on in ((off, False), (on, True)):
        record = {"e": "subscription", "s": symbol, "on": is_on, "E": event_time}
        checker.append(raw.name, symbol, record, partition_of(symbol, raw.partitions), event_time)
    report = checker.report(symbol)
    assert [one.excused for one in report.differences if one.kind == "missing"] == ["not subscribed"] * 3
    assert [one.timestamp for one in report.faults] == [market.start_ms + 3000]  # the second that it left


def test_no_second_is_no_evidence(checker: Checker, market: Market) -> None:
    with pytest.raises(NothingToCompare):
        checker.report()
    checker.store(market.stats("ETHUSDT"))
    with pytest.raises(NothingToCompare, match="BTCUSDT"):
        checker.report("ETHUSDT", "BTCUSDT")


def test_the_command(checker: Checker, market: Market) -> None:
    span = ("--from", str(market.start_ms), "--to", str(market.end_ms), "--symbols", "solusdt")
    nothing = checker.command(*span)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "SOLUSDT" in nothing.stderr

    stats = market.stats("SOLUSDT")
    checker.store(stats)
    done = checker.command(*span, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["match_rate"], report["differences"]) == (True, 1.0, [])
    assert report["seconds"] == report["matched"] == len(stats)

    checker.store([stats[1]._replace(high=stats[1].high + 1, revision=1)])
    done = checker.command(*span, "--json")
    assert done.returncode == 1
    (difference,) = json.loads(done.stdout)["differences"]
    assert (difference["timestamp"], difference["kind"], list(difference["fields"])) == (
        stats[1].timestamp,
        "differs",
        ["high"],
    )
    assert "1 differ" in checker.command(*span).stdout


@pytest.mark.parametrize(
    "words",
    [["--from", "0:5"], ["--against-exchange", "--from", "soon"], ["--against-exchange", "--from", "2", "--to", "1"]],
)
def test_usage(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tracker", "verify", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert ("Offsets" in done.stderr) == ("0:5" in words)


STAT = SecondStat("A", 1000, 4, 5, 3, 4, 10, 40_00000000, 2, 10, 40_99999999, 1, 2, 0)
KLINE = Kline(1000, 4, 5, 3, 4, 10, 40, 2, 10, 40)


@pytest.mark.parametrize(
    ("stat", "kline", "kind", "fields"),
    [
        (STAT, KLINE, None, []),
        (STAT, replace(KLINE, taker_buy_quote_volume=41), None, []),  # rounded instead of cut
        (STAT, replace(KLINE, taker_buy_quote_volume=42), "differs", ["taker_buy_quote_volume"]),
        (STAT, replace(KLINE, quote_volume=39), "differs", ["quote_volume"]),
        (STAT, replace(KLINE, trade_count=3, open=5), "differs", ["open", "trade_count"]),
        (STAT, replace(KLINE, trade_count=0), "unexpected", []),  # the exchange fills seconds without trades
        (None, KLINE, "missing", []),
    ],
)
def test_compare(stat: SecondStat | None, kline: Kline, kind: str | None, fields: list[str]) -> None:
    (found,) = compare("A", {stat.timestamp: stat} if stat else {}, [kline])
    assert (found and found.kind, sorted(found.fields) if found else []) == (kind, fields)
