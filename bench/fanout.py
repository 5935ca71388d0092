"""Prices on Redis to thousands of WebSockets: our BFF and a Go server of the same contract, back to back on one core.

The Go server and the load driver are not part of this project: their source is looked for in `--peers`, FANOUT_PEERS
or ../shared/peers/fanout, and compiled by the Go that is on the machine. Without them only REST is measured.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from bench.fanout_parts import add_coins, built, drive, go_peer, make_users, stack, token_of
from bench.harness import Figure
from bench.parts import cores

GO_COALESCE = "100ms"
SLOW_CLIENTS = 200
REST_USERS = 100
_SEED = "7"
_PEERS = Path(__file__).parents[2] / "shared" / "peers" / "fanout"


def run(
    *,
    clients: int = 5000,
    seconds: int = 20,
    symbols: int = 50,
    rate: int = 300,
    workers: int = 1,
    peers: str | None = None,
) -> list[Figure]:
    """10 coins of `symbols` a client, `workers` processes of the BFF; REST at `rate` requests a second.

    Delays are of a tick that a client has whole.
    """
    source = Path(peers or os.environ.get("FANOUT_PEERS", "") or _PEERS)
    with TemporaryDirectory(prefix="tracker-bench-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # root runs PostgreSQL as another user
        binaries = None
        if not (source / "go.mod").is_file():
            print(f"no peers at {source}: the fan-out is not measured", file=sys.stderr)
        elif shutil.which("go") is None:
            print("no Go here to compile the peers with: the fan-out is not measured", file=sys.stderr)
        else:
            binaries = built(source, home)
        with stack(home, HTTP_WORKERS=str(workers)) as parts:
            figures = _fanout(parts, home, *binaries, clients, seconds, symbols) if binaries else []
            return figures + _rest(parts, rate)


def _fanout(
    parts: dict[str, Any], home: Path, peer: Path, driver: Path, clients: int, seconds: int, symbols: int
) -> list[Figure]:
    url, redis = parts["profile"]["address"], parts["redis"]["address"]
    known = _symbols(url)[:symbols]
    load = ["-clients", str(clients), "-coins", "10", "-symbols", ",".join(known), "-seconds", str(seconds)]
    load += ["-seed", _SEED, "-workers", "32"]
    slow = ["-slow", str(SLOW_CLIENTS), "-slow-coins", str(len(known))]
    make_users(driver, parts, home, *load, *slow)
    bff = psutil.Process(parts["profile"]["pid"])
    idle_mb = sum(one.memory_info().rss for one in [bff, *bff.children()]) / 2**20
    there = ["-skip-setup", "-pid", str(bff.pid)]
    # The slow clients' users are drawn after the others', so that one setup serves both runs.
    ours = drive(driver, url, redis, *load, *there)
    beside_slow = drive(driver, url, redis, *load, *there, *slow)
    with go_peer(peer, redis, GO_COALESCE) as (address, pid):
        go = drive(driver, address, redis, *load, "-http", f"http://{address}", "-pid", str(pid))
    return [
        *_compared(ours, go, clients, idle_mb),
        Figure(f"p99 beside {SLOW_CLIENTS} clients that do not read", beside_slow["p99_ms"], "ms", "without them",
               beside_slow["p99_ms"] / ours["p99_ms"]),
        Figure("ticks had whole beside them", beside_slow["delivered_ratio"] * 100, "%"),
        Figure("wrong pushes beside them", beside_slow["mismatches"], "pushes"),
    ]  # fmt: skip


def _compared(ours: dict[str, Any], go: dict[str, Any], clients: int, idle_mb: float) -> list[Figure]:
    shown = {
        "p50_ms": ("a tick whole at a client, p50", "ms"),
        "p99_ms": ("a tick whole at a client, p99", "ms"),
        "server_cpu_seconds": ("CPU of the server", "s"),
        "server_rss_mb": ("memory of the server", "MB"),
        "pushes_per_client_tick": ("pushes a client and tick", "pushes"),
    }
    peer = f"Go, {GO_COALESCE}"
    figures = [
        Figure(name, ours[key], unit, f"{peer} ({go[key]:,.3g})", ours[key] / go[key])
        for key, (name, unit) in shown.items()
    ]
    return [
        Figure("clients", clients, "clients"),
        Figure("ticks had whole", ours["delivered_ratio"] * 100, "%", f"{peer} ({go['delivered_ratio'] * 100:.4g})"),
        Figure("wrong pushes", ours["mismatches"], "pushes", f"{peer} ({go['mismatches']})"),
        *figures,
        Figure("memory a connection", (ours["server_rss_mb"] - idle_mb) * 1024 / clients, "KB"),
    ]


def _rest(parts: dict[str, Any], rate: int) -> list[Figure]:
    """Adding to coins through REST, PostgreSQL and this client on the other core."""
    url, tokens = f"http://{parts['profile']['address']}", [token_of(f"bench{number}") for number in range(REST_USERS)]
    with httpx.Client(base_url=url, trust_env=False) as client:
        for token in tokens:
            client.post("/api/v1/profile", headers={"Authorization": f"Bearer {token}"}).raise_for_status()
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, {cores()[1]})
    try:
        known = _symbols(parts["profile"]["address"])
        asyncio.run(add_coins(url, tokens, rate // 3, 2, known))
        delays = asyncio.run(add_coins(url, tokens, rate, 10, known))
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
    return [
        Figure(f"POST /profile/coins at {rate}/s, p50", delays[len(delays) // 2], "ms"),
        Figure(f"POST /profile/coins at {rate}/s, p99", delays[len(delays) * 99 // 100], "ms"),
    ]


def _symbols(address: str) -> list[str]:
    """Those that can be held, without letters that a command line may not take."""
    found = httpx.get(f"http://{address}/api/v1/symbols", trust_env=False).json()
    return sorted(one["symbol"] for one in found if one["symbol"].isascii())
