"""Stores of these tests alone, since they are stopped, killed and frozen."""

import os

import pytest
from stores import Store

from infra.local.kafka import kafka as kafka_part
from infra.local.part import free_port
from infra.local.valkey import valkey as valkey_part

LONG = os.environ.get("FAULTS") == "long"


@pytest.fixture(scope="module")
def broker(store_data):
    port = free_port()
    with Store(kafka_part(store_data / f"kafka-{port}", port), store_data / f"kafka-{port}.log") as store:
        yield store


@pytest.fixture(scope="module")
def redis_server(store_data):
    port = free_port()
    with Store(valkey_part(store_data / f"valkey-{port}", port), store_data / f"valkey-{port}.log") as store:
        yield store


@pytest.fixture(autouse=True)
def all_up(broker, redis_server):
    """Each test begins with both, whatever the one before left."""
    broker.up()
    redis_server.up()
