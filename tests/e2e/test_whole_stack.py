"""The main job, end to end, as a user meets it. One stack serves the tests of this file, in their order."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import clickhouse_connect
import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from redis import Redis
from stack import ROOT, Stack, poll_until
from websockets.sync.client import connect

from protos import market_pb2, market_pb2_grpc

sys.path[:0] = [str(Path(__file__).parents[1] / "flows"), str(Path(__file__).parents[1] / "flows" / "domain")]
from flow_process import TopicReader  # noqa: E402
from naive import NaiveStats  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
COINS = {"btcusdt": "1.5", "ethusdt": "10", "solusdt": "0.000000000000000001", "bnbusdt": "3.25", "xrpusdt": "1000"}
SERVICES = (
    "profile",
    "authorization",
    "aggregator",
    "socket",
    "dashboard",
    "ingest",
    "second-stats",
    "minitickers",
    "kafka-clickhouse",
    "exchange",
)
STORES = ("redis", "postgres-auth", "postgres-profile", "clickhouse", "kafka")
PIPELINE = (
    "kafka",
    "clickhouse",
    "kafka-clickhouse",
    "ingest",
    "second-stats",
    "minitickers",
    "exchange",
    "aggregator",
)


@pytest.fixture(scope="module")
def stack(store_data):
    stack = Stack(store_data / "stack")
    try:
        stack.start()
        yield stack
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def client(stack):
    with httpx.Client(base_url=stack.url, timeout=15) as client:
        yield client


@pytest.fixture(scope="module")
def bearer(client):
    """The original README's user: registered, logged in, with five coins."""
    account = {"name": "myuser", "password": "mypassword123"}
    registered = client.post("/api/v1/auth/register", json=account)
    assert (registered.status_code, registered.json()) == (201, {"message": "user created successfully"})
    token = client.post("/api/v1/auth/login", json=account).json()["accessToken"]
    headers = {"Authorization": f"Bearer {token}"}
    for symbol, quantity in COINS.items():
        added = client.post("/api/v1/profile/coins", json={"symbol": symbol, "quantity": quantity}, headers=headers)
        assert added.status_code == 200, added.text
        assert added.json()["Quantity"] == quantity
    return headers


def recompute(messages):
    """{(timestamp, symbol): final state} by the naive reference, from the messages of the raw topic."""
    final, by_partition = {}, {}
    for message in messages:
        by_partition.setdefault(message.partition(), []).append(message)
    for records in by_partition.values():
        received = [int(dict(m.headers() or []).get("received_ms", b"0")) or None for m in records]
        naive = NaiveStats().run([m.value() for m in records], received)
        assert naive.rejected == []
        final |= naive.final
    return final


def final_states(messages):
    """{(timestamp, symbol): final state} of the published SecondStats."""
    best = {}
    for message in messages:
        stat = json.loads(message.value())
        key, revision = (stat["timestamp"], stat["symbol"]), stat.pop("revision")
        if key not in best or revision > best[key][0]:
            best[key] = revision, json.dumps(stat, separators=(",", ":"), ensure_ascii=False).encode()
    return {key: text for key, (_, text) in best.items()}


def pushes(stack, bearer, seconds=30):
    """The pushes of a WebSocket client, one after the other."""
    with connect(f"ws://127.0.0.1:{stack.port(8080)}/api/v1/ws", additional_headers=bearer) as socket:
        while True:
            yield json.loads(socket.recv(timeout=seconds))


def check_push(push):
    priced = [coin for coin in push["Coins"] if coin["Price"] is not None]
    for coin in priced:
        assert Decimal(coin["Total"]) == Decimal(coin["Quantity"]) * Decimal(coin["Price"])
    assert Decimal(push["TotalValue"]) == sum((Decimal(coin["Total"]) for coin in priced), Decimal(0))
    assert {coin["Symbol"]: coin["Quantity"] for coin in push["Coins"]} == COINS


def is_alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def moving(stack, bearer, count=1):
    """`count` pushes whose AsOf grows: prices that arrive now."""
    newest, seen = 0, 0
    for push in pushes(stack, bearer):
        seen += push["AsOf"] > newest > 0
        newest = max(newest, push["AsOf"])
        if seen >= count:
            return


def test_ten_pushes_are_exact(stack, bearer):
    seen = []
    for push in pushes(stack, bearer):
        check_push(push)
        seen.append(push)
        if len(seen) >= 10 and all(coin["Price"] for coin in push["Coins"]):
            break
    assert [push["Sequence"] for push in seen] == list(range(1, len(seen) + 1))
    assert seen[-1]["UserName"] == "myuser"
    assert seen[-1]["AsOf"] > seen[0]["AsOf"]


def test_the_redis_channel_carries_second_stats(stack, bearer):
    with Redis(port=stack.port(6379)) as redis, redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("btcusdt")
        message = poll_until(lambda: pubsub.get_message(timeout=1), 20, "a SecondStat")
    stat = json.loads(message["data"])
    assert list(stat) == [
        "symbol", "timestamp", "open", "high", "low", "close", "volume", "quote_volume", "trade_count",
        "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id", "revision",
    ]  # fmt: skip
    assert stat["symbol"] == "BTCUSDT"


def test_rows_arrive_in_clickhouse_once_each(stack):
    client = clickhouse_connect.get_client(host="127.0.0.1", port=stack.port(8123), password="postgres")
    table = "crypto.market_tickers"
    first = poll_until(lambda: client.query(f"SELECT count() FROM {table}").result_rows[0][0], 30, "rows")
    poll_until(lambda: client.query(f"SELECT count() FROM {table}").result_rows[0][0] > first, 30, "more rows")
    rows, ids = client.query(f"SELECT count(), uniqExact(message_id) FROM {table}").result_rows[0]
    assert rows == ids
    wrong = client.query(
        f"SELECT count() FROM {table} WHERE change_price != close_price - open_price OR event_type != '24hrMiniTicker' "
        "OR message_id != concat(symbol, '-', toString(toUnixTimestamp64Milli(event_time)))"
    )
    assert wrong.result_rows == [(0,)]
    client.close()


def test_second_stats_equal_an_independent_recomputation_of_the_raw_log(stack, bearer):
    brokers = f"127.0.0.1:{stack.port(9092)}"
    published = TopicReader(brokers, "binance.secondstat")
    poll_until(lambda: len(published.read()) > 50, 60, "SecondStats")
    raw = TopicReader(brokers, "binance.raw.aggtrade")
    raw.read()
    recomputed = recompute(raw.messages)

    poll_until(lambda: recomputed.keys() <= final_states(published.read()).keys(), 30, "all recomputed seconds")
    found = final_states(published.messages)
    assert {key: found[key] for key in recomputed} == recomputed
    assert len(recomputed) > 50
    published.close()
    raw.close()


def test_the_auth_service_answers_health_and_reflection(stack):
    with grpc.insecure_channel(f"127.0.0.1:{stack.port(50051)}") as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        request = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(request, timeout=5))
        assert "auth.v1.AuthService" in [service.name for service in answer.list_services_response.service]


def test_the_socket_service_streams_the_raw_log_and_subscribes_meanwhile(stack, bearer):
    with grpc.insecure_channel(f"127.0.0.1:{stack.port(50052)}") as channel:
        stub = market_pb2_grpc.SocketServiceStub(channel)
        start = market_pb2.Position(timestamp_ms=0)
        request = market_pb2.RawAggTradeRequest(symbols=["btcusdt", "adausdt"], start=start)
        stream, streamed = stub.ReceiveRawAggTrade(request, timeout=60), []
        while {message.symbol for message in streamed} != {"BTCUSDT", "ADAUSDT"} or len(streamed) < 30:
            streamed.append(next(stream))  # nobody holds ADA: it comes since we ask for it
        stream.cancel()
    raw = TopicReader(f"127.0.0.1:{stack.port(9092)}", "binance.raw.aggtrade")
    log = {(message.partition(), message.offset()): message for message in raw.read()}
    raw.close()
    for message in streamed:
        assert message.payload == log[message.partition, message.offset].value()
        assert message.symbol == log[message.partition, message.offset].key().decode()
    held = lambda: [row["symbol"] for row in stack.status()[""]["subscriptions"]["desired"]]  # noqa: E731
    poll_until(lambda: "adausdt" not in held(), 30, "the lease given back")


def test_the_dashboard_shows_the_market(stack, bearer):
    page = f"http://127.0.0.1:{stack.port(8083)}/?symbol=ETHUSDT&limit=100"
    poll_until(lambda: "ETHUSDT" in httpx.get(page, timeout=15).text, 30, "a row")
    assert "<svg" in httpx.get(page, timeout=15).text


def test_status_is_all_green_and_knows_lag_and_subscriptions(stack, bearer):
    status = stack.status()
    assert status[""]["ok"], status
    assert {name for name in status if name} == {*SERVICES, *STORES}
    poll_until(lambda: stack.status()["second-stats"]["last_event_age_s"] < 10, 20, "a young SecondStat")
    desired = {row["symbol"]: row["subscribers"] for row in stack.status()[""]["subscriptions"]["desired"]}
    assert desired == dict.fromkeys(COINS, 1)


def test_watch_prints_a_line_a_push_without_a_terminal(stack):
    with subprocess.Popen(
        [sys.executable, "-m", "tracker", "watch", "--demo"], cwd=ROOT, env=stack.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as watch:  # fmt: skip
        lines = [watch.stdout.readline() for _ in range(3)]
        watch.send_signal(signal.SIGINT)
        rest = watch.stdout.read()
        assert watch.wait(10) == 0, [*lines, rest]
    assert any("total" in line.lower() for line in lines), lines


def test_bad_input_changes_nothing(stack, client, bearer):
    before = client.get("/api/v1/profile", headers=bearer).json()
    coins = "/api/v1/profile/coins"
    json_type = {**bearer, "Content-Type": "application/json"}
    attempts = [
        (422, {"json": {"symbol": "btcusdt", "quantity": 1.5}, "headers": bearer}),
        (422, {"json": {"symbol": "nosuchcoin", "quantity": "1"}, "headers": bearer}),
        (422, {"json": {"symbol": "btcusdt", "quantity": "-2"}, "headers": bearer}),
        (422, {"json": {"symbol": "btcusdt", "quantity": "0.1234567890123456789"}, "headers": bearer}),
        (422, {"content": b"", "headers": json_type}),
        (422, {"content": b"{", "headers": json_type}),
        (422, {"content": b'{"symbol":"\xff","quantity":"1"}', "headers": json_type}),
        (413, {"content": b" " * 70_000, "headers": json_type}),
        (401, {"json": {"symbol": "btcusdt", "quantity": "1"}, "headers": {"Authorization": "Bearer x.y.z"}}),
        (401, {"json": {"symbol": "btcusdt", "quantity": "1"}}),
    ]
    for status, request in attempts:
        answer = client.post(coins, **request)
        assert answer.status_code == status, (request, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"title", "status", "detail"} <= answer.json().keys()
    assert client.get("/api/v1/profile", headers=bearer).json() == before


@pytest.mark.parametrize("name", [*SERVICES, *STORES])
@pytest.mark.faults
def test_a_killed_part_shows_in_status_and_comes_back(stack, bearer, name):
    before = poll_until(lambda: (s := stack.status()[name])["up"] and s, 20, f"{name} up")
    os.kill(before["pid"], signal.SIGKILL)
    poll_until(lambda: (s := stack.status()[name])["pid"] != before["pid"] or not s["up"], 10, "the row of the dead")
    after = poll_until(lambda: (s := stack.status()[name])["up"] and s, 60, f"{name} up again")
    assert after["restarts"] == before["restarts"] + 1
    poll_until(lambda: stack.status()[""]["ok"], 30, "all green again")
    moving(stack, bearer)


@pytest.mark.faults
def test_with_the_pipeline_frozen_accounts_coins_and_connections_go_on(stack, client, bearer):
    """Frozen, since what is killed is back in a second: nothing answers, as with a machine that is gone."""
    account = {"name": "frozen", "password": "mypassword123"}
    # A BFF that was killed a moment ago has yet to ask the exchange for its symbols.
    poll_until(lambda: client.get("/api/v1/symbols").status_code == 200, 30, "the symbols")
    frozen = [stack.status()[part]["pid"] for part in PIPELINE]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert client.post("/api/v1/auth/register", json=account).status_code == 201
        token = client.post("/api/v1/auth/login", json=account).json()["accessToken"]
        theirs = {"Authorization": f"Bearer {token}"}
        coin = {"symbol": "btcusdt", "quantity": "2"}
        assert client.post("/api/v1/profile/coins", json=coin, headers=theirs).status_code == 200
        with contextlib.closing(pushes(stack, bearer)) as live:
            push = next(live)
        check_push(push)
        assert None not in [held["Price"] for held in push["Coins"]]  # the last there were
        assert client.get("/readyz").status_code == 200
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    poll_until(lambda: stack.status()[""]["ok"], 60, "all green again")
    moving(stack, bearer)
    desired = lambda: {row["symbol"]: row["subscribers"] for row in stack.status()[""]["subscriptions"]["desired"]}  # noqa: E731
    poll_until(lambda: desired()["btcusdt"] == 2, 30, "the subscription that had to wait")


def test_stop_leaves_nothing_and_a_second_start_keeps_the_data(stack, client, bearer):
    children = psutil.Process(stack.process.pid).children(recursive=True)
    assert len(children) >= len(SERVICES) + len(STORES)
    code, seconds = stack.stop(signal.SIGINT)
    assert code == 0, "\n".join(stack.lines)
    assert seconds < 15
    assert not [child for child in children if is_alive(child)]

    stack.start(seconds=60)
    again = client.get("/api/v1/profile", headers=bearer)  # the same JWT secret, the same database
    assert {coin["Symbol"]: coin["Quantity"] for coin in again.json()["Coins"]} == COINS
    moving(stack, bearer, 2)


@pytest.mark.faults
def test_after_kill_9_of_the_whole_stack_the_next_start_works(stack, bearer):
    children = psutil.Process(stack.process.pid).children(recursive=True)
    for process in (psutil.Process(stack.process.pid), *children):
        with contextlib.suppress(psutil.NoSuchProcess):  # the kernel ends children of a dead supervisor too
            process.kill()
    stack.process.wait(10)
    stack.start(seconds=60)
    moving(stack, bearer, 2)
    clickhouse = clickhouse_connect.get_client(host="127.0.0.1", port=stack.port(8123), password="postgres")
    rows, ids = clickhouse.query("SELECT count(), uniqExact(message_id) FROM crypto.market_tickers").result_rows[0]
    assert rows == ids
    clickhouse.close()
