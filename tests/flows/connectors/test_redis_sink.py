"""What the sink leaves on a real Redis-protocol server."""

import json
import os
import signal
import uuid

import pytest
from redis import Redis

from flows.connectors.kafka_sink import Record
from flows.connectors.redis_sink import Place, Places, RedisSinkPart
from infra.local.part import free_port, running
from infra.local.valkey import valkey as valkey_part

PLACES = Places(lambda name: Place(f"last:{name}", name), ("timestamp", "revision"))


@pytest.fixture
def redis(valkey):
    client = Redis.from_url(f"redis://{valkey}")
    yield client
    client.close()


@pytest.fixture
def part(valkey):
    host, port = valkey.split(":")
    opened = RedisSinkPart(host, int(port), PLACES)
    yield opened
    opened.close()


def record(name, json):
    return Record("any", name.encode(), json, 0)


def stat(timestamp, revision, **more):
    return json.dumps({"timestamp": timestamp, "revision": revision, **more}).encode()


def test_the_key_keeps_the_greatest_and_the_channel_carries_all_in_order(redis, part):
    name = uuid.uuid4().hex
    listener = redis.pubsub()
    listener.subscribe(name)
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    sent = [stat(2000, 0), stat(1000, 0), stat(2000, 1), stat(2000, 0), stat(1000, 7), stat(10_000, 0), stat(9999, 99)]
    part.write_batch([[record(name, value) for value in sent]])
    part.snapshot()
    assert [listener.get_message(timeout=5)["data"] for _ in sent] == sent
    assert redis.get(f"last:{name}") == stat(10_000, 0)
    listener.close()


@pytest.mark.parametrize("foreign", ["text", "list", "other JSON", "array"])
def test_what_is_no_value_of_ours_is_replaced(redis, part, foreign):
    name = uuid.uuid4().hex
    key = f"last:{name}"
    if foreign == "list":
        redis.rpush(key, "x")
    else:
        redis.set(key, {"text": "{", "other JSON": '{"timestamp":"x"}', "array": "[1]"}[foreign])
    part.write_batch([[record(name, stat(1, 0)), record(name, stat(2, 0))]])
    part.snapshot()
    assert redis.get(key) == stat(2, 0)


def test_an_evicted_value_and_a_flushed_script_come_back(redis, part):
    name = uuid.uuid4().hex
    key = f"last:{name}"
    part.write_batch([[record(name, stat(5, 0))]])
    part.snapshot()
    redis.delete(key)
    redis.script_flush()
    part.write_batch([[record(name, stat(3, 0))]])
    part.snapshot()
    assert redis.get(key) == stat(3, 0)


def test_what_a_killed_server_has_not_done_is_sent_again_with_nothing_new(store_data):
    server = valkey_part(store_data / "valkey-of-sink", free_port())
    log = store_data / "valkey-of-sink.log"
    host, port = server.address.split(":")
    part = RedisSinkPart(host, int(port), PLACES)
    with running(server, log) as pid:
        part.write_batch([[record("x", stat(1, 0))]])
        part.snapshot()
        os.kill(pid, signal.SIGSTOP)
        part.write_batch([[record("x", stat(2, 0))]])  # sent, and never read
        os.kill(pid, signal.SIGKILL)
    with running(server, log), Redis(port=int(port)) as redis:
        assert redis.get("last:x") is None
        part.write_batch([[]])
        assert redis.get("last:x") == stat(2, 0)
        part.close()
