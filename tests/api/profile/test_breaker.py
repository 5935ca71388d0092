"""The circuit breaker, and which calls of the authorization service are made again."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from api.profile.auth_client import AuthClient, Visitor
from api.profile.breaker import Breaker
from api.profile.errors import NotAuthenticated, NotAvailable

RECOVERY_S = 0.2


async def answer() -> str:
    return "answer"


async def away() -> str:
    raise NotAvailable("away")


async def refusal() -> str:
    raise NotAuthenticated("no")


async def open_breaker() -> Breaker:
    breaker = Breaker(3, RECOVERY_S)
    for _ in range(3):
        with pytest.raises(NotAvailable):
            await breaker.call(away)
    assert breaker.open
    return breaker


async def half_open() -> Breaker:
    breaker = await open_breaker()
    async with asyncio.timeout(5):
        while breaker.open:  # noqa: ASYNC110 - it is time that is waited for
            await asyncio.sleep(0.01)
    return breaker


async def test_it_opens_after_failures_in_a_row_and_then_refuses_at_once() -> None:
    breaker = Breaker(3, RECOVERY_S)
    for attempt in (away, away, answer, away, away, refusal, away, away):
        with contextlib.suppress(NotAvailable, NotAuthenticated):
            await breaker.call(attempt)
        assert not breaker.open
    breaker, asked = await open_breaker(), False

    async def asks() -> None:
        nonlocal asked
        asked = True

    with pytest.raises(NotAvailable) as refused:
        await breaker.call(asks)
    assert not asked
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0


async def test_half_open_one_probe_at_a_time_and_its_success_closes() -> None:
    breaker, go_on = await half_open(), asyncio.Event()

    async def probe() -> str:
        await go_on.wait()
        return "back"

    probing = asyncio.create_task(breaker.call(probe))
    await asyncio.sleep(0)
    with pytest.raises(NotAvailable):
        await breaker.call(answer)
    go_on.set()
    assert await probing == "back"
    assert await asyncio.gather(breaker.call(answer), breaker.call(answer)) == ["answer"] * 2


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_probe_that_fails_or_is_given_up_opens_it_again(how: str) -> None:
    breaker = await half_open()
    if how == "fails":
        with pytest.raises(NotAvailable):
            await breaker.call(away)
    else:
        probing = asyncio.create_task(breaker.call(asyncio.Event().wait))
        await asyncio.sleep(0)
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
    assert breaker.open
    breaker = await half_open()
    assert await breaker.call(answer) == "answer"


async def test_a_refusal_by_the_service_is_an_answer() -> None:
    breaker = await half_open()
    with pytest.raises(NotAuthenticated):
        await breaker.call(refusal)
    assert not breaker.open


@pytest.fixture
async def counting() -> AsyncIterator[tuple[AuthClient, Counter[str]]]:
    """A client of a gRPC server that is never available, and how often each method was called there."""
    calls: Counter[str] = Counter()

    class Unavailable(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            async def handle(request: bytes, context: Any) -> bytes:
                calls[details.method.rpartition("/")[2]] += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
                return b""

            return grpc.unary_unary_rpc_method_handler(handle)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Unavailable()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = AuthClient(f"127.0.0.1:{port}")
    yield client, calls
    await client.close()
    await server.stop(0)


@pytest.mark.parametrize(
    ("method", "arguments", "times"),
    [("login", ("x", "y", Visitor()), 2), ("logout", ("x",), 2), ("register", ("x", "y", Visitor()), 1),
     ("refresh", ("x",), 1)],
)  # fmt: skip
async def test_only_what_is_safe_is_tried_twice(
    counting: tuple[AuthClient, Counter[str]], method: str, arguments: tuple[str, ...], times: int
) -> None:
    client, calls = counting
    with pytest.raises(NotAvailable):
        await getattr(client, method)(*arguments)
    assert list(calls.values()) == [times]
