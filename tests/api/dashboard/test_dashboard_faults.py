"""Without ClickHouse, without the table, and as a process."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from dashboard_parts import START_MS, Table, connect, identities, ticker
from pydantic import SecretStr

import api.dashboard.clickhouse as dashboard_clickhouse
from infra.clickhouse.migrate import migrate
from infra.local.clickhouse import clickhouse as clickhouse_part
from infra.local.part import LOOPBACK, free_port, spawn, stop, wait_ready
from infra.settings import Settings

ROOT = Path(__file__).parents[3]


async def assert_away(client: httpx.AsyncClient, words: str) -> None:
    page = await client.get("/")
    assert (page.status_code, page.headers["retry-after"]) == (503, "5")
    assert page.headers["content-type"].startswith("text/html")
    assert words in page.text
    assert '<meta http-equiv="refresh" content="5">' in page.text
    part = await client.get("/live")
    assert (part.status_code, part.headers["content-type"]) == (503, "application/problem+json")
    assert words in part.json()["detail"]


async def test_clickhouse_goes_and_comes(tmp_path: Path, dashboard) -> None:  # type: ignore[no-untyped-def]
    port = free_port()
    part = clickhouse_part(tmp_path, port)
    table = Table(None, f"{LOOPBACK}:{port}", "crypto")  # type: ignore[arg-type]
    async with dashboard(table.settings()) as client:
        await assert_away(client, f"ClickHouse at {LOOPBACK}:{port} does not answer")
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.headers["content-type"]) == (503, "application/problem+json")
        assert (await client.get("/livez")).status_code == 200
        for number in range(2):
            process = spawn(part, tmp_path / "log")
            try:
                await asyncio.to_thread(wait_ready, part, process)
                table = Table(connect(table.address), table.address, "crypto")
                if number == 0:
                    await assert_away(client, "the table does not exist")
                    assert (await client.get("/readyz")).status_code == 200
                migrate(table.client, "crypto", "market_tickers")
                table.insert([ticker("BTCUSDT", START_MS + number)])
                assert len(identities(await client.get("/"))) == number + 1
                table.client.close()
            finally:
                await asyncio.to_thread(stop, part, process)
            await assert_away(client, "does not answer")


async def test_a_table_of_something_else(table: Table, dashboard) -> None:  # type: ignore[no-untyped-def]
    table.client.command(f"CREATE TABLE {table.database}.other (x Int8) ENGINE = MergeTree ORDER BY x")
    async with dashboard(table.settings(clickhouse_table="other")) as client:
        await assert_away(client, "not one of market tickers")


@pytest.mark.parametrize("name", ["nix", "x`; DROP DATABASE crypto; --", "a b", "system.one"])
async def test_names_are_bound_too(table: Table, dashboard, name: str) -> None:  # type: ignore[no-untyped-def]
    for changes in ({"clickhouse_table": name}, {"clickhouse_database": name}):
        async with dashboard(table.settings(**changes)) as client:
            assert (await client.get("/")).status_code == 503


async def test_a_wrong_password_is_not_told_to_the_page(table: Table, dashboard) -> None:  # type: ignore[no-untyped-def]
    async with dashboard(table.settings(clickhouse_password=SecretStr("hush-hush"))) as client:
        await assert_away(client, "refuses")
        assert "hush" not in (await client.get("/")).text


async def test_a_silent_server_blocks_nothing(monkeypatch: pytest.MonkeyPatch, dashboard) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(dashboard_clickhouse, "ANSWER_TIMEOUT_S", 0.5)
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closed.wait()
        writer.close()

    async with await asyncio.start_server(silent, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with dashboard(Settings(clickhouse_addr=f"{LOOPBACK}:{port}")) as client:
            pages = [asyncio.create_task(client.get("/")) for _ in range(20)]
            began = time.monotonic()
            assert (await client.get("/livez")).status_code == 200
            assert time.monotonic() - began < 0.4
            answers = await asyncio.gather(*pages)
            assert {answer.status_code for answer in answers} == {503}
            assert "does not answer in 0.5 s" in answers[0].text
        closed.set()


def test_the_process_starts_and_stops_with_exit_0(table: Table) -> None:
    table.insert([ticker("BTCUSDT", START_MS)])
    port = free_port()
    env = os.environ | table.env() | {"SERVER_ADDR": f":{port}"}
    command = [sys.executable, "-m", "api.dashboard.app"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            while True:
                assert process.poll() is None
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    continue
            assert len(identities(client.get("/"))) == 1
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=15)
        assert process.returncode == 0, output
        assert "Traceback" not in output
    finally:
        process.kill()
        process.communicate()


def test_a_setting_that_cannot_be_used_is_one_line() -> None:
    env = os.environ | {"CLICKHOUSE_ADDR": f"no address {secrets.token_hex(2)}:x"}
    done = subprocess.run(
        [sys.executable, "-m", "api.dashboard.app"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "not an address" in done.stderr
