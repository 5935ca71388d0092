"""The running pipeline against the exchange's klines, while the exchange misbehaves."""

import json
import urllib.request

import clickhouse_connect
import pytest
from stack import Stack, poll_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SYMBOLS = "BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT,DOGEUSDT"
FAULTS = [
    {"fault": "duplicates", "rate": 0.1},
    {"fault": "reorder", "rate": 0.1},
    {"fault": "stragglers", "rate": 0.02},
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


def test_every_second_is_the_exchanges_own(stack):
    orders = json.dumps(FAULTS).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{stack.port(9443)}/sim/faults", orders, method="POST")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=10).close()
    client = clickhouse_connect.get_client(host="127.0.0.1", port=stack.port(8123), password="postgres")

    def span():
        """From the second after every symbol's first to the last one that all stragglers have reached."""
        rows = client.query(
            "SELECT toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)), max(revision) "
            "FROM crypto.second_stats GROUP BY symbol"
        ).result_rows
        if len(rows) < SYMBOLS.count(",") + 1 or not any(revision for _, _, revision in rows):
            return None
        start, end = max(row[0] for row in rows) + 1000, min(row[1] for row in rows) - 10_000
        return (start, end) if end - start >= 20_000 else None

    start, end = poll_until(span, 120, "twenty seconds of every symbol, some revised")
    client.close()
    done = stack.tracker("verify", "--against-exchange", "--json", "--from", str(start), "--to", str(end))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["match_rate"], report["differences"]) == (1.0, [])
    assert report["symbols"] == sorted(SYMBOLS.split(","))
    assert report["seconds"] > 60
