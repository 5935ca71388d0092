"""The whole system as parts: what runs, in which order, and how each process finds the others."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.recovery import make_recovery
from infra.local.clickhouse import clickhouse
from infra.local.kafka import kafka
from infra.local.kafka_jars import Progress
from infra.local.part import LOOPBACK, Part, PartFailed
from infra.local.postgres import Database, postgres
from infra.local.secret import kept_secret
from infra.local.settle import STORE_PORTS, Ports
from infra.local.state import RECORDING
from infra.local.valkey import valkey
from infra.settings import Settings, join_address, split_address

# A part, and what it cannot start without.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "postgres-auth": (),
    "postgres-profile": (),
    "redis": (),
    "kafka": (),
    "clickhouse": (),
    "exchange": (),
    "authorization": ("postgres-auth",),
    "aggregator": ("kafka",),
    "ingest": ("kafka",),
    "second-stats": ("kafka", "redis"),
    "minitickers": ("kafka", "redis"),
    "kafka-clickhouse": ("kafka", "clickhouse"),
    "socket": ("kafka",),
    "dashboard": ("clickhouse",),
    "profile": ("postgres-profile", "redis", "authorization"),
}
# And what it starts after if that runs as well: it would only log that it can't reach it yet.
PREFERS = {
    "ingest": ("exchange",),
    "aggregator": ("exchange",),
    "profile": ("aggregator",),
}
ALIASES = {
    "authorization-service": "authorization",
    "profile-service": "profile",
    "aggregator-service": "aggregator",
    "socket-service": "socket",
    "clickhouse-dashboard": "dashboard",
    "clickhouse-etl": "kafka-clickhouse",
    "valkey": "redis",
}
FLOWS = ("second-stats", "minitickers")
MODULES = {
    "authorization": "api.auth.server",
    "aggregator": "api.aggregator.app",
    "profile": "api.profile.app",
    "socket": "api.socket.server",
    "dashboard": "api.dashboard.app",
    "ingest": "flows.ingest",
    "kafka-clickhouse": "flows.clickhouse_etl",
}
# Set for every part by the stack itself, or harmful to children.
_NOT_INHERITED = (
    "HTTP_PORT", "GRPC_PORT", "SERVER_ADDR", "ADDRESS", "PORT", "HEALTH_PORT", "BYTEWAX_DATAFLOW_API_ENABLED"
)  # fmt: skip


@dataclass(frozen=True)
class StackConfig:
    """What to run. `home` is the data directory of this exchange."""

    settings: Settings
    home: Path
    only: tuple[str, ...] = ()
    recordings: tuple[Path, ...] = ()


def reachable_at(settings: Settings) -> str:
    """Where services that listen on BIND_HOST are asked."""
    on_loopback = {"0.0.0.0": LOOPBACK, "localhost": LOOPBACK, "::": "::1"}  # noqa: S104 - asked, not bound
    return on_loopback.get(settings.host, settings.host)


def home_of(settings: Settings, recordings: Iterable[Path] = ()) -> Path:
    """DATA_DIR/<exchange>: simulated, live and recorded data never mix."""
    return settings.data_dir.absolute() / (RECORDING if list(recordings) else settings.exchange)


def part_name(name: str) -> str:
    """The name in `tracker status` for a name as people write it. Raises PartFailed for an unknown one."""
    found = ALIASES.get(name, name)
    if found not in NEEDS:
        raise PartFailed(f"there is no part {name!r}; the parts are {', '.join(NEEDS)}")
    return found


def selected(config: StackConfig) -> list[str]:
    """The parts to run, with those they need: all of them, or those for `only`."""
    wanted = {part_name(name) for name in config.only} or set(NEEDS)
    if config.settings.exchange == "binance" or "exchange_ws_url" in config.settings.model_fields_set:
        wanted.discard("exchange")
    while more := {need for name in wanted for need in NEEDS[name]} - wanted:
        wanted |= more
    return [name for name in NEEDS if name in wanted]


def external(settings: Settings) -> dict[str, Part]:
    """The stores that the environment names: used as they are, not started."""
    given = settings.model_fields_set
    found = []
    if "brokers" in given or "kafka_brokers" in given:
        found.append(Part("kafka", (), f"kafka://{settings.bootstrap_servers}", settings.bootstrap_servers))
    if "redis_addr" in given:
        address = join_address(*split_address(settings.redis_addr, 6379))
        # With TLS, whether it takes connections is all that is asked.
        scheme = "tcp" if settings.tls("redis") else "redis"
        found.append(Part("redis", (), f"{scheme}://{address}", address))
    if "clickhouse_addr" in given:
        address = join_address(*settings.clickhouse_http)
        url = f"tcp://{address}" if settings.tls("clickhouse") else f"http://{address}/ping"
        found.append(Part("clickhouse", (), url, address))
    if "postgres_host" in given:
        for name, usual in (("postgres-auth", 5432), ("postgres-profile", 5434)):
            address = join_address(settings.postgres_host, settings.postgres_port or usual)
            found.append(Part(name, (), f"postgresql://{address}", address))
    return {part.name: replace(part, note="not started here") for part in found}


def build_parts(config: StackConfig, ports: Ports, progress: Progress) -> list[Part]:
    """Every selected part, wired to the others. `progress` hears of Kafka's jars being fetched."""
    names = selected(config)
    parts = {**_stores(config, ports, progress), **external(config.settings)}
    for name in names:
        if name not in parts:
            parts[name] = _service(name, config, ports)
    return [
        replace(
            parts[name],
            after=tuple(other for other in (*NEEDS[name], *PREFERS.get(name, ())) if other in names),
            note=parts[name].note or ports.notes.get(name, ""),
        )
        for name in names
    ]


def base_env(config: StackConfig, ports: Ports) -> dict[str, str]:
    """The environment of every process of the stack: ours, with the addresses of this run."""
    settings, given = config.settings, config.settings.model_fields_set
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    env |= {
        "EXCHANGE": settings.exchange,
        "PORT_OFFSET": str(settings.port_offset),
        "DATA_DIR": str(config.home.parent),
        "PYTHONUNBUFFERED": "1",
    }
    addresses = {
        "kafka": "BROKERS",
        "redis": "REDIS_ADDR",
        "clickhouse": "CLICKHOUSE_ADDR",
        "authorization": "AUTH_SERVICE_ADDR",
        "aggregator": "AGGREGATOR_ADDR",
        "socket": "SOCKET_SERVICE_ADDR",
    }
    outside = external(settings)
    for name, variable in addresses.items():
        if name in ports.main and name not in outside:
            host = LOOPBACK if name in STORE_PORTS else reachable_at(settings)
            env[variable] = join_address(host, ports.main[name])
    if "ingest" in ports.health:
        env["INGEST_ADDR"] = join_address(reachable_at(settings), ports.health["ingest"])
    if "exchange" in ports.main:
        address = f"{LOOPBACK}:{ports.main['exchange']}"
        env |= {"EXCHANGE_WS_URL": f"ws://{address}", "EXCHANGE_REST_URL": f"http://{address}"}
    if "jwt_secret" not in given:
        env["JWT_SECRET"] = kept_secret(config.home / "jwt.secret")
    elif {"authorization", "profile"} & set(ports.main):  # they would only refuse it one after the other
        try:
            settings.checked_jwt_secret()
        except ValueError as error:
            raise PartFailed(str(error)) from error
    return env


def _stores(config: StackConfig, ports: Ports, progress: Progress) -> dict[str, Part]:
    home, main = config.home, ports.main
    made = {}
    for name, database in _databases(config, ports).items():
        made[name] = postgres(name, database)
    if "redis" in main:
        made["redis"] = valkey(home / "redis", main["redis"])
    if "kafka" in main:
        made["kafka"] = kafka(home / "kafka", main["kafka"], progress)
    if "clickhouse" in main:
        password = config.settings.clickhouse_password.get_secret_value()
        made["clickhouse"] = clickhouse(home / "clickhouse", main["clickhouse"], password)
    return made


def _databases(config: StackConfig, ports: Ports) -> dict[str, Database]:
    owners = {"postgres-auth": ("auth_db", "auth_service"), "postgres-profile": ("profile_db", "profile_service")}
    superuser_password = config.settings.postgres_password.get_secret_value()
    return {
        name: Database(config.home / name, ports.main[name], database, owner, superuser_password)
        for name, (database, owner) in owners.items()
        if name in ports.main
    }


def _service(name: str, config: StackConfig, ports: Ports) -> Part:
    """A process of ours: `name` with its command, its environment and the URL that says whether it is ready."""
    main, health = ports.main.get(name), ports.health.get(name)
    host = LOOPBACK if name == "exchange" else reachable_at(config.settings)
    address = join_address(host, main or health or 0)
    env = {"HEALTH_PORT": str(health)} if health else {}
    readyz = f"http://{join_address(host, health or main or 0)}/readyz"
    match name:
        case "exchange":
            return _exchange(config, address)
        case "authorization":
            env |= {"GRPC_PORT": str(main)} | _database_env("postgres-auth", config, ports)
            probe = f"grpc://{address}"
        case "profile":
            env |= {"HTTP_PORT": str(main)} | _database_env("postgres-profile", config, ports)
            probe = readyz
        case "aggregator" | "dashboard":
            env |= {"HTTP_PORT": str(main)}
            probe = readyz
        case "socket":
            env |= {"ADDRESS": config.settings.host, "PORT": str(main)}
            probe = f"grpc://{address}"
        case _:
            probe = readyz
    if name in FLOWS:
        return _flow(name, config.home / "recovery" / name, Part(name, (), probe, address, readyz, env=env))
    command = [sys.executable, "-m", MODULES[name]]
    return Part(name, command, probe, address, readyz, env=env)


def _exchange(config: StackConfig, address: str) -> Part:
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "infra.local.exchange", "--port", port]
    command += ["--data-dir", str(config.home / "exchange")]
    if config.recordings:
        command += ["--recording-wait", "--recording", *(str(file.absolute()) for file in config.recordings)]
    return Part("exchange", command, f"http://{address}/api/v3/ping", address)


def _flow(name: str, recovery: Path, part: Part) -> Part:
    """A Bytewax dataflow, run by Bytewax's own command with its snapshots in `recovery`."""
    module = f"flows.{name.replace('-', '_')}"
    command = [sys.executable, "-m", "bytewax.run", module, "-r", str(recovery), "-s", "10", "-b", "0"]
    return replace(part, command=command, prepare=lambda: make_recovery(recovery))


def _database_env(name: str, config: StackConfig, ports: Ports) -> dict[str, str]:
    """Where a service finds its database: that of the environment, or the embedded one with its own role."""
    database = _databases(config, ports).get(name)
    if database is None:
        return {}
    return {
        "POSTGRES_HOST": LOOPBACK,
        "POSTGRES_PORT": str(database.port),
        "POSTGRES_DB": database.name,
        "POSTGRES_USER": database.owner,
        "POSTGRES_PASSWORD": database.owner_password(),
        "POSTGRES_PASSWORD_FILE": "",
    }
