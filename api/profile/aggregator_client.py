"""Tells the aggregator who holds what, from an outbox: it may be away for as long as it likes."""

import asyncio
import logging
from collections.abc import Iterable

import httpx

from api.database import DatabaseAway
from api.profile.repository import CLAIM_S, ProfileRepository, SubscriptionChange

TIMEOUT_S = 5.0
BATCH = 16  # calls at a time
LOOK_EVERY_S = 2.0  # other processes write to the same outbox
GATHER_S = 0.1  # hundreds of changes a second are looked for ten times a second
MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
assert TIMEOUT_S < CLAIM_S  # nobody else may be told of a later change meanwhile

log = logging.getLogger(__name__)


class AggregatorClient:
    """`GET` and `DELETE /coin` of the aggregator (contract section 6)."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, timeout=TIMEOUT_S, trust_env=False)

    async def tell(self, change: SubscriptionChange) -> None:
        """Idempotent. Raises httpx.HTTPError when the aggregator is away or can't take it now."""
        method = "GET" if change.held else "DELETE"
        parameters = {"symbol": change.symbol, "id": str(change.user_id)}
        async with asyncio.timeout(TIMEOUT_S):
            response = await self._client.request(method, "/coin", params=parameters)
        if response.status_code == 422:
            # Delisted since: no try will ever be taken.
            log.warning("the aggregator does not know %s", change.symbol)
            return
        response.raise_for_status()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class Outbox:
    """Brings the changes to the aggregator, in order for each user and symbol; `wake()` after writing one."""

    def __init__(self, repository: ProfileRepository, aggregator: AggregatorClient) -> None:
        self._repository = repository
        self._aggregator = aggregator
        self._work = asyncio.Event()
        self._reconciled = False

    def wake(self) -> None:
        """There is something new."""
        self._work.set()

    async def run(self) -> None:
        """Until cancelled. Begins with telling all holdings again: the aggregator may have lost some."""
        pause_s = MIN_PAUSE_S
        while True:
            try:
                if not await self._deliver():
                    await self._wait_for_work()
                pause_s = MIN_PAUSE_S
            except (DatabaseAway, httpx.HTTPError, TimeoutError) as error:
                log.warning("the aggregator will be told later: %s", str(error) or type(error).__name__)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def _deliver(self) -> bool:
        """One batch; whether there may be more. Raises the first call's error."""
        if not self._reconciled:
            await self._repository.tell_all_again()
            self._reconciled = True
        self._work.clear()
        changes = await self._repository.claim_changes(BATCH)
        if not changes:
            return False
        results = await asyncio.gather(*(self._aggregator.tell(one) for one in changes), return_exceptions=True)
        told = [one.id for one, result in zip(changes, results, strict=True) if result is None]
        await self._repository.forget_changes(told, [one.id for one in changes if one.id not in told])
        _raise_first(results)
        return True

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._work.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_S)


def _raise_first(results: Iterable[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result
