"""Made-up messages to the WebSocket: each ends its own connection at the most."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_parts import Bff, NewUser, push, watching
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

LONG = os.environ.get("API_TESTS") == "long"
# Not authenticated; not understood; too long; not UTF-8 (which the protocol itself forbids).
CODES = {4401, 1008, 1009, 1007}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
AUTH = st.fixed_dictionaries({"type": st.just("auth"), "accessToken": JSON})
MESSAGES = (
    (JSON | AUTH).map(json.dumps)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
    | st.binary(max_size=100)
    | st.sampled_from(["x" * 5000, "[" * 4000, '{"type":"auth"}', '{"type":"auth","accessToken":"a.b.c"}'])
)
FUZZ = settings(max_examples=1500 if LONG else 40, deadline=None, derandomize=not LONG)


def made_up() -> list[str | bytes]:
    found: list[str | bytes] = []

    @FUZZ
    @given(MESSAGES)
    def make(message: str | bytes) -> None:
        found.append(message)

    make()
    return found


async def answers(socket: ClientConnection, message: str | bytes) -> int | None:
    """The code the connection is closed with, None when it goes on."""
    try:
        await socket.send(message)
        await socket.send('{"still":"there"}')
        await (await socket.ping())
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006
    return None


async def ended(socket: ClientConnection) -> int | None:
    """The code the connection is closed with, sooner or later; nothing is said before."""
    with pytest.raises(ConnectionClosed) as caught:
        await socket.recv()
    return caught.value.rcvd.code if caught.value.rcvd else 1006


async def test_fuzzed_first_messages_do_not_get_in(bff: Bff) -> None:
    for message in made_up():
        async with connect(bff.ws_url) as socket:
            await socket.send(message)
            assert await ended(socket) in CODES, repr(message)[:200]


async def test_fuzzed_messages_of_a_user_harm_nobody(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    async with watching(bff, user) as bystander:
        await push(bystander)
        for message in made_up():
            async with watching(bff, user) as socket:
                await push(socket)
                # Whoever goes on sending after a message that is too long may miss the close frame.
                assert await answers(socket, message) in CODES | {None, 1006}, repr(message)[:200]
        assert (await user.add("btcusdt", "1")).status_code == 200
        await push(bystander, until=lambda one: one["Coins"][0]["Quantity"] == "2")
