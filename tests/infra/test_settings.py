"""The environment: names, formats and errors of contract section 8."""

from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import ValidationError

from infra.settings import EXAMPLE_JWT_SECRET, Settings, go_duration_seconds, split_address

EXAMPLES = sorted((Path(__file__).parents[2] / "infra" / "env").glob("*.env.example"))


@pytest.mark.parametrize(("text", "seconds"), [
    ("15m", 900), ("168h", 604_800), ("10s", 10), ("1h30m", 5400), ("50ms", 0.05), ("1.5h", 5400), ("10", 10),
])  # fmt: skip
def test_durations_read_as_gos(text, seconds):
    assert go_duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "-5s", "10 s", "5x", "1h30", "0s"])
def test_wrong_durations_are_named(text):
    with pytest.raises(ValueError, match="duration"):
        go_duration_seconds(text)


@pytest.mark.parametrize(("text", "address"), [
    (":8088", ("127.0.0.1", 8088)), ("kafka:9092", ("kafka", 9092)), ("redis", ("redis", 1)), ("[::1]:5", ("::1", 5)),
    ("http://clickhouse:8123/", ("clickhouse", 8123)), ("tcp://10.0.0.1:9000", ("10.0.0.1", 9000)),
])  # fmt: skip
def test_addresses(text, address):
    assert split_address(text, 1) == address


def test_the_offset_is_added_to_every_default_address(monkeypatch):
    monkeypatch.setenv("PORT_OFFSET", "1000")
    monkeypatch.setenv("REDIS_ADDR", "redis:6379")
    settings = Settings()
    assert settings.auth_service_addr == "127.0.0.1:51051"
    assert settings.socket_service_addr == "127.0.0.1:51052"
    assert settings.aggregator_addr == "127.0.0.1:9088"
    assert settings.ingest_addr == "127.0.0.1:9101"
    assert settings.clickhouse_http == ("127.0.0.1", 9123)
    assert settings.bootstrap_servers == "127.0.0.1:10092"
    assert settings.redis_addr == "redis:6379"
    assert "aggregator_addr" not in settings.model_fields_set


@pytest.mark.parametrize("name", ["INGEST_ADDR", "SOCKET_SERVICE_ADDR", "AUTH_SERVICE_ADDR"])
def test_wrong_addresses_are_errors_at_the_start(name, monkeypatch):
    monkeypatch.setenv(name, "host:port")
    with pytest.raises(ValidationError, match="not an address"):
        Settings()


def test_the_native_clickhouse_port_is_read_as_http(monkeypatch):
    monkeypatch.setenv("CLICKHOUSE_ADDR", "clickhouse:9000")
    assert Settings().clickhouse_http == ("clickhouse", 8123)


def test_secrets_come_from_files_too(monkeypatch, tmp_path):
    (tmp_path / "secret").write_text("x" * 40 + "\n")
    monkeypatch.setenv("JWT_SECRET_FILE", str(tmp_path / "secret"))
    assert Settings().checked_jwt_secret() == "x" * 40
    monkeypatch.setenv("JWT_SECRET_FILE", str(tmp_path / "missing"))
    with pytest.raises(ValidationError, match="JWT_SECRET_FILE"):
        Settings()


@pytest.mark.parametrize(("secret", "env", "good"), [
    ("short", "local", False), (EXAMPLE_JWT_SECRET, "local", True), (EXAMPLE_JWT_SECRET, "production", False),
    ("k" * 32, "production", True), ("k" * 31, "local", False),
])  # fmt: skip
def test_weak_jwt_secrets_are_refused(monkeypatch, secret, env, good):
    monkeypatch.setenv("JWT_SECRET", secret)
    monkeypatch.setenv("ENV", env)
    if good:
        assert Settings().checked_jwt_secret() == secret
    else:
        with pytest.raises(ValueError, match="JWT_SECRET"):
            Settings().checked_jwt_secret()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_parse_and_name_only_variables_that_exist(file, monkeypatch):
    values = dotenv_values(file)
    names = {field.upper() for field in Settings.model_fields}
    assert values.keys() <= names
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    Settings()


def test_a_port_offset_that_leaves_no_port_is_refused() -> None:
    assert Settings(port_offset=15_483).port_offset == 15_483
    with pytest.raises(ValidationError, match="port_offset"):
        Settings(port_offset=21_000)


def test_origins_are_as_browsers_write_them(monkeypatch):
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://Portfolio.example/, http://localhost:3000")
    assert Settings().allowed_origins == ("https://portfolio.example", "http://localhost:3000")


@pytest.mark.parametrize("text", ["", "*", "127.0.0.1", "10.0.0.0/8, ::1,fd00::/8"])
def test_trusted_proxies(text, monkeypatch):
    monkeypatch.setenv("TRUSTED_PROXIES", text)
    assert Settings().trusted_proxies == tuple(text.replace(" ", "").split(",") if text else ())


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "10.0.0.1/8", "10.0.0", "proxy.example", "10.0.0.0\\8", "*"])
def test_a_trusted_proxy_that_is_none_is_named(wrong, monkeypatch):
    monkeypatch.setenv("TRUSTED_PROXIES", f"127.0.0.1,{wrong}")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "trusted_proxies" in str(caught.value)
    assert repr(wrong) in str(caught.value)
