"""What one client can't do to the others, and how the server finds out that a client is gone."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from profile_parts import SECRET, Bff, NewUser, User, push, watching
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from api.profile.live_protocol import LiveProtocol
from api.tokens import AccessTokens


@pytest.fixture(scope="module")
def bff(start_bff: Any) -> Iterator[Bff]:
    limits = {"WS_CONNECTIONS_PER_USER": "2", "WS_CONNECTIONS_PER_ADDRESS": "3", "WS_LIMIT_LOOPBACK": "true"}
    with start_bff(WS_PING_INTERVAL="1s", **limits) as running:
        yield running


async def end_of(socket: ClientConnection) -> ConnectionClosed:
    async with asyncio.timeout(20):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end


async def test_connections_per_user_are_limited(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    async with watching(bff, user) as first:
        await push(first)
        async with watching(bff, user) as second:
            await push(second)
            await refused(bff, user)
            async with connect(bff.ws_url) as browser:
                await browser.send(json.dumps({"type": "auth", "accessToken": user.token}))
                end = await end_of(browser)
                assert end.rcvd is not None
                assert end.rcvd.code == 1013
        async with watching(bff, user) as again:
            await push(again)


async def test_connections_per_address_are_limited(bff: Bff, new_user: NewUser) -> None:
    one, other, third = await new_user(), await new_user(), await new_user()
    async with watching(bff, one) as first, watching(bff, other) as second, connect(bff.ws_url):
        await push(first)
        await push(second)
        await refused(bff, third)
    async with watching(bff, third) as admitted:
        await push(admitted)


async def refused(bff: Bff, user: User) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with watching(bff, user):
            pass
    assert caught.value.response.status_code == 429
    assert int(caught.value.response.headers["Retry-After"]) > 0


async def test_the_rate_of_messages_is_limited(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    async with watching(bff, user) as calm, watching(bff, user) as noisy:
        await push(noisy)
        for _ in range(40):
            await noisy.send("[]")
        end = await end_of(noisy)
        assert end.rcvd is not None
        assert (end.rcvd.code, "messages a second" in end.rcvd.reason) == (1008, True)
        await push(calm)
        await user.add("btcusdt", "1")
        assert (await push(calm))["Coins"][0]["Quantity"] == "2"


async def test_a_client_that_answers_no_ping_is_dropped(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    host, _, port = bff.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    head = (f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13", f"Authorization: Bearer {user.token}")  # fmt: skip
    writer.write(("GET /api/v1/ws HTTP/1.1\r\n" + "\r\n".join(head) + "\r\n\r\n").encode())
    began = time.monotonic()
    async with asyncio.timeout(20):
        received = await reader.read()  # until it is closed
    writer.close()
    assert b"101 Switching Protocols" in received
    assert b"\x89\x04" in received  # a ping of four bytes
    assert b"\x88" + bytes([len(b"xx" + b"keepalive ping timeout")]) + (1011).to_bytes(2) in received
    assert time.monotonic() - began < 8


async def test_a_client_that_answers_stays(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    async with watching(bff, user, ping_interval=None) as socket:
        await push(socket)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):  # several pings
                await socket.recv()
        await user.add("btcusdt", "1")
        assert (await push(socket))["Sequence"] == 2


async def test_a_warning_comes_30_s_before_the_token_ends(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    user.token, expires_ms = AccessTokens(SECRET, 33).issue(user.id, user.name)
    async with watching(bff, user) as socket:
        assert "Coins" in await push(socket)
        warning = await push(socket)
        assert warning == {"type": "token_expiring", "ExpiresAt": expires_ms}
        assert 28 <= expires_ms / 1000 - time.time() <= 30.1
        await user.add("btcusdt", "1")
        assert (await push(socket))["Sequence"] == 2  # nothing else has changed


async def test_a_token_that_ends_sooner_is_warned_of_after_the_first_push(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    user.token, expires_ms = AccessTokens(SECRET, 2).issue(user.id, user.name)
    async with watching(bff, user) as socket:
        assert "Coins" in await push(socket)
        assert (await push(socket))["ExpiresAt"] == expires_ms
        end = await end_of(socket)
    assert end.rcvd is not None
    assert end.rcvd.code == 4401


PING, EMPTY_PIECE = b"\x89\x80mask", b"\x00\x80mask"
HALF_A_MESSAGE = b"\x01\x80mask"


@pytest.mark.parametrize(("first", "flood"), [(b"", PING), (HALF_A_MESSAGE, EMPTY_PIECE)])
async def test_a_flood_of_frames_that_are_no_message_ends_the_connection(
    bff: Bff, new_user: NewUser, first: bytes, flood: bytes
) -> None:
    user = await new_user()
    async with watching(bff, user) as socket:
        await push(socket)
        socket.transport.write(first)
        for _ in range(100):
            socket.transport.write(flood * 1000)
            await asyncio.sleep(0)
        end = await end_of(socket)
    assert end.rcvd is None or end.rcvd.code == 1008  # what was not read any more may take the reason along


async def test_a_few_pings_are_answered(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    async with watching(bff, user) as socket:
        for _ in range(50):
            async with asyncio.timeout(10):
                await (await socket.ping())


def test_a_client_that_does_not_read_leaves_no_pongs_with_us() -> None:
    protocol = object.__new__(LiveProtocol)
    written: list[bytes] = []
    protocol.conn = SimpleNamespace(data_to_send=lambda: [b"pong"])  # type: ignore[assignment]
    protocol.transport = SimpleNamespace(write=written.append)  # type: ignore[assignment]
    protocol.handle_ping()
    protocol.ready = False
    protocol.handle_ping()
    assert written == [b"pong"]


def test_empty_pieces_of_a_message_cost_no_memory() -> None:
    protocol = object.__new__(LiveProtocol)
    protocol.frames = [b"["]
    for _ in range(1000):
        protocol.handle_cont(Frame(Opcode.CONT, b"", fin=False))
    protocol.handle_cont(Frame(Opcode.CONT, b"1", fin=False))
    assert protocol.frames == [b"[", b"1"]
