"""Made-up messages to the WebSocket: each ends its own connection at the most."""

import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from profile_parts import Bff, NewUser, push, watching
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LONG = os.environ.get("API_TESTS") == "long"
# Not authenticated; not understood; too long; not UTF-8 (which the protocol itself forbids); no close frame came.
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
    FUZZ(given(MESSAGES)(found.append))()
    return found


async def test_fuzzed_first_messages_do_not_get_in(bff: Bff) -> None:
    for message in made_up():
        async with connect(bff.ws_url) as socket:
            await socket.send(message)
            try:
                raise AssertionError(f"{message!r} was answered: {await socket.recv()!r}")
            except ConnectionClosed as closed:
                assert closed.rcvd is not None, message
                assert closed.rcvd.code in CODES, (closed.rcvd, message)


async def test_fuzzed_messages_of_a_user_harm_nobody(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    async with watching(bff, user) as bystander:
        await push(bystander)
        for message in made_up():
            async with watching(bff, user) as socket:
                await push(socket)
                await socket.send(message)
                await socket.send('{"still":"there"}')
                pong = await socket.ping()
                try:
                    await pong
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None, message
                    assert closed.rcvd.code in CODES, (closed.rcvd, message)
        assert (await user.add("btcusdt", "1")).status_code == 200
        await push(bystander, until=lambda one: one["Coins"][0]["Quantity"] == "2")
