"""Ports: stores move aside, services do not."""

import socket
from collections.abc import Iterator

import pytest

from infra.local.part import is_free
from infra.local.settle import HEALTH_PORTS, SERVICE_PORTS, STORE_PORTS, PortBusy, settle_ports
from infra.settings import Settings

EVERY_USUAL_PORT = {*STORE_PORTS.values(), *SERVICE_PORTS.values(), *HEALTH_PORTS.values()}


@pytest.fixture
def offset() -> int:
    """A PORT_OFFSET with which every port is free."""
    return next(n for n in range(11_000, 15_000, 137) if all(is_free(port + n) for port in EVERY_USUAL_PORT))


@pytest.fixture
def occupied(offset: int) -> Iterator[int]:
    """That offset, with Redis' and the profile service's port taken."""
    with socket.create_server(("127.0.0.1", 6379 + offset)), socket.create_server(("127.0.0.1", 8080 + offset)):
        yield offset


def test_the_usual_ports_and_the_offset(offset: int) -> None:
    ports = settle_ports(Settings(port_offset=offset), {"redis", "kafka", "profile", "ingest"})
    assert ports.main == {"redis": 6379 + offset, "kafka": 9092 + offset, "profile": 8080 + offset}
    assert ports.health == {"ingest": 8101 + offset}
    assert not ports.notes


def test_a_store_takes_another_port_and_says_so(occupied: int) -> None:
    ports = settle_ports(Settings(port_offset=occupied), {"redis", "kafka"})
    assert ports.main["redis"] != 6379 + occupied
    assert ports.notes == {"redis": f"port {6379 + occupied} is in use, took {ports.main['redis']}"}


def test_a_service_names_port_part_and_remedy(occupied: int) -> None:
    with pytest.raises(PortBusy, match=rf"port {8080 + occupied}, which profile needs.*PORT_OFFSET.*HTTP_PORT"):
        settle_ports(Settings(port_offset=occupied), {"profile"})


def test_a_service_can_have_a_port_of_its_own(occupied: int) -> None:
    settings = Settings(port_offset=occupied, http_port=8081 + occupied, server_addr=f":{8089 + occupied}")
    ports = settle_ports(settings, {"profile", "aggregator"})
    assert ports.main == {"profile": 8081 + occupied, "aggregator": 8089 + occupied}
