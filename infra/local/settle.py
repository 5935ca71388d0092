"""Which port every part gets: the usual one plus PORT_OFFSET, or another where a store's is busy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.domain.errors import TrackerError
from infra.local.part import free_port, is_free
from infra.settings import Settings, join_address, split_address

STORE_PORTS = {
    "postgres-auth": 5432,
    "postgres-profile": 5434,
    "redis": 6379,
    "kafka": 9092,
    "clickhouse": 8123,
}
SERVICE_PORTS = {
    "profile": 8080,
    "authorization": 50051,
    "socket": 50052,
    "aggregator": 8088,
    "dashboard": 8083,
    "exchange": 9443,
}
# /livez, /readyz and /metrics of the processes that serve nothing else over HTTP.
HEALTH_PORTS = {
    "ingest": 8101,
    "second-stats": 8102,
    "minitickers": 8103,
    "kafka-clickhouse": 8104,
    "authorization": 8105,
    "socket": 8106,
}
_VARIABLES = {"profile": "HTTP_PORT", "authorization": "GRPC_PORT", "aggregator": "SERVER_ADDR"}


class PortBusy(TrackerError):
    """A service can't have its port; the message names port, part and remedy."""


@dataclass(frozen=True)
class Ports:
    """The ports of one run; `notes` tells of stores that are not where one would look for them."""

    main: Mapping[str, int]
    health: Mapping[str, int]
    notes: Mapping[str, str] = field(default_factory=dict)


def settle_ports(settings: Settings, names: set[str]) -> Ports:
    """The ports for the parts in `names`. Raises PortBusy when a service can't have its own.

    Clients know services by their ports, so those are fixed; stores are found through the environment.
    """
    main, notes, taken = {}, {}, set()
    for name, usual in _service_ports(settings).items():
        if name not in names:
            continue
        try:
            free = is_free(usual, settings.host)
        except OSError as error:  # a port below 1024, or BIND_HOST is no address of this host
            why = error.strerror or error
            raise PortBusy(f"{name} can't listen on {join_address(settings.host, usual)}: {why}") from error
        if not free:
            raise PortBusy(f"port {usual}, which {name} needs, is in use by another program; {_remedy(name)}")
        main[name] = usual
        taken.add(usual)
    for name, usual in STORE_PORTS.items():
        if name in names:
            main[name] = _one_that_is_free(usual + settings.port_offset, taken)
            if main[name] != usual + settings.port_offset:
                notes[name] = f"port {usual + settings.port_offset} is in use, took {main[name]}"
    health = {
        name: _one_that_is_free(usual + settings.port_offset, taken)
        for name, usual in HEALTH_PORTS.items()
        if name in names
    }
    return Ports(main, health, notes)


def _service_ports(settings: Settings) -> dict[str, int]:
    ports = {name: usual + settings.port_offset for name, usual in SERVICE_PORTS.items()}
    ports["profile"] = settings.http_port or ports["profile"]
    ports["authorization"] = settings.grpc_port or ports["authorization"]
    if settings.server_addr:
        _, ports["aggregator"] = split_address(settings.server_addr, ports["aggregator"])
    return ports


def _one_that_is_free(usual: int, taken: set[int]) -> int:
    port = usual
    while port in taken or not is_free(port):
        port = free_port()
    taken.add(port)
    return port


def _remedy(name: str) -> str:
    others = "set PORT_OFFSET (for example PORT_OFFSET=100) to move all ports"
    return f"{others}, or {_VARIABLES[name]} for this one" if name in _VARIABLES else others
