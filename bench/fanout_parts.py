"""What the fan-out benchmark runs: our stack, the Go peer, the load driver, and users made in bulk."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import psutil
import psycopg
from aiohttp import web

from bench.parts import cores, pin
from infra.local.part import LOOPBACK, free_port, is_free

SECRET = "a secret of the benchmark, of 32 bytes"  # noqa: S105 - of a stack that lives for minutes, on loopback
READY_WITHIN_S = 120
RUN_WITHIN_S = 280
_ROOT = Path(__file__).parents[1]
_USUAL_PORTS = (8080, 50051, 9443)
MAX_OFFSET = 15_000


@contextmanager
def stack(home: Path, **environment: str) -> Iterator[dict[str, Any]]:
    """`tracker up --only profile,exchange`; gives the parts of `tracker status --json`.

    The BFF is alone on its core; with HTTP_WORKERS its processes take turns on both.
    """
    own, others = cores()
    env = {**os.environ, "JWT_SECRET": SECRET, "DATA_DIR": str(home), "PORT_OFFSET": str(_free_offset()), **environment}
    command = [*_on(others), sys.executable, "-m", "tracker", "up", "--only", "profile,exchange"]
    with (home / "up.log").open("w") as log:
        process = subprocess.Popen(command, cwd=_ROOT, env=env, stdout=log, stderr=log)
    try:
        _wait_for("ready:", home / "up.log", process)
        asked = [sys.executable, "-m", "tracker", "status", "--json"]
        status = json.loads(subprocess.run(asked, cwd=_ROOT, env=env, capture_output=True, check=False).stdout)
        found = {part["name"]: part for part in status["parts"]}
        pin(found["profile"]["pid"], own)
        for number, worker in enumerate(psutil.Process(found["profile"]["pid"]).children()):
            pin(worker.pid, (own, others)[number % 2])
        yield found
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def go_peer(binary: Path, redis: str, coalesce: str) -> Iterator[tuple[str, int]]:
    """The Go server, alone on its core; gives (host:port, process id)."""
    address = f"{LOOPBACK}:{free_port()}"
    env = {**os.environ, "GOMAXPROCS": "1", "JWT_SECRET": SECRET, "REDIS_ADDR": redis}
    log = binary.with_suffix(".log")
    with log.open("w") as output:
        command = [*_on(cores()[0]), str(binary), "-addr", address, "-coalesce", coalesce]
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        _wait_for("listening", log, process)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(20)


def built(source: Path, home: Path) -> tuple[Path, Path]:
    """(peer, driver) compiled from the peers' source. Raises subprocess.CalledProcessError."""
    binaries = home / "fanout-peer", home / "fanout-drive"
    for binary, package in zip(binaries, ("./cmd/peer", "./cmd/drive"), strict=True):
        subprocess.run(["go", "build", "-o", str(binary), package], cwd=source, check=True)
    return binaries


def drive(driver: Path, web_address: str, redis: str, *flags: str, expect: int = 0) -> dict[str, Any]:
    """One run of the load driver: its result line. Raises RuntimeError when it ends otherwise than expected."""
    command = [*_on(cores()[1]), str(driver), "-url", f"ws://{web_address}/api/v1/ws", "-redis", redis, *flags]
    env = {**os.environ, "GOMAXPROCS": "1", "JWT_SECRET": SECRET}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=RUN_WITHIN_S)
    if done.returncode != expect:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if expect == 0 else {}
    return result


def make_users(driver: Path, stack_parts: dict[str, Any], home: Path, *flags: str) -> None:
    """Put the driver's users straight into the profile database: 55,000 REST calls would take minutes.

    The driver makes them at a server that only takes notes and has no WebSocket, so there it ends with 1.
    """
    recorder = _Recorder()
    with recorder.running() as address:
        drive(driver, address, stack_parts["redis"]["address"], "-http", f"http://{address}", *flags, expect=1)
    password = next(home.glob("*/postgres-profile/profile_service.password")).read_text().strip()
    host, _, port = stack_parts["postgres-profile"]["address"].rpartition(":")
    now = datetime.now(UTC)
    login = {"host": host, "port": port, "dbname": "profile_db", "user": "profile_service", "password": password}
    with psycopg.connect(**login) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY profiles (id, name, created_at) FROM STDIN") as copy:
            for user, name in recorder.users.items():
                copy.write_row((user, name, now))
        with cursor.copy("COPY coins (created_at, updated_at, symbol, quantity, user_id) FROM STDIN") as copy:
            for user, symbol, quantity in recorder.coins:
                copy.write_row((now, now, symbol, quantity, user))


class _Recorder:
    """`POST /api/v1/profile` and `/coins`, as far as notes need it."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.coins: list[tuple[str, str, str]] = []

    @contextmanager
    def running(self) -> Iterator[str]:
        """Served from a thread; gives its address."""
        address: list[str] = []
        ready, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def serve() -> None:
            app = web.Application()
            app.add_routes([web.post("/api/v1/profile", self._profile), web.post("/api/v1/profile/coins", self._coin)])
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, LOOPBACK, 0).start()
            address.append(f"{LOOPBACK}:{runner.addresses[0][1]}")
            ready.set()
            await over.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        ready.wait(10)
        try:
            yield address[0]
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()

    async def _profile(self, request: web.Request) -> web.Response:
        claims = self._claims(request)
        self.users[claims["sub"]] = claims["name"]
        return web.json_response({}, status=201)

    async def _coin(self, request: web.Request) -> web.Response:
        coin = await request.json()
        self.coins.append((self._claims(request)["sub"], coin["symbol"], coin["quantity"]))
        return web.json_response({})

    @staticmethod
    def _claims(request: web.Request) -> dict[str, Any]:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        return claims


async def add_coins(url: str, tokens: list[str], rate: int, seconds: int, symbols: list[str]) -> list[float]:
    """`POST /profile/coins` at a steady rate by these users; ms from when each was due to its answer, sorted.

    Raises aiohttp.ClientResponseError for an answer that is an error.
    """
    delays: list[float] = []
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(url, connector=connector, raise_for_status=True) as client:

        async def add(due: float, token: str, symbol: str) -> None:
            coin, headers = {"symbol": symbol, "quantity": "0.001"}, {"Authorization": f"Bearer {token}"}
            async with client.post("/api/v1/profile/coins", json=coin, headers=headers) as answer:
                await answer.read()
            delays.append((time.perf_counter() - due) * 1000)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(rate * seconds):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(add(due, random.choice(tokens), random.choice(symbols)))  # noqa: S311 - load
    return sorted(delays)


def token_of(name: str) -> str:
    """An access token of a new user."""
    now = int(time.time())
    claims = {"sub": str(uuid.uuid4()), "name": name, "typ": "access", "jti": str(uuid.uuid4()), "iat": now}
    both = dict.fromkeys(("iss", "aud"), "crypto-asset-tracker")
    return jwt.encode({**claims, **both, "exp": now + 3600}, SECRET, "HS256")


def _free_offset() -> int:
    for _ in range(100):
        offset = random.randrange(1000, MAX_OFFSET)  # noqa: S311 - a port
        if all(is_free(port + offset) for port in _USUAL_PORTS):
            return offset
    raise RuntimeError("no free ports for a second stack")


def _on(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


def _wait_for(word: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while word not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
