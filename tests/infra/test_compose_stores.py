"""The stores of compose.yaml have the settings of infra.stores, as the embedded ones do."""

from xml.etree import ElementTree

from compose_file import ROOT, compose, options

from infra.local.kafka_jars import kafka_version
from infra.local.postgres import BIN
from infra.stores import CLICKHOUSE_MEMORY_BYTES, CLICKHOUSE_PREFLIGHT, CLICKHOUSE_USER, KAFKA, KAFKA_HEAP, REDIS

SERVICES = compose()["services"]
# What is about addresses, directories and the image itself.
KAFKA_PLACES = {
    "PATH", "KAFKA_HEAP_OPTS", "KAFKA_LOG_DIRS", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "KAFKA_INTER_BROKER_LISTENER_NAME", "KAFKA_CONTROLLER_QUORUM_VOTERS",
}  # fmt: skip


def version(service):
    return SERVICES[service]["image"].rpartition(":")[2]


def test_kafka():
    environment = SERVICES["kafka"]["environment"]
    settings = {name: value for name, value in environment.items() if name not in KAFKA_PLACES}
    assert settings == {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in KAFKA.items()}
    assert environment["KAFKA_HEAP_OPTS"] == f"-Xms{KAFKA_HEAP} -Xmx{KAFKA_HEAP}"
    assert environment["PATH"].startswith("/opt/kafka/bin:")
    assert version("kafka") == kafka_version()


def test_kafka_has_a_listener_for_each_audience():
    environment = SERVICES["kafka"]["environment"]
    advertised = environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert advertised == ["INTERNAL://kafka:9092", "EXTERNAL://localhost:9092"]
    listening = dict(listener.split("://:") for listener in environment["KAFKA_LISTENERS"].split(","))
    assert listening == {"INTERNAL": "9092", "EXTERNAL": "29092", "CONTROLLER": "9093"}
    assert SERVICES["kafka"]["ports"] == ["127.0.0.1:9092:29092"]


def test_redis():
    command = SERVICES["redis"]["command"]
    assert command[0] == "valkey-server"
    assert options(command) == REDIS


def test_clickhouse():
    config = ElementTree.parse(ROOT / "infra/docker/clickhouse.xml").getroot()
    assert config.findtext("max_server_memory_usage") == str(CLICKHOUSE_MEMORY_BYTES)
    headers = {header.findtext("name"): header.findtext("value") for header in config.iter("header")}
    assert headers == CLICKHOUSE_PREFLIGHT
    assert SERVICES["clickhouse"]["environment"]["CLICKHOUSE_USER"] == CLICKHOUSE_USER


def test_postgresql_has_the_version_of_the_embedded_one():
    assert version("postgres-auth") == version("postgres-profile")
    assert f"pginstall{version('postgres-auth').split('.')[0]}" in BIN.parts
    for name in ("postgres-auth", "postgres-profile"):  # since 18 not …/data
        assert SERVICES[name]["volumes"] == [f"{name}-data:/var/lib/postgresql"]
