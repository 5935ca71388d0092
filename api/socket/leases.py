"""Subscriptions that live as long as a stream asks for them: leases at the aggregator, renewed while held."""

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator

import httpx

TTL_S = 60
RENEW_EVERY_S = 20.0
RETRY_AFTER_S = 2.0
TIMEOUT_S = 5.0
_BATCH = 16  # calls at a time

log = logging.getLogger(__name__)


class Leases:
    """Holds each symbol at the aggregator once, however many streams want it.

    A crash leaks nothing: what is not renewed runs out after TTL_S. While the aggregator is away the streams go on
    with what is in the log, and it is told when it is back.
    """

    def __init__(self, aggregator_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=aggregator_url, timeout=TIMEOUT_S, trust_env=False)
        self._holder = f"socket:{uuid.uuid4()}"
        self._wanted: Counter[str] = Counter()
        self._told: dict[str, float] = {}  # when each symbol has to be renewed, by the loop's clock
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def held(self, symbols: Iterable[str]) -> Iterator[None]:
        """Subscribe the symbols (uppercase) meanwhile."""
        own = list(symbols)
        self._wanted.update(own)
        self._changed.set()
        try:
            yield
        finally:
            self._wanted.subtract(own)
            self._wanted = +self._wanted
            self._changed.set()

    async def run(self) -> None:
        """Keep the aggregator told until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._tell()
                pause_s = RENEW_EVERY_S
            except (httpx.HTTPError, TimeoutError) as error:
                log.warning("subscriptions: the aggregator is told later: %s", str(error) or type(error).__name__)
                pause_s = RETRY_AFTER_S
                await asyncio.sleep(RETRY_AFTER_S)
            # Not wait_for, which in Python 3.11 swallows a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def close(self) -> None:
        """Give everything back, as far as that can be done quickly."""
        self._wanted.clear()
        try:
            async with asyncio.timeout(2):
                await self._tell()
        except (httpx.HTTPError, TimeoutError) as error:
            log.info("subscriptions run out by themselves: %s", str(error) or type(error).__name__)
        await self._client.aclose()

    async def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [("GET", symbol) for symbol in self._wanted if self._told.get(symbol, 0.0) <= now]
        due += [("DELETE", symbol) for symbol in self._told if symbol not in self._wanted]
        for at in range(0, len(due), _BATCH):
            await asyncio.gather(*(self._call(method, symbol) for method, symbol in due[at : at + _BATCH]))

    async def _call(self, method: str, symbol: str) -> None:
        parameters = {"symbol": symbol, "id": self._holder} | ({"ttl": f"{TTL_S}s"} if method == "GET" else {})
        response = await self._client.request(method, "/coin", params=parameters)
        if response.status_code == 422:
            log.warning("the aggregator refuses %s: %s", symbol, response.text[:200])
        else:
            response.raise_for_status()
        if method == "GET":
            # Due a little early, so that the next round of renewals finds it.
            self._told[symbol] = asyncio.get_running_loop().time() + 0.9 * RENEW_EVERY_S
        else:
            self._told.pop(symbol, None)
