"""An exchange in the test's own event loop, or in a process of its own where it is to be killed."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from infra.local.exchange.app import Config, Exchange, serving
from infra.local.part import free_port


@dataclass
class Client:
    """Talks to an exchange on loopback as any client would."""

    port: int
    http: httpx.AsyncClient
    exchange: Exchange | None = None

    def connect(self, path: str, **options: Any) -> websockets.connect:
        """A stream connection, of a client that does not ping by itself."""
        return websockets.connect(f"ws://127.0.0.1:{self.port}{path}", ping_interval=None, max_queue=None, **options)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        """GET below /api/v3, or of a whole path."""
        path = path if path.startswith("/") else f"/api/v3/{path}"
        return await self.http.get(f"http://127.0.0.1:{self.port}{path}", params=params)

    async def fault(self, name: str, **options: Any) -> dict[str, Any]:
        """Order a fault."""
        answer = await self.http.post(f"http://127.0.0.1:{self.port}/sim/faults", json={"fault": name, **options})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
        """Poll until a condition holds."""
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - what happens is in another process
                await asyncio.sleep(0.01)


async def frames(connection: websockets.ClientConnection, count: int, seconds: float = 10) -> list[Any]:
    """The next frames, parsed."""
    async with asyncio.timeout(seconds):
        return [json.loads(await connection.recv()) for _ in range(count)]


Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(rate=…)` runs an exchange with that Config until the test ends."""
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))

        async def started(**config: Any) -> Client:
            settings = Config(**{"data_dir": tmp_path / "exchange", "rate": 2000.0, "shutdown_notice_s": 0.01} | config)
            exchange, port, _ = await stack.enter_async_context(serving(settings, "127.0.0.1", 0))
            return Client(port, http, exchange)

        yield started


@dataclass
class Spawned:
    """An exchange in a process of its own."""

    process: subprocess.Popen[bytes]
    client: Client


@pytest.fixture
async def spawn(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Spawned]]]:
    """`await spawn("--rate", "500")` runs the exchange as a command and waits until it is ready."""
    processes: list[subprocess.Popen[bytes]] = []
    async with httpx.AsyncClient(timeout=20) as http:

        async def spawned(*arguments: str) -> Spawned:
            port = free_port()
            command = [
                sys.executable,
                "-m",
                "infra.local.exchange",
                "--port",
                str(port),
                "--data-dir",
                str(tmp_path / "x"),
            ]
            process = subprocess.Popen([*command, *arguments])  # noqa: ASYNC220 - not waited for here
            processes.append(process)
            client = Client(port, http)

            async def ready() -> bool:
                assert process.poll() is None, "the exchange has ended"
                with contextlib.suppress(httpx.ConnectError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await client.until(ready)
            return Spawned(process, client)

        yield spawned
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[str, list[str]], Path]:
    """Writes lines into a file that can be played."""

    def write(name: str, lines: list[str]) -> Path:
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write
