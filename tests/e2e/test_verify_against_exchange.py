"""The running pipeline against the exchange's klines, while the exchange misbehaves."""

import json
import os
import signal
import urllib.request

import clickhouse_connect
import pytest
from stack import Stack, poll_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
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


def order(stack, *faults):
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.port(9443)}/sim/faults", json.dumps(faults).encode(), method="POST"
    )
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=10).close()


def test_every_second_is_the_exchanges_own_or_declared_lost(stack):
    """From the very first second on, through lost frames, a cut, and kills of what reads and what computes."""
    order(stack, *FAULTS)
    client = clickhouse_connect.get_client(host="127.0.0.1", port=stack.port(8123), password="postgres")

    def span(seconds):
        """From the first second to the last one of every symbol that all stragglers have reached."""
        rows = client.query(
            "SELECT toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)), max(revision) "
            "FROM crypto.second_stats GROUP BY symbol"
        ).result_rows
        if len(rows) < SYMBOLS.count(",") + 1 or not any(revision for _, _, revision in rows):
            return None
        start, end = min(row[0] for row in rows), min(row[1] for row in rows) - 10_000
        return (start, end) if end - start >= seconds * 1000 else None

    poll_until(lambda: span(5), 120, "five seconds of every symbol, some revised")
    for part in ("ingest", "second-stats"):
        os.kill(stack.status()[part]["pid"], signal.SIGKILL)
    poll_until(lambda: stack.status()[""]["ok"], 60, "both parts back")
    order(stack, {"fault": "cut"})
    start, end = poll_until(lambda: span(35), 120, "the seconds after that")
    client.close()
    lost = json.loads(stack.tracker("gaps", "--json", "--state", "lost").stdout)
    assert [row["symbol"] for row in lost] == ["ETHUSDT"] * len(lost) != []
    done = stack.tracker("verify", "--against-exchange", "--json", "--from", str(start), "--to", str(end))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["match_rate"] == 1.0
    assert 0 < report["excused"] == len(report["differences"]) <= 2 * len(lost)
    assert all(one["symbol"] == "ETHUSDT" and one["excused"].startswith("lost: ") for one in report["differences"])
    assert report["symbols"] == sorted(SYMBOLS.split(","))
    assert report["seconds"] > 150
