"""The process: health, reflection, start and stop, a taken port, Kafka away."""

import os
import signal
import socket as sockets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from infra.local.part import free_port
from protos import market_pb2_grpc
from protos.market_pb2 import RawMiniTickerRequest

ROOT = Path(__file__).parents[3]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def process(log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "api.socket.server"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(10)


def health(channel: grpc.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=60, wait_for_ready=True).status)


def watch_until(channel: grpc.Channel, status: int) -> None:
    """grpc.health.v1's Watch tells each change."""
    stub = health_pb2_grpc.HealthStub(channel)
    for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True):
        if answer.status == status:
            return


@pytest.mark.parametrize("address", ["", "127.0.0.1", "localhost:0"], ids=["none", "host", "host and port"])
def test_health_reflection_and_a_graceful_stop(kafka: str, tmp_path: Path, address: str) -> None:
    port = free_port()
    address = address.replace(":0", f":{port}")
    environment = {"BROKERS": kafka, "ADDRESS": address, "PORT": str(port), "HEALTH_PORT": "0"}
    with process(tmp_path / "log", **environment) as running:
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            watch_until(channel, SERVING)
            assert health(channel) == health(channel, "market.v1.SocketService") == SERVING
            with pytest.raises(grpc.RpcError) as caught:
                health(channel, "no.such.Service")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]

            request = reflection_pb2.ServerReflectionRequest(list_services="")
            answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request])))
            names = {service.name for service in answer.list_services_response.service}
            assert names == {
                "market.v1.SocketService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
            }  # fmt: skip
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="market.v1.SocketService")
            answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request])))
            assert b"ReceiveRawAggTrade" in answer.file_descriptor_response.file_descriptor_proto[0]

            stream = market_pb2_grpc.SocketServiceStub(channel).ReceiveRawMiniTicker(RawMiniTickerRequest())
            stream.initial_metadata()
            running.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert running.wait(15) == 0, (tmp_path / "log").read_text()


def test_a_taken_port_is_said_so(kafka: str, tmp_path: Path) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(tmp_path / "log", BROKERS=kafka, PORT=str(port)) as running:
            assert running.wait(60) == 1
    assert "Address already in use" in (tmp_path / "log").read_text() or str(port) in (tmp_path / "log").read_text()


def test_without_kafka_it_is_up_and_not_serving(tmp_path: Path) -> None:
    port = free_port()
    with process(tmp_path / "log", BROKERS=f"127.0.0.1:{free_port()}", PORT=str(port)) as running:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert health(channel) == NOT_SERVING
            stream = market_pb2_grpc.SocketServiceStub(channel).ReceiveRawMiniTicker(RawMiniTickerRequest())
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        running.send_signal(signal.SIGTERM)
        assert running.wait(15) == 0


def test_only_loopback_unless_told_otherwise(kafka: str, tmp_path: Path) -> None:
    port = free_port()
    with process(tmp_path / "log", BROKERS=kafka, PORT=str(port), KAFKA_GROUP_ID=str(uuid.uuid4())):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            watch_until(channel, SERVING)
        listening = Path("/proc/net/tcp")
        if listening.exists():
            lines = [line.split()[1] for line in listening.read_text().splitlines()[1:]]
            assert [line for line in lines if line.endswith(f":{port:04X}")].count(f"00000000:{port:04X}") == 0
