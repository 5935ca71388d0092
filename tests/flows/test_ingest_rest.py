"""The REST client against the simulated exchange's weights and refusals."""

import time

import httpx
import pytest
from flow_process import poll_until
from ingest_parts import get, process

from flows.domain.errors import ExchangeUnreachable, RateLimited
from flows.venues.binance.rest import RestClient
from infra.local.part import free_port


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    directory, port = tmp_path_factory.mktemp("exchange"), free_port()
    arguments = ("--port", str(port), "--data-dir", str(directory / "x"), "--symbols", "51", "--weight-limit", "100")
    with process("infra.local.exchange", directory / "log", *arguments):
        poll_until(lambda: get(f"http://127.0.0.1:{port}/api/v3/ping"), what="the exchange")
        yield f"http://127.0.0.1:{port}"


def fault(exchange, **order):
    assert httpx.post(f"{exchange}/sim/faults", json=order).status_code == 200


async def test_rows_and_their_bytes(exchange):
    async with RestClient(exchange) as rest:
        symbols = await rest.trading_symbols()
        assert "BTCUSDT" in symbols
        [chinese] = [symbol for symbol in symbols if not symbol.isascii()]
        assert await rest.agg_trades(chinese) is not None
        rows = await rest.agg_trades("BTCUSDT", limit=3)
        again = await rest.agg_trades("BTCUSDT", from_id=rows[0][0].a, limit=3)
        assert [row.a for row, _ in again][:2] == [row.a for row, _ in rows][:2]
        assert rows[0][1].startswith(b'{"a":%d,' % rows[0][0].a)
        assert rest.budget.used == 20 + 3 * 4


async def test_the_limit_is_learnt_and_kept(exchange):
    """The exchange allows 100 a minute here: the next requests wait for the next minute instead of being refused."""
    async with RestClient(exchange) as rest:
        await rest.agg_trades("BTCUSDT", limit=1)
        now_s = time.monotonic()
        delays = []
        for _ in range(30):
            delays.append(rest.budget.delay_s(4, now_s))
            if delays[-1]:
                break
            await rest.agg_trades("BTCUSDT", limit=1)
        assert delays[-1] > 0
        assert len(delays) <= 18


@pytest.mark.parametrize("status", [429, 418])
async def test_a_refusal_says_how_long_and_is_kept_to(exchange, status):
    fault(exchange, fault="rest_errors", status=status, retry_after_s=7)
    try:
        async with RestClient(exchange) as rest:
            with pytest.raises(RateLimited) as refused:
                await rest.agg_trades("BTCUSDT")
            assert refused.value.retry_after_s == 7
            assert 6 < rest.budget.delay_s(1, time.monotonic()) <= 7
    finally:
        fault(exchange, fault="clear")


async def test_no_exchange_and_no_json_are_unreachable(exchange):
    async with RestClient(f"http://127.0.0.1:{free_port()}") as rest:
        with pytest.raises(ExchangeUnreachable, match="can't reach"):
            await rest.trading_symbols()
    async with RestClient(f"{exchange}/livez?") as rest:
        with pytest.raises(ExchangeUnreachable, match="not the exchange's answer"):
            await rest.trading_symbols()
