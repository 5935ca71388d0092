"""The running pipeline, while the exchange misbehaves, against the exchange's klines and against its own raw log."""

import gzip
import json
import os
import signal
import urllib.request

import clickhouse_connect
import pytest
from confluent_kafka import Producer
from stack import Stack, poll_until

from flows.partitioning import partition_of

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(300)]
SYMBOLS = "BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT,DOGEUSDT"
FAULTS = [
    {"fault": "duplicates", "rate": 0.1},
    {"fault": "reorder", "rate": 0.1},
    {
        "fault": "stragglers",
        "rate": 0.02,
        "symbols": SYMBOLS.replace("ETHUSDT,", "").split(","),
    },  # a lost one could be of any second
    {"fault": "skip", "rate": 0.01},  # REST has them: to be filled
    {"fault": "skip", "rest": False, "rate": 0.01, "count": 2, "symbols": ["ETHUSDT"]},  # nobody has them: lost
]


@pytest.fixture(scope="module")
def stack(store_data):
    stack = Stack(store_data / "verified", "--only", "exchange,ingest,second-stats,kafka-clickhouse")
    stack.environment |= {"SYMBOLS": SYMBOLS, "BATCH_TIMEOUT": "1s"}
    try:
        stack.start()
        yield stack
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def client(stack):
    client = clickhouse_connect.get_client(host="127.0.0.1", port=stack.port(8123), password="postgres")
    yield client
    client.close()


def order(stack, *faults):
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.port(9443)}/sim/faults", json.dumps(faults).encode(), method="POST"
    )
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture(scope="module")
def span(stack, client):
    """From the very first second on, through lost frames, kills of what reads and what computes, and a cut."""
    order(stack, *FAULTS)

    def found(seconds):
        """From the first second to the last one of every symbol that all stragglers have reached."""
        rows = client.query(
            "SELECT toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)), max(revision) "
            "FROM crypto.second_stats GROUP BY symbol"
        ).result_rows
        if len(rows) < SYMBOLS.count(",") + 1 or not any(revision for _, _, revision in rows):
            return None
        start, end = min(row[0] for row in rows), min(row[1] for row in rows) - 10_000
        return (start, end) if end - start >= seconds * 1000 else None

    poll_until(lambda: found(5), 120, "five seconds of every symbol, some revised")
    for part in ("ingest", "second-stats"):
        os.kill(stack.status()[part]["pid"], signal.SIGKILL)
    poll_until(lambda: stack.status()[""]["ok"], 60, "both parts back")
    order(stack, {"fault": "cut"})
    return poll_until(lambda: found(35), 120, "the seconds after that")


def verify(stack, span, *more):
    start, end = span
    done = stack.tracker("verify", "--json", "--from", str(start), "--to", str(end), *more)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_every_second_is_the_exchanges_own_or_declared_lost(stack, span):
    lost = json.loads(stack.tracker("gaps", "--json", "--state", "lost").stdout)
    assert [row["symbol"] for row in lost] == ["ETHUSDT"] * len(lost) != []
    code, report, errors = verify(stack, span, "--against-exchange")
    assert code == 0, errors
    assert report["match_rate"] == 1.0
    assert 0 < report["excused"] == len(report["differences"]) <= 2 * len(lost)
    assert all(one["symbol"] == "ETHUSDT" and one["excused"].startswith("lost: ") for one in report["differences"])
    assert report["symbols"] == sorted(SYMBOLS.split(","))
    assert report["seconds"] > 150


def test_every_second_is_what_the_raw_log_gives(stack, span):
    code, report, errors = verify(stack, span)
    assert code == 0, errors
    assert (report["match_rate"], report["differences"]) == (1.0, [])
    assert report["symbols"] == sorted(SYMBOLS.split(","))
    assert report["seconds"] == report["manifests"][0]["seconds"] > 60


def test_a_recording_of_it_is_what_was_in_the_log(stack, tmp_path):
    out = tmp_path / "some.jsonl.gz"
    done = stack.tracker("record", "--symbols", "btcusdt,ETHUSDT", "--for", "3s", "--out", str(out))
    assert done.returncode == 0, done.stderr
    done = stack.tracker("import", str(out), "--topic", "recorded", "--json", "--strict")
    assert done.returncode == 0, done.stderr
    with gzip.open(out) as lines:
        recorded = [*lines]
    assert {json.loads(line)["stream"] for line in recorded} == {"btcusdt@aggTrade", "ethusdt@aggTrade"}
    counts = json.loads(done.stdout)
    assert counts["trades"] + counts["known_trades"] == len(recorded) > 20
    done = stack.tracker("replay", "--topic", "recorded", "--out", str(tmp_path / "out.jsonl"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seconds"] > 2


def test_a_tampered_second_is_found_in_either_place(stack, span, client):
    """Last, as it spoils what is stored."""
    start, end = span
    later = "SELECT toUnixTimestamp64Milli(min(timestamp)) FROM crypto.second_stats WHERE symbol = {s:String} AND "
    later += "toUnixTimestamp64Milli(timestamp) >= {t:Int64}"
    spoilt = client.command(later, {"s": "BTCUSDT", "t": start + 15_000})
    invented_at = client.command(later, {"s": "ETHUSDT", "t": spoilt + 1000})
    client.command(
        "INSERT INTO crypto.second_stats_revisions SELECT * REPLACE (close + 1 AS close, revision + 100 AS revision) "
        f"FROM crypto.second_stats WHERE symbol = 'BTCUSDT' AND timestamp = fromUnixTimestamp64Milli({spoilt})"
    )
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{stack.port(9092)}"})
    invented = f'{{"symbol":"ETHUSDT","timestamp":{invented_at},"open":"1.00000000","revision":500}}'
    partition = partition_of("ETHUSDT", 8)
    producer.produce("binance.secondstat", invented, "ETHUSDT", partition=partition, timestamp=invented_at)
    assert producer.flush(20) == 0
    code, report, errors = verify(stack, (start, end), "--symbols", "btcusdt,ETHUSDT")
    assert code == 1, errors
    assert report["symbols"] == ["BTCUSDT", "ETHUSDT"]
    stored, published = report["differences"]
    assert (stored["symbol"], stored["timestamp"]) == ("BTCUSDT", spoilt)
    assert (stored["place"], stored["kind"], [*stored["fields"]]) == ("clickhouse", "differs", ["close"])
    assert (published["symbol"], published["timestamp"]) == ("ETHUSDT", invented_at)
    assert (published["place"], published["kind"]) == ("topic", "differs")
    assert report["matched"] == report["seconds"] - 2
    nothing = stack.tracker("verify", "--from", str(start - 10**9), "--to", str(start - 10**9 + 5000))
    assert nothing.returncode == 1
    assert "error: " in nothing.stderr
