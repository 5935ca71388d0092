"""The WebSocket (contract section 4), over real connections."""

import asyncio
import json
import signal
import socket as sockets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from profile_parts import (
    BASES,
    PASSWORD,
    TOKENS,
    Bff,
    NewUser,
    eventually,
    miniticker,
    now_second,
    publish,
    push,
    second_stat,
    unique,
    watching,
)
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.tokens import AccessTokens
from infra.local.part import free_port, running
from infra.local.valkey import valkey as valkey_part


async def closed(socket: ClientConnection) -> int:
    """The code it is closed with."""
    async with asyncio.timeout(20):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006


async def refused(bff: Bff, **options: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(bff.ws_url, **options):
            pass
    return caught.value


def subscribed(bff: Bff, symbol: str) -> bool:
    return bool(dict(bff.redis.pubsub_numsub(symbol))[symbol.encode()])


@contextmanager
def narrow_socket(bff: Bff) -> Iterator[sockets.socket]:
    """A connection whose kernel takes little on behalf of a client that does not read."""
    with sockets.socket() as narrow:
        narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        host, _, port = bff.url.removeprefix("http://").rpartition(":")
        narrow.connect((host, int(port)))
        narrow.setblocking(False)
        yield narrow


@pytest.fixture(autouse=True)
def _no_prices_left(bff: Bff) -> None:
    """Each test begins without prices on Redis; quotes that the service still remembers are loaded anew."""
    bff.redis.flushdb()


async def test_the_first_push_comes_at_once_from_the_last_prices(bff: Bff, new_user: NewUser) -> None:
    user, second = await new_user(btcusdt="1.5", xrpusdt="1"), now_second()
    await user.add("xrpusdt", "-1")
    publish(bff.redis, "btcusdt", "68123.45000000", second)
    publish(bff.redis, "xrpusdt", "0.50000000", second - 1000)
    async with watching(bff, user) as socket:
        text = await asyncio.wait_for(socket.recv(), 5)
    assert text == (
        f'{{"UserID":"{user.id}","UserName":"{user.name}","TotalValue":"102185.175",'
        '"Coins":[{"Symbol":"btcusdt","Quantity":"1.5","Price":"68123.45","Total":"102185.175"},'
        '{"Symbol":"xrpusdt","Quantity":"0","Price":"0.5","Total":"0"}],'
        f'"Sequence":1,"AsOf":{second + 1000},"Stale":[]}}'
    )


async def test_no_coins(bff: Bff, new_user: NewUser) -> None:
    async with watching(bff, await new_user()) as socket:
        message = await push(socket)
    assert (message["Coins"], message["TotalValue"], message["Sequence"], message["AsOf"]) == ([], "0", 1, 0)


async def test_a_coin_without_a_price(bff: Bff, new_user: NewUser) -> None:
    async with watching(bff, await new_user(ltcusdt="3")) as socket:
        message = await push(socket)
    assert message["Coins"] == [{"Symbol": "ltcusdt", "Quantity": "3", "Price": None, "Total": None}]
    assert (message["TotalValue"], message["Stale"]) == ("0", [])


async def test_prices_of_one_window_make_one_push(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1", ethusdt="2", solusdt="3")
    second = now_second() + 2000  # newer than the prices of other tests
    async with watching(bff, user) as socket:
        await push(socket)
        for symbol in ("btcusdt", "ethusdt", "solusdt"):
            await eventually(lambda symbol=symbol: subscribed(bff, symbol))
            publish(bff.redis, symbol, "1.00000000", second)
        first = await push(socket, lambda message: all(coin["Price"] == "1" for coin in message["Coins"]))
        with bff.redis.pipeline(transaction=False) as pipeline:
            for symbol, price in {"btcusdt": "10", "ethusdt": "20.5", "solusdt": "0.00000001"}.items():
                pipeline.publish(symbol, second_stat(symbol, price, second + 1000))
            pipeline.execute()
        message = await push(socket)
        assert message["Sequence"] == first["Sequence"] + 1
        assert message["TotalValue"] == "51.00000003"
        assert message["AsOf"] == second + 2000


async def test_only_what_is_newer_counts(bff: Bff, new_user: NewUser) -> None:
    user, second = await new_user(adausdt="1"), now_second()
    async with watching(bff, user) as socket:
        await eventually(lambda: subscribed(bff, "adausdt"))
        for close, timestamp, revision in (
            ("5", second, 1),
            ("4", second, 0),
            ("3", second - 1000, 7),
            ("5", second, 1),
            ("6", second, 2),
            ("not a price", second + 1000, 0),
        ):
            bff.redis.publish("adausdt", second_stat("adausdt", close, timestamp, revision))
        bff.redis.publish("adausdt", b"not JSON")
        prices = {(await push(socket, lambda message: message["Coins"][0]["Price"] == "6"))["Coins"][0]["Price"]}
        bff.redis.publish("adausdt", second_stat("adausdt", "7", second + 1000))
        prices.add((await push(socket))["Coins"][0]["Price"])
    assert prices == {"6", "7"}


async def test_until_the_first_trade_the_price_is_the_minitickers(bff: Bff, new_user: NewUser) -> None:
    user, second = await new_user(dotusdt="2"), now_second()
    miniticker(bff.redis, "dotusdt", "4.00000000", second)
    async with watching(bff, user) as socket:
        message = await push(socket)
        assert (message["TotalValue"], message["AsOf"]) == ("8", 0)
        miniticker(bff.redis, "dotusdt", "5.00000000", second + 500)
        await push(socket, lambda message: message["TotalValue"] == "10")
        publish(bff.redis, "dotusdt", "6.00000000", second)
        assert (await push(socket))["TotalValue"] == "12"
        miniticker(bff.redis, "dotusdt", "9.00000000", second + 3000)
        bff.redis.publish("dotusdt", second_stat("dotusdt", "6.5", second + 5000))
        assert (await push(socket))["TotalValue"] == "13"


async def test_an_old_price_is_stale_until_a_new_one_comes(bff: Bff, new_user: NewUser) -> None:
    user, second = await new_user(trxusdt="1", ltcusdt="1"), now_second()
    publish(bff.redis, "trxusdt", "2.00000000", second - 61_000)
    publish(bff.redis, "ltcusdt", "3.00000000", second - 58_000)
    async with watching(bff, user) as socket:
        message = await push(socket)
        assert (message["Stale"], message["TotalValue"]) == (["trxusdt"], "5")
        message = await push(socket, lambda message: len(message["Stale"]) == 2)
        assert time.time() * 1000 > second - 58_000 + 61_000
        publish(bff.redis, "trxusdt", "2.00000000", now_second())
        assert (await push(socket))["Stale"] == ["ltcusdt"]


async def test_a_change_of_the_portfolio_is_pushed_at_once(bff: Bff, new_user: NewUser) -> None:
    user, second = await new_user(btcusdt="1"), now_second() + 5000
    publish(bff.redis, "btcusdt", "100.00000000", second)
    publish(bff.redis, "ethusdt", "10.00000000", second)
    async with watching(bff, user) as one, watching(bff, user) as two:
        for socket in (one, two):
            assert (await push(socket))["TotalValue"] == "100"
        await user.add("btcusdt", "0.5")
        for socket in (one, two):
            assert (await push(socket))["TotalValue"] == "150"
        await user.add("ethusdt", "2")
        assert (await push(one))["TotalValue"] == "170"
        await user.delete("btcusdt")
        message = await push(one)
        assert [coin["Symbol"] for coin in message["Coins"]] == ["ethusdt"]
        assert (message["TotalValue"], message["Sequence"]) == ("20", 4)


async def test_users_get_their_own_pushes_only(bff: Bff, new_user: NewUser) -> None:
    one, other, second = await new_user(linkusdt="1"), await new_user(linkusdt="2"), now_second()
    async with watching(bff, one) as mine, watching(bff, other) as theirs:
        await push(mine)
        await push(theirs)
        await eventually(lambda: subscribed(bff, "linkusdt"))
        publish(bff.redis, "linkusdt", "7.00000000", second)
        assert (await push(mine, lambda m: m["Coins"][0]["Price"] == "7"))["UserID"] == one.id
        assert (await push(theirs, lambda m: m["Coins"][0]["Price"] == "7"))["TotalValue"] == "14"
        assert (await other.add("linkusdt", "1")).status_code == 200
        assert (await push(theirs))["TotalValue"] == "21"
        publish(bff.redis, "linkusdt", "8.00000000", second + 1000)
        message = await push(mine)
        assert (message["TotalValue"], message["UserName"]) == ("8", one.name)


async def test_one_subscription_a_symbol_from_first_to_last_holder(bff: Bff, new_user: NewUser) -> None:
    one, other = await new_user(uniusdt="1"), await new_user(uniusdt="2")
    async with watching(bff, one) as first:
        async with watching(bff, other), watching(bff, other):
            await eventually(lambda: subscribed(bff, "uniusdt"))
            assert dict(bff.redis.pubsub_numsub("uniusdt")) == {b"uniusdt": 1}
        await push(first)
        publish(bff.redis, "uniusdt", "3.00000000", now_second())
        await push(first, lambda message: message["TotalValue"] == "3")
        await one.delete("uniusdt")
        await eventually(lambda: not subscribed(bff, "uniusdt"))


async def test_two_processes_tell_each_other(bff: Bff, start_bff: Any, new_user: NewUser) -> None:
    with start_bff(database=bff.environment["POSTGRES_DB"]) as second:
        user = await new_user(btcusdt="1")
        async with watching(second, user) as socket:
            await push(socket)
            await eventually(lambda: bff.redis.publish("portfolio:changed", "test nobody") == 2)
            await user.add("btcusdt", "1")
            assert (await push(socket))["Coins"][0]["Quantity"] == "2"


async def test_a_bad_header_is_refused_before_the_upgrade(bff: Bff) -> None:
    expired = AccessTokens("a secret of the tests, 32 bytes or more", -10).issue(
        "0" * 8 + "-0000-4000-8000-" + "0" * 12, "x"
    )
    for header in ("Bearer x.y.z", f"Bearer {expired[0]}", "Basic dXNlcjpwYXNz", "Bearer", ""):
        error = await refused(bff, additional_headers={"Authorization": header})
        assert error.response.status_code == 401
        assert error.response.headers["WWW-Authenticate"] == "Bearer"
        assert error.response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(error.response.body or b"")["status"] == 401


async def test_a_refusal_is_no_error_in_the_log(start_bff: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with start_bff() as own:
        for headers in ({"Authorization": "Bearer x.y.z"}, {"Origin": "https://evil.example"}):
            await refused(own, additional_headers=headers)
    assert "ERROR" not in capfd.readouterr().err


async def test_a_browser_authenticates_with_its_first_message(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    async with connect(bff.ws_url, origin=bff.url) as socket:  # type: ignore[arg-type]
        await socket.send(json.dumps({"type": "auth", "accessToken": user.token}))
        assert (await push(socket))["UserID"] == user.id


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type":"auth","accessToken":"x.y.z"}', 4401),
        ('{"type":"auth","accessToken":7}', 4401),
        ('{"type":"auth"}', 4401),
        ('{"type":"other"}', 4401),
        ("[]", 4401),
        ("not JSON", 4401),
        (b"binary", 4401),
        ("[" * 4000, 4401),
        ('"' + "x" * 5000 + '"', 1009),
    ],
)
async def test_a_bad_first_message(bff: Bff, message: str | bytes, code: int) -> None:
    async with connect(bff.ws_url) as socket:
        await socket.send(message)
        assert await closed(socket) == code


async def test_silence_instead_of_a_first_message(bff: Bff) -> None:
    began = time.monotonic()
    async with connect(bff.ws_url) as socket:
        assert await closed(socket) == 4401
    assert 4 < time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:{port}", True),
        ("http://127.0.0.1:{port}", True),
        ("https://portfolio.example", True),
        ("https://evil.example", False),
        ("http://localhost:1", False),
        ("http://localhost", False),
        ("http://localhost:{port}.evil.example", False),
        ("http://evil.example:{port}", False),
        ("null", False),
        ("", False),
        ("http://[", False),
        ("file://", False),
    ],
)
async def test_origins(bff: Bff, new_user: NewUser, origin: str, allowed: bool) -> None:
    user = await new_user()
    headers = {**user.bearer, "Origin": origin.format(port=bff.url.rpartition(":")[2])}
    if allowed:
        async with connect(bff.ws_url, additional_headers=headers) as socket:
            await push(socket)
    else:
        assert (await refused(bff, additional_headers=headers)).response.status_code == 403


async def test_an_asterisk_allows_every_origin_as_for_http(start_bff: Any, new_user: NewUser) -> None:
    with start_bff(ALLOWED_ORIGINS="*") as bff:
        user = await new_user(bff)
        for origin in ("https://any.example", "null"):
            answer = await user.client.get("/api/v1/profile", headers={**user.bearer, "Origin": origin})
            assert answer.headers["access-control-allow-origin"] in ("*", origin)
            assert "access-control-allow-credentials" not in answer.headers
            async with connect(bff.ws_url, additional_headers={**user.bearer, "Origin": origin}) as socket:
                await push(socket)


async def test_an_expiring_token_ends_the_connection(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    user.token = AccessTokens("a secret of the tests, 32 bytes or more", 2).issue(user.id, user.name)[0]
    async with watching(bff, user) as socket:
        await push(socket)
        assert await closed(socket) == 4401


@pytest.mark.parametrize(("message", "code"), [("not JSON", 1008), (b"binary", 1008), ('"' + "x" * 5000 + '"', 1009)])
async def test_later_messages_that_are_not_understood(
    bff: Bff, new_user: NewUser, message: str | bytes, code: int
) -> None:
    async with watching(bff, await new_user()) as socket:
        await push(socket)
        await socket.send(message)
        assert await closed(socket) == code


async def test_later_messages_are_ignored(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    async with watching(bff, user) as socket:
        await push(socket)
        for message in ('{"type":"auth","accessToken":"x"}', "[]", "null"):
            await socket.send(message)
        await user.add("btcusdt", "1")
        assert (await push(socket))["Sequence"] == 2


async def test_a_slow_reader_gets_the_newest_state_and_delays_nobody(
    bff: Bff, start_bff: Any, new_user: NewUser
) -> None:
    symbols = [f"{base.lower()}usdt" for base in BASES]
    user, start, rounds = await new_user(**dict.fromkeys(symbols, "1.000000000000000001")), now_second(), 1000

    def end_of(number: int) -> Callable[[dict[str, Any]], bool]:
        return lambda message: bool(message["AsOf"] >= start + number + 1000)

    with start_bff(database=bff.environment["POSTGRES_DB"], PUSH_WINDOW="1ms") as own, narrow_socket(own) as narrow:
        async with watching(own, user, max_queue=1, sock=narrow) as slow, watching(own, user) as fast:
            await push(fast)
            await eventually(lambda: all(subscribed(own, symbol) for symbol in symbols))
            for number in range(rounds):
                with own.redis.pipeline(transaction=False) as pipeline:
                    for symbol in symbols:
                        pipeline.publish(symbol, second_stat(symbol, str(number + 1), start + number))
                    pipeline.execute()
                await push(fast, end_of(number))
            seen = [await push(slow)]
            while not end_of(rounds - 1)(seen[-1]):
                seen.append(await push(slow))
    assert [message["Sequence"] for message in seen] == list(range(1, len(seen) + 1))
    assert len(seen) < rounds / 2
    assert Decimal(seen[-1]["TotalValue"]) == len(symbols) * rounds * Decimal("1.000000000000000001")


async def test_a_stopping_server_says_going_away(start_bff: Any, new_user: NewUser) -> None:
    with start_bff() as own:
        user = await new_user(own, btcusdt="1")
        async with watching(own, user) as one, watching(own, user) as two, connect(own.ws_url) as unknown:
            await push(one)
            own.process.send_signal(signal.SIGTERM)
            assert [await closed(socket) for socket in (one, two, unknown)] == [1001] * 3
        assert await asyncio.to_thread(own.process.wait, 10) == 0


async def test_without_a_profile_there_are_no_coins(bff: Bff) -> None:
    token = TOKENS.issue("00000000-0000-4000-8000-00000000000b", "nobody")[0]
    async with connect(bff.ws_url, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
        assert (await push(socket))["Coins"] == []


async def test_without_redis_the_last_prices_stay_turn_stale_and_resume(
    start_bff: Any, new_user: NewUser, store_data: Path
) -> None:
    port = free_port()
    server = valkey_part(store_data / f"valkey-{port}", port)
    second = now_second()
    with start_bff(REDIS_ADDR=f"127.0.0.1:{port}", STALE_AFTER="2s") as own, Redis(port=port) as redis:
        with running(server, store_data / "valkey-of-ws.log"):
            publish(redis, "btcusdt", "100.00000000", second)
            user = await new_user(own, btcusdt="1")
            async with watching(own, user) as socket:
                await push(socket, lambda message: message["TotalValue"] == "100")
        async with watching(own, user) as socket:
            message = await push(socket, lambda message: message["Stale"] == ["btcusdt"])
            assert (message["TotalValue"], message["Coins"][0]["Price"]) == ("100", "100")
            account = {"name": unique(), "password": PASSWORD}
            assert (await user.client.post("/api/v1/auth/register", json=account)).status_code == 201
            assert (await user.client.post("/api/v1/auth/login", json=account)).status_code == 200
            await user.add("btcusdt", "1")
            await push(socket, lambda message: message["TotalValue"] == "200")
            with running(server, store_data / "valkey-of-ws.log"):
                redis.set("secondstat:last:btcusdt", second_stat("btcusdt", "101", now_second()))
                assert (await push(socket))["TotalValue"] == "202"
                await eventually(lambda: dict(redis.pubsub_numsub("btcusdt"))[b"btcusdt"])
                redis.publish("btcusdt", second_stat("btcusdt", "102", now_second() + 1000))
                message = await push(socket, lambda message: message["TotalValue"] == "204")
                assert message["Stale"] == []
