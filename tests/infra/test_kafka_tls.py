"""A real broker with a TLS listener that wants clients' certificates: the flows, the ETL and the command over it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives import serialization
from domain.naive import NaiveStats
from etl_process import Etl
from flow_process import create_topic, make_recovery, poll_until, produce, running_flow
from tls_parts import Certificates, make_certificates

from flows.channels import all_topics, create_topics
from infra.local.kafka import kafka as kafka_part
from infra.local.part import LOOPBACK, free_port, running

START_MS = 1_790_000_000_000
SYMBOL = "TLSUSDT"


@dataclass(frozen=True)
class SecureKafka:
    """A broker with two listeners."""

    plain: str
    secure: str
    certificates: Certificates

    @property
    def environment(self):
        """Of a process that knows the secure listener alone."""
        return {"BROKERS": self.secure, **self.certificates.environment("KAFKA")}


def listen_with_tls(properties, port, certificates):
    """Give server.properties a second listener."""
    store = properties.parent / "broker.pem"
    key = serialization.load_pem_private_key(certificates.key.read_bytes(), None)
    pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    store.write_bytes(key.private_bytes(*pkcs8) + certificates.cert.read_bytes())  # Java reads no other form
    lines = dict(line.split("=", 1) for line in properties.read_text().splitlines())
    for name in ("listeners", "advertised.listeners"):
        lines[name] += f",SECURE://{LOOPBACK}:{port}"
    lines |= {
        "listener.security.protocol.map": lines["listener.security.protocol.map"] + ",SECURE:SSL",
        "inter.broker.listener.name": "PLAINTEXT",
        "ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
    }
    properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kafka-tls")
    certificates = make_certificates(directory / "certificates")
    port, secure_port = free_port(), free_port()
    part = kafka_part(directory / "data", port)

    def prepare():
        part.prepare()
        listen_with_tls(directory / "data/server.properties", secure_port, certificates)

    with running(replace(part, prepare=prepare), directory / "log"):
        plain = f"{LOOPBACK}:{port}"
        create_topics(plain, all_topics(10**9))
        yield SecureKafka(plain, f"{LOOPBACK}:{secure_port}", certificates)


def trades(seconds):
    """One trade a second and a heartbeat that closes the last."""
    values = [
        {"e": "aggTrade", "E": START_MS + n * 1000, "s": SYMBOL, "a": n + 1, "p": "2.5", "q": "0.1", "f": n, "l": n,
         "T": START_MS + n * 1000, "m": False, "M": True}
        for n in range(seconds)
    ]  # fmt: skip
    return [json.dumps(v).encode() for v in [*values, {"e": "heartbeat", "E": START_MS + seconds * 1000 + 5000}]]


def command(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def test_from_raw_trades_to_clickhouse_and_in_replay(kafka, valkey, clickhouse, tmp_path):
    raw, values = "raw-tls", trades(20)
    create_topic(kafka.plain, raw, 1)
    produce(kafka.plain, raw, [(SYMBOL.encode(), value, 0, []) for value in values])
    expected = NaiveStats().run(values)
    etl = Etl(kafka.plain, clickhouse, tmp_path, **kafka.environment)
    flow = running_flow(
        "flows.second_stats", make_recovery(tmp_path / "recovery"), tmp_path / "flow.log",
        KAFKA_TOPIC=raw, REDIS_ADDR=valkey, **kafka.environment,
    )  # fmt: skip
    etl.start()
    try:
        with flow:
            poll_until(lambda: len(etl.stats()) == len(expected.final), 60, "all seconds in ClickHouse")
    finally:
        etl.close()

    out = tmp_path / "replayed.jsonl"
    replay = f"flows.replay:main('{raw}', '{out}')"
    ended = command("bytewax.run", replay, **kafka.environment)
    assert ended.returncode == 0, ended.stderr
    assert out.read_bytes().splitlines() == [text for _, text in sorted(expected.final.items())]


def test_the_command(kafka, tmp_path):
    answer = command("tracker", "gaps", "--json", **kafka.environment)
    assert (answer.returncode, json.loads(answer.stdout)) == (0, []), answer.stderr
    strangers = make_certificates(tmp_path / "strangers").environment("KAFKA")
    answer = command("tracker", "gaps", BROKERS=kafka.secure, **strangers)
    assert answer.returncode == 1
    assert kafka.secure in answer.stderr
    assert "Traceback" not in answer.stderr
