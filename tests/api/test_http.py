import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from api.http import (
    API_ONLY,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    LimitedHttp,
    SecurityHeaders,
    health_router,
    install_problems,
    problem_responses,
)


class Busy(Exception):
    retry_after_s = 2.4


class Thing(BaseModel):
    name: str = Field(min_length=1)
    size: int = 1


def make_app() -> FastAPI:
    app = FastAPI()
    install_problems(app, {Busy: 503})

    @app.post("/things", responses=problem_responses(413, 422))
    async def create(thing: Thing) -> Thing:
        return thing

    @app.delete("/things")
    async def remove() -> None:
        """Another method of the same path."""

    @app.post("/ignores-body")
    async def ignores_body() -> dict[str, str]:
        return {}

    @app.get("/busy")
    async def busy() -> None:
        raise Busy("come back later")

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", {"X-Handle": "yes"})

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret inside")

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def assert_problem(response: httpx.Response, status: int) -> dict[str, object]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in response.text
    return document


async def test_a_good_request_passes(client: httpx.AsyncClient) -> None:
    response = await client.post("/things", json={"name": "ada"})
    assert (response.status_code, response.json()) == (200, {"name": "ada", "size": 1})


async def test_wrong_fields_are_named_without_their_values(client: httpx.AsyncClient) -> None:
    document = assert_problem(await client.post("/things", json={"name": "", "size": "much-secret"}), 422)
    assert [error["location"] for error in document["errors"]] == ["body.name", "body.size"]  # type: ignore[attr-defined]
    assert "much-secret" not in str(document)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"name":NaN}',
        b'{"name":null}',
        b'{"name":1}',
        b"[" * 60_000,
        b'{"name":' + b"1" * 60_000 + b"}",
        '{"name":"ada"}'.encode("utf-16"),
        '{"name":"ada"}'.encode("utf-16-le"),
        '{"name":"ada"}'.encode("utf-32"),
        b'{"name":"ada","more":"\xed\xa0\x80"}',
        b'{"name":"ada","more":NaN}',
        b'{"name":"ada","more":-Infinity}',
    ],
)
async def test_bad_bodies_are_422(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/things", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422)


async def test_a_slash_too_many_is_not_found(client: httpx.AsyncClient) -> None:
    assert_problem(await client.delete("/things/"), 404)


async def test_a_byte_order_mark_does_no_harm(client: httpx.AsyncClient) -> None:
    body = '{"name":"ada"}'.encode("utf-8-sig")
    assert (await client.post("/things", content=body, headers={"Content-Type": "application/json"})).is_success


async def test_half_a_surrogate_pair_in_a_key_is_no_crash(client: httpx.AsyncClient) -> None:
    body = b'{"\\ud800":1}'
    assert_problem(await client.post("/things", content=body, headers={"Content-Type": "application/json"}), 422)


@pytest.mark.parametrize("path", ["/things", "/ignores-body"])
async def test_a_body_too_long_is_413(client: httpx.AsyncClient, path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b"x" * 1024

    assert_problem(await client.post(path, content=b"x" * (MAX_BODY_BYTES + 1)), 413)
    assert_problem(await client.post(path, content=chunks()), 413)
    assert_problem(await client.post(path, headers={"Content-Length": "9" * 30}), 413)


async def test_a_body_of_just_the_limit_passes(client: httpx.AsyncClient) -> None:
    start, end = b'{"name":"', b'"}'
    body = start + b"x" * (MAX_BODY_BYTES - len(start) - len(end)) + end
    response = await client.post("/things", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


async def test_http_errors_keep_their_headers(client: httpx.AsyncClient) -> None:
    response = await client.get("/teapot")
    assert assert_problem(response, 418)["detail"] == "short and stout"
    assert response.headers["x-handle"] == "yes"
    assert_problem(await client.get("/nowhere"), 404)
    response = await client.put("/things")
    assert_problem(response, 405)
    assert response.headers["allow"] == "POST, DELETE"


async def test_domain_errors_go_by_the_table(client: httpx.AsyncClient) -> None:
    response = await client.get("/busy")
    assert assert_problem(response, 503)["detail"] == "come back later"
    assert response.headers["retry-after"] == "2"


async def test_the_unexpected_is_500_without_its_text(client: httpx.AsyncClient) -> None:
    assert "secret inside" not in str(assert_problem(await client.get("/broken"), 500))


async def test_openapi_documents_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    answers = document["paths"]["/things"]["post"]["responses"]
    assert answers["422"]["content"]["application/problem+json"]["schema"]["$ref"] == "#/components/schemas/Problem"
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in str(answers)


async def test_health_tells_why_not() -> None:
    reasons: list[str | None] = [None, "no database", "no database"]

    async def ready() -> str | None:
        return reasons.pop(0)

    app = FastAPI()
    app.include_router(health_router(ready))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        assert assert_problem(await client.get("/readyz"), 503)["detail"] == "no database"
        assert_problem(await client.get("/healthz"), 503)
        assert "python_info" in (await client.get("/metrics")).text


SERVER = """
import logging
from fastapi import FastAPI
from api.http import serve
logging.basicConfig(level="INFO")
serve(FastAPI(), "127.0.0.1", {port})
"""


def served(port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SERVER.format(port=port)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def port_in_log(process: subprocess.Popen[str]) -> int:
    assert process.stderr
    for line in process.stderr:
        if "listening on http" in line:
            return int(line.rpartition(":")[2])
    raise AssertionError("the server ended without listening")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_with_exit_0(number: signal.Signals) -> None:
    process = served(0)
    try:
        port = port_in_log(process)
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            assert client.get(f"http://127.0.0.1:{port}/openapi.json").status_code == 200
            if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110
                assert client.get(f"http://[::1]:{port}/openapi.json").status_code == 200
        process.send_signal(number)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = served(port)
        timer = threading.Timer(20, process.kill)
        timer.start()
        _, output = process.communicate()
        timer.cancel()
    assert process.returncode == 1
    assert f"127.0.0.1:{port}" in output


async def test_a_head_too_long_is_431(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/busy", headers={"X-Long": "x" * MAX_HEAD_BYTES}), 431)
    assert_problem(await client.get("/busy?" + "q" * MAX_HEAD_BYTES), 431)
    assert_problem(await client.get("/busy", headers=[(f"x-{n}", "x" * 100) for n in range(200)]), 431)
    assert (await client.get("/teapot", headers={"X-Long": "x" * (MAX_HEAD_BYTES - 500)})).status_code == 418


def test_a_head_without_an_end_ends_the_connection() -> None:
    process = served(0)
    try:
        port = port_in_log(process)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as long:
            long.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
            answer = b""
            try:
                for _ in range(200):
                    long.sendall(b"x" * 1024)
                answer = long.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                pass  # what it had not read may take the answer along
            assert answer == b"" or answer.startswith(b"HTTP/1.1 431")
        with httpx.Client() as client:
            assert client.get(f"http://127.0.0.1:{port}/openapi.json").status_code == 200
    finally:
        process.kill()
        process.communicate()


async def test_a_head_that_takes_too_long_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.HEAD_WITHIN_S", 0.2)
    server = uvicorn.Server(uvicorn.Config(make_app(), http=LimitedHttp, port=0, log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            assert await reader.read() == b""  # nothing was sent
            writer.close()
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"GET /busy HTTP/1.1\r\nHost: x\r\n")
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(
                b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
            )
            await asyncio.sleep(0.3)  # longer than a head may take: the body has its own time
            writer.write(b'{"name":"ada"}')
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        server.should_exit = True
        await serving


@pytest.mark.parametrize("https", [False, True])
async def test_careful_headers(https: bool) -> None:
    app = make_app()
    app.add_middleware(SecurityHeaders, more={"/things": API_ONLY}, https=https)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/busy", "/broken", "/nowhere", "/things"):
            headers = (await client.post(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert ("strict-transport-security" in headers) is https
            assert ("content-security-policy" in headers) is (path == "/things")
            assert "access-control-allow-origin" not in headers


async def until_closed(listening: socket.socket, first: bytes, drip: bytes) -> bytes:
    """What is received until the server closes the connection, while it is kept busy."""
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(first)
    received = asyncio.create_task(reader.read())
    while not received.done():
        writer.write(drip)
        await asyncio.sleep(0.05)
    writer.close()
    try:
        return received.result()
    except ConnectionResetError:
        return b""


async def test_who_sends_a_little_now_and_then_does_not_hold_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.HEAD_WITHIN_S", 0.3)
    monkeypatch.setattr("api.http.BODY_WITHIN_S", 0.3, raising=False)
    server = uvicorn.Server(uvicorn.Config(make_app(), http=LimitedHttp, port=0, log_config=None))
    get, post = b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /things HTTP/1.1\r\nHost: x\r\n"
    length, chunked = b"Content-Length: 5000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        async with asyncio.timeout(20):
            for first, drip in ((post + length, b"x"), (post + chunked, b"1\r\nx\r\n"), (get, b"\r\n")):
                received = await until_closed(listening, first, drip)
                assert received.startswith(b"HTTP/1.1 503") is (first == get)
        server.should_exit = True
        await serving


async def test_an_answer_to_the_unexpected_has_the_careful_headers() -> None:
    app = make_app()
    app.add_middleware(SecurityHeaders)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = assert_problem_headers(await client.get("/broken"))
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def assert_problem_headers(response: httpx.Response) -> httpx.Headers:
    assert_problem(response, 500)
    return response.headers
