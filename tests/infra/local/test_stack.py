"""Which parts run, in which order, and what they are told."""

from pathlib import Path

import pytest

from infra.local.part import Part, PartFailed
from infra.local.settle import HEALTH_PORTS, SERVICE_PORTS, STORE_PORTS, Ports
from infra.local.stack import NEEDS, StackConfig, base_env, build_parts, external, home_of, part_name, selected
from infra.settings import Settings

PORTS = Ports({**STORE_PORTS, **SERVICE_PORTS}, HEALTH_PORTS)


def config(tmp_path: Path, *only: str, recordings: tuple[Path, ...] = (), **settings: object) -> StackConfig:
    return StackConfig(Settings(**settings), tmp_path, only, recordings)


def parts_of(made: StackConfig) -> dict[str, Part]:
    names = set(selected(made)) - set(external(made.settings))
    ports = Ports({n: p for n, p in PORTS.main.items() if n in names}, PORTS.health)
    return {part.name: part for part in build_parts(made, ports, lambda done, total: None)}


def test_everything_in_dependency_order(tmp_path: Path) -> None:
    parts = parts_of(config(tmp_path))
    assert set(parts) == set(NEEDS)
    for part in parts.values():
        assert set(NEEDS[part.name]) <= set(part.after)
        assert part.probe


def test_only_takes_what_it_cannot_start_without(tmp_path: Path) -> None:
    made = config(tmp_path, "profile-service", "exchange")
    assert set(selected(made)) == {
        "profile", "exchange", "authorization", "postgres-auth", "postgres-profile", "redis"
    }  # fmt: skip
    with pytest.raises(PartFailed, match="no part 'profil'; the parts are postgres-auth"):
        selected(config(tmp_path, "profil"))


def test_compose_names_are_understood() -> None:
    assert part_name("clickhouse-etl") == "kafka-clickhouse"
    assert part_name("authorization-service") == "authorization"


def test_live_runs_no_exchange(tmp_path: Path) -> None:
    made = config(tmp_path, exchange="binance")
    assert "exchange" not in parts_of(made)
    assert base_env(made, PORTS)["EXCHANGE"] == "binance"


def test_recordings_are_played_in_a_directory_of_their_own(tmp_path: Path) -> None:
    files = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    command = parts_of(config(tmp_path, recordings=files))["exchange"].command
    assert command[-3:] == ["--recording", *map(str, files)]
    settings = Settings(data_dir=tmp_path)
    assert home_of(settings) == tmp_path / "simulated"
    assert home_of(settings, files) == tmp_path / "recording"


def test_stores_of_the_environment_are_used_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"BROKERS": "k:9092", "REDIS_ADDR": "r:6379", "POSTGRES_HOST": "p", "CLICKHOUSE_ADDR": "c:9000"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    made = config(tmp_path)
    parts = parts_of(made)
    stores = {name: parts[name] for name in STORE_PORTS}
    assert not any(part.command for part in stores.values())
    assert {part.address for part in stores.values()} == {"k:9092", "r:6379", "c:8123", "p:5432", "p:5434"}
    env = base_env(made, Ports({}, {}))
    assert {name: env[name] for name in given} == given
    assert "POSTGRES_PASSWORD" not in parts["authorization"].env


def test_several_brokers_without_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKERS", "one:9093,two,:9094")
    kafka = external(config(tmp_path).settings)["kafka"]
    assert kafka.address == config(tmp_path).settings.bootstrap_servers == "one:9093,two:9092,127.0.0.1:9094"


def test_services_log_in_as_the_owners_of_their_databases(tmp_path: Path) -> None:
    parts = parts_of(config(tmp_path))
    auth, profile = parts["authorization"].env, parts["profile"].env
    assert (auth["POSTGRES_USER"], auth["POSTGRES_DB"]) == ("auth_service", "auth_db")
    assert (profile["POSTGRES_USER"], profile["POSTGRES_DB"]) == ("profile_service", "profile_db")
    assert auth["POSTGRES_PASSWORD"] != profile["POSTGRES_PASSWORD"]


def test_a_random_jwt_secret_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_SECRET", raising=False)
    made = config(tmp_path)
    secret = base_env(made, PORTS)["JWT_SECRET"]
    assert len(secret) >= 32
    assert base_env(made, PORTS)["JWT_SECRET"] == secret


def test_bytewax_opens_no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTEWAX_DATAFLOW_API_ENABLED", "0")
    assert "BYTEWAX_DATAFLOW_API_ENABLED" not in base_env(config(tmp_path), PORTS)


def test_recovery_is_made_once(tmp_path: Path) -> None:
    flow = parts_of(config(tmp_path))["second-stats"]
    flow.prepare()
    recovery = tmp_path / "recovery" / "second-stats"
    made = {file: file.stat().st_mtime_ns for file in recovery.iterdir()}
    assert made
    flow.prepare()
    assert {file: file.stat().st_mtime_ns for file in recovery.iterdir()} == made


@pytest.mark.parametrize(
    ("bind_host", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.7", "127.0.0.7")],
)
def test_services_are_asked_where_they_listen(bind_host, asked, tmp_path, monkeypatch):
    monkeypatch.setenv("BIND_HOST", bind_host)
    config = StackConfig(Settings(data_dir=tmp_path), tmp_path)
    ports = Ports({"aggregator": 18088, "redis": 16379, "exchange": 19443}, {"ingest": 18101})
    env = base_env(config, ports)
    assert env["AGGREGATOR_ADDR"] == f"{asked}:18088"
    assert env["INGEST_ADDR"] == f"{asked}:18101"
    assert (env["REDIS_ADDR"], env["EXCHANGE_REST_URL"]) == ("127.0.0.1:16379", "http://127.0.0.1:19443")
