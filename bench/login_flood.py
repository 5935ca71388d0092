"""Refreshes while logins flood the authorization service: the goal is an answer within 300 ms.

The service runs as it does live, in a process of its own on a PostgreSQL of the benchmark's own, and every password is
checked with the real cost. The flood is `flood` callers, each with names and an address of its own, who never stop.
The peer is the same service without them.
"""

import asyncio
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import grpc

from bench.harness import Figure
from infra.local.part import LOOPBACK, Part, free_port, running
from infra.local.postgres import Database, postgres
from protos import auth_pb2, auth_pb2_grpc

PASSWORD = "a password of the benchmark"  # noqa: S105
GOAL_MS = 300.0


def run(seconds: int = 15, flood: int = 64) -> list[Figure]:
    """The figures; takes twice `seconds`."""
    with tempfile.TemporaryDirectory(prefix="tracker-bench-") as home:
        Path(home).chmod(0o755)  # root runs PostgreSQL as another user
        database = Database(Path(home) / "postgres", free_port(), "auth_db", "auth_service")
        port = free_port()
        environment = {
            "GRPC_PORT": str(port),
            "JWT_SECRET": secrets.token_urlsafe(32),
            "POSTGRES_HOST": LOOPBACK,
            "POSTGRES_PORT": str(database.port),
        }
        address = f"{LOOPBACK}:{port}"
        with running(postgres("postgres", database), Path(home) / "postgres.log"):
            environment |= {"POSTGRES_DB": database.name, "POSTGRES_USER": database.owner}
            environment |= {"POSTGRES_PASSWORD": database.owner_password()}
            command = [sys.executable, "-m", "api.auth.server"]
            service = Part("authorization", command, f"grpc://{address}", address, env={**os.environ, **environment})
            with running(service, Path(home) / "authorization.log"):
                return asyncio.run(_measure(address, seconds, flood))


async def _measure(address: str, seconds: int, flood: int) -> list[Figure]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)  # type: ignore[no-untyped-call]
        await stub.Register(auth_pb2.RegisterRequest(name="bench", password=PASSWORD))
        session = await stub.Login(auth_pb2.LoginRequest(name="bench", password=PASSWORD))
        quiet, token = await _refreshes(stub, session.refresh_token, seconds)
        answered: dict[str, int] = {}
        callers = [asyncio.create_task(_flood(stub, number, answered)) for number in range(flood)]
        flooded, _ = await _refreshes(stub, token, seconds)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    peer = "without the flood"
    figures = [
        Figure(f"refresh, {name}", value, "ms", peer, value / before)
        for name, value, before in (
            ("p50", _quantile(flooded, 0.5), _quantile(quiet, 0.5)),
            ("p99", _quantile(flooded, 0.99), _quantile(quiet, 0.99)),
            ("longest", max(flooded), max(quiet)),
        )
    ]
    figures.append(Figure(f"refreshes within {GOAL_MS:.0f} ms", sum(ms < GOAL_MS for ms in flooded) / len(flooded), ""))
    figures += [
        Figure(f"logins answered {status}", count / seconds, "/s") for status, count in sorted(answered.items())
    ]
    return figures


async def _refreshes(stub: auth_pb2_grpc.AuthServiceStub, token: str, seconds: int) -> tuple[list[float], str]:
    """(how long each took in ms, the last token), one every 20 ms at the most."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        answer = await stub.RefreshToken(auth_pb2.RefreshTokenRequest(refresh_token=token), timeout=30)
        took.append((time.monotonic() - begun) * 1000)
        token = answer.refresh_token
        await asyncio.sleep(0.02)
    return took, token


async def _flood(stub: auth_pb2_grpc.AuthServiceStub, number: int, answered: dict[str, int]) -> None:
    caller = auth_pb2.Caller(address=f"198.51.100.{number}")
    for tried in range(1_000_000):
        request = auth_pb2.LoginRequest(name=f"nobody-{number}-{tried}", password=PASSWORD, caller=caller)
        try:
            await stub.Login(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            answered[status] = answered.get(status, 0) + 1
        await asyncio.sleep(0.01)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
