"""compose.yaml against its schema, the contract and the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_file import (
    ROOT,
    NotSet,
    compose,
    container_ports,
    exists,
    health_command,
    megabytes,
    ours,
    programs,
    raw,
    seconds,
    variables,
)

from infra.local.settle import HEALTH_PORTS, SERVICE_PORTS, STORE_PORTS, Ports
from infra.local.stack import ALIASES, NEEDS, StackConfig, build_parts
from infra.settings import Settings

LIVE = compose()
SIMULATED = compose("compose.yaml", "compose.simulated.yaml")
# The services of the contract, and where each is found on 127.0.0.1.
PUBLISHED = {
    "profile-service": [], "gateway": ["8080"], "authorization-service": ["50051"], "aggregator-service": ["8088"],
    "socket-service": ["50052"], "kafka-clickhouse": [], "clickhouse-dashboard": ["8083"], "postgres-auth": ["5432"],
    "postgres-profile": ["5434"], "redis": ["6379"], "kafka": ["9092"], "clickhouse": ["8123", "9000"],
    "redis-commander": ["8081"], "tabix": ["8082"], "kafka-ui": ["8084"],
    "ingest": [], "second-stats": [], "minitickers": [],
}  # fmt: skip
# Read by others than infra.settings: Compose itself, the third-party images, the simulated exchange.
OTHER_VARIABLES = {
    "REDIS_COMMANDER_USER", "REDIS_COMMANDER_PASSWORD", "EXCHANGE_RATE", "EXCHANGE_SEED", "EXCHANGE_SYMBOLS",
}  # fmt: skip
KNOWN = {str(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()}
OURS = ours(SIMULATED)
EVERY = [pytest.param(name, service, id=name) for name, service in SIMULATED["services"].items()]
EACH_OF_OURS = [pytest.param(name, service, id=name) for name, service in OURS.items()]


@pytest.mark.parametrize("file", ["compose.yaml", "compose.simulated.yaml"])
def test_the_schema_of_the_compose_specification(file):
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", ROOT / file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_services_of_the_contract_on_their_ports():
    found = {name: [p.split(":")[1] for p in s.get("ports", ())] for name, s in LIVE["services"].items()}
    assert found == PUBLISHED


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_ports_are_published_on_loopback_only(name, service):
    for port in service.get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_images_are_pinned(name, service):
    if "build" in service:
        assert service["build"] == {"context": ".", "dockerfile": "infra/docker/Dockerfile"}
        # Several services that build one image name at a time is an error of some engines.
        assert "image" not in service
    elif name != "tabix":  # there is no other tag than stable and latest
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"])


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_limits_privileges_and_network(name, service):
    limits = service["deploy"]["resources"]["limits"]
    assert 0 < float(limits["cpus"]) <= 2
    assert 64 <= megabytes(limits["memory"]) <= 2048
    assert limits["pids"] > 0
    assert service["networks"] == ["crypto-network"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "container_name" not in service  # it could not be scaled
    assert "privileged" not in service
    if name in OURS:
        assert service["init"]
        assert service["read_only"]
        assert service["tmpfs"] == ["/tmp"]
        assert seconds(service["stop_grace_period"]) > 8  # flows.drain.GRACE_S, and ingest's, are 8 s


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_start_order_goes_by_health(name, service):
    for needed, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SIMULATED["services"][needed]
    if name in OURS and exists(programs(service)[-1][2]):
        stated = {_part(needed) for needed in service.get("depends_on", {})}
        assert set(NEEDS.get(_part(name), ())) <= stated


def test_everything_has_a_health_check():
    without = {name for name, service in SIMULATED["services"].items() if "healthcheck" not in service}
    assert without == {"tabix"}  # static files, and no tool in its image that is sure to be there


def test_nothing_waits_for_itself():
    order = {name: set(service.get("depends_on", {})) for name, service in SIMULATED["services"].items()}
    while ready := {name for name, needs in order.items() if not needs}:
        order = {name: needs - ready for name, needs in order.items() if name not in ready}
    assert not order


def test_what_uses_an_exchange_waits_for_the_simulated_one():
    using = {name for name, service in OURS.items() if "EXCHANGE" in service.get("environment", {})}
    assert using == {n for n, s in OURS.items() if "exchange" in s.get("depends_on", {})}
    for name in using:
        environment = OURS[name]["environment"]
        assert environment["EXCHANGE"] == "simulated"
        assert environment["EXCHANGE_WS_URL"] == "ws://exchange:9443"
        assert environment["EXCHANGE_REST_URL"] == "http://exchange:9443"
        assert LIVE["services"][name]["environment"]["EXCHANGE"] == "binance"
    assert SIMULATED["name"] != LIVE["name"]  # so that their volumes are apart


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_volumes_are_declared_and_files_are_there(name, service):
    for volume in service.get("volumes", ()):
        source, target, *mode = volume.split(":")
        if source.startswith("./"):
            assert (ROOT / source).is_file()
            assert mode == ["ro"]
        else:
            assert source in SIMULATED["volumes"]
        assert target.startswith("/")


def test_every_volume_is_used_once():
    sources = [v.split(":")[0] for s in SIMULATED["services"].values() for v in s.get("volumes", ())]
    assert sorted(v for v in sources if not v.startswith("./")) == sorted(SIMULATED["volumes"])


@pytest.mark.parametrize(("name", "service"), EACH_OF_OURS)
def test_commands_are_modules_of_ours(name, service):
    for program in programs(service):
        assert program[:2] == ["python", "-m"]
        module = program[2]
        if module.startswith("api.") and not exists(module):
            pytest.skip(f"{module} is not there yet")
        assert exists(module)
        if module == "bytewax.run":
            assert exists(program[3])


@pytest.mark.parametrize(("name", "service"), EACH_OF_OURS)
def test_variables_are_known_to_the_settings(name, service, monkeypatch):
    environment = service.get("environment", {})
    assert all(isinstance(value, str) for value in environment.values())
    if name == "exchange":
        assert environment.keys() <= OTHER_VARIABLES
        return
    if not exists(programs(service)[-1][2]):
        pytest.skip(f"{programs(service)[-1][2]} is not there yet")
    assert environment.keys() <= KNOWN | {"NUMBA_CACHE_DIR"}  # a library's
    assert environment["BIND_HOST"] == "0.0.0.0"
    for variable in KNOWN:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    Settings()


def test_defaults_are_those_of_the_settings():
    unset = Settings.model_construct()
    for variable, word in re.findall(r"^ *(?:\w+): \$\{(\w+):-([^}]*)\}$", raw(), re.MULTILINE):
        if variable in ("EXCHANGE", *OTHER_VARIABLES):  # compose's own default is Binance, as in the original
            continue
        field = Settings.model_fields[variable.lower()]
        default = field.get_default(call_default_factory=True)
        parsed = Settings(**{variable.lower(): word}) if word else unset
        value = getattr(parsed, variable.lower())
        assert value == default, variable


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_addresses_name_a_service_that_listens_there(name, service):
    hosts = "|".join(map(re.escape, SIMULATED["services"]))
    for value in service.get("environment", {}).values():
        for host, port in re.findall(rf"(?<![\w.-])({hosts}):(\d+)", value):
            listens = container_ports(SIMULATED["services"][host])
            assert port in listens | ({"9092"} if host == "kafka" else set())
    if host := service.get("environment", {}).get("POSTGRES_HOST"):
        assert service["environment"]["POSTGRES_DB"] == SIMULATED["services"][host]["environment"]["POSTGRES_DB"]


@pytest.mark.parametrize(("name", "service"), EACH_OF_OURS)
def test_health_checks_ask_a_port_of_the_container(name, service):
    command = health_command(service)
    assert command[:3] == ["python", "-m", "infra.probes"]
    assert exists(command[2])
    scheme, port = re.fullmatch(r"(grpc|http)://127\.0\.0\.1:(\d+)(?:/[\w/]+)?", command[3]).groups()
    assert port in container_ports(service)
    assert (scheme == "grpc") == (port in {"50051", "50052"})


def test_health_ports_are_those_of_the_embedded_stack():
    for name, port in {**SERVICE_PORTS, **HEALTH_PORTS}.items():
        service = next((s for n, s in OURS.items() if _part(n) == name), None)
        if service:
            listening = container_ports(service) | {service.get("environment", {}).get("HEALTH_PORT")}
            assert str(port) in listening, name


def test_flows_run_as_in_the_embedded_stack(tmp_path):
    config = StackConfig(Settings(), tmp_path, only=("second-stats", "minitickers"))
    ports = Ports({**STORE_PORTS, **SERVICE_PORTS}, HEALTH_PORTS)
    embedded = {part.name: list(part.command) for part in build_parts(config, ports, lambda done, total: None)}
    for name in config.only:
        prepare, run = programs(OURS[name])
        directory = f"/var/lib/tracker/{name}"
        assert prepare == ["python", "-m", "flows.recovery", directory]
        expected = [word.replace(str(tmp_path / "recovery" / name), directory) for word in embedded[name][1:]]
        assert run[1:] == expected


def test_stateless_services_scale():
    bff = LIVE["services"]["profile-service"]
    assert "ports" not in bff
    assert "volumes" not in bff
    assert f"profile-service:{container_ports(bff).pop()}" in (ROOT / "infra/docker/haproxy.cfg").read_text()
    # A range of ports would move the address at each restart, and meet those of the other pages.
    assert LIVE["services"]["gateway"]["ports"] == ["127.0.0.1:8080:8080"]


def test_secrets_have_no_default_but_the_databases():
    with pytest.raises(NotSet, match=r"JWT_SECRET is not set - copy \.env\.example to \.env"):
        compose(environment={})
    for name in ("profile-service", "authorization-service"):
        assert LIVE["services"][name]["environment"]["JWT_SECRET"] == "a-secret-of-the-compose-tests-of-40-bytes"
    for name in ("postgres-auth", "postgres-profile"):
        assert LIVE["services"][name]["environment"]["POSTGRES_PASSWORD"] == "postgres"
    assert LIVE["services"]["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"] == "postgres"
    page = LIVE["services"]["redis-commander"]["environment"]
    assert (page["HTTP_USER"], page["HTTP_PASSWORD"]) == ("admin", "admin")


def test_variables_from_outside_are_known():
    assert variables(raw()) | variables(raw("compose.simulated.yaml")) <= KNOWN | OTHER_VARIABLES


def test_the_simulated_file_repeats_what_a_service_of_ours_has():
    extension = yaml.safe_load(raw())["x-service"]
    exchange = yaml.safe_load(raw("compose.simulated.yaml"))["services"]["exchange"]
    assert extension.items() <= exchange.items()


def _part(name):
    """The part of the embedded stack that a service is; its own name where there is none."""
    names = (name, name.removesuffix("-service"), name.removeprefix("clickhouse-"))
    return next((ALIASES.get(one, one) for one in names if ALIASES.get(one, one) in NEEDS), name)
