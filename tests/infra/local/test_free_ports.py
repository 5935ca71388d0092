"""Ports that are chosen now and listened on later."""

import socket

import pytest

from infra.local import part
from infra.local.part import FREE_PORTS, LOOPBACK, free_port, take_ports_of


@pytest.fixture
def own_ports(monkeypatch):
    """Leaves the sequence of the other tests as it was."""
    monkeypatch.setattr(part, "_candidates", part._candidates)


@pytest.mark.usefixtures("own_ports")
def test_no_port_is_given_twice_and_two_workers_share_none():
    shares = []
    for share in range(2):
        take_ports_of(share, 2)
        shares.append([free_port() for _ in range(300)])
    assert len({*shares[0], *shares[1]}) == 600
    assert {*shares[0], *shares[1]} <= {*FREE_PORTS}


@pytest.mark.usefixtures("own_ports")
def test_a_port_with_a_server_is_passed_over():
    taken = free_port()
    shares = len(FREE_PORTS) // 2
    with socket.create_server((LOOPBACK, taken)):
        take_ports_of(FREE_PORTS.index(taken) % shares, shares)  # two ports or three, and this is one of them
        assert taken not in {free_port() for _ in range(6)}
