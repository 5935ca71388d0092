"""The aggregator over HTTP, with its topic on a real broker."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aggregator_parts import Neighbours, add, desired, is_ready, remove
from confluent_kafka import Consumer, KafkaError, Producer

from flows.channels import Topic
from infra.local.kafka import kafka as kafka_part
from infra.local.part import free_port, spawn, stop, wait_ready

ROOT = Path(__file__).parents[3]


def records(brokers: str, topic: Topic) -> list[tuple[str, Any]]:
    """Everything in the topic: (key, decoded value)."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "test",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic.name])
    found = []
    while (message := consumer.poll(30)) is not None:
        if error := message.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            break
        found.append((message.key().decode(), message.value() and json.loads(message.value())))
    consumer.close()
    return found


def assert_problem(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["detail"])


async def test_subscribers_come_and_go(aggregator: Any, kafka: str, topic: Topic) -> None:
    async with aggregator() as client:
        response = await add(client, "btcUSDT", "u1")
        assert (response.status_code, response.json()) == (200, {"symbol": "btcusdt", "subscribers": 1})
        assert (await add(client, "BTCUSDT", "u2")).json()["subscribers"] == 2
        assert (await add(client, "ethusdt", "u1")).json()["subscribers"] == 1
        assert (await remove(client, "btcusdt", "u1")).json() == {"symbol": "btcusdt", "subscribers": 1}
        assert await desired(client) == {"btcusdt": 1, "ethusdt": 1}
        assert (await remove(client, "btcusdt", "u2")).json()["subscribers"] == 0
        assert await desired(client) == {"ethusdt": 1}
    assert records(kafka, topic) == [
        ("BTCUSDT:u1", {"symbol": "BTCUSDT", "user": "u1"}),
        ("BTCUSDT:u2", {"symbol": "BTCUSDT", "user": "u2"}),
        ("ETHUSDT:u1", {"symbol": "ETHUSDT", "user": "u1"}),
        ("BTCUSDT:u1", None),
        ("BTCUSDT:u2", None),
    ]


async def test_both_calls_are_idempotent(aggregator: Any) -> None:
    async with aggregator() as client:
        for _ in range(3):
            assert (await add(client, "btcusdt", "u1")).json()["subscribers"] == 1
        for _ in range(3):
            assert (await remove(client, "btcusdt", "u1")).json()["subscribers"] == 0


async def test_subscriptions_survive_a_restart(aggregator: Any) -> None:
    async with aggregator() as client:
        await add(client, "btcusdt", "u1")
        await add(client, "币安人生usdt", "u1")
        await add(client, "ethusdt", "u:1")
        await remove(client, "ethusdt", "u:1")
    async with aggregator() as client:
        assert await desired(client) == {"btcusdt": 1, "币安人生usdt": 1}


async def test_two_instances_agree(aggregator: Any) -> None:
    async with aggregator() as one, aggregator() as two:
        await add(one, "btcusdt", "u1")
        assert (await add(two, "btcusdt", "u2")).json()["subscribers"] == 2
        assert (await remove(one, "btcusdt", "u2")).json()["subscribers"] == 1
        assert (await add(two, "btcusdt", "u2")).json()["subscribers"] == 2
        async with asyncio.timeout(10):
            while await desired(one) != await desired(two):  # noqa: ASYNC110 - changed by the broker's records
                await asyncio.sleep(0.02)


async def test_parallel_calls(aggregator: Any) -> None:
    async with aggregator() as client:
        await asyncio.gather(*(add(client, "btcusdt", f"u{number}") for number in range(100)))
        assert await desired(client) == {"btcusdt": 100}
        await asyncio.gather(*(remove(client, "btcusdt", f"u{number}") for number in range(1, 100)))
        assert await desired(client) == {"btcusdt": 1}


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("", "query.symbol"),
        ("symbol=btcusdt", "query.id"),
        ("id=u1", "query.symbol"),
        ("symbol=&id=u1", "query.symbol"),
        ("symbol=btcusdt&id=", "query.id"),
        ("symbol=nosuch&id=u1", "nosuch"),
        ("symbol=BTCUSDT:x&id=u1", "btcusdt:x"),
        (f"symbol=btcusdt&id={'x' * 129}", "query.id"),
        ("symbol=btcusdt&id=a%00b", "query.id"),
        ("symbol=btcusdt&id=a%0A", "query.id"),
        ("symbol=btcusdt&id=a%20b", "query.id"),
        ("symbol=btcusdt&id=%FF", "query.id"),
        (f"symbol={'x' * 33}&id=u1", "query.symbol"),
    ],
)
async def test_bad_parameters_are_422(aggregator: Any, query: str, wrong: str) -> None:
    async with aggregator() as client:
        for method in ("GET", "DELETE"):
            assert wrong in assert_problem(await client.request(method, f"/coin?{query}"), 422)
        assert await desired(client) == {}


async def test_without_the_exchange_nothing_new_but_leaving_works(aggregator: Any, neighbours: Neighbours) -> None:
    async with aggregator() as client:
        await add(client, "btcusdt", "u1")
    neighbours.exchange_up = False
    async with aggregator() as client:
        response = await add(client, "ethusdt", "u1")
        assert_problem(response, 503)
        assert response.headers["retry-after"] == "2"
        assert_problem(await remove(client, "ethusdt", "u1"), 503)
        assert (await remove(client, "btcusdt", "u1")).json()["subscribers"] == 0


async def test_desired_and_actual(aggregator: Any, neighbours: Neighbours) -> None:
    neighbours.streams = ["ETHUSDT", "BTCUSDT"]
    async with aggregator(always_on=("BTCUSDT", "BNBUSDT")) as client:
        await add(client, "btcusdt", "u1")
        await add(client, "ethusdt", "u1")
        assert (await client.get("/subscriptions")).json() == {
            "desired": [
                {"symbol": "bnbusdt", "subscribers": 0, "always_on": True},
                {"symbol": "btcusdt", "subscribers": 1, "always_on": True},
                {"symbol": "ethusdt", "subscribers": 1, "always_on": False},
            ],
            "actual": ["btcusdt", "ethusdt"],
            "actual_known": True,
        }
        neighbours.ingest_up = False
        answer = (await client.get("/subscriptions")).json()
        assert (answer["actual"], answer["actual_known"]) == ([], False)


async def test_a_star_is_every_symbol_that_trades(aggregator: Any) -> None:
    async with aggregator(always_on=("*",)) as client:
        assert await desired(client) == {"bnbusdt": 0, "btcusdt": 0, "ethusdt": 0, "币安人生usdt": 0}


async def test_foreign_records_are_passed_over(aggregator: Any, kafka: str, topic: Topic) -> None:
    async with aggregator() as client:
        producer = Producer({"bootstrap.servers": kafka})
        producer.produce(topic.name, b"{", b"rubbish")
        producer.produce(topic.name, b"{", None)
        assert producer.flush(30) == 0
        assert (await add(client, "btcusdt", "u1")).json()["subscribers"] == 1


async def test_without_a_broker_it_says_so(aggregator: Any) -> None:
    async with aggregator(brokers="127.0.0.1:9", wait=False) as client:
        assert (await client.get("/livez")).status_code == 200
        assert "Kafka at 127.0.0.1:9" in assert_problem(await client.get("/readyz"), 503)
        response = await add(client, "btcusdt", "u1")
        assert_problem(response, 503)
        assert response.headers["retry-after"] == "2"
        assert_problem(await client.get("/subscriptions"), 503)


@contextmanager
def broker(data: Path, port: int) -> Iterator[None]:
    part = kafka_part(data / "kafka", port)
    part.prepare()
    process = spawn(part, data / "kafka.log")
    try:
        wait_ready(part, process)
        yield
    finally:
        stop(part, process)


@pytest.mark.faults
async def test_a_broker_that_comes_late_goes_away_and_comes_back(aggregator: Any) -> None:
    data, port = Path(tempfile.mkdtemp(prefix="aggregator-")), free_port()
    try:
        async with aggregator(brokers=f"127.0.0.1:{port}", wait=False) as client:
            with broker(data, port):
                await is_ready(client)
                await add(client, "btcusdt", "u1")
            assert_problem(await client.get("/readyz"), 503)
            assert_problem(await add(client, "btcusdt", "u2"), 503)
            assert_problem(await remove(client, "btcusdt", "u1"), 503)
            assert await desired(client) == {"btcusdt": 1}
            with broker(data, port):
                await is_ready(client)
                assert (await add(client, "btcusdt", "u3")).json()["subscribers"] == 2
    finally:
        shutil.rmtree(data, ignore_errors=True)


def test_the_process_starts_and_stops_with_exit_0(kafka: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {"BROKERS": kafka, "SERVER_ADDR": f":{port}", "INGEST_ADDR": "127.0.0.1:9"}
    command = [sys.executable, "-m", "api.aggregator.app"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=10)) as client:
            while client.get("/readyz", timeout=30).status_code != 200:
                assert process.poll() is None
            assert client.get("/subscriptions").json()["actual_known"] is False
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=10)
        assert process.returncode == 0, output
        assert "Traceback" not in output
    finally:
        process.kill()
        process.communicate()
