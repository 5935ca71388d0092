"""`.env.example` names every variable once, with its default."""

import re
from pathlib import Path

import pytest
from compose_file import compose
from dotenv import dotenv_values

from infra.settings import EXAMPLE_JWT_SECRET, Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
LINES = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
ALIASES = {str(field.validation_alias or name).upper(): name for name, field in Settings.model_fields.items()}
OTHERS = {
    "COMPOSE_FILE", "REDIS_COMMANDER_USER", "REDIS_COMMANDER_PASSWORD",
    "EXCHANGE_RATE", "EXCHANGE_SEED", "EXCHANGE_SYMBOLS",
}  # fmt: skip
# Their defaults depend on the service; the example shows one.
BY_SERVICE = {
    "HTTP_PORT", "GRPC_PORT", "SERVER_ADDR", "POSTGRES_PORT", "POSTGRES_DB", "BROKERS", "KAFKA_BROKERS", "KAFKA_TOPIC",
    "KAFKA_GROUP_ID", "ADDRESS", "PORT",
}  # fmt: skip


def test_every_variable_once():
    names = [name for name, _ in LINES]
    assert sorted(names) == sorted({*ALIASES, *OTHERS})


@pytest.mark.parametrize(("name", "value"), [line for line in LINES if line[0] not in OTHERS | BY_SERVICE])
def test_defaults_are_those_of_the_settings(name, value, monkeypatch):
    default = getattr(Settings(), ALIASES[name])
    if name == "JWT_SECRET":
        assert value == EXAMPLE_JWT_SECRET
        return
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), ALIASES[name]) == default


@pytest.mark.parametrize(("name", "value"), [line for line in LINES if line[0] in BY_SERVICE])
def test_the_others_parse(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    Settings()


def test_as_it_stands_it_starts_the_embedded_stack_and_compose(monkeypatch):
    values = dotenv_values(EXAMPLE)
    assert values == {"JWT_SECRET": EXAMPLE_JWT_SECRET}  # naming a store would keep the embedded one from starting
    assert compose(environment=values) == compose(environment={**values, "ENV": "local", "EXCHANGE": "binance"})
    monkeypatch.setenv("JWT_SECRET", values["JWT_SECRET"])
    assert Settings().checked_jwt_secret()
