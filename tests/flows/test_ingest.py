"""Ingest between the simulated exchange and real Kafka, both sides in processes of their own."""

import json
import signal
import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from flow_process import TopicReader, poll_until, produce
from ingest_parts import Ingest, World, process, world

from flows.channels import RAW_AGGTRADE, SUBSCRIPTIONS
from flows.partitioning import partition_of
from infra.local.part import free_port


@pytest.fixture(scope="module")
def market():
    with world("--rate", "1500") as made:
        yield made


@pytest.fixture(scope="module")
def kafka(market):
    return market.brokers


@pytest.fixture(scope="module")
def exchange(market):
    return market.address


@pytest.fixture
def running(market):
    with market.ingest() as started:
        yield started


@pytest.fixture
def raw(market, running):
    """The raw log, from this test's beginning."""
    began = len(market.messages())
    return lambda: market.messages()[began:]


def trades_of(messages, symbol):
    found = [m for m in messages if m.key() == symbol.encode()]
    return [json.loads(m.value()) for m in found if b'"aggTrade"' in m.value()]


def fault(exchange, name, **options):
    assert httpx.post(f"http://{exchange}/sim/faults", json={"fault": name, **options}).status_code == 200


def assert_whole(ids):
    """Every id between the first and the last, whatever came twice."""
    assert sorted(set(ids)) == list(range(min(ids), max(ids) + 1))


def test_trades_arrive_as_sent_with_heartbeats_that_never_overtake(exchange, running, raw):
    messages = poll_until(lambda: (m := raw()) and len(trades_of(m, "ETHUSDT")) > 150 and m, what="trades")
    for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT"):
        trades = trades_of(messages, symbol)
        assert_whole([t["a"] for t in trades])
        rest = httpx.get(
            f"http://{exchange}/api/v3/aggTrades", params={"symbol": symbol, "fromId": trades[0]["a"], "limit": 1000}
        ).json()
        known = {row["a"]: row for row in rest}
        for trade in trades[:1000]:
            assert {name: trade[name] for name in ("p", "q", "f", "l", "T", "m")} == {
                name: known[trade["a"]][name] for name in ("p", "q", "f", "l", "T", "m")
            }
    beaten = {}
    for message in messages:
        record, partition = json.loads(message.value()), message.partition()
        headers = dict(message.headers())
        assert int(headers["received_ms"]) > 1_700_000_000_000
        if record["e"] == "heartbeat":
            assert message.key() is None
            assert record["E"] >= beaten.get(partition, 0)
            beaten[partition] = record["E"]
        elif headers.get("source") == b"live":
            assert message.timestamp()[1] == record["E"]
            assert partition == partition_of(record["s"], 8)
            assert record["E"] > beaten.get(partition, 0) - 200
    assert len(beaten) == 8 or poll_until(
        lambda: len({m.partition() for m in raw() if b"heartbeat" in m.value()}) >= 6, what="heartbeats"
    )


def test_a_subscription_starts_and_ends_a_stream_and_says_so_in_the_log(kafka, running, raw):
    key = f"DOGEUSDT:{uuid.uuid4()}"
    produce(kafka, SUBSCRIPTIONS.name, [(key, b'{"symbol":"DOGEUSDT","user":"u"}', None, [])])
    messages = poll_until(lambda: (m := raw()) and trades_of(m, "DOGEUSDT") and m, what="DOGEUSDT")
    first, second = [json.loads(m.value()) for m in messages if m.key() == b"DOGEUSDT"][:2]
    assert first == {"e": "subscription", "s": "DOGEUSDT", "on": True, "E": second["E"]}
    assert "DOGEUSDT" in running.streams()["aggtrade"]

    produce(kafka, SUBSCRIPTIONS.name, [(key, None, None, [])])
    poll_until(lambda: "DOGEUSDT" not in running.streams()["aggtrade"], what="the end of the stream")
    off = poll_until(lambda: [m for m in raw() if b'"on":false' in m.value()], what="the off record")
    assert json.loads(off[-1].value())["s"] == "DOGEUSDT"
    assert "BTCUSDT" in running.streams()["aggtrade"]


def test_after_a_cut_it_comes_back(exchange, running, raw):
    poll_until(lambda: trades_of(raw(), "BTCUSDT"), what="trades")
    fault(exchange, "cut")
    before = len(trades_of(raw(), "BTCUSDT"))
    poll_until(lambda: len(trades_of(raw(), "BTCUSDT")) > before + 50, what="trades after the cut")
    assert "connecting again" in running.log.read_text()


def test_an_announced_shutdown_loses_nothing(exchange, running, raw):
    poll_until(lambda: trades_of(raw(), "BTCUSDT"), what="trades")
    fault(exchange, "serverShutdown", close_after_ms=4000)
    poll_until(lambda: running.log.read_text().count("rolled over") >= 5, what="new connections")
    before = len(trades_of(raw(), "BTCUSDT"))
    poll_until(lambda: len(trades_of(raw(), "BTCUSDT")) > before + 50, what="trades after the shutdown")
    for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT"):
        assert_whole([t["a"] for t in trades_of(raw(), symbol)])


def test_bad_frames_go_to_the_dlq_and_trading_goes_on(kafka, exchange, running, raw):
    fault(exchange, "bad_frames", kinds=["truncated"], rate=0.05, duration_ms=2000)
    dlq = TopicReader(kafka, f"{RAW_AGGTRADE}.dlq")
    poll_until(lambda: [m for m in dlq.read() if dict(m.headers()).get("source_topic") == b"exchange"], what="DLQ")
    dlq.close()
    before = len(trades_of(raw(), "BTCUSDT"))
    poll_until(lambda: len(trades_of(raw(), "BTCUSDT")) > before + 50, what="more trades")


def test_sigterm_flushes_and_exits_0(running, raw):
    poll_until(lambda: trades_of(raw(), "BTCUSDT"), what="trades")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0, running.log.read_text()


class Refusing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_error(451)

    def log_message(self, *_):
        pass


def test_a_geo_block_is_said_plainly(kafka, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        ingest = Ingest(World(kafka, f"127.0.0.1:{server.server_port}", tmp_path), tmp_path / "log", "", {})
        with process("flows.ingest", ingest.log, **ingest.environment) as child:
            answer = poll_until(lambda: (a := ingest.get("/readyz")) and "451" in a.text and a, what="the reason")
            assert answer.status_code == 503
            assert "geo-block" in answer.json()["detail"]
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_network_is_said_plainly(kafka, tmp_path):
    ingest = Ingest(World(kafka, f"127.0.0.1:{free_port()}", tmp_path), tmp_path / "log", "", {})
    with process("flows.ingest", ingest.log, **ingest.environment):
        answer = poll_until(
            lambda: (a := ingest.get("/readyz")) and "can't reach the exchange" in a.text and a, what="the reason"
        )
        assert answer.status_code == 503
        assert "Traceback" not in ingest.log.read_text()
