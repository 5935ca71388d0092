"""Probes ask the part itself, and say why it is not up."""

import socket
import threading
from collections.abc import Iterator

import pytest

from infra.health import serve_health
from infra.local.part import free_port
from infra.probes import probe


@pytest.fixture
def closes_at_once() -> Iterator[int]:
    """A port that accepts connections and hangs up: something listens, but not what we look for."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_readyz_says_why_not() -> None:
    reason: list[str | None] = ["no network"]
    server = serve_health("127.0.0.1", 0, lambda: reason[0])
    try:
        url = f"http://127.0.0.1:{server.port}/readyz"
        assert probe(url) == "no network"
        reason[0] = None
        assert probe(url) is None
        assert probe(url.replace("readyz", "nothing")) == "HTTP 404"
    finally:
        server.close()


@pytest.mark.parametrize("scheme", ["kafka", "redis", "postgresql", "grpc", "http", "tcp"])
def test_nothing_listens(scheme: str) -> None:
    port = free_port()
    assert probe(f"{scheme}://127.0.0.1:{port}") == f"127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize("scheme", ["kafka", "redis", "postgresql", "grpc", "http"])
def test_an_open_port_is_not_enough(scheme: str, closes_at_once: int) -> None:
    assert probe(f"{scheme}://127.0.0.1:{closes_at_once}/")


def test_without_a_url_there_is_nothing_to_ask() -> None:
    assert probe("") is None


@pytest.mark.parametrize("scheme", ["redis", "http"])
def test_a_server_that_goes_away_between_two_connections_is_down(scheme: str) -> None:
    """The first connection finds something, the second nothing: an answer, not an exception."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve_once() -> None:
            connection = server.accept()[0]
            server.close()
            connection.close()

        thread = threading.Thread(target=serve_once)
        thread.start()
        assert f"127.0.0.1:{port}" in str(probe(f"{scheme}://127.0.0.1:{port}/"))
        thread.join()


def test_several_brokers(kafka: str) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    assert probe(f"kafka://{nobody},{kafka}") is None
    assert probe(f"kafka://{nobody},{nobody}") == f"{nobody}: Connection refused; {nobody}: Connection refused"


def test_what_is_no_host_name() -> None:
    assert "a..b:1" in str(probe("redis://a..b:1"))
