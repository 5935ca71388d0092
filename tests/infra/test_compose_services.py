"""Each service of ours, started with its compose command and environment, becomes healthy and drains on SIGTERM."""

import csv
import errno
import socket
import subprocess
import time
from graphlib import TopologicalSorter

import httpx
import pytest
import redis
from compose_file import ROOT, compose, exists, ours, programs
from confluent_kafka.admin import AdminClient
from containers import Containers, have
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from infra.local.part import LOOPBACK, Part, free_port, spawn, stop

MODEL = compose("compose.yaml", "compose.simulated.yaml")
OURS = ours(MODEL)
ORDER = [
    name
    for name in TopologicalSorter({n: s.get("depends_on", {}) for n, s in MODEL["services"].items()}).static_order()
    if name in OURS
]


@pytest.fixture(scope="module")
def containers(store_data):
    made = Containers(MODEL, store_data / "containers")
    yield made
    made.close()


def built(name):
    """Skip for a service whose module is not there."""
    module = programs(OURS[name])[-1][2]
    if not exists(module):
        pytest.skip(f"{module} is not there yet")


@pytest.mark.parametrize("name", ORDER)
def test_it_becomes_healthy(containers, name):
    built(name)
    containers.up(name)
    assert containers.healthy(name) == (0, "")


@pytest.mark.parametrize("name", ORDER)
def test_other_containers_can_reach_it(containers, name):
    built(name)
    containers.up(name)
    for port in [p.rpartition(":")[2] for p in OURS[name].get("ports", ())] + OURS[name].get("expose", []):
        # Another address than the one that health checks ask: it listens on all.
        socket.create_connection(("127.0.0.2", containers.port(name, port)), timeout=2).close()


def test_kafka_answers_each_audience_with_its_own_address(containers):
    containers.up("kafka")
    assert containers.healthy("kafka")[0] == 0
    for host, listener in ((LOOPBACK, 9092), ("localhost", 29092)):
        port = containers.port("kafka", listener)
        brokers = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port}"}).list_topics(timeout=10).brokers
        assert [(b.host, b.port) for b in brokers.values()] == [(host, port)]


def test_redis_has_its_limit(containers):
    containers.up("redis")
    with redis.Redis(port=containers.port("redis", 6379), decode_responses=True) as client:
        assert client.config_get("maxmemory*") | client.config_get("save") == {
            **client.config_get("maxmemory*"), "maxmemory": str(256 << 20), "maxmemory-policy": "allkeys-lru", "save": "",
        }  # fmt: skip


def checks(control):
    """What the gateway's health checks of its servers last said; nothing before its control socket is there."""
    with socket.socket(socket.AF_UNIX) as asking:
        # It listens for clients a moment earlier.
        if asking.connect_ex(str(control)) in (errno.ENOENT, errno.ECONNREFUSED):
            return []
        asking.sendall(b"show stat\n")
        rows = list(csv.DictReader(asking.makefile()))
    return [row["check_status"] for row in rows if row["svname"].startswith("profile-service")]


def poll_until(condition, state, seconds=30):
    """Wait until it is true; else fail with the state."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, state()
        time.sleep(0.1)


@pytest.mark.skipif(not have("haproxy"), reason="haproxy is not installed")
def test_the_gateway_serves_all_containers_of_the_bff(containers, tmp_path):
    config = (ROOT / "infra/docker/haproxy.cfg").read_text()
    servers = ""
    for name in ("profile-service", "profile-service#2"):
        containers.up(name)
        servers += f"    server {name.replace('#', '-')} {LOOPBACK}:{containers.port(name, 8080)}\n"
    port = free_port()
    template = "    server-template profile- 10 profile-service:8080 resolvers docker\n"
    assert template in config
    config = config.replace(template, servers).replace("bind :8080", f"bind {LOOPBACK}:{port}")
    config = config.replace("balance leastconn", "balance roundrobin")
    control = containers.directory / "haproxy.sock"  # a short path: sockets' may have 107 characters
    (tmp_path / "haproxy.cfg").write_text(config.replace("\nglobal\n", f"\nglobal\n    stats socket {control}\n"))
    assert subprocess.run(["haproxy", "-c", "-f", tmp_path / "haproxy.cfg"], check=False).returncode == 0
    part = Part("gateway", ["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")], probe=f"tcp://{LOOPBACK}:{port}")
    process = spawn(part, tmp_path / "log")
    try:
        while part.ready():
            assert process.poll() is None, (tmp_path / "log").read_text()
        poll_until(lambda: checks(control) == ["L7OK", "L7OK"], lambda: checks(control))
        account = {"name": "somebody", "password": "a long enough password"}
        assert httpx.post(f"http://{LOOPBACK}:{port}/api/v1/auth/register", json=account).status_code == 201
        # One after the other, and a token of one is good at the other.
        tokens = [
            httpx.post(f"http://{LOOPBACK}:{port}/api/v1/auth/login", json=account).json()["accessToken"] for _ in "ab"
        ]
        for token in [*tokens, *tokens]:
            url = f"ws://{LOOPBACK}:{port}/api/v1/ws"
            with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as socket_:
                assert '"UserName":"somebody"' in socket_.recv(timeout=10)
        with pytest.raises(InvalidStatus):
            connect(url, additional_headers={"Authorization": "Bearer no"})
        assert containers.down("profile-service#2") == 0
        for _ in range(4):
            assert httpx.post(f"http://{LOOPBACK}:{port}/api/v1/auth/login", json=account).status_code == 200
    finally:
        stop(part, process)


@pytest.mark.parametrize("name", ORDER[::-1])
def test_it_drains_on_sigterm(containers, name):
    built(name)
    containers.up(name)
    assert containers.down(name) == 0, containers.log(name).read_text()[-3000:]
